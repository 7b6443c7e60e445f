//! Bit and byte instructions (SDM vol. 1, 5.1.6).

use accel_ir::{Binary, Cmp, Cond, FlagKind, Ordering, Rmw, Ty, Unary, Val};
use iced_x86::{ConditionCode, Mnemonic, OpKind};

use super::check;
use super::context::{Ctx, Place, number};
use crate::regs;

/// Translates one of them; false if it is another instruction.
pub(super) fn translate(c: &mut Ctx<'_>) -> bool {
    match c.insn.mnemonic() {
        Mnemonic::Bt => bit_test(c, None),
        Mnemonic::Bts => bit_test(c, Some(Rmw::Or)),
        Mnemonic::Btr => bit_test(c, Some(Rmw::And)),
        Mnemonic::Btc => bit_test(c, Some(Rmw::Xor)),
        Mnemonic::Bsf => scan(c, false),
        Mnemonic::Bsr => scan(c, true),
        Mnemonic::Tzcnt => count(c, Unary::Ctz),
        Mnemonic::Lzcnt => count(c, Unary::Clz),
        Mnemonic::Popcnt => popcnt(c),
        Mnemonic::Crc32 => crc32(c),
        _ => match c.insn.condition_code() {
            ConditionCode::None => return false,
            code if c.insn.op_count() == 1 && c.op_is_byte() => set(c, code),
            _ => return false,
        },
    }
    true
}

/// The condition of an instruction's name.
pub(super) fn condition(code: ConditionCode) -> Cond {
    Cond::from_number((code as u8).wrapping_sub(1))
}

impl Ctx<'_> {
    /// Whether the first operand is a byte: SETcc among the conditional instructions.
    fn op_is_byte(&self) -> bool {
        matches!(self.insn.op0_kind(), OpKind::Register | OpKind::Memory)
    }
}

fn set(c: &mut Ctx<'_>, code: ConditionCode) {
    let place = c.place(0);
    let v = c.b.flags_use(condition(code));
    c.write(place, v);
}

fn bit_test(c: &mut Ctx<'_>, change: Option<Rmw>) {
    let ty = c.op_ty(0);
    let low = u64::from(ty.bits()).wrapping_sub(1);
    let place = if c.is_memory(0) && c.is_register(1) {
        // A bit string: the index reaches beyond the operand, signed.
        let offset = c.offset();
        let index = c.operand(1);
        let index = c.b.sext(index, Ty::I64);
        let shift = c.b.iconst(Ty::I8, low.count_ones().into());
        let unit = c.b.binary(Binary::Sar, index, shift);
        let bytes = c.b.shl_const(unit, u64::from(ty.bytes().trailing_zeros()));
        let sum = c.b.add(offset, bytes);
        let sum = c.wrap_offset(sum);
        let address = c.linear(c.memory_segment(), sum, ty.bytes().into(), change.is_some());
        Place::Mem(address)
    } else if c.is_memory(0) {
        Place::Mem(c.operand_address(change.is_some()))
    } else {
        Place::Reg(c.insn.op0_register())
    };
    let index = c.operand_as(1, ty);
    let mask = c.b.iconst(ty, low);
    let index = c.b.and(index, mask);
    let one = c.b.iconst(ty, 1);
    let selected = match change {
        Some(_) => c.b.binary(Binary::Shl, one, index),
        None => one,
    };
    let operand = |c: &mut Ctx<'_>, op| match op {
        Rmw::And => c.b.unary(Unary::Not, selected),
        _ => selected,
    };
    let old = match (place, change) {
        (Place::Mem(address), Some(op)) if c.insn.has_lock_prefix() => {
            let v = operand(c, op);
            let mem = c.mem(ty, Ordering::SeqCst);
            c.b.rmw(op, address, v, mem)
        }
        _ => {
            let old = c.read(place, ty);
            if let Some(op) = change {
                let v = operand(c, op);
                let op = match op {
                    Rmw::And => Binary::And,
                    Rmw::Or => Binary::Or,
                    _ => Binary::Xor,
                };
                let new = c.b.binary(op, old, v);
                c.write(place, new);
            }
            old
        }
    };
    let shifted = c.b.binary(Binary::Shr, old, index);
    let cf = c.b.zext(shifted, Ty::I8);
    c.set_carry(cf);
}

/// BSF and BSR: the destination stays when the source is zero.
fn scan(c: &mut Ctx<'_>, reverse: bool) {
    let ty = c.op_ty(0);
    let source = c.operand(1);
    let position = if reverse {
        let zeros = c.b.unary(Unary::Clz, source);
        let top = c.b.iconst(ty, u64::from(ty.bits()).wrapping_sub(1));
        c.b.sub(top, zeros)
    } else {
        c.b.unary(Unary::Ctz, source)
    };
    let slot = regs::gpr(number(c.insn.op0_register()));
    let old = c.b.get(slot);
    let found = match ty {
        Ty::I16 => c.b.insert(old, position, 0, 16),
        _ => c.b.zext(position, Ty::I64),
    };
    c.b.flags_def(FlagKind::Logic, source, source, None);
    let new = c.b.select(source, found, old);
    c.b.set(slot, new);
}

/// TZCNT and LZCNT.
fn count(c: &mut Ctx<'_>, op: Unary) {
    let ty = c.op_ty(0);
    let source = c.operand(1);
    let result = c.b.unary(op, source);
    let zero = c.b.iconst(ty, 0);
    let none = c.b.cmp(Cmp::Eq, source, zero);
    c.b.flags_def(FlagKind::Logic, result, result, None);
    c.set_carry(none);
    c.set_operand(0, result);
}

fn popcnt(c: &mut Ctx<'_>) {
    let source = c.operand(1);
    let result = c.b.unary(Unary::Popcnt, source);
    let zero = c.b.iconst(c.b.ty(source), 0);
    let none = c.b.cmp(Cmp::Eq, source, zero);
    let none = c.b.zext(none, Ty::I64);
    let flags = c.b.shl_const(none, 6);
    c.set_flags(flags);
    c.set_operand(0, result);
}

fn crc32(c: &mut Ctx<'_>) {
    let data = c.operand(1);
    let bytes = u64::from(c.b.ty(data).bytes());
    let sum = c.reg(number(c.insn.op0_register()), Ty::I32);
    let bytes = c.const64(bytes);
    let result = c.b.call(check::CRC32, &[sum, data, bytes]);
    let result = c.b.zext(result, Ty::I32);
    c.set_reg(number(c.insn.op0_register()), result);
}

impl Ctx<'_> {
    /// Cuts a computed offset to the address size of the memory operand.
    fn wrap_offset(&mut self, offset: Val) -> Val {
        let ty = self.address_ty();
        let low = self.b.zext(offset, ty);
        self.b.zext(low, Ty::I64)
    }
}
