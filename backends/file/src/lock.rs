//! Locking an image against other processes, in QEMU's way.
//!
//! For each thing a user does to an image there is a byte that it holds a shared lock on, from 100
//! on, and for each thing that it does not let others do one from 200 on. Whoever comes later looks
//! whether the opposite bytes are locked. Open file description locks: they belong to the open file,
//! not to the process, and end with it.

use std::fs::File;
use std::os::fd::{AsRawFd, RawFd};

/// Bytes of what is done.
const USED: i64 = 100;
/// Bytes of what others may not do.
const UNSHARED: i64 = 200;
const READ: (i64, &str) = (0, "consistent read");
const WRITE: (i64, &str) = (1, "write");
const RESIZE: (i64, &str) = (3, "resize");

/// What stands against it.
pub(crate) struct Conflict {
    pub(crate) lock: &'static str,
    /// ` (pid 7)`, or nothing when it is not known.
    pub(crate) holder: String,
}

fn request(kind: libc::c_int, byte: i64) -> libc::flock {
    // SAFETY: `flock` is a plain C struct for which all zeros are a value.
    let mut lock: libc::flock = unsafe { std::mem::zeroed() };
    lock.l_type = kind as libc::c_short;
    lock.l_whence = libc::SEEK_SET as libc::c_short;
    lock.l_start = byte;
    lock.l_len = 1;
    lock
}

/// Locks as asked for. File systems without locks have nothing to conflict.
fn set(fd: RawFd, lock: &libc::flock) {
    // SAFETY: `fd` is open for the call, `lock` is a valid lock description that outlives it.
    let result = unsafe { libc::fcntl(fd, libc::F_OFD_SETLK, std::ptr::from_ref(lock)) };
    if result != 0 {
        log::debug!(
            "no lock on byte {} of the image: {}",
            lock.l_start,
            std::io::Error::last_os_error()
        );
    }
}

/// A shared lock on one byte.
fn share(fd: RawFd, byte: i64) {
    set(fd, &request(libc::F_RDLCK, byte));
}

/// Gives all locks of an open image back.
pub(crate) fn release(file: &File) {
    let mut lock = request(libc::F_UNLCK, USED);
    lock.l_len = UNSHARED;
    set(file.as_raw_fd(), &lock);
}

/// Whether another open file holds any lock on this byte.
fn is_held(fd: RawFd, byte: i64) -> bool {
    let mut lock = request(libc::F_WRLCK, byte);
    // SAFETY: as in `set`; the kernel writes to `lock`.
    let result = unsafe { libc::fcntl(fd, libc::F_OFD_GETLK, &raw mut lock) };
    result == 0 && libc::c_int::from(lock.l_type) != libc::F_UNLCK
}

/// Locks an open image for as long as it is open.
pub(crate) fn take(file: &File, read_only: bool, share_rw: bool) -> Result<(), Conflict> {
    let fd = file.as_raw_fd();
    let used: &[_] = if read_only { &[READ] } else { &[READ, WRITE] };
    let unshared: &[_] = if share_rw {
        &[RESIZE]
    } else {
        &[WRITE, RESIZE]
    };
    // First lock, then look: of two that come at once at least one sees the other.
    used.iter()
        .for_each(|(bit, _)| share(fd, USED.saturating_add(*bit)));
    unshared
        .iter()
        .for_each(|(bit, _)| share(fd, UNSHARED.saturating_add(*bit)));
    let against = used
        .iter()
        .map(|what| (UNSHARED, what))
        .chain(unshared.iter().map(|what| (USED, what)))
        .find(|(base, (bit, _))| is_held(fd, base.saturating_add(*bit)));
    match against {
        None => Ok(()),
        Some((_, (_, lock))) => Err(Conflict {
            lock,
            holder: holder(file).unwrap_or_default(),
        }),
    }
}

/// The process that has the same file open, if `/proc` shows one to us.
fn holder(file: &File) -> Option<String> {
    use std::os::unix::fs::MetadataExt;
    let ours = file.metadata().ok()?;
    let own = std::process::id();
    for process in std::fs::read_dir("/proc").ok()?.flatten() {
        let name = process.file_name();
        let Some(pid) = name.to_str().and_then(|n| n.parse::<u32>().ok()) else {
            continue;
        };
        let Ok(files) = std::fs::read_dir(process.path().join("fd")) else {
            continue;
        };
        let same = files.flatten().any(|f| {
            std::fs::metadata(f.path())
                .is_ok_and(|m| m.dev() == ours.dev() && m.ino() == ours.ino())
        });
        if same && pid != own {
            return Some(format!(" (pid {pid})"));
        }
    }
    None
}
