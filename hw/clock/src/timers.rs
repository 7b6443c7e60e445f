//! Deadlines on virtual time, fired by the main loop.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

type Fire = Arc<dyn Fn() + Send + Sync>;
type Waker = Arc<dyn Fn() + Send + Sync>;

/// Not armed.
const NEVER: u64 = u64::MAX;

#[derive(Default)]
struct Inner {
    armed: BTreeSet<(u64, u64)>,
    timers: std::collections::BTreeMap<u64, (u64, Fire)>,
    waker: Option<Waker>,
}

/// All timers of a machine, ordered by deadline.
#[derive(Clone, Default)]
pub struct TimerQueue {
    inner: Arc<Mutex<Inner>>,
    next_id: Arc<AtomicU64>,
}

impl TimerQueue {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn timer(&self, fire: Fire) -> Timer {
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        self.lock().timers.insert(id, (NEVER, fire));
        Timer {
            queue: Some(self.clone()),
            id,
        }
    }

    /// Sets what is called when the earliest deadline moves closer: the main loop's wake-up.
    pub fn set_waker(&self, waker: impl Fn() + Send + Sync + 'static) {
        self.lock().waker = Some(Arc::new(waker));
    }

    /// Wakes the main loop so that it looks at the deadlines again.
    pub fn wake(&self) {
        let waker = self.lock().waker.clone();
        if let Some(waker) = waker {
            waker();
        }
    }

    /// The earliest deadline, in virtual nanoseconds.
    pub fn next_ns(&self) -> Option<u64> {
        self.lock().armed.first().map(|(at, _)| *at)
    }

    pub(crate) fn run(&self, now_ns: impl Fn() -> u64) -> Option<u64> {
        // A timer that re-arms itself in the past must not keep the loop from its other work.
        let mut budget = self.lock().armed.len().saturating_add(16);
        loop {
            let fire = {
                let mut inner = self.lock();
                let (at, id) = *inner.armed.first()?;
                if at > now_ns() || budget == 0 {
                    return Some(at);
                }
                budget = budget.saturating_sub(1);
                inner.armed.remove(&(at, id));
                let Some(timer) = inner.timers.get_mut(&id) else {
                    continue;
                };
                timer.0 = NEVER;
                timer.1.clone()
            };
            fire();
        }
    }
}

/// One deadline. Dropping it disarms it.
#[derive(Default)]
pub struct Timer {
    queue: Option<TimerQueue>,
    id: u64,
}

impl Timer {
    /// Fires once at `at_ns` virtual time (or as soon as possible, if that is past); replaces an
    /// earlier deadline.
    pub fn arm(&self, at_ns: u64) {
        let at_ns = at_ns.min(NEVER.saturating_sub(1));
        let Some(queue) = &self.queue else { return };
        let waker = {
            let mut inner = queue.lock();
            let Some(timer) = inner.timers.get_mut(&self.id) else {
                return;
            };
            let old = std::mem::replace(&mut timer.0, at_ns);
            if old == at_ns {
                return;
            }
            if old != NEVER {
                inner.armed.remove(&(old, self.id));
            }
            let first = inner.armed.first().is_none_or(|(first, _)| at_ns < *first);
            inner.armed.insert((at_ns, self.id));
            if first { inner.waker.clone() } else { None }
        };
        if let Some(waker) = waker {
            waker();
        }
    }

    /// Forgets the deadline.
    pub fn disarm(&self) {
        let Some(queue) = &self.queue else { return };
        let mut inner = queue.lock();
        if let Some(timer) = inner.timers.get_mut(&self.id) {
            let old = std::mem::replace(&mut timer.0, NEVER);
            inner.armed.remove(&(old, self.id));
        }
    }

    /// The deadline, if armed.
    pub fn deadline_ns(&self) -> Option<u64> {
        let queue = self.queue.as_ref()?;
        let inner = queue.lock();
        inner
            .timers
            .get(&self.id)
            .map(|timer| timer.0)
            .filter(|at| *at != NEVER)
    }
}

impl Drop for Timer {
    fn drop(&mut self) {
        self.disarm();
        if let Some(queue) = &self.queue {
            queue.lock().timers.remove(&self.id);
        }
    }
}
