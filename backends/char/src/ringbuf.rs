//! Output kept in memory, the newest part of it, until a monitor command reads it.

use std::collections::VecDeque;
use std::sync::Arc;

use runtime::{Handle, Rank, Ranked};

use crate::chardev::Backend;
use crate::frontend::{CharEvent, CharSink};

/// A ring of a fixed size; old bytes make room for new ones.
pub(crate) struct Ringbuf {
    handle: Handle,
    size: usize,
    ring: Ranked<VecDeque<u8>>,
}

impl Ringbuf {
    pub(crate) fn new(handle: &Handle, size: usize) -> Self {
        Self {
            handle: handle.clone(),
            size,
            ring: Ranked::new(Rank::BackendQueue, VecDeque::new()),
        }
    }

    /// Takes the oldest bytes out, at most `max`.
    pub(crate) fn take(&self, max: usize) -> Vec<u8> {
        let mut ring = self.ring.lock();
        let count = max.min(ring.len());
        ring.drain(..count).collect()
    }
}

impl Backend for Ringbuf {
    fn write(&self, data: &[u8]) -> usize {
        let mut ring = self.ring.lock();
        let newest = data
            .get(data.len().saturating_sub(self.size)..)
            .unwrap_or_default();
        let excess = ring
            .len()
            .saturating_add(newest.len())
            .saturating_sub(self.size);
        let excess = excess.min(ring.len());
        ring.drain(..excess);
        ring.extend(newest);
        data.len()
    }

    fn set_sink(&self, sink: Option<Arc<dyn CharSink>>) {
        if let Some(sink) = sink {
            self.handle.post(move || sink.event(CharEvent::Opened));
        }
    }

    fn accept_input(&self) {}

    fn is_open(&self) -> bool {
        true
    }

    fn flush(&self, _: u64) {}
}
