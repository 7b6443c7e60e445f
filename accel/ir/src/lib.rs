//! The typed intermediate representation between guest and host code.
//!
//! A guest instruction is decoded into this once; the interpreter is its meaning and a JIT compiles
//! it. A [`Unit`] is a list of [`Block`]s; values are SSA within the unit and blocks take
//! parameters. Guest state is reached by `get` and `set` on slots of a register file. A memory
//! access is one operation; every operation that may fault belongs to the guest instruction whose
//! [`Op::Insn`] precedes it, and no `set` comes before a faulting operation of the same instruction:
//! that alone makes exceptions precise.
//!
//! Integers are held zero-extended in 64 bits. A `v128` is two 64-bit halves, low half first,
//! whatever the byte order of guest and host.

mod build;
pub mod flags;
mod text;
pub mod vector;
mod verify;

pub use build::Builder;
pub use flags::{Cond, FlagKind};
pub use vector::VecOp;
pub use verify::{VerifyError, verify};

/// Type of a value.
#[derive(Clone, Copy, PartialEq, Eq, Debug, PartialOrd, Ord, Hash)]
pub enum Ty {
    /// 8-bit integer; also truth values (0 or 1).
    I8,
    /// 16-bit integer.
    I16,
    /// 32-bit integer, or the bits of an f32.
    I32,
    /// 64-bit integer, or the bits of an f64.
    I64,
    /// 128-bit vector.
    V128,
}

impl Ty {
    /// Width in bits.
    pub const fn bits(self) -> u32 {
        match self {
            Ty::I8 => 8,
            Ty::I16 => 16,
            Ty::I32 => 32,
            Ty::I64 => 64,
            Ty::V128 => 128,
        }
    }

    /// Width in bytes.
    pub const fn bytes(self) -> u8 {
        (self.bits() / 8) as u8
    }

    /// Mask of an integer type's bits.
    pub const fn mask(self) -> u64 {
        match self {
            Ty::I8 => 0xff,
            Ty::I16 => 0xffff,
            Ty::I32 => 0xffff_ffff,
            Ty::I64 | Ty::V128 => u64::MAX,
        }
    }

    /// The integer type of this many bytes.
    pub const fn of_bytes(bytes: u32) -> Ty {
        match bytes {
            1 => Ty::I8,
            2 => Ty::I16,
            4 => Ty::I32,
            8 => Ty::I64,
            _ => Ty::V128,
        }
    }

    /// Sign-extends a value of this type to 64 bits.
    #[inline]
    pub const fn sext(self, value: u64) -> i64 {
        match self {
            Ty::I8 => value as i8 as i64,
            Ty::I16 => value as i16 as i64,
            Ty::I32 => value as i32 as i64,
            Ty::I64 | Ty::V128 => value as i64,
        }
    }
}

/// An SSA value of a unit.
#[derive(Clone, Copy, PartialEq, Eq, Debug, PartialOrd, Ord, Hash)]
pub struct Val(pub u32);

/// A 64-bit slot of the guest's register file. A vector register is two consecutive slots.
#[derive(Clone, Copy, PartialEq, Eq, Debug, PartialOrd, Ord, Hash)]
pub struct Slot(pub u8);

/// A block of a unit.
#[derive(Clone, Copy, PartialEq, Eq, Debug, PartialOrd, Ord, Hash)]
pub struct BlockId(pub u32);

/// A helper of the target, by its index in the target's table.
#[derive(Clone, Copy, PartialEq, Eq, Debug, PartialOrd, Ord, Hash)]
pub struct HelperId(pub u16);

/// One-operand integer operations.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Unary {
    /// Bitwise complement.
    Not,
    /// Two's complement.
    Neg,
    /// Leading zeros; the width for zero.
    Clz,
    /// Trailing zeros; the width for zero.
    Ctz,
    /// Number of ones.
    Popcnt,
    /// Reverses the bytes.
    Bswap,
}

/// Two-operand integer operations. Shift and rotate counts are taken modulo 64 for `i64` and modulo
/// 32 for the others; a shift by the width or more of a narrower type yields 0 (or the sign).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Binary {
    /// Sum.
    Add,
    /// Difference.
    Sub,
    /// Low half of the product.
    Mul,
    /// High half of the unsigned product.
    MulHu,
    /// High half of the signed product.
    MulHs,
    /// Bitwise and.
    And,
    /// Bitwise or.
    Or,
    /// Bitwise exclusive or.
    Xor,
    /// Shift left.
    Shl,
    /// Logical shift right.
    Shr,
    /// Arithmetic shift right.
    Sar,
    /// Rotate left; the count modulo the type's width.
    Rotl,
    /// Rotate right; the count modulo the type's width.
    Rotr,
}

/// Integer comparisons.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Cmp {
    /// Equal.
    Eq,
    /// Not equal.
    Ne,
    /// Unsigned less.
    Ltu,
    /// Unsigned less or equal.
    Leu,
    /// Signed less.
    Lts,
    /// Signed less or equal.
    Les,
}

/// Read-modify-write operations on memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Rmw {
    /// Replaces.
    Xchg,
    /// Adds.
    Add,
    /// Subtracts.
    Sub,
    /// And.
    And,
    /// Or.
    Or,
    /// Exclusive or.
    Xor,
}

/// Order of an access among others.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Ordering {
    /// Plain: only single-copy atomic. On x86 guests loads and stores are TSO by the front end's
    /// choice of the next two.
    Relaxed,
    /// Later accesses stay later.
    Acquire,
    /// Earlier accesses stay earlier.
    Release,
    /// Totally ordered.
    SeqCst,
}

/// Order of a value's bytes in guest memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Endian {
    /// Lowest byte first.
    Little,
    /// Highest byte first.
    Big,
}

/// Everything about a memory access but its address and value.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Mem {
    /// Width and type of the value.
    pub ty: Ty,
    /// Byte order.
    pub endian: Endian,
    /// Whether a misaligned address faults.
    pub aligned: bool,
    /// Order among other accesses.
    pub ordering: Ordering,
    /// Translation context: an index the target gives meaning to (privilege, override).
    pub ctx: u8,
}

/// Formats of floating-point operations.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FpFmt {
    /// IEEE binary32, in the low half of a slot.
    F32,
    /// IEEE binary64.
    F64,
}

/// One operation. `d` is the value defined.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Op {
    /// A guest instruction starts here: its address, for exceptions and counting.
    Insn {
        /// Guest program counter of the instruction, as the PC slot holds it.
        pc: u64,
    },
    /// A constant.
    Const {
        /// Defined.
        d: Val,
        /// Value, within the type's mask.
        value: u64,
    },
    /// Reads a slot (i64), or the low bits of it (narrower).
    Get {
        /// Defined.
        d: Val,
        /// Slot.
        slot: Slot,
    },
    /// Writes a slot: an i64, or a narrower value zero-extended.
    Set {
        /// Slot.
        slot: Slot,
        /// Value.
        v: Val,
    },
    /// Reads two consecutive slots as a vector.
    GetV {
        /// Defined.
        d: Val,
        /// First slot (low half).
        slot: Slot,
    },
    /// Writes two consecutive slots.
    SetV {
        /// First slot (low half).
        slot: Slot,
        /// Value.
        v: Val,
    },
    /// Integer operation on one value of `d`'s type.
    Unary {
        /// Operation.
        op: Unary,
        /// Defined.
        d: Val,
        /// Operand.
        a: Val,
    },
    /// Integer operation on two values of `d`'s type (a shift count may be of any integer type).
    Binary {
        /// Operation.
        op: Binary,
        /// Defined.
        d: Val,
        /// First operand.
        a: Val,
        /// Second operand.
        b: Val,
    },
    /// Compares two values of one type; `d` is an i8 of 0 or 1.
    Cmp {
        /// Comparison.
        op: Cmp,
        /// Defined.
        d: Val,
        /// First operand.
        a: Val,
        /// Second operand.
        b: Val,
    },
    /// `a` if `c` is not zero, else `b`.
    Select {
        /// Defined.
        d: Val,
        /// Condition, any integer type.
        c: Val,
        /// Chosen when true.
        a: Val,
        /// Chosen when false.
        b: Val,
    },
    /// Widens with zeros, or cuts to the narrower type of `d`.
    Zext {
        /// Defined.
        d: Val,
        /// Operand.
        a: Val,
    },
    /// Widens with the sign of `a`'s type.
    Sext {
        /// Defined.
        d: Val,
        /// Operand.
        a: Val,
    },
    /// Bits `shift..shift + width` of `a`, zero-extended to `d`'s type.
    Extract {
        /// Defined.
        d: Val,
        /// Operand.
        a: Val,
        /// Lowest bit taken.
        shift: u8,
        /// Number of bits.
        width: u8,
    },
    /// `a` with bits `shift..shift + width` replaced by the low bits of `b`.
    Insert {
        /// Defined.
        d: Val,
        /// Old value.
        a: Val,
        /// New bits.
        b: Val,
        /// Lowest bit replaced.
        shift: u8,
        /// Number of bits.
        width: u8,
    },
    /// Loads from guest memory. May fault.
    Load {
        /// Defined, of the access's type.
        d: Val,
        /// Address, i64.
        addr: Val,
        /// How.
        mem: Mem,
    },
    /// Stores to guest memory. May fault.
    Store {
        /// Address, i64.
        addr: Val,
        /// Value, of the access's type.
        v: Val,
        /// How.
        mem: Mem,
    },
    /// Faults as a store to this address would, and does nothing else: for instructions that store
    /// more than once.
    Probe {
        /// Address, i64.
        addr: Val,
        /// How.
        mem: Mem,
    },
    /// Atomic read-modify-write; `d` is the old value. May fault.
    Rmw {
        /// Operation.
        op: Rmw,
        /// Defined: the value before.
        d: Val,
        /// Address, i64.
        addr: Val,
        /// Operand.
        v: Val,
        /// How.
        mem: Mem,
    },
    /// Atomic compare and exchange; `d` is the old value, stored is `new` if that was `expected`.
    /// May fault. The store happens in any case on guests that write back the old value.
    Cas {
        /// Defined: the value before.
        d: Val,
        /// Address, i64.
        addr: Val,
        /// Compared with.
        expected: Val,
        /// Stored when equal.
        new: Val,
        /// How.
        mem: Mem,
    },
    /// Orders all earlier accesses before all later ones.
    Fence,
    /// Remembers how the flags are to be computed from these operands.
    FlagsDef {
        /// Meaning of the operands.
        kind: FlagKind,
        /// Type of the operation.
        ty: Ty,
        /// First operand.
        a: Val,
        /// Second operand.
        b: Val,
        /// Third operand: carry in, or flags kept.
        c: Option<Val>,
    },
    /// A condition on the flags: `d` is an i8 of 0 or 1.
    FlagsUse {
        /// Defined.
        d: Val,
        /// Condition.
        cond: Cond,
    },
    /// All flags in the guest's own layout ([`flags::pack`]); `d` is an i64.
    FlagsGet {
        /// Defined.
        d: Val,
    },
    /// A vector operation; `imm` is its constant operand.
    Vec {
        /// Operation.
        op: VecOp,
        /// Defined, v128.
        d: Val,
        /// First operand, v128.
        a: Val,
        /// Second operand, v128.
        b: Val,
        /// Constant operand.
        imm: u8,
    },
    /// A vector of two i64 halves.
    VecMake {
        /// Defined, v128.
        d: Val,
        /// Low half.
        lo: Val,
        /// High half.
        hi: Val,
    },
    /// One i64 half of a vector.
    VecHalf {
        /// Defined, i64.
        d: Val,
        /// Vector.
        a: Val,
        /// Whether the high half.
        high: bool,
    },
    /// Calls a helper of the target. May fault unless the helper's effects say otherwise.
    Call {
        /// Defined, i64, if the result is wanted.
        d: Option<Val>,
        /// Helper.
        helper: HelperId,
        /// Arguments, integers.
        args: [Option<Val>; 4],
    },
}

/// How a block ends.
#[derive(Clone, PartialEq, Debug)]
pub enum End {
    /// To another block of the unit, later in order.
    Jump {
        /// Where.
        to: BlockId,
        /// Its parameters.
        args: Vec<Val>,
    },
    /// To one of two later blocks.
    Branch {
        /// Condition, any integer type: zero is false.
        c: Val,
        /// When true.
        then: BlockId,
        /// When false.
        other: BlockId,
    },
    /// Leaves the unit: execution goes on at this guest PC.
    Goto {
        /// New value of the PC slot.
        pc: u64,
    },
    /// Leaves the unit: execution goes on at a computed guest PC.
    GotoVal {
        /// New value of the PC slot.
        pc: Val,
    },
    /// Leaves the unit: a helper has set the PC slot.
    Leave,
}

/// A straight run of operations.
#[derive(Clone, PartialEq, Debug)]
pub struct Block {
    /// Values given by the jump here.
    pub params: Vec<Val>,
    /// What is done.
    pub ops: Vec<Op>,
    /// Where it goes.
    pub end: End,
}

/// What is translated at once: entered at the first block only.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Unit {
    /// Blocks; the first is the entry, edges go forward.
    pub blocks: Vec<Block>,
    /// Type of each value.
    pub types: Vec<Ty>,
    /// Number of guest instructions.
    pub insns: u32,
}

impl Unit {
    /// Type of a value.
    pub fn ty(&self, v: Val) -> Ty {
        self.types.get(v.0 as usize).copied().unwrap_or(Ty::I64)
    }
}

impl Op {
    /// The value this defines.
    pub fn def(&self) -> Option<Val> {
        Some(match *self {
            Op::Const { d, .. }
            | Op::Get { d, .. }
            | Op::GetV { d, .. }
            | Op::Unary { d, .. }
            | Op::Binary { d, .. }
            | Op::Cmp { d, .. }
            | Op::Select { d, .. }
            | Op::Zext { d, .. }
            | Op::Sext { d, .. }
            | Op::Extract { d, .. }
            | Op::Insert { d, .. }
            | Op::Load { d, .. }
            | Op::Rmw { d, .. }
            | Op::Cas { d, .. }
            | Op::FlagsUse { d, .. }
            | Op::FlagsGet { d }
            | Op::Vec { d, .. }
            | Op::VecMake { d, .. }
            | Op::VecHalf { d, .. } => d,
            Op::Call { d, .. } => return d,
            Op::Insn { .. }
            | Op::Set { .. }
            | Op::SetV { .. }
            | Op::Store { .. }
            | Op::Probe { .. }
            | Op::Fence
            | Op::FlagsDef { .. } => return None,
        })
    }

    /// Calls `f` with each value this reads.
    pub fn for_each_use(&self, mut f: impl FnMut(Val)) {
        match *self {
            Op::Insn { .. }
            | Op::Const { .. }
            | Op::Get { .. }
            | Op::GetV { .. }
            | Op::Fence
            | Op::FlagsUse { .. }
            | Op::FlagsGet { .. } => {}
            Op::Set { v, .. } | Op::SetV { v, .. } => f(v),
            Op::Unary { a, .. }
            | Op::Zext { a, .. }
            | Op::Sext { a, .. }
            | Op::Extract { a, .. }
            | Op::VecHalf { a, .. } => f(a),
            Op::Binary { a, b, .. }
            | Op::Cmp { a, b, .. }
            | Op::Insert { a, b, .. }
            | Op::Vec { a, b, .. } => {
                f(a);
                f(b);
            }
            Op::VecMake { lo, hi, .. } => {
                f(lo);
                f(hi);
            }
            Op::Select { c, a, b, .. } => {
                f(c);
                f(a);
                f(b);
            }
            Op::Load { addr, .. } | Op::Probe { addr, .. } => f(addr),
            Op::Store { addr, v, .. } | Op::Rmw { addr, v, .. } => {
                f(addr);
                f(v);
            }
            Op::Cas {
                addr,
                expected,
                new,
                ..
            } => {
                f(addr);
                f(expected);
                f(new);
            }
            Op::FlagsDef { a, b, c, .. } => {
                f(a);
                f(b);
                c.into_iter().for_each(f);
            }
            Op::Call { args, .. } => args.into_iter().flatten().for_each(f),
        }
    }

    /// Whether a guest exception can come out of this.
    pub fn may_fault(&self) -> bool {
        matches!(
            self,
            Op::Load { .. }
                | Op::Store { .. }
                | Op::Probe { .. }
                | Op::Rmw { .. }
                | Op::Cas { .. }
                | Op::Call { .. }
        )
    }
}

#[cfg(test)]
mod tests;
