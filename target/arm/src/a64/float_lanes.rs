//! Floating point in lanes as operations of the IR: as [`super::float`] has it, all lanes at once.

use accel_ir::{
    Binary, Cmp, Fp, FpCmp, FpFmt, FpMulAdd, FpOp, FpRound, FpRules, FpShape, Ty, Val, VecOp,
};

use super::context::Ctx;
use super::{float, float_away};
use crate::{helper, regs};

fn packed(op: FpOp, fmt: FpFmt) -> Fp {
    float::how(op, fmt, FpShape::Packed)
}

/// The format of a size field's low bit.
fn format(size: u32) -> FpFmt {
    match size & 1 {
        0 => FpFmt::F32,
        _ => FpFmt::F64,
    }
}

/// A register of lanes: those of a half register have zeros above, which no operation but division
/// objects to.
fn operand(c: &mut Ctx, q: u32, v: Val) -> Val {
    if q != 0 {
        return v;
    }
    c.vec_imm(VecOp::Low64, v, 0)
}

/// Size of lanes as [`Ctx::all_lanes`] wants it.
fn size_of(fmt: FpFmt) -> u32 {
    match fmt {
        FpFmt::F32 => 2,
        FpFmt::F64 => 3,
    }
}

/// The sign bits of all lanes.
fn signs(c: &mut Ctx, fmt: FpFmt) -> Val {
    let sign = float::sign(fmt);
    c.all_lanes(sign, size_of(fmt))
}

/// Lets a helper compute the instruction again if any lane of a mask is ones; else `store` is emitted.
fn unless(c: &mut Ctx, rare: Val, store: impl FnOnce(&mut Ctx)) {
    let rare = c.b.vec_signs(rare, Ty::I32);
    let zero = c.imm(c.b.ty(rare), 0);
    let is_rare = c.b.cmp(Cmp::Ne, rare, zero);
    let (slow, fast, done) = (c.b.block(), c.b.block(), c.b.block());
    c.b.branch(is_rare, slow, fast);
    c.b.switch(slow);
    float::again(c, helper::SIMD);
    c.b.jump(done, &[]);
    c.b.switch(fast);
    store(c);
    c.b.jump(done, &[]);
    c.b.switch(done);
}

/// Writes a result, unless it is one that SSE may have wrong.
fn settle(c: &mut Ctx, fmt: FpFmt, q: u32, result: Val, rd: u32) {
    let nan = c.b.fp(packed(FpOp::Cmp(FpCmp::Unord), fmt), result, result);
    // The least normal number, without its sign.
    let least = match fmt {
        FpFmt::F32 => {
            let magnitude = c.vec_imm(VecOp::ShlImm32, result, 1);
            let least = c.all_lanes(0x0100_0000, 2);
            c.vec(VecOp::CmpEq32, magnitude, least)
        }
        FpFmt::F64 => {
            let magnitude = c.vec_imm(VecOp::ShlImm64, result, 1);
            let least = c.all_lanes(0x0020_0000_0000_0000, 3);
            let halves = c.vec(VecOp::CmpEq32, magnitude, least);
            let others = c.vec_imm(VecOp::Shuffle32, halves, 0b1011_0001);
            c.vec(VecOp::And, halves, others)
        }
    };
    let rare = c.vec(VecOp::Or, nan, least);
    // Nothing less nothing is not always positive: what is above half a register is cleared.
    unless(c, rare, |c| c.set_vec(rd, q, result));
}

/// Three registers, by the opcode, U and size of "three same".
pub(super) fn three_same(
    c: &mut Ctx,
    (opcode, u, size): (u32, u32, u32),
    q: u32,
    (rn, rm): (u32, u32),
    rd: u32,
) -> Option<()> {
    let fmt = format(size);
    if fmt == FpFmt::F64 && q == 0 || c.mode.flushes() {
        return None;
    }
    let (n, m) = (c.v(rn), c.v(rm));
    let (n, m) = (operand(c, q, n), operand(c, q, m));
    let op = match (opcode, u, size >> 1) {
        (0b11001, 0, subtracts) => return fused(c, fmt, (q, subtracts), (n, m), rd),
        (0b11010, 0, 0) => FpOp::Add,
        (0b11010, 0, _) => FpOp::Sub,
        (0b11011, 1, 0) => FpOp::Mul,
        (0b11111, 1, 0) => {
            // Nothing divided by nothing would be invalid above half a register.
            let m = match q {
                0 => {
                    let low = c.b.vec_half(m, false);
                    let ones = c.imm(Ty::I64, 0x3f80_0000_3f80_0000);
                    c.b.vec_make(low, ones)
                }
                _ => m,
            };
            let result = c.b.fp(packed(FpOp::Div, fmt), n, m);
            settle(c, fmt, q, result, rd);
            return Some(());
        }
        // FABD.
        (0b11010, 1, 1) => {
            let result = c.b.fp(packed(FpOp::Sub, fmt), n, m);
            let sign = signs(c, fmt);
            let result = c.vec(VecOp::AndNot, sign, result);
            settle(c, fmt, q, result, rd);
            return Some(());
        }
        // FADDP.
        (0b11010, 1, 0) => {
            let (n, m) = match q {
                0 => (c.vec(VecOp::UnpackLo64, n, m), c.vec_const(0)),
                _ => (n, m),
            };
            let result = c.b.fp(packed(FpOp::HAdd, fmt), n, m);
            settle(c, fmt, q, result, rd);
            return Some(());
        }
        // FCMEQ, FCMGE, FCMGT, FACGE, FACGT: greater is less the other way round.
        (0b11100, 0, 0) => return compare(c, (FpCmp::Eq, fmt), q, (n, m), rd),
        (0b11100, 1, 0) => return compare(c, (FpCmp::Le, fmt), q, (m, n), rd),
        (0b11100, 1, _) => return compare(c, (FpCmp::Lt, fmt), q, (m, n), rd),
        (0b11101, 1, greater) => {
            let sign = signs(c, fmt);
            let (n, m) = (c.vec(VecOp::AndNot, sign, n), c.vec(VecOp::AndNot, sign, m));
            let cmp = if greater != 0 { FpCmp::Lt } else { FpCmp::Le };
            return compare(c, (cmp, fmt), q, (m, n), rd);
        }
        // FMAXNM, FMINNM, FMAX, FMIN.
        (0b11000 | 0b11110, 0, min) => {
            extreme(c, fmt, (q, min != 0), (n, m), rd);
            return Some(());
        }
        _ => return None,
    };
    let result = c.b.fp(packed(op, fmt), n, m);
    settle(c, fmt, q, result, rd);
    Some(())
}

/// FMLA, FMLS.
fn fused(
    c: &mut Ctx,
    fmt: FpFmt,
    (q, subtracts): (u32, u32),
    (n, m): (Val, Val),
    rd: u32,
) -> Option<()> {
    if !c.fp_host.fused {
        return None;
    }
    let d = c.v(rd);
    let d = operand(c, q, d);
    let how = mul_add(fmt, FpShape::Packed, (subtracts != 0, false));
    let result = c.b.fp_mul_add(how, (n, m), d);
    settle(c, fmt, q, result, rd);
    Some(())
}

/// A fused product and sum, with the signs of the product and of what is added.
pub(super) fn mul_add(fmt: FpFmt, shape: FpShape, (negates, subtracts): (bool, bool)) -> FpMulAdd {
    FpMulAdd {
        fmt,
        shape,
        rules: FpRules::Sse,
        negates,
        subtracts,
    }
}

/// Lanes of ones where a predicate holds.
fn compare(
    c: &mut Ctx,
    (cmp, fmt): (FpCmp, FpFmt),
    q: u32,
    (a, b): (Val, Val),
    rd: u32,
) -> Option<()> {
    let result = c.b.fp(packed(FpOp::Cmp(cmp), fmt), a, b);
    c.set_vec(rd, q, result);
    Some(())
}

/// The greater or lesser of each lane. SSE gives the second of two zeros: both ways together give the one
/// whose sign is right.
fn extreme(c: &mut Ctx, fmt: FpFmt, (q, is_min): (u32, bool), (n, m): (Val, Val), rd: u32) {
    let nan = c.b.fp(packed(FpOp::Cmp(FpCmp::Unord), fmt), n, m);
    unless(c, nan, |c| {
        let (op, both) = match is_min {
            true => (FpOp::Min, VecOp::Or),
            false => (FpOp::Max, VecOp::And),
        };
        let one = c.b.fp(packed(op, fmt), n, m);
        let other = c.b.fp(packed(op, fmt), m, n);
        let result = c.vec(both, one, other);
        c.set_vec(rd, q, result);
    });
}

/// One register, by the opcode, U and size of "two misc".
pub(super) fn two_misc(
    c: &mut Ctx,
    (opcode, u, size): (u32, u32, u32),
    q: u32,
    rn: u32,
    rd: u32,
) -> Option<()> {
    let fmt = format(size);
    let there = opcode >= 0b01100 && !(fmt == FpFmt::F64 && q == 0);
    // FCVTL and FCVTN have the wider lanes' size, whatever Q is.
    let converts = matches!(opcode, 0b10110 | 0b10111) && u == 0 && size == 1;
    if !there && !converts || c.mode.flushes() {
        return None;
    }
    let n = c.v(rn);
    if converts {
        convert(c, opcode == 0b10111, q, n, rd);
        return Some(());
    }
    let n = operand(c, q, n);
    let zero = c.vec_const(0);
    let high = size >> 1;
    let round = |to: FpRound, is_exact: bool| match is_exact {
        true => FpOp::Round(to),
        false => FpOp::RoundQuiet(to),
    };
    let op = match (opcode, u, high) {
        // FCMGT, FCMEQ, FCMLT, FCMGE, FCMLE with zero.
        (0b01100, 0, 1) => return compare(c, (FpCmp::Lt, fmt), q, (zero, n), rd),
        (0b01101, 0, 1) => return compare(c, (FpCmp::Eq, fmt), q, (n, zero), rd),
        (0b01110, 0, 1) => return compare(c, (FpCmp::Lt, fmt), q, (n, zero), rd),
        (0b01100, 1, 1) => return compare(c, (FpCmp::Le, fmt), q, (zero, n), rd),
        (0b01101, 1, 1) => return compare(c, (FpCmp::Le, fmt), q, (n, zero), rd),
        // FABS, FNEG.
        (0b01111, _, 1) => {
            let sign = signs(c, fmt);
            let result = match u {
                0 => c.vec(VecOp::AndNot, sign, n),
                _ => c.vec(VecOp::Xor, n, sign),
            };
            c.set_vec(rd, q, result);
            return Some(());
        }
        (0b11111, 1, 1) => FpOp::Sqrt,
        // FRINTN, FRINTP, FRINTM, FRINTZ, FRINTX, FRINTI.
        (0b11000, 0, 0) => round(FpRound::Nearest, false),
        (0b11000, 0, _) => round(FpRound::Up, false),
        (0b11001, 0, 0) => round(FpRound::Down, false),
        (0b11001, 0, _) => round(FpRound::Zero, false),
        (0b11001, 1, 0) => round(FpRound::Current, true),
        (0b11001, 1, _) => round(FpRound::Current, false),
        (0b11000, 1, 0) => return round_away(c, fmt, q, n, rd),
        (0b11101, 0, 0) => return from_integers(c, fmt, q, n, rd),
        (0b11101, 1, 0) => return from_unsigned(c, fmt, q, n, rd),
        (0b11011, 0, 1) => return to_integers(c, fmt, q, n, rd),
        _ => return None,
    };
    if matches!(op, FpOp::Round(_) | FpOp::RoundQuiet(_)) && !c.fp_host.rounds {
        return None;
    }
    let result = c.b.fp(packed(op, fmt), n, n);
    settle(c, fmt, q, result, rd);
    Some(())
}

/// FCVTL, FCVTN between single and double precision. `q` is which half of the narrower one.
fn convert(c: &mut Ctx, widens: bool, q: u32, n: Val, rd: u32) {
    if widens {
        let low = match q {
            0 => n,
            _ => c.vec_imm(VecOp::ShrBytes, n, 8),
        };
        let result = c.b.fp(packed(FpOp::Convert, FpFmt::F64), low, low);
        settle(c, FpFmt::F64, 1, result, rd);
        return;
    }
    let result = c.b.fp(packed(FpOp::Convert, FpFmt::F32), n, n);
    if q == 0 {
        settle(c, FpFmt::F32, 1, result, rd);
        return;
    }
    let d = c.v(rd);
    let d = operand(c, 0, d);
    let both = c.vec(VecOp::UnpackLo64, d, result);
    let rare = c.vec(VecOp::UnpackLo64, result, result);
    let nan =
        c.b.fp(packed(FpOp::Cmp(FpCmp::Unord), FpFmt::F32), rare, rare);
    let magnitude = c.vec_imm(VecOp::ShlImm32, rare, 1);
    let least = c.all_lanes(0x0100_0000, 2);
    let least = c.vec(VecOp::CmpEq32, magnitude, least);
    let rare = c.vec(VecOp::Or, nan, least);
    unless(c, rare, |c| c.b.set_v(regs::v(rd), both));
}

/// SCVTF.
fn from_integers(c: &mut Ctx, fmt: FpFmt, q: u32, n: Val, rd: u32) -> Option<()> {
    let result = match fmt {
        FpFmt::F32 => c.b.fp(packed(FpOp::FromI32, fmt), n, n),
        FpFmt::F64 => {
            let [low, high] = [false, true].map(|high| {
                let half = c.b.vec_half(n, high);
                c.b.fp_from_int(fmt, FpRules::Sse, n, half)
            });
            c.vec(VecOp::UnpackLo64, low, high)
        }
    };
    c.set_vec(rd, q, result);
    Some(())
}

/// UCVTF: the halves of each number are exact, and so is the product; their sum is rounded.
fn from_unsigned(c: &mut Ctx, fmt: FpFmt, q: u32, n: Val, rd: u32) -> Option<()> {
    let (high, low, scale) = match fmt {
        FpFmt::F32 => {
            let mask = c.all_lanes(0xffff, 2);
            let halves = [
                c.vec_imm(VecOp::ShrImm32, n, 16),
                c.vec(VecOp::And, n, mask),
            ];
            let [high, low] = halves.map(|half| c.b.fp(packed(FpOp::FromI32, fmt), half, half));
            (high, low, 0x4780_0000)
        }
        FpFmt::F64 => {
            let lanes = [false, true].map(|upper| {
                let lane = c.b.vec_half(n, upper);
                let halves = [
                    c.shift(Binary::Shr, lane, 32),
                    c.binary_imm(Binary::And, lane, 0xffff_ffff),
                ];
                halves.map(|half| c.b.fp_from_int(fmt, FpRules::Sse, n, half))
            });
            let [[high, low], [next_high, next_low]] = lanes;
            let high = c.vec(VecOp::UnpackLo64, high, next_high);
            let low = c.vec(VecOp::UnpackLo64, low, next_low);
            (high, low, 0x41f0_0000_0000_0000)
        }
    };
    let scale = c.all_lanes(scale, size_of(fmt));
    let high = c.b.fp(packed(FpOp::Mul, fmt), high, scale);
    let result = c.b.fp(packed(FpOp::Add, fmt), high, low);
    c.set_vec(rd, q, result);
    Some(())
}

/// FRINTA, if each number can have a fraction.
fn round_away(c: &mut Ctx, fmt: FpFmt, q: u32, n: Val, rd: u32) -> Option<()> {
    if !c.fp_host.rounds {
        return None;
    }
    let sign = signs(c, fmt);
    let magnitude = c.vec(VecOp::AndNot, sign, n);
    let whole = float_away::least_whole(fmt);
    // By the upper halves of doubles: no lower one is greater than this as a signed number.
    let most = match fmt {
        FpFmt::F32 => whole.wrapping_sub(1),
        FpFmt::F64 => whole.wrapping_sub(1 << 32) & !0xffff_ffff | 0x7fff_ffff,
    };
    let most = c.all_lanes(most, size_of(fmt));
    let rare = c.vec(VecOp::CmpGt32, magnitude, most);
    unless(c, rare, |c| {
        let result = float_away::rounded(c, fmt, FpShape::Packed, n);
        c.set_vec(rd, q, result);
    });
    Some(())
}

/// FCVTZS: what does not fit is the least integer, and anything else than that is right.
fn to_integers(c: &mut Ctx, fmt: FpFmt, q: u32, n: Val, rd: u32) -> Option<()> {
    if fmt == FpFmt::F64 {
        return None;
    }
    let result = c.b.fp(packed(FpOp::ToI32Trunc, fmt), n, n);
    let least = c.all_lanes(0x8000_0000, 2);
    let rare = c.vec(VecOp::CmpEq32, result, least);
    unless(c, rare, |c| c.set_vec(rd, q, result));
    Some(())
}

/// FMLA, FMLS, FMUL by an element: (size, H:L, M:Rm).
pub(super) fn by_element(
    c: &mut Ctx,
    opcode: u32,
    (q, scalar): (u32, u32),
    (size, index, rm): (u32, u32, u32),
    (rn, rd): (u32, u32),
) -> Option<()> {
    let fmt = format(size);
    let is_lane = fmt == FpFmt::F32 || index & 1 == 0 && (q | scalar) != 0;
    if !matches!(opcode, 0b0001 | 0b0101 | 0b1001) || !is_lane || c.mode.flushes() {
        return None;
    }
    if opcode != 0b1001 && !c.fp_host.fused {
        return None;
    }
    let (n, m) = (c.v(rn), c.v(rm));
    let m = match (fmt, index >> 1) {
        (FpFmt::F32, _) => c.vec_imm(VecOp::Shuffle32, m, index.wrapping_mul(0x55)),
        (FpFmt::F64, 0) => c.vec(VecOp::UnpackLo64, m, m),
        (FpFmt::F64, _) => c.vec(VecOp::UnpackHi64, m, m),
    };
    if scalar != 0 {
        if rm == rd && index != 0 {
            // The helper would miss the element.
            return None;
        }
        let n = float::only(c, fmt, n);
        let result = match opcode {
            0b1001 => c.b.fp(float::how(FpOp::Mul, fmt, FpShape::Scalar), n, m),
            _ => {
                let d = float::scalar(c, fmt, rd);
                let how = mul_add(fmt, FpShape::Scalar, (opcode == 0b0101, false));
                c.b.fp_mul_add(how, (n, m), d)
            }
        };
        float::settle_by(c, fmt, result, (rd, &[rn, rm, rd]), helper::SIMD);
        return Some(());
    }
    let (n, m) = (operand(c, q, n), operand(c, q, m));
    if opcode != 0b1001 {
        return fused(c, fmt, (q, u32::from(opcode == 0b0101)), (n, m), rd);
    }
    let result = c.b.fp(packed(FpOp::Mul, fmt), n, m);
    settle(c, fmt, q, result, rd);
    Some(())
}

/// FADDP (scalar).
pub(super) fn pair(c: &mut Ctx, size: u32, rn: u32, rd: u32) -> Option<()> {
    if c.mode.flushes() {
        return None;
    }
    let fmt = format(size);
    let n = c.v(rn);
    // Two lanes alone.
    let n = operand(c, u32::from(fmt == FpFmt::F64), n);
    let zero = c.vec_const(0);
    let result = c.b.fp(packed(FpOp::HAdd, fmt), n, zero);
    // One lane, of what has zeros beside it.
    let result = float::only(c, fmt, result);
    settle(c, fmt, 1, result, rd);
    Some(())
}
