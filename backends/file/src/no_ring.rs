//! Stands for `ring.rs` on hosts that nobody has written bindings of io_uring for.

use std::io;
use std::sync::Arc;

use backend_block::IoVector;

use crate::Open;

type Done = Box<dyn FnOnce(io::Result<u64>) + Send>;

/// What to do with a file's bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum What {
    Read,
    Write,
    Sync,
}

/// There is none.
pub(crate) enum Ring {}

impl Ring {
    pub(crate) fn new(_: &str) -> io::Result<Self> {
        Err(io::ErrorKind::Unsupported.into())
    }

    pub(crate) fn start(
        &self,
        _: &Arc<Open>,
        _: (What, u64),
        _: IoVector,
        _: Done,
    ) -> Result<(), Done> {
        match *self {}
    }

    pub(crate) fn run(
        &self,
        _: &Arc<Open>,
        _: (What, u64),
        _: &IoVector,
    ) -> Option<io::Result<u64>> {
        match *self {}
    }
}
