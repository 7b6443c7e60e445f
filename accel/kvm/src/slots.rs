//! Memory slots: which parts of the memory map the guest reaches without an exit.

use std::sync::Arc;

use hw_memory::{RamBlock, Snapshot, What};

/// One slot as the map wants it.
#[derive(Clone, Debug)]
pub(crate) struct Wanted {
    pub(crate) base: u64,
    pub(crate) len: u64,
    pub(crate) block: Arc<RamBlock>,
    pub(crate) offset: u64,
    pub(crate) readonly: bool,
}

impl PartialEq for Wanted {
    fn eq(&self, other: &Self) -> bool {
        (self.base, self.len, self.offset, self.readonly)
            == (other.base, other.len, other.offset, other.readonly)
            && Arc::ptr_eq(&self.block, &other.block)
    }
}

impl Wanted {
    /// Whether `next` goes on where this ends, in the guest and in the host.
    fn joins(&self, next: &Wanted) -> bool {
        self.base + self.len == next.base
            && self.offset + self.len == next.offset
            && self.readonly == next.readonly
            && Arc::ptr_eq(&self.block, &next.block)
    }
}

/// The slots of a map: whole pages of RAM and ROM, of so many bytes as the host's, neighbours joined.
/// Parts of pages are left to exits.
pub(crate) fn wanted(map: &Snapshot, page: u64) -> Vec<Wanted> {
    let mut list: Vec<Wanted> = Vec::new();
    for span in map.spans() {
        let readonly = match &span.what {
            What::Ram { .. } => false,
            What::Rom { .. } => true,
            What::Io { .. } => continue,
        };
        let Some(base) = span.start.checked_next_multiple_of(page) else {
            continue;
        };
        let end = span.last.saturating_add(1) & !(page - 1);
        let Some((block, offset)) = span.ram_at(base) else {
            continue;
        };
        if base >= end || !offset.is_multiple_of(page) {
            continue;
        }
        let len = (end - base).min(block.len().saturating_sub(offset) & !(page - 1));
        let slot = Wanted {
            base,
            len,
            block: block.clone(),
            offset,
            readonly,
        };
        match list.last_mut() {
            Some(last) if last.joins(&slot) => last.len += slot.len,
            _ if slot.len == 0 => {}
            _ => list.push(slot),
        }
    }
    list
}

/// Slots by number, and the steps from what is there to what is wanted.
#[derive(Default)]
pub(crate) struct Table {
    slots: Vec<Option<Wanted>>,
}

/// One step; deletions come first, since slots must never overlap.
#[derive(Clone, PartialEq, Debug)]
pub(crate) enum Step {
    Delete(u32, Wanted),
    Create(u32, Wanted),
}

impl Table {
    /// What to do for a new map.
    pub(crate) fn update(&mut self, wanted: Vec<Wanted>) -> Vec<Step> {
        let mut steps = Vec::new();
        for (n, slot) in (0u32..).zip(&mut self.slots) {
            if let Some(old) = slot.take_if(|old| !wanted.contains(old)) {
                steps.push(Step::Delete(n, old));
            }
        }
        for new in wanted {
            if self.slots.iter().flatten().any(|old| *old == new) {
                continue;
            }
            let free = self.slots.iter().position(Option::is_none);
            let n = free.unwrap_or(self.slots.len());
            if n == self.slots.len() {
                self.slots.push(None);
            }
            self.slots[n] = Some(new.clone());
            steps.push(Step::Create(n as u32, new));
        }
        steps
    }

    /// All slots by number.
    pub(crate) fn all(&self) -> impl Iterator<Item = (u32, &Wanted)> {
        (0u32..)
            .zip(&self.slots)
            .filter_map(|(n, slot)| Some((n, slot.as_ref()?)))
    }
}
