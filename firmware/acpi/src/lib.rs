//! ACPI tables from a board's description.
//!
//! Spec: ACPI 6.5. [`Board`] says what the machine has; [`build`] makes the tables with all their
//! pointers still relative. They reach the guest in one of two ways: [`Tables::loader`] makes the
//! three `fw_cfg` files that SeaBIOS and OVMF link together, [`Tables::place`] puts them at fixed
//! addresses for a kernel that starts without firmware.
#![deny(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects
)]
#![cfg_attr(test, allow(clippy::indexing_slicing, clippy::arithmetic_side_effects))]

mod arm;
mod asl;
mod deliver;
mod dsdt;
mod pci;
mod tables;

pub use arm::{ArmBoard, ArmGic, ArmMsi, ArmPci, ArmPrivate, ArmTopology, Window, build_arm};
pub use deliver::{LOADER_FILE, LoaderFiles, RSDP_FILE, RSDP_LEN, TABLES_FILE, Tables};

/// An I/O APIC.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IoApic {
    /// Its identifier.
    pub id: u8,
    /// Its address.
    pub address: u32,
    /// Global interrupt of its first pin.
    pub gsi_base: u32,
}

/// An ISA interrupt that is not the global interrupt of the same number, or not edge-triggered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IrqOverride {
    /// ISA interrupt.
    pub irq: u8,
    /// Global interrupt.
    pub gsi: u32,
    /// Whether it is level-triggered (and active high).
    pub level: bool,
}

/// Fixed ACPI hardware.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fixed {
    /// Port of the power management block.
    pub pm_base: u16,
    /// Port and length of the general purpose event registers.
    pub gpe: (u16, u8),
    /// The system control interrupt.
    pub sci: u16,
    /// Port to switch ACPI mode at, and what switches it on and off.
    pub smi_command: (u16, u8, u8),
    /// Whether S3 works.
    pub s3: bool,
}

/// A generic event device, for machines without fixed hardware.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GenericEvents {
    /// Address of the event selector.
    pub events: u32,
    /// Its global interrupt.
    pub gsi: u32,
    /// Selector bit of the power button.
    pub power_button: u32,
    /// Address of the sleep control register; the status register follows.
    pub sleep: u64,
    /// Sleep type of S5.
    pub s5: u8,
    /// Address of the reset register and what to write there.
    pub reset: (u64, u8),
}

/// How ACPI's power management is implemented.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Power {
    /// Fixed hardware, reset at port 0xcf9.
    Fixed(Fixed),
    /// Hardware-reduced.
    Reduced(GenericEvents),
}

/// How PCI interrupt pins reach interrupt controllers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Routing {
    /// PIIX3: four links to ISA interrupts, by the bridge's registers at 01.0.
    Piix,
    /// ICH9: eight links at 1f.0; with I/O APICs, fixed global interrupts 16 to 23.
    Ich9,
}

/// A PCI host bridge.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PciRoot {
    /// Interrupt routing, and with it the kind of bridge.
    pub routing: Routing,
    /// Last bus number.
    pub last_bus: u8,
    /// Port windows, first to last, beside the configuration ports.
    pub io: Vec<(u16, u16)>,
    /// Memory windows, first to last address.
    pub memory: Vec<(u64, u64)>,
    /// Memory-mapped configuration space.
    pub ecam: Option<u64>,
}

/// A legacy device at fixed ports.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ports {
    /// First port.
    pub port: u16,
    /// ISA interrupt.
    pub irq: u8,
}

/// What sits behind the ISA bridge, or stands alone on machines without PCI.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Legacy {
    /// MC146818 clock, with its interrupt.
    pub rtc: Option<u8>,
    /// PS/2 controller with keyboard and mouse.
    pub i8042: bool,
    /// Serial ports.
    pub serial: Vec<Ports>,
    /// Parallel ports.
    pub parallel: Vec<Ports>,
    /// Whether there is a VGA at its legacy addresses.
    pub vga: bool,
}

/// A virtio-mmio transport.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct VirtioMmio {
    /// Address of its 512 bytes.
    pub base: u32,
    /// Global interrupt.
    pub gsi: u32,
}

/// What a machine has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Board {
    /// Local APIC identifiers of the CPUs, the boot CPU first.
    pub apic_ids: Vec<u32>,
    /// Address of the local APICs.
    pub lapic: u32,
    /// I/O APICs.
    pub ioapics: Vec<IoApic>,
    /// Interrupt overrides.
    pub overrides: Vec<IrqOverride>,
    /// Whether there are two i8259.
    pub has_8259: bool,
    /// Power management.
    pub power: Power,
    /// HPET address.
    pub hpet: Option<u32>,
    /// PCI.
    pub pci: Option<PciRoot>,
    /// Legacy devices.
    pub legacy: Legacy,
    /// First port of `fw_cfg` (12 ports).
    pub fw_cfg: Option<u16>,
    /// Port of `pvpanic`.
    pub pvpanic: Option<u16>,
    /// virtio-mmio transports.
    pub virtio_mmio: Vec<VirtioMmio>,
}

/// Makes the tables.
pub fn build(board: &Board) -> Tables {
    let mut out = Tables::default();
    let facs = out.add(&tables::facs());
    let dsdt = out.add(&dsdt::dsdt(board));
    let fadt = out.add(&tables::fadt(board));
    tables::link_fadt(&mut out, fadt, facs, dsdt);
    let mut listed = vec![fadt, out.add(&tables::madt(board))];
    if let Some(address) = board.hpet {
        listed.push(out.add(&tables::hpet(address)));
    }
    if let Some((root, ecam)) = board.pci.as_ref().and_then(|p| Some((p, p.ecam?))) {
        listed.push(out.add(&tables::mcfg(ecam, root.last_bus)));
    }
    if matches!(board.power, Power::Fixed(_)) {
        listed.push(out.add(&tables::waet()));
    }
    out.finish(&listed);
    out
}

#[cfg(test)]
mod tests;
