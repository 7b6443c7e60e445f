//! Named values as users write them: devices, machines, streams and options have tables of them.
//!
//! [`PropType`] says what a value may be and reads it, [`number`] has the forms of numbers, [`nearest`]
//! finds what a misspelt name was meant to be.
#![deny(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects
)]

mod kind;
mod nearest;
pub mod number;

pub use kind::{OnOffAuto, PropType, PropValue};
pub use nearest::nearest;
