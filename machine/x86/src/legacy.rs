//! Firmware's side of a PC: what it finds in fw_cfg, in CMOS and in the BIOS area.

use std::path::PathBuf;
use std::sync::Arc;

use device_fwcfg::{Items, keys};
use device_rtc::{Cmos, Rtc, RtcBase, RtcConfig};
use device_timer::{KernelPit, Pit};
use firmware_load::{
    Boot, BzImage, E820, E820Kind, Kind as FileKind, Module, Places, find_firmware, identify,
    linux_option_rom,
};
use firmware_smbios::EntryPoint;
use hw_core::Device;
use hw_intc::LegacyReplacement;
use hw_memory::{MappingSpec, RamBlock, What};

use machine_core::{BoardError, bootorder};

use crate::board::{Builder, FOUR_GIB};
use crate::boot::Ram;
use machine_core::{FileSpec, MachineSpec};

/// Bytes of the BIOS area below 1 MiB.
const ISA_BIOS_MAX: u64 = 0x2_0000;

/// Items that every PC has.
pub(crate) fn fill_fw_cfg(items: &Items, spec: &MachineSpec) -> Result<(), BoardError> {
    let (cpus, most) = (spec.topology.cpus as u16, spec.topology.maxcpus as u16);
    items.add_u64(keys::RAM_SIZE, spec.memory);
    items.add_u16(keys::NB_CPUS, cpus);
    // The local APIC id limit, which is what firmware takes this for.
    items.add_u16(keys::MAX_CPUS, most.max(cpus));
    items.add_u16(keys::NOGRAPHIC, u16::from(spec.nographic));
    items.add_u16(keys::BOOT_MENU, u16::from(spec.boot.menu));
    let first = spec.boot.once.as_ref().unwrap_or(&spec.boot.order);
    items.add_u16(
        keys::BOOT_DEVICE,
        first.bytes().next().unwrap_or(b'c').into(),
    );
    items.add_u32(keys::IRQ0_OVERRIDE, 1);
    items.add_bytes(keys::NUMA, vec![0; 16]);
    if let Some(uuid) = spec.uuid {
        items.add_bytes(keys::UUID, uuid.to_vec());
    }
    for (name, bytes) in &spec.fw_cfg {
        items
            .add_user_file(name, bytes.clone())
            .map_err(|e| BoardError::Config(format!("-fw_cfg: {e}")))?;
    }
    Ok(())
}

/// Bytes of the flash chips together, at most.
const FLASH_MAX: u64 = 8 << 20;
/// Bytes of an erase block of theirs.
const FLASH_SECTOR: u64 = 4096;

/// Maps the flash chips that have drives below 4 GiB, the first on top. Returns the last part of that
/// one, as firmware in it is seen below 1 MiB, too.
pub(crate) fn add_flash(b: &mut Builder<'_>) -> Result<Option<IsaBios>, BoardError> {
    let error = |text: String| Err(BoardError::Boot(text));
    let spec = b.spec;
    let mut isa = None;
    let mut end = FOUR_GIB;
    for n in 0..spec.flash.len() {
        let Some(len) = b.flash_len(n) else { continue };
        if n > 0 && isa.is_none() {
            return error(format!(
                "flash chip {n} has a drive and chip 0 has none: firmware is in the first; add '-drive if=pflash,unit=0,...'"
            ));
        }
        if spec.bios.is_some() {
            return error(
                "-bios: firmware is in the first flash chip already; leave either out".into(),
            );
        }
        if len == 0 || !len.is_multiple_of(FLASH_SECTOR) || FOUR_GIB - end + len > FLASH_MAX {
            return error(format!(
                "flash chip {n}: an image of {len} bytes does not fit; it is a multiple of {FLASH_SECTOR} bytes, and all \
                 chips together have {FLASH_MAX} at most"
            ));
        }
        end -= len;
        let (base, blocks) = (end.to_string(), (len / FLASH_SECTOR).to_string());
        let (sector, name) = (FLASH_SECTOR.to_string(), format!("system.flash{n}"));
        let props = [
            ("base", base.as_str()),
            ("name", name.as_str()),
            ("num-blocks", blocks.as_str()),
            ("sector-length", sector.as_str()),
            ("width", "1"),
        ];
        let block = b.add_flash(n, &props)?;
        let seen = len.min(ISA_BIOS_MAX);
        isa.get_or_insert(IsaBios {
            block,
            offset: len - seen,
            len: seen,
        });
    }
    Ok(isa)
}

/// Maps a BIOS image below 4 GiB. Returns its last part, which belongs below 1 MiB.
pub(crate) fn map_bios(b: &Builder<'_>, name: &str) -> Result<IsaBios, BoardError> {
    let executable = std::env::current_exe().ok();
    let dirs: &[PathBuf] = &b.spec.firmware_dirs;
    let path = find_firmware(name, dirs, executable.as_deref())
        .map_err(|e| BoardError::Boot(e.to_string()))?;
    let bytes = std::fs::read(&path).map_err(|e| {
        BoardError::Boot(format!("cannot read the firmware {}: {e}", path.display()))
    })?;
    let len = bytes.len() as u64;
    if len == 0 || !len.is_multiple_of(0x1_0000) || len > 16 << 20 {
        return Err(BoardError::Boot(format!(
            "{} is no PC firmware: its size is {len}, not a multiple of 64 KiB up to 16 MiB",
            path.display()
        )));
    }
    let block =
        RamBlock::new("pc.bios", len).map_err(|source| BoardError::Memory { size: len, source })?;
    let block = Arc::new(block);
    block.write(0, &bytes);
    b.fabric.memory.add(MappingSpec {
        name: "pc.bios".into(),
        base: FOUR_GIB - len,
        len,
        priority: 1,
        enabled: true,
        what: What::Rom {
            block: block.clone(),
            offset: 0,
            writes: None,
        },
    });
    let len = len.min(ISA_BIOS_MAX);
    let offset = block.len() - len;
    Ok(IsaBios { block, offset, len })
}

/// The part of a BIOS that is seen below 1 MiB.
pub(crate) struct IsaBios {
    block: Arc<RamBlock>,
    offset: u64,
    len: u64,
}

impl IsaBios {
    /// Maps it over PCI, until the chipset shows RAM instead.
    pub(crate) fn map(self, b: &Builder<'_>) {
        b.fabric.memory.add(MappingSpec {
            name: "isa-bios".into(),
            base: self.base(),
            len: self.len,
            priority: device_pci::priority::ON_PCI,
            enabled: true,
            what: What::Rom {
                block: self.block,
                offset: self.offset,
                writes: None,
            },
        });
    }

    fn base(&self) -> u64 {
        0x10_0000 - self.len
    }

    /// Copies it into RAM, as it is after power on.
    pub(crate) fn copy(&self, ram: &Ram) {
        let mut bytes = vec![0; self.len as usize];
        let copied = self
            .block
            .read(self.offset, &mut bytes)
            .and_then(|()| ram.write(self.base(), &bytes));
        if copied.is_none() {
            log::error!("there is no memory for the firmware; give more with -m");
        }
    }
}

/// The SMBIOS tables.
pub(crate) fn smbios(spec: &MachineSpec, low: u64) -> Result<firmware_smbios::Tables, BoardError> {
    let mut ram = vec![(0, low)];
    if spec.memory > low {
        ram.push((FOUR_GIB, spec.memory - low));
    }
    let entry = match spec.property("smbios-entry-point-type").as_deref() {
        Some("64") => EntryPoint::V3,
        _ => EntryPoint::V2,
    };
    machine_core::smbios(spec, &ram, entry)
}

/// Everything that firmware finds in fw_cfg beside the items that every PC has.
pub(crate) fn offer(
    b: &Builder<'_>,
    items: &Items,
    acpi: Option<&firmware_acpi::Tables>,
    reserved: &[E820],
) -> Result<(), BoardError> {
    let spec = b.spec;
    let mut map = vec![E820::new(0, b.low, E820Kind::Ram)];
    map.extend_from_slice(reserved);
    if spec.memory > b.low {
        map.push(E820::new(FOUR_GIB, spec.memory - b.low, E820Kind::Ram));
    }
    let file = |name: &str, bytes: Vec<u8>| {
        items
            .add_file(name, bytes)
            .map_err(|e| BoardError::Boot(e.to_string()))
    };
    file("etc/e820", firmware_load::e820_bytes(&map))?;
    if let Some(acpi) = acpi {
        for (name, bytes) in acpi.loader().named() {
            file(name, bytes)?;
        }
    }
    if let Some(order) = b.boot_order.file(spec.boot.strict) {
        file(bootorder::FILE, order)?;
    }
    let tables = smbios(spec, b.low)?;
    file(firmware_smbios::TABLES_FILE, tables.structures().to_vec())?;
    file(firmware_smbios::ANCHOR_FILE, tables.anchor(0))
}

/// A kernel for a BIOS to start: its parts in fw_cfg, and the option ROM that fetches them.
pub(crate) fn offer_kernel(
    b: &mut Builder<'_>,
    items: &Items,
    kernel: &FileSpec,
    e820: &[E820],
) -> Result<(), BoardError> {
    let error =
        |e: &dyn std::fmt::Display| BoardError::Boot(format!("-kernel {}: {e}", kernel.path));
    let contents = kernel.contents("-kernel")?;
    if identify(&contents) != FileKind::BzImage {
        let what = "only a Linux bzImage can be started by firmware; leave -bios out";
        return Err(error(&what));
    }
    let initrd = match &b.spec.initrd {
        Some(file) => Some((file, file.contents("-initrd")?)),
        None => None,
    };
    let module = initrd.as_ref().map(|(file, bytes)| Module {
        bytes,
        cmdline: &file.path,
    });
    let boot = Boot {
        name: &kernel.path,
        cmdline: &b.spec.append,
        modules: module.as_slice(),
        e820,
        rsdp: None,
        places: Places::default(),
    };
    let image = BzImage::parse(&contents).map_err(|e| error(&e))?;
    for (key, bytes) in image.firmware_items(&boot).map_err(|e| error(&e))? {
        items.add_bytes(key, bytes.into_owned());
    }
    for file in b.spec.initrd.iter().chain([kernel]) {
        file.forget();
    }
    items
        .add_file("genroms/linuxboot_dma.bin", linux_option_rom())
        .map_err(|e| error(&e))?;
    b.boot_order.add_kernel();
    Ok(())
}

/// The interval timer: the kernel's, where it has the interrupt controllers.
pub(crate) fn add_pit(
    b: &mut Builder<'_>,
    legacy: Arc<LegacyReplacement>,
) -> Result<(), BoardError> {
    let kernel = b.accelerator.pit().map_err(BoardError::Accelerator)?;
    let (class, device): (_, Box<dyn Device>) = match kernel {
        None => {
            let args = b.spec.args(&device_timer::ISA_PIT, &[])?;
            let pit = Pit::new(args.need_int("iobase")?, legacy);
            (device_timer::ISA_PIT.name, Box::new(pit))
        }
        Some(kernel) => {
            let args = b.spec.args(&device_timer::KVM_PIT, &[])?;
            let catch_up = args.text("lost_tick_policy") != Some("discard");
            let pit = KernelPit::new(kernel, legacy, catch_up);
            (device_timer::KVM_PIT.name, Box::new(pit))
        }
    };
    // One path for both: a saved machine moves between accelerators.
    b.add("isa-pit", class, device, &[])?;
    Ok(())
}

fn set_boot_order(
    cmos: &Cmos,
    key: &str,
    order: &str,
    checks_floppies: bool,
) -> Result<(), BoardError> {
    if cmos.set_boot_order(order, checks_floppies) {
        return Ok(());
    }
    Err(BoardError::Config(format!(
        "-boot {key}={order}: not up to three of a (floppy), c (disk), d (CD), n (network)"
    )))
}

/// The clock chip with what firmware reads from its CMOS.
pub(crate) fn add_rtc(
    b: &mut Builder<'_>,
    legacy: Arc<LegacyReplacement>,
) -> Result<(), BoardError> {
    let spec = b.spec;
    let base = RtcBase::new(spec.rtc.start_s, spec.rtc.offset_s);
    let cmos = Cmos::default();
    cmos.set_memory(b.low, spec.memory.saturating_sub(b.low));
    cmos.set_cpus(spec.topology.cpus);
    let order = match spec.boot.order.as_str() {
        "" => "cad",
        order => order,
    };
    let checks_floppies = spec.switch("fd-bootchk").unwrap_or(true);
    set_boot_order(&cmos, "order", order, checks_floppies)?;
    if let Some(once) = &spec.boot.once {
        set_boot_order(&cmos, "once", once, checks_floppies)?;
        let (later, order) = (cmos.clone(), order.to_owned());
        b.on_first_reset = Some(Box::new(move || {
            later.set_boot_order(&order, checks_floppies);
        }));
    }
    let config = RtcConfig::of(&spec.args(&device_rtc::MC146818RTC, &[])?)?;
    let rtc = Rtc::new(
        RtcConfig {
            base,
            clock: spec.rtc.clock,
            slew: spec.rtc.slew || config.slew,
            ..config
        },
        cmos,
        legacy,
    );
    b.add("mc146818rtc", "mc146818rtc", Box::new(rtc), &[])?;
    Ok(())
}
