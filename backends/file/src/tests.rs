use std::sync::mpsc::channel;

use backend_block::{BlockError, Operation};
use proptest::prelude::*;

use super::*;

/// A file that goes away with the test.
struct Temp(PathBuf);

impl Temp {
    fn new(name: &str, contents: &[u8]) -> Self {
        let path = std::env::temp_dir().join(format!("mimic-{}-{name}", std::process::id()));
        std::fs::write(&path, contents).unwrap();
        Temp(path)
    }
}

impl Drop for Temp {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

fn run(disk: &RawFile, operation: Operation, data: Vec<u8>) -> Result<Vec<u8>, BlockError> {
    let (tx, rx) = channel();
    disk.submit(Request {
        operation,
        buffer: Box::new(data),
        done: Box::new(move |result, mut buffer| {
            let mut out = vec![0; buffer.len() as usize];
            buffer.copy_out(0, &mut out).unwrap();
            tx.send(result.map(|()| out)).unwrap();
        }),
    });
    rx.recv().unwrap()
}

fn read(disk: &RawFile, offset: u64, len: usize) -> Result<Vec<u8>, BlockError> {
    run(disk, Operation::Read { offset }, vec![0xee; len])
}

#[test]
fn what_is_written_is_read_in_every_cache_mode() {
    for mode in Cache::MODES {
        let temp = Temp::new(mode, &vec![9; 1 << 20]);
        let mut options = Options::new("d0", &temp.0);
        options.cache = Cache::mode(mode).unwrap();
        let disk = match RawFile::open(&options) {
            Ok(disk) => disk,
            // tmpfs of older kernels has no O_DIRECT.
            Err(OpenError::Open { .. }) if options.cache.direct => continue,
            Err(error) => panic!("{error}"),
        };
        for (offset, len) in [(0, 4096), (512, 512), (4096, 600 << 10), (1 << 19, 4608)] {
            let data: Vec<u8> = (0..len).map(|i| (i % 251) as u8).collect();
            run(&disk, Operation::Write { offset }, data.clone()).unwrap();
            assert_eq!(read(&disk, offset, len).unwrap(), data);
        }
        run(&disk, Operation::Flush, vec![]).unwrap();
    }
}

#[test]
fn the_rest_of_a_last_sector_reads_as_zeros() {
    let temp = Temp::new("tail", &[7; 700]);
    let disk = RawFile::open(&Options::new("d0", &temp.0)).unwrap();
    assert_eq!(disk.len(), 1024);
    let data = read(&disk, 512, 512).unwrap();
    assert_eq!((data[187], data[188], data[511]), (7, 0, 0));
    assert_eq!(read(&disk, 1024, 512), Err(BlockError::OutOfRange));
}

#[test]
fn zeros_and_discards_keep_the_size() {
    let temp = Temp::new("zero", &[7; 8192]);
    let mut options = Options::new("d0", &temp.0);
    options.discard = true;
    let disk = RawFile::open(&options).unwrap();
    for (unmap, offset) in [(false, 0), (true, 1024)] {
        let len = 1024;
        run(&disk, Operation::WriteZeroes { offset, len, unmap }, vec![]).unwrap();
    }
    let discard = Operation::Discard {
        offset: 4096,
        len: 4096,
    };
    run(&disk, discard, vec![]).unwrap();
    assert_eq!(read(&disk, 0, 2048).unwrap(), vec![0; 2048]);
    assert_eq!(read(&disk, 2048, 512).unwrap(), vec![7; 512]);
    assert_eq!(std::fs::metadata(&temp.0).unwrap().len(), 8192);
}

#[test]
fn a_second_writer_is_refused_by_name() {
    let temp = Temp::new("lock", &[0; 512]);
    let options = Options::new("d0", &temp.0);
    let first = RawFile::open(&options).unwrap();
    let error = RawFile::open(&options).err().unwrap().to_string();
    assert!(error.contains("is in use") && error.contains("\"write\" lock"));
    let shared = Options {
        share_rw: true,
        ..options.clone()
    };
    assert!(RawFile::open(&shared).is_err());
    drop(first);
    let first = RawFile::open(&shared).unwrap();
    assert!(RawFile::open(&shared).is_ok());
    drop(first);
    let read_only = Options {
        read_only: true,
        ..options
    };
    let _first = RawFile::open(&read_only).unwrap();
    let second = RawFile::open(&read_only).unwrap();
    let write = Operation::Write { offset: 0 };
    assert_eq!(run(&second, write, vec![0; 512]), Err(BlockError::ReadOnly));
}

#[test]
fn errors_say_what_to_do() {
    let temp = Temp::new("errors", &[]);
    let mut options = Options::new("d0", &temp.0);
    options.format = "qcow2".into();
    let error = RawFile::open(&options).err().unwrap().to_string();
    assert!(error.contains("qemu-img convert -O raw"));
    let options = Options::new("d0", std::env::temp_dir());
    assert!(matches!(
        RawFile::open(&options),
        Err(OpenError::NotADisk(_))
    ));
    let options = Options::new("d0", "/nonexistent/disk.img");
    let error = RawFile::open(&options).err().unwrap().to_string();
    assert_eq!(error, "cannot open disk image '/nonexistent/disk.img'");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]

    #[test]
    fn random_requests_end_in_a_result(
        ops in proptest::collection::vec((0u8..5, any::<u64>(), 0usize..20_000, any::<bool>()), 1..20),
    ) {
        let temp = Temp::new("random", &[1; 16384]);
        let mut options = Options::new("d0", &temp.0);
        options.discard = true;
        let disk = RawFile::open(&options).unwrap();
        for (kind, offset, len, near) in ops {
            let offset = if near { offset % 20_000 } else { offset };
            let operation = match kind {
                0 => Operation::Read { offset },
                1 => Operation::Write { offset },
                2 => Operation::Flush,
                3 => Operation::Discard { offset, len: len as u64 },
                _ => Operation::WriteZeroes { offset, len: len as u64, unmap: near },
            };
            let _ = run(&disk, operation, vec![0; len]);
        }
        prop_assert_eq!(std::fs::metadata(&temp.0).unwrap().len(), 16384);
    }
}
