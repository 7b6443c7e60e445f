//! Raw disk images in files and block devices of the host (`driver=file`, `format=raw`).
//!
//! Requests run on a few threads with positioned reads and writes. The image is locked byte by byte
//! like QEMU does it, so that neither program writes to an image that the other one uses.
//!
//! Formats are never guessed here: whoever says `raw` gets the bytes as they are.
#![allow(unsafe_code)]
#![deny(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects
)]
#![cfg_attr(
    test,
    allow(
        clippy::unwrap_used,
        clippy::indexing_slicing,
        clippy::arithmetic_side_effects
    )
)]

mod io;
mod lock;
#[cfg(test)]
mod tests;

use std::fs::{File, OpenOptions};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::PathBuf;
use std::sync::Arc;

use backend_block::{Block, BlockInfo, Request, SECTOR, Workers};

use crate::io::Image;

/// Threads that carry out requests of one image.
const THREADS: usize = 4;

/// Why an image cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The host refuses.
    #[error("cannot open disk image '{file}'")]
    Open {
        /// File name.
        file: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A directory, a pipe, ...
    #[error("'{0}' is neither a regular file nor a block device")]
    NotADisk(String),
    /// Another process has the image.
    #[error(
        "disk image '{file}' is in use: cannot get the \"{lock}\" lock; end the other process{holder}, or give both share-rw=on or read-only=on"
    )]
    Locked {
        /// File name.
        file: String,
        /// `write`, `consistent read`, ...
        lock: &'static str,
        /// Who it is, if known: ` (pid 7)`.
        holder: String,
    },
    /// Only raw images are understood.
    #[error(
        "disk image '{file}': format '{format}' is not supported; convert it with 'qemu-img convert -O raw' and use format=raw"
    )]
    Format {
        /// File name.
        file: String,
        /// What was asked for.
        format: String,
    },
    /// Only threads carry out requests.
    #[error("disk image '{file}': aio={aio} is not supported; use aio=threads")]
    Aio {
        /// File name.
        file: String,
        /// What was asked for.
        aio: String,
    },
}

/// How the host's page cache is used (`cache=`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Cache {
    /// Writes may stay in the cache until the guest flushes.
    pub write_back: bool,
    /// Go past the host's page cache (`cache.direct`).
    pub direct: bool,
    /// Ignore the guest's flushes (`cache.no-flush`).
    pub no_flush: bool,
}

impl Default for Cache {
    fn default() -> Self {
        Cache {
            write_back: true,
            direct: false,
            no_flush: false,
        }
    }
}

impl Cache {
    /// The modes of `-drive cache=`.
    pub const MODES: &'static [&'static str] =
        &["writeback", "none", "writethrough", "directsync", "unsafe"];

    /// One of [`MODES`](Self::MODES).
    pub fn mode(name: &str) -> Option<Self> {
        let cache = |write_back, direct, no_flush| Cache {
            write_back,
            direct,
            no_flush,
        };
        Some(match name {
            "writeback" => cache(true, false, false),
            "none" | "off" => cache(true, true, false),
            "writethrough" => cache(false, false, false),
            "directsync" => cache(false, true, false),
            "unsafe" => cache(true, false, true),
            _ => return None,
        })
    }
}

/// How to open an image.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Options {
    /// Id of the drive or node.
    pub id: String,
    /// The file.
    pub file: PathBuf,
    /// `format=`; only `raw`.
    pub format: String,
    /// `read-only=on`
    pub read_only: bool,
    /// `cache=`
    pub cache: Cache,
    /// `aio=`; only `threads`.
    pub aio: String,
    /// `discard=unmap`
    pub discard: bool,
    /// `share-rw=on`: other processes may write too.
    pub share_rw: bool,
    /// `locking=`: off for shared file systems without locks.
    pub locking: bool,
}

impl Options {
    /// A raw image, written to, with QEMU's defaults.
    pub fn new(id: impl Into<String>, file: impl Into<PathBuf>) -> Self {
        Options {
            id: id.into(),
            file: file.into(),
            format: "raw".into(),
            read_only: false,
            cache: Cache::default(),
            aio: "threads".into(),
            discard: false,
            share_rw: false,
            locking: true,
        }
    }
}

/// A raw image.
pub struct RawFile {
    info: BlockInfo,
    len: u64,
    image: Arc<Image>,
    workers: Workers,
}

impl RawFile {
    /// Opens and locks an image.
    pub fn open(options: &Options) -> Result<Self, OpenError> {
        let file = options.file.display().to_string();
        if options.format != "raw" {
            let format = options.format.clone();
            return Err(OpenError::Format { file, format });
        }
        if options.aio != "threads" {
            let aio = options.aio.clone();
            return Err(OpenError::Aio { file, aio });
        }
        let open_error = |source| OpenError::Open {
            file: file.clone(),
            source,
        };
        let open = |direct: bool| -> std::io::Result<File> {
            let sync = if options.cache.write_back {
                0
            } else {
                libc::O_DSYNC
            };
            let direct = if direct { libc::O_DIRECT } else { 0 };
            OpenOptions::new()
                .read(true)
                .write(!options.read_only)
                .custom_flags(sync | direct | libc::O_CLOEXEC)
                .open(&options.file)
        };
        // Looked at before it is opened: opening a FIFO would wait for its other end.
        let kind = std::fs::metadata(&options.file)
            .map_err(open_error)?
            .file_type();
        if !kind.is_file() && !kind.is_block_device() {
            return Err(OpenError::NotADisk(file));
        }
        let buffered = open(false).map_err(open_error)?;
        if options.locking {
            lock::take(&buffered, options.read_only, options.share_rw).map_err(|conflict| {
                OpenError::Locked {
                    file: file.clone(),
                    lock: conflict.lock,
                    holder: conflict.holder,
                }
            })?;
        }
        let direct = if options.cache.direct {
            Some(open(true).map_err(open_error)?)
        } else {
            None
        };
        let bytes = rustix::fs::seek(&buffered, rustix::fs::SeekFrom::End(0))
            .map_err(|e| open_error(e.into()))?;
        Ok(RawFile {
            info: BlockInfo {
                id: options.id.clone(),
                file: file.clone(),
                format: "raw".into(),
                read_only: options.read_only,
                discard: options.discard,
                write_back: options.cache.write_back,
            },
            // The rest of a last, partial sector reads as zeros.
            len: bytes.checked_next_multiple_of(SECTOR).unwrap_or(bytes),
            image: Arc::new(Image {
                buffered,
                direct,
                read_only: options.read_only,
                discard: options.discard,
                no_flush: options.cache.no_flush,
            }),
            workers: Workers::new(format!("block {}", options.id), THREADS).map_err(open_error)?,
        })
    }
}

impl Block for RawFile {
    fn info(&self) -> BlockInfo {
        self.info.clone()
    }

    fn len(&self) -> u64 {
        self.len
    }

    fn submit(&self, request: Request) {
        let (image, len) = (self.image.clone(), self.len);
        self.workers.submit(Box::new(move || {
            let Request {
                operation,
                mut buffer,
                done,
            } = request;
            let result = image.carry_out(operation, buffer.as_mut(), len);
            done(result, buffer);
        }));
    }

    fn barrier(&self) {
        self.workers.barrier();
    }

    fn drain(&self) {
        self.workers.drain();
    }
}
