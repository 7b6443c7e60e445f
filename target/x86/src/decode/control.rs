//! Near control transfer (SDM vol. 1, 5.1.7). Far ones belong to `privileged`.

use accel_ir::{Binary, Cmp, Cond, Ty, Val, Via};
use iced_x86::{Code, ConditionCode, Mnemonic, OpKind};

use super::bits::condition;
use super::check;
use super::context::Ctx;
use super::stack::bytes;
use crate::regs::index::RCX;
use crate::state::vector;
use crate::system::calls;

/// Translates one of them; false if it is another instruction.
pub(super) fn translate(c: &mut Ctx<'_>) -> bool {
    match c.insn.mnemonic() {
        Mnemonic::Jmp => jump(c),
        Mnemonic::Call => call(c),
        Mnemonic::Ret => {
            ret(c);
            true
        }
        Mnemonic::Loop | Mnemonic::Loope | Mnemonic::Loopne => {
            count_down(c);
            true
        }
        Mnemonic::Jcxz => count_zero(c, Ty::I16),
        Mnemonic::Jecxz => count_zero(c, Ty::I32),
        Mnemonic::Jrcxz => count_zero(c, Ty::I64),
        Mnemonic::Into => {
            let of = c.b.flags_use(Cond::O);
            let (yes, no) = (c.b.block(), c.b.block());
            c.b.branch(of, yes, no);
            c.b.switch(yes);
            let next = c.next_pc();
            c.b.call_void(calls::OVERFLOW, &[next]);
            c.b.leave();
            c.b.switch(no);
            true
        }
        Mnemonic::Bound => {
            bound(c);
            true
        }
        _ => match c.insn.condition_code() {
            ConditionCode::None => false,
            code if is_near(c) => {
                let yes = c.b.flags_use(condition(code));
                two_ways(c, yes);
                true
            }
            _ => false,
        },
    }
}

fn is_near(c: &Ctx<'_>) -> bool {
    matches!(
        c.insn.op0_kind(),
        OpKind::NearBranch16 | OpKind::NearBranch32 | OpKind::NearBranch64
    )
}

/// Leaves to the branch target if `yes` holds; the unit goes on with the next instruction else.
fn two_ways(c: &mut Ctx<'_>, yes: Val) {
    let target = c.insn.near_branch_target();
    let (taken, not) = (c.b.block(), c.b.block());
    c.b.branch(yes, taken, not);
    c.b.switch(taken);
    check_constant(c, target);
    c.b.goto(target);
    c.b.switch(not);
}

/// Faults if a branch target is beyond the code segment, where that can be.
fn check_constant(c: &mut Ctx<'_>, target: u64) {
    if !c.mode.is_64() && (c.mode.has_code_limit() || beyond_reach(c, target)) {
        let target = c.const64(target);
        c.b.call_void(check::CODE_LIMIT, &[target]);
    }
}

/// 16-bit code ends at 64 KiB even if a target of 32 bits does not.
fn beyond_reach(c: &Ctx<'_>, target: u64) -> bool {
    c.mode.bitness() == 16 && target > 0xffff
}

/// As [`check_constant`] for a computed target of `ty`.
fn check_value(c: &mut Ctx<'_>, target: Val, ty: Ty) {
    let reaches = ty == Ty::I16 || c.mode.bitness() == 32;
    if c.mode.is_64() {
        if ty == Ty::I64 {
            check_canonical(c, target);
        }
    } else if c.mode.has_code_limit() || !reaches {
        c.b.call_void(check::CODE_LIMIT, &[target]);
    }
}

/// Faults in the branch, not at its target, if that is not canonical.
fn check_canonical(c: &mut Ctx<'_>, target: Val) {
    let high = c.b.shl_const(target, 16);
    let count = c.b.iconst(Ty::I8, 16);
    let extended = c.b.binary(Binary::Sar, high, count);
    let same = c.b.cmp(Cmp::Eq, extended, target);
    let (yes, no) = (c.b.block(), c.b.block());
    c.b.branch(same, yes, no);
    c.b.switch(no);
    c.raise_and_end(vector::GP, Some(0));
    c.b.switch(yes);
}

/// The target of an indirect branch as a value of RIP; `None` if it is far.
fn indirect(c: &mut Ctx<'_>) -> Option<Val> {
    let far = matches!(c.insn.op0_kind(), OpKind::FarBranch16 | OpKind::FarBranch32)
        || c.insn.is_jmp_far_indirect()
        || c.insn.is_call_far_indirect();
    if far {
        return None;
    }
    let target = c.operand(0);
    let ty = c.b.ty(target);
    let target = c.b.zext(target, Ty::I64);
    check_value(c, target, ty);
    Some(target)
}

fn jump(c: &mut Ctx<'_>) -> bool {
    if is_near(c) {
        let target = c.insn.near_branch_target();
        check_constant(c, target);
        c.b.goto(target);
        return true;
    }
    match indirect(c) {
        Some(target) => {
            c.b.goto_val(target);
            true
        }
        None => false,
    }
}

fn call(c: &mut Ctx<'_>) -> bool {
    let target = if is_near(c) {
        check_constant(c, c.insn.near_branch_target());
        None
    } else {
        match indirect(c) {
            None => return false,
            some => some,
        }
    };
    let ty = Ty::of_bytes(bytes(c));
    let next = c.b.iconst(ty, c.next);
    c.push(next);
    let via = Via::Call { back: c.next };
    match target {
        Some(target) => c.b.goto_val_via(target, via),
        // A program that asks where it is does not return there.
        None if c.insn.near_branch_target() == c.next => c.b.goto(c.next),
        None => c.b.goto_via(c.insn.near_branch_target(), via),
    }
    true
}

fn ret(c: &mut Ctx<'_>) {
    let extra = match c.insn.op_count() {
        0 => 0,
        _ => c.immediate(0) & 0xffff,
    };
    let ty = match c.insn.code() {
        Code::Retnw | Code::Retnw_imm16 => Ty::I16,
        Code::Retnd | Code::Retnd_imm16 => Ty::I32,
        _ => Ty::I64,
    };
    let (target, sp) = c.peek(ty, u64::from(ty.bytes()).wrapping_add(extra));
    let target = c.b.zext(target, Ty::I64);
    check_value(c, target, ty);
    c.set_sp(sp);
    c.b.goto_val_via(target, Via::Return);
}

fn count_down(c: &mut Ctx<'_>) {
    let ty = match c.insn.code() {
        Code::Loop_rel8_16_CX
        | Code::Loop_rel8_32_CX
        | Code::Loope_rel8_16_CX
        | Code::Loope_rel8_32_CX
        | Code::Loopne_rel8_16_CX
        | Code::Loopne_rel8_32_CX => Ty::I16,
        Code::Loop_rel8_16_RCX
        | Code::Loop_rel8_64_RCX
        | Code::Loope_rel8_16_RCX
        | Code::Loope_rel8_64_RCX
        | Code::Loopne_rel8_16_RCX
        | Code::Loopne_rel8_64_RCX => Ty::I64,
        _ => Ty::I32,
    };
    let old = c.reg(RCX, ty);
    let one = c.b.iconst(ty, 1);
    let new = c.b.sub(old, one);
    let mut yes = c.b.cmp(Cmp::Ne, old, one);
    let equal = match c.insn.mnemonic() {
        Mnemonic::Loope => Some(Cond::E),
        Mnemonic::Loopne => Some(Cond::Ne),
        _ => None,
    };
    if let Some(equal) = equal {
        let equal = c.b.flags_use(equal);
        yes = c.b.binary(Binary::And, yes, equal);
    }
    c.set_reg(RCX, new);
    two_ways(c, yes);
}

fn count_zero(c: &mut Ctx<'_>, ty: Ty) -> bool {
    let count = c.reg(RCX, ty);
    let zero = c.b.iconst(ty, 0);
    let yes = c.b.cmp(Cmp::Eq, count, zero);
    two_ways(c, yes);
    true
}

fn bound(c: &mut Ctx<'_>) {
    let ty = c.op_ty(0);
    let index = c.operand(0);
    let address = c.operand_address(false);
    let lower = c.load(address, ty);
    let address = c.address_plus(address, ty.bytes().into());
    let upper = c.load(address, ty);
    let below = c.b.cmp(Cmp::Lts, index, lower);
    let above = c.b.cmp(Cmp::Lts, upper, index);
    let out = c.b.or(below, above);
    let (yes, no) = (c.b.block(), c.b.block());
    c.b.branch(out, yes, no);
    c.b.switch(yes);
    c.raise_and_end(vector::BR, None);
    c.b.switch(no);
}
