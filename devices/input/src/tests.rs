use std::sync::{Arc, Mutex};

use hw_core::{
    Attrs, ByteOrder, Clock, Fabric, Initiator, IrqHub, IrqSink, Placement, Request, ResetKind,
    Section, Value,
};
use proptest::prelude::*;

use super::*;

struct Bench {
    fabric: Fabric,
    input: Input,
    requests: Arc<Mutex<Vec<Request>>>,
    pins: Arc<Mutex<Vec<(u32, bool)>>>,
}

fn bench() -> Bench {
    let (clock, _) = Clock::manual();
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
    let bus: Vec<_> = (0..16).map(|n| IrqHub::new(sink.clone(), n)).collect();
    let named = [("a20", IrqHub::new(sink, 20))];
    let input = Input::default();
    let place = Placement {
        path: "i8042".into(),
        bus_irqs: &bus,
        pins: &named,
        ..Placement::default()
    };
    fabric
        .add(Box::new(I8042::new(input.clone())), place)
        .unwrap();
    fabric.reset(ResetKind::Cold);
    pins.lock().unwrap().clear();
    Bench {
        fabric,
        input,
        requests,
        pins,
    }
}

impl Bench {
    fn out(&self, port: u64, value: u64) {
        let (by, attrs) = (Initiator::Cpu(0), Attrs::default());
        let map = self.fabric.ports.snapshot();
        map.write(port, 1, value, ByteOrder::Little, by, attrs)
            .unwrap();
    }

    fn inp(&self, port: u64) -> u8 {
        let (by, attrs) = (Initiator::Cpu(0), Attrs::default());
        let map = self.fabric.ports.snapshot();
        map.read(port, 1, ByteOrder::Little, by, attrs).unwrap() as u8
    }

    /// Everything there is to read.
    fn drain(&self) -> Vec<u8> {
        let mut out = Vec::new();
        while self.inp(0x64) & 1 != 0 {
            out.push(self.inp(0x60));
        }
        out
    }

    fn keyboard(&self, byte: u64) -> Vec<u8> {
        self.out(0x60, byte);
        self.drain()
    }

    fn mouse(&self, byte: u64) -> Vec<u8> {
        self.out(0x64, 0xd4);
        self.out(0x60, byte);
        self.drain()
    }

    fn set_mode(&self, mode: u64) {
        self.out(0x64, 0x60);
        self.out(0x60, mode);
    }

    fn key(&self, name: &str, down: bool) {
        let key = Key::by_name(name).unwrap();
        self.input.send(InputEvent::Key { key, down });
    }

    fn moved(&self) -> Vec<(u32, bool)> {
        std::mem::take(&mut *self.pins.lock().unwrap())
    }
}

#[test]
fn the_controller_passes_its_self_tests() {
    let b = bench();
    for (command, answer) in [(0xaa, 0x55), (0xab, 0), (0xa9, 0), (0xc0, 0x80), (0x20, 3)] {
        b.out(0x64, command);
        assert_eq!(b.drain(), [answer], "{command:#x}");
    }
    assert_eq!(b.inp(0x64), 0x1c);
}

#[test]
fn keys_arrive_in_set_2_or_translated_to_set_1() {
    let b = bench();
    b.key("a", true);
    b.key("a", false);
    b.key("left", true);
    b.key("left", false);
    assert_eq!(b.drain(), [0x1c, 0xf0, 0x1c, 0xe0, 0x6b, 0xe0, 0xf0, 0x6b]);
    b.set_mode(0x43);
    b.key("a", true);
    b.key("a", false);
    b.key("left", true);
    b.key("left", false);
    assert_eq!(b.drain(), [0x1e, 0x9e, 0xe0, 0x4b, 0xe0, 0xcb]);
    b.key("pause", true);
    assert_eq!(b.drain(), [0xe1, 0x1d, 0x45, 0xe1, 0x9d, 0xc5]);
    b.input
        .chord(&[Key::by_name("alt").unwrap(), Key::by_name("print").unwrap()]);
    assert_eq!(b.drain(), [0x38, 0x54, 0xd4, 0xb8]);
}

#[test]
fn each_byte_raises_an_edge_and_a_read_lowers_the_pin() {
    let b = bench();
    b.key("a", true);
    b.key("b", true);
    assert_eq!(b.moved(), [(1, true)]);
    assert_eq!(b.inp(0x60), 0x1c);
    assert_eq!(b.moved(), [(1, false), (1, true)]);
    assert_eq!(b.inp(0x60), 0x32);
    assert_eq!(b.moved(), [(1, false)]);
    // A debugger may look without taking.
    b.key("c", true);
    let map = b.fabric.ports.snapshot();
    for _ in 0..2 {
        let seen = map.read(
            0x60,
            1,
            ByteOrder::Little,
            Initiator::Debug,
            Attrs::default(),
        );
        assert_eq!(seen, Ok(0x21));
    }
    assert_eq!(b.drain(), [0x21]);
    // An empty buffer reads as the last byte.
    assert_eq!(b.inp(0x60), 0x21);
}

#[test]
fn the_keyboard_answers_its_commands() {
    let b = bench();
    assert_eq!(b.keyboard(0xff), [0xfa, 0xaa]);
    assert_eq!(b.keyboard(0xf2), [0xfa, 0xab, 0x83]);
    assert_eq!(b.keyboard(0xee), [0xee]);
    assert_eq!(b.keyboard(0xed), [0xfa]);
    assert_eq!(b.keyboard(0x07), [0xfa]);
    assert_eq!(b.keyboard(0xf0), [0xfa]);
    assert_eq!(b.keyboard(0x00), [0xfa, 2]);
    assert_eq!(b.keyboard(0xf0), [0xfa]);
    assert_eq!(b.keyboard(0x03), [0xfe]);
    assert_eq!(b.keyboard(0x01), [0xfe]);
    // Scanning off: keys are lost.
    assert_eq!(b.keyboard(0xf5), [0xfa]);
    b.key("a", true);
    assert_eq!(b.drain(), []);
    assert_eq!(b.keyboard(0xf4), [0xfa]);
    b.set_mode(0x43);
    assert_eq!(b.keyboard(0xf2), [0xfa, 0xab, 0x41]);
    let leds = b.fabric.find("i8042").unwrap().with(|d| d.inspect());
    assert!(leds.contains(&("leds", 7)));
}

#[test]
fn a_disabled_interface_holds_its_bytes_back() {
    let b = bench();
    b.out(0x64, 0xad);
    b.key("a", true);
    assert_eq!(b.drain(), []);
    b.out(0x64, 0xae);
    assert_eq!(b.drain(), [0x1c]);
}

#[test]
fn a_mouse_with_a_wheel_reports_movement() {
    let b = bench();
    assert_eq!(b.mouse(0xff), [0xfa, 0xaa, 0]);
    for rate in [200, 100, 80] {
        assert_eq!(b.mouse(0xf3), [0xfa]);
        assert_eq!(b.mouse(rate), [0xfa]);
    }
    assert_eq!(b.mouse(0xf2), [0xfa, 3]);
    assert_eq!(b.mouse(0xe9), [0xfa, 0, 2, 80]);
    assert_eq!(b.mouse(0xf4), [0xfa]);
    b.moved();
    let event = |dx, dy, dz, buttons| InputEvent::Mouse {
        dx,
        dy,
        dz,
        buttons,
    };
    b.input.send(event(5, 3, -1, Buttons::LEFT));
    assert_eq!(b.moved(), [(12, true)]);
    assert_eq!(b.inp(0x64) & 0x21, 0x21);
    assert_eq!(b.drain(), [0x29, 5, 0xfd, 0xff]);
    // A long way comes in several packets.
    b.input.send(event(-200, 0, 0, Buttons::default()));
    assert_eq!(b.drain(), [0x18, 0x81, 0, 0, 0x18, 0xb7, 0, 0]);
    // Nothing moved: nothing is said.
    b.input.send(event(0, 0, 0, Buttons::default()));
    assert_eq!(b.drain(), []);
}

#[test]
fn a_remote_mouse_speaks_when_asked() {
    let b = bench();
    assert_eq!(b.mouse(0xf0), [0xfa]);
    assert_eq!(b.mouse(0xf4), [0xfa]);
    let buttons = Buttons::RIGHT.and(Buttons::MIDDLE);
    b.input.send(InputEvent::Mouse {
        dx: 1,
        dy: -1,
        dz: 0,
        buttons,
    });
    assert_eq!(b.drain(), []);
    assert_eq!(b.mouse(0xeb), [0xfa, 0x0e, 1, 1]);
    assert_eq!(b.mouse(0xe9), [0xfa, 0x63, 2, 100]);
}

#[test]
fn the_output_port_switches_a20_and_resets() {
    let b = bench();
    b.out(0x64, 0xdd);
    b.out(0x64, 0xd1);
    b.out(0x60, 0x03);
    b.out(0x64, 0xd0);
    assert_eq!(b.drain(), [0xc3]);
    let a20: Vec<_> = b
        .moved()
        .into_iter()
        .filter(|(pin, _)| *pin == 20)
        .collect();
    assert_eq!(a20, [(20, false), (20, true)]);
    b.out(0x64, 0xfe);
    b.out(0x64, 0xf1);
    assert_eq!(*b.requests.lock().unwrap(), [Request::Reset]);
}

#[test]
fn keys_are_known_by_name_and_number() {
    assert_eq!(Key::by_number(0x1e), Key::by_name("a"));
    assert_eq!(Key::by_number(0x9c), Key::by_name("kp_enter"));
    assert_eq!(
        Key::by_name("kp_multiply").map(Key::name),
        Some("kp_multiply")
    );
    assert_eq!(Key::by_name("enter"), None);
    let names: Vec<_> = Key::names().collect();
    let mut unique = names.clone();
    unique.sort_unstable();
    unique.dedup();
    assert_eq!(unique.len(), names.len());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn random_traffic_never_panics_and_survives_a_save(
        ops in proptest::collection::vec((0u8..5, any::<u8>()), 0..200),
    ) {
        let b = bench();
        for (what, value) in ops {
            match what {
                0 => b.out(0x60, value.into()),
                1 => b.out(0x64, value.into()),
                2 => { b.inp(0x60); }
                3 => if let Some(key) = Key::by_number(value) {
                    b.input.chord(&[key, key]);
                },
                _ => {
                    let step = i32::from(value) << 8;
                    b.input.send(InputEvent::Mouse {
                        dx: step, dy: -step, dz: step, buttons: Buttons::SIDE,
                    });
                }
            }
        }
        let saved = b.fabric.save();
        b.fabric.reset(ResetKind::Cold);
        b.fabric.restore(&saved).unwrap();
        prop_assert_eq!(b.fabric.save(), saved);
        prop_assert!(b.drain().len() < 2000);
    }

    #[test]
    fn a_mutated_saved_state_is_refused_or_harmless(

        field in 0usize..12,
        junk in prop_oneof![
            any::<u64>().prop_map(Value::U64),
            proptest::collection::vec(any::<u8>(), 0..600).prop_map(Value::Bytes),
            Just(Value::List(vec![Value::U64(1)])),
        ],
    ) {
        let b = bench();
        b.key("a", true);
        let (path, section) = b.fabric.save().remove(0);
        let mut changed = Section::new(section.name(), section.version());
        for (n, (tag, value)) in section.fields().iter().enumerate() {
            changed.push(*tag, if n == field { junk.clone() } else { value.clone() });
        }
        let _ = b.fabric.restore(&[(path, changed)]);
        b.input.send(InputEvent::Mouse { dx: 300, dy: -300, dz: 9, buttons: Buttons::LEFT });
        b.out(0x60, 0xf4);
        prop_assert!(b.drain().len() < 2000);
        prop_assert_eq!(b.fabric.save().len(), 1);
    }
}
