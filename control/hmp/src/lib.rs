//! The monitor console for people.
//!
//! [`Hmp`] runs one line and returns what it prints; what QMP can do it does through QMP's commands. [`HmpMonitor`] puts
//! it on a character stream, with line editing. [`COMMANDS`] is the one table that parsing, `help`, completion and
//! suggestions read.

#![deny(clippy::indexing_slicing)]

mod args;
mod block;
mod commands;
mod dump;
mod expr;
mod info;
mod media;
mod monitor;
mod readline;

pub use commands::{COMMANDS, CommandDef, Hmp, PROMPT};
pub use monitor::HmpMonitor;
pub use readline::{Edit, LineEditor};

#[cfg(test)]
mod tests;
