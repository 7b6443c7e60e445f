use super::*;
use hw_core::{Attrs, ByteOrder, Clock, Fabric, IrqHub, Part, Placement};
use proptest::prelude::*;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

struct Bench {
    fabric: Fabric,
    pic: Arc<I8259>,
    part: Arc<Part>,
    intr: Arc<AtomicBool>,
    /// Times that the output rose.
    rises: Arc<AtomicU32>,
}

impl Bench {
    fn new() -> Self {
        let fabric = Fabric::new(Clock::manual().0);
        let pic = I8259::new();
        let intr = Arc::new(AtomicBool::new(false));
        let rises = Arc::new(AtomicU32::new(0));
        let (seen, risen) = (intr.clone(), rises.clone());
        let sink = Arc::new(move |_: u32, level: bool| {
            if !seen.swap(level, Ordering::SeqCst) && level {
                risen.fetch_add(1, Ordering::SeqCst);
            }
        });
        let pins = [("intr", IrqHub::new(sink, 0))];
        let placement = Placement {
            path: "pic".into(),
            pins: &pins,
            ..Placement::default()
        };
        let device = Box::new(I8259Device::new(pic.clone()));
        let part = fabric.add(device, placement).unwrap();
        Bench {
            fabric,
            pic,
            part,
            intr,
            rises,
        }
    }

    /// As Linux and SeaBIOS program it.
    fn ready() -> Self {
        let b = Bench::new();
        for (port, value) in [
            (0x20, 0x11),
            (0x21, 0x30),
            (0x21, 4),
            (0x21, 1),
            (0xa0, 0x11),
            (0xa1, 0x38),
            (0xa1, 2),
            (0xa1, 1),
            (0x21, 0),
            (0xa1, 0),
        ] {
            b.wr(port, value);
        }
        b
    }

    fn wr(&self, port: u64, value: u8) {
        let cpu = Initiator::Cpu(0);
        let ports = self.fabric.ports.snapshot();
        let order = ByteOrder::Little;
        let _ = ports.write(port, 1, value.into(), order, cpu, Attrs::default());
    }

    fn rd(&self, port: u64) -> u8 {
        let cpu = Initiator::Cpu(0);
        let ports = self.fabric.ports.snapshot();
        let order = ByteOrder::Little;
        ports.read(port, 1, order, cpu, Attrs::default()).unwrap() as u8
    }

    fn intr(&self) -> bool {
        self.intr.load(Ordering::SeqCst)
    }
}

#[test]
fn an_edge_interrupts_once_until_its_end() {
    let b = Bench::ready();
    b.pic.set(4, true);
    assert!(b.intr());
    assert_eq!(b.pic.ack(), 0x34);
    assert!(!b.intr());
    b.pic.set(4, false);
    b.pic.set(4, true);
    assert!(!b.intr());
    b.wr(0x20, 0x20);
    assert!(b.intr());
}

#[test]
fn each_edge_is_one_of_the_output_though_nobody_acknowledges() {
    let b = Bench::ready();
    for n in 1..4 {
        b.pic.set(0, true);
        b.pic.set(0, false);
        assert_eq!(b.rises.load(Ordering::SeqCst), n);
        assert!(b.intr.load(Ordering::SeqCst));
    }
}

#[test]
fn the_slave_comes_through_the_cascade_and_both_end() {
    let b = Bench::ready();
    b.pic.set(8, true);
    assert_eq!(b.pic.ack(), 0x38);
    b.pic.set(14, true);
    assert!(!b.intr());
    b.wr(0xa0, 0x60);
    b.wr(0x20, 0x62);
    assert_eq!(b.pic.ack(), 0x3e);
}

#[test]
fn a_higher_priority_nests_and_a_lower_one_waits() {
    let b = Bench::ready();
    b.pic.set(3, true);
    b.pic.ack();
    b.pic.set(5, true);
    assert!(!b.intr());
    b.pic.set(1, true);
    assert!(b.intr());
    assert_eq!(b.pic.ack(), 0x31);
    b.wr(0x20, 0x20);
    b.wr(0x20, 0x20);
    assert_eq!(b.pic.ack(), 0x35);
}

#[test]
fn an_acknowledge_without_request_is_spurious() {
    let b = Bench::ready();
    assert_eq!(b.pic.ack(), 0x37);
    b.pic.set(10, true);
    b.wr(0xa1, 0xff);
    assert_eq!(b.pic.ack(), 0x3f);
    b.wr(0x20, 0x0b);
    assert_eq!(b.rd(0x20), 4);
    b.wr(0xa0, 0x0b);
    assert_eq!(b.rd(0xa0), 0);
}

#[test]
fn a_level_input_follows_its_line_and_interrupts_again() {
    let b = Bench::ready();
    b.wr(0x4d0, 0xff);
    b.wr(0x4d1, 0xff);
    assert_eq!((b.rd(0x4d0), b.rd(0x4d1)), (0xf8, 0xde));
    b.pic.set(11, true);
    assert_eq!(b.pic.ack(), 0x3b);
    b.wr(0xa0, 0x20);
    b.wr(0x20, 0x20);
    assert!(b.intr());
    b.pic.set(11, false);
    assert_eq!(b.pic.ack(), 0x3f);
    b.wr(0x20, 0x20);
    assert!(!b.intr());
}

#[test]
fn the_mask_holds_a_request_back() {
    let b = Bench::ready();
    b.wr(0x21, 0xef);
    b.pic.set(3, true);
    assert!(!b.intr());
    assert_eq!(b.rd(0x21), 0xef);
    assert_eq!(b.rd(0x20), 8);
    b.wr(0x21, 0);
    assert!(b.intr());
}

#[test]
fn initialization_forgets_edges_and_masks() {
    let b = Bench::ready();
    b.wr(0x21, 0xff);
    b.pic.set(3, true);
    b.wr(0x20, 0x11);
    b.wr(0x21, 0x40);
    b.wr(0x21, 4);
    b.wr(0x21, 1);
    assert_eq!(b.rd(0x21), 0);
    assert!(!b.intr());
    b.pic.set(3, false);
    b.pic.set(3, true);
    assert_eq!(b.pic.ack(), 0x43);
}

#[test]
fn automatic_end_leaves_nothing_in_service_and_may_rotate() {
    let b = Bench::new();
    for (port, value) in [(0x20, 0x13), (0x21, 0x20), (0x21, 3), (0x20, 0x80)] {
        b.wr(port, value);
    }
    b.pic.set(3, true);
    b.pic.set(4, true);
    assert_eq!(b.pic.ack(), 0x23);
    b.pic.set(3, false);
    b.pic.set(3, true);
    b.wr(0x20, 0x0b);
    assert_eq!(b.rd(0x20), 0);
    // Input 3 is now the lowest.
    assert_eq!(b.pic.ack(), 0x24);
    assert_eq!(b.pic.ack(), 0x23);
}

#[test]
fn rotation_on_end_makes_the_input_the_lowest() {
    let b = Bench::ready();
    b.pic.set(1, true);
    b.pic.ack();
    b.wr(0x20, 0xa0);
    b.pic.set(1, false);
    b.pic.set(1, true);
    b.pic.set(5, true);
    assert_eq!(b.pic.ack(), 0x35);
    b.wr(0x20, 0xc7);
    b.wr(0x20, 0x65);
    assert_eq!(b.pic.ack(), 0x31);
}

#[test]
fn special_mask_mode_lets_lower_priorities_through() {
    let b = Bench::ready();
    b.pic.set(1, true);
    b.pic.ack();
    b.pic.set(6, true);
    assert!(!b.intr());
    b.wr(0x21, 0x02);
    b.wr(0x20, 0x68);
    assert!(b.intr());
    b.wr(0x20, 0x48);
    assert!(!b.intr());
}

#[test]
fn special_fully_nested_mode_lets_the_slave_nest() {
    let b = Bench::ready();
    for (port, value) in [(0x20, 0x11), (0x21, 0x30), (0x21, 4), (0x21, 0x11)] {
        b.wr(port, value);
    }
    b.pic.set(12, true);
    assert_eq!(b.pic.ack(), 0x3c);
    b.pic.set(9, true);
    assert!(b.intr());
    assert_eq!(b.pic.ack(), 0x39);
}

#[test]
fn a_poll_acknowledges() {
    let b = Bench::ready();
    b.wr(0x20, 0x0c);
    assert_eq!(b.rd(0x20), 0);
    b.pic.set(5, true);
    b.wr(0x20, 0x0c);
    assert_eq!(b.rd(0x20), 0x85);
    assert!(!b.intr());
    b.wr(0x20, 0x0b);
    assert_eq!(b.rd(0x20), 0x20);
}

#[test]
fn reset_keeps_the_levels_of_lines_only() {
    let b = Bench::ready();
    b.pic.set(3, true);
    b.fabric.reset(ResetKind::Cold);
    assert!(!b.intr());
    let state = b.pic.snapshot();
    assert_eq!(state.master.lines, 8);
    assert_eq!(state.slave, I8259Chip::default());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn any_traffic_ends_in_values_and_a_saved_pair_is_the_same(
        ops in proptest::collection::vec((0u8..4, 0usize..6, any::<u8>()), 1..120),
    ) {
        let b = Bench::ready();
        for (kind, port, value) in ops {
            let port = [0x20, 0x21, 0xa0, 0xa1, 0x4d0, 0x4d1][port];
            match kind {
                0 => b.wr(port, value),
                1 => { b.rd(port); }
                2 => b.pic.set(u32::from(value) % 18, value & 0x80 != 0),
                _ => { b.pic.ack(); }
            }
            prop_assert_eq!(b.intr(), b.pic.is_pending());
        }
        let saved = b.part.with(|d| d.save());
        let other = Bench::new();
        other.part.with(|d| d.restore(&saved)).unwrap();
        other.part.with(|d| d.after_reset());
        prop_assert_eq!(other.part.with(|d| d.save()), saved);
        prop_assert_eq!(other.intr(), b.intr());
    }
}

#[test]
fn edges_that_are_kept_are_given_one_by_one_and_others_are_one() {
    let b = Bench::ready();
    b.pic.keep_edges(0);
    let take = || {
        b.pic.is_pending().then(|| {
            let vector = b.pic.ack();
            b.wr(0x20, 0x20);
            vector
        })
    };
    for line in [0, 1] {
        for _ in 0..4 {
            b.pic.set(line, true);
            b.pic.set(line, false);
        }
    }
    let taken: Vec<u8> = std::iter::from_fn(take).collect();
    assert_eq!(taken, [0x30, 0x30, 0x30, 0x30, 0x31]);
    b.pic.set(0, true);
    b.pic.set(0, false);
    assert_eq!(std::iter::from_fn(take).count(), 1);
}

#[test]
fn kept_edges_of_an_input_that_is_masked_are_forgotten() {
    let b = Bench::ready();
    b.pic.keep_edges(0);
    for _ in 0..4 {
        b.pic.set(0, true);
        b.pic.set(0, false);
    }
    b.wr(0x21, 1);
    assert!(!b.pic.is_pending());
    b.wr(0x21, 0);
    assert_eq!(b.pic.ack(), 0x30);
    b.wr(0x20, 0x20);
    assert!(!b.pic.is_pending());
}
