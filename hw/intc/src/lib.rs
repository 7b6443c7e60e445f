//! What interrupt controllers and the interval timer *are*: plain, tagged state, and the messages
//! and signals between them.
//!
//! The user-space devices embed these types; an accelerator whose kernel has the controllers
//! converts them to the kernel's. Either way the saved section is the same, so that a machine moves
//! between accelerators. Nothing here acts on a guest.
#![deny(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects
)]
#![cfg_attr(test, allow(clippy::indexing_slicing, clippy::arithmetic_side_effects))]

mod gic;
mod i8254;
mod i8259;
mod ioapic;
mod its;
mod lapic;
mod legacy;
mod lpi;
mod message;
mod signal;

pub use gic::{
    GIC_BANK, GIC_IDLE, GIC_LIST, GIC_MAX_CPUS, GIC_MAX_SPIS, GIC_MIN_BPR, GIC_PRIORITY, GIC_SGIS,
    GICV2_MAX_CPUS, GicBank, GicCpu, GicPlaces, GicState, GicVersion, GicVirtual,
};
pub use i8254::{I8254Channel, I8254State, KernelI8254, PIT_HZ};
pub use i8259::{I8259Chip, I8259State};
pub use ioapic::{IOAPIC_PINS, IoApicState, redirection};
pub use its::GicItsState;
pub use lapic::{
    APIC_BASE, APIC_BUS_HZ, LVT_COUNT, LapicState, base, divide_shift, highest, lvt, lvt_index,
    reg, svr,
};
pub use legacy::LegacyReplacement;
pub use lpi::{GIC_FIRST_LPI, GIC_INTID_BITS, GIC_MAX_LPIS, GicLpis};
pub use message::{ApicMessage, DeliveryMode, Destination, MSI_BASE, MSI_LEN};
pub use signal::{CpuSignal, Kick};

#[cfg(test)]
mod tests;
