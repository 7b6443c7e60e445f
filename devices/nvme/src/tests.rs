//! A controller, driven as drivers do it.

use std::sync::{Arc, Mutex};

use backend_block::bench::Memory;
use backend_block::{Block as _, BlockError, Operation, SharedBlock};
use hw_core::{
    Access, Args, Attrs, ByteOrder, Clock, Dma, Fabric, Initiator, Links, Placement, RegionId,
    ResetKind,
};
use hw_memory::{MappingSpec, RamBlock, What};
use hw_pci::PciBus;
use proptest::prelude::*;

use crate::CLASSES;

const RAM: u64 = 4 << 20;
const BAR: u64 = 0xe000_0000;
const DISK: usize = 4 << 20;
const ENTRIES: u16 = 16;
const DATA: u64 = 0x10_0000;
const LIST: u64 = 0x20_0000;

/// The host's half of a pair of queues.
struct Queue {
    id: u16,
    tail: u16,
    head: u16,
    phase: bool,
}

struct Bench {
    fabric: Fabric,
    dma: Dma,
    disks: [Memory; 2],
    intx: Arc<Mutex<bool>>,
    admin: Queue,
    io: Queue,
    next: u16,
}

/// How a command ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct End {
    id: u16,
    status: u16,
    result: u32,
}

fn submissions(id: u16) -> u64 {
    0x1000 + u64::from(id) * 0x2000
}

fn completions(id: u16) -> u64 {
    0x2000 + u64::from(id) * 0x2000
}

fn queue(id: u16) -> Queue {
    Queue {
        id,
        tail: 0,
        head: 0,
        phase: true,
    }
}

impl Bench {
    /// A controller with two namespaces, 1 and 7, enabled, with a pair of queues.
    fn new() -> Self {
        let mut b = Bench::off();
        b.enable();
        b
    }

    fn off() -> Self {
        let fabric = Fabric::new(Clock::manual().0);
        let block = Arc::new(RamBlock::private("ram", RAM).unwrap());
        fabric.memory.add(MappingSpec {
            name: "ram".into(),
            base: 0,
            len: RAM,
            priority: 0,
            enabled: true,
            what: What::Ram { block, offset: 0 },
        });
        let intx = Arc::new(Mutex::new(false));
        let pin = intx.clone();
        let sink = Arc::new(move |_: u32, level: bool| *pin.lock().unwrap() = level);
        let bus = PciBus::new("pci.0", false, sink);
        let disks = [Memory::new(DISK), Memory::new(DISK)];
        let mut links = Links::default();
        for (id, disk) in ["a", "b"].into_iter().zip(&disks) {
            links.offer("drive", id, Arc::new(disk.clone()) as SharedBlock);
        }
        let args = Args::new(CLASSES[0], [("serial", "S1"), ("drive", "a")]).unwrap();
        let device = (CLASSES[0].create)(&args, &mut links).unwrap();
        let placement = Placement {
            path: "nvme".into(),
            bus: Some(&bus),
            ..Placement::default()
        };
        let part = fabric.add(device, placement).unwrap();
        let child = part.with(|device| device.child_buses()).remove(0);
        let args = Args::new(CLASSES[1], [("nsid", "7"), ("drive", "b")]).unwrap();
        let device = (CLASSES[1].create)(&args, &mut links).unwrap();
        let placement = Placement {
            path: "ns".into(),
            bus: Some(child.bus.as_ref()),
            ..Placement::default()
        };
        fabric.add(device, placement).unwrap();
        fabric.reset(ResetKind::Cold);
        let devfn = bus.devfns()[0];
        for (register, size, value) in [(0x10, 4, BAR), (4, 2, 6)] {
            let access = Access {
                region: RegionId(0),
                offset: 0,
                size,
                by: Initiator::Cpu(0),
                attrs: Attrs::default(),
            };
            bus.write(0, devfn, register, access, value).unwrap();
        }
        let dma = Dma::new(fabric.memory.clone());
        Bench {
            fabric,
            dma,
            disks,
            intx,
            admin: queue(0),
            io: queue(1),
            next: 0,
        }
    }

    fn enable(&mut self) {
        for id in 0..3 {
            self.dma.fill(submissions(id), 0x2000, 0).unwrap();
        }
        (self.admin, self.io) = (queue(0), queue(1));
        let last = u32::from(ENTRIES - 1);
        self.set(0x24, last | last << 16);
        self.set(0x28, submissions(0) as u32);
        self.set(0x30, completions(0) as u32);
        self.set(0x14, 0x46_0001);
        assert_eq!(self.get(0x1c), 1);
        let size = last << 16 | 1;
        assert_eq!(self.admin(5, 0, completions(1), &[size, 3]).status, 0);
        assert_eq!(
            self.admin(1, 0, submissions(1), &[size, 1 << 16 | 1])
                .status,
            0
        );
    }

    fn set(&self, offset: u64, value: u32) {
        let (by, attrs) = (Initiator::Cpu(0), Attrs::default());
        let map = self.fabric.memory.snapshot();
        map.write(BAR + offset, 4, value.into(), ByteOrder::Little, by, attrs)
            .unwrap();
    }

    fn get(&self, offset: u64) -> u32 {
        let (by, attrs) = (Initiator::Cpu(0), Attrs::default());
        let map = self.fabric.memory.snapshot();
        map.read(BAR + offset, 4, ByteOrder::Little, by, attrs)
            .unwrap() as u32
    }

    fn work(&self) {
        self.disks.iter().for_each(Memory::work);
    }

    /// Puts a command into a queue, and tells the controller.
    fn put(&mut self, io: bool, bytes: [u8; 64]) {
        let queue = if io { &mut self.io } else { &mut self.admin };
        let at = submissions(queue.id) + u64::from(queue.tail) * 64;
        self.dma.write(at, &bytes).unwrap();
        queue.tail = (queue.tail + 1) % ENTRIES;
        let (id, tail) = (queue.id, queue.tail);
        self.set(0x1000 + u64::from(id) * 8, tail.into());
    }

    fn end(&mut self, io: bool) -> Option<End> {
        let queue = if io { &mut self.io } else { &mut self.admin };
        let at = completions(queue.id) + u64::from(queue.head) * 16;
        let word = |n: u64| self.dma.load_le(at + n * 4, 4).unwrap() as u32;
        let last = word(3);
        if (last >> 16 & 1 != 0) != queue.phase {
            return None;
        }
        let end = End {
            id: last as u16,
            status: (last >> 17) as u16 & 0x7ff,
            result: word(0),
        };
        queue.head = (queue.head + 1) % ENTRIES;
        queue.phase ^= queue.head == 0;
        let (id, head) = (queue.id, queue.head);
        self.set(0x1004 + u64::from(id) * 8, head.into());
        Some(end)
    }

    fn entry(&mut self, opcode: u8, namespace: u32, prps: [u64; 2], words: &[u32]) -> [u8; 64] {
        self.next += 1;
        let mut bytes = [0; 64];
        bytes[0] = opcode;
        bytes[2..4].copy_from_slice(&self.next.to_le_bytes());
        bytes[4..8].copy_from_slice(&namespace.to_le_bytes());
        bytes[24..32].copy_from_slice(&prps[0].to_le_bytes());
        bytes[32..40].copy_from_slice(&prps[1].to_le_bytes());
        for (n, word) in words.iter().enumerate() {
            bytes[40 + n * 4..][..4].copy_from_slice(&word.to_le_bytes());
        }
        bytes
    }

    fn admin(&mut self, opcode: u8, namespace: u32, prp: u64, words: &[u32]) -> End {
        let entry = self.entry(opcode, namespace, [prp, 0], words);
        self.put(false, entry);
        let end = self.end(false).unwrap();
        assert_eq!(end.id, self.next);
        end
    }

    /// A command of blocks, carried out.
    fn io(
        &mut self,
        opcode: u8,
        namespace: u32,
        prps: [u64; 2],
        first: u32,
        words: [u32; 2],
    ) -> End {
        let entry = self.entry(opcode, namespace, prps, &[first, 0, words[0], words[1]]);
        self.put(true, entry);
        self.work();
        let end = self.end(true).unwrap();
        assert_eq!(end.id, self.next);
        end
    }

    fn peek(&self, address: u64, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        self.dma.read(address, &mut bytes).unwrap();
        bytes
    }
}

#[test]
fn blocks_are_read_and_written_on_each_namespace() {
    let mut b = Bench::new();
    let entry = b.entry(2, 1, [DATA, 0], &[3, 0, 1, 0]);
    b.put(true, entry);
    assert!(b.end(true).is_none());
    b.work();
    assert!(*b.intx.lock().unwrap());
    assert_eq!(b.end(true).unwrap().status, 0);
    assert!(!*b.intx.lock().unwrap());
    let data = b.peek(DATA, 1024);
    assert_eq!((data[0], data[512]), (3, 4));
    b.dma.fill(DATA, 512, 9).unwrap();
    assert_eq!(b.io(1, 7, [DATA, 0], 5, [1 << 30, 0]).status, 0);
    assert_eq!(b.disks[1].bytes.lock().unwrap()[5 * 512..][..512], [9; 512]);
    // FUA: and only then it is done.
    let log = b.disks[1].log.lock().unwrap().clone();
    assert_eq!(log, [Operation::Write { offset: 2560 }, Operation::Flush]);
}

#[test]
fn data_lie_where_lists_of_pages_say() {
    let mut b = Bench::new();
    let number = |at: u64| (at / 512) as u8;
    // Two pages, the first from its middle on.
    assert_eq!(
        b.io(2, 1, [DATA + 0x800, DATA + 0x3000], 0, [7, 0]).status,
        0
    );
    assert_eq!(b.peek(DATA + 0x800, 1)[0], 0);
    assert_eq!(b.peek(DATA + 0x3000, 1)[0], number(0x800));
    // A list that goes on in another page.
    let pages = 6u64;
    let at = LIST + 0x1000 - 16;
    b.dma.store_le(at, 8, DATA + 0x1_0000).unwrap();
    b.dma.store_le(at + 8, 8, LIST + 0x2000).unwrap();
    for n in 1..pages {
        let page = DATA + 0x1_0000 + n * 0x2000;
        b.dma
            .store_le(LIST + 0x2000 + (n - 1) * 8, 8, page)
            .unwrap();
    }
    assert_eq!(b.io(2, 1, [DATA, at], 8, [7 * 8 - 1, 0]).status, 0);
    for n in 0..pages {
        let page = DATA + 0x1_0000 + n * 0x2000;
        assert_eq!(b.peek(page, 1)[0], number(0x1000 + (n + 1) * 0x1000));
    }
    // Pages that do not begin where pages begin.
    assert_eq!(b.io(2, 1, [DATA + 1, 0], 0, [0, 0]).status, 0x13);
    assert_eq!(b.io(2, 1, [DATA, DATA + 8], 0, [15, 0]).status, 0x13);
    assert_eq!(b.io(2, 1, [DATA, LIST + 4], 0, [31, 0]).status, 0x13);
    b.dma.store_le(LIST, 8, DATA + 8).unwrap();
    assert_eq!(b.io(2, 1, [DATA, LIST], 0, [31, 0]).status, 0x13);
    // Nothing is there.
    assert_eq!(b.io(2, 1, [RAM * 2, 0], 0, [0, 0]).status, 4);
}

#[test]
fn what_cannot_be_done_ends_with_its_status() {
    let mut b = Bench::new();
    let blocks = (DISK / 512) as u32;
    for (opcode, namespace, first, words, status) in [
        (2, 1, blocks, [0, 0], 0x80),
        (2, 1, blocks - 1, [1, 0], 0x80),
        (8, 1, u32::MAX, [0xffff, 0], 0x80),
        (2, 2, 0, [0, 0], 0x0b),
        (2, u32::MAX, 0, [0, 0], 0x0b),
        (0x99, 1, 0, [0, 0], 1),
        // More than 2^7 pages.
        (2, 1, 0, [1024, 0], 2),
    ] {
        let end = b.io(opcode, namespace, [DATA, LIST], first, words);
        assert_eq!(end.status, status, "{opcode:#x} {namespace} {first}");
    }
    *b.disks[0].fails.lock().unwrap() = Some(BlockError::Io);
    assert_eq!(b.io(2, 1, [DATA, 0], 0, [0, 0]).status, 0x281);
    assert_eq!(b.io(1, 1, [DATA, 0], 0, [0, 0]).status, 0x280);
    let mut sgl = b.entry(2, 1, [DATA, 0], &[0; 4]);
    sgl[1] = 0x40;
    b.put(true, sgl);
    assert_eq!(b.end(true).unwrap().status, 2);
    // Format NVM, and namespace management.
    for opcode in [0x80, 0x0d, 0x15] {
        assert_eq!(b.admin(opcode, 1, 0, &[0; 6]).status, 1);
    }
}

#[test]
fn long_data_are_compared_in_pieces_up_to_the_first_that_differs() {
    let mut b = Bench::new();
    // 100 KiB of the disk's own bytes, from block 8 on, in pages that a list names.
    const BLOCKS: u32 = 200;
    for n in 0..u64::from(BLOCKS) {
        b.dma.fill(DATA + n * 512, 512, (8 + n) as u8).unwrap();
    }
    for page in 1..25u64 {
        let at = LIST + (page - 1) * 8;
        b.dma.store_le(at, 8, DATA + page * 4096).unwrap();
    }
    let compare = |b: &mut Bench| b.io(5, 1, [DATA, LIST], 8, [BLOCKS - 1, 0]).status;
    assert_eq!(compare(&mut b), 0);
    let reads = |b: &Bench| b.disks[0].log.lock().unwrap().len();
    assert_eq!(reads(&b), 2);
    b.dma.store_le(DATA + 99 * 1024, 1, 0).unwrap();
    assert_eq!(compare(&mut b), 0x285);
    assert_eq!(reads(&b), 4);
    b.dma.store_le(DATA + 5, 1, 0).unwrap();
    assert_eq!(compare(&mut b), 0x285);
    assert_eq!(reads(&b), 5);
}

#[test]
fn blocks_are_compared_zeroed_and_let_go() {
    let mut b = Bench::new();
    b.dma.fill(DATA, 512, 3).unwrap();
    assert_eq!(b.io(5, 1, [DATA, 0], 3, [0, 0]).status, 0);
    assert_eq!(b.io(5, 1, [DATA, 0], 4, [0, 0]).status, 0x285);
    assert_eq!(b.io(8, 1, [0, 0], 4, [1 | 1 << 25, 0]).status, 0);
    for (n, (count, first)) in [(2u32, 8u64), (0, 9), (1, 20)].into_iter().enumerate() {
        let at = DATA + n as u64 * 16;
        b.dma.store_le(at, 8, u64::from(count) << 32).unwrap();
        b.dma.store_le(at + 8, 8, first).unwrap();
    }
    let entry = b.entry(9, 1, [DATA, 0], &[2, 4]);
    b.put(true, entry);
    b.work();
    assert_eq!(b.end(true).unwrap().status, 0);
    assert_eq!(b.io(0, u32::MAX, [0, 0], 0, [0, 0]).status, 0);
    let discard = |offset, len| Operation::Discard { offset, len };
    let log = b.disks[0].log.lock().unwrap().clone();
    let zero = Operation::WriteZeroes {
        offset: 2048,
        len: 1024,
        unmap: true,
    };
    assert_eq!(
        log[2..],
        [
            zero,
            discard(4096, 1024),
            discard(10240, 512),
            Operation::Flush
        ]
    );
    assert_eq!(*b.disks[1].log.lock().unwrap(), [Operation::Flush]);
}

#[test]
fn identify_tells_of_the_controller_and_its_namespaces() {
    let mut b = Bench::new();
    let mut identify = |namespace, cns| {
        let end = b.admin(6, namespace, DATA, &[cns]);
        (end.status, b.peek(DATA, 4096))
    };
    let (status, controller) = identify(0, 1);
    assert_eq!(
        (status, &controller[..6]),
        (0, [0x36, 0x1b, 0xf4, 0x1a, b'S', b'1'].as_slice())
    );
    assert_eq!(
        (controller[77], controller[512], controller[513]),
        (7, 0x66, 0x44)
    );
    let (_, namespace) = identify(7, 0);
    assert_eq!(namespace[..8], (DISK as u64 / 512).to_le_bytes());
    assert_eq!(namespace[130], 9);
    let (_, list) = identify(0, 2);
    assert_eq!(list[..12], [1, 0, 0, 0, 7, 0, 0, 0, 0, 0, 0, 0]);
    assert_eq!(identify(1, 2).1[..8], [7, 0, 0, 0, 0, 0, 0, 0]);
    // Possible but not there, and not possible.
    assert_eq!(identify(2, 0), (0, vec![0; 4096]));
    assert_eq!(identify(257, 0).0, 0x0b);
    assert_eq!(identify(2, 3).0, 0x0b);
    assert_eq!(identify(1, 3).0, 0);
    assert_eq!(identify(1, 0x1f).0, 2);
}

#[test]
fn features_are_kept_within_what_there_is() {
    let mut b = Bench::new();
    // More queues than there are.
    assert_eq!(b.admin(9, 0, 0, &[7, 0x3ff_03ff]).result, 63 << 16 | 63);
    assert_eq!(b.admin(9, 0, 0, &[7, 0xffff]).status, 2);
    assert_eq!(b.admin(10, 0, 0, &[7]).result, 63 << 16 | 63);
    assert_eq!(b.admin(10, 0, 0, &[6]).result, 1);
    assert_eq!(b.admin(9, 0, 0, &[6, 0]).status, 0);
    // Without a cache every write is followed by a flush.
    assert_eq!(b.io(1, 1, [DATA, 0], 0, [0, 0]).status, 0);
    assert_eq!(
        b.disks[0].log.lock().unwrap().last(),
        Some(&Operation::Flush)
    );
    assert_eq!(b.admin(10, 0, 0, &[6 | 1 << 8]).result, 1);
    assert_eq!(b.admin(10, 0, 0, &[6]).result, 0);
    assert_eq!(b.admin(9, 0, 0, &[6 | 1 << 31, 1]).status, 0x10d);
    assert_eq!(b.admin(10, 0, 0, &[0x77]).status, 2);
}

#[test]
fn queues_are_made_and_deleted_in_order() {
    let mut b = Bench::new();
    let size = u32::from(ENTRIES - 1) << 16;
    for (opcode, prp, words, status) in [
        // Taken; no such completion queue; too large; of one entry; not contiguous; unaligned.
        (5, completions(2), [size | 1, 1], 0x101),
        (1, submissions(2), [size | 2, 9 << 16 | 1], 0x100),
        (5, completions(2), [0xffff << 16 | 2, 1], 0x102),
        (5, completions(2), [2, 1], 0x102),
        (5, completions(2), [size | 2, 0], 2),
        (5, completions(2) + 8, [size | 2, 1], 0x13),
        (5, completions(2), [size | 65, 1], 0x101),
        (5, completions(2), [size | 2, 65 << 16 | 1], 0x108),
        // In use; not there.
        (4, 0, [1, 0], 0x10c),
        (0, 0, [2, 0], 0x101),
        (0, 0, [0, 0], 0x101),
    ] {
        let end = b.admin(opcode, 0, prp, &words);
        assert_eq!(end.status, status, "{opcode} {words:x?}");
    }
    // A queue is gone when its commands are.
    let entry = b.entry(2, 1, [DATA, 0], &[0; 4]);
    b.put(true, entry);
    let delete = b.entry(0, 0, [0, 0], &[1]);
    b.put(false, delete);
    assert!(b.end(false).is_none());
    b.work();
    assert_eq!(b.end(true).unwrap().status, 0);
    assert_eq!(b.end(false).unwrap().status, 0);
    assert_eq!(b.admin(4, 0, 0, &[1, 0]).status, 0);
}

#[test]
fn ends_wait_for_room_in_their_queue() {
    let mut b = Bench::new();
    // Fifteen fit; the host takes none meanwhile.
    for round in 0..2 {
        for _ in 0..ENTRIES - 1 {
            let entry = b.entry(0, 2, [0, 0], &[0; 4]);
            b.put(true, entry);
        }
        // A full submission queue's worth of ends waits.
        assert_eq!(b.get(0x1c), 1, "{round}");
    }
    let mut seen = Vec::new();
    while let Some(end) = b.end(true) {
        seen.push(end.id);
    }
    assert_eq!(seen.len(), 2 * usize::from(ENTRIES - 1));
    assert!(seen.windows(2).all(|pair| pair[1] == pair[0] + 1));
}

#[test]
fn a_new_size_is_an_event_that_the_host_asked_for() {
    let mut b = Bench::new();
    assert_eq!(b.admin(9, 0, 0, &[11, 1 << 8]).status, 0);
    for _ in 0..4 {
        let entry = b.entry(12, 0, [0, 0], &[]);
        b.put(false, entry);
        assert!(b.end(false).is_none());
    }
    assert_eq!(b.admin(12, 0, 0, &[]).status, 0x105);
    b.disks[1].resize(DISK as u64 * 2).unwrap();
    assert_eq!(b.end(false).unwrap().result, 4 << 16 | 2);
    // Not again before the list was read.
    b.disks[0].resize(DISK as u64 * 2).unwrap();
    assert!(b.end(false).is_none());
    assert_eq!(b.admin(2, 0, DATA, &[4 | 1023 << 16]).status, 0);
    assert_eq!(b.peek(DATA, 12), [1, 0, 0, 0, 7, 0, 0, 0, 0, 0, 0, 0]);
    assert_eq!(b.end(false).unwrap().result, 4 << 16 | 2);
}

#[test]
fn bad_doorbells_are_events_and_a_bad_start_is_fatal() {
    let mut b = Bench::new();
    let entry = b.entry(12, 0, [0, 0], &[]);
    b.put(false, entry);
    b.set(0x1008, 100);
    assert_eq!(b.end(false).unwrap().result, 1 << 16 | 1 << 8);
    b.set(0x1100, 1);
    b.set(0x14, 0);
    assert_eq!(b.get(0x1c), 0);
    // Pages of 2^31 bytes.
    b.set(0x14, 0x46_0f81);
    assert_eq!(b.get(0x1c), 2);
    b.set(0x14, 0);
    b.enable();
    assert_eq!(b.io(2, 1, [DATA, 0], 0, [0, 0]).status, 0);
}

#[test]
fn a_shutdown_is_complete_when_all_is_written() {
    let b = Bench::new();
    b.set(0x14, 0x46_4001);
    assert_eq!(b.get(0x1c), 1 | 1 << 2);
    b.work();
    assert_eq!(b.get(0x1c), 1 | 2 << 2);
    let logs = b.disks.iter().map(|disk| disk.log.lock().unwrap().clone());
    assert!(logs.into_iter().all(|log| log == [Operation::Flush]));
}

#[test]
fn after_a_reset_running_commands_leave_guest_memory_alone() {
    let mut b = Bench::new();
    let entry = b.entry(2, 1, [DATA, 0], &[3, 0, 0, 0]);
    b.put(true, entry);
    b.set(0x14, 0);
    b.enable();
    b.work();
    assert_eq!(b.peek(DATA, 1), [0]);
    assert!(b.end(true).is_none());
}

#[test]
fn commands_in_flight_travel_with_the_saved_state() {
    let mut b = Bench::new();
    let entry = b.entry(2, 1, [DATA, 0], &[3, 0, 0, 0]);
    b.put(true, entry);
    let saved = b.fabric.save();
    b.fabric.reset(ResetKind::Cold);
    b.disks[0].held.lock().unwrap().clear();
    b.fabric.restore(&saved).unwrap();
    assert!(b.fabric.save() == saved);
    b.work();
    assert_eq!(b.end(true).unwrap().status, 0);
    assert_eq!(b.peek(DATA, 1), [3]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn random_commands_and_registers_do_no_harm(
        steps in proptest::collection::vec(
            (
                0u8..4,
                prop_oneof![0u8..16, any::<u8>()],
                prop_oneof![Just(1u32), Just(7), Just(u32::MAX), any::<u32>()],
                (prop_oneof![Just(DATA), Just(LIST), any::<u64>(), 0..RAM], prop_oneof![Just(LIST), any::<u64>(), 0..RAM]),
                (prop_oneof![0u32..16, any::<u32>()], prop_oneof![0u32..4, any::<u32>()], prop_oneof![0u32..64, any::<u32>()]),
                0u64..0x1200,
            ),
            1..40,
        ),
    ) {
        let mut b = Bench::new();
        for (what, opcode, namespace, prps, words, offset) in steps {
            match what {
                0 => b.set(offset & !3, words.0),
                1 => b.work(),
                _ => {
                    let entry = b.entry(opcode, namespace, prps.into(), &[words.0, words.1, words.2]);
                    b.put(what == 2, entry);
                }
            }
            b.end(true);
            b.end(false);
        }
        let saved = b.fabric.save();
        b.fabric.reset(ResetKind::Cold);
        b.fabric.restore(&saved).unwrap();
        b.work();
    }
}
