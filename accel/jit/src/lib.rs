//! The JIT: compiles units of IR for x86-64 hosts.
//!
//! - `asm.rs`: the encoder of host instructions;
//! - `compile.rs` and its folder: a unit into host code;
//! - `memory.rs`, `thunks.rs`, `table.rs`: where code lives, the code made once, the targets of indirect
//!   jumps;
//! - `grow.rs`, `graph.rs`: which units are hot and become one;
//! - `cache.rs`: which units are compiled, how they are linked, what makes them stale;
//! - `ring.rs`: how much code is kept, and what is driven out first;
//! - `run.rs`: the executor; `runtime.rs`: what generated code calls;
//! - `check.rs`: all of that in lock step with the interpreter;
//! - `listing.rs`: generated code for people and profilers.
//!
//! Hosts of other architectures use the interpreter.
#![allow(unsafe_code)]
#![cfg(all(target_os = "linux", target_arch = "x86_64"))]

mod asm;
mod cache;
mod check;
mod compile;
mod graph;
mod grow;
mod listing;
mod memory;
mod notes;
mod places;
mod ring;
mod run;
mod runtime;
mod table;
mod thunks;

pub use memory::CodeMemoryError;
pub use run::{DEFAULT_CODE, Jit};

#[cfg(test)]
mod tests;
