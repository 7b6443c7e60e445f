//! PCI host bridges and ISA bridges: i440FX with PIIX3 and PIIX4, Q35 with ICH9, and the generic PCI
//! Express host; root ports.
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

mod bridge;
mod gpex;
mod i440fx;
mod ich9;
mod mch;
mod pam;
mod piix3;
mod piix4_pm;
mod pirq;
mod root_port;
mod testdev;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use hw_core::{BusKind, Category, DeviceClass, DeviceError};
use hw_pci::ConfigSpace;

pub use gpex::{Gpex, GpexConfig, GpexLines};
pub use i440fx::I440fx;
pub use ich9::{Ich9Lpc, LpcConfig};
pub use mch::{Mch, MchConfig};
pub use pam::{Smram, priority};
pub use piix3::Piix3;
pub use piix4_pm::{Piix4Pm, PmConfig};
pub use pirq::PirqRouter;

/// Places an I/O block of another device, whose base address register is here: base and whether it
/// answers.
pub type PlaceIo = Arc<dyn Fn(u64, bool) + Send + Sync>;

/// A class that only boards make, with parts of the board in their hands.
const fn board_part(name: &'static str, doc: &'static str) -> DeviceClass {
    DeviceClass {
        name,
        aliases: &[],
        doc,
        bus: BusKind::Pci,
        category: Category::Bridge,
        props: &[],
        user_creatable: false,
        create: |args, _| {
            Err(DeviceError::Other(format!(
                "'{}' is part of a machine and cannot be added to one",
                args.class().name
            )))
        },
    }
}

static GPEX_CLASS: DeviceClass = board_part("gpex-root", "generic PCI Express host bridge");
static I440FX_CLASS: DeviceClass = board_part("i440FX", "Intel 82441FX host bridge");
static PIIX3_CLASS: DeviceClass = board_part("PIIX3", "Intel 82371SB ISA bridge");
static PIIX4_PM_CLASS: DeviceClass = board_part("PIIX4_PM", "Intel 82371AB power management");
static MCH_CLASS: DeviceClass = board_part("mch", "Intel 82G33 host bridge");
static ICH9_CLASS: DeviceClass = board_part("ICH9-LPC", "Intel ICH9 ISA bridge");

/// The classes of this crate.
pub static CLASSES: &[&DeviceClass] = &[
    &GPEX_CLASS,
    &I440FX_CLASS,
    &PIIX3_CLASS,
    &PIIX4_PM_CLASS,
    &MCH_CLASS,
    &ICH9_CLASS,
    &root_port::PCIE_ROOT_PORT,
    &testdev::PCI_TESTDEV,
];

/// Bridges of this kind keep what firmware writes to registers that do nothing here.
fn device_registers_writable(config: &mut ConfigSpace) {
    for offset in 0x40..0x100 {
        config.set_writable(offset, 1, 0xff);
    }
}

/// Whether an access of `size` bytes at `offset` touches `first..=last`.
fn touches(offset: u16, size: u8, first: u16, last: u16) -> bool {
    offset <= last && offset.saturating_add(u16::from(size)) > first
}
