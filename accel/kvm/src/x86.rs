//! x86 guests on x86_64 hosts.
//!
//! Not modelled: system management mode, nested state, Hyper-V enlightenments.

#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
mod chips;
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
mod cpuid;
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
mod entry;
mod exit;
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
mod host;
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
mod msrs;
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
mod pit;
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
pub mod registers;
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
mod routes;
mod run;
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
mod state;
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
mod vcpu;
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
mod vm;

use hw_intc::{I8259State, IoApicState, LapicState};

#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
pub use cpuid::Identity;
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
pub use host::Host;
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
pub use vcpu::{KvmVcpu, Parts};
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
pub use vm::Vm;

/// Where the interrupt controllers are.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mode {
    /// All in user space (`kernel_irqchip=off`).
    User,
    /// Local APICs in the kernel (`kernel_irqchip=split`).
    Split,
    /// Local APICs, I/O APIC, i8259 and i8254 in the kernel (`kernel_irqchip=on`).
    Kernel,
}

/// The board's models of the interrupt controllers. Where the kernel has a controller, its state is
/// copied into the model before the machine is saved and from there after a reset or restore: the
/// saved sections are the models'. Called with the machine stopped, but for `eoi`.
pub trait Chips: Send + Sync {
    /// The local APIC of a CPU.
    fn lapic(&self, cpu: u32) -> LapicState;
    /// Takes over its state.
    fn set_lapic(&self, cpu: u32, state: &LapicState);
    /// The i8259 pair, if the board has one.
    fn pic(&self) -> Option<I8259State>;
    /// Takes over its state.
    fn set_pic(&self, state: I8259State);
    /// The I/O APIC.
    fn ioapic(&self) -> IoApicState;
    /// Takes over its state.
    fn set_ioapic(&self, state: IoApicState);
    /// A local APIC in the kernel ended a level interrupt that the model of the I/O APIC sent.
    fn eoi(&self, vector: u8);
}

#[cfg(test)]
mod tests;
