//! What a board wires to each CPU: interrupt controller, timers, firmware calls.

use std::sync::{Arc, OnceLock};

use accel_core::{Pending, reason};
use backend_rng::{Builtin, Randomness};
use device_intc::{Gic, GicSystemAccess, GicVersion, GicWorld, SystemFault};
use device_timer::{GenericTimer, GenericTimers};
use hw_core::IrqLine;
use target_arm::{Answer, Conduit, GicAccess, GicFault, Port, Semihost, Start, Timer, World};

use crate::power::Psci;
use crate::semihosting::HostLink;

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
    /// How the firmware that we are is called, if we are.
    pub(crate) conduit: Option<Conduit>,
    pub(crate) pmu: IrqLine,
    /// The host, if software may ask it.
    pub(crate) host: Option<HostLink>,
}

impl VirtPort {
    fn cpu(&self) -> usize {
        usize::try_from(self.index).unwrap_or(usize::MAX)
    }
}

fn system_access(access: GicAccess) -> GicSystemAccess {
    GicSystemAccess {
        encoding: access.reg.0,
        el: access.el,
        // FMO and IMO, in this order.
        groups: (access.hcr >> 3 & 3) as u8,
        // FIQ and IRQ, in this order.
        monitored: (access.scr >> 2 & 1 | access.scr & 2) as u8,
        secure: access.scr & 1 == 0,
    }
}

fn system_fault(fault: SystemFault) -> GicFault {
    match fault {
        SystemFault::Undefined => GicFault::Undefined,
        SystemFault::Trap => GicFault::Trap(2),
        SystemFault::Monitor => GicFault::Trap(3),
    }
}

fn gic_world(world: World) -> GicWorld {
    match world {
        World::NonSecure => GicWorld::NonSecure,
        World::Secure => GicWorld::Secure,
        World::Monitor => GicWorld::Monitor,
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
    fn irq(&mut self, world: World) -> bool {
        self.gic.irq(self.cpu(), gic_world(world))
    }

    fn fiq(&mut self, world: World) -> bool {
        self.gic.fiq(self.cpu(), gic_world(world))
    }

    fn has_gic_registers(&self) -> bool {
        self.gic.version() == GicVersion::V3
    }

    fn virtual_irq(&mut self) -> bool {
        self.gic.virtual_irq(self.cpu())
    }

    fn virtual_fiq(&mut self) -> bool {
        self.gic.virtual_fiq(self.cpu())
    }

    fn gic_read(&mut self, access: GicAccess) -> Result<u64, GicFault> {
        match self.gic.version() {
            GicVersion::V2 => Err(GicFault::Undefined),
            GicVersion::V3 => {
                let value = self.gic.read_system(self.cpu(), system_access(access));
                value.map_err(system_fault)
            }
        }
    }

    fn gic_write(&mut self, access: GicAccess, value: u64) -> Result<(), GicFault> {
        match self.gic.version() {
            GicVersion::V2 => Err(GicFault::Undefined),
            GicVersion::V3 => {
                let access = system_access(access);
                let done = self.gic.write_system(self.cpu(), access, value);
                done.map_err(system_fault)
            }
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

    fn random(&mut self) -> Option<u64> {
        let mut bytes = [0; 8];
        let filled = Builtin.fill(&mut bytes);
        (filled == bytes.len()).then(|| u64::from_ne_bytes(bytes))
    }

    fn set_pmu_interrupt(&mut self, level: bool) {
        self.pmu.set(level);
    }

    fn has_semihosting(&self, is_user: bool) -> bool {
        let host = self.host.as_ref();
        host.is_some_and(|host| !is_user || host.for_users)
    }

    fn semihost(&mut self) -> Option<&mut dyn Semihost> {
        let host = self.host.as_mut();
        host.map(|host| host as &mut dyn Semihost)
    }

    fn call(&mut self, conduit: Conduit, x: [u64; 8]) -> Answer {
        if self.conduit != Some(conduit) {
            return Answer::NotServed;
        }
        self.psci.call(self.cpu(), x)
    }

    fn start(&mut self) -> Option<Start> {
        self.psci.take_start(self.cpu())
    }
}
