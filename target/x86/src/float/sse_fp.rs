//! SSE floating-point arithmetic: scalar and packed (SDM vol. 1, 10.4.1, 11.4.1 and 12.3).
//!
//! One row of [`row`] names an instruction's operation, format and shape. A scalar operation is one
//! helper call of two 64-bit values; a packed one passes the source's halves and the destination's
//! number. Flags go to MXCSR; an unmasked one raises #XM before anything is written.

use accel_core::Trap;
use iced_x86::Mnemonic;
use target_softfloat::{Env, F32, F64, Flags, Float, MinMax, Rounding};

use crate::state::vector;
use crate::{Core, regs, system};

/// CR4.OSXMMEXCPT: the system handles #XM.
const CR4_OSXMMEXCPT: u64 = 1 << 10;

/// An operation of two operands; the unary ones use the second.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub(super) enum Fp {
    Add,
    Sub,
    Mul,
    Div,
    Min,
    Max,
    /// By a predicate in the immediate.
    Cmp,
    Sqrt,
    Rcp,
    Rsqrt,
    /// Neighbours added, a's then b's.
    HAdd,
    /// Neighbours subtracted.
    HSub,
    /// Even lanes subtracted, odd ones added.
    AddSub,
}

impl Fp {
    const ALL: [Fp; 13] = {
        use Fp::*;
        [
            Add, Sub, Mul, Div, Min, Max, Cmp, Sqrt, Rcp, Rsqrt, HAdd, HSub, AddSub,
        ]
    };

    fn from_number(n: u8) -> Fp {
        Self::ALL.get(usize::from(n)).copied().unwrap_or(Fp::Add)
    }
}

/// Format of the lanes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Lanes {
    /// Binary32.
    Single,
    /// Binary64.
    Double,
}

/// Which lanes are computed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Shape {
    /// The lowest; the others stay.
    Scalar,
    /// All.
    Packed,
}

/// Operation, format and shape of an instruction.
pub(super) fn row(mnemonic: Mnemonic) -> Option<(Fp, Lanes, Shape)> {
    use Fp::*;
    use Lanes::*;
    use Mnemonic as M;
    use Shape::*;
    Some(match mnemonic {
        M::Addss => (Add, Single, Scalar),
        M::Addsd => (Add, Double, Scalar),
        M::Addps => (Add, Single, Packed),
        M::Addpd => (Add, Double, Packed),
        M::Subss => (Sub, Single, Scalar),
        M::Subsd => (Sub, Double, Scalar),
        M::Subps => (Sub, Single, Packed),
        M::Subpd => (Sub, Double, Packed),
        M::Mulss => (Mul, Single, Scalar),
        M::Mulsd => (Mul, Double, Scalar),
        M::Mulps => (Mul, Single, Packed),
        M::Mulpd => (Mul, Double, Packed),
        M::Divss => (Div, Single, Scalar),
        M::Divsd => (Div, Double, Scalar),
        M::Divps => (Div, Single, Packed),
        M::Divpd => (Div, Double, Packed),
        M::Minss => (Min, Single, Scalar),
        M::Minsd => (Min, Double, Scalar),
        M::Minps => (Min, Single, Packed),
        M::Minpd => (Min, Double, Packed),
        M::Maxss => (Max, Single, Scalar),
        M::Maxsd => (Max, Double, Scalar),
        M::Maxps => (Max, Single, Packed),
        M::Maxpd => (Max, Double, Packed),
        M::Cmpss => (Cmp, Single, Scalar),
        M::Cmpsd => (Cmp, Double, Scalar),
        M::Cmpps => (Cmp, Single, Packed),
        M::Cmppd => (Cmp, Double, Packed),
        M::Sqrtss => (Sqrt, Single, Scalar),
        M::Sqrtsd => (Sqrt, Double, Scalar),
        M::Sqrtps => (Sqrt, Single, Packed),
        M::Sqrtpd => (Sqrt, Double, Packed),
        M::Rcpss => (Rcp, Single, Scalar),
        M::Rcpps => (Rcp, Single, Packed),
        M::Rsqrtss => (Rsqrt, Single, Scalar),
        M::Rsqrtps => (Rsqrt, Single, Packed),
        M::Haddps => (HAdd, Single, Packed),
        M::Haddpd => (HAdd, Double, Packed),
        M::Hsubps => (HSub, Single, Packed),
        M::Hsubpd => (HSub, Double, Packed),
        M::Addsubps => (AddSub, Single, Packed),
        M::Addsubpd => (AddSub, Double, Packed),
        _ => return None,
    })
}

/// A format that SSE computes in.
trait Lane: Float {
    const BITS: u32;
    fn from_bits(bits: u64) -> Self;
    fn bits(self) -> u64;
    fn reciprocal(self) -> Self;
    fn reciprocal_root(self) -> Self;
}

impl Lane for F32 {
    const BITS: u32 = 32;
    #[inline]
    fn from_bits(bits: u64) -> Self {
        F32(bits as u32)
    }
    #[inline]
    fn bits(self) -> u64 {
        self.0.into()
    }
    fn reciprocal(self) -> Self {
        if self.is_subnormal() {
            return F32::infinity(self.is_negative());
        }
        estimate(self, |x, env| F32(ONE).div(x, env))
    }
    fn reciprocal_root(self) -> Self {
        if self.is_subnormal() {
            return F32::infinity(self.is_negative());
        }
        estimate(self, |x, env| F32(ONE).div(x.sqrt(env), env))
    }
}

impl Lane for F64 {
    const BITS: u32 = 64;
    #[inline]
    fn from_bits(bits: u64) -> Self {
        F64(bits)
    }
    #[inline]
    fn bits(self) -> u64 {
        self.0
    }
    // Estimates exist in single precision only.
    fn reciprocal(self) -> Self {
        self
    }
    fn reciprocal_root(self) -> Self {
        self
    }
}

/// 1.0 in binary32.
const ONE: u32 = 0x3f80_0000;
/// Significand bits that an estimate leaves zero.
const ESTIMATE_DROPS: u32 = 0xfff;

/// RCPSS and RSQRTSS raise no exceptions and give about twelve bits (SDM vol. 2, "RCPPS"); results
/// too small for a normal number are zero.
fn estimate(x: F32, run: impl FnOnce(F32, &mut Env) -> F32) -> F32 {
    let mut env = Env::sse();
    let exact = run(x, &mut env);
    if exact.is_subnormal() {
        return F32::zero(exact.is_negative());
    }
    if exact.is_nan() {
        return exact;
    }
    // To nearest: truncation alone would leave an error of 2^-11.
    F32(exact.0.wrapping_add(ESTIMATE_DROPS.wrapping_add(1) >> 1) & !ESTIMATE_DROPS)
}

#[inline(always)]
fn lane<F: Lane>(op: Fp, a: F, b: F, imm: u8, env: &mut Env) -> F {
    match op {
        Fp::Add | Fp::HAdd => a.add(b, env),
        Fp::Sub | Fp::HSub | Fp::AddSub => a.sub(b, env),
        Fp::Mul => a.mul(b, env),
        Fp::Div => a.div(b, env),
        Fp::Min => a.min(b, MinMax::Sse, env),
        Fp::Max => a.max(b, MinMax::Sse, env),
        Fp::Cmp => {
            if compare(a, b, imm, env) {
                F::from_bits(u64::MAX)
            } else {
                F::from_bits(0)
            }
        }
        Fp::Sqrt => b.sqrt(env),
        Fp::Rcp => b.reciprocal(),
        Fp::Rsqrt => b.reciprocal_root(),
    }
}

/// The predicates of CMPSS (SDM vol. 2, table 3-1): 4 to 7 negate 0 to 3; those of order signal.
fn compare<F: Lane>(a: F, b: F, imm: u8, env: &mut Env) -> bool {
    use core::cmp::Ordering::{Equal, Less};
    let order = if matches!(imm & 3, 1 | 2) {
        a.compare_signalling(b, env)
    } else {
        a.compare_quiet(b, env)
    };
    let holds = match imm & 3 {
        0 => order == Some(Equal),
        1 => order == Some(Less),
        2 => matches!(order, Some(Less | Equal)),
        _ => order.is_none(),
    };
    holds != (imm & 4 != 0)
}

/// The environment of an instruction, with no flags set.
#[inline]
pub(super) fn begin(core: &Core) -> Env {
    let mut env = Env::from_mxcsr(core.regs.get(regs::MXCSR) as u32);
    env.flags = Flags::NONE;
    env
}

/// Puts an instruction's flags into MXCSR, or raises #XM for those unmasked.
#[inline]
pub(super) fn settle(core: &mut Core, env: &mut Env) -> Result<(), Trap> {
    if env.flags & Flags::X86 == Flags::NONE {
        return Ok(());
    }
    let faults = env.x86_faults();
    let mxcsr = core.regs.get(regs::MXCSR) | u64::from(env.flags.x86_bits());
    core.regs.set(regs::MXCSR, mxcsr);
    if faults == Flags::NONE {
        return Ok(());
    }
    Err(simd_exception(core))
}

#[cold]
fn simd_exception(core: &mut Core) -> Trap {
    let vector = if core.arch.cr4 & CR4_OSXMMEXCPT != 0 {
        vector::XM
    } else {
        vector::UD
    };
    system::raise(core, vector, None)
}

#[inline(always)]
fn scalar<F: Lane>(core: &mut Core, op: Fp, [a, b, imm, _]: [u64; 4]) -> Result<u64, Trap> {
    let mut env = begin(core);
    let result = lane(op, F::from_bits(a), F::from_bits(b), imm as u8, &mut env);
    settle(core, &mut env)?;
    Ok(result.bits())
}

macro_rules! scalars {
    ($($single:ident $double:ident $op:ident;)*) => {$(
        /// (a, b, immediate): the result.
        pub(super) fn $single(core: &mut Core, args: [u64; 4]) -> Result<u64, Trap> {
            scalar::<F32>(core, Fp::$op, args)
        }
        /// (a, b, immediate): the result.
        pub(super) fn $double(core: &mut Core, args: [u64; 4]) -> Result<u64, Trap> {
            scalar::<F64>(core, Fp::$op, args)
        }
    )*};
}
scalars! {
    addss addsd Add;
    subss subsd Sub;
    mulss mulsd Mul;
    divss divsd Div;
    minss minsd Min;
    maxss maxsd Max;
    cmpss cmpsd Cmp;
    sqrtss sqrtsd Sqrt;
}

/// (a, b): the result.
pub(super) fn rcpss(core: &mut Core, args: [u64; 4]) -> Result<u64, Trap> {
    scalar::<F32>(core, Fp::Rcp, args)
}

/// (a, b): the result.
pub(super) fn rsqrtss(core: &mut Core, args: [u64; 4]) -> Result<u64, Trap> {
    scalar::<F32>(core, Fp::Rsqrt, args)
}

fn packed_lanes<F: Lane>(op: Fp, a: u128, b: u128, imm: u8, env: &mut Env) -> u128 {
    let count = 128_u32.wrapping_div(F::BITS);
    let half = count.wrapping_div(2);
    let get = |v: u128, i: u32| F::from_bits(v.wrapping_shr(i.wrapping_mul(F::BITS)) as u64);
    let mut out = 0_u128;
    for i in 0..count {
        let value = match op {
            Fp::HAdd | Fp::HSub => {
                let (from, at) = if i < half {
                    (a, i)
                } else {
                    (b, i.wrapping_sub(half))
                };
                let first = at.wrapping_mul(2);
                lane(op, get(from, first), get(from, first | 1), imm, env)
            }
            Fp::AddSub if i & 1 != 0 => lane(Fp::Add, get(a, i), get(b, i), imm, env),
            _ => lane(op, get(a, i), get(b, i), imm, env),
        };
        let mask = u64::MAX.wrapping_shr(64_u32.wrapping_sub(F::BITS));
        out |= u128::from(value.bits() & mask).wrapping_shl(i.wrapping_mul(F::BITS));
    }
    out
}

/// The first argument of [`packed`].
pub(super) fn packed_code(op: Fp, lanes: Lanes, dst: usize, imm: u8) -> u64 {
    u64::from_le_bytes([
        op as u8,
        u8::from(lanes == Lanes::Double),
        dst as u8,
        imm,
        0,
        0,
        0,
        0,
    ])
}

/// (code, low half of b, high half of b): `XMM(dst) = XMM(dst) op b`.
pub(super) fn packed(core: &mut Core, [code, low, high, _]: [u64; 4]) -> Result<u64, Trap> {
    let [op, double, dst, imm, ..] = code.to_le_bytes();
    let op = Fp::from_number(op);
    let slot = regs::xmm(dst.into());
    let a = core.regs.get_v(slot);
    let b = u128::from(low) | u128::from(high) << 64;
    let mut env = begin(core);
    let result = if double != 0 {
        packed_lanes::<F64>(op, a, b, imm, &mut env)
    } else {
        packed_lanes::<F32>(op, a, b, imm, &mut env)
    };
    settle(core, &mut env)?;
    core.regs.set_v(slot, result);
    Ok(0)
}

/// COMISS to UCOMISD: (a, b, bit 0: double, bit 1: quiet): the arithmetic flags.
pub(super) fn compare_flags(core: &mut Core, [a, b, how, _]: [u64; 4]) -> Result<u64, Trap> {
    fn run<F: Lane>(a: u64, b: u64, quiet: bool, env: &mut Env) -> Option<core::cmp::Ordering> {
        let (a, b) = (F::from_bits(a), F::from_bits(b));
        if quiet {
            a.compare_quiet(b, env)
        } else {
            a.compare_signalling(b, env)
        }
    }
    let mut env = begin(core);
    let quiet = how & 2 != 0;
    let order = if how & 1 != 0 {
        run::<F64>(a, b, quiet, &mut env)
    } else {
        run::<F32>(a, b, quiet, &mut env)
    };
    settle(core, &mut env)?;
    Ok(super::x87_arith::order_flags(order))
}

/// The rounding of conversions that truncate, else MXCSR's.
pub(super) fn rounding(env: &Env, truncate: bool) -> Rounding {
    if truncate {
        Rounding::TowardZero
    } else {
        env.rounding
    }
}
