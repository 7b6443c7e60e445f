//! Guest addresses that are watched, for breakpoints and watchpoints: their pages take the slow path, all
//! others are as fast as ever.

use hw_memory::PAGE_BITS;

use crate::mmu::Mmu;

/// Addresses that are watched. The whole page is on the slow path; the target looks closer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Watch {
    /// First address.
    pub first: u64,
    /// Last address.
    pub last: u64,
    /// Instructions that begin there are, not loads and stores.
    pub code: bool,
}

impl Watch {
    fn overlaps(&self, first: u64, last: u64) -> bool {
        self.first <= last && first <= self.last
    }

    fn is_near(&self, va: u64) -> bool {
        let page = |va: u64| va >> PAGE_BITS;
        (page(self.first)..=page(self.last)).contains(&page(va))
    }
}

impl Mmu {
    /// Watches these addresses and no others. What generated code knew of their pages is forgotten, so
    /// that code beyond the instruction at hand must not be gone on with.
    pub fn set_watches(&mut self, watches: Vec<Watch>) {
        if self.watches != watches {
            self.watches = watches;
            self.flush_all();
        }
    }

    /// Whether instructions on the page at `va` are watched.
    #[inline]
    pub fn watches_code(&self, va: u64) -> bool {
        let mut watches = self.watches.iter();
        watches.any(|watch| watch.code && watch.is_near(va))
    }

    /// Whether anything is watched.
    #[inline(always)]
    pub fn is_watching(&self) -> bool {
        !self.watches.is_empty()
    }

    /// Whether an access of `size` bytes at `va` touches what is watched.
    #[inline]
    pub fn watches_data(&self, va: u64, size: u8) -> bool {
        let last = va.saturating_add(u64::from(size.max(1)) - 1);
        let mut watches = self.watches.iter();
        watches.any(|watch| !watch.code && watch.overlaps(va, last))
    }

    /// Whether reads, writes and fetches of the page at `va` take the slow path.
    pub(crate) fn slow_kinds(&self, va: u64) -> [bool; 3] {
        let mut watches = self.watches.iter();
        let data = watches.any(|watch| !watch.code && watch.is_near(va));
        [data, data, self.watches_code(va)]
    }
}
