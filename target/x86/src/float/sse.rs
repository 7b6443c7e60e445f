//! SSE floating point as IR: arithmetic, comparisons, conversions, and the saved state.

use accel_ir::{HelperId, Ty};
use iced_x86::Mnemonic;

use super::convert::{self, Shape as To};
use super::fxsave::{Layout, Save};
use super::operand::{
    high, low, ready, set_mm, source_halves, source_lane, source_mm, sse_ready, touch_mmx,
    uses_mmx, uses_xmm,
};
use super::sse_fp::{self, Fp, Lanes, Shape};
use super::sse_move::set_lane;
use crate::decode::context::{Ctx, number};
use crate::regs;
use crate::state::vector;

/// Translates an instruction of this file; `false` if it is none.
pub(super) fn translate(ctx: &mut Ctx) -> bool {
    let mnemonic = ctx.insn.mnemonic();
    if let Some(row) = sse_fp::row(mnemonic) {
        // The string instruction CMPSD shares its name.
        if !uses_xmm(ctx) {
            return false;
        }
        if sse_ready(ctx) {
            arithmetic(ctx, row);
        }
        return true;
    }
    if let Some(row) = convert::row(mnemonic, integer_is_wide(ctx)) {
        if ready(ctx) {
            conversion(ctx, row);
        }
        return true;
    }
    let how = match mnemonic {
        Mnemonic::Comiss => 0,
        Mnemonic::Comisd => 1,
        Mnemonic::Ucomiss => 2,
        Mnemonic::Ucomisd => 3,
        _ => return saved_state(ctx),
    };
    if sse_ready(ctx) {
        let ty = if how & 1 != 0 { Ty::I64 } else { Ty::I32 };
        let b = source_lane(ctx, 1, ty);
        let a = ctx.b.get_low(low(ctx.insn.op0_register()), ty);
        let how = ctx.const64(how);
        let flags = ctx.b.call(super::SSE_COMPARE, &[a, b, how]);
        ctx.set_flags(flags);
    }
    true
}

fn scalar_helper(op: Fp, lanes: Lanes) -> HelperId {
    let pick = |single, double| match lanes {
        Lanes::Single => single,
        Lanes::Double => double,
    };
    match op {
        Fp::Add | Fp::HAdd => pick(super::ADDSS, super::ADDSD),
        Fp::Sub | Fp::HSub | Fp::AddSub => pick(super::SUBSS, super::SUBSD),
        Fp::Mul => pick(super::MULSS, super::MULSD),
        Fp::Div => pick(super::DIVSS, super::DIVSD),
        Fp::Min => pick(super::MINSS, super::MINSD),
        Fp::Max => pick(super::MAXSS, super::MAXSD),
        Fp::Cmp => pick(super::CMPSS, super::CMPSD),
        Fp::Sqrt => pick(super::SQRTSS, super::SQRTSD),
        Fp::Rcp => super::RCPSS,
        Fp::Rsqrt => super::RSQRTSS,
    }
}

fn arithmetic(ctx: &mut Ctx, (op, lanes, shape): (Fp, Lanes, Shape)) {
    let dst = ctx.insn.op0_register();
    let imm = if op == Fp::Cmp {
        ctx.insn.immediate8()
    } else {
        0
    };
    match shape {
        Shape::Packed => {
            let (l, h) = source_halves(ctx, 1);
            let code = sse_fp::packed_code(op, lanes, dst.number(), imm);
            let code = ctx.const64(code);
            ctx.b.call_void(super::SSE_PACKED, &[code, l, h]);
        }
        Shape::Scalar => {
            let ty = match lanes {
                Lanes::Single => Ty::I32,
                Lanes::Double => Ty::I64,
            };
            let b = source_lane(ctx, 1, ty);
            let a = ctx.b.get_low(low(dst), ty);
            let helper = scalar_helper(op, lanes);
            let result = if op == Fp::Cmp {
                let imm = ctx.const64(imm.into());
                ctx.b.call(helper, &[a, b, imm])
            } else {
                ctx.b.call(helper, &[a, b])
            };
            set_lane(ctx, low(dst), result, ty);
        }
    }
}

/// Whether the integer operand of a conversion has 64 bits.
fn integer_is_wide(ctx: &Ctx) -> bool {
    let (to, from) = (ctx.insn.op0_register(), ctx.insn.op1_register());
    to.is_gpr64() || from.is_gpr64() || to.is_xmm() && ctx.is_memory(1) && ctx.memory_bytes() == 8
}

fn conversion(ctx: &mut Ctx, row: convert::Row) {
    use convert::Convert as C;
    let dst = ctx.insn.op0_register();
    let single_source = matches!(row.convert, C::F32ToI32 | C::F32ToI64 | C::F32ToF64);
    let zero = ctx.const64(0);
    let (l, h) = match row.shape {
        To::ToScalar | To::ToGeneral => {
            let from = ctx.insn.op1_register();
            let v = if from.is_gpr() {
                ctx.gpr(from)
            } else {
                let narrow = single_source || matches!(row.convert, C::I32ToF32 | C::I32ToF64);
                source_lane(ctx, 1, if narrow { Ty::I32 } else { Ty::I64 })
            };
            (v, zero)
        }
        To::Narrow | To::Same => source_halves(ctx, 1),
        To::MmxToLow => (source_mm(ctx, 1), zero),
        To::Widen if uses_mmx(ctx) => (source_mm(ctx, 1), zero),
        To::Widen => (source_lane(ctx, 1, Ty::I64), zero),
        To::ToMmx if row.convert == C::TwoF64ToI32 => source_halves(ctx, 1),
        To::ToMmx => (source_lane(ctx, 1, Ty::I64), zero),
    };
    let code = ctx.const64(row.code(dst.number()));
    // The x87 becomes the MMX unit even if the conversion then raises an exception.
    if uses_mmx(ctx) {
        touch_mmx(ctx);
    }
    if matches!(row.shape, To::Widen | To::Same) {
        ctx.b.call_void(super::SSE_CONVERT_PACKED, &[code, l, h]);
        return;
    }
    let result = ctx.b.call(super::SSE_CONVERT, &[code, l, h]);
    match row.shape {
        To::ToGeneral => {
            let ty = if dst.is_gpr64() { Ty::I64 } else { Ty::I32 };
            let result = ctx.b.zext(result, ty);
            ctx.set_reg(number(dst), result);
        }
        To::ToScalar => {
            let single = matches!(row.convert, C::I32ToF32 | C::I64ToF32 | C::F64ToF32);
            set_lane(
                ctx,
                low(dst),
                result,
                if single { Ty::I32 } else { Ty::I64 },
            );
        }
        To::ToMmx => set_mm(ctx, dst, result),
        To::MmxToLow => ctx.b.set(low(dst), result),
        _ => {
            ctx.b.set(low(dst), result);
            let zero = ctx.const64(0);
            ctx.b.set(high(dst), zero);
        }
    }
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
    ctx.b.call_void(helper, &[how, address, wanted]);
    true
}

fn legacy_state(ctx: &mut Ctx, layout: Layout) {
    if ctx.mode.em() || ctx.mode.ts() {
        ctx.raise_and_end(vector::NM, None);
        return;
    }
    let saves = matches!(ctx.insn.mnemonic(), Mnemonic::Fxsave | Mnemonic::Fxsave64);
    let address = ctx.address(super::fxsave::LEGACY as u32, saves);
    let layout = ctx.const64(layout.bits());
    let context = ctx.const64(ctx.mode.data_ctx().into());
    let helper = if saves { super::FXSAVE } else { super::FXRSTOR };
    ctx.b.call_void(helper, &[layout, address, context]);
}
