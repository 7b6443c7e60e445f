//! Operands of SSE and MMX instructions as IR, and whether the units may be used at all.

use accel_ir::{Slot, Ty, Val};
use iced_x86::Register;

use super::{KnownRegister, MM_GET, MM_SET, MM_TOUCH, X87_WAIT};
use crate::decode::context::Ctx;
use crate::regs;
use crate::state::vector;

/// The first slot of an XMM register.
pub(super) fn low(register: Register) -> Slot {
    regs::xmm(register.number())
}

/// Half of an XMM register.
pub(super) fn half(ctx: &mut Ctx, register: Register, high: bool) -> Val {
    let v = ctx.b.get_v(low(register));
    ctx.b.vec_half(v, high)
}

/// Whether x87 instructions can run here; else #NM has been raised (SDM vol. 3, table 2-2).
pub(super) fn x87_ready(ctx: &mut Ctx) -> bool {
    if ctx.mode.em() || ctx.mode.ts() {
        ctx.raise_and_end(vector::NM, None);
        return false;
    }
    true
}

/// Whether SSE instructions can run here; else #UD or #NM has been raised (SDM vol. 3, table 14-1).
pub(super) fn sse_ready(ctx: &mut Ctx) -> bool {
    if ctx.mode.em() || !ctx.mode.osfxsr() {
        ctx.raise_and_end(vector::UD, None);
        return false;
    }
    if ctx.mode.ts() {
        ctx.raise_and_end(vector::NM, None);
        return false;
    }
    true
}

/// Whether MMX instructions can run here; else #UD or #NM has been raised. Takes a pending x87
/// exception (SDM vol. 3, 13.1).
pub(super) fn mmx_ready(ctx: &mut Ctx) -> bool {
    if ctx.mode.em() {
        ctx.raise_and_end(vector::UD, None);
        return false;
    }
    if ctx.mode.ts() {
        ctx.raise_and_end(vector::NM, None);
        return false;
    }
    if !ctx.mmx.is_quiet && !ctx.mode.x87_masked() {
        ctx.b.call_void(X87_WAIT, &[]);
        ctx.mmx.is_quiet = true;
    }
    true
}

/// The instruction may change the x87 in ways that MMX instructions do not.
pub(super) fn forget_mmx(ctx: &mut Ctx) {
    ctx.mmx = super::KnownMmx::default();
}

/// Whether an operand is an MMX register.
pub(super) fn uses_mmx(ctx: &Ctx) -> bool {
    (0..ctx.insn.op_count()).any(|i| ctx.insn.op_register(i).is_mm())
}

/// Whether an operand is an XMM register.
pub(super) fn uses_xmm(ctx: &Ctx) -> bool {
    (0..ctx.insn.op_count()).any(|i| ctx.insn.op_register(i).is_xmm())
}

/// As [`sse_ready`] or [`mmx_ready`], whichever registers the instruction names.
pub(super) fn ready(ctx: &mut Ctx) -> bool {
    let (mm, xmm) = (uses_mmx(ctx), uses_xmm(ctx));
    (mm && !xmm || sse_ready(ctx)) && (!mm || mmx_ready(ctx))
}

/// Operand `i`, an XMM register or 16 bytes of memory, which must be aligned if `aligned`.
pub(super) fn source_v(ctx: &mut Ctx, i: u32, aligned: bool) -> Val {
    if ctx.is_register(i) {
        return ctx.b.get_v(low(ctx.insn.op_register(i)));
    }
    let address = ctx.operand_address(false);
    let mut mem = ctx.mem(Ty::V128, accel_ir::Ordering::Acquire);
    mem.aligned = aligned;
    ctx.b.load(address, mem)
}

/// A vector with operand `i` as its low lane: an XMM register, or memory of exactly this size and
/// zeros above.
pub(super) fn source_lane_v(ctx: &mut Ctx, i: u32, ty: Ty) -> Val {
    if ctx.is_register(i) {
        return ctx.b.get_v(low(ctx.insn.op_register(i)));
    }
    let v = source_lane(ctx, i, ty);
    widened(ctx, v)
}

/// The low lane of operand `i`: an XMM register or memory of exactly this size.
pub(super) fn source_lane(ctx: &mut Ctx, i: u32, ty: Ty) -> Val {
    if ctx.is_register(i) {
        let v = half(ctx, ctx.insn.op_register(i), false);
        return ctx.b.zext(v, ty);
    }
    let address = ctx.address(ty.bytes().into(), false);
    ctx.load(address, ty)
}

/// Stores 16 bytes to operand 0.
pub(super) fn store_v(ctx: &mut Ctx, v: Val, aligned: bool) {
    let address = ctx.operand_address(true);
    let mut mem = ctx.mem(Ty::V128, accel_ir::Ordering::Release);
    mem.aligned = aligned;
    ctx.b.store(address, v, mem);
}

/// Sets a whole XMM register to a 64-bit value or a narrower one.
pub(super) fn set_zeroed(ctx: &mut Ctx, register: Register, v: Val) {
    let v = widened(ctx, v);
    ctx.b.set_v(low(register), v);
}

/// What the unit knows of an MMX register.
fn known<'a>(ctx: &'a mut Ctx<'_>, register: Register) -> &'a mut KnownRegister {
    ctx.mmx.register(register.number())
}

/// An MMX register's value.
pub(super) fn mm(ctx: &mut Ctx, register: Register) -> Val {
    let KnownRegister { value, vector } = *known(ctx, register);
    let v = match (value, vector) {
        (Some(v), _) => return v,
        (None, Some(vector)) => ctx.b.vec_half(vector, false),
        (None, None) => {
            let n = ctx.const64(register.number() as u64);
            ctx.b.call(MM_GET, &[n])
        }
    };
    known(ctx, register).value = Some(v);
    v
}

/// A vector of an MMX register's value and zeros above.
pub(super) fn mm_v(ctx: &mut Ctx, register: Register) -> Val {
    if let Some(v) = known(ctx, register).vector {
        return v;
    }
    let v = mm(ctx, register);
    let v = widened(ctx, v);
    known(ctx, register).vector = Some(v);
    v
}

/// Writes an MMX register.
pub(super) fn set_mm(ctx: &mut Ctx, register: Register, v: Val) {
    touch_mmx(ctx);
    let n = ctx.const64(register.number() as u64);
    let v = ctx.b.zext(v, Ty::I64);
    ctx.b.call_void(MM_SET, &[n, v]);
    *known(ctx, register) = KnownRegister {
        value: Some(v),
        vector: None,
    };
}

/// Copies an MMX register.
pub(super) fn move_mm(ctx: &mut Ctx, to: Register, from: Register) {
    let v = mm(ctx, from);
    let copied = *known(ctx, from);
    set_mm(ctx, to, v);
    *known(ctx, to) = copied;
}

/// Writes the low half of a vector, which has zeros above, to an MMX register.
pub(super) fn set_mm_v(ctx: &mut Ctx, register: Register, v: Val) {
    let low = ctx.b.vec_half(v, false);
    set_mm(ctx, register, low);
    known(ctx, register).vector = Some(v);
}

/// What MMX instructions do to the x87's stack, once in a unit.
pub(super) fn touch_mmx(ctx: &mut Ctx) {
    if !ctx.mmx.is_entered {
        ctx.b.call_void(MM_TOUCH, &[]);
        ctx.mmx.is_entered = true;
    }
}

/// Operand `i` of an MMX instruction, an MMX register or memory of four or eight bytes, as i64.
pub(super) fn source_mm(ctx: &mut Ctx, i: u32) -> Val {
    if ctx.is_register(i) {
        return mm(ctx, ctx.insn.op_register(i));
    }
    let ty = Ty::of_bytes(ctx.memory_bytes());
    let address = ctx.operand_address(false);
    let v = ctx.load(address, ty);
    ctx.b.zext(v, Ty::I64)
}

/// As [`source_mm`], a vector with zeros above.
pub(super) fn source_mm_v(ctx: &mut Ctx, i: u32) -> Val {
    if ctx.is_register(i) {
        return mm_v(ctx, ctx.insn.op_register(i));
    }
    let v = source_mm(ctx, i);
    widened(ctx, v)
}

/// A vector of a value and zeros above.
pub(super) fn widened(ctx: &mut Ctx, v: Val) -> Val {
    let v = ctx.b.zext(v, Ty::I64);
    let zero = ctx.const64(0);
    ctx.b.vec_make(v, zero)
}
