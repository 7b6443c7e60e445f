use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex};

use control_options::Opts;

use super::*;

static DRIVERS: &[&DriverClass] = &[&RAW, &NULL_CO, &BLKDEBUG, &THROTTLE];

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
fn nothing_is_done_at_once_while_requests_wait_or_none_may_begin() {
    let workers = Workers::new("test", 1).unwrap();
    assert_eq!(workers.now(|| 7), Some(7));
    let paused = workers.pause();
    assert_eq!(workers.now(|| 7), None);
    drop(paused);
    let (go, gate) = channel::<()>();
    let (begun, has_begun) = channel::<()>();
    workers.submit(Box::new(move || {
        begun.send(()).unwrap();
        gate.recv().unwrap();
    }));
    has_begun.recv().unwrap();
    assert_eq!(workers.now(|| 7), Some(7));
    workers.barrier();
    assert_eq!(workers.now(|| 7), None);
    go.send(()).unwrap();
    workers.drain();
    assert_eq!(workers.now(|| 7), Some(7));
}

#[test]
fn a_read_at_once_is_counted_and_stays_within_the_disk_and_its_limits() {
    let disk = disk(
        &Opener::new(DRIVERS),
        "driver=null-co,size=1M,read-zeroes=on",
    );
    let disk = disk.unwrap();
    let memory = IoVector::from([1; 1024].as_slice());
    assert!(disk.read_now(512, &memory));
    assert_eq!(memory.to_vec(), vec![0; 1024]);
    assert!(!disk.read_now((1 << 20) - 512, &memory));
    assert!(!disk.read_now(u64::MAX, &memory));
    let stats = disk.stats();
    assert_eq!((stats.rd.operations, stats.rd.bytes), (1, 1024));
    let group = Throttles::default().group("g", &hw_clock::Clock::manual().0);
    disk.set_throttle(Some(&group));
    assert!(!disk.read_now(0, &memory));
}

#[test]
fn who_queues_a_job_at_the_end_of_one_carries_it_out_and_no_other_thread_is_woken() {
    fn next(workers: &Arc<Workers>, left: u32, seen: Sender<std::thread::ThreadId>) {
        seen.send(std::thread::current().id()).unwrap();
        if left > 0 {
            let me = workers.clone();
            workers.submit(Box::new(move || next(&me, left - 1, seen)));
        }
    }
    let workers = Arc::new(Workers::new("test", 2).unwrap());
    // Both threads are there, and wait.
    let (begun, has_begun) = channel::<()>();
    let (go, gate) = channel::<()>();
    let held = begun.clone();
    workers.submit(Box::new(move || {
        held.send(()).unwrap();
        gate.recv().unwrap();
    }));
    has_begun.recv().unwrap();
    workers.submit(Box::new(move || begun.send(()).unwrap()));
    has_begun.recv().unwrap();
    go.send(()).unwrap();
    workers.drain();
    let (seen, threads) = channel();
    let me = workers.clone();
    workers.submit(Box::new(move || next(&me, 100, seen)));
    let threads: Vec<_> = threads.iter().collect();
    assert_eq!(threads.len(), 101);
    assert!(threads.windows(2).all(|pair| pair[0] == pair[1]));
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

fn opts(text: &str) -> Opts {
    Opts::parse("-blockdev", text, None).unwrap()
}

fn disk(opener: &Opener, text: &str) -> Result<BlockBackend, OpenError> {
    let node = opener.open("-blockdev", &opts(text))?;
    BlockBackend::new("d0", node, BackendOptions::default())
}

fn run(disk: &dyn Block, operation: Operation, data: &[u8]) -> Result<Vec<u8>, BlockError> {
    let (tx, rx) = channel();
    let memory = IoVector::from(data);
    let done = Box::new(move |result| tx.send(result).unwrap());
    disk.submit(Request::new(operation, memory.clone(), done));
    rx.recv().unwrap().map(|()| memory.to_vec())
}

#[test]
fn null_co_reads_zeros_within_its_size_only() {
    let disk = disk(
        &Opener::new(DRIVERS),
        "driver=null-co,size=1M,read-zeroes=on,discard=unmap",
    );
    let disk = disk.unwrap();
    let read = Operation::Read { offset: 512 };
    assert_eq!(run(&disk, read, &[1; 1024]), Ok(vec![0; 1024]));
    let end = Operation::Write {
        offset: (1 << 20) - 512,
    };
    assert!(run(&disk, end, &[0; 512]).is_ok());
    assert_eq!(run(&disk, end, &[0; 1024]), Err(BlockError::OutOfRange));
    let discard = Operation::Discard {
        offset: u64::MAX,
        len: 512,
    };
    assert_eq!(run(&disk, discard, &[]), Err(BlockError::OutOfRange));
    let stats = disk.stats();
    assert_eq!((stats.rd.operations, stats.rd.bytes), (1, 1024));
    assert_eq!((stats.wr.operations, stats.wr.invalid), (1, 1));
    assert_eq!(stats.wr_highest_offset, 1 << 20);
}

#[test]
fn a_shut_gate_lets_nothing_begin_and_waits_for_what_has() {
    let gate = Gate::default();
    let pass = gate.pass().unwrap();
    let other = gate.clone();
    let shutting = std::thread::spawn(move || other.shut());
    while gate.pass().is_some() {
        std::thread::yield_now();
    }
    assert!(!shutting.is_finished());
    drop(pass);
    shutting.join().unwrap();
    let disk = disk(&Opener::new(DRIVERS), "driver=null-co").unwrap();
    let (tx, rx) = channel();
    disk.submit(Request {
        operation: Operation::Flush,
        memory: IoVector::default(),
        gate,
        done: Box::new(move |result| tx.send(result).unwrap()),
    });
    assert_eq!(rx.recv().unwrap(), Err(BlockError::Cancelled));
}

#[test]
fn nodes_have_one_writer_and_are_deleted_when_nobody_uses_them() {
    let opener = Opener::new(DRIVERS);
    let below = opener.open("-blockdev", &opts("driver=null-co,node-name=n"));
    opener.graph.keep(below.unwrap());
    let first = disk(&opener, "driver=raw,node-name=a,file=n").unwrap();
    let error = disk(&opener, "driver=raw,node-name=b,file=n")
        .err()
        .unwrap();
    assert_eq!(
        error.to_string(),
        "node 'n' is in use by 'a', which does not allow 'write'; use a node of its own"
    );
    let error = opener.graph.delete("n").err().unwrap();
    assert!(error.to_string().contains("in use by 'a'"));
    drop(first);
    opener.graph.delete("n").unwrap();
    let error = disk(&opener, "driver=raw,file=n").err().unwrap();
    assert_eq!(error.to_string(), "there is no node named 'n'");
}

#[test]
fn names_are_unique() {
    let opener = Opener::new(DRIVERS);
    let _first = disk(&opener, "driver=null-co,node-name=disk0").unwrap();
    assert!(disk(&opener, "driver=null-co,node-name=disk0").is_err());
    let error = disk(&opener, "driver=raw,file=disk1").err().unwrap();
    assert_eq!(
        error.to_string(),
        "there is no node named 'disk1'; did you mean 'disk0'?"
    );
}

#[test]
fn injected_errors_strike_where_they_are_told_to() {
    let opener = Opener::new(DRIVERS);
    let disk = disk(
        &opener,
        "driver=blkdebug,image.driver=null-co,inject-error.0.errno=28,inject-error.0.iotype=write,\
         inject-error.0.sector=3,inject-error.0.skip=1,inject-error.0.once=on",
    )
    .unwrap();
    let write = |offset| run(&disk, Operation::Write { offset }, &[0; 1024]).map(|_| ());
    assert_eq!(write(0), Ok(()));
    assert_eq!(write(1024), Ok(()));
    assert_eq!(write(1536), Err(BlockError::NoSpace));
    assert_eq!(write(1536), Ok(()));
}

#[test]
fn a_read_only_node_refuses_writes_and_so_does_what_lies_on_it() {
    let opener = Opener::new(DRIVERS);
    let disk = disk(&opener, "driver=null-co,read-only=on").unwrap();
    let write = Operation::Write { offset: 0 };
    assert_eq!(run(&disk, write, &[0; 512]), Err(BlockError::ReadOnly));
    let below = opener.open(
        "-blockdev",
        &opts("driver=null-co,node-name=n,read-only=on"),
    );
    let _below = below.unwrap();
    let error = opener
        .open("-blockdev", &opts("driver=raw,file=n"))
        .err()
        .unwrap();
    assert!(error.to_string().contains("node 'n' is read-only"));
    assert!(
        opener
            .open("-blockdev", &opts("driver=raw,file=n,read-only=on"))
            .is_ok()
    );
}

#[test]
fn zeros_are_detected() {
    let opener = Opener::new(DRIVERS);
    let node = opener.open(
        "-blockdev",
        &opts("driver=blkdebug,detect-zeroes=on,image.driver=null-co,inject-error.0.iotype=write"),
    );
    let node = node.unwrap();
    assert!(node.write(0, &IoVector::zeroed(512)).is_ok());
    assert!(node.write(0, &IoVector::from([1].as_slice())).is_err());
}

#[test]
fn images_name_plain_paths_only() {
    let path = |name| beside("/images/top.qcow2", name).map(|p| p.display().to_string());
    assert_eq!(path("base.img").as_deref(), Some("/images/base.img"));
    assert_eq!(path("/a/b:c").as_deref(), Some("/a/b:c"));
    for name in ["json:{}", "nbd://host", "file:x", "", "a\0b"] {
        assert_eq!(path(name), None, "{name}");
    }
}

#[test]
fn what_the_host_fails_is_reported_ignored_or_tried_again() {
    let opener = Opener::new(DRIVERS);
    let disk = |policy| {
        let text =
            "driver=blkdebug,image.driver=null-co,inject-error.0.errno=28,inject-error.0.once=on";
        let node = opener.open("-blockdev", &opts(text)).unwrap();
        let options = BackendOptions {
            on_write_error: policy,
            ..BackendOptions::default()
        };
        let disk = BlockBackend::new("d0", node, options).unwrap();
        let (tx, rx) = channel();
        disk.on_failure(Arc::new(move |failure| tx.send(failure.clone()).unwrap()));
        (disk, rx)
    };
    let write = Operation::Write { offset: 0 };
    for (policy, result) in [
        (ErrorPolicy::Report, Err(BlockError::NoSpace)),
        (ErrorPolicy::Ignore, Ok(vec![0; 512])),
    ] {
        let (disk, failures) = disk(policy);
        assert_eq!(run(&disk, write, &[0; 512]), result);
        let failure = failures.recv().unwrap();
        assert!(failure.is_write && failure.error == BlockError::NoSpace);
        assert_eq!(disk.io_status(), IoStatus::Ok);
    }
    for policy in [ErrorPolicy::Stop, ErrorPolicy::Enospc] {
        let (disk, failures) = disk(policy);
        let (tx, rx) = channel();
        let done = Box::new(move |result| tx.send(result).unwrap());
        disk.submit(Request::new(write, IoVector::zeroed(512), done));
        assert_eq!(failures.recv().unwrap().action, ErrorAction::Stop);
        // The machine's stop does not wait for it.
        disk.drain();
        assert_eq!(disk.io_status(), IoStatus::NoSpace);
        assert!(rx.try_recv().is_err());
        disk.retry();
        assert_eq!(rx.recv().unwrap(), Ok(()));
        assert_eq!(disk.io_status(), IoStatus::Ok);
        assert_eq!((disk.stats().wr.failed, disk.stats().wr.operations), (1, 1));
    }
}

#[test]
fn requests_of_a_throttled_disk_are_let_through_when_it_is_drained() {
    let (clock, _time) = hw_clock::Clock::manual();
    let opener = Opener::new(DRIVERS);
    let disk = disk(&opener, "driver=null-co").unwrap();
    let group = opener.throttles.group("g", &clock);
    let mut limits = Limits::default();
    let limit = Limit {
        average: 1,
        ..Limit::default()
    };
    limits.set(Limited::Iops, limit);
    group.set_limits(limits);
    disk.set_throttle(Some(&group));
    let (tx, rx) = channel();
    for _ in 0..3 {
        let tx = tx.clone();
        let done = Box::new(move |result| tx.send(result).unwrap());
        let memory = IoVector::zeroed(512);
        disk.submit(Request::new(Operation::Read { offset: 0 }, memory, done));
    }
    assert_eq!(rx.recv().unwrap(), Ok(()));
    assert!(rx.try_recv().is_err());
    disk.drain();
    assert_eq!(rx.try_iter().count(), 2);
    assert_eq!(disk.throttle().unwrap().0, "g");
}

#[test]
fn the_throttle_filter_needs_its_group() {
    let opener = Opener::new(DRIVERS);
    let error = disk(
        &opener,
        "driver=throttle,throttle-group=g,file.driver=null-co",
    )
    .err();
    assert_eq!(
        error.unwrap().to_string(),
        "there is no throttle group 'g'; add '-object throttle-group,id=g'"
    );
}
