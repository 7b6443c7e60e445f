//! What a board wires to each CPU: interrupt controller, timers, firmware calls.

use std::sync::{Arc, OnceLock};

use accel_core::{Pending, reason};
use device_intc::{Gic, GicVersion};
use device_timer::{GenericTimer, GenericTimers};
use hw_core::IrqLine;
use target_arm::{Answer, Conduit, GicAccess, Port, Start, Timer};

use crate::power::Psci;

/// How the GIC reaches a CPU: connected once the CPU is made.
#[derive(Default)]
pub(crate) struct Ear(OnceLock<Arc<Pending>>);

impl Ear {
    pub(crate) fn connect(&self, pending: Arc<Pending>) {
        let _ = self.0.set(pending);
    }

    pub(crate) fn interrupt(&self) {
        if let Some(pending) = self.0.get() {
            pending.raise(reason::INTR);
        }
    }
}

/// One CPU's wires.
pub(crate) struct VirtPort {
    pub(crate) index: u32,
    pub(crate) gic: Arc<Gic>,
    pub(crate) timers: Arc<GenericTimers>,
    pub(crate) psci: Arc<Psci>,
    /// How firmware is called.
    pub(crate) conduit: Conduit,
    pub(crate) pmu: IrqLine,
}

impl VirtPort {
    fn cpu(&self) -> usize {
        usize::try_from(self.index).unwrap_or(usize::MAX)
    }
}

fn kind(timer: Timer) -> GenericTimer {
    match timer {
        Timer::Physical => GenericTimer::Physical,
        Timer::Virtual => GenericTimer::Virtual,
        Timer::HypPhysical => GenericTimer::HypPhysical,
        Timer::HypVirtual => GenericTimer::HypVirtual,
        Timer::SecurePhysical => GenericTimer::SecurePhysical,
    }
}

impl Port for VirtPort {
    fn irq(&mut self) -> bool {
        self.gic.irq(self.cpu())
    }

    fn fiq(&mut self) -> bool {
        self.gic.fiq(self.cpu())
    }

    fn has_gic_registers(&self) -> bool {
        self.gic.version() == GicVersion::V3
    }

    fn gic_read(&mut self, access: GicAccess) -> Option<u64> {
        match self.gic.version() {
            GicVersion::V2 => None,
            GicVersion::V3 => self.gic.read_system(self.cpu(), access.reg.0),
        }
    }

    fn gic_write(&mut self, access: GicAccess, value: u64) -> Option<()> {
        match self.gic.version() {
            GicVersion::V2 => None,
            GicVersion::V3 => self.gic.write_system(self.cpu(), access.reg.0, value),
        }
    }

    fn timer_control(&mut self, timer: Timer) -> u64 {
        self.timers.control(self.index, kind(timer))
    }

    fn set_timer_control(&mut self, timer: Timer, value: u64) {
        self.timers.set_control(self.index, kind(timer), value);
    }

    fn timer_compare(&mut self, timer: Timer) -> u64 {
        self.timers.compare(self.index, kind(timer))
    }

    fn set_timer_compare(&mut self, timer: Timer, value: u64) {
        self.timers.set_compare(self.index, kind(timer), value);
    }

    fn set_counter_offset(&mut self, offset: u64) {
        self.timers.set_offset(self.index, offset);
    }

    fn set_pmu_interrupt(&mut self, level: bool) {
        self.pmu.set(level);
    }

    fn call(&mut self, conduit: Conduit, x: [u64; 8]) -> Answer {
        if conduit != self.conduit {
            return Answer::NotServed;
        }
        self.psci.call(self.cpu(), x)
    }

    fn start(&mut self) -> Option<Start> {
        self.psci.take_start(self.cpu())
    }
}
