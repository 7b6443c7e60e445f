//! Unsigned integers that hold significands: `u64`, `u128` and a 256-bit pair for exact products.

/// An unsigned integer whose top bit is the leading one of a significand.
pub trait Limbs: Copy + Ord + core::fmt::Debug {
    const BITS: u32;
    const ZERO: Self;
    const TOP: Self;
    fn leading_zeros(self) -> u32;
    /// `n` must be less than `BITS`.
    fn shl(self, n: u32) -> Self;
    /// Shift right by any amount; the lowest bit collects what falls out.
    fn shr_jam(self, n: u32) -> Self;
    fn add_carry(self, other: Self) -> (Self, bool);
    fn sub(self, other: Self) -> Self;
    fn or(self, other: Self) -> Self;
    /// ORs `lost` into the lowest bit.
    fn jam(self, lost: bool) -> Self;
}

/// Limbs wide enough for some format's significand plus guard bits.
pub trait Sig: Limbs {
    /// Holds the product of two.
    type Wide: Limbs;
    fn and(self, other: Self) -> Self;
    fn not(self) -> Self;
    fn shr(self, n: u32) -> Self;
    /// The `n` lowest bits, `n < BITS`.
    fn mask(n: u32) -> Self;
    fn bit(self, n: u32) -> bool;
    fn mul_wide(self, other: Self) -> Self::Wide;
    fn widen(self) -> Self::Wide;
    fn narrow_jam(wide: Self::Wide) -> Self;
    /// Aligned at the top of 128 bits.
    fn to_top(self) -> u128;
    /// From the top of 128 bits.
    fn from_top_jam(top: u128) -> Self;
    fn from_top_cut(top: u128) -> Self;
}

macro_rules! limbs {
    ($t:ty) => {
        impl Limbs for $t {
            const BITS: u32 = <$t>::BITS;
            const ZERO: Self = 0;
            const TOP: Self = 1 << (<$t>::BITS - 1);
            #[inline]
            fn leading_zeros(self) -> u32 {
                self.leading_zeros()
            }
            #[inline]
            fn shl(self, n: u32) -> Self {
                self.wrapping_shl(n)
            }
            #[inline]
            fn shr_jam(self, n: u32) -> Self {
                if n >= Self::BITS {
                    return Self::from(self != 0);
                }
                let out = self.wrapping_shr(n);
                out | Self::from(out.wrapping_shl(n) != self)
            }
            #[inline]
            fn add_carry(self, other: Self) -> (Self, bool) {
                self.overflowing_add(other)
            }
            #[inline]
            fn sub(self, other: Self) -> Self {
                self.wrapping_sub(other)
            }
            #[inline]
            fn or(self, other: Self) -> Self {
                self | other
            }
            #[inline]
            fn jam(self, lost: bool) -> Self {
                self | Self::from(lost)
            }
        }
    };
}
limbs!(u64);
limbs!(u128);

macro_rules! sig_bits {
    () => {
        #[inline]
        fn and(self, other: Self) -> Self {
            self & other
        }
        #[inline]
        fn not(self) -> Self {
            !self
        }
        #[inline]
        fn shr(self, n: u32) -> Self {
            self.wrapping_shr(n)
        }
        #[inline]
        fn mask(n: u32) -> Self {
            (1 as Self).wrapping_shl(n).wrapping_sub(1)
        }
        #[inline]
        fn bit(self, n: u32) -> bool {
            self.wrapping_shr(n) & 1 != 0
        }
    };
}

impl Sig for u64 {
    type Wide = u128;
    sig_bits!();
    #[inline]
    fn mul_wide(self, other: Self) -> u128 {
        u128::from(self) * u128::from(other)
    }
    #[inline]
    fn widen(self) -> u128 {
        u128::from(self) << 64
    }
    #[inline]
    fn narrow_jam(wide: u128) -> Self {
        (wide >> 64) as u64 | u64::from(wide as u64 != 0)
    }
    #[inline]
    fn to_top(self) -> u128 {
        u128::from(self) << 64
    }
    #[inline]
    fn from_top_jam(top: u128) -> Self {
        Self::narrow_jam(top)
    }
    #[inline]
    fn from_top_cut(top: u128) -> Self {
        (top >> 64) as u64
    }
}

impl Sig for u128 {
    type Wide = U256;
    sig_bits!();
    #[inline]
    fn mul_wide(self, other: Self) -> U256 {
        U256::product(self, other)
    }
    #[inline]
    fn widen(self) -> U256 {
        U256 { hi: self, lo: 0 }
    }
    #[inline]
    fn narrow_jam(wide: U256) -> Self {
        wide.hi | u128::from(wide.lo != 0)
    }
    #[inline]
    fn to_top(self) -> u128 {
        self
    }
    #[inline]
    fn from_top_jam(top: u128) -> Self {
        top
    }
    #[inline]
    fn from_top_cut(top: u128) -> Self {
        top
    }
}

/// 256 bits; the derived order is the numeric one because `hi` comes first.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct U256 {
    pub hi: u128,
    pub lo: u128,
}

impl U256 {
    /// The whole product of two 128-bit numbers.
    #[inline]
    pub fn product(a: u128, b: u128) -> Self {
        let (a1, a0) = ((a >> 64) as u64, a as u64);
        let (b1, b0) = ((b >> 64) as u64, b as u64);
        let wide = |x: u64, y: u64| u128::from(x) * u128::from(y);
        let (low, high) = (wide(a0, b0), wide(a1, b1));
        // Each partial sum stays below 2^128: (2^64-1)^2 + 2 * (2^64-1) = 2^128 - 1.
        let cross = wide(a1, b0) + (low >> 64);
        let other = wide(a0, b1) + u128::from(cross as u64);
        Self {
            hi: high + (cross >> 64) + (other >> 64),
            lo: (other << 64) | u128::from(low as u64),
        }
    }
}

impl Limbs for U256 {
    const BITS: u32 = 256;
    const ZERO: Self = Self { hi: 0, lo: 0 };
    const TOP: Self = Self {
        hi: u128::TOP,
        lo: 0,
    };
    fn leading_zeros(self) -> u32 {
        if self.hi != 0 {
            self.hi.leading_zeros()
        } else {
            128 + self.lo.leading_zeros()
        }
    }
    fn shl(self, n: u32) -> Self {
        match n {
            0 => self,
            1..128 => Self {
                hi: self.hi.wrapping_shl(n) | self.lo.wrapping_shr(128 - n),
                lo: self.lo.wrapping_shl(n),
            },
            _ => Self {
                hi: self.lo.wrapping_shl(n - 128),
                lo: 0,
            },
        }
    }
    fn shr_jam(self, n: u32) -> Self {
        match n {
            0 => self,
            1..128 => {
                let lost = self.lo.wrapping_shl(128 - n) != 0;
                let lo = self.lo.wrapping_shr(n) | self.hi.wrapping_shl(128 - n);
                Self {
                    hi: self.hi.wrapping_shr(n),
                    lo: lo | u128::from(lost),
                }
            }
            _ => Self {
                hi: 0,
                lo: Limbs::shr_jam(self.hi, n - 128) | u128::from(self.lo != 0),
            },
        }
    }
    fn add_carry(self, other: Self) -> (Self, bool) {
        let (lo, carry) = self.lo.overflowing_add(other.lo);
        let (hi, over) = self.hi.overflowing_add(other.hi);
        let (hi, over_carry) = hi.overflowing_add(u128::from(carry));
        (Self { hi, lo }, over | over_carry)
    }
    fn sub(self, other: Self) -> Self {
        let (lo, borrow) = self.lo.overflowing_sub(other.lo);
        Self {
            hi: self
                .hi
                .wrapping_sub(other.hi)
                .wrapping_sub(u128::from(borrow)),
            lo,
        }
    }
    fn or(self, other: Self) -> Self {
        Self {
            hi: self.hi | other.hi,
            lo: self.lo | other.lo,
        }
    }
    fn jam(self, lost: bool) -> Self {
        Self {
            hi: self.hi,
            lo: self.lo | u128::from(lost),
        }
    }
}
