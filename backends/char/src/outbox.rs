//! What a front end has to say to its stream, kept until the stream takes it.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use runtime::time;

use crate::CharFrontend;

/// A front end with answers on their way. While there are any, it takes no input.
#[derive(Debug)]
pub struct Outbox {
    frontend: CharFrontend,
    out: Mutex<Vec<u8>>,
}

impl Outbox {
    /// Nothing to say yet.
    pub fn new(frontend: CharFrontend) -> Self {
        Outbox {
            frontend,
            out: Mutex::default(),
        }
    }

    fn out(&self) -> MutexGuard<'_, Vec<u8>> {
        self.out.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The front end.
    pub fn frontend(&self) -> &CharFrontend {
        &self.frontend
    }

    /// Adds to what is to be said; [`pump`](Self::pump) says it.
    pub fn push(&self, bytes: impl IntoIterator<Item = u8>) {
        self.out().extend(bytes);
    }

    /// Forgets what was to be said: who would hear it has gone.
    pub fn clear(&self) {
        self.out().clear();
    }

    /// How much input is taken: `most`, or nothing before all is said.
    pub fn room(&self, most: usize) -> usize {
        if self.out().is_empty() { most } else { 0 }
    }

    /// Hands the stream what it takes.
    pub fn pump(&self) {
        let is_empty = {
            let mut out = self.out();
            let taken = self.frontend.write(&out).min(out.len());
            out.drain(..taken);
            out.is_empty()
        };
        if is_empty {
            self.frontend.accept_input();
        }
    }

    /// Writes out what is left, waiting at most `limit`: for the end of the process.
    pub fn flush(&self, limit: Duration) {
        let deadline = time::monotonic_ns()
            .saturating_add(u64::try_from(limit.as_nanos()).unwrap_or(u64::MAX));
        loop {
            self.pump();
            let left = deadline.saturating_sub(time::monotonic_ns());
            self.frontend.chardev().flush(Duration::from_nanos(left));
            if left == 0 || self.out().is_empty() {
                return;
            }
        }
    }
}
