//! The process as a whole: going to the background, its pid file.

use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd, FromRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use rustix::fs::{FlockOperation, Mode, OFlags};

mod teardown;

pub use teardown::free_memory_behind;

/// The one-byte message with which the background process says that it is up.
const READY: u8 = b'+';

/// A process that has gone to the background, while the one the user started still waits for it.
#[derive(Debug)]
pub struct Daemon {
    parent: OwnedFd,
}

/// Goes to the background. The calling process waits until the new one says [`Daemon::ready`] and then ends with status
/// 0, or with 1 if it dies before: who started us finds the pid file and the sockets in place.
///
/// Call it before any thread is started: only the calling thread goes on.
///
/// # Errors
/// When the host refuses a process or a pipe.
pub fn daemonize() -> io::Result<Daemon> {
    let (from_child, to_parent) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
    if fork()? {
        drop(to_parent);
        let mut answer = [0];
        let ok = matches!(
            rustix::io::retry_on_intr(|| rustix::io::read(&from_child, &mut answer)),
            Ok(1)
        ) && answer == [READY];
        exit_now(i32::from(!ok));
    }
    drop(from_child);
    rustix::process::setsid()?;
    // A second fork: the process leads no session, so no terminal it opens becomes its own.
    if fork()? {
        exit_now(0);
    }
    Ok(Daemon { parent: to_parent })
}

impl Daemon {
    /// Leaves the starter's directory and streams, and lets the starter end.
    ///
    /// # Errors
    /// When `/` or `/dev/null` cannot be used, or the starter has gone.
    pub fn ready(self) -> io::Result<()> {
        rustix::process::chdir("/")?;
        let null = rustix::fs::open("/dev/null", OFlags::RDWR, Mode::empty())?;
        io::stdout().flush()?;
        rustix::stdio::dup2_stdin(null.as_fd())?;
        rustix::stdio::dup2_stdout(null.as_fd())?;
        rustix::stdio::dup2_stderr(null.as_fd())?;
        rustix::io::write(&self.parent, &[READY])?;
        Ok(())
    }
}

/// True in the parent.
fn fork() -> io::Result<bool> {
    // SAFETY: no other thread exists (documented), so the child inherits no lock in an unknown state.
    match unsafe { libc::fork() } {
        -1 => Err(io::Error::last_os_error()),
        0 => Ok(false),
        _ => Ok(true),
    }
}

/// Ends without running exit handlers: those are the background process's.
fn exit_now(status: i32) -> ! {
    // SAFETY: `_exit` takes any status and does not return.
    unsafe { libc::_exit(status) }
}

/// Takes over descriptor `number`, which whoever started us left open for us (`fd=26`).
///
/// # Errors
/// When it is not open, is a standard stream, or is in use already.
pub fn take_inherited_fd(number: i32) -> io::Result<OwnedFd> {
    use rustix::io::{FdFlags, fcntl_getfd, fcntl_setfd};
    let refuse = |why| Err(io::Error::new(io::ErrorKind::InvalidInput, why));
    if number < 3 {
        return refuse("a descriptor below 3 is a standard stream");
    }
    // SAFETY: the borrow ends with this call, and the kernel checks the number.
    let probe = unsafe { BorrowedFd::borrow_raw(number) };
    // Every descriptor opened by this process is close-on-exec; one that crossed an exec cannot be. So the flag
    // tells ours from theirs, and setting it makes a second taking fail.
    if fcntl_getfd(probe)?.contains(FdFlags::CLOEXEC) {
        return refuse("the descriptor is in use already");
    }
    fcntl_setfd(probe, FdFlags::CLOEXEC)?;
    // SAFETY: it is open, and by the argument above nothing else in this process owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

/// Makes a panic on any thread the end of the process: the terminal is restored, the message shown, `last_words` called
/// with it on the thread that panicked (to write a state dump and flush the disks), and the exit status is 1. Other threads
/// that panic meanwhile wait for that end; a panic of `last_words` itself is the end at once.
pub fn exit_on_panic(last_words: impl Fn(&str) + Send + Sync + 'static) {
    let ending = OnceLock::new();
    let report = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        crate::terminal::restore();
        report(info);
        let me = std::thread::current();
        if ending.set(me.id()).is_ok() {
            let name = me.name().unwrap_or("without a name");
            let stack = std::backtrace::Backtrace::force_capture();
            last_words(&format!("thread '{name}': {info}\n{stack}"));
            std::process::exit(1);
        }
        if ending.get() == Some(&me.id()) {
            exit_now(1);
        }
        loop {
            std::thread::park();
        }
    }));
}

/// A file holding our process id, locked while we live and removed on drop.
#[derive(Debug)]
pub struct PidFile {
    path: PathBuf,
    _locked: OwnedFd,
}

/// Why there is no pid file.
#[derive(Debug, thiserror::Error)]
pub enum PidFileError {
    /// A living process holds it.
    #[error("pid file '{0}' is locked by another running process")]
    Locked(String),
    /// The host's reason.
    #[error("cannot write pid file '{0}'")]
    Write(String, #[source] io::Error),
}

impl PidFile {
    /// Writes our process id into `path`. Call it in the process that stays (after [`daemonize`]).
    ///
    /// # Errors
    /// When another process has it locked, or it cannot be written.
    pub fn create(path: &Path) -> Result<Self, PidFileError> {
        let name = || path.display().to_string();
        let fail = |e: rustix::io::Errno| PidFileError::Write(name(), e.into());
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::CLOEXEC;
        let fd = rustix::fs::open(
            path,
            flags,
            Mode::RUSR | Mode::WUSR | Mode::RGRP | Mode::ROTH,
        )
        .map_err(fail)?;
        match rustix::fs::flock(&fd, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => return Err(PidFileError::Locked(name())),
            Err(e) => return Err(fail(e)),
        }
        rustix::fs::ftruncate(&fd, 0).map_err(fail)?;
        let text = format!("{}\n", std::process::id());
        rustix::io::write(&fd, text.as_bytes()).map_err(fail)?;
        // The process may change its directory; the file stays where it is.
        let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
        Ok(Self { path, _locked: fd })
    }
}

impl Drop for PidFile {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pid_file_holds_the_id_is_locked_and_goes_away() {
        let path = std::env::temp_dir().join(format!("mimic-pidfile-test-{}", std::process::id()));
        let file = PidFile::create(&path).unwrap();
        assert_eq!(
            std::fs::read_to_string(&path).unwrap(),
            format!("{}\n", std::process::id())
        );
        assert!(matches!(
            PidFile::create(&path),
            Err(PidFileError::Locked(_))
        ));
        drop(file);
        assert!(!path.exists());
    }

    #[test]
    fn an_inherited_descriptor_is_taken_once() {
        use std::os::fd::{AsRawFd, IntoRawFd};
        let (r, _w) = rustix::pipe::pipe().unwrap();
        let number = rustix::io::fcntl_dupfd_cloexec(&r, 10)
            .unwrap()
            .into_raw_fd();
        assert!(take_inherited_fd(number).is_err());
        // SAFETY: the number is open and owned by nobody since `into_raw_fd`.
        let fd = unsafe { BorrowedFd::borrow_raw(number) };
        rustix::io::fcntl_setfd(fd, rustix::io::FdFlags::empty()).unwrap();
        let taken = take_inherited_fd(number).unwrap();
        assert_eq!(taken.as_raw_fd(), number);
        assert!(take_inherited_fd(number).is_err());
        assert!(take_inherited_fd(1).is_err() && take_inherited_fd(9999).is_err());
    }

    #[test]
    fn a_pid_file_in_a_missing_folder_is_refused_with_its_name() {
        let e = PidFile::create(Path::new("/nonexistent/x.pid")).unwrap_err();
        assert_eq!(e.to_string(), "cannot write pid file '/nonexistent/x.pid'");
    }
}
