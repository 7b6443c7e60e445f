//! `pc` and `q35`: PCs with PCI, for firmware and for kernels started directly.
//!
//! `pc` is an i440FX with PIIX3, `q35` a Q35 with ICH9; all else they share. A kernel given with
//! `-kernel` starts without firmware: the board places the power management block and the memory
//! mapped configuration space itself, and Linux assigns the rest from the ACPI tables.

use std::sync::Arc;

use device_acpi::{PIIX4_GPE_BASE, PmBlock, PmConfig, PmLayout, PmWindow};
use device_fwcfg::FwCfg;
use device_ide::{Ahci, AhciOptions, Piix3Ide};
use device_input::Input;
use device_pci::{
    I440fx, Ich9Lpc, LpcConfig, Mch, MchConfig, Piix3, Piix4Pm, PirqRouter, PlaceIo, Smram,
};
use device_timer::{HPET_BASE, Hpet, HpetConfig};
use firmware_acpi::{Fixed, IrqOverride, Legacy, PciRoot, Power, Routing};
use firmware_load::{E820, E820Kind};
use hw_core::{Access, Attrs, BusKind, Clock, Device, Initiator, Links, Part, Placement, RegionId};
use hw_pci::{PciBus, PciOptions, devfn};
use runtime::Handle;

use crate::accelerator::Accelerator;
use machine_core::{Board, BoardError};

use crate::board::{Builder, apic_ids};
use crate::boot::{Direct, Ram, e820};
use crate::legacy;
use machine_core::MachineSpec;

use crate::machines::Kind;

/// Port of the power management block.
const PM_BASE: u16 = 0x600;
/// PAM0 for an area that is read from RAM and written to PCI (82441FX datasheet, 3.2.18).
const PAM_READS_RAM: u64 = 0x10;
/// The system control interrupt.
const SCI: u16 = 9;
/// Configuration space on q35: 256 buses.
const ECAM: u64 = 0xb000_0000;
const ECAM_LEN: u64 = 0x1000_0000;
/// PCI memory ends below the I/O APIC.
const PCI_LAST: u64 = 0xfebf_ffff;

/// Where RAM below 4 GiB ends, as QEMU has it.
fn low_limit(spec: &MachineSpec) -> u64 {
    let wanted = spec.property("max-ram-below-4g");
    // Whole pages of the host, whatever was asked for.
    let wanted = wanted
        .and_then(|bytes| bytes.parse::<u64>().ok())
        .map(|bytes| bytes & !0xf_ffff);
    let own = match (Kind::of(spec.machine), spec.memory) {
        (Kind::Q35, memory) if memory >= 0xb000_0000 => 0x8000_0000,
        (Kind::Q35, _) => 0xb000_0000,
        (_, memory) if memory >= 0xe000_0000 => 0xc000_0000,
        _ => 0xe000_0000,
    };
    wanted
        .filter(|bytes| *bytes != 0)
        .map_or(own, |bytes| bytes.min(own))
}

struct Pc<'a> {
    b: Builder<'a>,
    bus: PciBus,
    q35: bool,
    window: PmWindow,
    smram: Smram,
}

impl Pc<'_> {
    fn add_pci(
        &mut self,
        path: &str,
        class: &'static str,
        device: Box<dyn Device>,
    ) -> Result<Arc<Part>, BoardError> {
        let placement = Placement {
            path: path.into(),
            class,
            bus_name: self.bus.name().into(),
            bus_irqs: &self.b.irqs,
            bus: Some(&self.bus),
            ..Placement::default()
        };
        Ok(self.b.fabric.add(device, placement)?)
    }

    /// The controller of `-drive if=ide`.
    fn add_ide(&mut self) -> Result<(), BoardError> {
        if !self.q35 {
            let function = Piix3Ide::new(devfn(1, 1));
            let part = self.add_pci("piix3-ide", "piix3-ide", Box::new(function))?;
            self.b.adopt(&part, "ide", "/pci@i0cf8/ide@1,1");
        } else if self.b.spec.switch("sata") != Some(false) {
            let options = AhciOptions {
                devfn: Some(devfn(31, 2)),
            };
            let function = Ahci::new(options, PciOptions::default());
            let part = self.add_pci("ich9-ahci", "ich9-ahci", Box::new(function))?;
            self.b.adopt(&part, "ide", "/pci@i0cf8/pci8086,2922@1f,2");
        }
        Ok(())
    }

    /// Host bridge, ISA bridge, power management.
    fn add_chipset(&mut self, router: Arc<PirqRouter>, direct: bool) -> Result<(), BoardError> {
        let window = self.window.clone();
        let place_pm: PlaceIo = Arc::new(move |base, enabled| window.place(base, enabled));
        let (ram, smram) = (self.b.ram.clone(), self.smram.clone());
        if self.q35 {
            let ecam = direct.then_some(ECAM);
            self.add_pci(
                "mch",
                "mch",
                Box::new(Mch::new(MchConfig { ram, smram, ecam })),
            )?;
            let config = LpcConfig {
                router,
                place_pm: Some(place_pm),
            };
            self.add_pci("ich9-lpc", "ICH9-LPC", Box::new(Ich9Lpc::new(config)))?;
        } else {
            self.add_pci("i440fx", "i440FX", Box::new(I440fx::new(ram, smram)))?;
            self.add_pci("piix3", "PIIX3", Box::new(Piix3::new(router)))?;
            let config = device_pci::PmConfig {
                place_pm: Some(place_pm),
                ..Default::default()
            };
            self.add_pci("piix4-pm", "PIIX4_PM", Box::new(Piix4Pm::new(config)))?;
        }
        let config = PmConfig {
            layout: self.layout(),
            window: self.window.clone(),
            button: self.b.button.clone(),
            ..PmConfig::default()
        };
        let sci = self.b.irqs[usize::from(SCI)].clone();
        self.b.add(
            "acpi-pm",
            "acpi-pm",
            Box::new(PmBlock::new(config)),
            &[("sci", sci)],
        )?;
        Ok(())
    }

    fn layout(&self) -> PmLayout {
        if self.q35 {
            PmLayout::Ich9
        } else {
            PmLayout::Piix4
        }
    }

    /// Timers, keyboard, clock, ports.
    fn add_legacy(&mut self) -> Result<(), BoardError> {
        let spec = self.b.spec;
        let legacy = hw_intc::LegacyReplacement::new();
        if spec.switch("pit").unwrap_or(true) {
            legacy::add_pit(&mut self.b, legacy.clone())?;
        }
        if self.has_hpet() {
            let args = spec.args(&device_timer::HPET, &[])?;
            let config = HpetConfig {
                timers: args.need_int("timers")? as u8,
                msi: args.flag("msi").unwrap_or(false),
                ..HpetConfig::default()
            };
            let hpet = Hpet::new(config, legacy.clone());
            self.b.add("hpet", "hpet", Box::new(hpet), &[])?;
        }
        legacy::add_rtc(&mut self.b, legacy)?;
        let a20 = self.b.a20_hub.clone();
        if spec.switch("i8042").unwrap_or(true) {
            let input = Input::default();
            let pins = [("a20", a20.clone())];
            self.b.links.offer("input", "ps2", input.clone());
            self.b
                .add_class("i8042", &device_input::I8042_CLASS, &[], &pins)?;
            self.b.input = Some(input);
        }
        self.b
            .add_class("port92", &device_misc::PORT92, &[], &[("a20", a20)])?;
        Ok(())
    }

    fn has_hpet(&self) -> bool {
        self.b.spec.switch("hpet").unwrap_or(true)
    }

    fn add_devices(&mut self) -> Result<(), BoardError> {
        self.b.add_serials(4)?;
        self.b.add_parallels(3)?;
        let spec = self.b.spec;
        for device in &spec.devices {
            match device.class.bus {
                BusKind::VirtioSerial | BusKind::Ide | BusKind::Scsi | BusKind::Nvme => {
                    self.b.add_child(device)?;
                }
                BusKind::Isa => {
                    self.b.add_isa(device)?;
                }
                BusKind::Pci => {
                    let irqs = self.b.irqs.clone();
                    self.b.add_pci(device, &self.bus, &irqs, "/pci@i0cf8")?;
                }
                BusKind::Virtio | BusKind::System => return Err(self.b.no_bus(device)),
            }
        }
        Ok(())
    }

    fn acpi(&self) -> firmware_acpi::Tables {
        let spec = self.b.spec;
        let layout = self.layout();
        let (enable, disable) = layout.acpi_commands();
        let gpe = if self.q35 {
            (PM_BASE + 0x20, 16)
        } else {
            (PIIX4_GPE_BASE as u16, 4)
        };
        let first = if self.q35 {
            ECAM + ECAM_LEN
        } else {
            self.b.low.max(0x8000_0000)
        };
        let present = |name: &str| spec.switch(name).unwrap_or(true);
        firmware_acpi::build(&firmware_acpi::Board {
            apic_ids: apic_ids(spec),
            lapic: 0xfee0_0000,
            ioapics: vec![firmware_acpi::IoApic {
                id: 0,
                address: 0xfec0_0000,
                gsi_base: 0,
            }],
            overrides: [0u8, 5, 9, 10, 11]
                .map(|irq| IrqOverride {
                    irq,
                    gsi: if irq == 0 { 2 } else { irq.into() },
                    level: irq != 0,
                })
                .to_vec(),
            has_8259: present("pic"),
            power: Power::Fixed(Fixed {
                pm_base: PM_BASE,
                gpe,
                sci: SCI,
                smi_command: (0xb2, enable, disable),
                s3: false,
            }),
            hpet: self.has_hpet().then_some(HPET_BASE as u32),
            pci: Some(PciRoot {
                routing: if self.q35 {
                    Routing::Ich9
                } else {
                    Routing::Piix
                },
                last_bus: 0xff,
                io: vec![(0, 0xcf7), (0xd00, 0xffff)],
                memory: vec![(0xa_0000, 0xb_ffff), (first, PCI_LAST)],
                ecam: self.q35.then_some(ECAM),
            }),
            legacy: Legacy {
                rtc: Some(8),
                i8042: present("i8042"),
                serial: self.b.serial_ports(),
                ..Legacy::default()
            },
            fw_cfg: Some(device_fwcfg::PORT as u16),
            pvpanic: None,
            virtio_mmio: Vec::new(),
        })
    }
}

/// Builds a `pc` or `q35`.
pub(crate) fn build(
    spec: &MachineSpec,
    accelerator: Arc<dyn Accelerator>,
    links: &mut Links,
    main_loop: Handle,
    clock: Clock,
) -> Result<Board, BoardError> {
    let q35 = Kind::of(spec.machine) == Kind::Q35;
    let has_pic = spec.switch("pic").unwrap_or(true);
    let b = Builder::new(spec, links, accelerator, clock, low_limit(spec), has_pic)?;
    let router = if q35 {
        PirqRouter::ich9(&b.irqs)
    } else {
        PirqRouter::piix(&b.irqs)
    };
    let bus = PciBus::new(if q35 { "pcie.0" } else { "pci.0" }, q35, router.clone());
    let mut pc = Pc {
        b,
        bus,
        q35,
        window: PmWindow::default(),
        smram: Smram::default(),
    };
    let has_flash = spec.flash.iter().any(Option::is_some);
    let direct = spec.kernel.is_some() && spec.bios.is_none() && !has_flash;
    pc.add_chipset(router, direct)?;
    pc.add_ide()?;
    pc.add_legacy()?;
    let fw_cfg = FwCfg::at_ports();
    let items = fw_cfg.items();
    pc.b.add("fw_cfg", "fw_cfg_io", Box::new(fw_cfg), &[])?;
    legacy::fill_fw_cfg(&items, spec)?;
    pc.add_devices()?;
    let acpi = spec.switch("acpi").unwrap_or(true).then(|| pc.acpi());
    let low = pc.b.low;
    let reserved = [E820::new(ECAM, ECAM_LEN, E820Kind::Reserved)];
    let map = e820(spec, low, if q35 { &reserved } else { &[] });
    let ram = Ram {
        block: pc.b.ram.clone(),
        low,
    };
    let bus = pc.bus.clone();
    if !direct {
        let isa = match legacy::add_flash(&mut pc.b)? {
            Some(isa) => isa,
            None => legacy::map_bios(&pc.b, spec.bios.as_deref().unwrap_or("bios-256k.bin"))?,
        };
        isa.map(&pc.b);
        if let Some(kernel) = &spec.kernel {
            legacy::offer_kernel(&mut pc.b, &items, kernel, &map)?;
        }
        let reserved: &[E820] = if q35 { &reserved } else { &[] };
        legacy::offer(&pc.b, &items, acpi.as_ref(), reserved)?;
    }
    pc.b.pci = Some(bus.clone());
    let board = pc.b.finish(main_loop)?;
    if direct {
        let start = move || as_firmware_leaves_it(&bus, q35);
        let cmdline = spec.append.clone();
        Direct {
            spec: spec.clone(),
            ram,
            cmdline,
            e820: map,
            acpi,
            smbios: Some(legacy::smbios(spec, low)?),
        }
        .install_with(&board, start)?;
    }
    Ok(board)
}

/// What firmware does before a kernel on a real board: the power management block at its port, and
/// RAM instead of a BIOS at 0xf0000, which only reads.
fn as_firmware_leaves_it(bus: &PciBus, q35: bool) {
    let write = |function: u8, register: u16, size: u8, value: u64| {
        let access = Access {
            region: RegionId::default(),
            offset: u64::from(register),
            size,
            by: Initiator::Cpu(0),
            attrs: Attrs::default(),
        };
        if let Err(fault) = bus.write(0, function, register, access, value) {
            log::error!("power management register {register:#x}: {fault}");
        }
    };
    let base = u64::from(PM_BASE) | 1;
    if q35 {
        write(devfn(0, 0), 0x90, 1, PAM_READS_RAM);
        write(devfn(31, 0), 0x40, 4, base);
        write(devfn(31, 0), 0x44, 1, 0x80);
    } else {
        write(devfn(0, 0), 0x59, 1, PAM_READS_RAM);
        write(devfn(1, 3), 0x40, 4, base);
        write(devfn(1, 3), 0x80, 1, 1);
        // The ports of both IDE channels answer.
        write(devfn(1, 1), 0x40, 4, 0x8000_8000);
    }
}
