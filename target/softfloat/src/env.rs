//! The floating-point environment: what a guest's control register selects, and the flags.

use core::ops::{BitAnd, BitOr, BitOrAssign, Not};

/// Rounding direction (IEEE 754-2019 section 4.3; `Odd` is what Power and s390x add).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Rounding {
    /// To nearest, ties to the even significand.
    #[default]
    NearestEven,
    /// To nearest, ties away from zero.
    NearestAway,
    /// Toward zero.
    TowardZero,
    /// Toward plus infinity.
    Up,
    /// Toward minus infinity.
    Down,
    /// Truncate, then force the last bit to one if anything was lost.
    Odd,
}

/// Which NaN comes out of an operation, and what an invalid operation makes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum NanRule {
    /// SSE and AVX (Intel SDM volume 1, table 4-7): the first operand if it is a NaN. Default NaN negative.
    #[default]
    Sse,
    /// x87 (same table): a quiet NaN before a signalling one, else the larger significand.
    X87,
    /// Arm (DDI 0487, `FPProcessNaNs`): signalling before quiet, then operand order, the addend first.
    Arm,
    /// Power ISA (book I, 4.3.2): operand order FRA, FRB, FRC.
    Power,
    /// z/Architecture (SA22-7832, chapter 19): signalling before quiet, the addend first.
    S390x,
}

/// When a result counts as tiny (IEEE 754-2019 section 7.5).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Tininess {
    /// x86.
    #[default]
    AfterRounding,
    /// Arm, Power, s390x.
    BeforeRounding,
}

/// What becomes of a tiny result.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum FlushOutputs {
    /// It is kept as a subnormal number.
    #[default]
    Never,
    /// MXCSR.FTZ: zero, underflow and inexact; only while underflow is masked.
    Sse,
    /// FPCR.FZ: zero, underflow alone.
    Arm,
}

/// x87 precision control: the significand's width after add, subtract, multiply, divide and square root.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Precision {
    /// 24 bits.
    Single,
    /// 53 bits.
    Double,
    /// 64 bits.
    #[default]
    Extended,
}

/// A set of exception flags. The low six bits are those of MXCSR and the x87 status word.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Flags(pub u32);

impl Flags {
    /// No flag.
    pub const NONE: Self = Self(0);
    /// Invalid operation.
    pub const INVALID: Self = Self(1);
    /// x86: an operand was a subnormal number that was not flushed.
    pub const DENORMAL: Self = Self(1 << 1);
    /// An exact infinity from finite operands.
    pub const DIV_BY_ZERO: Self = Self(1 << 2);
    /// Overflow.
    pub const OVERFLOW: Self = Self(1 << 3);
    /// Underflow.
    pub const UNDERFLOW: Self = Self(1 << 4);
    /// Inexact.
    pub const INEXACT: Self = Self(1 << 5);
    /// Arm IDC: a subnormal operand was flushed to zero.
    pub const INPUT_FLUSHED: Self = Self(1 << 6);
    /// The magnitude grew in rounding (x87 C1, Power FR).
    pub const ROUNDED_UP: Self = Self(1 << 7);

    /// Why it was invalid: a signalling NaN (Power VXSNAN).
    pub const BY_SNAN: Self = Self(1 << 8);
    /// Why it was invalid: infinity minus infinity (Power VXISI).
    pub const BY_INF_SUB_INF: Self = Self(1 << 9);
    /// Why it was invalid: infinity divided by infinity (Power VXIDI).
    pub const BY_INF_DIV_INF: Self = Self(1 << 10);
    /// Why it was invalid: zero divided by zero (Power VXZDZ).
    pub const BY_ZERO_DIV_ZERO: Self = Self(1 << 11);
    /// Why it was invalid: infinity times zero (Power VXIMZ).
    pub const BY_INF_MUL_ZERO: Self = Self(1 << 12);
    /// Why it was invalid: a comparison of a NaN that signals (Power VXVC).
    pub const BY_COMPARE: Self = Self(1 << 13);
    /// Why it was invalid: the square root of a negative number (Power VXSQRT).
    pub const BY_SQRT: Self = Self(1 << 14);
    /// Why it was invalid: no integer holds the result (Power VXCVI).
    pub const BY_CONVERT: Self = Self(1 << 15);
    /// The six flags that x86 knows.
    pub const X86: Self = Self(0x3f);

    /// Whether any flag of `other` is in this set.
    #[inline]
    pub const fn has(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }

    /// The flags as MXCSR and the x87 status word hold them.
    #[inline]
    pub const fn x86_bits(self) -> u8 {
        (self.0 & 0x3f) as u8
    }
}

impl BitOr for Flags {
    type Output = Self;
    #[inline]
    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

impl BitOrAssign for Flags {
    #[inline]
    fn bitor_assign(&mut self, other: Self) {
        self.0 |= other.0;
    }
}

impl BitAnd for Flags {
    type Output = Self;
    #[inline]
    fn bitand(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }
}

impl Not for Flags {
    type Output = Self;
    #[inline]
    fn not(self) -> Self {
        Self(!self.0)
    }
}

/// Everything outside its operands that an operation reads or writes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Env {
    /// Rounding direction.
    pub rounding: Rounding,
    /// Choice among NaN operands.
    pub nan_rule: NanRule,
    /// Every NaN result is the default NaN (Arm FPCR.DN).
    pub default_nan: bool,
    /// When a result is tiny.
    pub tininess: Tininess,
    /// Subnormal operands count as zero (x86 DAZ, Arm FZ).
    pub flush_inputs: bool,
    /// What becomes of tiny results.
    pub flush_outputs: FlushOutputs,
    /// x87 precision control; other formats ignore it.
    pub precision: Precision,
    /// Exceptions that the guest wants to trap. With OVERFLOW or UNDERFLOW here the result is the one that a
    /// trap handler gets (exponent wrapped by 3 * 2^(exponent bits - 2)), and an exact tiny result underflows too.
    pub unmasked: Flags,
    /// The sticky flags: operations only add to them.
    pub flags: Flags,
}

impl Env {
    /// SSE as MXCSR's reset value has it.
    pub fn sse() -> Self {
        Self::default()
    }

    /// x87 as FNINIT leaves it.
    pub fn x87() -> Self {
        Self {
            nan_rule: NanRule::X87,
            ..Self::default()
        }
    }

    /// AArch64 with FPCR zero.
    pub fn arm() -> Self {
        Self {
            nan_rule: NanRule::Arm,
            tininess: Tininess::BeforeRounding,
            ..Self::default()
        }
    }

    /// Power with FPSCR zero.
    pub fn power() -> Self {
        Self {
            nan_rule: NanRule::Power,
            tininess: Tininess::BeforeRounding,
            ..Self::default()
        }
    }

    /// z/Architecture with the FPC register zero.
    pub fn s390x() -> Self {
        Self {
            nan_rule: NanRule::S390x,
            tininess: Tininess::BeforeRounding,
            ..Self::default()
        }
    }

    /// SSE under this MXCSR (Intel SDM volume 1, 10.2.3), its flags included.
    pub fn from_mxcsr(mxcsr: u32) -> Self {
        Self {
            rounding: x86_rounding(mxcsr >> 13),
            flush_inputs: mxcsr & (1 << 6) != 0,
            flush_outputs: if mxcsr & (1 << 15) != 0 {
                FlushOutputs::Sse
            } else {
                FlushOutputs::Never
            },
            unmasked: Flags(!(mxcsr >> 7) & 0x3f),
            flags: Flags(mxcsr & 0x3f),
            ..Self::default()
        }
    }

    /// x87 under this control word (Intel SDM volume 1, 8.1.5), no flags set.
    pub fn from_x87_control(control: u16) -> Self {
        let control = u32::from(control);
        Self {
            rounding: x86_rounding(control >> 10),
            precision: match (control >> 8) & 3 {
                0 => Precision::Single,
                2 => Precision::Double,
                _ => Precision::Extended,
            },
            unmasked: Flags(!control & 0x3f),
            ..Self::x87()
        }
    }

    /// After x86 instructions that began with no flag set: which exceptions are to be delivered. If one that is found
    /// before computing is among them, those found after it (overflow, underflow, inexact) did not happen
    /// (Intel SDM volume 1, 4.9.2).
    pub fn x86_faults(&mut self) -> Flags {
        let early = Flags::INVALID | Flags::DENORMAL | Flags::DIV_BY_ZERO;
        if self.flags.has(early & self.unmasked) {
            self.flags = self.flags & early;
        }
        self.flags & self.unmasked & Flags::X86
    }

    /// Adds to the sticky flags.
    #[inline]
    pub fn raise(&mut self, flags: Flags) {
        self.flags |= flags;
    }
}

fn x86_rounding(field: u32) -> Rounding {
    match field & 3 {
        0 => Rounding::NearestEven,
        1 => Rounding::Down,
        2 => Rounding::Up,
        _ => Rounding::TowardZero,
    }
}
