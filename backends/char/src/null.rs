//! A stream to nowhere.

use std::sync::Arc;

use runtime::Handle;

use crate::chardev::Backend;
use crate::frontend::{CharEvent, CharSink};

/// Takes all output, gives no input.
pub(crate) struct Null {
    handle: Handle,
}

impl Null {
    pub(crate) fn new(handle: &Handle) -> Self {
        Self {
            handle: handle.clone(),
        }
    }
}

impl Backend for Null {
    fn write(&self, data: &[u8]) -> usize {
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
