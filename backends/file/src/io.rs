//! Carrying out one request, on a thread that may wait.

use std::fs::File;
use std::os::unix::fs::FileExt;

use backend_block::{BlockError, Buffer, Operation};
use rustix::fs::{FallocateFlags, fallocate};
use rustix::io::Errno;

/// Bytes moved at a time.
const CHUNK: usize = 256 << 10;
/// What `O_DIRECT` wants of addresses, offsets and lengths, on any disk.
const DIRECT_ALIGN: usize = 4096;

/// The open file.
pub(crate) struct Image {
    pub(crate) buffered: File,
    /// Past the page cache, for requests that are aligned for it.
    pub(crate) direct: Option<File>,
    pub(crate) read_only: bool,
    pub(crate) discard: bool,
    pub(crate) no_flush: bool,
}

fn failed(error: &std::io::Error) -> BlockError {
    match Errno::from_io_error(error) {
        Some(Errno::NOSPC | Errno::DQUOT) => BlockError::NoSpace,
        _ => BlockError::Io,
    }
}

/// A bounce buffer at an address that `O_DIRECT` takes.
struct Bounce {
    memory: Vec<u8>,
    start: usize,
}

impl Bounce {
    fn new(len: usize) -> Self {
        let len = len.clamp(1, CHUNK);
        let memory = vec![0u8; len.saturating_add(DIRECT_ALIGN)];
        let start = memory.as_ptr().align_offset(DIRECT_ALIGN);
        Bounce {
            start: start.min(DIRECT_ALIGN),
            memory,
        }
    }

    fn first(&mut self, len: usize) -> &mut [u8] {
        self.memory
            .get_mut(self.start..)
            .and_then(|m| m.get_mut(..len))
            .unwrap_or_default()
    }
}

impl Image {
    /// Carries out a request against a disk of `len` bytes.
    pub(crate) fn carry_out(
        &self,
        operation: Operation,
        buffer: &mut dyn Buffer,
        len: u64,
    ) -> Result<(), BlockError> {
        let check = |offset: u64, size: u64| match offset.checked_add(size) {
            Some(end) if end <= len => Ok(()),
            _ => Err(BlockError::OutOfRange),
        };
        let writable = || {
            if self.read_only {
                Err(BlockError::ReadOnly)
            } else {
                Ok(())
            }
        };
        match operation {
            Operation::Read { offset } => {
                check(offset, buffer.len())?;
                self.read(offset, buffer)
            }
            Operation::Write { offset } => {
                writable()?;
                check(offset, buffer.len())?;
                self.write(offset, buffer)
            }
            Operation::Flush if self.no_flush || self.read_only => Ok(()),
            Operation::Flush => self.buffered.sync_data().map_err(|e| failed(&e)),
            Operation::Discard { offset, len } => {
                writable()?;
                check(offset, len)?;
                // A hint: what cannot be given back stays.
                if self.discard {
                    let _ = self.allocate(FallocateFlags::PUNCH_HOLE, offset, len);
                }
                Ok(())
            }
            Operation::WriteZeroes { offset, len, unmap } => {
                writable()?;
                check(offset, len)?;
                self.write_zeroes(offset, len, unmap && self.discard)
            }
        }
    }

    fn file(&self, offset: u64, len: u64) -> &File {
        match &self.direct {
            Some(direct)
                if offset.is_multiple_of(DIRECT_ALIGN as u64)
                    && len.is_multiple_of(DIRECT_ALIGN as u64) =>
            {
                direct
            }
            _ => &self.buffered,
        }
    }

    fn read(&self, offset: u64, buffer: &mut dyn Buffer) -> Result<(), BlockError> {
        let len = buffer.len();
        let file = self.file(offset, len);
        let mut bounce = Bounce::new(usize::try_from(len).unwrap_or(CHUNK));
        let mut done = 0u64;
        while done < len {
            let here = usize::try_from(len.saturating_sub(done))
                .unwrap_or(CHUNK)
                .min(CHUNK);
            let piece = bounce.first(here);
            let mut filled = 0usize;
            while filled < here {
                let at = offset.saturating_add(done).saturating_add(filled as u64);
                let rest = piece.get_mut(filled..).unwrap_or_default();
                match file.read_at(rest, at) {
                    // Past the end of the file: the rest of the last sector.
                    Ok(0) => {
                        rest.fill(0);
                        filled = here;
                    }
                    Ok(n) => filled = filled.saturating_add(n),
                    Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
                    Err(e) => return Err(failed(&e)),
                }
            }
            buffer.copy_in(done, piece)?;
            done = done.saturating_add(here as u64);
        }
        Ok(())
    }

    fn write(&self, offset: u64, buffer: &mut dyn Buffer) -> Result<(), BlockError> {
        let len = buffer.len();
        let file = self.file(offset, len);
        let mut bounce = Bounce::new(usize::try_from(len).unwrap_or(CHUNK));
        let mut done = 0u64;
        while done < len {
            let here = usize::try_from(len.saturating_sub(done))
                .unwrap_or(CHUNK)
                .min(CHUNK);
            let piece = bounce.first(here);
            buffer.copy_out(done, piece)?;
            file.write_all_at(piece, offset.saturating_add(done))
                .map_err(|e| failed(&e))?;
            done = done.saturating_add(here as u64);
        }
        Ok(())
    }

    fn allocate(&self, flags: FallocateFlags, offset: u64, len: u64) -> Result<(), Errno> {
        if len == 0 {
            return Ok(());
        }
        fallocate(
            &self.buffered,
            flags | FallocateFlags::KEEP_SIZE,
            offset,
            len,
        )
    }

    fn write_zeroes(&self, offset: u64, len: u64, unmap: bool) -> Result<(), BlockError> {
        let fast = if unmap {
            self.allocate(FallocateFlags::PUNCH_HOLE, offset, len)
        } else {
            self.allocate(FallocateFlags::ZERO_RANGE, offset, len)
        };
        match fast {
            Ok(()) => return Ok(()),
            Err(Errno::NOSPC | Errno::DQUOT) => return Err(BlockError::NoSpace),
            Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL | Errno::NODEV) => {}
            Err(_) => return Err(BlockError::Io),
        }
        let zeros = vec![0u8; usize::try_from(len).unwrap_or(CHUNK).min(CHUNK)];
        let mut done = 0u64;
        while done < len {
            let here = usize::try_from(len.saturating_sub(done)).unwrap_or(CHUNK);
            let piece = zeros.get(..here.min(CHUNK)).unwrap_or_default();
            self.buffered
                .write_all_at(piece, offset.saturating_add(done))
                .map_err(|e| failed(&e))?;
            done = done.saturating_add(piece.len() as u64);
        }
        Ok(())
    }
}
