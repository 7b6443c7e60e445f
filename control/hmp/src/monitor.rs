//! The console on a character stream.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use backend_char::{CharEvent, CharFrontend, CharSink};
use runtime::time;

use crate::commands::{Hmp, PROMPT};
use crate::readline::{Edit, LineEditor};

/// Input taken at once.
const INPUT_MAX: usize = 1024;

/// A monitor for people on a stream, for as long as it is kept.
pub struct HmpMonitor {
    frontend: CharFrontend,
    hmp: Hmp,
    banner: String,
    state: Mutex<State>,
}

struct State {
    editor: LineEditor,
    /// What the stream has not taken yet. While there is any, no further keys are read.
    out: Vec<u8>,
    has_greeted: bool,
}

impl std::fmt::Debug for HmpMonitor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("HmpMonitor")
            .field("frontend", &self.frontend)
            .finish_non_exhaustive()
    }
}

impl HmpMonitor {
    /// Serves `hmp` on `frontend`. On a multiplexer it keeps silent until it has the keys. `product` names us in the
    /// first line.
    pub fn start(frontend: CharFrontend, hmp: Hmp, product: &str) -> Arc<Self> {
        let state = State {
            editor: LineEditor::new(PROMPT),
            out: Vec::new(),
            has_greeted: false,
        };
        let monitor = Arc::new(Self {
            frontend,
            hmp,
            banner: format!("{product} monitor - type 'help' for more information\n"),
            state: Mutex::new(state),
        });
        monitor
            .frontend
            .attach(Arc::new(Sink(Arc::downgrade(&monitor))));
        monitor
    }

    /// Writes out what is left, waiting at most `limit`: for the end of the process.
    pub fn flush(&self, limit: Duration) {
        let deadline = time::monotonic_ns()
            .saturating_add(u64::try_from(limit.as_nanos()).unwrap_or(u64::MAX));
        loop {
            self.pump();
            let left = deadline.saturating_sub(time::monotonic_ns());
            self.frontend.chardev().flush(Duration::from_nanos(left));
            if left == 0 || self.state().out.is_empty() {
                return;
            }
        }
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
            state.show(first);
            // Programs look for the bare prompt; control characters come only once somebody edits a line.
            if state.editor.is_empty() {
                state.show(PROMPT);
            } else {
                let line = state.editor.redraw();
                state.show(&line);
            }
        }
        self.pump();
    }

    fn key(&self, byte: u8) {
        let edit = {
            let mut state = self.state();
            state.editor.key(byte, &|line| self.hmp.complete(line))
        };
        match edit {
            None => {}
            Some(Edit::Show(text)) => self.state().show(&text),
            Some(Edit::Line(text, line)) => {
                // Not locked while a command runs: it may end in this monitor's own stream.
                let answer = self.hmp.run(&line);
                let mut state = self.state();
                state.show(&text);
                state.show(&answer);
                state.show(PROMPT);
            }
        }
    }

    fn pump(&self) {
        let is_empty = {
            let mut state = self.state();
            let taken = self.frontend.write(&state.out).min(state.out.len());
            state.out.drain(..taken);
            state.out.is_empty()
        };
        if is_empty {
            self.frontend.accept_input();
        }
    }
}

impl State {
    /// Lines end as terminals want them.
    fn show(&mut self, text: &str) {
        for byte in text.bytes() {
            if byte == b'\n' {
                self.out.push(b'\r');
            }
            self.out.push(byte);
        }
    }
}

/// The stream's way to the monitor, which owns the stream's frontend.
struct Sink(Weak<HmpMonitor>);

impl CharSink for Sink {
    fn can_receive(&self) -> usize {
        self.0.upgrade().map_or(0, |m| {
            if m.state().out.is_empty() {
                INPUT_MAX
            } else {
                0
            }
        })
    }

    fn receive(&self, data: &[u8]) {
        if let Some(monitor) = self.0.upgrade() {
            data.iter().for_each(|byte| monitor.key(*byte));
            monitor.pump();
        }
    }

    fn event(&self, event: CharEvent) {
        let Some(monitor) = self.0.upgrade() else {
            return;
        };
        let is_mux = monitor.frontend.chardev().is_mux();
        match event {
            CharEvent::Opened if !is_mux => {
                {
                    let mut state = monitor.state();
                    state.editor = LineEditor::new(PROMPT);
                    state.out.clear();
                    state.has_greeted = false;
                }
                monitor.greet();
            }
            CharEvent::FocusIn => monitor.greet(),
            // Standard input at its end: who sent the lines still reads the answers.
            CharEvent::Closed if monitor.frontend.is_open() => {}
            CharEvent::Closed => monitor.state().out.clear(),
            CharEvent::Opened | CharEvent::FocusOut | CharEvent::Break => {}
        }
    }

    fn writable(&self) {
        if let Some(monitor) = self.0.upgrade() {
            monitor.pump();
        }
    }
}
