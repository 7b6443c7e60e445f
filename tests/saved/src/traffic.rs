//! Random register accesses, as a guest that means harm makes them.

use std::collections::BTreeSet;

use hw_core::{Attrs, ByteOrder, Initiator, ResetKind};
use hw_memory::{MemoryMap, What};
use machine_core::Machine;

use crate::mutate::Random;

/// PCI configuration mechanism 1 (PCI Local Bus Specification 3.0, 3.2.2.3.2).
const CONFIG_ADDRESS: u64 = 0xcf8;
const CONFIG_DATA: u64 = 0xcfc;
/// The name of a region that is configuration space in memory.
const ECAM: &str = "pcie-mmcfg";
/// A function's command register.
const COMMAND: u64 = 4;
/// Guest memory that rings, descriptors and buffers are made up in.
const SCRATCH: u64 = 0x1_0000;

/// Accesses to a stopped machine's devices, in an order that nobody planned.
pub struct Traffic<'a> {
    machine: &'a Machine,
    random: Random,
}

impl<'a> Traffic<'a> {
    /// Traffic by this seed.
    pub fn new(machine: &'a Machine, seed: u64) -> Self {
        Traffic {
            machine,
            random: Random::new(seed),
        }
    }

    /// Takes this many steps: accesses mostly, and now and then time passes, memory changes, the
    /// machine is reset, or saved and restored. Returns the names of the regions that were reached.
    ///
    /// # Panics
    /// When a device does not take back what it saved.
    pub fn run(mut self, steps: usize) -> BTreeSet<String> {
        let mut reached = BTreeSet::new();
        let fabric = self.machine.fabric();
        fabric.clock.start();
        for _ in 0..steps {
            match self.random.below(256) {
                0 if self.random.below(16) == 0 => fabric.reset(ResetKind::Cold),
                1 if self.random.below(16) == 0 => {
                    for part in fabric.parts() {
                        let saved = part.with(|device| device.save());
                        let taken = part.with(|device| device.restore(&saved));
                        assert!(taken.is_ok(), "{}: {taken:?} of {saved:?}", part.path);
                        part.with(|device| (device.inspect(), device.after_reset()));
                    }
                }
                0..8 => {
                    let ahead = self.random.number() >> (24 + self.random.below(40));
                    let now = fabric.clock.now_ns();
                    fabric.clock.set_ns(now.wrapping_add(ahead));
                    fabric.clock.run_timers();
                }
                8..40 => self.scribble(),
                40..90 => self.configure(),
                90..170 => reached.extend(access(&fabric.ports, &mut self.random)),
                _ => reached.extend(access(&fabric.memory, &mut self.random)),
            }
        }
        fabric.drain();
        fabric.clock.stop();
        reached
    }

    /// A configuration register of a function on the first bus, some of them in use.
    fn configure(&mut self) {
        let ports = self.machine.fabric().ports.snapshot();
        let (by, attrs) = (Initiator::Cpu(0), Attrs::default());
        let device = self.random.below(16) as u64;
        // Functions beside the first are seldom there.
        let function = [0, 0, 0, 0, 0, 1, 2, 3][self.random.below(8)];
        let (register, size, value) = match self.random.below(4) {
            // As firmware sizes a BAR, places it beside RAM, and enables the function.
            0 => (self.bar(), 4, u64::MAX),
            1 => (
                self.bar(),
                4,
                0xe000_0000 | (self.random.number() & 0xff_c000),
            ),
            2 if self.random.below(2) == 0 => {
                (self.bar(), 4, 0xc000 | (self.random.number() & 0xf80))
            }
            2 => (COMMAND, 2, 7),
            _ => {
                let register = self.random.number() & 0xff;
                (register, 1 << self.random.below(3), self.random.number())
            }
        };
        let memory = self.machine.fabric().memory.snapshot();
        let ecam = memory.spans().iter().find(|span| &*span.name == ECAM);
        if let Some(ecam) = ecam.filter(|_| ports.find(CONFIG_ADDRESS).is_none()) {
            let address = ecam.start + (device << 15 | function << 12 | register);
            let _ = memory.write(address, size, value, ByteOrder::Little, by, attrs);
            let _ = memory.read(address, size, ByteOrder::Little, by, attrs);
            return;
        }
        let address = 1 << 31 | device << 11 | function << 8 | (register & 0xfc);
        let _ = ports.write(CONFIG_ADDRESS, 4, address, ByteOrder::Little, by, attrs);
        let data = CONFIG_DATA + (register & 3);
        let _ = ports.write(data, size, value, ByteOrder::Little, by, attrs);
        let _ = ports.read(data, size, ByteOrder::Little, by, attrs);
    }

    /// The register of one of the six BARs.
    fn bar(&mut self) -> u64 {
        0x10 + 4 * self.random.below(6) as u64
    }

    /// Bytes where a device may come to read: small numbers, addresses, or anything.
    fn scribble(&mut self) {
        let memory = self.machine.fabric().memory.snapshot();
        let address = self.random.below(SCRATCH as usize) as u64 & !7;
        let value = match self.random.below(3) {
            0 => self.random.number() & 0x0003_0007_0000_0fff,
            1 => self.random.number() & (SCRATCH - 1),
            _ => self.random.number(),
        };
        let (by, attrs) = (Initiator::Cpu(0), Attrs::default());
        let _ = memory.write(address, 8, value, ByteOrder::Little, by, attrs);
    }
}

/// One access to some device of this map. Registers answer or fault; either is well. Returns the
/// name of the region.
pub(crate) fn access(map: &MemoryMap, random: &mut Random) -> Option<String> {
    let mut devices = map.mappings();
    devices.retain(|mapping| mapping.enabled && matches!(mapping.what, What::Io { .. }));
    let mapping = devices.get(random.below(devices.len()))?;
    let len = usize::try_from(mapping.len)
        .unwrap_or(usize::MAX)
        .min(0x1000);
    let address = mapping.base.wrapping_add(random.below(len) as u64);
    let size = 1 << random.below(3);
    let (by, attrs) = (Initiator::Cpu(0), Attrs::default());
    let snapshot = map.snapshot();
    if random.below(2) == 0 {
        let _ = snapshot.read(address, size, ByteOrder::Little, by, attrs);
    } else {
        let value = random.number() >> random.below(64);
        let _ = snapshot.write(address, size, value, ByteOrder::Little, by, attrs);
    }
    Some(mapping.name.to_string())
}
