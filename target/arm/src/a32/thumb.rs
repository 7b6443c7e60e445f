//! The T32 instruction set (DDI 0487, F3): encodings.

use accel_ir::{Cmp, Ty};

use super::alu::{self, Alu, Operand, Part};
use super::context::Ctx;
use super::memory::{self, Exclusive, Index, Move};
use super::multiply;
use super::system;

mod table {
    include!(concat!(env!("OUT_DIR"), "/t32.rs"));
}
use table::Insn;
pub(super) use table::{FORMS, decode};

fn constant(value: u32) -> Operand {
    Operand::Constant(value, None)
}

fn register(rm: u32) -> Operand {
    Operand::Shifted(rm, 0, 0)
}

/// SP and the PC are no registers for most instructions of 32 bits: unpredictable but for SP, which
/// Armv8 allows.
fn general(registers: &[u32]) -> Option<()> {
    alu::no_pc(registers)
}

fn exclusive(size: u32, rn: u32, rt: u32, rt2: u32) -> Option<Exclusive> {
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
fn distance(s: u32, j1: u32, j2: u32, high: u32) -> u64 {
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
            if link != 0 {
                c.link();
            }
            c.exchange(target);
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
            alu::extend(c, part, u, (rd, 15, rm), 0)
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
        Insn::TRev { op, rm, rd } => alu::reverse(c, op, rd, rm),
        Insn::TBkpt { imm } => system::bkpt(c, imm),
        Insn::TIt { cond, mask } => {
            let is_one = mask.is_power_of_two();
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
fn branch_if(c: &mut Ctx, cond: u32, distance: u64) -> Option<()> {
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

/// Instructions of 32 bits.
fn wide(c: &mut Ctx, insn: Insn) -> Option<()> {
    match insn {
        Insn::TwBlock {
            w,
            l,
            rn,
            list,
            down,
        } => {
            let has = |n: u32| list.wrapping_shr(n) & 1 != 0;
            if has(13) || has(15) && (l == 0 || has(14)) || list.count_ones() < 2 {
                return None;
            }
            if w != 0 && has(rn) {
                return None;
            }
            let index = Index {
                before: down != 0,
                up: down == 0,
                back: w != 0,
            };
            memory::block(c, l != 0, index, rn, list)
        }
        Insn::TwLdrex { rn, rt, imm } => {
            let e = Exclusive {
                offset: imm << 2,
                ..exclusive(2, rn, rt, 15)?
            };
            memory::load_exclusive(c, e)
        }
        Insn::TwStrex { rn, rt, rd, imm } => {
            let e = Exclusive {
                offset: imm << 2,
                ..exclusive(2, rn, rt, 15)?
            };
            memory::store_exclusive(c, e, rd)
        }
        Insn::TwLdrexOf { rn, rt, rt2, size } => {
            memory::load_exclusive(c, exclusive(size, rn, rt, rt2)?)
        }
        Insn::TwStrexOf {
            rn,
            rt,
            rt2,
            size,
            rd,
        } => memory::store_exclusive(c, exclusive(size, rn, rt, rt2)?, rd),
        Insn::TwLda { rn, rt, size } => memory::load_acquire(c, exclusive(size, rn, rt, 15)?),
        Insn::TwStl { rn, rt, size } => memory::store_release(c, exclusive(size, rn, rt, 15)?),
        Insn::TwTable { rn, h, rm } => memory::table_branch(c, h, rn, rm),
        Insn::TwPair {
            p,
            u,
            w,
            l,
            rn,
            rt,
            rt2,
            imm,
        } => memory::pair(
            c,
            l != 0,
            (rt, rt2, rn),
            Index::new(p, u, w),
            constant(imm << 2),
        ),
        Insn::TwPkh {
            rn,
            imm3,
            rd,
            imm2,
            tb,
            rm,
        } => alu::pack(c, (rd, rn, rm), tb, imm3 << 2 | imm2),
        Insn::TwShift {
            op,
            s,
            rn,
            imm3,
            rd,
            imm2,
            r#type,
            rm,
        } => {
            let operand = Operand::Shifted(rm, r#type, imm3 << 2 | imm2);
            data(c, (op, s), (rd, rn), operand)
        }
        Insn::TwImm {
            i,
            op,
            s,
            rn,
            imm3,
            rd,
            imm8,
        } => data(c, (op, s), (rd, rn), alu::t32_constant(i, imm3, imm8)),
        Insn::TwAddImm {
            i,
            rn,
            imm3,
            rd,
            imm8,
            sub,
        } => {
            general(&[rd])?;
            let imm = u64::from(i << 11 | imm3 << 8 | imm8);
            let base = match rn {
                15 => {
                    let pc = c.pc_base();
                    c.imm(Ty::I32, pc)
                }
                _ => c.r(rn),
            };
            let distance = if sub != 0 { imm.wrapping_neg() } else { imm };
            let v = c.b.add_const(base, distance & 0xffff_ffff);
            c.set_r(rd, v);
            Some(())
        }
        Insn::TwMovWide {
            i,
            top,
            imm4,
            imm3,
            rd,
            imm8,
        } => alu::move_wide(c, top, rd, imm4 << 12 | i << 11 | imm3 << 8 | imm8),
        Insn::TwSat16 { u, rn, rd, sat } => alu::saturate_halves(c, (u, sat), (rd, rn)),
        Insn::TwSat {
            u,
            sh,
            rn,
            imm3,
            rd,
            imm2,
            sat,
        } => {
            let amount = imm3 << 2 | imm2;
            // Else SSAT16 and USAT16.
            if sh != 0 && amount == 0 {
                return None;
            }
            alu::saturate(c, (u, sat), (rd, rn), (sh, amount))
        }
        Insn::TwBfx {
            u,
            rn,
            imm3,
            rd,
            imm2,
            width,
        } => alu::extract(c, u, (rd, rn), imm3 << 2 | imm2, width),
        Insn::TwBfi {
            rn,
            imm3,
            rd,
            imm2,
            msb,
        } => alu::insert(c, (rd, rn), imm3 << 2 | imm2, msb),
        Insn::TwHint { hint } => system::hint(c, hint),
        Insn::TwClrex => system::clrex(c),
        Insn::TwBarrier { op, .. } => system::barrier(c, op),
        Insn::TwBxj { rm } => {
            general(&[rm])?;
            c.may_branch()?;
            let target = c.r(rm);
            c.exchange(target);
            Some(())
        }
        Insn::TwMrs { rd } => alu::read_flags(c, rd),
        Insn::TwMsr { rn, mask } => {
            general(&[rn])?;
            let v = c.r(rn);
            alu::write_flags(c, mask, v);
            Some(())
        }
        Insn::TwBCond {
            s,
            cond,
            high,
            j1,
            j2,
            low,
        } => {
            let value = s << 20 | j2 << 19 | j1 << 18 | high << 12 | low << 1;
            let distance = i64::from((value << 11).cast_signed() >> 11) as u64;
            branch_if(c, cond, distance)
        }
        Insn::TwB {
            s,
            high,
            j1,
            j2,
            low,
        } => {
            c.may_branch()?;
            let distance = distance(s, j1, j2, high) | u64::from(low << 1);
            let target = c.pc_value().wrapping_add(distance);
            c.go(target);
            Some(())
        }
        Insn::TwBl {
            s,
            high,
            j1,
            j2,
            low,
        } => {
            c.may_branch()?;
            c.link();
            let distance = distance(s, j1, j2, high) | u64::from(low << 1);
            let target = c.pc_value().wrapping_add(distance);
            c.go(target);
            Some(())
        }
        Insn::TwBlx {
            s,
            high,
            j1,
            j2,
            low,
        } => {
            c.may_branch()?;
            c.link();
            let distance = distance(s, j1, j2, high) | u64::from(low << 2);
            let target = c.pc_base().wrapping_add(distance);
            c.go_other(target);
            Some(())
        }
        Insn::TwPreload { .. } => Some(()),
        Insn::TwLdrLit {
            signed,
            u,
            size,
            rt,
            imm,
        } => {
            if signed != 0 && size == 2 {
                return None;
            }
            if rt == 15 && size != 2 {
                // Preload hints.
                return Some(());
            }
            let what = Move::new(size, signed, 1);
            memory::single(c, what, (rt, 15), Index::new(1, u, 0), constant(imm))
        }
        Insn::TwUimm {
            signed,
            size,
            l,
            rn,
            rt,
            imm,
        } => {
            let what = wide_move(signed, size, l, rn)?;
            memory::single(c, what, (rt, rn), Index::plain(), constant(imm))
        }
        Insn::TwImm8 {
            signed,
            size,
            l,
            rn,
            rt,
            p,
            u,
            w,
            imm,
        } => {
            let what = wide_move(signed, size, l, rn)?;
            if p == 0 && w == 0 {
                return None;
            }
            // LDRT and the like have P, U and not W: at EL0 they are LDR.
            memory::single(c, what, (rt, rn), Index::new(p, u, w), constant(imm))
        }
        Insn::TwLdstReg {
            signed,
            size,
            l,
            rn,
            rt,
            imm2,
            rm,
        } => {
            let what = wide_move(signed, size, l, rn)?;
            let operand = Operand::Shifted(rm, 0, imm2);
            memory::single(c, what, (rt, rn), Index::plain(), operand)
        }
        other => arithmetic(c, other),
    }
}

fn wide_move(signed: u32, size: u32, load: u32, rn: u32) -> Option<Move> {
    if rn == 15 || signed != 0 && (size == 2 || load == 0) {
        return None;
    }
    Some(Move::new(size, signed, load))
}

/// Data processing with a shifted register or a constant.
fn data(c: &mut Ctx, (op, s): (u32, u32), (rd, rn): (u32, u32), operand: Operand) -> Option<()> {
    let op = Alu::of_t32(op, s, rn, rd)?;
    if !op.is_test() {
        general(&[rd])?;
    }
    let takes_one = matches!(op, Alu::Mov | Alu::Mvn);
    if !takes_one {
        general(&[rn])?;
    }
    if let Operand::Shifted(rm, ..) = operand {
        general(&[rm])?;
    }
    alu::alu(c, op, s, (rd, rn), operand)
}

/// Registers, multiplications, division.
fn arithmetic(c: &mut Ctx, insn: Insn) -> Option<()> {
    match insn {
        Insn::TwShiftReg {
            r#type,
            s,
            rn,
            rd,
            rm,
        } => {
            general(&[rd, rn, rm])?;
            let operand = Operand::ShiftedBy(rn, r#type, rm);
            alu::alu(c, Alu::Mov, s, (rd, 0), operand)
        }
        Insn::TwExtend {
            op,
            u,
            rn,
            rd,
            rot,
            rm,
        } => {
            let part = match op {
                0 => Part::Half,
                1 => Part::Bytes,
                _ => Part::Byte,
            };
            alu::extend(c, part, u, (rd, rn, rm), rot)
        }
        Insn::TwParallel {
            op,
            rn,
            rd,
            prefix,
            rm,
        } => {
            // A32's numbers.
            let op = match op {
                0 => 4,
                1 => 0,
                2 => 1,
                4 => 7,
                5 => 3,
                6 => 2,
                _ => return None,
            };
            let prefix = match prefix & 3 {
                3 => return None,
                kind => (prefix & 4) | kind.wrapping_add(1),
            };
            alu::parallel(c, prefix, op, (rd, rn, rm))
        }
        Insn::TwQadd {
            rn,
            rd,
            sub,
            double,
            rm,
        } => alu::saturating(c, (double, sub), (rd, rn, rm)),
        Insn::TwRev { rn, rd, op, rm } => {
            // Both fields name the register.
            if rn != rm {
                return None;
            }
            alu::reverse(c, op, rd, rm)
        }
        Insn::TwSel { rn, rd, rm } => alu::select(c, (rd, rn, rm)),
        Insn::TwClz { rn, rd, rm } => {
            if rn != rm {
                return None;
            }
            alu::clz(c, rd, rm)
        }
        Insn::TwCrc32 {
            c: castagnoli,
            rn,
            rd,
            size,
            rm,
        } => alu::crc32(c, castagnoli, size, (rd, rn, rm)),
        Insn::TwMul {
            rn,
            ra,
            rd,
            sub,
            rm,
        } => match (ra, sub) {
            (15, 0) => multiply::multiply(c, 0, (rd, rn, rm), None),
            _ => multiply::multiply(c, 0, (rd, rn, rm), Some((ra, sub != 0))),
        },
        Insn::TwSmla {
            rn,
            ra,
            rd,
            n,
            m,
            rm,
        } => {
            let ra = (ra != 15).then_some(ra);
            multiply::multiply_half(c, (n, m), (rd, rn, rm), ra)
        }
        Insn::TwSmlaw { rn, ra, rd, m, rm } => {
            let ra = (ra != 15).then_some(ra);
            multiply::multiply_word_half(c, m, (rd, rn, rm), ra)
        }
        Insn::TwSmlad {
            rn,
            ra,
            rd,
            x,
            rm,
            sub,
        } => multiply::multiply_dual(c, (sub, x), (rd, rn, rm), ra),
        Insn::TwSmmul {
            rn,
            ra,
            rd,
            r,
            rm,
            sub,
        } => multiply::multiply_high(c, (sub, r), (rd, rn, rm), ra),
        Insn::TwUsad8 { rn, ra, rd, rm } => alu::sum_of_differences(c, (rd, rn, rm), ra),
        Insn::TwMull {
            rn,
            lo,
            hi,
            rm,
            signed,
            add,
        } => multiply::multiply_long(c, (signed, add, 0), (lo, hi, rn, rm)),
        Insn::TwDiv { u, rn, rd, rm } => multiply::divide(c, u, (rd, rn, rm)),
        Insn::TwSmlalHalf {
            rn,
            lo,
            hi,
            n,
            m,
            rm,
        } => multiply::multiply_half_long(c, (n, m), (lo, hi, rn, rm)),
        Insn::TwSmlalDual {
            rn,
            lo,
            hi,
            x,
            rm,
            sub,
        } => multiply::multiply_dual_long(c, (sub, x), (lo, hi, rn, rm)),
        Insn::TwUmaal { rn, lo, hi, rm } => multiply::multiply_add_add(c, (lo, hi, rn, rm)),
        _ => None,
    }
}
