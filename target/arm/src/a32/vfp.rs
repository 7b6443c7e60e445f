//! Floating point (DDI 0487, E1.3, F5.1.227 on "VABS"): registers, loads and stores here, arithmetic in
//! [`super::arithmetic`] and [`super::scalar`].
//!
//! D registers are halves of V0 to V15 (D1.4 "Mapping of the SIMD and floating-point registers between
//! the Execution states"), S registers halves of D0 to D15. Half precision is only converted.

use accel_ir::{Mem, Slot, Ty, Val};

use super::bits::no_pc;
use super::context::Ctx;
use crate::simd::moves::float_immediate;
use crate::{helper, regs};

mod table {
    include!(concat!(env!("OUT_DIR"), "/vfp.rs"));
}
pub(super) use table::{FORMS, Insn, decode};

/// The slot of a D register.
pub(crate) fn d_slot(n: u32) -> Slot {
    Slot(regs::V.0.wrapping_add((n & 31) as u8))
}

/// Number of an S or D register: four bits and one more, which is on top of the numbers of D registers
/// and at the bottom of those of S registers.
pub(crate) fn number(double: bool, four: u32, one: u32) -> u32 {
    if double {
        one << 4 | four
    } else {
        four << 1 | one
    }
}

impl Ctx {
    /// A D register.
    pub(super) fn d(&mut self, n: u32) -> Val {
        self.b.get(d_slot(n))
    }

    pub(super) fn set_d(&mut self, n: u32, v: Val) {
        self.b.set(d_slot(n), v);
    }

    /// An S register.
    pub(super) fn s(&mut self, n: u32) -> Val {
        if n & 1 == 0 {
            return self.b.get_low(d_slot(n >> 1), Ty::I32);
        }
        let both = self.d(n >> 1);
        self.b.extract(both, 32, 32, Ty::I32)
    }

    pub(super) fn set_s(&mut self, n: u32, v: Val) {
        let both = self.d(n >> 1);
        let both = self.b.insert(both, v, ((n & 1) << 5) as u8, 32);
        self.set_d(n >> 1, both);
    }

    pub(super) fn fp(&mut self, double: bool, n: u32) -> Val {
        if double { self.d(n) } else { self.s(n) }
    }

    fn set_fp(&mut self, double: bool, n: u32, v: Val) {
        match double {
            true => self.set_d(n, v),
            false => self.set_s(n, v),
        }
    }
}

pub(super) fn translate(c: &mut Ctx, word: u32) -> Option<()> {
    let insn = decode(word)?;
    if !c.fp_access() {
        return Some(());
    }
    match insn {
        Insn::Vsel {
            d,
            cc,
            vn,
            vd,
            sz,
            n,
            m,
            vm,
        } => {
            // EQ, VS, GE, GT.
            let cond = [0, 6, 10, 12].get(cc as usize & 3).copied()?;
            let double = sz == 3;
            let (d, n, m) = (
                number(double, vd, d),
                number(double, vn, n),
                number(double, vm, m),
            );
            let holds = c.holds(cond);
            let (a, b) = (c.fp(double, n), c.fp(double, m));
            let v = c.b.select(holds, a, b);
            c.set_fp(double, d, v);
            Some(())
        }
        Insn::VmovTwo {
            l,
            rt2,
            rt,
            double,
            m,
            vm,
            ..
        } => move_two(c, l != 0, (rt, rt2), double != 0, (vm, m)),
        Insn::Vldm {
            p,
            u,
            d,
            w,
            l,
            rn,
            vd,
            double,
            imm,
            single,
            ..
        } => {
            let registers = Registers {
                double: double != 0,
                first: number(double != 0, vd, d),
                load: l != 0,
            };
            if single != 0 {
                return one_register(c, registers, rn, u != 0, imm);
            }
            multiple(c, registers, rn, (p, u, w), imm)
        }
        Insn::VmovCore { l, vn, rt, n, .. } => {
            no_pc(&[rt])?;
            let s = number(false, vn, n);
            if l != 0 {
                let v = c.s(s);
                c.set_r(rt, v);
            } else {
                let v = c.r(rt);
                c.set_s(s, v);
            }
            Some(())
        }
        Insn::Vmrs { l, rt, .. } => status(c, l != 0, rt),
        Insn::VmovTo {
            op1,
            vd,
            rt,
            d,
            op2,
            ..
        } => {
            no_pc(&[rt])?;
            let (bits, lane) = lane(op1, op2)?;
            let n = number(true, vd, d);
            let v = c.r(rt);
            let old = c.d(n);
            let new =
                c.b.insert(old, v, lane.wrapping_mul(bits) as u8, bits as u8);
            c.set_d(n, new);
            Some(())
        }
        Insn::VmovFrom {
            u,
            op1,
            vn,
            rt,
            n,
            op2,
            ..
        } => {
            no_pc(&[rt])?;
            let (bits, lane) = lane(op1, op2)?;
            if bits == 32 && u != 0 {
                return None;
            }
            let v = c.d(number(true, vn, n));
            let at = lane.wrapping_mul(bits) as u8;
            let v = c.b.extract(v, at, bits as u8, Ty::I32);
            let v = if u == 0 {
                let narrow = c.b.zext(v, Ty::of_bytes(bits / 8));
                c.b.sext(narrow, Ty::I32)
            } else {
                v
            };
            c.set_r(rt, v);
            Some(())
        }
        Insn::VdupCore {
            b, q, vd, rt, d, e, ..
        } => {
            no_pc(&[rt])?;
            if q != 0 && vd & 1 != 0 || b != 0 && e != 0 {
                return None;
            }
            let v = c.r(rt);
            let v = c.b.zext(v, Ty::I64);
            let (mask, spread) = match (b, e) {
                (0, 0) => (0xffff_ffff, 0x1_0000_0001),
                (0, _) => (0xffff, 0x1_0001_0001_0001),
                _ => (0xff, 0x101_0101_0101_0101),
            };
            let v = c.binary_imm(accel_ir::Binary::And, v, mask);
            let v = c.binary_imm(accel_ir::Binary::Mul, v, spread);
            let first = number(true, vd, d);
            for n in 0..=q {
                c.set_d(first.wrapping_add(n), v);
            }
            Some(())
        }
        Insn::VfpImm {
            d,
            high,
            vd,
            sz,
            low,
            ..
        } => {
            let double = sz == 3;
            let ty = if double { Ty::I64 } else { Ty::I32 };
            let v = float_immediate(high << 4 | low, ty.bits());
            let v = c.imm(ty, v);
            c.set_fp(double, number(double, vd, d), v);
            Some(())
        }
        // VMOV, VABS, VNEG.
        Insn::VfpOne {
            d,
            op: op @ (0 | 1),
            vd,
            sz,
            t,
            m,
            vm,
            ..
        } if (op, t) != (1, 1) => {
            let double = sz == 3;
            let v = c.fp(double, number(double, vm, m));
            let sign = if double { 1u64 << 63 } else { 1 << 31 };
            let v = match (op, t) {
                (0, 0) => v,
                (0, _) => c.binary_imm(accel_ir::Binary::And, v, sign.wrapping_sub(1)),
                _ => c.binary_imm(accel_ir::Binary::Xor, v, sign),
            };
            c.set_fp(double, number(double, vd, d), v);
            Some(())
        }
        Insn::VfpOne { .. }
        | Insn::VfpThree { .. }
        | Insn::Vmaxnm { .. }
        | Insn::VrintTo { .. }
        | Insn::VcvtTo { .. } => {
            if !super::scalar::is_there(&c.model, insn) {
                return None;
            }
            if super::arithmetic::emit(c, word, insn).is_none() {
                let word = c.imm(Ty::I64, word.into());
                c.b.call_void(helper::SCALAR_32, &[word]);
            }
            Some(())
        }
    }
}

/// Width and number of a lane that VMOV moves.
fn lane(op1: u32, op2: u32) -> Option<(u32, u32)> {
    Some(match (op1 & 2, op2) {
        (2, _) => (8, (op1 & 1) << 2 | op2),
        (_, op2) if op2 & 1 != 0 => (16, (op1 & 1) << 1 | op2 >> 1),
        (_, 0) => (32, op1 & 1),
        _ => return None,
    })
}

/// VMOV of two core registers and a D register or two S registers.
fn move_two(
    c: &mut Ctx,
    to_core: bool,
    (rt, rt2): (u32, u32),
    double: bool,
    (vm, m): (u32, u32),
) -> Option<()> {
    no_pc(&[rt, rt2])?;
    let first = number(double, vm, m);
    if !double && first == 31 || to_core && rt == rt2 {
        return None;
    }
    if to_core {
        let (low, high) = if double {
            let v = c.d(first);
            let low = c.b.zext(v, Ty::I32);
            (low, c.b.extract(v, 32, 32, Ty::I32))
        } else {
            let low = c.s(first);
            (low, c.s(first.wrapping_add(1)))
        };
        c.set_r(rt, low);
        c.set_r(rt2, high);
        return Some(());
    }
    let (low, high) = (c.r(rt), c.r(rt2));
    if double {
        let low = c.b.zext(low, Ty::I64);
        let high = c.b.zext(high, Ty::I64);
        let v = c.b.insert(low, high, 32, 32);
        c.set_d(first, v);
    } else {
        c.set_s(first, low);
        c.set_s(first.wrapping_add(1), high);
    }
    Some(())
}

/// VMRS and VMSR of FPSCR; register 15 stands for the flags.
fn status(c: &mut Ctx, read: bool, rt: u32) -> Option<()> {
    if read && rt == 15 {
        let fpsr = c.b.get(regs::FPSR);
        super::alu::write_nzcv(c, fpsr);
    } else if read {
        let v = c.call(helper::READ_FPSCR, &[]);
        let v = c.b.zext(v, Ty::I32);
        c.set_r(rt, v);
    } else {
        no_pc(&[rt])?;
        let v = c.r(rt);
        c.settle_it();
        let v = c.b.zext(v, Ty::I64);
        let next = c.after();
        let next = c.imm(Ty::I64, next);
        c.b.call_void(helper::WRITE_FPSCR, &[v, next]);
        c.b.leave();
    }
    Some(())
}

/// S or D registers that are loaded or stored.
#[derive(Clone, Copy)]
struct Registers {
    double: bool,
    first: u32,
    load: bool,
}

impl Registers {
    fn ty(self) -> Ty {
        if self.double { Ty::I64 } else { Ty::I32 }
    }

    /// Words are aligned, D registers too only to words.
    fn check(self, c: &mut Ctx, address: Val) {
        if self.double {
            super::neon::check_alignment(c, address, 4, !self.load);
        }
    }

    fn mem(self, c: &Ctx) -> Mem {
        Mem {
            aligned: !self.double,
            ..c.data(self.ty())
        }
    }
}

/// VLDR, VSTR.
fn one_register(c: &mut Ctx, r: Registers, rn: u32, up: bool, imm: u32) -> Option<()> {
    if rn == 15 && !r.load && c.thumb {
        return None;
    }
    let base = match rn {
        15 => {
            let pc = c.pc_base();
            c.imm(Ty::I32, pc)
        }
        _ => c.r(rn),
    };
    let offset = u64::from(imm) << 2;
    let offset = if up { offset } else { offset.wrapping_neg() };
    let address = c.b.add_const(base, offset & 0xffff_ffff);
    let address = c.address(address);
    r.check(c, address);
    let mem = r.mem(c);
    if r.load {
        let v = c.b.load(address, mem);
        c.set_fp(r.double, r.first, v);
    } else {
        let v = c.fp(r.double, r.first);
        c.b.store(address, v, mem);
    }
    Some(())
}

/// VLDM, VSTM, VPUSH, VPOP; FLDMX and FSTMX, which move one word less than they step.
fn multiple(
    c: &mut Ctx,
    r: Registers,
    rn: u32,
    (p, u, w): (u32, u32, u32),
    imm: u32,
) -> Option<()> {
    let forms = matches!((p, u, w), (0, 1, _) | (1, 0, 1));
    let count = if r.double { imm >> 1 } else { imm };
    let last = r.first.wrapping_add(count);
    if !forms || count == 0 || last > 32 || r.double && count > 16 {
        return None;
    }
    if rn == 15 && (w != 0 || c.thumb) {
        return None;
    }
    let base = c.r(rn);
    let bytes = u64::from(imm) << 2;
    let step = if u != 0 { bytes } else { bytes.wrapping_neg() };
    let moved = c.b.add_const(base, step & 0xffff_ffff);
    let first = c.address(if u != 0 { base } else { moved });
    r.check(c, first);
    let mem = r.mem(c);
    let size = u64::from(r.ty().bytes());
    let places = (0..u64::from(count)).map(|n| n.wrapping_mul(size));
    let numbers = r.first..last;
    if r.load {
        let mut loaded = Vec::with_capacity(32);
        for (n, at) in numbers.zip(places) {
            let address = c.past(first, at);
            loaded.push((n, c.b.load(address, mem)));
        }
        for (n, v) in loaded {
            c.set_fp(r.double, n, v);
        }
    } else {
        if count > 1 {
            let end = c.past(first, u64::from(count).wrapping_sub(1).wrapping_mul(size));
            c.b.probe(end, mem);
        }
        for (n, at) in numbers.zip(places) {
            let v = c.fp(r.double, n);
            let address = c.past(first, at);
            c.b.store(address, v, mem);
        }
    }
    if w != 0 {
        c.set_r(rn, moved);
    }
    Some(())
}
