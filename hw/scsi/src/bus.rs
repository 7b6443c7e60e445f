//! The bus: which logical units there are, and what the host adapter is told of them.

use std::any::Any;
use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use backend_block::SharedBlock;
use hw_core::{BusKind, ChildBus, DeviceError, HotPlug};

use crate::{Cdb, Job, Sense, SharedUnit, cut, op};

type Poke = Arc<dyn Fn(u64) + Send + Sync>;

/// Where a logical unit is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub struct Address {
    /// Channel of the adapter.
    pub channel: u16,
    /// Target, `scsi-id=`.
    pub target: u16,
    /// Logical unit.
    pub lun: u16,
}

/// The last address of each kind that an adapter can speak to.
pub type BusLimits = Address;

/// What happened on the bus.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum What {
    /// A unit was plugged in.
    Plugged,
    /// A unit was taken out.
    Unplugged,
    /// Parameters of a unit are others, as this sense says.
    Changed(Sense),
}

/// Something the host adapter may tell its driver.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Notice {
    /// Which unit.
    pub address: Address,
    /// What happened to it.
    pub what: What,
}

/// Notices that are kept until the adapter takes them.
const NOTICES: usize = 256;

struct Shared {
    limits: BusLimits,
    units: Mutex<BTreeMap<Address, SharedUnit>>,
    notices: Mutex<Vec<Notice>>,
    poke: OnceLock<(Poke, u64)>,
}

/// The bus of a host adapter. Clones are the same bus; boards hand it to units as their bus.
#[derive(Clone)]
pub struct ScsiBus {
    shared: Arc<Shared>,
}

fn lock<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl ScsiBus {
    /// An empty bus with room for these.
    pub fn new(limits: BusLimits) -> Self {
        ScsiBus {
            shared: Arc::new(Shared {
                limits,
                units: Mutex::default(),
                notices: Mutex::default(),
                poke: OnceLock::new(),
            }),
        }
    }

    /// Whom notices poke, with which token.
    pub fn connect(&self, poke: Poke, token: u64) {
        let _ = self.shared.poke.set((poke, token));
    }

    fn units(&self) -> MutexGuard<'_, BTreeMap<Address, SharedUnit>> {
        lock(&self.shared.units)
    }

    /// The logical unit at an address.
    pub fn unit(&self, address: Address) -> Option<SharedUnit> {
        self.units().get(&address).cloned()
    }

    /// The logical units of a target.
    fn luns(&self, channel: u16, target: u16) -> Vec<u16> {
        let first = Address {
            channel,
            target,
            lun: 0,
        };
        let last = Address {
            lun: u16::MAX,
            ..first
        };
        let units = self.units();
        let found = units.range((Bound::Included(first), Bound::Included(last)));
        found.map(|(address, _)| address.lun).collect()
    }

    /// Whether there is such a target.
    pub fn has_target(&self, channel: u16, target: u16) -> bool {
        !self.luns(channel, target).is_empty()
    }

    /// The medium of a logical unit.
    pub fn medium(&self, address: Address) -> Option<SharedBlock> {
        let unit = self.unit(address)?;
        let unit = lock(&unit);
        unit.medium()
    }

    /// Hands a command to a target that there is.
    pub fn command(&self, address: Address, cdb: Cdb<'_>) -> Result<Job, Sense> {
        if cdb.code() == op::REPORT_LUNS {
            return self.report_luns(address, cdb);
        }
        if let Some(unit) = self.unit(address) {
            return lock(&unit).command(cdb);
        }
        // A logical unit that is not there (SPC-4, 6.4.2, 6.35).
        match cdb.code() {
            op::INQUIRY if cdb.byte(1) & 1 == 0 => {
                let mut bytes = vec![0x7f, 0, 5, 2, 31];
                bytes.resize(36, 0);
                Ok(cut(bytes, cdb.number(3, 2)))
            }
            op::REQUEST_SENSE => {
                let sense = match cdb.byte(1) & 1 {
                    0 => Sense::NO_SUCH_UNIT.fixed(),
                    _ => Sense::NO_SUCH_UNIT.descriptors(),
                };
                Ok(cut(sense, cdb.number(4, 1)))
            }
            _ => Err(Sense::NO_SUCH_UNIT),
        }
    }

    /// Hands a command's parameters to the logical unit that asked for them.
    pub fn parameters(&self, address: Address, cdb: Cdb<'_>, data: &[u8]) -> Result<Job, Sense> {
        match self.unit(address) {
            Some(unit) => lock(&unit).parameters(cdb, data),
            None => Err(Sense::NO_SUCH_UNIT),
        }
    }

    /// REPORT LUNS (SPC-4, 6.33).
    fn report_luns(&self, address: Address, cdb: Cdb<'_>) -> Result<Job, Sense> {
        const ALL_BUT_WELL_KNOWN: u8 = 0;
        const WELL_KNOWN: u8 = 1;
        const ALL: u8 = 2;
        let room = cdb.number(6, 4);
        if room < 16 {
            return Err(Sense::BAD_FIELD);
        }
        let luns = match cdb.byte(2) {
            WELL_KNOWN => Vec::new(),
            ALL_BUT_WELL_KNOWN | ALL => self.luns(address.channel, address.target),
            _ => return Err(Sense::BAD_FIELD),
        };
        let mut list = Vec::new();
        // Every target answers for its first unit, there or not.
        if luns.first() != Some(&0) && cdb.byte(2) != WELL_KNOWN {
            list.extend([0; 8]);
        }
        for lun in luns {
            // Single-level: up to 255 as a peripheral, above in the flat space (SAM-5, 4.7.7).
            let lun = if lun < 256 {
                lun
            } else {
                0x4000 | lun & 0x3fff
            };
            list.extend(lun.to_be_bytes());
            list.extend([0; 6]);
        }
        let len = u32::try_from(list.len()).unwrap_or(u32::MAX);
        let mut bytes = len.to_be_bytes().to_vec();
        bytes.extend([0; 4]);
        bytes.extend(list);
        Ok(cut(bytes, room))
    }

    /// Resets what a range of addresses holds, and returns how many units that is.
    pub fn reset(&self, range: impl std::ops::RangeBounds<Address>) -> usize {
        let units: Vec<_> = self.units().range(range).map(|(_, u)| u.clone()).collect();
        units.iter().for_each(|unit| lock(unit).reset());
        units.len()
    }

    /// The first free place: as far as they are given, of this channel, target and unit.
    fn first_free(&self, channel: u16, target: Option<u16>, lun: Option<u16>) -> Option<Address> {
        let limits = self.shared.limits;
        let units = self.units();
        let targets = match target {
            Some(target) => target..=target,
            None => 0..=limits.target,
        };
        // Without a target, each gets one of its own.
        let luns = match (lun, target) {
            (Some(lun), _) => lun..=lun,
            (None, Some(_)) => 0..=limits.lun,
            (None, None) => 0..=0,
        };
        let mut all = targets.flat_map(|target| {
            luns.clone().map(move |lun| Address {
                channel,
                target,
                lun,
            })
        });
        all.find(|address| !units.contains_key(address))
    }

    /// Plugs a unit in, where it is told or in the first free place. Returns where it is.
    pub fn plug(
        &self,
        channel: u16,
        target: Option<u16>,
        lun: Option<u16>,
        unit: SharedUnit,
    ) -> Result<Address, DeviceError> {
        let limits = self.shared.limits;
        let within = [
            ("channel", Some(channel), limits.channel),
            ("scsi-id", target, limits.target),
            ("lun", lun, limits.lun),
        ];
        for (name, given, most) in within {
            if let Some(given) = given.filter(|given| *given > most) {
                return Err(DeviceError::Other(format!(
                    "this SCSI bus has no {name}={given}: the last is {most}"
                )));
            }
        }
        let Some(address) = self.first_free(channel, target, lun) else {
            return Err(DeviceError::Other(match (target, lun) {
                (Some(target), Some(lun)) => format!(
                    "scsi-id={target},lun={lun} is another device's already; choose another"
                ),
                _ => "the SCSI bus is full; add another controller".into(),
            }));
        };
        self.units().insert(address, unit);
        self.note(address, What::Plugged);
        Ok(address)
    }

    /// Takes a unit out.
    pub fn unplug(&self, address: Address) {
        if self.units().remove(&address).is_some() {
            self.note(address, What::Unplugged);
        }
    }

    fn note(&self, address: Address, what: What) {
        let mut notices = lock(&self.shared.notices);
        if notices.len() < NOTICES {
            notices.push(Notice { address, what });
        }
    }

    /// Tells the adapter of something. It locks the adapter: not to be called from within a device.
    pub fn notice(&self, address: Address, what: What) {
        self.note(address, what);
        self.changed();
    }

    /// [`notice`](Self::notice) for who may outlive the bus.
    pub fn notifier(&self) -> impl Fn(Address, What) + Send + Sync + 'static {
        let weak = Arc::downgrade(&self.shared);
        move |address, what| {
            if let Some(shared) = weak.upgrade() {
                ScsiBus { shared }.notice(address, what);
            }
        }
    }

    /// What there is to tell since the last call.
    pub fn take_notices(&self) -> Vec<Notice> {
        std::mem::take(&mut *lock(&self.shared.notices))
    }

    /// The host is told with its next command that other units than before are there.
    pub fn units_changed(&self, channel: u16, target: u16) {
        for lun in self.luns(channel, target) {
            let address = Address {
                channel,
                target,
                lun,
            };
            if let Some(unit) = self.unit(address) {
                lock(&unit).attention(Sense::UNITS_CHANGED);
            }
        }
    }

    /// As boards know it.
    pub fn child(&self) -> ChildBus {
        let bus: Arc<dyn Any + Send + Sync> = Arc::new(self.clone());
        ChildBus {
            kind: BusKind::Scsi,
            hot_plug: Some(Arc::new(self.clone())),
            bus,
            free: self
                .first_free(0, None, None)
                .map(|free| free.target.into()),
        }
    }
}

impl HotPlug for ScsiBus {
    fn changed(&self) {
        if let Some((poke, token)) = self.shared.poke.get() {
            poke(*token);
        }
    }
}
