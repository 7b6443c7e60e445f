use std::sync::{Arc, Mutex};

use hw_core::{Attrs, ByteOrder, Dma, Fabric, Initiator, Msi, MsiSink, Part, Placement, ResetKind};
use hw_pci::{PciBus, PciOptions};
use proptest::prelude::*;

use super::{DisableLegacy, VirtioPci, VirtioPciOptions};
use crate::bench::{self, Ring, SIZE};
use crate::{Io, VirtioDevice, device_id, feature};

/// Fills what it is given with sevens; a write to its configuration changes it.
#[derive(Default)]
struct Sevens {
    last: u8,
    hands_on: bool,
}

impl VirtioDevice for Sevens {
    fn id(&self) -> u16 {
        device_id::BLOCK
    }
    fn name(&self) -> &'static str {
        "sevens"
    }
    fn features(&self) -> u64 {
        4
    }
    fn queue_sizes(&self) -> Vec<u16> {
        vec![SIZE, SIZE]
    }
    fn config(&self) -> Vec<u8> {
        vec![1, 2, 3, self.last]
    }
    fn config_written(&mut self, io: &mut Io<'_>, _: u64, data: &[u8]) {
        self.last = data[0];
        io.config_changed();
    }
    fn hands_on(&self) -> bool {
        self.hands_on
    }
    fn queue_notified(&mut self, io: &mut Io<'_>, queue: u16) {
        while let Some(chain) = io.pop(queue) {
            let data = vec![7; chain.writable_len().min(4096) as usize];
            match chain.write_at(io.dma(), 0, &data) {
                Ok(n) => io.push(queue, &chain, n as u32),
                Err(error) => return io.fail(error),
            }
        }
    }
    fn reset(&mut self) {
        self.last = 0;
    }
}

type Sent = Vec<(u64, u32)>;

#[derive(Default)]
struct Log(Mutex<Sent>);

impl MsiSink for Log {
    fn message(&self, address: u64, data: u32, _: u32) {
        self.0.lock().unwrap().push((address, data));
    }
}

struct Bench {
    fabric: Fabric,
    dma: Dma,
    bus: PciBus,
    part: Arc<Part>,
    pin: Arc<Mutex<bool>>,
    messages: Arc<Log>,
}

const IO: u64 = 0xc000;
const MSIX: u64 = 0xe000_0000;
const MODERN: u64 = 0xe100_0000;

fn options() -> VirtioPciOptions {
    VirtioPciOptions::new("sevens-pci")
}

impl Bench {
    fn try_new(options: VirtioPciOptions) -> Result<Self, hw_core::DeviceError> {
        Self::with(Sevens::default(), options)
    }

    fn with(device: Sevens, options: VirtioPciOptions) -> Result<Self, hw_core::DeviceError> {
        let (fabric, _) = bench::fabric();
        let messages = Arc::new(Log::default());
        fabric.set_msi(Msi::new(messages.clone(), 0));
        let pin = Arc::new(Mutex::new(false));
        let seen = pin.clone();
        let intx = Arc::new(move |_: u32, level: bool| *seen.lock().unwrap() = level);
        let bus = PciBus::new("pci.0", false, intx);
        bus.config_ports().map(&fabric.ports);
        let device = VirtioPci::new(Box::new(device), options, PciOptions::at(0));
        let placement = Placement {
            path: "dev".into(),
            bus: Some(&bus),
            ..Placement::default()
        };
        let part = fabric.add(Box::new(device), placement)?;
        fabric.reset(ResetKind::Cold);
        let dma = Dma::new(fabric.memory.clone());
        let b = Bench {
            fabric,
            dma,
            bus,
            part,
            pin,
            messages,
        };
        for (register, value) in [(0x10, IO), (0x14, MSIX), (0x20, MODERN), (0x04, 7)] {
            b.config(register, 4, Some(value));
        }
        Ok(b)
    }

    fn new(options: VirtioPciOptions) -> Self {
        Bench::try_new(options).unwrap()
    }

    fn access(&self, address: u64, size: u8, value: Option<u64>) -> u64 {
        let ports = address < 0x1_0000;
        let map = if ports {
            &self.fabric.ports
        } else {
            &self.fabric.memory
        };
        let map = map.snapshot();
        let (order, by, attrs) = (ByteOrder::Little, Initiator::Cpu(0), Attrs::default());
        match value {
            Some(value) => map
                .write(address, size, value, order, by, attrs)
                .map_or(u64::MAX, u64::from),
            None => map
                .read(address, size, order, by, attrs)
                .unwrap_or(u64::MAX),
        }
    }

    fn rd(&self, address: u64, size: u8) -> u64 {
        self.access(address, size, None)
    }

    fn wr(&self, address: u64, size: u8, value: u64) {
        self.access(address, size, Some(value));
    }

    fn config(&self, register: u64, size: u8, value: Option<u64>) -> u64 {
        self.wr(0xcf8, 4, 0x8000_0000 | register & 0xfc);
        self.access(0xcfc + (register & 3), size, value)
    }

    fn get(&self, register: u64, size: u8) -> u64 {
        self.config(register, size, None)
    }

    /// Capabilities: id, `cfg_type`, offset.
    fn capabilities(&self) -> Vec<(u64, u64, u64)> {
        let mut out = Vec::new();
        let mut at = self.get(0x34, 1);
        while at != 0 {
            out.push((self.get(at, 1), self.get(at + 3, 1), at));
            at = self.get(at + 1, 1);
        }
        out
    }

    fn capability(&self, id: u64, kind: u64) -> u64 {
        let caps = self.capabilities();
        let wanted = caps.iter().find(|c| c.0 == id && (id != 9 || c.1 == kind));
        wanted.unwrap().2
    }

    /// A modern driver's start, with queue 0.
    fn start(&self, features: u64) -> Ring {
        let features = features | feature::VERSION_1;
        for status in [0, 1, 3] {
            self.wr(MODERN + 0x14, 1, status);
        }
        for word in [0, 1] {
            self.wr(MODERN + 8, 4, word);
            self.wr(MODERN + 0xc, 4, features >> (32 * word));
        }
        self.wr(MODERN + 0x14, 1, 11);
        assert_eq!(self.rd(MODERN + 0x14, 1), 11);
        let ring = Ring::new(self.dma.clone(), 0, features);
        self.wr(MODERN + 0x16, 2, 0);
        for (offset, area) in [0x20, 0x28, 0x30].into_iter().zip(ring.areas) {
            self.wr(MODERN + offset, 8, area);
        }
        self.wr(MODERN + 0x1c, 2, 1);
        self.wr(MODERN + 0x14, 1, 15);
        ring
    }

    fn kick(&self, ring: &mut Ring) -> Option<Vec<u8>> {
        ring.add(&[], &[3]);
        self.wr(MODERN + 0x3000, 2, 0);
        ring.used().map(|used| used.data)
    }

    fn pin(&self) -> bool {
        *self.pin.lock().unwrap()
    }
}

#[test]
fn a_transitional_device_has_the_ids_of_old() {
    let b = Bench::new(options());
    assert_eq!(b.get(0, 4), 0x1001_1af4);
    assert_eq!((b.get(8, 4), b.get(0x2c, 4)), (0x0100_0000, 0x0002_1af4));
    let b = Bench::new(VirtioPciOptions {
        disable_legacy: DisableLegacy::On,
        ..options()
    });
    assert_eq!(b.get(0, 4), 0x1042_1af4);
    assert_eq!((b.get(8, 1), b.get(0x2c, 4)), (1, 0x1100_1af4));
    assert_eq!(b.bus.functions()[0].bars.len(), 2);
    let none = VirtioPciOptions {
        disable_legacy: DisableLegacy::On,
        disable_modern: true,
        ..options()
    };
    assert!(Bench::try_new(none).is_err());
}

#[test]
fn capabilities_lead_to_every_structure() {
    let b = Bench::new(options());
    let mut kinds: Vec<_> = b.capabilities().iter().map(|c| (c.0, c.1)).collect();
    kinds.sort_unstable();
    assert_eq!(kinds.iter().filter(|k| k.0 == 9).count(), 5);
    let notify = b.capability(9, 2);
    assert_eq!(b.get(notify + 4, 1), 4);
    assert_eq!(b.get(notify + 8, 4), 0x3000);
    assert_eq!(b.get(notify + 16, 4), 4);
    let msix = b.capability(0x11, 0);
    assert_eq!(b.get(msix + 2, 2), 2);
}

#[test]
fn a_modern_driver_is_served_with_the_pin() {
    let b = Bench::new(options());
    assert_eq!(b.rd(MODERN + 0x12, 2), 2);
    assert_eq!(b.rd(MODERN + 0x2000, 4), 0x0003_0201);
    let mut ring = b.start(feature::EVENT_IDX);
    assert_eq!(b.rd(MODERN + 0x20, 8), ring.areas[0]);
    assert_eq!(b.kick(&mut ring), Some(vec![7; 3]));
    assert!(b.pin());
    assert_eq!((b.rd(MODERN + 0x1000, 1), b.pin()), (1, false));
    b.wr(MODERN + 0x2003, 1, 9);
    assert_eq!(b.rd(MODERN + 0x15, 1), 1);
    assert_eq!((b.rd(MODERN + 0x1000, 1), b.pin()), (3, false));
}

#[test]
fn a_served_bell_is_heard_by_the_loop_and_not_by_the_writer() {
    let b = Bench::new(options());
    let mut main_loop = runtime::EventLoop::new().unwrap();
    b.fabric.serve_doorbells(main_loop.handle());
    let mut ring = b.start(0);
    assert_eq!(b.kick(&mut ring), None);
    main_loop.turn(None);
    assert_eq!(ring.used().map(|used| used.data), Some(vec![7; 3]));
    // A machine that stops leaves no bell unheard.
    assert_eq!(b.kick(&mut ring), None);
    b.fabric.drain();
    assert!(ring.used().is_some());
}

#[test]
fn a_device_that_hands_requests_on_takes_them_from_the_writer_unless_it_has_a_thread() {
    let device = Sevens {
        hands_on: true,
        ..Sevens::default()
    };
    let b = Bench::with(device, options()).unwrap();
    let mut main_loop = runtime::EventLoop::new().unwrap();
    b.fabric.serve_doorbells(main_loop.handle());
    let mut ring = b.start(0);
    assert_eq!(b.kick(&mut ring), Some(vec![7; 3]));
    b.fabric.serve_by(&b.part, &main_loop.handle());
    assert_eq!(b.kick(&mut ring), None);
    main_loop.turn(None);
    assert_eq!(ring.used().map(|used| used.data), Some(vec![7; 3]));
}

#[test]
fn each_queue_has_its_bells_where_the_guest_placed_the_registers() {
    let b = Bench::new(options());
    let main_loop = runtime::EventLoop::new().unwrap();
    b.fabric.serve_doorbells(main_loop.handle());
    let bells = |map: &hw_memory::MemoryMap, address: u64| -> Vec<_> {
        let map = map.snapshot();
        let span = map.find(address).unwrap();
        let hw_memory::What::Io { io, region, .. } = &span.what else {
            panic!("no registers at {address:#x}");
        };
        let bells = io.doorbells(*region).into_iter().map(|bell| bell.place);
        bells.map(|p| (p.offset, p.size, p.value)).collect()
    };
    let modern = [(0x3000, None, None), (0x3004, None, None)];
    assert_eq!(bells(&b.fabric.memory, MODERN), modern);
    let legacy = [(0x10, Some(2), Some(0)), (0x10, Some(2), Some(1))];
    assert_eq!(bells(&b.fabric.ports, IO), legacy);
}

#[test]
fn queues_and_configuration_have_vectors_of_their_own() {
    let b = Bench::new(options());
    let msix = b.capability(0x11, 0);
    for vector in 0..3 {
        b.wr(MSIX + vector * 16, 8, 0xfee0_0000);
        b.wr(MSIX + vector * 16 + 8, 8, 0x40 + vector);
    }
    b.config(msix + 2, 2, Some(0x8000));
    let mut ring = b.start(0);
    b.wr(MODERN + 0x10, 2, 2);
    b.wr(MODERN + 0x1a, 2, 1);
    assert_eq!(b.rd(MODERN + 0x1a, 2), 1);
    assert!(b.kick(&mut ring).is_some());
    b.wr(MODERN + 0x2003, 1, 9);
    let sent = b.messages.0.lock().unwrap().clone();
    assert_eq!(sent, [(0xfee0_0000, 0x41), (0xfee0_0000, 0x42)]);
    assert!(!b.pin());
    b.wr(MODERN + 0x1a, 2, 3);
    assert_eq!(b.rd(MODERN + 0x1a, 2), 0xffff);
}

#[test]
fn the_window_in_configuration_space_reaches_the_structures() {
    let b = Bench::new(options());
    let window = b.capability(9, 5);
    let aim = |offset: u64, len: u64| {
        b.config(window + 4, 1, Some(4));
        b.config(window + 8, 4, Some(offset));
        b.config(window + 12, 4, Some(len));
    };
    aim(0x2000, 4);
    assert_eq!(b.get(window + 16, 4), 0x0003_0201);
    aim(0x14, 1);
    b.config(window + 16, 1, Some(1));
    assert_eq!(b.rd(MODERN + 0x14, 1), 1);
    aim(0x2001, 4);
    b.config(window + 16, 4, Some(1));
    aim(u64::from(u32::MAX), 1);
    b.get(window + 16, 4);
}

#[test]
fn a_legacy_driver_is_served_through_ports() {
    let b = Bench::new(options());
    b.config(4, 2, Some(3));
    assert_eq!(b.rd(IO, 4) & 4, 4);
    b.wr(IO + 0x12, 1, 3);
    assert_eq!(b.get(4, 2) & 4, 4);
    b.wr(IO + 4, 4, 4);
    b.wr(IO + 0xe, 2, 0);
    assert_eq!(b.rd(IO + 0xc, 2), u64::from(SIZE));
    b.wr(IO + 8, 4, 0x10);
    assert_eq!(b.rd(IO + 8, 4), 0x10);
    b.wr(IO + 0x12, 1, 7);
    assert_eq!(b.rd(IO + 0x14, 2), 0x0201);
    let base = 0x1_0000;
    b.dma.store_le(base, 8, 0x5000).unwrap();
    b.dma.store_le(base + 8, 8, 2 | 2 << 32).unwrap();
    let avail = base + 16 * u64::from(SIZE);
    b.dma.store_le(avail + 2, 2, 1).unwrap();
    b.wr(IO + 0x10, 2, 0);
    assert_eq!(b.dma.load_le(0x5000, 2), Ok(0x0707));
    assert_eq!(b.dma.load_le(base + 4096 + 2, 2), Ok(1));
    assert_eq!((b.rd(IO + 0x13, 1), b.pin()), (1, false));
    let msix = b.capability(0x11, 0);
    b.config(msix + 2, 2, Some(0x8000));
    assert_eq!((b.rd(IO + 0x14, 2), b.rd(IO + 0x18, 2)), (0xffff, 0x0201));
    b.wr(IO + 0x12, 1, 0);
    assert_eq!((b.rd(IO + 0x12, 1), b.rd(IO + 8, 4)), (0, 0));
}

#[test]
fn without_bus_mastering_the_device_gives_up() {
    let b = Bench::new(options());
    let mut ring = b.start(0);
    b.config(4, 2, Some(2));
    assert_eq!(b.kick(&mut ring), None);
    assert_eq!(b.rd(MODERN + 0x14, 1) & 0x40, 0x40);
}

#[test]
fn restore_after_save_is_the_same_device() {
    let b = Bench::new(options());
    let mut ring = b.start(feature::EVENT_IDX);
    b.wr(MODERN + 0x10, 2, 2);
    assert!(b.kick(&mut ring).is_some());
    let saved = b.fabric.save();
    b.fabric.reset(ResetKind::Cold);
    assert!(!b.pin());
    b.fabric.restore(&saved).unwrap();
    assert_eq!(b.fabric.save(), saved);
    assert!(b.pin());
    assert_eq!(b.kick(&mut ring), Some(vec![7; 3]));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn random_accesses_do_not_panic(
        ops in proptest::collection::vec(
            (0u8..4, any::<bool>(), 0u64..0x4000, 0u32..4, any::<u64>()), 1..100),
    ) {
        let b = Bench::new(options());
        b.start(feature::EVENT_IDX);
        for (space, write, offset, size, value) in ops {
            let size = 1u8 << size;
            let value = write.then_some(value);
            match space {
                0 => { b.config(offset & 0xfc, size.min(4), value); }
                1 => { b.access(IO + (offset & 0x1f), size.min(4), value); }
                2 => { b.access(MODERN + (offset & 0x3f), size, value); }
                _ => { b.access(MODERN + offset, size, value); }
            }
            b.fabric.clock.run_timers();
        }
        let saved = b.part.with(|d| d.save());
        b.part.with(|d| d.restore(&saved)).unwrap();
        prop_assert_eq!(b.part.with(|d| d.save()), saved);
    }
}
