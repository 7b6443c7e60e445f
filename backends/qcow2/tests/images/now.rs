//! Requests that nobody waits for: which they are, and what has to wait for them.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex};

use backend_block::{
    BackendOptions, Block, BlockBackend, IoVector, Opener, Operation, Request, Transfer,
};

use crate::disk::{DRIVERS, Disk, Image, create, opts};

const CLUSTER: u64 = 64 << 10;

/// An image of 16 clusters of which the first four hold ones, on a disk that takes transfers.
fn image(over: Option<&Disk>) -> (Disk, Image) {
    let disk = Disk::default();
    create(&disk, 16 * CLUSTER, "");
    let image = Image::open_over(&disk, over, "").unwrap();
    image.write(0, &vec![1; 4 * CLUSTER as usize]).unwrap();
    disk.state().flying = Some(Vec::new());
    (disk, image)
}

/// Begins a transfer of `byte`s. Returns whether that was possible, and its memory.
fn start(image: &Image, is_write: bool, offset: u64, len: usize, byte: u8) -> (bool, IoVector) {
    let memory = IoVector::from(vec![byte; len].as_slice());
    let back = image.node.start(Transfer {
        is_write,
        offset,
        memory: memory.clone(),
        done: Box::new(|is_whole| assert!(is_whole)),
    });
    (back.is_none(), memory)
}

#[test]
fn what_is_stored_is_read_and_overwritten_by_the_host_alone() {
    let (disk, image) = image(None);
    let (begun, read) = start(&image, false, CLUSTER + 512, 2 * CLUSTER as usize, 0xee);
    assert!(begun);
    assert!(start(&image, true, 512, 1024, 2).0);
    let landed = disk.land();
    let [(false, read_at), (true, written_at)] = landed[..] else {
        panic!("{landed:?}");
    };
    assert_eq!(read_at - written_at, CLUSTER);
    assert_eq!(read.to_vec(), vec![1; 2 * CLUSTER as usize]);
    assert_eq!(image.read(0, 512).unwrap(), [1; 512]);
    assert_eq!(image.read(512, 1024).unwrap(), [2; 1024]);
    image.assert_whole(false);
}

#[test]
fn what_changes_the_tables_or_is_in_pieces_takes_a_thread() {
    let (_disk, image) = image(None);
    let is_begun = |is_write, offset, len| start(&image, is_write, offset, len, 3).0;
    assert!(!is_begun(true, 8 * CLUSTER, 512), "a cluster is to be made");
    assert!(
        !is_begun(true, 4 * CLUSTER - 512, 1024),
        "one is to be made"
    );
    assert!(!is_begun(false, 8 * CLUSTER, 512), "zeros are nobody's");
    assert!(!is_begun(false, 4 * CLUSTER - 512, 1024), "half is zeros");
    image.qcow2().take_snapshot("s", 0, 0).unwrap();
    assert!(!is_begun(true, 512, 1024), "the cluster is the snapshot's");
    assert!(is_begun(false, 512, 1024), "but it can be read");
    _disk.land();
}

#[test]
fn what_shows_through_is_read_from_the_backing_disk_alone() {
    let behind = Disk::of(vec![9; 16 * CLUSTER as usize]);
    behind.state().flying = Some(Vec::new());
    let (disk, image) = image(Some(&behind));
    let (begun, memory) = start(&image, false, 5 * CLUSTER, 4096, 0xee);
    assert!(begun);
    assert_eq!(disk.land(), []);
    assert_eq!(behind.land(), [(false, 5 * CLUSTER)]);
    let shown = image.read(5 * CLUSTER, 4096).unwrap();
    assert_eq!((memory.to_vec(), shown), (vec![9; 4096], vec![9; 4096]));
}

#[test]
fn tables_are_not_changed_under_a_transfer() {
    let (disk, image) = image(None);
    assert!(start(&image, true, 0, 512, 5).0);
    let (say, said) = channel();
    std::thread::scope(|scope| {
        let image = &image;
        scope.spawn(move || {
            image.qcow2().take_snapshot("s", 0, 0).unwrap();
            say.send(()).unwrap();
        });
        // As long as it waits to be alone, no transfer begins.
        while start(image, false, 0, 512, 0xee).0 {
            assert!(said.try_recv().is_err());
            std::thread::yield_now();
        }
        assert!(said.try_recv().is_err(), "it did not wait");
        disk.land();
    });
    said.recv().unwrap();
    assert_eq!(image.read(0, 512).unwrap(), [5; 512]);
    image.write(0, &[6; 512]).unwrap();
    image.qcow2().apply_snapshot("s").unwrap();
    assert_eq!(image.read(0, 512).unwrap(), [5; 512]);
    image.assert_whole(false);
}

#[test]
fn requests_by_io_uring_with_snapshots_between_them_lose_nothing() {
    let path = std::env::temp_dir().join(format!("mimic-qcow2-ring-{}", std::process::id()));
    let name = path.display().to_string();
    let disk = Disk::default();
    create(&disk, 64 * CLUSTER, "cluster_size=4096");
    std::fs::write(&path, &disk.state().bytes).unwrap();
    let text = format!(
        "driver=qcow2,discard=unmap,file.driver=file,file.aio=io_uring,file.filename={name}"
    );
    let node = match Opener::new(DRIVERS).open("test", &opts(&text)) {
        Ok(node) => node,
        Err(error) => {
            assert!(error.to_string().contains("the kernel refuses"), "{error}");
            std::fs::remove_file(path).unwrap();
            return;
        }
    };
    const SECTORS: u64 = 64 * CLUSTER / 512;
    let backend = BlockBackend::new("disk", node.clone(), BackendOptions::default()).unwrap();
    let wrong = Arc::new(AtomicU64::new(0));
    let expected = Arc::new(Mutex::new(vec![0u8; SECTORS as usize]));
    let mut order = 1u64;
    for round in 0..8u64 {
        // Each sector at most once in a round, in an order of its own; then all of them are read.
        let submit = |operation, memory: IoVector, sector: u64| {
            let (wrong, expected, seen) = (wrong.clone(), expected.clone(), memory.clone());
            let is_read = matches!(operation, Operation::Read { .. });
            let done = Box::new(move |result: Result<(), _>| {
                let byte = expected.lock().unwrap()[sector as usize];
                if result.is_err() || (is_read && seen.to_vec() != [byte; 512]) {
                    wrong.fetch_add(1, Ordering::SeqCst);
                }
            });
            backend.submit(Request::new(operation, memory, done));
        };
        let start = order % SECTORS;
        for n in 0..SECTORS / 4 {
            let sector = (start + n * 2_531) % SECTORS;
            let byte = (round + 1) as u8;
            expected.lock().unwrap()[sector as usize] = byte;
            let offset = sector * 512;
            let memory = IoVector::from([byte; 512].as_slice());
            submit(Operation::Write { offset }, memory, sector);
            if n == 500 {
                let image: &backend_qcow2::Qcow2 = node.driver().as_any().downcast_ref().unwrap();
                image.take_snapshot(&format!("s{round}"), 0, 0).unwrap();
            }
        }
        backend.drain();
        for sector in 0..SECTORS {
            let memory = IoVector::zeroed(512);
            let offset = sector * 512;
            submit(Operation::Read { offset }, memory, sector);
        }
        backend.drain();
        assert_eq!(wrong.load(Ordering::SeqCst), 0, "round {round}");
        order = order
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
    }
    let image: &backend_qcow2::Qcow2 = node.driver().as_any().downcast_ref().unwrap();
    let findings = image.check(backend_qcow2::Fix::None).unwrap();
    assert_eq!((findings.corruptions, findings.leaks), (0, 0));
    drop(backend);
    drop(node);
    std::fs::remove_file(path).unwrap();
}
