//! SMBIOS tables: what the machine says about itself to `dmidecode`.
//!
//! Spec: DMTF DSP0134 "System Management BIOS (SMBIOS) Reference Specification" 3.7; structure
//! sections are cited where they are built. [`Smbios`] takes the `-smbios` options, [`build`] makes
//! the tables for a [`Machine`], and [`Tables`] hands them to firmware or places them in memory.
#![deny(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects
)]
#![cfg_attr(test, allow(clippy::indexing_slicing, clippy::arithmetic_side_effects))]

mod deliver;
mod options;
mod structures;

pub use deliver::{ANCHOR_FILE, EntryPoint, TABLES_FILE, Tables};
pub use options::{FIELDS, Smbios, SmbiosError};

/// What the tables say of the machine where the options do not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Machine<'a> {
    /// Who made it.
    pub manufacturer: &'a str,
    /// The board's description.
    pub product: &'a str,
    /// The machine type's name.
    pub version: &'a str,
    /// `-uuid`, in the order it is written.
    pub uuid: Option<[u8; 16]>,
    /// Processor packages.
    pub sockets: u16,
    /// Cores of each package.
    pub cores: u16,
    /// Threads of each core.
    pub threads: u16,
    /// CPUID leaf 1: EAX in the low half, EDX in the high half.
    pub processor_id: u64,
    /// Ranges of RAM: address and bytes.
    pub ram: &'a [(u64, u64)],
}

/// Makes the tables.
pub fn build(machine: &Machine<'_>, options: &Smbios, entry: EntryPoint) -> Tables {
    let mut list = structures::List::default();
    structures::all(&mut list, machine, options);
    Tables::new(list, entry)
}

#[cfg(test)]
mod tests;
