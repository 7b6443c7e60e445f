//! The pages that generated code used last, by what addresses are made from.
//!
//! Accesses by one guest register mostly stay in one page. For each register there is a [`Recent`], which
//! generated code looks at before the tables: a subtraction, a comparison and an addition lead from a
//! guest's address to the host's. An entry is as good as the tables were when it was made: it is
//! forgotten with them.

use crate::bank::{CONTEXTS, PAGE};

/// Entries of a context: one for each base, by the low bits of its slot, and one for addresses without.
pub(crate) const BASES: usize = 33;

/// A page of plain RAM that was read or written lately.
#[derive(Clone, Copy, Default)]
#[repr(C)]
pub(crate) struct Page {
    /// Guest address of the page.
    tag: u64,
    /// Accesses of any size that begin at an offset below this are inside. 0: there is no page.
    limit: u64,
    /// Host address of the page.
    host: u64,
}

/// What was used last by one base.
#[derive(Clone, Copy, Default)]
#[repr(C, align(64))]
pub(crate) struct Recent {
    read: Page,
    write: Page,
    /// Pointer to the written page's flags.
    flags: u64,
}

/// All entries of a vCPU.
#[repr(C)]
pub(crate) struct RecentPages {
    entries: [[Recent; BASES]; CONTEXTS],
    /// Set by whoever makes an entry of a context.
    used: [u8; CONTEXTS],
}

impl RecentPages {
    pub(crate) fn new() -> Self {
        RecentPages {
            entries: [[Recent::default(); BASES]; CONTEXTS],
            used: [0; CONTEXTS],
        }
    }

    /// Forgets everything.
    pub(crate) fn clear(&mut self) {
        for (entries, used) in self.entries.iter_mut().zip(&mut self.used) {
            if std::mem::take(used) != 0 {
                for entry in entries {
                    entry.read.limit = 0;
                    entry.write.limit = 0;
                }
            }
        }
    }

    /// Host address behind `va`, if its page was read or written lately.
    pub(crate) fn host(&self, ctx: u8, va: u64, write: bool) -> Option<*mut u8> {
        let entries = &self.entries[usize::from(ctx) % CONTEXTS];
        let mut pages = entries
            .iter()
            .map(|entry| if write { &entry.write } else { &entry.read });
        let page = pages.find(|page| page.limit != 0 && page.tag == va & PAGE)?;
        Some((page.host + (va & !PAGE)) as *mut u8)
    }

    /// Has a page be the one that a base wrote last, as generated code does.
    #[cfg(test)]
    pub(crate) fn wrote(&mut self, ctx: u8, base: usize, va: u64, host: *mut u8) {
        self.entries[usize::from(ctx)][base].write = Page {
            tag: va & PAGE,
            limit: layout::LIMIT as u64,
            host: host as u64 - (va & !PAGE),
        };
        self.used[usize::from(ctx)] = 1;
    }

    /// Forgets a page of a context.
    pub(crate) fn clear_page(&mut self, ctx: u8, va: u64) {
        let ctx = usize::from(ctx) % CONTEXTS;
        if self.used[ctx] == 0 {
            return;
        }
        for entry in &mut self.entries[ctx] {
            for page in [&mut entry.read, &mut entry.write] {
                if page.tag == va & PAGE {
                    page.limit = 0;
                }
            }
        }
    }
}

/// Where generated code finds an entry: offsets from [`Mmu::RECENT`](crate::Mmu::RECENT).
pub mod layout {
    use std::mem::offset_of;

    use super::{BASES, CONTEXTS, Page, Recent, RecentPages};

    /// Largest offset in a page at which an access of any size is inside, and one.
    pub const LIMIT: i32 = 4096 - 15;
    /// Offset in an entry: the page that was read, or written.
    pub const READ: i32 = offset_of!(Recent, read) as i32;
    /// See [`READ`].
    pub const WRITE: i32 = offset_of!(Recent, write) as i32;
    /// Offset in either: guest address of the page.
    pub const TAG: i32 = offset_of!(Page, tag) as i32;
    /// Offset in either: [`LIMIT`], or 0 if there is no page.
    pub const END: i32 = offset_of!(Page, limit) as i32;
    /// Offset in either: host address of the page.
    pub const HOST: i32 = offset_of!(Page, host) as i32;
    /// Offset in an entry: pointer to the written page's flags.
    pub const FLAGS: i32 = offset_of!(Recent, flags) as i32;

    /// Offset of an entry.
    pub const fn entry(ctx: u8, base: Option<u8>) -> i32 {
        let base = match base {
            Some(slot) => slot as usize % (BASES - 1),
            None => BASES - 1,
        };
        let at = (ctx as usize % CONTEXTS) * BASES + base;
        (at * size_of::<Recent>()) as i32
    }

    /// Offset of the byte that says that a context has entries.
    pub const fn used(ctx: u8) -> i32 {
        (offset_of!(RecentPages, used) + ctx as usize % CONTEXTS) as i32
    }
}
