//! The AHCI controller: lists, FISes, queues.

use backend_block::{BlockError, Operation};
use hw_core::{Attrs, ByteOrder, Initiator};

use super::{Bench, text};
use crate::{Ahci, AhciOptions};

const ABAR: u64 = 0xe000_0000;
const PORT: u64 = ABAR + 0x100;
const LIST: u64 = 0x1000;
const FIS: u64 = 0x2000;
const TABLES: u64 = 0x3000;
const DATA: u64 = 0x10000;

/// A controller whose first port is started, as a driver does it.
fn bench() -> Bench {
    let options = AhciOptions::default();
    let bench = Bench::new(Box::new(Ahci::new(options, hw_pci::PciOptions::at(8))));
    bench.config(0x24, 4, ABAR);
    bench.config(4, 2, 7);
    bench.set(ABAR + 4, 0x8000_0002);
    bench.set(PORT, LIST as u32);
    bench.set(PORT + 8, FIS as u32);
    bench.set(PORT + 0x14, 0x7d80_00ff);
    bench.set(PORT + 0x18, 0x10 | 6);
    bench.set(PORT + 0x18, 0x11 | 6);
    bench.set(PORT + 0x30, u32::MAX);
    bench.set(PORT + 0x10, u32::MAX);
    bench
}

impl Bench {
    fn set(&self, address: u64, value: u32) {
        let (by, attrs) = (Initiator::Cpu(0), Attrs::default());
        let map = self.fabric.memory.snapshot();
        map.write(address, 4, value.into(), ByteOrder::Little, by, attrs)
            .unwrap();
    }

    fn get(&self, address: u64) -> u32 {
        let (by, attrs) = (Initiator::Cpu(0), Attrs::default());
        let map = self.fabric.memory.snapshot();
        map.read(address, 4, ByteOrder::Little, by, attrs).unwrap() as u32
    }

    /// Puts a command into a slot: FIS bytes 2, 3, address, 7, count, feature, and room for data.
    fn prepare(&self, slot: u64, command: u8, lba: u64, count: u16, feature: u16, room: u32) {
        let table = TABLES + slot * 0x100;
        let lba = lba.to_le_bytes();
        let [feature, feature2] = feature.to_le_bytes();
        let [count, count2] = count.to_le_bytes();
        let fis = [
            0x27, 0x80, command, feature, lba[0], lba[1], lba[2], 0x40, lba[3], lba[4], lba[5],
            feature2, count, count2, 0, 0,
        ];
        self.poke(table, &fis);
        let header = [5u32 | u32::from(room != 0) << 16, 0, table as u32, 0];
        let bytes: Vec<u8> = header.iter().flat_map(|word| word.to_le_bytes()).collect();
        self.poke(LIST + slot * 32, &bytes);
        let data = (DATA + slot * 0x4000) as u32;
        let region = [data, 0, 0, room.saturating_sub(1)];
        let bytes: Vec<u8> = region.iter().flat_map(|word| word.to_le_bytes()).collect();
        self.poke(table + 0x80, &bytes);
    }

    fn issue(&self, slots: u32) {
        self.set(PORT + 0x38, slots);
    }

    fn taken(&self) -> u32 {
        let events = self.get(PORT + 0x10);
        self.set(PORT + 0x10, events);
        events
    }
}

#[test]
fn a_drive_shows_its_signature_and_identifies_itself() {
    let b = bench();
    assert_eq!(b.get(PORT + 0x28), 0x113);
    assert_eq!(b.get(PORT + 0x24), 0x101);
    assert_eq!(b.get(PORT + 0x80 + 0x28), 0x113);
    b.prepare(0, 0xec, 0, 0, 0, 512);
    b.issue(1);
    assert!(b.intx());
    assert_eq!(b.get(ABAR + 8), 1);
    assert_eq!((b.taken(), b.get(PORT + 0x38)), (2, 0));
    assert!(!b.intx());
    let identify = b.peek(DATA, 512);
    assert_eq!(text(&identify, 27, 20), "QEMU HARDDISK");
    assert_eq!(b.peek(LIST + 4, 4), 512u32.to_le_bytes());
    assert_eq!(b.peek(FIS + 0x20, 1), [0x5f]);
}

#[test]
fn queued_commands_end_in_any_order_each_with_its_bit() {
    let b = bench();
    for slot in [3u64, 9] {
        b.prepare(slot, 0x60, slot * 10, (slot as u16) << 3, 2, 1024);
    }
    b.set(PORT + 0x34, 1 << 3 | 1 << 9);
    b.issue(1 << 3 | 1 << 9);
    assert_eq!((b.get(PORT + 0x38), b.get(PORT + 0x34)), (0, 0x208));
    b.save_and_restore();
    b.disk.held.lock().unwrap().reverse();
    b.run();
    assert_eq!(b.get(PORT + 0x34), 0);
    assert_eq!(b.taken() & 8, 8);
    assert_eq!(b.peek(DATA + 3 * 0x4000, 1), [30]);
    assert_eq!(b.peek(DATA + 9 * 0x4000 + 512, 1), [91]);
}

#[test]
fn a_queue_stops_at_an_error_and_the_log_tells_which_it_was() {
    let b = bench();
    *b.disk.fails.lock().unwrap() = Some(BlockError::Io);
    b.prepare(5, 0x60, 77, 5 << 3, 1, 512);
    b.set(PORT + 0x34, 1 << 5);
    b.issue(1 << 5);
    b.run();
    assert_eq!(b.taken() & (1 << 30 | 8), 1 << 30 | 8);
    assert_eq!(b.get(PORT + 0x34), 1 << 5);
    assert_eq!(b.get(PORT + 0x20), 0x4051);
    // Software stops the port, starts it and asks.
    b.set(PORT + 0x18, 0x16);
    assert_eq!(b.get(PORT + 0x34), 0);
    b.set(PORT + 0x18, 0x17);
    b.prepare(0, 0x2f, 0x10, 1, 0, 512);
    b.issue(1);
    let log = b.peek(DATA, 512);
    assert_eq!((log[0], log[2], log[3], log[4]), (5, 0x41, 0x40, 77));
}

#[test]
fn ranges_are_discarded_and_the_cache_is_flushed() {
    let b = bench();
    let ranges = [8u64 | 4 << 48, 12 | 2 << 48, 100 | 1 << 48];
    let bytes: Vec<u8> = ranges
        .iter()
        .flat_map(|range| range.to_le_bytes())
        .collect();
    b.poke(DATA, &bytes);
    b.prepare(0, 0x06, 0, 1, 1, 512);
    b.prepare(1, 0xea, 0, 0, 0, 0);
    b.issue(3);
    b.run();
    assert_eq!((b.get(PORT + 0x38), b.get(PORT + 0x20) & 0xff), (0, 0x50));
    let sectors = |lba: u64, count: u64| Operation::Discard {
        offset: lba * 512,
        len: count * 512,
    };
    let wanted = [sectors(8, 6), sectors(100, 1), Operation::Flush];
    assert_eq!(*b.disk.log.lock().unwrap(), wanted);
}

#[test]
fn lists_that_are_not_memory_stop_the_port_and_nothing_else() {
    let b = bench();
    b.set(PORT + 0x18, 0x16);
    b.set(PORT, 0xf000_0000);
    b.set(PORT + 0x18, 0x17);
    b.issue(1);
    assert_eq!(b.taken() & 1 << 29, 1 << 29);
    b.set(PORT + 0x18, 0x16);
    b.set(PORT, LIST as u32);
    b.set(PORT + 0x18, 0x17);
    // Less room than sectors.
    b.prepare(0, 0x25, 0, 4, 0, 512);
    b.issue(1);
    b.run();
    assert_eq!(b.taken() & 1 << 24, 1 << 24);
    assert!(b.disk.log.lock().unwrap().is_empty());
}
