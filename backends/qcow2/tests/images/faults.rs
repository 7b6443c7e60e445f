//! A host disk that fails or fills up: once, at each operation in turn, and at every k-th one.

use backend_block::{BlockError, IoVector, Preallocation};
use proptest::strategy::{Strategy, ValueTree};
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};

use crate::disk::{Disk, Fault, Image, create};
use crate::interop;
use crate::model::{KINDS, LEN, Op, base, op};

/// Which values a byte may have: a bit each.
type Allowed = Vec<[u64; 4]>;

fn bit(byte: u8) -> (usize, u64) {
    (usize::from(byte >> 6), 1 << (byte & 63))
}

fn only(byte: u8) -> [u64; 4] {
    let mut set = [0; 4];
    set[bit(byte).0] = bit(byte).1;
    set
}

fn compare(image: &Image, allowed: &Allowed, what: &str) {
    let now = image.read(0, LEN).unwrap();
    let differs = now
        .iter()
        .zip(allowed)
        .position(|(byte, allowed)| allowed[bit(*byte).0] & bit(*byte).1 == 0);
    assert_eq!(differs, None, "{what}: a byte is none of those written");
}

/// What the guest asks for, and whether it was told that it was done. `frozen` is what the snapshot may
/// hold, if there is one.
fn carry_out(
    image: &Image,
    op: &Op,
    allowed: &mut Allowed,
    frozen: &mut Allowed,
) -> Result<(), BlockError> {
    let clip = |at: u64, len: u64| len.min(LEN - at);
    let cluster = image.qcow2().cluster_len();
    let (at, len, byte, done) = match *op {
        Op::Write(at, len, byte) => {
            let len = clip(at, len);
            let done = image.write(at, &vec![byte; len as usize]);
            (at, len, byte, done)
        }
        Op::Packed(at, byte) => {
            let at = at / cluster * cluster;
            let len = clip(at, cluster);
            let memory = IoVector::from(vec![byte; len as usize].as_slice());
            (at, len, byte, image.node.write_compressed(at, &memory))
        }
        Op::Zero(at, len, unmap) => {
            let len = clip(at, len);
            (at, len, 0, image.node.write_zeroes(at, len, unmap))
        }
        Op::Discard(at, len) => {
            let len = clip(at, len);
            let done = image.node.discard(at, len);
            // What it held before it may hold still.
            for set in &mut allowed[at as usize..][..len as usize] {
                set[0] |= 1;
            }
            return done;
        }
        Op::Flush => return image.node.flush(),
        // That counts of one bit do not reach 2 is no fault of the disk.
        Op::Snapshot if image.qcow2().snapshots().is_empty() => {
            frozen.clone_from(allowed);
            return image
                .qcow2()
                .take_snapshot("s", 1, 2)
                .map_err(|_| BlockError::Io);
        }
        Op::Delete(_) if !image.qcow2().snapshots().is_empty() => {
            return image
                .qcow2()
                .delete_snapshot("s")
                .map_err(|_| BlockError::Io);
        }
        Op::Apply(_) if !image.qcow2().snapshots().is_empty() => {
            let done = image
                .qcow2()
                .apply_snapshot("s")
                .map_err(|_| BlockError::Io);
            match done {
                Ok(()) => allowed.clone_from(frozen),
                Err(_) => (allowed.iter_mut().zip(frozen))
                    .for_each(|(now, then)| (0..4).for_each(|n| now[n] |= then[n])),
            }
            return done;
        }
        Op::Resize(more) if image.qcow2().snapshots().is_empty() => {
            let len = image.node.len() + more / 4;
            return image
                .node
                .resize(len.next_multiple_of(512), Preallocation::Off);
        }
        _ => return Ok(()),
    };
    for set in &mut allowed[at as usize..][..len as usize] {
        match done {
            Ok(()) => *set = only(byte),
            Err(_) => set[bit(byte).0] |= bit(byte).1,
        }
    }
    done
}

/// Runs operations on an image whose disk fails now and then. Returns how often it did.
fn run(kind: (&str, bool), ops: &[Op], fault: Fault) -> u64 {
    let what = format!("{kind:?}, {fault:?}");
    let disk = Disk::default();
    create(&disk, LEN, kind.0);
    let base = kind.1.then(base);
    let image = Image::open_over(&disk, base.as_ref(), "").unwrap();
    let start = image.read(0, LEN).unwrap();
    let mut allowed: Allowed = start.into_iter().map(only).collect();
    {
        let mut state = disk.state();
        let first = state.count + fault.first;
        state.fail = Some(Fault { first, ..fault });
    }
    let mut frozen = Allowed::new();
    for op in ops {
        // Whether it was done says `allowed`.
        let _ = carry_out(&image, op, &mut allowed, &mut frozen);
    }
    // Space returns.
    disk.state().fail = None;
    let failed = disk.state().failed;
    compare(&image, &allowed, &format!("{what}, before it was closed"));
    // When a flush has failed nobody knows what is on the disk; a full disk is none of that.
    let flushed = image.node.flush();
    let went_on = image.write(0, &[1]);
    drop(image);
    let image = Image::open_over(&disk, base.as_ref(), "");
    let image = image.unwrap_or_else(|error| panic!("{what}: {error}"));
    let findings = image.qcow2().check(backend_qcow2::Fix::None).unwrap();
    assert_eq!(findings.corruptions, 0, "{what}: {findings:?}");
    if flushed.is_ok() {
        assert_eq!(went_on, Ok(()), "{what}");
        allowed[0] = only(1);
        compare(&image, &allowed, &format!("{what}, opened again"));
    }
    image.qcow2().check(backend_qcow2::Fix::Leaks).unwrap();
    image.assert_whole(false);
    failed
}

#[test]
fn an_error_at_any_operation_reaches_the_guest_and_spares_the_image() {
    let seed = TestRng::from_seed(RngAlgorithm::ChaCha, &[3; 32]);
    let mut runner = TestRunner::new_with_rng(Config::default(), seed);
    let ops = proptest::collection::vec(op(), 30);
    for kind in KINDS.iter().take(11) {
        let mut ops = ops.new_tree(&mut runner).unwrap().current();
        if kind.0.contains("compat=0.10") {
            // Version 2 has no mark for refcounts that are being changed; see `power.rs`.
            ops.retain(|op| !matches!(op, Op::Snapshot));
        }
        for (error, many, lands) in [
            (BlockError::Io, 1, false),
            (BlockError::Io, 1, true),
            (BlockError::NoSpace, 10, false),
        ] {
            let fault = Fault {
                error,
                first: 0,
                every: 0,
                many,
                lands,
            };
            // Until there are no more operations.
            let each = (0..).step_by(interop::share(4));
            let count = each
                .take_while(|first| {
                    run(
                        *kind,
                        &ops,
                        Fault {
                            first: *first,
                            ..fault
                        },
                    ) != 0
                })
                .count();
            assert!(count > 10, "{kind:?}: {count} operations");
            for every in (1..=count as u64).step_by(interop::share(4)) {
                run(
                    *kind,
                    &ops,
                    Fault {
                        every,
                        many: 1,
                        ..fault
                    },
                );
            }
        }
    }
}
