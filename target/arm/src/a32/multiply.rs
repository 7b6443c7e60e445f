//! Multiplications and divisions (DDI 0487, F1.4.4 "Multiply instructions", F5.1).

use accel_ir::{Binary, Cmp, Ty, Val};

use super::bits::no_pc;
use super::context::Ctx;

/// MUL, MLA, MLS: `ra` and its sign, if there is an addend.
pub(super) fn multiply(
    c: &mut Ctx,
    s: u32,
    (rd, rn, rm): (u32, u32, u32),
    addend: Option<(u32, bool)>,
) -> Option<()> {
    no_pc(&[rd, rn, rm])?;
    let (a, b) = (c.r(rn), c.r(rm));
    let mut v = c.b.binary(Binary::Mul, a, b);
    if let Some((ra, subtract)) = addend {
        no_pc(&[ra])?;
        let base = c.r(ra);
        v = match subtract {
            false => c.b.add(base, v),
            true => c.b.sub(base, v),
        };
    }
    if s != 0 {
        c.logic(v, None);
    }
    c.set_r(rd, v);
    Some(())
}

fn widened(c: &mut Ctx, n: u32, signed: u32) -> Val {
    let v = c.r(n);
    match signed {
        0 => c.b.zext(v, Ty::I64),
        _ => c.b.sext(v, Ty::I64),
    }
}

fn wide_pair(c: &mut Ctx, lo: u32, hi: u32) -> Val {
    let low = c.r(lo);
    let high = c.r(hi);
    let low = c.b.zext(low, Ty::I64);
    let high = c.b.zext(high, Ty::I64);
    c.b.insert(low, high, 32, 32)
}

fn set_pair(c: &mut Ctx, lo: u32, hi: u32, v: Val) {
    let low = c.b.zext(v, Ty::I32);
    let high = c.b.extract(v, 32, 32, Ty::I32);
    c.set_r(lo, low);
    c.set_r(hi, high);
}

/// UMULL, UMLAL, SMULL, SMLAL.
pub(super) fn multiply_long(
    c: &mut Ctx,
    (signed, add, s): (u32, u32, u32),
    (lo, hi, rn, rm): (u32, u32, u32, u32),
) -> Option<()> {
    no_pc(&[lo, hi, rn, rm])?;
    if lo == hi {
        return None;
    }
    let (a, b) = (widened(c, rn, signed), widened(c, rm, signed));
    let mut v = c.b.binary(Binary::Mul, a, b);
    if add != 0 {
        let base = wide_pair(c, lo, hi);
        v = c.b.add(base, v);
    }
    if s != 0 {
        // N and Z of 64 bits.
        let low = c.b.zext(v, Ty::I32);
        let high = c.b.extract(v, 32, 32, Ty::I32);
        let zero = c.i32(0);
        let has_low = c.b.cmp(Cmp::Ne, low, zero);
        let has_low = c.b.zext(has_low, Ty::I32);
        let folded = c.b.or(high, has_low);
        c.logic(folded, None);
    }
    set_pair(c, lo, hi, v);
    Some(())
}

/// UMAAL.
pub(super) fn multiply_add_add(c: &mut Ctx, (lo, hi, rn, rm): (u32, u32, u32, u32)) -> Option<()> {
    no_pc(&[lo, hi, rn, rm])?;
    if lo == hi {
        return None;
    }
    let (a, b) = (widened(c, rn, 0), widened(c, rm, 0));
    let product = c.b.binary(Binary::Mul, a, b);
    let (x, y) = (widened(c, lo, 0), widened(c, hi, 0));
    let v = c.b.add(product, x);
    let v = c.b.add(v, y);
    set_pair(c, lo, hi, v);
    Some(())
}

/// A halfword with its sign, as an i64.
fn half(c: &mut Ctx, n: u32, top: u32) -> Val {
    let v = c.r(n);
    let v = c.shift(Binary::Shr, v, top << 4);
    let v = c.b.zext(v, Ty::I16);
    c.b.sext(v, Ty::I64)
}

/// A 32-bit sum with an accumulator: Q is set if it overflows.
fn accumulate(c: &mut Ctx, v: Val, ra: u32) -> Val {
    let base = widened(c, ra, 1);
    let sum = c.b.add(base, v);
    let low = c.b.zext(sum, Ty::I32);
    let back = c.b.sext(low, Ty::I64);
    let overflows = c.b.cmp(Cmp::Ne, back, sum);
    c.saturated(overflows);
    low
}

/// SMULxy, SMLAxy: an addend unless `ra` is `None`.
pub(super) fn multiply_half(
    c: &mut Ctx,
    (n, m): (u32, u32),
    (rd, rn, rm): (u32, u32, u32),
    ra: Option<u32>,
) -> Option<()> {
    no_pc(&[rd, rn, rm])?;
    let (a, b) = (half(c, rn, n), half(c, rm, m));
    let v = c.b.binary(Binary::Mul, a, b);
    let v = settle(c, v, ra)?;
    c.set_r(rd, v);
    Some(())
}

fn settle(c: &mut Ctx, v: Val, ra: Option<u32>) -> Option<Val> {
    match ra {
        Some(ra) => {
            no_pc(&[ra])?;
            Some(accumulate(c, v, ra))
        }
        None => Some(c.b.zext(v, Ty::I32)),
    }
}

/// SMULWy, SMLAWy.
pub(super) fn multiply_word_half(
    c: &mut Ctx,
    m: u32,
    (rd, rn, rm): (u32, u32, u32),
    ra: Option<u32>,
) -> Option<()> {
    no_pc(&[rd, rn, rm])?;
    let a = widened(c, rn, 1);
    let b = half(c, rm, m);
    let v = c.b.binary(Binary::Mul, a, b);
    let v = c.shift(Binary::Sar, v, 16);
    let v = settle(c, v, ra)?;
    c.set_r(rd, v);
    Some(())
}

/// SMLALxy.
pub(super) fn multiply_half_long(
    c: &mut Ctx,
    (n, m): (u32, u32),
    (lo, hi, rn, rm): (u32, u32, u32, u32),
) -> Option<()> {
    no_pc(&[lo, hi, rn, rm])?;
    if lo == hi {
        return None;
    }
    let (a, b) = (half(c, rn, n), half(c, rm, m));
    let v = c.b.binary(Binary::Mul, a, b);
    let base = wide_pair(c, lo, hi);
    let v = c.b.add(base, v);
    set_pair(c, lo, hi, v);
    Some(())
}

/// Sum or difference of two products of halfwords, the second operand's exchanged if asked for.
fn dual(c: &mut Ctx, (sub, x): (u32, u32), rn: u32, rm: u32) -> Val {
    let (a, b) = (half(c, rn, 0), half(c, rm, x));
    let low = c.b.binary(Binary::Mul, a, b);
    let (a, b) = (half(c, rn, 1), half(c, rm, x ^ 1));
    let high = c.b.binary(Binary::Mul, a, b);
    match sub {
        0 => c.b.add(low, high),
        _ => c.b.sub(low, high),
    }
}

/// SMUAD, SMUSD, SMLAD, SMLSD.
pub(super) fn multiply_dual(
    c: &mut Ctx,
    how: (u32, u32),
    (rd, rn, rm): (u32, u32, u32),
    ra: u32,
) -> Option<()> {
    no_pc(&[rd, rn, rm])?;
    let v = dual(c, how, rn, rm);
    let v = if ra == 15 {
        // Only -2^15 * -2^15 twice overflows.
        let low = c.b.zext(v, Ty::I32);
        let back = c.b.sext(low, Ty::I64);
        let overflows = c.b.cmp(Cmp::Ne, back, v);
        c.saturated(overflows);
        low
    } else {
        accumulate(c, v, ra)
    };
    c.set_r(rd, v);
    Some(())
}

/// SMLALD, SMLSLD.
pub(super) fn multiply_dual_long(
    c: &mut Ctx,
    how: (u32, u32),
    (lo, hi, rn, rm): (u32, u32, u32, u32),
) -> Option<()> {
    no_pc(&[lo, hi, rn, rm])?;
    if lo == hi {
        return None;
    }
    let v = dual(c, how, rn, rm);
    let base = wide_pair(c, lo, hi);
    let v = c.b.add(base, v);
    set_pair(c, lo, hi, v);
    Some(())
}

/// SMMUL, SMMLA, SMMLS: the high half, rounded if asked for.
pub(super) fn multiply_high(
    c: &mut Ctx,
    (sub, round): (u32, u32),
    (rd, rn, rm): (u32, u32, u32),
    ra: u32,
) -> Option<()> {
    no_pc(&[rd, rn, rm])?;
    if ra == 15 && sub != 0 {
        return None;
    }
    let (a, b) = (widened(c, rn, 1), widened(c, rm, 1));
    let mut v = c.b.binary(Binary::Mul, a, b);
    if ra != 15 {
        let base = c.r(ra);
        let base = c.b.zext(base, Ty::I64);
        let base = c.shl(base, 32);
        v = match sub {
            0 => c.b.add(base, v),
            _ => c.b.sub(base, v),
        };
    }
    if round != 0 {
        v = c.binary_imm(Binary::Add, v, 0x8000_0000);
    }
    let v = c.b.extract(v, 32, 32, Ty::I32);
    c.set_r(rd, v);
    Some(())
}

/// SDIV, UDIV.
pub(super) fn divide(c: &mut Ctx, unsigned: u32, (rd, rn, rm): (u32, u32, u32)) -> Option<()> {
    no_pc(&[rd, rn, rm])?;
    let (a, b) = (c.r(rn), c.r(rm));
    let v = crate::a64::register::divide(c, Ty::I32, unsigned == 0, a, b);
    c.set_r(rd, v);
    Some(())
}
