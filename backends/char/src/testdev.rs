//! A stream whose output is commands: how a test without other means ends the emulator.
//!
//! Spec: QEMU `docs/` and kvm-unit-tests `lib/chr-testdev.c`: a decimal number and a letter; `q` ends the process
//! with status `number << 1 | 1`.

use std::sync::{Arc, OnceLock};

use runtime::{Handle, Rank, Ranked};

use crate::chardev::Backend;
use crate::frontend::{CharEvent, CharSink};

type OnExit = Box<dyn Fn(u8) + Send + Sync>;

/// Carries out commands.
pub(crate) struct Testdev {
    handle: Handle,
    /// The number of the command at hand.
    number: Ranked<u32>,
    on_exit: OnceLock<OnExit>,
}

impl Testdev {
    pub(crate) fn new(handle: &Handle) -> Self {
        Self {
            handle: handle.clone(),
            number: Ranked::new(Rank::BackendQueue, 0),
            on_exit: OnceLock::new(),
        }
    }

    pub(crate) fn set_on_exit(&self, on_exit: OnExit) {
        let _ = self.on_exit.set(on_exit);
    }
}

impl Backend for Testdev {
    fn write(&self, data: &[u8]) -> usize {
        let mut number = self.number.lock();
        for byte in data {
            match byte {
                b'0'..=b'9' => {
                    let digit = u32::from(byte & 15);
                    *number = number.wrapping_mul(10).wrapping_add(digit);
                }
                b'q' => {
                    if let Some(on_exit) = self.on_exit.get() {
                        on_exit((*number << 1) as u8 | 1);
                    }
                    *number = 0;
                }
                _ => *number = 0,
            }
        }
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
