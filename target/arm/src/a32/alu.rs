//! Data processing: shifts, sums, logic, saturation, bit fields, flags (DDI 0487, F2.4, F5.1).

use accel_ir::{Binary, Cmp, FlagKind, Ty, Unary, Val};

use super::context::Ctx;
use crate::{helper, regs};

/// What an instruction computes of two operands. The numbers are A32's.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Alu {
    And,
    Eor,
    Sub,
    Rsb,
    Add,
    Adc,
    Sbc,
    Rsc,
    Tst,
    Teq,
    Cmp,
    Cmn,
    Orr,
    Mov,
    Bic,
    Mvn,
    /// T32 only.
    Orn,
}

impl Alu {
    /// The operation that A32 gives a number.
    pub(super) fn of_a32(op: u32) -> Alu {
        const ALL: [Alu; 16] = [
            Alu::And,
            Alu::Eor,
            Alu::Sub,
            Alu::Rsb,
            Alu::Add,
            Alu::Adc,
            Alu::Sbc,
            Alu::Rsc,
            Alu::Tst,
            Alu::Teq,
            Alu::Cmp,
            Alu::Cmn,
            Alu::Orr,
            Alu::Mov,
            Alu::Bic,
            Alu::Mvn,
        ];
        ALL.get((op & 15) as usize).copied().unwrap_or(Alu::And)
    }

    /// What T32 gives a number, with registers of 15 taken into account (F3.1.13).
    pub(super) fn of_t32(op: u32, s: u32, rn: u32, rd: u32) -> Option<Alu> {
        let test = rd == 15 && s != 0;
        Some(match op {
            0 if test => Alu::Tst,
            0 => Alu::And,
            1 => Alu::Bic,
            2 if rn == 15 => Alu::Mov,
            2 => Alu::Orr,
            3 if rn == 15 => Alu::Mvn,
            3 => Alu::Orn,
            4 if test => Alu::Teq,
            4 => Alu::Eor,
            8 if test => Alu::Cmn,
            8 => Alu::Add,
            10 => Alu::Adc,
            11 => Alu::Sbc,
            13 if test => Alu::Cmp,
            13 => Alu::Sub,
            14 => Alu::Rsb,
            _ => return None,
        })
    }

    pub(super) fn is_test(self) -> bool {
        matches!(self, Alu::Tst | Alu::Teq | Alu::Cmp | Alu::Cmn)
    }

    /// Takes its carry from the shifter.
    fn is_logic(self) -> bool {
        use Alu::*;
        matches!(self, And | Eor | Tst | Teq | Orr | Mov | Bic | Mvn | Orn)
    }
}

/// The second operand of an ALU instruction.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Operand {
    /// A constant; the carry out of making it, if that changes.
    Constant(u32, Option<bool>),
    /// A register shifted by a constant: register, type, amount as encoded.
    Shifted(u32, u32, u32),
    /// A register shifted by a register: register, type, register.
    ShiftedBy(u32, u32, u32),
}

/// `A32ExpandImm_C`.
pub(super) fn a32_constant(imm: u32) -> Operand {
    let rotation = imm >> 8 << 1;
    let value = (imm & 0xff).rotate_right(rotation);
    Operand::Constant(value, (rotation != 0).then_some(value >> 31 != 0))
}

/// `T32ExpandImm_C` of `i:imm3:imm8`.
pub(super) fn t32_constant(i: u32, imm3: u32, imm8: u32) -> Operand {
    let twelve = i << 11 | imm3 << 8 | imm8;
    if twelve >> 10 == 0 {
        let value = match twelve >> 8 & 3 {
            0 => imm8,
            1 => imm8 << 16 | imm8,
            2 => imm8 << 24 | imm8 << 8,
            _ => imm8 << 24 | imm8 << 16 | imm8 << 8 | imm8,
        };
        return Operand::Constant(value, None);
    }
    let value = (0x80 | twelve & 0x7f).rotate_right(twelve >> 7);
    Operand::Constant(value, Some(value >> 31 != 0))
}

/// `Shift_C` by a constant as encoded: value, and the carry out if it is wanted and changes.
pub(super) fn shift_constant(
    c: &mut Ctx,
    v: Val,
    kind: u32,
    amount: u32,
    wants: bool,
) -> (Val, Option<Val>) {
    let bit = |c: &mut Ctx, n: u32| wants.then(|| c.b.extract(v, n as u8, 1, Ty::I32));
    match (kind & 3, amount & 31) {
        (0, 0) => (v, None),
        (0, n) => {
            let out = bit(c, 32u32.wrapping_sub(n));
            (c.shl(v, n), out)
        }
        (1, 0) => {
            let out = bit(c, 31);
            (c.i32(0), out)
        }
        (1, n) => {
            let out = bit(c, n.wrapping_sub(1));
            (c.shift(Binary::Shr, v, n), out)
        }
        (2, 0) => {
            let out = bit(c, 31);
            (c.shift(Binary::Sar, v, 31), out)
        }
        (2, n) => {
            let out = bit(c, n.wrapping_sub(1));
            (c.shift(Binary::Sar, v, n), out)
        }
        // RRX.
        (_, 0) => {
            let out = bit(c, 0);
            let carry = c.carry();
            let carry = c.shl(carry, 31);
            let half = c.shift(Binary::Shr, v, 1);
            (c.b.or(half, carry), out)
        }
        (_, n) => {
            let out = bit(c, n.wrapping_sub(1));
            (c.shift(Binary::Rotr, v, n), out)
        }
    }
}

/// `Shift_C` by the low byte of a register.
pub(super) fn shift_register(
    c: &mut Ctx,
    v: Val,
    kind: u32,
    by: Val,
    wants: bool,
) -> (Val, Option<Val>) {
    let by = c.b.zext(by, Ty::I64);
    let amount = c.binary_imm(Binary::And, by, 0xff);
    let (result, out) = if kind & 3 == 3 {
        let result = c.b.binary(Binary::Rotr, v, amount);
        (result, c.b.extract(result, 31, 1, Ty::I32))
    } else {
        // In 64 bits with one more below: a shift by 33 has lost everything. The carry is the bit
        // next to the result.
        let most = c.imm(Ty::I64, 33);
        let is_less = c.b.cmp(Cmp::Ltu, amount, most);
        let amount = c.b.select(is_less, amount, most);
        if kind & 3 == 0 {
            let wide = c.b.zext(v, Ty::I64);
            let all = c.b.binary(Binary::Shl, wide, amount);
            (c.b.zext(all, Ty::I32), c.b.extract(all, 32, 1, Ty::I32))
        } else {
            let (wide, op) = match kind & 3 {
                1 => (c.b.zext(v, Ty::I64), Binary::Shr),
                _ => (c.b.sext(v, Ty::I64), Binary::Sar),
            };
            let wide = c.shl(wide, 1);
            let all = c.b.binary(op, wide, amount);
            let out = c.b.extract(all, 0, 1, Ty::I32);
            (c.b.extract(all, 1, 32, Ty::I32), out)
        }
    };
    if !wants {
        return (result, None);
    }
    let zero = c.imm(Ty::I64, 0);
    let is_none = c.b.cmp(Cmp::Eq, amount, zero);
    let old = c.carry();
    let out = c.b.select(is_none, old, out);
    (result, Some(out))
}

impl Operand {
    fn value(self, c: &mut Ctx, wants: bool) -> (Val, Option<Val>) {
        match self {
            Operand::Constant(value, carry) => {
                let out = carry.filter(|_| wants).map(|carry| c.i32(carry.into()));
                (c.i32(value), out)
            }
            Operand::Shifted(rm, kind, amount) => {
                let v = c.r(rm);
                shift_constant(c, v, kind, amount, wants)
            }
            Operand::ShiftedBy(rm, kind, rs) => {
                let v = c.r(rm);
                let by = c.r(rs);
                shift_register(c, v, kind, by, wants)
            }
        }
    }
}

/// An ALU instruction.
pub(super) fn alu(
    c: &mut Ctx,
    op: Alu,
    s: u32,
    (rd, rn): (u32, u32),
    operand: Operand,
) -> Option<()> {
    let flags = s != 0 || op.is_test();
    if flags && rd == 15 && !op.is_test() {
        // An exception return, which EL0 cannot make.
        return None;
    }
    let (b, out) = operand.value(c, flags && op.is_logic());
    let a = match op {
        Alu::Mov | Alu::Mvn => b,
        _ => c.r(rn),
    };
    let result = compute(c, op, a, b, flags);
    if flags && op.is_logic() {
        c.logic(result, out);
    }
    if op.is_test() {
        return Some(());
    }
    c.write(rd, result)
}

/// The result; flags of sums and differences on the way.
fn compute(c: &mut Ctx, op: Alu, a: Val, b: Val, flags: bool) -> Val {
    match op {
        Alu::And | Alu::Tst => c.b.and(a, b),
        Alu::Eor | Alu::Teq => c.b.xor(a, b),
        Alu::Orr => c.b.or(a, b),
        Alu::Mov => b,
        Alu::Mvn => c.not(b),
        Alu::Bic => {
            let b = c.not(b);
            c.b.and(a, b)
        }
        Alu::Orn => {
            let b = c.not(b);
            c.b.or(a, b)
        }
        Alu::Sub | Alu::Cmp => difference(c, a, b, flags),
        Alu::Rsb => difference(c, b, a, flags),
        Alu::Add | Alu::Cmn => {
            let sum = c.b.add(a, b);
            if flags {
                c.sum_flags(a, b);
            }
            sum
        }
        Alu::Adc => {
            let b = c.not(b);
            with_borrow(c, a, b, flags)
        }
        Alu::Sbc => with_borrow(c, a, b, flags),
        Alu::Rsc => with_borrow(c, b, a, flags),
    }
}

fn difference(c: &mut Ctx, a: Val, b: Val, flags: bool) -> Val {
    let result = c.b.sub(a, b);
    if flags {
        c.difference_flags(a, b);
    }
    result
}

/// `a - b - NOT(C)`.
fn with_borrow(c: &mut Ctx, a: Val, b: Val, flags: bool) -> Val {
    let borrow = c.b.flags_use(accel_ir::Cond::B);
    let borrow = c.b.zext(borrow, Ty::I32);
    let difference = c.b.sub(a, b);
    let result = c.b.sub(difference, borrow);
    if flags {
        let wide = c.b.zext(borrow, Ty::I64);
        c.b.flags_def(FlagKind::Sbb, a, b, Some(wide));
    }
    result
}

/// MOVW, MOVT.
pub(super) fn move_wide(c: &mut Ctx, top: u32, rd: u32, imm: u32) -> Option<()> {
    if rd == 15 {
        return None;
    }
    let v = if top != 0 {
        let old = c.r(rd);
        let high = c.i32(imm);
        c.b.insert(old, high, 16, 16)
    } else {
        c.i32(imm)
    };
    c.set_r(rd, v);
    Some(())
}

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

/// PSTATE's flags of user programs: N, Z, C, V, Q and GE (`MRS` of the APSR).
pub(super) fn read_flags(c: &mut Ctx, rd: u32) -> Option<()> {
    no_pc(&[rd])?;
    let flags = c.b.flags_get();
    let inverted = c.binary_imm(Binary::Xor, flags, accel_ir::flags::CF);
    let mut v = c.imm(Ty::I64, 0);
    for (from, to) in [(7, 31), (6, 30), (0, 29), (11, 28)] {
        let bit = c.b.extract(inverted, from, 1, Ty::I64);
        v = c.b.insert(v, bit, to, 1);
    }
    let q = c.b.get(regs::Q);
    v = c.b.insert(v, q, 27, 1);
    let ge = c.b.get(regs::GE);
    v = c.b.insert(v, ge, 16, 4);
    // Mode bits read as User mode.
    let v = c.binary_imm(Binary::Or, v, 0x10);
    let v = c.b.zext(v, Ty::I32);
    c.set_r(rd, v);
    Some(())
}

/// MSR of the CPSR: flags by bit 3 of the mask, GE by bit 2, E by bit 1; all else is not EL0's to write.
pub(super) fn write_flags(c: &mut Ctx, mask: u32, v: Val) {
    let v = c.b.zext(v, Ty::I64);
    if mask & 8 != 0 {
        write_nzcv(c, v);
        let q = c.b.extract(v, 27, 1, Ty::I64);
        c.b.set(regs::Q, q);
    }
    if mask & 4 != 0 {
        let ge = c.b.extract(v, 16, 4, Ty::I64);
        c.b.set(regs::GE, ge);
    }
    if mask & 2 != 0 {
        // PSTATE.E.
        c.settle_it();
        let big = c.b.extract(v, 9, 1, Ty::I64);
        let next = c.after();
        let next = c.imm(Ty::I64, next);
        c.b.call_void(helper::SETEND, &[big, next]);
        c.b.leave();
    }
}

/// Sets N, Z, C and V from bits 31 to 28 of an i64.
pub(super) fn write_nzcv(c: &mut Ctx, v: Val) {
    let inverted = c.binary_imm(Binary::Xor, v, 1 << 29);
    let mut flags = c.imm(Ty::I64, 0);
    for (from, to) in [(31, 7), (30, 6), (29, 0), (28, 11)] {
        let bit = c.b.extract(inverted, from, 1, Ty::I64);
        flags = c.b.insert(flags, bit, to, 1);
    }
    c.raw_flags(flags);
}
