//! Random operations on images of every kind, against a plain vector.

use backend_block::{IoVector, Preallocation};
use proptest::prelude::*;

use crate::disk::{Disk, Image, create};
use crate::interop;

pub(crate) const LEN: u64 = 200 << 10;

/// Kinds of images: options, and whether there is a backing disk.
pub(crate) const KINDS: &[(&str, bool)] = &[
    ("cluster_size=512", false),
    ("cluster_size=4096", true),
    ("cluster_size=65536", true),
    ("cluster_size=4096,compat=0.10", false),
    ("cluster_size=4096,compat=0.10", true),
    ("cluster_size=16384,extended_l2=on", true),
    ("cluster_size=16384,extended_l2=on", false),
    ("cluster_size=1024,refcount_bits=1", false),
    ("cluster_size=1024,refcount_bits=64", true),
    ("cluster_size=4096,lazy_refcounts=on", true),
    ("cluster_size=4096,compression_type=zstd", true),
    ("cluster_size=2M", false),
];

#[derive(Clone, Debug)]
pub(crate) enum Op {
    Write(u64, u64, u8),
    Zero(u64, u64, bool),
    Discard(u64, u64),
    Packed(u64, u8),
    Flush,
    Reopen,
    Snapshot,
    Apply(usize),
    Delete(usize),
    Resize(u64),
}

pub(crate) fn op() -> impl Strategy<Value = Op> {
    // Offsets and lengths of odd sizes, and of whole clusters.
    let range = || {
        prop_oneof![
            (0..LEN, 0u64..30_000),
            (0..LEN >> 12, 0u64..12).prop_map(|(at, len)| (at << 12, len << 12)),
            (0..LEN >> 9, 0u64..9).prop_map(|(at, len)| (at << 9, len << 9)),
        ]
    };
    prop_oneof![
        8 => (range(), 1u8..).prop_map(|((at, len), byte)| Op::Write(at, len, byte)),
        2 => (range(), any::<bool>()).prop_map(|((at, len), unmap)| Op::Zero(at, len, unmap)),
        2 => range().prop_map(|(at, len)| Op::Discard(at, len)),
        2 => (0..LEN, 1u8..).prop_map(|(at, byte)| Op::Packed(at, byte)),
        1 => Just(Op::Flush),
        1 => Just(Op::Reopen),
        1 => Just(Op::Snapshot),
        1 => any::<usize>().prop_map(Op::Apply),
        1 => any::<usize>().prop_map(Op::Delete),
        1 => (1..LEN >> 9).prop_map(|sectors| Op::Resize(sectors << 9)),
    ]
}

/// An image and what it should hold. Discarded bytes may be anything: `None`.
pub(crate) struct Pair {
    pub(crate) disk: Disk,
    base: Option<Disk>,
    pub(crate) image: Option<Image>,
    pub(crate) model: Vec<Option<u8>>,
    snapshots: Vec<(String, Vec<Option<u8>>)>,
    /// What it is opened with.
    opened_with: &'static str,
    number: u32,
    has_snapshots: bool,
}

pub(crate) fn base() -> Disk {
    // Shorter than the image, and of odd length.
    Disk::of((0..150_001u64).map(|i| (i / 512 % 255 + 1) as u8).collect())
}

impl Pair {
    pub(crate) fn new((options, has_base): (&str, bool)) -> Self {
        let disk = Disk::default();
        create(&disk, LEN, options);
        let base = has_base.then(base);
        let mut model = vec![Some(0); LEN as usize];
        if let Some(base) = &base {
            for (slot, byte) in model.iter_mut().zip(&base.state().bytes) {
                *slot = Some(*byte);
            }
        }
        let mut pair = Pair {
            disk,
            base,
            image: None,
            model,
            snapshots: Vec::new(),
            number: 0,
            opened_with: match options.contains("refcount_bits=64") {
                true => ",discard-no-unref=on",
                false => "",
            },
            // A count of one bit counts to one.
            has_snapshots: !options.contains("refcount_bits=1"),
        };
        pair.open();
        pair
    }

    pub(crate) fn open(&mut self) {
        self.image = None;
        let image = Image::open_over(&self.disk, self.base.as_ref(), self.opened_with);
        self.image = Some(image.unwrap());
    }

    pub(crate) fn image(&self) -> &Image {
        self.image.as_ref().unwrap()
    }

    fn clip(&self, at: u64, len: u64) -> (u64, u64) {
        let size = self.model.len() as u64;
        let at = at.min(size);
        (at, len.min(size - at))
    }

    fn set(&mut self, at: u64, len: u64, byte: Option<u8>) {
        self.model[at as usize..][..len as usize].fill(byte);
    }

    pub(crate) fn run(&mut self, op: &Op) {
        match *op {
            Op::Write(at, len, byte) => {
                let (at, len) = self.clip(at, len);
                self.image().write(at, &vec![byte; len as usize]).unwrap();
                self.set(at, len, Some(byte));
            }
            Op::Zero(at, len, unmap) => {
                let (at, len) = self.clip(at, len);
                self.image().node.write_zeroes(at, len, unmap).unwrap();
                self.set(at, len, Some(0));
            }
            Op::Discard(at, len) => {
                let (at, len) = self.clip(at, len);
                self.image().node.discard(at, len).unwrap();
                self.set(at, len, None);
            }
            Op::Packed(at, byte) => {
                let cluster = self.image().qcow2().cluster_len();
                let at = at / cluster * cluster;
                let (at, len) = self.clip(at, cluster);
                if len == 0 {
                    return;
                }
                let data = vec![byte; len as usize];
                let memory = IoVector::from(data.as_slice());
                self.image().node.write_compressed(at, &memory).unwrap();
                self.set(at, len, Some(byte));
            }
            Op::Flush => self.image().node.flush().unwrap(),
            Op::Reopen => self.open(),
            Op::Snapshot if self.has_snapshots && self.snapshots.len() < 3 => {
                self.number += 1;
                let name = format!("s{}", self.number);
                self.image().qcow2().take_snapshot(&name, 1, 2).unwrap();
                self.snapshots.push((name, self.model.clone()));
            }
            Op::Apply(which) if !self.snapshots.is_empty() => {
                let (name, model) = self.snapshots[which % self.snapshots.len()].clone();
                if model.len() == self.model.len() {
                    self.image().qcow2().apply_snapshot(&name).unwrap();
                    self.model = model;
                }
            }
            Op::Delete(which) if !self.snapshots.is_empty() => {
                let (name, _) = self.snapshots.remove(which % self.snapshots.len());
                self.image().qcow2().delete_snapshot(&name).unwrap();
            }
            Op::Resize(len) => {
                if len < self.model.len() as u64 && !self.snapshots.is_empty() {
                    return;
                }
                self.image().node.resize(len, Preallocation::Off).unwrap();
                self.model.resize(len as usize, Some(0));
            }
            _ => {}
        }
    }

    /// What the image holds is what it should.
    pub(crate) fn compare(&self) {
        let data = self.image().read(0, self.model.len() as u64).unwrap();
        let differs = data
            .iter()
            .zip(&self.model)
            .position(|(is, wanted)| wanted.is_some_and(|wanted| wanted != *is));
        if let Some(at) = differs {
            panic!("byte {at}: {} instead of {:?}", data[at], self.model[at]);
        }
        // What is read without waiting is the same.
        for (n, piece) in data.chunks(4096).enumerate() {
            let memory = backend_block::IoVector::zeroed(piece.len());
            if self.image().node.read_now(n as u64 * 4096, &memory) {
                assert!(memory.to_vec() == piece, "piece {n}");
            }
        }
    }
}

fn run_all(kind: (&str, bool), ops: &[Op]) {
    let mut pair = Pair::new(kind);
    for op in ops {
        pair.run(op);
        pair.compare();
    }
    pair.image().assert_whole(true);
    pair.open();
    pair.compare();
    pair.image().assert_whole(false);
    let contents = pair.image().read(0, pair.model.len() as u64).unwrap();
    pair.image = None;
    let bytes = pair.disk.state().bytes.clone();
    let base = pair.base.as_ref().map(|base| base.state().bytes.clone());
    interop::assert_same(&bytes, base.as_deref(), &contents);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(interop::cases(48)))]

    #[test]
    fn random_operations_leave_what_they_should(
        kind in 0..KINDS.len(),
        ops in proptest::collection::vec(op(), 1..40),
    ) {
        run_all(KINDS[kind], &ops);
    }
}

#[test]
fn what_a_snapshot_holds_stays_when_a_part_of_its_cluster_becomes_zeros() {
    for kind in KINDS.iter() {
        let ops = [
            Op::Write(94_208, 4096, 1),
            Op::Snapshot,
            Op::Zero(86_016, 12_288, true),
            Op::Apply(0),
        ];
        run_all(*kind, &ops);
    }
}

#[test]
fn data_zeros_and_the_backing_file_are_read_at_once_when_their_table_is_in_the_cache() {
    let mut pair = Pair::new(("cluster_size=4096", true));
    pair.run(&Op::Write(8192, 4096, 7));
    pair.run(&Op::Zero(16384, 4096, true));
    pair.run(&Op::Packed(6 * 4096, 9));
    pair.run(&Op::Reopen);
    let memory = backend_block::IoVector::zeroed(512);
    let at_once = |at: u64| {
        let done = pair.image().node.read_now(at, &memory);
        done.then(|| memory.to_vec()[0])
    };
    assert_eq!(at_once(8192), None);
    pair.image().read(0, 512).unwrap();
    assert_eq!(at_once(8192), Some(7));
    assert_eq!(at_once(16384), Some(0));
    // What `base` has there.
    assert_eq!(at_once(4096), Some(9));
    // Bytes of two kinds, and compressed ones, take work.
    assert_eq!(at_once(8192 - 256), None);
    assert_eq!(at_once(6 * 4096), None);
}

#[test]
fn an_image_is_whole_while_two_new_tables_are_not_in_its_file_yet() {
    let ops = [
        Op::Write(168_411, 28_198, 1),
        Op::Snapshot,
        Op::Discard(171_811, 25_309),
    ];
    run_all(KINDS[0], &ops);
}

#[test]
fn a_refcount_table_grows_as_often_as_it_must() {
    // 512-byte clusters: a block of refcounts covers 128 KiB, a table of one cluster 8 MiB.
    let disk = Disk::default();
    create(&disk, 64 << 20, "cluster_size=512,refcount_bits=16");
    let image = Image::open(&disk, "").unwrap();
    let data: Vec<u8> = (0..1 << 20).map(|i| (i / 512 % 251) as u8).collect();
    for at in 0..40 {
        image.write(at << 20, &data).unwrap();
    }
    image.assert_whole(true);
    assert_eq!(image.read(39 << 20, 1 << 20).unwrap(), data);
    image.node.discard(0, 64 << 20).unwrap();
    image.node.flush().unwrap();
    image.assert_whole(true);
    assert_eq!(image.read(0, 1 << 20).unwrap(), vec![0; 1 << 20]);
    drop(image);
    let image = Image::open(&disk, "").unwrap();
    image.assert_whole(false);
    // What was given back is used again.
    let before = disk.state().bytes.len();
    image.write(0, &data).unwrap();
    assert_eq!(disk.state().bytes.len(), before);
}

#[test]
fn clusters_keep_their_place_when_they_are_discarded_if_told_to() {
    let (disk, base) = (Disk::default(), base());
    create(&disk, LEN, "cluster_size=4096");
    let image = Image::open_over(&disk, Some(&base), ",discard-no-unref=on").unwrap();
    let place = |at: u64| image.node.extent(at, 1).unwrap();
    image.write(0, &[7; 3 * 4096]).unwrap();
    image.node.flush().unwrap();
    let (before, len) = (place(4096), disk.state().bytes.len());
    image.node.discard(4096, 4096).unwrap();
    image.node.write_zeroes(8192, 4096, true).unwrap();
    image.node.flush().unwrap();
    assert_eq!(image.read(4095, 8194).unwrap()[..2], [7, 0]);
    assert!(place(4096).is_zero && place(8192).is_zero);
    let at = before.stored_at.unwrap() as usize;
    assert_eq!(
        disk.state().bytes[at..][..8192],
        [0; 8192],
        "the host has its blocks back"
    );
    image.write(4096, &[8; 100]).unwrap();
    assert_eq!(place(4096).stored_at, before.stored_at);
    assert_eq!(disk.state().bytes.len(), len);
    image.assert_whole(true);
    drop(image);
    create(&disk, LEN, "cluster_size=4096,compat=0.10");
    let refused = Image::open_over(&disk, None, ",discard-no-unref=on")
        .err()
        .unwrap();
    assert!(
        refused.to_string().contains("needs qcow2 version 3"),
        "{refused}"
    );
}

#[test]
fn space_that_is_set_aside_reads_as_zeros_and_is_written_in_place() {
    for options in ["cluster_size=4096", "cluster_size=16384,extended_l2=on"] {
        let disk = Disk::default();
        create(&disk, 0, options);
        let base = base();
        let image = Image::open_over(&disk, Some(&base), "").unwrap();
        image.node.resize(1 << 20, Preallocation::Metadata).unwrap();
        let len = (disk.state().bytes.len() as u64).next_multiple_of(image.qcow2().cluster_len());
        assert_eq!(image.read(0, 1 << 20).unwrap(), vec![0; 1 << 20]);
        image.write(100, &[7; 300_000]).unwrap();
        assert_eq!(image.read(50, 100).unwrap()[49..52], [0, 7, 7]);
        assert_eq!(disk.state().bytes.len() as u64, len);
        image.assert_whole(false);
    }
}
