//! A host disk that fails or fills up at every k-th operation.

use backend_block::BlockError;
use proptest::strategy::{Strategy, ValueTree};
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};

use crate::disk::{Disk, Image, create};
use crate::interop;
use crate::model::{KINDS, LEN, Op, base, op};

/// Runs operations on an image whose disk fails now and then; `model` holds what each byte may be.
fn run(kind: (&str, bool), ops: &[Op], error: BlockError, k: u64, many: u64) {
    let disk = Disk::default();
    create(&disk, LEN, kind.0);
    let base = kind.1.then(base);
    let image = Image::open_over(&disk, base.as_ref(), "").unwrap();
    let mut allowed: Vec<Vec<u8>> = image
        .read(0, LEN)
        .unwrap()
        .iter()
        .map(|b| vec![*b])
        .collect();
    let start = disk.state().count;
    disk.state().fail = Some((start + k, many, error));
    let mut failed = 0;
    let mut may = |at: u64, len: u64, byte: u8, done: Result<(), BlockError>, discard: bool| {
        for slot in &mut allowed[at as usize..][..len as usize] {
            match done {
                Ok(()) if !discard => *slot = vec![byte],
                _ => slot.push(byte),
            }
        }
        failed += u32::from(done.is_err());
    };
    for op in ops {
        let clip = |at: u64, len: u64| len.min(LEN - at);
        match *op {
            Op::Write(at, len, byte) => {
                let len = clip(at, len);
                let done = image.write(at, &vec![byte; len as usize]);
                may(at, len, byte, done, false);
            }
            Op::Zero(at, len, unmap) => {
                let len = clip(at, len);
                may(at, len, 0, image.node.write_zeroes(at, len, unmap), false);
            }
            Op::Discard(at, len) => {
                let len = clip(at, len);
                may(at, len, 0, image.node.discard(at, len), true);
            }
            Op::Flush => drop(image.node.flush()),
            _ => {}
        }
    }
    // Space returns.
    disk.state().fail = None;
    let check = |image: &Image, allowed: &[Vec<u8>], what: &str| {
        let now = image.read(0, LEN).unwrap();
        for (at, byte) in now.iter().enumerate() {
            assert!(
                allowed[at].contains(byte),
                "{kind:?} {error} at {k}, {what}: byte {at}"
            );
        }
    };
    check(&image, &allowed, "before it was closed");
    // When a flush has failed nobody knows what is on the disk; a full disk is none of that.
    let flushed = image.node.flush();
    let went_on = image.write(0, &[1]);
    drop(image);
    let image = Image::open_over(&disk, base.as_ref(), "").unwrap();
    image.assert_whole(true);
    if flushed.is_ok() {
        assert_eq!(went_on, Ok(()));
        allowed[0] = vec![1];
        check(&image, &allowed, "opened again");
    }
    image.qcow2().check(backend_qcow2::Fix::Leaks).unwrap();
    image.assert_whole(false);
}

#[test]
fn an_error_at_any_operation_reaches_the_guest_and_spares_the_image() {
    let seed = TestRng::from_seed(RngAlgorithm::ChaCha, &[3; 32]);
    let mut runner = TestRunner::new_with_rng(Config::default(), seed);
    let ops = proptest::collection::vec(op(), 30);
    for kind in KINDS.iter().take(11) {
        let ops = ops.new_tree(&mut runner).unwrap().current();
        for k in 0..u64::from(interop::cases(24)) {
            let k = k * 3;
            run(*kind, &ops, BlockError::Io, k, 1);
            run(*kind, &ops, BlockError::NoSpace, k, 10);
        }
    }
}
