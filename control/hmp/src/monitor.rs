//! The console on a character stream.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use backend_char::{CharEvent, CharFrontend, CharSink, Outbox};

use crate::commands::{Hmp, PROMPT};
use crate::readline::{Edit, LineEditor};

/// Input taken at once.
const INPUT_MAX: usize = 1024;

/// A monitor for people on a stream, for as long as it is kept.
pub struct HmpMonitor {
    outbox: Outbox,
    hmp: Hmp,
    banner: String,
    state: Mutex<State>,
}

struct State {
    editor: LineEditor,
    has_greeted: bool,
}

impl std::fmt::Debug for HmpMonitor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("HmpMonitor")
            .field("outbox", &self.outbox)
            .finish_non_exhaustive()
    }
}

impl HmpMonitor {
    /// Serves `hmp` on `frontend`. On a multiplexer it keeps silent until it has the keys. `product` names us in the
    /// first line.
    pub fn start(frontend: CharFrontend, hmp: Hmp, product: &str) -> Arc<Self> {
        let state = State {
            editor: LineEditor::new(PROMPT),
            has_greeted: false,
        };
        let monitor = Arc::new(Self {
            outbox: Outbox::new(frontend),
            hmp,
            banner: format!("{product} monitor - type 'help' for more information\n"),
            state: Mutex::new(state),
        });
        monitor
            .outbox
            .frontend()
            .attach(Arc::new(Sink(Arc::downgrade(&monitor))));
        monitor
    }

    /// Writes out what is left, waiting at most `limit`: for the end of the process.
    pub fn flush(&self, limit: Duration) {
        self.outbox.flush(limit);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn greet(&self) {
        {
            let mut state = self.state();
            let first = if state.has_greeted {
                "\n"
            } else {
                &self.banner
            };
            state.has_greeted = true;
            self.show(first);
            // Programs look for the bare prompt; control characters come only once somebody edits a line.
            if state.editor.is_empty() {
                self.show(PROMPT);
            } else {
                self.show(&state.editor.redraw());
            }
        }
        self.outbox.pump();
    }

    fn key(&self, byte: u8) {
        let edit = {
            let mut state = self.state();
            state.editor.key(byte, &|line| self.hmp.complete(line))
        };
        match edit {
            None => {}
            Some(Edit::Show(text)) => self.show(&text),
            Some(Edit::Line(text, line)) => {
                // Not locked while a command runs: it may end in this monitor's own stream.
                let answer = self.hmp.run(&line);
                self.show(&text);
                self.show(&answer);
                self.show(PROMPT);
            }
        }
    }

    /// Lines end as terminals want them.
    fn show(&self, text: &str) {
        let crlf = |byte: u8| (byte == b'\n').then_some(b'\r').into_iter().chain([byte]);
        self.outbox.push(text.bytes().flat_map(crlf));
    }
}

/// The stream's way to the monitor, which owns the stream's frontend.
struct Sink(Weak<HmpMonitor>);

impl CharSink for Sink {
    fn can_receive(&self) -> usize {
        self.0.upgrade().map_or(0, |m| m.outbox.room(INPUT_MAX))
    }

    fn receive(&self, data: &[u8]) {
        if let Some(monitor) = self.0.upgrade() {
            data.iter().for_each(|byte| monitor.key(*byte));
            monitor.outbox.pump();
        }
    }

    fn event(&self, event: CharEvent) {
        let Some(monitor) = self.0.upgrade() else {
            return;
        };
        let is_mux = monitor.outbox.frontend().chardev().is_mux();
        match event {
            CharEvent::Opened if !is_mux => {
                {
                    let mut state = monitor.state();
                    state.editor = LineEditor::new(PROMPT);
                    monitor.outbox.clear();
                    state.has_greeted = false;
                }
                monitor.greet();
            }
            CharEvent::FocusIn => monitor.greet(),
            // Standard input at its end: who sent the lines still reads the answers.
            CharEvent::Closed if monitor.outbox.frontend().is_open() => {}
            CharEvent::Closed => monitor.outbox.clear(),
            CharEvent::Opened | CharEvent::FocusOut | CharEvent::Break => {}
        }
    }

    fn writable(&self) {
        if let Some(monitor) = self.0.upgrade() {
            monitor.outbox.pump();
        }
    }
}
