//! One address space's cached translations.

use std::alloc::{Layout, alloc_zeroed, handle_alloc_error};
use std::sync::atomic::AtomicU8;

use hw_memory::PAGE_BITS;

/// Translation contexts of a bank. Targets number them (user, kernel, kernel with user access).
pub const CONTEXTS: usize = 4;

/// Programs leap about in tens of megabytes. What is not used of a table takes no memory.
const ENTRY_BITS: u32 = 14;
const ENTRIES: usize = 1 << ENTRY_BITS;
const CODE_BITS: u32 = 13;
const CODES: usize = 1 << CODE_BITS;
/// Most large pages that a bank remembers; with more it begins anew.
const MOST_LARGE: usize = 1024;
/// log2 of the size up to which a large page is forgotten by itself.
const MOST_LARGE_BITS: u32 = 22;

/// Tag of an entry that matches nothing: no page has its low bits all set. So does an entry of zeros that is
/// not page 0's; see [`Tables::new`].
const EMPTY: u64 = u64::MAX;
/// Low tag bit: not plain RAM; the addend gives the physical address, not the host's.
const SLOW: u64 = 1;

/// Mask of a page's address.
pub(crate) const PAGE: u64 = !((1 << PAGE_BITS) - 1);

/// What a page walk found.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Translation {
    /// Physical address of the byte asked for.
    pub physical: u64,
    /// log2 of the page's size.
    pub page_bits: u32,
    /// What may be cached: a page not yet marked dirty is cached for reading only.
    pub allow: Permissions,
    /// Whether it survives a flush of the non-global entries.
    pub global: bool,
}

/// Kinds of access.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Permissions {
    /// Loads.
    pub read: bool,
    /// Stores.
    pub write: bool,
    /// Fetches.
    pub exec: bool,
}

#[derive(Clone, Copy)]
#[repr(C)]
pub(crate) struct Entry {
    tag: u64,
    addend: u64,
}

impl Entry {
    /// Leads to the page at `to`, of the host's memory or, on the slow path, of the guest's.
    fn new(va: u64, to: u64, is_slow: bool) -> Self {
        Entry {
            tag: va & PAGE | if is_slow { SLOW } else { 0 },
            addend: (to & PAGE).wrapping_sub(va & PAGE),
        }
    }

    /// Whether it holds no page.
    fn is_empty(&self) -> bool {
        self.tag == EMPTY || self.tag | self.addend == 0
    }

    /// Whether it holds the page at `va`.
    fn holds(&self, va: u64) -> bool {
        !self.is_empty() && self.tag & PAGE == va & PAGE
    }

    /// Whether it holds no other page than that.
    fn is_of(&self, va: u64) -> bool {
        self.is_empty() || self.tag & PAGE == va & PAGE
    }
}

const NONE: Entry = Entry {
    tag: EMPTY,
    addend: 0,
};

/// The kind of table an access looks at.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(usize)]
pub(crate) enum Kind {
    Read = 0,
    Write = 1,
    Exec = 2,
}

/// All that is cached of one page for loads and stores, in one line of the host's cache. Generated code
/// reads it too: see [`crate::layout`].
#[derive(Clone, Copy)]
#[repr(C, align(64))]
pub(crate) struct Line {
    /// Of reads and writes. All that are not empty are of one page.
    entries: [Entry; 2],
    /// Flag byte of the page behind the write entry.
    flags: *const AtomicU8,
}

const EMPTY_LINE: Line = Line {
    entries: [NONE; 2],
    flags: std::ptr::null(),
};

/// What is cached of one page for fetches. Programs and their data are often as far apart as the table is
/// long: in one table they would drive each other out.
#[derive(Clone, Copy)]
#[repr(C, align(32))]
pub(crate) struct CodeLine {
    entry: Entry,
    /// Identity of the virtual page together with the host's; 0 if it is not plain RAM.
    id: u32,
    /// The page's physical address.
    physical: u64,
}

const NO_CODE: CodeLine = CodeLine {
    entry: NONE,
    id: 0,
    physical: 0,
};

/// Where generated code finds what is in a line, in bytes.
pub mod layout {
    use super::{CODE_BITS, CodeLine, ENTRY_BITS, Line, Tables};
    use hw_memory::PAGE_BITS;
    use std::mem::offset_of;

    /// `va >> LINE_SHIFT & LINE_MASK` is the offset of a page's line in its table.
    pub const LINE_SHIFT: u32 = PAGE_BITS - 6;
    /// See [`LINE_SHIFT`].
    pub const LINE_MASK: u32 = ((1 << ENTRY_BITS) - 1) << 6;
    /// Tag of loads; the addend follows it. An address whose page is the tag, plus the addend, is
    /// the host's address.
    pub const READ: i32 = offset_of!(Line, entries) as i32;
    /// Tag of stores; the addend follows it.
    pub const WRITE: i32 = READ + 16;
    /// Pointer to the byte that is not zero if a store to the page must be announced.
    pub const FLAGS: i32 = offset_of!(Line, flags) as i32;
    /// `va >> CODE_SHIFT & CODE_MASK` is the distance of a page's line for fetches from that of the first.
    pub const CODE_SHIFT: u32 = PAGE_BITS - 5;
    /// See [`CODE_SHIFT`].
    pub const CODE_MASK: u32 = ((1 << CODE_BITS) - 1) << 5;
    /// Offset in a table, with the distance of a line: the identity of the virtual page fetched from
    /// together with the host page behind it, 32 bits.
    pub const EXEC_ID: i32 = (offset_of!(Tables, code) + offset_of!(CodeLine, id)) as i32;
    const _: () = assert!(size_of::<Line>() == 64 && size_of::<CodeLine>() == 32);
}

/// Which lines of a table are filled, and which of them with global pages.
struct Filled<const WORDS: usize> {
    /// A flush touches no others.
    any: [u64; WORDS],
    global: [u64; WORDS],
}

impl<const WORDS: usize> Filled<WORDS> {
    fn set(&mut self, i: usize, is_global: bool) {
        let bit = 1 << (i % 64);
        self.any[i / 64] |= bit;
        self.global[i / 64] = self.global[i / 64] & !bit | if is_global { bit } else { 0 };
    }

    fn clear(&mut self, i: usize) {
        self.any[i / 64] &= !(1 << (i % 64));
        self.global[i / 64] &= !(1 << (i % 64));
    }

    /// The next filled line from one on, but for global ones if they are to be kept.
    fn next(&self, from: usize, keep_global: bool) -> Option<usize> {
        let mut word = from / 64;
        let mut skip = u64::MAX << (from % 64);
        while word < WORDS {
            let kept = if keep_global { self.global[word] } else { 0 };
            let found = self.any[word] & !kept & skip;
            if found != 0 {
                return Some(word * 64 + found.trailing_zeros() as usize);
            }
            skip = u64::MAX;
            word += 1;
        }
        None
    }
}

/// Tables of one context.
#[repr(C)]
pub(crate) struct Tables {
    lines: [Line; ENTRIES],
    code: [CodeLine; CODES],
    filled: Filled<{ ENTRIES / 64 }>,
    filled_code: Filled<{ CODES / 64 }>,
}

// SAFETY: the raw pointers are into RAM blocks that the owning `Mmu` keeps alive through its map
// snapshot; they are only followed by the thread that owns the `Mmu`.
unsafe impl Send for Tables {}

/// What an entry leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Hit {
    /// Host address of the byte.
    Host(*mut u8),
    /// Physical address of the byte, on the slow path.
    Physical(u64),
}

#[inline(always)]
fn index(va: u64) -> usize {
    (va >> PAGE_BITS) as usize & (ENTRIES - 1)
}

#[inline(always)]
fn code_index(va: u64) -> usize {
    (va >> PAGE_BITS) as usize & (CODES - 1)
}

impl Tables {
    /// Empty tables. All zeros, which the host has without writing them: an entry of zeros matches nothing
    /// but what ends in page 0. That is looked for in the first line, and if it begins in the last page of all,
    /// in the last.
    pub(crate) fn new() -> Box<Self> {
        let layout = Layout::new::<Tables>();
        // SAFETY: the type has a size.
        let at = unsafe { alloc_zeroed(layout) }.cast::<Tables>();
        if at.is_null() {
            handle_alloc_error(layout);
        }
        // SAFETY: allocated just now with this layout; numbers and a null pointer may be zeros.
        let mut tables = unsafe { Box::from_raw(at) };
        tables.lines[0] = EMPTY_LINE;
        tables.lines[index(u64::MAX)] = EMPTY_LINE;
        tables.code[0] = NO_CODE;
        tables
    }

    #[inline(always)]
    fn entry(&self, kind: Kind, va: u64) -> Entry {
        match kind {
            Kind::Exec => self.code[code_index(va)].entry,
            Kind::Read | Kind::Write => self.lines[index(va)].entries[kind as usize],
        }
    }

    #[inline(always)]
    pub(crate) fn fast(&self, kind: Kind, va: u64) -> Option<*mut u8> {
        let entry = self.entry(kind, va);
        (entry.tag == va & PAGE).then(|| va.wrapping_add(entry.addend) as *mut u8)
    }

    #[inline(always)]
    pub(crate) fn page_flags(&self, va: u64) -> *const AtomicU8 {
        self.lines[index(va)].flags
    }

    /// Identity of the page that is fetched from at `va`; 0 if it is not cached RAM.
    #[inline(always)]
    pub(crate) fn exec_id(&self, va: u64) -> u32 {
        let line = &self.code[code_index(va)];
        if line.entry.tag == va & PAGE {
            line.id
        } else {
            0
        }
    }

    /// Physical address of the byte that is fetched at `va`, if it is cached RAM.
    pub(crate) fn fetched_from(&self, va: u64) -> Option<u64> {
        let line = &self.code[code_index(va)];
        (line.entry.tag == va & PAGE).then_some(line.physical | va & !PAGE)
    }

    pub(crate) fn hit(&self, kind: Kind, va: u64) -> Option<Hit> {
        let entry = self.entry(kind, va);
        let to = va.wrapping_add(entry.addend);
        if entry.tag == va & PAGE {
            Some(Hit::Host(to as *mut u8))
        } else if entry.tag == va & PAGE | SLOW {
            Some(Hit::Physical(to))
        } else {
            None
        }
    }

    /// Readies the line of data at `va` for that page. Whether it is: another page is only driven out if
    /// this one is wanted.
    fn take_line(&mut self, va: u64, is_wanted: bool, is_global: bool) -> bool {
        let i = index(va);
        if !self.lines[i].entries.iter().all(|entry| entry.is_of(va)) {
            if !is_wanted {
                return false;
            }
            self.lines[i] = EMPTY_LINE;
        }
        self.filled.set(i, is_global);
        true
    }

    /// As [`take_line`](Self::take_line), of code.
    fn take_code(&mut self, va: u64, is_wanted: bool, is_global: bool) -> bool {
        let i = code_index(va);
        if !is_wanted && !self.code[i].entry.is_of(va) {
            return false;
        }
        self.filled_code.set(i, is_global);
        true
    }

    fn clear(&mut self, i: usize) {
        self.lines[i] = EMPTY_LINE;
        self.filled.clear(i);
    }

    fn clear_code(&mut self, i: usize) {
        self.code[i] = NO_CODE;
        self.filled_code.clear(i);
    }

    /// Clears all that is filled, but for global pages if they are to be kept.
    fn clear_filled(&mut self, keep_global: bool) {
        let mut next = 0;
        while let Some(i) = self.filled.next(next, keep_global) {
            self.clear(i);
            next = i + 1;
        }
        next = 0;
        while let Some(i) = self.filled_code.next(next, keep_global) {
            self.clear_code(i);
            next = i + 1;
        }
    }

    /// Clears the pages of an aligned range of up to 2 to the [`MOST_LARGE_BITS`] bytes.
    fn clear_range(&mut self, base: u64, bits: u32) {
        let pages = 1usize << (bits.clamp(PAGE_BITS, MOST_LARGE_BITS) - PAGE_BITS);
        let is_in = |entry: &Entry| !entry.is_empty() && (entry.tag ^ base) >> bits == 0;
        let mut next = index(base);
        let end = next + pages;
        while let Some(i) = self.filled.next(next, false).filter(|i| *i < end) {
            if self.lines[i].entries.iter().any(is_in) {
                self.clear(i);
            }
            next = i + 1;
        }
        next = code_index(base);
        let end = next + pages;
        while let Some(i) = self.filled_code.next(next, false).filter(|i| *i < end) {
            if is_in(&self.code[i].entry) {
                self.clear_code(i);
            }
            next = i + 1;
        }
    }
}

/// Host side of a page to be cached.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Backing {
    pub(crate) host: *mut u8,
    pub(crate) writable: bool,
    pub(crate) flags: *const AtomicU8,
    /// By [`Kind`]: accesses take the slow path all the same.
    pub(crate) slow: [bool; 3],
}

/// Cached translations of one address space.
#[derive(Default)]
pub struct Bank {
    contexts: [Option<Box<Tables>>; CONTEXTS],
    /// Large pages that something is cached of, in order: address, and log2 of the size in the low bits.
    large: Vec<u64>,
    /// Sizes of them: the bits of their logarithms.
    large_sizes: u64,
    /// Whether anything was cached since the last full flush.
    used: bool,
}

/// A large page as a number.
fn large_page(va: u64, bits: u32) -> u64 {
    va & u64::MAX.checked_shl(bits).unwrap_or(0) | u64::from(bits & 0x3f)
}

impl Bank {
    #[inline(always)]
    pub(crate) fn tables(&self, ctx: u8) -> Option<&Tables> {
        self.contexts[usize::from(ctx) & (CONTEXTS - 1)].as_deref()
    }

    /// The address of a context's tables, for generated code; they never move while the bank lives.
    pub(crate) fn tables_ptr(&self, ctx: usize) -> Option<*const Tables> {
        self.contexts.get(ctx)?.as_deref().map(std::ptr::from_ref)
    }

    /// Caches a page for all accesses that `found` allows, and drives out others for those of the kind
    /// that was `wanted`.
    pub(crate) fn fill(
        &mut self,
        ctx: u8,
        (va, wanted): (u64, Kind),
        found: &Translation,
        backing: Option<Backing>,
        exec_id: u32,
    ) {
        if found.page_bits > PAGE_BITS {
            self.note_large(va, found.page_bits);
        }
        self.used = true;
        let tables =
            self.contexts[usize::from(ctx) & (CONTEXTS - 1)].get_or_insert_with(Tables::new);
        let is_code = wanted == Kind::Exec;
        let physical = found.physical & PAGE;
        let fast = |kind: Kind| backing.filter(|b| !b.slow[kind as usize]);
        let entry = |kind| match fast(kind) {
            Some(b) => Entry::new(va, b.host as u64, false),
            None => Entry::new(va, physical, true),
        };
        if found.allow.exec && tables.take_code(va, is_code, found.global) {
            tables.code[code_index(va)] = CodeLine {
                entry: entry(Kind::Exec),
                id: exec_id,
                physical,
            };
        }
        if !tables.take_line(va, !is_code, found.global) {
            return;
        }
        let line = &mut tables.lines[index(va)];
        if found.allow.read {
            line.entries[Kind::Read as usize] = entry(Kind::Read);
        }
        if found.allow.write {
            line.entries[Kind::Write as usize] = match fast(Kind::Write) {
                Some(b) if b.writable => {
                    line.flags = b.flags;
                    entry(Kind::Write)
                }
                _ => Entry::new(va, physical, true),
            };
        }
    }

    fn note_large(&mut self, va: u64, bits: u32) {
        let page = large_page(va, bits);
        if let Err(at) = self.large.binary_search(&page) {
            if self.large.len() >= MOST_LARGE {
                self.flush();
                return self.note_large(va, bits);
            }
            self.large.insert(at, page);
            self.large_sizes |= 1u64.wrapping_shl(bits);
        }
    }

    /// Forgets everything.
    pub fn flush(&mut self) {
        if !std::mem::take(&mut self.used) {
            return;
        }
        self.large.clear();
        self.large_sizes = 0;
        for tables in self.contexts.iter_mut().flatten() {
            tables.clear_filled(false);
        }
    }

    /// Forgets all but global pages.
    pub fn flush_non_global(&mut self) {
        if !self.used {
            return;
        }
        for tables in self.contexts.iter_mut().flatten() {
            tables.clear_filled(true);
        }
    }

    /// Forgets the page at `va`; if it is part of a large one, all of that.
    pub fn flush_page(&mut self, va: u64) {
        if !self.used {
            return;
        }
        let mut sizes = self.large_sizes;
        while sizes != 0 {
            let bits = sizes.trailing_zeros();
            sizes &= sizes - 1;
            let Ok(at) = self.large.binary_search(&large_page(va, bits)) else {
                continue;
            };
            if bits > MOST_LARGE_BITS {
                return self.flush();
            }
            self.large.remove(at);
            for tables in self.contexts.iter_mut().flatten() {
                tables.clear_range(large_page(va, bits) & PAGE, bits);
            }
        }
        for tables in self.contexts.iter_mut().flatten() {
            let i = index(va);
            if tables.lines[i].entries.iter().any(|entry| entry.holds(va)) {
                tables.clear(i);
            }
            let i = code_index(va);
            if tables.code[i].entry.holds(va) {
                tables.clear_code(i);
            }
        }
    }
}
