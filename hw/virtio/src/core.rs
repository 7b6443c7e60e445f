//! A virtio device behind any transport: status, features, configuration and queues.

use hw_core::{ChildBus, DeviceError, Dma, Ringing, Section, StateError, Timer, TimerId, Wiring};

use crate::device::{Io, Notes, VirtioDevice, note};
use crate::queue::Queue;
use crate::{feature, status};

/// The timer of a transport that [`Core`] uses for work put off.
pub(crate) const AGAIN: TimerId = TimerId(u32::MAX);

/// The token of [`Core::poke`] for a rung doorbell.
pub(crate) const RUNG: u64 = u64::MAX;

/// Requests taken in one call at most: see [`Io::pop`].
const BUDGET: u32 = 1024;

/// What a transport offers beside the device.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Options {
    /// Offer `VIRTIO_F_VERSION_1`.
    pub modern: bool,
    /// Take drivers that do not know `VIRTIO_F_VERSION_1`.
    pub legacy: bool,
    /// `packed=on`
    pub packed: bool,
    /// `indirect_desc=on`
    pub indirect_desc: bool,
    /// `event_idx=on`
    pub event_idx: bool,
    /// `iommu_platform=on`
    pub iommu_platform: bool,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            modern: true,
            legacy: false,
            packed: false,
            indirect_desc: true,
            event_idx: true,
            iommu_platform: false,
        }
    }
}

/// What the driver is to be told, for the transport to turn into interrupts.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct Signals {
    /// Queues with used buffers.
    pub queues: Vec<u16>,
    /// The configuration changed.
    pub config: bool,
}

#[derive(Clone, Default, PartialEq, Eq, Debug)]
struct State {
    status: u8,
    driver_features: u64,
    device_feature_sel: u32,
    driver_feature_sel: u32,
    queue_sel: u16,
    config_generation: u8,
}

/// The transport-independent half of a virtio device.
pub struct Core {
    device: Box<dyn VirtioDevice>,
    dma: Dma,
    timer: Timer,
    clock: Option<hw_core::Clock>,
    options: Options,
    queues: Vec<Queue>,
    state: State,
    again: Vec<u16>,
    signals: Signals,
}

impl Core {
    /// A device with what its transport offers.
    pub fn new(device: Box<dyn VirtioDevice>, options: Options) -> Self {
        let queues = device
            .queue_sizes()
            .into_iter()
            .map(|size| Queue::new(size.min(crate::queue::MAX_SIZE)))
            .collect();
        Core {
            device,
            dma: Dma::new(hw_memory::MemoryMap::default()),
            timer: Timer::default(),
            clock: None,
            options,
            queues,
            state: State::default(),
            again: Vec::new(),
            signals: Signals::default(),
        }
    }

    /// Takes the wires. `dma` is the transport's own, with its bus-master switch.
    pub fn realize(&mut self, wiring: &mut dyn Wiring, dma: Dma) -> Result<(), DeviceError> {
        self.dma = dma;
        self.timer = wiring.timer(AGAIN);
        self.clock = Some(wiring.clock());
        self.device.realize(wiring)
    }

    /// Changes what the transport offers, before the driver looks.
    pub fn set_options(&mut self, options: Options) {
        self.options = options;
    }

    /// What the transport offers.
    pub fn options(&self) -> Options {
        self.options
    }

    /// The device itself.
    pub fn device(&self) -> &dyn VirtioDevice {
        self.device.as_ref()
    }

    /// The bus the device carries.
    pub fn child_buses(&self) -> Vec<ChildBus> {
        self.device.child_bus().into_iter().collect()
    }

    /// All features on offer.
    pub fn offered(&self) -> u64 {
        let o = &self.options;
        let when = |on: bool, bits: u64| if on { bits } else { 0 };
        self.device.features()
            | when(o.modern, feature::VERSION_1)
            | when(o.legacy, feature::ANY_LAYOUT | feature::NOTIFY_ON_EMPTY)
            | when(o.indirect_desc, feature::INDIRECT_DESC)
            | when(o.event_idx, feature::EVENT_IDX)
            | when(o.packed && o.modern, feature::RING_PACKED)
            | when(o.iommu_platform && o.modern, feature::ACCESS_PLATFORM)
    }

    /// The features agreed on so far.
    pub fn features(&self) -> u64 {
        let features = self.state.driver_features & self.offered();
        if features & feature::VERSION_1 == 0 {
            return features & !(feature::RING_PACKED | feature::ACCESS_PLATFORM);
        }
        features & !(feature::NOTIFY_ON_EMPTY | feature::ANY_LAYOUT)
    }

    /// The word of the offered features that the driver selected. The legacy interface sees only the
    /// first.
    pub fn device_features(&self, legacy: bool) -> u32 {
        let offered = self.offered();
        match self.state.device_feature_sel {
            0 if legacy => offered as u32,
            0 => (offered & !(feature::NOTIFY_ON_EMPTY | feature::ANY_LAYOUT)) as u32,
            1 if !legacy => (offered >> 32) as u32,
            _ => 0,
        }
    }

    /// What the legacy interface offers.
    pub fn legacy_features(&self) -> u32 {
        self.offered() as u32
    }

    /// Selects a word of the offered features.
    pub fn select_device_features(&mut self, word: u32) {
        self.state.device_feature_sel = word;
    }

    /// The word of features that the driver selected to write.
    pub fn device_feature_select(&self) -> u32 {
        self.state.device_feature_sel
    }

    /// Selects a word of the driver's features.
    pub fn select_driver_features(&mut self, word: u32) {
        self.state.driver_feature_sel = word;
    }

    /// The selected word's number.
    pub fn driver_feature_select(&self) -> u32 {
        self.state.driver_feature_sel
    }

    /// The selected word of the driver's features.
    pub fn driver_features(&self) -> u32 {
        match self.state.driver_feature_sel {
            0 => self.state.driver_features as u32,
            1 => (self.state.driver_features >> 32) as u32,
            _ => 0,
        }
    }

    /// The driver accepts features. Too late once they are agreed on.
    pub fn set_driver_features(&mut self, value: u32) {
        if self.state.status & (status::FEATURES_OK | status::DRIVER_OK) != 0 {
            return;
        }
        let old = self.state.driver_features;
        self.state.driver_features = match self.state.driver_feature_sel {
            0 => (old & !0xffff_ffff) | u64::from(value),
            1 => (old & 0xffff_ffff) | u64::from(value) << 32,
            _ => old,
        };
    }

    /// The status register.
    pub fn status(&self) -> u8 {
        self.state.status
    }

    /// The driver writes the status register.
    pub fn set_status(&mut self, value: u8) {
        if value == 0 {
            self.reset();
            return;
        }
        let old = self.state.status;
        let mut new = (value & !status::DEVICE_NEEDS_RESET) | (old & status::DEVICE_NEEDS_RESET);
        if new & !old & status::FEATURES_OK != 0 && !self.features_ok() {
            new &= !status::FEATURES_OK;
        }
        let modern = self.state.driver_features & feature::VERSION_1 != 0;
        if new & !old & status::DRIVER_OK != 0
            && ((modern && new & status::FEATURES_OK == 0) || (!modern && !self.options.legacy))
        {
            // Not in the order of VIRTIO 1.2 section 3.1.1.
            new &= !status::DRIVER_OK;
        }
        self.state.status = new;
        if new & !old & status::DRIVER_OK != 0 {
            self.call(|device, io| device.activate(io));
        }
    }

    fn features_ok(&self) -> bool {
        let chosen = self.state.driver_features;
        let offered = self.offered() & !(feature::NOTIFY_ON_EMPTY | feature::ANY_LAYOUT);
        chosen & feature::VERSION_1 != 0 && chosen & !offered == 0 && self.device.accepts(chosen)
    }

    /// Whether queues are worked off. Legacy drivers use them before they say they are ready.
    fn is_active(&self) -> bool {
        let legacy = self.options.legacy && self.state.driver_features & feature::VERSION_1 == 0;
        self.state.status & status::DEVICE_NEEDS_RESET == 0
            && (self.state.status & status::DRIVER_OK != 0 || legacy)
    }

    /// The number of the selected queue.
    pub fn queue_select(&self) -> u16 {
        self.state.queue_sel
    }

    /// Selects a queue.
    pub fn select_queue(&mut self, queue: u16) {
        self.state.queue_sel = queue;
    }

    /// All queues.
    pub fn queues(&self) -> &[Queue] {
        &self.queues
    }

    /// The selected queue.
    pub fn queue(&self) -> Option<&Queue> {
        self.queues
            .get(usize::from(self.state.queue_sel))
            .filter(|q| q.max_size() != 0)
    }

    /// The selected queue, to place it.
    pub fn queue_mut(&mut self) -> Option<&mut Queue> {
        self.queues
            .get_mut(usize::from(self.state.queue_sel))
            .filter(|q| q.max_size() != 0)
    }

    /// Switches the selected queue on. A split ring has a power of two of entries.
    pub fn enable_queue(&mut self) {
        let packed = self.features() & feature::RING_PACKED != 0;
        if let Some(queue) = self.queue_mut()
            && (packed || queue.size().is_power_of_two())
        {
            queue.set_ready(true);
        }
    }

    /// Changes whenever the configuration does, so that a driver sees one that is whole.
    pub fn config_generation(&self) -> u8 {
        self.state.config_generation
    }

    /// Reads `size` bytes of the device's configuration, little-endian; zeros past its end.
    pub fn config_read(&self, offset: u64, size: u8) -> u64 {
        let config = self.device.config();
        let mut bytes = [0u8; 8];
        let at = usize::try_from(offset).unwrap_or(usize::MAX);
        for (i, slot) in bytes.iter_mut().take(usize::from(size)).enumerate() {
            *slot = config.get(at.saturating_add(i)).copied().unwrap_or(0);
        }
        u64::from_le_bytes(bytes)
    }

    /// Writes `size` bytes of the device's configuration.
    pub fn config_write(&mut self, offset: u64, size: u8, value: u64) {
        let len = self.device.config().len() as u64;
        if offset.saturating_add(u64::from(size)) > len {
            return;
        }
        let bytes = value.to_le_bytes();
        let data = bytes.get(..usize::from(size)).unwrap_or_default().to_vec();
        self.call(|device, io| device.config_written(io, offset, &data));
    }

    /// The driver rings a queue's bell.
    pub fn notify(&mut self, queue: u16) {
        if self.is_active() && usize::from(queue) < self.queues.len() {
            self.call(|device, io| device.queue_notified(io, queue));
        }
    }

    /// A doorbell rang, whichever: all queues are looked at.
    fn rung(&mut self) {
        for queue in 0..u16::try_from(self.queues.len()).unwrap_or(u16::MAX) {
            let ready = self
                .queues
                .get(usize::from(queue))
                .is_some_and(Queue::is_ready);
            if ready {
                self.notify(queue);
            }
        }
    }

    /// Who acts on doorbells.
    pub(crate) fn ringing(&self) -> Ringing {
        match self.device.hands_on() {
            true => Ringing::AtOnce,
            false => Ringing::Later,
        }
    }

    /// The queues that the device has, for their doorbells.
    pub(crate) fn queue_numbers(&self) -> Vec<u16> {
        let numbered = (0u16..).zip(&self.queues);
        numbered
            .filter(|(_, queue)| queue.max_size() != 0)
            .map(|(n, _)| n)
            .collect()
    }

    /// Passes posted work on to the device.
    pub fn poke(&mut self, token: u64) {
        if token == RUNG {
            return self.rung();
        }
        self.call(|device, io| device.poke(io, token));
    }

    /// The transport's timer fired: does what was put off.
    pub fn timer(&mut self, timer: TimerId) {
        if timer == AGAIN {
            for queue in std::mem::take(&mut self.again) {
                self.notify(queue);
            }
        }
    }

    fn call(&mut self, f: impl FnOnce(&mut dyn VirtioDevice, &mut Io<'_>)) {
        let mut notes = Notes {
            broken: self.state.status & status::DEVICE_NEEDS_RESET != 0,
            ..Notes::default()
        };
        let was_broken = notes.broken;
        let features = self.features();
        let active = self.is_active();
        let name = self.device.name();
        f(
            self.device.as_mut(),
            &mut Io {
                name,
                queues: &mut self.queues,
                dma: &self.dma,
                features,
                active,
                budget: BUDGET,
                notes: &mut notes,
            },
        );
        for queue in std::mem::take(&mut notes.pushed) {
            let Some(ring) = self.queues.get_mut(usize::from(queue)) else {
                continue;
            };
            match ring.wants_interrupt(&self.dma, features) {
                Ok(true) => note(&mut self.signals.queues, queue),
                Ok(false) => {}
                Err(error) => {
                    log::debug!("{}: queue {queue}: {error}", self.device.name());
                    notes.broken = true;
                }
            }
        }
        if notes.broken && !was_broken {
            self.state.status |= status::DEVICE_NEEDS_RESET;
            // Only a driver that is ready hears of it (VIRTIO 1.2 section 2.1.2).
            notes.config_changed |= self.state.status & status::DRIVER_OK != 0;
        } else if notes.config_changed {
            self.state.config_generation = self.state.config_generation.wrapping_add(1);
            notes.config_changed &= self.state.status & status::DRIVER_OK != 0;
        }
        self.signals.config |= notes.config_changed;
        for queue in notes.again {
            note(&mut self.again, queue);
        }
        if !self.again.is_empty()
            && let Some(clock) = &self.clock
        {
            self.timer.arm(clock.now_ns());
        }
    }

    /// What the driver is to be told since the last call.
    pub fn take_signals(&mut self) -> Signals {
        std::mem::take(&mut self.signals)
    }

    /// Back to the state after power on.
    pub fn reset(&mut self) {
        self.device.reset();
        self.queues.iter_mut().for_each(Queue::reset);
        self.state = State {
            config_generation: self.state.config_generation,
            ..State::default()
        };
        self.again.clear();
        self.signals = Signals::default();
    }

    /// The machine is restored: work starts anew where it was.
    pub fn resume(&mut self) {
        if !self.is_active() {
            return;
        }
        self.call(|device, io| device.resume(io));
        for queue in 0..u16::try_from(self.queues.len()).unwrap_or(u16::MAX) {
            self.notify(queue);
        }
    }

    /// The saved form, the device's own inside.
    pub fn save(&self) -> Section {
        let State {
            status,
            driver_features,
            device_feature_sel,
            driver_feature_sel,
            queue_sel,
            config_generation,
        } = self.state.clone();
        Section::new("virtio", 1)
            .with(1, status)
            .with(2, driver_features)
            .with(3, device_feature_sel)
            .with(4, driver_feature_sel)
            .with(5, queue_sel)
            .with(6, config_generation)
            .with(
                7,
                self.queues
                    .iter()
                    .map(Queue::save)
                    .collect::<hw_core::Value>(),
            )
            .with(8, self.device.save())
    }

    /// Takes over a saved state.
    pub fn restore(&mut self, section: &Section) -> Result<(), StateError> {
        section.expect("virtio", 1)?;
        let state = State {
            status: section.u8(1)?,
            driver_features: section.u64(2)?,
            device_feature_sel: section.u32(3)?,
            driver_feature_sel: section.u32(4)?,
            queue_sel: section.u16(5)?,
            config_generation: section.u8(6)?,
        };
        let mut queues = self.queues.clone();
        let saved = section.list(7)?;
        if saved.len() != queues.len() {
            return Err(section.bad(7, "another number of queues"));
        }
        for (queue, value) in queues.iter_mut().zip(saved) {
            let hw_core::Value::Section(saved) = value else {
                return Err(section.bad(7, "not sections"));
            };
            queue.restore(saved)?;
        }
        self.device.restore(section.section(8)?)?;
        self.state = state;
        self.queues = queues;
        self.again.clear();
        self.signals = Signals::default();
        Ok(())
    }
}
