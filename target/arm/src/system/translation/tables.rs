//! Walks of translation tables, as both stages do them (DDI 0487, D8.2).

use hw_memory::{ByteOrder, SECURE_SPACE};

use super::{ADDRESS, Fault, Kind, NS_TABLE, fault};
use crate::Core;

/// A table to walk.
pub(super) struct Walk {
    /// Physical (stage 2, or stage 1 without one) or intermediate address.
    pub(super) table: u64,
    pub(super) level: u32,
    /// log2 of the granule.
    pub(super) granule: u32,
    /// Bits of the input that the tables translate.
    pub(super) input_bits: u32,
    pub(super) hardware_af: bool,
    /// The table is in the Secure address space.
    pub(super) is_secure: bool,
}

/// The address in the map of an address of a Security state's space.
pub(super) fn in_map(core: &Core, address: u64, is_secure: bool) -> u64 {
    let secret = address | SECURE_SPACE;
    if is_secure && core.mmu.snapshot().find(secret).is_some() {
        secret
    } else {
        address
    }
}

pub(super) fn read_descriptor(core: &Core, at: u64) -> Option<u64> {
    match core.mmu.update_physical(at, 8, |_| None) {
        Some(value) => Some(value),
        None => core
            .mmu
            .read_physical(at, 8, ByteOrder::Little, core.attrs)
            .ok(),
    }
}

/// A leaf descriptor and where it is.
pub(super) struct Leaf {
    pub(super) descriptor: u64,
    pub(super) at: u64,
    pub(super) level: u8,
    pub(super) output: u64,
    pub(super) page_bits: u32,
    /// NSTable, APTable, UXNTable, PXNTable of the tables above, in their places.
    pub(super) tables: u64,
}

/// Walks tables. `stage_2` translates the addresses of tables.
pub(super) fn descend(
    core: &Core,
    input: u64,
    walk: &Walk,
    mut stage_2: impl FnMut(u64) -> Result<u64, Fault>,
) -> Result<Leaf, Fault> {
    let stride = walk.granule.saturating_sub(3);
    let mut table = walk.table;
    let mut tables = 0;
    let mut level = walk.level;
    loop {
        let shift = walk
            .granule
            .wrapping_add(3u32.wrapping_sub(level).wrapping_mul(stride));
        let top = if level == walk.level {
            walk.input_bits
        } else {
            shift.wrapping_add(stride)
        };
        let mask = u64::MAX.checked_shl(top).map_or(u64::MAX, |m| !m);
        let index = (input & mask).checked_shr(shift).unwrap_or(0);
        let at = stage_2(table.wrapping_add(index << 3))?;
        let at = in_map(core, at, walk.is_secure && tables & NS_TABLE == 0);
        let level_now = level as u8;
        let descriptor =
            read_descriptor(core, at).ok_or_else(|| fault(Kind::External, level_now))?;
        if descriptor & 1 == 0 {
            return Err(fault(Kind::Translation, level_now));
        }
        let is_table = descriptor & 2 != 0 && level < 3;
        if !is_table {
            let block = match walk.granule {
                12 => matches!(level, 1 | 2),
                _ => level == 2,
            };
            if level < 3 && !block || level == 3 && descriptor & 2 == 0 {
                return Err(fault(Kind::Translation, level_now));
            }
            let low = u64::MAX.checked_shl(shift).map_or(u64::MAX, |m| !m);
            let base = descriptor & ADDRESS & !low;
            if base
                .checked_shr(core.arch.model.physical_bits())
                .unwrap_or(0)
                != 0
            {
                return Err(fault(Kind::AddressSize, level_now));
            }
            return Ok(Leaf {
                descriptor,
                at,
                level: level_now,
                output: base | input & low,
                page_bits: shift,
                tables,
            });
        }
        tables |= descriptor & 0xf800_0000_0000_0000;
        let low = u64::MAX.checked_shl(walk.granule).map_or(u64::MAX, |m| !m);
        table = descriptor & ADDRESS & !low;
        if table
            .checked_shr(core.arch.model.physical_bits())
            .unwrap_or(0)
            != 0
        {
            return Err(fault(Kind::AddressSize, level_now));
        }
        level = level.wrapping_add(1);
    }
}

/// Changes a descriptor in memory if it is still the one that was read. Whether it was.
pub(super) fn update(core: &Core, at: u64, old: u64, new: u64) -> bool {
    core.mmu
        .update_physical(at, 8, |now| (now == old).then_some(new))
        .is_some_and(|was| was == old)
}
