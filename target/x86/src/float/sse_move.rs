//! SSE and MMX data transfer: moves, partial moves, masks, words, non-temporal stores, MXCSR
//! (SDM vol. 1, 9.4.1, 10.4.1.1, 11.4.1.1 and 12.3).

use accel_ir::{Ty, Val, VecOp};
use iced_x86::{Mnemonic, OpKind};

use super::operand::{
    forget_mmx, half, low, mm, mmx_ready, move_mm, ready, set_mm, set_zeroed, source_lane,
    source_mm, source_v, sse_ready, store_v, touch_mmx, uses_mmx, widened,
};
use super::{LOAD_MXCSR, MASK_STORE, MM_EMPTY};
use crate::decode::context::{Ctx, number};
use crate::regs;

/// Translates an instruction of this file; `false` if it is none.
pub(super) fn translate(ctx: &mut Ctx) -> bool {
    use Mnemonic as M;
    let mnemonic = ctx.insn.mnemonic();
    match mnemonic {
        // Between general registers and memory: works whatever CR0 and CR4 say.
        M::Movnti => {
            let v = ctx.operand(1);
            ctx.set_operand(0, v);
            return true;
        }
        M::Emms => {
            if mmx_ready(ctx) {
                ctx.b.call_void(MM_EMPTY, &[]);
                forget_mmx(ctx);
            }
            return true;
        }
        _ => {}
    }
    let Some(emit) = row(mnemonic) else {
        return false;
    };
    // The string instruction MOVSD shares its name.
    if mnemonic == M::Movsd && !super::operand::uses_xmm(ctx) {
        return false;
    }
    let is_ready = match mnemonic {
        M::Ldmxcsr | M::Stmxcsr => sse_ready(ctx),
        _ => ready(ctx),
    };
    if is_ready {
        emit(ctx);
    }
    true
}

/// What emits an instruction.
fn row(mnemonic: Mnemonic) -> Option<fn(&mut Ctx)> {
    use Mnemonic as M;
    Some(match mnemonic {
        M::Movaps | M::Movapd | M::Movdqa | M::Movntdq | M::Movntps | M::Movntpd => {
            |ctx| whole(ctx, true)
        }
        M::Movups | M::Movupd | M::Movdqu | M::Lddqu => |ctx| whole(ctx, false),
        M::Movss => |ctx| scalar(ctx, Ty::I32),
        M::Movsd => |ctx| scalar(ctx, Ty::I64),
        M::Movd => |ctx| word(ctx, Ty::I32),
        M::Movq | M::Movntq => |ctx| word(ctx, Ty::I64),
        M::Movlps | M::Movlpd => |ctx| half_move(ctx, false),
        M::Movhps | M::Movhpd => |ctx| half_move(ctx, true),
        // The source's high half and the destination's.
        M::Movhlps => |ctx| {
            let v = ctx.b.get_v(low(ctx.insn.op1_register()));
            let dst = low(ctx.insn.op0_register());
            let old = ctx.b.get_v(dst);
            let v = ctx.b.vec(VecOp::UnpackHi64, v, old, 0);
            ctx.b.set_v(dst, v);
        },
        M::Movlhps => |ctx| {
            let v = ctx.b.get_v(low(ctx.insn.op1_register()));
            set_high(ctx, v);
        },
        M::Movddup => |ctx| {
            let v = super::operand::source_lane_v(ctx, 1, Ty::I64);
            let v = ctx.b.vec(VecOp::UnpackLo64, v, v, 0);
            ctx.b.set_v(low(ctx.insn.op0_register()), v);
        },
        // Even lanes twice.
        M::Movsldup => |ctx| shuffled(ctx, 0b10_10_00_00),
        // Odd lanes twice.
        M::Movshdup => |ctx| shuffled(ctx, 0b11_11_01_01),
        M::Movmskps => |ctx| mask(ctx, Ty::I32),
        M::Movmskpd => |ctx| mask(ctx, Ty::I64),
        M::Pmovmskb => |ctx| mask(ctx, Ty::I8),
        M::Movq2dq => |ctx| {
            let v = source_mm(ctx, 1);
            set_zeroed(ctx, ctx.insn.op0_register(), v);
            touch_mmx(ctx);
        },
        M::Movdq2q => |ctx| {
            let v = source_lane(ctx, 1, Ty::I64);
            set_mm(ctx, ctx.insn.op0_register(), v);
        },
        M::Maskmovq | M::Maskmovdqu => masked_store,
        M::Pextrw => extract_word,
        M::Pinsrw => insert_word,
        M::Ldmxcsr => |ctx| {
            let v = ctx.operand(0);
            let next = ctx.next_pc();
            ctx.b.call_void(LOAD_MXCSR, &[v, next]);
        },
        M::Stmxcsr => |ctx| {
            let v = ctx.b.get_low(regs::MXCSR, Ty::I32);
            ctx.set_operand(0, v);
        },
        _ => return None,
    })
}

fn whole(ctx: &mut Ctx, aligned: bool) {
    let v = source_v(ctx, 1, aligned);
    if ctx.is_register(0) {
        ctx.b.set_v(low(ctx.insn.op0_register()), v);
    } else {
        store_v(ctx, v, aligned);
    }
}

/// MOVSS and MOVSD: between registers the rest stays, from memory it is cleared.
fn scalar(ctx: &mut Ctx, ty: Ty) {
    if ctx.is_memory(0) {
        let v = source_lane(ctx, 1, ty);
        let address = ctx.operand_address(true);
        ctx.store(address, v);
    } else if ctx.is_memory(1) {
        let v = source_lane(ctx, 1, ty);
        set_zeroed(ctx, ctx.insn.op0_register(), v);
    } else {
        let v = ctx.b.get_v(low(ctx.insn.op1_register()));
        set_low(ctx, v, ty);
    }
}

/// Replaces the low lane of operand 0 by that of a vector.
fn set_low(ctx: &mut Ctx, v: Val, ty: Ty) {
    let dst = low(ctx.insn.op0_register());
    let op = if ty == Ty::I32 {
        VecOp::MoveLow32
    } else {
        VecOp::MoveLow64
    };
    let old = ctx.b.get_v(dst);
    let new = ctx.b.vec(op, old, v, 0);
    ctx.b.set_v(dst, new);
}

/// Replaces the high half of operand 0 by the low half of a vector.
fn set_high(ctx: &mut Ctx, v: Val) {
    let dst = low(ctx.insn.op0_register());
    let old = ctx.b.get_v(dst);
    let new = ctx.b.vec(VecOp::UnpackLo64, old, v, 0);
    ctx.b.set_v(dst, new);
}

/// MOVD and MOVQ between XMM, MMX and general registers and memory.
fn word(ctx: &mut Ctx, ty: Ty) {
    let from = ctx.insn.op1_register();
    let v = if from.is_mm() {
        let v = mm(ctx, from);
        ctx.b.zext(v, ty)
    } else if from.is_xmm() || ctx.is_memory(1) {
        source_lane(ctx, 1, ty)
    } else {
        ctx.reg(number(from), ty)
    };
    let to = ctx.insn.op0_register();
    if ctx.is_memory(0) {
        let address = ctx.operand_address(true);
        ctx.store(address, v);
    } else if to.is_mm() && from.is_mm() {
        move_mm(ctx, to, from);
    } else if to.is_mm() {
        set_mm(ctx, to, v);
    } else if to.is_xmm() {
        set_zeroed(ctx, to, v);
    } else {
        ctx.set_reg(number(to), v);
    }
    if uses_mmx(ctx) && !to.is_mm() {
        touch_mmx(ctx);
    }
}

/// MOVLPS, MOVHPS and their like between memory and one half.
fn half_move(ctx: &mut Ctx, high: bool) {
    if ctx.is_memory(0) {
        let v = half(ctx, ctx.insn.op1_register(), high);
        let address = ctx.operand_address(true);
        ctx.store(address, v);
        return;
    }
    let address = ctx.operand_address(false);
    let v = ctx.load(address, Ty::I64);
    let v = widened(ctx, v);
    if high {
        set_high(ctx, v);
    } else {
        set_low(ctx, v, Ty::I64);
    }
}

fn shuffled(ctx: &mut Ctx, lanes: u8) {
    let v = source_v(ctx, 1, true);
    let v = ctx.b.vec(VecOp::Shuffle32, v, v, lanes);
    ctx.b.set_v(low(ctx.insn.op0_register()), v);
}

/// The sign bits of all lanes, to a general register.
fn mask(ctx: &mut Ctx, lane: Ty) {
    let from = ctx.insn.op1_register();
    let v = if from.is_mm() {
        let v = mm(ctx, from);
        widened(ctx, v)
    } else {
        ctx.b.get_v(low(from))
    };
    let v = ctx.b.vec_signs(v, lane);
    ctx.set_reg(number(ctx.insn.op0_register()), v);
    if from.is_mm() {
        touch_mmx(ctx);
    }
}

/// MASKMOVQ and MASKMOVDQU to DS:rDI.
fn masked_store(ctx: &mut Ctx) {
    let ty = match ctx.insn.op0_kind() {
        OpKind::MemorySegRDI => Ty::I64,
        OpKind::MemorySegEDI => Ty::I32,
        _ => Ty::I16,
    };
    let (data, mask) = (ctx.insn.op1_register(), ctx.insn.op2_register());
    let size = if data.is_mm() { 8 } else { 16 };
    let offset = ctx.reg(regs::index::RDI, ty);
    let offset = ctx.b.zext(offset, Ty::I64);
    let address = ctx.linear(ctx.memory_segment(), offset, size, true);
    let code = u64::from_le_bytes([
        data.number() as u8,
        mask.number() as u8,
        u8::from(data.is_mm()),
        ctx.mode.data_ctx(),
        0,
        0,
        0,
        0,
    ]);
    let code = ctx.const64(code);
    // Here the x87 becomes the MMX unit even if the store then faults.
    if data.is_mm() {
        touch_mmx(ctx);
    }
    ctx.b.call_void(MASK_STORE, &[code, address]);
}

/// The half and the bit that word `imm` of a register of `words` words starts at.
fn place_of(imm: u8, words: u8) -> (bool, u8) {
    let n = imm & words.wrapping_sub(1);
    (n >= 4, (n & 3).wrapping_mul(16))
}

fn extract_word(ctx: &mut Ctx) {
    let from = ctx.insn.op1_register();
    let imm = ctx.insn.immediate8();
    let v = if from.is_mm() {
        let v = mm(ctx, from);
        ctx.b.extract(v, place_of(imm, 4).1, 16, Ty::I32)
    } else {
        let (upper, shift) = place_of(imm, 8);
        let v = half(ctx, from, upper);
        ctx.b.extract(v, shift, 16, Ty::I32)
    };
    ctx.set_reg(number(ctx.insn.op0_register()), v);
    if from.is_mm() {
        touch_mmx(ctx);
    }
}

fn insert_word(ctx: &mut Ctx) {
    let v = if ctx.is_memory(1) {
        let address = ctx.address(2, false);
        ctx.load(address, Ty::I16)
    } else {
        ctx.reg(number(ctx.insn.op1_register()), Ty::I16)
    };
    let to = ctx.insn.op0_register();
    let imm = ctx.insn.immediate8();
    if to.is_mm() {
        let old = mm(ctx, to);
        let new = ctx.b.insert(old, v, place_of(imm, 4).1, 16);
        set_mm(ctx, to, new);
    } else {
        let v = widened(ctx, v);
        let old = ctx.b.get_v(low(to));
        let new = ctx.b.vec(VecOp::Insert16, old, v, imm & 7);
        ctx.b.set_v(low(to), new);
    }
}
