//! Firmware's side of a PC: what it finds in fw_cfg, in CMOS and in the BIOS area.

use std::path::PathBuf;
use std::sync::Arc;

use device_fwcfg::{Items, keys};
use device_rtc::{Cmos, Rtc, RtcBase, RtcClock, RtcConfig};
use firmware_load::find_firmware;
use firmware_smbios::{EntryPoint, Smbios};
use hw_intc::LegacyReplacement;
use hw_memory::{MappingSpec, RamBlock, What};

use crate::board::{BoardError, Builder, FOUR_GIB};
use crate::spec::PcSpec;

/// Bytes of the BIOS area below 1 MiB.
const ISA_BIOS_MAX: u64 = 0x2_0000;

/// Items that every PC has.
pub(crate) fn fill_fw_cfg(items: &Items, spec: &PcSpec) -> Result<(), BoardError> {
    let (cpus, most) = (spec.topology.cpus as u16, spec.topology.maxcpus as u16);
    items.add_u64(keys::RAM_SIZE, spec.memory);
    items.add_u16(keys::NB_CPUS, cpus);
    // The local APIC id limit, which is what firmware takes this for.
    items.add_u16(keys::MAX_CPUS, most.max(cpus));
    items.add_u16(keys::NOGRAPHIC, u16::from(spec.nographic));
    items.add_u16(keys::BOOT_MENU, u16::from(spec.boot.menu));
    items.add_u16(
        keys::BOOT_DEVICE,
        spec.boot.order.bytes().next().unwrap_or(b'c').into(),
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

/// Maps a BIOS image below 4 GiB, and its last part below 1 MiB.
pub(crate) fn map_bios(b: &Builder<'_>, name: &str) -> Result<(), BoardError> {
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
    let rom = |offset: u64| What::Rom {
        block: block.clone(),
        offset,
        writes: None,
    };
    let map = |name: &str, base: u64, offset: u64, len: u64, priority: i32| {
        b.fabric.memory.add(MappingSpec {
            name: name.into(),
            base,
            len,
            priority,
            enabled: true,
            what: rom(offset),
        });
    };
    map("pc.bios", FOUR_GIB - len, 0, len, 1);
    let isa = len.min(ISA_BIOS_MAX);
    map(
        "isa-bios",
        0x10_0000 - isa,
        len - isa,
        isa,
        device_pci::priority::ON_PCI,
    );
    Ok(())
}

/// SMBIOS tables for firmware.
pub(crate) fn add_smbios(items: &Items, spec: &PcSpec, low: u64) -> Result<(), BoardError> {
    let error = |e: &dyn std::fmt::Display| BoardError::Config(format!("-smbios: {e}"));
    let mut options = Smbios::default();
    for option in &spec.smbios {
        let get = |name: &str| {
            option
                .iter()
                .find(|(k, _)| k == name)
                .map(|(_, v)| v.as_str())
        };
        if let Some(file) = get("file") {
            let bytes =
                std::fs::read(file).map_err(|e| error(&format!("cannot read '{file}': {e}")))?;
            options.add_file(&bytes).map_err(|e| error(&e))?;
            continue;
        }
        let kind = get("type").and_then(|t| t.parse().ok());
        let kind = kind.ok_or_else(|| error(&"give type=N, a structure's number, or file=PATH"))?;
        let fields = option
            .iter()
            .filter(|(k, _)| k != "type")
            .map(|(k, v)| (k.as_str(), v.as_str()));
        options.add(kind, fields).map_err(|e| error(&e))?;
    }
    let mut ram = vec![(0, low)];
    if spec.memory > low {
        ram.push((FOUR_GIB, spec.memory - low));
    }
    let t = &spec.topology;
    let machine = firmware_smbios::Machine {
        manufacturer: "Mimic",
        product: spec.machine.doc,
        version: spec.machine.name,
        uuid: spec.uuid,
        sockets: t.sockets as u16,
        cores: (t.cores * t.dies.max(1)) as u16,
        threads: t.threads as u16,
        processor_id: 0,
        ram: &ram,
    };
    let tables = firmware_smbios::build(&machine, &options, EntryPoint::default());
    let error = |e: device_fwcfg::ItemError| BoardError::Boot(e.to_string());
    items
        .add_file(firmware_smbios::TABLES_FILE, tables.structures().to_vec())
        .map_err(error)?;
    items
        .add_file(firmware_smbios::ANCHOR_FILE, tables.anchor(0))
        .map_err(error)
}

/// The clock chip with what firmware reads from its CMOS.
pub(crate) fn add_rtc(
    b: &mut Builder<'_>,
    legacy: Arc<LegacyReplacement>,
) -> Result<(), BoardError> {
    let spec = b.spec;
    let base = match (spec.rtc.start_s, spec.rtc.offset_s) {
        (Some(start), _) => RtcBase::Date(start),
        (None, 0) => RtcBase::Utc,
        (None, shift) => RtcBase::Shifted(shift),
    };
    let clock = if spec.rtc.virtual_time {
        RtcClock::Vm
    } else {
        RtcClock::Host
    };
    let cmos = Cmos::default();
    cmos.set_memory(b.low, spec.memory.saturating_sub(b.low));
    cmos.set_cpus(spec.topology.cpus);
    let order = if spec.boot.order.is_empty() {
        "cad"
    } else {
        &spec.boot.order
    };
    if !cmos.set_boot_order(order, true) {
        return Err(BoardError::Config(format!(
            "-boot order={order}: not up to three of a (floppy), c (disk), d (CD), n (network)"
        )));
    }
    let rtc = Rtc::new(
        RtcConfig {
            base,
            clock,
            ..RtcConfig::default()
        },
        cmos,
        legacy,
    );
    b.add("mc146818rtc", "mc146818rtc", Box::new(rtc), &[])?;
    Ok(())
}
