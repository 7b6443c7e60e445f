use std::sync::{Arc, Mutex};

use backend_rng::{Randomness, Seeded, Wake};
use hw_virtio::Options;
use hw_virtio::bench::Bench;

use super::{Quota, Rng};

const FREE: Quota = Quota {
    max_bytes: u64::MAX,
    period_ms: 65536,
};

fn bench(source: Box<dyn Randomness>, quota: Quota) -> Bench {
    Bench::new(Box::new(Rng::new(source, quota)), Options::default(), false)
}

#[test]
fn buffers_are_filled_with_what_the_source_gives() {
    let b = bench(Box::new(Seeded::new(1)), FREE);
    let mut q = b.start(0, 1);
    let mut expected = [0; 64];
    Seeded::new(1).fill(&mut expected);
    q[0].add(&[], &[16, 48]);
    b.kick(0);
    let used = q[0].used().unwrap();
    assert_eq!((used.written, used.data), (64, expected.to_vec()));
    assert_eq!(b.interrupted(), 1);
}

#[test]
fn a_buffer_that_cannot_be_written_to_comes_back_empty() {
    let b = bench(Box::new(Seeded::new(1)), FREE);
    let mut q = b.start(0, 1);
    q[0].add(&[&[1, 2]], &[]);
    b.kick(0);
    assert_eq!(q[0].used().unwrap().written, 0);
}

#[derive(Clone, Default)]
struct Slow {
    bytes: Arc<Mutex<Vec<u8>>>,
    wake: Arc<Mutex<Option<Wake>>>,
}

impl Slow {
    fn give(&self, bytes: &[u8]) {
        self.bytes.lock().unwrap().extend(bytes);
        let wake = self.wake.lock().unwrap().clone();
        wake.unwrap()();
    }
}

impl Randomness for Slow {
    fn fill(&mut self, out: &mut [u8]) -> usize {
        let mut bytes = self.bytes.lock().unwrap();
        let count = out.len().min(bytes.len());
        out[..count].copy_from_slice(&bytes.drain(..count).collect::<Vec<_>>());
        count
    }
    fn set_wake(&mut self, wake: Wake) {
        *self.wake.lock().unwrap() = Some(wake);
    }
}

#[test]
fn a_slow_source_fills_the_request_when_it_can_even_after_a_restore() {
    let slow = Slow::default();
    let b = bench(Box::new(slow.clone()), FREE);
    let mut q = b.start(0, 1);
    q[0].add(&[], &[4]);
    b.kick(0);
    assert!(q[0].used().is_none());
    let saved = b.fabric.save();
    b.fabric.reset(hw_core::ResetKind::Cold);
    b.fabric.restore(&saved).unwrap();
    assert!(b.fabric.save() == saved);
    slow.give(&[5, 6, 7]);
    let used = q[0].used().unwrap();
    assert_eq!((used.written, &used.data[..3]), (3, &[5, 6, 7][..]));
}

#[test]
fn a_quota_is_given_anew_each_period() {
    let quota = Quota {
        max_bytes: 3,
        period_ms: 10,
    };
    let b = bench(Box::new(Seeded::new(1)), quota);
    // The first period is as old as the machine: let it end.
    b.time.advance_ns(10_000_000);
    let mut q = b.start(0, 1);
    q[0].add(&[], &[2]);
    q[0].add(&[], &[8]);
    q[0].add(&[], &[8]);
    b.kick(0);
    assert_eq!(q[0].used().unwrap().written, 2);
    assert_eq!(q[0].used().unwrap().written, 1);
    b.time.advance_ns(9_999_999);
    b.fabric.clock.run_timers();
    assert!(q[0].used().is_none());
    b.time.advance_ns(1);
    b.fabric.clock.run_timers();
    assert_eq!(q[0].used().unwrap().written, 3);
}
