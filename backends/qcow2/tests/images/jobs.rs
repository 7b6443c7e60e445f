//! Jobs on chains of images, with a guest that goes on writing.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use backend_block::{
    BackendOptions, Block, BlockBackend, Child, Commit, DriverClass, ErrorPolicy, IoVector,
    JobEvent, JobKind, JobSpec, Jobs, Mirror, Node, Opener, Operation, Request, Stream, Task, perm,
};
use control_options::Opts;
use hw_clock::Clock;

static DRIVERS: &[&DriverClass] = &[
    &backend_block::RAW,
    &backend_block::BLKDEBUG,
    &backend_file::FILE,
    &backend_qcow2::CLASS,
];
const LEN: u64 = 8 << 20;
const CLUSTER: u64 = 64 << 10;

fn opts(text: &str) -> Opts {
    Opts::parse("test", text, None).unwrap()
}

/// A folder that goes away with the test.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("mimic-jobs-{}-{name}", std::process::id()));
        std::fs::create_dir(&path).unwrap();
        Folder(path)
    }

    fn path(&self, name: &str) -> String {
        self.0.join(name).display().to_string()
    }

    /// A new image over another.
    fn make(&self, opener: &Opener, name: &str, behind: Option<&str>) {
        let path = self.path(name);
        backend_file::create(path.as_ref()).unwrap();
        let file = opener.open("test", &opts(&format!("driver=file,filename={path}")));
        let child = Child::attach(file.unwrap(), "test", "file", perm::ALL, perm::ALL).unwrap();
        let behind =
            behind.map(|name| format!("backing_file={},backing_fmt=qcow2", self.path(name)));
        let options = opts(&behind.unwrap_or_default());
        (backend_qcow2::CLASS.create.unwrap().create)(&child, LEN, &options).unwrap();
    }

    fn open(&self, opener: &Opener, name: &str, more: &str) -> Arc<Node> {
        let path = self.path(name);
        let text = format!(
            "driver=qcow2,node-name={name},discard=unmap,file.driver=file,file.filename={path}{more}"
        );
        opener.open("test", &opts(&text)).unwrap()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// A disk on the images `base`, `mid` and `top`, and what it shall show.
struct Bench {
    folder: Folder,
    opener: Opener,
    disk: Arc<BlockBackend>,
    model: Arc<Mutex<Vec<u8>>>,
    jobs: Jobs,
    events: Receiver<String>,
}

fn write(node: &Node, model: &mut [u8], offset: u64, byte: u8, len: u64) {
    let data = vec![byte; len as usize];
    node.write(offset, &IoVector::from(data.as_slice()))
        .unwrap();
    model[offset as usize..][..len as usize].copy_from_slice(&data);
}

impl Bench {
    fn new(name: &str) -> Self {
        let folder = Folder::new(name);
        let opener = Opener::new(DRIVERS);
        let mut model = vec![0; LEN as usize];
        for (name, behind, byte) in [
            ("base", None, 1),
            ("mid", Some("base"), 2),
            ("top", Some("mid"), 3),
        ] {
            folder.make(&opener, name, behind);
            let node = folder.open(&opener, name, "");
            for n in 0..LEN / CLUSTER {
                if n % (u64::from(byte) * 2) == 0 {
                    write(&node, &mut model, n * CLUSTER + 512, byte, CLUSTER / 2);
                }
            }
            let at = u64::from(byte) * 13 * CLUSTER;
            node.write_zeroes(at, CLUSTER, true).unwrap();
            model[at as usize..][..CLUSTER as usize].fill(0);
        }
        let top = folder.open(&opener, "top", "");
        let disk = BlockBackend::new("disk", top, BackendOptions::default()).unwrap();
        disk.join(&opener.graph);
        let (clock, _) = Clock::manual();
        let (tx, events) = channel();
        let jobs = Jobs::new(clock, move |info, event| {
            let text = match event {
                JobEvent::Status(status) => status.name().to_owned(),
                JobEvent::Completed => match &info.error {
                    None => "COMPLETED".to_owned(),
                    Some(error) => format!("COMPLETED {error}"),
                },
                event => format!("{event:?}").to_uppercase(),
            };
            tx.send(text).unwrap();
        });
        Bench {
            folder,
            opener,
            disk: Arc::new(disk),
            model: Arc::new(Mutex::new(model)),
            jobs,
            events,
        }
    }

    fn node(&self, nth: usize) -> Arc<Node> {
        let top = self.disk.node();
        std::iter::successors(Some(top), |node| node.behind())
            .nth(nth)
            .unwrap()
    }

    fn start(&self, kind: JobKind, task: impl Task + 'static) {
        let spec = JobSpec {
            id: "j".into(),
            kind,
            auto_finalize: true,
            auto_dismiss: true,
            speed: 0,
            on_error: ErrorPolicy::Report,
        };
        self.jobs.start(spec, Box::new(task)).unwrap();
    }

    /// The events up to one.
    fn until(&self, last: &str) -> Vec<String> {
        let mut seen = Vec::new();
        loop {
            let event = self.events.recv_timeout(Duration::from_secs(60)).unwrap();
            seen.push(event);
            if seen.last().unwrap() == last {
                return seen;
            }
        }
    }

    /// Writes from another thread until told to stop.
    fn guest(&self) -> impl FnOnce() -> u64 + use<> {
        let stop = Arc::new(AtomicBool::new(false));
        let count = Arc::new(AtomicU64::new(0));
        let (disk, model) = (self.disk.clone(), self.model.clone());
        let (stopped, counted) = (stop.clone(), count.clone());
        let thread = std::thread::spawn(move || {
            let mut n = 7u64;
            while !stopped.load(Ordering::Relaxed) {
                n = n
                    .wrapping_mul(6364136223846793005)
                    .wrapping_add(1442695040888963407);
                let offset = (n >> 33) % (LEN / 512 - 16) * 512;
                let data = vec![(n >> 20) as u8; 512 * (1 + (n >> 50) as usize % 16)];
                let mut model = model.lock().unwrap();
                let (tx, rx) = channel();
                let done = Box::new(move |result| tx.send(result).unwrap());
                let memory = IoVector::from(data.as_slice());
                disk.submit(Request::new(Operation::Write { offset }, memory, done));
                rx.recv().unwrap().unwrap();
                model[offset as usize..][..data.len()].copy_from_slice(&data);
                counted.fetch_add(1, Ordering::Relaxed);
            }
        });
        move || {
            while count.load(Ordering::Relaxed) < 50 {
                std::thread::yield_now();
            }
            stop.store(true, Ordering::Relaxed);
            thread.join().unwrap();
            count.load(Ordering::Relaxed)
        }
    }

    fn assert_shown(&self, node: &Node) {
        let memory = IoVector::zeroed(LEN as usize);
        node.read(0, &memory).unwrap();
        assert!(memory.to_vec() == *self.model.lock().unwrap());
    }
}

const QUIET_END: [&str; 5] = ["waiting", "pending", "COMPLETED", "concluded", "null"];

#[test]
fn the_image_on_top_is_committed_while_the_guest_writes() {
    let bench = Bench::new("active");
    let (top, base) = (bench.node(0), bench.node(2));
    let guest = bench.guest();
    let task = Mirror::commit_top(&bench.opener.graph, "j", &top, &base).unwrap();
    bench.start(JobKind::Commit, task);
    assert_eq!(
        bench.until("READY"),
        ["created", "running", "ready", "READY"]
    );
    let busy = bench
        .opener
        .graph
        .claim(std::slice::from_ref(&base), "stream")
        .err()
        .unwrap();
    let text = "node 'base' is busy: block device is in use by block job: commit";
    assert!(
        busy.to_string()
            .ends_with(text.split_once("busy").unwrap().1),
        "{busy}"
    );
    bench.jobs.find("j").unwrap().complete().unwrap();
    assert_eq!(bench.until("null"), QUIET_END);
    guest();
    assert_eq!(bench.disk.node().file(), bench.folder.path("base"));
    bench.assert_shown(&bench.disk.node());
    drop((top, base));
    // The image behind holds all of it by itself.
    let Bench {
        folder,
        model,
        disk,
        ..
    } = bench;
    drop(disk);
    let alone = folder.open(&Opener::new(DRIVERS), "base", ",read-only=on");
    let memory = IoVector::zeroed(LEN as usize);
    alone.read(0, &memory).unwrap();
    assert!(memory.to_vec() == *model.lock().unwrap());
}

#[test]
fn an_image_in_the_middle_is_committed_and_taken_out() {
    let bench = Bench::new("middle");
    let chain = [bench.node(0), bench.node(1), bench.node(2)];
    let guest = bench.guest();
    let [top, mid, base] = &chain;
    let task = Commit::new(&bench.opener.graph, "j", [top, mid, base], None).unwrap();
    bench.start(JobKind::Commit, task);
    let events = bench.until("null");
    assert_eq!(events[..2], ["created", "running"]);
    assert_eq!(events[2..], QUIET_END);
    guest();
    assert_eq!(bench.node(1).file(), bench.folder.path("base"));
    assert!(bench.node(1).options().read_only);
    bench.assert_shown(&bench.disk.node());
    drop(chain);
    // The header of the image above names the base.
    let Bench {
        folder,
        model,
        disk,
        ..
    } = bench;
    drop(disk);
    let top = folder.open(&Opener::new(DRIVERS), "top", ",read-only=on");
    let memory = IoVector::zeroed(LEN as usize);
    top.read(0, &memory).unwrap();
    assert!(memory.to_vec() == *model.lock().unwrap());
    assert_eq!(top.behind().unwrap().file(), folder.path("base"));
}

#[test]
fn what_lies_behind_is_streamed_while_the_guest_writes() {
    for whole in [false, true] {
        let bench = Bench::new(if whole { "whole" } else { "part" });
        let (top, base) = (bench.node(0), bench.node(2));
        let guest = bench.guest();
        let base = (!whole).then_some(&base);
        let task = Stream::new(&bench.opener.graph, &top, base, None).unwrap();
        bench.start(JobKind::Stream, task);
        let events = bench.until("null");
        assert_eq!(events[2..], QUIET_END);
        guest();
        bench.assert_shown(&top);
        assert_eq!(top.behind().is_none(), whole);
        let qcow2: &backend_qcow2::Qcow2 = top.driver().as_any().downcast_ref().unwrap();
        let named = qcow2.backing().map(|(name, _)| name);
        assert_eq!(named, (!whole).then(|| bench.folder.path("base")));
        assert_eq!(
            qcow2.check(backend_qcow2::Fix::None).unwrap().corruptions,
            0
        );
    }
}

#[test]
fn a_mirror_takes_the_place_of_the_disk_or_is_left_complete() {
    for pivots in [true, false] {
        let bench = Bench::new(if pivots { "pivots" } else { "leaves" });
        bench.folder.make(&bench.opener, "copy", None);
        let copy = bench.folder.open(&bench.opener, "copy", "");
        let source = bench.node(0);
        let guest = bench.guest();
        let task = Mirror::new(&bench.opener.graph, "j", &source, &copy, None).unwrap();
        bench.start(JobKind::Mirror, task);
        bench.until("READY");
        let job = bench.jobs.find("j").unwrap();
        if pivots {
            job.complete().unwrap();
            assert_eq!(bench.until("null"), QUIET_END);
            guest();
            assert_eq!(bench.disk.node().name(), "copy");
        } else {
            guest();
            job.cancel(false).unwrap();
            assert_eq!(bench.until("null"), QUIET_END);
            assert_eq!(bench.disk.node().name(), "top");
        }
        bench.assert_shown(&copy);
    }
}

#[test]
fn jobs_are_paused_cancelled_and_asked_only_for_what_fits() {
    let bench = Bench::new("verbs");
    let (top, base) = (bench.node(0), bench.node(2));
    let task = Mirror::commit_top(&bench.opener.graph, "j", &top, &base).unwrap();
    bench.start(JobKind::Commit, task);
    bench.until("READY");
    let job = bench.jobs.find("j").unwrap();
    let error = job.finalize().unwrap_err();
    assert_eq!(
        error,
        "Job 'j' in state 'ready' cannot accept command verb 'finalize'"
    );
    job.set_paused(true).unwrap();
    assert_eq!(bench.until("standby"), ["standby"]);
    assert_eq!(job.set_paused(true).unwrap_err(), "Job is already paused");
    job.set_paused(false).unwrap();
    assert_eq!(bench.until("ready"), ["ready"]);
    job.cancel(true).unwrap();
    let end = ["aborting", "CANCELLED", "concluded", "null"];
    assert_eq!(bench.until("null"), end);
    assert!(bench.jobs.all().is_empty());
    assert!(base.options().read_only);
    assert_eq!(bench.disk.node().name(), "top");
    bench.assert_shown(&top);
}

#[test]
fn a_commit_that_the_host_fails_changes_nothing() {
    let folder = Folder::new("fails");
    let opener = Opener::new(DRIVERS);
    folder.make(&opener, "base", None);
    folder.make(&opener, "top", Some("base"));
    let path = folder.path("base");
    let base = opener.open("test", &opts(&format!(
        "driver=qcow2,node-name=base,file.driver=blkdebug,file.image.driver=file,file.image.filename={path},\
         file.inject-error.0.iotype=write,file.inject-error.0.errno=28"
    )));
    let base = base.unwrap();
    base.set_read_only(true).unwrap();
    let top = folder.open(&opener, "top", ",backing=base");
    top.write(0, &IoVector::from([7; 4096].as_slice())).unwrap();
    let (tx, rx) = channel();
    let (clock, _) = Clock::manual();
    let jobs = Jobs::new(clock, move |info, event| {
        if matches!(event, JobEvent::Completed) {
            tx.send(info.error.clone()).unwrap();
        }
    });
    let task = Mirror::commit_top(&opener.graph, "j", &top, &base).unwrap();
    let spec = JobSpec {
        id: "j".into(),
        kind: JobKind::Commit,
        auto_finalize: true,
        auto_dismiss: true,
        speed: 0,
        on_error: ErrorPolicy::Report,
    };
    jobs.start(spec, Box::new(task)).unwrap();
    let error = rx.recv_timeout(Duration::from_secs(60)).unwrap();
    assert_eq!(error.as_deref(), Some("no space left on the host"));
    assert_eq!(top.behind().unwrap().name(), "base");
}
