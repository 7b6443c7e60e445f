//! ATA disks, ATAPI CD drives, and the controllers that they plug into: the IDE function of the PIIX3,
//! and AHCI.
//!
//! A drive knows its registers and commands ([`drive`]); it does not know how bytes come to it. A
//! controller moves them: [`channel`] and [`master`] through ports and by the old bus master, [`ahci`]
//! from lists in memory. Media are read and written by their own threads; what they have done comes
//! back as a poke of the controller.
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

mod ahci;
mod ata;
mod atapi;
mod bus;
mod channel;
mod classes;
mod device;
mod drive;
mod master;
mod piix;
mod taskfile;
#[cfg(test)]
mod tests;
mod transfer;

pub use ahci::{Ahci, AhciOptions};
pub use ata::DiskOptions;
pub use atapi::CdOptions;
pub use bus::IdeBus;
pub use classes::CLASSES;
pub use piix::Piix3Ide;
