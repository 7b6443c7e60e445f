//! The memory of a request, as the back end's threads see it.

use std::sync::{Arc, PoisonError, RwLock};

use backend_block::{BlockError, Buffer};
use hw_core::Dma;
use hw_virtio::Chain;

/// Open until the device is reset: a copy happens wholly before or not at all.
#[derive(Clone, Default)]
pub(super) struct Gate {
    shut: Arc<RwLock<bool>>,
}

impl Gate {
    /// Waits for the copy that is going on, and lets no other begin.
    pub(super) fn shut(&self) {
        *self.shut.write().unwrap_or_else(PoisonError::into_inner) = true;
    }

    fn pass<T>(&self, copy: impl FnOnce() -> Result<T, BlockError>) -> Result<T, BlockError> {
        let shut = self.shut.read().unwrap_or_else(PoisonError::into_inner);
        if *shut {
            return Err(BlockError::Cancelled);
        }
        copy()
    }
}

/// The data part of a request.
pub(super) struct GuestBuffer {
    gate: Gate,
    memory: Option<(Dma, Arc<Chain>)>,
    skip: u64,
    len: u64,
}

impl GuestBuffer {
    /// `len` bytes from byte `skip` on of what the device reads or writes.
    pub(super) fn new(gate: Gate, dma: Dma, chain: Arc<Chain>, skip: u64, len: u64) -> Self {
        GuestBuffer {
            gate,
            memory: Some((dma, chain)),
            skip,
            len,
        }
    }

    /// No data.
    pub(super) fn none(gate: Gate) -> Self {
        GuestBuffer {
            gate,
            memory: None,
            skip: 0,
            len: 0,
        }
    }
}

fn whole(result: Result<usize, hw_core::DmaError>, wanted: usize) -> Result<(), BlockError> {
    match result {
        Ok(count) if count == wanted => Ok(()),
        _ => Err(BlockError::BadBuffer),
    }
}

impl Buffer for GuestBuffer {
    fn len(&self) -> u64 {
        self.len
    }

    fn copy_out(&mut self, at: u64, out: &mut [u8]) -> Result<(), BlockError> {
        let (dma, chain) = self.memory.as_ref().ok_or(BlockError::BadBuffer)?;
        let at = self.skip.saturating_add(at);
        self.gate.pass(|| {
            let wanted = out.len();
            whole(chain.read_at(dma, at, out), wanted)
        })
    }

    fn copy_in(&mut self, at: u64, data: &[u8]) -> Result<(), BlockError> {
        let (dma, chain) = self.memory.as_ref().ok_or(BlockError::BadBuffer)?;
        let at = self.skip.saturating_add(at);
        self.gate
            .pass(|| whole(chain.write_at(dma, at, data), data.len()))
    }
}
