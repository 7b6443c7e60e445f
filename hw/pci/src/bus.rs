//! A PCI bus: which function sits where, and how configuration accesses and pins get there.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::{Arc, OnceLock, Weak};

use hw_core::{Access, Attrs, DeviceError, Fault, Initiator, IoRegion, IrqLine, IrqSink, RegionId};
use runtime::{Rank, Ranked, RankedGuard};

use crate::access::ConfigPorts;
use crate::bar::{self, BarInfo, BarKind};
use crate::bridge::Bridge;
use crate::config::{ConfigSpace, reg};

/// Slots of a bus.
const SLOTS: u8 = 32;

/// A function on a bus, as the bus knows it.
#[derive(Clone)]
pub struct Plugged {
    /// Class name.
    pub name: String,
    /// Whether it lets others into its slot.
    pub multifunction: bool,
    /// Answers configuration accesses.
    pub config: Arc<dyn IoRegion>,
    /// Its BARs: number, kind, bytes.
    pub bars: Vec<(u8, BarKind, u64)>,
    /// Where it leads to.
    pub bridge: Option<Arc<Bridge>>,
}

struct Inner {
    name: String,
    express: bool,
    is_root: bool,
    /// The number that the guest gave it; 0 for a root bus.
    number: Arc<AtomicU8>,
    /// I/O BARs answer at port 0.
    at_zero: AtomicBool,
    /// Slots there are.
    slots: u8,
    /// Takes `devfn << 2 | pin` of functions' INTA# to INTD#.
    intx: Arc<dyn IrqSink>,
    functions: Ranked<BTreeMap<u8, Plugged>>,
    ports: OnceLock<Arc<ConfigPorts>>,
}

/// A PCI bus. Clones are the same bus. Boards hand it to functions as their bus.
#[derive(Clone)]
pub struct PciBus {
    inner: Arc<Inner>,
}

/// A bus that is not kept alive.
pub(crate) struct WeakBus(Weak<Inner>);

impl WeakBus {
    pub(crate) fn get(&self) -> Result<PciBus, Fault> {
        let inner = self.0.upgrade().ok_or(Fault::Unassigned)?;
        Ok(PciBus { inner })
    }
}

/// What `info pci` shows of a function.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct FunctionInfo {
    /// Bus number.
    pub bus: u8,
    /// 0 to 31.
    pub slot: u8,
    /// 0 to 7.
    pub function: u8,
    /// Class name of the device.
    pub name: String,
    /// Class and sub-class.
    pub class: u16,
    /// Vendor id.
    pub vendor: u16,
    /// Device id.
    pub device: u16,
    /// Subsystem vendor and id.
    pub subsystem: (u16, u16),
    /// 0 for none, 1 for INTA#.
    pub interrupt_pin: u8,
    /// What firmware wrote.
    pub interrupt_line: u8,
    /// BARs.
    pub bars: Vec<BarInfo>,
}

impl PciBus {
    /// A root bus. Its functions' interrupt pins drive `intx`, numbered `devfn << 2 | pin`.
    pub fn new(name: impl Into<String>, express: bool, intx: Arc<dyn IrqSink>) -> Self {
        Self::make(name.into(), express, intx, true, SLOTS)
    }

    /// A bus below a bridge, with so many slots.
    pub(crate) fn below(name: &str, express: bool, intx: Arc<dyn IrqSink>, slots: u8) -> Self {
        Self::make(name.into(), express, intx, false, slots.min(SLOTS))
    }

    fn make(name: String, express: bool, intx: Arc<dyn IrqSink>, is_root: bool, slots: u8) -> Self {
        PciBus {
            inner: Arc::new(Inner {
                name,
                express,
                is_root,
                number: Arc::default(),
                at_zero: AtomicBool::new(false),
                slots,
                intx,
                // Nothing is called while it is held: the topology is copied out of it.
                functions: Ranked::new(Rank::Leaf, BTreeMap::new()),
                ports: OnceLock::new(),
            }),
        }
    }

    fn functions_locked(&self) -> RankedGuard<'_, BTreeMap<u8, Plugged>> {
        self.inner.functions.lock()
    }

    /// `pci.0`, `pcie.0`.
    pub fn name(&self) -> &str {
        &self.inner.name
    }

    /// Whether it is PCI Express.
    pub fn is_express(&self) -> bool {
        self.inner.express
    }

    /// Whether no bridge leads to it.
    pub fn is_root(&self) -> bool {
        self.inner.is_root
    }

    /// I/O BARs of functions on it, plugged in from now on, answer at port 0 too: there is nothing else
    /// there. On PCs that is where unplaced ones are.
    pub fn allow_zero(&self) {
        self.inner.at_zero.store(true, Ordering::Relaxed);
    }

    pub(crate) fn is_at_zero(&self) -> bool {
        self.inner.at_zero.load(Ordering::Relaxed)
    }

    /// The number that requesters on it have, as it changes.
    pub(crate) fn number(&self) -> Arc<AtomicU8> {
        self.inner.number.clone()
    }

    /// The guest numbers it.
    pub(crate) fn set_number(&self, number: u8) {
        self.inner.number.store(number, Ordering::Release);
    }

    /// This bus's configuration ports.
    pub fn config_ports(&self) -> Arc<ConfigPorts> {
        self.inner
            .ports
            .get_or_init(|| Arc::new(ConfigPorts::new(WeakBus(Arc::downgrade(&self.inner)))))
            .clone()
    }

    /// The interrupt pin (0 is INTA#) of a function.
    pub fn intx(&self, devfn: u8, pin: u8) -> IrqLine {
        let number = u32::from(devfn) << 2 | u32::from(pin & 3);
        IrqLine::new(self.inner.intx.clone(), number)
    }

    /// Finds a place for a function: the one wanted, or the first free slot.
    pub fn place(
        &self,
        name: &str,
        wanted: Option<u8>,
        multifunction: bool,
    ) -> Result<u8, DeviceError> {
        let functions = self.functions_locked();
        let Some(devfn) = wanted else {
            return (0..self.inner.slots)
                .map(|slot| slot << 3)
                .find(|first| !(*first..=first | 7).any(|d| functions.contains_key(&d)))
                .ok_or_else(|| {
                    DeviceError::Other(format!(
                        "no free slot for '{name}' on bus '{}'",
                        self.inner.name
                    ))
                });
        };
        let (slot, function) = (devfn >> 3, devfn & 7);
        if slot >= self.inner.slots {
            return Err(DeviceError::Other(format!(
                "there is no slot {slot:#x} for '{name}' on bus '{}': the last is {:#x}; choose another addr=",
                self.inner.name,
                self.inner.slots.saturating_sub(1)
            )));
        }
        if let Some(other) = functions.get(&devfn) {
            return Err(DeviceError::Other(format!(
                "slot {slot:#x} function {function} of bus '{}' is not free for '{name}': '{}' is there; choose another addr=",
                self.inner.name, other.name
            )));
        }
        let alone = |other: &Plugged| {
            Err(DeviceError::Other(format!(
                "slot {slot:#x} of bus '{}' cannot take '{name}' at function {function}: '{}' at function 0 needs multifunction=on",
                self.inner.name, other.name
            )))
        };
        match functions.get(&(devfn & !7)) {
            Some(first) if function != 0 && !first.multifunction => alone(first),
            _ if function == 0
                && !multifunction
                && (devfn..=devfn | 7).any(|d| functions.contains_key(&d)) =>
            {
                Err(DeviceError::Other(format!(
                    "slot {slot:#x} of bus '{}' has other functions already: '{name}' needs multifunction=on",
                    self.inner.name
                )))
            }
            _ => Ok(devfn),
        }
    }

    /// Puts a function in its place.
    pub fn plug(&self, devfn: u8, function: Plugged) {
        self.functions_locked().insert(devfn, function);
    }

    /// Takes a function out.
    pub fn unplug(&self, devfn: u8) {
        self.functions_locked().remove(&devfn);
    }

    /// The bus of this number below a bridge.
    fn numbered(&self, bus: u8) -> Option<PciBus> {
        let functions = self.functions_locked();
        let bridges = functions.values().filter_map(|f| f.bridge.clone());
        let bridge = bridges.into_iter().find(|bridge| {
            let (secondary, subordinate) = bridge.numbers();
            secondary != 0 && (secondary..=subordinate.max(secondary)).contains(&bus)
        })?;
        drop(functions);
        match bridge.numbers().0 == bus {
            true => Some(bridge.bus().clone()),
            false => bridge.bus().numbered(bus),
        }
    }

    fn config(&self, bus: u8, devfn: u8) -> Result<Arc<dyn IoRegion>, Fault> {
        if bus != 0 {
            let below = self.numbered(bus).ok_or(Fault::Unassigned)?;
            return below.config(0, devfn);
        }
        let functions = self.functions_locked();
        let function = functions.get(&devfn).ok_or(Fault::Unassigned)?;
        Ok(function.config.clone())
    }

    /// A configuration read; no function there is a fault, which reads as all ones.
    pub fn read(&self, bus: u8, devfn: u8, register: u16, access: Access) -> Result<u64, Fault> {
        // The lock on the topology is released before the function answers.
        let config = self.config(bus, devfn)?;
        config.read(Access {
            offset: u64::from(register),
            ..access
        })
    }

    /// A configuration write.
    pub fn write(
        &self,
        bus: u8,
        devfn: u8,
        register: u16,
        access: Access,
        value: u64,
    ) -> Result<(), Fault> {
        let config = self.config(bus, devfn)?;
        let access = Access {
            offset: u64::from(register),
            ..access
        };
        config.write(access, value)
    }

    /// The device and function numbers in use.
    pub fn devfns(&self) -> Vec<u8> {
        let functions = self.functions_locked();
        functions.keys().copied().collect()
    }

    /// All functions, for `info pci` and firmware tables. Locks one function after the other.
    pub fn functions(&self) -> Vec<FunctionInfo> {
        self.numbered_functions(0)
    }

    fn numbered_functions(&self, bus: u8) -> Vec<FunctionInfo> {
        let functions = self.functions_locked().clone();
        let infos = functions.into_iter();
        infos
            .map(|(devfn, function)| info((bus, devfn), &function, self.is_at_zero()))
            .collect()
    }

    /// All functions, those below bridges too, after the bridge's bus.
    pub fn all_functions(&self) -> Vec<FunctionInfo> {
        self.functions_from(0)
    }

    fn functions_from(&self, bus: u8) -> Vec<FunctionInfo> {
        let mut all = self.numbered_functions(bus);
        let functions = self.functions_locked().clone();
        for bridge in functions.into_values().filter_map(|f| f.bridge) {
            all.extend(bridge.bus().functions_from(bridge.numbers().0));
        }
        all
    }
}

fn info((bus, devfn): (u8, u8), function: &Plugged, at_zero: bool) -> FunctionInfo {
    let mut config = ConfigSpace::default();
    for register in (0..64u16).step_by(4) {
        let value = function.config.read(Access {
            region: RegionId(0),
            offset: u64::from(register),
            size: 4,
            by: Initiator::Debug,
            attrs: Attrs::default(),
        });
        config.set(register, 4, value.unwrap_or(u64::MAX));
    }
    FunctionInfo {
        bus,
        slot: devfn >> 3,
        function: devfn & 7,
        name: function.name.clone(),
        class: config.word(reg::CLASS.saturating_add(1)),
        vendor: config.word(reg::VENDOR_ID),
        device: config.word(reg::DEVICE_ID),
        subsystem: (
            config.word(reg::SUBSYSTEM_VENDOR),
            config.word(reg::SUBSYSTEM_ID),
        ),
        interrupt_pin: config.byte(reg::INTERRUPT_PIN),
        interrupt_line: config.byte(reg::INTERRUPT_LINE),
        bars: function
            .bars
            .iter()
            .map(|(index, kind, len)| BarInfo {
                index: *index,
                kind: *kind,
                base: bar::decode(&config, (*index, *kind, *len), at_zero),
                len: *len,
            })
            .collect(),
    }
}
