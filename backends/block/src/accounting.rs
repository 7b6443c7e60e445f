//! What a disk did so far, for `query-blockstats`.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::request::{BlockError, Operation};

/// Requests of one kind.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Count {
    /// That went well.
    pub operations: u64,
    /// Bytes of those.
    pub bytes: u64,
    /// Nanoseconds that they took, all added up; failed ones too.
    pub time_ns: u64,
    /// That the image or the host failed.
    pub failed: u64,
    /// That made no sense.
    pub invalid: u64,
}

/// What was done so far (`query-blockstats`).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Stats {
    /// Reads.
    pub rd: Count,
    /// Writes, of zeros too.
    pub wr: Count,
    /// Flushes.
    pub flush: Count,
    /// Discards.
    pub unmap: Count,
    /// End of the furthest write.
    pub wr_highest_offset: u64,
    /// When the last request ended, on the host's clock; `None` before the first.
    pub last_ns: Option<u64>,
}

#[derive(Default)]
struct Counter {
    operations: AtomicU64,
    bytes: AtomicU64,
    time_ns: AtomicU64,
    failed: AtomicU64,
    invalid: AtomicU64,
}

impl Counter {
    fn count(&self, bytes: u64, time_ns: u64, result: Result<(), BlockError>) {
        let add = |counter: &AtomicU64, n| {
            counter.fetch_add(n, Ordering::Relaxed);
        };
        match result {
            Ok(()) => {
                add(&self.operations, 1);
                add(&self.bytes, bytes);
                add(&self.time_ns, time_ns);
            }
            Err(BlockError::OutOfRange | BlockError::BadBuffer | BlockError::Unsupported) => {
                add(&self.invalid, 1);
            }
            Err(_) => {
                add(&self.failed, 1);
                add(&self.time_ns, time_ns);
            }
        }
    }

    fn read(&self) -> Count {
        let of = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Count {
            operations: of(&self.operations),
            bytes: of(&self.bytes),
            time_ns: of(&self.time_ns),
            failed: of(&self.failed),
            invalid: of(&self.invalid),
        }
    }
}

/// The counters behind [`Stats`].
#[derive(Default)]
pub(crate) struct Accounting {
    rd: Counter,
    wr: Counter,
    flush: Counter,
    unmap: Counter,
    wr_highest: AtomicU64,
    /// Zero before the first.
    last_ns: AtomicU64,
}

impl Accounting {
    /// A request of `bytes` that was begun and ended at these times.
    pub(crate) fn count(
        &self,
        operation: Operation,
        bytes: u64,
        (begun_ns, ended_ns): (u64, u64),
        result: Result<(), BlockError>,
    ) {
        let time_ns = ended_ns.saturating_sub(begun_ns);
        let counter = match operation {
            Operation::Read { .. } => &self.rd,
            Operation::Write { offset } | Operation::WriteZeroes { offset, .. } => {
                if result.is_ok() {
                    let end = offset.saturating_add(bytes);
                    self.wr_highest.fetch_max(end, Ordering::Relaxed);
                }
                &self.wr
            }
            Operation::Flush => &self.flush,
            Operation::Discard { .. } => &self.unmap,
        };
        counter.count(bytes, time_ns, result);
        self.last_ns.fetch_max(ended_ns, Ordering::Relaxed);
    }

    pub(crate) fn read(&self) -> Stats {
        let last_ns = self.last_ns.load(Ordering::Relaxed);
        Stats {
            rd: self.rd.read(),
            wr: self.wr.read(),
            flush: self.flush.read(),
            unmap: self.unmap.read(),
            wr_highest_offset: self.wr_highest.load(Ordering::Relaxed),
            last_ns: (last_ns != 0).then_some(last_ns),
        }
    }
}
