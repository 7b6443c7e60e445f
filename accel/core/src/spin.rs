//! Guests that wait in a loop: how long a CPU sleeps that does nothing but say so.
//!
//! A loop with PAUSE, YIELD or WFE in it waits for a clock, an interrupt or another CPU. A short wait is
//! worth more than the host's time; the longer it lasts, the less a little more of it matters. So a CPU
//! that has waited for a while sleeps an eighth of that at a time: a guest's delay takes at most an eighth
//! longer, and nearly no processor time. Interrupts end the sleep.

use std::time::{Duration, Instant};

/// Most instructions from one PAUSE to the next in a loop that does nothing else.
const MOST_INSNS: u64 = 256;
/// PAUSEs between two looks at the clock.
const LOOK_EVERY: u32 = 16;
/// What part of the time waited so far a sleep takes.
const PART: u32 = 8;
/// The shortest sleep: hosts do not wake a thread more exactly.
const SHORTEST: Duration = Duration::from_micros(50);
/// The longest.
const LONGEST: Duration = Duration::from_millis(1);

/// What is known of the loop that a CPU may be in.
#[derive(Default)]
pub(crate) struct Spin {
    /// Instructions executed by the last PAUSE.
    insns: u64,
    /// PAUSEs in the loop.
    pauses: u32,
    /// When the clock was first looked at.
    since: Option<Instant>,
    /// It has lasted long enough for sleeps.
    is_long: bool,
}

impl Spin {
    /// A PAUSE, when so many instructions have been executed. Returns how long to sleep.
    pub(crate) fn pause(&mut self, insns: u64, now: impl Fn() -> Instant) -> Option<Duration> {
        if insns.wrapping_sub(self.insns) > MOST_INSNS {
            *self = Spin::default();
        }
        self.insns = insns;
        self.pauses = self.pauses.wrapping_add(1);
        if !self.is_long && !self.pauses.is_multiple_of(LOOK_EVERY) {
            return None;
        }
        let now = now();
        let since = *self.since.get_or_insert(now);
        let sleep = now.saturating_duration_since(since) / PART;
        self.is_long = sleep >= SHORTEST;
        self.is_long.then(|| sleep.min(LONGEST))
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    /// A loop of so many instructions a turn, each of which takes a microsecond: the host's time used, and
    /// the time that passed, once it has waited for this long.
    fn wait(insns: u64, until: Duration) -> (Duration, Duration) {
        let start = Instant::now();
        let (used, passed) = (Cell::new(Duration::ZERO), Cell::new(Duration::ZERO));
        let mut spin = Spin::default();
        let mut executed = 0;
        while passed.get() < until {
            executed += insns;
            let turn = Duration::from_micros(1);
            used.set(used.get() + turn);
            passed.set(passed.get() + turn);
            if let Some(sleep) = spin.pause(executed, || start + passed.get()) {
                passed.set(passed.get() + sleep);
            }
        }
        (used.get(), passed.get())
    }

    #[test]
    fn a_short_wait_is_not_slept_through() {
        let time = Duration::from_micros(300);
        assert_eq!(wait(5, time), (time, time));
    }

    #[test]
    fn a_long_wait_takes_little_of_the_host_and_is_little_longer() {
        for wanted in [1, 10, 40, 1000].map(Duration::from_millis) {
            let (used, passed) = wait(5, wanted);
            assert!(passed < wanted + wanted / 7, "{wanted:?}: {passed:?}");
            let most = Duration::from_micros(600) + wanted / 500;
            assert!(used < most, "{wanted:?}: {used:?}");
        }
    }

    #[test]
    fn a_loop_that_works_is_left_alone() {
        let time = Duration::from_millis(20);
        assert_eq!(wait(1000, time), (time, time));
    }
}
