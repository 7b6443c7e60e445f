//! A unit as a device of its own: it plugs itself into its bus; the host adapter does the rest.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use backend_block::SharedBlock;
use hw_core::{Device, DeviceError, ResetKind, Section, StateError, Wiring};
use hw_scsi::{Address, ScsiBus, Sense, SharedUnit, Unit, What};

/// What units need beside answering commands.
pub(crate) trait Kept: Unit + 'static {
    /// The saved form.
    fn save(&self) -> Section;

    /// Takes over a saved state, which is untrusted.
    fn restore(&mut self, section: &Section) -> Result<(), StateError>;

    /// The disk that is always in it.
    fn fixed(&self) -> Option<SharedBlock>;
}

/// Where a unit is to be, as far as it is told.
#[derive(Clone, Copy, Default)]
pub(crate) struct Place {
    pub(crate) channel: u16,
    pub(crate) target: Option<u16>,
    pub(crate) lun: Option<u16>,
}

/// A unit to be plugged in.
pub(crate) struct ScsiDevice<U> {
    unit: Arc<Mutex<U>>,
    name: &'static str,
    place: Place,
    /// Where it is.
    address: Address,
    bus: Option<ScsiBus>,
}

impl<U: Kept> ScsiDevice<U> {
    pub(crate) fn new(name: &'static str, unit: U, place: Place) -> Self {
        ScsiDevice {
            unit: Arc::new(Mutex::new(unit)),
            name,
            place,
            address: Address::default(),
            bus: None,
        }
    }

    fn unit(&self) -> MutexGuard<'_, U> {
        lock(&self.unit)
    }
}

fn lock<U>(unit: &Mutex<U>) -> MutexGuard<'_, U> {
    unit.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<U: Kept> Device for ScsiDevice<U> {
    fn realize(&mut self, wiring: &mut dyn Wiring) -> Result<(), DeviceError> {
        let bus = wiring.bus().and_then(|bus| bus.downcast_ref::<ScsiBus>());
        let bus = bus.cloned().ok_or_else(|| {
            DeviceError::Other(format!(
                "'{}' needs a SCSI controller, such as virtio-scsi-pci",
                self.name
            ))
        })?;
        let Place {
            channel,
            target,
            lun,
        } = self.place;
        let unit: SharedUnit = self.unit.clone();
        self.address = bus.plug(channel, target, lun, unit)?;
        if let Some(disk) = self.unit().fixed() {
            // The disk must not keep alive what keeps it.
            let (weak, address) = (Arc::downgrade(&self.unit), self.address);
            let notice = bus.notifier();
            disk.on_resize(Arc::new(move || {
                if let Some(unit) = weak.upgrade() {
                    lock(&unit).attention(Sense::CAPACITY_CHANGED);
                    notice(address, What::Changed(Sense::CAPACITY_CHANGED));
                }
            }));
        }
        self.bus = Some(bus);
        let unit = self.unit.clone();
        wiring.on_stop(Arc::new(move || {
            let medium = lock(&unit).medium();
            if let Some(medium) = medium {
                medium.drain();
            }
        }));
        Ok(())
    }

    fn reset(&mut self, _: ResetKind) {
        self.unit().reset();
    }

    fn unplug(&mut self) {
        if let Some(bus) = self.bus.take() {
            bus.unplug(self.address);
        }
    }

    fn save(&self) -> Section {
        self.unit().save()
    }

    fn restore(&mut self, section: &Section) -> Result<(), StateError> {
        self.unit().restore(section)
    }

    fn inspect(&self) -> Vec<(&'static str, u64)> {
        vec![
            ("channel", self.address.channel.into()),
            ("scsi-id", self.address.target.into()),
            ("lun", self.address.lun.into()),
        ]
    }
}

impl Kept for crate::disk::Disk {
    fn save(&self) -> Section {
        crate::disk::Disk::save(self)
    }

    fn restore(&mut self, section: &Section) -> Result<(), StateError> {
        crate::disk::Disk::restore(self, section)
    }

    fn fixed(&self) -> Option<SharedBlock> {
        self.medium()
    }
}

impl Kept for crate::Cd {
    fn save(&self) -> Section {
        self.save_to(Section::new("scsi-cd", 1))
    }

    fn restore(&mut self, section: &Section) -> Result<(), StateError> {
        section.expect("scsi-cd", 1)?;
        crate::Cd::restore(self, section)
    }

    fn fixed(&self) -> Option<SharedBlock> {
        None
    }
}
