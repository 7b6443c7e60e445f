//! Arm boards: `virt`, and `none`, which has no parts.
//!
//! A board is data with a little glue: which parts, at which address, wired to which pin. It never
//! names a concrete engine: CPUs come from an [`Accelerator`].

mod accelerator;
mod acpi;
mod boot;
mod empty;
mod fdt;
mod firmware;
mod gic;
mod machines;
mod map;
mod port;
mod power;
mod secure;
mod seeds;
mod semihosting;
mod virt;

pub use accelerator::{Accelerator, Controllers, CpuWires, GicWires, Kernel};
pub use machines::MACHINES;

use hw_core::{Clock, Links};
use machine_core::{Board, BoardError, MachineSpec};
use runtime::Handle;

/// Builds the machine of `spec`: everything in place, CPUs parked in their start state after
/// [`Machine::power_on`](machine_core::Machine::power_on).
pub fn build(
    spec: &MachineSpec,
    accelerator: &dyn Accelerator,
    links: &mut Links,
    main_loop: Handle,
    clock: Clock,
) -> Result<Board, BoardError> {
    match spec.machine.name {
        machines::NONE => empty::build(spec, links, main_loop, clock),
        _ => virt::build(spec, accelerator, links, main_loop, clock),
    }
}
