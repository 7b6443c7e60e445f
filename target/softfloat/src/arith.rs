//! Add, subtract, multiply, divide, square root (IEEE 754-2019 section 5.4.1).

use crate::env::{Env, Flags, Rounding};
use crate::format::{Format, infinity, normal, unpack, zero};
use crate::limbs::Sig;
use crate::nan::{invalid, note_denormals, propagate};
use crate::num::{Class, Num, Parts};
use crate::round::round_arithmetic;

/// The sign of an exact zero sum of opposite signs.
#[inline]
pub(crate) fn cancelled_sign(env: &Env) -> bool {
    env.rounding == Rounding::Down
}

#[inline]
pub(crate) fn add<F: Format>(a: F, b: F, negate_b: bool, env: &mut Env) -> F {
    if let (Some(x), Some(mut y)) = (normal(a), normal(b)) {
        y.sign ^= negate_b;
        return match x.plus(y) {
            Some(sum) => round_arithmetic(sum, env),
            None => zero(cancelled_sign(env)),
        };
    }
    add_special(a, b, negate_b, env)
}

#[inline(never)]
fn add_special<F: Format>(a: F, b: F, negate_b: bool, env: &mut Env) -> F {
    let x = unpack(a, env);
    let mut y = unpack(b, env);
    if x.is_nan() || y.is_nan() {
        return propagate(&[&x, &y], env);
    }
    y.num.sign ^= negate_b;
    if x.class == Class::Inf && y.class == Class::Inf && x.num.sign != y.num.sign {
        return invalid(Flags::BY_INF_SUB_INF, env);
    }
    note_denormals(&[&x, &y], env);
    match (x.class, y.class) {
        (Class::Inf, _) => infinity(x.num.sign),
        (_, Class::Inf) => infinity(y.num.sign),
        (Class::Zero, Class::Zero) => zero(if x.num.sign == y.num.sign {
            x.num.sign
        } else {
            cancelled_sign(env)
        }),
        (Class::Zero, _) => round_arithmetic(y.num, env),
        (_, Class::Zero) => round_arithmetic(x.num, env),
        _ => match x.num.plus(y.num) {
            Some(sum) => round_arithmetic(sum, env),
            None => zero(cancelled_sign(env)),
        },
    }
}

#[inline]
pub(crate) fn mul<F: Format>(a: F, b: F, env: &mut Env) -> F {
    if let (Some(x), Some(y)) = (normal(a), normal(b)) {
        return round_arithmetic(x.times(y), env);
    }
    mul_special(a, b, env)
}

#[inline(never)]
fn mul_special<F: Format>(a: F, b: F, env: &mut Env) -> F {
    let (x, y) = (unpack(a, env), unpack(b, env));
    if x.is_nan() || y.is_nan() {
        return propagate(&[&x, &y], env);
    }
    let sign = x.num.sign != y.num.sign;
    match (x.class, y.class) {
        (Class::Inf, Class::Zero) | (Class::Zero, Class::Inf) => {
            invalid(Flags::BY_INF_MUL_ZERO, env)
        }
        classes => {
            note_denormals(&[&x, &y], env);
            match classes {
                (Class::Inf, _) | (_, Class::Inf) => infinity(sign),
                (Class::Zero, _) | (_, Class::Zero) => zero(sign),
                _ => round_arithmetic(x.num.times(y.num), env),
            }
        }
    }
}

#[inline]
pub(crate) fn div<F: Format>(a: F, b: F, env: &mut Env) -> F {
    if let (Some(x), Some(y)) = (normal(a), normal(b)) {
        return round_arithmetic(quotient::<F>(x, y), env);
    }
    div_special(a, b, env)
}

#[inline(never)]
fn div_special<F: Format>(a: F, b: F, env: &mut Env) -> F {
    let (x, y) = (unpack(a, env), unpack(b, env));
    if x.is_nan() || y.is_nan() {
        return propagate(&[&x, &y], env);
    }
    let sign = x.num.sign != y.num.sign;
    match (x.class, y.class) {
        (Class::Inf, Class::Inf) => invalid(Flags::BY_INF_DIV_INF, env),
        (Class::Zero, Class::Zero) => invalid(Flags::BY_ZERO_DIV_ZERO, env),
        (Class::Finite, Class::Zero) => {
            env.raise(Flags::DIV_BY_ZERO);
            infinity(sign)
        }
        classes => {
            note_denormals(&[&x, &y], env);
            match classes {
                (Class::Inf, _) => infinity(sign),
                (Class::Zero, _) | (_, Class::Inf) => zero(sign),
                _ => round_arithmetic(quotient::<F>(x.num, y.num), env),
            }
        }
    }
}

/// The quotient to at least two bits more than the format has, the lowest bit sticky.
#[inline]
pub(crate) fn quotient<F: Format>(a: Num<F::Sig>, b: Num<F::Sig>) -> Num<F::Sig> {
    let sign = a.sign != b.sign;
    let exp = a.exp - b.exp;
    if F::PREC <= 24 {
        // Both significands fit the top 24 bits, so a 64 by 24 bit division has 39 bits to give.
        let top = |s: F::Sig| (s.to_top() >> 64) as u64;
        let (n, d) = (top(a.sig), top(b.sig) >> 40);
        // A normalized divisor is not zero.
        let (q, r) = (n.checked_div(d).unwrap_or(0), n.checked_rem(d).unwrap_or(0));
        let shift = q.leading_zeros();
        let sig = q.wrapping_shl(shift) | u64::from(r != 0);
        return Num {
            sign,
            exp: exp + 23 - shift as i32,
            sig: F::Sig::from_top_jam(u128::from(sig) << 64),
        };
    }
    if F::PREC <= 64 {
        let (n, d) = (a.sig.to_top(), b.sig.to_top() >> 64);
        let smaller = n >> 64 < d;
        let n = if smaller { n } else { n >> 1 };
        let (q, r) = div_128_by_64(n, d as u64);
        let round = r.wrapping_mul(2) >= d;
        let rest = r.wrapping_mul(2) - if round { d } else { 0 };
        let sig = u128::from(q) << 64 | u128::from(round) << 63 | u128::from(rest != 0);
        return Num {
            sign,
            exp: exp - i32::from(smaller),
            sig: F::Sig::from_top_jam(sig),
        };
    }
    // 113-bit significands leave the fifteen low bits free: long division with that headroom.
    let (mut n, d) = (a.sig.to_top() >> 15, b.sig.to_top() >> 15);
    let smaller = n < d;
    let mut q = 0_u128;
    if smaller {
        n <<= 1;
    }
    for _ in 0..116 {
        q <<= 1;
        if n >= d {
            n -= d;
            q |= 1;
        }
        n <<= 1;
    }
    let sig = q << 12 | u128::from(n != 0);
    Num {
        sign,
        exp: exp - i32::from(smaller),
        sig: F::Sig::from_top_jam(sig),
    }
}

/// Divides with a quotient known to fit 64 bits.
#[inline]
fn div_128_by_64(n: u128, d: u64) -> (u64, u128) {
    let d = u128::from(d);
    (
        n.checked_div(d).unwrap_or(0) as u64,
        n.checked_rem(d).unwrap_or(0),
    )
}

#[inline]
pub(crate) fn sqrt<F: Format>(a: F, env: &mut Env) -> F {
    if let Some(x) = normal(a)
        && !x.sign
    {
        return round_arithmetic(root::<F>(x), env);
    }
    sqrt_special(a, env)
}

#[inline(never)]
fn sqrt_special<F: Format>(a: F, env: &mut Env) -> F {
    let x: Parts<F::Sig> = unpack(a, env);
    if x.is_nan() {
        return propagate(&[&x], env);
    }
    match x.class {
        Class::Zero => zero(x.num.sign),
        _ if x.num.sign => invalid(Flags::BY_SQRT, env),
        Class::Inf => infinity(false),
        _ => {
            note_denormals(&[&x], env);
            round_arithmetic(root::<F>(x.num), env)
        }
    }
}

/// The square root to at least two bits more than the format has, the lowest bit sticky.
fn root<F: Format>(a: Num<F::Sig>) -> Num<F::Sig> {
    let exp = a.exp >> 1;
    // value = sig/2^127 * 2^exp; an even exponent keeps the radicand below 2, an odd one below 4.
    let odd = a.exp & 1 != 0;
    if F::PREC <= 24 {
        let n = (a.sig.to_top() >> 64) as u64;
        let n = if odd { n } else { n >> 1 };
        let s = n.isqrt();
        let sig = u128::from(s) << 96 | u128::from(s.wrapping_mul(s) != n);
        return Num {
            sign: false,
            exp,
            sig: F::Sig::from_top_jam(sig),
        };
    }
    if F::PREC <= 64 {
        let n = a.sig.to_top();
        let n = if odd { n } else { n >> 1 };
        let s = n.isqrt();
        let rest = n - s * s;
        // sqrt(n) >= s + 1/2 exactly when the remainder exceeds s; a tie is impossible.
        let sig = s << 64 | u128::from(rest > s) << 63 | u128::from(rest != 0);
        return Num {
            sign: false,
            exp,
            sig: F::Sig::from_top_jam(sig),
        };
    }
    // Digit by digit: two bits of the radicand for each bit of the root.
    let mut n = a.sig.to_top();
    if !odd {
        n >>= 1;
    }
    let (mut s, mut rest) = (0_u128, 0_u128);
    for _ in 0..116 {
        rest = rest << 2 | n >> 126;
        n <<= 2;
        s <<= 1;
        let trial = s << 1 | 1;
        if rest >= trial {
            rest -= trial;
            s |= 1;
        }
    }
    Num {
        sign: false,
        exp,
        sig: F::Sig::from_top_jam(s << 12 | u128::from(rest != 0)),
    }
}
