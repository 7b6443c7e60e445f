//! Disks as devices see them: requests in, completions out.
//!
//! A device hands a [`Request`] with its [`Buffer`] and a completion to a [`Block`]; the back end
//! carries it out on threads of its own. Nobody waits for a disk with a lock held.
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

mod null;
#[cfg(test)]
mod tests;
mod workers;

use std::sync::Arc;

pub use null::NullCo;
pub use workers::{Job, Workers};

/// The unit in which sizes and offsets are given to guests.
pub const SECTOR: u64 = 512;

/// Why a request was not carried out.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum BlockError {
    /// The image or the host's disk failed.
    #[error("input/output error")]
    Io,
    /// No space is left on the host.
    #[error("no space left on the host")]
    NoSpace,
    /// Beyond the end, or not aligned.
    #[error("request outside of the image")]
    OutOfRange,
    /// A write to a read-only image.
    #[error("the image is read-only")]
    ReadOnly,
    /// The back end does not do this.
    #[error("not supported")]
    Unsupported,
    /// The guest's buffer is not memory, or is gone.
    #[error("bad buffer")]
    BadBuffer,
    /// Given up before it was begun.
    #[error("cancelled")]
    Cancelled,
}

/// What is to be done. Offsets and lengths are in bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Operation {
    /// From the image into the buffer.
    Read {
        /// Where in the image.
        offset: u64,
    },
    /// From the buffer into the image.
    Write {
        /// Where in the image.
        offset: u64,
    },
    /// All writes completed so far reach stable storage.
    Flush,
    /// The contents are not needed any more.
    Discard {
        /// Where in the image.
        offset: u64,
        /// How much.
        len: u64,
    },
    /// Zeros from now on.
    WriteZeroes {
        /// Where in the image.
        offset: u64,
        /// How much.
        len: u64,
        /// The space may be given back.
        unmap: bool,
    },
}

/// Memory of a request, of any shape: a guest's scattered pages, or a vector.
///
/// Used by one thread at a time. Fails when the memory is not there, or the request was given up.
pub trait Buffer: Send {
    /// Bytes.
    fn len(&self) -> u64;

    /// Whether it has none.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Copies bytes from `at` on out of the buffer.
    fn copy_out(&mut self, at: u64, out: &mut [u8]) -> Result<(), BlockError>;

    /// Copies bytes into the buffer from `at` on.
    fn copy_in(&mut self, at: u64, data: &[u8]) -> Result<(), BlockError>;
}

impl Buffer for Vec<u8> {
    fn len(&self) -> u64 {
        self.as_slice().len() as u64
    }

    fn copy_out(&mut self, at: u64, out: &mut [u8]) -> Result<(), BlockError> {
        let from = usize::try_from(at)
            .ok()
            .and_then(|at| self.as_slice().get(at..)?.get(..out.len()))
            .ok_or(BlockError::BadBuffer)?;
        out.copy_from_slice(from);
        Ok(())
    }

    fn copy_in(&mut self, at: u64, data: &[u8]) -> Result<(), BlockError> {
        let to = usize::try_from(at)
            .ok()
            .and_then(|at| self.as_mut_slice().get_mut(at..)?.get_mut(..data.len()))
            .ok_or(BlockError::BadBuffer)?;
        to.copy_from_slice(data);
        Ok(())
    }
}

/// Called once, with no lock held, on a thread of the back end's: never from within
/// [`Block::submit`].
pub type Completion = Box<dyn FnOnce(Result<(), BlockError>, Box<dyn Buffer>) + Send>;

/// One request.
pub struct Request {
    /// What to do.
    pub operation: Operation,
    /// Memory to read from or write to; empty for operations without data.
    pub buffer: Box<dyn Buffer>,
    /// Who wants to know.
    pub done: Completion,
}

/// What a device tells its guest about a disk.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct BlockInfo {
    /// Name for `info block`: the id of the drive or node.
    pub id: String,
    /// File name as shown to users.
    pub file: String,
    /// Driver of the format, as `raw`.
    pub format: String,
    /// Whether writes are refused.
    pub read_only: bool,
    /// Whether discards reach the image.
    pub discard: bool,
    /// Whether guests' writes may stay in the host's cache until a flush.
    pub write_back: bool,
}

/// A disk. Shared by its device and the monitor.
pub trait Block: Send + Sync {
    /// What it is.
    fn info(&self) -> BlockInfo;

    /// Bytes, a multiple of [`SECTOR`].
    fn len(&self) -> u64;

    /// Whether there is nothing in it.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Takes a request. Never waits. The completion is always called, once, later, and not by the
    /// calling thread before this returns.
    fn submit(&self, request: Request);

    /// Requests taken from now on start when all earlier ones are done: a device's reset.
    fn barrier(&self);

    /// Waits until every request taken so far has completed. Called with the machine stopped, by
    /// nobody who holds a device.
    fn drain(&self);
}

/// How devices and the monitor hold a disk. The back end of a `drive` property.
pub type SharedBlock = Arc<dyn Block>;
