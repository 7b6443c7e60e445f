//! Intel PIIX3 (82371SB) ISA bridge.
//!
//! Spec: Intel 82371FB (PIIX) and 82371SB (PIIX3) PCI ISA IDE Xcelerator, section 2.2.
//!
//! Not modelled: bus timing, X-bus chip selects and motherboard device DMA (kept, without effect).
//! The edge/level control registers belong to the i8259.

use std::sync::Arc;

use hw_core::{Access, DeviceError, Fault, Request, Requests, ResetKind, Section, StateError};
use hw_pci::{Pci, PciDevice, PciFunction, PciOptions, Setup, VENDOR_INTEL, devfn, reg};

use crate::pirq::{PirqRouter, UNROUTED};
use crate::{device_registers_writable, touches};

const DEVICE: u16 = 0x7000;
const CLASS: u32 = 0x06_0100;
/// PIRQRC[A:D]
const PIRQRC: u16 = 0x60;
const PIRQRC_LAST: u16 = 0x63;

/// Reset control (port 0xcf9): what kind of reset.
const RCR_SYSTEM: u8 = 1 << 1;
/// Reset control: reset now.
const RCR_RESET_CPU: u8 = 1 << 2;

/// Registers with another value than zero after reset.
const RESET_VALUES: &[(u16, u8)] = &[
    (0x4c, 0x4d), // ISA I/O recovery timer
    (0x4e, 0x03), // X-bus chip select
    (0x69, 0x02), // top of memory
    (0x70, 0x80), // motherboard interrupt 0
    (0x76, 0x0c), // motherboard DMA 0
    (0x77, 0x0c), // motherboard DMA 1
    (0x78, 0x02), // programmable chip select
    (0xa0, 0x08), // SMI control
    (0xa8, 0x0f), // fast off timer
];

/// The ISA bridge at 01.0.
pub struct Piix3 {
    requests: Requests,
    router: Arc<PirqRouter>,
    state: State,
}

#[derive(Clone, Default, PartialEq, Eq, Debug)]
struct State {
    /// The reset control register.
    rcr: u8,
}

impl Piix3 {
    /// A bridge that owns the routes of `router`.
    pub fn new(router: Arc<PirqRouter>) -> PciDevice<Self> {
        let bridge = Piix3 {
            requests: Requests::default(),
            router,
            state: State::default(),
        };
        let options = PciOptions {
            multifunction: true,
            ..PciOptions::at(devfn(1, 0))
        };
        PciDevice::new(bridge, options)
    }

    fn follow(&self, pci: &Pci) {
        for (pirq, register) in (PIRQRC..=PIRQRC_LAST).enumerate() {
            self.router.set_route(pirq, pci.config().byte(register));
        }
    }
}

impl PciFunction for Piix3 {
    fn name(&self) -> &'static str {
        "PIIX3"
    }

    fn setup(&mut self, setup: &mut Setup<'_>) -> Result<(), DeviceError> {
        setup.ids(VENDOR_INTEL, DEVICE, CLASS, 0);
        let config = setup.config();
        device_registers_writable(config);
        config.set(reg::STATUS, 2, 0x0200);
        for (offset, value) in RESET_VALUES {
            config.set(*offset, 1, u64::from(*value));
        }
        for register in PIRQRC..=PIRQRC_LAST {
            config.define(register, 1, u64::from(UNROUTED), 0x8f);
        }
        self.requests = setup.wiring.requests();
        let (_, port) = setup.wiring.detached();
        setup.bus.config_ports().set_reset_control(port);
        Ok(())
    }

    fn config_written(&mut self, pci: &mut Pci, offset: u16, size: u8) {
        if touches(offset, size, PIRQRC, PIRQRC_LAST) {
            self.follow(pci);
        }
    }

    fn region_read(&mut self, _: &mut Pci, _: Access) -> Result<u64, Fault> {
        Ok(u64::from(self.state.rcr))
    }

    fn region_write(&mut self, _: &mut Pci, _: Access, value: u64) -> Result<(), Fault> {
        if value as u8 & RCR_RESET_CPU != 0 {
            self.requests.post(Request::Reset);
        }
        self.state.rcr = value as u8 & RCR_SYSTEM;
        Ok(())
    }

    fn reset(&mut self, _: ResetKind) {
        self.state = State::default();
    }

    fn after_reset(&mut self, pci: &mut Pci) {
        self.follow(pci);
    }

    fn save(&self) -> Section {
        let State { rcr } = self.state.clone();
        Section::new(self.name(), 1).with(1, rcr)
    }

    fn restore(&mut self, section: &Section) -> Result<(), StateError> {
        section.expect(self.name(), 1)?;
        self.state = State {
            rcr: section.u8(1)? & RCR_SYSTEM,
        };
        Ok(())
    }
}
