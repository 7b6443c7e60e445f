//! Character streams: the host's end of serial ports, consoles and monitors.
//!
//! A [`Chardev`] is made from a [`CharSpec`] and lives on an event loop. Whoever uses it takes a [`CharFrontend`] and
//! attaches a [`CharSink`]. Writing never waits: a bounded queue takes what fits. Input is read only as fast as the
//! sink says it can take it.
//!
//! Not here yet: UDP, TLS, websocket, host serial and parallel ports, spice, braille and mouse drivers.

#![deny(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects
)]
#![cfg_attr(test, allow(clippy::arithmetic_side_effects))]

mod chardev;
mod frontend;
mod mux;
mod null;
mod outbox;
mod pty;
mod ringbuf;
mod socket;
mod spec;
mod stream;
mod telnet;
mod testdev;

pub use chardev::{CharError, Chardev};
pub use frontend::{CharEvent, CharFrontend, CharSink};
pub use mux::MuxCommand;
pub use outbox::Outbox;
pub use spec::{CharKind, CharSpec, DRIVERS, DriverDef, LogFile, SocketAddress, SocketSpec};

#[cfg(test)]
mod tests;
