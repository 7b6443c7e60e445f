//! The generic PCI Express host bridge: configuration space in memory, a window onto I/O ports, four
//! interrupt wires.
//!
//! Spec: PCI Firmware Specification 3.3, section 4.1 (ECAM); the device tree binding
//! `pci-host-ecam-generic`. Ids as QEMU's `gpex-root`.
//!
//! Memory of functions needs no window: it appears in the memory map where its BARs say.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};

use hw_core::{
    Access, AccessSizes, ByteOrder, DeviceError, Fault, IoRegion, IrqHub, IrqLine, IrqSink,
    RegionId, ResetKind, Section, StateError,
};
use hw_memory::{MappingSpec, MemoryMap, What};
use hw_pci::{Ecam, Pci, PciDevice, PciFunction, PciOptions, Setup};

const VENDOR: u16 = 0x1b36;
const DEVICE: u16 = 0x0008;
const CLASS: u32 = 0x06_0000;
/// INTA# to INTD#.
const PINS: usize = 4;

/// Where the parts of the bridge are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GpexConfig {
    /// Base and length of configuration space.
    pub ecam: (u64, u64),
    /// Base and length of the window onto I/O ports.
    pub ports: (u64, u64),
}

/// The interrupt wires: what a `hw_pci::PciBus` drives. Slots take them in turn.
pub struct GpexLines {
    /// Pins that are high, `devfn << 2 | pin`.
    high: Mutex<BTreeSet<u32>>,
    lines: [IrqLine; PINS],
}

impl GpexLines {
    /// Wires to these inputs of an interrupt controller.
    pub fn new(inputs: &[IrqHub; PINS]) -> Arc<Self> {
        Arc::new(GpexLines {
            high: Mutex::default(),
            lines: inputs.each_ref().map(IrqHub::line),
        })
    }

    /// The wire of a slot's pin (0 is INTA#), for firmware tables.
    pub fn wire(slot: u8, pin: u8) -> u8 {
        slot.wrapping_add(pin) & 3
    }
}

impl IrqSink for GpexLines {
    fn set(&self, number: u32, level: bool) {
        let mut high = self.high.lock().unwrap_or_else(PoisonError::into_inner);
        if level {
            high.insert(number);
        } else {
            high.remove(&number);
        }
        let wire = |n: &u32| GpexLines::wire((n >> 5) as u8 & 31, *n as u8 & 3);
        for (n, line) in (0u8..).zip(&self.lines) {
            line.set(high.iter().any(|number| wire(number) == n));
        }
    }
}

/// A part of the memory map whose accesses are those of ports.
struct PortWindow {
    ports: MemoryMap,
}

impl IoRegion for PortWindow {
    fn read(&self, access: Access) -> Result<u64, Fault> {
        let Access {
            offset,
            size,
            by,
            attrs,
            ..
        } = access;
        let map = self.ports.snapshot();
        match map.read(offset, size, ByteOrder::Little, by, attrs) {
            // No port there: the bridge answers by itself.
            Err(Fault::Unassigned) => Ok(u64::MAX),
            result => result,
        }
    }

    fn write(&self, access: Access, value: u64) -> Result<(), Fault> {
        let Access {
            offset,
            size,
            by,
            attrs,
            ..
        } = access;
        let map = self.ports.snapshot();
        match map.write(offset, size, value, ByteOrder::Little, by, attrs) {
            Ok(_) | Err(Fault::Unassigned) => Ok(()),
            Err(fault) => Err(fault),
        }
    }
}

/// The host bridge at 00.0.
pub struct Gpex {
    config: GpexConfig,
}

impl Gpex {
    /// A bridge at these addresses.
    pub fn new(config: GpexConfig) -> PciDevice<Self> {
        PciDevice::new(Gpex { config }, PciOptions::at(0))
    }
}

impl PciFunction for Gpex {
    fn name(&self) -> &'static str {
        "gpex-root"
    }

    fn setup(&mut self, setup: &mut Setup<'_>) -> Result<(), DeviceError> {
        setup.ids(VENDOR, DEVICE, CLASS, 0);
        let memory = setup.wiring.memory_map();
        let (base, len) = self.config.ecam;
        let window = Ecam::new(setup.bus.clone()).map(&memory, len);
        window.place(base, true);
        let (base, len) = self.config.ports;
        memory.add(MappingSpec {
            name: "gpex_ioport".into(),
            base,
            len,
            priority: 1,
            enabled: true,
            what: What::Io {
                io: Arc::new(PortWindow {
                    ports: setup.wiring.port_map(),
                }),
                region: RegionId(0),
                order: ByteOrder::Little,
                sizes: AccessSizes::UP_TO_4,
            },
        });
        Ok(())
    }

    fn reset(&mut self, _: ResetKind) {}

    fn after_reset(&mut self, _: &mut Pci) {}

    fn save(&self) -> Section {
        Section::new(self.name(), 1)
    }

    fn restore(&mut self, section: &Section) -> Result<(), StateError> {
        section.expect(self.name(), 1)
    }
}
