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

/// Tables of one context.
pub(crate) struct Tables {
    entries: [[Entry; ENTRIES]; 3],
    /// Flag byte of the page behind each write entry.
    flags: [*const AtomicU8; ENTRIES],
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
    fn new() -> Box<Self> {
        Box::new(Tables {
            entries: [[NONE; ENTRIES]; 3],
            flags: [std::ptr::null(); ENTRIES],
            global: [0; ENTRIES / 64],
            filled: [0; ENTRIES / 64],
        })
    }

    #[inline(always)]
    pub(crate) fn fast(&self, kind: Kind, va: u64) -> Option<*mut u8> {
        let entry = &self.entries[kind as usize][index(va)];
        (entry.tag == va & PAGE).then(|| va.wrapping_add(entry.addend) as *mut u8)
    }

    #[inline(always)]
    pub(crate) fn page_flags(&self, va: u64) -> *const AtomicU8 {
        self.flags[index(va)]
    }

    pub(crate) fn hit(&self, kind: Kind, va: u64) -> Option<Hit> {
        let entry = &self.entries[kind as usize][index(va)];
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
        self.entries[kind as usize][index(va)] = Entry {
            tag,
            addend: (to & PAGE).wrapping_sub(va & PAGE),
        };
    }

    fn clear(&mut self, i: usize) {
        for table in &mut self.entries {
            table[i] = NONE;
        }
        self.flags[i] = std::ptr::null();
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

    pub(crate) fn fill(&mut self, ctx: u8, va: u64, found: &Translation, backing: Option<Backing>) {
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
        if !tables.entries.iter().all(|table| same(&table[i])) {
            tables.clear(i);
        }
        let bit = 1 << (i % 64);
        tables.filled[i / 64] |= bit;
        tables.global[i / 64] = tables.global[i / 64] & !bit | if found.global { bit } else { 0 };
        let physical = found.physical & PAGE;
        let (to, slow) = backing.map_or((physical, true), |b| (b.host as u64, false));
        if found.allow.read {
            tables.set(Kind::Read, va, to, slow);
        }
        if found.allow.exec {
            tables.set(Kind::Exec, va, to, slow);
        }
        if found.allow.write {
            match backing {
                Some(b) if b.writable => {
                    tables.set(Kind::Write, va, to, false);
                    tables.flags[i] = b.flags;
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
            if tables
                .entries
                .iter()
                .any(|table| table[i].tag & PAGE == va & PAGE)
            {
                tables.clear(i);
            }
        }
    }
}
