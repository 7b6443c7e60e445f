use std::path::PathBuf;
use std::sync::mpsc::channel;

use backend_block::{
    BackendOptions, Block, BlockBackend, BlockError, Cache, IoVector, OpenError, Opener, Operation,
    Request,
};
use control_options::Opts;
use proptest::prelude::*;

mod device;

/// A file that goes away with the test.
struct Temp(PathBuf);

impl Temp {
    fn new(name: &str, contents: &[u8]) -> Self {
        let path = std::env::temp_dir().join(format!("mimic-{}-{name}", std::process::id()));
        std::fs::write(&path, contents).unwrap();
        Temp(path)
    }

    fn open(&self, more: &str) -> Result<BlockBackend, OpenError> {
        open(&self.0.display().to_string(), more)
    }
}

impl Drop for Temp {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

static DRIVERS: &[&backend_block::DriverClass] =
    &[&backend_block::RAW, &super::FILE, &super::HOST_DEVICE];

fn open(file: &str, more: &str) -> Result<BlockBackend, OpenError> {
    let text = format!("driver=raw,file.driver=file,file.filename={file}{more}");
    let opts = Opts::parse("-blockdev", &text, None).unwrap();
    let node = Opener::new(DRIVERS).open("-blockdev", &opts)?;
    BlockBackend::new("d0", node, BackendOptions::default())
}

fn run(disk: &dyn Block, operation: Operation, data: &[u8]) -> Result<Vec<u8>, BlockError> {
    let (tx, rx) = channel();
    let memory = IoVector::from(data);
    let done = Box::new(move |result| tx.send(result).unwrap());
    disk.submit(Request::new(operation, memory.clone(), done));
    rx.recv().unwrap().map(|()| memory.to_vec())
}

fn read(disk: &dyn Block, offset: u64, len: usize) -> Result<Vec<u8>, BlockError> {
    run(disk, Operation::Read { offset }, &vec![0xee; len])
}

/// A disk whose requests go by io_uring, or why this host has none.
fn by_ring(temp: &Temp, more: &str) -> Option<BlockBackend> {
    match temp.open(&format!(",file.aio=io_uring{more}")) {
        Ok(disk) => Some(disk),
        Err(error) => {
            let said = error.to_string();
            assert!(said.contains("the kernel refuses it"), "{said}");
            assert!(said.contains("aio=threads"), "{said}");
            None
        }
    }
}

#[test]
fn what_goes_by_io_uring_is_read_and_stays() {
    let temp = Temp::new("ring", &[7; 1 << 20]);
    for direct in ["", ",cache.direct=on"] {
        let Some(disk) = by_ring(&temp, direct) else {
            return;
        };
        assert_eq!(read(&disk, 4096, 8192), Ok(vec![7; 8192]));
        let write = Operation::Write { offset: 512 };
        assert!(run(&disk, write, &[8; 1024]).is_ok());
        // Not aligned for a disk, whatever the file is.
        assert_eq!(read(&disk, 512, 1024), Ok(vec![8; 1024]));
        assert!(run(&disk, Operation::Flush, &[]).is_ok());
        assert_eq!(
            read(&disk, (1 << 20) - 512, 1024),
            Err(BlockError::OutOfRange)
        );
        assert!(run(&disk, write, &[7; 1024]).is_ok());
        let stats = disk.stats();
        assert_eq!((stats.rd.operations, stats.wr.operations), (2, 2));
        disk.drain();
    }
}

#[test]
fn a_disk_that_went_by_io_uring_is_free_as_soon_as_it_is_closed() {
    let temp = Temp::new("ring-again", &[7; 8192]);
    for _ in 0..200 {
        let Some(disk) = by_ring(&temp, "") else {
            return;
        };
        assert_eq!(read(&disk, 4096, 4096), Ok(vec![7; 4096]));
        disk.drain();
    }
}

#[test]
fn many_requests_at_once_by_io_uring_are_all_done_when_the_disk_is_drained() {
    let temp = Temp::new("ring-many", &[0; 1 << 20]);
    let Some(disk) = by_ring(&temp, "") else {
        return;
    };
    let done = std::sync::Arc::new(std::sync::atomic::AtomicU32::new(0));
    // More than the ring has room for.
    for n in 0..1000u64 {
        let memory = IoVector::from([n as u8; 512].as_slice());
        let seen = done.clone();
        let operation = Operation::Write { offset: n * 512 };
        let done = Box::new(move |result: Result<(), BlockError>| {
            result.unwrap();
            seen.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
        });
        disk.submit(Request::new(operation, memory, done));
    }
    disk.drain();
    assert_eq!(done.load(std::sync::atomic::Ordering::SeqCst), 1000);
    for n in [0u64, 77, 999] {
        assert_eq!(read(&disk, n * 512, 512), Ok(vec![n as u8; 512]));
    }
}

#[test]
fn what_io_uring_cannot_read_is_an_error_and_a_short_file_reads_as_zeros() {
    let temp = Temp::new("ring-short", &[3; 8192]);
    let Some(disk) = by_ring(&temp, "") else {
        return;
    };
    // Somebody else cuts the file: what is gone reads as zeros, as by threads.
    let file = std::fs::OpenOptions::new()
        .write(true)
        .open(&temp.0)
        .unwrap();
    file.set_len(4096).unwrap();
    let mut wanted = vec![3; 4096];
    wanted.resize(8192, 0);
    assert_eq!(read(&disk, 0, 8192), Ok(wanted));
}

#[test]
fn what_the_cache_holds_is_read_at_once_where_the_kernel_does_that() {
    let temp = Temp::new("cached", &[5; 8192]);
    let disk = temp.open("").unwrap();
    read(&disk, 0, 8192).unwrap();
    let memory = IoVector::zeroed(4096);
    // Not every file system can, and a busy host may have dropped it: what counts is what is read.
    if disk.read_now(4096, &memory) {
        assert_eq!(memory.to_vec(), [5; 4096]);
    }
    // Past the cache it would be waiting.
    let direct = temp.open(",locking=off,cache.direct=on");
    if let Ok(direct) = direct {
        assert!(!direct.read_now(0, &memory));
    }
}

#[test]
fn what_is_written_is_read_in_every_cache_mode() {
    for mode in Cache::MODES {
        let temp = Temp::new(mode, &vec![9; 1 << 20]);
        let cache = Cache::mode(mode).unwrap();
        let switch = |on: bool| if on { "on" } else { "off" };
        let more = format!(
            ",cache.direct={},cache.no-flush={}",
            switch(cache.direct),
            switch(cache.no_flush)
        );
        let disk = match temp.open(&more) {
            Ok(disk) => disk,
            // tmpfs of older kernels has no O_DIRECT.
            Err(OpenError::Host { .. }) if cache.direct => continue,
            Err(error) => panic!("{error}"),
        };
        for (offset, len) in [(0, 4096), (512, 512), (4096, 600 << 10), (1 << 19, 4608)] {
            let data: Vec<u8> = (0..len).map(|i| (i % 251) as u8).collect();
            run(&disk, Operation::Write { offset }, &data).unwrap();
            assert_eq!(read(&disk, offset, len).unwrap(), data);
            // In pieces that no disk takes directly.
            let memory = IoVector::zeroed(len + 8);
            let (tx, rx) = channel();
            let done = Box::new(move |result| tx.send(result).unwrap());
            let part = memory.slice(8, len as u64);
            disk.submit(Request::new(Operation::Read { offset }, part, done));
            rx.recv().unwrap().unwrap();
            assert_eq!(memory.to_vec()[8..], data);
        }
        run(&disk, Operation::Flush, &[]).unwrap();
    }
}

#[test]
fn a_request_of_more_pieces_than_the_kernel_takes_is_carried_out_whole() {
    let temp = Temp::new("pieces", &[0; 1 << 20]);
    let disk = temp.open("").unwrap();
    let block = std::sync::Arc::new(hw_memory::RamBlock::private("ram", 1 << 20).unwrap());
    let map = hw_memory::MemoryMap::default();
    let what = hw_memory::What::Ram {
        block: block.clone(),
        offset: 0,
    };
    let _ram = map.add(hw_memory::MappingSpec {
        name: "ram".into(),
        base: 0,
        len: 1 << 20,
        priority: 0,
        enabled: true,
        what,
    });
    let dma = hw_memory::Dma::new(map);
    let ranges = || (0..2000).map(|n| ((1999 - n) * 512, 8));
    for n in 0..2000u64 {
        block.write(n * 512, &n.to_le_bytes()).unwrap();
    }
    for operation in [
        Operation::Write { offset: 64 << 9 },
        Operation::Read { offset: 64 << 9 },
    ] {
        let memory = IoVector::guest(&dma, ranges(), true).unwrap();
        // 16,000 bytes are no sectors; a part that is.
        let memory = memory.slice(0, 15872);
        let (tx, rx) = channel();
        let done = Box::new(move |result| tx.send(result).unwrap());
        disk.submit(Request::new(operation, memory, done));
        rx.recv().unwrap().unwrap();
        if matches!(operation, Operation::Write { .. }) {
            block.fill(0, 1 << 20, 0).unwrap();
        }
    }
    let mut out = [0; 8];
    for n in 16..2000u64 {
        block.read(n * 512, &mut out).unwrap();
        assert_eq!(u64::from_le_bytes(out), n);
    }
}

#[test]
fn the_rest_of_a_last_sector_reads_as_zeros() {
    let temp = Temp::new("tail", &[7; 700]);
    let disk = temp.open("").unwrap();
    assert_eq!(disk.len(), 1024);
    let data = read(&disk, 512, 512).unwrap();
    assert_eq!((data[187], data[188], data[511]), (7, 0, 0));
    assert_eq!(read(&disk, 1024, 512), Err(BlockError::OutOfRange));
}

#[test]
fn zeros_and_discards_keep_the_size() {
    let temp = Temp::new("zero", &[7; 8192]);
    let disk = temp.open(",discard=unmap").unwrap();
    for (unmap, offset) in [(false, 0), (true, 1024)] {
        let len = 1024;
        run(&disk, Operation::WriteZeroes { offset, len, unmap }, &[]).unwrap();
    }
    let discard = Operation::Discard {
        offset: 4096,
        len: 4096,
    };
    run(&disk, discard, &[]).unwrap();
    assert_eq!(read(&disk, 0, 2048).unwrap(), vec![0; 2048]);
    assert_eq!(read(&disk, 2048, 512).unwrap(), vec![7; 512]);
    assert_eq!(std::fs::metadata(&temp.0).unwrap().len(), 8192);
}

#[test]
fn a_part_of_a_file_is_a_disk() {
    let temp = Temp::new("part", &[1; 4096]);
    let disk = temp.open(",offset=512,size=1024").unwrap();
    assert_eq!(disk.len(), 1024);
    run(&disk, Operation::Write { offset: 512 }, &[2; 512]).unwrap();
    let beyond = run(&disk, Operation::Write { offset: 1024 }, &[2; 512]);
    assert_eq!(beyond, Err(BlockError::OutOfRange));
    drop(disk);
    let bytes = std::fs::read(&temp.0).unwrap();
    assert_eq!((bytes[1023], bytes[1024], bytes[1536]), (1, 2, 1));
    assert!(temp.open(",offset=4096,size=512").is_err());
    assert!(temp.open(",offset=100").is_err());
}

#[test]
fn a_second_writer_is_refused_by_name() {
    let temp = Temp::new("lock", &[0; 512]);
    let first = temp.open("").unwrap();
    let error = temp.open("").err().unwrap().to_string();
    assert!(
        error.contains("is in use") && error.contains("\"write\" lock"),
        "{error}"
    );
    let shared = ",force-share=on";
    assert!(temp.open(shared).is_err());
    // Who only looks and shares everything disturbs nobody.
    assert!(temp.open(",force-share=on,read-only=on").is_ok());
    drop(first);
    let first = temp.open(shared).unwrap();
    assert!(temp.open(shared).is_ok());
    drop(first);
    let _first = temp.open(",read-only=on").unwrap();
    let second = temp.open(",read-only=on").unwrap();
    let write = Operation::Write { offset: 0 };
    assert_eq!(run(&second, write, &[0; 512]), Err(BlockError::ReadOnly));
}

#[test]
fn errors_say_what_to_do() {
    let directory = std::env::temp_dir().display().to_string();
    let error = open(&directory, "").err().unwrap().to_string();
    assert!(error.ends_with("it is neither a regular file nor a block device"));
    let error = open("/nonexistent/disk.img", "").err().unwrap().to_string();
    assert_eq!(error, "cannot open disk image '/nonexistent/disk.img'");
    let temp = Temp::new("errors", &[]);
    let error = temp.open(",file.aoi=threads").err().unwrap().to_string();
    assert_eq!(
        error,
        "-blockdev: block driver 'file' has no property 'aoi'; did you mean 'aio'?"
    );
    let error = temp.open(",driver=rwa").err().unwrap().to_string();
    assert_eq!(
        error,
        "there is no block driver named 'rwa'; did you mean 'raw'?"
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]

    #[test]
    fn random_requests_end_in_a_result(
        ops in proptest::collection::vec((0u8..5, any::<u64>(), 0usize..20_000, any::<bool>()), 1..20),
    ) {
        let temp = Temp::new("random", &[1; 16384]);
        let disk = temp.open(",discard=unmap").unwrap();
        for (kind, offset, len, near) in ops {
            let offset = if near { offset % 20_000 } else { offset };
            let operation = match kind {
                0 => Operation::Read { offset },
                1 => Operation::Write { offset },
                2 => Operation::Flush,
                3 => Operation::Discard { offset, len: len as u64 },
                _ => Operation::WriteZeroes { offset, len: len as u64, unmap: near },
            };
            let _ = run(&disk, operation, &vec![0; len]);
        }
        prop_assert_eq!(std::fs::metadata(&temp.0).unwrap().len(), 16384);
    }
}
