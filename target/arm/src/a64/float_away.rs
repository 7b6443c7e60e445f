//! Rounding to the nearest with ties away from zero, which SSE has not: toward zero, and one further where at
//! least a half is missing. Of numbers that can have a fraction, the difference and the sum are exact: neither
//! the rounding mode nor any flag is touched.

use accel_ir::{Binary, Cmp, FpCmp, FpFmt, FpOp, FpRound, FpShape, Ty, Val, VecOp};

use super::context::Ctx;
use super::float::{how, low, sign};

/// The bits of the least number without a fraction, and all above: 2^23, 2^52.
pub(super) fn least_whole(fmt: FpFmt) -> u64 {
    match fmt {
        FpFmt::F32 => 0x4b00_0000,
        FpFmt::F64 => 0x4330_0000_0000_0000,
    }
}

/// The bits of a half and of one.
fn half_and_one(fmt: FpFmt) -> (u64, u64) {
    match fmt {
        FpFmt::F32 => (0x3f00_0000, 0x3f80_0000),
        FpFmt::F64 => (0x3fe0_0000_0000_0000, 0x3ff0_0000_0000_0000),
    }
}

/// Toward zero, and what is missing then.
fn truncated(c: &mut Ctx, fmt: FpFmt, shape: FpShape, n: Val) -> (Val, Val) {
    let op = how(FpOp::RoundQuiet(FpRound::Zero), fmt, shape);
    let whole = c.b.fp(op, n, n);
    let rest = c.b.fp(how(FpOp::Sub, fmt, shape), n, whole);
    (whole, rest)
}

/// A constant in the lanes of a shape.
fn lanes(c: &mut Ctx, fmt: FpFmt, shape: FpShape, value: u64) -> Val {
    match (shape, fmt) {
        (FpShape::Scalar, _) => c.vec_const(value.into()),
        (FpShape::Packed, FpFmt::F32) => c.all_lanes(value, 2),
        (FpShape::Packed, FpFmt::F64) => c.all_lanes(value, 3),
    }
}

/// Lanes whose numbers are less than [`least_whole`]: rounded.
pub(super) fn rounded(c: &mut Ctx, fmt: FpFmt, shape: FpShape, n: Val) -> Val {
    let (whole, rest) = truncated(c, fmt, shape, n);
    let (half, one) = half_and_one(fmt);
    let [sign, half, one] = [sign(fmt), half, one].map(|value| lanes(c, fmt, shape, value));
    let missing = c.vec(VecOp::AndNot, sign, rest);
    let is_half = c.b.fp(how(FpOp::Cmp(FpCmp::Le), fmt, shape), half, missing);
    let further = c.vec(VecOp::And, is_half, one);
    // Zeros keep their sign.
    let sign = c.vec(VecOp::And, n, sign);
    let further = c.vec(VecOp::Or, further, sign);
    c.b.fp(how(FpOp::Add, fmt, shape), whole, further)
}

/// What is to be added to the scalar's integer toward zero, of some type.
pub(super) fn correction(c: &mut Ctx, fmt: FpFmt, n: Val, ty: Ty) -> Val {
    let (_, rest) = truncated(c, fmt, FpShape::Scalar, n);
    let rest = low(c, fmt, rest);
    let missing = c.binary_imm(Binary::And, rest, !sign(fmt));
    let half = c.imm(Ty::I64, half_and_one(fmt).0);
    let is_half = c.b.cmp(Cmp::Leu, half, missing);
    let bits = low(c, fmt, n);
    let positive = c.imm(Ty::I64, sign(fmt));
    let is_positive = c.b.cmp(Cmp::Ltu, bits, positive);
    let (up, down, none) = (c.imm(ty, 1), c.imm(ty, u64::MAX), c.imm(ty, 0));
    let away = c.b.select(is_positive, up, down);
    c.b.select(is_half, away, none)
}
