//! A cable: which drives are on it.

use std::any::Any;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use hw_core::{BusKind, ChildBus, DeviceError};

use crate::drive::SharedDrive;

type Poke = Arc<dyn Fn(u64) + Send + Sync>;

struct Shared {
    /// Drives that there is room for.
    units: u8,
    is_serial: bool,
    drives: Mutex<Vec<(u8, SharedDrive)>>,
    poke: OnceLock<(Poke, u64)>,
}

/// A cable of a controller. Clones are the same cable; boards hand it to drives as their bus.
#[derive(Clone)]
pub struct IdeBus {
    shared: Arc<Shared>,
}

impl IdeBus {
    /// A parallel cable for two drives.
    pub(crate) fn parallel() -> Self {
        Self::new(2, false)
    }

    /// A serial cable.
    pub(crate) fn serial() -> Self {
        Self::new(1, true)
    }

    fn new(units: u8, is_serial: bool) -> Self {
        IdeBus {
            shared: Arc::new(Shared {
                units,
                is_serial,
                drives: Mutex::default(),
                poke: OnceLock::new(),
            }),
        }
    }

    fn drives(&self) -> MutexGuard<'_, Vec<(u8, SharedDrive)>> {
        self.shared
            .drives
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Whom drives poke, with which token.
    pub(crate) fn connect(&self, poke: Poke, token: u64) {
        let _ = self.shared.poke.set((poke, token));
    }

    /// What drives poke.
    pub(crate) fn poke(&self) -> Option<(Poke, u64)> {
        self.shared.poke.get().cloned()
    }

    /// Whether it is a serial one.
    pub(crate) fn is_serial(&self) -> bool {
        self.shared.is_serial
    }

    /// The drive with this number.
    pub(crate) fn drive(&self, unit: u8) -> Option<SharedDrive> {
        let drives = self.drives();
        let found = drives.iter().find(|(number, _)| *number == unit);
        found.map(|(_, drive)| drive.clone())
    }

    fn first_free(&self, drives: &[(u8, SharedDrive)]) -> Option<u8> {
        let is_free = |unit: &u8| !drives.iter().any(|(taken, _)| taken == unit);
        (0..self.shared.units).find(is_free)
    }

    /// Plugs a drive in, as the first free one if it has no number. Returns its number.
    pub(crate) fn plug(&self, unit: Option<u8>, drive: SharedDrive) -> Result<u8, DeviceError> {
        let mut drives = self.drives();
        let units = self.shared.units;
        let is_free = |unit: &u8| !drives.iter().any(|(taken, _)| taken == unit);
        let free = match unit {
            Some(unit) => Some(unit).filter(|unit| *unit < units && is_free(unit)),
            None => self.first_free(&drives),
        };
        let Some(free) = free else {
            return Err(DeviceError::Other(match unit {
                Some(unit) if unit >= units => {
                    format!("this IDE bus has no unit={unit}: it takes {units} drives, from 0")
                }
                _ => "this place of the IDE bus is taken; choose another bus= or unit=".into(),
            }));
        };
        drives.push((free, drive));
        Ok(free)
    }

    /// As boards know it.
    pub(crate) fn child(&self) -> ChildBus {
        let bus: Arc<dyn Any + Send + Sync> = Arc::new(self.clone());
        ChildBus {
            kind: BusKind::Ide,
            hot_plug: None,
            bus,
            free: self.first_free(&self.drives()).map(u32::from),
        }
    }
}
