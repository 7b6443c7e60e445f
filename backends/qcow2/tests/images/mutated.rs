//! Images with bytes changed at random: an error at worst, at a bounded cost.

use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};

use crate::disk::{Disk, Image, create};
use crate::interop;
use crate::model::{KINDS, LEN, base};

/// Bytes that an image of this size may cost: opening, checking, reading it all, a few writes.
const BUDGET: u64 = 64 << 20;

/// Offsets of the header and of entries in tables, where a change does most.
fn target(rng: &mut TestRng, len: usize) -> usize {
    let at = rng.next_u32() as usize;
    match rng.next_u32() % 4 {
        0 => at % 112,
        1 => at % len.min(4096),
        _ => at % len,
    }
}

#[test]
fn a_mutated_image_costs_an_error_at_most() {
    let base = base();
    let mut images = Vec::new();
    for (options, has_base) in KINDS.iter().take(11) {
        let disk = Disk::default();
        create(&disk, LEN, options);
        {
            let image = Image::open_over(&disk, has_base.then_some(&base), "").unwrap();
            image.write(0, &vec![1; 40_000]).unwrap();
            image.write(100_000, &[2; 1000]).unwrap();
            if !options.contains("refcount_bits=1") {
                image.qcow2().take_snapshot("s", 0, 0).unwrap();
            }
            image.write(10_000, &vec![3; 20_000]).unwrap();
            let cluster = image.qcow2().cluster_len();
            let memory = backend_block::IoVector::from(vec![4; cluster as usize].as_slice());
            let _ = image.node.write_compressed(cluster * 2, &memory);
        }
        images.push((disk.state().bytes.clone(), *has_base));
    }
    let seed = TestRng::from_seed(RngAlgorithm::ChaCha, &[9; 32]);
    let mut runner = TestRunner::new_with_rng(Config::default(), seed);
    let rng = runner.rng();
    let mut opened = 0;
    for n in 0..interop::cases(1000) as usize {
        let (bytes, has_base) = &images[n % images.len()];
        let mut bytes = bytes.clone();
        for _ in 0..rng.next_u32() % 6 + 1 {
            let at = target(rng, bytes.len());
            bytes[at] = match rng.next_u32() % 3 {
                0 => 0xff,
                1 => bytes[at] ^ 1 << (rng.next_u32() % 8),
                _ => rng.next_u32() as u8,
            };
        }
        if n % 17 == 0 {
            bytes.truncate(rng.next_u32() as usize % bytes.len());
        }
        let disk = Disk::of(bytes);
        let backing = has_base.then_some(&base);
        if let Ok(image) = Image::open_over(&disk, backing, ",read-only=on") {
            let _ = image.qcow2().check(backend_qcow2::Fix::None);
            let _ = image.read(0, image.node.len().min(LEN));
        }
        if let Ok(image) = Image::open_over(&disk, backing, "") {
            opened += 1;
            let _ = image.write(5000, &[5; 9000]);
            let _ = image.node.discard(0, 1 << 16);
            let _ = image.node.write_zeroes(1 << 16, 1 << 14, true);
            let _ = image.node.flush();
            let _ = image.qcow2().delete_snapshot("s");
            let _ = image.qcow2().check(backend_qcow2::Fix::All);
        }
        let read = disk.state().bytes_read;
        assert!(read < BUDGET, "image {n}: {read} bytes read");
    }
    assert!(
        opened > 50,
        "hardly any mutated image could be opened: {opened}"
    );
}
