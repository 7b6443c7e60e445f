//! SSE floating point as IR: arithmetic, comparisons, conversions, and the saved state.

use accel_ir::{Fp, FpCompare, FpFmt, FpOp, FpRules, FpShape, ToInt, Ty, Val, VecOp};
use iced_x86::{Mnemonic, Register};

use super::fxsave::{Layout, Save};
use super::operand::{
    forget_mmx, low, ready, set_mm, source_lane, source_lane_v, source_mm, source_v, sse_ready,
    touch_mmx, uses_mmx, uses_xmm, widened,
};
use super::sse_fp;
use crate::decode::context::{Ctx, number};
use crate::regs;
use crate::state::vector;

/// Translates an instruction of this file; `false` if it is none.
pub(super) fn translate(ctx: &mut Ctx) -> bool {
    use Mnemonic as M;
    let mnemonic = ctx.insn.mnemonic();
    if let Some(how) = sse_fp::row(mnemonic, ctx.insn.immediate8()) {
        // The string instruction CMPSD shares its name.
        if mnemonic == M::Cmpsd && !uses_xmm(ctx) {
            return false;
        }
        if ready(ctx) {
            vectors(ctx, how);
        }
    } else if let Some(how) = sse_fp::to_int_row(mnemonic) {
        if sse_ready(ctx) {
            to_int(ctx, how);
        }
    } else if let Some(how) = sse_fp::compare_row(mnemonic) {
        if sse_ready(ctx) {
            compare(ctx, how);
        }
    } else {
        let emit = match mnemonic {
            M::Cvtsi2ss => |ctx: &mut Ctx| from_int(ctx, FpFmt::F32),
            M::Cvtsi2sd => |ctx: &mut Ctx| from_int(ctx, FpFmt::F64),
            M::Rcpss | M::Rcpps => |ctx: &mut Ctx| estimate(ctx, 0),
            M::Rsqrtss | M::Rsqrtps => |ctx: &mut Ctx| estimate(ctx, 1),
            _ => return saved_state(ctx),
        };
        if sse_ready(ctx) {
            emit(ctx);
        }
    }
    true
}

/// The type of a format's lanes.
fn lane_ty(fmt: FpFmt) -> Ty {
    match fmt {
        FpFmt::F32 => Ty::I32,
        FpFmt::F64 => Ty::I64,
    }
}

/// The source of a vector operation: no more is read from memory than its lanes.
fn source(ctx: &mut Ctx, how: Fp) -> Val {
    use Mnemonic as M;
    match ctx.insn.mnemonic() {
        M::Cvtpi2ps | M::Cvtpi2pd => {
            let v = source_mm(ctx, 1);
            return widened(ctx, v);
        }
        M::Cvtps2pi | M::Cvttps2pi => {
            let v = source_lane(ctx, 1, Ty::I64);
            return widened(ctx, v);
        }
        _ => {}
    }
    match (how.op, how.fmt, how.shape) {
        // From the other format.
        (FpOp::Convert, FpFmt::F32, FpShape::Scalar) => source_lane_v(ctx, 1, Ty::I64),
        (FpOp::Convert, FpFmt::F64, FpShape::Scalar) => source_lane_v(ctx, 1, Ty::I32),
        (_, fmt, FpShape::Scalar) => source_lane_v(ctx, 1, lane_ty(fmt)),
        // Two lanes of 32 bits.
        (FpOp::Convert | FpOp::FromI32, FpFmt::F64, _) => source_lane_v(ctx, 1, Ty::I64),
        _ => source_v(ctx, 1, true),
    }
}

/// An operation from XMM, MMX or memory to XMM or MMX.
fn vectors(ctx: &mut Ctx, how: Fp) {
    let dst = ctx.insn.op0_register();
    let b = source(ctx, how);
    // The x87 becomes the MMX unit even if the conversion then raises an exception.
    if uses_mmx(ctx) {
        touch_mmx(ctx);
    }
    if dst.is_mm() {
        let result = operate(ctx, how, None, b);
        let result = ctx.b.vec_half(result, false);
        set_mm(ctx, dst, result);
    } else if ctx.insn.mnemonic() == Mnemonic::Cvtpi2ps {
        // Two lanes; the others stay.
        let result = operate(ctx, how, None, b);
        let old = ctx.b.get_v(low(dst));
        let result = ctx.b.vec(VecOp::MoveLow64, old, result, 0);
        ctx.b.set_v(low(dst), result);
    } else {
        let result = operate(ctx, how, Some(dst), b);
        ctx.b.set_v(low(dst), result);
    }
}

/// `dst op b` as a vector; without a destination `a` does not matter.
fn operate(ctx: &mut Ctx, how: Fp, dst: Option<Register>, b: Val) -> Val {
    if ctx.mode.fp_masked() {
        let a = dst.map_or(b, |dst| ctx.b.get_v(low(dst)));
        return ctx.b.fp(how, a, b);
    }
    let code = sse_fp::code_of(how, dst.map(Register::number));
    let code = ctx.const64(code);
    let (l, h) = (ctx.b.vec_half(b, false), ctx.b.vec_half(b, true));
    let result = ctx.b.call(super::SSE_OPERATE, &[code, l, h]);
    match dst {
        Some(dst) => ctx.b.get_v(low(dst)),
        None => widened(ctx, result),
    }
}

fn to_int(ctx: &mut Ctx, how: ToInt) {
    let dst = ctx.insn.op0_register();
    let ty = if dst.is_gpr64() { Ty::I64 } else { Ty::I32 };
    let a = source_lane_v(ctx, 1, lane_ty(how.fmt));
    let result = if ctx.mode.fp_masked() {
        ctx.b.fp_to_int(how, a, ty)
    } else {
        let code = u64::from(how.fmt == FpFmt::F64)
            | u64::from(how.truncate) << 1
            | u64::from(ty == Ty::I64) << 2;
        let code = ctx.const64(code);
        let bits = ctx.b.vec_half(a, false);
        let result = ctx.b.call(super::SSE_TO_INT, &[code, bits]);
        ctx.b.zext(result, ty)
    };
    ctx.set_reg(number(dst), result);
}

fn from_int(ctx: &mut Ctx, fmt: FpFmt) {
    let dst = low(ctx.insn.op0_register());
    let v = ctx.operand(1);
    let result = if ctx.mode.fp_masked() {
        let a = ctx.b.get_v(dst);
        ctx.b.fp_from_int(fmt, FpRules::Sse, a, v)
    } else {
        let v = ctx.b.sext(v, Ty::I64);
        let code = ctx.const64(u64::from(fmt == FpFmt::F64));
        let bits = ctx.b.call(super::SSE_FROM_INT, &[code, v]);
        merged(ctx, bits, fmt)
    };
    ctx.b.set_v(dst, result);
}

/// The destination with its low lane replaced by bits of a format.
fn merged(ctx: &mut Ctx, bits: Val, fmt: FpFmt) -> Val {
    let new = widened(ctx, bits);
    let old = ctx.b.get_v(low(ctx.insn.op0_register()));
    let op = match fmt {
        FpFmt::F32 => VecOp::MoveLow32,
        FpFmt::F64 => VecOp::MoveLow64,
    };
    ctx.b.vec(op, old, new, 0)
}

fn compare(ctx: &mut Ctx, how: FpCompare) {
    let b = source_lane_v(ctx, 1, lane_ty(how.fmt));
    let a = ctx.b.get_v(low(ctx.insn.op0_register()));
    let flags = if ctx.mode.fp_masked() {
        ctx.b.fp_compare(how, a, b)
    } else {
        let code = u64::from(how.fmt == FpFmt::F64) | u64::from(how.signals) << 1;
        let code = ctx.const64(code);
        let (a, b) = (ctx.b.vec_half(a, false), ctx.b.vec_half(b, false));
        ctx.b.call(super::SSE_COMPARE, &[code, a, b])
    };
    ctx.set_flags(flags);
}

/// RCPSS to RSQRTPS: by a helper whatever the mode, for they raise nothing.
fn estimate(ctx: &mut Ctx, root: u64) {
    let dst = low(ctx.insn.op0_register());
    let root = ctx.const64(root);
    let result = if matches!(ctx.insn.mnemonic(), Mnemonic::Rcpss | Mnemonic::Rsqrtss) {
        let b = source_lane_v(ctx, 1, Ty::I32);
        let b = ctx.b.vec_half(b, false);
        let bits = ctx.b.call(super::SSE_ESTIMATE, &[root, b]);
        merged(ctx, bits, FpFmt::F32)
    } else {
        let b = source_v(ctx, 1, true);
        let (l, h) = (ctx.b.vec_half(b, false), ctx.b.vec_half(b, true));
        let l = ctx.b.call(super::SSE_ESTIMATE, &[root, l]);
        let h = ctx.b.call(super::SSE_ESTIMATE, &[root, h]);
        ctx.b.vec_make(l, h)
    };
    ctx.b.set_v(dst, result);
}

/// FXSAVE, FXRSTOR and the XSAVE family.
fn saved_state(ctx: &mut Ctx) -> bool {
    use Mnemonic as M;
    let mnemonic = ctx.insn.mnemonic();
    let layout = Layout {
        wide: matches!(
            mnemonic,
            M::Fxsave64 | M::Fxrstor64 | M::Xsave64 | M::Xrstor64 | M::Xsaveopt64 | M::Xsavec64
        ),
        long: ctx.mode.is_64(),
    };
    let save = match mnemonic {
        M::Fxsave | M::Fxsave64 | M::Fxrstor | M::Fxrstor64 => {
            legacy_state(ctx, layout);
            return true;
        }
        M::Xsave | M::Xsave64 => Some(Save::All),
        M::Xsaveopt | M::Xsaveopt64 => Some(Save::Optimized),
        M::Xsavec | M::Xsavec64 => Some(Save::Compact),
        M::Xrstor | M::Xrstor64 => None,
        _ => return false,
    };
    if !ctx.mode.osxsave() {
        ctx.raise_and_end(vector::UD, None);
        return true;
    }
    if ctx.mode.ts() {
        ctx.raise_and_end(vector::NM, None);
        return true;
    }
    forget_mmx(ctx);
    let address = ctx.address(super::fxsave::XSAVE_BYTES, save.is_some());
    let wanted = ctx.reg(regs::index::RAX, Ty::I32);
    let wanted = ctx.b.zext(wanted, Ty::I64);
    let upper = ctx.reg(regs::index::RDX, Ty::I32);
    let wanted = ctx.b.insert(wanted, upper, 32, 32);
    let how =
        layout.bits() | save.map_or(0, |s| s as u64) << 8 | u64::from(ctx.mode.data_ctx()) << 16;
    let how = ctx.const64(how);
    let helper = if save.is_some() {
        super::XSAVE
    } else {
        super::XRSTOR
    };
    let next = ctx.next_pc();
    ctx.b.call_void(helper, &[how, address, wanted, next]);
    true
}

fn legacy_state(ctx: &mut Ctx, layout: Layout) {
    if ctx.mode.em() || ctx.mode.ts() {
        ctx.raise_and_end(vector::NM, None);
        return;
    }
    forget_mmx(ctx);
    let saves = matches!(ctx.insn.mnemonic(), Mnemonic::Fxsave | Mnemonic::Fxsave64);
    let address = ctx.address(super::fxsave::LEGACY as u32, saves);
    let layout = ctx.const64(layout.bits());
    let context = ctx.const64(ctx.mode.data_ctx().into());
    let helper = if saves { super::FXSAVE } else { super::FXRSTOR };
    let next = ctx.next_pc();
    ctx.b.call_void(helper, &[layout, address, context, next]);
}
