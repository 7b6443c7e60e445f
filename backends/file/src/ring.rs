//! `aio=io_uring`: requests that the kernel carries out while nobody waits (io_uring(7)).
//!
//! Whoever has a request puts it in the ring; a thread of the file's takes what is done out of it and says
//! so. What is more than a plain transfer of all its bytes is left to the caller.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::AsRawFd as _;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use backend_block::IoVector;
use io_uring::{IoUring, opcode, squeue, types};

use crate::Open;

/// Requests in the ring at most: more are carried out otherwise.
const ENTRIES: u32 = 128;
/// Pieces that the kernel takes at a time (`IOV_MAX`).
const PIECES: usize = 1024;
/// Ends the thread.
const END: u64 = 0;

/// Told how many bytes were moved.
type Done = Box<dyn FnOnce(io::Result<u64>) + Send>;

/// What to do with a file's bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum What {
    Read,
    Write,
    Sync,
}

/// A request in the ring, with all that the kernel may touch.
struct Flight {
    _pieces: Pieces,
    _memory: IoVector,
    file: Arc<Open>,
    done: Done,
}

/// Where the memory of a request is.
struct Pieces(#[expect(dead_code, reason = "the kernel reads it")] Box<[libc::iovec]>);

// SAFETY: addresses that only the kernel follows, in memory that the `IoVector` beside them keeps alive
// and that may be shared between threads.
unsafe impl Send for Pieces {}

#[derive(Default)]
struct Flying {
    flights: BTreeMap<u64, Flight>,
    last: u64,
}

struct Shared {
    ring: IoUring,
    /// Also held while the submission queue is touched.
    flying: Mutex<Flying>,
}

/// A ring, and the thread that empties it.
pub(crate) struct Ring(Arc<Shared>);

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Flying> {
        self.flying.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts an entry in and tells the kernel. The lock of `flying` is held.
    fn push(&self, entry: &squeue::Entry) -> io::Result<()> {
        {
            // SAFETY: the lock that the caller holds lets nobody else at the queue.
            let mut queue = unsafe { self.ring.submission_shared() };
            // SAFETY: all that the entry names lives in `flying` until its completion is taken.
            unsafe { queue.push(entry) }.map_err(|_| io::ErrorKind::WouldBlock)?;
        }
        loop {
            match self.ring.submit() {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // The entry is in, and goes with the next one or with the thread's wait.
                Err(error) if error.raw_os_error() == Some(libc::EBUSY) => return Ok(()),
                Err(error) if error.raw_os_error() == Some(libc::EAGAIN) => return Ok(()),
                Err(error) => return Err(error),
                Ok(_) => return Ok(()),
            }
        }
    }
}

impl Ring {
    /// # Errors
    /// The kernel's reason not to have one.
    pub(crate) fn new(name: &str) -> io::Result<Self> {
        let shared = Arc::new(Shared {
            ring: IoUring::new(ENTRIES)?,
            flying: Mutex::default(),
        });
        let mine = shared.clone();
        std::thread::Builder::new()
            .name(format!("io_uring {name}"))
            .spawn(move || empty(&mine))?;
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
        let mut flying = self.0.lock();
        if pieces.len() > PIECES || flying.flights.len() >= ENTRIES as usize {
            return Err(done);
        }
        let fd = types::Fd(file.as_raw_fd());
        let count = u32::try_from(pieces.len()).unwrap_or(0);
        let entry = match what {
            What::Read => opcode::Readv::new(fd, pieces.as_ptr(), count)
                .offset(offset)
                .build(),
            What::Write => opcode::Writev::new(fd, pieces.as_ptr(), count)
                .offset(offset)
                .build(),
            What::Sync => opcode::Fsync::new(fd)
                .flags(types::FsyncFlags::DATASYNC)
                .build(),
        };
        let number = flying.last.wrapping_add(1).max(1);
        flying.last = number;
        let flight = Flight {
            _pieces: Pieces(pieces),
            _memory: memory,
            file: file.clone(),
            done,
        };
        flying.flights.insert(number, flight);
        match self.0.push(&entry.user_data(number)) {
            Ok(()) => Ok(()),
            // Nothing was put in.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                match flying.flights.remove(&number) {
                    Some(flight) => Err(flight.done),
                    None => Ok(()),
                }
            }
            // The kernel may have it or not: it must stay where it is until the thread hears of it.
            Err(error) => {
                log::error!("io_uring: {error}");
                Ok(())
            }
        }
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
        let _flying = self.0.lock();
        let _ = self.0.push(&opcode::Nop::new().build().user_data(END));
    }
}

/// Takes completions out of the ring until it is not needed any more and nothing is under way.
fn empty(shared: &Shared) {
    let mut is_ended = false;
    loop {
        match shared.ring.submitter().submit_and_wait(1) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            // The kernel is short of something: what is done makes room.
            Err(error) if matches!(error.raw_os_error(), Some(libc::EBUSY | libc::EAGAIN)) => {}
            Err(error) => {
                log::error!("io_uring: {error}");
                return;
            }
            Ok(_) => {}
        }
        loop {
            // SAFETY: this thread alone looks at the completion queue.
            let entry = unsafe { shared.ring.completion_shared() }.next();
            let Some(entry) = entry else {
                break;
            };
            if entry.user_data() == END {
                is_ended = true;
                continue;
            }
            let flight = shared.lock().flights.remove(&entry.user_data());
            if let Some(Flight { file, done, .. }) = flight {
                // Whoever is told may close the disk and have the file opened by somebody else.
                drop(file);
                let moved = u64::try_from(entry.result());
                let moved =
                    moved.map_err(|_| io::Error::from_raw_os_error(entry.result().wrapping_neg()));
                // One that panics must not leave the others waiting for this thread.
                let done = AssertUnwindSafe(move || done(moved));
                let _ = std::panic::catch_unwind(done);
            }
        }
        if is_ended && shared.lock().flights.is_empty() {
            return;
        }
    }
}
