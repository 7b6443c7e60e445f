//! Comparison (IEEE 754-2019 section 5.11), minimum and maximum (section 9.6 and what guests define).

use core::cmp::Ordering;

use crate::env::{Env, Flags};
use crate::format::{Format, normal, unpack, zero};
use crate::limbs::{Limbs, Sig};
use crate::nan::{note_denormals, propagate};
use crate::num::{Class, Num, Parts};

/// Which minimum or maximum: they differ in NaNs and in zeros of both signs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum MinMax {
    /// x86 MINSS and MAXSS: the second operand if either is a NaN or both are zero; any NaN is invalid.
    Sse,
    /// IEEE 754-2008 minNum: a number before a quiet NaN; a signalling NaN makes a NaN. -0 below +0.
    Num,
    /// IEEE 754-2019 minimum: any NaN makes a NaN. -0 below +0.
    Propagate,
    /// IEEE 754-2019 minimumNumber: a number before any NaN. -0 below +0.
    Number,
}

fn order_magnitude<S: Limbs>(x: &Num<S>, y: &Num<S>) -> Ordering {
    x.exp.cmp(&y.exp).then(x.sig.cmp(&y.sig))
}

/// Of operands that are no NaNs.
fn order<S: Sig>(x: &Parts<S>, y: &Parts<S>) -> Ordering {
    let rank = |p: &Parts<S>| match p.class {
        Class::Zero => 0,
        Class::Inf => 2,
        _ => 1,
    };
    let magnitude = rank(x).cmp(&rank(y)).then_with(|| {
        if rank(x) == 1 {
            order_magnitude(&x.num, &y.num)
        } else {
            Ordering::Equal
        }
    });
    match (x.num.sign, y.num.sign) {
        _ if rank(x) == 0 && rank(y) == 0 => Ordering::Equal,
        (false, false) => magnitude,
        (true, true) => magnitude.reverse(),
        (true, false) => Ordering::Less,
        (false, true) => Ordering::Greater,
    }
}

/// `None` is unordered.
#[inline]
pub(crate) fn compare<F: Format>(a: F, b: F, signalling: bool, env: &mut Env) -> Option<Ordering> {
    if let (Some(x), Some(y)) = (normal(a), normal(b)) {
        let magnitude = order_magnitude(&x, &y);
        return Some(match (x.sign, y.sign) {
            (false, false) => magnitude,
            (true, true) => magnitude.reverse(),
            (true, false) => Ordering::Less,
            (false, true) => Ordering::Greater,
        });
    }
    compare_special(a, b, signalling, env)
}

#[inline(never)]
fn compare_special<F: Format>(a: F, b: F, signalling: bool, env: &mut Env) -> Option<Ordering> {
    let (x, y) = (unpack(a, env), unpack(b, env));
    if x.is_nan() || y.is_nan() {
        if x.class == Class::Signalling || y.class == Class::Signalling {
            env.raise(Flags::BY_SNAN);
        }
        if signalling {
            env.raise(Flags::BY_COMPARE);
        }
        if signalling || x.signals() || y.signals() {
            env.raise(Flags::INVALID);
        }
        return None;
    }
    note_denormals(&[&x, &y], env);
    Some(order(&x, &y))
}

pub(crate) fn min_max<F: Format>(a: F, b: F, max: bool, rule: MinMax, env: &mut Env) -> F {
    let (x, y) = (unpack(a, env), unpack(b, env));
    if x.is_nan() || y.is_nan() {
        let signals = x.signals() || y.signals();
        return match rule {
            MinMax::Sse => {
                env.raise(Flags::INVALID);
                taken(b, &y)
            }
            MinMax::Propagate => propagate(&[&x, &y], env),
            MinMax::Num if signals => propagate(&[&x, &y], env),
            MinMax::Num | MinMax::Number => {
                if signals {
                    env.raise(Flags::INVALID | Flags::BY_SNAN);
                }
                match (x.is_nan(), y.is_nan()) {
                    (true, false) => taken(b, &y),
                    (false, true) => taken(a, &x),
                    _ => propagate(&[&x, &y], env),
                }
            }
        };
    }
    note_denormals(&[&x, &y], env);
    let order = if max { order(&y, &x) } else { order(&x, &y) };
    let first = match (rule, order) {
        (_, Ordering::Less) => true,
        (_, Ordering::Greater) | (MinMax::Sse, Ordering::Equal) => false,
        // Only zeros are equal and yet differ: the minimum is the negative one.
        (_, Ordering::Equal) => x.num.sign != max,
    };
    if first { taken(a, &x) } else { taken(b, &y) }
}

/// The chosen operand itself, or the zero that it was flushed to.
fn taken<F: Format>(value: F, parts: &Parts<F::Sig>) -> F {
    if parts.class == Class::Zero {
        zero(parts.num.sign)
    } else {
        value
    }
}
