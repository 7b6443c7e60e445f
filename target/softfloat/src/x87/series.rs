//! Power series in 128-bit fixed point, and the arithmetic around them.
//!
//! The errors stay below 2^-100 relative to the result, against the 2^-64 of a double extended: a result is misrounded
//! only if the true value lies that close to a rounding boundary.

use super::constant::ONE;
use crate::arith::quotient;
use crate::format::F128;
use crate::limbs::U256;
use crate::num::Num;

/// One in the fixed point of the sums, which leaves a bit for growth.
const UNIT: u128 = 1 << 126;
/// More terms than any of the series needs for its range of arguments.
const TERMS: u64 = 64;

pub(super) type Ext = Num<u128>;

pub(super) fn negated(x: Ext) -> Ext {
    Num { sign: !x.sign, ..x }
}

pub(super) fn halved(x: Ext) -> Ext {
    Num {
        exp: x.exp - 1,
        ..x
    }
}

pub(super) fn doubled(x: Ext) -> Ext {
    Num {
        exp: x.exp + 1,
        ..x
    }
}

/// `a / b` to 113 bits.
pub(super) fn over(a: Ext, b: Ext) -> Ext {
    quotient::<F128>(a, b)
}

/// `a + b` where the sum cannot be zero.
pub(super) fn sum(a: Ext, b: Ext) -> Ext {
    a.plus(b).unwrap_or(ONE)
}

/// Marks a result as inexact.
pub(super) fn irrational(x: Ext) -> Ext {
    Num {
        sig: x.sig | 1,
        ..x
    }
}

fn high(a: u128, b: u128) -> u128 {
    U256::product(a, b).hi
}

/// `|x|` below one as a fraction of 2^128.
fn fraction(x: Ext) -> u128 {
    let shift = (-1_i32).saturating_sub(x.exp).max(0) as u32;
    x.sig.checked_shr(shift).unwrap_or(0)
}

/// `1 + t1/e1 + t2/e2 + ...` with `t(k) = t(k-1) * z / ratio(k)` and `e(k) = extra(k)`, the signs alternating from minus
/// if `alternate`.
fn total(z: u128, alternate: bool, ratio: impl Fn(u64) -> u64, extra: impl Fn(u64) -> u64) -> u128 {
    let (mut term, mut total) = (UNIT, UNIT);
    for k in 1..=TERMS {
        term = high(term, z) / u128::from(ratio(k).max(1));
        if term == 0 {
            break;
        }
        let share = term / u128::from(extra(k).max(1));
        total = if alternate && k % 2 == 1 {
            total - share
        } else {
            total + share
        };
    }
    if total == UNIT {
        // The argument was too small to show, yet the sum is not exactly one.
        return if alternate { UNIT - 1 } else { UNIT + 1 };
    }
    total
}

fn factor(total: u128) -> Ext {
    Num::normalized(false, 1, total)
}

/// sin(x), |x| at most pi/4.
pub(super) fn sin(x: Ext) -> Ext {
    x.times(factor(total(
        fraction(x.times(x)),
        true,
        |k| 2 * k * (2 * k + 1),
        |_| 1,
    )))
}

/// cos(x), |x| at most pi/4.
pub(super) fn cos(x: Ext) -> Ext {
    factor(total(
        fraction(x.times(x)),
        true,
        |k| 2 * k * (2 * k - 1),
        |_| 1,
    ))
}

/// atan(x), 0 <= x <= 1.
pub(super) fn atan(x: Ext) -> Ext {
    // Above about tan(pi/8): atan(x) = pi/4 - atan((1 - x) / (1 + x)).
    if x.exp < -2 || (x.exp == -2 && x.sig >> 124 < 0xd) {
        return x.times(factor(total(
            fraction(x.times(x)),
            true,
            |_| 1,
            |k| 2 * k + 1,
        )));
    }
    match ONE.plus(negated(x)) {
        None => super::constant::QUARTER_PI,
        Some(gap) => {
            let t = over(gap, sum(ONE, x));
            let small = t.times(factor(total(
                fraction(t.times(t)),
                true,
                |_| 1,
                |k| 2 * k + 1,
            )));
            sum(super::constant::QUARTER_PI, negated(small))
        }
    }
}

/// The logarithm's series: atanh(s), |s| at most about 0.172.
pub(super) fn atanh(s: Ext) -> Ext {
    s.times(factor(total(
        fraction(s.times(s)),
        false,
        |_| 1,
        |k| 2 * k + 1,
    )))
}

/// exp(y) - 1, |y| below 0.7.
pub(super) fn exp_minus_one(y: Ext) -> Ext {
    /// Halvings of the argument, undone by `e(2y) = e(y) * (e(y) + 2)`.
    const HALVINGS: i32 = 3;
    let small = Num {
        exp: y.exp - HALVINGS,
        ..y
    };
    let mut e = small.times(factor(total(fraction(small), small.sign, |k| k + 1, |_| 1)));
    for _ in 0..HALVINGS {
        e = e.times(sum(e, super::constant::TWO));
    }
    e
}
