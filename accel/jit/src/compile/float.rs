//! Floating point by SSE instructions, the guest's MXCSR in the host's.
//!
//! The guest's MXCSR is loaded when a unit with such operations begins, if it is not already, and stays
//! until generated code is left; while Rust runs, the host has its own. What this costs units
//! without floating point is a look at a byte whenever Rust is called.

use accel_ir::{
    Fp, FpCmp, FpCompare, FpFmt, FpHost, FpMulAdd, FpOp, FpRound, FpShape, Op, Slot, ToInt, Ty,
    Val, flags,
};

use super::memory::size_of;
use super::{Compiler, TooBig, slot_at};
use crate::asm::{Alu, CC_E, Mem, RAX, Size};
use crate::memory::cell;

/// The prefix of an instruction that exists for all four formats and shapes.
fn prefix(fmt: FpFmt, shape: FpShape) -> Option<u8> {
    match (fmt, shape) {
        (FpFmt::F32, FpShape::Packed) => None,
        (FpFmt::F64, FpShape::Packed) => Some(0x66),
        (FpFmt::F32, FpShape::Scalar) => Some(0xf3),
        (FpFmt::F64, FpShape::Scalar) => Some(0xf2),
    }
}

fn predicate(cmp: FpCmp) -> u8 {
    match cmp {
        FpCmp::Eq => 0,
        FpCmp::Lt => 1,
        FpCmp::Le => 2,
        FpCmp::Unord => 3,
        FpCmp::Ne => 4,
        FpCmp::Nlt => 5,
        FpCmp::Nle => 6,
        FpCmp::Ord => 7,
    }
}

/// How ROUNDPS and its like are told.
fn direction(to: FpRound) -> u8 {
    match to {
        FpRound::Nearest => 0,
        FpRound::Down => 1,
        FpRound::Up => 2,
        FpRound::Zero => 3,
        FpRound::Current => 4,
    }
}
/// To ROUNDPS: never inexact.
const QUIET: u8 = 8;

/// What the host's unit has beyond what every one has.
pub(crate) fn host() -> FpHost {
    FpHost {
        fused: std::arch::is_x86_feature_detected!("fma"),
        rounds: std::arch::is_x86_feature_detected!("sse4.1"),
    }
}

impl Compiler<'_> {
    /// At the unit's start: sees to the guest's MXCSR being the host's.
    pub(super) fn start_float(&mut self) {
        let mut blocks = self.members.iter().flat_map(|member| &member.unit.blocks);
        self.has_float = blocks.any(|block| block.ops.iter().any(Op::touches_fp));
        if self.has_float {
            let is_loaded = Mem::Code(cell::FLOAT as i32);
            self.asm.alu_imm(Alu::Cmp, Size::B, is_loaded, 0);
            let from = self.asm.jcc(CC_E);
            self.float_start = Some((from, self.asm.here()));
        }
    }

    /// What [`start_float`](Self::start_float) jumps to.
    pub(super) fn late_float(&mut self) {
        if let Some((from, back)) = self.float_start {
            self.asm.bind(from);
            self.asm.call_to(self.env.thunks.float_on);
            self.asm.jmp_to(back);
        }
    }

    /// The control slot as it is now.
    pub(super) fn get_control(&mut self, d: Val, slot: Slot) -> Result<(), TooBig> {
        if self.has_float {
            self.asm.call_to(self.env.thunks.float_sync);
        }
        let to = self.alloc()?;
        self.asm
            .movzx(size_of(self.ty(d)), to, slot_at(slot.0.into()));
        self.define(d, to, false);
        Ok(())
    }

    pub(super) fn fp(&mut self, how: Fp, d: Val, a: Val, b: Val) -> Result<(), TooBig> {
        if let FpOp::Round(_) | FpOp::RoundQuiet(_) = how.op {
            return self.fp_round(how, d, a, b);
        }
        let double = how.fmt == FpFmt::F64;
        let packed = how.shape == FpShape::Packed;
        let same = prefix(how.fmt, how.shape);
        let other = match how.fmt {
            FpFmt::F32 => FpFmt::F64,
            FpFmt::F64 => FpFmt::F32,
        };
        let (prefix, opcode): (Option<u8>, u8) = match how.op {
            FpOp::Add => (same, 0x58),
            FpOp::Mul => (same, 0x59),
            FpOp::Sub => (same, 0x5c),
            FpOp::Min => (same, 0x5d),
            FpOp::Div => (same, 0x5e),
            FpOp::Max => (same, 0x5f),
            FpOp::Sqrt => (same, 0x51),
            FpOp::Cmp(_) => (same, 0xc2),
            FpOp::HAdd => (Some(if double { 0x66 } else { 0xf2 }), 0x7c),
            FpOp::HSub => (Some(if double { 0x66 } else { 0xf2 }), 0x7d),
            FpOp::AddSub => (Some(if double { 0x66 } else { 0xf2 }), 0xd0),
            FpOp::Convert => (prefix(other, how.shape), 0x5a),
            FpOp::FromI32 if double => (Some(0xf3), 0xe6),
            FpOp::FromI32 => (None, 0x5b),
            FpOp::ToI32 if double => (Some(0xf2), 0xe6),
            FpOp::ToI32 => (Some(0x66), 0x5b),
            FpOp::ToI32Trunc if double => (Some(0x66), 0xe6),
            FpOp::ToI32Trunc => (Some(0xf3), 0x5b),
            FpOp::Round(_) | FpOp::RoundQuiet(_) => return Err(TooBig),
        };
        let with = self.operand_v(b)?;
        // Those that look at one operand need no copy of the other.
        let one = packed
            && matches!(
                how.op,
                FpOp::Sqrt | FpOp::Convert | FpOp::FromI32 | FpOp::ToI32 | FpOp::ToI32Trunc
            );
        let to = if one {
            self.consume(a);
            self.alloc_v()?
        } else {
            self.change_v(a)?
        };
        self.consume(b);
        match how.op {
            FpOp::Cmp(cmp) => self
                .asm
                .sse_imm(prefix, &[opcode], to, with, predicate(cmp)),
            _ => self.asm.sse(prefix, &[opcode], to, with),
        }
        self.define_v(d, to);
        Ok(())
    }

    fn fp_round(&mut self, how: Fp, d: Val, a: Val, b: Val) -> Result<(), TooBig> {
        let imm = match how.op {
            FpOp::Round(to) => direction(to),
            FpOp::RoundQuiet(to) => direction(to) | QUIET,
            _ => return Err(TooBig),
        };
        let opcode = match (how.shape, how.fmt) {
            (FpShape::Packed, FpFmt::F32) => 0x08,
            (FpShape::Packed, FpFmt::F64) => 0x09,
            (FpShape::Scalar, FpFmt::F32) => 0x0a,
            (FpShape::Scalar, FpFmt::F64) => 0x0b,
        };
        let with = self.operand_v(b)?;
        let to = self.change_v(a)?;
        self.consume(b);
        self.asm.sse_imm(Some(0x66), &[0x3a, opcode], to, with, imm);
        self.define_v(d, to);
        Ok(())
    }

    pub(super) fn fp_mul_add(
        &mut self,
        how: FpMulAdd,
        d: Val,
        (a, b): (Val, Val),
        c: Val,
    ) -> Result<(), TooBig> {
        let factor = self.xmm(a)?;
        let with = self.operand_v(b)?;
        let to = self.change_v(c)?;
        self.consume(a);
        self.consume(b);
        let opcode = 0xb8
            + u8::from(how.shape == FpShape::Scalar)
            + 2 * u8::from(how.subtracts)
            + 4 * u8::from(how.negates);
        let double = how.fmt == FpFmt::F64;
        self.asm.fused(opcode, double, to, factor, with);
        self.define_v(d, to);
        Ok(())
    }

    pub(super) fn fp_from_int(&mut self, fmt: FpFmt, d: Val, a: Val, v: Val) -> Result<(), TooBig> {
        self.force(v)?;
        let from = self.reg(v)?;
        let to = self.change_v(a)?;
        let size = size_of(self.ty(v));
        self.asm
            .sse_reg(prefix(fmt, FpShape::Scalar), 0x2a, size, to.0, from);
        self.consume(v);
        self.define_v(d, to);
        Ok(())
    }

    pub(super) fn fp_to_int(&mut self, how: ToInt, d: Val, a: Val) -> Result<(), TooBig> {
        let from = self.operand_v(a)?;
        let to = self.fresh(d)?;
        let opcode = if how.truncate { 0x2c } else { 0x2d };
        let prefix = prefix(how.fmt, FpShape::Scalar);
        self.asm
            .sse_reg(prefix, opcode, size_of(self.ty(d)), to.0, from);
        self.consume(a);
        if self.plan.is_used(d) {
            self.define(d, to, false);
        }
        Ok(())
    }

    pub(super) fn fp_compare(
        &mut self,
        how: FpCompare,
        d: Val,
        a: Val,
        b: Val,
    ) -> Result<(), TooBig> {
        self.claim(RAX)?;
        let left = self.xmm(a)?;
        let right = self.operand_v(b)?;
        let prefix = (how.fmt == FpFmt::F64).then_some(0x66);
        let opcode = if how.signals { 0x2f } else { 0x2e };
        self.asm.compare(prefix, opcode, left, right);
        self.consume(a);
        self.consume(b);
        if !self.plan.is_used(d) {
            return Ok(());
        }
        self.asm.lahf();
        self.asm.movzx_eax_ah();
        // If only the next definition of flags wants the result, the bit that reads as one is no harm,
        // and the host's flags are those.
        let ops = &self.unit.blocks[self.block].ops;
        let uses = self.plan.rest[d.0 as usize];
        match ops.get(self.op + 1) {
            Some(Op::FlagsDef { a, b, .. }) if *a == d && uses <= 1 + u16::from(*b == d) => {
                self.asm.flags_of = Some(self.next_def);
            }
            _ => {
                let mask = flags::CF | flags::PF | flags::ZF;
                self.asm.alu_imm(Alu::And, Size::D, RAX, mask as i32);
            }
        }
        debug_assert!(self.ty(d) == Ty::I64);
        self.define(d, RAX, false);
        Ok(())
    }

    pub(super) fn vec_signs(&mut self, d: Val, a: Val, lane: Ty) -> Result<(), TooBig> {
        let from = self.xmm(a)?;
        let to = self.fresh(d)?;
        let (prefix, opcode) = match lane {
            Ty::I8 => (Some(0x66), 0xd7),
            Ty::I32 => (None, 0x50),
            Ty::I64 => (Some(0x66), 0x50),
            Ty::I16 | Ty::V128 => return Err(TooBig),
        };
        self.asm.sse_reg(prefix, opcode, Size::D, to.0, from);
        self.consume(a);
        self.define(d, to, false);
        Ok(())
    }
}
