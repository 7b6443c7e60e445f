//! SYS_SYSTEM: commands for the host's shell, one at a time for each that asks.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::process::ExitStatusExt as _;
use std::process::{Child, Command, Stdio};

/// What came of a command.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Ran {
    /// It ended: its status as the host's `wait` tells it.
    Status(i32),
    /// Not yet: ask again.
    Later,
}

/// Commands at work, by who asked.
#[derive(Default)]
pub(crate) struct Commands(BTreeMap<usize, Child>);

impl Commands {
    /// Starts a command, or looks at the one started before. Nobody is kept waiting.
    pub(crate) fn run(&mut self, asker: usize, command: &[u8]) -> io::Result<Ran> {
        let mut child = match self.0.remove(&asker) {
            Some(child) => child,
            // Input is the guest's: it may be the console's terminal.
            None => Command::new("/bin/sh")
                .arg("-c")
                .arg(OsStr::from_bytes(command))
                .stdin(Stdio::null())
                .spawn()?,
        };
        Ok(match child.try_wait()? {
            Some(status) => Ran::Status(status.into_raw()),
            None => {
                self.0.insert(asker, child);
                Ran::Later
            }
        })
    }

    /// Ends all of them: nobody will ask for their status.
    pub(crate) fn clear(&mut self) {
        for mut child in std::mem::take(&mut self.0).into_values() {
            // One that has ended by itself is waited for all the same.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

impl Drop for Commands {
    fn drop(&mut self) {
        self.clear();
    }
}
