//! A vCPU run by an executor.

use std::sync::Arc;
use std::time::Instant;

use hw_state::{Section, StateError};

use crate::core::Core;
use crate::exclusive::Exclusive;
use crate::logs::{log_unit, logs_units};
use crate::pending::{Pending, Sleeper, reason};
use crate::spin::Spin;
use crate::target::{Executor, Exit, Target};
use crate::vcpu::{Vcpu, VcpuError, VcpuExit};

/// Most instructions between two looks at what the thread may have to do.
const SLICE: i64 = 65_536;

/// What a target offers beside executing: its life cycle and its inspection.
pub trait Guest: Target {
    /// To the state after power-on.
    fn reset(core: &mut Core<Self>);
    /// The saved form.
    fn save(core: &mut Core<Self>) -> Section;
    /// Takes over a saved state, which is untrusted.
    fn restore(core: &mut Core<Self>, section: &Section) -> Result<(), StateError>;
    /// Registers by name, for monitors.
    fn registers(core: &mut Core<Self>) -> Vec<(String, u128)>;
    /// `info registers`.
    fn describe(core: &mut Core<Self>) -> String;
    /// `info tlb`, `info mem` and the like.
    fn report(core: &mut Core<Self>, topic: &str) -> Option<String>;
    /// The physical address behind a virtual one, without side effects.
    fn debug_translate(core: &mut Core<Self>, va: u64) -> Option<u64>;
    /// Whether it waits for an interrupt.
    fn is_halted(core: &Core<Self>) -> bool;
    /// The pending bits that end its wait.
    fn wake_mask(core: &Core<Self>) -> u32;
}

/// A CPU and what executes it.
pub struct EngineVcpu<T: Guest, E: Executor<T>> {
    core: Core<T>,
    executor: E,
    exclusive: Arc<Exclusive>,
    shared: Option<Arc<Sleeper>>,
    spin: Spin,
}

impl<T: Guest, E: Executor<T>> EngineVcpu<T, E> {
    /// A vCPU after power-on.
    pub fn new(mut core: Core<T>, executor: E, exclusive: Arc<Exclusive>) -> Self {
        let pending = core.pending.clone();
        // A new map is in force when each running vCPU has flushed.
        core.mmu
            .map()
            .on_change(move |_| pending.raise(reason::FLUSH));
        exclusive.register(core.pending.clone());
        if logs_units() {
            core.on_unit = Some(log_unit::<T>);
        }
        T::reset(&mut core);
        EngineVcpu {
            core,
            executor,
            exclusive,
            shared: None,
            spin: Spin::default(),
        }
    }

    /// Has it run in turn with all others with the same sleeper, on one thread.
    pub fn share_thread(&mut self, sleeper: Arc<Sleeper>) {
        self.core.pending.sleep_at(sleeper.clone());
        self.shared = Some(sleeper);
    }

    /// The CPU, for tests.
    pub fn core(&mut self) -> &mut Core<T> {
        &mut self.core
    }

    /// What ends the CPU's wait for an interrupt.
    fn wake(&self) -> u32 {
        T::wake_mask(&self.core) | reason::STOP | reason::WORK
    }

    /// What a run's end means for the thread.
    fn outcome(&mut self, exit: Exit) -> VcpuExit {
        match exit {
            // A halted CPU waits at the start of its next run.
            Exit::Budget | Exit::Exclusive | Exit::Halted => VcpuExit::Again,
            Exit::Yield => {
                self.give_way();
                VcpuExit::Again
            }
            Exit::Pending if self.core.pending.get() & reason::STOP != 0 => VcpuExit::Stopped,
            Exit::Pending => VcpuExit::Again,
            Exit::Shutdown => VcpuExit::Shutdown,
            Exit::Internal(why) => VcpuExit::Failed(format!("CPU {}: {why}", self.core.index)),
        }
    }

    /// The guest waits for something, another CPU perhaps.
    fn give_way(&mut self) {
        if self.shared.is_some() {
            return;
        }
        match self.spin.pause(self.core.counters.insns, Instant::now) {
            Some(time) => self.core.pending.wait_for(self.wake(), time),
            None if self.core.sole => {}
            None => std::thread::yield_now(),
        }
    }

    /// Runs one instruction with all other CPUs parked.
    fn run_alone(&mut self) -> Exit {
        let guard = self.exclusive.alone();
        self.core.pending.clear(reason::PARK);
        self.core.alone = true;
        self.core.budget = 1;
        let exit = self.executor.run(&mut self.core);
        self.core.alone = false;
        drop(guard);
        exit
    }
}

impl<T: Guest, E: Executor<T>> Vcpu for EngineVcpu<T, E> {
    fn run(&mut self) -> VcpuExit {
        if T::is_halted(&self.core) {
            match self.shared {
                None => self.core.pending.wait(self.wake()),
                Some(_) if self.is_idle() => return VcpuExit::Again,
                Some(_) => {}
            }
            // Only what ends the halt may let it execute: the bit that woke it may be gone again.
            if let Err(exit) = T::service(&mut self.core) {
                return self.outcome(exit);
            }
        }
        self.core.budget = SLICE;
        self.exclusive.enter();
        let mut exit = self.executor.run(&mut self.core);
        self.exclusive.leave();
        if exit == Exit::Exclusive {
            exit = self.run_alone();
        }
        self.outcome(exit)
    }

    fn pending(&self) -> Arc<Pending> {
        self.core.pending.clone()
    }

    fn shares_thread(&self) -> Option<Arc<Sleeper>> {
        self.shared.clone()
    }

    fn is_idle(&self) -> bool {
        let is_due = self.core.pending.get() & self.wake() != 0;
        self.shared.is_some() && T::is_halted(&self.core) && !is_due
    }

    fn reset(&mut self) {
        self.core.pending.clear(!(reason::STOP | reason::FLUSH));
        T::reset(&mut self.core);
        self.executor.flush();
    }

    fn save(&mut self) -> Result<Section, VcpuError> {
        Ok(T::save(&mut self.core))
    }

    fn restore(&mut self, section: &Section) -> Result<(), VcpuError> {
        T::restore(&mut self.core, section)?;
        self.executor.flush();
        Ok(())
    }

    fn registers(&mut self) -> Vec<(String, u128)> {
        T::registers(&mut self.core)
    }

    fn describe(&mut self) -> String {
        T::describe(&mut self.core)
    }

    fn report(&mut self, topic: &str) -> Option<String> {
        if topic == "jit" {
            Some(self.statistics())
        } else {
            T::report(&mut self.core, topic)
        }
    }

    fn debug_translate(&mut self, va: u64) -> Option<u64> {
        T::debug_translate(&mut self.core, va)
    }

    fn is_halted(&self) -> bool {
        T::is_halted(&self.core)
    }
}

impl<T: Guest, E: Executor<T>> EngineVcpu<T, E> {
    fn statistics(&self) -> String {
        let c = &self.core.counters;
        let mut text = format!(
            "CPU {}: {} instructions executed\n  units translated  {}\n  instructions in them {}\n  \
             units overwritten {}\n  page walks        {}\n  exceptions        {}\n",
            self.core.index, c.insns, c.units, c.unit_insns, c.stale, c.walks, c.exceptions
        );
        for (name, value) in self.executor.report() {
            text.push_str(&format!("  {name:<17} {value}\n"));
        }
        text
    }
}
