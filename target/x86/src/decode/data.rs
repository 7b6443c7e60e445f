//! Data transfer, conversions, flag instructions (SDM vol. 1, 5.1.1, 5.1.11, 5.1.12).

use accel_ir::{Binary, Cmp, Ordering, Rmw, Ty, Unary, Val};
use iced_x86::{Code, ConditionCode, Mnemonic, Register};

use super::bits::condition;
use super::check;
use super::context::{Ctx, Place, number, segment_number};
use crate::regs::index::{RAX, RBX, RCX, RDX};
use crate::regs::{self, rflags};

/// Translates one of them; false if it is another instruction.
pub(super) fn translate(c: &mut Ctx<'_>) -> bool {
    match c.insn.mnemonic() {
        Mnemonic::Mov => return mov(c),
        Mnemonic::Movnti => {
            let v = c.operand(1);
            c.set_operand(0, v);
        }
        Mnemonic::Movzx => extend(c, false),
        Mnemonic::Movsx | Mnemonic::Movsxd => extend(c, true),
        Mnemonic::Movbe => {
            let v = c.operand(1);
            let v = bswap(c, v);
            c.set_operand(0, v);
        }
        Mnemonic::Lea => lea(c),
        Mnemonic::Xchg => xchg(c),
        Mnemonic::Bswap => {
            let v = c.operand(0);
            // For 16 bits, where the result is undefined, processors give zero.
            let v = match c.b.ty(v) {
                Ty::I16 => c.b.iconst(Ty::I16, 0),
                _ => c.b.unary(Unary::Bswap, v),
            };
            c.set_operand(0, v);
        }
        Mnemonic::Xlatb => {
            let v = c.operand(0);
            c.set_reg(RAX, v);
        }
        Mnemonic::Cbw => widen(c, Ty::I8, Ty::I16),
        Mnemonic::Cwde => widen(c, Ty::I16, Ty::I32),
        Mnemonic::Cdqe => widen(c, Ty::I32, Ty::I64),
        Mnemonic::Cwd => spread(c, Ty::I16),
        Mnemonic::Cdq => spread(c, Ty::I32),
        Mnemonic::Cqo => spread(c, Ty::I64),
        Mnemonic::Cmpxchg8b => cmpxchg8b(c),
        Mnemonic::Cmpxchg16b => cmpxchg16b(c),
        Mnemonic::Clc => {
            let v = c.b.iconst(Ty::I8, 0);
            c.set_carry(v);
        }
        Mnemonic::Stc => {
            let v = c.b.iconst(Ty::I8, 1);
            c.set_carry(v);
        }
        Mnemonic::Cmc => {
            let v = c.b.flags_use(accel_ir::Cond::Ae);
            c.set_carry(v);
        }
        Mnemonic::Cld => direction(c, false),
        Mnemonic::Std => direction(c, true),
        Mnemonic::Lahf => lahf(c),
        Mnemonic::Sahf => sahf(c),
        Mnemonic::Salc => {
            let cf = c.carry(Ty::I8);
            let v = c.b.unary(Unary::Neg, cf);
            c.set_reg(RAX, v);
        }
        Mnemonic::Arpl => arpl(c),
        _ => match c.insn.condition_code() {
            ConditionCode::None => return false,
            code if c.insn.op_count() == 2 && c.is_register(0) && is_general(c) => cmov(c, code),
            _ => return false,
        },
    }
    true
}

fn is_general(c: &Ctx<'_>) -> bool {
    c.insn.op0_register().is_gpr()
}

fn mov(c: &mut Ctx<'_>) -> bool {
    let (to, from) = (c.insn.op0_register(), c.insn.op1_register());
    if to.is_cr() || to.is_dr() || to.is_tr() || from.is_cr() || from.is_dr() || from.is_tr() {
        return false;
    }
    if to.is_segment_register() && c.is_register(0) {
        return false;
    }
    if from.is_segment_register() && c.is_register(1) {
        let selector = selector(c, from);
        let ty = if c.is_memory(0) { Ty::I16 } else { c.op_ty(0) };
        let v = c.b.zext(selector, ty);
        c.set_operand(0, v);
        return true;
    }
    let ty = c.op_ty(0);
    let v = c.operand_as(1, ty);
    c.set_operand(0, v);
    true
}

/// A segment register's selector, as an i64.
pub(super) fn selector(c: &mut Ctx<'_>, register: Register) -> Val {
    c.call_consts(check::SELECTOR, &[segment_number(register) as u64])
}

fn extend(c: &mut Ctx<'_>, signed: bool) {
    let ty = c.op_ty(0);
    let v = if c.insn.code() == Code::Movsxd_r16_rm16 && c.is_memory(1) {
        // AMD's processors read 32 bits and keep 16.
        let address = c.address(4, false);
        c.load(address, Ty::I32)
    } else {
        c.operand(1)
    };
    let v = if signed && c.b.ty(v).bits() < ty.bits() {
        c.b.sext(v, ty)
    } else {
        c.b.zext(v, ty)
    };
    c.set_operand(0, v);
}

fn bswap(c: &mut Ctx<'_>, v: Val) -> Val {
    if c.b.ty(v) == Ty::I16 {
        let eight = c.b.iconst(Ty::I8, 8);
        return c.b.binary(Binary::Rotl, v, eight);
    }
    c.b.unary(Unary::Bswap, v)
}

fn lea(c: &mut Ctx<'_>) {
    let offset = c.offset();
    let ty = c.op_ty(0);
    let v = c.b.zext(offset, ty);
    c.set_operand(0, v);
}

fn xchg(c: &mut Ctx<'_>) {
    if c.is_memory(0) || c.is_memory(1) {
        let (memory, register) = if c.is_memory(0) { (0, 1) } else { (1, 0) };
        let register = c.insn.op_register(register);
        let ty = c.op_ty(memory);
        let address = c.operand_address(true);
        let v = c.gpr(register);
        let mem = c.mem(ty, Ordering::SeqCst);
        let old = c.b.rmw(Rmw::Xchg, address, v, mem);
        c.set_gpr(register, old);
        return;
    }
    let (a, b) = (c.operand(0), c.operand(1));
    c.set_operand(0, b);
    c.set_operand(1, a);
}

/// CBW, CWDE, CDQE.
fn widen(c: &mut Ctx<'_>, from: Ty, to: Ty) {
    let v = c.reg(RAX, from);
    let v = c.b.sext(v, to);
    c.set_reg(RAX, v);
}

/// CWD, CDQ, CQO.
fn spread(c: &mut Ctx<'_>, ty: Ty) {
    let v = c.reg(RAX, ty);
    let count = c.b.iconst(Ty::I8, u64::from(ty.bits()).wrapping_sub(1));
    let sign = c.b.binary(Binary::Sar, v, count);
    c.set_reg(RDX, sign);
}

fn cmov(c: &mut Ctx<'_>, code: ConditionCode) {
    let new = c.operand(1);
    let old = c.operand(0);
    let yes = c.b.flags_use(condition(code));
    let v = c.b.select(yes, new, old);
    c.set_operand(0, v);
}

/// High and low 32 bits of two registers.
fn pair(c: &mut Ctx<'_>, high: usize, low: usize) -> Val {
    let low = c.reg(low, Ty::I32);
    let low = c.b.zext(low, Ty::I64);
    let high = c.reg(high, Ty::I32);
    c.b.insert(low, high, 32, 32)
}

fn cmpxchg8b(c: &mut Ctx<'_>) {
    let address = c.operand_address(true);
    let expected = pair(c, RDX, RAX);
    let new = pair(c, RCX, RBX);
    let old = if c.insn.has_lock_prefix() {
        let mem = c.mem(Ty::I64, Ordering::SeqCst);
        c.b.cas(address, expected, new, mem)
    } else {
        let old = c.load(address, Ty::I64);
        let equal = c.b.cmp(Cmp::Eq, old, expected);
        let v = c.b.select(equal, new, old);
        c.store(address, v);
        old
    };
    let equal = c.b.cmp(Cmp::Eq, old, expected);
    // Written only when the comparison fails: the upper halves stay else.
    let parts = [
        (RAX, c.b.zext(old, Ty::I32)),
        (RDX, c.b.extract(old, 32, 32, Ty::I32)),
    ];
    set_zero(c, equal);
    for (n, part) in parts {
        let before = c.reg(n, Ty::I64);
        let part = c.b.zext(part, Ty::I64);
        let v = c.b.select(equal, before, part);
        c.b.set(regs::gpr(n), v);
    }
}

fn cmpxchg16b(c: &mut Ctx<'_>) {
    let address = c.operand_address(true);
    let how = u64::from(c.mode.data_ctx()) | u64::from(c.insn.has_lock_prefix()) << 8;
    let how = c.const64(how);
    let equal = c.b.call(check::CMPXCHG16B, &[address, how]);
    set_zero(c, equal);
}

/// Replaces ZF by bit 0 of a value.
pub(super) fn set_zero(c: &mut Ctx<'_>, zf: Val) {
    let flags = c.b.flags_get();
    let flags = c.b.insert(flags, zf, 6, 1);
    c.set_flags(flags);
}

fn direction(c: &mut Ctx<'_>, down: bool) {
    let flags = c.b.get(regs::RFLAGS);
    let mask = c.const64(if down { rflags::DF } else { !rflags::DF });
    let flags = if down {
        c.b.or(flags, mask)
    } else {
        c.b.and(flags, mask)
    };
    c.b.set(regs::RFLAGS, flags);
}

fn lahf(c: &mut Ctx<'_>) {
    let flags = c.b.flags_get();
    let fixed = c.const64(rflags::FIXED);
    let flags = c.b.or(flags, fixed);
    c.set_gpr(Register::AH, flags);
}

fn sahf(c: &mut Ctx<'_>) {
    let ah = c.gpr(Register::AH);
    let of = c.b.flags_use(accel_ir::Cond::O);
    let flags = c.b.zext(ah, Ty::I64);
    let flags = c.b.insert(flags, of, 11, 1);
    c.set_flags(flags);
}

fn arpl(c: &mut Ctx<'_>) {
    // The operands are 16 bits wide whatever the operand size names.
    let place = if c.is_memory(0) {
        Place::Mem(c.address(2, true))
    } else {
        Place::Reg(c.insn.op0_register())
    };
    let old = match place {
        Place::Mem(address) => c.load(address, Ty::I16),
        Place::Reg(register) => c.reg(number(register), Ty::I16),
    };
    let source = c.reg(number(c.insn.op1_register()), Ty::I16);
    let three = c.b.iconst(Ty::I16, 3);
    let (a, b) = (c.b.and(old, three), c.b.and(source, three));
    let raised = c.b.cmp(Cmp::Ltu, a, b);
    let new = c.b.insert(old, source, 0, 2);
    let v = c.b.select(raised, new, old);
    match place {
        Place::Mem(address) => c.store(address, v),
        Place::Reg(register) => c.set_reg(number(register), v),
    }
    set_zero(c, raised);
}
