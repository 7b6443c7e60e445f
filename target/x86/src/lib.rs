//! The x86_64 CPU: state, decoding into IR, MMU, exceptions, models.
//!
//! Spec: Intel 64 and IA-32 Architectures Software Developer's Manual (SDM), AMD64 Architecture
//! Programmer's Manual (APM). Files follow the SDM's chapters.
#![deny(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects
)]
#![cfg_attr(test, allow(clippy::indexing_slicing, clippy::arithmetic_side_effects))]

mod cpu;
pub mod decode;
pub mod float;
mod guest;
mod helper;
pub mod regs;
mod state;
pub mod system;

pub use cpu::{NoPort, Port, X86};
pub use state::{Exception, Segment, SegmentIndex, State, Table, cr0, cr4, efer, vector};

/// A CPU of this guest.
pub type Core = accel_core::Core<X86>;
