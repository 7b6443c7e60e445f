//! qcow2 images (specification: QEMU's `docs/interop/qcow2`).
//!
//! | chapter | file |
//! |---|---|
//! | Header, header extensions | `header.rs` |
//! | Host cluster management | `refcount.rs` |
//! | Cluster mapping, extended L2 entries | `entry.rs`, `mapping.rs` |
//! | Snapshots | `snapshot.rs` |
//! | order of writes, and what a power cut may leave | `meta.rs` |
//!
//! An image is hostile: every number is checked before it is used, and what is read because of one is
//! bounded. Not supported: encrypted images, and writing to images with a bitmap that follows writes.
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

mod bitmap;
mod bytes;
mod cache;
mod check;
mod compress;
mod create;
mod entry;
mod header;
mod image;
mod mapping;
mod meta;
mod moving;
mod now;
mod refcount;
mod resize;
mod settings;
mod snapshot;
mod sync;
mod write;
mod zero;

pub use check::{Findings, Fix};
pub use image::{CLASS, Qcow2};
pub use snapshot::Snapshot;
