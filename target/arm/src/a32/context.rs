//! What the translation of one unit of AArch32 code shares: registers, conditions, IT blocks, ways to
//! write the PC (DDI 0487, E1.2, F1.2, F2.3).

use std::ops::{Deref, DerefMut};

use accel_ir::{Binary, Cmp, Cond, Endian, FlagKind, Mem, Op, Ordering, Ty, Val, Via, flags};

use crate::a64::context;
use crate::{helper, regs};

/// Translation of a unit in the making.
pub(crate) struct Ctx {
    base: context::Ctx,
    /// T32, not A32.
    pub(crate) thumb: bool,
    /// Bytes of the instruction at hand.
    pub(crate) len: u64,
    /// PSTATE.IT at the unit's beginning, for this instruction, and for the next.
    pub(crate) it_start: u8,
    pub(crate) it: u8,
    pub(crate) it_next: u8,
    /// While an instruction is translated without a branch: its condition. Registers keep their value
    /// if that does not hold.
    pub(crate) predicate: Option<Val>,
    /// The flags' last definition, if it is the same on all ways here.
    pub(crate) known_flags: Option<Op>,
}

impl Deref for Ctx {
    type Target = context::Ctx;
    fn deref(&self) -> &context::Ctx {
        &self.base
    }
}

impl DerefMut for Ctx {
    fn deref_mut(&mut self) -> &mut context::Ctx {
        &mut self.base
    }
}

/// PSTATE.IT for the instruction after one (`AArch32.ITAdvance`).
pub(crate) fn advanced(it: u8) -> u8 {
    if it & 7 == 0 {
        0
    } else {
        it & 0xe0 | it << 1 & 0x1f
    }
}

impl Ctx {
    pub(crate) fn new(base: context::Ctx, thumb: bool, it: u8) -> Self {
        Ctx {
            base,
            thumb,
            len: 4,
            it_start: it,
            it,
            it_next: it,
            predicate: None,
            known_flags: None,
        }
    }

    /// The builder's unit.
    pub(crate) fn finish(self) -> accel_ir::Unit {
        self.base.b.finish()
    }

    pub(crate) fn in_it_block(&self) -> bool {
        self.it & 15 != 0
    }

    /// Whether instructions of 16 bits set flags.
    pub(crate) fn sets_flags(&self) -> u32 {
        u32::from(!self.in_it_block())
    }

    /// A branch may only be the last of an IT block: elsewhere the instruction is UNDEFINED, which is
    /// one of the ways that "unpredictable" allows.
    pub(crate) fn may_branch(&self) -> Option<()> {
        (!self.in_it_block() || self.it & 7 == 0).then_some(())
    }

    /// The address after the instruction at hand.
    pub(crate) fn after(&self) -> u64 {
        self.pc.wrapping_add(self.len) & 0xffff_ffff
    }

    /// What the PC reads as.
    pub(crate) fn pc_value(&self) -> u64 {
        let ahead = if self.thumb { 4 } else { 8 };
        self.pc.wrapping_add(ahead) & 0xffff_ffff
    }

    /// The base of PC-relative addresses.
    pub(crate) fn pc_base(&self) -> u64 {
        self.pc_value() & !3
    }

    /// A register.
    pub(crate) fn r(&mut self, n: u32) -> Val {
        if n == 15 {
            let pc = self.pc_value();
            return self.imm(Ty::I32, pc);
        }
        self.b.get_low(regs::x(n), Ty::I32)
    }

    /// Writes a register other than the PC.
    pub(crate) fn set_r(&mut self, n: u32, v: Val) {
        debug_assert!(n < 15, "the PC is written by a branch");
        let mut v = self.b.zext(v, Ty::I32);
        if let Some(predicate) = self.predicate {
            let old = self.r(n & 15);
            v = self.b.select(predicate, v, old);
        }
        self.b.set(regs::x(n & 15), v);
    }

    /// Flags of `a + b`, unless that depends on a condition: see [`difference_flags`](Self::difference_flags).
    pub(crate) fn sum_flags(&mut self, a: Val, b: Val) {
        match self.predicate {
            Some(_) => self.raw_flags(a),
            None => self.add_flags(a, b),
        }
    }

    /// Flags of `a - b`. Where they depend on a condition and what they were is not known, they are only
    /// marked as defined: no kind but this one is accepted then.
    pub(crate) fn difference_flags(&mut self, a: Val, b: Val) {
        let old = match self.known_flags {
            Some(Op::FlagsDef {
                kind: FlagKind::Sub,
                ty: Ty::I32,
                a,
                b,
                ..
            }) => Some((a, b)),
            _ => None,
        };
        match (self.predicate, old) {
            // A comparison that leaves the flags as they are if the condition does not hold.
            (Some(predicate), Some((old_a, old_b))) => {
                let a = self.b.select(predicate, a, old_a);
                let b = self.b.select(predicate, b, old_b);
                self.sub_flags(a, b);
            }
            (Some(_), None) => self.raw_flags(a),
            (None, _) => self.sub_flags(a, b),
        }
    }

    pub(crate) fn i32(&mut self, value: u32) -> Val {
        self.imm(Ty::I32, value.into())
    }

    /// The carry flag as an i32 of 0 or 1.
    pub(crate) fn carry(&mut self) -> Val {
        let carry = self.b.flags_use(Cond::Ae);
        self.b.zext(carry, Ty::I32)
    }

    /// Flags of a logical result: C is `carry` (any integer, 0 or 1) or stays, V stays.
    pub(crate) fn logic(&mut self, result: Val, carry: Option<Val>) {
        let kept = match carry {
            Some(_) => flags::OF,
            None => flags::OF | flags::CF,
        };
        let old = self.b.flags_get();
        let mut all = self.binary_imm(Binary::And, old, kept);
        let zero = self.i32(0);
        let is_zero = self.b.cmp(Cmp::Eq, result, zero);
        let sign = self.shift(Binary::Shr, result, 31);
        for (bit, at) in [(is_zero, 6), (sign, 7)] {
            let wide = self.b.zext(bit, Ty::I64);
            let placed = self.shl(wide, at);
            all = self.b.or(all, placed);
        }
        if let Some(carry) = carry {
            let wide = self.b.zext(carry, Ty::I64);
            let inverted = self.binary_imm(Binary::Xor, wide, flags::CF);
            all = self.b.or(all, inverted);
        }
        self.raw_flags(all);
    }

    /// Sets PSTATE.Q if a value (any integer, 0 or 1) is true.
    pub(crate) fn saturated(&mut self, v: Val) {
        let old = self.b.get(regs::Q);
        let v = self.b.zext(v, Ty::I64);
        let new = self.b.or(old, v);
        self.b.set(regs::Q, new);
    }

    /// An ordinary access of data.
    pub(crate) fn data(&self, ty: Ty) -> Mem {
        Mem {
            endian: match self.mode.is_big_endian() {
                true => Endian::Big,
                false => Endian::Little,
            },
            ..self.base.mem(ty)
        }
    }

    /// An access that is aligned, in some order.
    pub(crate) fn data_aligned(&self, ty: Ty, ordering: Ordering) -> Mem {
        Mem {
            aligned: true,
            ordering,
            ..self.data(ty)
        }
    }

    /// An i32 as an address.
    pub(crate) fn address(&mut self, v: Val) -> Val {
        self.b.zext(v, Ty::I64)
    }

    /// An address and a number of bytes.
    pub(crate) fn past(&mut self, address: Val, bytes: u64) -> Val {
        self.b.add_const(address, bytes)
    }

    /// Says in the register file what PSTATE.IT is for the next instruction.
    pub(crate) fn settle_it(&mut self) {
        if self.it != self.it_next {
            let next = self.it_next;
            self.set_const(regs::IT, next.into());
        }
    }

    /// Whether the unit may go on to another one by its address alone.
    fn is_linked(&self) -> bool {
        self.it_next == self.it_start
    }

    /// Ends the unit: on in this instruction set.
    pub(crate) fn go(&mut self, target: u64) {
        self.go_via(target, Via::Jump);
    }

    /// Ends the unit: on in this instruction set.
    pub(crate) fn go_via(&mut self, target: u64, via: Via) {
        self.settle_it();
        let target = target & 0xffff_ffff;
        if self.is_linked() {
            self.b.goto_via(target, via);
        } else {
            self.leave_by(helper::GO, &[target]);
        }
    }

    /// Ends the unit: there if a condition (an i8) holds, else at the next instruction.
    pub(crate) fn go_if(&mut self, holds: Val, target: u64) {
        let (taken, other) = (self.b.block(), self.b.block());
        self.b.branch(holds, taken, other);
        self.b.switch(taken);
        self.go(target);
        self.b.switch(other);
        let next = self.after();
        self.go(next);
    }

    /// Ends the unit: `BranchWritePC`.
    pub(crate) fn branch_to(&mut self, target: Val, via: Via) {
        let mask = if self.thumb { !1 } else { !3 };
        let target = self.b.zext(target, Ty::I64);
        let target = self.binary_imm(Binary::And, target, mask & 0xffff_ffff);
        self.settle_it();
        if self.is_linked() {
            self.b.goto_val_via(target, via);
        } else {
            self.b.call_void(helper::GO, &[target]);
            self.b.leave();
        }
    }

    /// What a branch to a register is: code returns by the link register.
    pub(crate) fn by_register(n: u32) -> Via {
        if n == 14 { Via::Return } else { Via::Jump }
    }

    /// Ends the unit: `BXWritePC`. Bit 0 selects the instruction set.
    pub(crate) fn exchange(&mut self, target: Val, via: Via) {
        let target = self.b.zext(target, Ty::I64);
        self.settle_it();
        if self.is_linked() {
            let bit = self.binary_imm(Binary::And, target, 1);
            let (same, other) = (self.b.block(), self.b.block());
            let (then, or) = match self.thumb {
                true => (same, other),
                false => (other, same),
            };
            self.b.branch(bit, then, or);
            self.b.switch(same);
            let plain = self.binary_imm(Binary::And, target, 0xffff_fffe);
            self.b.goto_val_via(plain, via);
            self.b.switch(other);
        }
        self.b.call_void(helper::EXCHANGE, &[target]);
        self.b.leave();
    }

    /// Ends the unit: on in the other instruction set.
    pub(crate) fn go_other(&mut self, target: u64) {
        self.settle_it();
        let target = target & 0xffff_ffff | u64::from(!self.thumb);
        self.leave_by(helper::EXCHANGE, &[target]);
    }

    /// R14 is the address of the next instruction, with the instruction set in bit 0: what the way out
    /// is then.
    pub(crate) fn link(&mut self) -> Via {
        let back = self.after();
        let value = back | u64::from(self.thumb);
        self.set_const(regs::x(14), value);
        Via::Call { back }
    }

    /// A register or the PC, as an ALU instruction writes it (`ALUWritePC`).
    pub(crate) fn write(&mut self, n: u32, v: Val, via: Via) -> Option<()> {
        if n != 15 {
            self.set_r(n, v);
            return Some(());
        }
        self.may_branch()?;
        if self.thumb {
            self.branch_to(v, via);
        } else {
            self.exchange(v, via);
        }
        Some(())
    }

    /// A register or the PC, as a load writes it (`LoadWritePC`).
    pub(crate) fn write_loaded(&mut self, n: u32, v: Val, via: Via) -> Option<()> {
        if n != 15 {
            self.set_r(n, v);
            return Some(());
        }
        self.may_branch()?;
        self.exchange(v, via);
        Some(())
    }
}
