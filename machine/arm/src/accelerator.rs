//! What an Arm board needs of an accelerator.

use accel_core::Vcpu;
use hw_core::{Clock, Fabric};
use target_arm::{Port, Setup};

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
    /// Memory of the machine.
    pub fabric: Fabric,
    /// Time.
    pub clock: Clock,
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

    /// Makes one CPU.
    fn cpu(&self, wires: CpuWires) -> Result<Box<dyn Vcpu>, String>;
}
