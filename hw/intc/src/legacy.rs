//! HPET legacy replacement as a wire.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use hw_clock::Timer;

/// While on, the HPET has interrupts 0 and 8, and the i8254 and the RTC are cut off from them
/// (IA-PC HPET 1.0a, 2.4.1).
#[derive(Default)]
pub struct LegacyReplacement {
    on: AtomicBool,
    changed: OnceLock<Timer>,
}

impl LegacyReplacement {
    /// The wire, off.
    pub fn new() -> Arc<Self> {
        Arc::default()
    }

    /// Whether the HPET has the interrupts.
    pub fn is_on(&self) -> bool {
        self.on.load(Ordering::Acquire)
    }

    /// Driven by the HPET.
    pub fn set(&self, on: bool) {
        if self.on.swap(on, Ordering::AcqRel) != on
            && let Some(timer) = self.changed.get()
        {
            timer.arm(0);
        }
    }

    /// The i8254's timer that is fired when it loses its interrupt or has it again.
    pub fn on_change(&self, timer: Timer) {
        let _ = self.changed.set(timer);
    }
}
