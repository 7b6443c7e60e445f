//! `microvm`: a PC without PCI, for kernels started directly, or SeaBIOS.
//!
//! Layout as QEMU's: I/O APIC, virtio-mmio slots at 0xfeb00000, generic event device, a serial port,
//! fw_cfg; i8259, i8254 and the clock chip unless switched off.

use std::sync::Arc;

use device_acpi::{GED_EVENT_BASE, GED_REGISTER_BASE, Ged, ged_register};
use device_fwcfg::FwCfg;
use firmware_acpi::{GenericEvents, IrqOverride, Legacy, Power};
use hw_core::{BusKind, Clock, Links};
use hw_virtio::{MmioSlot, VIRTIO_MMIO};
use runtime::Handle;

use crate::accelerator::Accelerator;
use machine_core::{Board, BoardError};

use crate::board::{Builder, apic_ids};
use crate::boot::{Direct, Ram, e820};
use crate::legacy;
use machine_core::MachineSpec;

const VIRTIO_BASE: u64 = 0xfeb0_0000;
const VIRTIO_STRIDE: u64 = 512;
/// Slots, and the global interrupt of the first.
const VIRTIO_SLOTS: usize = 8;
const VIRTIO_GSI: usize = 16;
/// Without ACPI the slots have ISA interrupts.
const VIRTIO_ISA_IRQ: usize = 5;
const GED_GSI: usize = 9;
/// Linux's option for the frequency of the time stamp counter, in kHz. This machine has neither HPET
/// nor PM timer to measure it by, and measuring by the i8254 fails on a busy host.
const TSC_OPTION: &str = "tsc_early_khz=";
/// RAM below 4 GiB ends here.
const LOW_LIMIT: u64 = 0xc000_0000;

/// Builds a microvm.
pub(crate) fn build(
    spec: &MachineSpec,
    accelerator: Arc<dyn Accelerator>,
    links: &mut Links,
    main_loop: Handle,
    clock: Clock,
) -> Result<Board, BoardError> {
    let has_pic = spec.switch("pic").unwrap_or(true);
    let has_acpi = spec.switch("acpi").unwrap_or(true);
    let tsc_hz = accelerator.tsc_hz();
    let mut b = Builder::new(spec, links, accelerator, clock, LOW_LIMIT, has_pic)?;
    if spec.switch("pit").unwrap_or(true) {
        legacy::add_pit(&mut b, hw_intc::LegacyReplacement::new())?;
    }
    let has_rtc = spec.switch("rtc").unwrap_or(true);
    if has_rtc {
        legacy::add_rtc(&mut b, hw_intc::LegacyReplacement::new())?;
    }
    let fw_cfg = FwCfg::at_ports();
    let items = fw_cfg.items();
    b.add("fw_cfg", "fw_cfg_io", Box::new(fw_cfg), &[])?;
    legacy::fill_fw_cfg(&items, spec)?;
    if has_acpi {
        let ged = Ged::new(b.button.clone());
        let pin = b.irqs[GED_GSI].clone();
        b.add("acpi-ged", "acpi-ged", Box::new(ged), &[("ged", pin)])?;
    }
    if spec.switch("isa-serial").unwrap_or(true) {
        b.add_serials(1)?;
    }
    b.add_parallels(0)?;

    let first = if has_acpi { VIRTIO_GSI } else { VIRTIO_ISA_IRQ };
    let mut cmdline = spec.append.clone();
    let auto = spec.switch("auto-kernel-cmdline").unwrap_or(true);
    if auto && !cmdline.contains(TSC_OPTION) {
        cmdline.push_str(&format!(" {TSC_OPTION}{}", tsc_hz / 1000));
    }
    let transport = spec.args_by_default(&VIRTIO_MMIO, &[("force-legacy", "off")])?;
    let mut used = 0;
    for device in &spec.devices {
        match device.class.bus {
            BusKind::Virtio => {
                if used == VIRTIO_SLOTS {
                    return Err(BoardError::Config(format!(
                        "-device {}: all {VIRTIO_SLOTS} virtio-mmio slots of 'microvm' are taken",
                        device.class.name
                    )));
                }
                let base = VIRTIO_BASE + used as u64 * VIRTIO_STRIDE;
                let slot = MmioSlot::new(base, &transport);
                let line = b.irqs[first + used].clone();
                b.add_user(
                    device,
                    &format!("virtio-mmio-bus.{used}"),
                    Some(&slot),
                    &[line],
                )?;
                b.boot_order
                    .add(device, &format!("/virtio-mmio@{:016x}/disk@0,0", slot.base))?;
                if !has_acpi && auto {
                    let more = format!(
                        " virtio_mmio.device={VIRTIO_STRIDE}@{:#x}:{}",
                        slot.base,
                        first + used
                    );
                    cmdline.push_str(&more);
                }
                used += 1;
            }
            BusKind::VirtioSerial | BusKind::Scsi => {
                b.add_child(device)?;
            }
            BusKind::Isa => {
                b.add_isa(device)?;
            }
            BusKind::Pci | BusKind::Ide | BusKind::Nvme | BusKind::System => {
                return Err(b.no_bus(device));
            }
        }
    }

    let acpi = has_acpi.then(|| {
        firmware_acpi::build(&firmware_acpi::Board {
            apic_ids: apic_ids(spec),
            lapic: 0xfee0_0000,
            ioapics: vec![firmware_acpi::IoApic {
                id: 0,
                address: 0xfec0_0000,
                gsi_base: 0,
            }],
            overrides: vec![IrqOverride {
                irq: 0,
                gsi: 2,
                level: false,
            }],
            has_8259: has_pic,
            power: Power::Reduced(GenericEvents {
                events: GED_EVENT_BASE as u32,
                gsi: GED_GSI as u32,
                power_button: ged_register::POWER_BUTTON,
                sleep: GED_REGISTER_BASE + ged_register::SLEEP_CONTROL,
                s5: ged_register::SLEEP_TYPE_S5,
                reset: (
                    GED_REGISTER_BASE + ged_register::RESET,
                    ged_register::RESET_VALUE,
                ),
            }),
            hpet: None,
            pci: None,
            legacy: Legacy {
                rtc: has_rtc.then_some(8),
                serial: b.serial_ports(),
                ..Legacy::default()
            },
            fw_cfg: Some(device_fwcfg::PORT as u16),
            pvpanic: None,
            virtio_mmio: (0..used)
                .map(|n| firmware_acpi::VirtioMmio {
                    base: (VIRTIO_BASE + n as u64 * VIRTIO_STRIDE) as u32,
                    gsi: (first + n) as u32,
                })
                .collect(),
        })
    });
    let ram = Ram {
        block: b.ram.clone(),
        low: b.low,
    };
    let map = e820(spec, b.low, &[]);
    let Some(kernel) = &spec.kernel else {
        // As QEMU's: the one that knows ACPI, or the one that is done at once.
        let own = if has_acpi {
            "bios-microvm.bin"
        } else {
            "qboot.rom"
        };
        let bios = legacy::map_bios(&b, spec.bios.as_deref().unwrap_or(own))?;
        legacy::offer(&b, &items, acpi.as_ref(), &[])?;
        let board = b.finish(main_loop)?;
        // This machine has no chipset that would show RAM instead of a ROM there.
        board.machine.set_boot(move |index, _| {
            if index == 0 {
                bios.copy(&ram);
            }
        });
        return Ok(board);
    };
    if spec.bios.is_some() {
        return Err(BoardError::Config(format!(
            "-bios: machine 'microvm' starts '{}' without firmware; leave -bios or -kernel out",
            kernel.path
        )));
    }
    // QEMU's has none, and looking for them takes time.
    let smbios = match spec.smbios.is_empty() {
        true => None,
        false => Some(legacy::smbios(spec, b.low)?),
    };
    let board = b.finish(main_loop)?;
    Direct {
        spec: spec.clone(),
        ram,
        cmdline,
        e820: map,
        acpi,
        smbios,
    }
    .install(&board)?;
    Ok(board)
}
