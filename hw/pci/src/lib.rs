//! PCI: buses, configuration space, base address registers, capabilities, MSI and MSI-X.
//!
//! Spec: PCI Local Bus Specification 3.0; PCI Express Base Specification (ECAM, section 7.2.2).
//!
//! A function implements [`PciFunction`]; [`PciDevice`] makes a device of it that owns the
//! configuration space, places BARs in the maps and turns interrupts into messages or pin levels. A
//! [`PciBus`] routes configuration accesses without holding any lock while a function answers, so a
//! host bridge may be the target of an access that came through its own ports.
//!
//! Not modelled: windows of bridges, power management.
#![deny(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects
)]
#![cfg_attr(
    test,
    allow(
        clippy::unwrap_used,
        clippy::indexing_slicing,
        clippy::arithmetic_side_effects
    )
)]

mod access;
mod bar;
mod bridge;
mod bus;
mod config;
mod device;
mod function;
mod msi;
mod msix;
mod props;
#[cfg(test)]
mod tests;

pub use access::{ConfigPorts, Ecam};
pub use bar::{BarInfo, BarKind, BarSpec};
pub use bridge::Bridge;
pub use bus::{FunctionInfo, PciBus, Plugged};
pub use config::{ConfigSpace, cap, reg};
pub use device::{PciDevice, PciOptions};
pub use function::{Pci, PciFunction, Setup};
pub use props::{ACPI_INDEX, ADDR, MULTIFUNCTION, ROMBAR, ROMFILE};

/// Vendor of devices that only exist in machines like this one (Red Hat, Qumranet).
pub const VENDOR_VIRTUAL: u16 = 0x1af4;
/// Intel.
pub const VENDOR_INTEL: u16 = 0x8086;
/// Red Hat.
pub const VENDOR_REDHAT: u16 = 0x1b36;
/// Subsystem id of every function that has no better one, of vendor [`VENDOR_VIRTUAL`].
pub const SUBSYSTEM: u16 = 0x1100;

/// Slot and function in a byte.
pub const fn devfn(slot: u8, function: u8) -> u8 {
    (slot << 3) | (function & 7)
}
