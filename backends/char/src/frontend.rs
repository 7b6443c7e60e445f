//! The device's side of a stream.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use crate::chardev::Chardev;

/// What happens to a stream beside bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum CharEvent {
    /// Somebody is at the other end.
    Opened,
    /// Nobody is any more.
    Closed,
    /// The line was broken for longer than a character (`Ctrl-A B`).
    Break,
    /// Keys go to this frontend of a multiplexer from now on.
    FocusIn,
    /// Keys go to another.
    FocusOut,
}

/// What a device or monitor implements to get input.
///
/// A sink that belongs to a device holds it weakly: the device owns the [`CharFrontend`], which owns the sink.
///
/// All methods are called on the event loop's thread with no lock of the backend held, so they may take the device's.
pub trait CharSink: Send + Sync {
    /// How many bytes [`CharSink::receive`] would take now. After answering 0, call [`CharFrontend::accept_input`]
    /// when there is room again.
    fn can_receive(&self) -> usize;

    /// Takes input, at most as much as [`CharSink::can_receive`] just said.
    fn receive(&self, data: &[u8]);

    /// Takes descriptors that came over a unix socket with the input that is delivered next. What is not taken is
    /// closed.
    fn receive_fds(&self, fds: Vec<OwnedFd>) {
        drop(fds);
    }

    /// Something else happened.
    fn event(&self, event: CharEvent) {
        let _ = event;
    }

    /// A [`CharFrontend::write`] that took less than it was given would take more now.
    fn writable(&self) {}
}

/// One user's connection to a [`Chardev`]; dropping it detaches.
#[derive(Debug)]
pub struct CharFrontend {
    pub(crate) chardev: Arc<Chardev>,
    pub(crate) index: usize,
}

impl CharFrontend {
    /// Queues output and says how much of it was taken. Never waits, so a device may call it while locked. What nobody
    /// is there to read counts as taken. After a short write [`CharSink::writable`] is called once there is room.
    pub fn write(&self, data: &[u8]) -> usize {
        self.chardev.write(self.index, data)
    }

    /// Delivers input and events to `sink` from now on, beginning with [`CharEvent::Opened`] if somebody is there.
    pub fn attach(&self, sink: Arc<dyn CharSink>) {
        self.chardev.attach(self.index, Some(sink));
    }

    /// Tells the backend that the sink can take input again. May be called with the device locked.
    pub fn accept_input(&self) {
        self.chardev.accept_input(self.index);
    }

    /// Gives the keys of a multiplexer to this user; the first user has them otherwise.
    pub fn take_focus(&self) {
        self.chardev.take_focus(self.index);
    }

    /// Whether somebody is at the other end.
    pub fn is_open(&self) -> bool {
        self.chardev.is_open()
    }

    /// The stream this belongs to.
    pub fn chardev(&self) -> &Arc<Chardev> {
        &self.chardev
    }
}

impl Drop for CharFrontend {
    fn drop(&mut self) {
        self.chardev.attach(self.index, None);
        self.chardev.release(self.index);
    }
}
