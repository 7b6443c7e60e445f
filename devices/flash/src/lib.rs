//! NOR flash chips.
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

mod cfi01;
mod image;

pub use cfi01::{CFI_PFLASH01, Pflash01};

/// All classes of this crate.
pub const CLASSES: &[&hw_core::DeviceClass] = &[&CFI_PFLASH01];
