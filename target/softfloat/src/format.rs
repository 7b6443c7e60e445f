//! The interchange formats (IEEE 754-2019 section 3.6) and the x87 extended format.

use crate::env::{Env, Flags, Precision};
use crate::limbs::{Limbs, Sig};
use crate::num::{Class, Num, Parts};

/// binary16.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct F16(pub u16);
/// bfloat16: the top half of a binary32.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Bf16(pub u16);
/// binary32.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct F32(pub u32);
/// binary64.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct F64(pub u64);
/// x87 double extended (Intel SDM volume 1, 4.2.2): the integer bit is explicit.
/// In memory as the first ten bytes of 16, on little-endian hosts.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[repr(C)]
pub struct F80 {
    /// Bits 63:0: significand with its integer bit.
    pub sig: u64,
    /// Bits 79:64: sign and biased exponent.
    pub se: u16,
}
/// binary128.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct F128(pub u128);

/// The shape of a format.
pub trait Format: Copy + PartialEq + core::fmt::Debug {
    type Sig: Sig;
    /// Significand width, integer bit included.
    const PREC: u32;
    /// The biased exponent of infinities and NaNs.
    const MAX_EXP: i32;
    const BIAS: i32 = Self::MAX_EXP / 2;
    /// Whether the integer bit is stored.
    const EXPLICIT: bool = false;
    /// What a trap handler's result has its exponent wrapped by.
    const WRAP: i32 = (Self::MAX_EXP + 1) / 4 * 3;
    /// Sign, biased exponent, and the stored significand field with the integer bit's place at the top.
    fn fields(self) -> (bool, i32, Self::Sig);
    /// The reverse; only an explicit format stores the top bit of `sig`.
    fn from_fields(sign: bool, exp: i32, sig: Self::Sig) -> Self;
    /// Width that arithmetic rounds to.
    #[inline]
    fn arithmetic_precision(_: &Env) -> u32 {
        Self::PREC
    }
}

macro_rules! interchange {
    ($name:ident, $bits:ty, $sig:ty, $prec:expr) => {
        impl Format for $name {
            type Sig = $sig;
            const PREC: u32 = $prec;
            const MAX_EXP: i32 = (1 << (<$bits>::BITS - $prec)) - 1;
            #[inline]
            fn fields(self) -> (bool, i32, $sig) {
                let exp = self.0.wrapping_shr($prec - 1) as i32 & Self::MAX_EXP;
                let frac = <$sig>::from(self.0).wrapping_shl(<$sig>::BITS - $prec) & !<$sig>::TOP;
                (self.0.wrapping_shr(<$bits>::BITS - 1) != 0, exp, frac)
            }
            #[inline]
            fn from_fields(sign: bool, exp: i32, sig: $sig) -> Self {
                let frac = (sig & !<$sig>::TOP).wrapping_shr(<$sig>::BITS - $prec) as $bits;
                let sign = <$bits>::from(sign).wrapping_shl(<$bits>::BITS - 1);
                Self(sign | (exp as $bits).wrapping_shl($prec - 1) | frac)
            }
        }
    };
}
interchange!(F16, u16, u64, 11);
interchange!(Bf16, u16, u64, 8);
interchange!(F32, u32, u64, 24);
interchange!(F64, u64, u64, 53);
interchange!(F128, u128, u128, 113);

impl Format for F80 {
    type Sig = u128;
    const PREC: u32 = 64;
    const MAX_EXP: i32 = 0x7fff;
    const EXPLICIT: bool = true;
    #[inline]
    fn fields(self) -> (bool, i32, u128) {
        (
            self.se >> 15 != 0,
            i32::from(self.se & 0x7fff),
            u128::from(self.sig) << 64,
        )
    }
    #[inline]
    fn from_fields(sign: bool, exp: i32, sig: u128) -> Self {
        Self {
            se: u16::from(sign) << 15 | exp as u16,
            sig: (sig >> 64) as u64,
        }
    }
    #[inline]
    fn arithmetic_precision(env: &Env) -> u32 {
        match env.precision {
            Precision::Single => 24,
            Precision::Double => 53,
            Precision::Extended => 64,
        }
    }
}

/// The number if it is a normal one: the short path of every operation.
#[inline]
pub(crate) fn normal<F: Format>(value: F) -> Option<Num<F::Sig>> {
    let (sign, exp, sig) = value.fields();
    let plain = exp > 0 && exp < F::MAX_EXP && (!F::EXPLICIT || sig >= F::Sig::TOP);
    plain.then(|| Num {
        sign,
        exp: exp - F::BIAS,
        sig: sig.or(F::Sig::TOP),
    })
}

/// Classifies an operand, flushing it if `env` says so.
pub(crate) fn unpack<F: Format>(value: F, env: &mut Env) -> Parts<F::Sig> {
    let (sign, exp, sig) = value.fields();
    let top = F::Sig::TOP;
    let frac = sig.and(top.not());
    let plain = |class| Parts {
        class,
        denormal: false,
        num: Num {
            sign,
            exp: exp - F::BIAS,
            sig,
        },
    };
    if exp == F::MAX_EXP {
        return plain(if F::EXPLICIT && sig < top {
            Class::Unsupported
        } else if frac == F::Sig::ZERO {
            Class::Inf
        } else if frac.bit(F::Sig::BITS - 2) {
            Class::Quiet
        } else {
            Class::Signalling
        });
    }
    if exp == 0 {
        if sig == F::Sig::ZERO {
            return plain(Class::Zero);
        }
        if env.flush_inputs {
            env.raise(Flags::INPUT_FLUSHED);
            return plain(Class::Zero);
        }
        // A pseudo-denormal (f80 with the integer bit) has the same scale as a denormal.
        let num = Num::normalized(sign, 1 - F::BIAS, sig);
        return Parts {
            class: Class::Finite,
            denormal: true,
            num,
        };
    }
    if F::EXPLICIT && sig < top {
        return plain(Class::Unsupported);
    }
    let num = Num {
        sign,
        exp: exp - F::BIAS,
        sig: sig.or(top),
    };
    Parts {
        class: Class::Finite,
        denormal: false,
        num,
    }
}

/// A zero.
#[inline]
pub(crate) fn zero<F: Format>(sign: bool) -> F {
    F::from_fields(sign, 0, F::Sig::ZERO)
}

/// An infinity.
#[inline]
pub(crate) fn infinity<F: Format>(sign: bool) -> F {
    F::from_fields(sign, F::MAX_EXP, F::Sig::TOP)
}
