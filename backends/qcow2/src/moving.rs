//! Who moves guest data, and who must be alone.
//!
//! A lock for readers and a writer, of which the readers' share may end on another thread than it began:
//! a request in a ring of the kernel's has one until the kernel is done.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

#[derive(Default)]
struct State {
    shares: usize,
    /// Those who are alone, or wait for that: no share begins.
    alone: usize,
    is_alone: bool,
}

#[derive(Default)]
struct Inner {
    state: Mutex<State>,
    changed: Condvar,
}

impl Inner {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait<'a>(&self, state: MutexGuard<'a, State>) -> MutexGuard<'a, State> {
        let state = self.changed.wait(state);
        state.unwrap_or_else(PoisonError::into_inner)
    }
}

/// Requests that move data hold a share; what takes clusters away from under them is alone.
#[derive(Default)]
pub(crate) struct Moving(Arc<Inner>);

impl Moving {
    /// Waits until nobody is alone or wants to be.
    pub(crate) fn share(&self) -> Share {
        let mut state = self.0.lock();
        while state.alone != 0 {
            state = self.0.wait(state);
        }
        state.shares = state.shares.saturating_add(1);
        Share(self.0.clone())
    }

    /// The same without waiting.
    pub(crate) fn try_share(&self) -> Option<Share> {
        let mut state = self.0.state.try_lock().ok()?;
        if state.alone != 0 {
            return None;
        }
        state.shares = state.shares.saturating_add(1);
        Some(Share(self.0.clone()))
    }

    /// Waits until nobody has a share, and lets none begin.
    pub(crate) fn alone(&self) -> Alone {
        let mut state = self.0.lock();
        state.alone = state.alone.saturating_add(1);
        while state.is_alone || state.shares != 0 {
            state = self.0.wait(state);
        }
        state.is_alone = true;
        Alone(self.0.clone())
    }
}

/// Data is being moved until this is dropped.
pub(crate) struct Share(Arc<Inner>);

impl Drop for Share {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.shares = state.shares.saturating_sub(1);
        if state.shares == 0 && state.alone != 0 {
            self.0.changed.notify_all();
        }
    }
}

/// No data is moved until this is dropped.
pub(crate) struct Alone(Arc<Inner>);

impl Drop for Alone {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.is_alone = false;
        state.alone = state.alone.saturating_sub(1);
        self.0.changed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_alone_waits_for_a_share_that_ends_on_another_thread() {
        let moving = Moving::default();
        let share = moving.share();
        let (say, said) = std::sync::mpsc::channel();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let alone = moving.alone();
                say.send("alone").unwrap();
                drop(alone);
            });
            while moving.0.lock().alone == 0 {
                std::thread::yield_now();
            }
            assert!(moving.try_share().is_none(), "no share begins meanwhile");
            assert!(said.try_recv().is_err(), "a share is held still");
            scope.spawn(move || drop(share));
        });
        assert_eq!(said.recv(), Ok("alone"));
        assert!(moving.try_share().is_some());
    }
}
