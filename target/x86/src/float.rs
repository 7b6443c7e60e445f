//! x87, MMX and SSE up to SSSE3.
//!
//! Spec: Intel SDM vol. 1, chapters 8 to 12. SSE instructions become IR, those that round only while
//! MXCSR masks all exceptions; the others and the x87 are calls of helpers on `target_softfloat`. XMM registers and MXCSR are slots of the
//! register file, the x87 is the [`X87`] in the CPU's state.
//!
//! Not modelled: the selectors of the x87's last instruction and operand (stored as 0, which CPUID
//! says), its last opcode, and the external interrupt that reports x87 errors while CR0.NE is clear.

use accel_core::Effects;

use crate::decode::Ctx;
use crate::helper::helpers;

mod fxsave;
mod memory;
mod mmx;
mod operand;
mod sse;
mod sse_fp;
mod sse_int;
mod sse_move;
mod x87;
mod x87_arith;
mod x87_control;
mod x87_function;
mod x87_helper;
mod x87_move;
mod x87_translate;

pub use fxsave::{LEGACY, MXCSR_INIT, MXCSR_MASK};
pub use x87::X87;

/// Touches x87 state, memory and nothing of the register file.
const X87_EFFECTS: Effects = Effects {
    reads_regs: false,
    writes_regs: false,
    traps: true,
};
/// As [`X87_EFFECTS`], without traps: not a function of its arguments alone.
const STATE: Effects = Effects {
    reads_regs: true,
    writes_regs: false,
    traps: false,
};
const ALL: Effects = Effects::ALL;

helpers! { crate::helper::FLOAT;
    X87_WAIT => x87_helper::wait, X87_EFFECTS;
    X87_ARITH => x87_helper::arith, X87_EFFECTS;
    X87_COMPARE => x87_helper::compare, X87_EFFECTS;
    X87_COMPARE_FLAGS => x87_helper::compare_flags, X87_EFFECTS;
    X87_LOAD => x87_helper::load, X87_EFFECTS;
    X87_STORE => x87_helper::store, X87_EFFECTS;
    X87_FUNCTION => x87_helper::function, X87_EFFECTS;
    X87_EXCHANGE => x87_helper::exchange, X87_EFFECTS;
    X87_FREE => x87_helper::free, X87_EFFECTS;
    X87_MOVE_IF => x87_helper::move_if, X87_EFFECTS;
    X87_INIT => x87_control::init, STATE;
    X87_CLEAR_EXCEPTIONS => x87_control::clear_exceptions, STATE;
    X87_LOAD_CONTROL => x87_control::load_control, STATE;
    X87_READ_CONTROL => x87_control::read_control, STATE;
    X87_READ_STATUS => x87_control::read_status, STATE;
    X87_STORE_ENV => x87_control::store_environment, X87_EFFECTS;
    X87_LOAD_ENV => x87_control::load_environment, X87_EFFECTS;
    X87_SAVE => x87_control::save, X87_EFFECTS;
    X87_RESTORE => x87_control::restore, X87_EFFECTS;
    MM_GET => mmx::get, STATE;
    MM_SET => mmx::set, STATE;
    MM_TOUCH => mmx::touch, STATE;
    MM_EMPTY => mmx::empty, STATE;
    MASK_STORE => mmx::masked_store, ALL;
    FXSAVE => fxsave::fxsave, ALL;
    FXRSTOR => fxsave::fxrstor, ALL;
    XSAVE => fxsave::xsave, ALL;
    XRSTOR => fxsave::xrstor, ALL;
    LOAD_MXCSR => fxsave::load_mxcsr, ALL;
    SSE_OPERATE => sse_fp::operate, ALL;
    SSE_FROM_INT => sse_fp::from_int, ALL;
    SSE_TO_INT => sse_fp::to_int, ALL;
    SSE_COMPARE => sse_fp::compare, ALL;
    SSE_ESTIMATE => sse_fp::estimates, Effects::PURE;
}

/// What a unit knows of the MMX registers, so that not each of its instructions calls helpers for what one
/// has asked or done. All of it is in the CPU's state as well.
#[derive(Default)]
pub(crate) struct KnownMmx {
    /// No x87 exception is pending.
    is_quiet: bool,
    /// TOP is 0 and all registers are in use.
    is_entered: bool,
    values: [Option<accel_ir::Val>; 8],
}

/// Translates the instruction at hand; `false` if it is none of these.
pub(crate) fn translate(ctx: &mut Ctx<'_>) -> bool {
    sse_move::translate(ctx)
        || sse_int::translate(ctx)
        || sse::translate(ctx)
        || x87_translate::translate(ctx)
}

#[cfg(test)]
mod tests;
