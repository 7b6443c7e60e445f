//! What a PC board needs of an accelerator.

use accel_core::Vcpu;
use hw_core::{Clock, Fabric};
use target_x86::Port;

/// Where the interrupt controllers are.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Irqchip {
    /// All in user space: the engine, and KVM with `kernel_irqchip=off`.
    User,
    /// Local APICs in the kernel, the others in user space.
    Split,
    /// All in the kernel.
    Kernel,
}

/// What one CPU is wired to.
pub struct CpuWires {
    /// Its number.
    pub index: u32,
    /// Its APIC id.
    pub apic_id: u32,
    /// Ports, interrupt controller, A20.
    pub port: Box<dyn Port>,
    /// Memory and ports of the machine.
    pub fabric: Fabric,
    /// Time.
    pub clock: Clock,
}

/// Makes the CPUs of a PC. The CPU model is the accelerator's own business: it was told when it was
/// made, with the topology.
pub trait Accelerator: Send + Sync {
    /// Name for thread names and `query-kvm`: `TCG` or `KVM`.
    fn name(&self) -> &'static str;

    /// Where the interrupt controllers are.
    fn irqchip(&self) -> Irqchip;

    /// Called once, when the memory map stands, before any CPU is made: memory slots, in-kernel
    /// controllers.
    fn attach(&self, fabric: &Fabric) -> Result<(), String>;

    /// Makes one CPU. Number 0 is the bootstrap processor.
    fn cpu(&self, wires: CpuWires) -> Result<Box<dyn Vcpu>, String>;

    /// Ticks per second of the time stamp counter.
    fn tsc_hz(&self) -> u64;
}
