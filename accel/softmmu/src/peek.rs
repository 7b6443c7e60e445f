//! Looking at plain RAM through what is cached, as generated code would: no walk, no effect.

use crate::bank::{Kind, PAGE};
use crate::mmu::{Access, Mmu};

/// Bytes of plain RAM that are at hand.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Peek {
    /// Host address of the first: an identity of the memory, never followed.
    pub host: u64,
    /// What they hold, little-endian.
    pub value: u64,
}

impl Mmu {
    /// The `size` (up to 8) bytes at `va`, if an access of this kind to all of them needs no more than
    /// what is cached.
    pub fn peek(&self, ctx: u8, va: u64, size: u8, access: Access) -> Option<Peek> {
        let size = u64::from(size.min(8));
        if va & !PAGE > (1 << hw_memory::PAGE_BITS) - size {
            return None;
        }
        let kind = match access {
            Access::Read => Kind::Read,
            Access::Write => Kind::Write,
            Access::Fetch => return None,
        };
        // An entry of the pages used last outlives its line when that was needed for another page.
        let at = self
            .tables(ctx)
            .and_then(|tables| tables.fast(kind, va))
            .or_else(|| self.recent_at(ctx, va, kind == Kind::Write))?;
        let mut bytes = [0; 8];
        for (i, byte) in bytes.iter_mut().enumerate().take(size as usize) {
            // SAFETY: an entry that matches means the page is RAM of a block that the snapshot keeps
            // alive, and the bytes lie within it. A racing store may tear them, as on hardware.
            *byte = unsafe { at.wrapping_add(i).read_volatile() };
        }
        Some(Peek {
            host: at as u64,
            value: u64::from_le_bytes(bytes),
        })
    }
}
