//! Intel i440FX (82441FX) host bridge.
//!
//! Spec: Intel 440FX PCIset, 82441FX PCI and Memory Controller, chapter 3.
//!
//! Not modelled: DRAM timing and row boundaries (kept, without effect), parity errors.

use std::sync::Arc;

use hw_core::{DeviceError, ResetKind, Section, StateError};
use hw_memory::RamBlock;
use hw_pci::{ConfigPorts, Pci, PciDevice, PciFunction, PciOptions, Setup, VENDOR_INTEL};

use crate::pam::{Pam, SMRAM_RESET, Smram};
use crate::{device_registers_writable, touches};

const DEVICE: u16 = 0x1237;
const CLASS: u32 = 0x06_0000;
const REVISION: u8 = 2;
/// PAM0 to PAM6.
const PAM: u16 = 0x59;
const PAM_LAST: u16 = 0x5f;
/// DRAM row boundary of the last row: all memory, in units of 8 MiB.
const DRB7: u16 = 0x57;
const SMRAM: u16 = 0x72;

/// The host bridge at 00.0, with the configuration ports.
pub struct I440fx {
    ports: Option<Arc<ConfigPorts>>,
    pam: Option<Pam>,
    ram: Arc<RamBlock>,
    smram: Smram,
    state: State,
}

#[derive(Clone, Default, PartialEq, Eq, Debug)]
struct State {
    /// The SMRAM register before the last write: it can be locked.
    smram: u8,
}

impl I440fx {
    /// A bridge over `ram`, which begins at address 0.
    pub fn new(ram: Arc<RamBlock>, smram: Smram) -> PciDevice<Self> {
        let bridge = I440fx {
            ports: None,
            pam: None,
            ram,
            smram,
            state: State { smram: SMRAM_RESET },
        };
        PciDevice::new(bridge, PciOptions::at(0))
    }

    fn follow(&mut self, pci: &Pci) {
        let registers = pci.config().get(PAM, 8).to_le_bytes();
        let [p0, p1, p2, p3, p4, p5, p6, _] = registers;
        if let Some(pam) = &mut self.pam {
            pam.follow([p0, p1, p2, p3, p4, p5, p6], self.state.smram);
        }
    }
}

impl PciFunction for I440fx {
    fn name(&self) -> &'static str {
        "i440FX"
    }

    fn setup(&mut self, setup: &mut Setup<'_>) -> Result<(), DeviceError> {
        setup.ids(VENDOR_INTEL, DEVICE, CLASS, REVISION);
        device_registers_writable(setup.config());
        let config = setup.config();
        config.set(SMRAM, 1, u64::from(SMRAM_RESET));
        config.set(DRB7, 1, (self.ram.len() >> 23).min(0xff));
        let ports = setup.bus.config_ports();
        ports.map(&setup.wiring.port_map());
        self.ports = Some(ports);
        let memory = setup.wiring.memory_map();
        self.pam = Some(Pam::new(&memory, self.ram.clone(), self.smram.clone()));
        Ok(())
    }

    fn config_written(&mut self, pci: &mut Pci, offset: u16, size: u8) {
        if touches(offset, size, SMRAM, SMRAM) {
            self.state.smram = Smram::next(self.state.smram, pci.config().byte(SMRAM));
            let value = u64::from(self.state.smram);
            pci.config_mut().set(SMRAM, 1, value);
            self.follow(pci);
        }
        if touches(offset, size, PAM, PAM_LAST) {
            self.follow(pci);
        }
    }

    fn reset(&mut self, _: ResetKind) {
        self.state.smram = SMRAM_RESET;
        if let Some(ports) = &self.ports {
            ports.set_address(0);
        }
    }

    fn after_reset(&mut self, pci: &mut Pci) {
        self.follow(pci);
    }

    fn save(&self) -> Section {
        let State { smram } = self.state.clone();
        let address = self.ports.as_ref().map_or(0, |p| p.address());
        Section::new(self.name(), 1).with(1, smram).with(2, address)
    }

    fn restore(&mut self, section: &Section) -> Result<(), StateError> {
        section.expect(self.name(), 1)?;
        let smram = section.u8(1)?;
        let address = section.u32(2)?;
        if let Some(ports) = &self.ports {
            ports.set_address(address);
        }
        self.state = State { smram };
        Ok(())
    }
}
