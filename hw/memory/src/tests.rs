use std::sync::{Arc, Mutex};

use super::*;

#[derive(Default)]
struct Recorder {
    order: Mutex<Vec<(u64, u8, Option<u64>)>>,
}

impl IoRegion for Recorder {
    fn read(&self, a: Access) -> Result<u64, Fault> {
        self.order.lock().unwrap().push((a.offset, a.size, None));
        Ok(0x0102_0304_0506_0708)
    }
    fn write(&self, a: Access, value: u64) -> Result<(), Fault> {
        self.order
            .lock()
            .unwrap()
            .push((a.offset, a.size, Some(value)));
        Ok(())
    }
}

fn io(rec: &Arc<Recorder>, base: u64, sizes: AccessSizes, order: ByteOrder) -> MappingSpec {
    MappingSpec {
        name: "dev".into(),
        base,
        len: 0x100,
        priority: 1,
        enabled: true,
        what: What::Io {
            io: rec.clone(),
            region: RegionId(0),
            order,
            sizes,
        },
    }
}

fn ram(base: u64, len: u64) -> (Arc<RamBlock>, MappingSpec) {
    let block = Arc::new(RamBlock::new("ram", len).unwrap());
    let what = What::Ram {
        block: block.clone(),
        offset: 0,
    };
    (
        block,
        MappingSpec {
            name: "ram".into(),
            base,
            len,
            priority: 0,
            enabled: true,
            what,
        },
    )
}

const CPU: Initiator = Initiator::Cpu(0);

#[test]
fn a_device_over_ram_splits_it_and_moves() {
    let map = MemoryMap::default();
    let (_, spec) = ram(0, 0x4000);
    map.add(spec);
    let rec = Arc::new(Recorder::default());
    let dev = map.add(io(&rec, 0x1000, AccessSizes::ANY, ByteOrder::Little));
    let ranges: Vec<_> = map
        .snapshot()
        .spans()
        .iter()
        .map(|s| (s.start, s.last))
        .collect();
    assert_eq!(ranges, [(0, 0xfff), (0x1000, 0x10ff), (0x1100, 0x3fff)]);
    let generation = map.generation();
    dev.place(0x2000, true);
    assert_ne!(map.generation(), generation);
    assert_eq!(map.snapshot().find(0x2000).unwrap().name.as_ref(), "dev");
    dev.set_enabled(false);
    assert_eq!(map.snapshot().spans().len(), 1);
}

#[test]
fn ram_keeps_its_offset_behind_a_hole() {
    let map = MemoryMap::default();
    let (block, spec) = ram(0, 0x4000);
    map.add(spec);
    let rec = Arc::new(Recorder::default());
    map.add(io(&rec, 0x1000, AccessSizes::ANY, ByteOrder::Little));
    let snap = map.snapshot();
    snap.write(
        0x2008,
        4,
        0xdead_beef,
        ByteOrder::Little,
        CPU,
        Attrs::default(),
    )
    .unwrap();
    assert_eq!(block.load(0x2008, 4), Some(0xdead_beef));
    assert_eq!(
        snap.read(0x2008, 4, ByteOrder::Big, CPU, Attrs::default()),
        Ok(0xefbe_adde)
    );
}

#[test]
fn misfitting_accesses_are_split_into_what_the_device_takes() {
    let map = MemoryMap::default();
    let rec = Arc::new(Recorder::default());
    map.add(io(&rec, 0, AccessSizes::BYTE, ByteOrder::Little));
    map.snapshot()
        .write(4, 4, 0x0403_0201, ByteOrder::Little, CPU, Attrs::default())
        .unwrap();
    let seen = std::mem::take(&mut *rec.order.lock().unwrap());
    assert_eq!(
        seen,
        [
            (4, 1, Some(1)),
            (5, 1, Some(2)),
            (6, 1, Some(3)),
            (7, 1, Some(4))
        ]
    );
    let value = map
        .snapshot()
        .read(0, 2, ByteOrder::Little, CPU, Attrs::default());
    assert_eq!(value, Ok(0x0808));
}

#[test]
fn a_narrow_read_of_a_word_register_picks_its_byte() {
    let map = MemoryMap::default();
    let rec = Arc::new(Recorder::default());
    map.add(io(&rec, 0, AccessSizes::WORD, ByteOrder::Little));
    let value = map
        .snapshot()
        .read(5, 1, ByteOrder::Little, CPU, Attrs::default());
    assert_eq!(value, Ok(7));
    assert_eq!(*rec.order.lock().unwrap(), [(4, 4, None)]);
}

#[test]
fn a_big_endian_device_sees_the_number_a_big_endian_cpu_wrote() {
    let map = MemoryMap::default();
    let rec = Arc::new(Recorder::default());
    map.add(io(&rec, 0, AccessSizes::ANY, ByteOrder::Big));
    map.snapshot()
        .write(0, 4, 0x1122_3344, ByteOrder::Big, CPU, Attrs::default())
        .unwrap();
    map.snapshot()
        .write(0, 4, 0x1122_3344, ByteOrder::Little, CPU, Attrs::default())
        .unwrap();
    let seen = rec.order.lock().unwrap();
    assert_eq!(
        *seen,
        [(0, 4, Some(0x1122_3344)), (0, 4, Some(0x4433_2211))]
    );
}

#[test]
fn dma_reaches_ram_and_never_a_device() {
    let map = MemoryMap::default();
    let (_, spec) = ram(0, 0x2000);
    map.add(spec);
    let rec = Arc::new(Recorder::default());
    map.add(io(&rec, 0x1000, AccessSizes::ANY, ByteOrder::Little));
    let dma = Dma::new(map);
    assert_eq!(dma.write(0xffe, &[1, 2]), Ok(()));
    assert_eq!(dma.write(0xfff, &[1, 2]), Err(DmaError::NoRam(0x1000)));
    assert_eq!(
        dma.read(u64::MAX, &mut [0; 2]),
        Err(DmaError::NoRam(u64::MAX))
    );
    assert_eq!(dma.load_le(0xffe, 2), Ok(0x0101));
    dma.set_enabled(false);
    assert_eq!(dma.read(0, &mut [0]), Err(DmaError::Disabled));
    assert!(rec.order.lock().unwrap().is_empty());
}

#[test]
fn a_store_to_translated_code_moves_its_version_and_one_beside_it_does_not() {
    let (block, _) = ram(0, 0x2000);
    let version = || {
        block
            .code_version(0)
            .unwrap()
            .load(std::sync::atomic::Ordering::SeqCst)
    };
    let start = version();
    block.track_code(0x40, 16, false);
    block.store(0x80, 4, 1).unwrap();
    assert_eq!(version(), start);
    block.store(0x4c, 8, 1).unwrap();
    assert_ne!(version(), start);
}

#[test]
fn dirty_logging_reports_each_written_page_once() {
    let (block, _) = ram(0, 0x4000);
    block.log_dirty();
    block.write(0xfff, &[1, 2]).unwrap();
    assert_eq!(block.take_dirty(), [0b11]);
    assert_eq!(block.take_dirty(), [0]);
    block.store(0x3000, 1, 1).unwrap();
    assert_eq!(block.take_dirty(), [0b1000]);
}

#[test]
fn impossible_sizes_are_refused() {
    assert!(RamBlock::new("x", 0).is_err());
    assert!(RamBlock::new("x", 12).is_err());
    assert!(RamBlock::new("x", 1 << 60).is_err());
}

fn file_of(bytes: &[u8]) -> std::fs::File {
    use std::io::Write as _;
    let path = std::env::temp_dir().join(format!(
        "hw-memory-{}-{:?}",
        std::process::id(),
        std::thread::current().id()
    ));
    let mut file = std::fs::File::options()
        .read(true)
        .write(true)
        .create(true)
        .truncate(true)
        .open(&path)
        .unwrap();
    std::fs::remove_file(&path).unwrap();
    file.write_all(bytes).unwrap();
    file
}

#[test]
fn a_shared_file_has_what_the_guest_writes_and_a_private_one_has_not() {
    use std::os::unix::fs::FileExt as _;
    for is_shared in [true, false] {
        let file = file_of(&[7; 0x3000]);
        let other = file.try_clone().unwrap();
        let block = RamBlock::from_file("ram", 0x2000, file, is_shared).unwrap();
        assert_eq!(block.load(0x1ff8, 1), Some(7));
        block.store(0x1000, 1, 9).unwrap();
        let mut byte = [0];
        other.read_exact_at(&mut byte, 0x1000).unwrap();
        assert_eq!(byte[0], if is_shared { 9 } else { 7 });
        assert_eq!(block.file().is_some(), is_shared);
        assert_eq!(other.metadata().unwrap().len(), 0x3000);
    }
}

#[test]
fn a_file_that_is_too_short_is_not_mapped() {
    let file = file_of(&[0; 0x1000]);
    assert!(RamBlock::from_file("ram", 0x2000, file, true).is_err());
}

/// The kernel's flags of the mapping that begins at `start` (proc(5), `VmFlags`).
fn flags_of_mapping(start: *mut u8) -> String {
    let smaps = std::fs::read_to_string("/proc/self/smaps").unwrap();
    let head = format!("{:x}-", start as usize);
    let rest = smaps.split_once(&head).unwrap().1;
    let flags = rest.split_once("VmFlags:").unwrap().1;
    flags.lines().next().unwrap().to_owned()
}

#[test]
fn advice_reaches_the_mapping_and_leaves_its_contents_alone() {
    let block = RamBlock::private("ram", 0x40_0000).unwrap();
    block.store(0x1000, 4, 7).unwrap();
    assert!(block.file().is_none());
    block.advise(Advice::NoDump).unwrap();
    block.advise(Advice::Populate).unwrap();
    assert!(flags_of_mapping(block.host_ptr()).contains(" dd"));
    // A host without KSM or huge pages says so, and nothing else happens.
    for (advice, flag) in [(Advice::Merge, " mg"), (Advice::Huge, " hg")] {
        let is_taken = block.advise(advice).is_ok();
        assert_eq!(flags_of_mapping(block.host_ptr()).contains(flag), is_taken);
    }
    assert_eq!(block.load(0x1000, 4), Some(7));
}
