//! `pcie-root-port`: a PCI Express root port whose slot takes a device while the machine runs.
//!
//! Spec: PCI Express Base Specification 3.0, sections 6.7 (hot plug) and 7.8 (the capability).
//!
//! The slot has an attention button, indicators and a power controller. Taking a device out is a
//! matter between the button and the guest: it is gone when the guest has switched the slot off.
//!
//! Not modelled: error reporting, power management, surprise removal.

#[cfg(test)]
mod tests;

use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use hw_core::{
    Args, BusKind, Category, ChildBus, Device, DeviceClass, DeviceError, HotPlug, Links, PropType,
    ResetKind, Section, StateError, prop,
};
use hw_pci::{
    ACPI_INDEX, ADDR, Bridge, MULTIFUNCTION, Pci, PciBus, PciDevice, PciFunction, PciOptions,
    Setup, VENDOR_REDHAT, cap,
};

const DEVICE: u16 = 0x000c;
const NAME: &str = "pcie-root-port";

/// Registers of the capability, from its start.
mod express {
    pub(super) const LINK_CAPABILITIES: usize = 0x0c;
    pub(super) const LINK_STATUS: u16 = 0x12;
    pub(super) const SLOT_CAPABILITIES: usize = 0x14;
    pub(super) const SLOT_CONTROL: u16 = 0x18;
    pub(super) const SLOT_STATUS: u16 = 0x1a;
    pub(super) const LEN: usize = 0x3c;
}

/// Version 2, a root port, with a slot.
const CAPABILITIES: u16 = 0x0142;
/// 2.5 GT/s, one lane, says whether the link is active.
const LINK: u32 = 0x0010_0011;
const LINK_UP: u16 = 0x0011;
const LINK_ACTIVE: u16 = 1 << 13;
/// Attention button and indicator, power controller and indicator, hot plug.
const SLOT: u32 = 0x5b;

/// SLOT CONTROL: events that interrupt, indicators, power.
mod control {
    pub(super) const COMMAND_COMPLETED: u16 = 1 << 4;
    pub(super) const INTERRUPTS: u16 = 1 << 5;
    pub(super) const ATTENTION_OFF: u16 = 3 << 6;
    pub(super) const POWER_INDICATOR: u16 = 3 << 8;
    pub(super) const POWER_INDICATOR_ON: u16 = 1 << 8;
    pub(super) const POWER_OFF: u16 = 1 << 10;
    pub(super) const LINK_CHANGED: u16 = 1 << 12;
    pub(super) const WRITABLE: u64 = 0x1fff;
}

/// SLOT STATUS.
mod status {
    pub(super) const BUTTON: u16 = 1;
    pub(super) const PRESENCE_CHANGED: u16 = 1 << 3;
    pub(super) const COMMAND_COMPLETED: u16 = 1 << 4;
    pub(super) const PRESENT: u16 = 1 << 6;
    pub(super) const LINK_CHANGED: u16 = 1 << 8;
    /// Bits that the guest clears.
    pub(super) const EVENTS: u64 = 0x011f;
}

/// Something was plugged in or taken out; somebody wants what is in it.
const CHANGED: u64 = 0;
const ASKED: u64 = 1;

type Released = Arc<dyn Fn() + Send + Sync>;

/// The slot, as the machine's life cycle has it.
#[derive(Default)]
struct Slot {
    poke: OnceLock<Arc<dyn Fn(u64) + Send + Sync>>,
    released: Mutex<Option<Released>>,
}

impl Slot {
    fn released(&self) -> MutexGuard<'_, Option<Released>> {
        self.released.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn poke(&self, token: u64) {
        if let Some(poke) = self.poke.get() {
            poke(token);
        }
    }
}

impl HotPlug for Slot {
    fn changed(&self) {
        self.poke(CHANGED);
    }

    fn asks_guest(&self) -> bool {
        true
    }

    fn ask(&self, released: Released) -> Result<(), DeviceError> {
        {
            let mut waiting = self.released();
            if waiting.is_some() {
                return Err(DeviceError::Other(
                    "the guest was asked to let go of the device already, and has not done so yet"
                        .into(),
                ));
            }
            *waiting = Some(released);
        }
        self.poke(ASKED);
        Ok(())
    }
}

/// Properties of the port.
#[derive(Clone, Copy, Debug, Default)]
struct PortOptions {
    /// `port`: number of the link.
    port: u8,
    /// `slot`: physical number of the slot.
    slot: u16,
    /// `hotplug`
    hotplug: bool,
}

/// The port.
struct RootPort {
    options: PortOptions,
    bridge: Option<Arc<Bridge>>,
    slot: Arc<Slot>,
    /// Where the capability is.
    at: u16,
    /// SLOT CONTROL as it was last.
    control: u16,
    /// An interrupt was sent for the events that there are.
    told: bool,
    /// Reset, and not followed yet.
    is_fresh: bool,
}

impl RootPort {
    fn is_occupied(&self) -> bool {
        let bus = self.bridge.as_ref().map(|bridge| bridge.bus());
        bus.is_some_and(|bus: &PciBus| !bus.devfns().is_empty())
    }

    fn register(&self, offset: u16) -> u16 {
        self.at.saturating_add(offset)
    }

    fn status(&self, pci: &Pci) -> u16 {
        pci.config().word(self.register(express::SLOT_STATUS))
    }

    fn set_status(&self, pci: &mut Pci, value: u16) {
        let at = self.register(express::SLOT_STATUS);
        pci.config_mut().set(at, 2, value.into());
    }

    /// What is in the slot shows in the registers; says whether that is news.
    fn follow(&self, pci: &mut Pci) -> bool {
        let old = self.status(pci);
        let (present, link) = match self.is_occupied() {
            true => (status::PRESENT, LINK_UP | LINK_ACTIVE),
            false => (0, LINK_UP),
        };
        self.set_status(pci, old & !status::PRESENT | present);
        let at = self.register(express::LINK_STATUS);
        pci.config_mut().set(at, 2, link.into());
        old & status::PRESENT != present
    }

    /// Interrupts follow events and which of them are enabled (6.7.3.4).
    fn sync(&mut self, pci: &mut Pci) {
        let (events, enabled) = (self.status(pci), self.control);
        let command = events & enabled & control::COMMAND_COMPLETED;
        let link = events & status::LINK_CHANGED != 0 && enabled & control::LINK_CHANGED != 0;
        // Button, power fault, latch and presence have the same bits in both.
        let is_pending = events & enabled & 0xf != 0 || command != 0 || link;
        let is_pending = is_pending && enabled & control::INTERRUPTS != 0;
        if is_pending && !self.told {
            pci.raise_msi(0);
        }
        self.told = is_pending;
    }

    /// Whether the slot is switched off, for good: its indicator says so too.
    fn is_off(value: u16) -> bool {
        value & control::POWER_OFF != 0
            && value & control::POWER_INDICATOR == control::POWER_INDICATOR
    }

    fn release(&self) {
        let released = self.slot.released().take();
        if let Some(released) = released {
            released();
        }
    }
}

impl PciFunction for RootPort {
    fn name(&self) -> &'static str {
        NAME
    }

    fn setup(&mut self, setup: &mut Setup<'_>) -> Result<(), DeviceError> {
        let bus = setup.bus;
        if !bus.is_express() || !bus.is_root() {
            return Err(DeviceError::Other(format!(
                "'{NAME}' needs a PCI Express root bus; use -machine q35 or virt"
            )));
        }
        setup.bridge(VENDOR_REDHAT, DEVICE, 0);
        let mut body = [0; express::LEN];
        let mut put = |at: usize, bytes: &[u8]| {
            // Without the two bytes of every capability's header.
            let slots = body.iter_mut().skip(at.saturating_sub(2));
            slots.zip(bytes).for_each(|(slot, byte)| *slot = *byte);
        };
        put(2, &CAPABILITIES.to_le_bytes());
        let link = LINK | u32::from(self.options.port) << 24;
        put(express::LINK_CAPABILITIES, &link.to_le_bytes());
        let features = if self.options.hotplug { SLOT } else { 0 };
        let slot = features | u32::from(self.options.slot & 0x1fff) << 19;
        put(express::SLOT_CAPABILITIES, &slot.to_le_bytes());
        let config = setup.config();
        self.at = config.add_capability(cap::EXPRESS, &body, &[])?;
        config.set_writable(self.register(0x08), 2, 0xffff);
        config.set_writable(self.register(0x10), 2, 0x00ff);
        let at = self.register(express::SLOT_CONTROL);
        config.set_writable(at, 2, control::WRITABLE);
        config.set_clear(self.register(express::SLOT_STATUS), 2, status::EVENTS);
        config.set_writable(self.register(0x1c), 2, 0x001f);
        config.set_writable(self.register(0x28), 2, 0x001f);
        config.set_writable(self.register(0x30), 2, 0x001f);
        setup.msi(1)?;
        let devfn = setup.pci.devfn();
        self.bridge = Some(Bridge::new(NAME, bus, devfn, 1));
        let _ = self.slot.poke.set(setup.wiring.poke());
        Ok(())
    }

    fn bridge(&self) -> Option<Arc<Bridge>> {
        self.bridge.clone()
    }

    fn config_written(&mut self, pci: &mut Pci, offset: u16, size: u8) {
        if let Some(bridge) = &self.bridge {
            bridge.follow(pci.config());
        }
        let at = self.register(express::SLOT_CONTROL);
        let end = offset.saturating_add(size.into());
        if offset < at.saturating_add(2) && end > at {
            let old = std::mem::replace(&mut self.control, pci.config().word(at));
            let value = self.status(pci) | status::COMMAND_COMPLETED;
            self.set_status(pci, value);
            if Self::is_off(self.control) && !Self::is_off(old) {
                self.release();
            }
        }
        self.sync(pci);
    }

    fn reset(&mut self, _: ResetKind) {
        self.is_fresh = true;
        self.told = false;
    }

    fn after_reset(&mut self, pci: &mut Pci) {
        self.follow(pci);
        let at = self.register(express::SLOT_CONTROL);
        if std::mem::take(&mut self.is_fresh) {
            let power = match self.is_occupied() {
                true => control::POWER_INDICATOR_ON,
                false => control::POWER_OFF | control::POWER_INDICATOR,
            };
            let value = control::ATTENTION_OFF | power;
            pci.config_mut().set(at, 2, value.into());
            // A guest that starts anew holds nothing.
            self.release();
        }
        self.control = pci.config().word(at);
        if let Some(bridge) = &self.bridge {
            bridge.follow(pci.config());
        }
        self.sync(pci);
    }

    fn poke(&mut self, pci: &mut Pci, token: u64) {
        match token {
            ASKED if Self::is_off(self.control) => self.release(),
            ASKED => {
                let value = self.status(pci) | status::BUTTON;
                self.set_status(pci, value);
            }
            _ => {
                if self.follow(pci) {
                    let events = status::PRESENCE_CHANGED | status::LINK_CHANGED;
                    let value = self.status(pci) | events;
                    self.set_status(pci, value);
                }
            }
        }
        self.sync(pci);
    }

    fn save(&self) -> Section {
        Section::new(NAME, 1).with(1, self.told)
    }

    fn restore(&mut self, section: &Section) -> Result<(), StateError> {
        section.expect(NAME, 1)?;
        self.told = section.bool(1)?;
        self.is_fresh = false;
        Ok(())
    }

    fn child_buses(&self) -> Vec<ChildBus> {
        let Some(bridge) = &self.bridge else {
            return Vec::new();
        };
        let slot: Arc<dyn HotPlug> = self.slot.clone();
        vec![ChildBus {
            kind: BusKind::Pci,
            bus: Arc::new(bridge.bus().clone()),
            free: (!self.is_occupied()).then_some(0),
            hot_plug: self.options.hotplug.then_some(slot),
        }]
    }

    fn inspect(&self) -> Vec<(&'static str, u64)> {
        vec![("slot_control", self.control.into())]
    }
}

/// The class of the port.
pub(crate) static PCIE_ROOT_PORT: DeviceClass = DeviceClass {
    name: NAME,
    aliases: &[],
    doc: "PCI Express root port",
    bus: BusKind::Pci,
    category: Category::Bridge,
    props: &[
        prop("port", PropType::U8, "0", "Number of the port's link"),
        prop(
            "chassis",
            PropType::U8,
            "0",
            "Number of the chassis that the slot is in",
        ),
        prop(
            "slot",
            PropType::U16,
            "0",
            "Number of the slot in its chassis",
        ),
        prop(
            "hotplug",
            PropType::Bool,
            "on",
            "Devices come and go while the machine runs",
        ),
        ADDR,
        MULTIFUNCTION,
        ACPI_INDEX,
    ],
    user_creatable: true,
    create,
};

fn create(args: &Args, _: &mut Links) -> Result<Box<dyn Device>, DeviceError> {
    let number = |name: &str| args.int(name).unwrap_or(0);
    // The numbers of slots are unique: those of one chassis follow those of another.
    let slot = number("chassis").wrapping_shl(5) | number("slot") & 0x1f;
    let port = RootPort {
        options: PortOptions {
            port: number("port") as u8,
            slot: slot as u16,
            hotplug: args.flag("hotplug").unwrap_or(true),
        },
        bridge: None,
        slot: Arc::default(),
        at: 0,
        control: 0,
        told: false,
        is_fresh: true,
    };
    let pci = PciOptions::from_args(args)?;
    Ok(Box::new(PciDevice::new(port, pci)))
}
