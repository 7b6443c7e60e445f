//! SCSI disks and CD drives.
//!
//! Spec: SPC-4 (T10/1731-D) for what all units have, SBC-3 (T10/1799-D) for disks, MMC-5
//! (T10/1675-D) for CD drives.
//!
//! A CD drive is also what an ATAPI drive's packets speak to.
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

mod cd;
mod classes;
mod device;
mod disk;
mod inquiry;
#[cfg(test)]
mod tests;

pub use cd::{CD_BLOCK, Cable, Cd};
pub use classes::CLASSES;
pub use inquiry::Identity;

/// Puts the number of the bytes that follow the first two in front.
fn counted(mut bytes: Vec<u8>) -> Vec<u8> {
    let len = u16::try_from(bytes.len()).unwrap_or(u16::MAX);
    bytes.splice(0..0, len.to_be_bytes());
    bytes
}

/// The more urgent of two things that the host is to be told (SAM-5, 5.14): a reset covers all else.
fn more_urgent(old: Option<hw_scsi::Sense>, new: hw_scsi::Sense) -> Option<hw_scsi::Sense> {
    match old {
        Some(hw_scsi::Sense::RESET) => old,
        _ => Some(new),
    }
}
