//! Running one instruction while all other CPUs are parked at a boundary: for what the host has no
//! atomic instruction for (split locks, 16-byte exchanges on some hosts).

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use crate::pending::{Pending, reason};

#[derive(Default)]
struct State {
    /// CPUs between `enter` and `leave`.
    running: usize,
    /// Someone runs alone or waits to.
    claimed: bool,
}

/// Shared by all CPUs of a machine.
#[derive(Default)]
pub struct Exclusive {
    state: Mutex<State>,
    changed: Condvar,
    cpus: Mutex<Vec<Arc<Pending>>>,
}

impl Exclusive {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes a CPU known, before it first runs.
    pub fn register(&self, cpu: Arc<Pending>) {
        self.cpus
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(cpu);
    }

    /// The calling CPU starts executing guest code; waits while another runs alone.
    pub fn enter(&self) {
        let mut state = self.lock();
        while state.claimed {
            state = self
                .changed
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
        }
        state.running += 1;
    }

    /// The calling CPU is at a boundary and touches no guest memory until it enters again.
    pub fn leave(&self) {
        let mut state = self.lock();
        state.running -= 1;
        // Nobody waits for less.
        if state.claimed && state.running == 0 {
            self.changed.notify_all();
        }
    }

    /// Parks all CPUs. The caller must have left. Ends when the guard is dropped.
    pub fn alone(&self) -> ExclusiveGuard<'_> {
        let mut state = self.lock();
        while state.claimed {
            state = self
                .changed
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
        }
        state.claimed = true;
        for cpu in self
            .cpus
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .iter()
        {
            cpu.raise(reason::PARK);
        }
        while state.running != 0 {
            state = self
                .changed
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
        }
        ExclusiveGuard { of: self }
    }
}

/// While this lives, no other CPU executes guest code.
pub struct ExclusiveGuard<'a> {
    of: &'a Exclusive,
}

impl Drop for ExclusiveGuard<'_> {
    fn drop(&mut self) {
        for cpu in self
            .of
            .cpus
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .iter()
        {
            cpu.clear(reason::PARK);
        }
        self.of.lock().claimed = false;
        self.of.changed.notify_all();
    }
}
