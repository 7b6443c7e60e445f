//! `file` and `host_device`: regular files and block devices of the host.
//!
//! Reads and writes go straight between the file and the memory of the request. The file is locked
//! byte by byte like QEMU does it, so that neither program writes to an image that the other one uses.
#![allow(unsafe_code)]
#![deny(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects
)]
#![cfg_attr(
    test,
    allow(
        clippy::unwrap_used,
        clippy::indexing_slicing,
        clippy::arithmetic_side_effects
    )
)]

mod io;
mod lock;
#[cfg(any(
    target_arch = "x86_64",
    target_arch = "aarch64",
    target_arch = "riscv64",
    target_arch = "loongarch64",
    target_arch = "powerpc64"
))]
mod ring;
#[cfg(not(any(
    target_arch = "x86_64",
    target_arch = "aarch64",
    target_arch = "riscv64",
    target_arch = "loongarch64",
    target_arch = "powerpc64"
)))]
#[path = "no_ring.rs"]
mod ring;
mod source;
#[cfg(test)]
mod tests;

use std::fs::File;
use std::ops::Deref;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};

use backend_block::{
    BlockError, Driver, DriverClass, DriverKind, Extent, IoVector, NodeOptions, OpenError, Opening,
    Preallocation, Transfer,
};
use control_options::{PropDef, PropKind};
use rustix::fs::{FallocateFlags, SeekFrom, fallocate, seek};
use rustix::io::Errno;

use io::failed;
use ring::{Ring, What};
use source::Source;
pub use source::{create, create_in};

/// Bytes of zeros written at a time where the host cannot make them itself.
const CHUNK: u64 = 1 << 20;

const PROPS: &[PropDef] = &[
    PropDef::new("filename", PropKind::Str, "the file").required(),
    PropDef::new(
        "aio",
        PropKind::Enum(&["threads", "native", "io_uring"]),
        "how requests are made",
    )
    .or("threads"),
    PropDef::new(
        "locking",
        PropKind::Enum(&["auto", "on", "off"]),
        "keep other processes from using the image",
    )
    .or("auto"),
];

/// Regular files.
pub static FILE: DriverClass = DriverClass {
    name: "file",
    doc: "a file of the host",
    kind: DriverKind::Protocol,
    props: PROPS,
    children: &[],
    changes: &[],
    probe: None,
    open: |opening| open(opening, false),
    create: None,
};

/// Block devices.
pub static HOST_DEVICE: DriverClass = DriverClass {
    name: "host_device",
    doc: "a disk of the host",
    kind: DriverKind::Protocol,
    props: PROPS,
    children: &[],
    changes: &[],
    probe: None,
    open: |opening| open(opening, true),
    create: None,
};

/// A file of the host, and its locks: they end here, not with whatever else the kernel has it open for,
/// as for a request of io_uring that it has told the end of.
struct Open(File);

impl Deref for Open {
    type Target = File;

    fn deref(&self) -> &File {
        &self.0
    }
}

impl AsFd for Open {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        lock::release(self);
    }
}

/// What the host knows an open file by.
struct Handles {
    buffered: Arc<Open>,
    /// Past the page cache, for requests that are aligned for it.
    direct: Option<Arc<Open>>,
    /// How they are open.
    read_only: bool,
}

/// An open file.
struct HostFile {
    name: String,
    source: Source,
    handles: RwLock<Handles>,
    no_flush: AtomicBool,
    /// Whether it is locked, and then whether others may write.
    locking: Option<bool>,
    is_device: bool,
    /// The kernel says what of the file it has in its cache.
    tells_cached: AtomicBool,
    len: Arc<AtomicU64>,
    /// `aio=io_uring`
    ring: Option<Ring>,
}

fn open(opening: &mut Opening<'_>, is_device: bool) -> Result<Box<dyn Driver>, OpenError> {
    let file = opening
        .props
        .text("filename")
        .unwrap_or_default()
        .to_owned();
    opening.file.clone_from(&file);
    let aio = opening.props.text("aio").unwrap_or_default();
    let ring = match aio {
        "native" => {
            let why = "aio=native is not available; use aio=io_uring, or aio=threads";
            return Err(OpenError::image(&file, why));
        }
        "io_uring" => Some(Ring::new(&file).map_err(|error| {
            let why = format!(
                "aio=io_uring: the kernel refuses it ({error}); use aio=threads, or see the sysctl \
                 kernel.io_uring_disabled"
            );
            OpenError::image(&file, why)
        })?),
        _ => None,
    };
    let source = Source::of(&file, opening.fds());
    let host = |source| OpenError::Host {
        file: file.clone(),
        source,
    };
    let mut read_only = opening.options.read_only;
    let open = |read_only| match source.open(read_only, 0) {
        Err(error) if !read_only && opening.options.auto_read_only && is_refused(&error) => {
            source.open(true, 0).map(|file| (file, true))
        }
        opened => opened.map(|file| (file, read_only)),
    };
    // Looked at before it is opened: opening a FIFO would wait for its other end. What others opened is open.
    let (kind, opened) = match &source {
        Source::Path(path) => (std::fs::metadata(path).map_err(host)?.file_type(), None),
        Source::Set(..) => {
            let opened = open(read_only).map_err(host)?;
            (opened.0.metadata().map_err(host)?.file_type(), Some(opened))
        }
    };
    let fits = kind.is_block_device() || (!is_device && kind.is_file());
    if !fits {
        let problem = match is_device {
            true => "it is no block device; use driver 'file'",
            false => "it is neither a regular file nor a block device",
        };
        return Err(OpenError::image(&file, problem));
    }
    let opened = opened.map_or_else(|| open(read_only), Ok);
    let (buffered, is_read_only) = opened.map_err(host)?;
    read_only = is_read_only;
    let buffered = Arc::new(Open(buffered));
    opening.options.read_only = read_only;
    let force_share = opening.options.force_share;
    let locking = opening.props.text("locking") != Some("off");
    if locking && !(force_share && read_only) {
        lock::take(&buffered, read_only, force_share).map_err(|c| locked(&file, c))?;
    }
    let direct = match opening.options.direct {
        true => Some(Open(source.open(read_only, libc::O_DIRECT).map_err(host)?)),
        false => None,
    };
    let direct = direct.map(Arc::new);
    let len = seek(&buffered, SeekFrom::End(0)).map_err(|e| host(e.into()))?;
    Ok(Box::new(HostFile {
        name: file,
        source,
        handles: RwLock::new(Handles {
            buffered,
            direct,
            read_only,
        }),
        no_flush: AtomicBool::new(opening.options.no_flush),
        locking: locking.then_some(force_share),
        is_device: kind.is_block_device(),
        tells_cached: AtomicBool::new(true),
        len: Arc::new(AtomicU64::new(len)),
        ring,
    }))
}

fn locked(file: &str, conflict: lock::Conflict) -> OpenError {
    OpenError::Locked {
        file: file.to_owned(),
        lock: conflict.lock,
        holder: conflict.holder,
    }
}

fn is_refused(error: &std::io::Error) -> bool {
    matches!(
        error.kind(),
        std::io::ErrorKind::PermissionDenied | std::io::ErrorKind::ReadOnlyFilesystem
    )
}

/// Whether the host cannot do it, rather than having failed.
fn is_unable(error: Errno) -> bool {
    matches!(
        error,
        Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL | Errno::NODEV
    )
}

impl HostFile {
    fn handles(&self) -> RwLockReadGuard<'_, Handles> {
        self.handles.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// The ring, and the file that such a request goes to, if it is one that the kernel takes as it is.
    fn by_ring<'a>(
        &'a self,
        handles: &'a Handles,
        offset: u64,
        memory: &IoVector,
    ) -> Option<(&'a Arc<Open>, &'a Ring)> {
        let ring = self.ring.as_ref()?;
        let file = match &handles.direct {
            Some(direct) if io::is_direct(offset, memory.len()) => memory
                .is_aligned(backend_block::BUFFER_ALIGN)
                .then_some(direct)?,
            _ => &handles.buffered,
        };
        Some((file, ring))
    }

    fn allocate(&self, flags: FallocateFlags, offset: u64, len: u64) -> Result<(), Errno> {
        fallocate(&self.handles().buffered, flags, offset, len)
    }

    /// The file reaches at least to here.
    fn reach(&self, end: u64) -> Result<(), BlockError> {
        if self.len.load(Ordering::Acquire) >= end {
            return Ok(());
        }
        if self.is_device {
            return Err(BlockError::OutOfRange);
        }
        let handles = self.handles();
        let have = handles.buffered.metadata().map_err(|e| failed(&e))?.len();
        if have < end {
            handles.buffered.set_len(end).map_err(|e| failed(&e))?;
        }
        self.len.fetch_max(end, Ordering::AcqRel);
        Ok(())
    }

    fn write_out_zeroes(&self, offset: u64, len: u64) -> Result<(), BlockError> {
        let zeros = IoVector::zeroed(usize::try_from(len.min(CHUNK)).unwrap_or(0));
        let mut done = 0u64;
        while done < len {
            let piece = zeros.slice(0, len.saturating_sub(done));
            self.write(offset.saturating_add(done), &piece)?;
            done = done.saturating_add(piece.len());
        }
        Ok(())
    }
}

impl Driver for HostFile {
    fn len(&self) -> u64 {
        self.len.load(Ordering::Acquire)
    }

    fn read(&self, offset: u64, memory: &IoVector) -> Result<(), BlockError> {
        let handles = self.handles();
        if let Some((file, ring)) = self.by_ring(&handles, offset, memory)
            && let Some(Ok(moved)) = ring.run(file, (What::Read, offset), memory)
            && moved == memory.len()
        {
            memory.mark_written();
            return Ok(());
        }
        match &handles.direct {
            Some(direct) if io::is_direct(offset, memory.len()) => {
                match io::reachable(memory, false) {
                    None => io::read(direct, offset, memory),
                    Some(buffer) => {
                        io::read(direct, offset, &buffer)?;
                        let copied = memory.copy_in(0, &buffer.to_vec());
                        copied.ok_or(BlockError::BadBuffer)
                    }
                }
            }
            _ => io::read(&handles.buffered, offset, memory),
        }
    }

    fn read_now(&self, offset: u64, memory: &IoVector) -> bool {
        if !self.tells_cached.load(Ordering::Relaxed) {
            return false;
        }
        // Nobody waits here either, be it only for the file to become read-only.
        let Ok(handles) = self.handles.try_read() else {
            return false;
        };
        if handles.direct.is_some() {
            return false;
        }
        match io::read_cached(&handles.buffered, offset, memory) {
            Ok(moved) if moved == memory.len() => {
                memory.mark_written();
                true
            }
            Err(error) if is_unable(error) => {
                self.tells_cached.store(false, Ordering::Relaxed);
                false
            }
            _ => false,
        }
    }

    fn can_start(&self) -> bool {
        self.ring.is_some()
    }

    fn start(&self, transfer: Transfer) -> Option<Transfer> {
        let Ok(handles) = self.handles.try_read() else {
            return Some(transfer);
        };
        let (offset, len) = (transfer.offset, transfer.memory.len());
        // What makes the file grow is written by those who keep count of that.
        let is_inside = offset.checked_add(len).is_some_and(|end| end <= self.len());
        let Some((file, ring)) = self
            .by_ring(&handles, offset, &transfer.memory)
            .filter(|_| is_inside)
        else {
            return Some(transfer);
        };
        let Transfer {
            is_write,
            memory,
            done,
            ..
        } = transfer;
        let what = if is_write { What::Write } else { What::Read };
        let filled = memory.clone();
        let done = Box::new(move |moved: std::io::Result<u64>| {
            let is_whole = moved.is_ok_and(|moved| moved == len);
            if is_whole && !is_write {
                filled.mark_written();
            }
            done(is_whole);
        });
        if let Err(done) = ring.start(file, (what, offset), memory, done) {
            done(Ok(0));
        }
        None
    }

    fn write(&self, offset: u64, memory: &IoVector) -> Result<(), BlockError> {
        let end = offset.checked_add(memory.len());
        let end = end.ok_or(BlockError::OutOfRange)?;
        if self.is_device && end > self.len() {
            return Err(BlockError::OutOfRange);
        }
        let handles = self.handles();
        if let Some((file, ring)) = self.by_ring(&handles, offset, memory)
            && let Some(Ok(moved)) = ring.run(file, (What::Write, offset), memory)
            && moved == memory.len()
        {
            self.len.fetch_max(end, Ordering::AcqRel);
            return Ok(());
        }
        match &handles.direct {
            Some(direct) if io::is_direct(offset, memory.len()) => {
                let buffer = io::reachable(memory, true);
                io::write(direct, offset, buffer.as_ref().unwrap_or(memory))?;
            }
            _ => io::write(&handles.buffered, offset, memory)?,
        }
        self.len.fetch_max(end, Ordering::AcqRel);
        Ok(())
    }

    fn write_zeroes(&self, offset: u64, len: u64, unmap: bool) -> Result<(), BlockError> {
        let end = offset.checked_add(len).ok_or(BlockError::OutOfRange)?;
        let how = match unmap {
            true => FallocateFlags::PUNCH_HOLE,
            false => FallocateFlags::ZERO_RANGE,
        };
        match self.allocate(how | FallocateFlags::KEEP_SIZE, offset, len) {
            Ok(()) => self.reach(end),
            Err(Errno::NOSPC | Errno::DQUOT) => Err(BlockError::NoSpace),
            Err(error) if is_unable(error) => self.write_out_zeroes(offset, len),
            Err(_) => Err(BlockError::Io),
        }
    }

    fn discard(&self, offset: u64, len: u64) -> Result<(), BlockError> {
        // A hint: what cannot be given back stays.
        let how = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        let _ = self.allocate(how, offset, len);
        Ok(())
    }

    fn flush(&self) -> Result<(), BlockError> {
        if self.no_flush.load(Ordering::Relaxed) {
            return Ok(());
        }
        let handles = self.handles();
        if let Some(ring) = &self.ring {
            let request = (What::Sync, 0);
            // What a flush has failed at is told once: another one would not know of it.
            if let Some(done) = ring.run(&handles.buffered, request, &IoVector::default()) {
                return done.map(|_| ()).map_err(|e| failed(&e));
            }
        }
        handles.buffered.sync_data().map_err(|e| failed(&e))
    }

    fn extent(&self, offset: u64, len: u64) -> Result<Extent, BlockError> {
        if self.is_device {
            return Ok(Extent::data(len, Some(offset)));
        }
        let size = self.len();
        if offset >= size {
            return Ok(Extent::zero(len));
        }
        let to = |end: u64| end.saturating_sub(offset).clamp(1, len);
        let handles = self.handles();
        let data = match seek(&handles.buffered, SeekFrom::Data(offset)) {
            Ok(at) => at,
            // A hole up to the end.
            Err(Errno::NXIO) => size,
            Err(_) => return Ok(Extent::data(len, Some(offset))),
        };
        if data > offset {
            return Ok(Extent {
                stored_at: Some(offset),
                ..Extent::zero(to(data))
            });
        }
        let hole = seek(&handles.buffered, SeekFrom::Hole(offset)).unwrap_or(size);
        Ok(Extent::data(to(hole), Some(offset)))
    }

    fn resize(&self, len: u64, preallocation: Preallocation) -> Result<(), BlockError> {
        let old = self.len();
        if self.is_device {
            return match len <= old {
                true => Ok(()),
                false => Err(BlockError::Unsupported),
            };
        }
        let resized = self.handles().buffered.set_len(len);
        resized.map_err(|e| failed(&e))?;
        self.len.store(len, Ordering::Release);
        let more = len.saturating_sub(old);
        if more == 0 {
            return Ok(());
        }
        match preallocation {
            Preallocation::Off => Ok(()),
            Preallocation::Metadata => Err(BlockError::Unsupported),
            Preallocation::Full => self.write_out_zeroes(old, more),
            Preallocation::Falloc => match self.allocate(FallocateFlags::empty(), old, more) {
                Ok(()) => Ok(()),
                Err(Errno::NOSPC | Errno::DQUOT) => Err(BlockError::NoSpace),
                Err(error) if is_unable(error) => Err(BlockError::Unsupported),
                Err(_) => Err(BlockError::Io),
            },
        }
    }

    fn set_read_only(&self, read_only: bool) -> Result<(), OpenError> {
        let host = |source| OpenError::Host {
            file: self.name.clone(),
            source,
        };
        let mut handles = self.handles.write().unwrap_or_else(PoisonError::into_inner);
        let buffered = self
            .source
            .again(&handles.buffered, read_only, 0)
            .map_err(host)?;
        let buffered = Arc::new(Open(buffered));
        let direct = match &handles.direct {
            Some(old) => {
                let file = self.source.again(old, read_only, libc::O_DIRECT);
                Some(Arc::new(Open(file.map_err(host)?)))
            }
            None => None,
        };
        if let Some(force_share) = self.locking {
            // Locks belong to an open file: ours would stand in our own way.
            lock::release(&handles.buffered);
            if !(force_share && read_only)
                && let Err(conflict) = lock::take(&buffered, read_only, force_share)
            {
                drop(buffered);
                let _ = lock::take(&handles.buffered, !read_only, force_share);
                return Err(locked(&self.name, conflict));
            }
        }
        *handles = Handles {
            buffered,
            direct,
            read_only,
        };
        Ok(())
    }

    fn set_direct(&self, direct: bool) -> Result<(), OpenError> {
        let mut handles = self.handles.write().unwrap_or_else(PoisonError::into_inner);
        if handles.direct.is_some() == direct {
            return Ok(());
        }
        if !direct {
            handles.direct = None;
            return Ok(());
        }
        let host = |source| OpenError::Host {
            file: self.name.clone(),
            source,
        };
        // What is in the page cache is not seen by those who go past it.
        handles.buffered.sync_data().map_err(host)?;
        let file = (self.source)
            .again(&handles.buffered, handles.read_only, libc::O_DIRECT)
            .map_err(host)?;
        handles.direct = Some(Arc::new(Open(file)));
        Ok(())
    }

    fn options_changed(&self, options: &NodeOptions) {
        self.no_flush.store(options.no_flush, Ordering::Relaxed);
    }

    fn allocated_len(&self) -> Option<u64> {
        let metadata = self.handles().buffered.metadata().ok()?;
        metadata.blocks().checked_mul(512)
    }

    fn as_any(&self) -> &dyn std::any::Any {
        self
    }
}
