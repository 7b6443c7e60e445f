//! What a virtio device implements, and what it may use.

use hw_core::{DeviceError, Dma, Section, StateError, Wiring};

use crate::chain::Chain;
use crate::queue::Queue;

/// A virtio device, whatever bus it appears on.
///
/// Each method is called with the transport's mutex held and never waits. A queue is worked off until
/// [`Io::pop`] has no more; errors of the driver end in a device that needs a reset, by themselves.
pub trait VirtioDevice: Send + 'static {
    /// Device number (VIRTIO 1.2 section 5).
    fn id(&self) -> u16;

    /// Name for messages and for the saved section.
    fn name(&self) -> &'static str;

    /// Feature bits of this kind of device; those of rings are added by the core.
    fn features(&self) -> u64 {
        0
    }

    /// Whether a choice of features that was offered is consistent.
    fn accepts(&self, features: u64) -> bool {
        let _ = features;
        true
    }

    /// Largest size of each queue.
    fn queue_sizes(&self) -> Vec<u16>;

    /// Message-signalled interrupt vectors on PCI, unless the user says otherwise.
    fn vectors(&self) -> u16 {
        let queues = u16::try_from(self.queue_sizes().len()).unwrap_or(u16::MAX);
        queues.saturating_add(1)
    }

    /// The device configuration as it is now; may grow or shrink with features. Short.
    fn config(&self) -> Vec<u8> {
        Vec::new()
    }

    /// The driver writes to the configuration.
    fn config_written(&mut self, io: &mut Io<'_>, offset: u64, data: &[u8]) {
        let _ = (io, offset, data);
    }

    /// Called once: keeps wires (poke, clock, timers). Not for regions or pins.
    fn realize(&mut self, wiring: &mut dyn Wiring) -> Result<(), DeviceError> {
        let _ = wiring;
        Ok(())
    }

    /// The driver is ready: queues may be used from now on.
    fn activate(&mut self, io: &mut Io<'_>) {
        let _ = io;
    }

    /// Whether requests are only handed on when the driver notifies, which a vCPU may then do by itself:
    /// a loop in between costs more than that.
    fn hands_on(&self) -> bool {
        false
    }

    /// The driver says that it made requests available.
    fn queue_notified(&mut self, io: &mut Io<'_>, queue: u16);

    /// Posted work of the device's own making: a back end has something.
    fn poke(&mut self, io: &mut Io<'_>, token: u64) {
        let _ = (io, token);
    }

    /// Back to the state after power on. Requests in flight are forgotten: their completions must
    /// neither reach guest memory nor the queues.
    fn reset(&mut self);

    /// The saved form of what is the device's own.
    fn save(&self) -> Section {
        Section::new(self.name(), 1)
    }

    /// Takes over a saved state; untrusted.
    fn restore(&mut self, section: &Section) -> Result<(), StateError> {
        section.expect(self.name(), 1)
    }

    /// Called when all devices are restored: requests in flight start anew.
    fn resume(&mut self, io: &mut Io<'_>) {
        let _ = io;
    }

    /// The bus this device carries, for the devices that plug into it.
    fn child_bus(&self) -> Option<hw_core::ChildBus> {
        None
    }
}

/// What was noted during a call into a device.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub(crate) struct Notes {
    pub(crate) pushed: Vec<u16>,
    pub(crate) again: Vec<u16>,
    pub(crate) config_changed: bool,
    pub(crate) broken: bool,
}

pub(crate) fn note(list: &mut Vec<u16>, queue: u16) {
    if !list.contains(&queue) {
        list.push(queue);
    }
}

/// A device's hands while it is called: its queues and guest memory.
pub struct Io<'a> {
    pub(crate) name: &'static str,
    pub(crate) queues: &'a mut [Queue],
    pub(crate) dma: &'a Dma,
    pub(crate) features: u64,
    /// The queues may be used.
    pub(crate) active: bool,
    /// Requests that may still be taken in this call.
    pub(crate) budget: u32,
    pub(crate) notes: &'a mut Notes,
}

impl Io<'_> {
    /// Guest memory.
    pub fn dma(&self) -> &Dma {
        self.dma
    }

    /// The features agreed on.
    pub fn features(&self) -> u64 {
        self.features
    }

    /// Takes the next request of a queue. After many in one call there is a pause: the rest comes
    /// with another [`VirtioDevice::queue_notified`] from the main loop, so that a driver on another
    /// CPU cannot keep this one here.
    pub fn pop(&mut self, queue: u16) -> Option<Chain> {
        if !self.active || self.notes.broken {
            return None;
        }
        let ring = self.queues.get_mut(usize::from(queue))?;
        let Some(left) = self.budget.checked_sub(1) else {
            if ring.has_work(self.dma, self.features) {
                note(&mut self.notes.again, queue);
            }
            return None;
        };
        self.budget = left;
        match ring.pop(self.dma, self.features) {
            Ok(chain) => chain,
            Err(error) => {
                self.fail(format_args!("queue {queue}: {error}"));
                None
            }
        }
    }

    /// There is more to do for this queue than should be done in one go: another
    /// [`VirtioDevice::queue_notified`] comes from the main loop.
    pub fn later(&mut self, queue: u16) {
        note(&mut self.notes.again, queue);
    }

    /// Whether a request waits in a queue.
    pub fn has_work(&self, queue: u16) -> bool {
        self.active
            && !self.notes.broken
            && self
                .queues
                .get(usize::from(queue))
                .is_some_and(|q| q.has_work(self.dma, self.features))
    }

    /// Gives a request back, `written` bytes of it written.
    pub fn push(&mut self, queue: u16, chain: &Chain, written: u32) {
        if !self.active || self.notes.broken {
            return;
        }
        let Some(ring) = self.queues.get_mut(usize::from(queue)) else {
            return;
        };
        match ring.push(self.dma, self.features, chain, written) {
            Ok(()) => note(&mut self.notes.pushed, queue),
            Err(error) => self.fail(format_args!("queue {queue}: {error}")),
        }
    }

    /// The device's configuration changed by itself: tells the driver.
    pub fn config_changed(&mut self) {
        self.notes.config_changed = true;
    }

    /// The driver broke the rules: the device stops until it is reset.
    pub fn fail(&mut self, why: impl std::fmt::Display) {
        if !self.notes.broken {
            self.notes.broken = true;
            log::debug!("{}: {why}; the device needs a reset", self.name);
        }
    }
}
