use super::*;
use crate::testing::Bench;
use hw_clock::ticks_to_ns;
use proptest::prelude::*;

fn bench() -> Bench {
    Bench::new(Pit::new(0x40, LegacyReplacement::new()))
}

/// Sets a counter to a mode and a two-byte count.
fn program(b: &Bench, counter: u8, mode: u8, count: u16) {
    b.outb(0x43, (counter << 6) | 0x30 | (mode << 1));
    let port = 0x40 + u64::from(counter);
    b.outb(port, count as u8);
    b.outb(port, (count >> 8) as u8);
}

fn latched(b: &Bench, counter: u8) -> u16 {
    b.outb(0x43, counter << 6);
    let port = 0x40 + u64::from(counter);
    u16::from_le_bytes([b.inb(port), b.inb(port)])
}

fn ticks(b: &Bench, n: u64) {
    let now = b.fabric.clock.ticks(PIT_HZ);
    b.run_ns(ticks_to_ns(now + n, PIT_HZ) - b.fabric.clock.now_ns());
}

#[test]
fn a_rate_generator_interrupts_each_period() {
    let b = bench();
    program(&b, 0, 2, 11932);
    b.rises();
    b.run_ns(1_000_000_000);
    assert_eq!(b.rises().len(), 99);
    b.run_ns(1_000_000);
    assert_eq!(b.rises(), [0]);
}

#[test]
fn periods_that_the_host_was_late_for_are_made_up_for_and_the_phase_stays() {
    let b = bench();
    program(&b, 0, 3, 10_000);
    b.rises();
    b.pass_ns(ticks_to_ns(35_000, PIT_HZ));
    assert_eq!(b.rises(), [0, 0, 0]);
    ticks(&b, 4_999);
    assert!(b.rises().is_empty());
    ticks(&b, 1);
    assert_eq!(b.rises(), [0]);
}

#[test]
fn an_absurd_rate_does_not_keep_the_loop_busy() {
    let b = bench();
    program(&b, 0, 2, 2);
    b.rises();
    b.run_ns(10_000_000);
    assert!((90..=101).contains(&b.rises().len()));
}

#[test]
fn a_host_that_was_suspended_is_not_made_up_for_in_full() {
    let b = bench();
    program(&b, 0, 2, 11932);
    b.rises();
    b.pass_ns(3_600_000_000_000);
    assert_eq!(b.rises().len() as u64, MOST_LATE + 1);
}

#[test]
fn a_single_count_interrupts_once() {
    let b = bench();
    program(&b, 0, 0, 1000);
    assert!(!b.level(0));
    ticks(&b, 999);
    assert!(!b.level(0));
    ticks(&b, 1);
    assert!(b.level(0));
    b.rises();
    assert_eq!(b.fabric.clock.queue().next_ns(), None);
    program(&b, 0, 4, 1000);
    ticks(&b, 1000);
    assert!(b.rises().is_empty());
    ticks(&b, 1);
    assert_eq!(b.rises(), [0]);
    ticks(&b, 200_000);
    assert!(b.rises().is_empty());
}

#[test]
fn counts_are_latched_and_read_low_byte_first() {
    let b = bench();
    program(&b, 0, 2, 0x1234);
    ticks(&b, 0x34);
    assert_eq!(latched(&b, 0), 0x1200);
    b.outb(0x43, 0);
    ticks(&b, 0x10);
    b.outb(0x43, 0);
    assert_eq!((b.inb(0x40), b.inb(0x40)), (0, 0x12));
    assert_eq!((b.inb(0x40), b.inb(0x40)), (0xf0, 0x11));
}

#[test]
fn read_back_latches_status_before_count() {
    let b = bench();
    b.outb(0x43, 0xb0);
    b.outb(0x43, 0xe8);
    assert_eq!(b.inb(0x42), 0x70);
    program(&b, 1, 2, 100);
    ticks(&b, 30);
    b.outb(0x43, 0xc4);
    assert_eq!(b.inb(0x41), 0xb4);
    assert_eq!((b.inb(0x41), b.inb(0x41)), (70, 0));
}

#[test]
fn linux_calibrates_with_the_speakers_counter() {
    let b = bench();
    // Gate on, speaker off; mode 0, both bytes; wait for OUT in port 61h.
    b.outb(0x61, (b.inb(0x61) & !2) | 1);
    b.outb(0x43, 0xb0);
    b.outb(0x42, 0xff);
    b.outb(0x42, 0xff);
    let msb = |b: &Bench| {
        b.inb(0x42);
        b.inb(0x42)
    };
    assert_eq!(msb(&b), 0xff);
    ticks(&b, 256);
    assert_eq!(msb(&b), 0xfe);
    assert_eq!(b.inb(0x61) & 0x20, 0);
    ticks(&b, 0xffff - 256);
    assert_eq!(b.inb(0x61) & 0x23, 0x21);
}

#[test]
fn the_gate_stops_a_count_and_restarts_a_rate() {
    let b = bench();
    b.outb(0x61, 1);
    program(&b, 2, 0, 1000);
    ticks(&b, 400);
    b.outb(0x61, 0);
    ticks(&b, 5000);
    assert_eq!(latched(&b, 2), 600);
    b.outb(0x61, 1);
    ticks(&b, 599);
    assert_eq!(b.inb(0x61) & 0x20, 0);
    ticks(&b, 1);
    assert_eq!(b.inb(0x61) & 0x20, 0x20);
    program(&b, 2, 3, 1000);
    ticks(&b, 700);
    assert_eq!(b.inb(0x61) & 0x20, 0);
    b.outb(0x61, 0);
    assert_eq!(b.inb(0x61) & 0x20, 0x20);
    b.outb(0x61, 1);
    ticks(&b, 499);
    assert_eq!(b.inb(0x61) & 0x20, 0x20);
    ticks(&b, 1);
    assert_eq!(b.inb(0x61) & 0x20, 0);
}

#[test]
fn a_rising_gate_triggers_the_hardware_modes() {
    let b = bench();
    program(&b, 2, 1, 50);
    assert_eq!(b.inb(0x61) & 0x20, 0x20);
    b.outb(0x61, 1);
    assert_eq!(b.inb(0x61) & 0x20, 0);
    ticks(&b, 49);
    b.outb(0x61, 0);
    assert_eq!(b.inb(0x61) & 0x20, 0);
    ticks(&b, 1);
    assert_eq!(b.inb(0x61) & 0x20, 0x20);
}

#[test]
fn bcd_counts_in_decimal() {
    let b = bench();
    b.outb(0x43, 0x31);
    b.outb(0x40, 0x00);
    b.outb(0x40, 0x10);
    ticks(&b, 1);
    assert_eq!(latched(&b, 0), 0x0999);
    ticks(&b, 1000);
    assert_eq!(latched(&b, 0), 0x9999);
}

#[test]
fn one_byte_accesses_leave_the_other_byte_zero() {
    let b = bench();
    b.outb(0x43, 0x14);
    b.outb(0x40, 18);
    assert_eq!(b.inb(0x40), 18);
    b.outb(0x43, 0x64);
    b.outb(0x41, 1);
    assert_eq!(b.inb(0x41), 1);
}

#[test]
fn the_refresh_bit_toggles_with_time() {
    let b = bench();
    let first = b.inb(0x61) & 0x10;
    ticks(&b, 18);
    assert_ne!(b.inb(0x61) & 0x10, first);
}

#[test]
fn legacy_replacement_silences_the_interrupt_and_gives_it_back() {
    let legacy = LegacyReplacement::new();
    let b = Bench::new(Pit::new(0x40, legacy.clone()));
    program(&b, 0, 2, 11932);
    legacy.set(true);
    b.rises();
    b.run_ns(50_000_000);
    assert!(b.rises().is_empty());
    assert_eq!(b.fabric.clock.queue().next_ns(), None);
    legacy.set(false);
    b.run_ns(50_000_000);
    assert_eq!(b.rises().len(), 5);
}

#[test]
fn a_due_interrupt_survives_saving() {
    let b = bench();
    program(&b, 0, 0, 1000);
    b.time.advance_ns(5_000_000);
    let saved = b.saved();
    let other = bench();
    other.time.advance_ns(5_000_000);
    other.part.with(|d| d.restore(&saved)).unwrap();
    other.part.with(|d| d.after_reset());
    other.rises();
    other.pass_ns(0);
    assert_eq!(other.rises(), [0]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn any_traffic_ends_in_values_and_a_saved_timer_is_the_same(
        ops in proptest::collection::vec((0u8..4, 0usize..5, any::<u32>()), 1..80),
    ) {
        let b = bench();
        for (kind, port, value) in ops {
            let port = [0x40, 0x41, 0x42, 0x43, 0x61][port];
            match kind {
                0 | 1 => b.outb(port, value as u8),
                2 => { b.inb(port); }
                _ => b.pass_ns(value.into()),
            }
        }
        let saved = b.saved();
        let other = bench();
        other.part.with(|d| d.restore(&saved)).unwrap();
        prop_assert_eq!(other.saved(), saved);
        other.part.with(|d| d.after_reset());
        other.pass_ns(1_000_000_000);
        other.inb(0x40);
    }

    #[test]
    fn counts_and_outputs_agree_with_a_clock_by_clock_model(
        mode in 0u8..6, count in 2u16..40, steps in 1u64..200,
    ) {
        let mut c = hw_intc::I8254Channel { gate: false, ..Default::default() };
        c.set_control(0x30 | (mode << 1));
        c.load(count, 0);
        c.set_gate(true, 0);
        let mut before = c.out(0);
        for now in 1..steps {
            let rises = c.next_rise(now - 1) == Some(now);
            let level = c.out(now);
            prop_assert_eq!(rises, level && !before, "mode {} at {}", mode, now);
            before = level;
        }
    }
}
