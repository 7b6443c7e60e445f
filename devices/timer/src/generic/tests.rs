use std::sync::atomic::{AtomicU32, Ordering};

use hw_core::{Fabric, Placement};

use super::GenericTimer::{Physical, Virtual};
use super::*;

const HZ: u64 = 62_500_000;
const NS_PER_TICK: u64 = 16;

struct Bench {
    fabric: Fabric,
    time: Arc<hw_clock::ManualTime>,
    timers: Arc<GenericTimers>,
    part: Arc<hw_core::Part>,
    /// A bit for each timer of each CPU.
    levels: Arc<AtomicU32>,
}

fn bench() -> Bench {
    let (clock, time) = Clock::manual();
    let fabric = Fabric::new(clock.clone());
    let levels = Arc::new(AtomicU32::new(0));
    let seen = levels.clone();
    let sink: Arc<dyn hw_core::IrqSink> = Arc::new(move |pin: u32, level: bool| {
        if level {
            seen.fetch_or(1 << pin, Ordering::SeqCst);
        } else {
            seen.fetch_and(!(1 << pin), Ordering::SeqCst);
        }
    });
    let timers = GenericTimers::new(&clock, HZ, 2, |cpu, kind| {
        IrqLine::new(sink.clone(), cpu * 8 + kind as u32)
    });
    let device = Box::new(GenericTimersDevice::new(timers.clone()));
    let part = fabric.add(device, Placement::default()).unwrap();
    Bench {
        fabric,
        time,
        timers,
        part,
        levels,
    }
}

impl Bench {
    fn level(&self, cpu: u32, kind: GenericTimer) -> bool {
        self.levels.load(Ordering::SeqCst) & 1 << (cpu * 8 + kind as u32) != 0
    }

    fn pass_ns(&self, ns: u64) {
        self.time.advance_ns(ns);
        self.fabric.clock.run_timers();
    }
}

#[test]
fn a_timer_fires_at_its_tick_and_not_before() {
    let b = bench();
    b.timers.set_compare(1, Physical, 100);
    b.timers.set_control(1, Physical, 1);
    b.pass_ns(100 * NS_PER_TICK - 1);
    assert_eq!(
        (b.level(1, Physical), b.timers.control(1, Physical)),
        (false, 1)
    );
    b.pass_ns(1);
    assert_eq!(
        (b.level(1, Physical), b.timers.control(1, Physical)),
        (true, 5)
    );
    assert!(!b.level(0, Physical));
    b.timers.set_compare(1, Physical, 200);
    assert!(!b.level(1, Physical), "it is a level");
}

#[test]
fn a_masked_timer_shows_its_status_only() {
    let b = bench();
    b.timers.set_control(0, Physical, 3);
    assert_eq!(
        (b.level(0, Physical), b.timers.control(0, Physical)),
        (false, 7)
    );
    assert_eq!(b.fabric.clock.queue().next_ns(), None);
    b.timers.set_control(0, Physical, 1);
    assert!(b.level(0, Physical));
}

#[test]
fn the_virtual_timer_counts_from_its_offset() {
    let b = bench();
    b.timers.set_compare(0, Virtual, 10);
    b.timers.set_offset(0, 50);
    b.timers.set_control(0, Virtual, 1);
    // The virtual counter begins below zero, which is far beyond ten.
    assert!(b.level(0, Virtual));
    b.pass_ns(50 * NS_PER_TICK);
    b.timers.set_compare(0, Virtual, 10);
    assert!(!b.level(0, Virtual));
    b.pass_ns(10 * NS_PER_TICK);
    assert!(b.level(0, Virtual));
}

#[test]
fn a_deadline_that_never_comes_is_none() {
    let b = bench();
    b.pass_ns(1000);
    b.timers.set_compare(0, Physical, u64::MAX);
    b.timers.set_control(0, Physical, 1);
    b.pass_ns(1000);
    assert!(!b.level(0, Physical));
}

#[test]
fn a_reset_silences_them_and_a_restore_brings_them_back() {
    let b = bench();
    b.timers.set_compare(1, Virtual, 7);
    b.timers.set_control(1, Virtual, 1);
    b.pass_ns(1000);
    assert!(b.level(1, Virtual));
    let saved = b.part.with(|d| d.save());
    b.fabric.reset(ResetKind::Cold);
    assert!(!b.level(1, Virtual));
    b.part.with(|d| d.restore(&saved)).unwrap();
    b.part.with(|d| d.after_reset());
    assert!(b.level(1, Virtual));
    assert_eq!(saved, b.part.with(|d| d.save()));
}
