//! ACPI hardware of PCs: the power management block of PIIX4 and ICH9, the generic event device of
//! hardware-reduced machines, the reset register.
#![deny(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects
)]
#![cfg_attr(test, allow(clippy::indexing_slicing, clippy::arithmetic_side_effects))]

mod ged;
mod pm;
mod reset;

pub use ged::{ACPI_GED, GED_EVENT_BASE, GED_REGISTER_BASE, Ged, ged_register};
pub use pm::{ACPI_PM, PIIX4_GPE_BASE, PmBlock, PmConfig, PmLayout, PmWindow};
pub use reset::{RESET_CONTROL, ResetControl};

use hw_core::DeviceClass;

/// The classes of this crate.
pub const CLASSES: &[&DeviceClass] = &[&ACPI_PM, &ACPI_GED, &RESET_CONTROL];

#[cfg(test)]
mod tests;
