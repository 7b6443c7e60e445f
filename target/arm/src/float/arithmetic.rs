//! Arithmetic on formats chosen at run time: 16, 32 and 64 bits (DDI 0487, J1.1 "shared/functions/float").

use core::cmp::Ordering;

use target_softfloat::{Env, F16, F32, F64, Float, IntOverflow, MinMax, MulAdd, Rounding};

/// An operation of two operands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Op {
    Add,
    Sub,
    Mul,
    MulNegated,
    Div,
    Max,
    Min,
    MaxNumber,
    MinNumber,
    /// FMULX.
    MulExtended,
    /// FABD.
    Difference,
    Equal,
    GreaterEqual,
    Greater,
    AbsoluteGreaterEqual,
    AbsoluteGreater,
    /// FRECPS.
    ReciprocalStep,
    /// FRSQRTS.
    RootStep,
}

/// A format as bits.
pub(crate) trait Lane: Float {
    const BITS: u32;
    const EXPONENT: u32;
    fn of(bits: u64) -> Self;
    fn raw(self) -> u64;
}

macro_rules! lane {
    ($($f:ident $t:ty, $bits:literal, $exponent:literal;)*) => {$(
        impl Lane for $f {
            const BITS: u32 = $bits;
            const EXPONENT: u32 = $exponent;
            fn of(bits: u64) -> Self {
                $f(bits as $t)
            }
            fn raw(self) -> u64 {
                self.0.into()
            }
        }
    )*};
}
lane! {
    F16 u16, 16, 5;
    F32 u32, 32, 8;
    F64 u64, 64, 11;
}

/// Calls a generic function with the format of a width.
macro_rules! by_width {
    ($bits:expr, $f:ident ( $($arg:expr),* )) => {
        match $bits {
            16 => $f::<F16>($($arg),*),
            32 => $f::<F32>($($arg),*),
            _ => $f::<F64>($($arg),*),
        }
    };
}

fn all<F: Lane>(yes: bool) -> u64 {
    if yes { u64::MAX >> (64 - F::BITS) } else { 0 }
}

/// 1.0 times a small number: the exponent's bias in place.
fn power<F: Lane>(exponent: i64) -> u64 {
    // shift: below the width of a format
    let bias = (1i64 << (F::EXPONENT - 1)) - 1;
    ((bias + exponent) as u64) << (F::BITS - 1 - F::EXPONENT)
}

fn exponent_of<F: Lane>(v: F) -> u64 {
    v.raw() >> (F::BITS - 1 - F::EXPONENT) & ((1 << F::EXPONENT) - 1)
}

/// Operands of a product that is infinity by zero, flushed zeros included.
fn is_inf_by_zero<F: Lane>(a: F, b: F, env: &Env) -> bool {
    let zero = |v: F| v.is_zero() || env.flush_inputs && v.is_subnormal();
    a.is_infinite() && zero(b) || zero(a) && b.is_infinite()
}

/// An operation of a format of so many bits.
pub(crate) fn two(bits: u32, op: Op, a: u64, b: u64, env: &mut Env) -> u64 {
    by_width!(bits, two_of(op, a, b, env))
}

fn two_of<F: Lane>(op: Op, a: u64, b: u64, env: &mut Env) -> u64 {
    let (a, b) = (F::of(a), F::of(b));
    let value = match op {
        Op::Add => a.add(b, env),
        Op::Sub => a.sub(b, env),
        Op::Mul => a.mul(b, env),
        Op::MulNegated => a.mul(b, env).neg(),
        Op::Div => a.div(b, env),
        Op::Max => a.max(b, MinMax::Propagate, env),
        Op::Min => a.min(b, MinMax::Propagate, env),
        Op::MaxNumber => a.max(b, MinMax::Num, env),
        Op::MinNumber => a.min(b, MinMax::Num, env),
        Op::Difference => a.sub(b, env).abs(),
        Op::MulExtended if is_inf_by_zero(a, b, env) => {
            note_flush(a, b, env);
            let sign = a.is_negative() != b.is_negative();
            // shift: below the width of a format
            F::of(power::<F>(1) | u64::from(sign) << (F::BITS - 1))
        }
        Op::MulExtended => a.mul(b, env),
        Op::Equal => return all::<F>(a.compare_quiet(b, env) == Some(Ordering::Equal)),
        Op::GreaterEqual | Op::AbsoluteGreaterEqual => {
            let (a, b) = absolute(op == Op::AbsoluteGreaterEqual, a, b);
            let order = a.compare_signalling(b, env);
            return all::<F>(matches!(order, Some(Ordering::Greater | Ordering::Equal)));
        }
        Op::Greater | Op::AbsoluteGreater => {
            let (a, b) = absolute(op == Op::AbsoluteGreater, a, b);
            return all::<F>(a.compare_signalling(b, env) == Some(Ordering::Greater));
        }
        Op::ReciprocalStep if is_inf_by_zero(a, b, env) => {
            note_flush(a, b, env);
            F::of(power::<F>(1))
        }
        Op::ReciprocalStep => a.neg().mul_add(b, F::of(power::<F>(1)), MulAdd::Add, env),
        Op::RootStep if is_inf_by_zero(a, b, env) => {
            note_flush(a, b, env);
            F::of(power::<F>(0) | 1 << (F::BITS - 2 - F::EXPONENT))
        }
        Op::RootStep => root_step(a.neg(), b, env),
    };
    value.raw()
}

fn absolute<F: Lane>(yes: bool, a: F, b: F) -> (F, F) {
    if yes { (a.abs(), b.abs()) } else { (a, b) }
}

/// The flag of operands that were flushed where nothing else looks at them.
fn note_flush<F: Lane>(a: F, b: F, env: &mut Env) {
    if env.flush_inputs && (a.is_subnormal() || b.is_subnormal()) {
        env.raise(target_softfloat::Flags::INPUT_FLUSHED);
    }
}

/// `(3 + a * b) / 2`, rounded once.
fn root_step<F: Lane>(a: F, b: F, env: &mut Env) -> F {
    let three = F::of(power::<F>(1) | 1 << (F::BITS - 2 - F::EXPONENT));
    if a.is_nan() || b.is_nan() || a.is_infinite() || b.is_infinite() {
        return a.mul_add(b, three, MulAdd::Add, env);
    }
    // One factor halved exactly, and 1.5: the same, halved. Where neither can be, the product is nothing
    // beside 1.5 either way.
    let one_half = F::of(power::<F>(0) | 1 << (F::BITS - 2 - F::EXPONENT));
    let exact = &mut Env {
        flags: target_softfloat::Flags::NONE,
        ..*env
    };
    let (a, b) = if exponent_of(a) > 1 {
        (a.scale(-1, exact), b)
    } else if exponent_of(b) > 1 {
        (a, b.scale(-1, exact))
    } else {
        (a, b)
    };
    a.mul_add(b, one_half, MulAdd::Add, env)
}

/// `addend + a * b`, `a` negated beforehand if wanted.
pub(crate) fn mul_add(bits: u32, a: (u64, bool), b: u64, addend: u64, env: &mut Env) -> u64 {
    by_width!(bits, mul_add_of(a, b, addend, env))
}

fn mul_add_of<F: Lane>((a, negate): (u64, bool), b: u64, addend: u64, env: &mut Env) -> u64 {
    let a = F::of(a);
    let a = if negate { a.neg() } else { a };
    let addend = F::of(addend);
    // A quiet NaN for an addend hides no infinity by zero (`FPMulAdd`).
    if addend.is_nan() && !addend.is_signalling_nan() && is_inf_by_zero(a, F::of(b), env) {
        env.raise(target_softfloat::Flags::INVALID);
        if a.is_subnormal() || F::of(b).is_subnormal() {
            // The zero was one that is flushed.
            env.raise(target_softfloat::Flags::INPUT_FLUSHED);
        }
        return F::default_nan(env).raw();
    }
    a.mul_add(F::of(b), addend, MulAdd::Add, env).raw()
}

/// The negated value.
pub(crate) fn negated(bits: u32, a: u64) -> u64 {
    // shift: below the width of a format
    a ^ 1 << (bits - 1)
}

/// The square root.
pub(crate) fn sqrt(bits: u32, a: u64, env: &mut Env) -> u64 {
    fn of<F: Lane>(a: u64, env: &mut Env) -> u64 {
        F::of(a).sqrt(env).raw()
    }
    by_width!(bits, of(a, env))
}

/// FRINT*: to an integral value.
pub(crate) fn round(bits: u32, a: u64, rounding: Rounding, exact: bool, env: &mut Env) -> u64 {
    fn of<F: Lane>(a: u64, rounding: Rounding, exact: bool, env: &mut Env) -> u64 {
        F::of(a).round_to_integral(rounding, exact, env).raw()
    }
    by_width!(bits, of(a, rounding, exact, env))
}

/// FRINT32*, FRINT64*: to an integral value that an integer of so many bits holds; else its least.
pub(crate) fn round_within(
    bits: u32,
    a: u64,
    rounding: Rounding,
    within: u32,
    env: &mut Env,
) -> u64 {
    fn of<F: Lane>(a: u64, rounding: Rounding, within: u32, env: &mut Env) -> u64 {
        let mut tried = *env;
        let value = F::of(a);
        let result = value.round_to_integral(rounding, true, &mut tried);
        // shift: below the width of a format
        let exponent = exponent_of(result) as i64 - ((1i64 << (F::EXPONENT - 1)) - 1);
        let top = i64::from(within) - 1;
        // shift: below the width of a format
        let least = power::<F>(top) | 1 << (F::BITS - 1);
        let outside = value.is_nan() || exponent >= top && result.raw() != least;
        if outside {
            env.raise(target_softfloat::Flags::INVALID);
            return least;
        }
        *env = tried;
        result.raw()
    }
    by_width!(bits, of(a, rounding, within, env))
}

/// To an integer of a width, saturated; widths are (of the format, of the integer).
pub(crate) fn to_int(
    (bits, width): (u32, u32),
    unsigned: bool,
    fraction: u32,
    rounding: Rounding,
    a: u64,
    env: &mut Env,
) -> u64 {
    fn of<F: Lane>(
        width: u32,
        unsigned: bool,
        fraction: u32,
        rounding: Rounding,
        a: u64,
        env: &mut Env,
    ) -> u64 {
        let a = F::of(a);
        let how = IntOverflow::SaturateNanZero;
        match (width, unsigned) {
            (16, false) => a.to_fixed::<i16>(fraction, rounding, how, env) as u16 as u64,
            (16, true) => a.to_fixed::<u16>(fraction, rounding, how, env).into(),
            (32, false) => a.to_fixed::<i32>(fraction, rounding, how, env) as u32 as u64,
            (32, true) => a.to_fixed::<u32>(fraction, rounding, how, env).into(),
            (_, false) => a.to_fixed::<i64>(fraction, rounding, how, env) as u64,
            (_, true) => a.to_fixed::<u64>(fraction, rounding, how, env),
        }
    }
    by_width!(bits, of(width, unsigned, fraction, rounding, a, env))
}

/// From an integer; widths are (of the format, of the integer).
pub(crate) fn from_int(
    (bits, width): (u32, u32),
    unsigned: bool,
    fraction: u32,
    value: u64,
    env: &mut Env,
) -> u64 {
    fn of<F: Lane>(unsigned: bool, fraction: u32, value: u64, env: &mut Env) -> u64 {
        if unsigned {
            F::from_fixed_u64(value, fraction, env).raw()
        } else {
            F::from_fixed_i64(value as i64, fraction, env).raw()
        }
    }
    let value = if unsigned {
        value & u64::MAX >> (64 - width)
    } else {
        crate::simd::sext(value, width) as u64
    };
    by_width!(bits, of(unsigned, fraction, value, env))
}

/// To another format. Half precision follows FPCR.AHP, by `alternative`.
pub(crate) fn convert((from, to): (u32, u32), a: u64, alternative: bool, env: &mut Env) -> u64 {
    if alternative && from == 16 {
        return from_alternative(to, a);
    }
    if alternative && to == 16 {
        return to_alternative(from, a, env);
    }
    match (from, to) {
        (16, 32) => F16::of(a).convert::<F32>(env).raw(),
        (16, _) => F16::of(a).convert::<F64>(env).raw(),
        (32, 16) => F32::of(a).convert::<F16>(env).raw(),
        (32, _) => F32::of(a).convert::<F64>(env).raw(),
        (_, 16) => F64::of(a).convert::<F16>(env).raw(),
        _ => F64::of(a).convert::<F32>(env).raw(),
    }
}

/// Alternative half precision has no infinities and NaNs: one more exponent instead.
fn from_alternative(to: u32, a: u64) -> u64 {
    let mut env = Env::arm();
    if a >> 10 & 31 != 31 {
        return convert((16, to), a, false, &mut env);
    }
    // One less in the exponent is exact, twice that too.
    let lower = convert((16, to), a & !(1 << 10), false, &mut env);
    two(to, Op::Add, lower, lower, &mut env)
}

fn to_alternative(from: u32, a: u64, env: &mut Env) -> u64 {
    use target_softfloat::Flags;
    // shift: below the width of a format
    let sign = (a >> (from - 1)) << 15;
    let (nan, infinite) = match from {
        32 => (F32::of(a).is_nan(), F32::of(a).is_infinite()),
        _ => (F64::of(a).is_nan(), F64::of(a).is_infinite()),
    };
    if nan {
        env.raise(Flags::INVALID);
        return sign;
    }
    if infinite {
        env.raise(Flags::INVALID);
        return sign | 0x7fff;
    }
    // Halved, it is in the range of the usual format, unless it is small.
    let bias = if from == 32 { 127 } else { 1023 };
    // shift: below the width of a format
    let exponent = (a << 1 << (64 - from) >> if from == 32 { 56 } else { 53 }) as i64 - bias;
    if exponent < 14 {
        return convert((from, 16), a, false, env);
    }
    let unit = if from == 32 { 1 << 23 } else { 1u64 << 52 };
    let mut tried = Env {
        flags: Flags::NONE,
        ..*env
    };
    let halved = convert((from, 16), a - unit, false, &mut tried);
    if tried.flags.has(Flags::OVERFLOW) || halved >> 10 & 31 == 31 || exponent > 16 {
        env.raise(Flags::INVALID);
        return sign | 0x7fff;
    }
    env.raise(tried.flags);
    halved + (1 << 10)
}
