//! What a guest may ask of the machine as a whole.

use std::sync::{Arc, Mutex, PoisonError};

/// A request from a device or CPU to the machine's life cycle. Carried out by the main loop.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Request {
    /// Reset the machine (reset register, port 92, keyboard controller, triple fault).
    Reset,
    /// The guest switched itself off (ACPI S5).
    PowerOff,
    /// The guest panicked and said so.
    Panicked,
    /// The guest crashed, loaded a crash kernel and goes on (pvpanic).
    CrashLoaded,
    /// End the process with this status (test devices).
    Exit(u8),
    /// The guest went to sleep (ACPI S3).
    Suspend,
    /// A suspended guest is woken.
    WakeUp,
}

type Handler = Box<dyn Fn(Request) + Send + Sync>;

/// A handle to post [`Request`]s. The default drops them.
#[derive(Clone, Default)]
pub struct Requests {
    handler: Arc<Mutex<Option<Handler>>>,
}

impl Requests {
    /// Sets who takes the requests. `handler` must only post: it is called with a device locked.
    pub fn connect(&self, handler: impl Fn(Request) + Send + Sync + 'static) {
        *self.handler.lock().unwrap_or_else(PoisonError::into_inner) = Some(Box::new(handler));
    }

    /// Posts a request.
    pub fn post(&self, request: Request) {
        if let Some(handler) = &*self.handler.lock().unwrap_or_else(PoisonError::into_inner) {
            handler(request);
        }
    }
}
