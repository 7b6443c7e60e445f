//! Images with bytes changed at random, as files: what they cost in memory, and what they leave alone.
//!
//! A program of its own, as all that it allocates is counted.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test that cannot go on has failed"
)]

use std::path::{Path, PathBuf};
use std::sync::Arc;

use backend_block::{Child, DriverClass, IoVector, Node, Opener, perm};
use backend_qcow2::{Fix, Qcow2};
use control_options::Opts;
use peak_alloc::PeakAlloc;
use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};

#[global_allocator]
static MEMORY: PeakAlloc = PeakAlloc;

static DRIVERS: &[&DriverClass] = &[
    &backend_qcow2::CLASS,
    &backend_block::RAW,
    &backend_file::FILE,
];

const LEN: u64 = 400 << 10;
const KINDS: &[&str] = &[
    "cluster_size=512",
    "cluster_size=4096,backing_file=base,backing_fmt=raw",
    "cluster_size=65536,backing_file=base,backing_fmt=raw",
    "cluster_size=4096,compat=0.10,backing_file=base,backing_fmt=raw",
    "cluster_size=16384,extended_l2=on,backing_file=base,backing_fmt=raw",
    "cluster_size=1024,refcount_bits=64",
    "cluster_size=4096,compression_type=zstd",
];

/// A folder that goes away with the test.
struct Folder(PathBuf);

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn opts(text: &str) -> Opts {
    Opts::parse("test", text, None).unwrap()
}

fn open(path: &Path, more: &str) -> Option<Arc<Node>> {
    let text = format!(
        "driver=qcow2,discard=unmap,file.driver=file,file.filename={}{more}",
        path.display()
    );
    Opener::new(DRIVERS).open("test", &opts(&text)).ok()
}

fn qcow2(node: &Node) -> &Qcow2 {
    node.driver().as_any().downcast_ref().unwrap()
}

/// An image with data, zeros, a snapshot and a compressed cluster.
fn make(path: &Path, options: &str) {
    backend_file::create(path).unwrap();
    let text = format!("driver=file,filename={}", path.display());
    let file = Opener::new(DRIVERS).open("test", &opts(&text)).unwrap();
    let child = Child::attach(file, "test", "file", perm::ALL, perm::ALL).unwrap();
    (backend_qcow2::CLASS.create.unwrap().create)(&child, LEN, &opts(options)).unwrap();
    drop(child);
    let node = open(path, "").unwrap();
    let write = |at: u64, len: usize, byte: u8| {
        let memory = IoVector::from(vec![byte; len].as_slice());
        node.write(at, &memory).unwrap();
    };
    write(0, 40_000, 1);
    write(100_000, 1000, 2);
    qcow2(&node).take_snapshot("s", 0, 0).unwrap();
    write(10_000, 20_000, 3);
    node.write_zeroes(200_000, 20_000, true).unwrap();
    let cluster = qcow2(&node).cluster_len();
    let memory = IoVector::from(vec![4; cluster as usize].as_slice());
    node.write_compressed(cluster * 2, &memory).unwrap();
    node.flush().unwrap();
}

/// All that is done with an image; returns the most memory that it took.
fn use_it(path: &Path) -> usize {
    MEMORY.reset_peak_usage();
    let before = MEMORY.current_usage();
    let read = |node: &Node, len: u64| {
        let memory = IoVector::zeroed(len as usize);
        let _ = node.read(0, &memory);
    };
    if let Some(node) = open(path, ",read-only=on") {
        let _ = qcow2(&node).check(Fix::None);
        read(&node, node.len().min(LEN));
    }
    if let Some(node) = open(path, "") {
        let _ = node.write(5000, &IoVector::from([5; 9000].as_slice()));
        let _ = node.discard(0, 1 << 16);
        let _ = node.write_zeroes(1 << 16, 1 << 14, true);
        let _ = node.flush();
        let _ = qcow2(&node).delete_snapshot("s");
        let _ = qcow2(&node).check(Fix::All);
    }
    MEMORY.peak_usage().saturating_sub(before)
}

/// What a change does most to: the header, and entries in tables.
fn target(rng: &mut TestRng, len: usize) -> usize {
    let at = rng.next_u32() as usize;
    match rng.next_u32() % 4 {
        0 => at % 112,
        1 => at % len.min(4096),
        _ => at % len,
    }
}

#[test]
fn a_mutated_image_takes_no_more_memory_than_four_whole_ones_and_touches_no_other_file() {
    let folder = std::env::temp_dir().join(format!("mimic-hostile-{}", std::process::id()));
    std::fs::create_dir(&folder).unwrap();
    let folder = Folder(folder);
    let (path, base) = (folder.0.join("image"), folder.0.join("base"));
    let below: Vec<u8> = (0..150_001u64).map(|i| (i / 512 % 255) as u8).collect();
    std::fs::write(&base, &below).unwrap();
    let whole: Vec<(Vec<u8>, usize)> = KINDS
        .iter()
        .map(|options| {
            make(&path, options);
            let bytes = std::fs::read(&path).unwrap();
            // What is made once for all is not the image's.
            use_it(&path);
            std::fs::write(&path, &bytes).unwrap();
            let normal = use_it(&path);
            (bytes, normal)
        })
        .collect();
    let seed = TestRng::from_seed(RngAlgorithm::ChaCha, &[17; 32]);
    let mut runner = TestRunner::new_with_rng(Config::default(), seed);
    let rng = runner.rng();
    let count = match std::env::var_os("MIMIC_TEST_ALL") {
        Some(_) => 10_000,
        None => 500,
    };
    for n in 0..count {
        let (bytes, normal) = &whole[n % whole.len()];
        let mut bytes = bytes.clone();
        for _ in 0..rng.next_u32() % 6 + 1 {
            let at = target(rng, bytes.len());
            bytes[at] = match rng.next_u32() % 3 {
                0 => 0xff,
                1 => bytes[at] ^ 1 << (rng.next_u32() % 8),
                _ => rng.next_u32() as u8,
            };
        }
        std::fs::write(&path, &bytes).unwrap();
        drop(bytes);
        let took = use_it(&path);
        assert!(
            took <= normal * 4,
            "image {n} ({}) took {took} bytes, a whole one {normal}",
            KINDS[n % KINDS.len()]
        );
        if n % 100 == 0 || n + 1 == count {
            let mut names: Vec<_> = std::fs::read_dir(&folder.0)
                .unwrap()
                .map(|entry| entry.unwrap().file_name())
                .collect();
            names.sort();
            assert_eq!(names, ["base", "image"]);
            assert!(std::fs::read(&base).unwrap() == below, "image {n}");
        }
    }
}
