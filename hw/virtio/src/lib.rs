//! virtio, the device side, written once for all transports.
//!
//! Spec: Virtual I/O Device (VIRTIO) Version 1.2 (OASIS, 2022), and its legacy interface sections.
//!
//! A device implements [`VirtioDevice`]; [`Core`] negotiates features and runs its queues; a
//! transport ([`VirtioMmio`], [`VirtioPci`]) gives both a face in the guest's address space. Everything in a
//! ring is hostile: a violated rule makes the device ask for a reset and it stops working until then.
//!
//! Not modelled: `VIRTIO_F_RING_RESET`, `VIRTIO_F_IN_ORDER`, `VIRTIO_F_NOTIFICATION_DATA`, shared
//! memory regions; legacy rings of big-endian guests.
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

#[cfg(any(test, feature = "bench"))]
pub mod bench;
mod chain;
mod core;
mod device;
mod mmio;
mod pci;
mod queue;

pub use crate::core::{Core, Options, Signals};
pub use chain::{Chain, Range};
pub use device::{Io, VirtioDevice};
pub use mmio::{MmioSlot, VIRTIO_MMIO, VirtioMmio};
pub use pci::{DisableLegacy, VirtioPci, VirtioPciOptions};
pub use queue::{Queue, QueueError};

/// Feature bits that belong to rings and transports (VIRTIO 1.2 section 6).
pub mod feature {
    /// Legacy: interrupt when the ring runs empty even if interrupts are suppressed.
    pub const NOTIFY_ON_EMPTY: u64 = 1 << 24;
    /// Legacy: descriptors may be laid out freely.
    pub const ANY_LAYOUT: u64 = 1 << 27;
    /// Indirect descriptor tables.
    pub const INDIRECT_DESC: u64 = 1 << 28;
    /// `used_event` and `avail_event`.
    pub const EVENT_IDX: u64 = 1 << 29;
    /// Not a legacy driver.
    pub const VERSION_1: u64 = 1 << 32;
    /// Addresses are translated by an IOMMU, if there is one.
    pub const ACCESS_PLATFORM: u64 = 1 << 33;
    /// The packed ring layout.
    pub const RING_PACKED: u64 = 1 << 34;
}

/// Device status bits (VIRTIO 1.2 section 2.1).
pub mod status {
    /// The guest has seen the device.
    pub const ACKNOWLEDGE: u8 = 1;
    /// The guest can drive it.
    pub const DRIVER: u8 = 2;
    /// The driver is ready.
    pub const DRIVER_OK: u8 = 4;
    /// Features are agreed on.
    pub const FEATURES_OK: u8 = 8;
    /// The device has met an error it cannot go on from.
    pub const DEVICE_NEEDS_RESET: u8 = 0x40;
    /// The driver has given up.
    pub const FAILED: u8 = 0x80;
}

/// Device numbers (VIRTIO 1.2 section 5).
pub mod device_id {
    /// Network card.
    pub const NET: u16 = 1;
    /// Block device.
    pub const BLOCK: u16 = 2;
    /// Console.
    pub const CONSOLE: u16 = 3;
    /// Entropy source.
    pub const ENTROPY: u16 = 4;
    /// Traditional memory balloon.
    pub const BALLOON: u16 = 5;
    /// SCSI host.
    pub const SCSI: u16 = 8;
    /// 9P transport.
    pub const NINE_P: u16 = 9;
}
