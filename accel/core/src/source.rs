//! Instruction bytes for a front end, and which pages they came from.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};

use accel_softmmu::{Access, Physical};
use hw_memory::{Attrs, ByteOrder, CodeWatcher, PAGE_SIZE, RamBlock, granules};

use crate::core::Core;
use crate::target::{Target, Trap};

/// Most bytes offered at once: more than any unit uses.
const WINDOW: usize = 512;
/// Bytes of the next page offered with them.
const NEXT: usize = 16;

/// A piece of RAM that code was read from.
#[derive(Clone)]
pub struct PageRef {
    block: Arc<RamBlock>,
    offset: u64,
    version: u32,
    granules: u64,
}

impl PageRef {
    /// Whether the code read from here is still what memory holds.
    #[inline]
    pub fn is_current(&self) -> bool {
        self.block
            .code_version(self.offset)
            .is_some_and(|v| v.load(Ordering::Acquire) == self.version)
    }

    /// The 64-byte granules of the page that the code was read from, a bit each.
    pub fn granules(&self) -> u64 {
        self.granules
    }

    /// Identity of the block of memory, for as long as it lives.
    pub fn block_id(&self) -> usize {
        Arc::as_ptr(&self.block) as usize
    }

    /// Has `watcher` told of all code of the block that becomes stale from now on. While the reference
    /// returned is kept, no other block has this one's identity.
    pub fn watch(&self, watcher: Weak<dyn CodeWatcher>) -> Weak<RamBlock> {
        self.block.watch_code(watcher);
        Arc::downgrade(&self.block)
    }

    /// An identity of the physical page: same block, same page.
    pub fn page_id(&self) -> u64 {
        (self.block.host_ptr() as u64).wrapping_add(self.offset) & !(PAGE_SIZE - 1)
    }
}

/// The bytes at the PC, up to the end of their page.
pub struct Source {
    start: u64,
    buffer: [u8; WINDOW + NEXT],
    /// Bytes at hand.
    len: usize,
    /// Bytes from the first page.
    first: usize,
    used: usize,
    pages: Vec<PageRef>,
    cacheable: bool,
    ctx: u8,
    /// Of [`Core::sole`].
    sole: bool,
}

impl Source {
    /// Bytes from `va` on, within its page.
    pub fn new<T: Target>(core: &mut Core<T>, va: u64, ctx: u8) -> Result<Self, Trap> {
        let mut source = Source {
            start: va,
            buffer: [0; WINDOW + NEXT],
            len: 0,
            first: 0,
            used: 0,
            pages: Vec::new(),
            cacheable: true,
            ctx,
            sole: core.sole,
        };
        source.append(core, va, T::UNIT_BYTES.min(WINDOW))?;
        source.first = source.len;
        Ok(source)
    }

    fn append<T: Target>(&mut self, core: &mut Core<T>, va: u64, most: usize) -> Result<(), Trap> {
        let pa = core.translate_for(va, Access::Fetch, self.ctx)?;
        let len = most.min((PAGE_SIZE - va % PAGE_SIZE) as usize);
        let from = self.len;
        self.len += len;
        let bytes = &mut self.buffer[from..from + len];
        if let Some((block, offset)) = core.mmu.block_at(pa) {
            let version = block
                .code_version(offset)
                .map_or(0, |v| v.load(Ordering::SeqCst));
            if block.read(offset, bytes).is_some() {
                self.pages.push(PageRef {
                    block: block.clone(),
                    offset,
                    version,
                    granules: 0,
                });
                return Ok(());
            }
        }
        self.cacheable = false;
        for (i, byte) in bytes.iter_mut().enumerate().take(NEXT) {
            let value = core.mmu.read_physical(
                pa.wrapping_add(i as u64),
                1,
                ByteOrder::Little,
                Attrs::default(),
            );
            // Whether more is there than the first byte is known when it is the PC's turn.
            *byte = match value {
                Ok(value) => value as u8,
                Err(fault) if i == 0 => T::bus_fault(core, pa, Access::Fetch, fault)? as u8,
                Err(_) => 0xff,
            };
        }
        Ok(())
    }

    /// Address of the first byte.
    pub fn start(&self) -> u64 {
        self.start
    }

    /// The bytes at hand.
    pub fn bytes(&self) -> &[u8] {
        &self.buffer[..self.len]
    }

    /// The bytes that the unit was made from.
    pub fn code(&self) -> &[u8] {
        self.bytes().get(..self.used).unwrap_or_default()
    }

    /// Adds the beginning of the next page, for an instruction that crosses into it. May fault.
    pub fn extend<T: Target>(&mut self, core: &mut Core<T>) -> Result<(), Trap> {
        if self.len == self.first {
            let next = self.start.wrapping_add(self.first as u64);
            self.append(core, next, NEXT)?;
        }
        Ok(())
    }

    /// Whether bytes of the next page were added.
    pub fn is_extended(&self) -> bool {
        self.len > self.first
    }

    /// Whether the instruction at `offset` of `len` bytes lies in the first page entirely.
    pub fn is_in_first_page(&self, offset: usize, len: usize) -> bool {
        offset + len <= self.first
    }

    /// Whether bytes up to the end of the page are at hand, or the window ends before.
    pub fn ends_at_page(&self) -> bool {
        self.start
            .wrapping_add(self.first as u64)
            .is_multiple_of(PAGE_SIZE)
    }

    /// Says how many bytes the unit was made from.
    pub fn set_used(&mut self, used: usize) {
        self.used = used.min(self.len);
    }

    /// Announces the code as translated. `None` if it changed meanwhile (translate again), else the
    /// pages it depends on; empty when it must not be cached.
    pub fn track(mut self) -> Option<Vec<PageRef>> {
        if !self.cacheable {
            return Some(Vec::new());
        }
        let split = self.used.min(self.first);
        self.pages
            .truncate(if self.used > self.first { 2 } else { 1 });
        let parts = [(0, split), (self.first, self.used)];
        for (page, (from, to)) in self.pages.iter_mut().zip(parts) {
            let wanted = self.buffer.get(from..to)?;
            page.granules = granules(page.offset, wanted.len() as u64);
            let len = wanted.len() as u64;
            page.block.track_code(page.offset, len, self.sole);
            let mut now = [0; WINDOW + NEXT];
            let now = now.get_mut(..wanted.len())?;
            page.block.read(page.offset, now)?;
            if now != wanted || !page.is_current() {
                return None;
            }
        }
        Some(self.pages)
    }
}

impl<T: Target> Core<T> {
    /// The physical address behind `va` for an access, walking if need be. May fault.
    pub fn translate_for(&mut self, va: u64, access: Access, ctx: u8) -> Result<u64, Trap> {
        if access == Access::Fetch
            && let Some(pa) = self.mmu.fetched_from(ctx, va)
        {
            return Ok(pa);
        }
        if let Physical::Slow(pa) = self.mmu.look_up(ctx, va, access) {
            return Ok(pa);
        }
        self.counters.walks += 1;
        let found = T::walk(self, va, access, ctx)?;
        self.mmu.fill(ctx, va, access, &found);
        Ok(found.physical)
    }
}
