//! Serial and parallel ports: `isa-serial` and `isa-parallel` of the PC, Arm's `pl011`.
#![deny(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects
)]
#![cfg_attr(test, allow(clippy::indexing_slicing, clippy::arithmetic_side_effects))]

mod isa;
mod line;
mod parallel;
mod pl011;
#[cfg(test)]
mod testing;
mod uart;

pub use isa::{COM_PORTS, ISA_PARALLEL, ISA_SERIAL, LPT_PORTS};
pub use line::{Inbox, Input, Line};
pub use parallel::Parallel;
pub use pl011::{PL011, Pl011};
pub use uart::Uart16550;

/// All classes of this crate.
pub const CLASSES: &[&hw_core::DeviceClass] = &[&ISA_SERIAL, &ISA_PARALLEL, &PL011];
