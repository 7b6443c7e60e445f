//! Advanced SIMD instructions as functions on the vector registers (DDI 0487, C7).

use accel_core::Trap;

use crate::Core;
use crate::system::exception;

/// (instruction): executes it.
pub(crate) fn run(core: &mut Core, [word, ..]: [u64; 4]) -> Result<u64, Trap> {
    match execute(core, word as u32) {
        Some(()) => Ok(0),
        None => Err(exception::undefined(core)),
    }
}

fn execute(_: &mut Core, _: u32) -> Option<()> {
    None
}
