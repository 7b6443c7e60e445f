//! The register file: slots that IR addresses, and the register table (DDI 0487, B1.2, D1.2).

use accel_core::{Layout, RegInfo};
use accel_ir::{Slot, flags};

/// X0 to X30.
pub const X: Slot = Slot(0);
/// The stack pointer in use: of SP_EL0 to SP_EL3, the one that PSTATE.SP and the exception level
/// select. Its own slot is stale meanwhile.
pub const SP: Slot = Slot(31);
/// The program counter.
pub const PC: Slot = Slot(32);
/// Lazy flags: kind and type, a, b, c. In x86's terms SF is N, ZF is Z, OF is V, and CF is C
/// *inverted*: a comparison is then the same subtraction on both.
pub const FLAGS: Slot = Slot(33);
/// FPCR's rounding and flushing as an MXCSR, and sticky flags not yet in FPSR.
pub const MXCSR: Slot = Slot(37);
/// FPCR.
pub const FPCR: Slot = Slot(38);
/// FPSR.
pub const FPSR: Slot = Slot(39);
/// Address of the exclusive monitor, or all ones if it is open.
pub const MONITOR: Slot = Slot(40);
/// What was loaded exclusively: two slots.
pub const MONITOR_DATA: Slot = Slot(41);
/// PSTATE.DAIF, in bits 9 to 6.
pub const DAIF: Slot = Slot(43);
/// PSTATE.BTYPE, in bits 1 and 0.
pub const BTYPE: Slot = Slot(44);
/// SP_EL0 to SP_EL3.
pub const SP_BANK: Slot = Slot(45);
/// PSTATE.IT of AArch32: for the next instruction.
pub const IT: Slot = Slot(61);
/// PSTATE.Q of AArch32: 0 or 1.
pub const Q: Slot = Slot(62);
/// PSTATE.GE of AArch32, in bits 3 to 0.
pub const GE: Slot = Slot(63);
/// First of the free slots below the vectors, for [`crate::system::registers`].
pub const V: Slot = Slot(64);
/// First slot of the system registers.
pub const SYSTEM: Slot = Slot(128);

/// The slot of general register `n`, 0 to 30.
pub const fn x(n: u32) -> Slot {
    Slot((n & 31) as u8)
}

/// The slot of SP_EL`n`.
pub const fn sp_bank(n: u8) -> Slot {
    Slot(SP_BANK.0.wrapping_add(n & 3))
}

/// The first slot of a vector register.
pub const fn v(n: u32) -> Slot {
    Slot(V.0.wrapping_add(((n & 31) as u8) << 1))
}

const fn reg(name: &'static str, slot: Slot, bits: u32) -> RegInfo {
    RegInfo { name, slot, bits }
}

macro_rules! table {
    ($($x:literal $v:literal $n:literal),*) => {
        /// The register table.
        pub const REGS: &[RegInfo] = &[
            $(reg($x, x($n), 64),)*
            reg("sp", SP, 64),
            reg("pc", PC, 64),
            $(reg($v, v($n), 128),)*
            reg("v31", v(31), 128),
            reg("fpcr", FPCR, 32),
            reg("fpsr", FPSR, 32),
        ];
    };
}

table! {
    "x0" "v0" 0, "x1" "v1" 1, "x2" "v2" 2, "x3" "v3" 3, "x4" "v4" 4, "x5" "v5" 5, "x6" "v6" 6,
    "x7" "v7" 7, "x8" "v8" 8, "x9" "v9" 9, "x10" "v10" 10, "x11" "v11" 11, "x12" "v12" 12,
    "x13" "v13" 13, "x14" "v14" 14, "x15" "v15" 15, "x16" "v16" 16, "x17" "v17" 17, "x18" "v18" 18,
    "x19" "v19" 19, "x20" "v20" 20, "x21" "v21" 21, "x22" "v22" 22, "x23" "v23" 23, "x24" "v24" 24,
    "x25" "v25" 25, "x26" "v26" 26, "x27" "v27" 27, "x28" "v28" 28, "x29" "v29" 29, "x30" "v30" 30
}

/// The layout of the register file.
pub const LAYOUT: Layout = Layout {
    pc: PC,
    flags: FLAGS,
    seen_flags: flags::CF | flags::ZF | flags::SF | flags::OF,
    fp: MXCSR,
    x87: None,
    pinned: &[x(0), x(1), x(2), x(3), SP, x(19), x(4), x(20), x(29), x(30)],
    regs: REGS,
};
