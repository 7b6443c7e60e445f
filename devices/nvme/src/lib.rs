//! NVMe: a controller and its namespaces.
//!
//! Spec: NVM Express Base Specification 1.4 (NVMe).
//!
//! Commands come through queues in guest memory ([`queue`]); those of the admin queue set the
//! controller up ([`admin`]), all others are about blocks ([`io`]). Data move straight between the
//! pages that a command names ([`prp`]) and the image, on the back end's threads.
#![deny(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects
)]
#![cfg_attr(
    test,
    allow(
        clippy::unwrap_used,
        clippy::indexing_slicing,
        clippy::arithmetic_side_effects
    )
)]

mod admin;
mod bus;
mod classes;
mod command;
mod controller;
mod event;
mod features;
mod identify;
mod io;
mod namespace;
mod prp;
mod queue;
#[cfg(test)]
mod tests;

pub use classes::CLASSES;
