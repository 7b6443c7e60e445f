use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use hw_clock::ManualTime;
use hw_core::{Attrs, ByteOrder, Fabric, Initiator, IrqHub, Part, Placement};
use proptest::prelude::*;

use super::*;

const BASE: u64 = 0x901_0000;
const DR: u64 = 0;
const MR: u64 = 4;
const LR: u64 = 8;
const IMSC: u64 = 0x10;
const RIS: u64 = 0x14;
const MIS: u64 = 0x18;
const ICR: u64 = 0x1c;
const WALL_S: u64 = 1_709_215_137;

struct Bench {
    fabric: Fabric,
    time: Arc<ManualTime>,
    part: Arc<Part>,
    pin: Arc<AtomicBool>,
}

fn bench(base: RtcBase, clock: RtcClock) -> Bench {
    let time = ManualTime::new(WALL_S * NS_PER_S);
    let virtual_clock = Clock::new(time.clone());
    virtual_clock.start();
    let fabric = Fabric::new(virtual_clock);
    let pin = Arc::new(AtomicBool::new(false));
    let seen = pin.clone();
    let sink = Arc::new(move |_: u32, level: bool| seen.store(level, Ordering::SeqCst));
    let config = Pl031Config {
        address: BASE,
        base,
        clock,
    };
    let placement = Placement {
        pins: &[("irq", IrqHub::new(sink, 0))],
        ..Placement::default()
    };
    let part = fabric.add(Box::new(Pl031::new(config)), placement).unwrap();
    Bench {
        fabric,
        time,
        part,
        pin,
    }
}

impl Bench {
    fn rd(&self, offset: u64) -> u64 {
        let map = self.fabric.memory.snapshot();
        let by = Initiator::Cpu(0);
        map.read(BASE + offset, 4, ByteOrder::Little, by, Attrs::default())
            .unwrap()
    }

    fn wr(&self, offset: u64, value: u64) {
        let map = self.fabric.memory.snapshot();
        let by = Initiator::Cpu(0);
        let _ = map.write(
            BASE + offset,
            4,
            value,
            ByteOrder::Little,
            by,
            Attrs::default(),
        );
    }

    fn pass_s(&self, seconds: u64) {
        self.time.advance_ns(seconds * NS_PER_S);
        self.fabric.clock.run_timers();
    }

    fn pin(&self) -> bool {
        self.pin.load(Ordering::SeqCst)
    }
}

#[test]
fn it_shows_the_wall_clock_or_what_was_asked_for() {
    for clock in [RtcClock::Host, RtcClock::Vm] {
        assert_eq!(bench(RtcBase::Utc, clock).rd(DR), WALL_S);
        assert_eq!(bench(RtcBase::Shifted(-60), clock).rd(DR), WALL_S - 60);
        let b = bench(RtcBase::Date(1000), clock);
        b.pass_s(5);
        assert_eq!(b.rd(DR), 1005);
        b.wr(LR, 77);
        b.pass_s(1);
        assert_eq!(b.rd(DR), 78);
    }
}

#[test]
fn alarm_raises_the_pin_only_when_unmasked() {
    let b = bench(RtcBase::Date(0), RtcClock::Vm);
    b.wr(MR, 3);
    b.pass_s(2);
    assert_eq!(b.rd(RIS), 0);
    b.pass_s(1);
    assert_eq!((b.rd(RIS), b.rd(MIS), b.pin()), (1, 0, false));
    b.wr(IMSC, 1);
    assert!(b.pin());
    b.wr(ICR, 1);
    assert!(!b.pin());
    b.pass_s(10);
    assert!(!b.pin(), "an alarm that is past does not come again");
}

#[test]
fn a_reset_keeps_the_time_and_loses_the_alarm() {
    let b = bench(RtcBase::Date(100), RtcClock::Vm);
    b.wr(LR, 500);
    b.wr(MR, 501);
    b.wr(IMSC, 1);
    b.fabric.reset(ResetKind::Cold);
    b.pass_s(5);
    assert_eq!((b.rd(DR), b.rd(IMSC), b.pin()), (505, 0, false));
}

proptest! {
    #[test]
    fn random_traffic_neither_panics_nor_is_lost_by_saving(
        traffic in proptest::collection::vec((any::<u16>(), any::<u32>()), 1..40)
    ) {
        let b = bench(RtcBase::Date(5), RtcClock::Vm);
        for (at, value) in traffic {
            b.wr(u64::from(at & 0x1c), value.into());
        }
        let other = bench(RtcBase::Date(9), RtcClock::Vm);
        let saved = b.part.with(|d| d.save());
        other.part.with(|d| d.restore(&saved)).unwrap();
        other.part.with(|d| d.after_reset());
        prop_assert_eq!(b.rd(DR), other.rd(DR));
        prop_assert_eq!(b.pin(), other.pin());
        prop_assert_eq!(saved, other.part.with(|d| d.save()));
    }
}
