//! The way in for key presses and mouse movements.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::keys::Key;
use crate::mouse::Buttons;

/// Something a person did.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum InputEvent {
    /// A key went down or up.
    Key {
        /// Which.
        key: Key,
        /// Down, or up.
        down: bool,
    },
    /// The mouse moved, its wheel turned, or its buttons changed.
    Mouse {
        /// To the right.
        dx: i32,
        /// Downwards, as on the screen.
        dy: i32,
        /// Wheel steps towards the user.
        dz: i32,
        /// Buttons that are down now.
        buttons: Buttons,
    },
}

/// Events that wait for the device; more are dropped.
const WAITING_MAX: usize = 1024;

type Waker = Arc<dyn Fn(u64) + Send + Sync>;

#[derive(Default)]
struct Inner {
    waiting: VecDeque<InputEvent>,
    waker: Option<Waker>,
}

/// A handle to press keys with. Clones feed the same device.
#[derive(Clone, Default)]
pub struct Input {
    inner: Arc<Mutex<Inner>>,
}

impl Input {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Hands an event to the device. Called from a loop or a monitor, never from within a device.
    /// Returns false when the guest is so far behind that the event was dropped.
    pub fn send(&self, event: InputEvent) -> bool {
        let mut inner = self.lock();
        if inner.waiting.len() >= WAITING_MAX {
            return false;
        }
        inner.waiting.push_back(event);
        let waker = inner.waker.clone();
        drop(inner);
        if let Some(waker) = waker {
            waker(0);
        }
        true
    }

    /// Presses keys together in order and releases them in reverse: `sendkey ctrl-alt-delete`.
    pub fn chord(&self, keys: &[Key]) -> bool {
        let down = keys.iter().map(|key| (*key, true));
        let up = keys.iter().rev().map(|key| (*key, false));
        down.chain(up)
            .all(|(key, down)| self.send(InputEvent::Key { key, down }))
    }

    pub(crate) fn connect(&self, waker: Waker) {
        self.lock().waker = Some(waker);
    }

    pub(crate) fn take(&self) -> Option<InputEvent> {
        self.lock().waiting.pop_front()
    }

    pub(crate) fn clear(&self) {
        self.lock().waiting.clear();
    }
}
