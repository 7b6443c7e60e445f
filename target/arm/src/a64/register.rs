//! Data processing on registers (DDI 0487, C4.1.96).

use accel_ir::{Binary, Cmp, FlagKind, Ty, Unary, Val};

use super::context::{Ctx, width};
use crate::helper;
use crate::mode::to_x86;
use crate::model::Feature;
use crate::system::pauth;

mod table {
    include!(concat!(env!("OUT_DIR"), "/register.rs"));
}
use table::Insn;
pub(super) use table::{FORMS, decode};

fn shift_op(kind: u32) -> Binary {
    match kind & 3 {
        0 => Binary::Shl,
        1 => Binary::Shr,
        2 => Binary::Sar,
        _ => Binary::Rotr,
    }
}

/// A register widened as UXTB to SXTX, then shifted left.
pub(super) fn extended(c: &mut Ctx, rm: u32, option: u32, shift: u32, ty: Ty) -> Val {
    let narrow = match option & 3 {
        0 => Ty::I8,
        1 => Ty::I16,
        2 => Ty::I32,
        _ => Ty::I64,
    };
    let narrow = if narrow.bits() > ty.bits() {
        ty
    } else {
        narrow
    };
    let v = c.x(rm, narrow);
    let v = match option & 4 {
        0 => c.b.zext(v, ty),
        _ => c.b.sext(v, ty),
    };
    c.shl(v, shift)
}

fn add_sub(c: &mut Ctx, sub: u32, s: u32, a: Val, b: Val) -> Val {
    let result = match sub {
        0 => c.b.add(a, b),
        _ => c.b.sub(a, b),
    };
    if s != 0 {
        match sub {
            0 => c.add_flags(a, b),
            _ => c.sub_flags(a, b),
        }
    }
    result
}

pub(super) fn translate(c: &mut Ctx) -> Option<()> {
    match decode(c.word)? {
        Insn::LogicReg {
            sf,
            opc,
            shift,
            n,
            rm,
            imm,
            rn,
            rd,
        } => {
            if sf == 0 && imm > 31 {
                return None;
            }
            let ty = width(sf);
            let b = c.x(rm, ty);
            let b = c.shift(shift_op(shift), b, imm);
            let b = if n != 0 { c.not(b) } else { b };
            let result = match (opc, rn) {
                (1, 31) => b,
                _ => {
                    let a = c.x(rn, ty);
                    let op = match opc {
                        1 => Binary::Or,
                        2 => Binary::Xor,
                        _ => Binary::And,
                    };
                    c.b.binary(op, a, b)
                }
            };
            if opc == 3 {
                c.logic_flags(result);
            }
            c.set_x(rd, result);
        }
        Insn::AddShift {
            sf,
            sub,
            s,
            shift,
            rm,
            imm,
            rn,
            rd,
        } => {
            if sf == 0 && imm > 31 {
                return None;
            }
            let ty = width(sf);
            let a = c.x(rn, ty);
            let b = c.x(rm, ty);
            let b = c.shift(shift_op(shift), b, imm);
            let result = add_sub(c, sub, s, a, b);
            c.set_x(rd, result);
        }
        Insn::AddExt {
            sf,
            sub,
            s,
            rm,
            option,
            imm,
            rn,
            rd,
        } => {
            let ty = width(sf);
            let a = c.x_sp(rn, ty);
            let b = extended(c, rm, option, imm, ty);
            let result = add_sub(c, sub, s, a, b);
            match s {
                0 => c.set_x_sp(rd, result),
                _ => c.set_x(rd, result),
            }
        }
        Insn::Adc {
            sf,
            sub,
            s,
            rm,
            rn,
            rd,
        } => {
            let ty = width(sf);
            let a = c.x(rn, ty);
            let b = c.x(rm, ty);
            // a + b + C is a - NOT(b) - NOT(C).
            let b = if sub != 0 { b } else { c.not(b) };
            let borrow = c.b.flags_use(accel_ir::Cond::B);
            let borrow = c.b.zext(borrow, ty);
            let difference = c.b.sub(a, b);
            let result = c.b.sub(difference, borrow);
            if s != 0 {
                let wide = c.b.zext(borrow, Ty::I64);
                c.b.flags_def(FlagKind::Sbb, a, b, Some(wide));
            }
            c.set_x(rd, result);
        }
        Insn::Rmif { imm, rn, mask } => {
            if !c.has(Feature::FlagM) {
                return None;
            }
            let a = c.x(rn, Ty::I64);
            let a = c.shift(Binary::Rotr, a, imm);
            let mut flags = c.b.flags_get();
            // NZCV are bits 3 to 0 of the value, C kept inverted.
            for (from, to) in [(3u8, 7u8), (2, 6), (1, 0), (0, 11)] {
                if mask.wrapping_shr(from.into()) & 1 == 0 {
                    continue;
                }
                let mut bit = c.b.extract(a, from, 1, Ty::I64);
                if from == 1 {
                    bit = c.binary_imm(Binary::Xor, bit, 1);
                }
                flags = c.b.insert(flags, bit, to, 1);
            }
            c.raw_flags(flags);
        }
        Insn::Setf { half, rn } => {
            if !c.has(Feature::FlagM) {
                return None;
            }
            let bits = if half != 0 { 16u8 } else { 8 };
            let a = c.x(rn, Ty::I64);
            let top = bits.wrapping_sub(1);
            let sign = c.b.extract(a, top, 1, Ty::I64);
            let above = c.b.extract(a, bits, 1, Ty::I64);
            let overflow = c.b.xor(sign, above);
            let low = c.b.extract(a, 0, bits, Ty::I64);
            let zero = c.imm(Ty::I64, 0);
            let is_zero = c.b.cmp(Cmp::Eq, low, zero);
            let is_zero = c.b.zext(is_zero, Ty::I64);
            let mut flags = c.b.flags_get();
            for (bit, to) in [(sign, 7), (is_zero, 6), (overflow, 11)] {
                flags = c.b.insert(flags, bit, to, 1);
            }
            c.raw_flags(flags);
        }
        Insn::CcmpReg {
            sf,
            sub,
            rm,
            cond,
            rn,
            nzcv,
        } => {
            let b = c.x(rm, width(sf));
            conditional_compare(c, width(sf), sub, (rn, b), cond, nzcv);
        }
        Insn::CcmpImm {
            sf,
            sub,
            imm,
            cond,
            rn,
            nzcv,
        } => {
            let b = c.imm(width(sf), imm.into());
            conditional_compare(c, width(sf), sub, (rn, b), cond, nzcv);
        }
        Insn::Csel {
            sf,
            inv,
            rm,
            cond,
            inc,
            rn,
            rd,
        } => {
            let ty = width(sf);
            let holds = c.holds(cond);
            let result = if rn == 31 && rm == 31 && cond & 14 != 14 && (inv ^ inc) != 0 {
                // CSET and CSETM.
                let not = c.binary_imm(Binary::Xor, holds, 1);
                let wide = c.b.zext(not, ty);
                match inc {
                    0 => c.b.unary(Unary::Neg, wide),
                    _ => wide,
                }
            } else {
                let a = c.x(rn, ty);
                let b = c.x(rm, ty);
                let b = match (inv, inc) {
                    (0, 0) => b,
                    (0, _) => c.binary_imm(Binary::Add, b, 1),
                    (_, 0) => c.not(b),
                    _ => c.b.unary(Unary::Neg, b),
                };
                c.b.select(holds, a, b)
            };
            c.set_x(rd, result);
        }
        Insn::Div {
            sf,
            rm,
            signed,
            rn,
            rd,
        } => {
            let ty = width(sf);
            let (a, b) = (c.x(rn, ty), c.x(rm, ty));
            let result = divide(c, ty, signed != 0, a, b);
            c.set_x(rd, result);
        }
        Insn::ShiftReg {
            sf,
            rm,
            kind,
            rn,
            rd,
        } => {
            let ty = width(sf);
            let a = c.x(rn, ty);
            let count = c.x(rm, ty);
            let result = c.b.binary(shift_op(kind), a, count);
            c.set_x(rd, result);
        }
        Insn::Crc32 {
            sf,
            rm,
            c: castagnoli,
            sz,
            rn,
            rd,
        } => {
            if !c.has(Feature::Crc32) || (sz == 3) != (sf != 0) {
                return None;
            }
            let sum = c.x(rn, Ty::I32);
            let value = c.x(rm, width(sf));
            let how = c.imm(Ty::I64, u64::from(sz | castagnoli << 2));
            let result = c.call(helper::CRC32, &[sum, value, how]);
            let result = c.b.zext(result, Ty::I32);
            c.set_x(rd, result);
        }
        Insn::Pacga { rm, rn, rd } => {
            if !c.model.has_pauth() {
                return None;
            }
            let a = c.x(rn, Ty::I64);
            let b = c.x_sp(rm, Ty::I64);
            if c.mode.pauth_traps() {
                let how = c.imm(Ty::I64, pauth::GENERIC);
                c.call(helper::PAUTH_TRAP, &[how]);
            }
            let result = c.call(helper::PACGA, &[a, b]);
            c.set_x(rd, result);
        }
        Insn::Rbit { sf, rn, rd } => {
            let ty = width(sf);
            let mut v = c.x(rn, ty);
            for (shift, mask) in [
                (1, 0x5555_5555_5555_5555),
                (2, 0x3333_3333_3333_3333),
                (4, 0x0f0f_0f0f_0f0f_0f0f),
            ] {
                let high = c.shift(Binary::Shr, v, shift);
                let high = c.binary_imm(Binary::And, high, mask & ty.mask());
                let low = c.binary_imm(Binary::And, v, mask & ty.mask());
                let low = c.shl(low, shift);
                v = c.b.or(high, low);
            }
            let v = c.b.unary(Unary::Bswap, v);
            c.set_x(rd, v);
        }
        Insn::Rev16 { sf, rn, rd } => {
            let ty = width(sf);
            let v = c.x(rn, ty);
            let mask = 0x00ff_00ff_00ff_00ff & ty.mask();
            let high = c.shift(Binary::Shr, v, 8);
            let high = c.binary_imm(Binary::And, high, mask);
            let low = c.binary_imm(Binary::And, v, mask);
            let low = c.shl(low, 8);
            let v = c.b.or(high, low);
            c.set_x(rd, v);
        }
        Insn::Rev32 { sf, rn, rd } => {
            let v = c.x(rn, width(sf));
            let v = c.b.unary(Unary::Bswap, v);
            let v = if sf != 0 {
                c.shift(Binary::Rotr, v, 32)
            } else {
                v
            };
            c.set_x(rd, v);
        }
        Insn::Rev64 { rn, rd } => {
            let v = c.x(rn, Ty::I64);
            let v = c.b.unary(Unary::Bswap, v);
            c.set_x(rd, v);
        }
        Insn::Clz { sf, rn, rd } => {
            let v = c.x(rn, width(sf));
            let v = c.b.unary(Unary::Clz, v);
            c.set_x(rd, v);
        }
        Insn::Cls { sf, rn, rd } => {
            // Leading bits equal to the sign: zeros of v ^ (v >> 1), but the first.
            let ty = width(sf);
            let v = c.x(rn, ty);
            let half = c.shift(Binary::Sar, v, 1);
            let v = c.b.xor(v, half);
            let v = c.b.unary(Unary::Clz, v);
            let v = c.binary_imm(Binary::Sub, v, 1);
            c.set_x(rd, v);
        }
        Insn::Pac {
            z,
            auth,
            data,
            b,
            rn,
            rd,
        } => {
            if !c.model.has_pauth() || z != 0 && rn != 31 {
                return None;
            }
            let modifier = match z {
                0 => c.x_sp(rn, Ty::I64),
                _ => c.imm(Ty::I64, 0),
            };
            c.pointer_auth(rd, modifier, data << 1 | b, auth != 0);
        }
        Insn::Xpac { data, rd } => {
            if !c.model.has_pauth() {
                return None;
            }
            c.strip_pac(rd, data != 0);
        }
        Insn::Madd {
            sf,
            rm,
            sub,
            ra,
            rn,
            rd,
        } => {
            let ty = width(sf);
            let (a, b) = (c.x(rn, ty), c.x(rm, ty));
            let product = c.b.binary(Binary::Mul, a, b);
            accumulate(c, product, sub, (ra, rd));
        }
        Insn::Maddl {
            u,
            rm,
            sub,
            ra,
            rn,
            rd,
        } => {
            let (a, b) = (c.x(rn, Ty::I32), c.x(rm, Ty::I32));
            let [a, b] = [a, b].map(|v| match u {
                0 => c.b.sext(v, Ty::I64),
                _ => c.b.zext(v, Ty::I64),
            });
            let product = c.b.binary(Binary::Mul, a, b);
            accumulate(c, product, sub, (ra, rd));
        }
        Insn::Mulh { u, rm, rn, rd } => {
            let (a, b) = (c.x(rn, Ty::I64), c.x(rm, Ty::I64));
            let op = if u != 0 { Binary::MulHu } else { Binary::MulHs };
            let result = c.b.binary(op, a, b);
            c.set_x(rd, result);
        }
    }
    Some(())
}

fn accumulate(c: &mut Ctx, product: Val, sub: u32, (ra, rd): (u32, u32)) {
    let ty = c.b.ty(product);
    let result = match (ra, sub) {
        (31, 0) => product,
        (31, _) => c.b.unary(Unary::Neg, product),
        (_, 0) => {
            let addend = c.x(ra, ty);
            c.b.add(addend, product)
        }
        _ => {
            let addend = c.x(ra, ty);
            c.b.sub(addend, product)
        }
    };
    c.set_x(rd, result);
}

/// Quotients: by zero is zero, and the least number by -1 is itself.
pub(crate) fn divide(c: &mut Ctx, ty: Ty, signed: bool, a: Val, b: Val) -> Val {
    let zero = c.imm(ty, 0);
    let one = c.imm(ty, 1);
    let is_zero = c.b.cmp(Cmp::Eq, b, zero);
    let mut special = is_zero;
    if signed {
        let minus = c.imm(ty, u64::MAX);
        let is_minus = c.b.cmp(Cmp::Eq, b, minus);
        special = c.b.or(is_zero, is_minus);
    }
    let divisor = c.b.select(special, one, b);
    let bits = c.imm(Ty::I64, ty.bits().into());
    let (high, low, id) = if signed {
        let top = ty.bits().wrapping_sub(1);
        let high = c.shift(Binary::Sar, a, top);
        (high, a, helper::DIVIDE_SIGNED)
    } else {
        (zero, a, helper::DIVIDE)
    };
    let quotient = c.call(id, &[high, low, divisor, bits]);
    let quotient = c.b.zext(quotient, ty);
    let quotient = match signed {
        true => {
            let negated = c.b.unary(Unary::Neg, a);
            c.b.select(special, negated, quotient)
        }
        false => quotient,
    };
    c.b.select(is_zero, zero, quotient)
}

/// CCMP and CCMN: flags of the comparison if the condition holds, else `nzcv`.
fn conditional_compare(c: &mut Ctx, ty: Ty, sub: u32, (rn, b): (u32, Val), cond: u32, nzcv: u32) {
    let holds = c.holds(cond);
    let a = c.x(rn, ty);
    let least = 1u64.wrapping_shl(ty.bits().wrapping_sub(1));
    // Operands of a subtraction with these flags.
    let stand_in = match nzcv {
        0b0000 => Some((0, least.wrapping_add(1))),
        0b1000 => Some((0, 1)),
        0b0010 => Some((1, 0)),
        0b1010 => Some((least, 0)),
        0b0110 => Some((0, 0)),
        0b1001 => Some((0, least)),
        0b0011 => Some((least, 1)),
        _ => None,
    };
    match (sub, stand_in) {
        (1, Some((x, y))) => {
            let x = c.imm(ty, x);
            let y = c.imm(ty, y);
            let a = c.b.select(holds, a, x);
            let b = c.b.select(holds, b, y);
            c.sub_flags(a, b);
        }
        _ => {
            match sub {
                0 => c.add_flags(a, b),
                _ => c.sub_flags(a, b),
            }
            let flags = c.b.flags_get();
            let other = c.imm(Ty::I64, to_x86(u64::from(nzcv) << 28));
            let flags = c.b.select(holds, flags, other);
            c.raw_flags(flags);
        }
    }
}
