//! The A32 instruction set (DDI 0487, F4): encodings.

use accel_ir::{Ty, Via};

use super::alu::{self, Alu, Operand};
use super::bits::{self, Part};
use super::context::Ctx;
use super::memory::{self, Exclusive, Index, Move};
use super::multiply;
use super::system;

mod table {
    include!(concat!(env!("OUT_DIR"), "/a32.rs"));
}
use table::Insn;
pub(super) use table::{FORMS, decode};

/// Type of an exclusive access, and a second register where there is one.
fn exclusive(size: u32, rn: u32, rt: u32) -> Option<Exclusive> {
    let ty = match size {
        0 => Ty::I32,
        1 => Ty::I64,
        2 => Ty::I8,
        _ => Ty::I16,
    };
    // Pairs are an even register and the next.
    if ty == Ty::I64 && (rt & 1 != 0 || rt == 14) {
        return None;
    }
    Some(Exclusive {
        ty,
        rn,
        rt,
        rt2: rt | 1,
        offset: 0,
    })
}

pub(super) fn translate(c: &mut Ctx) -> Option<()> {
    match decode(c.word)? {
        Insn::AluShift {
            op,
            s,
            rn,
            rd,
            imm,
            r#type,
            rm,
            ..
        } => {
            let op = Alu::of_a32(op);
            if op.is_test() && s == 0 {
                return None;
            }
            alu::alu(c, op, s, (rd, rn), Operand::Shifted(rm, r#type, imm))
        }
        Insn::AluReg {
            op,
            s,
            rn,
            rd,
            rs,
            r#type,
            rm,
            ..
        } => {
            let op = Alu::of_a32(op);
            if op.is_test() && s == 0 {
                return None;
            }
            bits::no_pc(&[rn, rd, rs, rm])?;
            alu::alu(c, op, s, (rd, rn), Operand::ShiftedBy(rm, r#type, rs))
        }
        Insn::AluImm {
            op, s, rn, rd, imm, ..
        } => {
            let op = Alu::of_a32(op);
            if op.is_test() && s == 0 {
                return None;
            }
            alu::alu(c, op, s, (rd, rn), alu::a32_constant(imm))
        }
        Insn::MovWide {
            top, high, rd, low, ..
        } => alu::move_wide(c, top, rd, high << 12 | low),
        Insn::Clz { rd, rm, .. } => bits::clz(c, rd, rm),
        Insn::Qadd {
            double,
            sub,
            rn,
            rd,
            rm,
            ..
        } => bits::saturating(c, (double, sub), (rd, rn, rm)),
        Insn::Crc32 {
            size,
            rn,
            rd,
            c: castagnoli,
            rm,
            ..
        } => bits::crc32(c, castagnoli, size, (rd, rn, rm)),
        Insn::Mul { s, rd, rm, rn, .. } => multiply::multiply(c, s, (rd, rn, rm), None),
        Insn::Mla {
            s, rd, ra, rm, rn, ..
        } => multiply::multiply(c, s, (rd, rn, rm), Some((ra, false))),
        Insn::Mls { rd, ra, rm, rn, .. } => {
            multiply::multiply(c, 0, (rd, rn, rm), Some((ra, true)))
        }
        Insn::Umaal { hi, lo, rm, rn, .. } => multiply::multiply_add_add(c, (lo, hi, rn, rm)),
        Insn::Mull {
            signed,
            add,
            s,
            hi,
            lo,
            rm,
            rn,
            ..
        } => multiply::multiply_long(c, (signed, add, s), (lo, hi, rn, rm)),
        Insn::SmulHalf {
            op,
            rd,
            ra,
            rm,
            m,
            n,
            rn,
            ..
        } => match op {
            0 => multiply::multiply_half(c, (n, m), (rd, rn, rm), Some(ra)),
            // SMLAW and SMULW.
            1 => multiply::multiply_word_half(c, m, (rd, rn, rm), (n == 0).then_some(ra)),
            2 => multiply::multiply_half_long(c, (n, m), (ra, rd, rn, rm)),
            _ => multiply::multiply_half(c, (n, m), (rd, rn, rm), None),
        },
        Insn::SmulDual {
            rd,
            ra,
            rm,
            sub,
            x,
            rn,
            ..
        } => multiply::multiply_dual(c, (sub, x), (rd, rn, rm), ra),
        Insn::SmlalDual {
            hi,
            lo,
            rm,
            sub,
            x,
            rn,
            ..
        } => multiply::multiply_dual_long(c, (sub, x), (lo, hi, rn, rm)),
        Insn::Smmul {
            rd,
            ra,
            rm,
            r,
            rn,
            sub,
            ..
        } => multiply::multiply_high(c, (sub, r), (rd, rn, rm), ra),
        Insn::Div { u, rd, rm, rn, .. } => multiply::divide(c, u, (rd, rn, rm)),
        Insn::Usad8 { rd, ra, rm, rn, .. } => bits::sum_of_differences(c, (rd, rn, rm), ra),
        Insn::Parallel {
            prefix,
            rn,
            rd,
            op,
            rm,
            ..
        } => bits::parallel(c, prefix, op, (rd, rn, rm)),
        Insn::Sel { rn, rd, rm, .. } => bits::select(c, (rd, rn, rm)),
        Insn::Pkh {
            rn,
            rd,
            imm,
            tb,
            rm,
            ..
        } => bits::pack(c, (rd, rn, rm), tb, imm),
        Insn::Sat {
            u,
            sat,
            rd,
            imm,
            sh,
            rn,
            ..
        } => bits::saturate(c, (u, sat), (rd, rn), (sh, imm)),
        Insn::Sat16 { u, sat, rn, rd, .. } => bits::saturate_halves(c, (u, sat), (rd, rn)),
        Insn::Extend {
            u,
            op,
            rn,
            rd,
            rot,
            rm,
            ..
        } => {
            let part = match op {
                0 => Part::Bytes,
                2 => Part::Byte,
                _ => Part::Half,
            };
            bits::extend(c, part, u, (rd, rn, rm), rot)
        }
        Insn::Rev { rd, rm, op, .. } => bits::reverse(c, op, rd, rm),
        Insn::Bfx {
            u,
            width,
            rd,
            lsb,
            rn,
            ..
        } => bits::extract(c, u, (rd, rn), lsb, width),
        Insn::Bfi {
            msb, rd, lsb, rn, ..
        } => bits::insert(c, (rd, rn), lsb, msb),
        Insn::LdstImm {
            p,
            u,
            b,
            w,
            l,
            rn,
            rt,
            imm,
            ..
        } => {
            let what = Move::new(if b != 0 { 0 } else { 2 }, 0, l);
            memory::single(
                c,
                what,
                (rt, rn),
                Index::new(p, u, w),
                Operand::Constant(imm, None),
            )
        }
        Insn::LdstReg {
            p,
            u,
            b,
            w,
            l,
            rn,
            rt,
            imm,
            r#type,
            rm,
            ..
        } => {
            let what = Move::new(if b != 0 { 0 } else { 2 }, 0, l);
            memory::single(
                c,
                what,
                (rt, rn),
                Index::new(p, u, w),
                Operand::Shifted(rm, r#type, imm),
            )
        }
        Insn::LdstExtra {
            p,
            u,
            i,
            w,
            l,
            rn,
            rt,
            hi,
            op,
            lo,
            ..
        } => {
            let operand = match i {
                0 if hi != 0 => return None,
                0 => Operand::Shifted(lo, 0, 0),
                _ => Operand::Constant(hi << 4 | lo, None),
            };
            let index = Index::new(p, u, w);
            if l == 0 && op != 1 {
                if rt & 1 != 0 || p == 0 && w != 0 {
                    return None;
                }
                return memory::pair(c, op == 2, (rt, rt | 1, rn), index, operand);
            }
            let what = Move::new(u32::from(op != 2), u32::from(op != 1), l);
            memory::single(c, what, (rt, rn), index, operand)
        }
        Insn::Block {
            p,
            u,
            w,
            l,
            rn,
            list,
            ..
        } => {
            let index = Index {
                back: w != 0,
                ..Index::new(p, u, w)
            };
            memory::block(c, l != 0, index, rn, list)
        }
        Insn::Ldrex { size, rn, rt, .. } => memory::load_exclusive(c, exclusive(size, rn, rt)?),
        Insn::Strex {
            size, rn, rd, rt, ..
        } => memory::store_exclusive(c, exclusive(size, rn, rt)?, rd),
        Insn::Lda { size, rn, rt, .. } => memory::load_acquire(c, exclusive(size, rn, rt)?),
        Insn::Stl { size, rn, rt, .. } => memory::store_release(c, exclusive(size, rn, rt)?),
        Insn::B { link, imm, .. } => {
            let via = match link {
                0 => Via::Jump,
                _ => c.link(),
            };
            let target = c.pc_value().wrapping_add((i64::from(imm) << 2) as u64);
            c.go_via(target, via);
            Some(())
        }
        Insn::BlxImm { h, imm } => {
            c.link();
            let distance = (i64::from(imm) << 2) as u64 | u64::from(h << 1);
            let target = c.pc_value().wrapping_add(distance);
            c.go_other(target);
            Some(())
        }
        Insn::Bx { rm, .. } => {
            let target = c.r(rm);
            c.exchange(target, Ctx::by_register(rm));
            Some(())
        }
        Insn::BlxReg { rm, .. } => {
            bits::no_pc(&[rm])?;
            let target = c.r(rm);
            let via = c.link();
            c.exchange(target, via);
            Some(())
        }
        Insn::Mrs { rd, .. } => alu::read_flags(c, rd),
        Insn::MsrReg { mask, rn, .. } => {
            bits::no_pc(&[rn])?;
            let v = c.r(rn);
            alu::write_flags(c, mask, v);
            Some(())
        }
        Insn::MsrImm { mask, imm, .. } => {
            if let Operand::Constant(value, _) = alu::a32_constant(imm) {
                let v = c.i32(value);
                alu::write_flags(c, mask, v);
            }
            Some(())
        }
        Insn::Hint { hint, .. } => system::hint(c, hint),
        Insn::Clrex => system::clrex(c),
        Insn::Barrier { op, .. } => system::barrier(c, op),
        Insn::Setend { e } => system::setend(c, e),
        Insn::Setpan => system::setpan(c),
        // At EL0 a NOP.
        Insn::Cps | Insn::Preload => Some(()),
        // Conditional ones are unpredictable.
        Insn::Hlt { imm, low } => system::hlt(c, imm << 4 | low),
        Insn::Bkpt { imm, low, .. } => system::bkpt(c, imm << 4 | low),
        Insn::Svc { imm, .. } => system::svc(c, imm),
    }
}
