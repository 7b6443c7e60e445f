//! Reports about the machine's parts: `info mtree`, `info qtree`, `query-pci`.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use control_qapi::{PciDeviceClass, PciDeviceId, PciDeviceInfo, PciInfo, PciMemoryRegion};
use hw_core::Fabric;
use hw_memory::{MappingSpec, MemoryMap, What};
use hw_pci::{BarInfo, BarKind, FunctionInfo, PciBus};

/// The memory and port maps, as declared or, with `flat`, as they answer.
pub(crate) fn mtree(fabric: &Fabric, flat: bool) -> String {
    let mut out = String::new();
    for (name, map, last) in [
        ("memory", &fabric.memory, u64::MAX),
        ("I/O", &fabric.ports, 0xffff),
    ] {
        let _ = writeln!(out, "address-space: {name}");
        if flat {
            flat_view(map, &mut out);
        } else {
            let root = if name == "memory" { "system" } else { "io" };
            let _ = writeln!(out, "  {:016x}-{last:016x} (prio 0, i/o): {root}", 0);
            declared(map, &mut out);
        }
        out.push('\n');
    }
    out
}

fn kind(what: &What) -> &'static str {
    match what {
        What::Ram { .. } => "ram",
        What::Rom { .. } => "rom",
        What::Io { .. } => "i/o",
    }
}

fn declared(map: &MemoryMap, out: &mut String) {
    let mut mappings = map.mappings();
    mappings.sort_by_key(|m: &MappingSpec| (m.base, m.priority));
    for m in mappings.iter().filter(|m| m.len > 0) {
        let last = m.base.saturating_add(m.len - 1);
        let state = if m.enabled { "" } else { " [disabled]" };
        let _ = writeln!(
            out,
            "    {:016x}-{last:016x} (prio {}, {}): {}{state}",
            m.base,
            m.priority,
            kind(&m.what),
            m.name
        );
    }
}

fn flat_view(map: &MemoryMap, out: &mut String) {
    for span in map.snapshot().spans() {
        let (start, last) = (span.start, span.last);
        let _ = write!(
            out,
            "  {start:016x}-{last:016x} ({}): {}",
            kind(&span.what),
            span.name
        );
        match span.skip {
            0 => out.push('\n'),
            skip => {
                let _ = writeln!(out, " @{skip:016x}");
            }
        }
    }
}

/// All devices by their bus, with their properties.
pub(crate) fn qtree(fabric: &Fabric) -> String {
    let parts = fabric.parts();
    let mut buses: Vec<&str> = Vec::new();
    for part in &parts {
        if !buses.contains(&part.bus.as_str()) {
            buses.push(&part.bus);
        }
    }
    let mut out = String::new();
    for bus in buses {
        let _ = writeln!(out, "bus: {bus}");
        for part in parts.iter().filter(|part| part.bus == bus) {
            let _ = writeln!(out, "  dev: {}, id \"{}\"", part.class, part.path);
            for (name, value) in &part.props {
                let _ = writeln!(out, "    {name} = {value:?}");
            }
            for (name, value) in part.with(|device| device.inspect()) {
                let _ = writeln!(out, "    {name} {value:#x}");
            }
        }
    }
    out
}

/// All functions by their bus.
pub(crate) fn pci(root: &PciBus) -> Vec<PciInfo> {
    let mut buses: BTreeMap<u8, Vec<PciDeviceInfo>> = BTreeMap::new();
    buses.entry(0).or_default();
    for function in root.all_functions() {
        buses
            .entry(function.bus)
            .or_default()
            .push(function_info(&function));
    }
    buses
        .into_iter()
        .map(|(bus, devices)| PciInfo {
            bus: i64::from(bus),
            devices,
        })
        .collect()
}

fn function_info(f: &FunctionInfo) -> PciDeviceInfo {
    PciDeviceInfo {
        bus: i64::from(f.bus),
        slot: i64::from(f.slot),
        function: i64::from(f.function),
        class_info: PciDeviceClass {
            desc: class_name(f.class).map(str::to_owned),
            class: i64::from(f.class),
        },
        id: PciDeviceId {
            device: i64::from(f.device),
            vendor: i64::from(f.vendor),
            subsystem: Some(i64::from(f.subsystem.1)),
            subsystem_vendor: Some(i64::from(f.subsystem.0)),
        },
        irq: (f.interrupt_pin != 0).then(|| i64::from(f.interrupt_line)),
        irq_pin: i64::from(f.interrupt_pin),
        qdev_id: f.name.clone(),
        regions: f.bars.iter().map(region).collect(),
    }
}

fn region(bar: &BarInfo) -> PciMemoryRegion {
    let is_io = bar.kind == BarKind::Io;
    PciMemoryRegion {
        bar: i64::from(bar.index),
        kind: if is_io { "io" } else { "memory" }.to_owned(),
        // -1 for a BAR without an address, as QEMU has it.
        address: bar.base.map_or(-1, u64::cast_signed),
        size: bar.len.cast_signed(),
        prefetch: (!is_io).then_some(matches!(
            bar.kind,
            BarKind::Memory32 { prefetch: true } | BarKind::Memory64 { prefetch: true }
        )),
        mem_type_64: (!is_io).then_some(matches!(bar.kind, BarKind::Memory64 { .. })),
    }
}

/// Names of base class and subclass (PCI Code and ID Assignment Specification, 1).
fn class_name(class: u16) -> Option<&'static str> {
    Some(match class {
        0x0100 => "SCSI controller",
        0x0101 => "IDE controller",
        0x0106 => "SATA controller",
        0x0108 => "NVMe controller",
        0x0200 => "Ethernet controller",
        0x0300 => "VGA controller",
        0x0600 => "Host bridge",
        0x0601 => "ISA bridge",
        0x0604 => "PCI bridge",
        0x0680 => "Bridge",
        0x0700 => "Serial port",
        0x0780 => "Communication controller",
        0x0c03 => "USB controller",
        0x0c05 => "SMBus",
        _ => return None,
    })
}
