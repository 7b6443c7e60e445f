//! Intel i440FX (82441FX) host bridge.
//!
//! Spec: Intel 440FX PCIset, 82441FX PCI and Memory Controller, chapter 3.
//!
//! Not modelled: DRAM timing and row boundaries (kept, without effect), parity errors.

use std::sync::Arc;

use hw_core::{DeviceError, ResetKind, Section, StateError};
use hw_memory::RamBlock;
use hw_pci::{Pci, PciDevice, PciFunction, PciOptions, Setup, VENDOR_INTEL};

use crate::bridge::{Bridge, Places};
use crate::pam::Smram;

const DEVICE: u16 = 0x1237;
const CLASS: u32 = 0x06_0000;
const REVISION: u8 = 2;
/// DRAM row boundary of the last row: all memory, in units of 8 MiB.
const DRB7: u16 = 0x57;
const PLACES: Places = Places {
    pam: 0x59,
    smram: 0x72,
};

/// The host bridge at 00.0, with the configuration ports.
pub struct I440fx {
    bridge: Bridge,
}

impl I440fx {
    /// A bridge over `ram`, which begins at address 0.
    pub fn new(ram: Arc<RamBlock>, smram: Smram) -> PciDevice<Self> {
        let bridge = Bridge::new(ram, smram, PLACES);
        PciDevice::new(I440fx { bridge }, PciOptions::at(0))
    }
}

impl PciFunction for I440fx {
    fn name(&self) -> &'static str {
        "i440FX"
    }

    fn setup(&mut self, setup: &mut Setup<'_>) -> Result<(), DeviceError> {
        setup.ids(VENDOR_INTEL, DEVICE, CLASS, REVISION);
        self.bridge.setup(setup);
        let rows = self.bridge.ram.len() >> 23;
        setup.config().set(DRB7, 1, rows.min(0xff));
        Ok(())
    }

    fn config_written(&mut self, pci: &mut Pci, offset: u16, size: u8) {
        self.bridge.config_written(pci, offset, size);
    }

    fn reset(&mut self, _: ResetKind) {
        self.bridge.reset();
    }

    fn after_reset(&mut self, pci: &mut Pci) {
        self.bridge.follow(pci);
    }

    fn save(&self) -> Section {
        self.bridge.save(self.name())
    }

    fn restore(&mut self, section: &Section) -> Result<(), StateError> {
        self.bridge.restore(self.name(), section)
    }
}
