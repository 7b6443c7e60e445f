//! `null-co`: a disk that takes everything and holds nothing.

use crate::{Block, BlockError, BlockInfo, Operation, Request, SECTOR, Workers};

/// Bytes written to the guest at a time.
const CHUNK: usize = 64 << 10;

/// A disk without contents, for measurements and tests.
pub struct NullCo {
    id: String,
    len: u64,
    read_zeroes: bool,
    workers: Workers,
}

impl NullCo {
    /// A disk of `len` bytes (rounded down to sectors). Reads give zeros with `read_zeroes`, and
    /// leave the buffer as it was without.
    pub fn new(id: impl Into<String>, len: u64, read_zeroes: bool) -> std::io::Result<Self> {
        let id = id.into();
        Ok(NullCo {
            workers: Workers::new(format!("block {id}"), 1)?,
            id,
            len: len & !SECTOR.wrapping_sub(1),
            read_zeroes,
        })
    }
}

/// Whether `offset..offset + len` lies within a disk of `size` bytes.
pub(crate) fn in_range(offset: u64, len: u64, size: u64) -> bool {
    offset.checked_add(len).is_some_and(|end| end <= size)
}

impl Block for NullCo {
    fn info(&self) -> BlockInfo {
        BlockInfo {
            id: self.id.clone(),
            file: "null-co://".into(),
            format: "null-co".into(),
            read_only: false,
            discard: true,
            write_back: true,
        }
    }

    fn len(&self) -> u64 {
        self.len
    }

    fn submit(&self, request: Request) {
        let (size, read_zeroes) = (self.len, self.read_zeroes);
        self.workers.submit(Box::new(move || {
            let Request {
                operation,
                mut buffer,
                done,
            } = request;
            let result = match operation {
                Operation::Read { offset } | Operation::Write { offset }
                    if !in_range(offset, buffer.len(), size) =>
                {
                    Err(BlockError::OutOfRange)
                }
                Operation::Read { .. } if read_zeroes => {
                    let zeros = [0u8; CHUNK];
                    let mut result = Ok(());
                    let mut at = 0u64;
                    while at < buffer.len() && result.is_ok() {
                        let left = buffer.len().saturating_sub(at);
                        let here = usize::try_from(left).unwrap_or(CHUNK).min(CHUNK);
                        result = buffer.copy_in(at, zeros.get(..here).unwrap_or_default());
                        at = at.saturating_add(here as u64);
                    }
                    result
                }
                Operation::Discard { offset, len } | Operation::WriteZeroes { offset, len, .. }
                    if !in_range(offset, len, size) =>
                {
                    Err(BlockError::OutOfRange)
                }
                _ => Ok(()),
            };
            done(result, buffer);
        }));
    }

    fn barrier(&self) {
        self.workers.barrier();
    }

    fn drain(&self) {
        self.workers.drain();
    }
}
