//! A session on a character stream.

use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use backend_char::{CharEvent, CharFrontend, CharSink, Outbox};
use control_qapi::{Event, EventBus, EventSink, Timestamp, Vm};
use runtime::Handle;

use crate::commands::Human;
use crate::session::{EventQueue, Session};

/// Input taken at once.
const INPUT_MAX: usize = 4096;

/// A QMP monitor on a stream, for as long as it is kept. It talks to one client after another.
pub struct QmpMonitor {
    outbox: Outbox,
    handle: Handle,
    state: Mutex<State>,
    events: Arc<EventQueue>,
    me: Weak<QmpMonitor>,
}

struct State {
    session: Session,
    is_connected: bool,
}

impl std::fmt::Debug for QmpMonitor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("QmpMonitor")
            .field("outbox", &self.outbox)
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
            outbox: Outbox::new(frontend),
            handle: handle.clone(),
            state: Mutex::new(State {
                session,
                is_connected: false,
            }),
            events: queue,
            me: me.clone(),
        });
        let me = Arc::downgrade(&monitor);
        events.subscribe(me.clone());
        monitor.outbox.frontend().attach(Arc::new(Sink(me)));
        monitor
    }

    /// Writes out what is left, waiting at most `limit`: for the end of the process.
    pub fn flush(&self, limit: Duration) {
        self.outbox.flush(limit);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn send_events(&self) {
        {
            let mut state = self.state();
            if !state.is_connected {
                return;
            }
            self.outbox.push(state.session.pending_events());
        }
        self.outbox.pump();
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
        self.0.upgrade().map_or(0, |m| m.outbox.room(INPUT_MAX))
    }

    fn receive(&self, data: &[u8]) {
        let Some(monitor) = self.0.upgrade() else {
            return;
        };
        {
            let mut state = monitor.state();
            monitor.outbox.push(state.session.receive(data));
        }
        monitor.outbox.pump();
    }

    fn receive_fds(&self, fds: Vec<OwnedFd>) {
        if let Some(monitor) = self.0.upgrade() {
            monitor.state().session.hand(fds);
        }
    }

    fn event(&self, event: CharEvent) {
        let Some(monitor) = self.0.upgrade() else {
            return;
        };
        match event {
            CharEvent::Opened => {
                let mut state = monitor.state();
                state.is_connected = true;
                monitor.outbox.clear();
                monitor.outbox.push(state.session.greet());
            }
            // Standard input at its end: who sent the commands still reads the answers.
            CharEvent::Closed if monitor.outbox.frontend().is_open() => return,
            CharEvent::Closed => {
                let mut state = monitor.state();
                state.is_connected = false;
                monitor.outbox.clear();
            }
            CharEvent::Break | CharEvent::FocusIn | CharEvent::FocusOut => return,
        }
        monitor.outbox.pump();
    }

    fn writable(&self) {
        if let Some(monitor) = self.0.upgrade() {
            monitor.outbox.pump();
        }
    }
}
