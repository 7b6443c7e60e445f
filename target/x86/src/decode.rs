//! Decoding of instructions into IR.
#![allow(missing_docs)]
use accel_core::{Source, Trap};
use accel_ir::Unit;

use crate::helper::helpers;

pub(crate) mod mode;

#[allow(unused_imports)]
pub(crate) use mode::{mode_of, refresh};

helpers! { crate::helper::DECODE; }

pub(crate) fn linear_pc(core: &crate::Core) -> u64 {
    core.regs
        .get(crate::regs::RIP)
        .wrapping_add(core.regs.get(crate::regs::base(1)))
}

pub(crate) fn translate(core: &mut crate::Core, _: &mut Source, _: u32) -> Result<Unit, Trap> {
    Err(crate::system::raise(core, crate::vector::UD, None))
}
