//! The debug registers that EL0 may reach: those of the communications channel, and AArch32's that say what
//! there is (DDI 0487, D23.3, G8.3).
//!
//! No external debugger is attached: nothing ever comes through the channel, and what is sent is gone.
//! Not here: LDC and STC of CP14, which are UNDEFINED.

use super::control::{self, mdcr};
use super::exception;
use super::registers as sys;
use crate::Core;
use crate::model::Feature;

/// MDSCR_EL1.TDCC: EL0 may not.
const TDCC: u64 = 1 << 12;

/// Where an access from here is trapped to, if it is. `own`: the bit of MDCR_EL2 for the register.
pub(crate) fn trapped_to(core: &Core, own: u64) -> Option<u8> {
    let el = core.arch.el;
    if el == 0 && core.regs.get(sys::MDSCR_EL1) & TDCC != 0 {
        return Some(exception::default_target(core));
    }
    // HCR_EL2.TGE has TDE's effect.
    let is_debugger = control::debug_target(core) == 2;
    if el < 2 && (is_debugger || control::mdcr_in_effect(core) & own != 0) {
        return Some(2);
    }
    let monitor = core.arch.model.has(Feature::El3) && el < 3;
    (monitor && core.regs.get(sys::MDCR_EL3) & mdcr::TDA != 0).then_some(3)
}

/// DBGDIDR: how many watchpoints, breakpoints and of these ones on contexts; Armv8's debug architecture.
pub(crate) fn dbgdidr(core: &Core) -> u64 {
    let dfr0 = core.arch.model.id.dfr0;
    let field = |shift: u32| dfr0.wrapping_shr(shift) & 15;
    let secure = u64::from(core.arch.model.has(Feature::El3));
    field(20) << 28
        | field(12) << 24
        | field(28) << 20
        | 6 << 16
        | 1 << 15
        | secure << 14
        | secure << 12
}
