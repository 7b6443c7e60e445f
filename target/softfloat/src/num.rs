//! A finite number apart from any format, and an operand as an operation sees it.

use crate::limbs::{Limbs, Sig};

/// `(-1)^sign * sig / 2^(BITS-1) * 2^exp`, with the top bit of `sig` set.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Num<S> {
    pub(crate) sign: bool,
    pub(crate) exp: i32,
    pub(crate) sig: S,
}

/// What kind of operand it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Class {
    Zero,
    /// Normal or subnormal.
    Finite,
    Inf,
    Quiet,
    Signalling,
    /// An f80 encoding that the x87 no longer supports (Intel SDM volume 1, 8.2.2).
    Unsupported,
}

/// An unpacked operand. For a NaN `num.sig` is the fraction, aligned as in a number.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Parts<S> {
    pub(crate) class: Class,
    /// Subnormal and not flushed.
    pub(crate) denormal: bool,
    pub(crate) num: Num<S>,
}

impl<S> Parts<S> {
    #[inline]
    pub(crate) fn is_nan(&self) -> bool {
        matches!(
            self.class,
            Class::Quiet | Class::Signalling | Class::Unsupported
        )
    }

    /// A NaN or encoding whose mere presence is invalid.
    #[inline]
    pub(crate) fn signals(&self) -> bool {
        matches!(self.class, Class::Signalling | Class::Unsupported)
    }
}

impl<S: Limbs> Num<S> {
    /// Brings the leading one to the top; `sig` must not be zero.
    #[inline]
    pub(crate) fn normalized(sign: bool, exp: i32, sig: S) -> Self {
        let shift = sig.leading_zeros();
        Self {
            sign,
            exp: exp - shift as i32,
            sig: sig.shl(shift),
        }
    }

    /// The sum, the lowest bit sticky; `None` is an exact zero from opposite signs.
    #[inline]
    pub(crate) fn plus(self, other: Self) -> Option<Self> {
        let (big, small) = if self.exp >= other.exp {
            (self, other)
        } else {
            (other, self)
        };
        let distance = big.exp.wrapping_sub(small.exp) as u32;
        let shifted = small.sig.shr_jam(distance);
        if big.sign == small.sign {
            let (sig, carry) = big.sig.add_carry(shifted);
            if carry {
                return Some(Self {
                    sign: big.sign,
                    exp: big.exp + 1,
                    sig: sig.shr_jam(1).or(S::TOP),
                });
            }
            return Some(Self {
                sign: big.sign,
                exp: big.exp,
                sig,
            });
        }
        // Only equal exponents can leave the subtrahend larger.
        let (sign, sig) = if big.sig >= shifted {
            (big.sign, big.sig.sub(shifted))
        } else {
            (small.sign, shifted.sub(big.sig))
        };
        if sig == S::ZERO {
            return None;
        }
        Some(Self::normalized(sign, big.exp, sig))
    }
}

impl<S: Sig> Num<S> {
    /// The exact product.
    #[inline]
    pub(crate) fn times_wide(self, other: Self) -> Num<S::Wide> {
        let sig = self.sig.mul_wide(other.sig);
        let shift = sig.leading_zeros();
        Num {
            sign: self.sign != other.sign,
            exp: self.exp + other.exp + 1 - shift as i32,
            // A product of normalized significands misses the top by one bit at most.
            sig: if shift == 0 { sig } else { sig.shl(1) },
        }
    }

    /// The product, the lowest bit sticky.
    #[inline]
    pub(crate) fn times(self, other: Self) -> Self {
        Self::narrow(self.times_wide(other))
    }

    #[inline]
    pub(crate) fn narrow(wide: Num<S::Wide>) -> Self {
        Self {
            sign: wide.sign,
            exp: wide.exp,
            sig: S::narrow_jam(wide.sig),
        }
    }

    #[inline]
    pub(crate) fn widen(self) -> Num<S::Wide> {
        Num {
            sign: self.sign,
            exp: self.exp,
            sig: self.sig.widen(),
        }
    }

    /// In another width of significand, the lowest bit sticky.
    #[inline]
    pub(crate) fn resize<T: Sig>(self) -> Num<T> {
        Num {
            sign: self.sign,
            exp: self.exp,
            sig: T::from_top_jam(self.sig.to_top()),
        }
    }
}
