//! PC boards: pc, q35, microvm, none.
//!
//! A board is data with a little glue: which parts, at which address, wired to which pin. It never
//! names a concrete engine: CPUs come from an [`Accelerator`].

mod accelerator;
mod board;
mod boot;
mod legacy;
mod machines;
mod microvm;
mod pc;
mod port;
mod start;

use std::sync::Arc;

use machine_core::{Board, BoardError, MachineSpec};

pub use accelerator::{Accelerator, Controllers, CpuWires, Irqchip};
pub use machines::MACHINES;

use machines::Kind;

/// Builds the machine of `spec`: everything in place, CPUs parked in their start state after
/// [`Machine::power_on`](machine_core::Machine::power_on).
pub fn build(
    spec: &MachineSpec,
    accelerator: Arc<dyn Accelerator>,
    links: &mut hw_core::Links,
    main_loop: runtime::Handle,
    clock: hw_core::Clock,
) -> Result<Board, BoardError> {
    match Kind::of(spec.machine) {
        Kind::Pc | Kind::Q35 => pc::build(spec, accelerator, links, main_loop, clock),
        Kind::Microvm => microvm::build(spec, accelerator, links, main_loop, clock),
        Kind::None => board::empty(spec, accelerator, links, main_loop, clock),
    }
}
