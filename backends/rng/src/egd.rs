//! Randomness from an entropy gathering daemon at a stream (`rng-egd`).
//!
//! Spec: the EGD protocol, request 02h: one byte with how many bytes are wanted, answered by as many.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use backend_char::{CharEvent, CharFrontend, CharSink, Outbox};

use crate::{Randomness, Wake};

/// "Read entropy, blocking."
const READ: u8 = 0x02;
/// Most bytes of one request.
const MOST: usize = 255;
/// Most bytes under way: what a guest wants beyond comes later.
const AHEAD: usize = 4096;

#[derive(Default)]
struct Pool {
    bytes: VecDeque<u8>,
    /// Bytes that the daemon owes.
    asked: usize,
    wake: Option<Wake>,
}

struct Shared {
    outbox: Outbox,
    pool: Mutex<Pool>,
}

impl Shared {
    fn pool(&self) -> MutexGuard<'_, Pool> {
        self.pool.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wake(&self) {
        let wake = self.pool().wake.clone();
        if let Some(wake) = wake {
            wake();
        }
    }
}

/// A daemon at the other end of a stream.
pub struct Egd {
    shared: Arc<Shared>,
}

impl Egd {
    /// Talks to the daemon on this stream.
    pub fn new(frontend: CharFrontend) -> Self {
        let shared = Arc::new(Shared {
            outbox: Outbox::new(frontend),
            pool: Mutex::default(),
        });
        let sink = Sink(Arc::downgrade(&shared));
        shared.outbox.frontend().attach(Arc::new(sink));
        Egd { shared }
    }
}

impl Randomness for Egd {
    fn fill(&mut self, out: &mut [u8]) -> usize {
        let mut pool = self.shared.pool();
        let done = out.len().min(pool.bytes.len());
        for (to, from) in out.iter_mut().zip(pool.bytes.drain(..done)) {
            *to = from;
        }
        let wanted = out.len().saturating_sub(done).min(AHEAD);
        let is_open = self.shared.outbox.frontend().is_open();
        while is_open && pool.asked < wanted {
            let len = wanted.saturating_sub(pool.asked).min(MOST);
            self.shared.outbox.push([READ, len as u8]);
            pool.asked = pool.asked.saturating_add(len);
        }
        drop(pool);
        self.shared.outbox.pump();
        done
    }

    fn set_wake(&mut self, wake: Wake) {
        self.shared.pool().wake = Some(wake);
    }
}

struct Sink(Weak<Shared>);

impl CharSink for Sink {
    fn can_receive(&self) -> usize {
        self.0.upgrade().map_or(0, |shared| shared.pool().asked)
    }

    fn receive(&self, data: &[u8]) {
        let Some(shared) = self.0.upgrade() else {
            return;
        };
        {
            let mut pool = shared.pool();
            pool.asked = pool.asked.saturating_sub(data.len());
            pool.bytes.extend(data);
        }
        shared.wake();
    }

    fn event(&self, event: CharEvent) {
        let Some(shared) = self.0.upgrade() else {
            return;
        };
        match event {
            // The guest's device asks again.
            CharEvent::Opened => shared.wake(),
            CharEvent::Closed => {
                shared.outbox.clear();
                shared.pool().asked = 0;
            }
            _ => {}
        }
    }

    fn writable(&self) {
        if let Some(shared) = self.0.upgrade() {
            shared.outbox.pump();
        }
    }
}

#[cfg(test)]
mod tests;
