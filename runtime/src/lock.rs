//! Mutexes that know their place in the lock order.
//!
//! Order: machine, bus topology, one device, interrupt controller, backend queue, leaf. A thread may only
//! take a lock of a higher rank than any it holds; debug builds assert it.

use std::ops::{Deref, DerefMut};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError, TryLockError};
use std::time::Duration;

/// A lock's place in the order; taken from low to high.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Rank {
    /// The machine's life cycle.
    Machine,
    /// A bus's list of devices.
    Bus,
    /// One device. Two are never held at once.
    Device,
    /// What translates interrupts on their way to the controller.
    InterruptTranslation,
    /// An interrupt controller's state.
    InterruptController,
    /// A queue between a device and its backend.
    BackendQueue,
    /// Anything that calls nothing while held.
    Leaf,
}

/// A mutex with a rank. A poisoned lock is taken all the same: the panic has been reported already.
#[derive(Debug)]
pub struct Ranked<T: ?Sized> {
    rank: Rank,
    inner: Mutex<T>,
}

impl<T> Ranked<T> {
    /// A lock of this rank around `value`.
    pub const fn new(rank: Rank, value: T) -> Self {
        Self {
            rank,
            inner: Mutex::new(value),
        }
    }

    /// Takes the value out.
    pub fn into_inner(self) -> T {
        self.inner
            .into_inner()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T: ?Sized> Ranked<T> {
    /// Takes the lock, waiting for it.
    ///
    /// # Panics
    /// In debug builds, when the thread holds a lock of the same or a higher rank.
    pub fn lock(&self) -> RankedGuard<'_, T> {
        held::enter(self.rank);
        let guard = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        RankedGuard {
            rank: self.rank,
            guard: Some(guard),
        }
    }

    /// Takes the lock if it is free. Asks for no order, since it cannot wait.
    pub fn try_lock(&self) -> Option<RankedGuard<'_, T>> {
        let guard = match self.inner.try_lock() {
            Ok(guard) => guard,
            Err(TryLockError::Poisoned(e)) => e.into_inner(),
            Err(TryLockError::WouldBlock) => return None,
        };
        held::note(self.rank);
        Some(RankedGuard {
            rank: self.rank,
            guard: Some(guard),
        })
    }

    /// The value, without locking: the borrow shows that nobody else has it.
    pub fn get_mut(&mut self) -> &mut T {
        self.inner.get_mut().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Access to a [`Ranked`] value until dropped.
#[derive(Debug)]
pub struct RankedGuard<'a, T: ?Sized> {
    rank: Rank,
    /// `None` only inside `wait`, which owns `self`.
    guard: Option<MutexGuard<'a, T>>,
}

impl<'a, T> RankedGuard<'a, T> {
    /// Waits on `condvar`, at most `timeout` if one is given. May wake for no reason.
    #[must_use]
    pub fn wait(mut self, condvar: &Condvar, timeout: Option<Duration>) -> RankedGuard<'a, T> {
        self.guard = self.guard.take().map(|guard| match timeout {
            None => condvar.wait(guard).unwrap_or_else(PoisonError::into_inner),
            Some(timeout) => {
                condvar
                    .wait_timeout(guard, timeout)
                    .unwrap_or_else(PoisonError::into_inner)
                    .0
            }
        });
        self
    }
}

#[allow(clippy::unreachable)] // `guard` is only ever empty inside `wait`, which holds `self` by value
impl<T: ?Sized> Deref for RankedGuard<'_, T> {
    type Target = T;
    fn deref(&self) -> &T {
        match &self.guard {
            Some(guard) => guard,
            None => unreachable!(),
        }
    }
}

#[allow(clippy::unreachable)] // as above
impl<T: ?Sized> DerefMut for RankedGuard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        match &mut self.guard {
            Some(guard) => guard,
            None => unreachable!(),
        }
    }
}

impl<T: ?Sized> Drop for RankedGuard<'_, T> {
    fn drop(&mut self) {
        held::leave(self.rank);
    }
}

#[cfg(debug_assertions)]
mod held {
    use super::Rank;
    use std::cell::RefCell;

    thread_local! {
        static HELD: RefCell<Vec<Rank>> = const { RefCell::new(Vec::new()) };
    }

    pub(super) fn enter(rank: Rank) {
        HELD.with_borrow_mut(|held| {
            let top = held.iter().max();
            assert!(
                top.is_none_or(|top| *top < rank),
                "lock order: {rank:?} wanted while {top:?} is held"
            );
            held.push(rank);
        });
    }

    pub(super) fn note(rank: Rank) {
        HELD.with_borrow_mut(|held| held.push(rank));
    }

    pub(super) fn leave(rank: Rank) {
        // A guard may outlive the thread-local during thread exit.
        let _ = HELD.try_with(|held| {
            let mut held = held.borrow_mut();
            if let Some(at) = held.iter().rposition(|r| *r == rank) {
                held.remove(at);
            }
        });
    }
}

#[cfg(not(debug_assertions))]
mod held {
    use super::Rank;
    pub(super) fn enter(_: Rank) {}
    pub(super) fn note(_: Rank) {}
    pub(super) fn leave(_: Rank) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn locks_taken_in_order_are_fine_and_released_in_any_order() {
        let bus = Ranked::new(Rank::Bus, 1);
        let device = Ranked::new(Rank::Device, 2);
        let b = bus.lock();
        let d = device.lock();
        drop(b);
        assert_eq!(*d, 2);
        drop(d);
        assert_eq!(*bus.lock() + *device.lock(), 3);
    }

    #[test]
    #[cfg(debug_assertions)]
    fn a_lock_out_of_order_is_caught() {
        let bus = Ranked::new(Rank::Bus, ());
        let device = Ranked::new(Rank::Device, ());
        let caught = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            let _d = device.lock();
            let _b = bus.lock();
        }));
        assert!(caught.is_err());
        drop(bus.lock());
    }

    #[test]
    #[cfg(debug_assertions)]
    fn two_devices_are_never_held_at_once() {
        let a = Ranked::new(Rank::Device, ());
        let b = Ranked::new(Rank::Device, ());
        let caught = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            let _a = a.lock();
            let _b = b.lock();
        }));
        assert!(caught.is_err());
    }
}
