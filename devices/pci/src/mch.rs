//! Intel Q35 memory controller hub (82G33), the host bridge of a PCI Express PC.
//!
//! Spec: Intel 3 Series Express Chipset Family datasheet, chapter 5 (device 0).
//!
//! Not modelled: DRAM controller, error reporting, TSEG (its registers are kept, without effect).

use std::sync::Arc;

use hw_core::{DeviceError, Mapping, ResetKind, Section, StateError};
use hw_memory::RamBlock;
use hw_pci::{ConfigPorts, Ecam, Pci, PciDevice, PciFunction, PciOptions, Setup, VENDOR_INTEL};

use crate::pam::{Pam, SMRAM_RESET, Smram};
use crate::{device_registers_writable, touches};

const DEVICE: u16 = 0x29c0;
const CLASS: u32 = 0x06_0000;
/// Base of memory-mapped configuration space: bit 0 enables it, bits 2:1 are its size.
const PCIEXBAR: u16 = 0x60;
const PCIEXBAR_LAST: u16 = 0x67;
const PCIEXBAR_RESET: u64 = 0xb000_0000;
/// 256, 128 and 64 MiB, in the order of the size field.
const PCIEXBAR_SIZES: [u64; 3] = [256 << 20, 128 << 20, 64 << 20];
const PCIEXBAR_WRITABLE: u64 = 0xf_fc00_0007;
const PAM: u16 = 0x90;
const PAM_LAST: u16 = 0x96;
const SMRAM: u16 = 0x9d;
const ESMRAMC: u16 = 0x9e;
const ESMRAMC_RESET: u64 = 0x38;

/// Parts of the board in the bridge's hands.
#[derive(Clone)]
pub struct MchConfig {
    /// RAM that begins at address 0.
    pub ram: Arc<RamBlock>,
    /// The SMRAM register, for the CPUs' views.
    pub smram: Smram,
    /// Where configuration space is mapped after reset, for boards that boot without firmware.
    pub ecam: Option<u64>,
}

/// The host bridge at 00.0, with the configuration ports and the memory-mapped window.
pub struct Mch {
    ports: Option<Arc<ConfigPorts>>,
    pam: Option<Pam>,
    windows: Vec<Mapping>,
    config: MchConfig,
    state: State,
}

#[derive(Clone, Default, PartialEq, Eq, Debug)]
struct State {
    /// The SMRAM register before the last write: it can be locked.
    smram: u8,
}

impl Mch {
    /// A bridge with what the board gives it.
    pub fn new(config: MchConfig) -> PciDevice<Self> {
        let bridge = Mch {
            ports: None,
            pam: None,
            windows: Vec::new(),
            config,
            state: State { smram: SMRAM_RESET },
        };
        PciDevice::new(bridge, PciOptions::at(0))
    }

    fn follow(&mut self, pci: &Pci) {
        let [p0, p1, p2, p3, p4, p5, p6, _] = pci.config().get(PAM, 8).to_le_bytes();
        if let Some(pam) = &mut self.pam {
            pam.follow([p0, p1, p2, p3, p4, p5, p6], self.state.smram);
        }
        let register = pci.config().get(PCIEXBAR, 8);
        let size = usize::try_from((register >> 1) & 3).unwrap_or(3);
        for (i, (window, len)) in self.windows.iter().zip(PCIEXBAR_SIZES).enumerate() {
            let base = register & PCIEXBAR_WRITABLE & !len.wrapping_sub(1);
            let on = i == size && register & 1 != 0 && base != 0;
            window.place(if on { base } else { 0 }, on);
        }
    }
}

impl PciFunction for Mch {
    fn name(&self) -> &'static str {
        "mch"
    }

    fn setup(&mut self, setup: &mut Setup<'_>) -> Result<(), DeviceError> {
        setup.ids(VENDOR_INTEL, DEVICE, CLASS, 0);
        let config = setup.config();
        device_registers_writable(config);
        let ecam = self.config.ecam.map_or(PCIEXBAR_RESET, |base| base | 1);
        config.define(PCIEXBAR, 8, ecam, PCIEXBAR_WRITABLE);
        config.set(SMRAM, 1, u64::from(SMRAM_RESET));
        config.set(ESMRAMC, 1, ESMRAMC_RESET);
        let ports = setup.bus.config_ports();
        ports.map(&setup.wiring.port_map());
        self.ports = Some(ports);
        let memory = setup.wiring.memory_map();
        let window = Ecam::new(setup.bus.clone());
        self.windows = PCIEXBAR_SIZES
            .iter()
            .map(|len| window.map(&memory, *len))
            .collect();
        let MchConfig { ram, smram, .. } = &self.config;
        self.pam = Some(Pam::new(&memory, ram.clone(), smram.clone()));
        Ok(())
    }

    fn config_written(&mut self, pci: &mut Pci, offset: u16, size: u8) {
        if touches(offset, size, SMRAM, SMRAM) {
            self.state.smram = Smram::next(self.state.smram, pci.config().byte(SMRAM));
            let value = u64::from(self.state.smram);
            pci.config_mut().set(SMRAM, 1, value);
            self.follow(pci);
        }
        if touches(offset, size, PAM, PAM_LAST) || touches(offset, size, PCIEXBAR, PCIEXBAR_LAST) {
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
