//! A bench: a port on a fabric with a movable clock, a watched pin and a stream in memory.

use std::sync::{Arc, Mutex};

use hw_core::{
    Args, Attrs, ByteOrder, Clock, DeviceClass, Fabric, Initiator, IrqHub, Links, Part, Placement,
};

use crate::line::{Inbox, Line};

#[derive(Default)]
pub(crate) struct Shared {
    pub(crate) out: Vec<u8>,
    /// Bytes the stream still takes.
    pub(crate) takes: usize,
    pub(crate) breaks: Vec<bool>,
    pub(crate) inbox: Option<Arc<Inbox>>,
    pub(crate) accepts: usize,
}

struct Fake(Arc<Mutex<Shared>>);

impl Line for Fake {
    fn write(&self, bytes: &[u8]) -> usize {
        let mut s = self.0.lock().unwrap();
        let n = bytes.len().min(s.takes);
        s.takes -= n;
        s.out.extend_from_slice(&bytes[..n]);
        n
    }
    fn accept_input(&self) {
        self.0.lock().unwrap().accepts += 1;
    }
    fn attach(&self, inbox: Arc<Inbox>) {
        self.0.lock().unwrap().inbox = Some(inbox);
    }
    fn set_break(&self, on: bool) {
        self.0.lock().unwrap().breaks.push(on);
    }
}

pub(crate) struct Bench {
    pub(crate) fabric: Fabric,
    pub(crate) time: Arc<hw_clock::ManualTime>,
    pub(crate) part: Arc<Part>,
    pub(crate) edges: Arc<Mutex<Vec<(u32, bool)>>>,
    pub(crate) stream: Arc<Mutex<Shared>>,
    base: u64,
    is_mmio: bool,
}

impl Bench {
    /// A device at ports from `base` on.
    pub(crate) fn new(class: &'static DeviceClass, base: u64, props: &[(&str, &str)]) -> Self {
        Bench::make(class, base, props)
    }

    /// A device in memory at `base`.
    pub(crate) fn in_memory(class: &'static DeviceClass, base: u64) -> Self {
        let bench = Bench::make(class, base, &[("base", &base.to_string())]);
        Bench {
            is_mmio: true,
            ..bench
        }
    }

    fn make(class: &'static DeviceClass, base: u64, props: &[(&str, &str)]) -> Self {
        let (clock, time) = Clock::manual();
        let fabric = Fabric::new(clock);
        let edges = Arc::new(Mutex::new(Vec::new()));
        let seen = edges.clone();
        let sink = Arc::new(move |pin: u32, level: bool| seen.lock().unwrap().push((pin, level)));
        let hubs: Vec<IrqHub> = (0..16).map(|n| IrqHub::new(sink.clone(), n)).collect();
        let stream = Arc::new(Mutex::new(Shared {
            takes: usize::MAX,
            ..Shared::default()
        }));
        let mut links = Links::default();
        let line: Box<dyn Line> = Box::new(Fake(stream.clone()));
        links.offer("chardev", "c", line);
        let given = props.iter().copied().chain([("chardev", "c")]);
        let args = Args::new(class, given).unwrap();
        let placement = Placement {
            path: "dut".into(),
            class: class.name,
            bus_irqs: &hubs,
            pins: &[("irq", hubs[0].clone())],
            ..Placement::default()
        };
        let device = (class.create)(&args, &mut links).unwrap();
        let part = fabric.add(device, placement).unwrap();
        Bench {
            fabric,
            time,
            part,
            edges,
            stream,
            base,
            is_mmio: false,
        }
    }

    fn map(&self) -> &hw_memory::MemoryMap {
        match self.is_mmio {
            true => &self.fabric.memory,
            false => &self.fabric.ports,
        }
    }

    pub(crate) fn read_sized(&self, offset: u64, size: u8) -> Option<u64> {
        self.map()
            .snapshot()
            .read(
                self.base + offset,
                size,
                ByteOrder::Little,
                Initiator::Cpu(0),
                Attrs::default(),
            )
            .ok()
    }

    pub(crate) fn write_sized(&self, offset: u64, size: u8, value: u64) {
        let _ = self.map().snapshot().write(
            self.base + offset,
            size,
            value,
            ByteOrder::Little,
            Initiator::Cpu(0),
            Attrs::default(),
        );
    }

    pub(crate) fn rd(&self, offset: u64) -> u8 {
        self.read_sized(offset, 1).unwrap() as u8
    }

    pub(crate) fn rd32(&self, offset: u64) -> u64 {
        self.read_sized(offset, 4).unwrap()
    }

    pub(crate) fn wr32(&self, offset: u64, value: u64) {
        self.write_sized(offset, 4, value);
    }

    pub(crate) fn wr(&self, offset: u64, value: u8) {
        self.write_sized(offset, 1, value.into());
    }

    /// The level of the only pin in use.
    pub(crate) fn pin(&self) -> bool {
        self.edges.lock().unwrap().last().is_some_and(|e| e.1)
    }

    pub(crate) fn inbox(&self) -> Arc<Inbox> {
        self.stream.lock().unwrap().inbox.clone().unwrap()
    }

    pub(crate) fn out(&self) -> Vec<u8> {
        self.stream.lock().unwrap().out.clone()
    }

    pub(crate) fn pass_ns(&self, ns: u64) {
        self.time.advance_ns(ns);
        self.fabric.clock.run_timers();
    }
}
