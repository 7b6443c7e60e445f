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
pub mod fp;
mod op;
mod text;
pub mod vector;
mod verify;

pub use build::{Builder, Mark};
pub use flags::{Cond, FlagKind};
pub use fp::{
    Fp, FpCmp, FpCompare, FpFmt, FpHost, FpMulAdd, FpOp, FpRound, FpRules, FpShape, ToInt,
};
pub use op::Op;
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

/// What a way out of a unit is to the program: a hint by which returns are foreseen.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Via {
    /// Nothing that is expected to come back.
    #[default]
    Jump,
    /// A call of a subroutine.
    Call {
        /// The PC that it is expected to return to.
        back: u64,
    },
    /// The return from a subroutine.
    Return,
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
        /// What the way is.
        via: Via,
    },
    /// Leaves the unit: execution goes on at a computed guest PC.
    GotoVal {
        /// New value of the PC slot.
        pc: Val,
        /// What the way is.
        via: Via,
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
    spare: build::Spare,
}

impl Unit {
    /// Type of a value.
    pub fn ty(&self, v: Val) -> Ty {
        self.types.get(v.0 as usize).copied().unwrap_or(Ty::I64)
    }
}

#[cfg(test)]
mod tests;
