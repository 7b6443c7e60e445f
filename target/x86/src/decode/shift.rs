//! Shifts and rotates (SDM vol. 1, 5.1.5).

use accel_ir::{Binary, FlagKind, Ty, Val};
use iced_x86::{Mnemonic, OpKind};

use super::check;
use super::context::{Ctx, Place};

/// What is done.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Shift {
    Shl,
    Shr,
    Sar,
    Rol,
    Ror,
    Rcl,
    Rcr,
}

/// A count: known, or in CL and masked.
#[derive(Clone, Copy)]
enum Count {
    Known(u64),
    Masked(Val),
}

/// Translates one of them; false if it is another instruction.
pub(super) fn translate(c: &mut Ctx<'_>) -> bool {
    let shift = match c.insn.mnemonic() {
        Mnemonic::Shl | Mnemonic::Sal => Shift::Shl,
        Mnemonic::Shr => Shift::Shr,
        Mnemonic::Sar => Shift::Sar,
        Mnemonic::Rol => Shift::Rol,
        Mnemonic::Ror => Shift::Ror,
        Mnemonic::Rcl => Shift::Rcl,
        Mnemonic::Rcr => Shift::Rcr,
        Mnemonic::Shld => {
            double(c, true);
            return true;
        }
        Mnemonic::Shrd => {
            double(c, false);
            return true;
        }
        _ => return false,
    };
    single(c, shift);
    true
}

/// Operand `i` as a count for operands of `ty`.
fn count_of(c: &mut Ctx<'_>, i: u32, ty: Ty) -> Count {
    let mask = if ty == Ty::I64 { 63 } else { 31 };
    if c.insn.op_kind(i) != OpKind::Register {
        return Count::Known(c.immediate(i) & mask);
    }
    let cl = c.operand(i);
    let mask = c.b.iconst(Ty::I8, mask);
    Count::Masked(c.b.and(cl, mask))
}

/// Does `flags` only when the count is not zero: flags stay as they are else.
fn unless_zero(c: &mut Ctx<'_>, count: Count, flags: impl FnOnce(&mut Ctx<'_>)) {
    match count {
        Count::Known(0) => {}
        Count::Known(_) => flags(c),
        Count::Masked(count) => {
            let (some, join) = (c.b.block(), c.b.block());
            c.b.branch(count, some, join);
            c.b.switch(some);
            flags(c);
            c.b.jump(join, &[]);
            c.b.switch(join);
        }
    }
}

fn single(c: &mut Ctx<'_>, shift: Shift) {
    let ty = c.op_ty(0);
    let count = count_of(c, 1, ty);
    let place = c.place(0);
    let a = c.read(place, ty);
    let n = match count {
        Count::Known(n) => c.b.iconst(Ty::I8, n),
        Count::Masked(n) => n,
    };
    if matches!(shift, Shift::Rcl | Shift::Rcr) {
        return through_carry(c, shift, place, count, a, n);
    }
    let op = match shift {
        Shift::Shl => Binary::Shl,
        Shift::Shr => Binary::Shr,
        Shift::Sar => Binary::Sar,
        Shift::Ror => Binary::Rotr,
        _ => Binary::Rotl,
    };
    let result = c.b.binary(op, a, n);
    c.write(place, result);
    unless_zero(c, count, |c| {
        let kind = match shift {
            Shift::Shl => FlagKind::Shl,
            Shift::Shr => FlagKind::Shr,
            Shift::Sar => FlagKind::Sar,
            _ => return rotate_flags(c, shift, result),
        };
        let n = c.b.zext(n, ty);
        c.b.flags_def(kind, a, n, None);
    });
}

/// Bit `at` of a value, as an i8.
fn bit(c: &mut Ctx<'_>, v: Val, at: u32) -> Val {
    c.b.extract(v, at as u8, 1, Ty::I8)
}

/// Replaces CF and OF.
fn set_carry_overflow(c: &mut Ctx<'_>, cf: Val, of: Val) {
    let flags = c.b.flags_get();
    let flags = c.b.insert(flags, cf, 0, 1);
    let flags = c.b.insert(flags, of, 11, 1);
    c.set_flags(flags);
}

fn rotate_flags(c: &mut Ctx<'_>, shift: Shift, result: Val) {
    let top = c.b.ty(result).bits().wrapping_sub(1);
    let high = bit(c, result, top);
    let (cf, other) = if shift == Shift::Rol {
        let low = bit(c, result, 0);
        (low, low)
    } else {
        (high, bit(c, result, top.wrapping_sub(1)))
    };
    let of = c.b.xor(high, other);
    set_carry_overflow(c, cf, of);
}

fn through_carry(c: &mut Ctx<'_>, shift: Shift, place: Place, count: Count, a: Val, n: Val) {
    let ty = c.b.ty(a);
    let right = shift == Shift::Rcr;
    let cf = c.carry(Ty::I8);
    let top = ty.bits().wrapping_sub(1);
    let (result, carry) = if let Count::Known(1) = count {
        let (op, at, out) = if right {
            (Binary::Shr, top as u8, 0)
        } else {
            (Binary::Shl, 0, top)
        };
        let moved = c.b.binary(op, a, n);
        (c.b.insert(moved, cf, at, 1), bit(c, a, out))
    } else {
        let how = c.const64(u64::from(ty.bits()) | u64::from(right) << 8);
        let args = [a, n, cf, how];
        let result = c.b.call(check::ROTATE_CARRY, &args);
        let carry = c.b.call(check::ROTATE_CARRY_FLAG, &args);
        (c.b.zext(result, ty), c.b.zext(carry, Ty::I8))
    };
    c.write(place, result);
    unless_zero(c, count, |c| {
        let high = bit(c, result, top);
        let other = if right {
            bit(c, result, top.wrapping_sub(1))
        } else {
            carry
        };
        let of = c.b.xor(high, other);
        set_carry_overflow(c, carry, of);
    });
}

/// SHLD and SHRD.
fn double(c: &mut Ctx<'_>, left: bool) {
    let ty = c.op_ty(0);
    let count = count_of(c, 2, ty);
    let place = c.place(0);
    let a = c.read(place, ty);
    let b = c.operand(1);
    let n = match count {
        Count::Known(n) => c.b.iconst(Ty::I8, n),
        Count::Masked(n) => n,
    };
    let bits = ty.bits();
    let (result, out) = if ty == Ty::I64 {
        double_64(c, left, a, b, n)
    } else {
        double_narrow(c, left, a, b, n)
    };
    c.write(place, result);
    unless_zero(c, count, |c| {
        c.b.flags_def(FlagKind::Logic, result, result, None);
        let top = bits.wrapping_sub(1);
        let (before, after) = (bit(c, a, top), bit(c, result, top));
        let of = c.b.xor(before, after);
        set_carry_overflow(c, out, of);
    });
}

/// Result and the last bit shifted out, for a count from 1 (and the value itself for 0).
fn double_64(c: &mut Ctx<'_>, left: bool, a: Val, b: Val, n: Val) -> (Val, Val) {
    let one = c.b.iconst(Ty::I8, 1);
    let (there, back) = if left {
        (Binary::Shl, Binary::Shr)
    } else {
        (Binary::Shr, Binary::Shl)
    };
    let moved = c.b.binary(there, a, n);
    // In two steps, so that a count of zero brings in nothing.
    let width = c.b.iconst(Ty::I8, 63);
    let rest = c.b.sub(width, n);
    let fill = c.b.binary(back, b, one);
    let fill = c.b.binary(back, fill, rest);
    let result = c.b.or(moved, fill);
    let before = c.b.sub(n, one);
    let almost = c.b.binary(there, a, before);
    (result, bit(c, almost, if left { 63 } else { 0 }))
}

/// As [`double_64`] for narrower operands, in 64 bits. 16-bit operands with counts over 16, which
/// are undefined, shift `a:b:a` as processors do.
fn double_narrow(c: &mut Ctx<'_>, left: bool, a: Val, b: Val, n: Val) -> (Val, Val) {
    let ty = c.b.ty(a);
    let bits = ty.bits() as u8;
    let one = c.b.iconst(Ty::I8, 1);
    let before = c.b.sub(n, one);
    let (wa, wb) = (c.b.zext(a, Ty::I64), c.b.zext(b, Ty::I64));
    if left {
        // a:b(:a) at the top of 64 bits.
        let mut all = wa;
        if ty == Ty::I16 {
            all = c.b.shl_const(wa, 48);
            all = c.b.insert(all, b, 32, 16);
            all = c.b.insert(all, a, 16, 16);
        } else {
            all = c.b.shl_const(all, 32);
            all = c.b.or(all, wb);
        }
        let moved = c.b.binary(Binary::Shl, all, n);
        let almost = c.b.binary(Binary::Shl, all, before);
        let result = c.b.extract(moved, 64u8.wrapping_sub(bits), bits, ty);
        (result, bit(c, almost, 63))
    } else {
        let mut all = c.b.insert(wa, b, bits, bits);
        if ty == Ty::I16 {
            all = c.b.insert(all, a, 32, 16);
        }
        let moved = c.b.binary(Binary::Shr, all, n);
        let almost = c.b.binary(Binary::Shr, all, before);
        (c.b.zext(moved, ty), bit(c, almost, 0))
    }
}
