//! Floating point: FPCR, FPSR, and scalar instructions as functions (DDI 0487, A1.5, C7).

#![allow(
    clippy::arithmetic_side_effects,
    reason = "bounded arithmetic on exponents and fractions; tests run with overflow checks"
)]

use accel_core::Trap;
use target_softfloat::{Env, Flags, FlushOutputs, Rounding};

use crate::a64::context::condition;
use crate::a64::float::{Insn, decode};
use crate::model::Feature;
use crate::simd::{bf16, moves::float_immediate};
use crate::system::exception;
use crate::{Core, mode, regs};

pub(crate) mod arithmetic;
pub(crate) mod estimate;

use arithmetic::Op;

/// FPCR: AHP, DN, FZ, RMode, FZ16.
const FPCR_BITS: u64 = 0x07c8_0000;
/// FPSR: QC, IDC, IXC to IOC.
const FPSR_BITS: u64 = 0x0800_009f;
/// FPSR: N, Z, C and V of AArch32's comparisons.
const FPSR_FLAGS: u64 = 0xf000_0000;
/// FPSR.QC.
pub(crate) const QC: u64 = 1 << 27;

/// MXCSR: the sticky flags.
const MXCSR_FLAGS: u64 = 0x3f;
/// MXCSR: where its rounding direction is.
const MXCSR_ROUNDING: u32 = 13;

/// FPSR: what helpers left there, and what generated code left in MXCSR.
pub(crate) fn fpsr_now(core: &Core) -> u64 {
    let sse = core.regs.get(regs::MXCSR);
    // IE; ZE, OE, UE and PE. DE says nothing that Arm would.
    core.regs.get(regs::FPSR) | sse & 1 | sse >> 1 & 0x1e
}

/// FPCR.FZ.
pub(crate) fn flushes(core: &Core) -> bool {
    core.regs.get(regs::FPCR) >> 24 & 1 != 0
}

/// FPSR.
pub(crate) fn fpsr(core: &mut Core) -> u64 {
    fpsr_now(core)
}

/// Writes FPSR.
pub(crate) fn set_fpsr(core: &mut Core, value: u64) {
    let bits = match core.arch.model.has(Feature::El0Is32) {
        true => FPSR_BITS | FPSR_FLAGS,
        false => FPSR_BITS,
    };
    core.regs.set(regs::FPSR, value & bits);
    let sse = core.regs.get(regs::MXCSR);
    core.regs.set(regs::MXCSR, sse & !MXCSR_FLAGS);
}

/// Writes FPCR.
pub(crate) fn set_fpcr(core: &mut Core, value: u64) {
    let half = core.arch.model.has_fp16();
    let bits = if half {
        FPCR_BITS
    } else {
        FPCR_BITS & !(1 << 19)
    };
    core.regs.set(regs::FPCR, value & bits);
    // Up and down are numbered the other way round.
    let direction = match value >> 22 & 3 {
        1 => 2,
        2 => 1,
        n => n,
    };
    let flags = core.regs.get(regs::MXCSR) & MXCSR_FLAGS;
    let sse = crate::system::reset::MXCSR | direction << MXCSR_ROUNDING | flags;
    core.regs.set(regs::MXCSR, sse);
    mode::refresh(core);
}

/// The rounding direction of RMode.
pub(crate) fn rounding(mode: u64) -> Rounding {
    match mode & 3 {
        0 => Rounding::NearestEven,
        1 => Rounding::Up,
        2 => Rounding::Down,
        _ => Rounding::TowardZero,
    }
}

/// What FPCR selects, without flags. Half precision has a flush bit of its own.
pub(crate) fn env(core: &Core, half: bool) -> Env {
    let fpcr = core.regs.get(regs::FPCR);
    let flush = fpcr & if half { 1 << 19 } else { 1 << 24 } != 0;
    Env {
        rounding: rounding(fpcr >> 22),
        default_nan: fpcr >> 25 & 1 != 0,
        flush_inputs: flush,
        flush_outputs: if flush {
            FlushOutputs::Arm
        } else {
            FlushOutputs::Never
        },
        ..Env::arm()
    }
}

/// Adds flags to FPSR. Half-precision operands are flushed without a flag.
pub(crate) fn settle(core: &mut Core, env: &Env, half: bool) {
    let mut bits = 0;
    for (flag, bit) in [
        (Flags::INVALID, 0u32),
        (Flags::DIV_BY_ZERO, 1),
        (Flags::OVERFLOW, 2),
        (Flags::UNDERFLOW, 3),
        (Flags::INEXACT, 4),
        (Flags::INPUT_FLUSHED, 7),
    ] {
        if env.flags.has(flag) && !(half && bit == 7) {
            bits |= 1u64.wrapping_shl(bit);
        }
    }
    let old = core.regs.get(regs::FPSR);
    core.regs.set(regs::FPSR, old | bits);
}

/// FPCR.AHP.
pub(crate) fn is_alternative(core: &Core) -> bool {
    core.regs.get(regs::FPCR) >> 26 & 1 != 0
}

/// Conversions from half precision do not flush its subnormals by FZ, nor to it.
pub(crate) fn half_input(env: &mut Env) {
    env.flush_inputs = false;
}

/// See [`half_input`]: results of half precision are flushed by FZ16 alone, which conversions ignore.
pub(crate) fn half_output(env: &mut Env) {
    env.flush_outputs = FlushOutputs::Never;
}

/// (instruction): executes it.
pub(crate) fn run(core: &mut Core, [word, ..]: [u64; 4]) -> Result<u64, Trap> {
    match decode(word as u32).and_then(|insn| execute(core, insn)) {
        Some(()) => Ok(0),
        None => Err(exception::undefined(core)),
    }
}

/// Width of a type field.
fn width_of(core: &Core, ty: u32) -> Option<u32> {
    match ty {
        0 => Some(32),
        1 => Some(64),
        3 if core.arch.model.has_fp16() => Some(16),
        _ => None,
    }
}

fn get(core: &Core, n: u32, bits: u32) -> u64 {
    core.regs.get(regs::v(n)) & u64::MAX >> (64 - bits)
}

fn set(core: &mut Core, n: u32, value: u64) {
    core.regs.set_v(regs::v(n), value.into());
}

fn x(core: &Core, n: u32) -> u64 {
    match n {
        31 => 0,
        _ => core.regs.get(regs::x(n)),
    }
}

fn set_x(core: &mut Core, n: u32, sf: u32, value: u64) {
    if n != 31 {
        let value = if sf != 0 { value } else { value & 0xffff_ffff };
        core.regs.set(regs::x(n), value);
    }
}

/// Whether a condition holds now.
fn holds(core: &Core, cond: u32) -> bool {
    cond & 14 == 14 || condition(cond).holds(mode::to_x86(mode::nzcv(core)))
}

/// NZCV of a comparison.
fn compare(core: &mut Core, bits: u32, a: u64, b: u64, signals: bool) -> u64 {
    let half = bits == 16;
    let mut env = env(core, half);
    let nzcv = compare_in(bits, a, b, signals, &mut env);
    settle(core, &env, half);
    nzcv
}

/// NZCV of a comparison in an environment.
pub(crate) fn compare_in(bits: u32, a: u64, b: u64, signals: bool, env: &mut Env) -> u64 {
    use core::cmp::Ordering;
    fn of<F: arithmetic::Lane>(a: u64, b: u64, signals: bool, env: &mut Env) -> Option<Ordering> {
        match signals {
            true => F::of(a).compare_signalling(F::of(b), env),
            false => F::of(a).compare_quiet(F::of(b), env),
        }
    }
    let order = match bits {
        16 => of::<target_softfloat::F16>(a, b, signals, env),
        32 => of::<target_softfloat::F32>(a, b, signals, env),
        _ => of::<target_softfloat::F64>(a, b, signals, env),
    };
    let nzcv = match order {
        Some(Ordering::Equal) => 0b0110,
        Some(Ordering::Less) => 0b1000,
        Some(Ordering::Greater) => 0b0010,
        None => 0b0011,
    };
    nzcv << 28
}

fn execute(core: &mut Core, insn: Insn) -> Option<()> {
    match insn {
        Insn::FpTwo {
            r#type,
            rm,
            opcode,
            rn,
            rd,
        } => {
            let bits = width_of(core, r#type)?;
            let op = match opcode {
                0 => Op::Mul,
                1 => Op::Div,
                2 => Op::Add,
                3 => Op::Sub,
                4 => Op::Max,
                5 => Op::Min,
                6 => Op::MaxNumber,
                7 => Op::MinNumber,
                8 => Op::MulNegated,
                _ => return None,
            };
            let mut env = env(core, bits == 16);
            let (a, b) = (get(core, rn, bits), get(core, rm, bits));
            set(core, rd, arithmetic::two(bits, op, a, b, &mut env));
            settle(core, &env, bits == 16);
        }
        Insn::FpOne {
            r#type,
            opcode,
            rn,
            rd,
        } => return one(core, r#type, opcode, (rn, rd)),
        Insn::FpCmp {
            r#type,
            rm,
            rn,
            e,
            z,
        } => {
            let bits = width_of(core, r#type)?;
            let b = if z != 0 { 0 } else { get(core, rm, bits) };
            let a = get(core, rn, bits);
            let nzcv = compare(core, bits, a, b, e != 0);
            mode::set_nzcv(core, nzcv);
        }
        Insn::FpCcmp {
            r#type,
            rm,
            cond,
            rn,
            e,
            nzcv,
        } => {
            let bits = width_of(core, r#type)?;
            let nzcv = if holds(core, cond) {
                let (a, b) = (get(core, rn, bits), get(core, rm, bits));
                compare(core, bits, a, b, e != 0)
            } else {
                u64::from(nzcv) << 28
            };
            mode::set_nzcv(core, nzcv);
        }
        Insn::FpCsel {
            r#type,
            rm,
            cond,
            rn,
            rd,
        } => {
            let bits = width_of(core, r#type)?;
            let from = if holds(core, cond) { rn } else { rm };
            let value = get(core, from, bits);
            set(core, rd, value);
        }
        Insn::FpImm { r#type, imm, rd } => {
            let bits = width_of(core, r#type)?;
            set(core, rd, float_immediate(imm, bits));
        }
        Insn::FpThree {
            r#type,
            o1,
            rm,
            o0,
            ra,
            rn,
            rd,
        } => {
            let bits = width_of(core, r#type)?;
            let mut env = env(core, bits == 16);
            let mut addend = get(core, ra, bits);
            // FMADD, FMSUB, FNMADD, FNMSUB: signs change before NaNs are looked at.
            if o1 != 0 {
                addend = arithmetic::negated(bits, addend);
            }
            let a = (get(core, rn, bits), o1 != o0);
            let b = get(core, rm, bits);
            set(core, rd, arithmetic::mul_add(bits, a, b, addend, &mut env));
            settle(core, &env, bits == 16);
        }
        Insn::FpInt {
            sf,
            r#type,
            rmode,
            opcode,
            rn,
            rd,
        } => return integer(core, (sf, r#type), (rmode, opcode), (rn, rd)),
        Insn::FpFixed {
            sf,
            r#type,
            rmode,
            opcode,
            scale,
            rn,
            rd,
        } => {
            let bits = width_of(core, r#type)?;
            // shift: below the width of a format
            let width = 32 << sf;
            let fraction = 64 - scale;
            if fraction > width {
                return None;
            }
            let half = bits == 16;
            let mut env = env(core, half);
            match (rmode, opcode) {
                (0, 2 | 3) => {
                    let value = x(core, rn);
                    let unsigned = opcode == 3;
                    let v =
                        arithmetic::from_int((bits, width), unsigned, fraction, value, &mut env);
                    set(core, rd, v);
                }
                (3, 0 | 1) => {
                    let a = get(core, rn, bits);
                    let zero = Rounding::TowardZero;
                    let unsigned = opcode == 1;
                    let v =
                        arithmetic::to_int((bits, width), unsigned, fraction, zero, a, &mut env);
                    set_x(core, rd, sf, v);
                }
                _ => return None,
            }
            settle(core, &env, half);
        }
    }
    Some(())
}

fn one(core: &mut Core, ty: u32, opcode: u32, (rn, rd): (u32, u32)) -> Option<()> {
    // BFCVT.
    if (ty, opcode) == (1, 6) && core.arch.model.has(Feature::Bf16) {
        let mut env = env(core, false);
        let value = bf16::narrowed(get(core, rn, 32), &mut env);
        set(core, rd, value);
        settle(core, &env, false);
        return Some(());
    }
    // FCVT.
    if opcode & 0b11_1100 == 0b00_0100 {
        let from = [32, 64, 0, 16].get(ty as usize).copied()?;
        let to = [32, 64, 0, 16].get(opcode as usize & 3).copied()?;
        if from == 0 || to == 0 || from == to {
            return None;
        }
        let mut env = env(core, false);
        if from == 16 {
            half_input(&mut env);
        }
        if to == 16 {
            half_output(&mut env);
        }
        let a = get(core, rn, from);
        let alternative = is_alternative(core);
        set(
            core,
            rd,
            arithmetic::convert((from, to), a, alternative, &mut env),
        );
        settle(core, &env, false);
        return Some(());
    }
    let bits = width_of(core, ty)?;
    let a = get(core, rn, bits);
    let mut env = env(core, bits == 16);
    let current = env.rounding;
    let value = match opcode {
        0 => a,
        1 => a & u64::MAX >> (65 - bits),
        2 => arithmetic::negated(bits, a),
        3 => arithmetic::sqrt(bits, a, &mut env),
        // FRINTN, P, M, Z.
        8..=11 => arithmetic::round(bits, a, rounding(opcode.into()), false, &mut env),
        12 => arithmetic::round(bits, a, Rounding::NearestAway, false, &mut env),
        14 => arithmetic::round(bits, a, current, true, &mut env),
        15 => arithmetic::round(bits, a, current, false, &mut env),
        16..=19 if bits != 16 && core.arch.model.has(Feature::FrintTs) => {
            let mode = if opcode & 1 != 0 {
                current
            } else {
                Rounding::TowardZero
            };
            let within = if opcode & 2 != 0 { 64 } else { 32 };
            arithmetic::round_within(bits, a, mode, within, &mut env)
        }
        _ => return None,
    };
    set(core, rd, value);
    settle(core, &env, bits == 16);
    Some(())
}

/// FCVT* to and from integers, FMOV, FJCVTZS.
fn integer(
    core: &mut Core,
    (sf, ty): (u32, u32),
    (rmode, opcode): (u32, u32),
    (rn, rd): (u32, u32),
) -> Option<()> {
    // shift: below the width of a format
    let width = 32 << sf;
    match (sf, ty, rmode, opcode) {
        // FMOV of the upper half.
        (1, 2, 1, 6) => {
            let value = (core.regs.get_v(regs::v(rn)) >> 64) as u64;
            set_x(core, rd, 1, value);
            return Some(());
        }
        (1, 2, 1, 7) => {
            let low = core.regs.get(regs::v(rd));
            let high = x(core, rn);
            core.regs
                .set_v(regs::v(rd), u128::from(high) << 64 | u128::from(low));
            return Some(());
        }
        // FJCVTZS.
        (0, 1, 3, 6) => {
            if !core.arch.model.has(Feature::Jscvt) {
                return None;
            }
            return javascript(core, (rn, rd));
        }
        _ => {}
    }
    let bits = width_of(core, ty)?;
    let half = bits == 16;
    match (rmode, opcode) {
        (0, 6 | 7) => {
            if !half && bits != width {
                return None;
            }
            if opcode == 6 {
                let value = get(core, rn, bits);
                set_x(core, rd, sf, value);
            } else {
                let value = x(core, rn) & u64::MAX >> (64 - bits);
                set(core, rd, value);
            }
        }
        (_, 0 | 1) | (0, 4 | 5) => {
            let mode = if opcode >= 4 {
                Rounding::NearestAway
            } else {
                rounding(rmode.into())
            };
            let mut env = env(core, half);
            let a = get(core, rn, bits);
            let value = arithmetic::to_int((bits, width), opcode & 1 != 0, 0, mode, a, &mut env);
            set_x(core, rd, sf, value);
            settle(core, &env, half);
        }
        (0, 2 | 3) => {
            let mut env = env(core, half);
            let value = x(core, rn);
            let value = arithmetic::from_int((bits, width), opcode & 1 != 0, 0, value, &mut env);
            set(core, rd, value);
            settle(core, &env, half);
        }
        _ => return None,
    }
    Some(())
}

fn javascript(core: &mut Core, (rn, rd): (u32, u32)) -> Option<()> {
    let a = get(core, rn, 64);
    let mut env = env(core, false);
    let (value, exact) = to_javascript(a, &mut env);
    set_x(core, rd, 0, value);
    mode::set_nzcv(core, if exact { 1 << 30 } else { 0 });
    settle(core, &env, false);
    Some(())
}

/// `FPToFixedJS`: modulo 2^32, in the low half; whether nothing was lost.
pub(crate) fn to_javascript(a: u64, env: &mut Env) -> (u64, bool) {
    let exponent = (a >> 52 & 0x7ff) as i64 - 1075;
    let fraction = a & ((1 << 52) - 1);
    let subnormal = a >> 52 & 0x7ff == 0 && fraction != 0;
    let special = a >> 52 & 0x7ff == 0x7ff;
    let exact;
    let value = if special {
        env.raise(Flags::INVALID);
        exact = false;
        0u64
    } else if a << 1 == 0 {
        // Minus zero is not zero.
        exact = a == 0;
        0
    } else if subnormal {
        let flag = if env.flush_inputs {
            Flags::INPUT_FLUSHED
        } else {
            Flags::INEXACT
        };
        env.raise(flag);
        exact = false;
        0
    } else {
        let significand = fraction | 1 << 52;
        let magnitude = match exponent {
            0..=63 => significand.wrapping_shl(exponent as u32),
            64.. => 0,
            // shift: below the width of a format
            -63..0 => significand >> -exponent,
            _ => 0,
        };
        // shift: below the width of a format
        let lost = exponent < 0 && (exponent < -63 || magnitude << -exponent != significand);
        let negative = a >> 63 != 0;
        let value = if negative {
            magnitude.wrapping_neg()
        } else {
            magnitude
        };
        let fits = exponent < 12 && value as i64 == i64::from(value as i32);
        if !fits {
            env.raise(Flags::INVALID);
        } else if lost {
            env.raise(Flags::INEXACT);
        }
        exact = fits && !lost;
        value
    };
    (value & 0xffff_ffff, exact)
}
