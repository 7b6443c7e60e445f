use std::sync::atomic::AtomicU32;

use hw_clock::ManualTime;

use super::*;

const S: u64 = 1_000_000_000;

struct Bench {
    clock: Clock,
    time: Arc<ManualTime>,
    group: Arc<ThrottleGroup>,
    passed: Arc<AtomicU32>,
}

impl Bench {
    fn new(limits: &[(Limited, Limit)], iops_size: u64) -> Self {
        let (clock, time) = Clock::manual();
        let group = Throttles::default().group("g", &clock);
        let mut all = Limits {
            iops_size,
            ..Limits::default()
        };
        limits
            .iter()
            .for_each(|(what, limit)| all.set(*what, *limit));
        all.check().unwrap();
        group.set_limits(all);
        Bench {
            clock,
            time,
            group,
            passed: Arc::default(),
        }
    }

    fn job(&self) -> Work {
        let passed = self.passed.clone();
        Box::new(move || {
            passed.fetch_add(1, Ordering::Relaxed);
        })
    }

    fn passed(&self) -> u32 {
        self.passed.load(Ordering::Relaxed)
    }

    fn advance(&self, ns: u64) {
        let end = self.clock.now_ns() + ns;
        while let Some(at) = self.clock.queue().next_ns().filter(|at| *at <= end) {
            self.time.advance_ns(at.saturating_sub(self.clock.now_ns()));
            self.clock.run_timers();
        }
        self.time.advance_ns(end - self.clock.now_ns());
    }
}

fn average(average: u64) -> Limit {
    Limit {
        average,
        ..Limit::default()
    }
}

#[test]
fn after_the_slack_requests_pass_at_the_rate_to_the_nanosecond() {
    // A hundred a second: ten may come at once, and one that fills the brim.
    let bench = Bench::new(&[(Limited::Iops, average(100))], 0);
    let member = bench.group.member();
    (0..20).for_each(|_| member.admit(Direction::Read, 512, bench.job()));
    assert_eq!(bench.passed(), 11);
    bench.advance(S / 100 - 1);
    assert_eq!(bench.passed(), 11);
    bench.advance(1);
    assert_eq!(bench.passed(), 12);
    bench.advance(S / 20);
    assert_eq!(bench.passed(), 17);
}

#[test]
fn in_the_long_run_the_rate_is_exact() {
    let bench = Bench::new(&[(Limited::BpsWrite, average(1 << 20))], 0);
    let member = bench.group.member();
    (0..4000).for_each(|_| member.admit(Direction::Write, 4096, bench.job()));
    let before = bench.passed();
    bench.advance(10 * S);
    // 256 requests of 4 KiB are 1 MiB.
    assert_eq!(bench.passed() - before, 2560);
    member.admit(Direction::Read, 1 << 30, bench.job());
    assert_eq!(bench.passed() - before, 2561, "reads have no limit");
}

#[test]
fn a_burst_goes_at_its_rate_for_its_time_and_then_at_the_average() {
    let burst = Limit {
        average: 100,
        max: 1000,
        burst_s: 5,
    };
    let bench = Bench::new(&[(Limited::Iops, burst)], 0);
    let member = bench.group.member();
    (0..20_000).for_each(|_| member.admit(Direction::Read, 512, bench.job()));
    let slack = bench.passed();
    assert_eq!(slack, 101);
    bench.advance(S);
    assert_eq!(bench.passed() - slack, 1000);
    // The bucket of 5000 is full after 5000 / (1000 - 100) seconds.
    bench.advance(9 * S);
    let full = bench.passed();
    assert_eq!(full, 5001 + 1000);
    bench.advance(10 * S);
    assert_eq!(bench.passed() - full, 1000);
}

#[test]
fn large_requests_count_as_several_of_iops_size() {
    let bench = Bench::new(&[(Limited::Iops, average(10))], 4096);
    let member = bench.group.member();
    member.admit(Direction::Read, 6144, bench.job());
    member.admit(Direction::Read, 512, bench.job());
    assert_eq!(bench.passed(), 1);
    // One and a half are half a request above the brim of one.
    bench.advance(S / 20 - 1);
    assert_eq!(bench.passed(), 1);
    bench.advance(1);
    assert_eq!(bench.passed(), 2);
}

#[test]
fn members_of_a_group_take_turns() {
    let bench = Bench::new(&[(Limited::Iops, average(10))], 0);
    let (a, b) = (bench.group.member(), bench.group.member());
    let order = Arc::new(Mutex::new(String::new()));
    let note = |name: char| -> Work {
        let order = order.clone();
        Box::new(move || order.lock().unwrap().push(name))
    };
    (0..6).for_each(|_| a.admit(Direction::Read, 512, note('a')));
    (0..3).for_each(|_| b.admit(Direction::Read, 512, note('b')));
    bench.advance(S);
    assert_eq!(*order.lock().unwrap(), "aabababaa");
}

#[test]
fn nothing_is_held_back_while_somebody_waits_or_time_stands_still() {
    let bench = Bench::new(&[(Limited::Iops, average(1))], 0);
    let member = bench.group.member();
    (0..5).for_each(|_| member.admit(Direction::Write, 512, bench.job()));
    assert_eq!(bench.passed(), 1);
    member.hurry(true);
    assert_eq!(bench.passed(), 5);
    member.admit(Direction::Write, 512, bench.job());
    assert_eq!(bench.passed(), 6);
    member.hurry(false);
    member.admit(Direction::Write, 512, bench.job());
    assert_eq!(bench.passed(), 6);
    bench.clock.stop();
    assert_eq!(bench.passed(), 7);
    member.admit(Direction::Write, 512, bench.job());
    assert_eq!(bench.passed(), 8);
}

#[test]
fn limits_that_make_no_sense_are_refused() {
    let check = |limits: &[(Limited, Limit)]| {
        let mut all = Limits::default();
        limits
            .iter()
            .for_each(|(what, limit)| all.set(*what, *limit));
        all.check()
    };
    let limit = |average, max, burst_s| Limit {
        average,
        max,
        burst_s,
    };
    assert!(check(&[(Limited::Bps, average(1)), (Limited::BpsRead, average(1))]).is_err());
    for bad in [
        limit(0, 1, 1),
        limit(2, 1, 1),
        limit(1, 0, 2),
        limit(1, 2, 0),
        limit(RATE_MAX + 1, 0, 1),
    ] {
        assert!(check(&[(Limited::Iops, bad)]).is_err(), "{bad:?}");
    }
    let sized = Limits {
        iops_size: 1,
        ..Limits::default()
    };
    assert!(sized.check().is_err());
}
