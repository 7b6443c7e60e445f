//! Small devices of PCs: debug ports, `pvpanic`, port 92 and the devices of test suites.
#![deny(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects
)]
#![cfg_attr(test, allow(clippy::indexing_slicing, clippy::arithmetic_side_effects))]

mod debug_exit;
mod debugcon;
mod port92;
mod pvpanic;
mod testdev;

pub use debug_exit::{DebugExit, ISA_DEBUG_EXIT};
pub use debugcon::{Debugcon, ISA_DEBUGCON};
pub use port92::{PORT92, Port92};
pub use pvpanic::{PVPANIC, Pvpanic};
pub use testdev::{PC_TESTDEV, PcTestdev};

use hw_core::DeviceClass;

/// The classes of this crate.
pub const CLASSES: &[&DeviceClass] = &[
    &ISA_DEBUGCON,
    &ISA_DEBUG_EXIT,
    &PVPANIC,
    &PORT92,
    &PC_TESTDEV,
];

#[cfg(test)]
mod tests;
