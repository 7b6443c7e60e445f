//! x87, MMX and SSE up to SSSE3.
//!
//! Spec: Intel SDM vol. 1, chapters 8 to 12. SSE instructions become IR, those that round only while
//! MXCSR masks all exceptions; the others and the x87 are calls of helpers on `target_softfloat`. XMM registers and MXCSR are slots of the
//! register file, the x87 is the [`X87`] in the CPU's state.
//!
//! Not modelled: the selectors of the x87's last instruction and operand (stored as 0, which CPUID
//! says), its last opcode, and the external interrupt that reports x87 errors while CR0.NE is clear.

use accel_core::{Effects, Intrinsic, X87Op};

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
mod x87_quiet;
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
const CHANGES: Intrinsic = quiet(X87Op::Changes);

/// An instruction that executors may know.
const fn quiet(op: X87Op) -> Intrinsic {
    Intrinsic::X87(op)
}

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
    X87_INIT => x87_control::init, X87_EFFECTS, CHANGES;
    X87_CLEAR_EXCEPTIONS => x87_control::clear_exceptions, STATE, CHANGES;
    X87_LOAD_CONTROL => x87_control::load_control, X87_EFFECTS, CHANGES;
    X87_READ_CONTROL => x87_control::read_control, STATE, quiet(X87Op::ReadControl);
    X87_READ_STATUS => x87_control::read_status, STATE;
    QUIET_READ_STATUS => x87_control::read_status, STATE, quiet(X87Op::ReadStatus);
    X87_STORE_ENV => x87_control::store_environment, X87_EFFECTS, CHANGES;
    X87_LOAD_ENV => x87_control::load_environment, X87_EFFECTS, CHANGES;
    X87_SAVE => x87_control::save, X87_EFFECTS, CHANGES;
    X87_RESTORE => x87_control::restore, X87_EFFECTS, CHANGES;
    QUIET_ARITH => x87_quiet::arith, STATE, quiet(X87Op::Arith);
    QUIET_ARITH_VALUE => x87_quiet::arith_value, STATE, quiet(X87Op::ArithValue);
    QUIET_COMPARE => x87_quiet::compare, STATE, quiet(X87Op::Compare);
    QUIET_COMPARE_VALUE => x87_quiet::compare_value, STATE, quiet(X87Op::CompareValue);
    QUIET_COMPARE_FLAGS => x87_quiet::compare_flags, STATE, quiet(X87Op::CompareFlags);
    QUIET_LOAD => x87_quiet::load, STATE, quiet(X87Op::Load);
    QUIET_LOAD_REGISTER => x87_quiet::load_register, STATE, quiet(X87Op::LoadRegister);
    QUIET_STORE_REGISTER => x87_quiet::store_register, STATE, quiet(X87Op::StoreRegister);
    QUIET_CONVERT => x87_quiet::convert, STATE, quiet(X87Op::Convert);
    QUIET_SIGNIFICAND => x87_quiet::significand, STATE, quiet(X87Op::Significand);
    QUIET_SIGN_EXPONENT => x87_quiet::sign_exponent, STATE, quiet(X87Op::SignExponent);
    QUIET_POP => x87_quiet::pop, STATE, quiet(X87Op::Pop);
    QUIET_EXCHANGE => x87_quiet::exchange, STATE, quiet(X87Op::Exchange);
    QUIET_CHANGE_SIGN => x87_quiet::change_sign, STATE, quiet(X87Op::ChangeSign);
    QUIET_ABSOLUTE => x87_quiet::absolute, STATE, quiet(X87Op::Absolute);
    QUIET_SQUARE_ROOT => x87_quiet::square_root, STATE, quiet(X87Op::SquareRoot);
    QUIET_ROUND => x87_quiet::round, STATE, quiet(X87Op::Round);
    QUIET_LOAD_CONTROL => x87_control::load_control, X87_EFFECTS, quiet(X87Op::LoadControl);
    QUIET_NOTE => x87_quiet::note, STATE, quiet(X87Op::Note);
    QUIET_NOTE_DATA => x87_quiet::note_data, STATE, quiet(X87Op::NoteData);
    MM_GET => mmx::get, STATE, quiet(X87Op::GetMmx);
    MM_SET => mmx::set, STATE, quiet(X87Op::SetMmx);
    MM_TOUCH => mmx::touch, STATE, quiet(X87Op::TouchMmx);
    MM_EMPTY => mmx::empty, STATE;
    MASK_STORE => mmx::masked_store, ALL;
    FXSAVE => fxsave::fxsave, ALL;
    FXRSTOR => fxsave::fxrstor, ALL, CHANGES;
    XSAVE => fxsave::xsave, ALL;
    XRSTOR => fxsave::xrstor, ALL, CHANGES;
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
    registers: [KnownRegister; 8],
}

impl KnownMmx {
    /// Of register `n` of eight.
    fn register(&mut self, n: usize) -> &mut KnownRegister {
        let [r0, r1, r2, r3, r4, r5, r6, r7] = &mut self.registers;
        match n & 7 {
            0 => r0,
            1 => r1,
            2 => r2,
            3 => r3,
            4 => r4,
            5 => r5,
            6 => r6,
            _ => r7,
        }
    }
}

/// What a unit knows of one MMX register.
#[derive(Clone, Copy, Default)]
pub(crate) struct KnownRegister {
    value: Option<accel_ir::Val>,
    /// A vector of the value and zeros above.
    vector: Option<accel_ir::Val>,
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
