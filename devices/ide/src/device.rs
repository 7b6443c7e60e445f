//! The drive as a device of its own: it plugs itself into its cable; the controller does the rest.

use std::sync::Arc;

use hw_core::{Device, DeviceError, ResetKind, Section, StateError, Wiring};

use crate::bus::IdeBus;
use crate::drive::{Drive, Kind, SharedDrive};

/// A drive to be plugged in.
pub(crate) struct IdeDevice {
    drive: SharedDrive,
    unit: Option<u8>,
    name: &'static str,
}

impl IdeDevice {
    pub(crate) fn new(name: &'static str, drive: Drive, unit: Option<u8>) -> Self {
        IdeDevice {
            drive: SharedDrive::new(drive),
            unit,
            name,
        }
    }
}

impl Device for IdeDevice {
    fn realize(&mut self, wiring: &mut dyn Wiring) -> Result<(), DeviceError> {
        let bus = wiring.bus().and_then(|bus| bus.downcast_ref::<IdeBus>());
        let bus = bus.cloned().ok_or_else(|| {
            DeviceError::Other(format!("'{}' needs an IDE or AHCI controller", self.name))
        })?;
        {
            let mut drive = self.drive.lock();
            if let Some((poke, token)) = bus.poke() {
                drive.flights.connect(poke, token);
            }
            match &mut drive.kind {
                Kind::Disk(disk) => disk.set_serial(bus.is_serial()),
                Kind::Cd(cd) => cd.set_serial(bus.is_serial()),
            }
        }
        self.unit = Some(bus.plug(self.unit, self.drive.clone())?);
        let drive = self.drive.clone();
        wiring.on_stop(Arc::new(move || {
            let medium = drive.lock().medium();
            if let Some(medium) = medium {
                medium.drain();
            }
        }));
        Ok(())
    }

    fn reset(&mut self, _: ResetKind) {
        self.drive.lock().power_on();
    }

    fn save(&self) -> Section {
        self.drive.lock().save()
    }

    fn restore(&mut self, section: &Section) -> Result<(), StateError> {
        self.drive.lock().restore(section)
    }

    fn inspect(&self) -> Vec<(&'static str, u64)> {
        let drive = self.drive.lock();
        vec![
            ("unit", self.unit.unwrap_or(0).into()),
            ("status", drive.registers.status.into()),
        ]
    }
}
