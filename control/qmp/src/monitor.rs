//! A session on a character stream.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use backend_char::{CharEvent, CharFrontend, CharSink};
use control_qapi::{Event, EventBus, EventSink, Timestamp, Vm};
use runtime::{Handle, time};

use crate::commands::Human;
use crate::session::{EventQueue, Session};

/// Input taken at once.
const INPUT_MAX: usize = 4096;

/// A QMP monitor on a stream, for as long as it is kept. It talks to one client after another.
pub struct QmpMonitor {
    frontend: CharFrontend,
    handle: Handle,
    state: Mutex<State>,
    events: Arc<EventQueue>,
    me: Weak<QmpMonitor>,
}

struct State {
    session: Session,
    /// What the stream has not taken yet. While there is any, no further commands are read.
    out: Vec<u8>,
    is_connected: bool,
}

impl std::fmt::Debug for QmpMonitor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("QmpMonitor")
            .field("frontend", &self.frontend)
            .finish_non_exhaustive()
    }
}

impl QmpMonitor {
    /// Serves QMP on `frontend`; everything happens on `handle`'s loop.
    pub fn start(
        frontend: CharFrontend,
        handle: &Handle,
        vm: Arc<dyn Vm>,
        events: &EventBus,
        human: Option<Arc<Human>>,
        is_pretty: bool,
    ) -> Arc<Self> {
        let session = Session::new(vm, human, is_pretty);
        let queue = session.event_queue();
        let monitor = Arc::new_cyclic(|me| Self {
            frontend,
            handle: handle.clone(),
            state: Mutex::new(State {
                session,
                out: Vec::new(),
                is_connected: false,
            }),
            events: queue,
            me: me.clone(),
        });
        let me = Arc::downgrade(&monitor);
        events.subscribe(me.clone());
        monitor.frontend.attach(Arc::new(Sink(me)));
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

    /// Hands the stream what it takes.
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

    fn send_events(&self) {
        {
            let mut state = self.state();
            if !state.is_connected {
                return;
            }
            let events = state.session.pending_events();
            state.out.extend(events);
        }
        self.pump();
    }
}

impl EventSink for QmpMonitor {
    fn event(&self, event: &Event, at: Timestamp) {
        self.events.event(event, at);
        let me = self.me.clone();
        self.handle.post(move || {
            if let Some(me) = me.upgrade() {
                me.send_events();
            }
        });
    }
}

/// The stream's way to the monitor, which owns the stream's frontend.
struct Sink(Weak<QmpMonitor>);

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
        let Some(monitor) = self.0.upgrade() else {
            return;
        };
        {
            let mut state = monitor.state();
            let answer = state.session.receive(data);
            state.out.extend(answer);
        }
        monitor.pump();
    }

    fn event(&self, event: CharEvent) {
        let Some(monitor) = self.0.upgrade() else {
            return;
        };
        match event {
            CharEvent::Opened => {
                let mut state = monitor.state();
                state.is_connected = true;
                state.out = state.session.greet();
            }
            // Standard input at its end: who sent the commands still reads the answers.
            CharEvent::Closed if monitor.frontend.is_open() => return,
            CharEvent::Closed => {
                let mut state = monitor.state();
                state.is_connected = false;
                state.out.clear();
            }
            CharEvent::Break | CharEvent::FocusIn | CharEvent::FocusOut => return,
        }
        monitor.pump();
    }

    fn writable(&self) {
        if let Some(monitor) = self.0.upgrade() {
            monitor.pump();
        }
    }
}
