//! What the host bridges of the PC have in common: the configuration ports, PAM and SMRAM registers,
//! and the saved form.

use std::sync::Arc;

use hw_core::{Section, StateError};
use hw_memory::RamBlock;
use hw_pci::{ConfigPorts, Pci, Setup};

use crate::pam::{Pam, SMRAM_RESET, Smram};
use crate::{device_registers_writable, touches};

/// Where a bridge has the registers.
pub(crate) struct Places {
    /// PAM0; PAM1 to PAM6 follow.
    pub(crate) pam: u16,
    pub(crate) smram: u16,
}

/// One bridge's share.
pub(crate) struct Bridge {
    ports: Option<Arc<ConfigPorts>>,
    pam: Option<Pam>,
    pub(crate) ram: Arc<RamBlock>,
    view: Smram,
    places: Places,
    state: State,
}

#[derive(Clone, PartialEq, Eq, Debug)]
struct State {
    /// The SMRAM register before the last write: it can be locked.
    smram: u8,
}

impl Bridge {
    /// A bridge over `ram`, which begins at address 0; CPUs see `view` of SMRAM.
    pub(crate) fn new(ram: Arc<RamBlock>, view: Smram, places: Places) -> Self {
        Bridge {
            ports: None,
            pam: None,
            ram,
            view,
            places,
            state: State { smram: SMRAM_RESET },
        }
    }

    pub(crate) fn setup(&mut self, setup: &mut Setup<'_>) {
        let config = setup.config();
        device_registers_writable(config);
        config.set(self.places.smram, 1, u64::from(SMRAM_RESET));
        let ports = setup.bus.config_ports();
        ports.map(&setup.wiring.port_map());
        self.ports = Some(ports);
        let memory = setup.wiring.memory_map();
        self.pam = Some(Pam::new(&memory, self.ram.clone(), self.view.clone()));
    }

    /// Memory follows the registers.
    pub(crate) fn follow(&mut self, pci: &Pci) {
        let registers = pci.config().get(self.places.pam, 8).to_le_bytes();
        let [p0, p1, p2, p3, p4, p5, p6, _] = registers;
        if let Some(pam) = &mut self.pam {
            pam.follow([p0, p1, p2, p3, p4, p5, p6], self.state.smram);
        }
    }

    pub(crate) fn config_written(&mut self, pci: &mut Pci, offset: u16, size: u8) {
        let Places { pam, smram } = self.places;
        let is_smram = touches(offset, size, smram, smram);
        if is_smram {
            self.state.smram = Smram::next(self.state.smram, pci.config().byte(smram));
            let value = u64::from(self.state.smram);
            pci.config_mut().set(smram, 1, value);
        }
        if is_smram || touches(offset, size, pam, pam.saturating_add(6)) {
            self.follow(pci);
        }
    }

    pub(crate) fn reset(&mut self) {
        self.state.smram = SMRAM_RESET;
        if let Some(ports) = &self.ports {
            ports.set_address(0);
        }
    }

    pub(crate) fn save(&self, name: &'static str) -> Section {
        let State { smram } = self.state.clone();
        let address = self.ports.as_ref().map_or(0, |p| p.address());
        Section::new(name, 1).with(1, smram).with(2, address)
    }

    pub(crate) fn restore(&mut self, name: &str, section: &Section) -> Result<(), StateError> {
        section.expect(name, 1)?;
        let (smram, address) = (section.u8(1)?, section.u32(2)?);
        if let Some(ports) = &self.ports {
            ports.set_address(address);
        }
        self.state = State { smram };
        Ok(())
    }
}
