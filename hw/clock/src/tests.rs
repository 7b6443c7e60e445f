use super::*;
use std::sync::atomic::AtomicUsize;

#[test]
fn virtual_time_stands_still_while_stopped() {
    let (clock, time) = Clock::manual();
    time.advance_ns(10);
    clock.stop();
    time.advance_ns(100);
    assert_eq!(clock.now_ns(), 10);
    clock.start();
    time.advance_ns(5);
    assert_eq!(clock.now_ns(), 15);
}

#[test]
fn a_timer_fires_once_at_its_deadline() {
    let (clock, time) = Clock::manual();
    let fired = Arc::new(AtomicUsize::new(0));
    let seen = fired.clone();
    let timer = clock.timer(move || {
        seen.fetch_add(1, Ordering::SeqCst);
    });
    timer.arm(50);
    assert_eq!(clock.run_timers(), Some(50));
    time.advance_ns(50);
    assert_eq!(clock.run_timers(), None);
    assert_eq!(clock.run_timers(), None);
    assert_eq!(fired.load(Ordering::SeqCst), 1);
}

#[test]
fn a_dropped_timer_never_fires() {
    let (clock, time) = Clock::manual();
    let timer = clock.timer(|| panic!("fired"));
    timer.arm(1);
    drop(timer);
    time.advance_ns(2);
    assert_eq!(clock.run_timers(), None);
}

#[test]
fn ticks_and_nanoseconds_agree() {
    assert_eq!(ns_to_ticks(NS_PER_S, 1_193_182), 1_193_182);
    assert_eq!(ns_to_ticks(ticks_to_ns(12345, 3_579_545), 3_579_545), 12345);
    for (ns, hz) in [
        (3, 1),
        (1_999_999_999, 62_500_000),
        (u64::MAX, 2_893_202_000),
        (u64::MAX - 5, u64::MAX),
    ] {
        let exact = u128::from(ns) * u128::from(hz) / u128::from(NS_PER_S);
        assert_eq!(ns_to_ticks(ns, hz), exact as u64, "{ns} ns at {hz} Hz");
    }
}

#[test]
fn a_follower_hears_of_each_start_and_halt_once() {
    let clock = Clock::new(ManualTime::new(0));
    let heard = Arc::new(Mutex::new(Vec::new()));
    let (ear, now) = (heard.clone(), clock.clone());
    // It may ask for the time, and whether it runs.
    clock.follow(move |runs| {
        assert_eq!(now.is_running(), runs);
        ear.lock().unwrap().push((runs, now.now_ns()));
    });
    clock.start();
    clock.start();
    clock.stop();
    clock.stop();
    assert_eq!(*heard.lock().unwrap(), [(true, 0), (false, 0)]);
}
