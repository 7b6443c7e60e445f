//! Integer operations.

use accel_ir::{Binary, Cmp, Op, Ty, Unary, Val};

use super::memory::size_of;
use super::{Compiler, TooBig};
use crate::asm::{Alu, CC_AE, CC_BE, CC_E, CC_NE, Cc, Mem, RAX, RCX, RDX, Reg, Rm, Shift, Size};

/// The condition under which a comparison holds, and whether its operands change places.
pub(super) fn cc_of(op: Cmp) -> Cc {
    match op {
        Cmp::Eq => CC_E,
        Cmp::Ne => CC_NE,
        Cmp::Ltu => 2,
        Cmp::Leu => 6,
        Cmp::Lts => 12,
        Cmp::Les => 14,
    }
}

/// The size that an operation on a type is done in when the bits above do not matter.
fn wide(ty: Ty) -> Size {
    if ty == Ty::I64 { Size::Q } else { Size::D }
}

/// A constant as a sign-extended operand of a type's size.
pub(super) fn imm_of(ty: Ty, value: u64) -> Option<i32> {
    match ty {
        Ty::I64 => i32::try_from(value as i64).ok(),
        ty => Some(ty.sext(value) as i32),
    }
}

impl Compiler<'_> {
    /// The register for a result that starts as a copy of an operand whose use is done: the
    /// destination if it has one, the operand's own register if that is free now.
    fn result(&mut self, d: Val, from: Option<Rm>) -> Result<Reg, TooBig> {
        if let Some((_, reg)) = self.destination(d) {
            return Ok(reg);
        }
        match from {
            Some(Rm::Reg(reg)) if self.is_free(reg) => Ok(reg),
            _ => self.alloc(),
        }
    }

    pub(super) fn unary(&mut self, op: Unary, d: Val, a: Val) -> Result<(), TooBig> {
        let ty = self.ty(d);
        let bits = ty.bits() as i32;
        match op {
            Unary::Not | Unary::Neg => {
                self.ready(a)?;
                let from = self.place_of(a)?;
                self.consume(a);
                let to = self.result(d, from)?;
                self.move_to(to, from, a, ty)?;
                if op == Unary::Not {
                    self.asm.not(wide(ty), to);
                } else {
                    self.asm.neg(wide(ty), to);
                }
                self.define(d, to, !matches!(ty, Ty::I32 | Ty::I64));
            }
            Unary::Bswap => {
                self.ready(a)?;
                let from = self.place_of(a)?;
                self.consume(a);
                let to = self.result(d, from)?;
                self.move_to(to, from, a, ty)?;
                match ty {
                    Ty::I8 => {}
                    Ty::I16 => self.asm.shift_imm(Shift::Rol, Size::W, to, 8),
                    _ => self.asm.bswap(wide(ty), to),
                }
                self.define(d, to, !matches!(ty, Ty::I32 | Ty::I64));
            }
            Unary::Popcnt => {
                let from = self.clean(a)?;
                self.consume(a);
                let to = self.result(d, None)?;
                self.asm.popcnt(to, from);
                self.define(d, to, false);
            }
            Unary::Ctz => {
                let from = self.clean(a)?;
                self.consume(a);
                let to = self.alloc()?;
                // A bit above the type ends the scan; for 64 bits zero is a case of its own.
                if ty == Ty::I64 {
                    let none = self.alloc()?;
                    self.asm.mov_imm(none, 64);
                    self.asm.bit_scan(false, to, from);
                    self.asm.cmov(CC_E, to, none);
                } else {
                    self.asm.mov_imm(to, 1 << bits);
                    self.asm.alu(Alu::Or, Size::Q, to, from);
                    self.asm.bit_scan(false, to, to);
                }
                self.define(d, to, false);
            }
            Unary::Clz => {
                let from = self.clean(a)?;
                self.consume(a);
                let to = self.alloc()?;
                if ty == Ty::I64 {
                    let none = self.alloc()?;
                    self.asm.mov_imm(none, 127);
                    self.asm.bit_scan(true, to, from);
                    self.asm.cmov(CC_E, to, none);
                    self.asm.alu_imm(Alu::Xor, Size::D, to, 63);
                } else {
                    // Twice the value and one: its highest bit is one further up, and never absent.
                    self.asm.lea(
                        Size::Q,
                        to,
                        Mem::At {
                            base: Some(from),
                            index: Some((from, 0)),
                            disp: 1,
                        },
                    );
                    self.asm.bit_scan(true, to, to);
                    self.asm.neg(Size::D, to);
                    self.asm.alu_imm(Alu::Add, Size::D, to, bits);
                }
                self.define(d, to, false);
            }
        }
        Ok(())
    }

    /// Where a value is, as something to copy from; `None` for a constant.
    fn place_of(&mut self, v: Val) -> Result<Option<Rm>, TooBig> {
        if self.places.constant(v).is_some() {
            return Ok(None);
        }
        self.operand(v).map(Some)
    }

    /// Copies what `place_of` found; bits above the type may be garbage.
    fn move_to(&mut self, to: Reg, from: Option<Rm>, v: Val, ty: Ty) -> Result<(), TooBig> {
        match from {
            None => {
                let value = self.places.constant(v).ok_or(TooBig)?;
                self.asm.mov_imm(to, value);
            }
            Some(from) if from == to.into() => {}
            Some(Rm::Reg(from)) => self.asm.mov(wide(ty), to, from),
            Some(from) => self.asm.movzx(size_of(ty), to, from),
        }
        Ok(())
    }

    pub(super) fn binary(&mut self, op: Binary, d: Val, a: Val, b: Val) -> Result<(), TooBig> {
        let ty = self.ty(d);
        match op {
            Binary::Add | Binary::Shl
                if self.can_defer(d) && self.is_sum(op, b, ty) && self.set_target(d).is_none() =>
            {
                self.places.defer(d, Op::Binary { op, d, a, b });
                Ok(())
            }
            Binary::Add => self.simple(Alu::Add, true, d, a, b),
            Binary::Sub => self.simple(Alu::Sub, false, d, a, b),
            Binary::And if self.is_low_part(a, b) => self.low_part(d, a, b),
            Binary::And => self.simple(Alu::And, true, d, a, b),
            Binary::Or => self.simple(Alu::Or, true, d, a, b),
            Binary::Xor => self.simple(Alu::Xor, true, d, a, b),
            Binary::Mul => self.multiply(d, a, b),
            Binary::MulHu => self.multiply_high(false, d, a, b),
            Binary::MulHs => self.multiply_high(true, d, a, b),
            Binary::Shl => self.shift(Shift::Shl, d, a, b),
            Binary::Shr => self.shift(Shift::Shr, d, a, b),
            Binary::Sar => self.shift(Shift::Sar, d, a, b),
            Binary::Rotl => self.shift(Shift::Rol, d, a, b),
            Binary::Rotr => self.shift(Shift::Ror, d, a, b),
        }
    }

    fn simple(&mut self, op: Alu, commutes: bool, d: Val, a: Val, b: Val) -> Result<(), TooBig> {
        let ty = self.ty(d);
        let (mut a, mut b) = (a, b);
        if commutes && self.places.constant(a).is_some() {
            (a, b) = (b, a);
        }
        self.ready(a)?;
        self.ready(b)?;
        let imm = self.places.constant(b).and_then(|value| imm_of(ty, value));
        let mut from = self.place_of(a)?;
        let mut with: Option<Rm> = match imm {
            Some(_) => None,
            None if self.places.constant(b).is_some() => Some(self.reg(b)?.into()),
            None => Some(self.operand(b)?),
        };
        self.consume(a);
        self.consume(b);
        let mut to = self.result(d, from)?;
        let target = to;
        if with == Some(to.into()) && from != Some(to.into()) {
            if commutes && from.is_some() {
                std::mem::swap(&mut with, &mut from);
                a = b;
            } else {
                to = self.alloc()?;
            }
        }
        let step = match op {
            Alu::Add => imm,
            Alu::Sub => imm.and_then(i32::checked_neg),
            _ => None,
        };
        if let (Some(step), Some(Rm::Reg(from))) = (step, from)
            && from != to
            && matches!(ty, Ty::I32 | Ty::I64)
            && !self.wants_flags_of(op, a, b)
        {
            self.asm.lea(size_of(ty), to, Mem::base(from, step));
            self.define(d, to, false);
            return Ok(());
        }
        // Flags are exact in the type's own size.
        let size = size_of(ty);
        self.move_to(to, from, a, ty)?;
        match (imm, with) {
            (Some(imm), _) => self.asm.alu_imm(op, size, to, imm),
            (None, Some(with)) => self.asm.alu(op, size, to, with),
            (None, None) => return Err(TooBig),
        }
        if let Some(def) = self.flags
            && self.is_definition(def, op, a, b)
        {
            self.asm.flags_of = Some(def);
        }
        if to != target {
            self.asm.mov(wide(ty), target, to);
            to = target;
        }
        self.define(d, to, !matches!(ty, Ty::I32 | Ty::I64));
        Ok(())
    }

    /// Whether the flags of an operation are read later on.
    fn wants_flags_of(&self, op: Alu, a: Val, b: Val) -> bool {
        self.flags.is_some_and(|def| {
            self.is_definition(def, op, a, b) && self.plan.defs[def as usize].reads != 0
        })
    }

    /// Whether an AND with `b` takes the low 32 bits.
    fn is_low_part(&self, a: Val, b: Val) -> bool {
        let is_mask = self.places.constant(b) == Some(u32::MAX.into());
        is_mask && self.ty(a) == Ty::I64 && self.places.constant(a).is_none()
    }

    fn low_part(&mut self, d: Val, a: Val, b: Val) -> Result<(), TooBig> {
        self.ready(a)?;
        let from = self.operand(a)?;
        self.consume(a);
        self.consume(b);
        let to = self.result(d, Some(from))?;
        self.asm.mov(Size::D, to, from);
        self.define(d, to, false);
        Ok(())
    }

    fn multiply(&mut self, d: Val, a: Val, b: Val) -> Result<(), TooBig> {
        let ty = self.ty(d);
        let (mut a, mut b) = (a, b);
        if self.places.constant(a).is_some() {
            (a, b) = (b, a);
        }
        self.ready(a)?;
        self.ready(b)?;
        let imm = self.places.constant(b).and_then(|value| imm_of(ty, value));
        let size = wide(ty);
        if let Some(imm) = imm {
            let from = self.reg(a)?;
            self.consume(a);
            self.consume(b);
            let to = self.result(d, Some(from.into()))?;
            self.asm.imul_imm(size, to, from, imm);
            self.define(d, to, !matches!(ty, Ty::I32 | Ty::I64));
            return Ok(());
        }
        let from = self.reg(a)?;
        let by = self.reg(b)?;
        self.consume(a);
        self.consume(b);
        let to = self.result(d, Some(from.into()))?;
        let (from, by) = if by == to { (by, from) } else { (from, by) };
        if from != to {
            self.asm.mov(size, to, from);
        }
        self.asm.imul(size, to, by);
        self.define(d, to, !matches!(ty, Ty::I32 | Ty::I64));
        Ok(())
    }

    fn multiply_high(&mut self, signed: bool, d: Val, a: Val, b: Val) -> Result<(), TooBig> {
        let ty = self.ty(d);
        if ty != Ty::I64 {
            // The product of narrower values fits 64 bits.
            let widen = |c: &mut Self, v: Val, to: Reg| -> Result<(), TooBig> {
                let from = c.clean(v)?;
                if signed {
                    c.asm.movsx(size_of(ty), Size::Q, to, from);
                } else {
                    c.asm.mov(Size::Q, to, from);
                }
                Ok(())
            };
            let (x, y) = (self.alloc()?, self.alloc()?);
            widen(self, a, x)?;
            widen(self, b, y)?;
            self.consume(a);
            self.consume(b);
            self.asm.imul(Size::Q, x, y);
            self.asm.shift_imm(Shift::Shr, Size::Q, x, ty.bits() as u8);
            self.define(d, x, true);
            return Ok(());
        }
        self.claim(RAX)?;
        self.claim(RDX)?;
        let by = self.reg(b)?;
        self.copy_into(RAX, a)?;
        self.asm.mul(signed, by);
        self.consume(a);
        self.consume(b);
        self.define(d, RDX, false);
        Ok(())
    }

    /// The quotient by the host's division where that cannot trap; else by the helper, which knows
    /// what the guest does then.
    pub(super) fn divide(
        &mut self,
        signed: bool,
        helper: u16,
        d: Val,
        [high, low, by]: [Val; 3],
        bits: u64,
    ) -> Result<(), TooBig> {
        let size = if bits == 64 { Size::Q } else { Size::D };
        for v in [high, low, by] {
            self.ready(v)?;
        }
        self.claim(RAX)?;
        self.claim(RDX)?;
        self.claim(RCX)?;
        let divisor = self.clean(by)?;
        self.copy_clean(RAX, low)?;
        self.copy_clean(RDX, high)?;
        let vectors = self.places.has_vectors();
        let mut slow = Vec::new();
        if signed {
            // The dividend must be the low half extended, the divisor neither 0 nor -1.
            self.asm.mov(size, RCX, RAX);
            self.asm.shift_imm(Shift::Sar, size, RCX, bits as u8 - 1);
            self.asm.alu(Alu::Cmp, size, RCX, RDX);
            slow.push(self.asm.jcc(CC_NE));
            self.asm.lea(size, RCX, Mem::base(divisor, 1));
            self.asm.alu_imm(Alu::Cmp, size, RCX, 1);
            slow.push(self.asm.jcc(CC_BE));
        } else {
            // Fits, and the divisor is not 0, if the high half is less.
            self.asm.alu(Alu::Cmp, size, RDX, divisor);
            slow.push(self.asm.jcc(CC_AE));
        }
        self.asm.div(size, signed, divisor);
        for from in slow {
            self.detour(
                from,
                super::What::Divide {
                    args: [RDX, RAX, divisor],
                    bits: bits as i32,
                    helper,
                    vectors,
                },
            );
        }
        for v in [high, low, by] {
            self.consume(v);
        }
        if self.plan.is_used(d) {
            self.define(d, RAX, false);
        }
        Ok(())
    }

    /// Copies a value, zero-extended.
    fn copy_clean(&mut self, to: Reg, v: Val) -> Result<(), TooBig> {
        match self.places.constant(v) {
            Some(value) => self.asm.mov_imm(to, value),
            None => {
                let from = self.operand(v)?;
                self.asm.movzx(size_of(self.ty(v)), to, from);
            }
        }
        Ok(())
    }

    fn shift(&mut self, op: Shift, d: Val, a: Val, b: Val) -> Result<(), TooBig> {
        let ty = self.ty(d);
        let rotates = matches!(op, Shift::Rol | Shift::Ror);
        // Narrow values are shifted in 32 bits, where counts up to 31 do what they should.
        let size = match ty {
            Ty::I64 => Size::Q,
            Ty::I8 | Ty::I16 if rotates => size_of(ty),
            _ => Size::D,
        };
        let narrow = !matches!(ty, Ty::I32 | Ty::I64);
        self.ready(a)?;
        self.ready(b)?;
        let count = self.places.constant(b);
        if count.is_none() {
            self.claim(RCX)?;
            self.copy_into(RCX, b)?;
        }
        let from = match (op, narrow) {
            (Shift::Shr, true) => Some(self.clean(a)?.into()),
            _ => self.place_of(a)?,
        };
        self.consume(a);
        self.consume(b);
        let to = self.result(d, from)?;
        if op == Shift::Sar && narrow {
            match from {
                Some(from) => self.asm.movsx(size_of(ty), Size::D, to, from),
                None => {
                    let value = self.places.constant(a).ok_or(TooBig)?;
                    self.asm.mov_imm(to, ty.sext(value) as u64 & 0xffff_ffff);
                }
            }
        } else {
            self.move_to(to, from, a, ty)?;
        }
        match count {
            Some(count) => {
                let mask = if ty == Ty::I64 { 63 } else { 31 };
                let count = count as u8 & mask;
                if count != 0 {
                    self.asm.shift_imm(op, size, to, count);
                } else if ty == Ty::I32 {
                    // The copy of a 32-bit value in place may have garbage above.
                    self.asm.mov(Size::D, to, to);
                }
            }
            None => {
                self.asm.shift_cl(op, size, to);
                if ty == Ty::I32 && from == Some(to.into()) {
                    self.asm.mov(Size::D, to, to);
                }
            }
        }
        self.define(d, to, narrow);
        Ok(())
    }

    /// Compares, for the condition returned to be used at once.
    pub(super) fn compare(&mut self, op: Cmp, a: Val, b: Val) -> Result<Cc, TooBig> {
        let ty = self.ty(a);
        let size = size_of(ty);
        self.ready(a)?;
        self.ready(b)?;
        let mut cc = cc_of(op);
        let (mut x, mut y) = (a, b);
        if self.places.constant(x).is_some() && self.places.constant(y).is_none() {
            (x, y) = (y, x);
            cc = swapped(op);
        }
        let imm = self.places.constant(y).and_then(|v| imm_of(ty, v));
        match imm {
            Some(0) if matches!(op, Cmp::Eq | Cmp::Ne) => {
                let reg = self.reg(x)?;
                self.asm.test(size, reg, reg);
            }
            Some(imm) => {
                let left = match self.places.constant(x) {
                    Some(_) => self.reg(x)?.into(),
                    None => self.operand(x)?,
                };
                self.asm.alu_imm(Alu::Cmp, size, left, imm);
            }
            None => {
                let left = self.reg(x)?;
                let right = match self.places.constant(y) {
                    Some(_) => self.reg(y)?.into(),
                    None => self.operand(y)?,
                };
                self.asm.alu(Alu::Cmp, size, left, right);
            }
        }
        self.consume(a);
        self.consume(b);
        Ok(cc)
    }

    /// A comparison as a value.
    pub(super) fn cmp(&mut self, op: Cmp, d: Val, a: Val, b: Val) -> Result<(), TooBig> {
        let cc = self.compare(op, a, b)?;
        self.condition_value(d, cc)
    }

    /// The condition as 0 or 1.
    pub(super) fn condition_value(&mut self, d: Val, cc: Cc) -> Result<(), TooBig> {
        let to = self.alloc()?;
        let flags = self.asm.flags_of;
        self.asm.setcc(cc, to);
        self.asm.movzx(Size::B, to, to);
        self.asm.flags_of = flags;
        self.define(d, to, false);
        Ok(())
    }

    /// Whether a value is not zero, as a condition to be used at once.
    pub(super) fn truth(&mut self, c: Val) -> Result<Cc, TooBig> {
        match self.places.deferred(c).copied() {
            Some(Op::Cmp { op, a, b, .. }) => {
                self.places.take_deferred(c);
                self.consume(c);
                self.compare(op, a, b)
            }
            Some(Op::FlagsUse { cond, .. }) => {
                self.places.take_deferred(c);
                self.consume(c);
                self.flags_condition(cond)
            }
            _ => {
                let reg = self.reg(c)?;
                let size = size_of(self.ty(c));
                self.asm.test(size, reg, reg);
                self.consume(c);
                Ok(CC_NE)
            }
        }
    }

    pub(super) fn select(&mut self, d: Val, c: Val, a: Val, b: Val) -> Result<(), TooBig> {
        let ty = self.ty(d);
        self.ready(a)?;
        self.ready(b)?;
        let cc = self.truth(c)?;
        self.places.unlock();
        // What follows leaves the flags alone.
        let yes = self.clean(a)?;
        let no = self.clean(b)?;
        let to = self.alloc()?;
        self.asm.mov(Size::Q, to, no);
        self.asm.cmov(cc, to, yes);
        self.consume(a);
        self.consume(b);
        debug_assert!(ty != Ty::V128);
        self.define(d, to, false);
        Ok(())
    }

    pub(super) fn zext(&mut self, d: Val, a: Val) -> Result<(), TooBig> {
        let (to_ty, from_ty) = (self.ty(d), self.ty(a));
        if let Some(value) = self.places.constant(a) {
            self.consume(a);
            self.places.set_const(d, value & to_ty.mask());
            return Ok(());
        }
        self.ready(a)?;
        let narrows = to_ty.bits() <= from_ty.bits();
        let last = self.plan.rest[a.0 as usize] == 1;
        if narrows || !self.places.is_dirty(a) {
            // The same bits serve; cut ones become garbage above.
            let dirty = self.places.is_dirty(a) || narrows && to_ty != from_ty;
            let is_guest = matches!(self.places.of(a), super::place::Place::Guest(_));
            if last || is_guest {
                self.alias(d, a, dirty);
                self.consume(a);
                return Ok(());
            }
            let from = self.operand(a)?;
            self.consume(a);
            let to = self.result(d, None)?;
            self.asm.mov(Size::Q, to, from);
            self.define(d, to, dirty);
            return Ok(());
        }
        let from = self.operand(a)?;
        self.consume(a);
        let to = self.result(d, Some(from))?;
        self.asm.movzx(size_of(from_ty), to, from);
        self.define(d, to, false);
        Ok(())
    }

    pub(super) fn sext(&mut self, d: Val, a: Val) -> Result<(), TooBig> {
        let (to_ty, from_ty) = (self.ty(d), self.ty(a));
        if to_ty.bits() <= from_ty.bits() {
            return self.zext(d, a);
        }
        if let Some(value) = self.places.constant(a) {
            self.consume(a);
            self.places
                .set_const(d, from_ty.sext(value) as u64 & to_ty.mask());
            return Ok(());
        }
        self.ready(a)?;
        let from = self.operand(a)?;
        self.consume(a);
        let to = self.result(d, Some(from))?;
        self.asm.movsx(size_of(from_ty), wide(to_ty), to, from);
        self.define(d, to, !matches!(to_ty, Ty::I32 | Ty::I64));
        Ok(())
    }

    pub(super) fn extract(&mut self, d: Val, a: Val, shift: u8, width: u8) -> Result<(), TooBig> {
        self.ready(a)?;
        let from_ty = self.ty(a);
        let size = wide(from_ty);
        if shift > 63 {
            return Err(TooBig);
        }
        // Bits above the operand's type read as zero.
        let whole = u32::from(shift) + u32::from(width) >= from_ty.bits();
        let from = match (whole, self.places.constant(a)) {
            (_, Some(_)) => Some(self.reg(a)?.into()),
            (true, _) => Some(self.clean(a)?.into()),
            _ => self.place_of(a)?,
        };
        self.consume(a);
        let to = self.result(d, from)?;
        if let Some(from) = from
            && from != to.into()
        {
            match from {
                Rm::Reg(_) => self.asm.mov(size, to, from),
                _ => self.asm.movzx(size_of(from_ty), to, from),
            }
        }
        if shift != 0 {
            self.asm.shift_imm(Shift::Shr, size, to, shift);
        }
        // The shift of a whole value left nothing above.
        let cut = width.min(self.ty(d).bits() as u8);
        if !(whole && cut == width) || self.ty(a).bits() > u32::from(shift) + u32::from(width) {
            match cut {
                8 => self.asm.movzx(Size::B, to, to),
                16 => self.asm.movzx(Size::W, to, to),
                32 => self.asm.mov(Size::D, to, to),
                64.. => {}
                _ => {
                    let mask = (1u64 << cut) - 1;
                    match i32::try_from(mask) {
                        Ok(mask) => self.asm.alu_imm(Alu::And, Size::D, to, mask),
                        Err(_) => {
                            let reg = self.alloc()?;
                            self.asm.mov_imm(reg, mask);
                            self.asm.alu(Alu::And, Size::Q, to, reg);
                        }
                    }
                }
            }
        }
        self.define(d, to, false);
        Ok(())
    }

    pub(super) fn insert(
        &mut self,
        d: Val,
        a: Val,
        b: Val,
        shift: u8,
        width: u8,
    ) -> Result<(), TooBig> {
        let ty = self.ty(d);
        let size = wide(ty);
        self.ready(a)?;
        self.ready(b)?;
        // The new bits in a register: the lower part of it counts.
        let bits = match self.places.constant(b) {
            Some(_) => None,
            // Bits above its type are zero.
            None if u32::from(width) > self.ty(b).bits() => Some(self.clean(b)?),
            None => Some(self.reg(b)?),
        };
        let from = self.place_of(a)?;
        self.consume(a);
        let mut to = self.result(d, from)?;
        let target = to;
        if bits == Some(to) && from != Some(to.into()) {
            to = self.alloc()?;
        }
        // In place, the bits above the type stay.
        let is_copied = from != Some(to.into());
        self.move_to(to, from, a, ty)?;
        let bytes = match width {
            8 => Some(Size::B),
            16 => Some(Size::W),
            _ => None,
        };
        match (bytes, bits, shift) {
            (Some(part), Some(bits), 0) => self.asm.mov_to(part, to, bits),
            (Some(Size::B), Some(bits), 8) if bits != to => {
                self.asm.shift_imm(Shift::Ror, size, to, 8);
                self.asm.mov_to(Size::B, to, bits);
                self.asm.shift_imm(Shift::Rol, size, to, 8);
            }
            _ => self.insert_bits(to, b, shift, width)?,
        }
        self.consume(b);
        if to != target {
            self.asm.mov(size, target, to);
        }
        let is_clean = ty == Ty::I64 || ty == Ty::I32 && is_copied;
        self.define(d, target, !is_clean);
        Ok(())
    }

    /// Replaces bits of a register by the low bits of a value.
    fn insert_bits(&mut self, to: Reg, b: Val, shift: u8, width: u8) -> Result<(), TooBig> {
        let field = (u64::MAX >> (64 - u32::from(width.clamp(1, 64)))) << (shift & 63);
        let constant = self.places.constant(b).map(|v| v << (shift & 63) & field);
        let mask = self.alloc()?;
        self.mask(to, mask, !field);
        match constant {
            Some(0) => {}
            Some(value) => {
                self.asm.mov_imm(mask, value);
                self.asm.alu(Alu::Or, Size::Q, to, mask);
            }
            None => {
                let bits = self.reg(b)?;
                self.asm.mov(Size::Q, mask, bits);
                if shift != 0 {
                    self.asm.shift_imm(Shift::Shl, Size::Q, mask, shift);
                }
                match i32::try_from(field as i64) {
                    Ok(field) => self.asm.alu_imm(Alu::And, Size::Q, mask, field),
                    Err(_) => {
                        let with = self.alloc()?;
                        self.asm.mov_imm(with, field);
                        self.asm.alu(Alu::And, Size::Q, mask, with);
                    }
                }
                self.asm.alu(Alu::Or, Size::Q, to, mask);
            }
        }
        Ok(())
    }

    fn mask(&mut self, to: Reg, scratch: Reg, mask: u64) {
        match i32::try_from(mask as i64) {
            Ok(mask) => self.asm.alu_imm(Alu::And, Size::Q, to, mask),
            Err(_) => {
                self.asm.mov_imm(scratch, mask);
                self.asm.alu(Alu::And, Size::Q, to, scratch);
            }
        }
    }
}

/// The condition with the operands exchanged.
fn swapped(op: Cmp) -> Cc {
    match op {
        Cmp::Eq | Cmp::Ne => cc_of(op),
        Cmp::Ltu => 7,
        Cmp::Leu => 3,
        Cmp::Lts => 15,
        Cmp::Les => 13,
    }
}
