//! Everything of a CPU that IR does not address: segments, control registers, MSRs, x87.

use crate::system::SystemState;

/// Exception vectors (SDM vol. 3, table 6-1).
#[allow(missing_docs)]
pub mod vector {
    pub const DE: u8 = 0;
    pub const DB: u8 = 1;
    pub const NMI: u8 = 2;
    pub const BP: u8 = 3;
    pub const OF: u8 = 4;
    pub const BR: u8 = 5;
    pub const UD: u8 = 6;
    pub const NM: u8 = 7;
    pub const DF: u8 = 8;
    pub const TS: u8 = 10;
    pub const NP: u8 = 11;
    pub const SS: u8 = 12;
    pub const GP: u8 = 13;
    pub const PF: u8 = 14;
    pub const MF: u8 = 16;
    pub const AC: u8 = 17;
    pub const MC: u8 = 18;
    pub const XM: u8 = 19;
}

/// An exception noted for delivery.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Exception {
    /// Vector.
    pub vector: u8,
    /// Error code, for the vectors that push one.
    pub error: Option<u32>,
    /// Faulting address, for #PF: goes to CR2 on delivery.
    pub address: Option<u64>,
    /// Caused by INT n, INT3, INTO or INT1: privilege of the gate is checked.
    pub software: bool,
}

/// Numbers of the segment registers, in encoding order.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[allow(missing_docs)]
#[repr(usize)]
pub enum SegmentIndex {
    Es = 0,
    Cs,
    Ss,
    Ds,
    Fs,
    Gs,
}

/// A segment register with its hidden part (SDM vol. 3, 3.4.3).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Segment {
    /// Visible selector.
    pub selector: u16,
    /// Linear base. The same value stands in the register file's base slot.
    pub base: u64,
    /// Limit in bytes, inclusive, granularity applied.
    pub limit: u32,
    /// Descriptor bits 40..56 as in its second doubleword shifted right by 8: type, S, DPL, P in bits
    /// 0..8, AVL, L, D/B, G in bits 12..16.
    pub attributes: u16,
}

impl Segment {
    /// Present.
    pub const P: u16 = 1 << 7;
    /// Code or data, not system.
    pub const S: u16 = 1 << 4;
    /// 64-bit code.
    pub const L: u16 = 1 << 13;
    /// 32-bit default size, or 32-bit stack pointer.
    pub const DB: u16 = 1 << 14;
    /// Limit in pages.
    pub const G: u16 = 1 << 15;

    /// Descriptor privilege level.
    pub fn dpl(&self) -> u8 {
        (self.attributes >> 5) as u8 & 3
    }

    /// Type field.
    pub fn kind(&self) -> u8 {
        self.attributes as u8 & 15
    }
}

/// GDTR or IDTR.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Table {
    /// Linear base.
    pub base: u64,
    /// Limit in bytes, inclusive.
    pub limit: u16,
}

/// The state outside the register file.
#[derive(Clone, Debug, Default)]
pub struct State {
    /// ES, CS, SS, DS, FS, GS.
    pub segments: [Segment; 6],
    /// GDTR.
    pub gdtr: Table,
    /// IDTR.
    pub idtr: Table,
    /// LDTR.
    pub ldtr: Segment,
    /// TR.
    pub tr: Segment,
    /// CR0.
    pub cr0: u64,
    /// CR2.
    pub cr2: u64,
    /// CR3.
    pub cr3: u64,
    /// CR4.
    pub cr4: u64,
    /// IA32_EFER.
    pub efer: u64,
    /// Current privilege level, 0 to 3.
    pub cpl: u8,
    /// The exception to be delivered.
    pub exception: Option<Exception>,
    /// Interrupts are held off for one instruction (after STI, MOV SS, POP SS).
    pub shadow: bool,
    /// Waits for an interrupt after HLT.
    pub halted: bool,
    /// Waits for a start-up message after INIT: not executing at all.
    pub wait_for_sipi: bool,
    /// x87 and MMX registers.
    pub x87: crate::float::X87,
    /// MSRs, debug registers, features, and what else `system` needs.
    pub system: SystemState,
}
