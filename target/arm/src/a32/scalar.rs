//! Arithmetic of floating point (DDI 0487, F5.1), as functions on the registers; FPSCR.
#![allow(
    clippy::arithmetic_side_effects,
    reason = "shifts are bounded by the width of a register; tests run with overflow checks"
)]

use accel_core::Trap;
use target_softfloat::{Env, Rounding};

use super::vfp::{Insn, d_slot, decode, number};
use crate::float::arithmetic::{self, Op};
use crate::float::{self, half_input, half_output};
use crate::model::{CpuModel, Feature};
use crate::{Core, mode};

/// FPSCR's bits that are FPCR's: AHP, DN, FZ, RMode. Half precision is only converted, so that there is no
/// FZ16; vectors (Len and Stride) are gone from Armv8.
const FPCR: u64 = 0x07c0_0000;
/// N, Z, C and V of FPSCR, which FPSR holds.
pub(crate) const NZCV: u64 = 0xf000_0000;

/// (): FPSCR.
pub(crate) fn read_fpscr(core: &mut Core, _: [u64; 4]) -> Result<u64, Trap> {
    Ok(core.regs.get(crate::regs::FPCR) & FPCR | float::fpsr_now(core))
}

/// (value, next): FPSCR. Leaves.
pub(crate) fn write_fpscr(core: &mut Core, [value, next, ..]: [u64; 4]) -> Result<u64, Trap> {
    float::set_fpcr(core, value & FPCR);
    float::set_fpsr(core, value);
    mode::refresh(core);
    core.set_pc(next);
    Err(Trap::Leave)
}

/// Whether a model has the instruction.
pub(super) fn is_there(model: &CpuModel, insn: Insn) -> bool {
    match insn {
        Insn::VfpOne { op, t, sz, .. } => match (op, t) {
            // VJCVT.
            (8, _) => true,
            (9, 0) => false,
            (9, _) => sz == 3 && model.has(Feature::Jscvt),
            _ => true,
        },
        _ => true,
    }
}

/// An S or D register.
#[derive(Clone, Copy)]
struct Reg {
    bits: u32,
    n: u32,
}

impl Reg {
    fn new(bits: u32, four: u32, one: u32) -> Reg {
        Reg {
            bits,
            n: number(bits == 64, four, one),
        }
    }

    fn get(self, core: &Core) -> u64 {
        if self.bits == 64 {
            return core.regs.get(d_slot(self.n));
        }
        core.regs.get(d_slot(self.n >> 1)) >> ((self.n & 1) << 5) & 0xffff_ffff
    }

    fn set(self, core: &mut Core, value: u64) {
        if self.bits == 64 {
            core.regs.set(d_slot(self.n), value);
            return;
        }
        let slot = d_slot(self.n >> 1);
        let shift = (self.n & 1) << 5;
        // shift: below the width of a register
        let old = core.regs.get(slot) & !(0xffff_ffff << shift);
        // shift: 0 or 32
        core.regs.set(slot, old | (value & 0xffff_ffff) << shift);
    }
}

/// (instruction): executes it.
pub(crate) fn run(core: &mut Core, [word, ..]: [u64; 4]) -> Result<u64, Trap> {
    let done = decode(word as u32).and_then(|insn| {
        let mut env = float::env(core, false);
        execute(core, insn, &mut env)?;
        float::settle(core, &env, false);
        Some(())
    });
    match done {
        Some(()) => Ok(0),
        None => Err(crate::system::exception::undefined(core)),
    }
}

fn width(sz: u32) -> u32 {
    if sz == 3 { 64 } else { 32 }
}

fn execute(core: &mut Core, insn: Insn, env: &mut Env) -> Option<()> {
    match insn {
        Insn::VfpThree {
            d,
            op1,
            vn,
            vd,
            sz,
            n,
            op,
            m,
            vm,
            fused,
            ..
        } => {
            let bits = width(sz);
            let (d, n, m) = (
                Reg::new(bits, vd, d),
                Reg::new(bits, vn, n),
                Reg::new(bits, vm, m),
            );
            let (a, b) = (n.get(core), m.get(core));
            let value = match fused {
                0 => plain(bits, (op1, op), (a, b), d.get(core), env),
                _ => fused_or_divided(bits, (op1, op), (a, b), d.get(core), env)?,
            };
            d.set(core, value);
        }
        Insn::Vmaxnm {
            d,
            vn,
            vd,
            sz,
            n,
            min,
            m,
            vm,
        } => {
            let bits = width(sz);
            let a = Reg::new(bits, vn, n).get(core);
            let b = Reg::new(bits, vm, m).get(core);
            let op = if min != 0 {
                Op::MinNumber
            } else {
                Op::MaxNumber
            };
            let value = arithmetic::two(bits, op, a, b, env);
            Reg::new(bits, vd, d).set(core, value);
        }
        Insn::VrintTo {
            d,
            rm,
            vd,
            sz,
            m,
            vm,
        } => {
            let bits = width(sz);
            let a = Reg::new(bits, vm, m).get(core);
            let value = arithmetic::round(bits, a, direction(rm), false, env);
            Reg::new(bits, vd, d).set(core, value);
        }
        Insn::VcvtTo {
            d,
            rm,
            vd,
            sz,
            signed,
            m,
            vm,
        } => {
            let bits = width(sz);
            let a = Reg::new(bits, vm, m).get(core);
            let value = arithmetic::to_int((bits, 32), signed == 0, 0, direction(rm), a, env);
            Reg::new(32, vd, d).set(core, value);
        }
        Insn::VfpOne {
            d,
            op,
            vd,
            sz,
            t,
            m,
            vm,
            ..
        } => return one(core, (op, t), width(sz), (vd, d), (vm, m), env),
        _ => return None,
    }
    Some(())
}

/// Rounding of VRINTA and the like.
fn direction(rm: u32) -> Rounding {
    match rm {
        0 => Rounding::NearestAway,
        1 => Rounding::NearestEven,
        2 => Rounding::Up,
        _ => Rounding::Down,
    }
}

/// VMLA, VMLS, VNMLS, VNMLA, VMUL, VNMUL, VADD, VSUB: products are rounded before they are added.
fn plain(bits: u32, (op1, op): (u32, u32), (a, b): (u64, u64), d: u64, env: &mut Env) -> u64 {
    let negate = |v: u64, yes: bool| if yes { arithmetic::negated(bits, v) } else { v };
    match (op1, op) {
        (3, 0) => arithmetic::two(bits, Op::Add, a, b, env),
        (3, _) => arithmetic::two(bits, Op::Sub, a, b, env),
        _ => {
            let product = arithmetic::two(bits, Op::Mul, a, b, env);
            match op1 {
                2 => negate(product, op != 0),
                // The sign of the product, and of the addend.
                0 => arithmetic::two(bits, Op::Add, d, negate(product, op != 0), env),
                _ => {
                    let addend = negate(d, true);
                    arithmetic::two(bits, Op::Add, addend, negate(product, op != 0), env)
                }
            }
        }
    }
}

/// VDIV, VFMA, VFMS, VFNMA, VFNMS.
fn fused_or_divided(
    bits: u32,
    (op1, op): (u32, u32),
    (a, b): (u64, u64),
    d: u64,
    env: &mut Env,
) -> Option<u64> {
    Some(match (op1, op) {
        (0, 0) => arithmetic::two(bits, Op::Div, a, b, env),
        (1, _) => {
            let addend = arithmetic::negated(bits, d);
            arithmetic::mul_add(bits, (a, op != 0), b, addend, env)
        }
        (2, _) => arithmetic::mul_add(bits, (a, op != 0), b, d, env),
        _ => return None,
    })
}

/// NZCV of a comparison, to FPSCR.
fn compare(core: &mut Core, bits: u32, a: u64, b: u64, signals: bool, env: &mut Env) {
    let nzcv = float::compare_in(bits, a, b, signals, env);
    let old = core.regs.get(crate::regs::FPSR);
    core.regs.set(crate::regs::FPSR, old & !NZCV | nzcv);
}

/// Instructions of one operand.
fn one(
    core: &mut Core,
    (op, t): (u32, u32),
    bits: u32,
    (vd, d): (u32, u32),
    (vm, m): (u32, u32),
    env: &mut Env,
) -> Option<()> {
    let to = Reg::new(bits, vd, d);
    let from = Reg::new(bits, vm, m);
    let current = env.rounding;
    let value = match (op, t) {
        (1, 1) => arithmetic::sqrt(bits, from.get(core), env),
        (2, _) => {
            // VCVTB, VCVTT from half precision.
            half_input(env);
            // shift: below the width of a register
            let a = Reg::new(32, vm, m).get(core) >> (t << 4) & 0xffff;
            arithmetic::convert((16, bits), a, float::is_alternative(core), env)
        }
        (3, _) => {
            half_output(env);
            let alternative = float::is_alternative(core);
            let v = arithmetic::convert((bits, 16), from.get(core), alternative, env);
            let to = Reg::new(32, vd, d);
            let shift = t << 4;
            // shift: below the width of a register
            let old = to.get(core) & !(0xffff << shift);
            // shift: 0 or 16
            to.set(core, old | (v & 0xffff) << shift);
            return Some(());
        }
        (4 | 5, _) => {
            let b = if op == 5 { 0 } else { from.get(core) };
            if op == 5 && (vm, m) != (0, 0) {
                return None;
            }
            compare(core, bits, to.get(core), b, t != 0, env);
            return Some(());
        }
        (6, 0) => arithmetic::round(bits, from.get(core), current, false, env),
        (6, _) => arithmetic::round(bits, from.get(core), Rounding::TowardZero, false, env),
        (7, 0) => arithmetic::round(bits, from.get(core), current, true, env),
        (7, _) => {
            // Between single and double precision: `bits` is the operand's.
            let other = 96 - bits;
            let v = arithmetic::convert((bits, other), from.get(core), false, env);
            Reg::new(other, vd, d).set(core, v);
            return Some(());
        }
        (8, _) => {
            let a = Reg::new(32, vm, m).get(core);
            arithmetic::from_int((bits, 32), t == 0, 0, a, env)
        }
        (9, 1) => {
            let (value, exact) = float::to_javascript(from.get(core), env);
            Reg::new(32, vd, d).set(core, value);
            let old = core.regs.get(crate::regs::FPSR) & !NZCV;
            core.regs
                .set(crate::regs::FPSR, old | u64::from(exact) << 30);
            return Some(());
        }
        (12 | 13, _) => {
            let mode = if t != 0 {
                Rounding::TowardZero
            } else {
                current
            };
            let v = arithmetic::to_int((bits, 32), op == 12, 0, mode, from.get(core), env);
            Reg::new(32, vd, d).set(core, v);
            return Some(());
        }
        (10 | 11 | 14 | 15, _) => return fixed(core, (op, t), to, vm << 1 | m, env),
        _ => return None,
    };
    to.set(core, value);
    Some(())
}

/// VCVT between floating point and fixed point, in one register.
fn fixed(core: &mut Core, (op, t): (u32, u32), r: Reg, imm: u32, env: &mut Env) -> Option<()> {
    let size = if t != 0 { 32 } else { 16 };
    let fraction = u32::checked_sub(size, imm)?;
    let unsigned = op & 1 != 0;
    let a = r.get(core);
    if op < 12 {
        let a = a & u64::MAX >> (64 - size);
        // To nearest, whatever the mode is.
        env.rounding = Rounding::NearestEven;
        // A sign is in the wider number.
        let wide = match (unsigned, size) {
            (false, 16) => i64::from(a as i16) as u64 & 0xffff_ffff,
            _ => a,
        };
        let v = arithmetic::from_int((r.bits, 32), unsigned, fraction, wide, env);
        r.set(core, v);
        return Some(());
    }
    let zero = Rounding::TowardZero;
    let v = arithmetic::to_int((r.bits, size), unsigned, fraction, zero, a, env);
    // The register is filled up.
    let v = match unsigned {
        true => v,
        false => crate::simd::sext(v, size) as u64,
    };
    r.set(core, v);
    Some(())
}
