//! The state of a GIC in the kernel, register by register, to and from the models'.
//!
//! Spec: Linux, Documentation/virt/kvm/devices/arm-vgic.rst, arm-vgic-v3.rst and arm-vgic-its.rst.

use std::io;

use hw_intc::{GIC_BANK, GicBank};

mod its;
mod v2;
mod v3;

pub(crate) use its::{read as read_its, write as write_its};
pub(crate) use v2::{read as read_v2, write as write_v2};
pub(crate) use v3::{read as read_v3, write as write_v3};

/// `KVM_DEV_ARM_VGIC_GRP_*`: kinds of attributes of the device.
pub(crate) mod group {
    pub(crate) const DIST_REGS: u32 = 1;
    pub(crate) const CPU_REGS: u32 = 2;
    pub(crate) const CTRL: u32 = 4;
    pub(crate) const REDIST_REGS: u32 = 5;
    pub(crate) const CPU_SYSREGS: u32 = 6;
    pub(crate) const LEVEL_INFO: u32 = 7;
    pub(crate) const ITS_REGS: u32 = 8;
}

/// Where a register's CPU is in the number of an attribute.
pub(super) const CPU_SHIFT: u32 = 32;

/// The attributes of a device in the kernel, or of a test's.
pub(crate) trait Attributes {
    fn get32(&self, group: u32, attribute: u64) -> io::Result<u32>;
    fn set32(&self, group: u32, attribute: u64, value: u32) -> io::Result<()>;
    fn get64(&self, group: u32, attribute: u64) -> io::Result<u64>;
    fn set64(&self, group: u32, attribute: u64, value: u64) -> io::Result<()>;
    /// Has it do something.
    fn order(&self, group: u32, attribute: u64) -> io::Result<()>;
}

/// Registers with a bit, two bits or a byte for each interrupt (IHI 0069H section 12.9): those of bank 0.
mod offset {
    pub(super) const IGROUPR: u64 = 0x080;
    pub(super) const ISENABLER: u64 = 0x100;
    pub(super) const ICENABLER: u64 = 0x180;
    pub(super) const ISPENDR: u64 = 0x200;
    pub(super) const ICPENDR: u64 = 0x280;
    pub(super) const ISACTIVER: u64 = 0x300;
    pub(super) const ICACTIVER: u64 = 0x380;
    pub(super) const IPRIORITYR: u64 = 0x400;
    pub(super) const ICFGR: u64 = 0xc00;
}

/// The registers of a bank of 32 interrupts, wherever they are.
struct BankAt<'a, A> {
    chip: &'a A,
    group: u32,
    /// CPU and offset of the frame.
    frame: u64,
    /// Which bank of the frame.
    n: u64,
}

/// The odd bits of two words of ICFGR: edge-triggered.
fn edges_of(words: [u32; 2]) -> u32 {
    (0..32).fold(0, |edges, n| {
        let word = words[usize::from(n >= 16)];
        edges | (word >> (2 * (n & 15) + 1) & 1) << n
    })
}

fn words_of(edges: u32) -> [u32; 2] {
    [0, 16].map(|first| {
        (0..16).fold(0, |word, n| {
            word | (edges >> (first + n) & 1) << (2 * n + 1)
        })
    })
}

impl<A: Attributes> BankAt<'_, A> {
    fn get(&self, offset: u64) -> io::Result<u32> {
        self.chip.get32(self.group, self.frame + offset)
    }

    fn set(&self, offset: u64, value: u32) -> io::Result<()> {
        self.chip.set32(self.group, self.frame + offset, value)
    }

    /// A register with a bit for each interrupt.
    fn bits(&self, offset: u64) -> u64 {
        offset + 4 * self.n
    }

    /// Word `word` of those with a byte for each.
    fn bytes(&self, offset: u64, word: u64) -> u64 {
        offset + GIC_BANK as u64 * self.n + 4 * word
    }

    /// Word `word` of those with two bits for each.
    fn pairs(&self, word: u64) -> u64 {
        offset::ICFGR + 8 * self.n + 4 * word
    }

    /// All but the levels of inputs.
    fn read(&self, lines: u32) -> io::Result<GicBank> {
        let bits = |at| self.get(self.bits(at));
        let mut bank = GicBank {
            group: bits(offset::IGROUPR)?,
            enabled: bits(offset::ISENABLER)?,
            latched: bits(offset::ISPENDR)?,
            active: bits(offset::ISACTIVER)?,
            lines,
            edges: edges_of([self.get(self.pairs(0))?, self.get(self.pairs(1))?]),
            priority: [0; GIC_BANK],
            // There is one Security state.
            modifier: 0,
            lent: 0,
        };
        for (word, bytes) in (0..).zip(bank.priority.as_chunks_mut::<4>().0) {
            *bytes = self
                .get(self.bytes(offset::IPRIORITYR, word))?
                .to_le_bytes();
        }
        Ok(bank)
    }

    /// What is pending by a level is not written: the inputs say so.
    fn write(&self, bank: &GicBank) -> io::Result<()> {
        let bits = |at, value| self.set(self.bits(at), value);
        // How an interrupt is triggered does not change while it is enabled.
        bits(offset::ICENABLER, u32::MAX)?;
        bits(offset::IGROUPR, bank.group)?;
        for (word, value) in (0..).zip(words_of(bank.edges)) {
            self.set(self.pairs(word), value)?;
        }
        for (word, bytes) in (0..).zip(bank.priority.as_chunks::<4>().0) {
            let value = u32::from_le_bytes(*bytes);
            self.set(self.bytes(offset::IPRIORITYR, word), value)?;
        }
        bits(offset::ICPENDR, u32::MAX)?;
        bits(offset::ISPENDR, bank.latched)?;
        bits(offset::ICACTIVER, u32::MAX)?;
        bits(offset::ISACTIVER, bank.active)?;
        bits(offset::ISENABLER, bank.enabled)
    }
}
