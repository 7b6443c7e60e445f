//! How many requests the virtio-blk model carries out, without a guest CPU: this is the driver.
//!
//! Prints one line for each back end, depth and size: name, requests a second, and requests a second of
//! processor time, the driver's share included. `cargo xtask bench --disks` makes a table of them; an
//! argument is a folder on `tmpfs`. What is read past the page cache is in cargo's folder.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::print_stdout
)]

use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use backend_block::{
    BackendOptions, BlockBackend, Child, DriverClass, IoVector, NULL_CO, Opener, RAW, SharedBlock,
    perm,
};
use backend_file::FILE;
use control_options::Opts;
use device_virtio::{Blk, BlkOptions};
use hw_core::{Attrs, ByteOrder, Clock, Dma, Fabric, Initiator, IrqHub, Placement, ResetKind};
use hw_memory::{MappingSpec, RamBlock, What};
use hw_virtio::{MmioSlot, Options, VirtioMmio};

const SLOT: u64 = 0xfeb0_0000;
const RAM: u64 = 64 << 20;
const DISK: u64 = 256 << 20;
/// Where the ring's parts, the headers and states, and the data of requests are.
const DESC: u64 = 0x1000;
const AVAIL: u64 = 0x2000;
const USED: u64 = 0x3000;
const HEADERS: u64 = 0x10000;
const DATA: u64 = 1 << 20;
const ENTRIES: u64 = 128;
/// Each row takes about this long.
const ROW: Duration = Duration::from_secs(1);

static DRIVERS: &[&DriverClass] = &[&RAW, &NULL_CO, &FILE, &backend_qcow2::CLASS];

/// The interrupt pin, which a thread can wait for.
#[derive(Default)]
struct Pin(Mutex<bool>, Condvar);

/// A machine of one disk, and its driver.
struct Driver {
    fabric: Fabric,
    dma: Dma,
    pin: Arc<Pin>,
    available: u16,
    used: u16,
}

impl Driver {
    fn new(disk: SharedBlock) -> Self {
        let (clock, _) = Clock::manual();
        let fabric = Fabric::new(clock);
        let block = Arc::new(RamBlock::new("ram", RAM).unwrap());
        fabric.memory.add(MappingSpec {
            name: "ram".into(),
            base: 0,
            len: RAM,
            priority: 0,
            enabled: true,
            what: What::Ram { block, offset: 0 },
        });
        let pin = Arc::new(Pin::default());
        let seen = pin.clone();
        let set = move |_: u32, level: bool| {
            *seen.0.lock().unwrap() = level;
            seen.1.notify_all();
        };
        let hub = IrqHub::new(Arc::new(set), 0);
        let slot = MmioSlot {
            base: SLOT,
            force_legacy: false,
        };
        let device = Blk::new(disk, BlkOptions::default()).unwrap();
        let device = VirtioMmio::new(Box::new(device), Options::default());
        let placement = Placement {
            path: "disk".into(),
            bus_irqs: &[hub],
            bus: Some(&slot),
            ..Placement::default()
        };
        fabric.add(Box::new(device), placement).unwrap();
        fabric.reset(ResetKind::Cold);
        let dma = Dma::new(fabric.memory.clone());
        let driver = Driver {
            fabric,
            dma,
            pin,
            available: 0,
            used: 0,
        };
        // VIRTIO 1.2 section 3.1.1; of all features, VERSION_1.
        for (register, value) in [
            (0x70, 1),
            (0x70, 3),
            (0x24, 1),
            (0x20, 1),
            (0x70, 11),
            (0x30, 0),
            (0x38, ENTRIES),
            (0x80, DESC),
            (0x90, AVAIL),
            (0xa0, USED),
            (0x44, 1),
            (0x70, 15),
        ] {
            driver.write(register, value);
        }
        assert_eq!(driver.read(0x70), 15, "the device refused its driver");
        driver
    }

    fn read(&self, register: u64) -> u64 {
        let map = self.fabric.memory.snapshot();
        let (order, attrs) = (ByteOrder::Little, Attrs::default());
        map.read(SLOT + register, 4, order, Initiator::Cpu(0), attrs)
            .unwrap()
    }

    fn write(&self, register: u64, value: u64) {
        let map = self.fabric.memory.snapshot();
        let (order, attrs) = (ByteOrder::Little, Attrs::default());
        map.write(SLOT + register, 4, value, order, Initiator::Cpu(0), attrs)
            .unwrap();
    }

    /// Makes a read available.
    fn ask(&mut self, slot: u64, offset: u64, len: u64) {
        let (header, state) = (HEADERS + slot * 64, HEADERS + slot * 64 + 32);
        self.dma.store_le(header, 8, 0).unwrap();
        self.dma.store_le(header + 8, 8, offset / 512).unwrap();
        self.dma.store_le(state, 1, 0xff).unwrap();
        let data = DATA + slot * len;
        let parts = [(header, 16, 1u64), (data, len, 1 | 2), (state, 1, 2)];
        for (i, (at, len, flags)) in (0u64..).zip(parts) {
            let entry = DESC + (slot * 3 + i) * 16;
            self.dma.store_le(entry, 8, at).unwrap();
            let next = slot * 3 + i + 1;
            let rest = len | flags << 32 | next << 48;
            self.dma.store_le(entry + 8, 8, rest).unwrap();
        }
        let at = AVAIL + 4 + u64::from(self.available) % ENTRIES * 2;
        self.dma.store_le(at, 2, slot * 3).unwrap();
        self.available = self.available.wrapping_add(1);
        self.dma
            .store_le(AVAIL + 2, 2, self.available.into())
            .unwrap();
    }

    /// The slots of what is done; waits for the interrupt if nothing is.
    fn done(&mut self, slots: &mut Vec<u64>) {
        loop {
            let index = self.dma.load_le(USED + 2, 2).unwrap() as u16;
            while self.used != index {
                let at = USED + 4 + u64::from(self.used) % ENTRIES * 8;
                let slot = self.dma.load_le(at, 4).unwrap() / 3;
                let state = HEADERS + slot * 64 + 32;
                assert_eq!(self.dma.load_le(state, 1).unwrap(), 0, "a read failed");
                slots.push(slot);
                self.used = self.used.wrapping_add(1);
            }
            if !slots.is_empty() {
                return;
            }
            let mut level = self.pin.0.lock().unwrap();
            while !*level {
                level = self.pin.1.wait(level).unwrap();
            }
            drop(level);
            let why = self.read(0x60);
            self.write(0x64, why);
        }
    }

    /// Reads with `depth` requests at a time; returns how many there were, and how long it took.
    fn run(&mut self, depth: u64, len: u64) -> (u64, Duration, Duration) {
        let (begun, cpu) = (Instant::now(), cpu_time());
        let mut free: Vec<u64> = (0..depth).collect();
        let (mut count, mut flying, mut offset) = (0u64, 0u64, 0u64);
        while flying != 0 || begun.elapsed() < ROW {
            if begun.elapsed() < ROW {
                let asked = free.len();
                for slot in std::mem::take(&mut free) {
                    self.ask(slot, offset, len);
                    offset = (offset + len) % DISK;
                    flying += 1;
                }
                if asked != 0 {
                    self.write(0x50, 0);
                }
            }
            let before = free.len();
            self.done(&mut free);
            let done = (free.len() - before) as u64;
            flying -= done;
            count += done;
        }
        (count, begun.elapsed(), cpu_time() - cpu)
    }
}

fn cpu_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// A file that goes away in the end.
struct Temporary(PathBuf);

impl Drop for Temporary {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

/// A file in a folder.
fn file(folder: &Path, name: &str) -> Temporary {
    Temporary(folder.join(format!("mimic-bench-{}.{name}", std::process::id())))
}

fn open(text: &str) -> Arc<backend_block::Node> {
    let opts = Opts::parse("-blockdev", text, None).unwrap();
    Opener::new(DRIVERS).open("-blockdev", &opts).unwrap()
}

/// A qcow2 image that is written from end to end.
fn qcow2(folder: &Path) -> Temporary {
    let file = file(folder, "qcow2");
    backend_file::create(&file.0).unwrap();
    let name = file.0.display();
    {
        let below = open(&format!("driver=file,filename={name}"));
        let child = Child::attach(below, "bench", "file", perm::ALL, perm::ALL).unwrap();
        let create = backend_qcow2::CLASS.create.unwrap();
        (create.create)(&child, DISK, &Opts::default()).unwrap();
    }
    let node = open(&format!(
        "driver=qcow2,file.driver=file,file.filename={name}"
    ));
    let memory = IoVector::from(vec![0x5a; 1 << 20].as_slice());
    for at in (0..DISK).step_by(1 << 20) {
        node.write(at, &memory).unwrap();
    }
    node.flush().unwrap();
    file
}

fn main() {
    let folder = std::env::args().skip(1).find(|arg| !arg.starts_with('-'));
    let tmpfs = PathBuf::from(folder.unwrap_or_else(|| "/dev/shm".to_owned()));
    let raw = file(&tmpfs, "raw");
    std::fs::write(&raw.0, vec![0x5a; DISK as usize]).unwrap();
    let cached = qcow2(&tmpfs);
    let direct = qcow2(Path::new(env!("CARGO_TARGET_TMPDIR")));
    let of = |driver: &str, file: &Temporary, more: &str| {
        let name = file.0.display();
        format!("driver={driver},file.driver=file,file.filename={name}{more}")
    };
    let past_cache = |aio: &str| {
        of(
            "qcow2",
            &direct,
            &format!(",cache.direct=on,file.aio={aio}"),
        )
    };
    let backends = [
        ("null-co", format!("driver=null-co,size={DISK}")),
        ("tmpfs", of("raw", &raw, "")),
        ("tmpfs,qcow2", of("qcow2", &cached, "")),
        ("direct,qcow2,threads", past_cache("threads")),
        ("direct,qcow2,io_uring", past_cache("io_uring")),
    ];
    for (name, text) in backends {
        let disk = BlockBackend::new("disk", open(&text), BackendOptions::default());
        let disk: SharedBlock = Arc::new(disk.unwrap());
        for (depth, len) in [(1, 4096), (32, 4096), (1, 1 << 20), (32, 1 << 20)] {
            let mut driver = Driver::new(disk.clone());
            let (count, wall, cpu) = driver.run(depth, len);
            let rate = |time: Duration| count as f64 / time.as_secs_f64();
            println!(
                "{name} {depth} {} {:.0} {:.0}",
                len >> 10,
                rate(wall),
                rate(cpu)
            );
        }
    }
}
