//! Edges that must not be lost: those of the i8254, which kernels count their time by.
//!
//! A controller has room for one edge of an input until the CPU takes it. Of inputs named here it counts
//! the others, and gives them when the CPU is done with the one before. They are not saved: what a CPU was late by
//! is forgotten with it.

use std::sync::atomic::{AtomicU32, Ordering};

/// Most edges of an input that are given later.
const MOST: u32 = 1000;

/// The inputs of a controller that has up to 32. Changed under its lock.
#[derive(Default)]
pub(crate) struct Kept {
    pins: AtomicU32,
    /// Inputs of which the CPU has been given an edge and has not ended it.
    waiting: AtomicU32,
    owed: [AtomicU32; 32],
}

fn bit(pin: u32) -> u32 {
    1u32.checked_shl(pin).unwrap_or(0)
}

impl Kept {
    /// Keeps edges of an input.
    pub(crate) fn keep(&self, pin: u32) {
        self.pins.fetch_or(bit(pin), Ordering::Relaxed);
    }

    fn owed(&self, pin: u32) -> Option<&AtomicU32> {
        self.owed.get(usize::try_from(pin).ok()?)
    }

    /// An input rises, which may interrupt.
    pub(crate) fn rise(&self, pin: u32) {
        if self.pins.load(Ordering::Relaxed) & bit(pin) == 0 {
            return;
        }
        let before = self.waiting.fetch_or(bit(pin), Ordering::Relaxed);
        if before & bit(pin) != 0
            && let Some(owed) = self.owed(pin)
        {
            let more = owed.load(Ordering::Relaxed).saturating_add(1);
            owed.store(more.min(MOST), Ordering::Relaxed);
        }
    }

    /// The CPU is done with an edge of an input: whether another one follows at once.
    pub(crate) fn done(&self, pin: u32) -> bool {
        let owed = self
            .owed(pin)
            .map_or(0, |owed| owed.load(Ordering::Relaxed));
        match owed.checked_sub(1) {
            Some(rest) if self.is_waiting(pin) => {
                if let Some(owed) = self.owed(pin) {
                    owed.store(rest, Ordering::Relaxed);
                }
                true
            }
            _ => {
                self.forget(pin);
                false
            }
        }
    }

    /// Nothing is owed of an input any more.
    pub(crate) fn forget(&self, pin: u32) {
        self.waiting.fetch_and(!bit(pin), Ordering::Relaxed);
        if let Some(owed) = self.owed(pin) {
            owed.store(0, Ordering::Relaxed);
        }
    }

    /// Whether the CPU has not ended an edge of an input.
    pub(crate) fn is_waiting(&self, pin: u32) -> bool {
        self.waiting.load(Ordering::Relaxed) & bit(pin) != 0
    }

    /// As [`is_waiting`](Self::is_waiting), of any.
    pub(crate) fn is_any_waiting(&self) -> bool {
        self.waiting.load(Ordering::Relaxed) != 0
    }
}
