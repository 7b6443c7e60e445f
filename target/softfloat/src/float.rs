//! The operations, as methods of every format.

use core::cmp::Ordering;

use crate::compare::{self, MinMax};
use crate::convert::{self, Int, IntOverflow, ToInt};
use crate::env::{Env, Rounding};
use crate::format::{Bf16, F16, F32, F64, F80, F128, Format};
use crate::limbs::{Limbs, Sig};
use crate::num::Num;
use crate::rem::{self, Remainder};
use crate::round::round;
use crate::{arith, fma, format, nan};

/// The signs of a fused multiply-add. NaN operands keep their sign in all of them; where an instruction
/// negates an operand beforehand (Arm), the caller does it with [`Float::neg`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum MulAdd {
    /// `a * b + c`.
    Add,
    /// `a * b - c`.
    Sub,
    /// `-(a * b) + c` (x86 VFNMADD).
    NegProductAdd,
    /// `-(a * b) - c` (x86 VFNMSUB).
    NegProductSub,
    /// `-(a * b + c)`, negated after rounding (Power fnmadd).
    NegAdd,
    /// `-(a * b - c)`, negated after rounding (Power fnmsub).
    NegSub,
}

impl MulAdd {
    #[inline]
    pub(crate) fn negate_addend(self) -> bool {
        matches!(self, Self::Sub | Self::NegProductSub | Self::NegSub)
    }
    #[inline]
    pub(crate) fn negate_product(self) -> bool {
        matches!(self, Self::NegProductAdd | Self::NegProductSub)
    }
    #[inline]
    pub(crate) fn negate_result(self) -> bool {
        matches!(self, Self::NegAdd | Self::NegSub)
    }
}

/// A floating-point value as its bits, with the operations on it.
///
/// Arithmetic is correctly rounded, picks NaNs by [`Env::nan_rule`] and adds its flags to [`Env::flags`].
pub trait Float: Format {
    /// `self + other`.
    #[inline]
    fn add(self, other: Self, env: &mut Env) -> Self {
        arith::add(self, other, false, env)
    }
    /// `self - other`.
    #[inline]
    fn sub(self, other: Self, env: &mut Env) -> Self {
        arith::add(self, other, true, env)
    }
    /// `self * other`.
    #[inline]
    fn mul(self, other: Self, env: &mut Env) -> Self {
        arith::mul(self, other, env)
    }
    /// `self / other`.
    #[inline]
    fn div(self, other: Self, env: &mut Env) -> Self {
        arith::div(self, other, env)
    }
    /// The square root.
    #[inline]
    fn sqrt(self, env: &mut Env) -> Self {
        arith::sqrt(self, env)
    }
    /// `self * other + addend`, rounded once.
    #[inline]
    fn mul_add(self, other: Self, addend: Self, kind: MulAdd, env: &mut Env) -> Self {
        fma::mul_add(self, other, addend, kind, env)
    }
    /// `self - other * n`, with `n` the quotient rounded `TowardZero` or, in any other mode, `NearestEven`.
    fn rem(self, other: Self, quotient: Rounding, env: &mut Env) -> Remainder<Self> {
        let rounding = if quotient == Rounding::TowardZero {
            quotient
        } else {
            Rounding::NearestEven
        };
        rem::rem(self, other, rounding, None, env)
    }
    /// The lesser by `rule`.
    #[inline]
    fn min(self, other: Self, rule: MinMax, env: &mut Env) -> Self {
        compare::min_max(self, other, false, rule, env)
    }
    /// The greater by `rule`.
    #[inline]
    fn max(self, other: Self, rule: MinMax, env: &mut Env) -> Self {
        compare::min_max(self, other, true, rule, env)
    }
    /// Compares; only a signalling NaN is invalid. `None` is unordered.
    #[inline]
    fn compare_quiet(self, other: Self, env: &mut Env) -> Option<Ordering> {
        compare::compare(self, other, false, env)
    }
    /// Compares; any NaN is invalid. `None` is unordered.
    #[inline]
    fn compare_signalling(self, other: Self, env: &mut Env) -> Option<Ordering> {
        compare::compare(self, other, true, env)
    }
    /// The integral value by `rounding`, raising inexact only if asked to.
    #[inline]
    fn round_to_integral(self, rounding: Rounding, inexact: bool, env: &mut Env) -> Self {
        convert::round_to_integral(self, rounding, inexact, env)
    }
    /// In another format.
    #[inline]
    fn convert<G: Float>(self, env: &mut Env) -> G {
        convert::convert(self, env)
    }
    /// As an integer by `rounding`.
    #[inline]
    fn to_int<I: Int>(self, rounding: Rounding, overflow: IntOverflow, env: &mut Env) -> I {
        convert::to_int(
            self,
            ToInt {
                rounding,
                overflow,
                scale: 0,
            },
            env,
        )
    }
    /// As a fixed-point number: the integer nearest to `self * 2^fraction_bits` by `rounding`.
    #[inline]
    fn to_fixed<I: Int>(
        self,
        fraction_bits: u32,
        rounding: Rounding,
        overflow: IntOverflow,
        env: &mut Env,
    ) -> I {
        let scale = i32::try_from(fraction_bits).unwrap_or(i32::MAX);
        convert::to_int(
            self,
            ToInt {
                rounding,
                overflow,
                scale,
            },
            env,
        )
    }
    /// From a signed integer of any width up to 64 bits.
    #[inline]
    fn from_i64(value: i64, env: &mut Env) -> Self {
        convert::from_magnitude(value < 0, value.unsigned_abs(), 0, env)
    }
    /// From an unsigned integer of any width up to 64 bits.
    #[inline]
    fn from_u64(value: u64, env: &mut Env) -> Self {
        convert::from_magnitude(false, value, 0, env)
    }
    /// `value / 2^fraction_bits`.
    #[inline]
    fn from_fixed_i64(value: i64, fraction_bits: u32, env: &mut Env) -> Self {
        convert::from_magnitude(
            value < 0,
            value.unsigned_abs(),
            fixed_scale(fraction_bits),
            env,
        )
    }
    /// `value / 2^fraction_bits`.
    #[inline]
    fn from_fixed_u64(value: u64, fraction_bits: u32, env: &mut Env) -> Self {
        convert::from_magnitude(false, value, fixed_scale(fraction_bits), env)
    }
    /// `self * 2^n`.
    fn scale(self, n: i32, env: &mut Env) -> Self {
        let x = format::unpack(self, env);
        if x.is_nan() {
            return nan::propagate(&[&x], env);
        }
        nan::note_denormals(&[&x], env);
        match x.class {
            crate::num::Class::Finite => {
                // Beyond any format's range already, and far from overflowing the exponent.
                let n = n.clamp(-0x2_0000, 0x2_0000);
                round(
                    Num {
                        exp: x.num.exp + n,
                        ..x.num
                    },
                    env,
                )
            }
            class => {
                if class == crate::num::Class::Zero {
                    format::zero(x.num.sign)
                } else {
                    self
                }
            }
        }
    }
    /// With the sign flipped; no flags, NaNs included.
    #[inline]
    fn neg(self) -> Self {
        let (sign, exp, sig) = self.fields();
        Self::from_fields(!sign, exp, sig)
    }
    /// With the sign cleared; no flags, NaNs included.
    #[inline]
    fn abs(self) -> Self {
        let (_, exp, sig) = self.fields();
        Self::from_fields(false, exp, sig)
    }
    /// The sign bit.
    #[inline]
    fn is_negative(self) -> bool {
        self.fields().0
    }
    /// Any NaN. An unsupported f80 encoding is not one: see [`F80::is_unsupported`].
    #[inline]
    fn is_nan(self) -> bool {
        let (_, exp, sig) = self.fields();
        exp == Self::MAX_EXP
            && (!Self::EXPLICIT || sig >= Self::Sig::TOP)
            && sig.and(Self::Sig::TOP.not()) != Self::Sig::ZERO
    }
    /// A signalling NaN.
    #[inline]
    fn is_signalling_nan(self) -> bool {
        let (_, _, sig) = self.fields();
        self.is_nan() && !sig.bit(Self::Sig::BITS - 2)
    }
    /// An infinity.
    #[inline]
    fn is_infinite(self) -> bool {
        self.abs() == Self::infinity(false)
    }
    /// A zero of either sign.
    #[inline]
    fn is_zero(self) -> bool {
        let (_, exp, sig) = self.fields();
        exp == 0 && sig == Self::Sig::ZERO
    }
    /// A subnormal number (for f80 also a pseudo-denormal).
    #[inline]
    fn is_subnormal(self) -> bool {
        let (_, exp, sig) = self.fields();
        exp == 0 && sig != Self::Sig::ZERO
    }
    /// A zero.
    #[inline]
    fn zero(negative: bool) -> Self {
        format::zero(negative)
    }
    /// An infinity.
    #[inline]
    fn infinity(negative: bool) -> Self {
        format::infinity(negative)
    }
    /// The NaN that invalid operations make under this environment.
    #[inline]
    fn default_nan(env: &Env) -> Self {
        nan::default_nan(env)
    }
}

fn fixed_scale(fraction_bits: u32) -> i32 {
    // Any more scales every integer to zero in every format.
    -(fraction_bits.min(0x2_0000) as i32)
}

impl Float for F16 {}
impl Float for Bf16 {}
impl Float for F32 {}
impl Float for F64 {}
impl Float for F80 {}
impl Float for F128 {}

impl F80 {
    /// An encoding that the x87 treats as an invalid operand: pseudo-infinity, pseudo-NaN or unnormal
    /// (Intel SDM volume 1, 8.2.2).
    #[inline]
    pub fn is_unsupported(self) -> bool {
        self.se & 0x7fff != 0 && self.sig >> 63 == 0
    }
}
