//! Fused multiply-add (IEEE 754-2019 section 5.4.1).

use crate::arith::cancelled_sign;
use crate::env::{Env, Flags, NanRule};
use crate::float::MulAdd;
use crate::format::{Format, infinity, normal, unpack, zero};
use crate::nan::{default_nan, invalid, note_denormals, propagate};
use crate::num::{Class, Num};
use crate::round::round;

/// `a * b + c` with the signs that `kind` asks for, rounded once.
#[inline]
pub(crate) fn mul_add<F: Format>(a: F, b: F, c: F, kind: MulAdd, env: &mut Env) -> F {
    if let (Some(x), Some(y), Some(mut z)) = (normal(a), normal(b), normal(c)) {
        z.sign ^= kind.negate_addend();
        return fused::<F>(x, y, z, kind, env);
    }
    mul_add_special(a, b, c, kind, env)
}

#[inline]
fn fused<F: Format>(
    x: Num<F::Sig>,
    y: Num<F::Sig>,
    z: Num<F::Sig>,
    kind: MulAdd,
    env: &mut Env,
) -> F {
    let mut product = x.times_wide(y);
    product.sign ^= kind.negate_product();
    match product.plus(z.widen()) {
        Some(sum) => finish(Num::narrow(sum), kind, env),
        None => zero(cancelled_sign(env) != kind.negate_result()),
    }
}

/// Rounds, then negates where the definition negates the rounded result.
#[inline]
fn finish<F: Format>(num: Num<F::Sig>, kind: MulAdd, env: &mut Env) -> F {
    let result = round::<F>(num, env);
    if kind.negate_result() {
        negated(result)
    } else {
        result
    }
}

fn negated<F: Format>(value: F) -> F {
    let (sign, exp, sig) = value.fields();
    F::from_fields(!sign, exp, sig)
}

#[inline(never)]
fn mul_add_special<F: Format>(a: F, b: F, c: F, kind: MulAdd, env: &mut Env) -> F {
    let (x, y, mut z) = (unpack(a, env), unpack(b, env), unpack(c, env));
    let inf_times_zero = matches!(
        (x.class, y.class),
        (Class::Inf, Class::Zero) | (Class::Zero, Class::Inf)
    );
    if x.is_nan() || y.is_nan() || z.is_nan() {
        if inf_times_zero {
            match env.nan_rule {
                NanRule::Sse | NanRule::X87 => {}
                NanRule::Power => env.raise(Flags::INVALID | Flags::BY_INF_MUL_ZERO),
                NanRule::Arm | NanRule::S390x => {
                    env.raise(Flags::INVALID | Flags::BY_INF_MUL_ZERO);
                    if env.nan_rule == NanRule::S390x || z.class == Class::Quiet {
                        return default_nan(env);
                    }
                }
            }
        }
        return match env.nan_rule {
            NanRule::Sse | NanRule::X87 => propagate(&[&x, &y, &z], env),
            NanRule::Arm | NanRule::S390x => propagate(&[&z, &x, &y], env),
            NanRule::Power => propagate(&[&x, &z, &y], env),
        };
    }
    if inf_times_zero {
        return invalid(Flags::BY_INF_MUL_ZERO, env);
    }
    z.num.sign ^= kind.negate_addend();
    let sign = (x.num.sign != y.num.sign) != kind.negate_product();
    let flip = kind.negate_result();
    let product_inf = x.class == Class::Inf || y.class == Class::Inf;
    if product_inf && z.class == Class::Inf && sign != z.num.sign {
        return invalid(Flags::BY_INF_SUB_INF, env);
    }
    note_denormals(&[&x, &y, &z], env);
    if product_inf {
        return infinity(sign != flip);
    }
    if z.class == Class::Inf {
        return infinity(z.num.sign != flip);
    }
    let product_zero = x.class == Class::Zero || y.class == Class::Zero;
    match (product_zero, z.class == Class::Zero) {
        (true, true) => zero(
            (if sign == z.num.sign {
                sign
            } else {
                cancelled_sign(env)
            }) != flip,
        ),
        (true, false) => finish(z.num, kind, env),
        (false, true) => {
            let mut product = x.num.times(y.num);
            product.sign = sign;
            finish(product, kind, env)
        }
        (false, false) => fused::<F>(x.num, y.num, z.num, kind, env),
    }
}
