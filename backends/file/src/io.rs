//! Positioned, vectored reads and writes on a host file, straight to and from the memory of requests.

use std::fs::File;
use std::os::fd::{AsRawFd, RawFd};

use backend_block::{BUFFER_ALIGN, BlockError, IoVector};
use rustix::io::Errno;

/// Pieces that the kernel takes at a time (`IOV_MAX`).
const PIECES: usize = 1024;

pub(crate) fn failed(error: &std::io::Error) -> BlockError {
    match Errno::from_io_error(error) {
        Some(Errno::NOSPC | Errno::DQUOT) => BlockError::NoSpace,
        Some(Errno::FAULT) => BlockError::BadBuffer,
        _ => BlockError::Io,
    }
}

#[derive(Clone, Copy)]
enum Direction {
    Read,
    /// Nothing but what the page cache has.
    ReadCached,
    Write,
}

/// How much of `memory` the page cache fills, without waiting for a disk. An error: the kernel does not do
/// that for this file, or has nothing of it.
pub(crate) fn read_cached(file: &File, offset: u64, memory: &IoVector) -> Result<u64, Errno> {
    let moved = transfer(file.as_raw_fd(), offset, memory, Direction::ReadCached);
    moved.map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))
}

/// One call of the kernel's; returns how many bytes it moved.
fn transfer(
    file: RawFd,
    offset: u64,
    memory: &IoVector,
    direction: Direction,
) -> std::io::Result<u64> {
    let pieces: Vec<libc::iovec> = memory
        .host_pieces()
        .take(PIECES)
        .map(|(start, len)| libc::iovec {
            iov_base: start.cast(),
            iov_len: len,
        })
        .collect();
    let count = libc::c_int::try_from(pieces.len()).unwrap_or(0);
    let offset = libc::off_t::try_from(offset).map_err(|_| Errno::INVAL)?;
    loop {
        // SAFETY: the pieces lie in memory that `memory` keeps alive during the call. Guests and
        // the kernel may touch it at the same time, as with any DMA.
        let moved = unsafe {
            match direction {
                Direction::Read => libc::preadv(file, pieces.as_ptr(), count, offset),
                Direction::ReadCached => {
                    libc::preadv2(file, pieces.as_ptr(), count, offset, libc::RWF_NOWAIT)
                }
                Direction::Write => libc::pwritev(file, pieces.as_ptr(), count, offset),
            }
        };
        match u64::try_from(moved) {
            Ok(moved) => return Ok(moved),
            Err(_) => {
                let error = std::io::Error::last_os_error();
                if error.kind() != std::io::ErrorKind::Interrupted {
                    return Err(error);
                }
            }
        }
    }
}

/// Fills `memory`; what lies beyond the end of the file reads as zeros.
pub(crate) fn read(file: &File, offset: u64, memory: &IoVector) -> Result<(), BlockError> {
    let fd = file.as_raw_fd();
    let mut done = transfer(fd, offset, memory, Direction::Read).map_err(|e| failed(&e))?;
    while done < memory.len() {
        let rest = memory.slice(done, u64::MAX);
        let at = offset.checked_add(done).ok_or(BlockError::OutOfRange)?;
        let moved = transfer(fd, at, &rest, Direction::Read).map_err(|e| failed(&e))?;
        if moved == 0 {
            rest.fill(0);
            break;
        }
        done = done.saturating_add(moved);
    }
    memory.mark_written();
    Ok(())
}

/// Stores all of `memory`.
pub(crate) fn write(file: &File, offset: u64, memory: &IoVector) -> Result<(), BlockError> {
    let fd = file.as_raw_fd();
    let mut done = transfer(fd, offset, memory, Direction::Write).map_err(|e| failed(&e))?;
    while done < memory.len() {
        let rest = memory.slice(done, u64::MAX);
        let at = offset.checked_add(done).ok_or(BlockError::OutOfRange)?;
        let moved = transfer(fd, at, &rest, Direction::Write).map_err(|e| failed(&e))?;
        if moved == 0 {
            return Err(BlockError::Io);
        }
        done = done.saturating_add(moved);
    }
    Ok(())
}

/// Whether the file offset and the length are such that any disk takes them past the page cache.
pub(crate) fn is_direct(offset: u64, len: u64) -> bool {
    let align = BUFFER_ALIGN as u64;
    offset.is_multiple_of(align) && len.is_multiple_of(align)
}

/// `memory`, or a buffer in its place if a disk could not reach it directly.
pub(crate) fn reachable(memory: &IoVector, copy: bool) -> Option<IoVector> {
    if memory.is_aligned(BUFFER_ALIGN) {
        return None;
    }
    let buffer = IoVector::zeroed(usize::try_from(memory.len()).ok()?);
    if copy {
        buffer.copy_in(0, &memory.to_vec());
    }
    Some(buffer)
}
