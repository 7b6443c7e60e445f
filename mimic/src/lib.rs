//! The binary's own code: reads the command line, builds the machine it describes, runs it to its end.
//!
//! Everything above a device meets here: [`build`] turns options into a description of a machine, [`streams`] and
//! [`storage`] open the host's side, [`monitor`] shows the machine to QMP and HMP, [`life`] runs the main loop.

#![deny(clippy::indexing_slicing)]

pub mod accel;
pub mod assembly;
mod blocks;
pub mod build;
pub mod devices;
mod entry;
pub mod guests;
pub mod help;
mod hotplug;
mod img;
mod introspect;
#[cfg(all(
    target_os = "linux",
    any(target_arch = "x86_64", target_arch = "aarch64")
))]
mod kvm;
mod life;
mod logging;
mod monitor;
mod objects;
mod run;
mod run_with;
mod sandbox;
pub mod storage;
pub mod streams;
mod wreck;

pub use entry::{emulate, main};
