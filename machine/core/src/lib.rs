//! The machine: what it is built from, its parts, its life cycle, its vCPU threads.
//!
//! Boards fill a [`Machine`] with devices and vCPUs; the binary starts, stops and resets it and
//! listens to its [`Event`]s. Stopped means: every vCPU is parked and belongs to the machine.

mod board;
pub mod bootorder;
mod cpu_thread;
mod file;
mod hotplug;
mod machine;
mod parts;
mod smbios;
mod spec;
mod turns;

pub use board::{Board, BoardError};
pub use bootorder::BootOrder;
pub use cpu_thread::CpuThread;
pub use file::FileSpec;
pub use hotplug::Leaving;
pub use machine::{Event, Machine, MachineError, Policy, SavedMachine};
pub use parts::{Parts, ram_at};
pub use smbios::smbios;
pub use spec::{
    BootSpec, DeviceSpec, GlobalSpec, MachineDef, MachineSpec, RtcSpec, SemihostingSpec, absent,
    switch,
};

#[cfg(test)]
mod tests;
