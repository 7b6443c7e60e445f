//! FSIN, FCOS, FSINCOS, FPTAN, FPATAN.

use super::constant::{HALF_PI, ONE, PI, QUARTER_PI};
use super::series::{self, Ext, doubled, irrational, negated, over, sum};
use crate::env::{Env, Flags};
use crate::format::{F80, infinity, unpack, zero};
use crate::nan::{invalid, note_denormals, propagate};
use crate::num::{Class, Num};
use crate::round::round;

/// Arguments from 2^63 on are left alone (C2).
const OUT_OF_RANGE: i32 = 63;
/// pi/2 * 2^67 as the processor has it: 66 bits of pi (Intel SDM volume 1, 8.3.8).
const HALF_PI_66: u128 = 0xc_90fd_aa22_168c_234c;

/// An argument in |r| <= pi/4 and the quarter turns taken off it.
struct Reduced {
    /// `None` is an exact multiple of the processor's pi/2, which only zero is.
    rest: Option<Ext>,
    quarters: u32,
}

fn reduce(x: Ext) -> Reduced {
    if x.exp < -1 {
        return Reduced {
            rest: Some(x),
            quarters: 0,
        };
    }
    // In units of 2^-67 everything is an integer; one doubling for each bit of the exponent.
    let mut rest = x.sig >> 61;
    let mut quarters = 0_u32;
    for step in -1..=x.exp {
        if step >= 0 {
            rest <<= 1;
        }
        quarters <<= 1;
        if rest >= HALF_PI_66 {
            rest -= HALF_PI_66;
            quarters |= 1;
        }
    }
    let mut sign = x.sign;
    if rest * 2 > HALF_PI_66 {
        rest = HALF_PI_66 - rest;
        sign = !sign;
        quarters = quarters.wrapping_add(1);
    }
    if x.sign {
        quarters = quarters.wrapping_neg();
    }
    let rest = (rest != 0).then(|| Num::normalized(sign, 60, rest));
    Reduced { rest, quarters }
}

/// Sine and cosine of a finite number; `None` where it is exactly zero.
fn sine_cosine(x: Ext) -> (Option<Ext>, Option<Ext>) {
    let reduced = reduce(x);
    let (sin, cos) = match reduced.rest {
        Some(r) => (Some(series::sin(r)), Some(series::cos(r))),
        None => (None, Some(ONE)),
    };
    match reduced.quarters & 3 {
        0 => (sin, cos),
        1 => (cos, sin.map(negated)),
        2 => (sin.map(negated), cos.map(negated)),
        _ => (cos.map(negated), sin),
    }
}

/// An operand of a trigonometric function, its special cases done.
enum Argument {
    Number(Ext),
    /// The result for every output.
    Done(F80),
    Zero(bool),
    OutOfRange,
}

fn argument(st0: F80, env: &mut Env) -> Argument {
    let x = unpack(st0, env);
    match x.class {
        Class::Zero => Argument::Zero(x.num.sign),
        Class::Inf => Argument::Done(invalid(Flags::NONE, env)),
        Class::Finite if x.num.exp >= OUT_OF_RANGE => Argument::OutOfRange,
        Class::Finite => {
            note_denormals(&[&x], env);
            Argument::Number(x.num)
        }
        _ => Argument::Done(propagate(&[&x], env)),
    }
}

fn finish(value: Option<Ext>, env: &mut Env) -> F80 {
    match value {
        Some(value) => round(irrational(value), env),
        None => zero(false),
    }
}

/// FSIN. `None` is an argument out of range: C2 is set, ST(0) stays.
pub fn fsin(st0: F80, env: &mut Env) -> Option<F80> {
    match argument(st0, env) {
        Argument::Number(x) => Some(finish(sine_cosine(x).0, env)),
        Argument::Done(result) => Some(result),
        Argument::Zero(sign) => Some(zero(sign)),
        Argument::OutOfRange => None,
    }
}

/// FCOS. `None` is an argument out of range: C2 is set, ST(0) stays.
pub fn fcos(st0: F80, env: &mut Env) -> Option<F80> {
    match argument(st0, env) {
        Argument::Number(x) => Some(finish(sine_cosine(x).1, env)),
        Argument::Done(result) => Some(result),
        Argument::Zero(_) => Some(round(ONE, env)),
        Argument::OutOfRange => None,
    }
}

/// FSINCOS: the sine, which replaces ST(0), and the cosine, which is pushed. `None` is an argument out of range.
pub fn fsincos(st0: F80, env: &mut Env) -> Option<(F80, F80)> {
    match argument(st0, env) {
        Argument::Number(x) => {
            let (sin, cos) = sine_cosine(x);
            Some((finish(sin, env), finish(cos, env)))
        }
        Argument::Done(result) => Some((result, result)),
        Argument::Zero(sign) => Some((zero(sign), round(ONE, env))),
        Argument::OutOfRange => None,
    }
}

/// FPTAN: the tangent, which replaces ST(0); the caller pushes 1.0, or for a NaN result the NaN again.
/// `None` is an argument out of range.
pub fn fptan(st0: F80, env: &mut Env) -> Option<F80> {
    match argument(st0, env) {
        Argument::Number(x) => Some(match sine_cosine(x) {
            (Some(sin), Some(cos)) => round(irrational(over(sin, cos)), env),
            (None, _) => zero(false),
            (_, None) => infinity(false),
        }),
        Argument::Done(result) => Some(result),
        Argument::Zero(sign) => Some(zero(sign)),
        Argument::OutOfRange => None,
    }
}

/// FPATAN: the angle of the point (ST(0), ST(1)) in (-pi, pi].
pub fn fpatan(st1: F80, st0: F80, env: &mut Env) -> F80 {
    let (y, x) = (unpack(st1, env), unpack(st0, env));
    if x.is_nan() || y.is_nan() {
        return propagate(&[&x, &y], env);
    }
    note_denormals(&[&x, &y], env);
    let left = x.num.sign;
    let angle = match (y.class, x.class) {
        (Class::Inf, Class::Inf) if left => sum(HALF_PI, QUARTER_PI),
        (Class::Inf, Class::Inf) => QUARTER_PI,
        (Class::Zero, _) | (_, Class::Inf) if left => PI,
        (Class::Zero, _) | (_, Class::Inf) => return zero(y.num.sign),
        (Class::Inf, _) | (_, Class::Zero) => HALF_PI,
        _ => quadrant(
            Num {
                sign: false,
                ..y.num
            },
            Num {
                sign: false,
                ..x.num
            },
            left,
        ),
    };
    round(
        irrational(Num {
            sign: y.num.sign,
            ..angle
        }),
        env,
    )
}

/// The angle of (x, y) with both positive, mirrored to the left half plane if asked.
fn quadrant(y: Ext, x: Ext, left: bool) -> Ext {
    let flat = (y.exp, y.sig) <= (x.exp, x.sig);
    let small = series::atan(if flat { over(y, x) } else { over(x, y) });
    match (flat, left) {
        (true, false) => small,
        (true, true) => sum(PI, negated(small)),
        (false, false) => sum(HALF_PI, negated(small)),
        (false, true) => sum(doubled(QUARTER_PI), small),
    }
}
