//! FPREM, FPREM1, FSCALE, FXTRACT: work on the exponent.

use crate::env::{Env, Flags, Rounding};
use crate::float::Float;
use crate::format::{F80, Format, infinity, unpack, zero};
use crate::limbs::Limbs;
use crate::nan::{invalid, note_denormals, propagate};
use crate::num::{Class, Num};
use crate::rem::{Limit, Remainder, rem};
use crate::round::round;

/// Exponent differences from this on are reduced in steps (C2).
const WHOLE_BELOW: i32 = 64;

/// FPREM: ST(0) modulo ST(1), the quotient truncated.
pub fn fprem(st0: F80, st1: F80, env: &mut Env) -> Remainder<F80> {
    rem(
        st0,
        st1,
        Rounding::TowardZero,
        Some(Limit {
            whole_below: WHOLE_BELOW,
        }),
        env,
    )
}

/// FPREM1: the IEEE remainder of ST(0) and ST(1).
pub fn fprem1(st0: F80, st1: F80, env: &mut Env) -> Remainder<F80> {
    rem(
        st0,
        st1,
        Rounding::NearestEven,
        Some(Limit {
            whole_below: WHOLE_BELOW,
        }),
        env,
    )
}

/// FSCALE: ST(0) times two to the integer part of ST(1).
pub fn fscale(st0: F80, st1: F80, env: &mut Env) -> F80 {
    let (x, by) = (unpack(st0, env), unpack(st1, env));
    if x.is_nan() || by.is_nan() {
        return propagate(&[&x, &by], env);
    }
    let (sign, down) = (x.num.sign, by.num.sign);
    match (x.class, by.class) {
        (Class::Inf, Class::Inf) if down => return invalid(Flags::NONE, env),
        (Class::Zero, Class::Inf) if !down => return invalid(Flags::NONE, env),
        _ => note_denormals(&[&x, &by], env),
    }
    match (x.class, by.class) {
        (Class::Inf, _) => infinity(sign),
        (Class::Zero, _) => zero(sign),
        (_, Class::Inf) => {
            if down {
                zero(sign)
            } else {
                infinity(sign)
            }
        }
        (_, Class::Zero) => round(x.num, env),
        _ => {
            // Seventeen bits of integer part leave every range; what follows cannot matter.
            let exp = by.num.exp;
            let n = match exp {
                ..0 => 0,
                0..17 => by.num.sig.wrapping_shr(127 - exp as u32) as i32,
                _ => 1 << 17,
            };
            let n = if down { -n } else { n };
            round(
                Num {
                    exp: x.num.exp + n,
                    ..x.num
                },
                env,
            )
        }
    }
}

/// FXTRACT: the unbiased exponent and the significand, each as a number.
pub fn fxtract(st0: F80, env: &mut Env) -> (F80, F80) {
    let x = unpack(st0, env);
    match x.class {
        Class::Zero => {
            env.raise(Flags::DIV_BY_ZERO);
            (infinity(true), zero(x.num.sign))
        }
        Class::Inf => (infinity(false), st0),
        Class::Finite => {
            note_denormals(&[&x], env);
            // A small integer: exact.
            let exponent = F80::from_i64(x.num.exp.into(), env);
            (
                exponent,
                F80::from_fields(x.num.sign, F80::BIAS, x.num.sig.or(u128::TOP)),
            )
        }
        _ => {
            let nan = propagate(&[&x], env);
            (nan, nan)
        }
    }
}
