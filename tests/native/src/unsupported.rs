//! The runner on hosts that cannot run x86-64 code.

use std::convert::Infallible;
use std::io;

use crate::{NativeState, Outcome};

/// Never exists on this host.
pub struct Native(Infallible);

impl Native {
    /// Fails: this host does not run x86-64 code under Linux.
    pub fn new() -> io::Result<Self> {
        Err(io::ErrorKind::Unsupported.into())
    }

    /// The data pages.
    pub fn memory(&mut self) -> &mut [u8] {
        match self.0 {}
    }

    /// Runs `code` from `state` to `state`.
    pub fn run(&mut self, _code: &[u8], _state: &mut NativeState) -> Outcome {
        match self.0 {}
    }
}
