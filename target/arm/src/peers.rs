//! What the CPUs of a machine do to each other: broadcast TLB maintenance (DDI 0487, D8.17), and SEV.
//!
//! A CPU that broadcasts puts the operation into each other's list and raises `reason::WORK` there. Its
//! next DSB waits, by being executed again, until all that were running have taken theirs. A CPU that
//! waits for an interrupt takes its list before it executes anything, so nobody waits for it.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use accel_core::{Pending, reason};

/// Operations listed for a CPU before they become one: forget everything.
const MOST: usize = 64;

/// A TLB maintenance operation, as the receiver carries it out.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Flush {
    /// Every translation.
    All,
    /// One address space, by its key.
    Space(u64),
    /// All pages at an address.
    Page(u64),
    /// As many pages from an address on.
    Pages(u64, u16),
}

/// One CPU, as the others see it.
#[derive(Default)]
pub(crate) struct Peer {
    list: Mutex<Vec<Flush>>,
    /// Executes nothing, and will look at the list before it does.
    idle: AtomicBool,
    /// The event register (WFE).
    event: AtomicBool,
    /// Operations listed and operations carried out.
    listed: AtomicU64,
    done: AtomicU64,
    pending: Mutex<Option<Arc<Pending>>>,
}

impl Peer {
    fn post(&self, flush: Flush) {
        let mut list = self.list.lock().unwrap_or_else(PoisonError::into_inner);
        if list.len() >= MOST {
            list.clear();
            list.push(Flush::All);
        } else {
            list.push(flush);
        }
        self.listed.fetch_add(1, Ordering::SeqCst);
        drop(list);
        if !self.idle.load(Ordering::SeqCst) {
            self.raise();
        }
    }

    fn raise(&self) {
        let pending = self.pending.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(pending) = pending.as_ref() {
            pending.raise(reason::WORK);
        }
    }

    /// What is listed; from here on it counts as done.
    pub(crate) fn take(&self) -> Vec<Flush> {
        let mut list = self.list.lock().unwrap_or_else(PoisonError::into_inner);
        self.done
            .store(self.listed.load(Ordering::SeqCst), Ordering::SeqCst);
        std::mem::take(&mut *list)
    }

    /// Says whether this CPU executes nothing until it calls this again.
    pub(crate) fn set_idle(&self, idle: bool) {
        self.idle.store(idle, Ordering::SeqCst);
    }

    /// Takes the event that ends a WFE.
    pub(crate) fn take_event(&self) -> bool {
        self.event.swap(false, Ordering::SeqCst)
    }

    /// SEVL.
    pub(crate) fn set_event(&self) {
        self.event.store(true, Ordering::SeqCst);
    }

    fn is_settled(&self) -> bool {
        self.idle.load(Ordering::SeqCst)
            || self.done.load(Ordering::SeqCst) == self.listed.load(Ordering::SeqCst)
    }
}

/// The CPUs of a machine.
#[derive(Default)]
pub struct Peers {
    all: Mutex<Vec<Arc<Peer>>>,
}

impl std::fmt::Debug for Peers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Peers")
    }
}

impl Peers {
    fn others(&self, own: &Arc<Peer>) -> Vec<Arc<Peer>> {
        let all = self.all.lock().unwrap_or_else(PoisonError::into_inner);
        let other = |p: &&Arc<Peer>| !Arc::ptr_eq(p, own);
        all.iter().filter(other).cloned().collect()
    }

    /// Makes a CPU known.
    pub(crate) fn join(&self, pending: Arc<Pending>) -> Arc<Peer> {
        let peer = Arc::new(Peer {
            pending: Mutex::new(Some(pending)),
            idle: AtomicBool::new(true),
            ..Peer::default()
        });
        let mut all = self.all.lock().unwrap_or_else(PoisonError::into_inner);
        all.push(peer.clone());
        peer
    }

    /// Whether there is another CPU.
    pub(crate) fn has_others(&self) -> bool {
        let all = self.all.lock().unwrap_or_else(PoisonError::into_inner);
        all.len() > 1
    }

    /// Has all others carry out an operation. Whether there are any.
    pub(crate) fn broadcast(&self, own: &Arc<Peer>, flush: Flush) -> bool {
        let others = self.others(own);
        others.iter().for_each(|p| p.post(flush));
        !others.is_empty()
    }

    /// Whether all others have carried out what was broadcast.
    pub(crate) fn is_settled(&self, own: &Arc<Peer>) -> bool {
        self.others(own).iter().all(|p| p.is_settled())
    }

    /// SEV.
    pub(crate) fn send_event(&self, own: &Arc<Peer>) {
        own.set_event();
        self.others(own).iter().for_each(|p| p.set_event());
    }
}
