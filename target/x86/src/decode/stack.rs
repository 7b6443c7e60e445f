//! Stack instructions: PUSH, POP, PUSHA, POPA, PUSHF, ENTER, LEAVE.

use accel_ir::{Ty, Val};
use iced_x86::Mnemonic;

use super::check;
use super::context::Ctx;
use super::data::selector;
use crate::regs::index::{RBP, RSP};
use crate::regs::{self, rflags};
use crate::system::calls;

/// Translates one of them; false if it is another instruction.
pub(super) fn translate(c: &mut Ctx<'_>) -> bool {
    match c.insn.mnemonic() {
        Mnemonic::Push => push(c),
        Mnemonic::Pop => return pop(c),
        Mnemonic::Pusha => push_all(c, Ty::I16),
        Mnemonic::Pushad => push_all(c, Ty::I32),
        Mnemonic::Popa => pop_all(c, Ty::I16),
        Mnemonic::Popad => pop_all(c, Ty::I32),
        Mnemonic::Pushf | Mnemonic::Pushfd | Mnemonic::Pushfq => pushf(c),
        Mnemonic::Enter => enter(c),
        Mnemonic::Leave => leave(c),
        _ => return false,
    }
    true
}

/// Bytes the instruction pushes or pops.
pub(super) fn bytes(c: &Ctx<'_>) -> u32 {
    c.insn.stack_pointer_increment().unsigned_abs()
}

fn push(c: &mut Ctx<'_>) {
    let ty = Ty::of_bytes(bytes(c));
    let v = if c.is_register(0) && c.insn.op0_register().is_segment_register() {
        let v = selector(c, c.insn.op0_register());
        c.b.zext(v, ty)
    } else {
        c.operand_as(0, ty)
    };
    c.push(v);
}

/// False for POP Sreg.
fn pop(c: &mut Ctx<'_>) -> bool {
    let size = bytes(c);
    let ty = Ty::of_bytes(size);
    if c.is_register(0) {
        let register = c.insn.op0_register();
        if register.is_segment_register() {
            return false;
        }
        let (v, sp) = c.peek(ty, size.into());
        c.set_sp(sp);
        c.set_gpr(register, v);
        return true;
    }
    let (v, sp) = c.peek(ty, size.into());
    c.bias_sp(size.into());
    let address = c.operand_address(true);
    c.store(address, v);
    c.set_sp(sp);
    true
}

/// The linear address of the element `n` of `ty` above an offset in the stack.
fn element(c: &mut Ctx<'_>, bottom: Val, n: u64, ty: Ty, write: bool) -> Val {
    let sp = c.b.add_const(bottom, n.wrapping_mul(u64::from(ty.bytes())));
    c.stack_address(sp, ty.bytes().into(), write)
}

fn push_all(c: &mut Ctx<'_>, ty: Ty) {
    let sp = c.sp();
    let size = u64::from(ty.bytes()).wrapping_mul(8);
    let bottom = c.b.add_const(sp, size.wrapping_neg());
    let lowest = element(c, bottom, 0, ty, true);
    c.probe(lowest, ty);
    // EAX is pushed first and lies highest.
    for n in 0..8u64 {
        let v = c.reg(n as usize, ty);
        let address = element(c, bottom, 7u64.wrapping_sub(n), ty, true);
        c.store(address, v);
    }
    c.set_sp(bottom);
}

fn pop_all(c: &mut Ctx<'_>, ty: Ty) {
    let bottom = c.sp();
    let mut values = Vec::new();
    for at in 0..8u64 {
        let n = 7u64.wrapping_sub(at) as usize;
        // The stack pointer's image is skipped.
        if n != RSP {
            let address = element(c, bottom, at, ty, false);
            values.push((n, c.load(address, ty)));
        }
    }
    let size = u64::from(ty.bytes()).wrapping_mul(8);
    let sp = c.b.add_const(bottom, size);
    c.set_sp(sp);
    for (n, v) in values {
        c.set_reg(n, v);
    }
}

fn pushf(c: &mut Ctx<'_>) {
    if c.mode.is_vm86() {
        c.b.call_void(calls::PUSHF_CHECK, &[]);
    }
    let arithmetic = c.b.flags_get();
    let system = c.b.get(regs::RFLAGS);
    let kept = c.const64(rflags::SYSTEM & !(rflags::RF | rflags::VM));
    let system = c.b.and(system, kept);
    let fixed = c.const64(rflags::FIXED);
    let all = c.b.or(arithmetic, system);
    let all = c.b.or(all, fixed);
    let ty = Ty::of_bytes(bytes(c));
    let v = c.b.zext(all, ty);
    c.push(v);
}

fn enter(c: &mut Ctx<'_>) {
    let reserve = c.immediate(0) & 0xffff;
    let level = u64::from(c.insn.immediate8_2nd()) & 31;
    let ty = enter_ty(c);
    c.call_consts(check::ENTER, &[reserve, level, ty.bytes().into()]);
}

fn enter_ty(c: &Ctx<'_>) -> Ty {
    use iced_x86::Code;
    match c.insn.code() {
        Code::Enterw_imm16_imm8 => Ty::I16,
        Code::Enterd_imm16_imm8 => Ty::I32,
        _ => Ty::I64,
    }
}

fn leave(c: &mut Ctx<'_>) {
    use iced_x86::Code;
    let ty = match c.insn.code() {
        Code::Leavew => Ty::I16,
        Code::Leaved => Ty::I32,
        _ => Ty::I64,
    };
    let bp = c.reg(RBP, c.stack_ty());
    let address = c.stack_address(bp, ty.bytes().into(), false);
    let v = c.load(address, ty);
    let sp = c.b.add_const(bp, ty.bytes().into());
    c.set_sp(sp);
    c.set_reg(RBP, v);
}
