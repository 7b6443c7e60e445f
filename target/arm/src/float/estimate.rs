//! Estimates of reciprocals and of reciprocal square roots (DDI 0487, J1.1 `RecipEstimate`,
//! `RecipSqrtEstimate`).

use target_softfloat::{Env, Flags, Rounding};

use super::arithmetic::Lane;
use target_softfloat::{F16, F32, F64};

/// `RecipEstimate`: of nine bits, from 256 on.
fn reciprocal_table(a: u32) -> u32 {
    let a = a * 2 + 1;
    let b = (1 << 19) / a;
    b.div_ceil(2)
}

/// `RecipSqrtEstimate`: of nine bits, from 128 on.
fn root_table(a: u32) -> u32 {
    let a = if a < 256 {
        a * 2 + 1
    } else {
        (a >> 1 << 1) * 2 + 2
    };
    let mut b = 512u32;
    while u64::from(a) * u64::from(b + 1) * u64::from(b + 1) < 1 << 28 {
        b += 1;
    }
    b.div_ceil(2)
}

/// URECPE of 32 bits.
pub(crate) fn integer_reciprocal(a: u32) -> u32 {
    if a >> 31 == 0 {
        return u32::MAX;
    }
    reciprocal_table(a >> 23) << 23
}

/// URSQRTE of 32 bits.
pub(crate) fn integer_root(a: u32) -> u32 {
    if a >> 30 == 0 {
        return u32::MAX;
    }
    root_table(a >> 23) << 23
}

/// Sign, exponent field and fraction aligned to bit 51, of a number that is not zero.
struct Parts {
    sign: u64,
    exponent: i64,
    fraction: u64,
}

fn parts<F: Lane>(v: F) -> Parts {
    let fraction_bits = F::BITS - 1 - F::EXPONENT;
    let raw = v.raw();
    let mut parts = Parts {
        // shift: below the width of a format
        sign: raw >> (F::BITS - 1),
        // shift: below the width of a format
        exponent: (raw >> fraction_bits & ((1 << F::EXPONENT) - 1)) as i64,
        // shift: below the width of a format
        fraction: (raw & ((1 << fraction_bits) - 1)) << (52 - fraction_bits),
    };
    if parts.exponent == 0 {
        // Normalised.
        let shift = parts.fraction.leading_zeros() as i64 - 11;
        parts.exponent = 1 - shift;
        // shift: below the width of a format
        parts.fraction = parts.fraction << shift & ((1 << 52) - 1);
    }
    parts
}

fn join<F: Lane>(sign: u64, exponent: i64, fraction: u64) -> u64 {
    let fraction_bits = F::BITS - 1 - F::EXPONENT;
    // shift: below the width of a format
    sign << (F::BITS - 1) | (exponent as u64) << fraction_bits | fraction >> (52 - fraction_bits)
}

/// FRECPE.
pub(crate) fn reciprocal(bits: u32, a: u64, env: &mut Env) -> u64 {
    match bits {
        16 => reciprocal_of::<F16>(a, env),
        32 => reciprocal_of::<F32>(a, env),
        _ => reciprocal_of::<F64>(a, env),
    }
}

fn reciprocal_of<F: Lane>(a: u64, env: &mut Env) -> u64 {
    let mut v = F::of(a);
    if v.is_nan() {
        // As any operation propagates it.
        return v.add(v, env).raw();
    }
    if v.is_infinite() {
        return F::zero(v.is_negative()).raw();
    }
    if env.flush_inputs && v.is_subnormal() {
        env.raise(Flags::INPUT_FLUSHED);
        v = F::zero(v.is_negative());
    }
    if v.is_zero() {
        env.raise(Flags::DIV_BY_ZERO);
        return F::infinity(v.is_negative()).raw();
    }
    let fraction_bits = F::BITS - 1 - F::EXPONENT;
    let raw = v.raw() & u64::MAX >> (65 - F::BITS);
    // Below 2^-(bias + 1) the result is no number any more.
    // shift: below the width of a format
    if raw < 1 << (fraction_bits - 2) {
        let negative = v.is_negative();
        let overflows = match env.rounding {
            Rounding::Up => !negative,
            Rounding::Down => negative,
            Rounding::TowardZero => false,
            _ => true,
        };
        env.raise(Flags::OVERFLOW | Flags::INEXACT);
        let infinity = F::infinity(negative).raw();
        return if overflows { infinity } else { infinity - 1 };
    }
    // shift: below the width of a format
    let bias = (1i64 << (F::EXPONENT - 1)) - 1;
    let p = parts(v);
    // FPCR.FZ flushes results that would be subnormal.
    if !matches!(env.flush_outputs, target_softfloat::FlushOutputs::Never)
        && p.exponent >= 2 * bias - 1
    {
        env.raise(Flags::UNDERFLOW);
        return F::zero(v.is_negative()).raw();
    }
    let scaled = 1 << 8 | (p.fraction >> 44) as u32;
    let estimate = reciprocal_table(scaled);
    let exponent = 2 * bias - 1 - p.exponent;
    let mut fraction = u64::from(estimate & 0xff) << 44;
    let exponent = match exponent {
        0 => {
            fraction = 1 << 51 | fraction >> 1;
            0
        }
        -1 => {
            fraction = 1 << 50 | fraction >> 2;
            0
        }
        e => e,
    };
    join::<F>(p.sign, exponent, fraction)
}

/// FRSQRTE.
pub(crate) fn root(bits: u32, a: u64, env: &mut Env) -> u64 {
    match bits {
        16 => root_of::<F16>(a, env),
        32 => root_of::<F32>(a, env),
        _ => root_of::<F64>(a, env),
    }
}

fn root_of<F: Lane>(a: u64, env: &mut Env) -> u64 {
    let mut v = F::of(a);
    if v.is_nan() {
        return v.add(v, env).raw();
    }
    if env.flush_inputs && v.is_subnormal() {
        env.raise(Flags::INPUT_FLUSHED);
        v = F::zero(v.is_negative());
    }
    if v.is_zero() {
        env.raise(Flags::DIV_BY_ZERO);
        return F::infinity(v.is_negative()).raw();
    }
    if v.is_negative() {
        env.raise(Flags::INVALID);
        return F::default_nan(env).raw();
    }
    if v.is_infinite() {
        return F::zero(false).raw();
    }
    // shift: below the width of a format
    let bias = (1i64 << (F::EXPONENT - 1)) - 1;
    let p = parts(v);
    let scaled = if p.exponent & 1 == 0 {
        1 << 8 | (p.fraction >> 44) as u32
    } else {
        1 << 7 | (p.fraction >> 45) as u32
    };
    let exponent = (3 * bias - 1 - p.exponent) >> 1;
    let estimate = root_table(scaled);
    join::<F>(0, exponent, u64::from(estimate & 0xff) << 44)
}

/// FRECPX.
pub(crate) fn reciprocal_exponent(bits: u32, a: u64, env: &mut Env) -> u64 {
    match bits {
        16 => exponent_of::<F16>(a, env),
        32 => exponent_of::<F32>(a, env),
        _ => exponent_of::<F64>(a, env),
    }
}

fn exponent_of<F: Lane>(a: u64, env: &mut Env) -> u64 {
    let v = F::of(a);
    if v.is_nan() {
        return v.add(v, env).raw();
    }
    let mut raw = v.raw();
    let fraction_bits = F::BITS - 1 - F::EXPONENT;
    // shift: below the width of a format
    let sign = raw >> (F::BITS - 1) << (F::BITS - 1);
    if env.flush_inputs && v.is_subnormal() {
        env.raise(Flags::INPUT_FLUSHED);
        raw = sign;
    }
    let mask = (1u64 << F::EXPONENT) - 1;
    // shift: below the width of a format
    let field = raw >> fraction_bits & mask;
    let field = if field == 0 { mask - 1 } else { !field & mask };
    // shift: below the width of a format
    sign | field << fraction_bits
}
