//! A power cut at each of 2,000 points of a recorded history: what was not flushed is lost in part, arrives
//! in another order, and is torn at sectors. The image must be whole, and what the guest had flushed must
//! be there.

use backend_block::{IoVector, Preallocation};
use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};

use crate::disk::{Disk, Done, History, Image, apply, create};
use crate::interop;
use crate::model::base;

const SECTOR: usize = 512;
const SECTORS: u64 = 400;
/// Points of a history at which the power is cut.
const POINTS: usize = 2000;

/// A kind of image.
#[derive(Debug)]
struct Kind {
    /// Options it is made with; `None`: raw.
    options: Option<&'static str>,
    has_base: bool,
}

const fn qcow2(options: &'static str, has_base: bool) -> Kind {
    Kind {
        options: Some(options),
        has_base,
    }
}

const KINDS: &[Kind] = &[
    Kind {
        options: None,
        has_base: false,
    },
    qcow2("cluster_size=512", false),
    qcow2("cluster_size=4096", true),
    qcow2("cluster_size=4096,compat=0.10", true),
    qcow2("cluster_size=16384,extended_l2=on", true),
    qcow2("cluster_size=4096,lazy_refcounts=on", true),
    qcow2("cluster_size=1024,refcount_bits=64", false),
    qcow2("cluster_size=4096,data_file=data", true),
    qcow2("cluster_size=4096,data_file=data,data_file_raw=on", false),
];

impl Kind {
    fn says(&self, what: &str) -> bool {
        self.options.is_some_and(|options| options.contains(what))
    }

    fn base(&self) -> Option<Disk> {
        // As long as the other tests' one, in whole sectors.
        let sectors = base().state().bytes.len() / SECTOR;
        let base = || Disk::of((0..sectors as u64).flat_map(|n| sector(n + 7)).collect());
        self.has_base.then(base)
    }

    fn has_snapshots(&self) -> bool {
        self.options.is_some() && !self.says("data_file")
    }

    /// Version 2 has no mark for refcounts that are being changed: a cut in a snapshot may leave clusters
    /// whose mark and count differ, which is reported as an error and must harm nothing.
    fn has_odd_marks(&self) -> bool {
        self.says("compat=0.10")
    }

    fn open(&self, disks: &[Disk; 2], base: Option<&Disk>) -> Image {
        let driver = match self.options {
            None => "driver=raw",
            Some(_) if self.says("refcount_bits=64") => "driver=qcow2,discard-no-unref=on",
            Some(_) => "driver=qcow2",
        };
        let data = self.says("data_file").then_some(&disks[1]);
        Image::open_with(&disks[0], base, data, driver).unwrap()
    }
}

/// What became of a sector's contents, at a point of the history.
enum Event {
    /// From now on these values may be found from that sector on, beside those before.
    May(u64, Vec<u64>),
    /// These are there, and no others.
    Flushed(Vec<u64>),
}

struct Guest<'a> {
    kind: &'a Kind,
    image: Image,
    history: History,
    stamp: u64,
    /// With the lengths of the history at which they came.
    events: Vec<(usize, Event)>,
    snapshot: Option<Vec<u64>>,
}

fn sector(stamp: u64) -> Vec<u8> {
    stamp.to_le_bytes().repeat(SECTOR / 8)
}

/// The stamp of a sector that is not torn.
fn stamp_of(data: &[u8]) -> u64 {
    let stamp = u64::from_le_bytes(data[..8].try_into().unwrap());
    assert!(data == sector(stamp), "a sector is torn");
    stamp
}

fn stamps(image: &Image) -> Vec<u64> {
    let now = image.read(0, SECTORS * SECTOR as u64).unwrap();
    now.chunks(SECTOR).map(stamp_of).collect()
}

impl Guest<'_> {
    fn len(&self) -> usize {
        self.history.lock().unwrap().len()
    }

    fn note(&mut self, event: Event) {
        self.events.push((self.len(), event));
    }

    /// New stamps for sectors, and their bytes.
    fn fresh(&mut self, first: u64, count: u64) -> Vec<u8> {
        self.stamp += 1;
        let stamps: Vec<u64> = (first..first + count)
            .map(|n| self.stamp << 16 | n)
            .collect();
        let data = stamps.iter().flat_map(|stamp| sector(*stamp)).collect();
        self.note(Event::May(first, stamps));
        data
    }

    fn flush(&mut self) {
        self.image.node.flush().unwrap();
        let now = stamps(&self.image);
        self.note(Event::Flushed(now));
    }

    fn step(&mut self, rng: &mut TestRng) {
        let mut below = |n: u64| u64::from(rng.next_u32()) % n;
        let first = below(SECTORS);
        let count = (below(24) + 1).min(SECTORS - first);
        let (at, len) = (first * SECTOR as u64, count * SECTOR as u64);
        match below(20) {
            0..=9 => {
                let data = self.fresh(first, count);
                self.image.write(at, &data).unwrap();
            }
            10 => {
                self.note(Event::May(first, vec![0; count as usize]));
                let unmap = below(2) == 0;
                self.image.node.write_zeroes(at, len, unmap).unwrap();
            }
            11 => {
                // What a discarded sector holds may also be what was there at any time before.
                self.note(Event::May(first, vec![0; count as usize]));
                self.image.node.discard(at, len).unwrap();
            }
            12 if self.kind.options.is_some() && !self.kind.says("data_file") => {
                let cluster = self.image.qcow2().cluster_len();
                let at = at / cluster * cluster;
                let count = (cluster / SECTOR as u64).min(SECTORS - at / SECTOR as u64);
                // The rest of a cluster that the guest's sectors end in stays what it was.
                if count * SECTOR as u64 == cluster {
                    let data = self.fresh(at / SECTOR as u64, count);
                    let memory = IoVector::from(data.as_slice());
                    self.image.node.write_compressed(at, &memory).unwrap();
                }
            }
            13 if self.kind.has_snapshots() => match self.image.qcow2().snapshots().first() {
                Some(snapshot) if below(2) == 0 => {
                    self.image.qcow2().delete_snapshot(&snapshot.id).unwrap();
                    self.snapshot = None;
                }
                Some(snapshot) => {
                    let then = self.snapshot.clone().unwrap();
                    self.note(Event::May(0, then));
                    self.image.qcow2().apply_snapshot(&snapshot.id).unwrap();
                }
                None => {
                    self.snapshot = Some(stamps(&self.image));
                    self.image.qcow2().take_snapshot("s", 0, 0).unwrap();
                }
            },
            // The way back to a snapshot of another size is refused.
            14 if self.kind.options.is_some()
                && self.snapshot.is_none()
                && self.image.node.len() < 1 << 20 =>
            {
                let len = self.image.node.len() + 64 * SECTOR as u64;
                self.image.node.resize(len, Preallocation::Off).unwrap();
            }
            15.. => self.flush(),
            _ => {}
        }
    }
}

/// What the disks hold for sure, and what they were told since they were flushed.
struct Cuts {
    disks: [Vec<u8>; 2],
    pending: [Vec<Done>; 2],
}

impl Cuts {
    fn go_on(&mut self, (which, done): &(usize, Done)) {
        let pending = &mut self.pending[*which];
        match done {
            Done::Flush => pending
                .drain(..)
                .for_each(|done| apply(&mut self.disks[*which], &done)),
            done => pending.push(done.clone()),
        }
    }

    /// The disks after a cut now.
    fn cut(&self, rng: &mut TestRng) -> [Disk; 2] {
        // How much is lost differs from cut to cut, and whether what is left came in its order.
        let keep = rng.next_u32() % 5;
        let shuffles = rng.next_u32().is_multiple_of(2);
        [0, 1].map(|which| {
            let mut bytes = self.disks[which].clone();
            let mut done = self.pending[which].clone();
            if shuffles {
                // Not past a change of the file's size, which the host's file system orders.
                let is_resize = |done: &Done| matches!(done, Done::Resize(_));
                done.split_mut(is_resize)
                    .for_each(|some| shuffle(some, rng));
            }
            done.iter()
                .for_each(|done| lose(&mut bytes, done, keep, rng));
            Disk::of(bytes)
        })
    }
}

fn shuffle(done: &mut [Done], rng: &mut TestRng) {
    for n in (1..done.len()).rev() {
        done.swap(n, rng.next_u32() as usize % (n + 1));
    }
}

/// Carries out an operation, a part of it, or nothing.
fn lose(bytes: &mut Vec<u8>, done: &Done, keep: u32, rng: &mut TestRng) {
    let luck = rng.next_u32() % 4;
    match done {
        _ if luck < keep => apply(bytes, done),
        Done::Write(offset, data) if luck == 3 => {
            let mut at = *offset;
            for part in pieces(*offset, data) {
                if rng.next_u32().is_multiple_of(2) {
                    apply(bytes, &Done::Write(at, part.to_vec()));
                }
                at += part.len() as u64;
            }
        }
        _ => {}
    }
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

/// A guest works until the history has 2,000 operations; then the power is cut after each of them.
fn cut_everywhere(kind: &Kind, seed: u8) {
    let seed = TestRng::from_seed(RngAlgorithm::ChaCha, &[seed; 32]);
    let mut runner = TestRunner::new_with_rng(Config::default(), seed);
    let rng = runner.rng();
    let disks = [Disk::default(), Disk::default()];
    match kind.options {
        Some(options) => create(&disks[0], SECTORS * SECTOR as u64, options),
        None => disks[0].state().bytes = vec![0; SECTORS as usize * SECTOR],
    }
    let base = kind.base();
    let mut cuts = Cuts {
        disks: [0, 1].map(|which| disks[which].state().bytes.clone()),
        pending: Default::default(),
    };
    let history = History::default();
    for (number, disk) in disks.iter().enumerate() {
        disk.state().log = Some((history.clone(), number));
    }
    let image = kind.open(&disks, base.as_ref());
    let mut allowed: Vec<Vec<u64>> = stamps(&image)
        .into_iter()
        .map(|stamp| vec![stamp])
        .collect();
    let mut guest = Guest {
        kind,
        image,
        history: history.clone(),
        stamp: 0,
        events: Vec::new(),
        snapshot: None,
    };
    while guest.len() < POINTS {
        guest.step(rng);
    }
    let step = if std::env::var_os("MIMIC_TEST_ALL").is_some() {
        1
    } else {
        4
    };
    let mut events = guest.events.drain(..).peekable();
    let log = history.lock().unwrap().clone();
    for (at, done) in log[..POINTS].iter().enumerate() {
        cuts.go_on(done);
        while let Some((_, event)) = events.next_if(|(length, _)| *length <= at + 1) {
            match event {
                Event::May(first, stamps) => allowed[first as usize..]
                    .iter_mut()
                    .zip(stamps)
                    .for_each(|(slot, stamp)| slot.push(stamp)),
                Event::Flushed(stamps) => {
                    allowed = stamps.into_iter().map(|stamp| vec![stamp]).collect();
                }
            }
        }
        let what = format!("{kind:?}, cut behind operation {at}");
        let disks = cuts.cut(rng);
        let image = kind.open(&disks, base.as_ref());
        if kind.options.is_some() {
            let findings = image.qcow2().check(backend_qcow2::Fix::None).unwrap();
            let is_whole = findings.corruptions == 0 || kind.has_odd_marks();
            assert!(is_whole, "{what}: {findings:?}");
        }
        for (sector, (stamp, allowed)) in stamps(&image).iter().zip(&allowed).enumerate() {
            assert!(
                allowed.contains(stamp),
                "{what}: sector {sector} has {stamp:#x}, not one of {allowed:x?}"
            );
        }
        image.write(0, &sector(1)).unwrap();
        if kind.has_odd_marks() && at.is_multiple_of(step) {
            go_on(&image, rng, &what);
        }
        drop(image);
        // QEMU takes its time.
        if at.is_multiple_of(500) && kind.options.is_some() {
            judge(kind, &disks, base.as_ref());
        }
    }
}

/// A guest works on, with snapshots, in an image whose marks may be odd: no write reaches anything but what it
/// was meant for, and repair loses nothing.
fn go_on(image: &Image, rng: &mut TestRng, what: &str) {
    let mut below = |n: u64| u64::from(rng.next_u32()) % n;
    let mut now = stamps(image);
    let mut then: Vec<(String, Vec<u64>)> = Vec::new();
    let qcow2 = image.qcow2();
    for snapshot in qcow2.snapshots() {
        if below(2) == 0 {
            qcow2.delete_snapshot(&snapshot.id).unwrap();
        }
    }
    for step in 0..24u64 {
        let first = below(SECTORS);
        let count = (below(24) + 1).min(SECTORS - first);
        let fresh: Vec<u64> = (first..first + count)
            .map(|n| (step + 1) << 48 | n)
            .collect();
        match (below(8), then.pop()) {
            (0, None) => {
                let name = format!("g{step}");
                qcow2.take_snapshot(&name, 0, 0).unwrap();
                then.push((name, now.clone()));
            }
            (0, Some((name, _))) => qcow2.delete_snapshot(&name).unwrap(),
            (1, Some((name, before))) => {
                qcow2.apply_snapshot(&name).unwrap();
                now.clone_from(&before);
                then.push((name, before));
            }
            (_, kept) => {
                then.extend(kept);
                let data: Vec<u8> = fresh.iter().flat_map(|stamp| sector(*stamp)).collect();
                image.write(first * SECTOR as u64, &data).unwrap();
                now[first as usize..][..count as usize].copy_from_slice(&fresh);
            }
        }
        assert!(stamps(image) == now, "{what}, going on at step {step}");
    }
    qcow2.check(backend_qcow2::Fix::All).unwrap();
    image.assert_whole(false);
    assert!(stamps(image) == now, "{what}, repaired");
    for (name, before) in then {
        qcow2.apply_snapshot(&name).unwrap();
        assert!(stamps(image) == before, "{what}, back to {name}");
    }
}

/// QEMU finds the image whole and the same contents in it, once the leaks are mended.
fn judge(kind: &Kind, disks: &[Disk; 2], base: Option<&Disk>) {
    let image = kind.open(disks, base);
    image.qcow2().check(backend_qcow2::Fix::All).unwrap();
    let contents = image.read(0, image.node.len()).unwrap();
    drop(image);
    let bytes = |disk: &Disk| disk.state().bytes.clone();
    let data = kind.says("data_file").then(|| bytes(&disks[1]));
    let base = base.map(bytes);
    interop::assert_same_with(
        &bytes(&disks[0]),
        base.as_deref(),
        data.as_deref(),
        &contents,
    );
}

#[test]
fn a_power_cut_leaves_an_image_whole_and_what_was_flushed_in_it() {
    for (number, kind) in KINDS.iter().enumerate() {
        cut_everywhere(kind, number as u8 + 1);
    }
}
