//! A stream by its id: what `-chardev`, `-serial` and `-monitor` make.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use control_options::OptionError;
use runtime::terminal::{RawMode, TerminalError, private_nonblocking};
use runtime::{Handle, time};
use rustix::fs::{Mode, OFlags};

use crate::frontend::{CharFrontend, CharSink};
use crate::mux::{Mux, MuxCommand};
use crate::null::Null;
use crate::pty::Pty;
use crate::ringbuf::Ringbuf;
use crate::socket::Socket;
use crate::spec::{CharKind, CharSpec, LogFile};
use crate::stream::Stream;
use crate::testdev::Testdev;

/// What every kind of stream does. See [`CharFrontend`] for the contract.
pub(crate) trait Backend: Send + Sync {
    fn write(&self, data: &[u8]) -> usize;
    fn set_sink(&self, sink: Option<Arc<dyn CharSink>>);
    fn accept_input(&self);
    fn is_open(&self) -> bool;
    /// Writes out what is queued, until `deadline_ns` of the monotonic clock.
    fn flush(&self, deadline_ns: u64);
}

/// Why there is no stream.
#[derive(Debug, thiserror::Error)]
pub enum CharError {
    /// The command line is wrong.
    #[error(transparent)]
    Option(#[from] OptionError),
    /// A file, socket or terminal cannot be had.
    #[error("character device '{id}': cannot {action}: {source}")]
    Open {
        /// The stream's id.
        id: String,
        /// What was tried, with the path.
        action: String,
        /// The host's reason.
        source: io::Error,
    },
    /// The terminal cannot be had.
    #[error("character device '{0}': {1}")]
    Terminal(String, TerminalError),
    /// It has a user.
    #[error("character device '{0}' is in use already; give it 'mux=on' to share it")]
    InUse(String),
    /// Its multiplexer is full.
    #[error("character device '{0}' has {max} users already, the most a multiplexer takes", max = Mux::USERS_MAX)]
    MuxFull(String),
}

/// One stream.
pub struct Chardev {
    id: String,
    kind: CharKind,
    concrete: Concrete,
    mux: Option<Arc<Mux>>,
    log: Option<Arc<Stream>>,
    taken: AtomicBool,
    /// The terminal, raw as long as we live.
    _raw: Option<RawMode>,
}

enum Concrete {
    Null(Null),
    Stream(Arc<Stream>),
    Pty(Arc<Pty>),
    Socket(Arc<Socket>),
    Ringbuf(Ringbuf),
    Testdev(Testdev),
}

impl std::fmt::Debug for Chardev {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Chardev")
            .field("id", &self.id)
            .field("kind", &self.kind)
            .finish_non_exhaustive()
    }
}

impl Chardev {
    /// Opens the host's side of `spec`; it lives on `handle`'s loop. A listening socket with `wait=on` waits here for
    /// its client, so call this before the loop runs or signals are blocked.
    ///
    /// # Errors
    /// What the host refused, with its reason.
    pub fn open(spec: &CharSpec, handle: &Handle) -> Result<Arc<Self>, CharError> {
        let mut raw = None;
        let concrete = match &spec.kind {
            CharKind::Null => Concrete::Null(Null::new(handle)),
            CharKind::Vc => {
                log::info!(
                    "character device '{}': there is no display, so 'vc' goes nowhere",
                    spec.id
                );
                Concrete::Null(Null::new(handle))
            }
            CharKind::Stdio { signal } => {
                raw = RawMode::enter(io::stdin().as_fd(), *signal)
                    .map_err(|e| CharError::Terminal(spec.id.clone(), e))?;
                Concrete::Stream(open_stdio(handle).map_err(failed(spec, "use standard input"))?)
            }
            CharKind::File {
                path,
                append,
                input_path,
            } => {
                let action = format!("open file '{}'", path.display());
                let output = open_file(path, *append).map_err(failed(spec, action))?;
                let input = match input_path {
                    Some(path) => {
                        let action = format!("open file '{}'", path.display());
                        let flags = OFlags::RDONLY | OFlags::CLOEXEC;
                        Some(open_path(path, flags).map_err(failed(spec, action))?)
                    }
                    None => None,
                };
                let stream = Stream::new(handle);
                stream.connect(input.map(Arc::new), Some(Arc::new(output)), false);
                Concrete::Stream(stream)
            }
            CharKind::Pipe { path } => {
                let action = format!("open pipe '{}'", path.display());
                Concrete::Stream(open_pipe(path, handle).map_err(failed(spec, action))?)
            }
            CharKind::Pty => {
                Concrete::Pty(Pty::open(handle).map_err(failed(spec, "make a pseudo terminal"))?)
            }
            CharKind::Testdev => Concrete::Testdev(Testdev::new(handle)),
            CharKind::Ringbuf { size } => Concrete::Ringbuf(Ringbuf::new(handle, *size)),
            CharKind::Socket(socket) => {
                let action = socket.action();
                Concrete::Socket(
                    Socket::open(&spec.id, socket, handle).map_err(failed(spec, action))?,
                )
            }
        };
        let log = match &spec.log {
            Some(LogFile { path, append }) => {
                let action = format!("open log file '{}'", path.display());
                let file = open_file(path, *append).map_err(failed(spec, action))?;
                let stream = Stream::new(handle);
                stream.connect(None, Some(Arc::new(file)), false);
                Some(stream)
            }
            None => None,
        };
        let mut chardev = Self {
            id: spec.id.clone(),
            kind: spec.kind.clone(),
            concrete,
            mux: None,
            log,
            taken: AtomicBool::new(false),
            _raw: raw,
        };
        Ok(Arc::new_cyclic(|me| {
            if spec.mux {
                chardev.mux = Some(Mux::new(me.clone(), handle));
            }
            chardev
        }))
    }

    /// Connects a device or monitor.
    ///
    /// # Errors
    /// When it has a user and is no multiplexer, or too many.
    pub fn frontend(self: &Arc<Self>) -> Result<CharFrontend, CharError> {
        let index = match &self.mux {
            Some(mux) => mux
                .add_user()
                .ok_or_else(|| CharError::MuxFull(self.id.clone()))?,
            None if self.taken.swap(true, Ordering::AcqRel) => {
                return Err(CharError::InUse(self.id.clone()));
            }
            None => 0,
        };
        Ok(CharFrontend {
            chardev: Arc::clone(self),
            index,
        })
    }

    /// Its id.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// What it is, for `query-chardev`: `pty:/dev/pts/3`, `unix:/run/x,server=on`.
    pub fn filename(&self) -> String {
        match &self.concrete {
            Concrete::Pty(pty) => format!("pty:{}", pty.path()),
            Concrete::Socket(socket) => socket.filename(),
            Concrete::Null(_)
            | Concrete::Stream(_)
            | Concrete::Ringbuf(_)
            | Concrete::Testdev(_) => self.kind.driver().to_owned(),
        }
    }

    /// The path to open for who wants to talk to a pseudo terminal.
    pub fn pty_path(&self) -> Option<&str> {
        match &self.concrete {
            Concrete::Pty(pty) => Some(pty.path()),
            _ => None,
        }
    }

    /// Whether a device or monitor uses it (`frontend-open` of `query-chardev`).
    pub fn is_used(&self) -> bool {
        self.mux
            .as_ref()
            .map_or_else(|| self.taken.load(Ordering::Acquire), |mux| mux.has_users())
    }

    /// Whether somebody is at the other end.
    pub fn is_open(&self) -> bool {
        self.backend().is_open()
    }

    /// Whether it is a multiplexer.
    pub fn is_mux(&self) -> bool {
        self.mux.is_some()
    }

    /// What the multiplexer's keys beside switching do: called on the loop.
    pub fn set_mux_command(&self, callback: impl Fn(MuxCommand) + Send + Sync + 'static) {
        if let Some(mux) = &self.mux {
            mux.set_command(Box::new(callback));
        }
    }

    /// The key before a multiplexer's commands (`-echr`), `Ctrl-A` at first.
    pub fn set_escape(&self, key: u8) {
        if let Some(mux) = &self.mux {
            mux.set_escape(key);
        }
    }

    /// What a test device does when the guest ends the process with a status: called with a device locked. Nothing for
    /// other streams.
    pub fn set_on_exit(&self, on_exit: impl Fn(u8) + Send + Sync + 'static) {
        if let Concrete::Testdev(testdev) = &self.concrete {
            testdev.set_on_exit(Box::new(on_exit));
        }
    }

    /// Takes the oldest output out of a ring buffer; `None` if this is none.
    pub fn ringbuf_read(&self, max: usize) -> Option<Vec<u8>> {
        match &self.concrete {
            Concrete::Ringbuf(ring) => Some(ring.take(max)),
            _ => None,
        }
    }

    /// Adds to a ring buffer as a device would; false if this is none.
    pub fn ringbuf_write(&self, data: &[u8]) -> bool {
        matches!(&self.concrete, Concrete::Ringbuf(_)) && self.backend().write(data) == data.len()
    }

    /// Writes out what is queued, waiting at most `limit`. For the end of the process: the guest's last words matter.
    pub fn flush(&self, limit: Duration) {
        let limit_ns = u64::try_from(limit.as_nanos()).unwrap_or(u64::MAX);
        let deadline = time::monotonic_ns().saturating_add(limit_ns);
        self.backend().flush(deadline);
        if let Some(log) = &self.log {
            log.flush(deadline);
        }
    }

    pub(crate) fn write(&self, index: usize, data: &[u8]) -> usize {
        match &self.mux {
            Some(mux) => mux.write(index, data),
            None => self.write_raw(data),
        }
    }

    pub(crate) fn write_raw(&self, data: &[u8]) -> usize {
        let taken = self.backend().write(data);
        if let Some(log) = &self.log {
            let _ = log.write(data.get(..taken).unwrap_or_default());
        }
        taken
    }

    pub(crate) fn attach(&self, index: usize, sink: Option<Arc<dyn CharSink>>) {
        match &self.mux {
            Some(mux) => mux.attach(index, sink),
            None => self.backend().set_sink(sink),
        }
    }

    pub(crate) fn release(&self, index: usize) {
        match &self.mux {
            Some(mux) => mux.remove_user(index),
            None => self.taken.store(false, Ordering::Release),
        }
    }

    pub(crate) fn take_focus(&self, index: usize) {
        if let Some(mux) = &self.mux {
            mux.take_focus(index);
        }
    }

    pub(crate) fn accept_input(&self, index: usize) {
        match &self.mux {
            Some(mux) => mux.accept_input(index),
            None => self.backend().accept_input(),
        }
    }

    pub(crate) fn backend(&self) -> &dyn Backend {
        match &self.concrete {
            Concrete::Null(null) => null,
            Concrete::Stream(stream) => &**stream,
            Concrete::Pty(pty) => &**pty,
            Concrete::Socket(socket) => &**socket,
            Concrete::Ringbuf(ring) => ring,
            Concrete::Testdev(testdev) => testdev,
        }
    }
}

fn failed(spec: &CharSpec, action: impl Into<String>) -> impl FnOnce(io::Error) -> CharError {
    let (id, action) = (spec.id.clone(), action.into());
    move |source| CharError::Open { id, action, source }
}

fn open_path(path: &Path, flags: OFlags) -> io::Result<OwnedFd> {
    let mode = Mode::RUSR | Mode::WUSR | Mode::RGRP | Mode::WGRP | Mode::ROTH | Mode::WOTH;
    Ok(rustix::fs::open(path, flags, mode)?)
}

fn open_file(path: &Path, append: bool) -> io::Result<OwnedFd> {
    let start = if append {
        OFlags::APPEND
    } else {
        OFlags::TRUNC
    };
    open_path(
        path,
        OFlags::WRONLY | OFlags::CREATE | OFlags::CLOEXEC | start,
    )
}

/// `path.in` and `path.out` if they exist, else `path` both ways.
fn open_pipe(path: &Path, handle: &Handle) -> io::Result<Arc<Stream>> {
    // Opened for both directions, a FIFO does not wait for its other end and never ends.
    let flags = OFlags::RDWR | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let with = |suffix: &str| {
        let mut name = path.as_os_str().to_owned();
        name.push(suffix);
        rustix::fs::open(&name, flags, Mode::empty()).ok()
    };
    let (read, write) = match (with(".in"), with(".out")) {
        (Some(read), Some(write)) => (Arc::new(read), Arc::new(write)),
        _ => {
            let both = Arc::new(open_path(path, flags)?);
            (Arc::clone(&both), both)
        }
    };
    let stream = Stream::new(handle);
    stream.connect(Some(read), Some(write), false);
    Ok(stream)
}

fn open_stdio(handle: &Handle) -> io::Result<Arc<Stream>> {
    let own = |fd: BorrowedFd<'_>, write| match private_nonblocking(fd, write) {
        Some(fd) => Ok(fd),
        None => fd.try_clone_to_owned(),
    };
    let read = own(io::stdin().as_fd(), false)?;
    let write = own(io::stdout().as_fd(), true)?;
    let stream = Stream::new(handle);
    stream.connect(Some(Arc::new(read)), Some(Arc::new(write)), false);
    Ok(stream)
}
