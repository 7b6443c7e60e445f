//! Which namespaces a controller has.

use std::any::Any;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use hw_core::{BusKind, ChildBus, DeviceError};

use crate::namespace::Namespace;

type Poke = Arc<dyn Fn(u64) + Send + Sync>;

/// NN: the last namespace that there can be.
pub(crate) const NAMESPACES: u32 = 256;

#[derive(Default)]
struct Shared {
    namespaces: Mutex<BTreeMap<u32, Arc<Namespace>>>,
    changed: Mutex<BTreeSet<u32>>,
    poke: OnceLock<(Poke, u64)>,
}

/// The bus of a controller. Clones are the same bus; boards hand it to namespaces as their bus.
#[derive(Clone, Default)]
pub(crate) struct NvmeBus {
    shared: Arc<Shared>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl NvmeBus {
    /// Whom changes poke, with which token.
    pub(crate) fn connect(&self, poke: Poke, token: u64) {
        let _ = self.shared.poke.set((poke, token));
    }

    pub(crate) fn namespace(&self, id: u32) -> Option<Arc<Namespace>> {
        lock(&self.shared.namespaces).get(&id).cloned()
    }

    /// All of them, by their numbers.
    pub(crate) fn namespaces(&self) -> Vec<(u32, Arc<Namespace>)> {
        let namespaces = lock(&self.shared.namespaces);
        namespaces
            .iter()
            .map(|(id, ns)| (*id, ns.clone()))
            .collect()
    }

    /// Plugs a namespace in, as the first free one if it has no number. Returns its number.
    pub(crate) fn plug(
        &self,
        id: Option<u32>,
        namespace: Arc<Namespace>,
    ) -> Result<u32, DeviceError> {
        let mut namespaces = lock(&self.shared.namespaces);
        let free = |id: &u32| !namespaces.contains_key(id);
        let found = match id {
            Some(id) if !(1..=NAMESPACES).contains(&id) => {
                return Err(DeviceError::Other(format!(
                    "nsid={id} is not from 1 to {NAMESPACES}"
                )));
            }
            Some(id) => Some(id).filter(free),
            None => (1..=NAMESPACES).find(free),
        };
        let Some(found) = found else {
            return Err(DeviceError::Other(match id {
                Some(id) => format!("nsid={id} is another namespace's already; choose another"),
                None => "the NVMe controller has no room for another namespace".into(),
            }));
        };
        namespaces.insert(found, namespace);
        Ok(found)
    }

    /// Tells the controller that a namespace is another than before. It locks the controller: not to be
    /// called from within a device.
    pub(crate) fn notice(&self, id: u32) {
        lock(&self.shared.changed).insert(id);
        if let Some((poke, token)) = self.shared.poke.get() {
            poke(*token);
        }
    }

    /// [`notice`](Self::notice) for who may outlive the bus.
    pub(crate) fn notifier(&self) -> impl Fn(u32) + Send + Sync + 'static {
        let weak = Arc::downgrade(&self.shared);
        move |id| {
            if let Some(shared) = weak.upgrade() {
                NvmeBus { shared }.notice(id);
            }
        }
    }

    /// Those that are others since the last call.
    pub(crate) fn take_changed(&self) -> BTreeSet<u32> {
        std::mem::take(&mut *lock(&self.shared.changed))
    }

    /// As boards know it.
    pub(crate) fn child(&self) -> ChildBus {
        let bus: Arc<dyn Any + Send + Sync> = Arc::new(self.clone());
        let namespaces = lock(&self.shared.namespaces);
        ChildBus {
            kind: BusKind::Nvme,
            hot_plug: None,
            bus,
            free: (1..=NAMESPACES).find(|id| !namespaces.contains_key(id)),
        }
    }
}
