use std::sync::{Arc, Mutex};

use backend_char::{CharSpec, Chardev};
use hw_core::{
    Args, Attrs, ByteOrder, Clock, Fabric, Initiator, IrqHub, Links, Placement, Request, ResetKind,
};
use proptest::prelude::*;
use runtime::EventLoop;

use super::*;

struct Bench {
    fabric: Fabric,
    requests: Arc<Mutex<Vec<Request>>>,
    pins: Arc<Mutex<Vec<(u32, bool)>>>,
}

/// A machine with one device of `class`.
fn bench(class: &'static DeviceClass, props: &[(&str, &str)], links: &mut Links) -> Bench {
    let (clock, _) = Clock::manual();
    let fabric = Fabric::new(clock);
    let requests = Arc::new(Mutex::new(Vec::new()));
    let seen = requests.clone();
    fabric
        .requests
        .connect(move |r| seen.lock().unwrap().push(r));
    let pins = Arc::new(Mutex::new(Vec::new()));
    let seen = pins.clone();
    let sink: Arc<dyn hw_core::IrqSink> =
        Arc::new(move |pin: u32, on: bool| seen.lock().unwrap().push((pin, on)));
    let bus: Vec<_> = (0..16).map(|n| IrqHub::new(sink.clone(), n)).collect();
    let named = [("a20", IrqHub::new(sink, 20))];
    let args = Args::new(class, props.iter().copied()).unwrap();
    let device = (class.create)(&args, links).unwrap();
    let place = Placement {
        path: class.name.into(),
        class: class.name,
        bus_irqs: &bus,
        pins: &named,
        ..Placement::default()
    };
    fabric.add(device, place).unwrap();
    fabric.reset(ResetKind::Cold);
    Bench {
        fabric,
        requests,
        pins,
    }
}

impl Bench {
    fn out(&self, port: u64, size: u8, value: u64) {
        let (by, attrs) = (Initiator::Cpu(0), Attrs::default());
        let map = self.fabric.ports.snapshot();
        let _ = map.write(port, size, value, ByteOrder::Little, by, attrs);
    }

    fn inp(&self, port: u64, size: u8) -> Option<u64> {
        let (by, attrs) = (Initiator::Cpu(0), Attrs::default());
        let map = self.fabric.ports.snapshot();
        map.read(port, size, ByteOrder::Little, by, attrs).ok()
    }

    fn asked(&self) -> Vec<Request> {
        std::mem::take(&mut *self.requests.lock().unwrap())
    }

    fn moved(&self) -> Vec<(u32, bool)> {
        std::mem::take(&mut *self.pins.lock().unwrap())
    }
}

#[test]
fn debug_exit_ends_with_an_odd_status() {
    let b = bench(
        &ISA_DEBUG_EXIT,
        &[("iobase", "0xf4"), ("iosize", "4")],
        &mut Links::default(),
    );
    b.out(0xf4, 4, 0);
    b.out(0xf4, 1, 0x10);
    assert_eq!(b.asked(), [Request::Exit(1), Request::Exit(0x21)]);
}

#[test]
fn pvpanic_reports_what_it_was_told() {
    let b = bench(&PVPANIC, &[("events", "3")], &mut Links::default());
    assert_eq!(b.inp(0x505, 1), Some(3));
    b.out(0x505, 1, 1);
    b.out(0x505, 1, 2);
    b.out(0x505, 1, 4);
    assert_eq!(b.asked(), [Request::Panicked, Request::CrashLoaded]);
}

#[test]
fn port_92_switches_a20_and_resets_on_the_rising_edge() {
    let b = bench(&PORT92, &[], &mut Links::default());
    b.out(0x92, 1, 2);
    assert_eq!(b.moved(), [(20, true)]);
    b.out(0x92, 1, 3);
    b.out(0x92, 1, 3);
    assert_eq!(b.asked(), [Request::Reset]);
    b.out(0x92, 1, 0);
    assert_eq!(b.moved(), [(20, false)]);
}

#[test]
fn the_test_device_drives_interrupts_and_remembers() {
    let b = bench(&PC_TESTDEV, &[], &mut Links::default());
    b.out(0x2004, 1, 1);
    b.out(0x2004, 1, 0);
    assert_eq!(b.moved(), [(4, true), (4, false)]);
    b.out(0xe0, 4, 0x1234_5678);
    assert_eq!(
        (b.inp(0xe1, 1), b.inp(0xe8, 4)),
        (Some(0x56), Some(0x1234_5678))
    );
    let (by, attrs) = (Initiator::Cpu(0), Attrs::default());
    let map = b.fabric.memory.snapshot();
    map.write(0xff00_0ffe, 4, 0xaabb_ccdd, ByteOrder::Little, by, attrs)
        .unwrap();
    assert_eq!(
        map.read(0xff00_0fff, 2, ByteOrder::Little, by, attrs),
        Ok(0xbbcc)
    );
    let saved = b.fabric.save();
    b.fabric.reset(ResetKind::Cold);
    b.fabric.restore(&saved).unwrap();
    assert_eq!(b.fabric.save(), saved);
}

#[test]
fn the_debug_console_writes_to_its_stream_and_reads_as_itself() {
    let event_loop = EventLoop::new().unwrap();
    let spec = CharSpec::parse("ringbuf,id=d,size=64").unwrap();
    let chardev = Chardev::open(&spec, &event_loop.handle()).unwrap();
    let mut links = Links::default();
    links.offer("chardev", "d", Chardev::frontend(&chardev).unwrap());
    let b = bench(
        &ISA_DEBUGCON,
        &[("iobase", "0x402"), ("chardev", "d")],
        &mut links,
    );
    for byte in b"hello" {
        b.out(0x402, 1, (*byte).into());
    }
    assert_eq!(b.inp(0x402, 1), Some(0xe9));
    assert_eq!(chardev.ringbuf_read(64).unwrap(), b"hello");
    let error = (ISA_DEBUGCON.create)(&Args::new(&ISA_DEBUGCON, []).unwrap(), &mut links);
    assert!(error.is_err_and(|e| e.to_string().contains("chardev=")));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn random_accesses_end_in_a_value(
        ops in proptest::collection::vec((0u64..32, 0u32..3, any::<u64>(), any::<bool>()), 0..40),
    ) {
        for class in [&ISA_DEBUG_EXIT, &PVPANIC, &PORT92, &PC_TESTDEV] {
            let b = bench(class, &[], &mut Links::default());
            for (at, size, value, write) in &ops {
                for base in [0x90, 0xe0, 0x500, 0x1ff0, 0x2010] {
                    let (port, size) = (base + at, 1u8 << size);
                    if *write { b.out(port, size, *value) } else { b.inp(port, size); }
                }
            }
            let saved = b.fabric.save();
            b.fabric.reset(ResetKind::Cold);
            b.fabric.restore(&saved).unwrap();
            prop_assert_eq!(b.fabric.save(), saved);
        }
    }
}
