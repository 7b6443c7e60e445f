//! Guest RAM, the memory map and the port map.
//!
//! [`RamBlock`] is host memory that guests, devices and the engine share; [`MemoryMap`] says what
//! answers at which address, as an immutable [`Snapshot`] that is swapped whole; [`Dma`] is how
//! devices reach RAM and only RAM.
//!
//! Every value has a width and a byte order: an access carries a `u64` in the initiator's order, the
//! region declares its own, [`Snapshot`] swaps between them.
#![allow(unsafe_code)]
#![deny(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects
)]
#![cfg_attr(test, allow(clippy::indexing_slicing, clippy::arithmetic_side_effects))]

mod access;
mod advice;
mod dma;
mod map;
mod ram;
mod vector;

pub use access::{
    Access, AccessSizes, Attrs, ByteOrder, Doorbell, Fault, Initiator, RegionId, RungBell,
    SECURE_SPACE,
};
pub use advice::Advice;
pub use dma::{Dma, DmaError};
pub use map::{IoRegion, Mapping, MappingSpec, MemoryMap, Place, Snapshot, Span, What};
pub use ram::{CodeWatcher, PAGE_BITS, PAGE_SIZE, RamBlock, RamError, granules, page_flag};
pub use vector::{BUFFER_ALIGN, IoVector};

#[cfg(test)]
mod tests;
