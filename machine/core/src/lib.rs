//! The machine: its parts, its life cycle, its vCPU threads.
//!
//! Boards fill a [`Machine`] with devices and vCPUs; the binary starts, stops and resets it and
//! listens to its [`Event`]s. Stopped means: every vCPU is parked and belongs to the machine.

mod cpu_thread;
mod machine;

pub use cpu_thread::CpuThread;
pub use machine::{Event, Machine, MachineError, Policy, SavedMachine};

#[cfg(test)]
mod tests;
