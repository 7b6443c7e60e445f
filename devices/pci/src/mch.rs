//! Intel Q35 memory controller hub (82G33), the host bridge of a PCI Express PC.
//!
//! Spec: Intel 3 Series Express Chipset Family datasheet, chapter 5 (device 0).
//!
//! Not modelled: DRAM controller, error reporting, TSEG (its registers are kept, without effect).

use std::sync::Arc;

use hw_core::{DeviceError, Mapping, ResetKind, Section, StateError};
use hw_memory::RamBlock;
use hw_pci::{Ecam, Pci, PciDevice, PciFunction, PciOptions, Setup, VENDOR_INTEL};

use crate::bridge::{Bridge, Places};
use crate::pam::Smram;
use crate::touches;

const DEVICE: u16 = 0x29c0;
const CLASS: u32 = 0x06_0000;
/// Base of memory-mapped configuration space: bit 0 enables it, bits 2:1 are its size.
const PCIEXBAR: u16 = 0x60;
const PCIEXBAR_LAST: u16 = 0x67;
const PCIEXBAR_RESET: u64 = 0xb000_0000;
/// 256, 128 and 64 MiB, in the order of the size field.
const PCIEXBAR_SIZES: [u64; 3] = [256 << 20, 128 << 20, 64 << 20];
const PCIEXBAR_WRITABLE: u64 = 0xf_fc00_0007;
const PLACES: Places = Places {
    pam: 0x90,
    smram: 0x9d,
};
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
    bridge: Bridge,
    windows: Vec<Mapping>,
    ecam: Option<u64>,
}

impl Mch {
    /// A bridge with what the board gives it.
    pub fn new(config: MchConfig) -> PciDevice<Self> {
        let MchConfig { ram, smram, ecam } = config;
        let mch = Mch {
            bridge: Bridge::new(ram, smram, PLACES),
            windows: Vec::new(),
            ecam,
        };
        PciDevice::new(mch, PciOptions::at(0))
    }

    fn follow(&mut self, pci: &Pci) {
        self.bridge.follow(pci);
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
        self.bridge.setup(setup);
        let config = setup.config();
        let ecam = self.ecam.map_or(PCIEXBAR_RESET, |base| base | 1);
        config.define(PCIEXBAR, 8, ecam, PCIEXBAR_WRITABLE);
        config.set(ESMRAMC, 1, ESMRAMC_RESET);
        let memory = setup.wiring.memory_map();
        let window = Ecam::new(setup.bus.clone());
        self.windows = PCIEXBAR_SIZES
            .iter()
            .map(|len| window.map(&memory, *len))
            .collect();
        Ok(())
    }

    fn config_written(&mut self, pci: &mut Pci, offset: u16, size: u8) {
        self.bridge.config_written(pci, offset, size);
        if touches(offset, size, PCIEXBAR, PCIEXBAR_LAST) {
            self.follow(pci);
        }
    }

    fn reset(&mut self, _: ResetKind) {
        self.bridge.reset();
    }

    fn after_reset(&mut self, pci: &mut Pci) {
        self.follow(pci);
    }

    fn save(&self) -> Section {
        self.bridge.save(self.name())
    }

    fn restore(&mut self, section: &Section) -> Result<(), StateError> {
        self.bridge.restore(self.name(), section)
    }
}
