//! Many bytes of plain RAM at once, within a page.

use std::ptr;
use std::sync::atomic::AtomicU8;

use crate::bank::{Kind, PAGE};
use crate::mmu::{Fast, Mmu};

impl Mmu {
    /// Where `len` bytes at `va` are, and the flags of their page: if they are plain RAM of one page
    /// whose translation is cached.
    #[inline(always)]
    fn at_hand(
        &self,
        ctx: u8,
        va: u64,
        len: usize,
        kind: Kind,
    ) -> Option<(*mut u8, *const AtomicU8)> {
        let room = (1 << hw_memory::PAGE_BITS) - (va & !PAGE);
        let tables = self.tables(ctx).filter(|_| len as u64 <= room)?;
        Some((tables.fast(kind, va)?, tables.page_flags(va)))
    }

    /// Loads from plain RAM; false if not all of it is at hand, and `out` is as it was.
    #[inline]
    pub fn load_bytes(&self, ctx: u8, va: u64, out: &mut [u8]) -> bool {
        let Some((at, _)) = self.at_hand(ctx, va, out.len(), Kind::Read) else {
            return false;
        };
        // SAFETY: a matching tag means the page is RAM of a block that the snapshot keeps alive, and the
        // bytes lie within the page. A racing store may tear them, as on hardware.
        unsafe { ptr::copy_nonoverlapping(at, out.as_mut_ptr(), out.len()) };
        true
    }

    /// Stores to plain RAM.
    #[inline]
    pub fn store_bytes(&self, ctx: u8, va: u64, bytes: &[u8]) -> Fast<()> {
        let Some((at, flags)) = self.at_hand(ctx, va, bytes.len(), Kind::Write) else {
            return Fast::Slow;
        };
        // SAFETY: as in the load.
        unsafe { ptr::copy_nonoverlapping(bytes.as_ptr(), at, bytes.len()) };
        self.stored(flags, at, bytes.len() as u64)
    }

    /// Fills `len` bytes of plain RAM, a multiple of eight, with a pattern.
    pub fn fill_bytes(&self, ctx: u8, va: u64, len: usize, pattern: u64) -> Fast<()> {
        let Some((at, flags)) = self.at_hand(ctx, va, len, Kind::Write) else {
            return Fast::Slow;
        };
        for i in 0..len / 8 {
            // SAFETY: as in the load.
            unsafe { at.cast::<u64>().add(i).write_unaligned(pattern.to_le()) };
        }
        self.stored(flags, at, len as u64)
    }

    /// Copies plain RAM as if from the lowest byte up, but not if bytes that were copied would be copied
    /// again: that is slow.
    pub fn copy_bytes(&self, ctx: u8, from: u64, to: u64, len: usize) -> Fast<()> {
        let Some((source, _)) = self.at_hand(ctx, from, len, Kind::Read) else {
            return Fast::Slow;
        };
        let Some((at, flags)) = self.at_hand(ctx, to, len, Kind::Write) else {
            return Fast::Slow;
        };
        // Two guest addresses may be one page of the host.
        let ahead = (at as usize).wrapping_sub(source as usize);
        if ahead != 0 && ahead < len {
            return Fast::Slow;
        }
        // SAFETY: as in the load, for either range.
        unsafe { ptr::copy(source, at, len) };
        self.stored(flags, at, len as u64)
    }
}
