use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex};

use super::*;

#[test]
fn a_barrier_keeps_later_jobs_back_until_earlier_ones_are_done() {
    let workers = Workers::new("test", 4).unwrap();
    let order = Arc::new(Mutex::new(Vec::new()));
    let (go, gate) = channel::<()>();
    let seen = order.clone();
    workers.submit(Box::new(move || {
        gate.recv().unwrap();
        seen.lock().unwrap().push("before");
    }));
    workers.barrier();
    let seen = order.clone();
    workers.submit(Box::new(move || seen.lock().unwrap().push("after")));
    assert!(order.lock().unwrap().is_empty());
    go.send(()).unwrap();
    workers.drain();
    assert_eq!(*order.lock().unwrap(), ["before", "after"]);
}

#[test]
fn a_job_that_panics_does_not_stop_the_pool() {
    let workers = Workers::new("test", 1).unwrap();
    workers.submit(Box::new(|| std::panic::resume_unwind(Box::new(()))));
    let (tx, rx) = channel();
    workers.submit(Box::new(move || tx.send(7).unwrap()));
    assert_eq!(rx.recv(), Ok(7));
    workers.drain();
}

fn run(disk: &dyn Block, operation: Operation, data: Vec<u8>) -> (Result<(), BlockError>, Vec<u8>) {
    let (tx, rx) = channel();
    disk.submit(Request {
        operation,
        buffer: Box::new(data),
        done: Box::new(move |result, mut buffer| {
            let mut out = vec![0; buffer.len() as usize];
            buffer.copy_out(0, &mut out).unwrap();
            tx.send((result, out)).unwrap();
        }),
    });
    rx.recv().unwrap()
}

#[test]
fn null_co_reads_zeros_within_its_size_only() {
    let disk = NullCo::new("n0", 1 << 20, true).unwrap();
    let (result, data) = run(&disk, Operation::Read { offset: 512 }, vec![1; 1024]);
    assert_eq!((result, data), (Ok(()), vec![0; 1024]));
    let end = Operation::Write {
        offset: (1 << 20) - 512,
    };
    assert_eq!(run(&disk, end, vec![0; 512]).0, Ok(()));
    assert_eq!(
        run(&disk, end, vec![0; 1024]).0,
        Err(BlockError::OutOfRange)
    );
    let discard = Operation::Discard {
        offset: u64::MAX,
        len: 512,
    };
    assert_eq!(run(&disk, discard, vec![]).0, Err(BlockError::OutOfRange));
}
