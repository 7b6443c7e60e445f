//! Where files are opened and made: by their names, or in a set of those that others opened for us.

use std::fs::{File, OpenOptions};
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use backend_block::OpenError;
use runtime::FdSets;
use runtime::fd_sets::set_of;

use crate::{lock, locked};

/// Where a file is opened.
pub(crate) enum Source {
    Path(PathBuf),
    /// In a set of files that were opened for us.
    Set(FdSets, u32),
}

impl Source {
    pub(crate) fn of(name: &str, fds: &FdSets) -> Self {
        match set_of(name) {
            Some(set) => Source::Set(fds.clone(), set),
            None => Source::Path(PathBuf::from(name)),
        }
    }

    pub(crate) fn open(&self, read_only: bool, flags: libc::c_int) -> std::io::Result<File> {
        match self {
            Source::Path(path) => open_path(path, read_only, flags),
            Source::Set(fds, set) => fds.open(*set, read_only, flags),
        }
    }

    /// The same file, opened another time: its name may lead elsewhere by now, or nowhere.
    pub(crate) fn again(
        &self,
        file: &File,
        read_only: bool,
        flags: libc::c_int,
    ) -> std::io::Result<File> {
        match self {
            Source::Path(_) => {
                let path = format!("/proc/self/fd/{}", file.as_raw_fd());
                open_path(Path::new(&path), read_only, flags)
            }
            Source::Set(..) => self.open(read_only, flags),
        }
    }
}

fn open_path(path: &Path, read_only: bool, flags: libc::c_int) -> std::io::Result<File> {
    OpenOptions::new()
        .read(true)
        .write(!read_only)
        .custom_flags(flags | libc::O_CLOEXEC)
        .open(path)
}

/// Makes an empty file, or empties one that nobody uses.
///
/// # Errors
/// The host's reason, or that the file is in use.
pub fn create(path: &Path) -> Result<(), OpenError> {
    create_in(path, &FdSets::default()).map(drop)
}

/// The same, with the file, which may be one of those that others opened for us.
///
/// # Errors
/// As [`create`].
pub fn create_in(path: &Path, fds: &FdSets) -> Result<File, OpenError> {
    let name = path.display().to_string();
    let host = |source| OpenError::Host {
        file: name.clone(),
        source,
    };
    let other = || OpenError::image(&name, "it is no regular file");
    let file = match Source::of(&name, fds) {
        Source::Path(path) => {
            if std::fs::metadata(&path).is_ok_and(|kind| !kind.is_file()) {
                return Err(other());
            }
            let mut how = OpenOptions::new();
            how.read(true).write(true).create(true).truncate(false);
            how.open(path).map_err(host)?
        }
        source => {
            let file = source.open(false, 0).map_err(host)?;
            if !file.metadata().map_err(host)?.is_file() {
                return Err(other());
            }
            file
        }
    };
    lock::take(&file, false, false).map_err(|conflict| locked(&name, conflict))?;
    file.set_len(0).map_err(host)?;
    Ok(file)
}
