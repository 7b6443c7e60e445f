//! The machine's clocks and timers: the only way to host time.
//!
//! Two clocks (ARCHITECTURE: "Two clocks"): *virtual* time stops with the machine and drives timers
//! and guest counters; *wall* time is for real-time-clock chips. Both come from one replaceable
//! [`TimeSource`], so tests, replay and instruction counting swap it whole.
#![deny(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects
)]
#![cfg_attr(test, allow(clippy::indexing_slicing, clippy::arithmetic_side_effects))]

use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use rustix::time::{ClockId, clock_gettime};

mod timers;
pub use timers::{Timer, TimerQueue};

/// Nanoseconds in a second.
pub const NS_PER_S: u64 = 1_000_000_000;

/// Where time comes from: the host, or a test's hand.
pub trait TimeSource: Send + Sync {
    /// Monotonic nanoseconds since an arbitrary start.
    fn monotonic_ns(&self) -> u64;
    /// Nanoseconds since 1970-01-01 00:00 UTC.
    fn wall_ns(&self) -> u64;
}

/// The host's clocks.
pub struct HostTime {
    start_ns: u64,
}

impl Default for HostTime {
    fn default() -> Self {
        HostTime {
            start_ns: host_ns(),
        }
    }
}

/// The host's monotonic clock. Guests read counters all the time: the shortest way.
fn host_ns() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    let [seconds, ns] = [now.tv_sec, now.tv_nsec].map(i64::cast_unsigned);
    seconds.wrapping_mul(NS_PER_S).wrapping_add(ns)
}

impl TimeSource for HostTime {
    fn monotonic_ns(&self) -> u64 {
        host_ns().wrapping_sub(self.start_ns)
    }

    fn wall_ns(&self) -> u64 {
        let since = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
    }
}

/// Time that moves only when told: for tests and qtest.
#[derive(Default)]
pub struct ManualTime {
    now_ns: AtomicU64,
    epoch_ns: AtomicU64,
}

impl ManualTime {
    /// Starts at zero, with wall time zero at `epoch_ns` after 1970.
    pub fn new(epoch_ns: u64) -> Arc<Self> {
        Arc::new(ManualTime {
            now_ns: AtomicU64::new(0),
            epoch_ns: AtomicU64::new(epoch_ns),
        })
    }

    /// Moves time forward.
    pub fn advance_ns(&self, ns: u64) {
        self.now_ns.fetch_add(ns, Ordering::SeqCst);
    }
}

impl TimeSource for ManualTime {
    fn monotonic_ns(&self) -> u64 {
        self.now_ns.load(Ordering::SeqCst)
    }

    fn wall_ns(&self) -> u64 {
        self.monotonic_ns()
            .saturating_add(self.epoch_ns.load(Ordering::SeqCst))
    }
}

struct Shared {
    source: Arc<dyn TimeSource>,
    running: AtomicBool,
    /// Virtual minus monotonic time while running; virtual time itself while stopped.
    offset_ns: AtomicI64,
    turn: Mutex<()>,
    queue: TimerQueue,
    followers: Mutex<Vec<Follower>>,
}

/// Told whether virtual time runs.
type Follower = Arc<dyn Fn(bool) + Send + Sync>;

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A handle to the machine's time. Cheap to clone; every device has one.
#[derive(Clone)]
pub struct Clock {
    shared: Arc<Shared>,
}

impl Clock {
    /// A stopped clock at virtual time zero.
    pub fn new(source: Arc<dyn TimeSource>) -> Self {
        Clock {
            shared: Arc::new(Shared {
                source,
                running: AtomicBool::new(false),
                offset_ns: AtomicI64::new(0),
                turn: Mutex::new(()),
                queue: TimerQueue::default(),
                followers: Mutex::default(),
            }),
        }
    }

    /// Calls `follower` when virtual time starts (`true`) or halts, from whoever does it, with no lock
    /// of the clock's held: for timers that are not of this process and run on by themselves.
    pub fn follow(&self, follower: impl Fn(bool) + Send + Sync + 'static) {
        let mut followers = lock(&self.shared.followers);
        followers.push(Arc::new(follower));
    }

    fn tell(&self, runs: bool) {
        let followers = lock(&self.shared.followers).clone();
        followers.iter().for_each(|follower| follower(runs));
    }

    /// A running clock whose time is moved by the returned hand.
    pub fn manual() -> (Self, Arc<ManualTime>) {
        let time = ManualTime::new(0);
        let clock = Clock::new(time.clone());
        clock.start();
        (clock, time)
    }

    /// Virtual nanoseconds since the machine was made: stands still while the machine is stopped.
    pub fn now_ns(&self) -> u64 {
        let offset = self.shared.offset_ns.load(Ordering::Acquire);
        if self.shared.running.load(Ordering::Acquire) {
            self.shared
                .source
                .monotonic_ns()
                .wrapping_add_signed(offset)
        } else {
            offset.cast_unsigned()
        }
    }

    /// Nanoseconds since 1970-01-01 UTC: goes on while the machine is stopped.
    pub fn wall_ns(&self) -> u64 {
        self.shared.source.wall_ns()
    }

    /// The host's monotonic clock: goes on while the machine is stopped, and nobody sets it.
    pub fn host_ns(&self) -> u64 {
        self.shared.source.monotonic_ns()
    }

    /// `now_ns` in ticks of a counter of `hz`, exactly.
    pub fn ticks(&self, hz: u64) -> u64 {
        ns_to_ticks(self.now_ns(), hz)
    }

    /// Lets virtual time run. Called by the machine when its vCPUs start.
    pub fn start(&self) {
        let turn = lock(&self.shared.turn);
        let starts = !self.shared.running.load(Ordering::Acquire);
        if starts {
            let now = self
                .shared
                .offset_ns
                .load(Ordering::Acquire)
                .cast_unsigned();
            let offset = now.wrapping_sub(self.shared.source.monotonic_ns());
            self.shared
                .offset_ns
                .store(offset.cast_signed(), Ordering::Release);
            self.shared.running.store(true, Ordering::Release);
        }
        drop(turn);
        self.shared.queue.wake();
        if starts {
            self.tell(true);
        }
    }

    /// Halts virtual time. Called by the machine with all vCPUs parked.
    pub fn stop(&self) {
        let turn = lock(&self.shared.turn);
        let halts = self.shared.running.load(Ordering::Acquire);
        if halts {
            let now = self.now_ns();
            self.shared.running.store(false, Ordering::Release);
            self.shared
                .offset_ns
                .store(now.cast_signed(), Ordering::Release);
        }
        drop(turn);
        if halts {
            self.tell(false);
        }
    }

    /// Whether virtual time runs.
    pub fn is_running(&self) -> bool {
        self.shared.running.load(Ordering::Acquire)
    }

    /// Sets virtual time of a stopped clock: for restoring a saved machine.
    pub fn set_ns(&self, now_ns: u64) {
        let _turn = lock(&self.shared.turn);
        if !self.shared.running.load(Ordering::Acquire) {
            self.shared
                .offset_ns
                .store(now_ns.cast_signed(), Ordering::Release);
        }
    }

    /// The machine's timers: the main loop waits for and fires them.
    pub fn queue(&self) -> &TimerQueue {
        &self.shared.queue
    }

    /// A new timer on virtual time that calls `fire` from the main loop, with no lock held.
    pub fn timer(&self, fire: impl Fn() + Send + Sync + 'static) -> Timer {
        self.shared.queue.timer(Arc::new(fire))
    }

    /// Fires all timers that are due and returns the next deadline, in virtual nanoseconds.
    /// Called by the main loop only.
    pub fn run_timers(&self) -> Option<u64> {
        self.shared.queue.run(|| self.now_ns())
    }
}

/// Nanoseconds to ticks of `hz`, rounded down.
pub fn ns_to_ticks(ns: u64, hz: u64) -> u64 {
    const NS: u128 = NS_PER_S as u128;
    // Counters are read all the time: no division of 128 bits where it can be helped.
    let (seconds, rest) = (ns / NS_PER_S, ns % NS_PER_S);
    let whole = seconds.wrapping_mul(hz);
    let part = match rest.checked_mul(hz) {
        Some(product) => product / NS_PER_S,
        None => (u128::from(rest).wrapping_mul(u128::from(hz)) / NS) as u64,
    };
    whole.wrapping_add(part)
}

/// Ticks of `hz` to nanoseconds, rounded up: a timer must not fire before its tick.
pub fn ticks_to_ns(ticks: u64, hz: u64) -> u64 {
    if hz == 0 {
        return u64::MAX;
    }
    let product = u128::from(ticks).wrapping_mul(u128::from(NS_PER_S));
    let ns = product.checked_div(u128::from(hz)).unwrap_or(u128::MAX);
    let ns = ns.saturating_add(u128::from(!product.is_multiple_of(u128::from(hz))));
    u64::try_from(ns).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
