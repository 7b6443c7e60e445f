//! The T32 instruction set (DDI 0487, F3): encodings.

use accel_ir::{Cmp, Ty};

use super::alu::{self, Alu, Operand};
use super::bits::{self, Part};
use super::context::Ctx;
use super::memory::{self, Exclusive, Index, Move};
use super::multiply;
use super::system;
use super::thumb_wide::wide;

mod table {
    include!(concat!(env!("OUT_DIR"), "/t32.rs"));
}
pub(super) use table::{FORMS, Insn, decode};

pub(super) fn constant(value: u32) -> Operand {
    Operand::Constant(value, None)
}

fn register(rm: u32) -> Operand {
    Operand::Shifted(rm, 0, 0)
}

/// SP and the PC are no registers for most instructions of 32 bits: unpredictable but for SP, which
/// Armv8 allows.
pub(super) fn general(registers: &[u32]) -> Option<()> {
    bits::no_pc(registers)
}

pub(super) fn exclusive(size: u32, rn: u32, rt: u32, rt2: u32) -> Option<Exclusive> {
    let ty = match size {
        0 => Ty::I8,
        1 => Ty::I16,
        2 => Ty::I32,
        _ => Ty::I64,
    };
    // The field of the second register should be ones.
    if ty != Ty::I64 && rt2 != 15 {
        return None;
    }
    Some(Exclusive {
        ty,
        rn,
        rt,
        rt2,
        offset: 0,
    })
}

/// Distance of B.W, BL and BLX: the bits above the low ones.
pub(super) fn distance(s: u32, j1: u32, j2: u32, high: u32) -> u64 {
    let (i1, i2) = (j1 ^ s ^ 1, j2 ^ s ^ 1);
    let value = s << 24 | i1 << 23 | i2 << 22 | high << 12;
    i64::from((value << 7).cast_signed() >> 7) as u64
}

pub(super) fn translate(c: &mut Ctx) -> Option<()> {
    match decode(c.word)? {
        Insn::TShift {
            r#type,
            imm,
            rm,
            rd,
        } => {
            if r#type == 0 && imm == 0 && c.in_it_block() {
                // MOV (register) that sets flags.
                return None;
            }
            let s = c.sets_flags();
            alu::alu(c, Alu::Mov, s, (rd, 0), Operand::Shifted(rm, r#type, imm))
        }
        Insn::TAddReg { sub, rm, rn, rd } => {
            let s = c.sets_flags();
            let op = if sub != 0 { Alu::Sub } else { Alu::Add };
            alu::alu(c, op, s, (rd, rn), register(rm))
        }
        Insn::TAddImm { sub, imm, rn, rd } => {
            let s = c.sets_flags();
            let op = if sub != 0 { Alu::Sub } else { Alu::Add };
            alu::alu(c, op, s, (rd, rn), constant(imm))
        }
        Insn::TImm8 { op, rd, imm } => {
            let s = c.sets_flags();
            let op = match op {
                0 => Alu::Mov,
                1 => Alu::Cmp,
                2 => Alu::Add,
                _ => Alu::Sub,
            };
            alu::alu(c, op, s, (rd, rd), constant(imm))
        }
        Insn::TAlu { op, rm, rd } => low_registers(c, op, rm, rd),
        Insn::TAddHigh { h, rm, rd } => {
            let rd = h << 3 | rd;
            if rd == 15 && rm == 15 {
                return None;
            }
            alu::alu(c, Alu::Add, 0, (rd, rd), register(rm))
        }
        Insn::TCmpHigh { h, rm, rn } => {
            let rn = h << 3 | rn;
            if rn == 15 || rm == 15 || rn < 8 && rm < 8 {
                return None;
            }
            alu::alu(c, Alu::Cmp, 1, (0, rn), register(rm))
        }
        Insn::TMovHigh { h, rm, rd } => alu::alu(c, Alu::Mov, 0, (h << 3 | rd, 0), register(rm)),
        Insn::TBx { link, rm } => {
            c.may_branch()?;
            if link != 0 {
                general(&[rm])?;
            }
            let target = c.r(rm);
            let via = match link {
                0 => Ctx::by_register(rm),
                _ => c.link(),
            };
            c.exchange(target, via);
            Some(())
        }
        Insn::TLdrLit { rt, imm } => {
            let what = Move::new(2, 0, 1);
            memory::single(c, what, (rt, 15), Index::plain(), constant(imm << 2))
        }
        Insn::TLdstReg { op, rm, rn, rt } => {
            let what = match op {
                0 => Move::new(2, 0, 0),
                1 => Move::new(1, 0, 0),
                2 => Move::new(0, 0, 0),
                3 => Move::new(0, 1, 1),
                4 => Move::new(2, 0, 1),
                5 => Move::new(1, 0, 1),
                6 => Move::new(0, 0, 1),
                _ => Move::new(1, 1, 1),
            };
            memory::single(c, what, (rt, rn), Index::plain(), register(rm))
        }
        Insn::TLdstImm { b, l, imm, rn, rt } => {
            let size = if b != 0 { 0 } else { 2 };
            let what = Move::new(size, 0, l);
            // shift: 0 or 2
            memory::single(c, what, (rt, rn), Index::plain(), constant(imm << size))
        }
        Insn::TLdstHalf { l, imm, rn, rt } => {
            let what = Move::new(1, 0, l);
            memory::single(c, what, (rt, rn), Index::plain(), constant(imm << 1))
        }
        Insn::TLdstSp { l, rt, imm } => {
            let what = Move::new(2, 0, l);
            memory::single(c, what, (rt, 13), Index::plain(), constant(imm << 2))
        }
        Insn::TAddress { sp, rd, imm } => {
            let base = match sp {
                0 => {
                    let pc = c.pc_base();
                    c.imm(Ty::I32, pc)
                }
                _ => c.r(13),
            };
            let v = c.b.add_const(base, u64::from(imm << 2));
            c.set_r(rd, v);
            Some(())
        }
        Insn::TAddSp { sub, imm } => {
            let op = if sub != 0 { Alu::Sub } else { Alu::Add };
            alu::alu(c, op, 0, (13, 13), constant(imm << 2))
        }
        Insn::TExtend { u, byte, rm, rd } => {
            let part = if byte != 0 { Part::Byte } else { Part::Half };
            bits::extend(c, part, u, (rd, 15, rm), 0)
        }
        Insn::TCbz { nz, i, imm, rn } => {
            if c.in_it_block() {
                return None;
            }
            let v = c.r(rn);
            let zero = c.i32(0);
            let op = if nz != 0 { Cmp::Ne } else { Cmp::Eq };
            let holds = c.b.cmp(op, v, zero);
            let target = c.pc_value().wrapping_add((i << 6 | imm << 1).into());
            c.go_if(holds, target);
            Some(())
        }
        Insn::TPush { lr, list } => {
            let index = Index {
                before: true,
                up: false,
                back: true,
            };
            memory::block(c, false, index, 13, list | lr << 14)
        }
        Insn::TPop { pc, list } => {
            let index = Index {
                before: false,
                up: true,
                back: true,
            };
            memory::block(c, true, index, 13, list | pc << 15)
        }
        Insn::TSetpan => system::setpan(c),
        Insn::TSetend { e } => system::setend(c, e),
        // At EL0 a NOP.
        Insn::TCps => Some(()),
        Insn::TRev { op, rm, rd } => bits::reverse(c, op, rd, rm),
        Insn::THlt { imm } => system::hlt(c, imm),
        Insn::TBkpt { imm } => system::bkpt(c, imm),
        Insn::TIt { cond, mask } => {
            let is_one = mask.is_power_of_two();
            if c.mode.has_short_it_blocks() && mask != 8 {
                return None;
            }
            if c.in_it_block() || cond == 15 || cond == 14 && !is_one {
                return None;
            }
            c.it_next = (cond << 4 | mask) as u8;
            Some(())
        }
        Insn::THint { hint } => system::hint(c, hint),
        Insn::TBlock { l, rn, list } => {
            // LDM writes back unless it loads the base register.
            let back = l == 0 || list.wrapping_shr(rn) & 1 == 0;
            let index = Index {
                before: false,
                up: true,
                back,
            };
            memory::block(c, l != 0, index, rn, list)
        }
        Insn::TBCond { cond, imm } => branch_if(c, cond, (i64::from(imm) << 1) as u64),
        Insn::TSvc { imm } => system::svc(c, imm),
        Insn::TB { imm } => {
            c.may_branch()?;
            let target = c.pc_value().wrapping_add((i64::from(imm) << 1) as u64);
            c.go(target);
            Some(())
        }
        other => wide(c, other),
    }
}

/// B with a condition of its own: not in an IT block.
pub(super) fn branch_if(c: &mut Ctx, cond: u32, distance: u64) -> Option<()> {
    if c.in_it_block() {
        return None;
    }
    let target = c.pc_value().wrapping_add(distance);
    let holds = c.holds(cond);
    c.go_if(holds, target);
    Some(())
}

/// Data processing of low registers (F3.1.2).
fn low_registers(c: &mut Ctx, op: u32, rm: u32, rd: u32) -> Option<()> {
    let s = c.sets_flags();
    let plain = register(rm);
    let shift = |kind| Operand::ShiftedBy(rd, kind, rm);
    match op {
        0 => alu::alu(c, Alu::And, s, (rd, rd), plain),
        1 => alu::alu(c, Alu::Eor, s, (rd, rd), plain),
        2 => alu::alu(c, Alu::Mov, s, (rd, 0), shift(0)),
        3 => alu::alu(c, Alu::Mov, s, (rd, 0), shift(1)),
        4 => alu::alu(c, Alu::Mov, s, (rd, 0), shift(2)),
        5 => alu::alu(c, Alu::Adc, s, (rd, rd), plain),
        6 => alu::alu(c, Alu::Sbc, s, (rd, rd), plain),
        7 => alu::alu(c, Alu::Mov, s, (rd, 0), shift(3)),
        8 => alu::alu(c, Alu::Tst, 1, (0, rd), plain),
        9 => alu::alu(c, Alu::Rsb, s, (rd, rm), constant(0)),
        10 => alu::alu(c, Alu::Cmp, 1, (0, rd), plain),
        11 => alu::alu(c, Alu::Cmn, 1, (0, rd), plain),
        12 => alu::alu(c, Alu::Orr, s, (rd, rd), plain),
        13 => multiply::multiply(c, s, (rd, rm, rd), None),
        14 => alu::alu(c, Alu::Bic, s, (rd, rd), plain),
        _ => alu::alu(c, Alu::Mvn, s, (rd, 0), plain),
    }
}
