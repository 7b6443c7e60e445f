//! virtio devices: entropy, block, serial.
//!
//! Each implements `hw_virtio::VirtioDevice` once and appears on MMIO and PCI.
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

mod block;
mod rng;

pub use block::{Blk, BlkOptions};
pub use rng::{Quota, Rng};
