//! Vector operations, by SSE instructions up to SSSE3.

use accel_ir::{Slot, Ty, Val, VecOp};

use super::place::Place;
use super::{Compiler, TooBig, slot_at};
use crate::asm::{Rm, Size, Xmm};

/// The opcode of an operation that is one instruction `66 0F ..` of two operands, and whether the
/// operands change places.
fn opcode(op: VecOp) -> Option<&'static [u8]> {
    Some(match op {
        VecOp::And => &[0xdb],
        VecOp::AndNot => &[0xdf],
        VecOp::Or => &[0xeb],
        VecOp::Xor => &[0xef],
        VecOp::Add8 => &[0xfc],
        VecOp::Add16 => &[0xfd],
        VecOp::Add32 => &[0xfe],
        VecOp::Add64 => &[0xd4],
        VecOp::Sub8 => &[0xf8],
        VecOp::Sub16 => &[0xf9],
        VecOp::Sub32 => &[0xfa],
        VecOp::Sub64 => &[0xfb],
        VecOp::AddS8 => &[0xec],
        VecOp::AddS16 => &[0xed],
        VecOp::AddU8 => &[0xdc],
        VecOp::AddU16 => &[0xdd],
        VecOp::SubS8 => &[0xe8],
        VecOp::SubS16 => &[0xe9],
        VecOp::SubU8 => &[0xd8],
        VecOp::SubU16 => &[0xd9],
        VecOp::CmpEq8 => &[0x74],
        VecOp::CmpEq16 => &[0x75],
        VecOp::CmpEq32 => &[0x76],
        VecOp::CmpGt8 => &[0x64],
        VecOp::CmpGt16 => &[0x65],
        VecOp::CmpGt32 => &[0x66],
        VecOp::MinU8 => &[0xda],
        VecOp::MaxU8 => &[0xde],
        VecOp::MinS16 => &[0xea],
        VecOp::MaxS16 => &[0xee],
        VecOp::Avg8 => &[0xe0],
        VecOp::Avg16 => &[0xe3],
        VecOp::MulLo16 => &[0xd5],
        VecOp::MulHiS16 => &[0xe5],
        VecOp::MulHiU16 => &[0xe4],
        VecOp::MulHrs16 => &[0x38, 0x0b],
        VecOp::MulU32 => &[0xf4],
        VecOp::MAdd16 => &[0xf5],
        VecOp::MAddUbS8 => &[0x38, 0x04],
        VecOp::Sad8 => &[0xf6],
        VecOp::PackS16 => &[0x63],
        VecOp::PackU16 => &[0x67],
        VecOp::PackS32 => &[0x6b],
        VecOp::UnpackLo8 => &[0x60],
        VecOp::UnpackLo16 => &[0x61],
        VecOp::UnpackLo32 => &[0x62],
        VecOp::UnpackLo64 => &[0x6c],
        VecOp::UnpackHi8 => &[0x68],
        VecOp::UnpackHi16 => &[0x69],
        VecOp::UnpackHi32 => &[0x6a],
        VecOp::UnpackHi64 => &[0x6d],
        VecOp::Shuffle8 => &[0x38, 0x00],
        VecOp::Shl16 => &[0xf1],
        VecOp::Shl32 => &[0xf2],
        VecOp::Shl64 => &[0xf3],
        VecOp::Shr16 => &[0xd1],
        VecOp::Shr32 => &[0xd2],
        VecOp::Shr64 => &[0xd3],
        VecOp::Sar16 => &[0xe1],
        VecOp::Sar32 => &[0xe2],
        VecOp::Sign8 => &[0x38, 0x08],
        VecOp::Sign16 => &[0x38, 0x09],
        VecOp::Sign32 => &[0x38, 0x0a],
        VecOp::HAdd16 => &[0x38, 0x01],
        VecOp::HAdd32 => &[0x38, 0x02],
        VecOp::HAddS16 => &[0x38, 0x03],
        VecOp::HSub16 => &[0x38, 0x05],
        VecOp::HSub32 => &[0x38, 0x06],
        VecOp::HSubS16 => &[0x38, 0x07],
        _ => return None,
    })
}

impl Compiler<'_> {
    pub(super) fn vec(&mut self, op: VecOp, d: Val, a: Val, b: Val, imm: u8) -> Result<(), TooBig> {
        let o = Some(0x66);
        if let Some(opcode) = opcode(op) {
            let with = self.operand_v(b)?;
            let to = self.change_v(a)?;
            self.consume(b);
            self.asm.sse(o, opcode, to, with);
            self.define_v(d, to);
            return Ok(());
        }
        match op {
            // One operand and a constant into another register.
            VecOp::Shuffle32 | VecOp::ShuffleLo16 | VecOp::ShuffleHi16 => {
                let prefix = match op {
                    VecOp::Shuffle32 => 0x66,
                    VecOp::ShuffleLo16 => 0xf2,
                    _ => 0xf3,
                };
                let from = self.operand_v(a)?;
                let to = self.alloc_v()?;
                self.asm.sse_imm(Some(prefix), &[0x70], to, from, imm);
                self.consume(a);
                self.consume(b);
                self.define_v(d, to);
            }
            VecOp::Abs8 | VecOp::Abs16 | VecOp::Abs32 => {
                let opcode = match op {
                    VecOp::Abs8 => 0x1c,
                    VecOp::Abs16 => 0x1d,
                    _ => 0x1e,
                };
                let from = self.operand_v(a)?;
                let to = self.alloc_v()?;
                self.asm.sse(o, &[0x38, opcode], to, from);
                self.consume(a);
                self.consume(b);
                self.define_v(d, to);
            }
            VecOp::Select32 | VecOp::Select64 | VecOp::Align8 => {
                let with = self.operand_v(b)?;
                let to = self.change_v(a)?;
                self.consume(b);
                match op {
                    VecOp::Select32 => self.asm.sse_imm(None, &[0xc6], to, with, imm),
                    VecOp::Select64 => self.asm.sse_imm(o, &[0xc6], to, with, imm),
                    _ => self.asm.sse_imm(o, &[0x3a, 0x0f], to, with, imm),
                }
                self.define_v(d, to);
            }
            VecOp::ShlBytes | VecOp::ShrBytes => {
                let to = self.change_v(a)?;
                self.consume(b);
                // Group 14: /7 left, /3 right.
                let digit = if op == VecOp::ShlBytes { 7 } else { 3 };
                self.asm.sse_imm(o, &[0x73], Xmm(digit), to, imm);
                self.define_v(d, to);
            }
            VecOp::Low64 => {
                let from = self.operand_v(a)?;
                let to = self.alloc_v()?;
                self.asm.sse(Some(0xf3), &[0x7e], to, from);
                self.consume(a);
                self.consume(b);
                self.define_v(d, to);
            }
            VecOp::Low32 => {
                let from = self.operand_v(a)?;
                let to = self.alloc_v()?;
                if let Rm::Xmm(_) = from {
                    // From memory it clears the rest itself.
                    self.asm.sse(None, &[0x57], to, to);
                }
                self.asm.sse(Some(0xf3), &[0x10], to, from);
                self.consume(a);
                self.consume(b);
                self.define_v(d, to);
            }
            VecOp::MoveLow32 | VecOp::MoveLow64 => {
                // From a register these keep the rest.
                let low = self.xmm(b)?;
                let to = self.change_v(a)?;
                self.consume(b);
                let prefix = match op {
                    VecOp::MoveLow32 => 0xf3,
                    _ => 0xf2,
                };
                self.asm.sse(Some(prefix), &[0x10], to, low);
                self.define_v(d, to);
            }
            VecOp::ShlImm16
            | VecOp::ShlImm32
            | VecOp::ShlImm64
            | VecOp::ShrImm16
            | VecOp::ShrImm32
            | VecOp::ShrImm64
            | VecOp::SarImm16
            | VecOp::SarImm32 => {
                // Groups 12 to 14 by the lanes' width: /2 logical right, /4 arithmetic, /6 left.
                let (opcode, digit) = match op {
                    VecOp::ShlImm16 => (0x71, 6),
                    VecOp::ShlImm32 => (0x72, 6),
                    VecOp::ShlImm64 => (0x73, 6),
                    VecOp::ShrImm16 => (0x71, 2),
                    VecOp::ShrImm32 => (0x72, 2),
                    VecOp::ShrImm64 => (0x73, 2),
                    VecOp::SarImm16 => (0x71, 4),
                    _ => (0x72, 4),
                };
                self.consume(b);
                let to = self.change_v(a)?;
                self.asm.sse_imm(o, &[opcode], Xmm(digit), to, imm);
                self.define_v(d, to);
            }
            VecOp::Insert16 => {
                let word = self.xmm(b)?;
                let reg = self.alloc()?;
                self.asm.movq_from_xmm(reg, word, Size::D);
                let to = self.change_v(a)?;
                self.consume(b);
                self.asm.sse_imm(o, &[0xc4], to, reg, imm & 7);
                self.define_v(d, to);
            }
            _ => return Err(TooBig),
        }
        Ok(())
    }

    pub(super) fn vec_make(&mut self, d: Val, lo: Val, hi: Val) -> Result<(), TooBig> {
        let ops = &self.unit.blocks[self.block].ops;
        let next = ops.get(self.op + 1);
        let is_written_whole = match next {
            Some(accel_ir::Op::SetV { v, .. }) => *v == d,
            Some(accel_ir::Op::Store { v, addr, mem }) => *v == d && self.stores_halves(*addr, mem),
            _ => false,
        };
        if is_written_whole && self.can_defer(d) {
            self.places.defer(d, accel_ir::Op::VecMake { d, lo, hi });
            return Ok(());
        }
        self.make_vector(d, lo, hi)
    }

    pub(super) fn make_vector(&mut self, d: Val, lo: Val, hi: Val) -> Result<(), TooBig> {
        let to = self.alloc_v()?;
        let low = self.clean(lo)?;
        self.asm.movq_to_xmm(to, low, Size::Q);
        self.places.unlock();
        self.places.lock_v(to);
        self.consume(lo);
        if self.places.constant(hi) != Some(0) {
            let high = self.clean(hi)?;
            let other = self.alloc_v()?;
            self.asm.movq_to_xmm(other, high, Size::Q);
            self.asm.sse(Some(0x66), &[0x6c], to, other);
        }
        self.consume(hi);
        self.define_v(d, to);
        Ok(())
    }

    /// Writes a vector register of the guest by its halves.
    pub(super) fn set_halves(&mut self, slot: Slot, lo: Val, hi: Val) -> Result<(), TooBig> {
        if let Some(to) = self.map.xmm(slot) {
            return self.set_halves_of(to, slot, lo, hi);
        }
        let high_slot = Slot(slot.0 + 1);
        // The low half may be wanted for the high one.
        self.rescue(slot, Some(lo))?;
        if self.places.is_guest(hi, slot) {
            self.reg_of_its_own(hi)?;
        }
        self.set_half(slot, lo)?;
        self.set_half(high_slot, hi)?;
        self.places.changed(slot);
        self.places.changed(high_slot);
        Ok(())
    }

    /// As [`set_halves`](Self::set_halves), of one that is in a host register.
    fn set_halves_of(&mut self, to: Xmm, slot: Slot, lo: Val, hi: Val) -> Result<(), TooBig> {
        let low = self.clean(lo)?;
        if self.places.constant(hi) == Some(0) {
            self.asm.movq_to_xmm(to, low, Size::Q);
        } else {
            let high = self.clean(hi)?;
            let other = self.alloc_v()?;
            self.asm.movq_to_xmm(to, low, Size::Q);
            self.asm.movq_to_xmm(other, high, Size::Q);
            self.asm.sse(Some(0x66), &[0x6c], to, other);
        }
        self.consume(lo);
        self.consume(hi);
        self.places.changed(slot);
        self.places.changed(Slot(slot.0 + 1));
        Ok(())
    }

    fn reg_of_its_own(&mut self, v: Val) -> Result<(), TooBig> {
        self.reg(v).map(|_| ())
    }

    fn set_half(&mut self, slot: Slot, v: Val) -> Result<(), TooBig> {
        let to = slot_at(slot.0.into());
        if !self.places.is_guest(v, slot) {
            match self.places.constant(v) {
                Some(value) if i64::from(value as i32) as u64 == value => {
                    self.asm.mov_imm_to(Size::Q, to, value as i32);
                }
                _ => {
                    let from = self.clean(v)?;
                    self.asm.mov_to(Size::Q, to, from);
                }
            }
        }
        self.consume(v);
        Ok(())
    }

    pub(super) fn vec_half(&mut self, d: Val, a: Val, high: bool) -> Result<(), TooBig> {
        debug_assert!(self.ty(d) == Ty::I64);
        if let Place::GuestV(slot) = self.places.of(a)
            && self.map.xmm(slot).is_none()
        {
            self.consume(a);
            self.places
                .set_guest(d, Slot(slot.0 + u8::from(high)), false);
            return Ok(());
        }
        let from = self.xmm(a)?;
        let to = self.fresh(d)?;
        if high {
            let scratch = self.alloc_v()?;
            self.asm.sse_imm(Some(0x66), &[0x70], scratch, from, 0xee);
            self.asm.movq_from_xmm(to, scratch, Size::Q);
        } else {
            self.asm.movq_from_xmm(to, from, Size::Q);
        }
        self.consume(a);
        self.define(d, to, false);
        Ok(())
    }
}
