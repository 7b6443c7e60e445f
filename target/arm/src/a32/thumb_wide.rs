//! Instructions of T32 of 32 bits (DDI 0487, F3.1 "T32 instruction set encoding").

use accel_ir::Ty;

use super::alu::{self, Alu, Operand};
use super::bits::{self, Part};
use super::context::Ctx;
use super::memory::{self, Exclusive, Index, Move};
use super::multiply;
use super::system;
use super::thumb::{Insn, branch_if, constant, distance, exclusive, general};

/// Instructions of 32 bits.
pub(super) fn wide(c: &mut Ctx, insn: Insn) -> Option<()> {
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
        } => bits::pack(c, (rd, rn, rm), tb, imm3 << 2 | imm2),
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
        Insn::TwSat16 { u, rn, rd, sat } => bits::saturate_halves(c, (u, sat), (rd, rn)),
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
            bits::saturate(c, (u, sat), (rd, rn), (sh, amount))
        }
        Insn::TwBfx {
            u,
            rn,
            imm3,
            rd,
            imm2,
            width,
        } => bits::extract(c, u, (rd, rn), imm3 << 2 | imm2, width),
        Insn::TwBfi {
            rn,
            imm3,
            rd,
            imm2,
            msb,
        } => bits::insert(c, (rd, rn), imm3 << 2 | imm2, msb),
        Insn::TwHint { hint } => system::hint(c, hint),
        Insn::TwClrex => system::clrex(c),
        Insn::TwBarrier { op, .. } => system::barrier(c, op),
        Insn::TwBxj { rm } => {
            general(&[rm])?;
            c.may_branch()?;
            let target = c.r(rm);
            c.exchange(target, Ctx::by_register(rm));
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
            let via = c.link();
            let distance = distance(s, j1, j2, high) | u64::from(low << 1);
            let target = c.pc_value().wrapping_add(distance);
            c.go_via(target, via);
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
            bits::extend(c, part, u, (rd, rn, rm), rot)
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
            bits::parallel(c, prefix, op, (rd, rn, rm))
        }
        Insn::TwQadd {
            rn,
            rd,
            sub,
            double,
            rm,
        } => bits::saturating(c, (double, sub), (rd, rn, rm)),
        Insn::TwRev { rn, rd, op, rm } => {
            // Both fields name the register.
            if rn != rm {
                return None;
            }
            bits::reverse(c, op, rd, rm)
        }
        Insn::TwSel { rn, rd, rm } => bits::select(c, (rd, rn, rm)),
        Insn::TwClz { rn, rd, rm } => {
            if rn != rm {
                return None;
            }
            bits::clz(c, rd, rm)
        }
        Insn::TwCrc32 {
            c: castagnoli,
            rn,
            rd,
            size,
            rm,
        } => bits::crc32(c, castagnoli, size, (rd, rn, rm)),
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
        Insn::TwUsad8 { rn, ra, rd, rm } => bits::sum_of_differences(c, (rd, rn, rm), ra),
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
