//! PC boards: pc, q35, microvm, none.
//!
//! A board is data with a little glue: which parts, at which address, wired to which pin. It never
//! names a concrete engine: CPUs come from an [`Accelerator`].

pub mod accelerator;
pub mod spec;

pub use accelerator::{Accelerator, CpuWires, Irqchip};
pub use spec::{BootSpec, DeviceSpec, FileSpec, Kind, MACHINES, MachineDef, PcSpec, RtcSpec, find};
