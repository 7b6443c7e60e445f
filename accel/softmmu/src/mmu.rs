//! A vCPU's view of memory: its banks, its snapshot of the map, its access paths.

// `fetch_update` has another name in newer Rust, which the oldest one supported does not know.
#![allow(deprecated)]

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU16, AtomicU32, AtomicU64, Ordering};

use hw_memory::{Attrs, ByteOrder, Fault, Initiator, MemoryMap, RamBlock, Snapshot, Span, What};

use crate::bank::{Backing, Bank, CONTEXTS, Hit, Kind, PAGE, Tables, Translation};
use crate::recent::RecentPages;
use crate::watch::Watch;

/// Banks of a vCPU: address spaces whose translations are kept at once.
const BANKS: usize = 8;

/// What kind of access a translation is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Access {
    /// A load.
    Read,
    /// A store.
    Write,
    /// An instruction fetch.
    Fetch,
}

impl Access {
    fn kind(self) -> Kind {
        match self {
            Access::Read => Kind::Read,
            Access::Write => Kind::Write,
            Access::Fetch => Kind::Exec,
        }
    }
}

/// What a cached translation leads to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Physical {
    /// Nothing is cached: walk the tables.
    Miss,
    /// Plain RAM: use the fast path again.
    Ram,
    /// This physical address, through the memory map.
    Slow(u64),
}

/// Outcome of a fast-path access.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fast<T> {
    /// Done.
    Done(T),
    /// Done, and translated code was overwritten: leave the block after this instruction.
    HitCode(T),
    /// Not plain RAM at hand: take the slow path.
    Slow,
}

struct Slot {
    key: u64,
    bank: Box<Bank>,
    /// Value of the flush counter when this bank was last in use.
    globals_seen: u64,
}

/// Identities of executable pages remembered; when there are more, new ones are given out.
const IDS: usize = 1 << 16;
/// Largest identity: generated code compares with a signed 32-bit constant. After it there are no more,
/// and code of new pages is looked up each time.
const LAST_ID: u32 = i32::MAX as u32;

/// Numbers pairs of a virtual and a host page. A number never means two pairs.
#[derive(Default)]
struct ExecIds {
    known: HashMap<(u64, u64), u32>,
    last: u32,
}

impl ExecIds {
    fn of(&mut self, va: u64, host: u64) -> u32 {
        if let Some(id) = self.known.get(&(va, host)) {
            return *id;
        }
        if self.last == LAST_ID {
            return 0;
        }
        if self.known.len() >= IDS {
            self.known.clear();
        }
        self.last += 1;
        self.known.insert((va, host), self.last);
        self.last
    }
}

/// A vCPU's translations and its way to physical memory.
pub struct Mmu {
    /// The current bank's tables by context, for generated code: never null.
    hot: [*const Tables; CONTEXTS],
    /// Pages that generated code used last, of the current bank.
    pub(crate) recent: RecentPages,
    changes: u64,
    /// What a context without tables has in `hot`.
    empty: Box<Tables>,
    exec_ids: ExecIds,
    slots: Vec<Slot>,
    current: usize,
    next_victim: usize,
    globals: u64,
    map: MemoryMap,
    snapshot: Arc<Snapshot>,
    by: Initiator,
    pub(crate) watches: Vec<Watch>,
}

// SAFETY: `hot` points into tables that `slots` and `empty` own; nobody else follows it.
unsafe impl Send for Mmu {}

macro_rules! fast_access {
    ($load:ident, $store:ident, $rmw:ident, $t:ty, $atomic:ty) => {
        /// Loads from plain RAM.
        #[inline(always)]
        pub fn $load(&self, ctx: u8, va: u64) -> Option<$t> {
            const SIZE: u64 = size_of::<$t>() as u64;
            let at = self.slots[self.current]
                .bank
                .tables(ctx)?
                .fast(Kind::Read, va)?;
            if va & (SIZE - 1) == 0 {
                // SAFETY: a matching tag means the page is RAM of a block that the snapshot keeps
                // alive, and an aligned access does not leave the page.
                Some(<$t>::from_le(unsafe {
                    (*at.cast::<$atomic>()).load(Ordering::Relaxed)
                }))
            } else if va & !PAGE <= (1 << hw_memory::PAGE_BITS) - SIZE {
                // SAFETY: as above; the access ends within the page. A racing store may tear it, as
                // on hardware.
                Some(<$t>::from_le(unsafe { at.cast::<$t>().read_unaligned() }))
            } else {
                None
            }
        }

        /// Stores to plain RAM.
        #[inline(always)]
        pub fn $store(&self, ctx: u8, va: u64, value: $t) -> Fast<()> {
            const SIZE: u64 = size_of::<$t>() as u64;
            let Some(tables) = self.slots[self.current].bank.tables(ctx) else {
                return Fast::Slow;
            };
            let Some(at) = tables.fast(Kind::Write, va) else {
                return Fast::Slow;
            };
            if va & (SIZE - 1) == 0 {
                // SAFETY: as in the load.
                unsafe { (*at.cast::<$atomic>()).store(value.to_le(), Ordering::Relaxed) };
            } else if va & !PAGE <= (1 << hw_memory::PAGE_BITS) - SIZE {
                // SAFETY: as in the load.
                unsafe { at.cast::<$t>().write_unaligned(value.to_le()) };
            } else {
                return Fast::Slow;
            }
            self.stored(tables.page_flags(va), at, SIZE)
        }

        /// An aligned atomic update of plain RAM: the old value. `update` may run several times;
        /// `None` leaves memory as it is.
        #[inline]
        pub fn $rmw(&self, ctx: u8, va: u64, mut update: impl FnMut($t) -> Option<$t>) -> Fast<$t> {
            const SIZE: u64 = size_of::<$t>() as u64;
            let Some(tables) = self.slots[self.current].bank.tables(ctx) else {
                return Fast::Slow;
            };
            let Some(at) = tables.fast(Kind::Write, va) else {
                return Fast::Slow;
            };
            if va & (SIZE - 1) != 0 {
                return Fast::Slow;
            }
            // SAFETY: as in the load.
            let cell = unsafe { &*at.cast::<$atomic>() };
            let result = cell.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |old| {
                update(<$t>::from_le(old)).map(<$t>::to_le)
            });
            let old = <$t>::from_le(result.unwrap_or_else(|old| old));
            match self.stored(tables.page_flags(va), at, SIZE) {
                Fast::HitCode(()) => Fast::HitCode(old),
                _ => Fast::Done(old),
            }
        }
    };
}

impl Mmu {
    /// A view of `map` for one vCPU.
    pub fn new(map: MemoryMap, by: Initiator) -> Self {
        let slots = (0..BANKS)
            .map(|_| Slot {
                key: 0,
                bank: Box::default(),
                globals_seen: 0,
            })
            .collect();
        let snapshot = map.snapshot();
        let empty = Tables::new();
        Mmu {
            hot: [&raw const *empty; CONTEXTS],
            recent: RecentPages::new(),
            changes: 0,
            empty,
            exec_ids: ExecIds::default(),
            slots,
            current: 0,
            next_victim: 0,
            globals: 0,
            map,
            snapshot,
            by,
            watches: Vec::new(),
        }
    }

    /// Where in an `Mmu` generated code finds the current bank's tables: an array of pointers by
    /// context.
    pub const HOT: usize = std::mem::offset_of!(Mmu, hot);

    /// Where in an `Mmu` generated code finds the pages used last: laid out as [`crate::recent_layout`] says.
    pub const RECENT: usize = std::mem::offset_of!(Mmu, recent);

    /// How often translations were forgotten or other ones became current: while it stays the same, so does
    /// every page that was found.
    pub fn changes(&self) -> u64 {
        self.changes
    }

    fn changed(&mut self) {
        self.recent.clear();
        self.changes = self.changes.wrapping_add(1);
    }

    /// Brings `hot` in line with the current bank.
    fn point(&mut self) {
        let bank = &self.slots[self.current].bank;
        for (ctx, hot) in self.hot.iter_mut().enumerate() {
            *hot = bank.tables_ptr(ctx).unwrap_or(&raw const *self.empty);
        }
    }

    /// Identity of the virtual page at `va` together with the host page behind it, if code there is
    /// cached RAM; else 0.
    #[inline(always)]
    pub fn exec_id(&self, ctx: u8, va: u64) -> u32 {
        self.slots[self.current]
            .bank
            .tables(ctx)
            .map_or(0, |t| t.exec_id(va))
    }

    pub(crate) fn tables(&self, ctx: u8) -> Option<&Tables> {
        self.slots[self.current].bank.tables(ctx)
    }

    /// Host address behind `va` by the pages that generated code used last.
    pub(crate) fn recent_at(&self, ctx: u8, va: u64, write: bool) -> Option<*mut u8> {
        self.recent.host(ctx, va, write)
    }

    /// The memory map this looks at.
    pub fn map(&self) -> &MemoryMap {
        &self.map
    }

    /// The map as this vCPU sees it now.
    pub fn snapshot(&self) -> &Arc<Snapshot> {
        &self.snapshot
    }

    /// Whether the map has changed since [`sync_map`](Self::sync_map).
    pub fn has_new_map(&self) -> bool {
        self.map.generation() != self.snapshot.generation()
    }

    /// Takes over a new map, if there is one, and forgets every translation.
    pub fn sync_map(&mut self) {
        if self.has_new_map() {
            self.snapshot = self.map.snapshot();
            self.flush_all();
        }
    }

    /// Makes the address space `key` the current one, keeping its translations if they are cached.
    /// Key 0 is the one with translation off.
    pub fn switch(&mut self, key: u64) {
        if self.slots[self.current].key != key {
            self.current = match self.slots.iter().position(|s| s.key == key) {
                Some(found) => found,
                None => {
                    self.next_victim = (self.next_victim + 1) % BANKS;
                    let slot = &mut self.slots[self.next_victim];
                    slot.bank.flush();
                    slot.key = key;
                    self.next_victim
                }
            };
            self.point();
            self.changed();
        }
        if self.slots[self.current].globals_seen != self.globals {
            self.changed();
            let slot = &mut self.slots[self.current];
            slot.bank.flush();
            slot.globals_seen = self.globals;
        }
    }

    /// The current address space's translations.
    pub fn bank(&mut self) -> &mut Bank {
        // Whoever asks is about to forget some of them.
        self.changed();
        &mut self.slots[self.current].bank
    }

    /// Forgets the translations of one address space.
    pub fn flush_space(&mut self, key: u64) {
        self.changed();
        if let Some(slot) = self.slots.iter_mut().find(|s| s.key == key) {
            slot.bank.flush();
        }
    }

    /// Forgets a page in the current address space, and, as it may be global, in all others.
    pub fn flush_page(&mut self, va: u64) {
        self.changed();
        for slot in &mut self.slots {
            slot.bank.flush_page(va);
        }
    }

    /// Forgets every translation of every address space.
    pub fn flush_all(&mut self) {
        self.changed();
        self.globals = self.globals.wrapping_add(1);
        let slot = &mut self.slots[self.current];
        slot.bank.flush();
        slot.globals_seen = self.globals;
    }

    /// Caches what a page walk found for an access at `va`.
    pub fn fill(&mut self, ctx: u8, va: u64, access: Access, found: &Translation) {
        let backing = self
            .snapshot
            .find(found.physical)
            .and_then(|span| backing(span, found.physical & PAGE))
            .map(|backing| Backing {
                slow: self.slow_kinds(va),
                ..backing
            });
        let id = match &backing {
            Some(b) if found.allow.exec && !b.slow[Kind::Exec as usize] => {
                self.exec_ids.of(va & PAGE, b.host as u64)
            }
            _ => 0,
        };
        self.recent.clear_page(ctx, va);
        self.slots[self.current]
            .bank
            .fill(ctx, (va, access.kind()), found, backing, id);
        self.point();
    }

    /// What is cached for an access.
    pub fn look_up(&self, ctx: u8, va: u64, access: Access) -> Physical {
        match self.slots[self.current]
            .bank
            .tables(ctx)
            .and_then(|t| t.hit(access.kind(), va))
        {
            Some(Hit::Host(_)) => Physical::Ram,
            Some(Hit::Physical(pa)) => Physical::Slow(pa),
            None => Physical::Miss,
        }
    }

    /// Physical address of the byte that is fetched at `va`, if it is cached RAM.
    pub fn fetched_from(&self, ctx: u8, va: u64) -> Option<u64> {
        self.tables(ctx)?.fetched_from(va)
    }

    /// Host address of the page that code at `va` is fetched from, if it is cached RAM: an identity
    /// for the block cache, never followed.
    #[inline(always)]
    pub fn fetch_page(&self, ctx: u8, va: u64) -> Option<u64> {
        let at = self.slots[self.current]
            .bank
            .tables(ctx)?
            .fast(Kind::Exec, va)?;
        Some(at as u64 & PAGE)
    }

    fast_access!(load8, store8, rmw8, u8, AtomicU8);
    fast_access!(load16, store16, rmw16, u16, AtomicU16);
    fast_access!(load32, store32, rmw32, u32, AtomicU32);
    fast_access!(load64, store64, rmw64, u64, AtomicU64);

    /// As the narrower updates for 16 bytes, with the host's instruction where it has one.
    pub fn rmw128(&self, ctx: u8, va: u64, update: impl FnMut(u128) -> Option<u128>) -> Fast<u128> {
        let Some(tables) = self.slots[self.current].bank.tables(ctx) else {
            return Fast::Slow;
        };
        let Some(at) = tables.fast(Kind::Write, va) else {
            return Fast::Slow;
        };
        if va & 15 != 0 {
            return Fast::Slow;
        }
        // SAFETY: as in the load; the address is aligned as the guest's is, within a page.
        let Some(old) = (unsafe { update_16_bytes(at, update) }) else {
            return Fast::Slow;
        };
        match self.stored(tables.page_flags(va), at, 16) {
            Fast::HitCode(()) => Fast::HitCode(old),
            _ => Fast::Done(old),
        }
    }

    #[inline(always)]
    pub(crate) fn stored(&self, flags: *const AtomicU8, at: *mut u8, size: u64) -> Fast<()> {
        // SAFETY: `flags` was filled together with the entry that matched, from the same block.
        if unsafe { (*flags).load(Ordering::Relaxed) } == 0 {
            return Fast::Done(());
        }
        self.stored_slow(at, size)
    }

    /// Announces a store of `size` bytes, within a page, that generated code has done through the
    /// cached translation. Returns whether it hit translated code; `None` if the page is cached no more.
    pub fn announce(&self, ctx: u8, va: u64, size: u8) -> Option<bool> {
        let at = self.slots[self.current]
            .bank
            .tables(ctx)
            .and_then(|t| t.fast(Kind::Write, va));
        // A page used last stays at hand when another one has taken its line of the table.
        let at = at.or_else(|| self.recent.host(ctx, va, true))?;
        Some(self.stored_slow(at, size.into()) == Fast::HitCode(()))
    }

    #[cold]
    fn stored_slow(&self, at: *mut u8, size: u64) -> Fast<()> {
        let address = at as u64;
        for span in self.snapshot.spans() {
            if let What::Ram { block, .. } = &span.what
                && let Some(offset) = address.checked_sub(block.host_ptr() as u64)
                && offset < block.len()
            {
                return if block.after_write(offset, size) {
                    Fast::HitCode(())
                } else {
                    Fast::Done(())
                };
            }
        }
        Fast::Done(())
    }

    /// Reads 1, 2, 4 or 8 bytes at a physical address.
    pub fn read_physical(
        &self,
        pa: u64,
        size: u8,
        order: ByteOrder,
        attrs: Attrs,
    ) -> Result<u64, Fault> {
        self.snapshot.read(pa, size, order, self.by, attrs)
    }

    /// Writes 1, 2, 4 or 8 bytes at a physical address; whether translated code was overwritten.
    pub fn write_physical(
        &self,
        pa: u64,
        size: u8,
        value: u64,
        order: ByteOrder,
        attrs: Attrs,
    ) -> Result<bool, Fault> {
        self.snapshot.write(pa, size, value, order, self.by, attrs)
    }

    /// An atomic update of a naturally aligned little-endian value in RAM at a physical address
    /// (accessed and dirty bits of page tables): the old value, or `None` if it is not RAM.
    pub fn update_physical(
        &self,
        pa: u64,
        size: u8,
        mut update: impl FnMut(u64) -> Option<u64>,
    ) -> Option<u64> {
        let span = self.snapshot.find(pa)?;
        let (block, offset) = span.ram_at(pa)?;
        if !matches!(span.what, What::Ram { .. }) || pa & u64::from(size.max(1) - 1) != 0 {
            return None;
        }
        if offset.checked_add(u64::from(size))? > block.len() {
            return None;
        }
        // SAFETY: the range was checked to lie in the block, whose mapping is page-aligned, so an
        // aligned offset is an aligned address.
        let old = unsafe {
            let at = block.host_ptr().add(offset as usize);
            match size {
                4 => (*at.cast::<AtomicU32>())
                    .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |v| {
                        update(u64::from(u32::from_le(v))).map(|n| (n as u32).to_le())
                    })
                    .map_or_else(
                        |v| (u64::from(u32::from_le(v)), false),
                        |v| (u64::from(u32::from_le(v)), true),
                    ),
                8 => (*at.cast::<AtomicU64>())
                    .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |v| {
                        update(u64::from_le(v)).map(u64::to_le)
                    })
                    .map_or_else(|v| (u64::from_le(v), false), |v| (u64::from_le(v), true)),
                _ => return None,
            }
        };
        if old.1 {
            block.mark_written(offset, u64::from(size));
        }
        Some(old.0)
    }

    /// The RAM or ROM block behind a physical address: for fetching code from it.
    pub fn block_at(&self, pa: u64) -> Option<(&Arc<RamBlock>, u64)> {
        self.snapshot.find(pa)?.ram_at(pa)
    }
}

/// Updates 16 bytes with CMPXCHG16B: the old value, or `None` where the host lacks it.
///
/// # Safety
///
/// `at` is aligned to 16 bytes and may be read and written.
#[cfg(target_arch = "x86_64")]
unsafe fn update_16_bytes(
    at: *mut u8,
    mut update: impl FnMut(u128) -> Option<u128>,
) -> Option<u128> {
    use std::arch::is_x86_feature_detected;
    if !is_x86_feature_detected!("cmpxchg16b") {
        return None;
    }
    let at = at.cast::<u128>();
    // SAFETY: the caller vouches for the address, and the feature was detected. Storing zero where
    // zero is changes nothing.
    let mut old = unsafe { exchange_16_bytes(at, 0, 0) };
    loop {
        let Some(new) = update(old) else {
            return Some(old);
        };
        // SAFETY: as above.
        let now = unsafe { exchange_16_bytes(at, old, new) };
        if now == old {
            return Some(old);
        }
        old = now;
    }
}

/// CMPXCHG16B: what was there. In assembly, as the library's function may end in a call of libatomic.
///
/// # Safety
///
/// As for [`update_16_bytes`], and the host has the instruction.
#[cfg(target_arch = "x86_64")]
unsafe fn exchange_16_bytes(at: *mut u128, old: u128, new: u128) -> u128 {
    let (mut low, mut high) = (old as u64, (old >> 64) as u64);
    // SAFETY: the caller vouches for the address and the instruction. RBX, which the compiler keeps
    // for itself, is put back.
    unsafe {
        std::arch::asm!(
            "xchg rsi, rbx",
            "lock cmpxchg16b [rdi]",
            "mov rbx, rsi",
            inout("rsi") new as u64 => _,
            in("rdi") at,
            in("rcx") (new >> 64) as u64,
            inout("rax") low,
            inout("rdx") high,
            options(nostack),
        );
    }
    u128::from(low) | u128::from(high) << 64
}

/// The host has no 16-byte atomics that this uses.
///
/// # Safety
///
/// None needed.
#[cfg(not(target_arch = "x86_64"))]
unsafe fn update_16_bytes(_: *mut u8, _: impl FnMut(u128) -> Option<u128>) -> Option<u128> {
    None
}

/// Host memory behind the page at `page`, if all of it is one RAM or ROM span.
fn backing(span: &Span, page: u64) -> Option<Backing> {
    if page < span.start || page | !PAGE > span.last {
        return None;
    }
    let (block, offset) = span.ram_at(page)?;
    let size = 1u64 << hw_memory::PAGE_BITS;
    if offset & !PAGE != 0 || offset.checked_add(size)? > block.len() {
        return None;
    }
    let flags = block.flags_at(offset)?;
    Some(Backing {
        host: block.host_ptr().wrapping_add(offset as usize),
        writable: matches!(span.what, What::Ram { .. }),
        flags,
        slow: [false; 3],
    })
}
