//! What a machine that a bug of Mimic's has ended leaves behind: its state in a file, its disks
//! flushed, the guest's last words written.

use std::fmt::Write as _;
use std::fs::File;
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock, Weak, mpsc};
use std::time::Duration;

use backend_block::{IoVector, Operation, Request, SharedBlock};
use backend_char::Chardev;
use machine_core::Board;

use crate::help;
use crate::storage::{Shelf, WeakShelf};

/// How long each part may take: whoever holds the locks may be gone.
const DUMP: Duration = Duration::from_secs(2);
const FLUSH_DISKS: Duration = Duration::from_secs(5);
const FLUSH_STREAMS: Duration = Duration::from_millis(300);
/// How long a vCPU may take to park.
const PARK: Duration = Duration::from_millis(300);
/// Names to try for the file.
const NAMES: u32 = 100;

/// What there is to be saved, as far as it was made.
#[derive(Default)]
pub(crate) struct Wreck {
    chardevs: Vec<Weak<Chardev>>,
    machine: OnceLock<Lost>,
}

struct Lost {
    board: Weak<Board>,
    disks: WeakShelf<SharedBlock>,
}

impl Wreck {
    /// Ends the process in good order if any thread panics from now on.
    pub(crate) fn watch(chardevs: &[Arc<Chardev>]) -> Arc<Self> {
        let wreck = Arc::new(Self {
            chardevs: chardevs.iter().map(Arc::downgrade).collect(),
            machine: OnceLock::new(),
        });
        let theirs = Arc::clone(&wreck);
        runtime::process::exit_on_panic(move |report| theirs.last_words(report));
        wreck
    }

    /// From now on there is a machine to be saved.
    pub(crate) fn add_machine(&self, board: &Arc<Board>, disks: &Shelf<SharedBlock>) {
        let lost = Lost {
            board: Arc::downgrade(board),
            disks: disks.downgrade(),
        };
        // There is one machine to a process's life.
        let _ = self.machine.set(lost);
    }

    fn last_words(self: &Arc<Self>, report: &str) {
        eprintln!("mimic: this is a bug in Mimic; please report it with the lines above");
        let (wreck, report) = (Arc::clone(self), report.to_owned());
        match within(DUMP, move || wreck.dump(&report)) {
            Some(Ok(path)) => eprintln!(
                "mimic: the state of the machine was written to '{}'",
                path.display()
            ),
            Some(Err(error)) => {
                eprintln!("mimic: the state of the machine could not be written: {error}");
            }
            None => eprintln!("mimic: the state of the machine could not be read"),
        }
        let wreck = Arc::clone(self);
        let flushed = within(FLUSH_DISKS, move || {
            if let Some(lost) = wreck.machine.get() {
                flush(&lost.disks.all());
            }
        });
        if flushed.is_none() {
            eprintln!(
                "mimic: the disks could not be flushed; what the guest wrote last may be lost"
            );
        }
        let wreck = Arc::clone(self);
        within(FLUSH_STREAMS, move || {
            let chardevs = wreck.chardevs.iter().filter_map(Weak::upgrade);
            chardevs.for_each(|chardev| chardev.flush(FLUSH_STREAMS));
        });
    }

    /// Writes everything that can be read into a file of its own.
    fn dump(&self, report: &str) -> io::Result<PathBuf> {
        let (path, mut file) = create()?;
        let args: Vec<String> = std::env::args().collect();
        // Before anything that may wait.
        writeln!(
            file,
            "{}Command line: {args:?}\n{report}",
            help::version_line()
        )?;
        file.write_all(self.describe().as_bytes())?;
        Ok(path)
    }

    fn describe(&self) -> String {
        let board = self.machine.get().and_then(|lost| lost.board.upgrade());
        let Some(board) = board else {
            return "There is no machine yet.\n".to_owned();
        };
        let mut out = format!("VM status: {}\n\n", board.machine.state().name());
        let cpus = board.machine.cpus();
        cpus.iter().for_each(|cpu| cpu.ask_to_stop());
        for (index, cpu) in cpus.iter().enumerate() {
            let _ = writeln!(out, "CPU#{index} (thread {})", cpu.thread_id());
            cpu.wait_parked_for(PARK);
            match cpu.with(|cpu| cpu.describe()) {
                Some(registers) => out += &registers,
                None => out += "cannot be reached: it does not park\n",
            }
            out.push('\n');
        }
        out
    }
}

/// Waits for all requests, and then until the disks have everything.
pub(crate) fn flush(blocks: &[SharedBlock]) {
    blocks.iter().for_each(|block| block.drain());
    let (done, wait) = mpsc::channel();
    let writable = blocks.iter().filter(|block| !block.info().read_only);
    for block in writable {
        let (done, id) = (done.clone(), block.info().id);
        let told = Box::new(move |result| {
            if let Err(error) = result {
                log::error!("disk '{id}' could not be flushed: {error}");
            }
            let _ = done.send(());
        });
        block.submit(Request::new(Operation::Flush, IoVector::default(), told));
    }
    drop(done);
    // Ends when all have said so.
    while wait.recv().is_ok() {}
}

/// What `f` says, if it does so in time. On a thread of its own: ours may hold a lock that it needs.
fn within<T: Send + 'static>(limit: Duration, f: impl FnOnce() -> T + Send + 'static) -> Option<T> {
    let (done, wait) = mpsc::channel();
    runtime::thread::spawn("last words", move || {
        let _ = done.send(f());
    })
    .ok()?;
    wait.recv_timeout(limit).ok()
}

/// A new file that nobody else may read: guests' registers have secrets in them.
fn create() -> io::Result<(PathBuf, File)> {
    let mut options = File::options();
    options.write(true).create_new(true).mode(0o600);
    let mut number = 0;
    loop {
        let name = format!("mimic-crash-{}-{number}.txt", std::process::id());
        let path = std::env::temp_dir().join(name);
        match options.open(&path) {
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists && number < NAMES => number += 1,
            opened => return opened.map(|file| (path, file)),
        }
    }
}
