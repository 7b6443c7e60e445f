//! Conversions between formats, to integral values and to and from integers
//! (IEEE 754-2019 sections 5.4.1, 5.8, 5.9).

use crate::env::{Env, Flags, Rounding};
use crate::format::{Format, infinity, normal, unpack, zero};
use crate::limbs::{Limbs, Sig};
use crate::nan::{convert_nan, note_denormals, propagate};
use crate::num::{Class, Num};
use crate::round::{round, round_sig};

/// What a conversion to an integer makes of NaNs and of numbers that do not fit; all are invalid.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum IntOverflow {
    /// x86: the integer indefinite value (signed: the minimum; unsigned: all ones).
    X86,
    /// Arm: the nearest integer; zero for a NaN.
    SaturateNanZero,
    /// Power and s390x: the nearest integer; the minimum for a NaN.
    SaturateNanMin,
}

/// An integer type that numbers convert to.
pub trait Int: Copy {
    /// The least value.
    const MIN: Self;
    /// The greatest value.
    const MAX: Self;
    /// What x86 gives for a number that does not fit.
    const INDEFINITE: Self;
    /// Zero.
    const ZERO: Self;
    /// The value with this sign and magnitude, if there is one.
    fn from_magnitude(negative: bool, magnitude: u64) -> Option<Self>;
}

macro_rules! int {
    ($($t:ty, $indefinite:expr;)*) => {$(
        impl Int for $t {
            const MIN: Self = <$t>::MIN;
            const MAX: Self = <$t>::MAX;
            const INDEFINITE: Self = $indefinite;
            const ZERO: Self = 0;
            #[inline]
            fn from_magnitude(negative: bool, magnitude: u64) -> Option<Self> {
                let value = i128::from(magnitude);
                Self::try_from(if negative { -value } else { value }).ok()
            }
        }
    )*};
}
int! {
    i8, i8::MIN; i16, i16::MIN; i32, i32::MIN; i64, i64::MIN;
    u8, u8::MAX; u16, u16::MAX; u32, u32::MAX; u64, u64::MAX;
}

/// Into another format. x86 conversions raise the denormal flag, but a store from the x87 stack does not.
#[inline]
pub(crate) fn convert<F: Format, G: Format>(a: F, env: &mut Env) -> G {
    if let Some(x) = normal(a) {
        return round(x.resize(), env);
    }
    convert_special(a, env)
}

#[inline(never)]
fn convert_special<F: Format, G: Format>(a: F, env: &mut Env) -> G {
    let x = unpack(a, env);
    match x.class {
        Class::Zero => zero(x.num.sign),
        Class::Inf => infinity(x.num.sign),
        Class::Finite => {
            if !F::EXPLICIT {
                note_denormals(&[&x], env);
            }
            round(x.num.resize(), env)
        }
        _ => convert_nan::<F, G>(&x, env),
    }
}

/// To an integral value in the same format.
pub(crate) fn round_to_integral<F: Format>(
    a: F,
    rounding: Rounding,
    inexact: bool,
    env: &mut Env,
) -> F {
    let x = unpack(a, env);
    match x.class {
        Class::Zero => return zero(x.num.sign),
        Class::Inf => return a,
        Class::Finite => {}
        _ => return propagate(&[&x], env),
    }
    // FRNDINT raises the denormal flag, ROUNDSD does not.
    if F::EXPLICIT {
        note_denormals(&[&x], env);
    }
    let Num { sign, exp, sig } = x.num;
    if exp >= F::PREC as i32 - 1 {
        return a;
    }
    // Below a quarter everything is sticky: a quarter and a bit rounds the same way.
    let (exp, sig) = match exp {
        0.. => (exp, sig),
        -2..0 => (0, sig.shr_jam(exp.unsigned_abs())),
        _ => (0, F::Sig::TOP.shr(2).jam(true)),
    };
    let drop = F::Sig::BITS - 1 - exp as u32;
    if sig.and(F::Sig::mask(drop)) == F::Sig::ZERO {
        return a;
    }
    if inexact {
        env.raise(Flags::INEXACT);
    }
    let (rounded, carry) = round_sig(sign, sig, drop, rounding);
    if inexact && (carry || rounded > sig) {
        env.raise(Flags::ROUNDED_UP);
    }
    if carry {
        return F::from_fields(sign, exp + 1 + F::BIAS, F::Sig::TOP);
    }
    if rounded == F::Sig::ZERO {
        return zero(sign);
    }
    F::from_fields(sign, exp + F::BIAS, rounded)
}

/// How a conversion to an integer rounds and what it does when that fails.
#[derive(Clone, Copy)]
pub(crate) struct ToInt {
    pub(crate) rounding: Rounding,
    pub(crate) overflow: IntOverflow,
    /// The operand is first multiplied by two to this power.
    pub(crate) scale: i32,
}

#[inline]
pub(crate) fn to_int<F: Format, I: Int>(a: F, how: ToInt, env: &mut Env) -> I {
    let num = match normal(a) {
        Some(num) => num,
        None => {
            let x = unpack(a, env);
            match x.class {
                Class::Zero => return I::ZERO,
                Class::Finite => x.num,
                Class::Inf => return no_integer(Some(x.num.sign), Flags::NONE, how, env),
                Class::Signalling => return no_integer(None, Flags::BY_SNAN, how, env),
                Class::Quiet | Class::Unsupported => {
                    return no_integer(None, Flags::NONE, how, env);
                }
            }
        }
    };
    let exp = num.exp.saturating_add(how.scale);
    if exp > 63 {
        return no_integer(Some(num.sign), Flags::NONE, how, env);
    }
    // Integer part in the high half, fraction below.
    let fixed = num
        .sig
        .to_top()
        .shr_jam((63_i32.saturating_sub(exp)) as u32);
    if fixed as u64 == 0 {
        return match I::from_magnitude(num.sign, (fixed >> 64) as u64) {
            Some(value) => value,
            None => no_integer(Some(num.sign), Flags::NONE, how, env),
        };
    }
    let (rounded, carry) = round_sig(num.sign, fixed, 64, how.rounding);
    match I::from_magnitude(num.sign, (rounded >> 64) as u64) {
        Some(value) if !carry => {
            env.raise(Flags::INEXACT);
            if rounded > fixed {
                env.raise(Flags::ROUNDED_UP);
            }
            value
        }
        _ => no_integer(Some(num.sign), Flags::NONE, how, env),
    }
}

/// `sign` is `None` for a NaN.
#[cold]
fn no_integer<I: Int>(sign: Option<bool>, why: Flags, how: ToInt, env: &mut Env) -> I {
    env.raise(Flags::INVALID | Flags::BY_CONVERT | why);
    match (how.overflow, sign) {
        (IntOverflow::X86, _) => I::INDEFINITE,
        (_, Some(true)) | (IntOverflow::SaturateNanMin, None) => I::MIN,
        (_, Some(false)) => I::MAX,
        (IntOverflow::SaturateNanZero, None) => I::ZERO,
    }
}

/// `(-1)^negative * magnitude * 2^scale`.
#[inline]
pub(crate) fn from_magnitude<F: Format>(
    negative: bool,
    magnitude: u64,
    scale: i32,
    env: &mut Env,
) -> F {
    if magnitude == 0 {
        return zero(false);
    }
    let num = Num::normalized(negative, 63_i32.saturating_add(scale), magnitude);
    round(num.resize(), env)
}
