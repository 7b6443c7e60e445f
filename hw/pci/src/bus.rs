//! A PCI bus: which function sits where, and how configuration accesses and pins get there.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock, Weak};

use hw_core::{Access, Attrs, DeviceError, Fault, Initiator, IoRegion, IrqLine, IrqSink, RegionId};
use runtime::{Rank, Ranked, RankedGuard};

use crate::access::ConfigPorts;
use crate::bar::{self, BarInfo, BarKind};
use crate::config::{ConfigSpace, reg};

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
}

struct Inner {
    name: String,
    express: bool,
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
        PciBus {
            inner: Arc::new(Inner {
                name: name.into(),
                express,
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
            return (0..32u8)
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

    fn config(&self, bus: u8, devfn: u8) -> Result<Arc<dyn IoRegion>, Fault> {
        if bus != 0 {
            return Err(Fault::Unassigned);
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
        let functions = self.functions_locked().clone();
        functions
            .into_iter()
            .map(|(devfn, function)| info(devfn, &function))
            .collect()
    }
}

fn info(devfn: u8, function: &Plugged) -> FunctionInfo {
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
        bus: 0,
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
                base: bar::decode(&config, *index, *kind, *len),
                len: *len,
            })
            .collect(),
    }
}
