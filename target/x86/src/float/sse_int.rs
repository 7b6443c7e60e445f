//! SSE and MMX integer, logical and shuffle instructions (SDM vol. 1, 9.4, 10.4.4, 11.4.2 and 12).
//!
//! One row of [`row`] names an instruction's vector operation and how its operands reach it. MMX
//! registers are the low halves of vectors.

use accel_ir::{Ty, VecOp};
use iced_x86::Mnemonic;

use super::operand::{low, mm_v, ready, set_mm, set_mm_v, source_mm_v, source_v, widened};
use crate::decode::context::Ctx;

/// How operands reach the operation.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Kind {
    /// Lane by lane: works on halves as well.
    Lanes,
    /// The first operand's lanes, then the second's.
    Halves,
    /// Low lanes in turn; the operation is the 128-bit one.
    UnpackLow,
    /// High lanes in turn.
    UnpackHigh,
    /// By a count in an immediate, register or memory.
    Shift,
    /// PSHUFB.
    Shuffle,
    /// PALIGNR.
    Align,
    /// Of the source alone, with an immediate or none.
    Source,
    /// Two operands and an immediate.
    Select,
    /// Bytes of the whole register by an immediate.
    Bytes,
}

fn row(mnemonic: Mnemonic) -> Option<(Kind, VecOp)> {
    use Kind::*;
    use Mnemonic as M;
    use VecOp as V;
    Some(match mnemonic {
        M::Andps | M::Andpd | M::Pand => (Lanes, V::And),
        M::Andnps | M::Andnpd | M::Pandn => (Lanes, V::AndNot),
        M::Orps | M::Orpd | M::Por => (Lanes, V::Or),
        M::Xorps | M::Xorpd | M::Pxor => (Lanes, V::Xor),
        M::Paddb => (Lanes, V::Add8),
        M::Paddw => (Lanes, V::Add16),
        M::Paddd => (Lanes, V::Add32),
        M::Paddq => (Lanes, V::Add64),
        M::Psubb => (Lanes, V::Sub8),
        M::Psubw => (Lanes, V::Sub16),
        M::Psubd => (Lanes, V::Sub32),
        M::Psubq => (Lanes, V::Sub64),
        M::Paddsb => (Lanes, V::AddS8),
        M::Paddsw => (Lanes, V::AddS16),
        M::Paddusb => (Lanes, V::AddU8),
        M::Paddusw => (Lanes, V::AddU16),
        M::Psubsb => (Lanes, V::SubS8),
        M::Psubsw => (Lanes, V::SubS16),
        M::Psubusb => (Lanes, V::SubU8),
        M::Psubusw => (Lanes, V::SubU16),
        M::Pcmpeqb => (Lanes, V::CmpEq8),
        M::Pcmpeqw => (Lanes, V::CmpEq16),
        M::Pcmpeqd => (Lanes, V::CmpEq32),
        M::Pcmpgtb => (Lanes, V::CmpGt8),
        M::Pcmpgtw => (Lanes, V::CmpGt16),
        M::Pcmpgtd => (Lanes, V::CmpGt32),
        M::Pminub => (Lanes, V::MinU8),
        M::Pmaxub => (Lanes, V::MaxU8),
        M::Pminsw => (Lanes, V::MinS16),
        M::Pmaxsw => (Lanes, V::MaxS16),
        M::Pavgb => (Lanes, V::Avg8),
        M::Pavgw => (Lanes, V::Avg16),
        M::Pmullw => (Lanes, V::MulLo16),
        M::Pmulhw => (Lanes, V::MulHiS16),
        M::Pmulhuw => (Lanes, V::MulHiU16),
        M::Pmulhrsw => (Lanes, V::MulHrs16),
        M::Pmuludq => (Lanes, V::MulU32),
        M::Pmaddwd => (Lanes, V::MAdd16),
        M::Pmaddubsw => (Lanes, V::MAddUbS8),
        M::Psadbw => (Lanes, V::Sad8),
        M::Psignb => (Lanes, V::Sign8),
        M::Psignw => (Lanes, V::Sign16),
        M::Psignd => (Lanes, V::Sign32),
        M::Packsswb => (Halves, V::PackS16),
        M::Packuswb => (Halves, V::PackU16),
        M::Packssdw => (Halves, V::PackS32),
        M::Phaddw => (Halves, V::HAdd16),
        M::Phaddd => (Halves, V::HAdd32),
        M::Phaddsw => (Halves, V::HAddS16),
        M::Phsubw => (Halves, V::HSub16),
        M::Phsubd => (Halves, V::HSub32),
        M::Phsubsw => (Halves, V::HSubS16),
        M::Punpcklbw => (UnpackLow, V::UnpackLo8),
        M::Punpcklwd => (UnpackLow, V::UnpackLo16),
        M::Punpckldq | M::Unpcklps => (UnpackLow, V::UnpackLo32),
        M::Punpcklqdq | M::Unpcklpd => (UnpackLow, V::UnpackLo64),
        M::Punpckhbw => (UnpackHigh, V::UnpackHi8),
        M::Punpckhwd => (UnpackHigh, V::UnpackHi16),
        M::Punpckhdq | M::Unpckhps => (UnpackHigh, V::UnpackHi32),
        M::Punpckhqdq | M::Unpckhpd => (UnpackHigh, V::UnpackHi64),
        M::Psllw => (Shift, V::Shl16),
        M::Pslld => (Shift, V::Shl32),
        M::Psllq => (Shift, V::Shl64),
        M::Psrlw => (Shift, V::Shr16),
        M::Psrld => (Shift, V::Shr32),
        M::Psrlq => (Shift, V::Shr64),
        M::Psraw => (Shift, V::Sar16),
        M::Psrad => (Shift, V::Sar32),
        M::Pslldq => (Bytes, V::ShlBytes),
        M::Psrldq => (Bytes, V::ShrBytes),
        M::Pshufb => (Shuffle, V::Shuffle8),
        M::Palignr => (Align, V::Align8),
        M::Pabsb => (Source, V::Abs8),
        M::Pabsw => (Source, V::Abs16),
        M::Pabsd => (Source, V::Abs32),
        M::Pshufd => (Source, V::Shuffle32),
        M::Pshuflw | M::Pshufw => (Source, V::ShuffleLo16),
        M::Pshufhw => (Source, V::ShuffleHi16),
        M::Shufps => (Select, V::Select32),
        M::Shufpd => (Select, V::Select64),
        _ => return None,
    })
}

/// The 128-bit unpacking whose high half is the 64-bit one of high lanes.
fn low_of(op: VecOp) -> VecOp {
    match op {
        VecOp::UnpackHi8 => VecOp::UnpackLo8,
        VecOp::UnpackHi16 => VecOp::UnpackLo16,
        _ => VecOp::UnpackLo32,
    }
}

/// The shift by an immediate that does what one by a register does.
fn by_immediate(op: VecOp) -> VecOp {
    match op {
        VecOp::Shl16 => VecOp::ShlImm16,
        VecOp::Shl32 => VecOp::ShlImm32,
        VecOp::Shl64 => VecOp::ShlImm64,
        VecOp::Shr16 => VecOp::ShrImm16,
        VecOp::Shr32 => VecOp::ShrImm32,
        VecOp::Shr64 => VecOp::ShrImm64,
        VecOp::Sar16 => VecOp::SarImm16,
        VecOp::Sar32 => VecOp::SarImm32,
        other => other,
    }
}

/// Translates an instruction of this file; `false` if it is none.
pub(super) fn translate(ctx: &mut Ctx) -> bool {
    let Some((kind, op)) = row(ctx.insn.mnemonic()) else {
        return false;
    };
    if !ready(ctx) {
        return true;
    }
    if ctx.insn.op0_register().is_mm() {
        mmx(ctx, kind, op);
    } else {
        sse(ctx, kind, op);
    }
    true
}

/// The last operand if it is an immediate.
fn immediate(ctx: &Ctx) -> u8 {
    ctx.insn.immediate8()
}

fn sse(ctx: &mut Ctx, kind: Kind, op: VecOp) {
    let dst = low(ctx.insn.op0_register());
    let result = match kind {
        Kind::Shift if !ctx.is_register(1) && !ctx.is_memory(1) => {
            let a = ctx.b.get_v(dst);
            ctx.b.vec(by_immediate(op), a, a, immediate(ctx))
        }
        Kind::Bytes => {
            let a = ctx.b.get_v(dst);
            ctx.b.vec(op, a, a, immediate(ctx))
        }
        Kind::Source => {
            let imm = if ctx.insn.op_count() > 2 {
                immediate(ctx)
            } else {
                0
            };
            let b = source_v(ctx, 1, true);
            ctx.b.vec(op, b, b, imm)
        }
        Kind::Select | Kind::Align => {
            let b = source_v(ctx, 1, true);
            let a = ctx.b.get_v(dst);
            ctx.b.vec(op, a, b, immediate(ctx))
        }
        _ => {
            let b = source_v(ctx, 1, true);
            let a = ctx.b.get_v(dst);
            ctx.b.vec(op, a, b, 0)
        }
    };
    ctx.b.set_v(dst, result);
}

fn mmx(ctx: &mut Ctx, kind: Kind, op: VecOp) {
    /// Bit 7 zeroes, the low three bits choose.
    const SHUFFLE_MASK: u64 = 0x8787_8787_8787_8787;
    let dst = ctx.insn.op0_register();
    let imm = immediate(ctx);
    let by_constant = !ctx.is_register(1) && !ctx.is_memory(1);
    let b = match by_constant {
        true => None,
        false => Some(source_mm_v(ctx, 1)),
    };
    let a = mm_v(ctx, dst);
    let b = b.unwrap_or(a);
    // Of two values the lower one, and the other above it.
    let pair = |ctx: &mut Ctx, low, high| ctx.b.vec(VecOp::UnpackLo64, low, high, 0);
    let v = match kind {
        Kind::Lanes => ctx.b.vec(op, a, b, 0),
        Kind::Shift if by_constant => ctx.b.vec(by_immediate(op), a, a, imm),
        Kind::Shift | Kind::UnpackLow => ctx.b.vec(op, a, b, 0),
        Kind::Source => {
            let imm = if ctx.insn.op_count() > 2 { imm } else { 0 };
            ctx.b.vec(op, b, b, imm)
        }
        Kind::Halves => {
            let both = pair(ctx, a, b);
            ctx.b.vec(op, both, both, 0)
        }
        Kind::UnpackHigh => {
            let v = ctx.b.vec(low_of(op), a, b, 0);
            let high = ctx.b.vec_half(v, true);
            return set_mm(ctx, dst, high);
        }
        Kind::Shuffle => {
            let mask = ctx.b.iconst(Ty::I64, SHUFFLE_MASK);
            let mask = widened(ctx, mask);
            let b = ctx.b.vec(VecOp::And, b, mask, 0);
            ctx.b.vec(op, a, b, 0)
        }
        // Sixteen bytes, the first operand above the second.
        _ => {
            let both = pair(ctx, b, a);
            ctx.b.vec(VecOp::ShrBytes, both, both, imm)
        }
    };
    if keeps_zeros(kind, op) {
        set_mm_v(ctx, dst, v);
    } else {
        let low = ctx.b.vec_half(v, false);
        set_mm(ctx, dst, low);
    }
}

/// Whether lanes that are zero in all operands are zero in the result.
fn keeps_zeros(kind: Kind, op: VecOp) -> bool {
    match kind {
        Kind::Lanes => !matches!(op, VecOp::CmpEq8 | VecOp::CmpEq16 | VecOp::CmpEq32),
        Kind::Shift | Kind::Source => true,
        _ => false,
    }
}
