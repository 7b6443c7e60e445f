//! Data processing: shifts, sums, logic, saturation, bit fields, flags (DDI 0487, F2.4, F5.1).

use accel_ir::{Binary, Cmp, FlagKind, Ty, Val, Via};

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
    let via = match (op, operand) {
        // MOV PC, LR.
        (Alu::Mov, Operand::Shifted(14, 0, 0)) => Via::Return,
        _ => Via::Jump,
    };
    c.write(rd, result, via)
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

/// PSTATE's flags of user programs: N, Z, C, V, Q and GE (`MRS` of the APSR).
pub(super) fn read_flags(c: &mut Ctx, rd: u32) -> Option<()> {
    super::bits::no_pc(&[rd])?;
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
