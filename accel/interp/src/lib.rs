//! The interpreter: what the IR means, on any host.
//!
//! [`lower`] flattens a unit into operations on slots, keeping guest registers where they are;
//! [`exec`] runs them; [`Interp`] keeps the units of one CPU and runs it.

mod cache;
mod code;
mod exec;
mod lower;
mod run;

pub use run::Interp;

#[cfg(test)]
mod tests;
