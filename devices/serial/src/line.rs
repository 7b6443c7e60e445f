//! Between a port and its character stream: bytes out without waiting, input through an inbox.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use backend_char::{CharEvent, CharFrontend, CharSink};

/// Most items an inbox holds beyond what its port said it has room for.
const INBOX_LIMIT: usize = 64;

/// Token of [`Device::poke`](hw_core::Device::poke): the inbox or the line changed.
pub(crate) const LOOK: u64 = 0;

/// The host's end of a port.
///
/// All methods may be called with the port's device locked and must not call back into it.
pub trait Line: Send {
    /// Queues output and says how much was taken, without waiting. After a short write the stream
    /// calls [`Inbox::wake`] when there is room again.
    fn write(&self, bytes: &[u8]) -> usize;
    /// There is room in the inbox again.
    fn accept_input(&self);
    /// Delivers input to `inbox` from now on.
    fn attach(&self, inbox: Arc<Inbox>);
    /// The guest holds the line in the break state, or no longer does.
    fn set_break(&self, on: bool) {
        let _ = on;
    }
}

/// What arrives at a port.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Input {
    /// A character.
    Byte(u8),
    /// The line was held low for longer than a character.
    Break,
}

/// Input on its way from the stream to the device, which it pokes.
pub struct Inbox {
    queue: Mutex<VecDeque<Input>>,
    room: AtomicUsize,
    poke: Arc<dyn Fn(u64) + Send + Sync>,
}

impl std::fmt::Debug for Inbox {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Inbox({})", self.queue().len())
    }
}

impl Inbox {
    pub(crate) fn new(poke: Arc<dyn Fn(u64) + Send + Sync>) -> Arc<Self> {
        Arc::new(Inbox {
            queue: Mutex::default(),
            room: AtomicUsize::new(0),
            poke,
        })
    }

    fn queue(&self) -> MutexGuard<'_, VecDeque<Input>> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many characters the port takes now.
    pub fn room(&self) -> usize {
        self.room
            .load(Ordering::Acquire)
            .saturating_sub(self.queue().len())
    }

    /// Hands over characters; called with no device locked.
    pub fn receive(&self, bytes: &[u8]) {
        {
            let mut queue = self.queue();
            let room = INBOX_LIMIT.saturating_sub(queue.len());
            queue.extend(bytes.iter().take(room).map(|b| Input::Byte(*b)));
        }
        self.wake();
    }

    /// Hands over a break; called with no device locked.
    pub fn send_break(&self) {
        {
            let mut queue = self.queue();
            if queue.len() < INBOX_LIMIT {
                queue.push_back(Input::Break);
            }
        }
        self.wake();
    }

    /// Makes the port look at its inbox and try its output again; called with no device locked.
    pub fn wake(&self) {
        (self.poke)(LOOK);
    }

    pub(crate) fn take(&self) -> Option<Input> {
        self.queue().pop_front()
    }

    /// Says how many characters the port has room for; true if there was none and now is.
    pub(crate) fn set_room(&self, room: usize) -> bool {
        self.room.swap(room, Ordering::AcqRel) == 0 && room > 0
    }

    /// Characters not yet taken by the port, for its saved form.
    pub(crate) fn waiting(&self) -> Vec<u8> {
        let byte = |input: &Input| match input {
            Input::Byte(b) => Some(*b),
            Input::Break => None,
        };
        self.queue().iter().filter_map(byte).collect()
    }

    pub(crate) fn replace(&self, bytes: &[u8]) {
        let bytes = bytes.iter().take(INBOX_LIMIT);
        *self.queue() = bytes.map(|b| Input::Byte(*b)).collect();
    }
}

impl CharSink for Inbox {
    fn can_receive(&self) -> usize {
        self.room()
    }

    fn receive(&self, data: &[u8]) {
        Inbox::receive(self, data);
    }

    fn event(&self, event: CharEvent) {
        match event {
            CharEvent::Break => self.send_break(),
            // The cable stays plugged in whoever listens: guests keep their carrier.
            CharEvent::Opened | CharEvent::Closed | CharEvent::FocusIn | CharEvent::FocusOut => {}
        }
    }

    fn writable(&self) {
        self.wake();
    }
}

impl Line for CharFrontend {
    fn write(&self, bytes: &[u8]) -> usize {
        CharFrontend::write(self, bytes)
    }

    fn accept_input(&self) {
        CharFrontend::accept_input(self);
    }

    fn attach(&self, inbox: Arc<Inbox>) {
        CharFrontend::attach(self, inbox);
    }
}
