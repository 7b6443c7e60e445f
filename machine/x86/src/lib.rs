//! PC boards: pc, q35, microvm, none.
//!
//! A board is data with a little glue: which parts, at which address, wired to which pin. It never
//! names a concrete engine: CPUs come from an [`Accelerator`].

mod accelerator;
mod board;
mod boot;
mod bootorder;
mod legacy;
mod microvm;
mod pc;
mod port;
mod spec;
mod start;

use std::sync::Arc;

pub use accelerator::{Accelerator, Controllers, CpuWires, Irqchip};
pub use board::{Board, BoardError};
pub use spec::{
    BootSpec, DeviceSpec, FileSpec, GlobalSpec, Kind, MACHINES, MachineDef, PcSpec, RtcSpec, find,
};

/// Builds the machine of `spec`: everything in place, CPUs parked in their start state after
/// [`Machine::power_on`](machine_core::Machine::power_on).
pub fn build(
    spec: &PcSpec,
    accelerator: Arc<dyn Accelerator>,
    links: &mut hw_core::Links,
    main_loop: runtime::Handle,
    clock: hw_core::Clock,
) -> Result<Board, BoardError> {
    match spec.machine.kind {
        Kind::Pc | Kind::Q35 => pc::build(spec, accelerator, links, main_loop, clock),
        Kind::Microvm => microvm::build(spec, accelerator, links, main_loop, clock),
        Kind::None => board::empty(spec, accelerator, links, main_loop, clock),
    }
}
