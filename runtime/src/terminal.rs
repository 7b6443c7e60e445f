//! The process's terminal: raw while a guest has it, restored whatever happens.
//!
//! There is one controlling terminal per process, and a signal handler can only reach it through a static: the
//! saved settings are the one global of this crate.

use std::io::{self, IsTerminal};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicPtr, Ordering};
use std::{mem, ptr};

use rustix::termios::{InputModes, LocalModes, OptionalActions, OutputModes, Termios};
use rustix::termios::{SpecialCodeIndex, tcgetattr, tcsetattr};

/// The terminal and what it was before; reached by the panic hook, `atexit` and fatal signals.
struct Saved {
    fd: OwnedFd,
    before: Termios,
    raw: Termios,
}

static SAVED: AtomicPtr<Saved> = AtomicPtr::new(ptr::null_mut());
static IN_USE: AtomicBool = AtomicBool::new(false);

/// Signals that end the process at once; the terminal is restored before they do.
const FATAL: [libc::c_int; 6] = [
    libc::SIGSEGV,
    libc::SIGBUS,
    libc::SIGILL,
    libc::SIGFPE,
    libc::SIGABRT,
    libc::SIGTRAP,
];

/// What those signals did before, so that Rust's stack overflow report and core dumps stay.
static OLD_ACTIONS: OnceLock<[libc::sigaction; FATAL.len()]> = OnceLock::new();

/// The terminal in raw mode until dropped.
///
/// Also restored by a panic on any thread, `exit`, and fatal signals; the ordinary ones (`SIGTERM`, ...) are the
/// business of [`crate::signals`], which ends the main loop and so drops this.
#[derive(Debug)]
pub struct RawMode(());

/// Why the terminal could not be taken.
#[derive(Debug, thiserror::Error)]
pub enum TerminalError {
    /// Someone else in this process has it.
    #[error("the terminal is in use by another character device")]
    InUse,
    /// The host refused.
    #[error("cannot set the terminal's mode")]
    Mode(#[source] io::Error),
}

impl RawMode {
    /// Takes `tty` (standard input, as a rule) into raw mode: no echo, no line editing; with `signals`, `Ctrl-C`,
    /// `Ctrl-\` and `Ctrl-Z` still make signals. If it is no terminal there is nothing to do, and `Ok(None)`.
    ///
    /// # Errors
    /// When it is taken already, or the host refuses.
    pub fn enter(tty: BorrowedFd<'_>, signals: bool) -> Result<Option<Self>, TerminalError> {
        if !tty.is_terminal() {
            return Ok(None);
        }
        if IN_USE.swap(true, Ordering::AcqRel) {
            return Err(TerminalError::InUse);
        }
        let release = |e: io::Error| {
            IN_USE.store(false, Ordering::Release);
            TerminalError::Mode(e)
        };
        let fd = tty.try_clone_to_owned().map_err(release)?;
        let before = tcgetattr(&fd).map_err(|e| release(e.into()))?;
        let raw = raw_settings(before.clone(), signals);
        install_restorers();
        let saved = Box::into_raw(Box::new(Saved {
            fd: fd.try_clone().map_err(release)?,
            before,
            raw: raw.clone(),
        }));
        SAVED.store(saved, Ordering::Release);
        let guard = Self(());
        tcsetattr(&fd, OptionalActions::Now, &raw).map_err(|e| TerminalError::Mode(e.into()))?;
        Ok(Some(guard))
    }
}

impl Drop for RawMode {
    fn drop(&mut self) {
        restore();
        IN_USE.store(false, Ordering::Release);
    }
}

fn raw_settings(mut t: Termios, signals: bool) -> Termios {
    t.input_modes.remove(
        InputModes::IGNBRK
            | InputModes::BRKINT
            | InputModes::PARMRK
            | InputModes::ISTRIP
            | InputModes::INLCR
            | InputModes::IGNCR
            | InputModes::ICRNL
            | InputModes::IXON,
    );
    // Output processing stays: messages of ours end in a plain line feed.
    t.output_modes.insert(OutputModes::OPOST);
    t.local_modes
        .remove(LocalModes::ECHO | LocalModes::ECHONL | LocalModes::ICANON | LocalModes::IEXTEN);
    if !signals {
        t.local_modes.remove(LocalModes::ISIG);
    }
    t.special_codes[SpecialCodeIndex::VMIN] = 1;
    t.special_codes[SpecialCodeIndex::VTIME] = 0;
    t
}

/// Puts the terminal back now, as it was before [`RawMode::enter`]. Harmless when there is nothing to restore; safe
/// in a signal handler.
pub fn restore() {
    let saved = SAVED.swap(ptr::null_mut(), Ordering::AcqRel);
    if !saved.is_null() {
        // SAFETY: the pointer came from `Box::into_raw` and the swap gave it to this caller alone. It is leaked, not
        // freed: freeing is not allowed in a signal handler, and the process is about to end or has one terminal.
        let saved = unsafe { &*saved };
        let _ = tcsetattr(&saved.fd, OptionalActions::Now, &saved.before);
    }
}

/// Takes the terminal into raw mode again after the process was stopped and continued (`SIGCONT`).
pub fn resume() {
    let saved = SAVED.load(Ordering::Acquire);
    if !saved.is_null() {
        // SAFETY: what `SAVED` points at is never freed (see `restore`).
        let saved = unsafe { &*saved };
        let _ = tcsetattr(&saved.fd, OptionalActions::Now, &saved.raw);
    }
}

/// Opens the file behind `fd` anew with its own `O_NONBLOCK`, if it is a terminal or a pipe: the flag set on a shared
/// description would change it for the shell that started us, too.
pub fn private_nonblocking(fd: BorrowedFd<'_>, write: bool) -> Option<OwnedFd> {
    use rustix::fs::{FileType, Mode, OFlags, fstat, open};
    use std::os::fd::AsRawFd;
    let kind = FileType::from_raw_mode(fstat(fd).ok()?.st_mode);
    if !(fd.is_terminal() || kind == FileType::Fifo) {
        return None;
    }
    let direction = if write {
        OFlags::WRONLY
    } else {
        OFlags::RDONLY
    };
    let path = format!("/proc/self/fd/{}", fd.as_raw_fd());
    open(
        path,
        direction | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC,
        Mode::empty(),
    )
    .ok()
}

/// Columns and rows of the terminal on standard output.
pub fn size() -> Option<(u16, u16)> {
    let size = rustix::termios::tcgetwinsize(io::stdout().as_fd()).ok()?;
    Some((size.ws_col, size.ws_row))
}

extern "C" fn at_exit() {
    restore();
}

extern "C" fn on_fatal(signal: libc::c_int, info: *mut libc::siginfo_t, _: *mut libc::c_void) {
    restore();
    // SAFETY: with SA_SIGINFO the kernel passes a valid `info`.
    let sent = unsafe { (*info).si_code } <= 0;
    if sent {
        // It does not come again by itself, and the old action may wait for just that.
        // SAFETY: both may be called in a handler; the signal stays pending until it returns.
        unsafe {
            libc::signal(signal, libc::SIG_DFL);
            libc::raise(signal);
        }
        return;
    }
    // A fault comes again when the handler returns, now to the old action.
    let old = FATAL
        .iter()
        .position(|s| *s == signal)
        .and_then(|at| OLD_ACTIONS.get()?.get(at));
    if let Some(old) = old {
        // SAFETY: `old` was filled in by `sigaction` and is never written again.
        unsafe { libc::sigaction(signal, old, ptr::null_mut()) };
    }
}

fn install_restorers() {
    OLD_ACTIONS.get_or_init(|| {
        let hook = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            restore();
            hook(info);
        }));
        // SAFETY: `at_exit` has the signature that `atexit` asks for.
        unsafe { libc::atexit(at_exit) };
        FATAL.map(|signal| {
            // SAFETY: all-zero is a valid `sigaction` (default action, empty mask).
            let mut new: libc::sigaction = unsafe { mem::zeroed() };
            new.sa_sigaction = on_fatal as *const () as libc::sighandler_t;
            new.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
            // SAFETY: as above.
            let mut old: libc::sigaction = unsafe { mem::zeroed() };
            // SAFETY: both point to valid structures; the handler only uses what is safe in one.
            unsafe { libc::sigaction(signal, &raw const new, &raw mut old) };
            old
        })
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};

    fn pty() -> (OwnedFd, OwnedFd) {
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        grantpt(&master).unwrap();
        unlockpt(&master).unwrap();
        let name = ptsname(&master, Vec::new()).unwrap();
        let flags = rustix::fs::OFlags::RDWR | rustix::fs::OFlags::NOCTTY;
        let slave = rustix::fs::open(name, flags, rustix::fs::Mode::empty()).unwrap();
        (master, slave)
    }

    // One test, because the terminal is one per process.
    #[test]
    fn the_terminal_is_raw_while_held_and_restored_by_drop_and_by_a_panic() {
        let (_master, tty) = pty();
        let lines = |fd: &OwnedFd| {
            tcgetattr(fd)
                .unwrap()
                .local_modes
                .contains(LocalModes::ICANON)
        };
        let guard = RawMode::enter(tty.as_fd(), false).unwrap();
        assert!(guard.is_some() && !lines(&tty));
        assert!(matches!(
            RawMode::enter(tty.as_fd(), false),
            Err(TerminalError::InUse)
        ));
        drop(guard);
        assert!(lines(&tty));

        let guard = RawMode::enter(tty.as_fd(), true).unwrap();
        assert!(
            !lines(&tty)
                && tcgetattr(&tty)
                    .unwrap()
                    .local_modes
                    .contains(LocalModes::ISIG)
        );
        let _ = std::thread::spawn(|| panic!("on purpose")).join();
        assert!(lines(&tty));
        drop(guard);

        let file = std::fs::File::open("/dev/null").unwrap();
        assert!(RawMode::enter(file.as_fd(), false).unwrap().is_none());
    }

    #[test]
    fn a_private_description_does_not_change_the_shared_one() {
        let (r, _w) = rustix::pipe::pipe().unwrap();
        let own = private_nonblocking(r.as_fd(), false).unwrap();
        let nonblocking = |fd: &OwnedFd| {
            rustix::fs::fcntl_getfl(fd)
                .unwrap()
                .contains(rustix::fs::OFlags::NONBLOCK)
        };
        assert!(nonblocking(&own) && !nonblocking(&r));
    }
}
