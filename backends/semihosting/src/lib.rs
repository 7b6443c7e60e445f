//! The host's side of semihosting: a console and files, by handles.
//!
//! Spec: Arm, "Semihosting for AArch32 and AArch64", version 2.0, chapter 6. Handles, modes and the special
//! names `:tt` and `:semihosting-features` are those of that document; who calls, and from where the bytes
//! come, is for the guest's CPU to say.
//!
//! Whoever turns semihosting on gives the guest the host's files, as far as the process may reach them. Only
//! regular ones: a pipe or a terminal may keep whoever opens or reads it waiting, and that is a CPU.
//! Commands for the host's shell give no more than that; `-sandbox on,spawn=deny` refuses them.
#![deny(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects
)]
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::indexing_slicing))]

use std::collections::VecDeque;
use std::ffi::OsStr;
use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use backend_char::{CharFrontend, CharSink};

mod command;
#[cfg(test)]
mod tests;

use command::Commands;
pub use command::Ran;

/// Files open at a time.
const MOST_FILES: usize = 64;
/// Keys that wait.
const MOST_KEYS: usize = 256;
/// Errors beside the host's own (errno.h).
const EBADF: i32 = 9;
const EINVAL: i32 = 22;
const EMFILE: i32 = 24;
/// Contents of `:semihosting-features` (section 7): the magic, then SH_EXT_EXIT_EXTENDED and
/// SH_EXT_STDOUT_STDERR.
const FEATURES: [u8; 5] = [0x53, 0x48, 0x46, 0x42, 0x03];

/// What the console's stream has sent.
#[derive(Default)]
struct Keys(Mutex<VecDeque<u8>>);

impl Keys {
    fn lock(&self) -> MutexGuard<'_, VecDeque<u8>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl CharSink for Keys {
    fn can_receive(&self) -> usize {
        MOST_KEYS.saturating_sub(self.lock().len())
    }

    fn receive(&self, data: &[u8]) {
        self.lock().extend(data);
    }
}

enum Open {
    Input,
    Output,
    File(File),
    Features(usize),
}

/// What came of a read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Read {
    /// So many bytes; none at the end.
    Bytes(usize),
    /// Nothing yet: ask again.
    Later,
}

/// Console and files.
#[derive(Default)]
pub struct Semihosting {
    console: Option<(CharFrontend, Arc<Keys>)>,
    files: Vec<Option<Open>>,
    commands: Commands,
    errno: i32,
}

/// A file's way to be opened, by the mode of SYS_OPEN: those of `fopen`.
fn options(mode: u64) -> Option<OpenOptions> {
    let mut options = OpenOptions::new();
    // r, r+, w, w+, a, a+, each also in binary.
    match mode >> 1 {
        0 => options.read(true),
        1 => options.read(true).write(true),
        2 => options.write(true).create(true).truncate(true),
        3 => options.read(true).write(true).create(true).truncate(true),
        4 => options.append(true).create(true),
        5 => options.read(true).append(true).create(true),
        _ => return None,
    };
    Some(options)
}

fn path(name: &[u8]) -> &Path {
    Path::new(OsStr::from_bytes(name))
}

impl Semihosting {
    /// With its console at a stream; without one, output goes to standard error and there is no input.
    pub fn new(console: Option<CharFrontend>) -> Self {
        let console = console.map(|stream| {
            let keys = Arc::<Keys>::default();
            stream.attach(keys.clone());
            (stream, keys)
        });
        Semihosting {
            console,
            ..Semihosting::default()
        }
    }

    /// The machine is reset: all files are closed, commands ended.
    pub fn reset(&mut self) {
        self.files.clear();
        self.commands.clear();
        self.errno = 0;
    }

    /// Why the last request failed (SYS_ERRNO).
    pub fn errno(&self) -> i32 {
        self.errno
    }

    fn noted<T>(&mut self, result: io::Result<T>) -> Option<T> {
        result
            .map_err(|e| self.errno = e.raw_os_error().unwrap_or(EINVAL))
            .ok()
    }

    fn refuse<T>(&mut self, errno: i32) -> Option<T> {
        self.errno = errno;
        None
    }

    /// Writes to the console: how many bytes it took.
    pub fn put(&mut self, bytes: &[u8]) -> usize {
        match &self.console {
            Some((stream, _)) => stream.write(bytes),
            None => {
                // Nobody can be told of it.
                let _ = io::stderr().write_all(bytes);
                bytes.len()
            }
        }
    }

    /// A key, if one has come; without a console none ever does, and the end of input is 0xff.
    pub fn get(&mut self) -> Option<u8> {
        let Some((stream, keys)) = &self.console else {
            return Some(u8::MAX);
        };
        let key = keys.lock().pop_front();
        if key.is_some() {
            stream.accept_input();
        }
        key
    }

    /// Opens a file: its handle, from 1 on.
    pub fn open(&mut self, name: &[u8], mode: u64) -> Option<u64> {
        let free = self.files.iter().position(Option::is_none);
        let at = free.unwrap_or(self.files.len());
        // Looked at first: opening may cut a file short.
        if at >= MOST_FILES {
            return self.refuse(EMFILE);
        }
        let open = match name {
            b":tt" if mode < 4 => Open::Input,
            b":tt" if mode < 12 => Open::Output,
            b":semihosting-features" if mode < 2 => Open::Features(0),
            [b':', ..] => return self.refuse(EINVAL),
            _ => {
                let Some(options) = options(mode) else {
                    return self.refuse(EINVAL);
                };
                if std::fs::metadata(path(name)).is_ok_and(|meta| !meta.is_file()) {
                    return self.refuse(EINVAL);
                }
                let opened = options.open(path(name));
                Open::File(self.noted(opened)?)
            }
        };
        match self.files.get_mut(at) {
            Some(slot) => *slot = Some(open),
            None => self.files.push(Some(open)),
        }
        Some((at as u64).saturating_add(1))
    }

    fn slot(&mut self, handle: u64) -> Option<&mut Option<Open>> {
        let at = usize::try_from(handle).ok()?.checked_sub(1)?;
        self.files.get_mut(at).filter(|slot| slot.is_some())
    }

    /// Closes a file.
    pub fn close(&mut self, handle: u64) -> Option<()> {
        match self.slot(handle) {
            Some(slot) => {
                *slot = None;
                Some(())
            }
            None => self.refuse(EBADF),
        }
    }

    /// Writes to a file: how many bytes were taken.
    pub fn write(&mut self, handle: u64, bytes: &[u8]) -> Option<usize> {
        match self.slot(handle) {
            Some(Some(Open::Output)) => Some(self.put(bytes)),
            Some(Some(Open::File(file))) => {
                let written = file.write(bytes);
                self.noted(written)
            }
            _ => self.refuse(EBADF),
        }
    }

    /// Reads from a file.
    pub fn read(&mut self, handle: u64, out: &mut [u8]) -> Option<Read> {
        match self.slot(handle) {
            Some(Some(Open::Input)) => {
                if self.console.is_none() {
                    return Some(Read::Bytes(0));
                }
                let Some((first, _)) = out.split_first_mut() else {
                    return Some(Read::Bytes(0));
                };
                // A line is not waited for: a key is enough.
                let Some(key) = self.get() else {
                    return Some(Read::Later);
                };
                *first = key;
                Some(Read::Bytes(1))
            }
            Some(Some(Open::Features(at))) => {
                let rest = FEATURES.get(*at..).unwrap_or_default();
                let count = rest.len().min(out.len());
                for (to, from) in out.iter_mut().zip(rest) {
                    *to = *from;
                }
                *at = at.saturating_add(count);
                Some(Read::Bytes(count))
            }
            Some(Some(Open::File(file))) => {
                let read = file.read(out);
                self.noted(read).map(Read::Bytes)
            }
            _ => self.refuse(EBADF),
        }
    }

    /// Goes to a place in a file, counted from its beginning.
    pub fn seek(&mut self, handle: u64, to: u64) -> Option<()> {
        match self.slot(handle) {
            Some(Some(Open::File(file))) => {
                let done = file.seek(SeekFrom::Start(to));
                self.noted(done).map(|_| ())
            }
            Some(Some(Open::Features(at))) => {
                *at = usize::try_from(to).unwrap_or(usize::MAX);
                Some(())
            }
            _ => self.refuse(EBADF),
        }
    }

    /// The length of a file.
    pub fn len(&mut self, handle: u64) -> Option<u64> {
        match self.slot(handle) {
            Some(Some(Open::File(file))) => {
                let found = file.metadata();
                self.noted(found).map(|m| m.len())
            }
            Some(Some(Open::Features(_))) => Some(FEATURES.len() as u64),
            _ => self.refuse(EBADF),
        }
    }

    /// Whether a handle is of the console.
    pub fn is_console(&mut self, handle: u64) -> Option<bool> {
        match self.slot(handle) {
            Some(Some(open)) => Some(matches!(open, Open::Input | Open::Output)),
            _ => self.refuse(EBADF),
        }
    }

    /// Has the host's shell run a command. Whoever asks does so again until it has ended.
    pub fn system(&mut self, asker: usize, command: &[u8]) -> Option<Ran> {
        let ran = self.commands.run(asker, command);
        self.noted(ran)
    }

    /// A name for a temporary file, of which there are 256.
    pub fn temporary(&self, number: u8) -> Vec<u8> {
        let name = format!("mimic-{:x}{number:02x}", std::process::id());
        let path = std::env::temp_dir().join(name);
        path.into_os_string().into_encoded_bytes()
    }

    /// Removes a file.
    pub fn remove(&mut self, name: &[u8]) -> Option<()> {
        let done = std::fs::remove_file(path(name));
        self.noted(done)
    }

    /// Renames a file.
    pub fn rename(&mut self, from: &[u8], to: &[u8]) -> Option<()> {
        let done = std::fs::rename(path(from), path(to));
        self.noted(done)
    }
}
