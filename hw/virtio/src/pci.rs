//! The PCI transport, with its legacy interface.
//!
//! Spec: VIRTIO 1.2 section 4.1.
//!
//! Layout as in QEMU: BAR 0 the legacy I/O registers, BAR 1 MSI-X, BAR 4 the modern structures.

mod legacy;
mod modern;

#[cfg(test)]
mod tests;

use hw_core::{
    Access, ChildBus, DeviceError, Doorbell, Fault, RegionId, ResetKind, Section, StateError,
    TimerId,
};
use hw_pci::{BarKind, BarSpec, Pci, PciDevice, PciFunction, PciOptions, Setup, VENDOR_VIRTUAL};

use crate::core::{Core, Options, RUNG};
use crate::device::VirtioDevice;
use crate::device_id;

const LEGACY_BAR: u8 = 0;
const MSIX_BAR: u8 = 1;
const MODERN_BAR: u8 = 4;
/// A queue or the configuration without a vector.
const NO_VECTOR: u16 = 0xffff;
/// Interrupt reason: used buffers.
const ISR_QUEUE: u8 = 1;
/// Interrupt reason: configuration change.
const ISR_CONFIG: u8 = 2;
/// Device ids of the modern interface begin here.
const MODERN_IDS: u16 = 0x1040;

/// `disable-legacy`
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum DisableLegacy {
    /// Not on a root bus.
    #[default]
    Auto,
    /// Modern only.
    On,
    /// Transitional.
    Off,
}

/// Properties of a virtio device on PCI.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct VirtioPciOptions {
    /// Class name, for messages.
    pub name: &'static str,
    /// `disable-legacy`
    pub disable_legacy: DisableLegacy,
    /// `disable-modern`
    pub disable_modern: bool,
    /// `vectors`; none for what suits the device.
    pub vectors: Option<u16>,
    /// `page-per-vq`: each queue's bell in a page of its own.
    pub page_per_vq: bool,
    /// Features of rings.
    pub ring: Options,
}

impl VirtioPciOptions {
    /// QEMU's defaults.
    pub fn new(name: &'static str) -> Self {
        VirtioPciOptions {
            name,
            disable_legacy: DisableLegacy::default(),
            disable_modern: false,
            vectors: None,
            page_per_vq: false,
            ring: Options::default(),
        }
    }
}

#[derive(Clone, PartialEq, Eq, Debug)]
struct State {
    isr: u8,
    config_vector: u16,
    queue_vectors: Vec<u16>,
}

impl State {
    fn new(queues: usize) -> Self {
        State {
            isr: 0,
            config_vector: NO_VECTOR,
            queue_vectors: vec![NO_VECTOR; queues],
        }
    }
}

/// A virtio device as a PCI function.
pub struct VirtioPci {
    options: VirtioPciOptions,
    core: Core,
    modern: Option<modern::Layout>,
    legacy: bool,
    state: State,
}

/// Device id of a transitional device (VIRTIO 1.2 section 4.1.2.1).
fn transitional_id(id: u16) -> Option<u16> {
    Some(match id {
        device_id::NET => 0x1000,
        device_id::BLOCK => 0x1001,
        device_id::BALLOON => 0x1002,
        device_id::CONSOLE => 0x1003,
        device_id::SCSI => 0x1004,
        device_id::ENTROPY => 0x1005,
        device_id::NINE_P => 0x1009,
        _ => return None,
    })
}

fn class_code(id: u16) -> u32 {
    match id {
        device_id::NET => 0x02_0000,
        device_id::BLOCK | device_id::SCSI => 0x01_0000,
        device_id::CONSOLE => 0x07_8000,
        _ => 0x00_ff00,
    }
}

impl VirtioPci {
    /// A device with its properties.
    pub fn new(
        device: Box<dyn VirtioDevice>,
        options: VirtioPciOptions,
        pci: PciOptions,
    ) -> PciDevice<Self> {
        let core = Core::new(device, options.ring);
        let state = State::new(core.queues().len());
        let function = VirtioPci {
            options,
            core,
            modern: None,
            legacy: false,
            state,
        };
        PciDevice::new(function, pci)
    }

    fn reset_core(&mut self) {
        self.core.reset();
        self.state = State::new(self.state.queue_vectors.len());
    }

    /// Interrupts follow what the device has to say.
    fn sync(&mut self, pci: &mut Pci) {
        let signals = self.core.take_signals();
        let msix = pci.msix_enabled();
        for queue in signals.queues {
            if msix {
                let vector = self.state.queue_vectors.get(usize::from(queue));
                pci.raise_msix(vector.copied().unwrap_or(NO_VECTOR));
            } else {
                self.state.isr |= ISR_QUEUE;
            }
        }
        if signals.config {
            self.state.isr |= ISR_CONFIG;
            if msix {
                pci.raise_msix(self.state.config_vector);
            } else {
                // QEMU sets both; drivers of old look at the first alone.
                self.state.isr |= ISR_QUEUE;
            }
        }
        pci.set_intx(self.state.isr != 0);
    }

    /// Reading the interrupt status takes it back.
    fn take_isr(&mut self) -> u64 {
        u64::from(std::mem::take(&mut self.state.isr))
    }

    fn vector(&self, pci: &Pci, value: u64) -> u16 {
        let value = value as u16;
        if value < pci.msix_vectors() {
            value
        } else {
            NO_VECTOR
        }
    }

    fn queue_vector(&mut self) -> Option<&mut u16> {
        let queue = usize::from(self.core.queue_select());
        self.state.queue_vectors.get_mut(queue)
    }

    /// The registers that drivers notify queues with.
    fn bells(&self, modern: Option<RegionId>, legacy: Option<RegionId>) -> Vec<Doorbell> {
        let mut bells = Vec::new();
        for queue in self.core.queue_numbers() {
            if let (Some(region), Some(layout)) = (modern, self.modern) {
                bells.push(Doorbell {
                    region,
                    offset: layout.bell(queue),
                    size: None,
                    value: None,
                });
            }
            bells.extend(legacy.map(|region| Doorbell {
                region,
                offset: legacy::QUEUE_NOTIFY,
                size: Some(2),
                value: Some(queue.into()),
            }));
        }
        bells
    }

    fn set_status(&mut self, value: u8) {
        if value == 0 {
            self.reset_core();
        } else {
            self.core.set_status(value);
        }
    }
}

impl PciFunction for VirtioPci {
    fn name(&self) -> &'static str {
        self.options.name
    }

    fn setup(&mut self, setup: &mut Setup<'_>) -> Result<(), DeviceError> {
        let id = self.core.device().id();
        let modern = !self.options.disable_modern;
        let has_legacy = match self.options.disable_legacy {
            DisableLegacy::On => false,
            DisableLegacy::Off => true,
            DisableLegacy::Auto => setup.bus.is_root() || !setup.bus.is_express(),
        };
        let legacy_id = transitional_id(id).filter(|_| has_legacy);
        self.legacy = legacy_id.is_some();
        if !modern && !self.legacy {
            return Err(DeviceError::Other(format!(
                "'{}' has neither a legacy nor a modern interface: set disable-legacy=off or disable-modern=off",
                self.options.name
            )));
        }
        let class = class_code(id);
        match legacy_id {
            Some(device) => {
                setup.ids(VENDOR_VIRTUAL, device, class, 0);
                setup.subsystem(VENDOR_VIRTUAL, id);
            }
            None => setup.ids(VENDOR_VIRTUAL, MODERN_IDS.saturating_add(id), class, 1),
        }
        setup.interrupt_pin(1);
        let name = self.options.name;
        let (mut modern_region, mut legacy_region) = (None, None);
        if modern {
            let queues = self.core.queues().len();
            let layout = modern::Layout::new(queues, self.options.page_per_vq);
            let kind = BarKind::Memory64 { prefetch: true };
            modern_region = setup.bar(BarSpec {
                sizes: hw_core::AccessSizes::UP_TO_4,
                ..BarSpec::new(MODERN_BAR, format!("{name}-modern"), kind, layout.len)
            })?;
            self.modern = Some(layout.add_capabilities(setup.config())?);
        }
        let vectors = self
            .options
            .vectors
            .unwrap_or_else(|| self.core.device().vectors());
        setup.msix_bar(MSIX_BAR, &format!("{name}-msix"), vectors.min(2048))?;
        if self.legacy {
            let config = self.core.device().config().len() as u64;
            let len = legacy::CONFIG_MSIX.saturating_add(config);
            let len = len.next_power_of_two();
            legacy_region = setup.bar(BarSpec::new(LEGACY_BAR, name, BarKind::Io, len))?;
        }
        self.core.set_options(Options {
            modern,
            legacy: self.legacy,
            ..self.options.ring
        });
        let dma = setup.pci.dma().clone();
        let bells = self.bells(modern_region, legacy_region);
        let ringing = self.core.ringing();
        setup.wiring.doorbells(bells, ringing, RUNG);
        self.core.realize(setup.wiring, dma)
    }

    fn bar_read(&mut self, pci: &mut Pci, bar: u8, access: Access) -> Result<u64, Fault> {
        let value = match (bar, self.modern) {
            (LEGACY_BAR, _) => self.legacy_read(pci, access),
            (MODERN_BAR, Some(layout)) => self.modern_read(&layout, access.offset, access.size),
            _ => Err(Fault::NoRegister),
        };
        self.sync(pci);
        value
    }

    fn bar_write(
        &mut self,
        pci: &mut Pci,
        bar: u8,
        access: Access,
        value: u64,
    ) -> Result<(), Fault> {
        let result = match (bar, self.modern) {
            (LEGACY_BAR, _) => self.legacy_write(pci, access, value),
            (MODERN_BAR, Some(layout)) => {
                self.modern_write(pci, &layout, access.offset, access.size, value)
            }
            _ => Err(Fault::NoRegister),
        };
        self.sync(pci);
        result
    }

    fn config_reading(&mut self, pci: &mut Pci, offset: u16, size: u8) {
        if let Some(layout) = self.modern
            && let Some((at, len)) = layout.window(pci.config(), offset, size)
            && let Ok(value) = self.modern_read(&layout, at, len)
        {
            pci.config_mut().set(layout.window_data(), len, value);
            self.sync(pci);
        }
    }

    fn config_written(&mut self, pci: &mut Pci, offset: u16, size: u8) {
        if let Some(layout) = self.modern
            && let Some((at, len)) = layout.window(pci.config(), offset, size)
        {
            let value = pci.config().get(layout.window_data(), len);
            // A guest's nonsense through the window is as harmless as through the BAR.
            let _ = self.modern_write(pci, &layout, at, len, value);
        }
        self.sync(pci);
    }

    fn reset(&mut self, _: ResetKind) {
        self.reset_core();
    }

    fn after_reset(&mut self, pci: &mut Pci) {
        self.core.resume();
        self.sync(pci);
    }

    fn timer(&mut self, pci: &mut Pci, timer: TimerId) {
        self.core.timer(timer);
        self.sync(pci);
    }

    fn poke(&mut self, pci: &mut Pci, token: u64) {
        self.core.poke(token);
        self.sync(pci);
    }

    fn unplug(&mut self) {
        self.reset_core();
    }

    fn save(&self) -> Section {
        let State {
            isr,
            config_vector,
            queue_vectors,
        } = self.state.clone();
        Section::new("virtio-pci", 1)
            .with(1, isr)
            .with(2, config_vector)
            .with(3, queue_vectors.into_iter().collect::<hw_core::Value>())
            .with(4, self.core.save())
    }

    fn restore(&mut self, section: &Section) -> Result<(), StateError> {
        section.expect("virtio-pci", 1)?;
        let vectors = section.list(3)?;
        if vectors.len() != self.state.queue_vectors.len() {
            return Err(section.bad(3, "another number of queues"));
        }
        let queue_vectors = vectors.iter().map(|v| match v {
            hw_core::Value::U64(v) => u16::try_from(*v).map_err(|_| section.bad(3, "vector")),
            _ => Err(section.bad(3, "not integers")),
        });
        let state = State {
            isr: section.u8(1)?,
            config_vector: section.u16(2)?,
            queue_vectors: queue_vectors.collect::<Result<_, _>>()?,
        };
        self.core.restore(section.section(4)?)?;
        self.state = state;
        Ok(())
    }

    fn child_buses(&self) -> Vec<ChildBus> {
        self.core.child_buses()
    }

    fn inspect(&self) -> Vec<(&'static str, u64)> {
        vec![
            ("status", u64::from(self.core.status())),
            ("features", self.core.features()),
        ]
    }
}
