//! `pc-testdev`: what kvm-unit-tests drives its machine with.
//!
//! Spec: QEMU `hw/misc/pc-testdev.c`. Ports 0xe0 to 0xe3 store what is written, as one 32-bit
//! register, and so do 0xe8 to 0xeb, taken byte by byte; 0xe4 is a page-flush port without effect;
//! writing to 0x2000 + n drives ISA interrupt n; the 64 KiB from 0xff000000 on are memory behind
//! device accesses.

use hw_core::{
    Access, AccessSizes, BusKind, Category, Device, DeviceClass, DeviceError, Fault, IrqLine,
    IrqPin, Region, RegionId, ResetKind, Section, StateError, Wiring,
};

/// The class.
pub static PC_TESTDEV: DeviceClass = DeviceClass {
    name: "pc-testdev",
    aliases: &[],
    doc: "test device of kvm-unit-tests",
    bus: BusKind::Isa,
    category: Category::Misc,
    props: &[],
    user_creatable: true,
    create: |_, _| Ok(Box::new(PcTestdev::default())),
};

const IRQ_LINES: u32 = 24;
const MEMORY_BASE: u64 = 0xff00_0000;
const MEMORY_LEN: usize = 0x1_0000;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Which {
    Word,
    Bytes,
    Flush,
    Irq,
    Memory,
}

/// The test device.
#[derive(Default)]
pub struct PcTestdev {
    irqs: Vec<IrqLine>,
    regions: Vec<(RegionId, Which)>,

    state: State,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct State {
    word: u32,
    /// Levels of the interrupt lines, one bit each.
    lines: u32,
    memory: Vec<u8>,
}

impl Default for State {
    fn default() -> Self {
        State {
            word: 0,
            lines: 0,
            memory: vec![0; MEMORY_LEN],
        }
    }
}

impl PcTestdev {
    fn sync(&self) {
        for (line, n) in self.irqs.iter().zip(0..) {
            line.set(self.state.lines.wrapping_shr(n) & 1 != 0);
        }
    }

    fn which(&self, access: Access) -> Result<Which, Fault> {
        let found = self.regions.iter().find(|(id, _)| *id == access.region);
        found.map(|(_, which)| *which).ok_or(Fault::NoRegister)
    }

    fn memory(&mut self, access: Access) -> Result<&mut [u8], Fault> {
        let from = usize::try_from(access.offset).map_err(|_| Fault::NoRegister)?;
        let to = from.saturating_add(usize::from(access.size));
        self.state.memory.get_mut(from..to).ok_or(Fault::NoRegister)
    }
}

/// Mask of the bytes that an access covers, and how far they are up in the register.
fn lane(access: Access) -> (u32, u32) {
    let shift = (access.offset as u32).wrapping_mul(8) & 31;
    let mask = match access.size {
        1 => 0xff,
        2 => 0xffff,
        _ => u32::MAX,
    };
    (mask, shift)
}

impl Device for PcTestdev {
    fn realize(&mut self, w: &mut dyn Wiring) -> Result<(), DeviceError> {
        let ports = [
            (Which::Word, Region::new("pc-testdev-ioport", 0xe0, 4)),
            (Which::Flush, Region::new("pc-testdev-flush-page", 0xe4, 4)),
            (
                Which::Bytes,
                Region::new("pc-testdev-ioport-byte", 0xe8, 4).sizes(AccessSizes::BYTE),
            ),
            (
                Which::Irq,
                Region::new("pc-testdev-irq-line", 0x2000, u64::from(IRQ_LINES))
                    .sizes(AccessSizes::BYTE),
            ),
        ];
        for (which, region) in ports {
            self.regions.push((w.ports(region).0, which));
        }
        let memory = Region::new("pc-testdev-iomem", MEMORY_BASE, MEMORY_LEN as u64);
        let (id, _) = w.mmio(memory.sizes(AccessSizes::ANY));
        self.regions.push((id, Which::Memory));
        self.irqs = (0..IRQ_LINES).map(|n| w.irq(IrqPin::Bus(n))).collect();
        Ok(())
    }

    fn reset(&mut self, _: ResetKind) {
        self.state = State::default();
    }

    fn after_reset(&mut self) {
        self.sync();
    }

    fn read(&mut self, access: Access) -> Result<u64, Fault> {
        match self.which(access)? {
            Which::Word | Which::Bytes => {
                let (mask, shift) = lane(access);
                Ok(u64::from(self.state.word.wrapping_shr(shift) & mask))
            }
            Which::Memory => {
                let bytes = self.memory(access)?;
                Ok(bytes.iter().rev().fold(0, |v, b| v << 8 | u64::from(*b)))
            }
            Which::Flush | Which::Irq => Err(Fault::WriteOnly),
        }
    }

    fn write(&mut self, access: Access, value: u64) -> Result<(), Fault> {
        match self.which(access)? {
            Which::Word | Which::Bytes => {
                let (mask, shift) = lane(access);
                let keep = self.state.word & !mask.wrapping_shl(shift);
                self.state.word = keep | (value as u32 & mask).wrapping_shl(shift);
            }
            Which::Memory => {
                let bytes = self.memory(access)?;
                for (slot, byte) in bytes.iter_mut().zip(value.to_le_bytes()) {
                    *slot = byte;
                }
            }
            // Meant for hypervisors that cache page tables; ours follow the guest's.
            Which::Flush => {}
            Which::Irq => {
                let bit = 1u32.wrapping_shl(access.offset as u32);
                self.state.lines &= !bit;
                if value != 0 {
                    self.state.lines |= bit;
                }
                self.sync();
            }
        }
        Ok(())
    }

    fn save(&self) -> Section {
        let State {
            word,
            lines,
            memory,
        } = self.state.clone();
        Section::new("pc-testdev", 1)
            .with(1, word)
            .with(2, lines)
            .with(3, memory)
    }

    fn restore(&mut self, section: &Section) -> Result<(), StateError> {
        section.expect("pc-testdev", 1)?;
        self.state = State {
            word: section.u32(1)?,
            lines: section.u32(2)?,
            memory: section.array::<MEMORY_LEN>(3)?.to_vec(),
        };
        Ok(())
    }

    fn inspect(&self) -> Vec<(&'static str, u64)> {
        vec![
            ("word", self.state.word.into()),
            ("lines", self.state.lines.into()),
        ]
    }
}
