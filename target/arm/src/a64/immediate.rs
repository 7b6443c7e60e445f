//! Data processing with an immediate (DDI 0487, C4.1.93).

use accel_ir::{Binary, Ty, Val};

use super::context::{Ctx, width};

mod table {
    include!(concat!(env!("OUT_DIR"), "/immediate.rs"));
}
use table::Insn;
pub(super) use table::{FORMS, decode};

/// `DecodeBitMasks` for logical immediates: a pattern of `imms + 1` ones rotated by `immr`, repeated.
pub(crate) fn bit_mask(n: u32, imms: u32, immr: u32) -> Option<u64> {
    let len = 31u32.checked_sub((n << 6 | !imms & 0x3f).leading_zeros())?;
    if len < 1 {
        return None;
    }
    let size = 1u32.wrapping_shl(len);
    let levels = size.wrapping_sub(1);
    let (s, r) = (imms & levels, immr & levels);
    if s == levels {
        return None;
    }
    let ones = u64::MAX.wrapping_shr(63u32.wrapping_sub(s));
    let all = u64::MAX.wrapping_shr(64u32.wrapping_sub(size));
    let mut pattern = match r {
        0 => ones,
        _ => (ones.wrapping_shr(r) | ones.wrapping_shl(size.wrapping_sub(r))) & all,
    };
    let mut filled = size;
    while filled < 64 {
        pattern |= pattern.wrapping_shl(filled);
        filled = filled.wrapping_mul(2);
    }
    Some(pattern)
}

pub(super) fn translate(c: &mut Ctx) -> Option<()> {
    match decode(c.word)? {
        Insn::Adr {
            page,
            immlo,
            immhi,
            rd,
        } => {
            let offset = (i64::from(immhi) << 2 | i64::from(immlo)) as u64;
            let value = match page {
                0 => c.pc.wrapping_add(offset),
                _ => (c.pc & !0xfff).wrapping_add(offset << 12),
            };
            let v = c.imm(Ty::I64, value);
            c.set_x(rd, v);
        }
        Insn::AddImm {
            sf,
            sub,
            s,
            sh,
            imm,
            rn,
            rd,
        } => {
            let ty = width(sf);
            let a = c.x_sp(rn, ty);
            let value = if sh != 0 {
                u64::from(imm) << 12
            } else {
                imm.into()
            };
            if s != 0 {
                let b = c.imm(ty, value);
                let result = match sub {
                    0 => c.b.add(a, b),
                    _ => c.b.sub(a, b),
                };
                match sub {
                    0 => c.add_flags(a, b),
                    _ => c.sub_flags(a, b),
                }
                c.set_x(rd, result);
            } else {
                let result = match (value, sub) {
                    (0, _) => a,
                    (_, 0) => c.binary_imm(Binary::Add, a, value),
                    _ => c.binary_imm(Binary::Sub, a, value),
                };
                c.set_x_sp(rd, result);
            }
        }
        Insn::LogicImm {
            sf,
            opc,
            n,
            immr,
            imms,
            rn,
            rd,
        } => {
            if sf == 0 && n != 0 {
                return None;
            }
            let mask = bit_mask(n, imms, immr)?;
            let ty = width(sf);
            let result = if opc == 1 && rn == 31 {
                c.imm(ty, mask)
            } else {
                let a = c.x(rn, ty);
                let op = match opc {
                    1 => Binary::Or,
                    2 => Binary::Xor,
                    _ => Binary::And,
                };
                c.binary_imm(op, a, mask)
            };
            if opc == 3 {
                c.logic_flags(result);
                c.set_x(rd, result);
            } else {
                c.set_x_sp(rd, result);
            }
        }
        Insn::MoveWide {
            sf,
            opc,
            hw,
            imm,
            rd,
        } => {
            if sf == 0 && hw > 1 {
                return None;
            }
            let ty = width(sf);
            let shift = hw << 4;
            let value = u64::from(imm).wrapping_shl(shift);
            let v = match opc {
                0 => c.imm(ty, !value),
                2 => c.imm(ty, value),
                _ => {
                    let old = c.x(rd, ty);
                    let new = c.imm(ty, imm.into());
                    c.b.insert(old, new, shift as u8, 16)
                }
            };
            c.set_x(rd, v);
        }
        Insn::Bitfield {
            sf,
            opc,
            n,
            immr,
            imms,
            rn,
            rd,
        } => {
            if n != sf || sf == 0 && (immr > 31 || imms > 31) {
                return None;
            }
            let v = bitfield(c, width(sf), opc, (immr, imms), (rn, rd));
            c.set_x(rd, v);
        }
        Insn::Extr {
            sf,
            n,
            rm,
            imms,
            rn,
            rd,
        } => {
            if n != sf || sf == 0 && imms > 31 {
                return None;
            }
            let ty = width(sf);
            let low = c.x(rm, ty);
            let v = if imms == 0 {
                low
            } else if rn == rm {
                c.shift(Binary::Rotr, low, imms)
            } else {
                let high = c.x(rn, ty);
                let low = c.shift(Binary::Shr, low, imms);
                let high = c.shl(high, ty.bits().wrapping_sub(imms));
                c.b.or(low, high)
            };
            c.set_x(rd, v);
        }
    }
    Some(())
}

/// SBFM (0), BFM (1), UBFM (2).
fn bitfield(c: &mut Ctx, ty: Ty, opc: u32, (r, s): (u32, u32), (rn, rd): (u32, u32)) -> Val {
    let bits = ty.bits();
    let a = c.x(rn, ty);
    if s >= r {
        // Bits r..=s go to the bottom.
        let width = s.wrapping_sub(r).wrapping_add(1);
        if opc == 1 {
            let old = c.x(rd, ty);
            let field = c.shift(Binary::Shr, a, r);
            return if width == bits {
                field
            } else {
                c.b.insert(old, field, 0, width as u8)
            };
        }
        if opc == 2 {
            return if width == bits {
                a
            } else {
                c.b.extract(a, r as u8, width as u8, ty)
            };
        }
        let narrow = match width {
            8 => Some(Ty::I8),
            16 => Some(Ty::I16),
            32 => Some(Ty::I32),
            _ => None,
        };
        if let (0, Some(narrow)) = (r, narrow) {
            if narrow == ty {
                return a;
            }
            let cut = c.b.zext(a, narrow);
            return c.b.sext(cut, ty);
        }
        let up = c.shl(a, bits.wrapping_sub(1).wrapping_sub(s));
        return c.shift(Binary::Sar, up, bits.wrapping_sub(width));
    }
    // Bits 0..=s go up to bits - r.
    let width = s.wrapping_add(1);
    let at = bits.wrapping_sub(r);
    match opc {
        1 => {
            let old = c.x(rd, ty);
            c.b.insert(old, a, at as u8, width as u8)
        }
        2 => {
            let field = match at.wrapping_add(width) == bits {
                true => a,
                false => c.b.extract(a, 0, width as u8, ty),
            };
            c.shl(field, at)
        }
        _ => {
            let up = c.shl(a, bits.wrapping_sub(width));
            c.shift(Binary::Sar, up, bits.wrapping_sub(width).wrapping_sub(at))
        }
    }
}
