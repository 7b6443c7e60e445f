//! Several requests at a time, on parts of the same clusters.

use std::sync::Arc;

use crate::disk::{Disk, Image, create};
use crate::model::base;

const THREADS: u64 = 4;
const SECTORS: u64 = 2048;

#[test]
fn requests_on_the_same_clusters_do_not_lose_each_others_bytes() {
    for options in [
        "cluster_size=4096",
        "cluster_size=65536",
        "cluster_size=16384,extended_l2=on",
        "cluster_size=4096,compat=0.10",
    ] {
        let (disk, base) = (Disk::default(), base());
        create(&disk, SECTORS * 512, options);
        let image = Arc::new(Image::open_over(&disk, Some(&base), "").unwrap());
        // Each thread has every fourth sector, and its own order.
        let threads: Vec<_> = (0..THREADS)
            .map(|thread| {
                let image = Arc::clone(&image);
                std::thread::spawn(move || {
                    let mut order = thread + 1;
                    for round in 0..SECTORS / THREADS * 2 {
                        order = order
                            .wrapping_mul(6_364_136_223_846_793_005)
                            .wrapping_add(1);
                        let sector = (order >> 33) % (SECTORS / THREADS) * THREADS + thread;
                        let byte = (sector % 250 + 1) as u8;
                        image.write(sector * 512, &[byte; 512]).unwrap();
                        if round % 50 == 0 {
                            image.node.flush().unwrap();
                        }
                        let now = image.read(sector * 512, 512).unwrap();
                        assert!(now == [byte; 512], "sector {sector}");
                    }
                    for sector in (thread..SECTORS).step_by(THREADS as usize) {
                        let byte = (sector % 250 + 1) as u8;
                        image.write(sector * 512, &[byte; 512]).unwrap();
                    }
                })
            })
            .collect();
        threads
            .into_iter()
            .for_each(|thread| thread.join().unwrap());
        image.assert_whole(true);
        drop(image);
        let image = Image::open_over(&disk, Some(&base), "").unwrap();
        image.assert_whole(false);
        for (sector, data) in (0..).zip(image.read(0, SECTORS * 512).unwrap().chunks(512)) {
            let byte = (sector % 250u64 + 1) as u8;
            assert!(data == [byte; 512], "{options}: sector {sector}");
        }
    }
}
