//! Throttling: leaky buckets with bursts, for one disk or a group of disks that share them.
//!
//! A request passes while each bucket that it fills is below its brim; then it is poured in, however
//! large it is. Buckets leak at the average rate. With a burst rate the brim is what the burst may
//! bring, and a second bucket keeps the burst itself to its rate. Time is virtual; while it stands
//! still, nothing is held back. Levels are exact: they count in units times nanoseconds.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};

use control_options::{PropDef, PropKind, Props};
use hw_clock::{Clock, Timer};

use crate::Work;

const NS_PER_S: u128 = 1_000_000_000;
/// Without a burst rate, what a tenth of a second brings may come at once.
const SLACK: u128 = 10;
/// Largest rate (QEMU's `THROTTLE_VALUE_MAX`).
const RATE_MAX: u64 = 1_000_000_000_000_000;

/// A rate: bytes or requests in a second.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limit {
    /// In the long run; 0 for no limit.
    pub average: u64,
    /// In a burst; 0 for none.
    pub max: u64,
    /// How many seconds a burst lasts.
    pub burst_s: u64,
}

impl Default for Limit {
    fn default() -> Self {
        Limit {
            average: 0,
            max: 0,
            burst_s: 1,
        }
    }
}

/// The properties of all limits, their names begun with a prefix.
#[macro_export]
macro_rules! limit_props {
    ($prefix:literal) => {
        $crate::limit_props! { $prefix:
            "bps-total" = "bytes a second",
            "bps-read" = "bytes read a second",
            "bps-write" = "bytes written a second",
            "iops-total" = "requests a second",
            "iops-read" = "reads a second",
            "iops-write" = "writes a second",
        }
    };
    ($prefix:literal: $($name:literal = $doc:literal,)*) => {
        &[
            $(
                $crate::PropDef::new(
                    concat!($prefix, $name),
                    $crate::LIMIT_RATE,
                    concat!("most ", $doc),
                ),
                $crate::PropDef::new(
                    concat!($prefix, $name, "-max"),
                    $crate::LIMIT_RATE,
                    concat!("most ", $doc, " in a burst"),
                ),
                $crate::PropDef::new(
                    concat!($prefix, $name, "-max-length"),
                    $crate::LIMIT_RATE,
                    "seconds that such a burst lasts",
                ),
            )*
            $crate::PropDef::new(
                concat!($prefix, "iops-size"),
                $crate::LIMIT_RATE,
                "bytes that count as one request",
            ),
        ]
    };
}

/// Properties of a drive's limits (`throttling.*`).
pub const THROTTLE_PROPS: &[PropDef] = limit_props!("");
/// What rates are.
pub const LIMIT_RATE: PropKind = PropKind::U64;

/// What a limit is about.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Limited {
    /// Bytes read and written.
    Bps,
    /// Bytes read.
    BpsRead,
    /// Bytes written.
    BpsWrite,
    /// Requests.
    Iops,
    /// Reads.
    IopsRead,
    /// Writes.
    IopsWrite,
}

impl Limited {
    /// All of them, with the words of `throttling.*` and those of `block_set_io_throttle`.
    pub const ALL: [(Self, &str, &str); 6] = [
        (Self::Bps, "bps-total", "bps"),
        (Self::BpsRead, "bps-read", "bps_rd"),
        (Self::BpsWrite, "bps-write", "bps_wr"),
        (Self::Iops, "iops-total", "iops"),
        (Self::IopsRead, "iops-read", "iops_rd"),
        (Self::IopsWrite, "iops-write", "iops_wr"),
    ];

    fn is_bytes(self) -> bool {
        matches!(self, Self::Bps | Self::BpsRead | Self::BpsWrite)
    }

    fn counts(self, direction: Direction) -> bool {
        match self {
            Self::Bps | Self::Iops => true,
            Self::BpsRead | Self::IopsRead => direction == Direction::Read,
            Self::BpsWrite | Self::IopsWrite => direction == Direction::Write,
        }
    }
}

/// Which way a request goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Direction {
    /// From the disk.
    Read,
    /// To the disk.
    Write,
}

/// All limits of a group.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Limits {
    limits: [Limit; 6],
    /// Bytes that count as one request; 0 for any number.
    pub iops_size: u64,
}

impl Limits {
    /// No limits, but that so many bytes count as one request.
    pub fn of_size(iops_size: u64) -> Self {
        Limits {
            iops_size,
            ..Limits::default()
        }
    }

    /// One of them.
    pub fn get(&self, what: Limited) -> Limit {
        let all = Limited::ALL.iter().zip(self.limits);
        let found = all.into_iter().find(|((of, ..), _)| *of == what);
        found.map(|(_, limit)| limit).unwrap_or_default()
    }

    /// Sets one of them.
    pub fn set(&mut self, what: Limited, limit: Limit) {
        for ((of, ..), slot) in Limited::ALL.iter().zip(&mut self.limits) {
            if *of == what {
                *slot = limit;
            }
        }
    }

    /// Whether anything is limited.
    pub fn is_on(&self) -> bool {
        self.limits.iter().any(|limit| limit.average != 0)
    }

    /// From properties of [`limit_props!`] with this prefix.
    pub fn from_props(props: &Props, prefix: &str) -> Self {
        let read = |name: &str| props.unsigned(&format!("{prefix}{name}"));
        let mut limits = Limits::of_size(read("iops-size").unwrap_or(0));
        for (what, name, _) in Limited::ALL {
            let limit = Limit {
                average: read(name).unwrap_or(0),
                max: read(&format!("{name}-max")).unwrap_or(0),
                burst_s: read(&format!("{name}-max-length")).unwrap_or(1),
            };
            limits.set(what, limit);
        }
        limits
    }

    /// Looks for what makes no sense.
    ///
    /// # Errors
    /// What, in a sentence.
    pub fn check(&self) -> Result<(), String> {
        for (total, read, write) in [
            (Limited::Bps, Limited::BpsRead, Limited::BpsWrite),
            (Limited::Iops, Limited::IopsRead, Limited::IopsWrite),
        ] {
            let is_set = |what| self.get(what).average != 0 || self.get(what).max != 0;
            if is_set(total) && (is_set(read) || is_set(write)) {
                return Err("bps/iops/max total values and read/write values cannot be used at the same time".to_owned());
            }
        }
        if self.iops_size != 0 && !self.limits.iter().skip(3).any(|limit| limit.average != 0) {
            return Err("iops size requires an iops value to be set".to_owned());
        }
        for ((_, name, _), limit) in Limited::ALL.iter().zip(self.limits) {
            let bad = |problem: &str| Err(format!("{name}: {problem}"));
            if limit.average > RATE_MAX || limit.max > RATE_MAX {
                return bad(&format!(
                    "bps/iops/max values must be within [0, {RATE_MAX}]"
                ));
            }
            if limit.burst_s == 0 {
                return bad("the burst length cannot be 0");
            }
            if limit.burst_s > 1 && limit.max == 0 {
                return bad("burst length set without burst rate");
            }
            if limit
                .max
                .checked_mul(limit.burst_s)
                .is_none_or(|n| n > RATE_MAX)
            {
                return bad("burst length too high for this burst rate");
            }
            if limit.max != 0 && limit.average == 0 {
                return bad("bps_max/iops_max require corresponding bps/iops values");
            }
            if limit.max != 0 && limit.max < limit.average {
                return bad("bps_max/iops_max cannot be lower than bps/iops");
            }
        }
        Ok(())
    }
}

#[derive(Clone, Copy, Default)]
struct Bucket {
    limit: Limit,
    /// In units times nanoseconds.
    level: u128,
    /// What has come in a burst.
    burst: u128,
}

fn scaled(units: u64) -> u128 {
    u128::from(units).saturating_mul(NS_PER_S)
}

impl Bucket {
    fn leak(&mut self, ns: u64) {
        let leaked = |rate: u64| u128::from(rate).saturating_mul(u128::from(ns));
        self.level = self.level.saturating_sub(leaked(self.limit.average));
        self.burst = self.burst.saturating_sub(leaked(self.limit.max));
    }

    /// Nanoseconds until it is below its brim.
    fn wait_ns(&self) -> u64 {
        let Limit {
            average,
            max,
            burst_s,
        } = self.limit;
        if average == 0 {
            return 0;
        }
        let slack = |rate| scaled(rate).checked_div(SLACK).unwrap_or(0);
        let brim = match max {
            0 => slack(average),
            max => scaled(max).saturating_mul(u128::from(burst_s)),
        };
        let over = |level: u128, brim, rate: u64| {
            let over = level.saturating_sub(brim);
            u64::try_from(over.div_ceil(u128::from(rate.max(1)))).unwrap_or(u64::MAX)
        };
        let wait = over(self.level, brim, average);
        match burst_s > 1 {
            true => wait.max(over(self.burst, slack(max), max)),
            false => wait,
        }
    }

    fn pour(&mut self, amount: u128) {
        self.level = self.level.saturating_add(amount);
        if self.limit.burst_s > 1 {
            self.burst = self.burst.saturating_add(amount);
        }
    }
}

struct Waiting {
    member: u64,
    bytes: u64,
    job: Work,
}

#[derive(Default)]
struct Queue {
    waiting: VecDeque<Waiting>,
    /// Whose request passed last: the next is another's, if another waits.
    served: u64,
}

impl Queue {
    /// The first request of the member after the one that was served last.
    fn take(&mut self) -> Option<Waiting> {
        let served = self.served;
        let turn = |w: &Waiting| (w.member <= served, w.member);
        let next = self.waiting.iter().map(turn).min()?;
        let at = self.waiting.iter().position(|w| turn(w) == next)?;
        self.served = next.1;
        self.waiting.remove(at)
    }
}

#[derive(Default)]
struct State {
    limits: Limits,
    buckets: [Bucket; 6],
    last_ns: u64,
    reads: Queue,
    writes: Queue,
}

impl State {
    fn queue(&mut self, direction: Direction) -> &mut Queue {
        match direction {
            Direction::Read => &mut self.reads,
            Direction::Write => &mut self.writes,
        }
    }

    fn leak(&mut self, now_ns: u64) {
        let passed = now_ns.saturating_sub(self.last_ns);
        self.last_ns = self.last_ns.max(now_ns);
        self.buckets.iter_mut().for_each(|b| b.leak(passed));
    }

    fn wait_ns(&self, direction: Direction) -> u64 {
        let buckets = Limited::ALL.iter().zip(&self.buckets);
        let counted = buckets.filter(|((what, ..), _)| what.counts(direction));
        counted.map(|(_, b)| b.wait_ns()).max().unwrap_or(0)
    }

    fn pour(&mut self, direction: Direction, bytes: u64) {
        let request = match self.limits.iops_size {
            size if size != 0 && bytes > size => scaled(bytes)
                .checked_div(u128::from(size))
                .unwrap_or(NS_PER_S),
            _ => NS_PER_S,
        };
        for ((what, ..), bucket) in Limited::ALL.iter().zip(&mut self.buckets) {
            if what.counts(direction) {
                bucket.pour(match what.is_bytes() {
                    true => scaled(bytes),
                    false => request,
                });
            }
        }
    }

    /// All that wait and may be let through now, and when to look again.
    fn due(&mut self, direction: Direction, now_ns: u64) -> (Vec<Work>, Option<u64>) {
        self.leak(now_ns);
        let mut jobs = Vec::new();
        loop {
            if self.queue(direction).waiting.is_empty() {
                return (jobs, None);
            }
            match self.wait_ns(direction) {
                0 => {}
                wait => return (jobs, Some(now_ns.saturating_add(wait))),
            }
            if let Some(next) = self.queue(direction).take() {
                self.pour(direction, next.bytes);
                jobs.push(next.job);
            }
        }
    }

    /// Takes out all that wait, or those of one member.
    fn release(&mut self, member: Option<u64>) -> Vec<Work> {
        let mut jobs = Vec::new();
        for queue in [&mut self.reads, &mut self.writes] {
            for waiting in std::mem::take(&mut queue.waiting) {
                match member.is_none_or(|member| member == waiting.member) {
                    true => jobs.push(waiting.job),
                    false => queue.waiting.push_back(waiting),
                }
            }
        }
        jobs
    }
}

/// Limits that disks share.
pub struct ThrottleGroup {
    name: String,
    clock: Clock,
    state: Mutex<State>,
    timers: OnceLock<[Timer; 2]>,
    next_member: AtomicU64,
}

impl ThrottleGroup {
    fn new(name: &str, clock: &Clock) -> Arc<Self> {
        let group = Arc::new(ThrottleGroup {
            name: name.to_owned(),
            clock: clock.clone(),
            state: Mutex::default(),
            timers: OnceLock::new(),
            next_member: AtomicU64::new(1),
        });
        let timer = |direction| {
            let weak = Arc::downgrade(&group);
            clock.timer(move || {
                if let Some(group) = Weak::upgrade(&weak) {
                    group.pump(direction);
                }
            })
        };
        let _ = group
            .timers
            .set([timer(Direction::Read), timer(Direction::Write)]);
        let weak = Arc::downgrade(&group);
        clock.follow(move |runs| {
            if let Some(group) = weak.upgrade().filter(|_| !runs) {
                let jobs = group.lock().release(None);
                jobs.into_iter().for_each(|job| job());
            }
        });
        group
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Its limits.
    pub fn limits(&self) -> Limits {
        self.lock().limits
    }

    /// Other limits from now on; what was poured in is forgotten.
    pub fn set_limits(&self, limits: Limits) {
        {
            let mut state = self.lock();
            state.limits = limits;
            for (bucket, limit) in state.buckets.iter_mut().zip(limits.limits) {
                *bucket = Bucket {
                    limit,
                    ..Bucket::default()
                };
            }
        }
        self.pump(Direction::Read);
        self.pump(Direction::Write);
    }

    fn arm(&self, direction: Direction, at_ns: u64) {
        if let Some([reads, writes]) = self.timers.get() {
            match direction {
                Direction::Read => reads.arm(at_ns),
                Direction::Write => writes.arm(at_ns),
            }
        }
    }

    fn pump(&self, direction: Direction) {
        let (jobs, again) = self.lock().due(direction, self.clock.now_ns());
        if let Some(at) = again {
            self.arm(direction, at);
        }
        jobs.into_iter().for_each(|job| job());
    }

    /// A new member of the group.
    pub fn member(self: &Arc<Self>) -> Member {
        Member {
            group: self.clone(),
            id: self.next_member.fetch_add(1, Ordering::Relaxed),
            hurries: AtomicUsize::new(0),
        }
    }
}

/// A disk's place in a group.
pub struct Member {
    group: Arc<ThrottleGroup>,
    id: u64,
    hurries: AtomicUsize,
}

impl Member {
    /// The group.
    pub fn group(&self) -> &Arc<ThrottleGroup> {
        &self.group
    }

    /// Calls `job` as soon as a request of this size may pass: now, or later from the main loop.
    pub fn admit(&self, direction: Direction, bytes: u64, job: Work) {
        let mut state = self.group.lock();
        let is_free = !self.group.clock.is_running() || self.hurries.load(Ordering::Acquire) != 0;
        let now = self.group.clock.now_ns();
        state.leak(now);
        let is_first = state.queue(direction).waiting.is_empty();
        let wait = match is_free {
            true => 0,
            false => state.wait_ns(direction),
        };
        if is_free || (is_first && wait == 0) {
            state.pour(direction, bytes);
            state.queue(direction).served = self.id;
            drop(state);
            return job();
        }
        let member = self.id;
        let waiting = &mut state.queue(direction).waiting;
        waiting.push_back(Waiting { member, bytes, job });
        drop(state);
        if is_first {
            self.group.arm(direction, now.saturating_add(wait));
        }
    }

    /// Lets all requests through, waiting or new, because somebody waits for them; or no longer.
    pub fn hurry(&self, on: bool) {
        if on {
            self.hurries.fetch_add(1, Ordering::AcqRel);
            self.release();
        } else {
            self.hurries.fetch_sub(1, Ordering::AcqRel);
        }
    }

    fn release(&self) {
        let jobs = self.group.lock().release(Some(self.id));
        jobs.into_iter().for_each(|job| job());
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        self.release();
    }
}

/// All groups by name.
#[derive(Clone, Default)]
pub struct Throttles {
    inner: Arc<Mutex<Groups>>,
}

#[derive(Default)]
struct Groups {
    all: BTreeMap<String, Weak<ThrottleGroup>>,
    /// Made by `-object throttle-group`.
    owned: BTreeMap<String, Arc<ThrottleGroup>>,
}

impl Throttles {
    fn lock(&self) -> MutexGuard<'_, Groups> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The group of this name.
    pub fn find(&self, name: &str) -> Option<Arc<ThrottleGroup>> {
        self.lock().all.get(name)?.upgrade()
    }

    /// The names of all groups.
    pub fn names(&self) -> Vec<String> {
        let groups = self.lock();
        let alive = groups.all.iter().filter(|(_, g)| g.strong_count() != 0);
        alive.map(|(name, _)| name.clone()).collect()
    }

    /// The group of this name, made if it is not there: it lives as long as it has members.
    pub fn group(&self, name: &str, clock: &Clock) -> Arc<ThrottleGroup> {
        let mut groups = self.lock();
        groups.all.retain(|_, group| group.strong_count() != 0);
        if let Some(group) = groups.all.get(name).and_then(Weak::upgrade) {
            return group;
        }
        let group = ThrottleGroup::new(name, clock);
        groups.all.insert(name.to_owned(), Arc::downgrade(&group));
        group
    }

    /// Keeps a group, also without members.
    pub fn own(&self, group: Arc<ThrottleGroup>) {
        self.lock().owned.insert(group.name.clone(), group);
    }

    /// Lets go of a group that is kept, unless it has members: whether it is gone; `None` if there is
    /// no such group.
    pub fn disown(&self, name: &str) -> Option<bool> {
        let mut groups = self.lock();
        let is_free = Arc::strong_count(groups.owned.get(name)?) == 1;
        if is_free {
            groups.owned.remove(name);
        }
        Some(is_free)
    }
}

#[cfg(test)]
mod tests;
