//! One address space's cached translations.

use std::sync::atomic::AtomicU8;

use hw_memory::PAGE_BITS;

/// Translation contexts of a bank. Targets number them (user, kernel, kernel with user access).
pub const CONTEXTS: usize = 4;

const ENTRY_BITS: u32 = 12;
const ENTRIES: usize = 1 << ENTRY_BITS;

/// Tag of an entry that matches nothing: no page has its low bits all set.
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

/// All that is cached of one page, in one line of the host's cache. Generated code reads it too: see
/// [`crate::layout`].
#[derive(Clone, Copy)]
#[repr(C, align(64))]
pub(crate) struct Line {
    /// By [`Kind`]. All that are not empty are of one page.
    entries: [Entry; 3],
    /// Flag byte of the page behind the write entry.
    flags: *const AtomicU8,
    /// Identity of the exec entry's virtual and host page; 0 if it is not plain RAM.
    exec_id: u32,
}

const EMPTY_LINE: Line = Line {
    entries: [NONE; 3],
    flags: std::ptr::null(),
    exec_id: 0,
};

/// Where generated code finds what is in a line, in bytes.
pub mod layout {
    use super::{ENTRY_BITS, Line};
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
    /// Identity of the virtual page fetched from together with the host page behind it: 32 bits.
    pub const EXEC_ID: i32 = offset_of!(Line, exec_id) as i32;
}

/// Tables of one context.
pub(crate) struct Tables {
    lines: [Line; ENTRIES],
    global: [u64; ENTRIES / 64],
    /// Indices that hold anything: a flush touches no others.
    filled: [u64; ENTRIES / 64],
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

impl Tables {
    pub(crate) fn new() -> Box<Self> {
        let mut tables = Box::<Tables>::new_uninit();
        let at = tables.as_mut_ptr();
        // SAFETY: each field is written through the pointer before the box counts as initialized.
        // In place, as a value on the stack would be copied.
        unsafe {
            for i in 0..ENTRIES {
                (&raw mut (*at).lines[i]).write(EMPTY_LINE);
            }
            (&raw mut (*at).global).write([0; ENTRIES / 64]);
            (&raw mut (*at).filled).write([0; ENTRIES / 64]);
            tables.assume_init()
        }
    }

    #[inline(always)]
    pub(crate) fn fast(&self, kind: Kind, va: u64) -> Option<*mut u8> {
        let entry = &self.lines[index(va)].entries[kind as usize];
        (entry.tag == va & PAGE).then(|| va.wrapping_add(entry.addend) as *mut u8)
    }

    #[inline(always)]
    pub(crate) fn page_flags(&self, va: u64) -> *const AtomicU8 {
        self.lines[index(va)].flags
    }

    /// Identity of the page that is fetched from at `va`; 0 if it is not cached RAM.
    #[inline(always)]
    pub(crate) fn exec_id(&self, va: u64) -> u32 {
        let line = &self.lines[index(va)];
        if line.entries[Kind::Exec as usize].tag == va & PAGE {
            line.exec_id
        } else {
            0
        }
    }

    pub(crate) fn hit(&self, kind: Kind, va: u64) -> Option<Hit> {
        let entry = &self.lines[index(va)].entries[kind as usize];
        let to = va.wrapping_add(entry.addend);
        if entry.tag == va & PAGE {
            Some(Hit::Host(to as *mut u8))
        } else if entry.tag == va & PAGE | SLOW {
            Some(Hit::Physical(to))
        } else {
            None
        }
    }

    fn set(&mut self, kind: Kind, va: u64, to: u64, slow: bool) {
        let tag = va & PAGE | if slow { SLOW } else { 0 };
        self.lines[index(va)].entries[kind as usize] = Entry {
            tag,
            addend: (to & PAGE).wrapping_sub(va & PAGE),
        };
    }

    fn clear(&mut self, i: usize) {
        self.lines[i] = EMPTY_LINE;
        self.global[i / 64] &= !(1 << (i % 64));
        self.filled[i / 64] &= !(1 << (i % 64));
    }

    /// Clears all that is filled, but for global pages if they are to be kept.
    fn clear_filled(&mut self, keep_global: bool) {
        for word in 0..ENTRIES / 64 {
            let kept = if keep_global { self.global[word] } else { 0 };
            let mut gone = self.filled[word] & !kept;
            while gone != 0 {
                self.clear(word * 64 + gone.trailing_zeros() as usize);
                gone &= gone - 1;
            }
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
    /// Smallest aligned range that holds all large pages cached: base and mask.
    large: Option<(u64, u64)>,
    /// Whether anything was cached since the last full flush.
    used: bool,
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

    pub(crate) fn fill(
        &mut self,
        ctx: u8,
        va: u64,
        found: &Translation,
        backing: Option<Backing>,
        exec_id: u32,
    ) {
        if found.page_bits > PAGE_BITS {
            let mask = u64::MAX.checked_shl(found.page_bits).unwrap_or(0);
            let (base, mut all) = self.large.unwrap_or((va & mask, mask));
            all &= mask;
            while (base ^ va) & all != 0 {
                all <<= 1;
            }
            self.large = Some((base & all, all));
        }
        self.used = true;
        let tables =
            self.contexts[usize::from(ctx) & (CONTEXTS - 1)].get_or_insert_with(Tables::new);
        let i = index(va);
        // The three tables of an index share the global bit, so they hold one page.
        let page = va & PAGE;
        let same = |entry: &Entry| entry.tag == EMPTY || entry.tag & PAGE == page;
        if !tables.lines[i].entries.iter().all(same) {
            tables.clear(i);
        }
        let bit = 1 << (i % 64);
        tables.filled[i / 64] |= bit;
        tables.global[i / 64] = tables.global[i / 64] & !bit | if found.global { bit } else { 0 };
        let physical = found.physical & PAGE;
        let fast = |kind: Kind| backing.filter(|b| !b.slow[kind as usize]);
        let place = |kind| fast(kind).map_or((physical, true), |b| (b.host as u64, false));
        if found.allow.read {
            let (to, slow) = place(Kind::Read);
            tables.set(Kind::Read, va, to, slow);
        }
        if found.allow.exec {
            let (to, slow) = place(Kind::Exec);
            tables.set(Kind::Exec, va, to, slow);
            tables.lines[i].exec_id = exec_id;
        }
        if found.allow.write {
            match fast(Kind::Write) {
                Some(b) if b.writable => {
                    tables.set(Kind::Write, va, b.host as u64, false);
                    tables.lines[i].flags = b.flags;
                }
                _ => tables.set(Kind::Write, va, physical, true),
            }
        }
    }

    /// Forgets everything.
    pub fn flush(&mut self) {
        if !std::mem::take(&mut self.used) {
            return;
        }
        self.large = None;
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

    /// Forgets the page at `va`; the whole bank if it may be part of a large page.
    pub fn flush_page(&mut self, va: u64) {
        if let Some((base, mask)) = self.large
            && va & mask == base
        {
            self.flush();
            return;
        }
        for tables in self.contexts.iter_mut().flatten() {
            let i = index(va);
            let holds = |entry: &Entry| entry.tag != EMPTY && entry.tag & PAGE == va & PAGE;
            if tables.lines[i].entries.iter().any(holds) {
                tables.clear(i);
            }
        }
    }
}
