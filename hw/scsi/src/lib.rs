//! SCSI: commands, sense, and the bus between host adapters and logical units.
//!
//! Spec: SAM-5 (T10/2104-D) for targets, logical units and task management; SPC-4 (T10/1731-D) for
//! what commands and sense look like.
//!
//! A [`Unit`] turns a command into a [`Job`]: which bytes go between host and unit, and what is done
//! with them. A host adapter finds units on its [`ScsiBus`] and moves the bytes, in its way.
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

mod bus;
mod cdb;
mod sense;
#[cfg(test)]
mod tests;
mod unit;

pub use bus::{Address, BusLimits, Notice, ScsiBus, What};
pub use cdb::{Cdb, cut, op};
pub use sense::Sense;
pub use unit::{Job, SharedUnit, Unit};
