//! The interpreter: what the IR means, on any host.
//!
//! [`lower`] flattens a unit into operations on slots, keeping guest registers where they are;
//! [`exec`] runs them; [`Interp`] keeps the units of one CPU and runs it.

mod cache;
mod code;
mod exec;
mod lower;
mod machine;
mod run;
mod shadow;

pub use run::Interp;
pub use shadow::{Differing, Distance, Shadow, Stop, lazy_flags, packed_flags};

#[cfg(test)]
mod tests;
