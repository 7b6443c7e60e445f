//! Floating point: FPCR, FPSR, and scalar instructions as functions (DDI 0487, A1.5, C7).

#![allow(dead_code, reason = "the instructions follow")]

use accel_core::Trap;
use target_softfloat::{Env, Flags, FlushOutputs, Rounding};

use crate::system::exception;
use crate::{Core, regs};

/// FPCR: AHP, DN, FZ, RMode, FZ16.
const FPCR_BITS: u64 = 0x07c8_0000;
/// FPSR: QC, IDC, IXC to IOC.
const FPSR_BITS: u64 = 0x0800_009f;
/// FPSR.QC.
pub(crate) const QC: u64 = 1 << 27;

/// FPSR.
pub(crate) fn fpsr_now(core: &Core) -> u64 {
    core.regs.get(regs::FPSR)
}

/// FPSR.
pub(crate) fn fpsr(core: &mut Core) -> u64 {
    fpsr_now(core)
}

/// Writes FPSR.
pub(crate) fn set_fpsr(core: &mut Core, value: u64) {
    core.regs.set(regs::FPSR, value & FPSR_BITS);
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

/// (instruction): executes it.
pub(crate) fn run(core: &mut Core, [word, ..]: [u64; 4]) -> Result<u64, Trap> {
    match execute(core, word as u32) {
        Some(()) => Ok(0),
        None => Err(exception::undefined(core)),
    }
}

fn execute(_: &mut Core, _: u32) -> Option<()> {
    None
}
