//! virtio devices: entropy, block, SCSI, serial.
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
mod classes;
mod rng;
mod scsi;
mod serial;

pub use block::{Blk, BlkOptions};
pub use classes::CLASSES;
pub use rng::{Quota, Rng};
pub use scsi::{Scsi, ScsiOptions};
pub use serial::{PortHost, PortSpec, Serial, SerialBus, SerialPort};
