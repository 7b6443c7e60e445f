//! Memory operands of more than sixteen bytes, all or nothing.

use accel_core::Trap;

use crate::Core;

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

/// Faults as a store of `len` bytes (at most a page) would.
pub(super) fn probe_bytes(core: &mut Core, address: u64, len: u64, ctx: u8) -> Result<(), Trap> {
    core.probe_write(address, 1, ctx)?;
    core.probe_write(address.wrapping_add(len.saturating_sub(1)), 1, ctx)
}

/// Stores bytes (at most a page); a fault stores none.
pub(super) fn store_bytes(
    core: &mut Core,
    address: u64,
    bytes: &[u8],
    ctx: u8,
) -> Result<(), Trap> {
    probe_bytes(core, address, bytes.len() as u64, ctx)?;
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
