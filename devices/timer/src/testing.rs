//! A bench: a device on a fabric with a movable clock and counted edges.

use std::sync::{Arc, Mutex};

use hw_core::{
    Attrs, ByteOrder, Clock, Device, Fabric, Initiator, IrqHub, Msi, MsiSink, Part, Placement,
};

#[derive(Default)]
pub(crate) struct Log {
    /// Rising edges by line, in order.
    pub(crate) rises: Mutex<Vec<u32>>,
    pub(crate) levels: Mutex<[bool; 24]>,
    pub(crate) messages: Mutex<Vec<(u64, u32)>>,
}

impl MsiSink for Log {
    fn message(&self, address: u64, data: u32, _: u32) {
        self.messages.lock().unwrap().push((address, data));
    }
}

pub(crate) struct Bench {
    pub(crate) fabric: Fabric,
    pub(crate) time: Arc<hw_clock::ManualTime>,
    pub(crate) part: Arc<Part>,
    pub(crate) log: Arc<Log>,
}

impl Bench {
    pub(crate) fn new(device: impl Device) -> Self {
        let (clock, time) = Clock::manual();
        let fabric = Fabric::new(clock);
        let log = Arc::new(Log::default());
        let seen = log.clone();
        let sink = Arc::new(move |pin: u32, level: bool| {
            seen.levels.lock().unwrap()[pin as usize] = level;
            if level {
                seen.rises.lock().unwrap().push(pin);
            }
        });
        fabric.set_msi(Msi::new(log.clone(), 0));
        let hubs: Vec<IrqHub> = (0..24).map(|n| IrqHub::new(sink.clone(), n)).collect();
        let placement = Placement {
            path: "dut".into(),
            bus_irqs: &hubs,
            ..Placement::default()
        };
        let part = fabric.add(Box::new(device), placement).unwrap();
        Bench {
            fabric,
            time,
            part,
            log,
        }
    }

    pub(crate) fn outb(&self, port: u64, value: u8) {
        let (order, by) = (ByteOrder::Little, Initiator::Cpu(0));
        let map = self.fabric.ports.snapshot();
        let _ = map.write(port, 1, value.into(), order, by, Attrs::default());
    }

    pub(crate) fn inb(&self, port: u64) -> u8 {
        let (order, by) = (ByteOrder::Little, Initiator::Cpu(0));
        let map = self.fabric.ports.snapshot();
        map.read(port, 1, order, by, Attrs::default())
            .unwrap_or(0xff) as u8
    }

    pub(crate) fn write(&self, address: u64, size: u8, value: u64) {
        let (order, by) = (ByteOrder::Little, Initiator::Cpu(0));
        let map = self.fabric.memory.snapshot();
        let _ = map.write(address, size, value, order, by, Attrs::default());
    }

    pub(crate) fn read(&self, address: u64, size: u8) -> u64 {
        let (order, by) = (ByteOrder::Little, Initiator::Cpu(0));
        let map = self.fabric.memory.snapshot();
        map.read(address, size, order, by, Attrs::default())
            .unwrap_or(u64::MAX)
    }

    /// Lets virtual time pass in one step.
    pub(crate) fn pass_ns(&self, ns: u64) {
        self.time.advance_ns(ns);
        self.fabric.clock.run_timers();
    }

    /// Lets virtual time pass from deadline to deadline, as the main loop does.
    pub(crate) fn run_ns(&self, ns: u64) {
        let end = self.fabric.clock.now_ns() + ns;
        loop {
            let now = self.fabric.clock.now_ns();
            match self.fabric.clock.queue().next_ns() {
                Some(at) if at <= end => self.pass_ns(at.saturating_sub(now)),
                _ => return self.pass_ns(end - now),
            }
        }
    }

    pub(crate) fn rises(&self) -> Vec<u32> {
        std::mem::take(&mut self.log.rises.lock().unwrap())
    }

    pub(crate) fn level(&self, line: usize) -> bool {
        self.log.levels.lock().unwrap()[line]
    }

    pub(crate) fn saved(&self) -> hw_core::Section {
        self.part.with(|d| d.save())
    }
}
