//! Everything of a CPU that IR does not address: segments, control registers, MSRs, x87.

use crate::system::SystemState;

/// Bits of CR0 (SDM vol. 3, 2.5).
#[allow(missing_docs)]
pub mod cr0 {
    pub const PE: u64 = 1 << 0;
    pub const MP: u64 = 1 << 1;
    pub const EM: u64 = 1 << 2;
    pub const TS: u64 = 1 << 3;
    pub const ET: u64 = 1 << 4;
    pub const NE: u64 = 1 << 5;
    pub const WP: u64 = 1 << 16;
    pub const AM: u64 = 1 << 18;
    pub const NW: u64 = 1 << 29;
    pub const CD: u64 = 1 << 30;
    pub const PG: u64 = 1 << 31;
}

/// Bits of CR4 (SDM vol. 3, 2.5).
#[allow(missing_docs)]
pub mod cr4 {
    pub const VME: u64 = 1 << 0;
    pub const PVI: u64 = 1 << 1;
    pub const TSD: u64 = 1 << 2;
    pub const DE: u64 = 1 << 3;
    pub const PSE: u64 = 1 << 4;
    pub const PAE: u64 = 1 << 5;
    pub const MCE: u64 = 1 << 6;
    pub const PGE: u64 = 1 << 7;
    pub const PCE: u64 = 1 << 8;
    pub const OSFXSR: u64 = 1 << 9;
    pub const OSXMMEXCPT: u64 = 1 << 10;
    pub const UMIP: u64 = 1 << 11;
    pub const LA57: u64 = 1 << 12;
    pub const FSGSBASE: u64 = 1 << 16;
    pub const PCIDE: u64 = 1 << 17;
    pub const OSXSAVE: u64 = 1 << 18;
    pub const SMEP: u64 = 1 << 20;
    pub const SMAP: u64 = 1 << 21;
}

/// Bits of IA32_EFER (SDM vol. 3, 2.2.1; APM vol. 2, 3.1.7).
#[allow(missing_docs)]
pub mod efer {
    pub const SCE: u64 = 1 << 0;
    pub const LME: u64 = 1 << 8;
    pub const LMA: u64 = 1 << 10;
    pub const NXE: u64 = 1 << 11;
    pub const FFXSR: u64 = 1 << 14;
}

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

    /// Whether it was loaded with a present descriptor.
    pub fn is_present(&self) -> bool {
        self.attributes & Self::P != 0
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

impl State {
    /// A segment register by its number in encodings; numbers from 6 on are none.
    pub fn segment(&self, n: usize) -> Segment {
        self.segments.get(n).copied().unwrap_or_default()
    }

    /// CS.
    pub fn cs(&self) -> Segment {
        self.segment(SegmentIndex::Cs as usize)
    }

    /// SS.
    pub fn ss(&self) -> Segment {
        self.segment(SegmentIndex::Ss as usize)
    }

    /// CR0.PE: any protected mode, virtual-8086 mode included.
    pub fn is_protected(&self) -> bool {
        self.cr0 & cr0::PE != 0
    }

    /// IA-32e mode is active: 64-bit or compatibility mode.
    pub fn is_long(&self) -> bool {
        self.efer & efer::LMA != 0
    }

    /// 64-bit mode.
    pub fn is_64(&self) -> bool {
        self.is_long() && self.cs().attributes & Segment::L != 0
    }
}

/// Where the state holds the x87 unit.
pub(crate) const X87_LAYOUT: accel_core::X87Layout = {
    use core::mem::offset_of;

    use crate::float::X87;
    let x87 = offset_of!(State, x87);
    accel_core::X87Layout {
        registers: x87.wrapping_add(offset_of!(X87, registers)),
        top: x87.wrapping_add(offset_of!(X87, top)),
        used: x87.wrapping_add(offset_of!(X87, used)),
        status: x87.wrapping_add(offset_of!(X87, status)),
        control: x87.wrapping_add(offset_of!(X87, control)),
        ip: x87.wrapping_add(offset_of!(X87, ip)),
        dp: x87.wrapping_add(offset_of!(X87, dp)),
    }
};
