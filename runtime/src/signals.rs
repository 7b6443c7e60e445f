//! Signals that ask the process to end, delivered to an event loop instead of interrupting a thread.

use std::io;
use std::os::fd::{FromRawFd, OwnedFd};
use std::sync::Arc;
use std::{mem, ptr};

use crate::event_loop::{Handle, Interest, Watch};

/// A signal the main loop is told of.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Signal {
    /// `SIGINT`: `Ctrl-C` on a terminal with signals.
    Int,
    /// `SIGTERM`: how `virsh destroy` and service managers ask.
    Term,
    /// `SIGHUP`: the terminal went away.
    Hup,
    /// `SIGQUIT`: `Ctrl-\`.
    Quit,
    /// `SIGUSR1`.
    Usr1,
    /// `SIGUSR2`.
    Usr2,
    /// `SIGCONT`: the process was stopped and goes on.
    Cont,
    /// `SIGWINCH`: the terminal changed size.
    Winch,
}

impl Signal {
    const ALL: [Self; 8] = [
        Self::Int,
        Self::Term,
        Self::Hup,
        Self::Quit,
        Self::Usr1,
        Self::Usr2,
        Self::Cont,
        Self::Winch,
    ];

    /// The host's number.
    pub fn number(self) -> i32 {
        match self {
            Self::Int => libc::SIGINT,
            Self::Term => libc::SIGTERM,
            Self::Hup => libc::SIGHUP,
            Self::Quit => libc::SIGQUIT,
            Self::Usr1 => libc::SIGUSR1,
            Self::Usr2 => libc::SIGUSR2,
            Self::Cont => libc::SIGCONT,
            Self::Winch => libc::SIGWINCH,
        }
    }
}

/// A signal as it arrived.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Received {
    /// Which.
    pub signal: Signal,
    /// The sender's process id; 0 when the kernel sent it.
    pub sender: u32,
}

/// Signals blocked for every thread and watched by one loop, until dropped.
#[derive(Debug)]
pub struct SignalWatch {
    _watch: Watch,
}

/// Blocks `signals` for the calling thread and those it starts from now on, and hands them to `callback` on the
/// loop. Call it before any other thread exists: a thread that does not block a signal may be ended by it.
///
/// # Errors
/// When the host refuses the mask or the descriptor.
pub fn watch(
    signals: &[Signal],
    handle: &Handle,
    mut callback: impl FnMut(Received) + Send + 'static,
) -> io::Result<SignalWatch> {
    let fd = Arc::new(block(signals)?);
    let source = Arc::clone(&fd);
    let watch = handle.watch(fd, Interest::READ, move |_| {
        while let Some(received) = read_one(&source) {
            callback(received);
        }
    });
    Ok(SignalWatch { _watch: watch })
}

fn block(signals: &[Signal]) -> io::Result<OwnedFd> {
    // SAFETY: all-zero is a valid `sigset_t`; `sigemptyset` sets it properly.
    let mut set: libc::sigset_t = unsafe { mem::zeroed() };
    // SAFETY: `set` is valid and writable.
    unsafe { libc::sigemptyset(&raw mut set) };
    for signal in signals {
        // SAFETY: as above, and the number is a signal's.
        unsafe { libc::sigaddset(&raw mut set, signal.number()) };
    }
    // SAFETY: `set` is initialised; the old mask is not wanted.
    let status = unsafe { libc::pthread_sigmask(libc::SIG_BLOCK, &raw const set, ptr::null_mut()) };
    if status != 0 {
        return Err(io::Error::from_raw_os_error(status));
    }
    // SAFETY: `set` is initialised; -1 asks for a new descriptor.
    let fd = unsafe { libc::signalfd(-1, &raw const set, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel just gave us this descriptor; nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn read_one(fd: &OwnedFd) -> Option<Received> {
    let mut record = [0; mem::size_of::<libc::signalfd_siginfo>()];
    if rustix::io::read(fd, &mut record).ok()? != record.len() {
        return None;
    }
    // SAFETY: the kernel filled one whole record, and every bit pattern is a valid one.
    let info: libc::signalfd_siginfo = unsafe { ptr::read_unaligned(record.as_ptr().cast()) };
    let signal = Signal::ALL
        .into_iter()
        .find(|s| u32::try_from(s.number()) == Ok(info.ssi_signo))?;
    // A code above zero means that the kernel sent it.
    let sender = if info.ssi_code <= 0 { info.ssi_pid } else { 0 };
    Some(Received { signal, sender })
}

/// Makes writes to a closed pipe or socket an error instead of the end of the process.
pub fn ignore_sigpipe() {
    // SAFETY: `SIG_IGN` is a valid disposition.
    unsafe { libc::signal(libc::SIGPIPE, libc::SIG_IGN) };
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::EventLoop;
    use std::sync::mpsc;

    #[test]
    fn a_signal_reaches_the_loop_with_its_sender() {
        let mut event_loop = EventLoop::new().unwrap();
        let (tx, rx) = mpsc::channel();
        let _watch = watch(&[Signal::Usr2], &event_loop.handle(), move |r| {
            tx.send(r).unwrap()
        })
        .unwrap();
        // To this thread, which blocks it: other threads of the test process do not.
        // SAFETY: the thread is alive and the signal is valid.
        unsafe { libc::pthread_kill(libc::pthread_self(), libc::SIGUSR2) };
        event_loop.turn(None);
        let got = rx.try_recv().unwrap();
        assert_eq!(
            got,
            Received {
                signal: Signal::Usr2,
                sender: std::process::id()
            }
        );
    }
}
