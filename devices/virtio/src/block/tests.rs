use std::sync::Arc;

use backend_block::bench::Memory;
use backend_block::{Block as _, Operation, SharedBlock};
use hw_virtio::Options;
use hw_virtio::bench::{Bench, Ring};
use proptest::prelude::*;

use super::{Blk, BlkOptions};

const DISK: usize = 64 << 10;
/// What drivers take: SEG_MAX, BLK_SIZE, FLUSH, DISCARD, WRITE_ZEROES.
const FEATURES: u64 = 1 << 2 | 1 << 6 | 1 << 9 | 1 << 13 | 1 << 14;

fn bench(options: BlkOptions) -> (Bench, Memory) {
    let disk = Memory::new(DISK);
    let shared: SharedBlock = Arc::new(disk.clone());
    let device = Blk::new(shared, options).unwrap();
    let b = Bench::new(Box::new(device), Options::default(), false);
    (b, disk)
}

fn header(kind: u32, sector: u64) -> [u8; 16] {
    (u128::from(kind) | u128::from(sector) << 64).to_le_bytes()
}

fn done(b: &Bench, disk: &Memory, ring: &mut Ring) -> Vec<u8> {
    b.kick(0);
    disk.work();
    ring.used().unwrap().data
}

#[test]
fn sectors_are_read_and_written() {
    let (b, disk) = bench(BlkOptions::default());
    let mut q = b.start(FEATURES, 1);
    q[0].add(&[&header(0, 3)], &[512, 512, 1]);
    b.kick(0);
    assert!(q[0].used().is_none());
    disk.work();
    let used = q[0].used().unwrap();
    assert_eq!(used.written, 1025);
    assert_eq!((used.data[0], used.data[512], used.data[1024]), (3, 4, 0));
    assert_eq!(b.interrupted(), 1);
    q[0].add(&[&header(1, 5), &[9; 512]], &[1]);
    assert_eq!(done(&b, &disk, &mut q[0]), [0]);
    assert_eq!(disk.bytes.lock().unwrap()[5 * 512..][..512], [9; 512]);
    q[0].add(&[&header(4, 0)], &[1]);
    assert_eq!(done(&b, &disk, &mut q[0]), [0]);
    let log = disk.log.lock().unwrap();
    assert_eq!(
        log[1..],
        [Operation::Write { offset: 2560 }, Operation::Flush]
    );
}

#[test]
fn a_read_that_takes_no_waiting_is_done_when_the_driver_has_notified() {
    let mut disk = Memory::new(DISK);
    disk.is_quick = true;
    let shared: SharedBlock = Arc::new(disk.clone());
    let device = Blk::new(shared, BlkOptions::default()).unwrap();
    let b = Bench::new(Box::new(device), Options::default(), false);
    let mut q = b.start(FEATURES, 1);
    q[0].add(&[&header(0, 3)], &[512, 1]);
    b.kick(0);
    let used = q[0].used().unwrap();
    assert_eq!((used.written, used.data[0], used.data[512]), (513, 3, 0));
    assert_eq!(b.interrupted(), 1);
    // All else goes by the disk's threads.
    q[0].add(&[&header(1, 5), &[9; 512]], &[1]);
    b.kick(0);
    assert!(q[0].used().is_none());
    disk.work();
    assert_eq!(q[0].used().unwrap().data, [0]);
}

#[test]
fn requests_beyond_the_end_or_of_unknown_kind_get_an_error_status() {
    let (b, disk) = bench(BlkOptions::default());
    let mut q = b.start(FEATURES, 1);
    for (kind, sector, status) in [(1, 128, 1), (1, u64::MAX, 1), (99, 0, 2)] {
        q[0].add(&[&header(kind, sector), &[0; 512]], &[1]);
        assert_eq!(done(&b, &disk, &mut q[0]), [status]);
    }
    for sector in [128, u64::MAX, 127] {
        q[0].add(&[&header(0, sector)], &[1024, 1]);
        assert_eq!(*done(&b, &disk, &mut q[0]).last().unwrap(), 1);
    }
    q[0].add(&[&header(0, 0)], &[100, 1]);
    assert_eq!(*done(&b, &disk, &mut q[0]).last().unwrap(), 1);
}

#[test]
fn the_serial_is_twenty_bytes() {
    let (b, disk) = bench(BlkOptions {
        serial: "disk-7".into(),
        ..BlkOptions::default()
    });
    let mut q = b.start(FEATURES, 1);
    q[0].add(&[&header(8, 0)], &[20, 1]);
    let data = done(&b, &disk, &mut q[0]);
    assert_eq!(&data[..8], b"disk-7\0\0");
    assert_eq!(data[20], 0);
}

#[test]
fn zeroes_and_discards_take_one_segment() {
    let (b, disk) = bench(BlkOptions::default());
    let mut q = b.start(FEATURES, 1);
    let segment = |sector: u64, sectors: u32, flags: u32| {
        (u128::from(sector) | u128::from(sectors) << 64 | u128::from(flags) << 96).to_le_bytes()
    };
    for (kind, segment, status) in [
        (13, segment(4, 2, 1), 0),
        (11, segment(8, 1, 0), 0),
        (11, segment(8, 1, 1), 2),
        (13, segment(8, 1, 2), 2),
        (13, segment(127, 2, 0), 1),
    ] {
        q[0].add(&[&header(kind, 0), &segment], &[1]);
        assert_eq!(done(&b, &disk, &mut q[0]), [status]);
    }
    q[0].add(&[&header(11, 0), &[0; 32]], &[1]);
    assert_eq!(done(&b, &disk, &mut q[0]), [1]);
    assert_eq!(disk.bytes.lock().unwrap()[4 * 512..6 * 512], [0; 1024]);
    let (len, offset) = (1024, 2048);
    let unmap = true;
    assert_eq!(
        disk.log.lock().unwrap()[0],
        Operation::WriteZeroes { offset, len, unmap }
    );
}

#[test]
fn without_flushes_each_write_is_put_through() {
    let (b, disk) = bench(BlkOptions::default());
    let mut q = b.start(1 << 2, 1);
    q[0].add(&[&header(1, 5), &[9; 512]], &[1]);
    b.kick(0);
    disk.work();
    assert!(q[0].used().is_some());
    let log = disk.log.lock().unwrap().clone();
    assert_eq!(log, [Operation::Write { offset: 2560 }, Operation::Flush]);
}

#[test]
fn a_read_only_disk_refuses_writes_and_says_so() {
    let (b, disk) = bench(BlkOptions {
        read_only: true,
        ..BlkOptions::default()
    });
    assert_eq!(b.offered() & (1 << 5 | 1 << 13), 1 << 5);
    let mut q = b.start(1 << 5, 1);
    q[0].add(&[&header(1, 5), &[9; 512]], &[1]);
    assert_eq!(done(&b, &disk, &mut q[0]), [1]);
}

#[test]
fn the_configuration_tells_the_size_and_the_queues() {
    let (b, _) = bench(BlkOptions {
        num_queues: 4,
        logical_block_size: 4096,
        physical_block_size: 8192,
        ..BlkOptions::default()
    });
    assert_eq!(b.rd_size(0x100, 8), DISK as u64 / 512);
    assert_eq!((b.rd(0x10c), b.rd(0x114)), (254, 4096));
    assert_eq!((b.rd_size(0x118, 1), b.rd_size(0x122, 2)), (1, 4));
    b.wr(0x30, 3);
    assert_eq!(b.rd(0x34), 256);
    b.wr(0x30, 4);
    assert_eq!(b.rd(0x34), 0);
}

#[test]
fn a_new_size_is_told_by_an_interrupt() {
    let (b, disk) = bench(BlkOptions::default());
    let mut q = b.start(FEATURES, 1);
    let generation = b.rd(0xfc);
    disk.resize(DISK as u64 * 2).unwrap();
    // InterruptStatus: the configuration has changed (VIRTIO 1.2 section 4.2.2).
    assert_eq!(b.interrupted(), 2);
    assert_ne!(b.rd(0xfc), generation);
    assert_eq!(b.rd_size(0x100, 8), DISK as u64 * 2 / 512);
    q[0].add(&[&header(0, 128)], &[512, 1]);
    assert_eq!(*done(&b, &disk, &mut q[0]).last().unwrap(), 0);
}

#[test]
fn after_a_reset_running_requests_leave_guest_memory_alone() {
    let (b, disk) = bench(BlkOptions::default());
    let mut q = b.start(FEATURES, 1);
    q[0].add(&[&header(0, 3)], &[512, 1]);
    b.kick(0);
    let mut q = b.start(FEATURES, 1);
    assert_eq!(*disk.barriers.lock().unwrap(), 1);
    disk.work();
    let mut memory = [0; 512];
    b.dma.read(0x1_1010, &mut memory).unwrap();
    assert_ne!(memory, [3; 512]);
    assert!(q[0].used().is_none() && b.interrupted() == 0);
}

#[test]
fn requests_in_flight_travel_with_the_saved_state() {
    let (b, disk) = bench(BlkOptions::default());
    let mut q = b.start(FEATURES, 1);
    q[0].add(&[&header(0, 3)], &[512, 1]);
    b.kick(0);
    let saved = b.fabric.save();
    b.fabric.reset(hw_core::ResetKind::Cold);
    disk.held.lock().unwrap().clear();
    b.fabric.restore(&saved).unwrap();
    assert!(b.fabric.save() == saved);
    disk.work();
    let used = q[0].used().unwrap();
    assert_eq!((used.data[0], used.data[512]), (3, 0));
}

#[test]
fn impossible_properties_are_refused() {
    let disk: SharedBlock = Arc::new(Memory::new(512));
    for options in [
        BlkOptions {
            num_queues: 0,
            ..BlkOptions::default()
        },
        BlkOptions {
            queue_size: 3,
            ..BlkOptions::default()
        },
        BlkOptions {
            logical_block_size: 1000,
            ..BlkOptions::default()
        },
        BlkOptions {
            logical_block_size: 4096,
            ..BlkOptions::default()
        },
    ] {
        assert!(Blk::new(disk.clone(), options).is_err());
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn random_requests_end_in_a_status_or_a_reset(
        requests in proptest::collection::vec(
            (0u32..16, prop_oneof![0u64..130, any::<u64>()], 0usize..1200, 1usize..1200, any::<u8>()),
            1..16,
        ),
    ) {
        let (b, disk) = bench(BlkOptions::default());
        let mut q = b.start(FEATURES, 1);
        for (kind, sector, out, into, byte) in requests {
            let head = header(kind, sector);
            let data = vec![byte; out];
            let reads: &[&[u8]] = if out == 0 { &[&head] } else { &[&head, &data] };
            q[0].add(reads, &[into]);
            b.kick(0);
            disk.work();
            prop_assert!(q[0].used().is_some());
        }
    }
}
