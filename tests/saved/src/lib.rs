//! Machines in this process, saved and restored.
//!
//! A [`Rig`] is a machine from a command line with its console in memory. [`through_bytes`] takes a
//! saved machine through its byte form; [`Storm`] restores mutated sections and uses what comes of it;
//! [`Traffic`] is random accesses to all devices of a machine.

mod mutate;
mod rig;
mod storm;
mod traffic;

pub use mutate::{Mutator, Random};
pub use rig::{Rig, through_bytes};
pub use storm::{Storm, Tally};
pub use traffic::Traffic;
