//! The register file: slots that IR addresses, and the register table.

use accel_core::{Layout, RegInfo};
use accel_ir::Slot;

/// RAX to R15, in encoding order.
pub const GPR: Slot = Slot(0);
/// RIP: an offset in CS, not a linear address.
pub const RIP: Slot = Slot(16);
/// Lazy flags: kind and type, a, b, c (see `accel_core::Layout::flags`). Holds CF, PF, AF, ZF, SF, OF.
pub const FLAGS: Slot = Slot(17);
/// All other bits of RFLAGS: TF, IF, DF, IOPL, NT, RF, VM, AC, VIF, VIP, ID. The six arithmetic flags
/// and bit 1 are zero here.
pub const RFLAGS: Slot = Slot(21);
/// Bases of ES, CS, SS, DS, FS, GS, in encoding order. Kept equal to the segment's base; IR adds
/// them to offsets.
pub const BASE: Slot = Slot(22);
/// XMM0 to XMM15, two slots each.
pub const XMM: Slot = Slot(32);
/// MXCSR.
pub const MXCSR: Slot = Slot(28);

/// The slot of general register `n`.
pub const fn gpr(n: usize) -> Slot {
    Slot((n & 15) as u8)
}

/// The slot of a segment's base.
pub const fn base(n: usize) -> Slot {
    Slot(BASE.0.wrapping_add((n % 6) as u8))
}

/// The first slot of a vector register.
pub const fn xmm(n: usize) -> Slot {
    Slot(XMM.0.wrapping_add(((n & 15) as u8) << 1))
}

/// Numbers of the general registers.
#[allow(missing_docs)]
pub mod index {
    pub const RAX: usize = 0;
    pub const RCX: usize = 1;
    pub const RDX: usize = 2;
    pub const RBX: usize = 3;
    pub const RSP: usize = 4;
    pub const RBP: usize = 5;
    pub const RSI: usize = 6;
    pub const RDI: usize = 7;
}

/// Bits of RFLAGS outside the arithmetic flags (SDM vol. 1, 3.4.3).
#[allow(missing_docs)]
pub mod rflags {
    pub const TF: u64 = 1 << 8;
    pub const IF: u64 = 1 << 9;
    pub const DF: u64 = 1 << 10;
    pub const IOPL: u64 = 3 << 12;
    pub const NT: u64 = 1 << 14;
    pub const RF: u64 = 1 << 16;
    pub const VM: u64 = 1 << 17;
    pub const AC: u64 = 1 << 18;
    pub const VIF: u64 = 1 << 19;
    pub const VIP: u64 = 1 << 20;
    pub const ID: u64 = 1 << 21;
    /// Reads as one.
    pub const FIXED: u64 = 1 << 1;
    /// What the RFLAGS slot may hold.
    pub const SYSTEM: u64 = TF | IF | DF | IOPL | NT | RF | VM | AC | VIF | VIP | ID;
}

const fn reg(name: &'static str, slot: Slot, bits: u32) -> RegInfo {
    RegInfo { name, slot, bits }
}

/// The register table.
pub const REGS: &[RegInfo] = &[
    reg("rax", gpr(0), 64),
    reg("rcx", gpr(1), 64),
    reg("rdx", gpr(2), 64),
    reg("rbx", gpr(3), 64),
    reg("rsp", gpr(4), 64),
    reg("rbp", gpr(5), 64),
    reg("rsi", gpr(6), 64),
    reg("rdi", gpr(7), 64),
    reg("r8", gpr(8), 64),
    reg("r9", gpr(9), 64),
    reg("r10", gpr(10), 64),
    reg("r11", gpr(11), 64),
    reg("r12", gpr(12), 64),
    reg("r13", gpr(13), 64),
    reg("r14", gpr(14), 64),
    reg("r15", gpr(15), 64),
    reg("rip", RIP, 64),
    reg("mxcsr", MXCSR, 32),
    reg("xmm0", xmm(0), 128),
    reg("xmm1", xmm(1), 128),
    reg("xmm2", xmm(2), 128),
    reg("xmm3", xmm(3), 128),
    reg("xmm4", xmm(4), 128),
    reg("xmm5", xmm(5), 128),
    reg("xmm6", xmm(6), 128),
    reg("xmm7", xmm(7), 128),
    reg("xmm8", xmm(8), 128),
    reg("xmm9", xmm(9), 128),
    reg("xmm10", xmm(10), 128),
    reg("xmm11", xmm(11), 128),
    reg("xmm12", xmm(12), 128),
    reg("xmm13", xmm(13), 128),
    reg("xmm14", xmm(14), 128),
    reg("xmm15", xmm(15), 128),
];

/// The layout of the register file.
pub const LAYOUT: Layout = Layout {
    pc: RIP,
    flags: FLAGS,
    seen_flags: accel_ir::flags::ALL,
    fp: MXCSR,
    x87: Some(crate::state::X87_LAYOUT),
    pinned: &[
        gpr(index::RAX),
        gpr(index::RDX),
        gpr(index::RCX),
        gpr(index::RDI),
        gpr(index::RSI),
        gpr(index::RSP),
        gpr(index::RBX),
        gpr(index::RBP),
        gpr(8),
        gpr(12),
    ],
    regs: REGS,
};
