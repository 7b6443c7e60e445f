//! Doorbells: registers whose only meaning is "look".
//!
//! Once a loop serves them, a write to one sets an event before any lock is taken and is done; the
//! loop then calls [`Device::poke`](crate::Device::poke). An accelerator may let the kernel set the
//! event ([`IoRegion::doorbells`](hw_memory::IoRegion::doorbells)). Until then such writes reach the
//! device like all others, which must therefore understand them; so they do where the device is as quick
//! as an event would be ([`Ringing::AtOnce`]), unless the user has a thread of its own serve them.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use hw_memory::{Access, Doorbell, RegionId, RungBell};
use runtime::{EventFd, Handle, Interest, Watch};

/// What a device does when it hears a bell.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Ringing {
    /// It hands requests on and waits for nothing: whoever rings may as well be the one.
    AtOnce,
    /// It may take its time, so a vCPU leaves that to a loop.
    Later,
}

/// Registers that set one event.
pub(crate) struct Bell {
    places: Vec<Doorbell>,
    ringing: Ringing,
    /// Passed on to the device.
    token: u64,
    event: OnceLock<EventFd>,
    /// Held from taking the event until the device has acted on it.
    turn: Mutex<()>,
}

impl Bell {
    pub(crate) fn new(places: Vec<Doorbell>, ringing: Ringing, token: u64) -> Self {
        Bell {
            places,
            ringing,
            token,
            event: OnceLock::new(),
            turn: Mutex::default(),
        }
    }

    /// Has the device act if the bell rang. When this returns, nothing rung before is left.
    fn attend(&self, poke: &(dyn Fn(u64) + Send + Sync)) {
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        if self.event.get().is_some_and(EventFd::take) {
            poke(self.token);
        }
    }
}

/// All bells of one device. Set once, when it is realized; looked at without a lock.
#[derive(Clone, Default)]
pub(crate) struct Bells {
    list: Arc<OnceLock<Vec<Arc<Bell>>>>,
    /// A thread was started to hear them.
    has_thread: Arc<AtomicBool>,
}

impl Bells {
    pub(crate) fn set(&self, bells: Vec<Bell>) {
        if !bells.is_empty() {
            // A device is realized once.
            let _ = self.list.set(bells.into_iter().map(Arc::new).collect());
        }
    }

    fn all(&self) -> &[Arc<Bell>] {
        self.list.get().map_or(&[], Vec::as_slice)
    }

    /// A thread hears them that is there for nothing else.
    pub(crate) fn set_has_thread(&self) {
        self.has_thread.store(true, Ordering::Relaxed);
    }

    /// Rings the bell that this write is for; false if there is none, or if the device is to take it.
    pub(crate) fn ring(&self, access: &Access, value: u64) -> bool {
        for bell in self.all() {
            let is_for_a_loop =
                bell.ringing == Ringing::Later || self.has_thread.load(Ordering::Relaxed);
            if is_for_a_loop
                && let Some(event) = bell.event.get()
                && bell.places.iter().any(|place| place.fits(access, value))
            {
                event.set();
                return true;
            }
        }
        false
    }

    /// The bells of a region that are served, with their events.
    pub(crate) fn served(&self, region: RegionId) -> Vec<RungBell> {
        let mut list = Vec::new();
        for bell in self.all() {
            let Some(event) = bell.event.get() else {
                continue;
            };
            let places = bell.places.iter().filter(|place| place.region == region);
            list.extend(places.map(|place| RungBell {
                place: *place,
                event: event.fd().clone(),
            }));
        }
        list
    }

    /// Has `server` call `poke` with the token of each bell that rang, until the watches are dropped.
    /// Another loop may have done so before.
    pub(crate) fn serve(
        &self,
        server: &Handle,
        poke: &Arc<dyn Fn(u64) + Send + Sync>,
    ) -> Vec<Watch> {
        let mut watches = Vec::new();
        for bell in self.all() {
            if bell.event.get().is_none() {
                match EventFd::new() {
                    Ok(event) => {
                        let _ = bell.event.set(event);
                    }
                    // Writes go on reaching the device.
                    Err(error) => log::info!("no event for a doorbell: {error}"),
                }
            }
            let Some(event) = bell.event.get() else {
                continue;
            };
            let (heard, poke) = (bell.clone(), poke.clone());
            watches.push(server.watch(event.fd().clone(), Interest::READ, move |_| {
                heard.attend(poke.as_ref());
            }));
        }
        watches
    }

    /// Has the device act on each bell that rang.
    pub(crate) fn attend(&self, poke: &(dyn Fn(u64) + Send + Sync)) {
        self.all().iter().for_each(|bell| bell.attend(poke));
    }
}
