//! Data processing of Advanced SIMD (DDI 0487, F5.1), as functions on the registers.
//!
//! Nearly every instruction has one of A64 that does the same: its operands go to vector registers that
//! AArch32 does not have, [`crate::simd`] executes that, and what AArch32 has is put back. Floating point
//! follows the "standard FPSCR value": flushed, default NaNs, to nearest.
#![allow(
    clippy::arithmetic_side_effects,
    reason = "lanes and shifts are bounded by the width of a register; tests run with overflow checks"
)]

use accel_core::Trap;

use super::as_a64::{D, M, N, Own, Plan, Reg, diff, permute, scalar, shift, three, two};
use super::neon::{Insn, decode};
use super::vfp::{d_slot, number};
use crate::float::arithmetic::{self, Op};
use crate::float::{self};
use crate::model::{CpuModel, Feature};
use crate::simd::{Lanes, execute_word, set_v, v};
use crate::{Core, regs};

/// FPCR as Advanced SIMD of AArch32 has it (`StandardFPSCRValue`): DN and FZ set, AHP as it is.
fn standard(fpcr: u64) -> u64 {
    fpcr & 1 << 26 | 3 << 24
}

/// Executes an instruction of A64 on operands: what it leaves in the destination.
fn by_a64(core: &mut Core, word: u32, d: u128, n: u128, m: u128) -> Option<u128> {
    let kept = [D, N, M].map(|r| v(core, r));
    let fpcr = core.regs.get(regs::FPCR);
    core.regs.set(regs::FPCR, standard(fpcr));
    for (r, value) in [(D, d), (N, n), (M, m)] {
        set_v(core, r, value);
    }
    let done = execute_word(core, word | D | N << 5);
    let result = v(core, D);
    core.regs.set(regs::FPCR, fpcr);
    for (r, value) in [D, N, M].into_iter().zip(kept) {
        set_v(core, r, value);
    }
    done.map(|()| result)
}

/// Whether a model has the instruction; encodings that are unallocated are found out here too.
pub(super) fn is_there(model: &CpuModel, insn: Insn) -> bool {
    let has = |feature| model.has(feature);
    match insn {
        Insn::NThree {
            op, o1, u, size, ..
        } => match (op, o1, u) {
            (12, 0, 0) => has(Feature::Sha1),
            (12, 0, _) => has(Feature::Sha256) && size != 3,
            (11 | 12, 1, 1) => has(Feature::Rdm),
            _ => three(insn).is_some(),
        },
        Insn::NDiff {
            op: 14,
            size: 2,
            u: 0,
            ..
        } => has(Feature::Pmull),
        Insn::NScalar { op: 14 | 15, .. } => has(Feature::Rdm) && scalar(insn).is_some(),
        Insn::NDiff { .. } => diff(insn).is_some(),
        Insn::NScalar { .. } => scalar(insn).is_some(),
        Insn::NTwo { op1, op2, .. } => match (op1, op2) {
            (0, 6 | 7) => has(Feature::Aes) && two(insn).is_some(),
            (1, 5) => has(Feature::Sha1) && two(insn).is_some(),
            (2, 7) => has(Feature::Sha1) && two(insn).is_some(),
            _ => two(insn).is_some(),
        },
        Insn::NShift { .. } => shift(insn).is_some(),
        Insn::NExt {
            vn,
            vd,
            imm,
            q,
            d,
            n,
            m,
            vm,
        } => {
            Reg::new(q, vd, d).is_some()
                && Reg::new(q, vn, n).is_some()
                && Reg::new(q, vm, m).is_some()
                && (q != 0 || imm < 8)
        }
        Insn::NTbl { vn, n, len, .. } => number(true, vn, n) + len < 32,
        Insn::NDup { imm, vd, d, q, .. } => imm & 7 != 0 && Reg::new(q, vd, d).is_some(),
        Insn::NModimm {
            vd,
            d,
            q,
            cmode,
            op,
            ..
        } => Reg::new(q, vd, d).is_some() && !(cmode == 15 && op != 0),
        _ => false,
    }
}

/// (instruction): executes it.
pub(crate) fn run(core: &mut Core, [word, ..]: [u64; 4]) -> Result<u64, Trap> {
    match decode(word as u32).and_then(|insn| execute(core, insn)) {
        Some(()) => Ok(0),
        None => Err(crate::system::exception::undefined(core)),
    }
}

fn apply(core: &mut Core, plan: Plan, m: u128) -> Option<()> {
    let (d, n) = (plan.d.get(core), plan.n.get(core));
    let result = match plan.own {
        Some(own) => two_roundings(core, own, plan.d.q, (d, n, m)),
        None => by_a64(core, plan.word, d, n, m)?,
    };
    plan.d.set(core, result);
    Some(())
}

/// VMLA, VMLS, VRECPS and VRSQRTS of single precision.
fn two_roundings(core: &mut Core, own: Own, q: bool, (d, n, m): (u128, u128, u128)) -> u128 {
    let fpcr = core.regs.get(regs::FPCR);
    core.regs.set(regs::FPCR, standard(fpcr));
    let mut env = float::env(core, false);
    core.regs.set(regs::FPCR, fpcr);
    let lanes = Lanes::new(32, q.into(), 0);
    const TWO: u64 = 0x4000_0000;
    const THREE: u64 = 0x4040_0000;
    const HALF: u64 = 0x3f00_0000;
    const ONE_AND_A_HALF: u64 = 0x3fc0_0000;
    // A subnormal number is a zero here.
    let is_zero = |v: u64| v & 0x7f80_0000 == 0;
    let is_infinite = |v: u64| v & 0x7fff_ffff == 0x7f80_0000;
    let result = lanes.build(|i| {
        let (a, b) = (lanes.get(n, i), lanes.get(m, i));
        let steps = matches!(own, Own::ReciprocalStep | Own::RootStep);
        if steps && (is_infinite(a) && is_zero(b) || is_zero(a) && is_infinite(b)) {
            // Operands that are flushed say so.
            let flushed = |v: u64| is_zero(v) && v & 0x007f_ffff != 0;
            if flushed(a) || flushed(b) {
                env.raise(target_softfloat::Flags::INPUT_FLUSHED);
            }
            return match own {
                Own::ReciprocalStep => TWO,
                _ => ONE_AND_A_HALF,
            };
        }
        let product = arithmetic::two(32, Op::Mul, a, b, &mut env);
        match own {
            Own::MultiplyAdd => arithmetic::two(32, Op::Add, lanes.get(d, i), product, &mut env),
            Own::MultiplySubtract => {
                let product = arithmetic::negated(32, product);
                arithmetic::two(32, Op::Add, lanes.get(d, i), product, &mut env)
            }
            Own::ReciprocalStep => arithmetic::two(32, Op::Sub, TWO, product, &mut env),
            Own::RootStep => {
                let v = arithmetic::two(32, Op::Sub, THREE, product, &mut env);
                arithmetic::two(32, Op::Mul, v, HALF, &mut env)
            }
        }
    });
    float::settle(core, &env, false);
    result
}

fn execute(core: &mut Core, insn: Insn) -> Option<()> {
    match insn {
        Insn::NThree { .. } => {
            let plan = three(insn)?;
            let m = plan.m.get(core);
            apply(core, plan, m)
        }
        Insn::NDiff { .. } => {
            let plan = diff(insn)?;
            let m = plan.m.get(core);
            apply(core, plan, m)
        }
        Insn::NScalar { .. } => {
            let (plan, size, lane) = scalar(insn)?;
            // shift: within the width
            let all = Lanes::new(8 << size, 1, 0);
            let value = all.get(plan.m.get(core), lane);
            apply(core, plan, all.build(|_| value))
        }
        Insn::NTwo {
            op1: 2,
            op2: op2 @ 0..=3,
            size,
            q,
            ..
        } => {
            let plan = two(insn)?;
            exchange(core, op2, size, q, (plan.d, plan.n))
        }
        Insn::NTwo { .. } => apply(core, two(insn)?, 0),
        Insn::NShift { .. } => apply(core, shift(insn)?, 0),
        Insn::NModimm {
            i,
            d,
            imm3,
            vd,
            cmode,
            q,
            op,
            imm4,
        } => {
            let d = Reg::new(q, vd, d)?;
            let (high, low) = (i << 2 | imm3 >> 1, (imm3 & 1) << 4 | imm4);
            let word = 0x0f00_0400 | q << 30 | op << 29 | high << 16 | cmode << 12 | low << 5;
            // The destination is the only register.
            let old = d.get(core);
            let kept = v(core, D);
            set_v(core, D, old);
            let done = execute_word(core, word | D);
            let value = v(core, D);
            set_v(core, D, kept);
            done?;
            d.set(core, value);
            Some(())
        }
        Insn::NExt {
            d,
            vn,
            vd,
            imm,
            n,
            q,
            m,
            vm,
        } => {
            let (d, n, m) = (
                Reg::new(q, vd, d)?,
                Reg::new(q, vn, n)?,
                Reg::new(q, vm, m)?,
            );
            let (a, b) = (n.get(core), m.get(core));
            let value = if d.q {
                // shift: below the width of a register
                a >> (8 * imm) | b.checked_shl(128 - 8 * imm).unwrap_or(0)
            } else {
                // shift: below the width of two registers
                (b << 64 | a) >> (8 * imm)
            };
            d.set(core, value);
            Some(())
        }
        Insn::NDup {
            d,
            imm,
            vd,
            q,
            m,
            vm,
        } => {
            let d = Reg::new(q, vd, d)?;
            let size = imm.trailing_zeros();
            // shift: within the width
            let lanes = Lanes::new(8 << size, 1, 0);
            // shift: within the width
            let value = lanes.get(Reg::new(0, vm, m)?.get(core), imm >> (size + 1));
            d.set(core, lanes.build(|_| value));
            Some(())
        }
        Insn::NTbl {
            d,
            vn,
            vd,
            len,
            n,
            ext,
            m,
            vm,
        } => {
            let (d, m) = (Reg::new(0, vd, d)?, Reg::new(0, vm, m)?);
            let first = number(true, vn, n);
            let lanes = Lanes::new(8, 0, 0);
            let (old, indices) = (d.get(core), m.get(core));
            let value = lanes.build(|i| {
                let index = lanes.get(indices, i) as u32;
                if index < 8 * (len + 1) {
                    core.regs.get(d_slot(first + index / 8)) >> (index % 8 * 8) & 0xff
                } else if ext != 0 {
                    lanes.get(old, i)
                } else {
                    0
                }
            });
            d.set(core, value);
            Some(())
        }
        _ => None,
    }
}

/// VSWP, VTRN, VUZP, VZIP: both registers change.
fn exchange(core: &mut Core, op: u32, size: u32, q: u32, (d, m): (Reg, Reg)) -> Option<()> {
    let (a, b) = (d.get(core), m.get(core));
    let (first, second) = match op {
        0 => (b, a),
        _ => {
            let opcode = match op {
                1 => 2,
                2 => 1,
                _ => 3,
            };
            let first = by_a64(core, permute(q, size, opcode), 0, a, b)?;
            let second = by_a64(core, permute(q, size, opcode | 4), 0, a, b)?;
            (first, second)
        }
    };
    // If both are the same register, its value is unknown.
    d.set(core, first);
    m.set(core, second);
    Some(())
}
