//! What a PC board needs of an accelerator.

use std::sync::Arc;

use accel_core::Vcpu;
use device_intc::{ApicBus, I8259, IoApic};
use hw_core::{Clock, Fabric, IrqSink, MsiSink};
use hw_intc::KernelI8254;
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

/// The board's models of the interrupt controllers. Where the accelerator has a controller in the
/// kernel, the model only carries its saved state.
#[derive(Clone)]
pub struct Controllers {
    /// Local APICs.
    pub apics: Arc<ApicBus>,
    /// The i8259 pair.
    pub pic: Option<Arc<I8259>>,
    /// The I/O APIC.
    pub ioapic: Arc<IoApic>,
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
    /// Interrupt controllers.
    pub controllers: Controllers,
}

/// Makes the CPUs of a PC. The CPU model is the accelerator's own business: it was told when it was
/// made, with the topology.
pub trait Accelerator: Send + Sync {
    /// Name for thread names and `query-kvm`: `TCG` or `KVM`.
    fn name(&self) -> &'static str;

    /// Where the interrupt controllers are.
    fn irqchip(&self) -> Irqchip;

    /// Takes the lines of global interrupts 0 to 23; `Some` if their controllers are in the kernel.
    fn lines(&self) -> Option<Arc<dyn IrqSink>> {
        None
    }

    /// Takes messages; `Some` if the local APICs are in the kernel.
    fn messages(&self) -> Option<Arc<dyn MsiSink>> {
        None
    }

    /// Makes the machine's i8254; `Some` if it is in the kernel. Called once at most.
    ///
    /// # Errors
    /// Why it cannot be made.
    fn pit(&self) -> Result<Option<Arc<dyn KernelI8254>>, String> {
        Ok(None)
    }

    /// Called once, when the memory map stands, before any CPU is made: memory slots, in-kernel
    /// controllers.
    fn attach(&self, fabric: &Fabric) -> Result<(), String>;

    /// Makes one CPU. Number 0 is the bootstrap processor.
    fn cpu(&self, wires: CpuWires) -> Result<Box<dyn Vcpu>, String>;

    /// Ticks per second of the time stamp counter.
    fn tsc_hz(&self) -> u64;
}
