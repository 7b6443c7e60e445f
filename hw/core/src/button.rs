//! The power button.

use std::sync::{Arc, Mutex, PoisonError};

type Waker = Arc<dyn Fn(u64) + Send + Sync>;

/// A handle to press the power button with (`system_powerdown`). Clones are the same button.
#[derive(Clone, Default)]
pub struct PowerButton {
    waker: Arc<Mutex<Option<Waker>>>,
}

impl PowerButton {
    /// Presses the button. Called from a loop or a monitor, never from within a device. Returns
    /// whether there is anything that listens.
    pub fn press(&self) -> bool {
        let waker = self
            .waker
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        match waker {
            Some(waker) => {
                waker(0);
                true
            }
            None => false,
        }
    }

    /// Says what a press comes to: a device's [`poke`](crate::Wiring::poke).
    pub fn connect(&self, waker: Waker) {
        *self.waker.lock().unwrap_or_else(PoisonError::into_inner) = Some(waker);
    }
}
