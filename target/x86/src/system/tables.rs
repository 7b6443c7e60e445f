//! `info tlb` and `info mem`: the page tables as they are, in QEMU's layout.
//!
//! Tables belong to the guest and may name each other in circles, so the number of entries looked at
//! is bounded; a cut list says so.

use std::fmt::Write;

use super::paging::{self, Leaf};
use crate::Core;
use crate::state::cr0;

/// Most pages listed or merged.
const MOST_PAGES: usize = 1 << 18;

const OFF: &str = "PG disabled\n";
const CUT: &str = "(more pages are not shown)\n";

/// A page's flags: no-execute, global, page size, dirty, accessed, cache disable, write-through, user,
/// write.
const FLAGS: [(u32, char); 9] = [
    (63, 'X'),
    (8, 'G'),
    (7, 'P'),
    (6, 'D'),
    (5, 'A'),
    (4, 'C'),
    (3, 'T'),
    (2, 'U'),
    (1, 'W'),
];

fn digits(core: &Core) -> usize {
    if core.arch.is_long() { 16 } else { 8 }
}

/// `info tlb`: one line for each page.
pub fn info_tlb(core: &Core) -> String {
    if core.arch.cr0 & cr0::PG == 0 {
        return OFF.into();
    }
    let width = digits(core);
    let mut text = String::new();
    let whole = paging::leaves(core, MOST_PAGES, |leaf| {
        // In a 4K page's entry bit 7 is PAT.
        let entry = if leaf.page_bits == 12 {
            leaf.entry & !(1 << 7)
        } else {
            leaf.entry
        };
        let flags: String = FLAGS
            .iter()
            .map(|(bit, letter)| {
                if entry.wrapping_shr(*bit) & 1 != 0 {
                    *letter
                } else {
                    '-'
                }
            })
            .collect();
        // Writing to a string does not fail.
        let _ = writeln!(text, "{:0width$x}: {:016x} {flags}", leaf.va, leaf.physical);
    });
    if !whole {
        text.push_str(CUT);
    }
    text
}

/// `info mem`: ranges of equal permissions.
pub fn info_mem(core: &Core) -> String {
    if core.arch.cr0 & cr0::PG == 0 {
        return OFF.into();
    }
    let width = digits(core);
    let mut text = String::new();
    let mut range: Option<(u64, u64, (bool, bool))> = None;
    let mut put = |range: Option<(u64, u64, (bool, bool))>| {
        if let Some((start, last, (user, write))) = range {
            let end = last.wrapping_add(1);
            let len = end.wrapping_sub(start);
            let (user, write) = (if user { 'u' } else { '-' }, if write { 'w' } else { '-' });
            let _ = writeln!(
                text,
                "{start:0width$x}-{end:0width$x} {len:0width$x} {user}r{write}"
            );
        }
    };
    let whole = paging::leaves(core, MOST_PAGES, |leaf: Leaf| {
        let rights = (leaf.user, leaf.write);
        let size = 1u64.wrapping_shl(leaf.page_bits);
        let last = leaf.va.wrapping_add(size).wrapping_sub(1);
        match &mut range {
            Some((_, end, same)) if *same == rights && end.wrapping_add(1) == leaf.va => {
                *end = last;
            }
            _ => put(range.replace((leaf.va, last, rights))),
        }
    });
    put(range);
    if !whole {
        text.push_str(CUT);
    }
    text
}
