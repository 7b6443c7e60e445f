use super::*;
use crate::testing::Bench;
use proptest::prelude::*;

const CONFIG: u64 = HPET_BASE + 0x10;
const STATUS: u64 = HPET_BASE + 0x20;
const MAIN: u64 = HPET_BASE + 0xf0;

fn t_config(n: u64) -> u64 {
    HPET_BASE + 0x100 + n * 0x20
}

fn t_cmp(n: u64) -> u64 {
    t_config(n) + 8
}

fn bench() -> Bench {
    Bench::new(Hpet::new(
        HpetConfig {
            msi: true,
            routes: 0x00ff_0104,
            ..HpetConfig::default()
        },
        LegacyReplacement::new(),
    ))
}

#[test]
fn capabilities_are_those_linux_and_seabios_look_for() {
    let b = bench();
    assert_eq!(b.read(HPET_BASE, 8), 0x0098_9680_8086_a201);
    assert_eq!(b.read(HPET_BASE, 4), 0x8086_a201);
    assert_eq!(b.read(HPET_BASE + 4, 4), 10_000_000);
    assert_eq!(b.read(t_config(0), 8), 0x00ff_0104_0000_8030);
}

#[test]
fn the_counter_runs_only_while_enabled_and_can_be_set() {
    let b = bench();
    b.pass_ns(1000);
    assert_eq!(b.read(MAIN, 8), 0);
    b.write(CONFIG, 4, 1);
    b.pass_ns(1000);
    assert_eq!(b.read(MAIN, 8), 100);
    b.write(CONFIG, 4, 0);
    b.pass_ns(1000);
    assert_eq!(b.read(MAIN, 8), 100);
    b.write(MAIN, 8, 0xffff_ffff);
    b.write(CONFIG, 4, 1);
    b.pass_ns(10);
    assert_eq!(b.read(MAIN, 8), 0x1_0000_0000);
    assert_eq!((b.read(MAIN, 4), b.read(MAIN + 4, 4)), (0, 1));
}

#[test]
fn linux_periodic_set_up_ticks_on_interrupt_0() {
    let b = bench();
    b.write(CONFIG, 4, 3);
    // Linux: enable, periodic, value set, 32 bits; then comparator, then period.
    b.write(t_config(0), 4, 0x14c);
    b.write(t_cmp(0), 4, 100_000);
    b.write(t_cmp(0), 4, 100_000);
    b.run_ns(10_000_000);
    assert_eq!(b.rises(), [0; 10]);
    assert_eq!(b.read(t_cmp(0), 8), 1_100_000);
    // Missed periods are made up for.
    b.pass_ns(3_500_000);
    assert_eq!(b.rises(), [0; 3]);
    b.run_ns(500_000);
    assert_eq!(b.rises(), [0]);
    // Not those of a suspended host.
    b.pass_ns(3_600_000_000_000);
    assert_eq!(b.rises(), [0; 1000]);
}

#[test]
fn a_match_that_the_counter_has_just_passed_is_due() {
    let timer = Comparator {
        fires: Some(100),
        ..Comparator::default()
    };
    assert_eq!(
        [90, 100, 150].map(|now| timer.ahead(now)),
        [10, 0, 0].map(Some)
    );
}

#[test]
fn a_one_shot_fires_once_and_a_passed_value_at_once() {
    let b = bench();
    b.write(CONFIG, 4, 3);
    b.write(t_config(0), 4, 0x104);
    b.write(t_cmp(0), 4, 500);
    b.run_ns(4999);
    assert!(b.rises().is_empty());
    b.run_ns(1);
    assert_eq!(b.rises(), [0]);
    b.run_ns(1_000_000);
    assert!(b.rises().is_empty());
    b.write(t_cmp(0), 4, 400);
    b.pass_ns(0);
    assert_eq!(b.rises(), [0]);
    assert_eq!(b.fabric.clock.queue().next_ns(), None);
}

#[test]
fn a_level_interrupt_stays_until_its_status_is_cleared() {
    let b = bench();
    b.write(CONFIG, 4, 1);
    b.write(t_config(2), 4, 0x6 | (20 << 9));
    b.write(t_cmp(2), 8, 10);
    b.run_ns(100);
    assert!(b.level(20));
    assert_eq!(b.read(STATUS, 4), 4);
    b.write(STATUS, 4, 3);
    assert!(b.level(20));
    b.write(STATUS, 4, 4);
    assert!(!b.level(20));
    assert_eq!(b.read(STATUS, 8), 0);
}

#[test]
fn timer_1_has_interrupt_8_under_legacy_replacement_and_its_route_else() {
    let b = bench();
    b.write(t_config(1), 4, 0x4 | (2 << 9));
    for (config, line) in [(3, 8), (1, 2)] {
        b.write(CONFIG, 4, config);
        let counter = b.read(MAIN, 8);
        b.write(t_cmp(1), 8, counter + 10);
        b.run_ns(100);
        assert_eq!(b.rises(), [line]);
    }
}

#[test]
fn legacy_replacement_is_told_to_the_other_timers() {
    let legacy = LegacyReplacement::new();
    let b = Bench::new(Hpet::new(HpetConfig::default(), legacy.clone()));
    b.write(CONFIG, 4, 2);
    assert!(!legacy.is_on());
    b.write(CONFIG, 4, 3);
    assert!(legacy.is_on());
    b.fabric.reset(ResetKind::Cold);
    assert!(!legacy.is_on());
}

#[test]
fn a_timer_can_send_messages() {
    let b = bench();
    b.write(CONFIG, 4, 1);
    b.write(t_config(2) + 0x10, 8, 0xfee0_1000_0000_0041);
    b.write(t_config(2), 4, 0x4004);
    b.write(t_cmp(2), 8, 10);
    b.run_ns(100);
    assert_eq!(*b.log.messages.lock().unwrap(), [(0xfee0_1000, 0x41)]);
    assert!(b.rises().is_empty());
}

#[test]
fn an_absurd_period_does_not_keep_the_loop_busy() {
    let b = bench();
    b.write(CONFIG, 4, 3);
    b.write(t_config(0), 4, 0x4c);
    b.write(t_cmp(0), 8, 1);
    b.write(t_cmp(0), 8, 1);
    b.rises();
    b.run_ns(10_000_000);
    assert!((90..=101).contains(&b.rises().len()));
}

#[test]
fn a_32_bit_timer_compares_the_lower_half() {
    let b = bench();
    b.write(MAIN, 8, 0x5_ffff_fff0);
    b.write(CONFIG, 4, 3);
    b.write(t_config(0), 4, 0x104);
    b.write(t_cmp(0), 4, 0x10);
    b.run_ns(310);
    assert!(b.rises().is_empty());
    b.run_ns(10);
    assert_eq!(b.rises(), [0]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn any_traffic_ends_in_values_and_a_saved_timer_is_the_same(
        ops in proptest::collection::vec((0u8..5, 0u64..0x180, 0usize..4, any::<u64>()), 1..100),
    ) {
        let b = bench();
        for (kind, offset, size, value) in ops {
            let size = [1, 2, 4, 8][size];
            match kind {
                0 => b.write(HPET_BASE + offset, size, value),
                1 => b.write(HPET_BASE + (offset & !3), 4, value & 0x7fff),
                2 => { b.read(HPET_BASE + offset, size); }
                3 => b.write(CONFIG, 4, value & 3),
                _ => b.pass_ns(value % 100_000_000),
            }
        }
        let saved = b.saved();
        let other = bench();
        other.part.with(|d| d.restore(&saved)).unwrap();
        prop_assert_eq!(other.saved(), saved);
        other.part.with(|d| d.after_reset());
        other.pass_ns(1_000_000_000);
    }
}
