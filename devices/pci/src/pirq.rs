//! From interrupt pins of PCI functions to inputs of the interrupt controllers.
//!
//! Pins of slots are wired to up to eight PCI interrupt requests (PIRQs); registers of the ISA bridge
//! route each to an ISA interrupt. The ICH9 also drives inputs 16 to 23 of the I/O APIC.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use hw_core::{IrqHub, IrqLine, IrqSink};

/// PIRQA# to PIRQH#.
const PIRQS: usize = 8;
/// A route register with this bit set routes nowhere.
const DISABLED: u8 = 0x80;
/// Value of a route register after reset.
pub(crate) const UNROUTED: u8 = 0x80;
/// First I/O APIC input of the ICH9's PIRQs.
const FIRST_GSI: usize = 16;

struct Inner {
    /// Pins that are high, `devfn << 2 | pin`.
    high: BTreeSet<u32>,
    /// Slot and pin to PIRQ.
    wires: [[u8; 4]; 32],
    /// ISA interrupt of each PIRQ.
    routes: [u8; PIRQS],
    isa: Vec<IrqLine>,
    direct: Vec<IrqLine>,
}

/// The interrupt router of an ISA bridge: what a `hw_pci::PciBus` drives.
pub struct PirqRouter {
    inner: Mutex<Inner>,
}

impl PirqRouter {
    fn new(wires: [[u8; 4]; 32], isa: &[IrqHub], direct: &[IrqHub]) -> Arc<Self> {
        Arc::new(PirqRouter {
            inner: Mutex::new(Inner {
                high: BTreeSet::new(),
                wires,
                routes: [UNROUTED; PIRQS],
                isa: isa.iter().take(16).map(IrqHub::line).collect(),
                direct: direct.iter().take(PIRQS).map(IrqHub::line).collect(),
            }),
        })
    }

    /// The PIIX: four PIRQs, shifted by slot, to ISA interrupts. `gsi` are the global inputs, of
    /// which the first 16 are used.
    pub fn piix(gsi: &[IrqHub]) -> Arc<Self> {
        let mut wires = [[0u8; 4]; 32];
        for (slot, pins) in (0u8..).zip(&mut wires) {
            for (pin, pirq) in (0u8..).zip(pins) {
                *pirq = pin.wrapping_add(slot).wrapping_sub(1) & 3;
            }
        }
        PirqRouter::new(wires, gsi, &[])
    }

    /// The ICH9: PIRQE to H shifted by slot for slots 0 to 24 and 30, PIRQA to D as registers say for
    /// the chip set's own; to ISA interrupts and to inputs 16 to 23.
    pub fn ich9(gsi: &[IrqHub]) -> Arc<Self> {
        let mut wires = [[0u8; 4]; 32];
        for (slot, pins) in (0u8..).zip(&mut wires) {
            for (pin, pirq) in (0u8..).zip(pins) {
                *pirq = match slot {
                    0..=24 => (pin.wrapping_add(slot) & 3).wrapping_add(4),
                    30 => pin.wrapping_add(4),
                    _ => pin,
                };
            }
        }
        PirqRouter::new(wires, gsi, gsi.get(FIRST_GSI..).unwrap_or_default())
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Route register of a PIRQ was written: an ISA interrupt, or bit 7 for none.
    pub fn set_route(&self, pirq: usize, value: u8) {
        let mut inner = self.lock();
        if let Some(route) = inner.routes.get_mut(pirq)
            && *route != value
        {
            *route = value;
            inner.sync();
        }
    }

    /// The PIRQs of a slot's four pins.
    pub fn set_wires(&self, slot: u8, pirqs: [u8; 4]) {
        let mut inner = self.lock();
        if let Some(pins) = inner.wires.get_mut(usize::from(slot)) {
            *pins = pirqs;
            inner.sync();
        }
    }

    /// The ISA interrupt a function's pin (0 is INTA#) ends at, for firmware tables.
    pub fn isa_irq(&self, devfn: u8, pin: u8) -> Option<u8> {
        let inner = self.lock();
        let pirq = inner.pirq(u32::from(devfn) << 2 | u32::from(pin & 3))?;
        let route = *inner.routes.get(pirq)?;
        (route & DISABLED == 0).then_some(route & 15)
    }
}

impl Inner {
    fn pirq(&self, number: u32) -> Option<usize> {
        let slot = usize::try_from(number >> 5).ok()?;
        let pin = usize::try_from(number & 3).ok()?;
        Some(usize::from(*self.wires.get(slot)?.get(pin)?))
    }

    fn sync(&mut self) {
        let mut pirqs = [false; PIRQS];
        for number in &self.high {
            if let Some(level) = self.pirq(*number).and_then(|p| pirqs.get_mut(p)) {
                *level = true;
            }
        }
        let mut isa = [false; 16];
        for (level, route) in pirqs.iter().zip(&self.routes) {
            if *level
                && route & DISABLED == 0
                && let Some(line) = isa.get_mut(usize::from(route & 15))
            {
                *line = true;
            }
        }
        for (line, level) in self.isa.iter().zip(isa) {
            line.set(level);
        }
        for (line, level) in self.direct.iter().zip(pirqs) {
            line.set(level);
        }
    }
}

impl IrqSink for PirqRouter {
    fn set(&self, pin: u32, level: bool) {
        let mut inner = self.lock();
        let changed = if level {
            inner.high.insert(pin)
        } else {
            inner.high.remove(&pin)
        };
        if changed {
            inner.sync();
        }
    }
}
