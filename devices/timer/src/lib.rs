//! Timers: the PC's i8254 with port 61h and HPET, Arm's generic timers.
//!
//! Nothing ticks: counts follow from virtual time, and a deadline is armed only where an interrupt
//! is due.
#![deny(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects
)]
#![cfg_attr(test, allow(clippy::indexing_slicing, clippy::arithmetic_side_effects))]

mod generic;
mod hpet;
mod pit;

pub use generic::{GENERIC_TIMER, GenericTimer, GenericTimers, GenericTimersDevice};
pub use hpet::{HPET, HPET_BASE, Hpet, HpetConfig};
pub use hw_intc::LegacyReplacement;
pub use pit::{ISA_PIT, KVM_PIT, KernelPit, Pit};

/// All classes of this crate.
pub const CLASSES: &[&hw_core::DeviceClass] = &[&ISA_PIT, &KVM_PIT, &HPET, &GENERIC_TIMER];

/// An interrupt source asked to fire faster fires only this often: the guest could not keep up, and
/// the main loop has other work.
const MIN_PERIOD_NS: u64 = 100_000;

/// Most periods that are made up for at once: beyond, the host was suspended.
const MOST_LATE: u64 = 1000;

#[cfg(test)]
mod testing;
