//! What devices ask of a disk, and what they are told.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use hw_memory::IoVector;

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
    /// The image's own tables make no sense.
    #[error("the image is corrupt")]
    Corrupt,
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

/// Called once, with no lock held, on a thread of the back end's: never from within
/// [`Block::submit`](crate::Block::submit).
pub type Completion = Box<dyn FnOnce(Result<(), BlockError>) + Send>;

/// One request.
pub struct Request {
    /// What to do.
    pub operation: Operation,
    /// Memory to read into or write from, in place; empty for operations without data.
    pub memory: IoVector,
    /// Held open while the request is carried out.
    pub gate: Gate,
    /// Who wants to know.
    pub done: Completion,
}

impl Request {
    /// A request that nobody takes back.
    pub fn new(operation: Operation, memory: IoVector, done: Completion) -> Self {
        Request {
            operation,
            memory,
            gate: Gate::default(),
            done,
        }
    }
}

#[derive(Default)]
struct Passing {
    shut: bool,
    inside: usize,
}

/// Through which all requests of a device go, until its reset shuts it: from then on the memory of
/// none of them is touched.
#[derive(Clone, Default)]
pub struct Gate {
    inner: Arc<(Mutex<Passing>, Condvar)>,
}

/// A request on its way through.
pub struct Pass(Gate);

impl Gate {
    fn lock(&self) -> MutexGuard<'_, Passing> {
        self.inner.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets a request begin. `None` once shut.
    pub fn pass(&self) -> Option<Pass> {
        let mut passing = self.lock();
        if passing.shut {
            return None;
        }
        passing.inside = passing.inside.saturating_add(1);
        Some(Pass(self.clone()))
    }

    /// Lets no request begin any more, and waits for those the host is at work on.
    pub fn shut(&self) {
        let mut passing = self.lock();
        passing.shut = true;
        while passing.inside != 0 {
            passing = self
                .inner
                .1
                .wait(passing)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }
}

impl Drop for Pass {
    fn drop(&mut self) {
        let mut passing = self.0.lock();
        passing.inside = passing.inside.saturating_sub(1);
        if passing.inside == 0 {
            self.0.inner.1.notify_all();
        }
    }
}
