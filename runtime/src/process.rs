//! The process as a whole: going to the background, its pid file.

use std::io::{self, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, Mode, OFlags};

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
    fn a_pid_file_in_a_missing_folder_is_refused_with_its_name() {
        let e = PidFile::create(Path::new("/nonexistent/x.pid")).unwrap_err();
        assert_eq!(e.to_string(), "cannot write pid file '/nonexistent/x.pid'");
    }
}
