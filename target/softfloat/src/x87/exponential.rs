//! F2XM1, FYL2X, FYL2XP1.

use super::constant::{LN_2, LOG2_E, ONE};
use super::series::{atanh, doubled, exp_minus_one, halved, irrational, negated, over, sum};
use crate::env::{Env, Flags};
use crate::float::Float;
use crate::format::{F80, Format, infinity, unpack, zero};
use crate::limbs::Limbs;
use crate::nan::{invalid, note_denormals, propagate};
use crate::num::{Class, Num, Parts};
use crate::round::round;

/// F2XM1: two to ST(0), minus one. Defined from -1 to 1; beyond, where the SDM leaves the result open, ST(0) stays.
pub fn f2xm1(st0: F80, env: &mut Env) -> F80 {
    let x = unpack(st0, env);
    match x.class {
        Class::Zero => return st0,
        Class::Inf if x.num.sign => return F80::from_fields(true, F80::BIAS, u128::TOP),
        Class::Inf => return st0,
        Class::Finite => note_denormals(&[&x], env),
        _ => return propagate(&[&x], env),
    }
    if x.num.exp >= 0 {
        return match (x.num.exp == 0 && x.num.sig == u128::TOP, x.num.sign) {
            (true, false) => exact(ONE, env),
            (true, true) => exact(negated(halved(ONE)), env),
            _ => st0,
        };
    }
    round(irrational(exp_minus_one(x.num.times(LN_2))), env)
}

/// Rounds a result that needed no approximation. Processors report it inexact all the same.
fn exact(value: Num<u128>, env: &mut Env) -> F80 {
    let result = round::<F80>(value, env);
    env.raise(Flags::INEXACT);
    if result.is_subnormal() {
        env.raise(Flags::UNDERFLOW);
    }
    result
}

/// A binary logarithm and whether it is exact.
enum Log {
    /// Exactly zero.
    Zero,
    Exact(Num<u128>),
    Rounded(Num<u128>),
}

/// The binary logarithm of a positive number.
fn log2(x: Num<u128>) -> Log {
    /// sqrt(2) * 2^127, about: the significand is taken between sqrt(1/2) and sqrt(2).
    const SQRT_2: u128 = 0xb504_f333_f9de_6484 << 64;
    if x.sig == u128::TOP {
        return integer(x.exp).map_or(Log::Zero, Log::Exact);
    }
    let (whole, exp) = if x.sig > SQRT_2 {
        (x.exp + 1, -1)
    } else {
        (x.exp, 0)
    };
    let m = Num {
        sign: false,
        exp,
        sig: x.sig,
    };
    // m is not one, so the difference is not zero, and it is exact.
    let s = over(sum(m, negated(ONE)), sum(m, ONE));
    let part = doubled(atanh(s)).times(LOG2_E);
    Log::Rounded(match integer(whole) {
        Some(whole) => sum(whole, part),
        None => part,
    })
}

fn integer(n: i32) -> Option<Num<u128>> {
    (n != 0).then(|| Num::normalized(n < 0, 127, u128::from(n.unsigned_abs())))
}

/// The binary logarithm of `1 + x`, x above -1 and not zero.
fn log2_plus_one(x: Num<u128>) -> Log {
    // Below a quarter 1 + x would lose bits of x: log(1 + x) = 2 atanh(x / (2 + x)).
    if x.exp < -2 {
        let s = over(x, sum(doubled(ONE), x));
        return Log::Rounded(doubled(atanh(s)).times(LOG2_E));
    }
    ONE.plus(x).map_or(Log::Zero, log2)
}

/// FYL2X: ST(1) times the binary logarithm of ST(0).
pub fn fyl2x(st1: F80, st0: F80, env: &mut Env) -> F80 {
    let (y, x) = (unpack(st1, env), unpack(st0, env));
    if x.is_nan() || y.is_nan() {
        return propagate(&[&x, &y], env);
    }
    match x.class {
        Class::Zero => log_of_zero(&y, env),
        _ if x.num.sign => invalid(Flags::NONE, env),
        Class::Inf => log_of_infinity(&y, &x, env),
        _ => scaled(&y, &x, log2(x.num), env),
    }
}

/// FYL2XP1: ST(1) times the binary logarithm of one more than ST(0).
pub fn fyl2xp1(st1: F80, st0: F80, env: &mut Env) -> F80 {
    let (y, x) = (unpack(st1, env), unpack(st0, env));
    if x.is_nan() || y.is_nan() {
        return propagate(&[&x, &y], env);
    }
    let below = x.num.sign;
    match x.class {
        Class::Zero => match y.class {
            Class::Inf => invalid(Flags::NONE, env),
            _ => {
                note_denormals(&[&y], env);
                zero(below != y.num.sign)
            }
        },
        Class::Inf if below => invalid(Flags::NONE, env),
        Class::Inf => log_of_infinity(&y, &x, env),
        _ if below && x.num.exp >= 0 => {
            if x.num.exp == 0 && x.num.sig == u128::TOP {
                log_of_zero(&y, env)
            } else {
                invalid(Flags::NONE, env)
            }
        }
        _ => scaled(&y, &x, log2_plus_one(x.num), env),
    }
}

fn log_of_zero(y: &Parts<u128>, env: &mut Env) -> F80 {
    match y.class {
        Class::Zero => return invalid(Flags::NONE, env),
        Class::Inf => {}
        _ => env.raise(Flags::DIV_BY_ZERO),
    }
    infinity(!y.num.sign)
}

fn log_of_infinity(y: &Parts<u128>, x: &Parts<u128>, env: &mut Env) -> F80 {
    if y.class == Class::Zero {
        return invalid(Flags::NONE, env);
    }
    note_denormals(&[x, y], env);
    infinity(y.num.sign)
}

/// `y` times a logarithm that is finite.
fn scaled(y: &Parts<u128>, x: &Parts<u128>, log: Log, env: &mut Env) -> F80 {
    let sign = match &log {
        Log::Zero if y.class == Class::Inf => return invalid(Flags::NONE, env),
        Log::Zero => y.num.sign,
        Log::Exact(log) | Log::Rounded(log) => y.num.sign != log.sign,
    };
    note_denormals(&[x, y], env);
    match (y.class, log) {
        (Class::Inf, _) => infinity(sign),
        (Class::Zero, _) | (_, Log::Zero) => zero(sign),
        (_, Log::Exact(log)) => exact(y.num.times(log), env),
        (_, Log::Rounded(log)) => round(irrational(y.num.times(log)), env),
    }
}
