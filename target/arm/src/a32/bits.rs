//! Instructions on parts of registers: bit fields, bytes and halfwords, saturation, sums of differences
//! (DDI 0487, F1.4.3 to F1.4.7).

use accel_ir::{Binary, Cmp, Ty, Unary, Val};

use super::alu::shift_constant;
use super::context::Ctx;
use crate::helper;

/// CLZ.
pub(super) fn clz(c: &mut Ctx, rd: u32, rm: u32) -> Option<()> {
    no_pc(&[rd, rm])?;
    let v = c.r(rm);
    let v = c.b.unary(Unary::Clz, v);
    c.set_r(rd, v);
    Some(())
}

/// REV, REV16, RBIT, REVSH, by T32's numbers but for A32's order, which `rev` has: 0 REV, 1 REV16,
/// 2 RBIT, 3 REVSH.
pub(super) fn reverse(c: &mut Ctx, op: u32, rd: u32, rm: u32) -> Option<()> {
    no_pc(&[rd, rm])?;
    let v = c.r(rm);
    let swapped = c.b.unary(Unary::Bswap, v);
    let v = match op {
        0 => swapped,
        1 => c.shift(Binary::Rotr, swapped, 16),
        3 => c.shift(Binary::Sar, swapped, 16),
        _ => {
            let mut v = swapped;
            for (shift, mask) in [(1, 0x5555_5555), (2, 0x3333_3333), (4, 0x0f0f_0f0f)] {
                let high = c.shift(Binary::Shr, v, shift);
                let high = c.binary_imm(Binary::And, high, mask);
                let low = c.binary_imm(Binary::And, v, mask);
                let low = c.shl(low, shift);
                v = c.b.or(high, low);
            }
            v
        }
    };
    c.set_r(rd, v);
    Some(())
}

/// None of these registers is the PC: else unpredictable, and UNDEFINED here.
pub(super) fn no_pc(registers: &[u32]) -> Option<()> {
    (!registers.contains(&15)).then_some(())
}

/// SBFX, UBFX: `width` is one less than the number of bits.
pub(super) fn extract(
    c: &mut Ctx,
    unsigned: u32,
    (rd, rn): (u32, u32),
    lsb: u32,
    width: u32,
) -> Option<()> {
    no_pc(&[rd, rn])?;
    let up = 31u32.checked_sub(lsb.wrapping_add(width))?;
    let v = c.r(rn);
    let v = if unsigned != 0 {
        c.b.extract(v, lsb as u8, width.wrapping_add(1) as u8, Ty::I32)
    } else {
        let v = c.shl(v, up);
        c.shift(Binary::Sar, v, up.wrapping_add(lsb))
    };
    c.set_r(rd, v);
    Some(())
}

/// BFI, and BFC if the source is register 15.
pub(super) fn insert(c: &mut Ctx, (rd, rn): (u32, u32), lsb: u32, msb: u32) -> Option<()> {
    no_pc(&[rd])?;
    let width = msb.checked_sub(lsb)?.wrapping_add(1);
    let old = c.r(rd);
    let new = match rn {
        15 => c.i32(0),
        _ => c.r(rn),
    };
    let v = c.b.insert(old, new, lsb as u8, width as u8);
    c.set_r(rd, v);
    Some(())
}

/// What SXTB and the like take of a register.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Part {
    Byte,
    Half,
    /// Two bytes, each to a halfword.
    Bytes,
}

/// SXTAB and the like: without an addend if `rn` is 15.
pub(super) fn extend(
    c: &mut Ctx,
    part: Part,
    unsigned: u32,
    (rd, rn, rm): (u32, u32, u32),
    rotation: u32,
) -> Option<()> {
    no_pc(&[rd, rm])?;
    let v = c.r(rm);
    let v = c.shift(Binary::Rotr, v, rotation << 3);
    let widen = |c: &mut Ctx, v: Val, from: Ty| {
        let narrow = c.b.zext(v, from);
        match unsigned {
            0 => c.b.sext(narrow, Ty::I32),
            _ => c.b.zext(narrow, Ty::I32),
        }
    };
    let result = match part {
        Part::Bytes => {
            let low = widen(c, v, Ty::I8);
            let above = c.shift(Binary::Shr, v, 16);
            let high = widen(c, above, Ty::I8);
            if rn == 15 {
                c.b.insert(low, high, 16, 16)
            } else {
                let a = c.r(rn);
                let top = c.shift(Binary::Shr, a, 16);
                let low = c.b.add(a, low);
                let high = c.b.add(top, high);
                c.b.insert(low, high, 16, 16)
            }
        }
        _ => {
            let from = if part == Part::Byte { Ty::I8 } else { Ty::I16 };
            let v = widen(c, v, from);
            if rn == 15 {
                v
            } else {
                let a = c.r(rn);
                c.b.add(a, v)
            }
        }
    };
    c.set_r(rd, result);
    Some(())
}

/// PKHBT, PKHTB.
pub(super) fn pack(
    c: &mut Ctx,
    (rd, rn, rm): (u32, u32, u32),
    top: u32,
    amount: u32,
) -> Option<()> {
    no_pc(&[rd, rn, rm])?;
    let a = c.r(rn);
    let b = c.r(rm);
    let (b, _) = shift_constant(c, b, top << 1, amount, false);
    let v = if top != 0 {
        c.b.insert(a, b, 0, 16)
    } else {
        let high = c.shift(Binary::Shr, b, 16);
        c.b.insert(a, high, 16, 16)
    };
    c.set_r(rd, v);
    Some(())
}

/// Has a helper work on two registers: `how` is its number.
pub(super) fn by_helper(c: &mut Ctx, how: u64, (rd, rn, rm): (u32, u32, u32)) -> Option<()> {
    no_pc(&[rd, rn, rm])?;
    let a = c.r(rn);
    let b = c.r(rm);
    let how = c.imm(Ty::I64, how);
    let v = c.call(helper::MEDIA, &[a, b, how]);
    let v = c.b.zext(v, Ty::I32);
    c.set_r(rd, v);
    Some(())
}

/// SADD16 and the like. `prefix` and `op` are A32's.
pub(super) fn parallel(
    c: &mut Ctx,
    prefix: u32,
    op: u32,
    registers: (u32, u32, u32),
) -> Option<()> {
    if matches!(prefix, 0 | 4) || matches!(op, 5 | 6) {
        return None;
    }
    by_helper(c, super::media::parallel(prefix, op), registers)
}

/// CRC32, CRC32C.
pub(super) fn crc32(
    c: &mut Ctx,
    castagnoli: u32,
    size: u32,
    (rd, rn, rm): (u32, u32, u32),
) -> Option<()> {
    no_pc(&[rd, rn, rm])?;
    if !c.has(crate::model::Feature::Crc32) {
        return None;
    }
    let sum = c.r(rn);
    let value = c.r(rm);
    let how = c.imm(Ty::I64, u64::from(size | castagnoli << 2));
    let v = c.call(helper::CRC32, &[sum, value, how]);
    let v = c.b.zext(v, Ty::I32);
    c.set_r(rd, v);
    Some(())
}

/// SSAT, USAT: of a register shifted left or, if `right`, arithmetically right.
pub(super) fn saturate(
    c: &mut Ctx,
    (unsigned, to): (u32, u32),
    (rd, rn): (u32, u32),
    (right, amount): (u32, u32),
) -> Option<()> {
    no_pc(&[rd, rn])?;
    let v = c.r(rn);
    let (v, _) = shift_constant(c, v, right << 1, amount, false);
    let wide = c.b.sext(v, Ty::I64);
    let (least, most) = match unsigned {
        0 => {
            let half = 1u64.wrapping_shl(to);
            (half.wrapping_neg(), half.wrapping_sub(1))
        }
        _ => (0, 1u64.wrapping_shl(to).wrapping_sub(1)),
    };
    let result = clamp(c, wide, least, most);
    let result = c.b.zext(result, Ty::I32);
    c.set_r(rd, result);
    Some(())
}

/// An i64 within bounds; Q is set if it was not.
fn clamp(c: &mut Ctx, v: Val, least: u64, most: u64) -> Val {
    let least = c.imm(Ty::I64, least);
    let most = c.imm(Ty::I64, most);
    let is_low = c.b.cmp(Cmp::Lts, v, least);
    let is_high = c.b.cmp(Cmp::Lts, most, v);
    let result = c.b.select(is_low, least, v);
    let result = c.b.select(is_high, most, result);
    let either = c.b.or(is_low, is_high);
    c.saturated(either);
    result
}

const LEAST: u64 = 0xffff_ffff_8000_0000;
const MOST: u64 = 0x7fff_ffff;

/// QADD, QSUB, QDADD, QDSUB: of `rm` and `rn`, the latter doubled.
pub(super) fn saturating(
    c: &mut Ctx,
    (double, sub): (u32, u32),
    (rd, rn, rm): (u32, u32, u32),
) -> Option<()> {
    no_pc(&[rd, rn, rm])?;
    let a = c.r(rm);
    let a = c.b.sext(a, Ty::I64);
    let b = c.r(rn);
    let mut b = c.b.sext(b, Ty::I64);
    if double != 0 {
        let twice = c.shl(b, 1);
        b = clamp(c, twice, LEAST, MOST);
    }
    let v = match sub {
        0 => c.b.add(a, b),
        _ => c.b.sub(a, b),
    };
    let v = clamp(c, v, LEAST, MOST);
    let v = c.b.zext(v, Ty::I32);
    c.set_r(rd, v);
    Some(())
}

/// USAD8, USADA8.
pub(super) fn sum_of_differences(
    c: &mut Ctx,
    (rd, rn, rm): (u32, u32, u32),
    ra: u32,
) -> Option<()> {
    no_pc(&[rd, rn, rm])?;
    let (a, b) = (c.r(rn), c.r(rm));
    let how = c.imm(Ty::I64, super::media::USAD8);
    let v = c.call(helper::MEDIA, &[a, b, how]);
    let mut v = c.b.zext(v, Ty::I32);
    if ra != 15 {
        let base = c.r(ra);
        v = c.b.add(base, v);
    }
    c.set_r(rd, v);
    Some(())
}

/// SSAT16, USAT16.
pub(super) fn saturate_halves(
    c: &mut Ctx,
    (unsigned, to): (u32, u32),
    (rd, rn): (u32, u32),
) -> Option<()> {
    by_helper(c, super::media::saturate(unsigned, to), (rd, rn, rn))
}

/// SEL.
pub(super) fn select(c: &mut Ctx, registers: (u32, u32, u32)) -> Option<()> {
    by_helper(c, super::media::SEL, registers)
}
