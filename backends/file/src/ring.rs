//! `aio=io_uring`: requests that the kernel carries out while nobody waits (io_uring(7)).
//!
//! Whoever has a request leaves it on a list and rings a bell; a thread of the file's has the ring to itself. It
//! puts in what is on the list, all at once, takes out what is done, and says so. The kernel ends requests on the
//! thread that put them in, so no other thread, a vCPU least of all, is interrupted for them. What is more than a
//! plain transfer of all its bytes is left to the caller.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use backend_block::IoVector;
use io_uring::{IoUring, opcode, squeue, types};
use rustix::event::{EventfdFlags, eventfd};

use crate::Open;

/// Requests in the ring at most: more are carried out otherwise.
const ENTRIES: u32 = 128;
/// Pieces that the kernel takes at a time (`IOV_MAX`).
const PIECES: usize = 1024;
/// The number of the bell's own entry.
const BELL: u64 = 0;

/// Told how many bytes were moved.
type Done = Box<dyn FnOnce(io::Result<u64>) + Send>;

/// What to do with a file's bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum What {
    Read,
    Write,
    Sync,
}

/// A request, with all that the kernel may touch.
struct Flight {
    what: What,
    offset: u64,
    pieces: Pieces,
    _memory: IoVector,
    file: Arc<Open>,
    done: Done,
}

/// Where the memory of a request is.
struct Pieces(Box<[libc::iovec]>);

// SAFETY: addresses that only the kernel follows, in memory that the `IoVector` beside them keeps alive
// and that may be shared between threads.
unsafe impl Send for Pieces {}

impl Flight {
    fn entry(&self) -> squeue::Entry {
        let (fd, offset) = (types::Fd(self.file.as_raw_fd()), self.offset);
        let count = u32::try_from(self.pieces.0.len()).unwrap_or(0);
        let pieces = self.pieces.0.as_ptr();
        match self.what {
            What::Read => opcode::Readv::new(fd, pieces, count).offset(offset).build(),
            What::Write => opcode::Writev::new(fd, pieces, count)
                .offset(offset)
                .build(),
            What::Sync => opcode::Fsync::new(fd)
                .flags(types::FsyncFlags::DATASYNC)
                .build(),
        }
    }
}

#[derive(Default)]
struct List {
    new: Vec<Flight>,
    /// Requests on the list and in the ring.
    count: usize,
    /// The thread will look at the list before it waits.
    is_rung: bool,
    is_closed: bool,
}

struct Shared {
    list: Mutex<List>,
    bell: OwnedFd,
}

/// The way to the thread that has the ring.
pub(crate) struct Ring(Arc<Shared>);

impl Shared {
    fn lock(&self) -> MutexGuard<'_, List> {
        self.list.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn ring(&self, mut list: MutexGuard<'_, List>) {
        if !std::mem::replace(&mut list.is_rung, true) {
            drop(list);
            self.strike();
        }
    }

    fn strike(&self) {
        // It counts, and is full only if it was struck without end and never heard.
        let _ = rustix::io::write(&self.bell, &1u64.to_ne_bytes());
    }
}

impl Ring {
    /// # Errors
    /// The kernel's reason not to have one.
    pub(crate) fn new(name: &str) -> io::Result<Self> {
        let shared = Arc::new(Shared {
            list: Mutex::default(),
            bell: eventfd(0, EventfdFlags::CLOEXEC)?,
        });
        let mine = shared.clone();
        let (tell, told) = std::sync::mpsc::sync_channel(1);
        std::thread::Builder::new()
            .name(format!("io_uring {name}"))
            .spawn(move || match ring() {
                Ok(ring) => {
                    let _ = tell.send(Ok(()));
                    Turner::new(mine, ring).run();
                }
                Err(error) => {
                    let _ = tell.send(Err(error));
                }
            })?;
        told.recv().map_err(io::Error::other)??;
        Ok(Ring(shared))
    }

    /// Begins a request. `done` is called by the ring's thread; it comes back if there is no room.
    pub(crate) fn start(
        &self,
        file: &Arc<Open>,
        (what, offset): (What, u64),
        memory: IoVector,
        done: Done,
    ) -> Result<(), Done> {
        let pieces: Box<[libc::iovec]> = memory
            .host_pieces()
            .map(|(start, len)| libc::iovec {
                iov_base: start.cast(),
                iov_len: len,
            })
            .collect();
        let mut list = self.0.lock();
        if pieces.len() > PIECES || list.count >= ENTRIES as usize || list.is_closed {
            return Err(done);
        }
        list.count = list.count.saturating_add(1);
        list.new.push(Flight {
            what,
            offset,
            pieces: Pieces(pieces),
            _memory: memory,
            file: file.clone(),
            done,
        });
        self.0.ring(list);
        Ok(())
    }

    /// Carries a request out; the caller waits.
    pub(crate) fn run(
        &self,
        file: &Arc<Open>,
        request: (What, u64),
        memory: &IoVector,
    ) -> Option<io::Result<u64>> {
        let (tell, told) = std::sync::mpsc::sync_channel(1);
        let done = Box::new(move |moved| {
            let _ = tell.send(moved);
        });
        self.start(file, request, memory.clone(), done).ok()?;
        told.recv().ok()
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        let mut list = self.0.lock();
        list.is_closed = true;
        self.0.ring(list);
    }
}

/// A ring of the calling thread's own. Kernels before 6.1 have only the kind that any thread may use.
fn ring() -> io::Result<IoUring> {
    let entries = ENTRIES.saturating_mul(2);
    let mut own = IoUring::builder();
    own.setup_single_issuer().setup_defer_taskrun();
    own.build(entries).or_else(|_| IoUring::new(entries))
}

/// The thread that has the ring.
struct Turner {
    shared: Arc<Shared>,
    ring: IoUring,
    flights: BTreeMap<u64, Flight>,
    last: u64,
    /// Where the kernel puts how often the bell was rung, while it waits for that.
    rings: Box<[u8; 8]>,
    is_waiting: bool,
}

impl Turner {
    fn new(shared: Arc<Shared>, ring: IoUring) -> Self {
        Turner {
            shared,
            ring,
            flights: BTreeMap::new(),
            last: BELL,
            rings: Box::default(),
            is_waiting: false,
        }
    }

    /// Puts requests into the ring and takes completions out of it until nobody needs it any more and nothing
    /// is under way.
    fn run(mut self) {
        loop {
            let is_closed = self.fill();
            if is_closed && self.flights.is_empty() && !self.is_waiting {
                return;
            }
            match self.ring.submit_and_wait(1) {
                // The kernel is short of something: what is done makes room.
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if matches!(error.raw_os_error(), Some(libc::EBUSY | libc::EAGAIN)) => {}
                Err(error) => {
                    log::error!("io_uring: {error}");
                    // What the kernel has it may still write to.
                    std::mem::forget(self.flights);
                    std::mem::forget(self.rings);
                    self.shared.lock().is_closed = true;
                    return;
                }
            }
            self.empty();
        }
    }

    /// Puts what is on the list into the ring. Returns whether it is closed.
    fn fill(&mut self) -> bool {
        let mut list = self.shared.lock();
        list.is_rung = false;
        let (new, is_closed) = (std::mem::take(&mut list.new), list.is_closed);
        drop(list);
        if self.is_waiting && is_closed {
            // The wait for the bell is the last thing to end.
            self.shared.strike();
        }
        if !self.is_waiting && !is_closed {
            let bell = types::Fd(self.shared.bell.as_raw_fd());
            let wait = opcode::Read::new(bell, self.rings.as_mut_ptr(), 8).build();
            self.is_waiting = self.push(&wait.user_data(BELL));
        }
        for flight in new {
            self.last = self.last.wrapping_add(1).max(1);
            let entry = flight.entry().user_data(self.last);
            self.flights.insert(self.last, flight);
            if !self.push(&entry) {
                self.end(self.last, -libc::EAGAIN);
            }
        }
        is_closed
    }

    /// Whether there was room, as there is for all that may be on the list and the bell.
    fn push(&mut self, entry: &squeue::Entry) -> bool {
        // SAFETY: all that an entry names lives in `flights`, or is ours, until its completion is taken.
        unsafe { self.ring.submission().push(entry) }.is_ok()
    }

    /// Takes completions out.
    fn empty(&mut self) {
        let done: Vec<(u64, i32)> = self
            .ring
            .completion()
            .map(|entry| (entry.user_data(), entry.result()))
            .collect();
        let requests = done.iter().filter(|(number, _)| *number != BELL).count();
        {
            let mut list = self.shared.lock();
            list.count = list.count.saturating_sub(requests);
            // What comes of it is put in before the next wait.
            list.is_rung = true;
        }
        for (number, result) in done {
            match number {
                BELL => self.is_waiting = false,
                _ => self.end(number, result),
            }
        }
    }

    fn end(&mut self, number: u64, result: i32) {
        let Some(Flight { file, done, .. }) = self.flights.remove(&number) else {
            return;
        };
        // Whoever is told may close the disk and have the file opened by somebody else.
        drop(file);
        let moved =
            u64::try_from(result).map_err(|_| io::Error::from_raw_os_error(result.wrapping_neg()));
        // One that panics must not leave the others waiting for this thread.
        let done = AssertUnwindSafe(move || done(moved));
        let _ = std::panic::catch_unwind(done);
    }
}
