//! What is done to the x87 and the MMX registers without a call of Rust.
//!
//! Registers other than ST(0) and all that rounds go through the pieces of `thunks/x87.rs`.

use accel_core::{X87Form, X87Op};
use accel_ir::Val;

use super::{Compiler, RBP, TooBig};
use crate::asm::{Alu, Mem, Shift, Size};
use crate::thunks::{Cells, x87_key};

/// Sign and exponent of an MMX register that was written (SDM vol. 1, 9.5).
const MMX_EXPONENT: i32 = 0xffff;

impl Compiler<'_> {
    /// The piece for an operation with these arguments.
    pub(super) fn x87_piece(&self, op: X87Op, args: &[Option<Val>; 4]) -> Option<usize> {
        let form = match args.first().copied().flatten() {
            Some(form) => self.places.constant(form).unwrap_or_default(),
            None => 0,
        };
        let key = x87_key(op, X87Form::unpack(form));
        self.env.thunks.x87(key)
    }

    /// Does what takes a few instructions; `false` if it is none of that.
    pub(super) fn x87(
        &mut self,
        op: X87Op,
        cells: &Cells,
        d: Option<Val>,
        args: &[Option<Val>; 4],
    ) -> Result<bool, TooBig> {
        let at = |offset: i32| Mem::base(RBP, offset);
        match (op, *args) {
            (X87Op::ReadControl | X87Op::ReadStatus, _) => {
                let Some(d) = d.filter(|d| self.plan.is_used(*d)) else {
                    return Ok(true);
                };
                let to = self.alloc()?;
                if op == X87Op::ReadControl {
                    self.asm.movzx(Size::W, to, at(cells.control));
                } else {
                    let top = self.alloc()?;
                    self.asm.movzx(Size::W, to, at(cells.status));
                    self.asm.movzx(Size::B, top, at(cells.top));
                    self.asm.shift_imm(Shift::Shl, Size::D, top, 11);
                    self.asm.alu(Alu::Or, Size::D, to, top);
                }
                self.define(d, to, false);
            }
            (X87Op::Note, [Some(ip), ..]) => self.put_64(at(cells.ip), ip)?,
            (X87Op::NoteData, [Some(ip), Some(dp), ..]) => {
                self.put_64(at(cells.ip), ip)?;
                self.put_64(at(cells.dp), dp)?;
            }
            (X87Op::GetMmx, [Some(n), ..]) => {
                let n = self.mmx_number(n)?;
                if let Some(d) = d.filter(|d| self.plan.is_used(*d)) {
                    let to = self.fresh(d)?;
                    self.asm.mov(Size::Q, to, cells.register(n));
                    self.define(d, to, false);
                }
            }
            (X87Op::SetMmx, [Some(n), Some(v), ..]) => {
                let to = cells.register(self.mmx_number(n)?);
                self.put_64(to, v)?;
                // With the bytes behind, as the encoding is shorter: nothing is there.
                self.asm.mov_imm_to(Size::D, to.after(8), MMX_EXPONENT);
            }
            (X87Op::TouchMmx, _) => self.touch_mmx(cells),
            _ => return Ok(false),
        }
        Ok(true)
    }

    fn mmx_number(&mut self, n: Val) -> Result<i32, TooBig> {
        let number = self.places.constant(n).ok_or(TooBig)?;
        self.consume(n);
        Ok(number as i32)
    }

    fn touch_mmx(&mut self, cells: &Cells) {
        self.asm.mov_imm_to(Size::B, Mem::base(RBP, cells.top), 0);
        self.asm
            .mov_imm_to(Size::B, Mem::base(RBP, cells.used), 0xff);
    }

    /// Stores a value of 64 bits.
    fn put_64(&mut self, to: Mem, v: Val) -> Result<(), TooBig> {
        match self.places.constant(v) {
            Some(value) if i64::from(value as i32) as u64 == value => {
                self.asm.mov_imm_to(Size::Q, to, value as i32);
            }
            _ => {
                let from = self.clean(v)?;
                self.asm.mov_to(Size::Q, to, from);
                self.places.unlock();
            }
        }
        self.consume(v);
        Ok(())
    }
}
