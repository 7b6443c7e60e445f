//! Floating point as operations of the IR, where those of SSE will do: see [`crate::a64::float`]. All else,
//! and results that SSE may have wrong, are computed by [`super::scalar`].

use accel_ir::{Binary, Cmp, FpCompare, FpFmt, FpOp, FpRules, FpShape, ToInt, Ty, Val, flags};

use super::context::Ctx;
use super::vfp::{Insn, number};
use crate::a64::float::{how, rare};
use crate::{helper, regs};

/// An S or D register, by its format and number.
#[derive(Clone, Copy)]
struct Reg {
    fmt: FpFmt,
    n: u32,
}

impl Reg {
    fn new(fmt: FpFmt, four: u32, one: u32) -> Reg {
        Reg {
            fmt,
            n: number(fmt == FpFmt::F64, four, one),
        }
    }

    /// Its bits as an i64.
    fn bits(self, c: &mut Ctx) -> Val {
        let v = c.fp(self.fmt == FpFmt::F64, self.n);
        c.b.zext(v, Ty::I64)
    }

    /// As the low lane of a vector.
    fn vector(self, c: &mut Ctx) -> Val {
        let bits = self.bits(c);
        let zero = c.imm(Ty::I64, 0);
        c.b.vec_make(bits, zero)
    }

    fn set(self, c: &mut Ctx, bits: Val) {
        match self.fmt {
            FpFmt::F64 => c.set_d(self.n, bits),
            FpFmt::F32 => {
                let bits = c.b.zext(bits, Ty::I32);
                c.set_s(self.n, bits);
            }
        }
    }
}

fn low(c: &mut Ctx, fmt: FpFmt, v: Val) -> Val {
    let half = c.b.vec_half(v, false);
    match fmt {
        FpFmt::F32 => c.b.extract(half, 0, 32, Ty::I64),
        FpFmt::F64 => half,
    }
}

/// Stores by `store`, or has the helper do the instruction if that is `slow`.
fn unless(c: &mut Ctx, slow: Val, word: u32, store: impl FnOnce(&mut Ctx)) {
    let (again, right, done) = (c.b.block(), c.b.block(), c.b.block());
    c.b.branch(slow, again, right);
    c.b.switch(again);
    let word = c.imm(Ty::I64, word.into());
    c.b.call_void(helper::SCALAR_32, &[word]);
    c.b.jump(done, &[]);
    c.b.switch(right);
    store(c);
    c.b.jump(done, &[]);
    c.b.switch(done);
}

/// Writes a result, unless it is one that SSE may have wrong.
fn settle(c: &mut Ctx, word: u32, to: Reg, result: Val) {
    let bits = low(c, to.fmt, result);
    let (is_rare, magnitude) = rare(c, to.fmt, bits);
    let ty = c.b.ty(magnitude);
    let zero = c.imm(ty, 0);
    let is_other = c.b.cmp(Cmp::Ne, magnitude, zero);
    let slow = c.b.and(is_rare, is_other);
    unless(c, slow, word, |c| to.set(c, bits));
}

fn format(sz: u32) -> FpFmt {
    if sz == 3 { FpFmt::F64 } else { FpFmt::F32 }
}

/// Emits an instruction, if it is one of those here.
pub(super) fn emit(c: &mut Ctx, word: u32, insn: Insn) -> Option<()> {
    if c.mode.flushes() {
        return None;
    }
    match insn {
        Insn::VfpThree {
            d,
            op1,
            vn,
            vd,
            sz,
            n,
            op,
            m,
            vm,
            fused,
            ..
        } => {
            let op = match (fused, op1, op) {
                (0, 2, 0) => FpOp::Mul,
                (0, 3, 0) => FpOp::Add,
                (0, 3, _) => FpOp::Sub,
                (1, 0, 0) => FpOp::Div,
                _ => return None,
            };
            let fmt = format(sz);
            let (a, b) = (Reg::new(fmt, vn, n), Reg::new(fmt, vm, m));
            let (a, b) = (a.vector(c), b.vector(c));
            let result = c.b.fp(how(op, fmt, FpShape::Scalar), a, b);
            settle(c, word, Reg::new(fmt, vd, d), result);
        }
        Insn::VfpOne {
            d,
            op,
            vd,
            sz,
            t,
            m,
            vm,
            ..
        } => return one(c, word, (op, t), format(sz), (vd, d), (vm, m)),
        _ => return None,
    }
    Some(())
}

fn one(
    c: &mut Ctx,
    word: u32,
    (op, t): (u32, u32),
    fmt: FpFmt,
    (vd, d): (u32, u32),
    (vm, m): (u32, u32),
) -> Option<()> {
    let from = Reg::new(fmt, vm, m);
    match (op, t) {
        // VSQRT.
        (1, 1) => {
            let a = from.vector(c);
            let result = c.b.fp(how(FpOp::Sqrt, fmt, FpShape::Scalar), a, a);
            settle(c, word, Reg::new(fmt, vd, d), result);
        }
        // VCVT between single and double precision.
        (7, 1) => {
            let other = match fmt {
                FpFmt::F32 => FpFmt::F64,
                FpFmt::F64 => FpFmt::F32,
            };
            let a = from.vector(c);
            let result = c.b.fp(how(FpOp::Convert, other, FpShape::Scalar), a, a);
            settle(c, word, Reg::new(other, vd, d), result);
        }
        // VCMP, VCMPE.
        (4, _) => {
            let to = Reg::new(fmt, vd, d);
            let (a, b) = (to.vector(c), from.vector(c));
            compare(c, fmt, t != 0, a, b);
        }
        (5, _) if (vm, m) == (0, 0) => {
            let a = Reg::new(fmt, vd, d).vector(c);
            let zero = c.imm(Ty::I64, 0);
            let zero = c.b.vec_make(zero, zero);
            compare(c, fmt, t != 0, a, zero);
        }
        // From an integer: one without a sign is one of 64 bits.
        (8, _) => {
            let v = Reg::new(FpFmt::F32, vm, m).bits(c);
            let v = if t != 0 { c.b.zext(v, Ty::I32) } else { v };
            let zero = c.imm(Ty::I64, 0);
            let lanes = c.b.vec_make(zero, zero);
            let result = c.b.fp_from_int(fmt, FpRules::Sse, lanes, v);
            let bits = low(c, fmt, result);
            Reg::new(fmt, vd, d).set(c, bits);
        }
        // To an integer with a sign, toward zero: what does not fit is the least integer.
        (13, 1) => {
            let how = ToInt {
                fmt,
                rules: FpRules::Sse,
                truncate: true,
            };
            let a = from.vector(c);
            let result = c.b.fp_to_int(how, a, Ty::I32);
            let least = c.i32(1 << 31);
            let is_rare = c.b.cmp(Cmp::Eq, result, least);
            let to = Reg::new(FpFmt::F32, vd, d);
            unless(c, is_rare, word, |c| c.set_s(to.n, result));
        }
        _ => return None,
    }
    Some(())
}

/// Sets N, Z, C and V of FPSCR.
fn compare(c: &mut Ctx, fmt: FpFmt, signals: bool, a: Val, b: Val) {
    let how = FpCompare {
        fmt,
        rules: FpRules::Sse,
        signals,
    };
    let relation = c.b.fp_compare(how, a, b);
    // Greater is C; the others are looked at from the weakest on, as unordered sets all bits.
    let mut nzcv = c.imm(Ty::I64, 0b0010 << 28);
    for (bit, value) in [
        (flags::CF, 0b1000u64),
        (flags::ZF, 0b0110),
        (flags::PF, 0b0011),
    ] {
        let holds = c.binary_imm(Binary::And, relation, bit);
        let value = c.imm(Ty::I64, value << 28);
        nzcv = c.b.select(holds, value, nzcv);
    }
    let old = c.b.get(regs::FPSR);
    let old = c.binary_imm(Binary::And, old, !super::scalar::NZCV);
    let new = c.b.or(old, nzcv);
    c.b.set(regs::FPSR, new);
}
