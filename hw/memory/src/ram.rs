//! Host memory behind guest RAM, ROM and video RAM, with per-page bookkeeping.
//!
//! Pages carry flags that writers look at *after* their store ([`RamBlock::after_write`]): whether
//! translated code was read from the page, whether its dirtiness is logged, whether a debugger
//! watches it. Whoever raises a flag issues a heavy fence before reading
//! the page, so that a racing store is either seen by that read or sees the flag itself.

use std::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering, fence};
use std::sync::{Mutex, PoisonError, Weak};

use vm_memory::MmapRegion;
use zerocopy::FromZeros;

/// log2 of the page size of the bookkeeping.
pub const PAGE_BITS: u32 = 12;
/// Page size of the bookkeeping, in bytes.
pub const PAGE_SIZE: u64 = 1 << PAGE_BITS;
/// Offset bits within a page.
const PAGE_MASK: u64 = PAGE_SIZE - 1;
/// log2 of a code granule: 64 of them in a page.
const GRANULE_BITS: u32 = 6;

/// Per-page flags.
pub mod page_flag {
    /// Translated code was read from this page.
    pub const CODE: u8 = 1;
    /// The next write must be recorded in the dirty bitmap.
    pub const CLEAN: u8 = 2;
    /// A watchpoint lies in this page.
    pub const WATCH: u8 = 4;
}

/// Why host memory could not be had.
#[derive(Debug, thiserror::Error)]
pub enum RamError {
    /// The host refused the mapping.
    #[error("cannot map {size} bytes for '{name}'")]
    Map {
        /// Block name.
        name: String,
        /// Bytes asked for.
        size: u64,
        /// The host's reason.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// Size zero, unaligned, or more than the address space.
    #[error("a memory block of {0} bytes is not possible")]
    Size(u64),
}

/// Told that code translated from a page became stale, by whoever overwrote it, right after the store.
pub trait CodeWatcher: Send + Sync {
    /// `page` is the host address of the page, `granules` has a bit for each of its 64-byte granules
    /// that is concerned. Must neither block nor touch guest memory.
    fn stale(&self, page: u64, granules: u64);
}

/// One block of host memory: page-aligned, the process's own, or backed by a memfd or a file of the
/// user's.
pub struct RamBlock {
    name: String,
    region: MmapRegion,
    len: u64,
    flags: Box<[AtomicU8]>,
    code: Box<[AtomicU64]>,
    versions: Box<[AtomicU32]>,
    dirty: Box<[AtomicU64]>,
    watchers: Mutex<Vec<Weak<dyn CodeWatcher>>>,
}

impl std::fmt::Debug for RamBlock {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "RamBlock({}, {:#x})", self.name, self.len)
    }
}

fn zeroed<T: FromZeros>(len: usize) -> Box<[T]> {
    <[T]>::new_box_zeroed_with_elems(len).unwrap_or_else(|_| std::process::abort())
}

impl RamBlock {
    /// Maps `len` bytes, a multiple of the page size. Host memory is only used once touched.
    pub fn new(name: impl Into<String>, len: u64) -> Result<Self, RamError> {
        let name = name.into();
        check_size(len)?;
        let file = memfd(&name, len).map_err(|e| map_error(&name, len, e.into()))?;
        Self::from_file(name, len, file, true)
    }

    /// Maps the first `len` bytes, a multiple of the page size, of a file that has them. What is
    /// written reaches the file if `is_shared`, and else only the block.
    pub fn from_file(
        name: impl Into<String>,
        len: u64,
        file: std::fs::File,
        is_shared: bool,
    ) -> Result<Self, RamError> {
        let name = name.into();
        let size = check_size(len)?;
        let has = file
            .metadata()
            .map_err(|e| map_error(&name, len, e.into()))?;
        if has.len() < len {
            // A page without file behind it would end the process at its first use.
            return Err(map_error(&name, len, "the file is shorter".into()));
        }
        let sharing = match is_shared {
            true => libc::MAP_SHARED,
            false => libc::MAP_PRIVATE,
        };
        let region = MmapRegion::build(
            Some(vm_memory::FileOffset::new(file, 0)),
            size,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_NORESERVE | sharing,
        )
        .map_err(|e| map_error(&name, len, e.into()))?;
        Self::of(name, len, region)
    }

    /// Maps `len` bytes, a multiple of the page size, of which no other process ever sees anything:
    /// the only kind of memory that hosts merge, and give huge pages to without being told.
    pub fn private(name: impl Into<String>, len: u64) -> Result<Self, RamError> {
        let name = name.into();
        let region = MmapRegion::build(
            None,
            check_size(len)?,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_NORESERVE | libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
        )
        .map_err(|e| map_error(&name, len, e.into()))?;
        Self::of(name, len, region)
    }

    fn of(name: String, len: u64, region: MmapRegion) -> Result<Self, RamError> {
        let pages = usize::try_from(len >> PAGE_BITS).map_err(|_| RamError::Size(len))?;
        Ok(RamBlock {
            name,
            region,
            len,
            flags: zeroed(pages),
            code: zeroed(pages),
            versions: zeroed(pages),
            dirty: zeroed(pages.div_ceil(64)),
            watchers: Mutex::default(),
        })
    }

    /// The block's name, as in `info mtree`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Bytes.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Never: a block has at least a page.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Start of the mapping, for KVM slots and the engine's translation banks. Valid while the
    /// block lives.
    pub fn host_ptr(&self) -> *mut u8 {
        self.region.as_ptr()
    }

    /// The file behind it, for sharing with other processes; `None` if the block keeps its writes
    /// to itself.
    pub fn file(&self) -> Option<&std::fs::File> {
        let shared = self.region.flags() & libc::MAP_SHARED != 0;
        self.region
            .file_offset()
            .filter(|_| shared)
            .map(|f| f.file())
    }

    fn check(&self, offset: u64, len: usize) -> Option<*mut u8> {
        let end = offset.checked_add(u64::try_from(len).ok()?)?;
        if end > self.len {
            return None;
        }
        // SAFETY: `offset` is within the mapping, which is `len` bytes long.
        Some(unsafe { self.region.as_ptr().add(usize::try_from(offset).ok()?) })
    }

    /// Copies out. `None` when the range leaves the block.
    pub fn read(&self, offset: u64, out: &mut [u8]) -> Option<()> {
        let from = self.check(offset, out.len())?;
        // SAFETY: `check` proved the range lies in the mapping; `out` is ours alone. Racing guest
        // stores can tear the bytes, which is what real DMA does too.
        unsafe { std::ptr::copy_nonoverlapping(from, out.as_mut_ptr(), out.len()) };
        Some(())
    }

    /// Copies in and marks the pages written. `None` when the range leaves the block.
    pub fn write(&self, offset: u64, data: &[u8]) -> Option<()> {
        let to = self.check(offset, data.len())?;
        // SAFETY: as in `read`.
        unsafe { std::ptr::copy_nonoverlapping(data.as_ptr(), to, data.len()) };
        self.mark_written(offset, u64::try_from(data.len()).ok()?);
        Some(())
    }

    /// Fills a range with one byte and marks it written.
    pub fn fill(&self, offset: u64, len: u64, byte: u8) -> Option<()> {
        let count = usize::try_from(len).ok()?;
        let to = self.check(offset, count)?;
        // SAFETY: as in `read`.
        unsafe { std::ptr::write_bytes(to, byte, count) };
        self.mark_written(offset, len);
        Some(())
    }

    /// Reads a little-endian value of 1, 2, 4 or 8 bytes in one host access where aligned.
    #[inline]
    pub fn load(&self, offset: u64, size: u8) -> Option<u64> {
        let at = self.check(offset, usize::from(size))?;
        if offset.is_multiple_of(u64::from(size.max(1))) {
            // SAFETY: in range by `check`, aligned by the test above and the page-aligned mapping;
            // all concurrent accesses to guest memory are atomics of their own or byte copies.
            return Some(unsafe {
                match size {
                    1 => u64::from((*at.cast::<AtomicU8>()).load(Ordering::Relaxed)),
                    2 => u64::from(u16::from_le(
                        (*at.cast::<std::sync::atomic::AtomicU16>()).load(Ordering::Relaxed),
                    )),
                    4 => u64::from(u32::from_le(
                        (*at.cast::<AtomicU32>()).load(Ordering::Relaxed),
                    )),
                    8 => u64::from_le((*at.cast::<AtomicU64>()).load(Ordering::Relaxed)),
                    _ => return None,
                }
            });
        }
        let mut bytes = [0; 8];
        self.read(offset, bytes.get_mut(..usize::from(size))?)?;
        Some(u64::from_le_bytes(bytes))
    }

    /// Writes a little-endian value of 1, 2, 4 or 8 bytes, in one host access where aligned, and
    /// marks it written.
    #[inline]
    pub fn store(&self, offset: u64, size: u8, value: u64) -> Option<()> {
        let at = self.check(offset, usize::from(size))?;
        if offset.is_multiple_of(u64::from(size.max(1))) {
            // SAFETY: as in `load`.
            unsafe {
                match size {
                    1 => (*at.cast::<AtomicU8>()).store(value as u8, Ordering::Relaxed),
                    2 => (*at.cast::<std::sync::atomic::AtomicU16>())
                        .store((value as u16).to_le(), Ordering::Relaxed),
                    4 => (*at.cast::<AtomicU32>()).store((value as u32).to_le(), Ordering::Relaxed),
                    8 => (*at.cast::<AtomicU64>()).store(value.to_le(), Ordering::Relaxed),
                    _ => return None,
                }
            }
            self.mark_written(offset, u64::from(size));
            return Some(());
        }
        self.write(offset, value.to_le_bytes().get(..usize::from(size))?)
    }

    /// The flag byte of the page at `offset`, which writers look at after a store.
    pub fn flags_at(&self, offset: u64) -> Option<&AtomicU8> {
        self.flags.get(usize::try_from(offset >> PAGE_BITS).ok()?)
    }

    /// Number that changes whenever code translated from the page at `offset` became stale.
    pub fn code_version(&self, offset: u64) -> Option<&AtomicU32> {
        self.versions
            .get(usize::try_from(offset >> PAGE_BITS).ok()?)
    }

    /// Announces that code will be read from `offset..offset + len` (within one page) for
    /// translation. Read [`code_version`](Self::code_version) first, call this, then read the bytes:
    /// the version moves with every later store to these granules. Other CPUs store without fences,
    /// which a translator that is `sole` need not think of.
    pub fn track_code(&self, offset: u64, len: u64, sole: bool) {
        let Ok(page) = usize::try_from(offset >> PAGE_BITS) else {
            return;
        };
        let (Some(code), Some(flags)) = (self.code.get(page), self.flags.get(page)) else {
            return;
        };
        let wanted = granules(offset, len);
        let old_code = code.fetch_or(wanted, Ordering::SeqCst);
        let old_flags = flags.fetch_or(page_flag::CODE, Ordering::SeqCst);
        let is_news = old_flags & page_flag::CODE == 0 || old_code & wanted != wanted;
        if is_news && !sole {
            heavy_fence();
        }
    }

    /// Has `watcher` told of all code of this block that becomes stale, while it lives.
    pub fn watch_code(&self, watcher: Weak<dyn CodeWatcher>) {
        let mut watchers = self.watchers.lock().unwrap_or_else(PoisonError::into_inner);
        watchers.retain(|w| w.strong_count() != 0);
        watchers.push(watcher);
    }

    /// Starts (or restarts) dirty logging of the whole block: pages become clean.
    pub fn log_dirty(&self) {
        for flags in &self.flags {
            flags.fetch_or(page_flag::CLEAN, Ordering::SeqCst);
        }
        for word in &self.dirty {
            word.store(0, Ordering::SeqCst);
        }
        heavy_fence();
    }

    /// Takes the dirty bitmap, one bit a page, and makes those pages clean again.
    pub fn take_dirty(&self) -> Vec<u64> {
        let words: Vec<u64> = self
            .dirty
            .iter()
            .map(|w| w.swap(0, Ordering::SeqCst))
            .collect();
        for (flags, page) in self.flags.iter().zip(0u64..) {
            let word = words.get(usize::try_from(page >> 6).unwrap_or(usize::MAX));
            if word.is_some_and(|w| (w >> (page & 63)) & 1 != 0) {
                flags.fetch_or(page_flag::CLEAN, Ordering::SeqCst);
            }
        }
        heavy_fence();
        words
    }

    /// The last step of every writer but generated code: acts on the flags of the pages written.
    /// Returns whether translated code was overwritten.
    #[inline]
    pub fn mark_written(&self, offset: u64, len: u64) -> bool {
        let first = offset >> PAGE_BITS;
        let last = offset.saturating_add(len.saturating_sub(1)) >> PAGE_BITS;
        let mut hit = false;
        fence(Ordering::SeqCst);
        for page in first..=last {
            let Some(flags) = usize::try_from(page).ok().and_then(|p| self.flags.get(p)) else {
                break;
            };
            if flags.load(Ordering::Relaxed) != 0 {
                let start = offset.max(page << PAGE_BITS);
                let page_end = page.saturating_add(1) << PAGE_BITS;
                let end = offset.saturating_add(len).min(page_end);
                hit |= self.after_write(start, end.saturating_sub(start));
            }
        }
        hit
    }

    /// Acts on the flags of one page after a store of `len` bytes at `offset` in it. Returns whether
    /// translated code was overwritten.
    #[cold]
    pub fn after_write(&self, offset: u64, len: u64) -> bool {
        let Ok(page) = usize::try_from(offset >> PAGE_BITS) else {
            return false;
        };
        let (Some(flags), Some(code), Some(version)) = (
            self.flags.get(page),
            self.code.get(page),
            self.versions.get(page),
        ) else {
            return false;
        };
        let seen = flags.load(Ordering::SeqCst);
        if seen & page_flag::CLEAN != 0 {
            flags.fetch_and(!page_flag::CLEAN, Ordering::SeqCst);
            if let Some(word) = self.dirty.get(page >> 6) {
                word.fetch_or(1u64.wrapping_shl(page as u32 & 63), Ordering::SeqCst);
            }
        }
        let hit = granules(offset, len);
        if seen & page_flag::CODE == 0 || code.load(Ordering::SeqCst) & hit == 0 {
            return false;
        }
        // Whoever translates these granules again announces itself anew. The version moves last: a
        // translator that read it before is stale, one that reads it later raises its flags after
        // they were lowered here. If no code is left the page's flag is lowered too; somebody may just
        // then announce more, so that everything of the page counts as hit.
        let mut stale = hit;
        if code.fetch_and(!hit, Ordering::SeqCst) & !hit == 0 {
            flags.fetch_and(!page_flag::CODE, Ordering::SeqCst);
            code.store(0, Ordering::SeqCst);
            stale = u64::MAX;
        }
        version.fetch_add(1, Ordering::SeqCst);
        let at = (self.host_ptr() as u64).wrapping_add(offset & !PAGE_MASK);
        let watchers = self.watchers.lock().unwrap_or_else(PoisonError::into_inner);
        for watcher in watchers.iter().filter_map(Weak::upgrade) {
            watcher.stale(at, stale);
        }
        true
    }
}

/// Bits of the 64-byte granules that `offset..offset + len` touches in the page of `offset`.
pub fn granules(offset: u64, len: u64) -> u64 {
    let start = offset & PAGE_MASK;
    let end = start
        .saturating_add(len.max(1).wrapping_sub(1))
        .min(PAGE_MASK);
    let (first, last) = (start >> GRANULE_BITS, end >> GRANULE_BITS);
    let above = u64::MAX.wrapping_shl(first as u32);
    let below = u64::MAX.wrapping_shr(63u32.wrapping_sub(last as u32));
    above & below
}

/// A full fence in every running thread of the process, paid by the caller alone: writers need no
/// fence between their store and their look at the flags.
pub(crate) fn heavy_fence() {
    const MEMBARRIER_CMD_PRIVATE_EXPEDITED: libc::c_int = 1 << 3;
    const MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED: libc::c_int = 1 << 4;
    fence(Ordering::SeqCst);
    let call = |command: libc::c_int| {
        // SAFETY: membarrier takes no pointers and only orders memory.
        unsafe { libc::syscall(libc::SYS_membarrier, command, 0, 0) }
    };
    if call(MEMBARRIER_CMD_PRIVATE_EXPEDITED) != 0 {
        // Not registered yet in this process (EPERM): register once and repeat.
        call(MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED);
        call(MEMBARRIER_CMD_PRIVATE_EXPEDITED);
    }
}

/// The size for the host, if a block can have it.
fn check_size(len: u64) -> Result<usize, RamError> {
    if len == 0 || !len.is_multiple_of(PAGE_SIZE) || len > 1 << 46 {
        return Err(RamError::Size(len));
    }
    usize::try_from(len).map_err(|_| RamError::Size(len))
}

fn map_error(name: &str, size: u64, source: Box<dyn std::error::Error + Send + Sync>) -> RamError {
    RamError::Map {
        name: name.to_owned(),
        size,
        source,
    }
}

fn memfd(name: &str, len: u64) -> std::io::Result<std::fs::File> {
    use std::os::fd::FromRawFd;
    let name = std::ffi::CString::new(name.replace('\0', "")).unwrap_or_default();
    // SAFETY: `name` is a valid C string for the duration of the call.
    let fd = unsafe { libc::memfd_create(name.as_ptr(), libc::MFD_CLOEXEC) };
    if fd < 0 {
        return Err(std::io::Error::last_os_error());
    }
    // SAFETY: `fd` was just created and is owned by nobody else.
    let file = unsafe { std::fs::File::from_raw_fd(fd) };
    file.set_len(len)?;
    Ok(file)
}
