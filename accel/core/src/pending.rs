//! How others reach a CPU: one atomic word, and a wake-up.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Condvar, Mutex, OnceLock, PoisonError};
use std::time::Duration;

/// Reasons for a CPU to look up from its work.
pub mod reason {
    /// The interrupt controller has a vector.
    pub const INTR: u32 = 1 << 0;
    /// Non-maskable interrupt.
    pub const NMI: u32 = 1 << 1;
    /// System management interrupt.
    pub const SMI: u32 = 1 << 2;
    /// INIT signal.
    pub const INIT: u32 = 1 << 3;
    /// Start-up message; its vector is in the interrupt controller.
    pub const SIPI: u32 = 1 << 4;
    /// Leave the run loop: the machine stops.
    pub const STOP: u32 = 1 << 5;
    /// The memory map changed.
    pub const FLUSH: u32 = 1 << 6;
    /// Another CPU needs to run alone: park at the next boundary.
    pub const PARK: u32 = 1 << 7;
    /// Work posted by other CPUs waits.
    pub const WORK: u32 = 1 << 8;
    /// Translated code was overwritten: the executor's own business.
    pub const CODE: u32 = 1 << 9;
    /// A watched address was touched: the target knows how.
    pub const DEBUG: u32 = 1 << 10;
}

/// Where a thread that runs CPUs sleeps while none of them has anything to do.
#[derive(Default)]
pub struct Sleeper {
    asleep: AtomicBool,
    lock: Mutex<()>,
    wake: Condvar,
}

impl std::fmt::Debug for Sleeper {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Sleeper({})", self.asleep.load(Ordering::Relaxed))
    }
}

impl Sleeper {
    /// Sleeps until `is_due`, which is asked again after each [`wake`](Self::wake).
    pub fn wait(&self, is_due: impl Fn() -> bool) {
        let mut guard = self.lock.lock().unwrap_or_else(PoisonError::into_inner);
        self.asleep.store(true, Ordering::SeqCst);
        while !is_due() {
            guard = self
                .wake
                .wait(guard)
                .unwrap_or_else(PoisonError::into_inner);
        }
        self.asleep.store(false, Ordering::SeqCst);
    }

    /// As [`wait`](Self::wait), but no longer than this.
    pub fn wait_for(&self, time: Duration, is_due: impl Fn() -> bool) {
        let guard = self.lock.lock().unwrap_or_else(PoisonError::into_inner);
        self.asleep.store(true, Ordering::SeqCst);
        drop(self.wake.wait_timeout_while(guard, time, |()| !is_due()));
        self.asleep.store(false, Ordering::SeqCst);
    }

    /// Something may be due.
    pub fn wake(&self) {
        if self.asleep.load(Ordering::SeqCst) {
            let _guard = self.lock.lock().unwrap_or_else(PoisonError::into_inner);
            self.wake.notify_all();
        }
    }
}

/// A CPU's pending word. Setting a bit never blocks and takes no lock unless the CPU sleeps.
#[derive(Default)]
pub struct Pending {
    word: AtomicU32,
    sleeper: OnceLock<Arc<Sleeper>>,
    kick: OnceLock<Box<dyn Fn() + Send + Sync>>,
}

impl std::fmt::Debug for Pending {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Pending({:#x})", self.get())
    }
}

impl Pending {
    /// Has the CPU sleep together with others. Once, before it first does.
    pub fn sleep_at(&self, sleeper: Arc<Sleeper>) {
        let _ = self.sleeper.set(sleeper);
    }

    fn sleeper(&self) -> &Sleeper {
        self.sleeper.get_or_init(Arc::default)
    }

    /// Sets what drags the CPU out of code that does not look at the word (KVM: a signal). Once.
    pub fn set_kick(&self, kick: impl Fn() + Send + Sync + 'static) {
        let _ = self.kick.set(Box::new(kick));
    }

    /// Sets bits and wakes the CPU.
    pub fn raise(&self, bits: u32) {
        self.word.fetch_or(bits, Ordering::SeqCst);
        self.sleeper().wake();
        if let Some(kick) = self.kick.get() {
            kick();
        }
    }

    /// Clears bits: their reason is gone, or taken care of.
    pub fn clear(&self, bits: u32) {
        self.word.fetch_and(!bits, Ordering::SeqCst);
    }

    /// The word.
    #[inline(always)]
    pub fn get(&self) -> u32 {
        self.word.load(Ordering::Relaxed)
    }

    /// Takes bits out: those that were set.
    pub fn take(&self, bits: u32) -> u32 {
        self.word.fetch_and(!bits, Ordering::SeqCst) & bits
    }

    /// Sleeps until one of `bits` is set. Called by the CPU's own thread.
    pub fn wait(&self, bits: u32) {
        self.sleeper()
            .wait(|| self.word.load(Ordering::SeqCst) & bits != 0);
    }

    /// As [`wait`](Self::wait), but no longer than this.
    pub fn wait_for(&self, bits: u32, time: Duration) {
        self.sleeper()
            .wait_for(time, || self.word.load(Ordering::SeqCst) & bits != 0);
    }
}
