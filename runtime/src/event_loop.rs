//! A loop that waits for file descriptors, timers and closures posted by other threads.
//!
//! It sleeps in `poll(2)`, which also takes regular files and `/dev/null` (always ready), so standard input may be
//! anything. Every watch is level-triggered. Callbacks run on the loop's thread with no lock held.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{JoinHandle, ThreadId};
use std::time::Duration;

use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};

use crate::{thread, time};

type Job = Box<dyn FnOnce() + Send>;
type WatchCallback = Arc<Mutex<dyn FnMut(Ready) + Send>>;
type TimerCallback = Arc<Mutex<dyn FnMut() + Send>>;

/// What to wait for on a file descriptor.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Interest {
    /// Wake when it can be read, or has ended.
    pub read: bool,
    /// Wake when it can be written.
    pub write: bool,
}

impl Interest {
    /// Nothing: the watch sleeps, hang-ups included.
    pub const NONE: Self = Self {
        read: false,
        write: false,
    };
    /// Reading only.
    pub const READ: Self = Self {
        read: true,
        write: false,
    };
    /// Writing only.
    pub const WRITE: Self = Self {
        read: false,
        write: true,
    };

    fn flags(self) -> PollFlags {
        let mut flags = PollFlags::empty();
        flags.set(PollFlags::IN, self.read);
        flags.set(PollFlags::OUT, self.write);
        flags
    }
}

/// What a file descriptor is ready for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Ready {
    /// It can be read, or reading will say how it ended.
    pub read: bool,
    /// It can be written.
    pub write: bool,
    /// The other side has gone, or the descriptor is in error.
    pub hangup: bool,
}

/// The loop itself, owned by the thread that runs it.
#[derive(Debug)]
pub struct EventLoop {
    shared: Arc<Shared>,
}

/// What other threads and callbacks use to reach a loop. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Handle {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    wake: OwnedFd,
    quit: AtomicBool,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    posted: VecDeque<Job>,
    watches: BTreeMap<u64, WatchEntry>,
    timers: BTreeMap<u64, TimerEntry>,
    due: BTreeSet<(u64, u64)>,
    next_id: u64,
    /// The loop is in `poll` or about to be: a change must wake it.
    polling: bool,
    thread: Option<ThreadId>,
    closed: bool,
}

struct WatchEntry {
    fd: Arc<OwnedFd>,
    interest: Interest,
    callback: WatchCallback,
}

struct TimerEntry {
    deadline_ns: Option<u64>,
    callback: TimerCallback,
}

impl std::fmt::Debug for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("State")
            .field("posted", &self.posted.len())
            .field("watches", &self.watches.len())
            .field("timers", &self.timers.len())
            .finish_non_exhaustive()
    }
}

impl State {
    fn fresh_id(&mut self) -> u64 {
        self.next_id = self.next_id.wrapping_add(1);
        self.next_id
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes the loop look at its state again, if it might be sleeping on an older view.
    fn changed(&self, mut state: MutexGuard<'_, State>) {
        let wake = std::mem::take(&mut state.polling);
        drop(state);
        if wake {
            // A full counter means that a wake-up is pending already.
            let _ = rustix::io::write(&self.wake, &1u64.to_ne_bytes());
        }
    }
}

impl EventLoop {
    /// A loop with nothing to do.
    ///
    /// # Errors
    /// When the host has no descriptor left for the wake-up event.
    pub fn new() -> io::Result<Self> {
        let wake = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        let shared = Shared {
            wake,
            quit: AtomicBool::new(false),
            state: Mutex::default(),
        };
        Ok(Self {
            shared: Arc::new(shared),
        })
    }

    /// Starts a loop on a thread of its own; dropping the result ends it.
    ///
    /// # Errors
    /// When the host gives no thread or descriptor.
    pub fn spawn(name: &str) -> io::Result<LoopThread> {
        let mut event_loop = Self::new()?;
        let handle = event_loop.handle();
        let thread = thread::spawn(name, move || event_loop.run())?;
        Ok(LoopThread {
            handle,
            thread: Some(thread),
        })
    }

    /// A handle for others.
    pub fn handle(&self) -> Handle {
        Handle {
            shared: Arc::clone(&self.shared),
        }
    }

    /// Runs until [`Handle::quit`].
    pub fn run(&mut self) {
        while !self.shared.quit.load(Ordering::Acquire) {
            self.turn(None);
        }
    }

    /// Waits at most `timeout` (`None`: as long as it takes) for something to do, and does it once.
    pub fn turn(&mut self, timeout: Option<Duration>) {
        let ready = self.wait(timeout);
        self.run_posted();
        self.run_timers();
        for (id, ready) in ready {
            self.run_watch(id, ready);
        }
    }

    fn wait(&mut self, timeout: Option<Duration>) -> Vec<(u64, Ready)> {
        let (targets, timeout) = {
            let mut state = self.shared.state();
            state.thread = Some(std::thread::current().id());
            state.polling = true;
            let targets: Vec<_> = state
                .watches
                .iter()
                .filter(|(_, w)| w.interest != Interest::NONE)
                .map(|(id, w)| (*id, Arc::clone(&w.fd), w.interest))
                .collect();
            let mut timeout_ns = timeout.map(|t| u64::try_from(t.as_nanos()).unwrap_or(u64::MAX));
            if let Some((deadline, _)) = state.due.first() {
                let left = deadline.saturating_sub(time::monotonic_ns());
                timeout_ns = Some(timeout_ns.map_or(left, |t| t.min(left)));
            }
            if !state.posted.is_empty() || self.shared.quit.load(Ordering::Acquire) {
                timeout_ns = Some(0);
            }
            (targets, timeout_ns)
        };
        let timeout = timeout.map(|ns| Timespec {
            tv_sec: i64::try_from(ns / 1_000_000_000).unwrap_or(i64::MAX),
            // A remainder below 10^9 fits every host's field.
            #[allow(clippy::cast_possible_truncation, clippy::cast_possible_wrap)]
            tv_nsec: (ns % 1_000_000_000) as _,
        });
        let mut fds = Vec::with_capacity(targets.len().saturating_add(1));
        fds.push(PollFd::new(&self.shared.wake, PollFlags::IN));
        fds.extend(
            targets
                .iter()
                .map(|(_, fd, i)| PollFd::from_borrowed_fd(fd.as_fd(), i.flags())),
        );
        // An interrupted wait is an empty one: the caller looks at the world again.
        let woken = poll(&mut fds, timeout.as_ref()).is_ok();
        self.shared.state().polling = false;
        if !woken {
            return Vec::new();
        }
        if fds.first().is_some_and(|fd| !fd.revents().is_empty()) {
            let mut count = [0; 8];
            let _ = rustix::io::read(&self.shared.wake, &mut count);
        }
        fds.iter()
            .skip(1)
            .zip(&targets)
            .filter(|(fd, _)| !fd.revents().is_empty())
            .map(|(fd, (id, _, interest))| {
                let events = fd.revents();
                let hangup = events.intersects(PollFlags::HUP | PollFlags::ERR | PollFlags::NVAL);
                let read = interest.read && (events.contains(PollFlags::IN) || hangup);
                let write = interest.write && (events.contains(PollFlags::OUT) || hangup);
                (
                    *id,
                    Ready {
                        read,
                        write,
                        hangup,
                    },
                )
            })
            .collect()
    }

    fn run_posted(&mut self) {
        // Jobs posted by these jobs wait for the next turn, so that descriptors get theirs.
        let jobs = std::mem::take(&mut self.shared.state().posted);
        for job in jobs {
            job();
        }
    }

    fn run_timers(&mut self) {
        let now = time::monotonic_ns();
        let due: Vec<u64> = {
            let mut state = self.shared.state();
            let later = state.due.split_off(&(now.saturating_add(1), 0));
            std::mem::replace(&mut state.due, later)
                .into_iter()
                .map(|(_, id)| id)
                .collect()
        };
        for id in due {
            let callback = {
                let mut state = self.shared.state();
                // An earlier callback may have cancelled or moved this one.
                match state.timers.get_mut(&id) {
                    Some(t) if t.deadline_ns.is_some_and(|at| at <= now) => {
                        t.deadline_ns = None;
                        Arc::clone(&t.callback)
                    }
                    _ => continue,
                }
            };
            callback.lock().unwrap_or_else(PoisonError::into_inner)();
        }
    }

    fn run_watch(&mut self, id: u64, ready: Ready) {
        let (callback, ready) = {
            let state = self.shared.state();
            // An earlier callback of this turn may have dropped the watch or changed its interest.
            let Some(watch) = state.watches.get(&id) else {
                return;
            };
            let ready = Ready {
                read: ready.read && watch.interest.read,
                write: ready.write && watch.interest.write,
                hangup: ready.hangup,
            };
            (Arc::clone(&watch.callback), ready)
        };
        if ready.read || ready.write || ready.hangup {
            callback.lock().unwrap_or_else(PoisonError::into_inner)(ready);
        }
    }
}

impl Drop for EventLoop {
    fn drop(&mut self) {
        // Callbacks hold handles, and so the state that holds them: break the circle.
        let (posted, watches, timers) = {
            let mut state = self.shared.state();
            state.closed = true;
            state.due.clear();
            (
                std::mem::take(&mut state.posted),
                std::mem::take(&mut state.watches),
                std::mem::take(&mut state.timers),
            )
        };
        drop((posted, watches, timers));
    }
}

impl Handle {
    /// Runs `job` on the loop's thread, in the order posted. Dropped unrun when the loop has ended.
    pub fn post(&self, job: impl FnOnce() + Send + 'static) {
        let mut state = self.shared.state();
        if state.closed {
            return;
        }
        state.posted.push_back(Box::new(job));
        self.shared.changed(state);
    }

    /// Calls `callback` on the loop's thread whenever `fd` is ready for `interest`, until the watch is dropped.
    #[must_use = "dropping the watch ends it"]
    pub fn watch(
        &self,
        fd: Arc<OwnedFd>,
        interest: Interest,
        callback: impl FnMut(Ready) + Send + 'static,
    ) -> Watch {
        let mut state = self.shared.state();
        let id = state.fresh_id();
        if !state.closed {
            let callback = Arc::new(Mutex::new(callback));
            state.watches.insert(
                id,
                WatchEntry {
                    fd,
                    interest,
                    callback,
                },
            );
        }
        self.shared.changed(state);
        Watch {
            id,
            handle: self.clone(),
        }
    }

    /// A timer that is not armed yet; `callback` runs on the loop's thread at each deadline.
    #[must_use = "dropping the timer ends it"]
    pub fn timer(&self, callback: impl FnMut() + Send + 'static) -> Timer {
        let mut state = self.shared.state();
        let id = state.fresh_id();
        if !state.closed {
            let callback = Arc::new(Mutex::new(callback));
            state.timers.insert(
                id,
                TimerEntry {
                    deadline_ns: None,
                    callback,
                },
            );
        }
        Timer {
            id,
            handle: self.clone(),
        }
    }

    /// Ends [`EventLoop::run`] after the current turn.
    pub fn quit(&self) {
        self.shared.quit.store(true, Ordering::Release);
        self.shared.changed(self.shared.state());
    }

    /// Whether the caller is on the loop's thread.
    pub fn is_current(&self) -> bool {
        self.shared.state().thread == Some(std::thread::current().id())
    }
}

/// A watched file descriptor; dropping it ends the watch. A callback that is running on another thread finishes.
#[derive(Debug)]
pub struct Watch {
    id: u64,
    handle: Handle,
}

impl Watch {
    /// Waits for something else from now on. From any thread.
    pub fn set_interest(&self, interest: Interest) {
        let mut state = self.handle.shared.state();
        match state.watches.get_mut(&self.id) {
            Some(watch) if watch.interest != interest => watch.interest = interest,
            _ => return,
        }
        self.handle.shared.changed(state);
    }

    /// Adds or removes reading or writing, leaving the other as it is.
    pub fn update_interest(&self, change: impl FnOnce(&mut Interest)) {
        let mut state = self.handle.shared.state();
        let Some(watch) = state.watches.get_mut(&self.id) else {
            return;
        };
        let before = watch.interest;
        change(&mut watch.interest);
        if watch.interest != before {
            self.handle.shared.changed(state);
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let mut state = self.handle.shared.state();
        let gone = state.watches.remove(&self.id);
        self.handle.shared.changed(state);
        // The callback may own other watches: drop it with the state unlocked.
        drop(gone);
    }
}

/// A one-shot timer that can be armed again; dropping it ends it.
#[derive(Debug)]
pub struct Timer {
    id: u64,
    handle: Handle,
}

impl Timer {
    /// Fires once at `deadline_ns` of the host's monotonic clock ([`time::monotonic_ns`]), instead of any earlier plan.
    pub fn arm(&self, deadline_ns: u64) {
        self.plan(Some(deadline_ns));
    }

    /// Does not fire until armed again.
    pub fn cancel(&self) {
        self.plan(None);
    }

    fn plan(&self, deadline_ns: Option<u64>) {
        let mut state = self.handle.shared.state();
        let first = state.due.first().copied();
        let Some(timer) = state.timers.get_mut(&self.id) else {
            return;
        };
        let before = std::mem::replace(&mut timer.deadline_ns, deadline_ns);
        if let Some(at) = before {
            state.due.remove(&(at, self.id));
        }
        if let Some(at) = deadline_ns {
            state.due.insert((at, self.id));
        }
        // Only an earlier first deadline concerns a sleeping loop; a later one costs it one empty turn.
        if deadline_ns.is_some() && state.due.first().copied() != first {
            self.handle.shared.changed(state);
        }
    }
}

impl Drop for Timer {
    fn drop(&mut self) {
        let gone = {
            let mut state = self.handle.shared.state();
            let gone = state.timers.remove(&self.id);
            if let Some(at) = gone.as_ref().and_then(|t| t.deadline_ns) {
                state.due.remove(&(at, self.id));
            }
            gone
        };
        drop(gone);
    }
}

/// A loop on its own thread; dropping it ends the loop and waits for the thread.
#[derive(Debug)]
pub struct LoopThread {
    handle: Handle,
    thread: Option<JoinHandle<()>>,
}

impl LoopThread {
    /// A handle to the loop.
    pub fn handle(&self) -> Handle {
        self.handle.clone()
    }
}

impl Drop for LoopThread {
    fn drop(&mut self) {
        self.handle.quit();
        if let Some(thread) = self.thread.take() {
            // The last owner may be a callback of the loop itself: it cannot wait for itself.
            if !self.handle.is_current() {
                let _ = thread.join();
            }
        }
    }
}

#[cfg(test)]
mod tests;
