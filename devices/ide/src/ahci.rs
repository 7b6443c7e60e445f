//! The AHCI controller of the Intel ICH9: six ports.
//!
//! Spec: Serial ATA AHCI 1.3.1; Intel I/O Controller Hub 9 (ICH9) Family datasheet, chapter 14 (SATA,
//! D31:F2).
//!
//! Not modelled: port multipliers, hot plug, power states of links, command completion coalescing,
//! staggered spin-up; the mode in which the ICH9 is an IDE controller.

mod list;
mod port;
mod registers;

use hw_core::{
    Access, AccessSizes, ChildBus, DeviceError, Fault, ResetKind, Section, StateError, Value,
};
use hw_pci::{BarKind, BarSpec, Pci, PciDevice, PciFunction, PciOptions, Setup, VENDOR_INTEL, reg};

use port::Port;
use registers::host;

const DEVICE: u16 = 0x2922;
/// SATA, AHCI 1.0.
const CLASS: u32 = 0x01_0601;
const REVISION: u8 = 2;
const PORTS: usize = 6;

/// BAR of the index and data pair, and its place in it.
const LEGACY_BAR: u8 = 4;
const LEGACY_LEN: u64 = 0x20;
const INDEX: u64 = 0x10;
const DATA: u64 = 0x14;
/// BAR of the registers.
const ABAR: u8 = 5;
const ABAR_LEN: u64 = 0x1000;

/// Address map: the mode is AHCI. Port control and status: all ports are on.
const MAP: u16 = 0x90;
const MAP_AHCI: u64 = 1 << 6;
const PCS: u16 = 0x92;
const PCS_ALL: u64 = 0x3f;
/// The Serial ATA capability: revision 1.0, the index pair is in BAR 4 at its fifth dword.
const CAP_SATA: u8 = 0x12;
const CAP_SATA_BODY: [u8; 6] = [0x10, 0x00, 0x48, 0x00, 0x00, 0x00];

/// How a board has the controller.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct AhciOptions {
    /// Slot and function, if it is part of the board.
    pub devfn: Option<u8>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
struct State {
    /// GHC, but for the bit that is always set.
    ghc: u32,
    /// Register that the index pair shows.
    index: u32,
}

/// The controller.
pub struct Ahci {
    ports: [Port; PORTS],
    state: State,
    /// Ports that interrupted when it was looked at last.
    told: u32,
}

impl Ahci {
    /// A controller with the properties all functions have.
    pub fn new(options: AhciOptions, pci: PciOptions) -> PciDevice<Self> {
        let pci = PciOptions {
            devfn: options.devfn.or(pci.devfn),
            ..pci
        };
        let controller = Ahci {
            ports: std::array::from_fn(|_| Port::new()),
            state: State::default(),
            told: 0,
        };
        PciDevice::new(controller, pci)
    }

    /// Ports that interrupt: the register IS.
    fn pending(&self) -> u32 {
        let ports = self.ports.iter().zip(0u32..);
        ports.fold(0, |bits, (port, n)| match port.is_pending() {
            true => bits | 1u32.wrapping_shl(n),
            false => bits,
        })
    }

    /// The interrupt follows the registers.
    fn sync(&mut self, pci: &mut Pci) {
        let pending = match self.state.ghc & host::IE {
            0 => 0,
            _ => self.pending(),
        };
        pci.set_intx(pending != 0);
        if pending & !self.told != 0 {
            pci.raise_msi(0);
        }
        self.told = pending;
    }

    fn register_read(&self, offset: u64) -> u32 {
        if let Some((port, register)) = port_register(offset) {
            return self.ports.get(port).map_or(0, |port| port.read(register));
        }
        match offset {
            host::CAP => host::CAP_FIXED | (PORTS as u32).wrapping_sub(1),
            host::GHC => self.state.ghc | host::AE,
            host::IS => self.pending(),
            host::PI => (1u32 << PORTS).wrapping_sub(1), // shift: six ports
            host::VS => host::VERSION,
            _ => 0,
        }
    }

    fn register_write(&mut self, pci: &mut Pci, offset: u64, value: u32) {
        if let Some((port, register)) = port_register(offset) {
            if let Some(port) = self.ports.get_mut(port) {
                port.write(pci.dma(), register, value);
            }
        } else {
            match offset {
                host::GHC if value & host::HR != 0 => {
                    self.state.ghc = 0;
                    self.ports.iter_mut().for_each(|port| port.reset(true));
                }
                host::GHC => self.state.ghc = value & host::IE,
                // What is pending still is told again (10.7.2.1).
                host::IS => self.told &= !value,
                _ => {}
            }
        }
        self.sync(pci);
    }
}

/// Which port a register belongs to, and which of its registers it is.
fn port_register(offset: u64) -> Option<(usize, u64)> {
    let offset = offset.checked_sub(host::PORTS)?;
    let port = usize::try_from(offset.checked_div(host::PORT_LEN)?).ok()?;
    Some((port, offset.checked_rem(host::PORT_LEN)?))
}

impl PciFunction for Ahci {
    fn name(&self) -> &'static str {
        "ich9-ahci"
    }

    fn setup(&mut self, setup: &mut Setup<'_>) -> Result<(), DeviceError> {
        setup.ids(VENDOR_INTEL, DEVICE, CLASS, REVISION);
        setup.interrupt_pin(1);
        setup.bar(BarSpec::new(
            LEGACY_BAR,
            "ich9-ahci-idp",
            BarKind::Io,
            LEGACY_LEN,
        ))?;
        setup.bar(BarSpec {
            sizes: AccessSizes::WORD,
            ..BarSpec::new(
                ABAR,
                "ahci",
                BarKind::Memory32 { prefetch: false },
                ABAR_LEN,
            )
        })?;
        setup.msi(1)?;
        let config = setup.config();
        config.add_capability(CAP_SATA, &CAP_SATA_BODY, &[])?;
        config.define(MAP, 2, MAP_AHCI, 0);
        config.define(PCS, 2, PCS_ALL, PCS_ALL);
        config.set(reg::CACHE_LINE, 1, 8);
        for (n, port) in (0u64..).zip(&mut self.ports) {
            port.bus.connect(setup.wiring.poke(), n);
        }
        Ok(())
    }

    fn bar_read(&mut self, _: &mut Pci, bar: u8, access: Access) -> Result<u64, Fault> {
        match (bar, access.offset) {
            (ABAR, offset) => Ok(u64::from(self.register_read(offset & !3))),
            (LEGACY_BAR, INDEX) => Ok(u64::from(self.state.index)),
            (LEGACY_BAR, DATA) => Ok(u64::from(self.register_read(self.state.index.into()))),
            _ => Err(Fault::NoRegister),
        }
    }

    fn bar_write(
        &mut self,
        pci: &mut Pci,
        bar: u8,
        access: Access,
        value: u64,
    ) -> Result<(), Fault> {
        let value = value as u32;
        match (bar, access.offset) {
            (ABAR, offset) => self.register_write(pci, offset & !3, value),
            (LEGACY_BAR, INDEX) => self.state.index = value & (ABAR_LEN as u32).wrapping_sub(4),
            (LEGACY_BAR, DATA) => self.register_write(pci, self.state.index.into(), value),
            _ => return Err(Fault::NoRegister),
        }
        Ok(())
    }

    fn config_written(&mut self, pci: &mut Pci, _: u16, _: u8) {
        // Bus mastering may be on now.
        for port in &mut self.ports {
            port.process(pci.dma());
        }
        self.sync(pci);
    }

    fn reset(&mut self, _: ResetKind) {
        self.state = State::default();
        self.told = 0;
        self.ports.iter_mut().for_each(|port| port.reset(false));
    }

    fn after_reset(&mut self, pci: &mut Pci) {
        for port in &mut self.ports {
            port.resume(pci.dma());
        }
        self.sync(pci);
    }

    fn poke(&mut self, pci: &mut Pci, token: u64) {
        let port = usize::try_from(token).ok();
        if let Some(port) = port.and_then(|n| self.ports.get_mut(n)) {
            port.poke(pci.dma());
        }
        self.sync(pci);
    }

    fn save(&self) -> Section {
        let State { ghc, index } = self.state;
        let ports: Value = self.ports.iter().map(Port::save).collect();
        Section::new(self.name(), 1)
            .with(1, ghc)
            .with(2, index)
            .with(3, ports)
    }

    fn restore(&mut self, section: &Section) -> Result<(), StateError> {
        section.expect(self.name(), 1)?;
        let state = State {
            ghc: section.u32(1)? & host::IE,
            index: section.u32(2)? & (ABAR_LEN as u32).wrapping_sub(4),
        };
        let list = section.list(3)?;
        if list.len() != PORTS {
            return Err(section.bad(3, "another number of ports"));
        }
        let mut states = Vec::new();
        for value in list {
            let Value::Section(port) = value else {
                return Err(section.bad(3, "not sections"));
            };
            states.push(port::State::restored(port)?);
        }
        for (port, state) in self.ports.iter_mut().zip(states) {
            port.set_state(state);
        }
        self.state = state;
        self.told = 0;
        Ok(())
    }

    fn child_buses(&self) -> Vec<ChildBus> {
        self.ports.iter().map(|port| port.bus.child()).collect()
    }
}
