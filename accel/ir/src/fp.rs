//! Floating-point operations and their meaning.
//!
//! Values are vectors; lane 0 is the lowest. What rounds, traps nothing and says so in sticky flags:
//! each operation reads the target's control slot (`Layout::fp`) for the rounding mode and the
//! treatment of subnormal numbers, and adds its flags there. It never faults: while the guest wants
//! exceptions from the unit, its front end calls helpers instead, and whether it does must be part
//! of the mode that units depend on.
//!
//! [`FpRules`] says how the control slot is laid out, which NaN comes out, and when a result is
//! tiny. [`eval`], [`from_int`], [`to_int`] and [`compare`] are the meaning; they compute with
//! `target_softfloat`. A back end uses the host's unit where that follows the same rules: on x86
//! hosts every operation under [`FpRules::Sse`] is the one instruction that its documentation names,
//! run with the control slot in the host's MXCSR. Some hosts lack some of them: [`FpHost`].

use core::cmp::Ordering;

use target_softfloat::{Env, F32, F64, Flags, Float, IntOverflow, MinMax, MulAdd, Rounding};

use crate::{Ty, flags};

/// Formats of floating-point operations.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FpFmt {
    /// IEEE binary32: four lanes.
    F32,
    /// IEEE binary64: two lanes.
    F64,
}

/// Which lanes are computed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FpShape {
    /// Lane 0; the other lanes are the first operand's.
    Scalar,
    /// All.
    Packed,
}

/// What a guest's architecture leaves to no choice.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FpRules {
    /// SSE (Intel SDM vol. 1, 10.2.3, 11.5 and table 4-7). The control slot is MXCSR, all its
    /// exceptions masked: RC in bits 13 and 14, DAZ bit 6, FTZ bit 15, flags in bits 0 to 5.
    Sse,
}

/// Predicates of a lane-wise comparison. Those of order are invalid for any NaN, the others for
/// signalling ones only.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FpCmp {
    /// Equal.
    Eq,
    /// Less; signals.
    Lt,
    /// Less or equal; signals.
    Le,
    /// Either is a NaN.
    Unord,
    /// Not equal, or unordered.
    Ne,
    /// Not less, or unordered; signals.
    Nlt,
    /// Not less or equal, or unordered; signals.
    Nle,
    /// Neither is a NaN.
    Ord,
}

impl FpCmp {
    /// By the number that x86 encodings use.
    pub fn from_number(n: u8) -> FpCmp {
        const ALL: [FpCmp; 8] = [
            FpCmp::Eq,
            FpCmp::Lt,
            FpCmp::Le,
            FpCmp::Unord,
            FpCmp::Ne,
            FpCmp::Nlt,
            FpCmp::Nle,
            FpCmp::Ord,
        ];
        ALL[usize::from(n & 7)]
    }
}

/// Where a rounding to an integral value goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FpRound {
    /// To the nearest, ties to even.
    Nearest,
    /// Toward minus infinity.
    Down,
    /// Toward plus infinity.
    Up,
    /// Toward zero.
    Zero,
    /// As the control slot says.
    Current,
}

/// Operations that not every host's unit has. Whoever executes units says which it does
/// (`accel_core::Core::fp_host`); a front end uses no others.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FpHost {
    /// [`mul_add`].
    pub fused: bool,
    /// [`FpOp::Round`].
    pub rounds: bool,
}

impl FpHost {
    /// All of them.
    pub const ALL: FpHost = FpHost {
        fused: true,
        rounds: true,
    };
}

/// A floating-point operation on vectors. Operations of one operand use the second, `b`, so that a
/// scalar one takes its other lanes from `a`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FpOp {
    /// Sum (ADDPS, ADDPD, ADDSS, ADDSD).
    Add,
    /// Difference (SUBPS and so on).
    Sub,
    /// Product (MULPS).
    Mul,
    /// Quotient (DIVPS).
    Div,
    /// The lesser; `b` if either is a NaN or both are zero, and any NaN is invalid (MINPS).
    Min,
    /// The greater; as [`Min`](Self::Min) (MAXPS).
    Max,
    /// Square root of `b` (SQRTPS).
    Sqrt,
    /// All ones where the predicate holds, else zero (CMPPS with the predicate's number).
    Cmp(FpCmp),
    /// Neighbours added: `a`'s, then `b`'s (HADDPS, HADDPD). Packed only.
    HAdd,
    /// Lower neighbour minus higher: `a`'s, then `b`'s (HSUBPS, HSUBPD). Packed only.
    HSub,
    /// Even lanes subtracted, odd lanes added (ADDSUBPS, ADDSUBPD). Packed only.
    AddSub,
    /// `b`'s lanes from the other format to this one. To F32 packed: two lanes, the high half is
    /// zero (CVTPD2PS; scalar CVTSD2SS). To F64 packed: `b`'s two low lanes (CVTPS2PD; CVTSS2SD).
    Convert,
    /// `b`'s signed 32-bit lanes to this format. To F32: four (CVTDQ2PS). To F64: the two low ones
    /// (CVTDQ2PD). Packed only.
    FromI32,
    /// `b`'s lanes to signed 32-bit integers by the rounding mode; what does not fit is
    /// `i32::MIN` and invalid. From F32: four (CVTPS2DQ). From F64: two, the high half is zero
    /// (CVTPD2DQ). Packed only.
    ToI32,
    /// As [`ToI32`](Self::ToI32), toward zero (CVTTPS2DQ, CVTTPD2DQ).
    ToI32Trunc,
    /// `b`'s lanes to integral values; inexact if they were not (ROUNDPS, ROUNDSD). Of [`FpHost::rounds`].
    Round(FpRound),
    /// As [`Round`](Self::Round), but never inexact.
    RoundQuiet(FpRound),
}

/// A product added to something, rounded once: `±(a * b) ± c`, the other lanes of a scalar one `c`'s
/// (VFMADD231PS and so on). Of [`FpHost::fused`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FpMulAdd {
    /// Format of the lanes.
    pub fmt: FpFmt,
    /// Lanes computed.
    pub shape: FpShape,
    /// Whose rules.
    pub rules: FpRules,
    /// The product is negated (VFNMADD).
    pub negates: bool,
    /// The addend is (VFMSUB).
    pub subtracts: bool,
}

/// An operation with all that its meaning depends on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Fp {
    /// Operation.
    pub op: FpOp,
    /// Format of the lanes; of conversions, the floating-point one (or the result's).
    pub fmt: FpFmt,
    /// Lanes computed.
    pub shape: FpShape,
    /// Whose rules.
    pub rules: FpRules,
}

impl Fp {
    /// Whether the operation has this shape.
    pub fn has_its_shape(&self) -> bool {
        use FpOp::{AddSub, FromI32, HAdd, HSub, ToI32, ToI32Trunc};
        let packed_only = matches!(self.op, HAdd | HSub | AddSub | FromI32 | ToI32 | ToI32Trunc);
        self.shape == FpShape::Packed || !packed_only
    }
}

impl FpRules {
    /// What a control slot selects, without its flags.
    #[inline]
    pub fn env(self, control: u64) -> Env {
        let mut env = match self {
            FpRules::Sse => Env::from_mxcsr(control as u32),
        };
        env.flags = Flags::NONE;
        env
    }

    /// The control slot after operations that left these flags.
    #[inline]
    pub fn settle(self, control: u64, flags: Flags) -> u64 {
        match self {
            FpRules::Sse => control | u64::from(flags.x86_bits()),
        }
    }

    fn min_max(self) -> MinMax {
        match self {
            FpRules::Sse => MinMax::Sse,
        }
    }

    fn overflow(self) -> IntOverflow {
        match self {
            FpRules::Sse => IntOverflow::X86,
        }
    }
}

trait Lane: Float {
    const BITS: u32;
    const MASK: u64;
    fn of(bits: u64) -> Self;
    fn raw(self) -> u64;
}

impl Lane for F32 {
    const BITS: u32 = 32;
    const MASK: u64 = 0xffff_ffff;
    #[inline]
    fn of(bits: u64) -> Self {
        F32(bits as u32)
    }
    #[inline]
    fn raw(self) -> u64 {
        self.0.into()
    }
}

impl Lane for F64 {
    const BITS: u32 = 64;
    const MASK: u64 = u64::MAX;
    #[inline]
    fn of(bits: u64) -> Self {
        F64(bits)
    }
    #[inline]
    fn raw(self) -> u64 {
        self.0
    }
}

#[inline]
fn get<F: Lane>(v: u128, i: u32) -> F {
    F::of((v >> (i * F::BITS)) as u64)
}

fn holds<F: Lane>(cmp: FpCmp, a: F, b: F, env: &mut Env) -> bool {
    let signals = matches!(cmp, FpCmp::Lt | FpCmp::Le | FpCmp::Nlt | FpCmp::Nle);
    let order = if signals {
        a.compare_signalling(b, env)
    } else {
        a.compare_quiet(b, env)
    };
    match cmp {
        FpCmp::Eq => order == Some(Ordering::Equal),
        FpCmp::Ne => order != Some(Ordering::Equal),
        FpCmp::Lt => order == Some(Ordering::Less),
        FpCmp::Nlt => order != Some(Ordering::Less),
        FpCmp::Le => matches!(order, Some(Ordering::Less | Ordering::Equal)),
        FpCmp::Nle => !matches!(order, Some(Ordering::Less | Ordering::Equal)),
        FpCmp::Unord => order.is_none(),
        FpCmp::Ord => order.is_some(),
    }
}

/// Results of `bits` bits, lane by lane: all of them, or the lowest and `a`'s others. Lanes beyond
/// `count` are zero.
#[inline(always)]
fn place(
    shape: FpShape,
    (bits, count): (u32, u32),
    a: u128,
    mut result: impl FnMut(u32) -> u64,
) -> u128 {
    match shape {
        FpShape::Scalar => {
            let mask = u128::from(u64::MAX >> (64 - bits));
            a & !mask | u128::from(result(0)) & mask
        }
        FpShape::Packed => (0..count).fold(0, |out, i| out | u128::from(result(i)) << (i * bits)),
    }
}

/// Lane by lane.
#[inline(always)]
fn each<F: Lane>(
    shape: FpShape,
    (a, b): (u128, u128),
    env: &mut Env,
    run: impl Fn(F, F, &mut Env) -> F,
) -> u128 {
    place(shape, (F::BITS, 128 / F::BITS), a, |i| {
        run(get(a, i), get(b, i), env).raw()
    })
}

/// `a`'s lanes in twos, then `b`'s.
fn pairs<F: Lane>((a, b): (u128, u128), env: &mut Env, run: fn(F, F, &mut Env) -> F) -> u128 {
    let half = 64 / F::BITS;
    place(FpShape::Packed, (F::BITS, half * 2), a, |i| {
        let (from, at) = if i < half { (a, i) } else { (b, i - half) };
        run(get(from, at * 2), get(from, at * 2 + 1), env).raw()
    })
}

/// An operation whose operands and result are of one format.
fn uniform<F: Lane>(how: Fp, a: u128, b: u128, env: &mut Env) -> u128 {
    let (shape, ab) = (how.shape, (a, b));
    let rule = how.rules.min_max();
    match how.op {
        FpOp::Add => each(shape, ab, env, F::add),
        FpOp::Sub => each(shape, ab, env, F::sub),
        FpOp::Mul => each(shape, ab, env, F::mul),
        FpOp::Div => each(shape, ab, env, F::div),
        FpOp::Min => each(shape, ab, env, |a: F, b, env| a.min(b, rule, env)),
        FpOp::Max => each(shape, ab, env, |a: F, b, env| a.max(b, rule, env)),
        FpOp::Sqrt => each(shape, ab, env, |_, b: F, env| b.sqrt(env)),
        FpOp::Cmp(cmp) => each(shape, ab, env, |a: F, b, env| {
            F::of(if holds(cmp, a, b, env) { F::MASK } else { 0 })
        }),
        FpOp::HAdd => pairs(ab, env, F::add),
        FpOp::HSub => pairs(ab, env, F::sub),
        FpOp::AddSub => place(FpShape::Packed, (F::BITS, 128 / F::BITS), a, |i| {
            let (a, b) = (get::<F>(a, i), get(b, i));
            let run = if i & 1 == 0 { F::sub } else { F::add };
            run(a, b, env).raw()
        }),
        FpOp::Round(to) => each(shape, ab, env, |_, b: F, env| {
            b.round_to_integral(direction(to, env), true, env)
        }),
        FpOp::RoundQuiet(to) => each(shape, ab, env, |_, b: F, env| {
            b.round_to_integral(direction(to, env), false, env)
        }),
        // These have two formats.
        FpOp::Convert | FpOp::FromI32 | FpOp::ToI32 | FpOp::ToI32Trunc => a,
    }
}

fn direction(to: FpRound, env: &Env) -> Rounding {
    match to {
        FpRound::Nearest => Rounding::NearestEven,
        FpRound::Down => Rounding::Down,
        FpRound::Up => Rounding::Up,
        FpRound::Zero => Rounding::TowardZero,
        FpRound::Current => env.rounding,
    }
}

/// Computes a fused product and sum.
pub fn mul_add(how: FpMulAdd, (a, b): (u128, u128), c: u128, env: &mut Env) -> u128 {
    fn run<F: Lane>(how: FpMulAdd, (a, b): (u128, u128), c: u128, env: &mut Env) -> u128 {
        let form = match (how.negates, how.subtracts) {
            (false, false) => MulAdd::Add,
            (false, true) => MulAdd::Sub,
            (true, false) => MulAdd::NegProductAdd,
            (true, true) => MulAdd::NegProductSub,
        };
        place(how.shape, (F::BITS, 128 / F::BITS), c, |i| {
            get::<F>(a, i)
                .mul_add(get(b, i), get(c, i), form, env)
                .raw()
        })
    }
    match how.fmt {
        FpFmt::F32 => run::<F32>(how, (a, b), c, env),
        FpFmt::F64 => run::<F64>(how, (a, b), c, env),
    }
}

/// Computes an operation on vectors.
pub fn eval(how: Fp, a: u128, b: u128, env: &mut Env) -> u128 {
    let count = match how.fmt {
        FpFmt::F32 => 4,
        FpFmt::F64 => 2,
    };
    match (how.op, how.fmt) {
        (FpOp::Convert, FpFmt::F32) => place(how.shape, (32, 2), a, |i| {
            get::<F64>(b, i).convert::<F32>(env).raw()
        }),
        (FpOp::Convert, FpFmt::F64) => place(how.shape, (64, 2), a, |i| {
            get::<F32>(b, i).convert::<F64>(env).raw()
        }),
        (FpOp::FromI32, fmt) => {
            let bits = 128 / count;
            place(how.shape, (bits, count), a, |i| {
                let v = get::<F32>(b, i).0.cast_signed();
                from_int(fmt, v.into(), env)
            })
        }
        (FpOp::ToI32 | FpOp::ToI32Trunc, fmt) => {
            let way = ToInt {
                fmt,
                rules: how.rules,
                truncate: how.op == FpOp::ToI32Trunc,
            };
            place(how.shape, (32, count), a, |i| {
                let bits = match fmt {
                    FpFmt::F32 => get::<F32>(b, i).raw(),
                    FpFmt::F64 => get::<F64>(b, i).raw(),
                };
                to_int(way, bits, Ty::I32, env)
            })
        }
        (_, FpFmt::F32) => uniform::<F32>(how, a, b, env),
        (_, FpFmt::F64) => uniform::<F64>(how, a, b, env),
    }
}

/// The bits of a signed integer in a format.
pub fn from_int(fmt: FpFmt, v: i64, env: &mut Env) -> u64 {
    match fmt {
        FpFmt::F32 => F32::from_i64(v, env).raw(),
        FpFmt::F64 => F64::from_i64(v, env).raw(),
    }
}

/// A conversion to a signed integer with all that its meaning depends on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ToInt {
    /// Format of the operand.
    pub fmt: FpFmt,
    /// Whose rules. What does not fit is, under SSE's, the least integer and invalid.
    pub rules: FpRules,
    /// Toward zero, whatever the control slot says.
    pub truncate: bool,
}

/// The signed integer of `ty`, i32 or i64, that bits of a format stand for.
pub fn to_int(how: ToInt, bits: u64, ty: Ty, env: &mut Env) -> u64 {
    fn run<F: Lane>(v: F, ty: Ty, rounding: Rounding, overflow: IntOverflow, env: &mut Env) -> u64 {
        if ty == Ty::I64 {
            v.to_int::<i64>(rounding, overflow, env).cast_unsigned()
        } else {
            let v: i32 = v.to_int(rounding, overflow, env);
            v.cast_unsigned().into()
        }
    }
    let rounding = if how.truncate {
        Rounding::TowardZero
    } else {
        env.rounding
    };
    let overflow = how.rules.overflow();
    match how.fmt {
        FpFmt::F32 => run(F32::of(bits), ty, rounding, overflow, env),
        FpFmt::F64 => run(F64::of(bits), ty, rounding, overflow, env),
    }
}

/// A comparison with all that its meaning depends on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FpCompare {
    /// Format of the operands.
    pub fmt: FpFmt,
    /// Whose rules.
    pub rules: FpRules,
    /// Any NaN is invalid (COMISS, COMISD), not only a signalling one (UCOMISS, UCOMISD).
    pub signals: bool,
}

/// The relation of two numbers, as bits of [`flags`]: less is CF, equal is ZF, unordered is CF, PF
/// and ZF, greater is nothing.
pub fn compare(how: FpCompare, a: u64, b: u64, env: &mut Env) -> u64 {
    fn run<F: Lane>(a: u64, b: u64, signals: bool, env: &mut Env) -> Option<Ordering> {
        let (a, b) = (F::of(a), F::of(b));
        if signals {
            a.compare_signalling(b, env)
        } else {
            a.compare_quiet(b, env)
        }
    }
    let order = match how.fmt {
        FpFmt::F32 => run::<F32>(a, b, how.signals, env),
        FpFmt::F64 => run::<F64>(a, b, how.signals, env),
    };
    relation(order)
}

/// An order as [`compare`] gives it.
pub fn relation(order: Option<Ordering>) -> u64 {
    match order {
        Some(Ordering::Greater) => 0,
        Some(Ordering::Less) => flags::CF,
        Some(Ordering::Equal) => flags::ZF,
        None => flags::ZF | flags::PF | flags::CF,
    }
}
