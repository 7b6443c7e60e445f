//! The operations: what each computes, defines and reads.

use crate::{
    Binary, Cmp, Cond, FlagKind, Fp, FpCompare, FpFmt, FpMulAdd, FpRules, HelperId, Mem, Rmw, Slot,
    ToInt, Ty, Unary, Val, VecOp,
};
#[cfg(doc)]
use crate::{flags, fp};

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
    /// Faults as a store to this address would, for its alignment too, and does nothing else: for
    /// instructions that store more than once.
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
    /// The sign bits of a vector's lanes, lowest lane first; the bits above are zero (PMOVMSKB,
    /// MOVMSKPS, MOVMSKPD).
    VecSigns {
        /// Defined, i32.
        d: Val,
        /// Vector.
        a: Val,
        /// Type of the lanes: i8, i32 or i64.
        lane: Ty,
    },
    /// A floating-point operation on vectors ([`fp::eval`]). Reads the control slot and adds flags
    /// to it; never faults.
    Fp {
        /// Operation.
        how: Fp,
        /// Defined, v128.
        d: Val,
        /// First operand, v128: other lanes of scalar operations.
        a: Val,
        /// Second operand, v128: the one of operations with one operand.
        b: Val,
    },
    /// A product and a sum, rounded once ([`fp::mul_add`]). As [`Fp`](Self::Fp).
    FpMulAdd {
        /// Signs and format.
        how: FpMulAdd,
        /// Defined, v128.
        d: Val,
        /// First factor, v128.
        a: Val,
        /// Second factor, v128.
        b: Val,
        /// What is added, v128.
        c: Val,
    },
    /// A signed integer to lane 0 of a vector ([`fp::from_int`]): CVTSI2SS, CVTSI2SD. Reads the
    /// control slot and adds flags to it.
    FpFromInt {
        /// Format of the result.
        fmt: FpFmt,
        /// Whose rules.
        rules: FpRules,
        /// Defined, v128.
        d: Val,
        /// Other lanes, v128.
        a: Val,
        /// Integer: i32 or i64.
        v: Val,
    },
    /// Lane 0 of a vector to a signed integer ([`fp::to_int`]): CVTSS2SI, CVTTSS2SI, CVTSD2SI,
    /// CVTTSD2SI. Reads the control slot and adds flags to it.
    FpToInt {
        /// Which conversion.
        how: ToInt,
        /// Defined: i32 or i64.
        d: Val,
        /// Vector.
        a: Val,
    },
    /// Compares lanes 0 of two vectors ([`fp::compare`]): COMISS, UCOMISS, COMISD, UCOMISD. Reads
    /// the control slot and adds flags to it. What follows is mostly a
    /// [`FlagsDef`](Self::FlagsDef) of kind `Raw` with the result.
    FpCompare {
        /// Which comparison.
        how: FpCompare,
        /// Defined: an i64 of flags in their x86 places.
        d: Val,
        /// First operand, v128.
        a: Val,
        /// Second operand, v128.
        b: Val,
    },
    /// A vector of two i64 halves. With a constant zero above, what MOVQ does.
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
            | Op::VecSigns { d, .. }
            | Op::Fp { d, .. }
            | Op::FpMulAdd { d, .. }
            | Op::FpFromInt { d, .. }
            | Op::FpToInt { d, .. }
            | Op::FpCompare { d, .. }
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
            | Op::VecSigns { a, .. }
            | Op::FpToInt { a, .. }
            | Op::VecHalf { a, .. } => f(a),
            Op::Binary { a, b, .. }
            | Op::Cmp { a, b, .. }
            | Op::Insert { a, b, .. }
            | Op::Fp { a, b, .. }
            | Op::FpCompare { a, b, .. }
            | Op::Vec { a, b, .. } => {
                f(a);
                f(b);
            }
            Op::FpFromInt { a, v, .. } => {
                f(a);
                f(v);
            }
            Op::VecMake { lo, hi, .. } => {
                f(lo);
                f(hi);
            }
            Op::Select { c, a, b, .. } | Op::FpMulAdd { c, a, b, .. } => {
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

    /// Whether this reads the control slot of floating point and adds flags to it: it must stay
    /// even if nobody wants its result.
    pub fn touches_fp(&self) -> bool {
        matches!(
            self,
            Op::Fp { .. }
                | Op::FpMulAdd { .. }
                | Op::FpFromInt { .. }
                | Op::FpToInt { .. }
                | Op::FpCompare { .. }
        )
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
