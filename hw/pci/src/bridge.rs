//! Bridges: how a bus leads to another.
//!
//! Spec: PCI-to-PCI Bridge Architecture Specification 1.2, chapter 3. The windows are registers
//! only: functions appear in the memory and port maps where their BARs say, on every bus.

use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use hw_core::IrqLine;

use crate::bus::PciBus;
use crate::config::{ConfigSpace, reg};
use crate::function::Setup;

/// Registers of a bridge's header (3.2.5).
mod bridge_reg {
    pub(super) const PRIMARY: u16 = 0x18;
    pub(super) const SECONDARY: u16 = 0x19;
    pub(super) const SUBORDINATE: u16 = 0x1a;
    pub(super) const IO: u16 = 0x1c;
    pub(super) const SECONDARY_STATUS: u16 = 0x1e;
    pub(super) const MEMORY: u16 = 0x20;
    pub(super) const PREFETCHABLE: u16 = 0x24;
    pub(super) const PREFETCHABLE_HIGH: u16 = 0x28;
    pub(super) const IO_HIGH: u16 = 0x30;
    pub(super) const CONTROL: u16 = 0x3e;
}

const HEADER: u64 = 1;
/// PCI-to-PCI bridge.
const CLASS: u64 = 0x06_0400;

/// A bridge, as the bus above it knows it.
pub struct Bridge {
    bus: PciBus,
    /// Secondary and subordinate bus number.
    numbers: AtomicU16,
}

impl Bridge {
    /// A bridge to a bus of `slots` slots below a function of `parent`.
    pub fn new(name: &str, parent: &PciBus, devfn: u8, slots: u8) -> Arc<Self> {
        let pins: [IrqLine; 4] = [0, 1, 2, 3].map(|pin| parent.intx(devfn, pin));
        let high: Mutex<[u64; 4]> = Mutex::default();
        // A slot's pins are turned by its number (9.1), and are shared.
        let sink = move |number: u32, level: bool| {
            let mut high = high.lock().unwrap_or_else(PoisonError::into_inner);
            let (function, slot, pin) = (number >> 2 & 0xff, number >> 5, number & 3);
            let at = slot.wrapping_add(pin) as usize & 3;
            let (Some(drivers), Some(line)) = (high.get_mut(at), pins.get(at)) else {
                return;
            };
            let bit = 1u64.wrapping_shl(function & 63);
            *drivers = if level {
                *drivers | bit
            } else {
                *drivers & !bit
            };
            line.set(*drivers != 0);
        };
        let bus = PciBus::below(name, parent.is_express(), Arc::new(sink), slots);
        if parent.is_at_zero() {
            bus.allow_zero();
        }
        Arc::new(Bridge {
            bus,
            numbers: AtomicU16::new(0),
        })
    }

    /// The bus that it leads to.
    pub fn bus(&self) -> &PciBus {
        &self.bus
    }

    /// Secondary and subordinate bus number; zeros until somebody gave it some.
    pub(crate) fn numbers(&self) -> (u8, u8) {
        let [secondary, subordinate] = self.numbers.load(Ordering::Acquire).to_be_bytes();
        (secondary, subordinate)
    }

    /// Follows the registers.
    pub fn follow(&self, config: &ConfigSpace) {
        let secondary = config.byte(bridge_reg::SECONDARY);
        let subordinate = config.byte(bridge_reg::SUBORDINATE);
        let numbers = u16::from_be_bytes([secondary, subordinate]);
        self.numbers.store(numbers, Ordering::Release);
        self.bus.set_number(secondary);
    }
}

impl Setup<'_> {
    /// The header of a bridge: vendor, device and revision.
    pub fn bridge(&mut self, vendor: u16, device: u16, revision: u8) {
        const WIDE_IO: u64 = 0x0101;
        const WIDE_MEMORY: u64 = 0x0001_0001;
        let config = self.config();
        config.set(reg::VENDOR_ID, 2, vendor.into());
        config.set(reg::DEVICE_ID, 2, device.into());
        config.set(reg::REVISION, 1, revision.into());
        config.set(reg::CLASS, 3, CLASS);
        config.set(reg::HEADER_TYPE, 1, HEADER);
        for offset in [
            bridge_reg::PRIMARY,
            bridge_reg::SECONDARY,
            bridge_reg::SUBORDINATE,
        ] {
            config.set_writable(offset, 1, 0xff);
        }
        config.define(bridge_reg::IO, 2, WIDE_IO, 0xf0f0);
        config.set_clear(bridge_reg::SECONDARY_STATUS, 2, 0xf900);
        config.set_writable(bridge_reg::MEMORY, 4, 0xfff0_fff0);
        config.define(bridge_reg::PREFETCHABLE, 4, WIDE_MEMORY, 0xfff0_fff0);
        config.set_writable(bridge_reg::PREFETCHABLE_HIGH, 8, u64::MAX);
        config.set_writable(bridge_reg::IO_HIGH, 4, 0xffff_ffff);
        config.set_writable(bridge_reg::CONTROL, 2, 0x005f);
    }
}
