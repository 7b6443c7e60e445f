use std::sync::{Arc, Mutex};

use hw_clock::ManualTime;
use hw_core::{
    Attrs, ByteOrder, Clock, Device, Fabric, Initiator, IrqHub, IrqSink, Placement, PowerButton,
    Request, ResetKind, Section, Value,
};
use proptest::prelude::*;

use super::*;

const BASE: u64 = 0x600;

struct Bench {
    fabric: Fabric,
    time: Arc<ManualTime>,
    requests: Arc<Mutex<Vec<Request>>>,
    pins: Arc<Mutex<Vec<(u32, bool)>>>,
}

/// A machine with one device. Pins: 0 `sci`, 1 `smi`, 2 `ged`.
fn bench(device: Box<dyn Device>) -> Bench {
    let (clock, time) = Clock::manual();
    let fabric = Fabric::new(clock);
    let requests = Arc::new(Mutex::new(Vec::new()));
    let seen = requests.clone();
    fabric
        .requests
        .connect(move |r| seen.lock().unwrap().push(r));
    let pins = Arc::new(Mutex::new(Vec::new()));
    let seen = pins.clone();
    let sink: Arc<dyn IrqSink> =
        Arc::new(move |pin: u32, on: bool| seen.lock().unwrap().push((pin, on)));
    let names = ["sci", "smi", "ged"];
    let hubs: Vec<_> = names
        .iter()
        .zip(0..)
        .map(|(name, n)| (*name, IrqHub::new(sink.clone(), n)))
        .collect();
    let place = Placement {
        path: "x".into(),
        pins: &hubs,
        ..Placement::default()
    };
    fabric.add(device, place).unwrap();
    fabric.reset(ResetKind::Cold);
    Bench {
        fabric,
        time,
        requests,
        pins,
    }
}

fn pm(layout: PmLayout, smm: bool) -> (Bench, PowerButton) {
    let config = PmConfig {
        layout,
        smm,
        ..PmConfig::default()
    };
    let (window, button) = (config.window.clone(), config.button.clone());
    let b = bench(Box::new(PmBlock::new(config)));
    window.place(BASE, true);
    (b, button)
}

impl Bench {
    fn out(&self, port: u64, size: u8, value: u64) {
        let (by, attrs) = (Initiator::Cpu(0), Attrs::default());
        let map = self.fabric.ports.snapshot();
        let _ = map.write(port, size, value, ByteOrder::Little, by, attrs);
    }

    fn inp(&self, port: u64, size: u8) -> u64 {
        let (by, attrs) = (Initiator::Cpu(0), Attrs::default());
        let map = self.fabric.ports.snapshot();
        map.read(port, size, ByteOrder::Little, by, attrs)
            .unwrap_or(!0)
    }

    fn asked(&self) -> Vec<Request> {
        std::mem::take(&mut *self.requests.lock().unwrap())
    }

    fn moved(&self) -> Vec<(u32, bool)> {
        std::mem::take(&mut *self.pins.lock().unwrap())
    }
}

#[test]
fn acpi_mode_is_switched_by_the_command_port() {
    for (layout, on, off) in [(PmLayout::Piix4, 0xf1, 0xf0), (PmLayout::Ich9, 2, 3)] {
        let (b, _) = pm(layout, false);
        assert_eq!(b.inp(BASE + 4, 2), 0);
        b.out(0xb2, 1, on);
        assert_eq!(b.inp(BASE + 4, 2), 1);
        b.out(0xb2, 1, off);
        assert_eq!(b.inp(BASE + 4, 2), 0);
        b.out(0xb3, 1, 0x77);
        assert_eq!((b.inp(0xb2, 1), b.inp(0xb3, 1)), (off, 0x77));
    }
}

#[test]
fn the_timer_counts_and_its_overflow_interrupts() {
    let (b, _) = pm(PmLayout::Piix4, false);
    b.time.advance_ns(1_000_000_000);
    assert_eq!(b.inp(BASE + 8, 4), 3_579_545);
    b.out(BASE + 2, 2, 1);
    assert_eq!(b.moved(), []);
    let at = hw_clock::ticks_to_ns(0x80_0000, 3_579_545);
    assert_eq!(b.fabric.clock.run_timers(), Some(at));
    b.time.advance_ns(at - 1_000_000_000);
    b.fabric.clock.run_timers();
    assert_eq!(b.moved(), [(0, true)]);
    assert_eq!(b.inp(BASE + 8, 4), 0x80_0000);
    b.out(BASE, 2, 1);
    assert_eq!((b.inp(BASE, 2), b.moved()), (0, vec![(0, false)]));
}

#[test]
fn the_power_button_interrupts_until_its_status_is_cleared() {
    let (b, button) = pm(PmLayout::Ich9, false);
    b.out(BASE + 3, 1, 1);
    assert!(button.press());
    assert_eq!(b.moved(), [(0, true)]);
    assert_eq!(b.inp(BASE, 4), 0x0100_0100);
    b.out(BASE + 1, 1, 1);
    assert_eq!(b.moved(), [(0, false)]);
    assert!(!PowerButton::default().press());
}

#[test]
fn sleep_type_0_switches_off_and_s3_is_refused() {
    let (b, _) = pm(PmLayout::Piix4, false);
    b.out(BASE + 4, 2, 0x2001 | 1 << 10);
    assert_eq!(b.asked(), []);
    b.out(BASE + 4, 2, 0x0001);
    assert_eq!(b.asked(), []);
    b.out(BASE + 4, 2, 0x2001);
    assert_eq!(b.asked(), [Request::PowerOff]);
    assert_eq!(b.inp(BASE + 4, 2), 1);
}

#[test]
fn system_management_is_raised_or_looks_set_up() {
    let (b, _) = pm(PmLayout::Ich9, true);
    b.out(0xb2, 1, 0);
    assert_eq!((b.moved(), b.inp(BASE + 0x30, 4)), (vec![], 0));
    b.out(BASE + 0x30, 4, 0x21);
    b.out(0xb2, 1, 0);
    assert_eq!(b.moved(), [(1, true), (1, false)]);
    let (b, _) = pm(PmLayout::Ich9, false);
    assert_eq!(b.inp(BASE + 0x30, 4), 0x20);
    b.out(0xb2, 1, 0);
    assert_eq!(b.moved(), []);
}

#[test]
fn general_purpose_enables_are_kept_by_byte() {
    let (b, _) = pm(PmLayout::Piix4, false);
    b.out(PIIX4_GPE_BASE + 3, 1, 0x12);
    b.out(PIIX4_GPE_BASE + 2, 1, 0x34);
    assert_eq!(b.inp(PIIX4_GPE_BASE, 4), 0x1234_0000);
    let (b, _) = pm(PmLayout::Ich9, false);
    b.out(BASE + 0x2d, 1, 0xab);
    assert_eq!(b.inp(BASE + 0x2c, 4), 0xab00);
    assert_eq!(b.inp(BASE + 0x28, 4), 0);
}

#[test]
fn the_generic_event_device_tells_of_the_button_once() {
    let button = PowerButton::default();
    let b = bench(Box::new(Ged::new(button.clone())));
    let (by, attrs) = (Initiator::Cpu(0), Attrs::default());
    let map = b.fabric.memory.snapshot();
    let events = || map.read(GED_EVENT_BASE, 4, ByteOrder::Little, by, attrs);
    button.press();
    assert_eq!(b.moved(), [(2, true), (2, false)]);
    assert_eq!((events(), events()), (Ok(2), Ok(0)));
    let poke = |at, value| {
        map.write(
            GED_REGISTER_BASE + at,
            1,
            value,
            ByteOrder::Little,
            by,
            attrs,
        )
    };
    poke(ged_register::SLEEP_CONTROL, 0x14).unwrap();
    assert_eq!(b.asked(), []);
    poke(ged_register::SLEEP_CONTROL, 0x34).unwrap();
    poke(ged_register::RESET, 0x42).unwrap();
    assert!(poke(ged_register::RESET, 1).is_err());
    assert_eq!(b.asked(), [Request::PowerOff, Request::Reset]);
}

#[test]
fn the_reset_register_resets() {
    let b = bench(Box::new(ResetControl::default()));
    b.out(0xcf9, 1, 2);
    assert_eq!((b.inp(0xcf9, 1), b.asked()), (2, vec![]));
    b.out(0xcf9, 1, 6);
    assert_eq!((b.inp(0xcf9, 1), b.asked()), (2, vec![Request::Reset]));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn random_accesses_never_panic_and_survive_a_save(
        ich9 in any::<bool>(),
        ops in proptest::collection::vec(
            (0u64..0x90, 0u32..3, any::<u64>(), any::<bool>(), 0u64..1 << 34), 0..60),
    ) {
        let layout = if ich9 { PmLayout::Ich9 } else { PmLayout::Piix4 };
        let (b, button) = pm(layout, true);
        for (at, size, value, write, ns) in ops {
            for base in [BASE, 0xb0, PIIX4_GPE_BASE] {
                let size = 1u8 << size;
                if write { b.out(base + at, size, value) } else { b.inp(base + at, size); }
            }
            if value & 7 == 0 { button.press(); }
            b.time.advance_ns(ns);
            b.fabric.clock.run_timers();
        }
        let saved = b.fabric.save();
        b.fabric.reset(ResetKind::Cold);
        b.fabric.restore(&saved).unwrap();
        prop_assert_eq!(b.fabric.save(), saved);
    }

    #[test]
    fn a_mutated_saved_state_is_refused_or_harmless(
        ich9 in any::<bool>(),
        field in 0usize..12,
        junk in prop_oneof![
            any::<u64>().prop_map(Value::U64),
            proptest::collection::vec(any::<u8>(), 0..600).prop_map(Value::Bytes),
            Just(Value::List(vec![Value::U64(1)])),
        ],
    ) {
        let layout = if ich9 { PmLayout::Ich9 } else { PmLayout::Piix4 };
        let (b, _button) = pm(layout, true);
        let (path, section) = b.fabric.save().remove(0);
        let mut changed = Section::new(section.name(), section.version());
        for (n, (tag, value)) in section.fields().iter().enumerate() {
            changed.push(*tag, if n == field { junk.clone() } else { value.clone() });
        }
        let _ = b.fabric.restore(&[(path, changed)]);
        b.time.advance_ns(1 << 34);
        b.fabric.clock.run_timers();
        b.out(BASE, 4, 0xffff_ffff);
        b.inp(BASE, 4);
        prop_assert_eq!(b.fabric.save().len(), 1);
    }
}
