//! The QMP monitor: JSON in, JSON out.
//!
//! [`Session`] is the protocol without any input or output of its own; [`QmpMonitor`] puts one on a character stream.
//! [`COMMANDS`] is the one table of commands: dispatch, `query-commands` and `query-qmp-schema` read it, and the human
//! monitor runs its commands through [`execute`].

#![deny(clippy::indexing_slicing)]

mod commands;
mod memory;
mod monitor;
mod session;
mod stream;

pub use commands::{COMMANDS, CommandDef, Context, Human, execute, schema, version};
pub use memory::save_memory;
pub use monitor::QmpMonitor;
pub use session::Session;
pub use stream::{JsonStream, StreamError};

#[cfg(test)]
mod tests;
