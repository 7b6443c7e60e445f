//! Interrupt wires: level lines with many drivers, and message-signalled interrupts.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// The end of a wire: an interrupt controller's input, a CPU's pin.
///
/// Called with at most one device locked. Must not call back into a device.
pub trait IrqSink: Send + Sync {
    /// The level of input `pin` changed.
    fn set(&self, pin: u32, level: bool);

    /// From now on no edge of input `pin` is to be lost because the CPU had not taken the one before: it is
    /// given when that is done. Sinks that know no edges do nothing.
    fn keep_edges(&self, pin: u32) {
        let _ = pin;
    }
}

impl<F: Fn(u32, bool) + Send + Sync> IrqSink for F {
    fn set(&self, pin: u32, level: bool) {
        self(pin, level);
    }
}

struct HubInner {
    drivers: Mutex<u32>,
    sink: Arc<dyn IrqSink>,
    pin: u32,
}

/// One wire that several pins may drive: it is high while any of them is.
#[derive(Clone)]
pub struct IrqHub {
    inner: Arc<HubInner>,
}

impl IrqHub {
    /// A wire into input `pin` of `sink`.
    pub fn new(sink: Arc<dyn IrqSink>, pin: u32) -> Self {
        IrqHub {
            inner: Arc::new(HubInner {
                drivers: Mutex::new(0),
                sink,
                pin,
            }),
        }
    }

    /// A new driver of this wire, low at first.
    pub fn line(&self) -> IrqLine {
        let driver = Driver {
            hub: self.clone(),
            level: AtomicBool::new(false),
        };
        IrqLine {
            driver: Some(Arc::new(driver)),
        }
    }

    /// The level of the wire.
    pub fn level(&self) -> bool {
        *self
            .inner
            .drivers
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            != 0
    }

    fn change(&self, level: bool) {
        let mut drivers = self
            .inner
            .drivers
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let before = *drivers;
        *drivers = if level {
            before.saturating_add(1)
        } else {
            before.saturating_sub(1)
        };
        if (before == 0) != (*drivers == 0) {
            self.inner.sink.set(self.inner.pin, level);
        }
    }
}

struct Driver {
    hub: IrqHub,
    level: AtomicBool,
}

impl Drop for Driver {
    fn drop(&mut self) {
        if self.level.swap(false, Ordering::AcqRel) {
            self.hub.change(false);
        }
    }
}

/// A device's own output pin. Clones are the same pin. The default is connected to nothing.
#[derive(Clone, Default)]
pub struct IrqLine {
    driver: Option<Arc<Driver>>,
}

impl IrqLine {
    /// A pin that alone drives input `pin` of `sink`.
    pub fn new(sink: Arc<dyn IrqSink>, pin: u32) -> Self {
        IrqHub::new(sink, pin).line()
    }

    /// Drives the pin. Setting the level it already has does nothing.
    pub fn set(&self, level: bool) {
        if let Some(driver) = &self.driver
            && driver.level.swap(level, Ordering::AcqRel) != level
        {
            driver.hub.change(level);
        }
    }

    /// Has what this pin drives count edges that the CPU is too slow for, and give them later, one by one
    /// ([`IrqSink::keep_edges`]).
    pub fn keep_edges(&self) {
        if let Some(driver) = &self.driver {
            let hub = &driver.hub.inner;
            hub.sink.keep_edges(hub.pin);
        }
    }

    /// High, then low: an edge.
    pub fn pulse(&self) {
        self.set(true);
        self.set(false);
    }

    /// The level this pin drives.
    pub fn level(&self) -> bool {
        self.driver
            .as_ref()
            .is_some_and(|d| d.level.load(Ordering::Acquire))
    }
}

/// Takes message-signalled interrupts: on PCs the local APICs.
pub trait MsiSink: Send + Sync {
    /// A write of `data` to `address` by the PCI function `requester`.
    fn message(&self, address: u64, data: u32, requester: u32);
}

/// A device's way to send message-signalled interrupts. The default goes nowhere.
#[derive(Clone, Default)]
pub struct Msi {
    sink: Option<Arc<dyn MsiSink>>,
    requester: u32,
}

impl Msi {
    /// Messages of `requester` into `sink`.
    pub fn new(sink: Arc<dyn MsiSink>, requester: u32) -> Self {
        Msi {
            sink: Some(sink),
            requester,
        }
    }

    /// The same sink for another requester.
    pub fn of(&self, requester: u32) -> Self {
        Msi {
            sink: self.sink.clone(),
            requester,
        }
    }

    /// Whether messages arrive anywhere: without, a function offers no MSI capability.
    pub fn is_connected(&self) -> bool {
        self.sink.is_some()
    }

    /// Sends one message.
    pub fn send(&self, address: u64, data: u32) {
        if let Some(sink) = &self.sink {
            sink.message(address, data, self.requester);
        }
    }
}
