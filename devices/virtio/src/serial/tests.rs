use std::sync::{Arc, Mutex};

use backend_char::{CharEvent, CharSink};
use hw_core::Placement;
use hw_virtio::Options;
use hw_virtio::bench::{Bench, Ring, Used};
use proptest::prelude::*;

use super::{PortHost, PortSpec, Serial, SerialBus, SerialPort};

#[derive(Default)]
struct HostState {
    out: Vec<u8>,
    room: usize,
    sink: Option<Arc<dyn CharSink>>,
    accepted: u32,
}

/// A stream with as much room as it is given.
#[derive(Clone, Default)]
struct Host(Arc<Mutex<HostState>>);

impl Host {
    fn sink(&self) -> Arc<dyn CharSink> {
        self.0.lock().unwrap().sink.clone().unwrap()
    }
    fn set_room(&self, room: usize) {
        self.0.lock().unwrap().room = room;
    }
    fn out(&self) -> Vec<u8> {
        std::mem::take(&mut self.0.lock().unwrap().out)
    }
}

impl PortHost for Host {
    fn write(&self, data: &[u8]) -> usize {
        let mut host = self.0.lock().unwrap();
        let count = data.len().min(host.room);
        host.room -= count;
        host.out.extend(&data[..count]);
        count
    }
    fn accept_input(&self) {
        self.0.lock().unwrap().accepted += 1;
    }
    fn is_open(&self) -> bool {
        false
    }
    fn attach(&self, sink: Arc<dyn CharSink>) {
        self.0.lock().unwrap().sink = Some(sink);
    }
}

const MULTIPORT: u64 = 2;

/// A controller with a console (port 0) and a generic port named `agent` (port 1).
fn bench() -> (Bench, Host, Host) {
    let serial = Serial::new(31, true).unwrap();
    let b = Bench::new(Box::new(serial), Options::default(), false);
    let (console, agent) = (Host::default(), Host::default());
    console.set_room(1 << 20);
    for (name, host) in [("", &console), ("agent", &agent)] {
        plug(&b, name, host).unwrap();
    }
    (b, console, agent)
}

fn plug(b: &Bench, name: &str, host: &Host) -> Result<(), hw_core::DeviceError> {
    let bus = b.part.with(|d| d.child_buses()).remove(0).bus;
    let bus = bus.downcast_ref::<SerialBus>().unwrap();
    let port = SerialPort::new(PortSpec {
        nr: None,
        name: name.into(),
        is_console: name.is_empty(),
        host: Some(Box::new(host.clone())),
    });
    let placement = Placement {
        path: format!("port{}", b.fabric.parts().len()),
        bus: Some(bus),
        ..Placement::default()
    };
    b.fabric.add(Box::new(port), placement).map(|_| ())
}

fn message(id: u32, event: u16, value: u16) -> [u8; 8] {
    (u64::from(id) | u64::from(event) << 32 | u64::from(value) << 48).to_le_bytes()
}

/// All control messages the guest got, with room for new ones.
fn control(b: &Bench, q: &mut [Ring]) -> Vec<Vec<u8>> {
    let mut out = Vec::new();
    while let Some(Used { written, data, .. }) = q[2].used() {
        out.push(data[..written as usize].to_vec());
        q[2].add(&[], &[64]);
    }
    b.kick(2);
    out
}

fn say(b: &Bench, q: &mut [Ring], message: [u8; 8]) {
    q[3].add(&[&message], &[]);
    b.kick(3);
    assert!(q[3].used().is_some());
}

fn start(b: &Bench) -> Vec<Ring> {
    let mut q = b.start(MULTIPORT, 6);
    for _ in 0..8 {
        q[2].add(&[], &[64]);
    }
    b.kick(2);
    q
}

#[test]
fn a_driver_learns_of_its_ports() {
    let (b, _, agent) = bench();
    assert_eq!(b.rd(0x104), 31);
    let mut q = start(&b);
    say(&b, &mut q, message(0, 0, 1));
    assert_eq!(
        control(&b, &mut q),
        [message(0, 1, 1).to_vec(), message(1, 1, 1).to_vec()]
    );
    say(&b, &mut q, message(0, 3, 1));
    let expected = [message(0, 4, 1).to_vec(), message(0, 6, 1).to_vec()];
    assert_eq!(control(&b, &mut q), expected);
    say(&b, &mut q, message(1, 3, 1));
    let mut name = message(1, 7, 1).to_vec();
    name.extend(b"agent\0");
    assert_eq!(control(&b, &mut q), [name]);
    agent.sink().event(CharEvent::Opened);
    assert_eq!(control(&b, &mut q), [message(1, 6, 1).to_vec()]);
    agent.sink().event(CharEvent::Closed);
    assert_eq!(control(&b, &mut q), [message(1, 6, 0).to_vec()]);
    // A port that is not there is nobody's.
    say(&b, &mut q, message(9, 3, 1));
    assert!(control(&b, &mut q).is_empty());
}

#[test]
fn control_messages_wait_for_room() {
    let (b, _, _) = bench();
    let mut q = b.start(MULTIPORT, 6);
    say(&b, &mut q, message(0, 0, 1));
    assert!(q[2].used().is_none());
    q[2].add(&[], &[64]);
    q[2].add(&[], &[64]);
    b.kick(2);
    assert_eq!(control(&b, &mut q).len(), 2);
}

#[test]
fn output_waits_for_the_host_and_input_for_the_guest() {
    let (b, console, _) = bench();
    console.set_room(3);
    let mut q = start(&b);
    q[1].add(&[b"hel", b"lo"], &[]);
    b.kick(1);
    assert_eq!(
        (console.out(), q[1].used().is_none()),
        (b"hel".to_vec(), true)
    );
    console.set_room(100);
    console.sink().writable();
    assert_eq!(
        (console.out(), q[1].used().is_some()),
        (b"lo".to_vec(), true)
    );
    let sink = console.sink();
    assert_eq!(sink.can_receive(), 4096);
    sink.receive(b"typed");
    q[0].add(&[], &[3]);
    b.kick(0);
    assert!(q[0].used().is_none());
    say(&b, &mut q, message(0, 6, 1));
    assert_eq!(q[0].used().unwrap().data, b"typ");
    assert_eq!(sink.can_receive(), 4094);
    q[0].add(&[], &[16]);
    b.kick(0);
    let used = q[0].used().unwrap();
    assert_eq!((used.written, &used.data[..2]), (2, &b"ed"[..]));
    assert_eq!(console.0.lock().unwrap().accepted, 2);
}

#[test]
fn what_nobody_reads_is_lost() {
    let (b, _, agent) = bench();
    let mut q = start(&b);
    q[5].add(&[b"hello"], &[]);
    b.kick(5);
    assert_eq!((q[5].used().is_some(), agent.out()), (true, vec![]));
}

#[test]
fn a_driver_without_multiport_has_one_console() {
    let (b, console, _) = bench();
    console.sink().receive(b"x");
    let mut q = b.start(0, 2);
    q[0].add(&[], &[4]);
    b.kick(0);
    assert_eq!(q[0].used().unwrap().data[0], b'x');
}

#[test]
fn an_emergency_write_goes_to_the_console() {
    let (b, console, _) = bench();
    b.wr(0x108, u32::from(b'!'));
    assert_eq!(console.out(), b"!");
}

#[test]
fn a_large_output_is_sent_in_turns() {
    let (b, console, _) = bench();
    let mut q = start(&b);
    // The same memory again and again: more than one call may take.
    for i in 0..15 {
        q[1].raw(i, 0x8_0000, 0x8000, 1, i + 1);
    }
    q[1].raw(15, 0x8_0000, 0x8000, 0, 0);
    q[1].raw_avail(0);
    b.kick(1);
    assert_eq!(console.out().len(), 256 << 10);
    b.fabric.clock.run_timers();
    assert_eq!(console.out().len(), 256 << 10);
}

#[test]
fn a_saved_controller_goes_on_where_it_was() {
    let (b, console, _) = bench();
    console.set_room(1);
    let mut q = start(&b);
    say(&b, &mut q, message(0, 6, 1));
    q[1].add(&[b"abc"], &[]);
    b.kick(1);
    console.sink().receive(b"in");
    let saved = b.fabric.save();
    b.fabric.reset(hw_core::ResetKind::Cold);
    b.fabric.restore(&saved).unwrap();
    assert!(b.fabric.save() == saved);
    console.set_room(10);
    console.sink().writable();
    assert_eq!(
        (console.out(), q[1].used().is_some()),
        (b"abc".to_vec(), true)
    );
    q[0].add(&[], &[2]);
    b.kick(0);
    assert_eq!(q[0].used().unwrap().data, b"in");
}

#[test]
fn ports_have_numbers_and_names_of_their_own() {
    let (b, _, agent) = bench();
    assert!(plug(&b, "agent", &agent).is_err());
    plug(&b, "other", &agent).unwrap();
    let bus = b.part.with(|d| d.child_buses()).remove(0).bus;
    let bus = bus.downcast_ref::<SerialBus>().unwrap();
    let spec = |nr: u32, is_console: bool| PortSpec {
        nr: Some(nr),
        name: String::new(),
        is_console,
        host: None,
    };
    for (nr, console) in [(0, true), (31, true), (2, false)] {
        assert!(bus.plug(spec(nr, console)).is_err());
    }
    assert_eq!(bus.plug(spec(7, true)), Ok(7));
    let lone = Serial::new(1, false).unwrap();
    let b = Bench::new(Box::new(lone), Options::default(), false);
    assert!(plug(&b, "agent", &agent).is_err());
    assert!(Serial::new(0, false).is_err());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn random_messages_and_data_do_not_panic(
        ops in proptest::collection::vec(
            (0u16..6, proptest::collection::vec(any::<u8>(), 1..40), any::<bool>()), 1..40),
    ) {
        let (b, console, agent) = bench();
        let mut q = start(&b);
        for (queue, mut data, small) in ops {
            if small {
                // Messages that mean something are rare otherwise.
                data.iter_mut().for_each(|b| *b &= 7);
            }
            let ring = &mut q[usize::from(queue)];
            if queue & 1 != 0 {
                ring.add(&[&data], &[]);
            } else {
                ring.add(&[], &[data.len()]);
            }
            b.kick(queue);
            while q[usize::from(queue)].used().is_some() {}
            console.sink().receive(&data[..1]);
            agent.sink().event(if small { CharEvent::Opened } else { CharEvent::Closed });
        }
    }
}
