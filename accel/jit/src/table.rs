//! Where indirect jumps go: recently found units by their guest PC, looked up by generated code.

use std::sync::atomic::Ordering;

use crate::memory::{CodeMemory, cell};

/// log2 of the number of entries.
const BITS: u32 = 14;
/// log2 of an entry's bytes.
const ENTRY_SHIFT: u32 = 5;
/// Bytes of the table.
pub(crate) const TABLE_BYTES: usize = 1 << (BITS + ENTRY_SHIFT);

/// Multiplier of the hash: the low half of the PC times this; the upper bits choose.
pub(crate) const HASH: i32 = 0x1e37_79b1;
/// `product >> HASH_SHIFT & HASH_MASK` is an entry's offset.
pub(crate) const HASH_SHIFT: u8 = (32 - BITS - ENTRY_SHIFT) as u8;
/// See [`HASH_SHIFT`].
pub(crate) const HASH_MASK: i32 = (TABLE_BYTES - 1) as i32 & !((1 << ENTRY_SHIFT) - 1);

/// Offset in an entry: the guest PC.
pub(crate) const PC: i32 = 0;
/// Offset in an entry: identity of the page and mode, see [`key`].
pub(crate) const KEY: i32 = 8;
/// Offset in an entry: host address of the code.
pub(crate) const CODE: i32 = 16;

/// Where computed jumps went last, by the units that end with them.
const LAST_BITS: u32 = 12;
/// Bytes of that.
pub(crate) const LAST_BYTES: usize = 8 << LAST_BITS;

/// Offset of where a unit notes the target of its computed jump. Others may share it.
pub(crate) fn last_of(pc: u64) -> usize {
    let product = (pc as u32).wrapping_mul(HASH as u32);
    cell::LAST + (product >> (32 - LAST_BITS)) as usize * 8
}

/// Where a unit's computed jump went last; or another's.
pub(crate) fn last(memory: &CodeMemory, pc: u64) -> Option<u64> {
    match memory.cell(last_of(pc)).load(Ordering::Relaxed) {
        0 => None,
        target => Some(target),
    }
}

/// Page identity and mode in one word.
pub(crate) fn key(exec_id: u32, mode: u32) -> u64 {
    u64::from(mode) << 32 | u64::from(exec_id)
}

fn entry(pc: u64) -> usize {
    let product = (pc as u32).wrapping_mul(HASH as u32);
    cell::TABLE + (product >> HASH_SHIFT & HASH_MASK as u32) as usize
}

/// Whether `pc` is known, whatever lies behind it now.
pub(crate) fn has(memory: &CodeMemory, pc: u64) -> bool {
    let at = entry(pc);
    memory.cell(at + PC as usize).load(Ordering::Relaxed) == pc
}

/// Has jumps to `pc` under `key` go to the code at an offset.
pub(crate) fn insert(memory: &CodeMemory, pc: u64, key: u64, code: usize) {
    let at = entry(pc);
    memory.cell(at + PC as usize).store(pc, Ordering::Relaxed);
    memory.cell(at + KEY as usize).store(key, Ordering::Relaxed);
    let code = memory.address(code) as u64;
    memory
        .cell(at + CODE as usize)
        .store(code, Ordering::Relaxed);
}

/// Forgets `pc` if it leads to the code at an offset.
pub(crate) fn remove(memory: &CodeMemory, pc: u64, code: usize) {
    let at = entry(pc);
    if memory.cell(at + CODE as usize).load(Ordering::Relaxed) == memory.address(code) as u64 {
        // No page has the identity 0 in generated code's eyes.
        memory.cell(at + KEY as usize).store(0, Ordering::Relaxed);
        memory.cell(at + CODE as usize).store(0, Ordering::Relaxed);
    }
}

/// Forgets everything.
pub(crate) fn clear(memory: &CodeMemory) {
    for at in (cell::TABLE..cell::TABLE + TABLE_BYTES).step_by(1 << ENTRY_SHIFT) {
        memory.cell(at + KEY as usize).store(0, Ordering::Relaxed);
    }
}
