//! QEMU's command line grammar.
//!
//! [`opts`] takes `key=value` lists and JSON objects apart, [`props`] checks them against a table of properties.

#![deny(clippy::indexing_slicing)]

pub mod error;
pub mod number;
pub mod opts;
pub mod props;
pub mod suggest;

pub use error::OptionError;
pub use opts::{Opts, Scalar};
pub use props::{OnOffAuto, PropDef, PropKind, PropValue, Props};
