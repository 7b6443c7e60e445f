//! The common part of all streams over file descriptors: a bounded queue out, flow control in.

use std::collections::VecDeque;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};

use runtime::{Handle, Interest, Rank, Ranked, Timer, Watch, time};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};

use crate::chardev::Backend;
use crate::frontend::{CharEvent, CharSink};
use crate::telnet::Filter;

/// Bytes of output that wait for the host before a writer is held back.
const QUEUE_MAX: usize = 64 << 10;
/// The most handed to the host at once: what a pipe takes without blocking once `poll` calls it writable.
const CHUNK: usize = 4096;
/// Descriptors taken at once.
const FDS_MAX: usize = 16;
/// How long single bytes wait for others after the last were written: a serial port of 115,200 baud sends a
/// dozen in that time, and the host wakes once for all of them.
const REST_NS: u64 = 1_000_000;

type Callback = Box<dyn Fn() + Send + Sync>;

/// A stream over at most one readable and one writable descriptor, which may come and go.
pub(crate) struct Stream {
    handle: Handle,
    io: Ranked<Io>,
    sink: Mutex<Option<Arc<dyn CharSink>>>,
    /// Reading stopped because the sink was full or absent.
    paused: AtomicBool,
    open: AtomicBool,
    /// Called on the loop when the readable side has ended.
    on_eof: OnceLock<Callback>,
    /// Ends a rest.
    rest: Timer,
    me: Weak<Stream>,
}

#[derive(Default)]
struct Io {
    out: VecDeque<u8>,
    reader: Option<Half>,
    writer: Option<Half>,
    /// A writer was held back and wants to hear when there is room.
    starved: bool,
    filter: Option<Filter>,
    /// It is a unix socket, over which descriptors come too.
    is_unix: bool,
    /// The last to come was a single byte.
    trickles: bool,
    /// Some were written just now: single bytes wait until the timer ends this.
    rests: bool,
}

struct Half {
    fd: Arc<OwnedFd>,
    watch: Watch,
}

impl Stream {
    pub(crate) fn new(handle: &Handle) -> Arc<Self> {
        Arc::new_cyclic(|me| Self {
            handle: handle.clone(),
            io: Ranked::new(Rank::BackendQueue, Io::default()),
            sink: Mutex::new(None),
            paused: AtomicBool::new(false),
            open: AtomicBool::new(false),
            on_eof: OnceLock::new(),
            rest: handle.timer({
                let me: Weak<Self> = me.clone();
                move || me.upgrade().into_iter().for_each(|me| me.end_rest())
            }),
            me: me.clone(),
        })
    }

    /// What to do when the other side ends; without it, reading stops and writing goes on.
    pub(crate) fn set_on_eof(&self, callback: impl Fn() + Send + Sync + 'static) {
        let _ = self.on_eof.set(Box::new(callback));
    }

    /// Begins to use these descriptors. Called on the loop, or before it runs.
    pub(crate) fn connect(
        &self,
        read: Option<Arc<OwnedFd>>,
        write: Option<Arc<OwnedFd>>,
        telnet: bool,
    ) {
        {
            let mut io = self.io.lock();
            io.out.clear();
            io.is_unix = read.as_ref().is_some_and(is_unix_socket);
            io.filter = telnet.then(Filter::default);
            if telnet {
                io.out.extend(Filter::GREETING);
            }
            io.reader = read.map(|fd| self.half(fd, Interest::READ));
            let interest = if telnet {
                Interest::WRITE
            } else {
                Interest::NONE
            };
            io.writer = write.map(|fd| self.half(fd, interest));
        }
        self.paused.store(false, Ordering::SeqCst);
        self.open.store(true, Ordering::SeqCst);
        self.announce(CharEvent::Opened);
    }

    /// Lets go of the descriptors. A peer that only stopped sending still gets what it takes at once; the rest is
    /// lost, as on a pulled plug.
    pub(crate) fn disconnect(&self) {
        let gone = {
            let mut io = self.io.lock();
            let Io { out, writer, .. } = &mut *io;
            if let Some(half) = writer {
                while !out.is_empty() && write_some(half, out).is_ok() {}
            }
            io.out.clear();
            io.starved = false;
            (io.reader.take(), io.writer.take())
        };
        drop(gone);
        if self.open.swap(false, Ordering::SeqCst) {
            self.announce(CharEvent::Closed);
        }
        // A writer that was held back is not any more: output goes nowhere now.
        if let Some(sink) = self.sink() {
            self.handle.post(move || sink.writable());
        }
    }

    /// Ends reading only: standard input is at its end, output goes on.
    fn end_reading(&self) {
        let gone = self.io.lock().reader.take();
        drop(gone);
        self.announce(CharEvent::Closed);
    }

    fn half(&self, fd: Arc<OwnedFd>, interest: Interest) -> Half {
        let me = self.me.clone();
        let watch = self.handle.watch(Arc::clone(&fd), interest, move |ready| {
            let Some(me) = me.upgrade() else { return };
            if ready.write {
                me.drain();
            }
            if ready.read {
                me.fill();
            }
        });
        Half { fd, watch }
    }

    fn sink(&self) -> Option<Arc<dyn CharSink>> {
        self.sink
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Events go through the loop: the caller may hold a device's lock that the sink needs.
    fn announce(&self, event: CharEvent) {
        if let Some(sink) = self.sink() {
            self.handle.post(move || sink.event(event));
        }
    }

    /// Reads what the sink can take.
    fn fill(&self) {
        let sink = self.sink();
        let room = sink.as_ref().map_or(0, |s| s.can_receive()).min(CHUNK);
        let Some(sink) = sink.filter(|_| room > 0) else {
            self.pause();
            return;
        };
        let (fd, is_unix) = {
            let io = self.io.lock();
            let fd = io.reader.as_ref().map(|half| Arc::clone(&half.fd));
            let Some(fd) = fd else { return };
            (fd, io.is_unix)
        };
        let mut buffer = vec![0; room];
        let (count, fds) = match is_unix {
            true => receive(&fd, &mut buffer),
            false => (rustix::io::read(&*fd, &mut buffer), Vec::new()),
        };
        if !fds.is_empty() {
            sink.receive_fds(fds);
        }
        match count {
            Ok(0) => self.eof(),
            Ok(count) => {
                buffer.truncate(count);
                let breaks = self.strip_telnet(&mut buffer);
                if !buffer.is_empty() {
                    sink.receive(&buffer);
                }
                for _ in 0..breaks {
                    sink.event(CharEvent::Break);
                }
            }
            Err(Errno::AGAIN | Errno::INTR) => {}
            Err(_) => self.eof(),
        }
    }

    fn strip_telnet(&self, buffer: &mut Vec<u8>) -> usize {
        let mut io = self.io.lock();
        io.filter.as_mut().map_or(0, |filter| filter.strip(buffer))
    }

    fn eof(&self) {
        match self.on_eof.get() {
            Some(callback) => callback(),
            None => self.end_reading(),
        }
    }

    fn pause(&self) {
        self.paused.store(true, Ordering::SeqCst);
        if let Some(half) = &self.io.lock().reader {
            half.watch.update_interest(|i| i.read = false);
        }
        // Room may have come between the question and the pause, and its news been lost.
        if self.sink().is_some_and(|sink| sink.can_receive() > 0) {
            self.resume();
        }
    }

    fn resume(&self) {
        if self.paused.swap(false, Ordering::SeqCst)
            && let Some(half) = &self.io.lock().reader
        {
            half.watch.update_interest(|i| i.read = true);
        }
    }

    /// Lets go what came while the stream rested.
    fn end_rest(&self) {
        let mut io = self.io.lock();
        io.rests = false;
        if let (Some(half), false) = (&io.writer, io.out.is_empty()) {
            half.watch.update_interest(|i| i.write = true);
        }
    }

    /// Hands the queue to the host as far as it takes it.
    fn drain(&self) {
        let (mut failed, mut relieved) = (false, false);
        let mut gone = None;
        {
            let mut io = self.io.lock();
            let Io {
                out,
                writer,
                starved,
                trickles,
                rests,
                ..
            } = &mut *io;
            let Some(half) = writer else { return };
            let mut closed = false;
            match write_some(half, out) {
                Ok(()) | Err(Errno::AGAIN | Errno::INTR) => {}
                Err(e) => {
                    log::warn!("a character device's output is lost: {e}");
                    out.clear();
                    closed = matches!(e, Errno::PIPE | Errno::IO | Errno::BADF | Errno::CONNRESET);
                    failed = true;
                }
            }
            if out.is_empty() {
                half.watch.update_interest(|i| i.write = false);
                *rests = *trickles;
                if *rests {
                    self.rest.arm(time::monotonic_ns().saturating_add(REST_NS));
                }
            }
            if *starved && out.len() <= QUEUE_MAX / 2 {
                *starved = false;
                relieved = true;
            }
            // Nobody will read a broken pipe again; a full disk may get room.
            if closed {
                gone = writer.take();
            }
        }
        drop(gone);
        // A peer that went away is found by reading, where there is a reader; a full disk is not an end.
        if failed && self.on_eof.get().is_some() {
            self.eof();
        } else if relieved && let Some(sink) = self.sink() {
            sink.writable();
        }
    }
}

fn is_unix_socket(fd: &Arc<OwnedFd>) -> bool {
    rustix::net::sockopt::socket_domain(fd).is_ok_and(|domain| domain == AddressFamily::UNIX)
}

/// Reads, and takes descriptors that come along; more than there is room for the kernel closes.
fn receive(fd: &OwnedFd, buffer: &mut [u8]) -> (Result<usize, Errno>, Vec<OwnedFd>) {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(FDS_MAX))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let pieces = &mut [std::io::IoSliceMut::new(buffer)];
    let received = recvmsg(fd, pieces, &mut control, RecvFlags::CMSG_CLOEXEC);
    let fds = control.drain().filter_map(|message| match message {
        RecvAncillaryMessage::ScmRights(fds) => Some(fds),
        _ => None,
    });
    let fds = fds.flatten().collect();
    (received.map(|received| received.bytes), fds)
}

/// Writes one chunk from the front of the queue.
fn write_some(half: &Half, out: &mut VecDeque<u8>) -> Result<(), Errno> {
    let (front, _) = out.as_slices();
    let chunk = front.get(..front.len().min(CHUNK)).unwrap_or_default();
    if chunk.is_empty() {
        return Ok(());
    }
    let count = rustix::io::write(&*half.fd, chunk)?;
    out.drain(..count.min(chunk.len()));
    Ok(())
}

impl Backend for Stream {
    fn write(&self, data: &[u8]) -> usize {
        let mut io = self.io.lock();
        let Io {
            out,
            writer,
            starved,
            filter,
            trickles,
            rests,
            ..
        } = &mut *io;
        let Some(half) = writer else {
            return data.len();
        };
        let was_empty = out.is_empty();
        *trickles = data.len() == 1;
        let room = QUEUE_MAX.saturating_sub(out.len());
        let taken = data.get(..data.len().min(room)).unwrap_or_default();
        match filter {
            Some(_) => out.extend(Filter::escape(taken)),
            None => out.extend(taken),
        }
        *starved |= taken.len() < data.len();
        let is_left = *rests && *trickles && out.len() < CHUNK;
        if (was_empty || *rests) && !taken.is_empty() && !is_left {
            half.watch.update_interest(|i| i.write = true);
        }
        taken.len()
    }

    fn set_sink(&self, sink: Option<Arc<dyn CharSink>>) {
        let present = sink.is_some();
        *self.sink.lock().unwrap_or_else(PoisonError::into_inner) = sink;
        if present {
            if self.is_open() {
                self.announce(CharEvent::Opened);
            }
            self.resume();
        }
    }

    fn accept_input(&self) {
        self.resume();
    }

    fn is_open(&self) -> bool {
        self.open.load(Ordering::SeqCst)
    }

    fn flush(&self, deadline_ns: u64) {
        loop {
            let mut io = self.io.lock();
            let Io {
                out,
                writer: Some(half),
                ..
            } = &mut *io
            else {
                return;
            };
            let left_ns = deadline_ns.saturating_sub(time::monotonic_ns());
            if out.is_empty() || left_ns == 0 {
                return;
            }
            let seconds = left_ns.checked_div(1_000_000_000).unwrap_or(0);
            let timeout = Timespec {
                tv_sec: i64::try_from(seconds).unwrap_or(0),
                tv_nsec: 100_000_000,
            };
            let mut fds = [PollFd::new(&half.fd, PollFlags::OUT)];
            if poll(&mut fds, Some(&timeout)).is_err() {
                continue;
            }
            match write_some(half, out) {
                Ok(()) | Err(Errno::AGAIN | Errno::INTR) => {}
                Err(_) => return,
            }
        }
    }
}
