//! What an Arm board needs of an accelerator.

use std::sync::Arc;

use accel_core::Vcpu;
use device_intc::{Gic, GicVersion, ItsModel};
use device_timer::GenericTimers;
use hw_core::{Clock, Fabric, IrqSink, MsiSink};
use hw_intc::GicPlaces;
use target_arm::{Port, Setup};

use crate::power::Psci;

/// The board's models of what an accelerator may have itself: they only carry its saved state then.
#[derive(Clone)]
pub struct Controllers {
    /// Interrupt controller.
    pub gic: Arc<Gic>,
    /// Its translation service.
    pub its: Option<ItsModel>,
    /// Timers.
    pub timers: Arc<GenericTimers>,
    pub(crate) psci: Arc<Psci>,
}

impl Controllers {
    /// Notes that a CPU was turned on or off.
    pub fn set_power(&self, cpu: usize, on: bool) {
        self.psci.set_power(cpu, on);
    }
}

/// What one CPU is wired to.
pub struct CpuWires {
    /// Its number.
    pub index: u32,
    /// Affinity, and where it begins.
    pub setup: Setup,
    /// Whether it has EL2.
    pub has_el2: bool,
    /// Whether it has EL3.
    pub has_el3: bool,
    /// Interrupt controller, timers, firmware calls.
    pub port: Box<dyn Port>,
    /// Private interrupt of its performance monitors, by INTID.
    pub pmu_interrupt: u32,
    /// Memory of the machine.
    pub fabric: Fabric,
    /// Time.
    pub clock: Clock,
    /// What the accelerator may have itself.
    pub controllers: Controllers,
}

/// What reaches an accelerator's interrupt controller.
pub struct GicWires {
    /// Shared interrupts, by INTID.
    pub lines: Arc<dyn IrqSink>,
    /// Messages for the translation service.
    pub messages: Arc<dyn MsiSink>,
}

/// What an accelerator has itself of a machine: interrupt controller, timers and firmware's PSCI.
pub trait Kernel: Send + Sync {
    /// Whether it has an interrupt controller of a version.
    fn has_gic(&self, version: GicVersion) -> bool;

    /// Whether it has a translation service.
    fn has_its(&self) -> bool;

    /// Makes the interrupt controller: once, before any CPU.
    ///
    /// # Errors
    /// Why it cannot be made.
    fn make_gic(&self, places: &GicPlaces) -> Result<GicWires, String>;

    /// Called once, when the memory map stands, before any CPU is made.
    ///
    /// # Errors
    /// Why the guest cannot have its memory.
    fn attach(&self, fabric: &Fabric) -> Result<(), String>;

    /// Called once, when all CPUs are made.
    ///
    /// # Errors
    /// Why the machine cannot begin.
    fn complete(&self) -> Result<(), String>;
}

/// Makes the CPUs of an Arm board. The CPU model is the accelerator's own business: it was told when
/// it was made.
pub trait Accelerator: Send + Sync {
    /// Name for thread names: `TCG` or `KVM`.
    fn name(&self) -> &'static str;

    /// Ticks of the generic timers' counter in a second.
    fn counter_hz(&self) -> u64;

    /// Width of the CPUs' physical addresses.
    fn physical_bits(&self) -> u32;

    /// Whether the CPUs have performance monitors.
    fn has_pmu(&self) -> bool;

    /// The device tree's name of the CPUs.
    fn compatible(&self) -> &'static str;

    /// What it has itself; `None` if the board's models serve.
    fn kernel(&self) -> Option<&dyn Kernel> {
        None
    }

    /// Makes one CPU.
    fn cpu(&self, wires: CpuWires) -> Result<Box<dyn Vcpu>, String>;
}
