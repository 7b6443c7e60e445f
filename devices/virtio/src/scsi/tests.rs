use std::sync::Arc;

use backend_block::bench::Memory;
use backend_block::{Block as _, Operation, SharedBlock};
use hw_core::{Args, Links, Placement, ResetKind};
use hw_virtio::Options;
use hw_virtio::bench::{Bench, Ring, Used};
use proptest::prelude::*;

use super::{Scsi, ScsiOptions};

const DISK: usize = 64 << 10;
/// HOTPLUG, CHANGE.
const FEATURES: u64 = 1 << 1 | 1 << 2;
const QUEUE: usize = 2;
const RESPONSE: usize = 108;

fn plug(b: &Bench, id: &str, disk: &Memory, props: &[(&str, &str)]) {
    let class = device_scsi::CLASSES[0];
    let shared: SharedBlock = Arc::new(disk.clone());
    let mut links = Links::default();
    links.offer("drive", id, shared);
    let given = [("drive", id)].into_iter().chain(props.iter().copied());
    let args = Args::new(class, given).unwrap();
    let device = (class.create)(&args, &mut links).unwrap();
    let bus = b.part.with(|d| d.child_buses()).remove(0);
    let placement = Placement {
        path: id.into(),
        bus: Some(bus.bus.as_ref()),
        ..Placement::default()
    };
    b.fabric.add(device, placement).unwrap();
}

fn bench(props: &[(&str, &str)]) -> (Bench, Memory, Vec<Ring>) {
    let disk = Memory::new(DISK);
    let device = Scsi::new(ScsiOptions::default()).unwrap();
    let b = Bench::new(Box::new(device), Options::default(), false);
    plug(&b, "d0", &disk, props);
    let mut q = b.start(FEATURES, 3);
    if props.is_empty() {
        // The reset of the bus is told first.
        let (response, _) = command(&b, &disk, &mut q, &[0], &[], 0);
        assert_eq!(response.status, 2);
        assert_eq!(response.sense, (6, 0x29, 0));
    }
    (b, disk, q)
}

#[derive(PartialEq, Eq, Debug)]
struct Response {
    residual: u32,
    status: u8,
    code: u8,
    sense: (u8, u8, u8),
}

const GOOD: Response = Response {
    residual: 0,
    status: 0,
    code: 0,
    sense: (0, 0, 0),
};

fn header(target: u8, lun: u8, tag: u64, cdb: &[u8]) -> Vec<u8> {
    let mut bytes = vec![1, target, 0, lun, 0, 0, 0, 0];
    bytes.extend(tag.to_le_bytes());
    bytes.extend([0; 3]);
    bytes.extend(cdb);
    bytes.resize(51, 0);
    bytes
}

fn response(used: &Used) -> (Response, Vec<u8>) {
    let data = &used.data;
    let word = |at: usize| u32::from_le_bytes(data[at..at + 4].try_into().unwrap());
    let sense = match word(0) {
        0 => (0, 0, 0),
        _ => (data[12 + 2], data[12 + 12], data[12 + 13]),
    };
    let response = Response {
        residual: word(4),
        status: data[10],
        code: data[11],
        sense,
    };
    (response, data[RESPONSE..].to_vec())
}

fn put(q: &mut [Ring], head: &[u8], out: &[u8], into: usize) {
    let reads: &[&[u8]] = if out.is_empty() {
        &[head]
    } else {
        &[head, out]
    };
    let writes = if into == 0 {
        vec![RESPONSE]
    } else {
        vec![RESPONSE, into]
    };
    q[QUEUE].add(reads, &writes);
}

fn command(
    b: &Bench,
    disk: &Memory,
    q: &mut [Ring],
    cdb: &[u8],
    out: &[u8],
    into: usize,
) -> (Response, Vec<u8>) {
    put(q, &header(0, 0, 0, cdb), out, into);
    b.kick(2);
    disk.work();
    response(&q[QUEUE].used().unwrap())
}

/// READ(10) or WRITE(10).
fn ten(code: u8, block: u32, count: u16) -> Vec<u8> {
    let mut cdb = vec![code, 0];
    cdb.extend(block.to_be_bytes());
    cdb.push(0);
    cdb.extend(count.to_be_bytes());
    cdb.push(0);
    cdb
}

#[test]
fn blocks_are_read_and_written() {
    let (b, disk, mut q) = bench(&[]);
    put(&mut q, &header(0, 0, 0, &ten(0x28, 3, 2)), &[], 1024);
    b.kick(2);
    assert!(q[QUEUE].used().is_none());
    disk.work();
    let used = q[QUEUE].used().unwrap();
    assert_eq!(used.written, RESPONSE as u32 + 1024);
    let (answer, data) = response(&used);
    assert_eq!(answer, GOOD);
    assert_eq!((data[0], data[512]), (3, 4));
    let (answer, _) = command(&b, &disk, &mut q, &ten(0x2a, 5, 1), &[9; 512], 0);
    assert_eq!(answer, GOOD);
    assert_eq!(disk.bytes.lock().unwrap()[5 * 512..][..512], [9; 512]);
    // Force unit access, then SYNCHRONIZE CACHE.
    let mut through = ten(0x2a, 5, 1);
    through[1] = 8;
    disk.log.lock().unwrap().clear();
    command(&b, &disk, &mut q, &through, &[8; 512], 0);
    command(&b, &disk, &mut q, &ten(0x35, 0, 0), &[], 0);
    let write = Operation::Write { offset: 2560 };
    let log = disk.log.lock().unwrap().clone();
    assert_eq!(log, [write, Operation::Flush, Operation::Flush]);
}

#[test]
fn data_that_do_not_fit_the_buffers_are_not_moved() {
    let (b, disk, mut q) = bench(&[]);
    let (answer, _) = command(&b, &disk, &mut q, &ten(0x28, 0, 2), &[], 512);
    assert_eq!((answer.code, answer.residual), (1, 512));
    let (answer, _) = command(&b, &disk, &mut q, &ten(0x2a, 0, 2), &[0; 512], 0);
    assert_eq!(answer.code, 1);
    // More room than data is told as a residual.
    let (answer, data) = command(&b, &disk, &mut q, &ten(0x28, 1, 1), &[], 2048);
    assert_eq!((answer.code, answer.status, answer.residual), (0, 0, 1536));
    assert_eq!((data[0], data[512]), (1, 0xee));
    assert!(disk.log.lock().unwrap().len() == 1);
}

#[test]
fn what_cannot_be_done_is_told_by_sense() {
    let (b, disk, mut q) = bench(&[]);
    for (cdb, sense) in [
        (ten(0x28, 128, 1), (5, 0x21, 0)),
        (ten(0x28, 127, 2), (5, 0x21, 0)),
        (ten(0x28, u32::MAX, 0xffff), (5, 0x21, 0)),
        (vec![0xc0], (5, 0x20, 0)),
        // Protection information.
        (vec![0x28, 0x20, 0, 0, 0, 0, 0, 0, 1, 0], (5, 0x24, 0)),
        // A page of vital product data that is not there.
        (vec![0x12, 1, 0xc0, 0, 255, 0], (5, 0x24, 0)),
    ] {
        let (answer, _) = command(&b, &disk, &mut q, &cdb, &[], 4096);
        assert_eq!((answer.status, answer.sense), (2, sense), "{cdb:x?}");
    }
}

#[test]
fn targets_and_units_that_are_not_there_are_told_apart() {
    let (b, _, mut q) = bench(&[("scsi-id", "3"), ("lun", "1")]);
    let mut ask = |head: Vec<u8>, into| {
        put(&mut q, &head, &[], into);
        b.kick(2);
        response(&q[QUEUE].used().unwrap())
    };
    let inquiry = [0x12, 0, 0, 0, 36, 0];
    assert_eq!(ask(header(4, 0, 0, &inquiry), 36).0.code, 3);
    let (answer, data) = ask(header(3, 0, 0, &inquiry), 36);
    assert_eq!((answer.code, data[0]), (0, 0x7f));
    let (_, data) = ask(header(3, 1, 0, &inquiry), 36);
    assert_eq!(&data[8..32], b"QEMU    QEMU HARDDISK   ");
    let (answer, _) = ask(header(3, 0, 0, &[0]), 0);
    assert_eq!(answer.sense, (5, 0x25, 0));
    let (_, luns) = ask(header(3, 0, 0, &[0xa0, 0, 0, 0, 0, 0, 0, 0, 0, 32]), 32);
    assert_eq!((luns[3], luns[9], luns[17]), (16, 0, 1));
    // Not an address of this kind of bus.
    let mut odd = header(3, 0, 0, &inquiry);
    odd[0] = 2;
    assert_eq!(ask(odd, 36).0.code, 3);
}

#[test]
fn all_256_targets_and_units_up_to_16383_are_reported_and_move_data() {
    let device = Scsi::new(ScsiOptions::default()).unwrap();
    let b = Bench::new(Box::new(device), Options::default(), false);
    let places: Vec<(u8, u16)> = (0..=255)
        .map(|target| (target, 0))
        .chain([(0, 255), (1, 300), (255, 1), (255, 16383)])
        .collect();
    let mut disks = Vec::new();
    for (target, lun) in &places {
        let disk = Memory::new(4096);
        disk.bytes.lock().unwrap()[..2].copy_from_slice(&[*target, *lun as u8]);
        let (id, lun) = (target.to_string(), lun.to_string());
        let props = [("scsi-id", id.as_str()), ("lun", lun.as_str())];
        plug(&b, &format!("d{target}.{lun}"), &disk, &props);
        disks.push(disk);
    }
    let mut q = b.start(FEATURES, 3);
    let mut ask = |disk: &Memory, (target, lun): (u8, u16), cdb: &[u8], out: &[u8], into| {
        let mut head = header(target, lun as u8, 0, cdb);
        if lun > 255 {
            // SAM-5, 4.7.7.3: flat space addressing.
            head[2] = 0x40 | (lun >> 8) as u8;
        }
        put(&mut q, &head, out, into);
        b.kick(2);
        disk.work();
        response(&q[QUEUE].used().unwrap())
    };
    for (place, disk) in places.iter().zip(&disks) {
        let (target, lun) = *place;
        // The reset of the bus is told first.
        assert_eq!(ask(disk, *place, &[0], &[], 0).0.sense, (6, 0x29, 0));
        let (answer, data) = ask(disk, *place, &ten(0x28, 0, 1), &[], 512);
        assert_eq!(
            (answer, &data[..2]),
            (GOOD, &[target, lun as u8][..]),
            "{place:?}"
        );
        let (answer, _) = ask(disk, *place, &ten(0x2a, 1, 1), &[target; 512], 0);
        assert_eq!(answer, GOOD, "{place:?}");
        assert_eq!(
            disk.bytes.lock().unwrap()[512..1024],
            [target; 512],
            "{place:?}"
        );
        let luns = [0xa0, 0, 0, 0, 0, 0, 0, 0, 0, 64];
        let (answer, list) = ask(disk, *place, &luns, &[], 64);
        assert_eq!(answer.status, 0);
        let count = places.iter().filter(|(other, _)| *other == target).count();
        assert_eq!(list[..4], (count as u32 * 8).to_be_bytes(), "{place:?}");
    }
    let list = ask(
        &disks[255],
        (255, 0),
        &[0xa0, 0, 0, 0, 0, 0, 0, 0, 0, 32],
        &[],
        32,
    )
    .1;
    assert_eq!(
        list[8..32],
        [
            0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0x7f, 0xff, 0, 0, 0, 0, 0, 0
        ]
    );
}

#[test]
fn ranges_are_discarded_and_filled() {
    let (b, disk, mut q) = bench(&[]);
    disk.log.lock().unwrap().clear();
    let mut list = vec![0, 38, 0, 32, 0, 0, 0, 0];
    for (block, count) in [(4u64, 2u32), (10, 1)] {
        list.extend(block.to_be_bytes());
        list.extend(count.to_be_bytes());
        list.extend([0; 4]);
    }
    let (answer, _) = command(&b, &disk, &mut q, &ten(0x42, 0, 40), &list, 0);
    assert_eq!(answer, GOOD);
    // WRITE SAME(16) with a pattern, with zeros, and without a block.
    let same = |flags: u8, block: u8, count: u8| {
        let mut cdb = vec![
            0x93, flags, 0, 0, 0, 0, 0, 0, 0, block, 0, 0, 0, count, 0, 0,
        ];
        cdb.resize(16, 0);
        cdb
    };
    let (answer, _) = command(&b, &disk, &mut q, &same(0, 20, 3), &[7; 512], 0);
    assert_eq!(answer, GOOD);
    assert_eq!(disk.bytes.lock().unwrap()[20 * 512..][..1536], [7; 1536]);
    command(&b, &disk, &mut q, &same(8, 30, 2), &[0; 512], 0);
    command(&b, &disk, &mut q, &same(1, 40, 2), &[], 0);
    let zero = |block: u64, unmap| Operation::WriteZeroes {
        offset: block * 512,
        len: 1024,
        unmap,
    };
    let log = disk.log.lock().unwrap().clone();
    let (first, second) = ((2048, 1024), (5120, 512));
    let discard = |(offset, len)| Operation::Discard { offset, len };
    assert_eq!(log[..2], [discard(first), discard(second)]);
    assert_eq!(log[3..], [zero(30, true), zero(40, false)]);
    // Beyond the end, or of no length.
    let (answer, _) = command(&b, &disk, &mut q, &same(1, 127, 2), &[], 0);
    assert_eq!(answer.sense, (5, 0x21, 0));
    let (answer, _) = command(&b, &disk, &mut q, &same(1, 1, 0), &[], 0);
    assert_eq!(answer.sense, (5, 0x24, 0));
}

#[test]
fn a_cache_that_is_off_makes_every_write_safe() {
    let (b, disk, mut q) = bench(&[]);
    let sense = [0x1a, 8, 8, 0, 24, 0];
    let (_, pages) = command(&b, &disk, &mut q, &sense, &[], 24);
    assert_eq!(pages[..7], [23, 0, 0, 0, 8, 18, 4]);
    let mut list = vec![0, 0, 0, 0, 8, 18, 0];
    list.resize(24, 0);
    let select = [0x15, 0x10, 0, 0, 24, 0];
    let (answer, _) = command(&b, &disk, &mut q, &select, &list, 0);
    assert_eq!(answer, GOOD);
    disk.log.lock().unwrap().clear();
    command(&b, &disk, &mut q, &ten(0x2a, 5, 1), &[9; 512], 0);
    assert_eq!(disk.log.lock().unwrap().last(), Some(&Operation::Flush));
    // A bit that cannot be changed.
    list[6] = 1;
    let (answer, _) = command(&b, &disk, &mut q, &select, &list, 0);
    assert_eq!(answer.sense, (5, 0x26, 0));
}

fn function(q: &mut [Ring], b: &Bench, subtype: u32, target: u8, lun: u8, tag: u64) {
    let mut bytes = 0u32.to_le_bytes().to_vec();
    bytes.extend(subtype.to_le_bytes());
    bytes.extend([1, target, 0, lun, 0, 0, 0, 0]);
    bytes.extend(tag.to_le_bytes());
    q[0].add(&[&bytes], &[1]);
    b.kick(0);
}

#[test]
fn an_aborted_command_is_given_back_before_the_function_is_answered() {
    let (b, disk, mut q) = bench(&[]);
    for tag in [7, 8] {
        put(&mut q, &header(0, 0, tag, &ten(0x28, 3, 1)), &[], 512);
    }
    b.kick(2);
    // QUERY TASK.
    function(&mut q, &b, 6, 0, 0, 7);
    assert_eq!(q[0].used().unwrap().data, [10]);
    function(&mut q, &b, 0, 0, 0, 7);
    assert!(q[0].used().is_none());
    disk.work();
    assert_eq!(response(&q[QUEUE].used().unwrap()).0.code, 2);
    assert_eq!(response(&q[QUEUE].used().unwrap()).0, GOOD);
    assert_eq!(q[0].used().unwrap().data, [0]);
    function(&mut q, &b, 6, 0, 0, 7);
    assert_eq!(q[0].used().unwrap().data, [0]);
}

#[test]
fn a_reset_of_a_unit_ends_its_commands_and_is_told() {
    let (b, disk, mut q) = bench(&[]);
    put(&mut q, &header(0, 0, 1, &ten(0x28, 3, 1)), &[], 512);
    b.kick(2);
    function(&mut q, &b, 5, 0, 0, 0);
    disk.work();
    assert_eq!(response(&q[QUEUE].used().unwrap()).0.code, 4);
    assert_eq!(q[0].used().unwrap().data, [0]);
    let (answer, _) = command(&b, &disk, &mut q, &[0], &[], 0);
    assert_eq!(answer.sense, (6, 0x29, 0));
    for (subtype, target, lun, answer) in [(5, 9, 0, 3), (5, 0, 9, 12), (99, 0, 0, 11)] {
        function(&mut q, &b, subtype, target, lun, 0);
        assert_eq!(q[0].used().unwrap().data, [answer]);
    }
}

#[test]
fn a_new_size_is_an_event_and_an_attention() {
    let (b, disk, mut q) = bench(&[]);
    q[1].add(&[], &[16]);
    b.kick(1);
    disk.resize(DISK as u64 * 2).unwrap();
    let event = q[1].used().unwrap().data;
    assert_eq!(event, [3, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0x2a, 9, 0, 0]);
    let (answer, _) = command(&b, &disk, &mut q, &[0], &[], 0);
    assert_eq!(answer.sense, (6, 0x2a, 9));
    // Without a buffer the driver hears of it when it gives one.
    disk.resize(DISK as u64).unwrap();
    assert!(q[1].used().is_none());
    q[1].add(&[], &[16]);
    b.kick(1);
    assert_eq!(q[1].used().unwrap().data[..4], [0, 0, 0, 0x80]);
}

#[test]
fn after_a_reset_running_commands_leave_guest_memory_alone() {
    let (b, disk, mut q) = bench(&[]);
    put(&mut q, &header(0, 0, 0, &ten(0x28, 3, 1)), &[], 512);
    b.kick(2);
    let mut q = b.start(FEATURES, 3);
    assert_eq!(*disk.barriers.lock().unwrap(), 1);
    disk.work();
    assert!(q[QUEUE].used().is_none() && b.interrupted() == 0);
}

#[test]
fn commands_in_flight_travel_with_the_saved_state() {
    let (b, disk, mut q) = bench(&[]);
    for tag in [1, 2] {
        put(&mut q, &header(0, 0, tag, &ten(0x28, 3, 1)), &[], 512);
    }
    b.kick(2);
    function(&mut q, &b, 0, 0, 0, 2);
    let saved = b.fabric.save();
    b.fabric.reset(ResetKind::Cold);
    disk.held.lock().unwrap().clear();
    b.fabric.restore(&saved).unwrap();
    // The aborted one is given back at once, and the function with it.
    assert_eq!(response(&q[QUEUE].used().unwrap()).0.code, 2);
    assert_eq!(q[0].used().unwrap().data, [0]);
    disk.work();
    let (answer, data) = response(&q[QUEUE].used().unwrap());
    assert_eq!((answer, data[0]), (GOOD, 3));
}

#[test]
fn a_write_protected_disk_says_so() {
    let mut memory = Memory::new(DISK);
    memory.read_only = true;
    let device = Scsi::new(ScsiOptions::default()).unwrap();
    let b = Bench::new(Box::new(device), Options::default(), false);
    plug(&b, "d0", &memory, &[]);
    let mut q = b.start(FEATURES, 3);
    command(&b, &memory, &mut q, &[0], &[], 0);
    let (answer, _) = command(&b, &memory, &mut q, &ten(0x2a, 5, 1), &[9; 512], 0);
    assert_eq!(answer.sense, (7, 0x27, 0));
    let (_, pages) = command(&b, &memory, &mut q, &[0x1a, 0, 0x3f, 0, 4, 0], &[], 4);
    assert_eq!(pages[2], 0x80);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn random_commands_end_in_a_response_or_a_reset(
        requests in proptest::collection::vec(
            (
                prop_oneof![
                    proptest::sample::select(vec![
                        0x03u8, 0x08, 0x0a, 0x12, 0x15, 0x1a, 0x1b, 0x25, 0x28, 0x2a, 0x2f, 0x35,
                        0x41, 0x42, 0x55, 0x5a, 0x88, 0x8a, 0x91, 0x93, 0x9e, 0xa0, 0xa8, 0xaa,
                    ]),
                    any::<u8>(),
                ],
                proptest::collection::vec(prop_oneof![Just(0u8), any::<u8>(), 0u8..16], 15),
                0usize..1200,
                0usize..1200,
                (prop_oneof![Just(0u8), any::<u8>()], any::<bool>()),
            ),
            1..16,
        ),
    ) {
        let (b, disk, mut q) = bench(&[]);
        for (code, rest, out, into, (target, is_function)) in requests {
            let cdb: Vec<u8> = std::iter::once(code).chain(rest).collect();
            put(&mut q, &header(target, 0, 0, &cdb), &vec![code; out], into);
            b.kick(2);
            if is_function {
                function(&mut q, &b, u32::from(code) % 9, 0, 0, 0);
            }
            disk.work();
            prop_assert!(q[QUEUE].used().is_some());
            prop_assert!(!is_function || q[0].used().is_some());
        }
    }

    #[test]
    fn random_bytes_in_the_queues_do_no_harm(
        requests in proptest::collection::vec(
            (0usize..3, proptest::collection::vec(any::<u8>(), 1..80), 1usize..200),
            1..12,
        ),
    ) {
        let (b, disk, mut q) = bench(&[]);
        for (queue, bytes, into) in requests {
            q[queue].add(&[&bytes], &[into]);
            b.kick(queue as u16);
            disk.work();
        }
    }
}
