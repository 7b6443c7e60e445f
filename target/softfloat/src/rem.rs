//! Remainder (IEEE 754-2019 section 5.3.1), with the quotient's low bits as x87 and s390x want them.

use crate::env::{Env, Flags, Rounding};
use crate::format::{Format, unpack, zero};
use crate::limbs::Sig;
use crate::nan::{invalid, note_denormals, propagate};
use crate::num::{Class, Num};
use crate::round::round;

/// A remainder and what is known of the quotient.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Remainder<F> {
    /// `a - b * quotient`.
    pub value: F,
    /// The low 64 bits of the quotient's magnitude.
    pub quotient: u64,
    /// x87 only: the reduction stopped early, `value` is to be reduced again (C2).
    pub partial: bool,
}

impl<F> Remainder<F> {
    fn whole(value: F) -> Self {
        Self {
            value,
            quotient: 0,
            partial: false,
        }
    }
}

/// How far a reduction may go.
#[derive(Clone, Copy)]
pub(crate) struct Limit {
    /// Exponent differences from here on are reduced by part only.
    pub(crate) whole_below: i32,
}

/// `a - b * n` with `n` the quotient rounded by `rounding` (`TowardZero` or `NearestEven`).
pub(crate) fn rem<F: Format>(
    a: F,
    b: F,
    rounding: Rounding,
    limit: Option<Limit>,
    env: &mut Env,
) -> Remainder<F> {
    let (x, y) = (unpack(a, env), unpack(b, env));
    if x.is_nan() || y.is_nan() {
        return Remainder::whole(propagate(&[&x, &y], env));
    }
    if x.class == Class::Inf {
        return Remainder::whole(invalid(Flags::NONE, env));
    }
    if y.class == Class::Zero {
        return Remainder::whole(invalid(Flags::NONE, env));
    }
    note_denormals(&[&x, &y], env);
    if x.class == Class::Zero {
        return Remainder::whole(zero(x.num.sign));
    }
    if y.class == Class::Inf {
        return Remainder::whole(round(x.num, env));
    }
    let distance = x.num.exp - y.num.exp;
    if let Some(limit) = limit
        && distance >= limit.whole_below
    {
        // Intel SDM volume 2, FPREM: reduce the exponent by some N from 32 to 63, here such that the rest
        // is a multiple of 32.
        let n = 32 + distance % 32;
        let scaled = Num {
            exp: y.num.exp + distance - n,
            ..y.num
        };
        let reduced = reduce(x.num, scaled, Rounding::TowardZero, env);
        return Remainder {
            partial: true,
            quotient: 0,
            ..reduced
        };
    }
    reduce(x.num, y.num, rounding, env)
}

/// Of finite numbers that are not zero. Every result is exact.
fn reduce<F: Format>(
    x: Num<F::Sig>,
    y: Num<F::Sig>,
    rounding: Rounding,
    env: &mut Env,
) -> Remainder<F> {
    // At most 113 bits are in use: with 14 bits less there is room to shift left without loss.
    let (mut r, d) = (x.sig.to_top() >> 14, y.sig.to_top() >> 14);
    let distance = x.exp - y.exp;
    let mut quotient = 0_u64;
    if distance < -1 {
        return Remainder::whole(round(x, env));
    }
    if distance < 0 {
        // |a| < |b|: only rounding to nearest can take one b away. Both are brought to a's exponent.
        return nearest(r, d << 1, x.exp, quotient, x.sign, rounding, env);
    }
    for step in 0..=distance {
        if step > 0 {
            r <<= 1;
        }
        quotient <<= 1;
        if r >= d {
            r -= d;
            quotient |= 1;
        }
    }
    nearest(r, d, y.exp, quotient, x.sign, rounding, env)
}

fn nearest<F: Format>(
    r: u128,
    d: u128,
    exp: i32,
    quotient: u64,
    sign: bool,
    rounding: Rounding,
    env: &mut Env,
) -> Remainder<F> {
    let (mut r, mut sign, mut quotient) = (r, sign, quotient);
    if rounding == Rounding::NearestEven {
        let twice = r << 1;
        if twice > d || (twice == d && quotient & 1 != 0) {
            r = d - r;
            sign = !sign;
            quotient = quotient.wrapping_add(1);
        }
    }
    if r == 0 {
        return Remainder {
            value: zero(sign),
            quotient,
            partial: false,
        };
    }
    let num = Num::normalized(sign, exp, r << 14);
    Remainder {
        value: round(num.resize(), env),
        quotient,
        partial: false,
    }
}
