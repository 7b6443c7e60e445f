//! Keyboards and mice of PCs.
//!
//! People and programs press keys through an [`Input`] handle; the i8042 controller takes them from
//! there to its PS/2 keyboard and mouse.
#![deny(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects
)]
#![cfg_attr(test, allow(clippy::indexing_slicing, clippy::arithmetic_side_effects))]

mod events;
mod i8042;
mod keyboard;
mod keys;
mod mouse;
mod translate;

pub use events::{Input, InputEvent};
pub use i8042::{I8042, I8042_CLASS};
pub use keys::Key;
pub use mouse::Buttons;

use hw_core::DeviceClass;

/// The classes of this crate.
pub const CLASSES: &[&DeviceClass] = &[&I8042_CLASS];

#[cfg(test)]
mod tests;
