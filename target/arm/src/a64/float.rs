//! Scalar floating point (DDI 0487, C4.1.97).
//!
//! Arithmetic is that of SSE, whose results and flags are Arm's but for two cases (Intel SDM vol. 1,
//! 4.8.3.5 and 4.9.1.5; DDI 0487, A1.5): which NaN comes out, and whether a result that was rounded up
//! to the least normal number underflowed. In these, and wherever FPCR.FZ is set, [`crate::float`]
//! computes again. Flags that SSE leaves are part of FPSR: see [`crate::float::fpsr_now`].

use accel_ir::{
    Binary, Cmp, Fp, FpCompare, FpFmt, FpOp, FpRound, FpRules, FpShape, HelperId, Ty, Val, VecOp,
    flags,
};

use super::context::Ctx;
use super::float_away;
use super::float_int::integer;
use super::float_lanes::mul_add;
use crate::simd::moves::float_immediate;
use crate::{helper, regs};

mod table {
    include!(concat!(env!("OUT_DIR"), "/float.rs"));
}
pub(crate) use table::{FORMS, Insn, decode};

pub(super) fn translate(c: &mut Ctx, insn: Insn) -> Option<()> {
    if !c.fp_access() {
        return Some(());
    }
    if emit(c, insn).is_none() {
        again(c, helper::FLOAT);
    }
    Some(())
}

/// Has a helper compute the instruction.
pub(super) fn again(c: &mut Ctx, by: accel_ir::HelperId) {
    let word = c.imm(Ty::I64, c.word.into());
    c.b.call_void(by, &[word]);
}

pub(super) fn format(ty: u32) -> Option<FpFmt> {
    match ty {
        0 => Some(FpFmt::F32),
        1 => Some(FpFmt::F64),
        _ => None,
    }
}

pub(crate) fn how(op: FpOp, fmt: FpFmt, shape: FpShape) -> Fp {
    Fp {
        op,
        fmt,
        shape,
        rules: FpRules::Sse,
    }
}

/// The low lane of a vector.
pub(super) fn low(c: &mut Ctx, fmt: FpFmt, v: Val) -> Val {
    let half = c.b.vec_half(v, false);
    match fmt {
        FpFmt::F32 => c.b.extract(half, 0, 32, Ty::I64),
        FpFmt::F64 => half,
    }
}

/// Writes bits to the low lane, and zeros above.
pub(super) fn set_bits(c: &mut Ctx, rd: u32, bits: Val) {
    let zero = c.imm(Ty::I64, 0);
    let v = c.b.vec_make(bits, zero);
    c.b.set_v(regs::v(rd), v);
}

pub(super) fn bits_of(c: &mut Ctx, fmt: FpFmt, n: u32) -> Val {
    let v = c.b.get_v(regs::v(n));
    low(c, fmt, v)
}

/// Sign bit of a format.
pub(super) fn sign(fmt: FpFmt) -> u64 {
    match fmt {
        FpFmt::F32 => 1 << 31,
        FpFmt::F64 => 1 << 63,
    }
}

/// Whether a result is one that SSE may have wrong, or zero; and what is zero if it is zero.
pub(crate) fn rare(c: &mut Ctx, fmt: FpFmt, bits: Val) -> (Val, Val) {
    // Without its sign, less one: subnormal numbers and the least normal one are the lowest, NaNs the
    // highest. So they are together from `first` on, with zero among them.
    let (least, nan) = match fmt {
        FpFmt::F32 => (0x0100_0000u64, 0xff00_0000u64),
        FpFmt::F64 => (0x0020_0000_0000_0000, 0xffe0_0000_0000_0000),
    };
    let ty = match fmt {
        FpFmt::F32 => Ty::I32,
        FpFmt::F64 => Ty::I64,
    };
    let number = c.b.zext(bits, ty);
    let magnitude = c.shl(number, 1);
    let span = nan.wrapping_neg() & ty.mask();
    let moved = c.binary_imm(Binary::Add, magnitude, span.wrapping_sub(1) & ty.mask());
    let limit = c.imm(ty, span.wrapping_add(least));
    (c.b.cmp(Cmp::Ltu, moved, limit), magnitude)
}

/// A register as a number of a format: its low lane, with zeros above.
pub(super) fn scalar(c: &mut Ctx, fmt: FpFmt, n: u32) -> Val {
    let v = c.b.get_v(regs::v(n));
    only(c, fmt, v)
}

/// The low lane of a vector alone.
pub(super) fn only(c: &mut Ctx, fmt: FpFmt, v: Val) -> Val {
    let op = match fmt {
        FpFmt::F32 => VecOp::Low32,
        FpFmt::F64 => VecOp::Low64,
    };
    c.b.vec(op, v, v, 0)
}

/// Writes a result, which has zeros above its low lane, unless it is one that SSE may have wrong. `sources`
/// are the registers whose low lanes it was made of.
fn settle(c: &mut Ctx, fmt: FpFmt, result: Val, rd: u32, sources: &[u32]) {
    settle_by(c, fmt, result, (rd, sources), helper::FLOAT);
}

/// As above; `by` computes the instruction again.
pub(super) fn settle_by(
    c: &mut Ctx,
    fmt: FpFmt,
    result: Val,
    (rd, sources): (u32, &[u32]),
    by: HelperId,
) {
    // Exponents of zeros and subnormal numbers, of the least normal ones, and of infinities and NaNs are
    // together, from all ones on.
    let half = c.b.vec_half(result, false);
    let (ty, fraction, ones) = match fmt {
        FpFmt::F32 => (Ty::I32, 23u32, 0xff),
        FpFmt::F64 => (Ty::I64, 52, 0x7ff),
    };
    let bits = c.b.zext(half, ty);
    let exponent = c.shift(Binary::Shr, bits, fraction);
    let moved = c.binary_imm(Binary::Add, exponent, 1);
    let moved = c.binary_imm(Binary::And, moved, ones);
    let limit = c.imm(ty, 3);
    let is_rare = c.b.cmp(Cmp::Ltu, moved, limit);
    // It is written at once, so that nothing but an operand that this loses is wanted later on.
    let lost = sources.contains(&rd).then(|| scalar(c, FpFmt::F64, rd));
    c.b.set_v(regs::v(rd), result);
    let (rare, slow, done) = (c.b.block(), c.b.block(), c.b.block());
    c.b.branch(is_rare, rare, done);
    c.b.switch(rare);
    let bits = bits_of(c, fmt, rd);
    let magnitude = c.binary_imm(Binary::And, bits, !sign(fmt));
    let zero = c.imm(Ty::I64, 0);
    let is_zero = c.b.cmp(Cmp::Eq, magnitude, zero);
    c.b.branch(is_zero, done, slow);
    c.b.switch(slow);
    if let Some(lost) = lost {
        c.b.set_v(regs::v(rd), lost);
    }
    again(c, by);
    c.b.jump(done, &[]);
    c.b.switch(done);
}

/// Emits an instruction, if it is one of those here.
fn emit(c: &mut Ctx, insn: Insn) -> Option<()> {
    match insn {
        Insn::FpTwo {
            r#type,
            rm,
            opcode,
            rn,
            rd,
        } if !c.mode.flushes() => {
            let fmt = format(r#type)?;
            let op = match opcode {
                0 => FpOp::Mul,
                1 => FpOp::Div,
                2 => FpOp::Add,
                3 => FpOp::Sub,
                4 | 6 => {
                    extreme(c, fmt, false, (rn, rm), rd);
                    return Some(());
                }
                5 | 7 => {
                    extreme(c, fmt, true, (rn, rm), rd);
                    return Some(());
                }
                8 => FpOp::Mul,
                _ => return None,
            };
            let (n, m) = (scalar(c, fmt, rn), c.b.get_v(regs::v(rm)));
            let result = c.b.fp(how(op, fmt, FpShape::Scalar), n, m);
            // FNMUL.
            let result = match opcode {
                8 => negated(c, fmt, result),
                _ => result,
            };
            settle(c, fmt, result, rd, &[rn, rm]);
        }
        Insn::FpThree {
            r#type,
            o1,
            rm,
            o0,
            ra,
            rn,
            rd,
        } if !c.mode.flushes() && c.fp_host.fused => {
            let fmt = format(r#type)?;
            // FMADD, FMSUB, FNMADD, FNMSUB.
            let how = mul_add(fmt, FpShape::Scalar, (o1 != o0, o1 != 0));
            let [n, a] = [rn, ra].map(|r| scalar(c, fmt, r));
            let m = c.b.get_v(regs::v(rm));
            let result = c.b.fp_mul_add(how, (n, m), a);
            settle(c, fmt, result, rd, &[rn, rm, ra]);
        }
        Insn::FpOne {
            r#type,
            opcode,
            rn,
            rd,
        } => return one(c, r#type, opcode, rn, rd),
        Insn::FpCmp {
            r#type,
            rm,
            rn,
            e,
            z,
        } if !c.mode.flushes() => {
            let flags = compare(c, r#type, (rn, (z == 0).then_some(rm)), e)?;
            c.raw_flags(flags);
        }
        Insn::FpCcmp {
            r#type,
            rm,
            cond,
            rn,
            e,
            nzcv,
        } if !c.mode.flushes() => {
            format(r#type)?;
            // What is not compared is not invalid either.
            let holds = c.holds(cond);
            let (yes, no, done) = (c.b.block(), c.b.block(), c.b.block());
            c.b.branch(holds, yes, no);
            c.b.switch(yes);
            let flags = compare(c, r#type, (rn, Some(rm)), e)?;
            c.raw_flags(flags);
            c.b.jump(done, &[]);
            c.b.switch(no);
            let given = crate::mode::to_x86(u64::from(nzcv) << 28);
            let given = c.imm(Ty::I64, given);
            c.raw_flags(given);
            c.b.jump(done, &[]);
            c.b.switch(done);
        }
        Insn::FpCsel {
            r#type,
            rm,
            cond,
            rn,
            rd,
        } => {
            let fmt = format(r#type)?;
            let holds = c.holds(cond);
            let (n, m) = (bits_of(c, fmt, rn), bits_of(c, fmt, rm));
            let bits = c.b.select(holds, n, m);
            set_bits(c, rd, bits);
        }
        Insn::FpImm { r#type, imm, rd } => {
            let width = match format(r#type)? {
                FpFmt::F32 => 32,
                FpFmt::F64 => 64,
            };
            let bits = c.imm(Ty::I64, float_immediate(imm, width));
            set_bits(c, rd, bits);
        }
        Insn::FpInt {
            sf,
            r#type,
            rmode,
            opcode,
            rn,
            rd,
        } => return integer(c, (sf, r#type), (rmode, opcode), rn, rd),
        _ => return None,
    }
    Some(())
}

fn one(c: &mut Ctx, ty: u32, opcode: u32, rn: u32, rd: u32) -> Option<()> {
    let fmt = format(ty)?;
    match opcode {
        // FMOV, FABS, FNEG.
        0..=2 => {
            let bits = bits_of(c, fmt, rn);
            let bits = match opcode {
                0 => bits,
                1 => c.binary_imm(Binary::And, bits, !sign(fmt)),
                _ => c.binary_imm(Binary::Xor, bits, sign(fmt)),
            };
            set_bits(c, rd, bits);
        }
        3 if !c.mode.flushes() => {
            let n = scalar(c, fmt, rn);
            let result = c.b.fp(how(FpOp::Sqrt, fmt, FpShape::Scalar), n, n);
            settle(c, fmt, result, rd, &[rn]);
        }
        // FRINTN, FRINTP, FRINTM, FRINTZ, FRINTX, FRINTI.
        8..=11 | 14 | 15 if !c.mode.flushes() && c.fp_host.rounds => {
            let op = match opcode {
                8 => FpOp::RoundQuiet(FpRound::Nearest),
                9 => FpOp::RoundQuiet(FpRound::Up),
                10 => FpOp::RoundQuiet(FpRound::Down),
                11 => FpOp::RoundQuiet(FpRound::Zero),
                14 => FpOp::Round(FpRound::Current),
                _ => FpOp::RoundQuiet(FpRound::Current),
            };
            let n = scalar(c, fmt, rn);
            let result = c.b.fp(how(op, fmt, FpShape::Scalar), n, n);
            settle(c, fmt, result, rd, &[rn]);
        }
        // FRINTA.
        12 if !c.mode.flushes() && c.fp_host.rounds => {
            let bits = bits_of(c, fmt, rn);
            let magnitude = c.binary_imm(Binary::And, bits, !sign(fmt));
            let limit = c.imm(Ty::I64, float_away::least_whole(fmt));
            let is_small = c.b.cmp(Cmp::Ltu, magnitude, limit);
            when(c, is_small, |c| {
                let n = scalar(c, fmt, rn);
                let result = float_away::rounded(c, fmt, FpShape::Scalar, n);
                c.b.set_v(regs::v(rd), result);
            });
        }
        // FCVT between single and double.
        4 | 5 if !c.mode.flushes() && opcode & 1 != ty => {
            let to = format(opcode & 1)?;
            let n = scalar(c, fmt, rn);
            let result = c.b.fp(how(FpOp::Convert, to, FpShape::Scalar), n, n);
            // Of a double, the upper half of what it was is above.
            let result = only(c, to, result);
            settle(c, to, result, rd, &[rn]);
        }
        _ => return None,
    }
    Some(())
}

/// Runs `fast` where a condition holds, else has a helper compute the instruction.
pub(super) fn when(c: &mut Ctx, holds: Val, fast: impl FnOnce(&mut Ctx)) {
    let (yes, slow, done) = (c.b.block(), c.b.block(), c.b.block());
    c.b.branch(holds, yes, slow);
    c.b.switch(slow);
    again(c, helper::FLOAT);
    c.b.jump(done, &[]);
    c.b.switch(yes);
    fast(c);
    c.b.jump(done, &[]);
    c.b.switch(done);
}

/// A vector with the sign of its low lane changed.
fn negated(c: &mut Ctx, fmt: FpFmt, v: Val) -> Val {
    let (sign, zero) = (c.imm(Ty::I64, sign(fmt)), c.imm(Ty::I64, 0));
    let sign = c.b.vec_make(sign, zero);
    c.b.vec(VecOp::Xor, v, sign, 0)
}

/// FMAX, FMIN, FMAXNM, FMINNM: of numbers they are the same, and with a NaN a helper knows.
fn extreme(c: &mut Ctx, fmt: FpFmt, is_min: bool, (rn, rm): (u32, u32), rd: u32) {
    let (n, m) = (scalar(c, fmt, rn), c.b.get_v(regs::v(rm)));
    let how = FpCompare {
        fmt,
        rules: FpRules::Sse,
        signals: false,
    };
    let relation = c.b.fp_compare(how, n, m);
    let unordered = c.binary_imm(Binary::And, relation, flags::PF);
    let zero = c.imm(Ty::I64, 0);
    let is_nan = c.b.cmp(Cmp::Ne, unordered, zero);
    let (slow, fast, done) = (c.b.block(), c.b.block(), c.b.block());
    c.b.branch(is_nan, slow, fast);
    c.b.switch(slow);
    again(c, helper::FLOAT);
    c.b.jump(done, &[]);
    c.b.switch(fast);
    let (n, m) = (bits_of(c, fmt, rn), bits_of(c, fmt, rm));
    let less = c.binary_imm(Binary::And, relation, flags::CF);
    let equal = c.binary_imm(Binary::And, relation, flags::ZF);
    // Of two zeros the sign counts.
    let (chosen, either) = match is_min {
        true => (c.b.select(less, n, m), c.b.or(n, m)),
        false => (c.b.select(less, m, n), c.b.and(n, m)),
    };
    let bits = c.b.select(equal, either, chosen);
    set_bits(c, rd, bits);
    c.b.jump(done, &[]);
    c.b.switch(done);
}

/// The flags of a comparison, in x86's places with C inverted.
fn compare(c: &mut Ctx, ty: u32, (rn, rm): (u32, Option<u32>), e: u32) -> Option<Val> {
    let fmt = format(ty)?;
    let n = scalar(c, fmt, rn);
    let m = match rm {
        Some(rm) => c.b.get_v(regs::v(rm)),
        None => {
            let zero = c.imm(Ty::I64, 0);
            c.b.vec_make(zero, zero)
        }
    };
    let how = FpCompare {
        fmt,
        rules: FpRules::Sse,
        signals: e != 0,
    };
    let relation = c.b.fp_compare(how, n, m);
    // Less is N, equal is Z and C, greater C, unordered C and V; C is inverted.
    let less = c.binary_imm(Binary::And, relation, accel_ir::flags::CF);
    let equal = c.binary_imm(Binary::And, relation, accel_ir::flags::ZF);
    let minus = c.shl(less, 7);
    let both = c.b.or(less, minus);
    let ordered = c.b.or(both, equal);
    let unordered = c.binary_imm(Binary::And, relation, accel_ir::flags::PF);
    let overflow = c.imm(Ty::I64, accel_ir::flags::OF);
    Some(c.b.select(unordered, overflow, ordered))
}
