//! Arm boards: `virt`.
//!
//! A board is data with a little glue: which parts, at which address, wired to which pin. It never
//! names a concrete engine: CPUs come from an [`Accelerator`].

mod accelerator;
mod acpi;
mod boot;
mod fdt;
mod firmware;
mod machines;
mod map;
mod port;
mod power;
mod virt;

pub use accelerator::{Accelerator, CpuWires};
pub use machines::MACHINES;
pub use virt::build;
