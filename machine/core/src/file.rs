//! Files given to the guest: kernels, initrds, device trees.

use std::fs::File;
use std::io::{self, Error, ErrorKind, Read};
use std::os::unix::fs::FileExt;
use std::sync::{Arc, Mutex, PoisonError};

use crate::board::BoardError;

/// Bytes that are copied at a time: within the host's caches.
const PIECE: usize = 256 << 10;

/// A file given to the guest: its path for messages, and its contents.
///
/// A kernel is needed again at each reset, and never in between. So a regular file stays open, is read when it is
/// needed, and boards say when what was read of it may be [forgotten](Self::forget). What goes into memory as it is
/// they [copy](Self::copy) in pieces.
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
        let len = usize::try_from(meta.len()).map_err(|_| ErrorKind::FileTooLarge)?;
        // The kernel's own files, as in /proc, do not say how long they are.
        if !meta.is_file() || len == 0 {
            let mut bytes = Vec::new();
            file.read_to_end(&mut bytes)?;
            return Ok(Self::held(path, bytes));
        }
        let read = Mutex::new(None);
        let contents = Contents::Stored { file, len, read };
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
        let (len, read) = match &*self.contents {
            Contents::Held(bytes) => return Ok(bytes.clone()),
            Contents::Stored { len, read, .. } => (*len, read),
        };
        let mut last = read.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(bytes) = &*last {
            return Ok(bytes.clone());
        }
        // A file may be larger than the host's memory.
        let mut bytes = Vec::new();
        bytes
            .try_reserve_exact(len)
            .map_err(|_| ErrorKind::OutOfMemory)?;
        self.copy(|_, piece| {
            bytes.extend_from_slice(piece);
            Ok(())
        })?;
        let bytes = Arc::new(bytes);
        *last = Some(bytes.clone());
        Ok(bytes)
    }

    /// Its first bytes: as many, if there are.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    pub fn head(&self, most: usize) -> io::Result<Vec<u8>> {
        match &*self.contents {
            Contents::Held(bytes) => Ok(bytes.iter().copied().take(most).collect()),
            Contents::Stored { file, len, .. } => {
                let mut bytes = vec![0; most.min(*len)];
                file.read_exact_at(&mut bytes, 0)?;
                Ok(bytes)
            }
        }
    }

    /// Hands all of it over, with the offset of each piece, without ever having it in memory.
    ///
    /// # Errors
    /// As [`read`](Self::read), and what `put` says.
    pub fn copy(&self, mut put: impl FnMut(u64, &[u8]) -> io::Result<()>) -> io::Result<()> {
        let (file, len) = match &*self.contents {
            Contents::Held(bytes) => return put(0, bytes),
            Contents::Stored { file, len, .. } => (file, *len as u64),
        };
        let mut buffer = vec![0; PIECE];
        for offset in (0..len).step_by(PIECE) {
            let left = usize::try_from(len - offset).unwrap_or(PIECE);
            let piece = &mut buffer[..left.min(PIECE)];
            file.read_exact_at(piece, offset)?;
            put(offset, piece)?;
        }
        Ok(())
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
    fn a_file_is_copied_in_pieces_and_has_a_head() {
        let path = path("pieces");
        let bytes: Vec<u8> = (0..PIECE + 1000).map(|n| (n % 251) as u8).collect();
        std::fs::write(&path, &bytes).unwrap();
        let file = FileSpec::open(&path).unwrap();
        let held = FileSpec::held("x", bytes.clone());
        for file in [&file, &held] {
            let mut copied = Vec::new();
            let copy = file.copy(|offset, piece| {
                assert_eq!(offset, copied.len() as u64);
                copied.extend_from_slice(piece);
                Ok(())
            });
            copy.unwrap();
            assert!(copied == bytes);
            assert_eq!(file.head(100).unwrap(), bytes[..100]);
            assert!(
                file.copy(|_, _| Err(ErrorKind::OutOfMemory.into()))
                    .is_err()
            );
        }
        std::fs::write(&path, &bytes[..PIECE]).unwrap();
        assert!(file.copy(|_, _| Ok(())).is_err());
        std::fs::remove_file(&path).unwrap();
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
