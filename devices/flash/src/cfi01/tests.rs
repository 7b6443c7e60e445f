use std::sync::{Arc, Mutex};

use backend_block::{Block, BlockError, BlockInfo, Operation, Request};
use hw_core::{Attrs, ByteOrder, Clock, Fabric, Initiator, Links, Part, Placement};
use proptest::prelude::*;

use super::*;

const BASE: u64 = 0x400_0000;
const SECTOR: u64 = 0x1000;
const LEN: u64 = 0x1_0000;

/// A disk in memory whose requests are carried out by threads, in no order of their own.
#[derive(Clone, Default)]
struct Memory {
    bytes: Arc<Mutex<Vec<u8>>>,
    log: Arc<Mutex<Vec<Operation>>>,
    read_only: bool,
    write_through: bool,
}

impl Block for Memory {
    fn info(&self) -> BlockInfo {
        BlockInfo {
            id: "d0".into(),
            file: String::new(),
            format: "raw".into(),
            read_only: self.read_only,
            discard: false,
            write_back: !self.write_through,
        }
    }
    fn len(&self) -> u64 {
        self.bytes.lock().unwrap().len() as u64
    }
    fn submit(&self, request: Request) {
        let this = self.clone();
        std::thread::spawn(move || {
            let Request {
                operation,
                memory,
                done,
                ..
            } = request;
            this.log.lock().unwrap().push(operation);
            let mut bytes = this.bytes.lock().unwrap();
            let len = memory.len() as usize;
            let moved = match operation {
                Operation::Read { offset } => memory.copy_in(0, &bytes[offset as usize..][..len]),
                Operation::Write { offset } => {
                    memory.copy_out(0, &mut bytes[offset as usize..][..len])
                }
                _ => Some(()),
            };
            drop(bytes);
            done(moved.ok_or(BlockError::BadBuffer));
        });
    }
    fn barrier(&self) {}
    fn drain(&self) {}
}

struct Bench {
    fabric: Fabric,
    part: Arc<Part>,
    attrs: Attrs,
}

fn try_bench(more: &[(&str, &str)], disk: Option<Memory>) -> Result<Bench, DeviceError> {
    let fabric = Fabric::new(Clock::manual().0);
    let base = BASE.to_string();
    let mut given = vec![
        ("base", base.as_str()),
        ("name", "flash"),
        ("num-blocks", "16"),
        ("sector-length", "4096"),
        ("width", "4"),
        ("device-width", "2"),
        ("id0", "0x89"),
        ("id1", "0x18"),
    ];
    let mut links = Links::default();
    if let Some(disk) = disk {
        links.offer::<SharedBlock>("drive", "d0", Arc::new(disk));
        given.push(("drive", "d0"));
    }
    given.extend(more);
    let args = Args::new(&CFI_PFLASH01, given)?;
    let device = (CFI_PFLASH01.create)(&args, &mut links)?;
    let part = fabric.add(device, Placement::default())?;
    Ok(Bench {
        fabric,
        part,
        attrs: Attrs::default(),
    })
}

fn bench(more: &[(&str, &str)]) -> Bench {
    try_bench(more, None).unwrap()
}

impl Bench {
    fn rd(&self, offset: u64, size: u8) -> u64 {
        let map = self.fabric.memory.snapshot();
        let by = Initiator::Cpu(0);
        map.read(BASE + offset, size, ByteOrder::Little, by, self.attrs)
            .unwrap()
    }

    fn wr(&self, offset: u64, size: u8, value: u64) {
        let map = self.fabric.memory.snapshot();
        let (at, by) = (BASE + offset, Initiator::Cpu(0));
        let _ = map.write(at, size, value, ByteOrder::Little, by, self.attrs);
    }

    /// Gives both chips a command and has them read as memory again after.
    fn program(&self, offset: u64, value: u64) {
        self.wr(offset, 4, 0x0040_0040);
        self.wr(offset, 4, value);
        assert_eq!(self.rd(offset, 4), 0x0080_0080);
        self.wr(0, 4, 0x00ff_00ff);
    }

    fn erase(&self, offset: u64) {
        self.wr(offset, 4, 0x0020_0020);
        self.wr(offset, 4, 0x00d0_00d0);
        assert_eq!(self.rd(offset, 4), 0x0080_0080);
        self.wr(0, 4, 0x00ff_00ff);
    }

    /// Whether CPUs find plain memory there.
    fn is_memory(&self) -> bool {
        let map = self.fabric.memory.snapshot();
        map.find(BASE).unwrap().ram_at(BASE).is_some()
    }
}

#[test]
fn chips_are_memory_until_they_are_given_a_command() {
    let b = bench(&[]);
    assert!(b.is_memory());
    b.wr(0, 4, 0x0070_0070);
    assert!(!b.is_memory());
    assert_eq!(b.rd(0x1234, 4), 0x0080_0080);
    assert_eq!((b.rd(0, 1), b.rd(1, 1), b.rd(2, 2)), (0x80, 0, 0x80));
    b.wr(0, 4, 0x00ff_00ff);
    assert!(b.is_memory());
    assert_eq!(b.rd(0x1234, 4), 0);
}

#[test]
fn chips_say_who_they_are() {
    let b = bench(&[]);
    b.wr(0, 4, 0x0090_0090);
    assert_eq!(b.rd(0, 8), 0x0018_0018_0089_0089);
    assert_eq!(b.rd(8, 4), 0);
    b.wr(0, 4, 0x0098_0098);
    assert_eq!(b.rd(0x40, 4), 0x0051_0051);
    assert_eq!(b.rd(0x44, 8), 0x0059_0059_0052_0052);
    // 2^15 bytes and 16 blocks of 2 KiB in each of two chips.
    assert_eq!(b.rd(0x27 * 4, 1), 15);
    assert_eq!((b.rd(0x2d * 4, 1), b.rd(0x2f * 4, 1)), (15, 8));
    // A byte beyond the structure.
    assert_eq!(b.rd(0xff * 4, 4), 0);
}

#[test]
fn one_chip_on_a_byte_is_queried_byte_by_byte() {
    let b = bench(&[
        ("width", "1"),
        ("device-width", "0"),
        ("id0", "0"),
        ("id1", "0"),
    ]);
    b.wr(0, 1, 0x98);
    assert_eq!(b.rd(0x10, 4) & 0xff_ffff, 0x59_5251);
    assert_eq!((b.rd(0x27, 1), b.rd(0x2a, 1)), (16, 8));
}

#[test]
fn a_big_endian_bus_has_its_lowest_lane_last() {
    let b = bench(&[("big-endian", "on")]);
    b.wr(0, 4, 0x9000_9000);
    assert_eq!(b.rd(0, 4), 0x8900_8900);
}

#[test]
fn programming_clears_bits_and_erasing_sets_a_block() {
    let b = bench(&[]);
    b.erase(SECTOR + 0x124);
    assert_eq!(b.rd(SECTOR - 4, 8), 0xffff_ffff_0000_0000);
    assert_eq!(b.rd(2 * SECTOR - 4, 8), 0xffff_ffff);
    b.program(SECTOR + 8, 0x1234_5678);
    b.program(SECTOR + 8, 0xffff_00ff);
    assert_eq!(b.rd(SECTOR + 8, 4), 0x1234_0078);
}

#[test]
fn an_erase_that_is_not_confirmed_is_an_error_until_the_status_is_cleared() {
    let b = bench(&[]);
    b.wr(0, 4, 0x0020_0020);
    b.wr(0, 4, 0x0011_0011);
    assert_eq!(b.rd(0, 4), 0x00b0_00b0);
    b.wr(0, 4, 0x0050_0050);
    b.wr(0, 4, 0x0070_0070);
    assert_eq!(b.rd(0, 4), 0);
}

#[test]
fn a_buffer_is_programmed_when_confirmed() {
    let b = bench(&[]);
    b.erase(0);
    b.wr(0x100, 4, 0x00e8_00e8);
    assert_eq!(b.rd(0x100, 4), 0x0080_0080);
    b.wr(0x100, 4, 0x0001_0001);
    b.wr(0x100, 4, 0x1111_1111);
    b.wr(0x104, 4, 0x2222_2222);
    assert_eq!(b.part.with(|d| d.inspect()), [("status", 0x80)]);
    b.wr(0x100, 4, 0x00d0_00d0);
    assert_eq!(b.rd(0x100, 4), 0x0080_0080);
    b.wr(0, 4, 0x00ff_00ff);
    assert_eq!(b.rd(0xfc, 8), 0x1111_1111_ffff_ffff);
    assert_eq!(b.rd(0x104, 8), 0xffff_ffff_2222_2222);
}

#[test]
fn a_buffer_that_is_left_or_given_up_changes_nothing() {
    let b = bench(&[]);
    b.erase(0);
    for (second, confirm) in [(0x1000, 0x00d0_00d0), (0x104, 0x00ff_00ff)] {
        b.wr(0, 4, 0x0050_0050);
        b.wr(0x100, 4, 0x00e8_00e8);
        b.wr(0x100, 4, 1);
        b.wr(0x100, 4, 0);
        b.wr(second, 4, 0);
        if second == 0x104 {
            b.wr(0x100, 4, confirm);
        }
        assert_eq!(b.rd(0x100, 4), 0x00b0_00b0);
        b.wr(0, 4, 0x00ff_00ff);
        assert_eq!(b.rd(0x100, 8), u64::MAX);
    }
    // More words than the buffer has.
    b.wr(0, 4, 0x00e8_00e8);
    b.wr(0, 4, 0xffff);
    assert_eq!(b.rd(0, 4) & 0xff, 0xb0);
}

#[test]
fn what_changes_is_in_the_disk_when_the_machine_stops() {
    for write_through in [false, true] {
        let disk = Memory {
            write_through,
            ..Memory::default()
        };
        *disk.bytes.lock().unwrap() = vec![0x77; LEN as usize];
        let b = try_bench(&[], Some(disk.clone())).unwrap();
        assert_eq!(b.rd(0x10, 4), 0x7777_7777);
        b.erase(3 * SECTOR);
        for n in 0..64 {
            b.program(3 * SECTOR + 4 * n, n);
        }
        b.program(LEN - 4, 0x0101_0101);
        b.fabric.drain();
        let bytes = disk.bytes.lock().unwrap().clone();
        let mut wanted = vec![0x77; LEN as usize];
        let block = &mut wanted[3 * SECTOR as usize..][..SECTOR as usize];
        block.fill(0xff);
        for n in 0..64 {
            block[4 * n..][..4].copy_from_slice(&(n as u32).to_le_bytes());
        }
        wanted[LEN as usize - 4..].fill(1);
        assert!(bytes == wanted);
        let log = disk.log.lock().unwrap();
        assert_eq!(log.last() == Some(&Operation::Flush), write_through);
    }
}

#[test]
fn a_read_only_drive_refuses_changes() {
    let disk = Memory {
        read_only: true,
        ..Memory::default()
    };
    *disk.bytes.lock().unwrap() = vec![0x55; LEN as usize];
    let b = try_bench(&[], Some(disk)).unwrap();
    b.wr(0, 4, 0x0040_0040);
    b.wr(0, 4, 0);
    assert_eq!(b.rd(0, 4), 0x0090_0090);
    b.wr(0, 4, 0x0020_0020);
    b.wr(0, 4, 0x00d0_00d0);
    assert_eq!(b.rd(0, 4), 0x00b0_00b0);
    b.wr(0, 4, 0x00ff_00ff);
    assert_eq!(b.rd(0, 4), 0x5555_5555);
}

#[test]
fn secure_chips_take_commands_from_secure_software_only() {
    let mut b = bench(&[("secure", "on")]);
    b.wr(0, 4, 0x0090_0090);
    assert!(b.is_memory());
    b.attrs.smm = true;
    b.wr(0, 4, 0x0090_0090);
    assert_eq!(b.rd(0, 4), 0x0089_0089);
    b.attrs = Attrs::default();
    assert_eq!(b.rd(0, 4), 0);
}

#[test]
fn mistakes_are_named() {
    let error = |more: &[(&str, &str)], disk: Option<Memory>| {
        try_bench(more, disk).err().unwrap().to_string()
    };
    let short = Memory::default();
    *short.bytes.lock().unwrap() = vec![0; 512];
    let text = error(&[], Some(short));
    assert!(text.contains("65536 bytes, its drive 'd0' 512"), "{text}");
    let text = error(&[("width", "3")], None);
    assert!(text.contains("'width': '3' is not 1, 2 or 4"), "{text}");
    let text = error(&[("device-width", "8")], None);
    assert!(text.contains("at most 'width'"), "{text}");
    let text = error(&[("max-device-width", "1")], None);
    assert!(text.contains("at least 'device-width'"), "{text}");
    let text = error(&[("sector-length", "5000")], None);
    assert!(text.contains("a power of two"), "{text}");
    let text = error(&[("num-blocks", "0")], None);
    assert!(text.contains("at least 1"), "{text}");
}

#[test]
fn a_reset_leads_back_to_the_array() {
    let b = bench(&[]);
    b.wr(0, 4, 0x0070_0070);
    b.fabric.reset(ResetKind::Cold);
    assert!(b.is_memory());
}

#[test]
fn a_buffer_half_full_is_saved() {
    let b = bench(&[]);
    b.erase(0);
    b.wr(0x100, 4, 0x00e8_00e8);
    b.wr(0x100, 4, 1);
    b.wr(0x100, 4, 0x1111_1111);
    let saved = b.part.with(|d| d.save());
    let disk = Memory::default();
    *disk.bytes.lock().unwrap() = vec![0; LEN as usize];
    let other = try_bench(&[], Some(disk.clone())).unwrap();
    other.erase(0);
    other.part.with(|d| d.restore(&saved)).unwrap();
    other.part.with(|d| d.after_reset());
    assert_eq!(other.part.with(|d| d.save()), saved);
    other.wr(0x104, 4, 0x2222_2222);
    other.wr(0x100, 4, 0x00d0_00d0);
    other.wr(0, 4, 0x00ff_00ff);
    assert_eq!(other.rd(0x100, 8), 0x2222_2222_1111_1111);
    other.fabric.drain();
    assert_eq!(disk.bytes.lock().unwrap()[0x104], 0x22);
}

proptest! {
    #[test]
    fn no_traffic_is_too_much(
        accesses in prop::collection::vec(
            (0..LEN + 8, 0u32..4, any::<u32>(), 0u32..20), 1..400),
        width in prop::sample::select(vec![("1", "1"), ("2", "1"), ("4", "2"), ("4", "0")]),
    ) {
        let disk = Memory::default();
        *disk.bytes.lock().unwrap() = vec![0; LEN as usize];
        let (width, device_width) = width;
        let more = [("width", width), ("device-width", device_width)];
        let b = try_bench(&more, Some(disk.clone())).unwrap();
        let commands = [0xff, 0x40, 0x20, 0xd0, 0x50, 0x60, 0x70, 0x90, 0x98, 0xe8];
        for (offset, size, value, kind) in accesses {
            let size = 1 << size;
            match kind {
                0 => {
                    let saved = b.part.with(|d| d.save());
                    b.part.with(|d| d.restore(&saved)).unwrap();
                    b.part.with(|d| d.after_reset());
                }
                1..6 => {
                    let map = b.fabric.memory.snapshot();
                    let by = Initiator::Cpu(0);
                    let _ = map.read(BASE + offset, size, ByteOrder::Little, by, b.attrs);
                }
                6..15 => b.wr(offset, size, 0x1_0001 * commands[value as usize % 10]),
                15..18 => b.wr(offset & 0x7f, 4, (value & 3).into()),
                _ => b.wr(offset, size, value.into()),
            }
        }
        b.fabric.drain();
        b.fabric.reset(ResetKind::Cold);
        let map = b.fabric.memory.snapshot();
        let (block, _) = map.find(BASE).unwrap().ram_at(BASE).unwrap();
        let mut stored = vec![0; LEN as usize];
        block.read(0, &mut stored).unwrap();
        prop_assert!(stored == *disk.bytes.lock().unwrap());
    }
}
