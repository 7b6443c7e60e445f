//! A power cut at points of a recorded history: what was not flushed is lost in part, torn at sectors.
//! The image must be whole, and what the guest had flushed must be there.

use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};

use crate::disk::{Disk, Done, Image, apply, create};
use crate::interop;
use crate::model::base;

const SECTOR: usize = 512;
const SECTORS: u64 = 400;
const KINDS: &[(&str, bool)] = &[
    ("cluster_size=512", false),
    ("cluster_size=4096", true),
    ("cluster_size=4096,compat=0.10", true),
    ("cluster_size=16384,extended_l2=on", true),
    ("cluster_size=4096,lazy_refcounts=on", true),
];

/// What a sector of the guest may hold after a cut.
type Allowed = Vec<Vec<u64>>;

struct Guest {
    image: Image,
    disk: Disk,
    allowed: Allowed,
    stamp: u64,
    is_version_2: bool,
    /// At these lengths of the history, this is what the guest may find.
    history: Vec<(usize, Allowed)>,
}

fn sector(stamp: u64) -> Vec<u8> {
    stamp.to_le_bytes().repeat(SECTOR / 8)
}

impl Guest {
    fn note(&mut self) {
        let at = self.disk.state().log.as_ref().unwrap().len();
        self.history.push((at, self.allowed.clone()));
    }

    /// Before a request: from now on the new value may be found.
    fn may(&mut self, first: u64, count: u64, value: impl Fn(u64) -> u64) {
        for n in first..first + count {
            let value = value(n);
            self.allowed[n as usize].push(value);
        }
        self.note();
    }

    fn step(&mut self, rng: &mut TestRng) {
        let mut below = |n: u32| u64::from(rng.next_u32() % n);
        let first = below(SECTORS as u32);
        let count = (below(24) + 1).min(SECTORS - first);
        let (at, len) = (first * SECTOR as u64, count * SECTOR as u64);
        match below(16) {
            0..=8 => {
                self.stamp += 1;
                let stamp = self.stamp << 16;
                self.may(first, count, |n| stamp | n);
                let data: Vec<u8> = (first..first + count)
                    .flat_map(|n| sector(stamp | n))
                    .collect();
                self.image.write(at, &data).unwrap();
            }
            9 => {
                self.may(first, count, |_| 0);
                self.image
                    .node
                    .write_zeroes(at, len, below(2) == 0)
                    .unwrap();
            }
            10 => {
                self.may(first, count, |_| 0);
                // What a discarded sector holds may also be what was there at any time before.
                self.image.node.discard(at, len).unwrap();
            }
            // Version 2 has no mark for refcounts that are being changed: a cut may leave clusters
            // used once that are not marked so, which harms nothing but is reported.
            11 | 12 if self.is_version_2 => {}
            11 => {
                let name = format!("s{}", self.stamp);
                if self.image.qcow2().snapshots().len() < 2 {
                    self.image.qcow2().take_snapshot(&name, 0, 0).unwrap();
                }
            }
            12 => {
                if let Some(snapshot) = self.image.qcow2().snapshots().first() {
                    self.image.qcow2().delete_snapshot(&snapshot.id).unwrap();
                }
            }
            _ => {
                self.image.node.flush().unwrap();
                let now = self.image.read(0, SECTORS * SECTOR as u64).unwrap();
                for (slot, data) in self.allowed.iter_mut().zip(now.chunks(SECTOR)) {
                    *slot = vec![stamp_of(data).unwrap()];
                }
                self.note();
            }
        }
    }
}

/// The stamp of a sector that is not torn.
fn stamp_of(data: &[u8]) -> Option<u64> {
    let stamp = u64::from_le_bytes(data[..8].try_into().unwrap());
    (data == sector(stamp)).then_some(stamp)
}

fn record(kind: (&str, bool), rng: &mut TestRng, steps: u32) -> (Vec<u8>, Guest) {
    let disk = Disk::default();
    create(&disk, SECTORS * SECTOR as u64, kind.0);
    let base = kind.1.then(base_of_stamps);
    let start = disk.state().bytes.clone();
    disk.state().log = Some(Vec::new());
    let image = Image::open_over(&disk, base.as_ref(), "").unwrap();
    let now = image.read(0, SECTORS * SECTOR as u64).unwrap();
    let allowed = now
        .chunks(SECTOR)
        .map(|data| vec![stamp_of(data).unwrap()])
        .collect();
    let mut guest = Guest {
        image,
        disk,
        allowed,
        stamp: 0,
        is_version_2: kind.0.contains("0.10"),
        history: Vec::new(),
    };
    guest.note();
    for _ in 0..steps {
        guest.step(rng);
    }
    (start, guest)
}

fn base_of_stamps() -> Disk {
    // As long as the other tests' one, in whole sectors.
    let sectors = base().state().bytes.len() / SECTOR;
    Disk::of((0..sectors as u64).flat_map(|n| sector(n + 7)).collect())
}

/// The disk after a cut behind `at` operations: those before the last flush are there, of the others
/// some, some in part.
fn cut(start: &[u8], log: &[Done], at: usize, rng: &mut TestRng) -> Vec<u8> {
    let log = &log[..at];
    let flushed = log
        .iter()
        .rposition(|done| matches!(done, Done::Flush))
        .map_or(0, |n| n + 1);
    let mut bytes = start.to_vec();
    log[..flushed]
        .iter()
        .for_each(|done| apply(&mut bytes, done));
    // How much is lost differs from cut to cut.
    let keep = rng.next_u32() % 5;
    for done in &log[flushed..] {
        let luck = rng.next_u32() % 4;
        match done {
            _ if luck < keep => apply(&mut bytes, done),
            Done::Write(offset, data) if luck == 3 => {
                let mut at = *offset;
                for part in pieces(*offset, data) {
                    if rng.next_u32().is_multiple_of(2) {
                        apply(&mut bytes, &Done::Write(at, part.to_vec()));
                    }
                    at += part.len() as u64;
                }
            }
            _ => {}
        }
    }
    bytes
}

/// The parts of a write that lie in one sector each.
fn pieces(offset: u64, data: &[u8]) -> Vec<&[u8]> {
    let head = (SECTOR as u64 - offset % SECTOR as u64) as usize;
    let (head, rest) = data.split_at(head.min(data.len()));
    std::iter::once(head)
        .chain(rest.chunks(SECTOR))
        .filter(|part| !part.is_empty())
        .collect()
}

#[test]
fn a_power_cut_leaves_an_image_whole_and_what_was_flushed_in_it() {
    let cuts_per_kind = interop::cases(120);
    for (number, kind) in KINDS.iter().enumerate() {
        let seed = [number as u8 + 1; 32];
        let mut runner = TestRunner::new_with_rng(
            Config::default(),
            TestRng::from_seed(RngAlgorithm::ChaCha, &seed),
        );
        let rng = runner.rng();
        let (start, guest) = record(*kind, rng, 120);
        let base = kind.1.then(base_of_stamps);
        let log = guest.disk.state().log.take().unwrap();
        let mut judged = 0;
        for n in 0..cuts_per_kind {
            let at = rng.next_u32() as usize % (log.len() + 1);
            let bytes = cut(&start, &log, at, rng);
            // What was allowed at the last note before the cut, and anything begun up to the next.
            let place = guest.history.partition_point(|(noted, _)| *noted <= at);
            let before = &guest.history[place.saturating_sub(1)].1;
            let disk = Disk::of(bytes.clone());
            let image = match Image::open_over(&disk, base.as_ref(), "") {
                Ok(image) => image,
                Err(error) => panic!("{kind:?}, cut {n} at {at}: {error}"),
            };
            let findings = image.qcow2().check(backend_qcow2::Fix::None).unwrap();
            assert_eq!(
                findings.corruptions, 0,
                "{kind:?}, cut {n} at {at}: {findings:?}"
            );
            let now = image.read(0, SECTORS * SECTOR as u64).unwrap();
            for (sector, data) in now.chunks(SECTOR).enumerate() {
                let stamp = stamp_of(data).unwrap_or_else(|| panic!("{kind:?}: torn sector"));
                assert!(
                    before[sector].contains(&stamp),
                    "{kind:?}, cut {n} at {at}: sector {sector} has {stamp:#x}, not one of {:x?}",
                    before[sector]
                );
            }
            image.write(0, &sector(1)).unwrap();
            drop(image);
            if judged < 4 {
                judged += 1;
                let image = Image::open_over(&disk, base.as_ref(), "").unwrap();
                image.qcow2().check(backend_qcow2::Fix::Leaks).unwrap();
                let contents = image.read(0, SECTORS * SECTOR as u64).unwrap();
                drop(image);
                let base = base.as_ref().map(|base| base.state().bytes.clone());
                interop::assert_same(&disk.state().bytes, base.as_deref(), &contents);
            }
        }
        drop(guest);
    }
}
