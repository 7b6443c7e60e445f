//! The host's flags from the lazy ones, by one piece of code for each kind and size.

use accel_ir::{FlagKind, Ty};

use super::{Make, SCRATCH, STC, VECTOR_BYTES};
use crate::asm::{
    Alu, CC_B, Mem, R8, R9, R10, R11, RAX, RCX, RDI, RDX, RSI, RSP, Reg, Shift, Size, Xmm,
};
use crate::compile::slot_at;

/// Kinds and types that their number can tell apart: the rest of the slot is zero.
const NUMBERS: u8 = 64;
/// Registers that calls may change, beside the scratch registers.
const CHANGED: [Reg; 4] = [R8, R9, R10, R11];

impl Make<'_> {
    /// See [`super::Thunks::flags`]. `all` is a function of the four slots that returns what no piece here
    /// computes.
    pub(super) fn flags(&mut self, slot: usize, all: usize) {
        let computed = self.flags_by(slot, all);
        let pieces: Vec<usize> = (0..NUMBERS)
            .map(|number| self.flags_of(slot, number).unwrap_or(computed))
            .collect();
        let table = self.asm.here();
        for piece in pieces {
            let distance = piece as i32 - table as i32;
            self.asm.code.extend_from_slice(&distance.to_le_bytes());
        }
        self.thunks.flags = self.asm.here();
        self.asm.push(RAX);
        self.asm.push(RCX);
        self.asm.movzx(Size::B, RAX, slot_at(slot));
        self.asm
            .alu_imm(Alu::And, Size::D, RAX, i32::from(NUMBERS - 1));
        self.asm.lea(Size::Q, RCX, Mem::Code(table as i32));
        self.asm.shift_imm(Shift::Shl, Size::D, RAX, 2);
        self.asm.alu(Alu::Add, Size::Q, RAX, RCX);
        self.asm.movsx(Size::D, Size::Q, RAX, Mem::base(RAX, 0));
        self.asm.alu(Alu::Add, Size::Q, RAX, RCX);
        self.asm.jmp_rm(RAX);
    }

    /// Returns from the thunk with the flags as they are.
    fn flags_done(&mut self) {
        self.asm.pop(RCX);
        self.asm.pop(RAX);
        self.asm.ret();
    }

    /// The piece for a kind and type. `None`: the host has no such instruction.
    fn flags_of(&mut self, slot: usize, number: u8) -> Option<usize> {
        let (kind, ty) = FlagKind::of(number.into());
        let size = match ty {
            Ty::I8 => Size::B,
            Ty::I16 => Size::W,
            Ty::I32 => Size::D,
            _ => Size::Q,
        };
        let [a, b, c] = [1, 2, 3].map(|n| slot_at(slot + n));
        let at = self.asm.here();
        match kind {
            FlagKind::Add | FlagKind::Sub => {
                let op = if kind == FlagKind::Add {
                    Alu::Add
                } else {
                    Alu::Sub
                };
                self.asm.mov(Size::Q, RCX, a);
                self.asm.alu(op, size, RCX, b);
            }
            FlagKind::Adc | FlagKind::Sbb => {
                let op = if kind == FlagKind::Adc {
                    Alu::Adc
                } else {
                    Alu::Sbb
                };
                self.asm.mov(Size::Q, RCX, a);
                self.asm.mov(Size::Q, RAX, c);
                self.asm.bt_imm(RAX, 0);
                self.asm.alu(op, size, RCX, b);
            }
            FlagKind::Inc | FlagKind::Dec => {
                self.asm.mov(Size::Q, RCX, a);
                self.asm.mov(Size::Q, RAX, c);
                self.asm.bt_imm(RAX, 0);
                self.asm.step(kind == FlagKind::Inc, size, RCX);
            }
            // Without carry, overflow and carry out of bit 3.
            FlagKind::Logic | FlagKind::LogicC => {
                self.asm.alu_imm(Alu::Cmp, size, a, 0);
                if kind == FlagKind::LogicC {
                    self.asm.byte(STC);
                }
            }
            FlagKind::Raw => {
                self.asm.mov(Size::Q, RCX, a);
                self.flags_of_rcx();
            }
            FlagKind::Shl | FlagKind::Shr | FlagKind::Sar | FlagKind::Mul => return None,
        }
        self.flags_done();
        Some(at)
    }

    /// From what RCX holds in the layout of EFLAGS. Changes RAX.
    fn flags_of_rcx(&mut self) {
        self.asm.bt_imm(RCX, 11);
        self.asm.setcc(CC_B, RAX);
        // Overflows if it is one.
        self.asm.alu_imm(Alu::Add, Size::B, RAX, 0x7f);
        self.asm.sahf_of_cl();
    }

    /// By Rust, which may change what calls may change.
    fn flags_by(&mut self, slot: usize, all: usize) -> usize {
        let at = self.asm.here();
        let saved = SCRATCH[2..].iter().chain(&CHANGED);
        for reg in saved.clone() {
            self.asm.push(*reg);
        }
        // Aligned: seven registers, two before them, and the return address.
        self.asm.alu_imm(Alu::Sub, Size::Q, RSP, VECTOR_BYTES);
        for n in 0..16u8 {
            let to = Mem::base(RSP, i32::from(n) * 16);
            self.asm.movups_to(to, Xmm(n));
        }
        for (n, reg) in [RDI, RSI, RDX, RCX].into_iter().enumerate() {
            self.asm.mov(Size::Q, reg, slot_at(slot + n));
        }
        self.asm.mov_imm(RAX, all as u64);
        self.asm.call_reg(RAX);
        for n in 0..16u8 {
            let from = Mem::base(RSP, i32::from(n) * 16);
            self.asm.movups(Xmm(n), from);
        }
        self.asm.alu_imm(Alu::Add, Size::Q, RSP, VECTOR_BYTES);
        for reg in saved.rev() {
            self.asm.pop(*reg);
        }
        self.asm.mov(Size::Q, RCX, RAX);
        self.flags_of_rcx();
        self.flags_done();
        at
    }
}
