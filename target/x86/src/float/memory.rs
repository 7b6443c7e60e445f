//! Memory operands of more than sixteen bytes, all or nothing.

use accel_core::Trap;

use crate::Core;

/// Bits of an address within a page.
const PAGE_OFFSET: u64 = 0xfff;

/// Loads bytes. Faults leave `out` partly written, and nothing else.
pub(super) fn load_bytes(
    core: &mut Core,
    address: u64,
    out: &mut [u8],
    ctx: u8,
) -> Result<(), Trap> {
    let mut at = address;
    for chunk in out.chunks_mut(8) {
        let len = chunk.len() as u64;
        if let Ok(all) = <&mut [u8; 8]>::try_from(&mut *chunk) {
            *all = core.load(at, 8, ctx)?.to_le_bytes();
        } else {
            for (i, byte) in (0..).zip(chunk) {
                *byte = core.load(at.wrapping_add(i), 1, ctx)? as u8;
            }
        }
        at = at.wrapping_add(len);
    }
    Ok(())
}

/// Where the page begins that the last byte is in, or the first byte if that comes later.
fn last_page(address: u64, len: usize) -> u64 {
    let last = address.wrapping_add(len as u64).wrapping_sub(1);
    address.max(last & !PAGE_OFFSET)
}

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

/// Stores bytes (at most a page); a fault stores none.
pub(super) fn store_bytes(
    core: &mut Core,
    address: u64,
    bytes: &[u8],
    ctx: u8,
) -> Result<(), Trap> {
    for first in [address, last_page(address, bytes.len())] {
        core.probe_write(first, 1, ctx)?;
    }
    let mut at = address;
    for chunk in bytes.chunks(8) {
        match <[u8; 8]>::try_from(chunk) {
            Ok(all) => core.store(at, 8, u64::from_le_bytes(all), ctx)?,
            Err(_) => {
                for (i, byte) in (0..).zip(chunk) {
                    core.store(at.wrapping_add(i), 1, (*byte).into(), ctx)?;
                }
            }
        }
        at = at.wrapping_add(chunk.len() as u64);
    }
    Ok(())
}
