//! QEMU's command line grammar.
//!
//! [`parse()`] turns arguments into a [`Config`] or a request for help, by the one table of options in [`table`].
//! [`opts`] takes `key=value` lists and JSON objects apart, [`props`] checks them against a table of properties; both
//! serve whoever has such a table (devices, machines, streams). [`topology`] works out `-smp`.

#![deny(clippy::indexing_slicing)]

mod apply;
pub mod config;
pub mod error;
pub mod opts;
mod parse;
pub mod props;
pub mod suggest;
pub mod table;
pub mod topology;

pub use apply::general::{LOG_ITEMS, log_items_help};
pub use apply::parts::check_drive;
pub use config::Config;
pub use error::OptionError;
pub use hw_props::number;
pub use opts::{Opts, Scalar};
pub use parse::{HelpRequest, Outcome, parse};
pub use props::{OnOffAuto, PropDef, PropKind, PropValue, Props};
pub use topology::{SmpLimits, SmpOpts, Topology};

#[cfg(test)]
mod tests;
