//! General purpose inputs and outputs.
#![deny(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects
)]
#![cfg_attr(test, allow(clippy::indexing_slicing, clippy::arithmetic_side_effects))]

mod pl061;

pub use pl061::{Key, Output, PL061, Pl061};

/// All classes of this crate.
pub const CLASSES: &[&hw_core::DeviceClass] = &[&PL061];
