//! The QMP monitor: JSON in, JSON out.
//!
//! [`Session`] is the protocol without any input or output of its own; [`QmpMonitor`] puts one on a character stream.
//! [`commands`] are the one list of commands: dispatch, `query-commands` and `query-qmp-schema` read it, and the human
//! monitor runs its commands through [`execute`].

#![deny(clippy::indexing_slicing)]

mod block;
mod commands;
mod fds;
mod memory;
mod monitor;
mod session;
mod stream;

pub use commands::{CommandDef, Context, Handed, Human, commands, execute, schema, version};
pub use memory::save_memory;
pub use monitor::QmpMonitor;
pub use session::Session;
pub use stream::{JsonStream, StreamError};

#[cfg(test)]
mod tests;
