//! Rounding to a format, with overflow and underflow (IEEE 754-2019 sections 4.3 and 7.4 to 7.6).

use crate::env::{Env, Flags, FlushOutputs, Rounding, Tininess};
use crate::format::{Format, infinity, zero};
use crate::limbs::{Limbs, Sig};
use crate::num::Num;

/// Rounds away the `drop` lowest bits (`0 < drop < BITS`). A carry out leaves zero and says so.
#[inline]
pub(crate) fn round_sig<S: Sig>(sign: bool, sig: S, drop: u32, rounding: Rounding) -> (S, bool) {
    let mask = S::mask(drop);
    let up = match rounding {
        Rounding::NearestEven => S::mask(drop - 1).jam_add(sig.bit(drop)),
        Rounding::NearestAway => S::mask(drop).sub(S::mask(drop - 1)),
        Rounding::TowardZero => S::ZERO,
        Rounding::Up if !sign => mask,
        Rounding::Down if sign => mask,
        Rounding::Up | Rounding::Down => S::ZERO,
        Rounding::Odd => {
            let odd = if sig.and(mask) == S::ZERO {
                S::ZERO
            } else {
                mask.sub(mask.shr(1)).shl(1)
            };
            return (sig.or(odd).and(mask.not()), false);
        }
    };
    let (sum, carry) = sig.add_carry(up);
    (sum.and(mask.not()), carry)
}

trait JamAdd: Sig {
    /// Plus one if `more`.
    #[inline]
    fn jam_add(self, more: bool) -> Self {
        self.add_carry(Self::ZERO.jam(more)).0
    }
}
impl<S: Sig> JamAdd for S {}

/// Whether rounding an infinite result away from zero is allowed.
fn overflows_to_infinity(sign: bool, rounding: Rounding) -> bool {
    match rounding {
        Rounding::NearestEven | Rounding::NearestAway => true,
        Rounding::TowardZero | Rounding::Odd => false,
        Rounding::Up => !sign,
        Rounding::Down => sign,
    }
}

/// Rounds to the format's own width.
#[inline]
pub(crate) fn round<F: Format>(num: Num<F::Sig>, env: &mut Env) -> F {
    round_to::<F>(num, F::PREC, env)
}

/// Rounds as arithmetic does: to the width that the environment selects.
#[inline]
pub(crate) fn round_arithmetic<F: Format>(num: Num<F::Sig>, env: &mut Env) -> F {
    let precision = F::arithmetic_precision(env);
    round_to::<F>(num, precision, env)
}

#[inline]
fn round_to<F: Format>(num: Num<F::Sig>, precision: u32, env: &mut Env) -> F {
    let drop = F::Sig::BITS - precision;
    let exp = num.exp.wrapping_add(F::BIAS);
    // The largest exponent is left out: rounding could overflow it.
    if exp < 1 || exp >= F::MAX_EXP - 1 {
        return round_extreme::<F>(num, drop, env);
    }
    if num.sig.and(F::Sig::mask(drop)) == F::Sig::ZERO {
        return F::from_fields(num.sign, exp, num.sig);
    }
    let (sig, carry) = round_inexact(num.sign, num.sig, drop, env);
    F::from_fields(num.sign, exp + i32::from(carry), sig)
}

/// Rounds a significand that has bits to lose; after a carry the top bit is put back.
#[inline]
fn round_inexact<S: Sig>(sign: bool, sig: S, drop: u32, env: &mut Env) -> (S, bool) {
    let (rounded, carry) = round_sig(sign, sig, drop, env.rounding);
    env.raise(Flags::INEXACT);
    if carry || rounded > sig {
        env.raise(Flags::ROUNDED_UP);
    }
    (if carry { S::TOP } else { rounded }, carry)
}

/// As `round_inexact`, also for a significand with nothing to lose.
fn round_any<S: Sig>(sign: bool, sig: S, drop: u32, env: &mut Env) -> (S, bool) {
    if sig.and(S::mask(drop)) == S::ZERO {
        (sig, false)
    } else {
        round_inexact(sign, sig, drop, env)
    }
}

#[cold]
#[inline(never)]
fn round_extreme<F: Format>(num: Num<F::Sig>, drop: u32, env: &mut Env) -> F {
    let exp = num.exp.saturating_add(F::BIAS);
    if exp < 1 {
        round_tiny::<F>(num, exp, drop, env)
    } else {
        round_huge::<F>(num, exp, drop, env)
    }
}

fn round_huge<F: Format>(num: Num<F::Sig>, exp: i32, drop: u32, env: &mut Env) -> F {
    let before = env.flags;
    let (sig, carry) = round_any(num.sign, num.sig, drop, env);
    let exp = exp.saturating_add(i32::from(carry));
    if exp < F::MAX_EXP {
        return F::from_fields(num.sign, exp, sig);
    }
    env.raise(Flags::OVERFLOW);
    if env.unmasked.has(Flags::OVERFLOW) && exp - F::WRAP < F::MAX_EXP {
        return F::from_fields(num.sign, exp - F::WRAP, sig);
    }
    env.flags = before | Flags::OVERFLOW | Flags::INEXACT;
    // FSCALE can go where wrapping does not bring it back: infinity in every rounding mode.
    if env.unmasked.has(Flags::OVERFLOW) || overflows_to_infinity(num.sign, env.rounding) {
        env.raise(Flags::ROUNDED_UP);
        return infinity(num.sign);
    }
    F::from_fields(num.sign, F::MAX_EXP - 1, F::Sig::mask(drop).not())
}

fn round_tiny<F: Format>(num: Num<F::Sig>, exp: i32, drop: u32, env: &mut Env) -> F {
    let tiny = match env.tininess {
        Tininess::BeforeRounding => true,
        // It is not when rounding with an unbounded exponent carries it to the smallest normal number.
        Tininess::AfterRounding => exp < 0 || !round_sig(num.sign, num.sig, drop, env.rounding).1,
    };
    if tiny && env.unmasked.has(Flags::UNDERFLOW) {
        let wrapped = exp.saturating_add(F::WRAP);
        env.raise(Flags::UNDERFLOW);
        if wrapped > 0 {
            let (sig, carry) = round_any(num.sign, num.sig, drop, env);
            return F::from_fields(num.sign, wrapped + i32::from(carry), sig);
        }
        // As above, towards zero. A conversion is inexact only if the bits it keeps are not all.
        if F::EXPLICIT {
            env.raise(Flags::INEXACT);
        } else {
            round_any(num.sign, num.sig, drop, env);
        }
        return zero(num.sign);
    } else if tiny {
        match env.flush_outputs {
            FlushOutputs::Never => {}
            FlushOutputs::Sse => {
                env.raise(Flags::UNDERFLOW | Flags::INEXACT);
                return zero(num.sign);
            }
            FlushOutputs::Arm => {
                env.raise(Flags::UNDERFLOW);
                return zero(num.sign);
            }
        }
    }
    // A subnormal number's bits stop at a fixed place, so precision control shortens only what lies above it.
    let sig = num.sig.shr_jam(1_i32.saturating_sub(exp).unsigned_abs());
    if sig.and(F::Sig::mask(drop)) == F::Sig::ZERO {
        return F::from_fields(num.sign, 0, sig);
    }
    if tiny {
        env.raise(Flags::UNDERFLOW);
    }
    let (sig, _) = round_inexact(num.sign, sig, drop, env);
    F::from_fields(num.sign, i32::from(sig >= F::Sig::TOP), sig)
}
