//! Files given to the guest: kernels, initrds, device trees.

use std::fs::File;
use std::io::{self, Error, ErrorKind, Read};
use std::os::unix::fs::FileExt;
use std::sync::{Arc, Mutex, PoisonError};

use crate::board::BoardError;

/// A file given to the guest: its path for messages, and its contents.
///
/// A kernel is needed again at each reset, and never in between. So a regular file stays open, and boards
/// say when what was read of it may be [forgotten](Self::forget).
#[derive(Clone, Debug)]
pub struct FileSpec {
    /// As written by the user.
    pub path: String,
    contents: Arc<Contents>,
}

#[derive(Debug)]
enum Contents {
    /// Of what can be read only once.
    Held(Arc<Vec<u8>>),
    Stored {
        file: File,
        len: usize,
        read: Mutex<Option<Arc<Vec<u8>>>>,
    },
}

impl FileSpec {
    /// What somebody has read already.
    pub fn held(path: impl Into<String>, bytes: Vec<u8>) -> Self {
        FileSpec {
            path: path.into(),
            contents: Arc::new(Contents::Held(Arc::new(bytes))),
        }
    }

    /// Opens a file.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn open(path: &str) -> io::Result<Self> {
        let mut file = File::open(path)?;
        let meta = file.metadata()?;
        if meta.is_dir() {
            return Err(Error::from(ErrorKind::IsADirectory));
        }
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        // The kernel's own files, as in /proc, do not say how long they are.
        if !meta.is_file() || meta.len() != bytes.len() as u64 {
            return Ok(Self::held(path, bytes));
        }
        let contents = Contents::Stored {
            file,
            len: bytes.len(),
            read: Mutex::new(Some(Arc::new(bytes))),
        };
        Ok(FileSpec {
            path: path.to_owned(),
            contents: Arc::new(contents),
        })
    }

    /// Bytes of the file.
    pub fn len(&self) -> usize {
        match &*self.contents {
            Contents::Held(bytes) => bytes.len(),
            Contents::Stored { len, .. } => *len,
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// What is in it.
    ///
    /// # Errors
    /// When it cannot be read any more, or has become shorter since it was opened.
    pub fn read(&self) -> io::Result<Arc<Vec<u8>>> {
        let (file, len, read) = match &*self.contents {
            Contents::Held(bytes) => return Ok(bytes.clone()),
            Contents::Stored { file, len, read } => (file, *len, read),
        };
        let mut last = read.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(bytes) = &*last {
            return Ok(bytes.clone());
        }
        let mut bytes = vec![0; len];
        file.read_exact_at(&mut bytes, 0)?;
        let bytes = Arc::new(bytes);
        *last = Some(bytes.clone());
        Ok(bytes)
    }

    /// Gives its memory back, until it is read again.
    pub fn forget(&self) {
        if let Contents::Stored { read, .. } = &*self.contents {
            *read.lock().unwrap_or_else(PoisonError::into_inner) = None;
        }
    }

    /// As [`read`](Self::read), for a board: `option` named the file.
    ///
    /// # Errors
    /// As there.
    pub fn contents(&self, option: &str) -> Result<Arc<Vec<u8>>, BoardError> {
        self.read().map_err(|e| {
            BoardError::Boot(format!("{option} {}: cannot read the file: {e}", self.path))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(name: &str) -> String {
        let name = format!("mimic-file-spec-{name}-{}", std::process::id());
        std::env::temp_dir().join(name).display().to_string()
    }

    #[test]
    fn a_file_is_read_again_even_if_its_name_is_anothers_by_then() {
        let path = path("again");
        std::fs::write(&path, b"kernel").unwrap();
        let file = FileSpec::open(&path).unwrap();
        let first = file.read().unwrap();
        assert!(Arc::ptr_eq(&first, &file.clone().read().unwrap()));
        file.forget();
        std::fs::remove_file(&path).unwrap();
        assert_eq!(file.read().unwrap().as_slice(), b"kernel");
        assert_eq!((file.len(), file.is_empty()), (6, false));
    }

    #[test]
    fn a_file_that_was_cut_short_is_an_error() {
        let path = path("short");
        std::fs::write(&path, b"kernel").unwrap();
        let file = FileSpec::open(&path).unwrap();
        file.forget();
        std::fs::write(&path, b"ker").unwrap();
        let error = file.read().unwrap_err();
        std::fs::remove_file(&path).unwrap();
        assert_eq!(error.kind(), ErrorKind::UnexpectedEof);
    }

    #[test]
    fn what_is_no_regular_file_is_read_once_and_kept() {
        let file = FileSpec::open("/dev/null").unwrap();
        assert!(file.is_empty());
        let file = FileSpec::open("/proc/version").unwrap();
        file.forget();
        assert!(file.len() > 5 && file.read().unwrap().starts_with(b"Linux"));
        assert!(FileSpec::open(std::env::temp_dir().to_str().unwrap()).is_err());
    }
}
