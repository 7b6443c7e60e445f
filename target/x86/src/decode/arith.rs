//! Binary arithmetic and logic (SDM vol. 1, 5.1.2 and 5.1.4).

use accel_ir::{Binary, Cmp, FlagKind, Ordering, Rmw, Ty, Unary, Val};
use iced_x86::Mnemonic;

use super::check;
use super::context::{Ctx, Place, number};
use crate::regs;
use crate::regs::index::{RAX, RDX};

/// A two-operand operation that sets all flags.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Alu {
    Add,
    Adc,
    Sub,
    Sbb,
    And,
    Or,
    Xor,
    Cmp,
    Test,
}

/// Translates one of them; false if it is another instruction.
pub(super) fn translate(c: &mut Ctx<'_>) -> bool {
    match c.insn.mnemonic() {
        Mnemonic::Add => alu(c, Alu::Add),
        Mnemonic::Adc => alu(c, Alu::Adc),
        Mnemonic::Sub => alu(c, Alu::Sub),
        Mnemonic::Sbb => alu(c, Alu::Sbb),
        Mnemonic::And => alu(c, Alu::And),
        Mnemonic::Or => alu(c, Alu::Or),
        Mnemonic::Xor => alu(c, Alu::Xor),
        Mnemonic::Cmp => alu(c, Alu::Cmp),
        Mnemonic::Test => alu(c, Alu::Test),
        Mnemonic::Inc => step(c, true),
        Mnemonic::Dec => step(c, false),
        Mnemonic::Neg => neg(c),
        Mnemonic::Not => not(c),
        Mnemonic::Mul => multiply_wide(c, false),
        Mnemonic::Imul if c.insn.op_count() == 1 => multiply_wide(c, true),
        Mnemonic::Imul => multiply(c),
        Mnemonic::Div => divide(c, false),
        Mnemonic::Idiv => divide(c, true),
        Mnemonic::Xadd => xadd(c),
        Mnemonic::Cmpxchg => cmpxchg(c),
        _ => return false,
    }
    true
}

impl Alu {
    fn kind(self) -> FlagKind {
        match self {
            Alu::Add => FlagKind::Add,
            Alu::Adc => FlagKind::Adc,
            Alu::Sub | Alu::Cmp => FlagKind::Sub,
            Alu::Sbb => FlagKind::Sbb,
            Alu::And | Alu::Or | Alu::Xor | Alu::Test => FlagKind::Logic,
        }
    }

    fn rmw(self) -> Rmw {
        match self {
            Alu::Add | Alu::Adc => Rmw::Add,
            Alu::And | Alu::Test => Rmw::And,
            Alu::Or => Rmw::Or,
            Alu::Xor => Rmw::Xor,
            Alu::Sub | Alu::Sbb | Alu::Cmp => Rmw::Sub,
        }
    }

    fn binary(self) -> Binary {
        match self.rmw() {
            Rmw::And => Binary::And,
            Rmw::Or => Binary::Or,
            Rmw::Xor => Binary::Xor,
            Rmw::Sub => Binary::Sub,
            Rmw::Add | Rmw::Xchg => Binary::Add,
        }
    }

    fn stores(self) -> bool {
        !matches!(self, Alu::Cmp | Alu::Test)
    }
}

/// Sets the flags of an operation whose result is `result`.
fn define(c: &mut Ctx<'_>, op: Alu, a: Val, b: Val, carry: Option<Val>, result: Val) {
    match op.kind() {
        FlagKind::Logic => c.b.flags_def(FlagKind::Logic, result, result, None),
        kind => c.b.flags_def(kind, a, b, carry),
    }
}

fn alu(c: &mut Ctx<'_>, op: Alu) {
    let ty = c.op_ty(0);
    let same =
        c.is_register(0) && c.is_register(1) && c.insn.op_register(0) == c.insn.op_register(1);
    if same && matches!(op, Alu::Xor | Alu::Sub) {
        let zero = c.b.iconst(ty, 0);
        define(c, op, zero, zero, None, zero);
        c.set_gpr(c.insn.op_register(0), zero);
        return;
    }
    let carry = matches!(op, Alu::Adc | Alu::Sbb).then(|| c.carry(Ty::I8));
    if !op.stores() {
        let a = c.operand(0);
        let b = c.operand_as(1, ty);
        if op == Alu::Cmp {
            c.b.flags_def(FlagKind::Sub, a, b, None);
        } else {
            let result = if same { a } else { c.b.and(a, b) };
            c.b.flags_def(FlagKind::Logic, result, result, None);
        }
        return;
    }
    let place = c.place(0);
    let b = c.operand_as(1, ty);
    // What is added or subtracted in all.
    let total = |c: &mut Ctx<'_>| match carry {
        Some(carry) => {
            let carry = c.b.zext(carry, ty);
            c.b.add(b, carry)
        }
        None => b,
    };
    match place {
        Place::Mem(address) if c.insn.has_lock_prefix() => {
            let mem = c.mem(ty, Ordering::SeqCst);
            let total = total(c);
            let old = c.b.rmw(op.rmw(), address, total, mem);
            let result = c.b.binary(op.binary(), old, total);
            define(c, op, old, b, carry, result);
        }
        Place::Mem(_) => {
            let a = c.read(place, ty);
            let total = total(c);
            let result = c.b.binary(op.binary(), a, total);
            c.write(place, result);
            define(c, op, a, b, carry, result);
        }
        Place::Reg(register) => {
            let a = c.gpr(register);
            let total = total(c);
            if op.kind() == FlagKind::Logic {
                let result = c.b.binary(op.binary(), a, total);
                define(c, op, a, b, carry, result);
                c.set_gpr(register, result);
            } else {
                define(c, op, a, b, carry, a);
                let result = c.b.binary(op.binary(), a, total);
                c.set_gpr(register, result);
            }
        }
    }
}

fn step(c: &mut Ctx<'_>, up: bool) {
    let ty = c.op_ty(0);
    let (kind, op, rmw) = if up {
        (FlagKind::Inc, Binary::Add, Rmw::Add)
    } else {
        (FlagKind::Dec, Binary::Sub, Rmw::Sub)
    };
    let carry = c.carry(Ty::I8);
    let place = c.place(0);
    let one = c.b.iconst(ty, 1);
    match place {
        Place::Mem(address) if c.insn.has_lock_prefix() => {
            let mem = c.mem(ty, Ordering::SeqCst);
            let old = c.b.rmw(rmw, address, one, mem);
            c.b.flags_def(kind, old, one, Some(carry));
        }
        Place::Mem(_) => {
            let a = c.read(place, ty);
            let result = c.b.binary(op, a, one);
            c.write(place, result);
            c.b.flags_def(kind, a, one, Some(carry));
        }
        Place::Reg(register) => {
            let a = c.gpr(register);
            c.b.flags_def(kind, a, one, Some(carry));
            let result = c.b.binary(op, a, one);
            c.set_gpr(register, result);
        }
    }
}

fn neg(c: &mut Ctx<'_>) {
    let ty = c.op_ty(0);
    let place = c.place(0);
    let zero = c.b.iconst(ty, 0);
    let old = match place {
        Place::Mem(address) if c.insn.has_lock_prefix() => {
            let how = u64::from(ty.bytes()) | u64::from(c.mode.data_ctx()) << 8;
            let how = c.const64(how);
            let old = c.b.call(check::LOCKED_NEG, &[address, how]);
            c.b.zext(old, ty)
        }
        _ => {
            let old = c.read(place, ty);
            let result = c.b.unary(Unary::Neg, old);
            c.write(place, result);
            old
        }
    };
    c.b.flags_def(FlagKind::Sub, zero, old, None);
}

fn not(c: &mut Ctx<'_>) {
    let ty = c.op_ty(0);
    match c.place(0) {
        Place::Mem(address) if c.insn.has_lock_prefix() => {
            let ones = c.b.iconst(ty, u64::MAX);
            let mem = c.mem(ty, Ordering::SeqCst);
            c.b.rmw(Rmw::Xor, address, ones, mem);
        }
        place => {
            let old = c.read(place, ty);
            let result = c.b.unary(Unary::Not, old);
            c.write(place, result);
        }
    }
}

/// The type of twice the width.
fn double(ty: Ty) -> Ty {
    Ty::of_bytes(u32::from(ty.bytes()).wrapping_mul(2))
}

/// Low and high half of a product, and whether the high half says more than the sign (signed) or
/// zero (unsigned) of the low half.
fn product(c: &mut Ctx<'_>, a: Val, b: Val, signed: bool) -> (Val, Val, Val) {
    let ty = c.b.ty(a);
    let (low, high) = if ty == Ty::I64 {
        let low = c.b.binary(Binary::Mul, a, b);
        let op = if signed { Binary::MulHs } else { Binary::MulHu };
        (low, c.b.binary(op, a, b))
    } else {
        let wide = double(ty);
        let widen = |c: &mut Ctx<'_>, v| {
            if signed {
                c.b.sext(v, wide)
            } else {
                c.b.zext(v, wide)
            }
        };
        let (a, b) = (widen(c, a), widen(c, b));
        let full = c.b.binary(Binary::Mul, a, b);
        let low = c.b.zext(full, ty);
        let bits = ty.bits() as u8;
        (low, c.b.extract(full, bits, bits, ty))
    };
    let expected = if signed {
        let count = c.b.iconst(Ty::I8, u64::from(ty.bits()).wrapping_sub(1));
        c.b.binary(Binary::Sar, low, count)
    } else {
        c.b.iconst(ty, 0)
    };
    let overflow = c.b.cmp(Cmp::Ne, high, expected);
    (low, high, overflow)
}

/// AX, DX:AX, EDX:EAX, RDX:RAX = accumulator * operand.
fn multiply_wide(c: &mut Ctx<'_>, signed: bool) {
    let ty = c.op_ty(0);
    let b = c.operand(0);
    let a = c.reg(RAX, ty);
    let (low, high, overflow) = product(c, a, b, signed);
    let overflow = c.b.zext(overflow, ty);
    c.b.flags_def(FlagKind::Mul, low, overflow, None);
    if ty == Ty::I8 {
        let low = c.b.zext(low, Ty::I16);
        let ax = c.b.insert(low, high, 8, 8);
        c.set_reg(RAX, ax);
    } else {
        c.set_reg(RAX, low);
        c.set_reg(RDX, high);
    }
}

/// IMUL with two or three operands.
fn multiply(c: &mut Ctx<'_>) {
    let ty = c.op_ty(0);
    let (a, b) = if c.insn.op_count() == 3 {
        (c.operand(1), c.operand_as(2, ty))
    } else {
        (c.operand(0), c.operand(1))
    };
    let (low, _, overflow) = product(c, a, b, true);
    let overflow = c.b.zext(overflow, ty);
    c.b.flags_def(FlagKind::Mul, low, overflow, None);
    c.set_operand(0, low);
}

fn divide(c: &mut Ctx<'_>, signed: bool) {
    let ty = c.op_ty(0);
    let divisor = c.operand(0);
    let low = c.reg(RAX, ty);
    let high = if ty == Ty::I8 {
        let ax = c.reg(RAX, Ty::I16);
        c.b.extract(ax, 8, 8, Ty::I8)
    } else {
        c.reg(RDX, ty)
    };
    let helper = if signed {
        check::DIVIDE_SIGNED
    } else {
        check::DIVIDE
    };
    let bits = c.const64(ty.bits().into());
    let quotient = c.b.call(helper, &[high, low, divisor, bits]);
    let quotient = c.b.zext(quotient, ty);
    let back = c.b.binary(Binary::Mul, quotient, divisor);
    let rest = c.b.sub(low, back);
    if ty == Ty::I8 {
        let quotient = c.b.zext(quotient, Ty::I16);
        let ax = c.b.insert(quotient, rest, 8, 8);
        c.set_reg(RAX, ax);
    } else {
        c.set_reg(RAX, quotient);
        c.set_reg(RDX, rest);
    }
}

fn xadd(c: &mut Ctx<'_>) {
    let ty = c.op_ty(0);
    let source = c.insn.op1_register();
    let place = c.place(0);
    let b = c.gpr(source);
    let a = match place {
        Place::Mem(address) if c.insn.has_lock_prefix() => {
            let mem = c.mem(ty, Ordering::SeqCst);
            let a = c.b.rmw(Rmw::Add, address, b, mem);
            c.set_gpr(source, a);
            a
        }
        Place::Mem(address) => {
            let a = c.load(address, ty);
            let sum = c.b.add(a, b);
            c.store(address, sum);
            c.set_gpr(source, a);
            a
        }
        Place::Reg(register) => {
            let a = c.gpr(register);
            let sum = c.b.add(a, b);
            c.set_gpr(source, a);
            c.set_gpr(register, sum);
            a
        }
    };
    c.b.flags_def(FlagKind::Add, a, b, None);
}

fn cmpxchg(c: &mut Ctx<'_>) {
    let ty = c.op_ty(0);
    let place = c.place(0);
    let new = c.gpr(c.insn.op1_register());
    let expected = c.reg(RAX, ty);
    let old = match place {
        Place::Mem(address) if c.insn.has_lock_prefix() => {
            let mem = c.mem(ty, Ordering::SeqCst);
            c.b.cas(address, expected, new, mem)
        }
        Place::Mem(address) => {
            let old = c.load(address, ty);
            let equal = c.b.cmp(Cmp::Eq, old, expected);
            let stored = c.b.select(equal, new, old);
            c.store(address, stored);
            old
        }
        Place::Reg(register) => c.gpr(register),
    };
    let equal = c.b.cmp(Cmp::Eq, old, expected);
    c.b.flags_def(FlagKind::Sub, expected, old, None);
    // The accumulator is written only when the comparison fails: EAX keeps its upper half else.
    let all = c.reg(RAX, Ty::I64);
    let loaded = match ty {
        Ty::I8 | Ty::I16 => c.b.insert(all, old, 0, ty.bits() as u8),
        _ => c.b.zext(old, Ty::I64),
    };
    let rax = c.b.select(equal, all, loaded);
    c.b.set(regs::gpr(RAX), rax);
    if let Place::Reg(register) = place {
        // As AMD's processors do: the destination is left alone when the comparison fails. If it is
        // the accumulator itself, the comparison never fails.
        let slot = regs::gpr(number(register));
        let before = c.b.get(slot);
        c.set_gpr(register, new);
        let after = c.b.get(slot);
        let v = c.b.select(equal, after, before);
        c.b.set(slot, v);
    }
}
