use super::*;
use hw_core::{Attrs, ByteOrder, Fabric, IrqHub, Part, Placement};
use proptest::prelude::*;
use std::sync::atomic::{AtomicBool, Ordering};

/// 2024-02-29 13:58:57 UTC, a Thursday.
const LEAP_DAY: i64 = 1_709_215_137;

struct Bench {
    fabric: Fabric,
    time: Arc<hw_clock::ManualTime>,
    part: Arc<Part>,
    cmos: Cmos,
    legacy: Arc<LegacyReplacement>,
    pin: Arc<AtomicBool>,
}

impl Bench {
    fn with(config: RtcConfig, wall_s: u64) -> Self {
        let time = hw_clock::ManualTime::new(wall_s * NS_PER_S);
        let clock = Clock::new(time.clone());
        clock.start();
        let fabric = Fabric::new(clock);
        let pin = Arc::new(AtomicBool::new(false));
        let seen = pin.clone();
        let sink = Arc::new(move |n: u32, level: bool| {
            assert_eq!(n, 8);
            seen.store(level, Ordering::SeqCst);
        });
        let hubs: Vec<IrqHub> = (0..16).map(|n| IrqHub::new(sink.clone(), n)).collect();
        let (cmos, legacy) = (Cmos::default(), LegacyReplacement::new());
        let placement = Placement {
            bus_irqs: &hubs,
            ..Placement::default()
        };
        let rtc = Rtc::new(config, cmos.clone(), legacy.clone());
        let part = fabric.add(Box::new(rtc), placement).unwrap();
        Bench {
            fabric,
            time,
            part,
            cmos,
            legacy,
            pin,
        }
    }

    fn at(seconds: i64) -> Self {
        let base = RtcBase::Date(seconds);
        let config = RtcConfig {
            base,
            ..RtcConfig::default()
        };
        Bench::with(config, 1_000)
    }

    fn outb(&self, port: u64, value: u8) {
        let (order, by) = (ByteOrder::Little, Initiator::Cpu(0));
        let map = self.fabric.ports.snapshot();
        let _ = map.write(port, 1, value.into(), order, by, Attrs::default());
    }

    fn wr(&self, index: u8, value: u8) {
        self.outb(0x70, index);
        self.outb(0x71, value);
    }

    fn rd(&self, index: u8) -> u8 {
        self.outb(0x70, index);
        let (order, by) = (ByteOrder::Little, Initiator::Cpu(0));
        let map = self.fabric.ports.snapshot();
        map.read(0x71, 1, order, by, Attrs::default()).unwrap() as u8
    }

    /// Century, year, month, day, weekday, hour, minute, second.
    fn shown(&self) -> [u8; 8] {
        [0x32, 9, 8, 7, 6, 4, 2, 0].map(|index| self.rd(index))
    }

    fn run_ns(&self, ns: u64) {
        let clock = &self.fabric.clock;
        let end = clock.now_ns() + ns;
        loop {
            let next = clock.queue().next_ns().filter(|at| *at <= end);
            let to = next.unwrap_or(end);
            self.time.advance_ns(to.saturating_sub(clock.now_ns()));
            clock.run_timers();
            if next.is_none() {
                return;
            }
        }
    }

    fn run_s(&self, seconds: u64) {
        self.run_ns(seconds * NS_PER_S);
    }

    fn pin(&self) -> bool {
        self.pin.load(Ordering::SeqCst)
    }
}

#[test]
fn the_time_is_shown_in_bcd_and_goes_on() {
    let b = Bench::at(LEAP_DAY);
    assert_eq!(b.shown(), [0x20, 0x24, 0x02, 0x29, 5, 0x13, 0x58, 0x57]);
    b.run_s(10 * 3600 + 63);
    assert_eq!(b.shown(), [0x20, 0x24, 0x03, 0x01, 6, 0x00, 0x00, 0x00]);
}

#[test]
fn binary_and_twelve_hour_notation() {
    let b = Bench::at(LEAP_DAY);
    b.wr(regs::B, 0x06);
    assert_eq!(b.shown(), [20, 24, 2, 29, 5, 13, 58, 57]);
    b.wr(regs::B, 0x00);
    assert_eq!(b.rd(4), 0x81);
    b.run_s(11 * 3600);
    assert_eq!(b.rd(4), 0x12);
    b.run_s(12 * 3600);
    assert_eq!(b.rd(4), 0x92);
}

#[test]
fn linux_sets_the_time_with_set_and_a_divider_reset() {
    let b = Bench::at(LEAP_DAY);
    b.wr(regs::B, 0x82);
    b.wr(regs::A, 0x76);
    for (index, value) in [
        (9, 0x31),
        (8, 0x12),
        (7, 0x31),
        (4, 0x23),
        (2, 0x59),
        (0, 0x58),
    ] {
        b.wr(index, value);
    }
    b.run_s(100);
    assert_eq!(b.rd(0), 0x58);
    b.wr(regs::B, 0x02);
    b.wr(regs::A, 0x26);
    assert_eq!(b.shown(), [0x20, 0x31, 0x12, 0x31, 4, 0x23, 0x59, 0x58]);
    // The next update is half a second after the divider's release.
    b.run_ns(499_000_000);
    assert_eq!(b.rd(0), 0x58);
    b.run_ns(1_000_000);
    assert_eq!(b.rd(0), 0x59);
    b.run_s(1);
    assert_eq!(b.shown(), [0x20, 0x32, 0x01, 0x01, 5, 0, 0, 0]);
}

#[test]
fn a_field_written_while_running_counts_at_once() {
    let b = Bench::at(LEAP_DAY);
    b.wr(4, 0x20);
    assert_eq!(b.shown(), [0x20, 0x24, 0x02, 0x29, 5, 0x20, 0x58, 0x57]);
    b.wr(0x32, 0x19);
    assert_eq!(b.rd(0x32), 0x19);
}

#[test]
fn update_in_progress_is_shown_before_each_second() {
    let b = Bench::at(LEAP_DAY);
    assert_eq!(b.rd(regs::A), 0x26);
    b.run_ns(NS_PER_S - 200_000);
    assert_eq!(b.rd(regs::A), 0xa6);
    b.run_ns(200_000);
    assert_eq!(b.rd(regs::A), 0x26);
}

#[test]
fn the_update_interrupt_comes_each_second_until_register_c_is_read() {
    let b = Bench::at(LEAP_DAY);
    assert_eq!(b.fabric.clock.queue().next_ns(), None);
    b.wr(regs::B, 0x12);
    b.rd(regs::C);
    b.run_ns(999_999_999);
    assert!(!b.pin());
    b.run_ns(1);
    assert!(b.pin());
    assert_eq!(b.fabric.clock.queue().next_ns(), None);
    b.run_s(5);
    assert_eq!(b.rd(regs::C) & 0xb0, 0x90);
    assert!(!b.pin());
    assert_eq!(b.rd(regs::C), 0);
    b.run_s(1);
    assert!(b.pin());
}

#[test]
fn flags_can_be_polled_without_interrupts() {
    let b = Bench::at(LEAP_DAY);
    b.rd(regs::C);
    b.run_ns(100_000);
    assert_eq!(b.rd(regs::C), 0);
    b.run_s(1);
    assert_eq!(b.rd(regs::C) & 0xd0, 0x50);
    assert!(!b.pin());
}

#[test]
fn the_periodic_interrupt_has_the_selected_rate() {
    let b = Bench::at(LEAP_DAY);
    b.wr(regs::A, 0x26);
    b.wr(regs::B, 0x42);
    b.rd(regs::C);
    let mut count = 0;
    for _ in 0..10_000 {
        b.run_ns(100_000);
        if b.pin() {
            assert_eq!(b.rd(regs::C) & 0xc0, 0xc0);
            count += 1;
        }
    }
    assert_eq!(count, 1024);
    b.wr(regs::A, 0x20);
    b.rd(regs::C);
    b.run_s(1);
    assert!(!b.pin());
    b.wr(regs::A, 0x2f);
    b.run_ns(499_000_000);
    b.rd(regs::C);
    b.run_ns(500_000_000);
    assert!(b.pin());
}

#[test]
fn the_alarm_matches_fields_and_wildcards() {
    let b = Bench::at(LEAP_DAY);
    for (index, value) in [(1, 0x05), (3, 0x59), (5, 0x13)] {
        b.wr(index, value);
    }
    b.wr(regs::B, 0x22);
    b.rd(regs::C);
    b.run_s(7);
    assert!(!b.pin());
    b.run_s(1);
    assert!(b.pin());
    assert_eq!(b.rd(0), 0x05);
    assert_eq!(b.rd(regs::C) & 0xa0, 0xa0);
    b.run_s(86_399);
    assert!(!b.pin());
    b.run_s(1);
    assert!(b.pin());
    // Every minute at second 30.
    for (index, value) in [(1, 0x30), (3, 0xff), (5, 0xc0)] {
        b.wr(index, value);
    }
    b.rd(regs::C);
    b.run_s(24);
    assert!(!b.pin());
    b.run_s(1);
    assert!(b.pin());
    b.rd(regs::C);
    b.run_s(60);
    assert!(b.pin());
}

#[test]
fn an_impossible_alarm_never_comes() {
    let b = Bench::at(LEAP_DAY);
    b.wr(1, 0x75);
    b.wr(regs::B, 0x22);
    b.rd(regs::C);
    b.run_s(200_000);
    assert_eq!(b.rd(regs::C) & 0x20, 0);
    assert_eq!(b.fabric.clock.queue().next_ns(), None);
}

#[test]
fn an_alarm_in_twelve_hour_notation() {
    let b = Bench::at(LEAP_DAY);
    b.wr(regs::B, 0x20);
    for (index, value) in [(1, 0x00), (3, 0x00), (5, 0x82)] {
        b.wr(index, value);
    }
    b.rd(regs::C);
    b.run_s(63);
    assert!(b.pin());
}

#[test]
fn reset_keeps_time_and_memory_and_drops_interrupts() {
    let b = Bench::at(LEAP_DAY);
    b.wr(0x40, 0x5a);
    b.wr(regs::B, 0x76);
    b.run_s(2);
    assert!(b.pin());
    b.fabric.reset(ResetKind::Cold);
    assert!(!b.pin());
    assert_eq!(b.rd(regs::B), 0x06);
    assert_eq!((b.rd(0x40), b.rd(0)), (0x5a, 59));
    assert_eq!(b.rd(regs::D), 0x80);
}

#[test]
fn the_base_and_the_clock_are_chosen() {
    let config = RtcConfig::default();
    let wall = LEAP_DAY as u64;
    let utc = Bench::with(config, wall);
    assert_eq!(utc.rd(4), 0x13);
    let base = RtcBase::Shifted(3600);
    let local = Bench::with(RtcConfig { base, ..config }, wall);
    assert_eq!(local.rd(4), 0x14);
    let clock = RtcClock::Vm;
    let vm = Bench::with(RtcConfig { clock, ..config }, wall);
    for b in [&utc, &vm] {
        b.fabric.clock.stop();
        b.time.advance_ns(2 * NS_PER_S);
        b.fabric.clock.start();
    }
    assert_eq!((utc.rd(0), vm.rd(0)), (0x59, 0x57));
}

#[test]
fn legacy_replacement_takes_the_interrupt_away() {
    let b = Bench::at(LEAP_DAY);
    b.wr(regs::B, 0x12);
    b.legacy.set(true);
    b.run_s(2);
    assert!(!b.pin());
    assert_eq!(b.rd(regs::C) & 0x90, 0x90);
}

#[test]
fn boards_fill_the_memory_that_firmware_reads() {
    let b = Bench::at(LEAP_DAY);
    b.cmos.set_memory(3 << 30, 5 << 30);
    b.cmos.set_cpus(4);
    assert!(b.cmos.set_boot_order("cdn", true));
    assert!(!b.cmos.set_boot_order("x", true));
    b.cmos.set_equipment(0x06);
    let word = |index| u16::from_le_bytes([b.rd(index), b.rd(index + 1)]);
    assert_eq!((word(0x15), word(0x17), word(0x30)), (640, 0xffff, 0xffff));
    assert_eq!(word(0x34), (((3 << 30) - (16 << 20)) >> 16) as u16);
    assert_eq!([b.rd(0x5b), b.rd(0x5c), b.rd(0x5d)], [0x00, 0x40, 0x01]);
    assert_eq!((b.rd(0x5f), b.rd(0x3d), b.rd(0x38)), (3, 0x32, 0x40));
    assert_eq!(b.rd(0x14), 6);
    // Bit 7 of the index masks NMI and selects nothing.
    assert_eq!(b.rd(0x80 | 0x14), 6);
    let masked = b.part.with(|d| d.inspect());
    assert!(masked.contains(&("nmi-masked", 1)));
}

/// A clock with periodic interrupts of 1/1024 s.
fn periodic(slew: bool) -> Bench {
    let config = RtcConfig {
        slew,
        ..RtcConfig::default()
    };
    let b = Bench::with(config, 1_000);
    b.wr(regs::A, 0x26);
    b.wr(regs::B, b::PIE | b::HOURS_24);
    b
}

/// Interrupts that are there one after the other without time passing.
fn in_a_row(b: &Bench) -> usize {
    (0..100)
        .take_while(|_| b.pin() && b.rd(regs::C) & 0xc0 == 0xc0)
        .count()
}

#[test]
fn missed_ticks_are_one_or_under_slew_made_up_for() {
    let tick = NS_PER_S / 1024 + 1;
    for (slew, rows) in [(false, [1, 1, 1, 1]), (true, [11, 1, 21, 11])] {
        let b = periodic(slew);
        b.run_ns(11 * tick);
        let first = in_a_row(&b);
        b.run_ns(tick);
        let second = in_a_row(&b);
        // More than are given in a row: the rest follows the next true one.
        b.run_ns(31 * tick);
        let third = in_a_row(&b);
        b.run_ns(tick);
        assert_eq!([first, second, third, in_a_row(&b)], rows, "slew {slew}");
    }
}

#[test]
fn missed_ticks_are_forgotten_when_they_are_switched_off_and_saved_else() {
    let b = periodic(true);
    b.run_ns(NS_PER_S / 100);
    b.rd(regs::C);
    let saved = b.part.with(|d| d.save());
    let other = periodic(true);
    other.part.with(|d| d.restore(&saved)).unwrap();
    other.part.with(|d| d.after_reset());
    assert!(in_a_row(&other) > 5);
    b.wr(regs::B, b::HOURS_24);
    b.wr(regs::B, b::PIE | b::HOURS_24);
    b.rd(regs::C);
    assert!(!b.pin());
}

#[test]
fn a_monotonic_clock_goes_on_while_stopped_and_moves_to_another_host() {
    let config = RtcConfig {
        clock: RtcClock::Rt,
        base: RtcBase::Date(LEAP_DAY),
        ..RtcConfig::default()
    };
    let b = Bench::with(config, 1_000_000);
    b.fabric.clock.stop();
    b.time.advance_ns(5 * NS_PER_S);
    let saved = b.part.with(|d| d.save());
    // Another process: its monotonic clock began later.
    let other = Bench::with(config, 1_000_005);
    other.part.with(|d| d.restore(&saved)).unwrap();
    for bench in [&b, &other] {
        let time = bench.part.with(|d| d.inspect());
        assert!(time.contains(&("time", LEAP_DAY as u64 + 5)), "{time:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn moments_survive_their_seconds(seconds in -62_000_000_000i64..250_000_000_000) {
        let moment = Moment::from_seconds(seconds);
        prop_assert_eq!(moment.seconds(), seconds);
        prop_assert!((1..=12).contains(&moment.month) && (1..=31).contains(&moment.day));
        let day = seconds.div_euclid(S_PER_DAY);
        prop_assert_eq!(moment.weekday(), (day + 4).rem_euclid(7) + 1);
    }

    #[test]
    fn the_next_alarm_is_the_first_match(h in 0u8..26, m in 0u8..62, s in 0u8..62, from in 0i64..S_PER_DAY) {
        let mut rtc = Rtc::new(RtcConfig::default(), Cmos::default(), LegacyReplacement::new());
        rtc.state.b = b::BINARY | b::HOURS_24;
        let any = |v: u8, limit| if v > limit { 0xff } else { v };
        for (index, value) in [(1, any(s, 60)), (3, any(m, 60)), (5, any(h, 24))] {
            rtc.cmos.set(index, value);
        }
        let hit = |wanted: u8, is: i64| wanted >= 0xc0 || i64::from(wanted) == is;
        let naive = (from + 1..=from + S_PER_DAY).find(|at| {
            let is = Moment::from_seconds(*at);
            hit(any(s, 60), is.second) && hit(any(m, 60), is.minute) && hit(any(h, 24), is.hour)
        });
        prop_assert_eq!(rtc.next_alarm(from), naive);
    }

    #[test]
    fn any_traffic_ends_in_values_and_a_saved_clock_is_the_same(
        slew: bool,
        ops in proptest::collection::vec((0u8..4, any::<u8>(), any::<u32>()), 1..80),
    ) {
        let b = periodic(slew);
        for (kind, index, value) in ops {
            match kind {
                0 => b.wr(index & 0x0f, value as u8),
                1 => b.wr(index, value as u8),
                2 => { b.rd(index & 0x3f); }
                _ => b.run_ns((u64::from(value) << 3).min(200_000_000)),
            }
        }
        let saved = b.part.with(|d| d.save());
        let other = Bench::at(0);
        other.part.with(|d| d.restore(&saved)).unwrap();
        prop_assert_eq!(other.part.with(|d| d.save()), saved);
        other.part.with(|d| d.after_reset());
        other.run_s(1);
    }

    #[test]
    fn a_mutated_section_ends_in_a_clock_or_an_error(at in 0usize..400, to: u8) {
        let b = Bench::at(LEAP_DAY);
        let mut bytes = hw_state::codec::encode(&b.part.with(|d| d.save()));
        let at = at % bytes.len();
        bytes[at] = to;
        if let Ok(section) = hw_state::codec::decode(&bytes) {
            let _ = b.part.with(|d| d.restore(&section));
            b.part.with(|d| d.after_reset());
            b.shown();
        }
    }
}
