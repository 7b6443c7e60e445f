use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use hw_clock::ManualTime;
use hw_core::{Attrs, ByteOrder, Fabric, Initiator, IrqHub, Part, Placement};
use proptest::prelude::*;

use super::*;

const BASE: u64 = 0x903_0000;

struct Bench {
    fabric: Fabric,
    time: Arc<ManualTime>,
    part: Arc<Part>,
    button: PowerButton,
    pin: Arc<AtomicBool>,
}

fn bench() -> Bench {
    let (clock, time) = Clock::manual();
    let fabric = Fabric::new(clock);
    let pin = Arc::new(AtomicBool::new(false));
    let seen = pin.clone();
    let sink = Arc::new(move |_: u32, level: bool| seen.store(level, Ordering::SeqCst));
    let button = PowerButton::default();
    let key = Key {
        pin: 3,
        button: button.clone(),
    };
    let placement = Placement {
        pins: &[("irq", IrqHub::new(sink, 0))],
        ..Placement::default()
    };
    let device = Box::new(Pl061::new(BASE, Some(key)));
    let part = fabric.add(device, placement).unwrap();
    Bench {
        fabric,
        time,
        part,
        button,
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
        let (at, by) = (BASE + offset, Initiator::Cpu(0));
        let _ = map.write(at, 4, value, ByteOrder::Little, by, Attrs::default());
    }

    fn pin(&self) -> bool {
        self.pin.load(Ordering::SeqCst)
    }

    fn pass_ns(&self, ns: u64) {
        self.time.advance_ns(ns);
        self.fabric.clock.run_timers();
    }
}

#[test]
fn a_key_interrupts_when_pressed_and_when_let_go() {
    let b = bench();
    b.wr(IBE, 8);
    b.wr(IE, 8);
    assert!(b.button.press());
    assert!(b.pin());
    assert_eq!((b.rd(8 << 2), b.rd(MIS)), (8, 8));
    b.wr(IC, 8);
    assert!(!b.pin());
    b.pass_ns(PRESSED_NS);
    assert_eq!((b.pin(), b.rd(8 << 2)), (true, 0));
}

#[test]
fn a_level_lasts_as_long_as_its_pin() {
    let b = bench();
    b.wr(IS, 8);
    b.wr(IEV, 8);
    b.wr(IE, 8);
    b.button.press();
    b.wr(IC, 8);
    assert!(b.pin());
    b.pass_ns(PRESSED_NS);
    assert!(!b.pin());
}

#[test]
fn the_address_masks_the_data() {
    let b = bench();
    b.wr(DIR, 0xf0);
    b.wr(0xff << 2, 0xff);
    assert_eq!(b.rd(0xff << 2), 0xf0);
    b.wr(0x30 << 2, 0);
    assert_eq!((b.rd(0xff << 2), b.rd(0x40 << 2)), (0xc0, 0x40));
}

#[test]
fn a_pin_that_rises_asks_for_what_it_is_for() {
    let fabric = Fabric::new(Clock::manual().0);
    let seen = Arc::new(std::sync::Mutex::new(Vec::new()));
    let log = seen.clone();
    fabric
        .requests
        .connect(move |r| log.lock().unwrap().push(r));
    let output = Output {
        pin: 1,
        request: Request::Reset,
    };
    let device = Pl061::new(BASE, None).with_outputs(&[output]);
    let placement = Placement {
        path: "gpio".into(),
        ..Placement::default()
    };
    fabric.add(Box::new(device), placement).unwrap();
    let wr = |at: u64, value: u64| {
        let map = fabric.memory.snapshot();
        let by = Initiator::Cpu(0);
        map.write(BASE + at, 4, value, ByteOrder::Little, by, Attrs::default())
            .unwrap();
    };
    // An input drives nothing.
    wr(0xff << 2, 0xff);
    wr(DIR, 0xff);
    assert_eq!(*seen.lock().unwrap(), []);
    wr(0xff << 2, 0xff);
    wr(0xff << 2, 0xff);
    assert_eq!(*seen.lock().unwrap(), [Request::Reset]);
}

proptest! {
    #[test]
    fn random_traffic_neither_panics_nor_is_lost_by_saving(
        traffic in proptest::collection::vec((any::<u16>(), any::<u32>(), any::<bool>()), 1..40)
    ) {
        let b = bench();
        for (at, value, press) in traffic {
            b.wr(u64::from(at & 0xffc), value.into());
            if press {
                b.button.press();
            }
        }
        let other = bench();
        let saved = b.part.with(|d| d.save());
        other.part.with(|d| d.restore(&saved)).unwrap();
        other.part.with(|d| d.after_reset());
        prop_assert_eq!(b.pin(), other.pin());
        prop_assert_eq!(saved, other.part.with(|d| d.save()));
    }
}
