//! Memory operands of more than sixteen bytes.

use accel_core::Trap;

use crate::Core;

/// Takes the fault of a state image before anything else: AMD's processors look at its first
/// element, then at its last byte.
pub(super) fn probe_image(
    core: &mut Core,
    address: u64,
    (first, len): (u8, u64),
    (write, ctx): (bool, u8),
) -> Result<(), Trap> {
    let last = address.wrapping_add(len.saturating_sub(1));
    if write {
        core.probe_write(address, first, ctx)?;
        core.probe_write(last, 1, ctx)
    } else {
        core.load(address, first, ctx)?;
        core.load(last, 1, ctx)?;
        Ok(())
    }
}
