//! What a device is, and how it meets the world.
//!
//! A [`Device`] is plain `&mut self` state behind a mutex that belongs to the [`Fabric`]; it reaches
//! memory, pins, time and its back ends only through the [`Wiring`] it gets in `realize`. Classes
//! ([`DeviceClass`]) are the one definition from which `-device`, help and introspection are read.
#![deny(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects
)]
#![cfg_attr(test, allow(clippy::indexing_slicing, clippy::arithmetic_side_effects))]

mod bell;
mod button;
mod class;
mod device;
pub mod drive_props;
mod fabric;
mod irq;
mod request;

pub use bell::Ringing;
pub use button::PowerButton;
pub use class::{
    Args, BusKind, Category, Create, DeviceClass, DeviceError, Links, Prop, PropType, PropValue,
    nearest, prop,
};
pub use device::{ChildBus, Device, HotPlug, IrqPin, Region, ResetKind, TimerId, Wiring};
pub use fabric::{Fabric, Part, PartId, Placement};
pub use hw_clock::{Clock, Timer};
pub use hw_memory::{
    Access, AccessSizes, Attrs, ByteOrder, Dma, DmaError, Doorbell, Fault, Initiator, IoRegion,
    Mapping, RegionId,
};
pub use hw_state::{Section, StateError, Value};
pub use irq::{IrqHub, IrqLine, IrqSink, Msi, MsiSink};
pub use request::{Request, Requests};

#[cfg(test)]
mod tests;
