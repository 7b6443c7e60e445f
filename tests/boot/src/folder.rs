//! A folder of one test's own.

use std::path::{Path, PathBuf};

use crate::Error;

/// A new folder for files, sockets or a working directory, shared with no other test; it goes away
/// with the value.
#[derive(Debug)]
pub struct Folder(PathBuf);

impl Folder {
    /// Makes it among the host's temporary files.
    pub fn new() -> Result<Self, Error> {
        Self::within(&std::env::temp_dir())
    }

    /// Makes it in this folder.
    pub fn within(base: &Path) -> Result<Self, Error> {
        let pid = std::process::id();
        for n in 0_u32.. {
            let folder = base.join(format!("mimic-test-{pid}-{n}"));
            match std::fs::create_dir(&folder) {
                Ok(()) => return Ok(Self(folder)),
                Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(error.into()),
            }
        }
        Err(Error::Host(std::io::ErrorKind::AlreadyExists.into()))
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Where a file in it is.
    pub fn join(&self, name: impl AsRef<Path>) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
