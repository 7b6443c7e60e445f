//! Power management function of the Intel PIIX4 (82371AB), as QEMU puts it beside a PIIX3.
//!
//! Spec: Intel 82371AB PCI-to-ISA/IDE Xcelerator (PIIX4), chapter 7.
//!
//! The registers behind the base addresses are another device's, placed from here.

use hw_core::{DeviceError, ResetKind, Section, StateError};
use hw_pci::{Pci, PciDevice, PciFunction, PciOptions, Setup, VENDOR_INTEL, devfn, reg};

use crate::{PlaceIo, device_registers_writable};

const DEVICE: u16 = 0x7113;
const CLASS: u32 = 0x06_8000;
const REVISION: u8 = 3;
/// Power management base address.
const PMBA: u16 = 0x40;
const PMBA_MASK: u64 = 0xffc0;
/// Device activity B: bit 25 of the register, 1 of this byte, enables SMIs by port 0xb2.
const DEVACTB_APMC: u16 = 0x5b;
const APMC_EN: u8 = 1 << 1;
/// Bit 0: power management I/O space enable.
const PMREGMISC: u16 = 0x80;
/// SMBus base address.
const SMBBA: u16 = 0x90;
const SMBBA_MASK: u64 = 0xfff0;
/// Where the SMBus host controller is before firmware moves it.
const SMBUS_RESET: u64 = 0xb101;
/// Bit 0: SMBus host enable; bit 3: its interrupt is IRQ 9.
const SMBHSTCFG: u16 = 0xd2;
const SMBUS_ON: u64 = 0x09;

/// Registers with another value than zero after reset: which devices of the board exist.
const RESET_VALUES: [(u16, u64); 2] = [(0x5f, 0x10), (0x63, 0x60)];

/// Parts of the board in the function's hands.
#[derive(Clone, Default)]
pub struct PmConfig {
    /// Places the power management block.
    pub place_pm: Option<PlaceIo>,
    /// Places the SMBus host controller.
    pub place_smbus: Option<PlaceIo>,
    /// Whether CPUs take system management interrupts. If not, firmware is made to believe that they
    /// are set up already.
    pub smm: bool,
}

/// Function 3 of the bridge at 01.
pub struct Piix4Pm {
    config: PmConfig,
}

impl Piix4Pm {
    /// The function with what it places.
    pub fn new(config: PmConfig) -> PciDevice<Self> {
        PciDevice::new(Piix4Pm { config }, PciOptions::at(devfn(1, 3)))
    }

    fn follow(&self, pci: &Pci) {
        let config = pci.config();
        if let Some(place) = &self.config.place_pm {
            place(
                config.get(PMBA, 4) & PMBA_MASK,
                config.byte(PMREGMISC) & 1 != 0,
            );
        }
        if let Some(place) = &self.config.place_smbus {
            place(
                config.get(SMBBA, 4) & SMBBA_MASK,
                config.byte(SMBHSTCFG) & 1 != 0,
            );
        }
    }
}

impl PciFunction for Piix4Pm {
    fn name(&self) -> &'static str {
        "PIIX4_PM"
    }

    fn setup(&mut self, setup: &mut Setup<'_>) -> Result<(), DeviceError> {
        setup.ids(VENDOR_INTEL, DEVICE, CLASS, REVISION);
        setup.interrupt_pin(1);
        let config = setup.config();
        device_registers_writable(config);
        config.set(reg::STATUS, 2, 0x0280);
        config.define(PMBA, 4, 1, PMBA_MASK);
        config.define(SMBBA, 4, 1, SMBBA_MASK);
        for (offset, value) in RESET_VALUES {
            config.set(offset, 1, value);
        }
        // Without a controller, drivers are not led to believe that there is one.
        if self.config.place_smbus.is_some() {
            config.set(SMBBA, 4, SMBUS_RESET);
            config.set(SMBHSTCFG, 1, SMBUS_ON);
        }
        if !self.config.smm {
            config.set(DEVACTB_APMC, 1, u64::from(APMC_EN));
        }
        Ok(())
    }

    fn config_written(&mut self, pci: &mut Pci, _: u16, _: u8) {
        self.follow(pci);
    }

    fn reset(&mut self, _: ResetKind) {}

    fn after_reset(&mut self, pci: &mut Pci) {
        self.follow(pci);
    }

    fn save(&self) -> Section {
        Section::new(self.name(), 1)
    }

    fn restore(&mut self, section: &Section) -> Result<(), StateError> {
        section.expect(self.name(), 1)
    }
}
