//! Intel ICH9 LPC interface: the ISA bridge of a PCI Express PC.
//!
//! Spec: Intel I/O Controller Hub 9 (ICH9) Family datasheet, chapters 13 (LPC) and 10 (chip set
//! configuration registers).
//!
//! Not modelled: LPC decode ranges, GPIO, the other chip set configuration registers.

use std::sync::Arc;

use hw_core::{
    Access, AccessSizes, DeviceError, Fault, Mapping, Region, RegionId, Request, Requests,
    ResetKind, Section, StateError,
};
use hw_pci::{Pci, PciDevice, PciFunction, PciOptions, Setup, VENDOR_INTEL, devfn};

use crate::pirq::{PirqRouter, UNROUTED};
use crate::{PlaceIo, device_registers_writable};

const DEVICE: u16 = 0x2918;
const CLASS: u32 = 0x06_0100;
const REVISION: u8 = 2;
/// ACPI base address.
const PMBASE: u16 = 0x40;
const PMBASE_MASK: u64 = 0xff80;
/// ACPI control: bit 7 enables the block at PMBASE, bits 2:0 select its interrupt.
const ACPI_CNTL: u16 = 0x44;
const ACPI_EN: u8 = 0x80;
/// PIRQA to PIRQD, and PIRQE to PIRQH.
const PIRQ_ROUT: [u16; 8] = [0x60, 0x61, 0x62, 0x63, 0x68, 0x69, 0x6a, 0x6b];
/// Root complex base address: bit 0 enables it.
const RCBA: u16 = 0xf0;
const RCBA_MASK: u64 = 0xffff_c000;
const RCBA_LEN: u64 = 0x4000;

/// Reset control (port 0xcf9): reset now.
const RST_CPU: u8 = 1 << 2;
/// Reset control: what is kept.
const RST_KEPT: u8 = 0x0a;

/// Interrupt route registers of slots 25 to 31 at the root complex base: offset and slot.
const DIR: [(u64, u8); 6] = [
    (0x3140, 31),
    (0x3144, 29),
    (0x3146, 28),
    (0x3148, 27),
    (0x314c, 26),
    (0x3150, 25),
];
/// INTA# to PIRQA#, and so on.
const DIR_RESET: u16 = 0x3210;

/// Parts of the board in the bridge's hands.
#[derive(Clone)]
pub struct LpcConfig {
    /// Its interrupt router.
    pub router: Arc<PirqRouter>,
    /// Places the power management block.
    pub place_pm: Option<PlaceIo>,
}

#[derive(Clone, PartialEq, Eq, Debug)]
struct State {
    reset_control: u8,
    /// In the order of [`DIR`].
    routes: [u16; 6],
}

impl Default for State {
    fn default() -> Self {
        State {
            reset_control: 0,
            routes: [DIR_RESET; 6],
        }
    }
}

/// The ISA bridge at 1f.0.
pub struct Ich9Lpc {
    requests: Requests,
    rcba: Mapping,
    rcba_region: Option<RegionId>,
    config: LpcConfig,
    state: State,
}

impl Ich9Lpc {
    /// A bridge with what the board gives it.
    pub fn new(config: LpcConfig) -> PciDevice<Self> {
        let bridge = Ich9Lpc {
            requests: Requests::default(),
            rcba: Mapping::default(),
            rcba_region: None,
            config,
            state: State::default(),
        };
        let options = PciOptions {
            multifunction: true,
            ..PciOptions::at(devfn(31, 0))
        };
        PciDevice::new(bridge, options)
    }

    fn follow(&self, pci: &Pci) {
        let config = pci.config();
        for (pirq, register) in PIRQ_ROUT.into_iter().enumerate() {
            self.config.router.set_route(pirq, config.byte(register));
        }
        for ((_, slot), route) in DIR.into_iter().zip(self.state.routes) {
            let pin = |shift: u32| (route.wrapping_shr(shift) & 7) as u8;
            self.config
                .router
                .set_wires(slot, [pin(0), pin(4), pin(8), pin(12)]);
        }
        if let Some(place) = &self.config.place_pm {
            let on = config.byte(ACPI_CNTL) & ACPI_EN != 0;
            place(config.get(PMBASE, 4) & PMBASE_MASK, on);
        }
        let rcba = config.get(RCBA, 4);
        let base = rcba & RCBA_MASK;
        self.rcba.place(base, rcba & 1 != 0 && base != 0);
    }
}

fn index(offset: u64) -> Option<usize> {
    DIR.iter().position(|(at, _)| *at == offset)
}

impl PciFunction for Ich9Lpc {
    fn name(&self) -> &'static str {
        "ICH9-LPC"
    }

    fn setup(&mut self, setup: &mut Setup<'_>) -> Result<(), DeviceError> {
        setup.ids(VENDOR_INTEL, DEVICE, CLASS, REVISION);
        let config = setup.config();
        device_registers_writable(config);
        config.define(PMBASE, 4, 1, PMBASE_MASK);
        config.define(ACPI_CNTL, 1, 0, 0x87);
        for register in PIRQ_ROUT {
            config.define(register, 1, u64::from(UNROUTED), 0x8f);
        }
        config.define(RCBA, 4, 0, RCBA_MASK | 1);
        self.requests = setup.wiring.requests();
        let region = Region::unplaced("lpc-rcrb-mem", RCBA_LEN);
        let sizes = AccessSizes { min: 2, max: 2 };
        let (id, mapping) = setup.wiring.mmio(region.sizes(sizes));
        self.rcba = mapping;
        self.rcba_region = Some(id);
        let (_, port) = setup.wiring.detached();
        setup.bus.config_ports().set_reset_control(port);
        Ok(())
    }

    fn config_written(&mut self, pci: &mut Pci, _: u16, _: u8) {
        self.follow(pci);
    }

    fn region_read(&mut self, _: &mut Pci, access: Access) -> Result<u64, Fault> {
        if Some(access.region) != self.rcba_region {
            return Ok(u64::from(self.state.reset_control));
        }
        // Registers that are not modelled read as zero.
        let route = index(access.offset).and_then(|i| self.state.routes.get(i));
        Ok(route.copied().map_or(0, u64::from))
    }

    fn region_write(&mut self, pci: &mut Pci, access: Access, value: u64) -> Result<(), Fault> {
        if Some(access.region) != self.rcba_region {
            if value as u8 & RST_CPU != 0 {
                self.requests.post(Request::Reset);
            }
            self.state.reset_control = value as u8 & RST_KEPT;
            return Ok(());
        }
        if let Some(route) = index(access.offset).and_then(|i| self.state.routes.get_mut(i)) {
            *route = value as u16 & 0x7777;
            self.follow(pci);
        }
        Ok(())
    }

    fn reset(&mut self, _: ResetKind) {
        self.state = State::default();
    }

    fn after_reset(&mut self, pci: &mut Pci) {
        self.follow(pci);
    }

    fn save(&self) -> Section {
        let State {
            reset_control,
            routes,
        } = self.state.clone();
        Section::new(self.name(), 1)
            .with(1, reset_control)
            .with(2, routes.into_iter().collect::<hw_core::Value>())
    }

    fn restore(&mut self, section: &Section) -> Result<(), StateError> {
        section.expect(self.name(), 1)?;
        let routes: [u64; 6] = section.u64_array(2)?;
        self.state = State {
            reset_control: section.u8(1)? & RST_KEPT,
            routes: routes.map(|r| r as u16 & 0x7777),
        };
        Ok(())
    }
}
