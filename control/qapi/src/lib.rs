//! Typed definitions of QMP: types, events and the machine behind the commands.
//!
//! A type is written once, with [`qapi_struct!`], [`qapi_enum!`] or [`qapi_union!`]; reading arguments (with QEMU's words for what is
//! wrong), writing answers and `query-qmp-schema` all come from that. [`Vm`] is what the commands act on.

mod blocks;
mod drivers;
mod error;
mod events;
#[cfg(feature = "fake")]
pub mod fake;
mod schema;
mod types;
mod value;
mod vm;

pub use blocks::{Blocks, DriveName, JobChange, MediumChange};
pub use drivers::{BlockDriver, BlockDrivers, Setting, Takes};
pub use error::{ErrorClass, QmpError};
pub use events::{Event, EventBus, EventSink, Timestamp};
pub use schema::{Member, Schema};
pub use types::*;
pub use value::{Qapi, join, no_more_members, object_members};
pub use vm::{AddressSpace, CpuRecord, InfoTopic, Instruction, Vm};

pub use serde_json::{Map, Value, json};

#[cfg(test)]
mod tests;
