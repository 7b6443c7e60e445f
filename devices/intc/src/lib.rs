//! Interrupt controllers in user space: i8259 pair, I/O APIC and local APICs of the PC, Arm's GIC.
//!
//! Each controller is a shared object that wires and CPUs call, beside a thin
//! [`Device`](hw_core::Device) for registers, reset and saving. Lock order: a device, then the
//! i8259 *or* an I/O APIC, then nothing: local APICs take messages in atomic words. The local APIC
//! holds no lock when it tells the I/O APICs of an end of interrupt.
#![deny(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects
)]
#![cfg_attr(test, allow(clippy::indexing_slicing, clippy::arithmetic_side_effects))]

mod gic;
mod i8259;
mod ioapic;
mod isa;
mod kept;
mod lapic;

pub use gic::{
    ARM_GIC, ARM_GICV3, ARM_GICV3_ITS, GICV2M, Gic, GicIts, GicSystemAccess, GicV2Device, GicV2m,
    GicV2mConfig, GicV3Device, ITS_LEN, ItsModel, REDISTRIBUTOR_LEN, Security as GicSecurity,
    SystemFault, World as GicWorld,
};
pub use hw_intc::{
    ApicMessage, CpuSignal, DeliveryMode, Destination, GicVersion, I8259State, IoApicState, Kick,
    LapicState,
};
pub use i8259::{I8259, I8259Device, ISA_I8259};
pub use ioapic::{IOAPIC, IOAPIC_BASE, IoApic, IoApicDevice};
pub use isa::IsaLines;
pub use lapic::{APIC, ApicBus, ApicDevice, LINT0, LINT1, LocalApic};

/// All classes of this crate.
pub const CLASSES: &[&hw_core::DeviceClass] = &[
    &ISA_I8259,
    &IOAPIC,
    &APIC,
    &ARM_GIC,
    &ARM_GICV3,
    &ARM_GICV3_ITS,
    &GICV2M,
];
