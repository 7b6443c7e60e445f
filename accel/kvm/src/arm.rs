//! Arm guests on aarch64 hosts: AArch64 at EL1, with the GIC, the timers and PSCI in the kernel.
//!
//! Spec: Linux, Documentation/virt/kvm/api.rst and devices/arm-vgic*.rst.
//!
//! Not modelled: SVE, nested virtualisation, AArch32 at EL1, an interrupt controller in user space,
//! SErrors that are pending when a CPU is saved.

#[cfg(all(target_os = "linux", target_arch = "aarch64"))]
mod entry;
mod gic;
#[cfg(all(target_os = "linux", target_arch = "aarch64"))]
mod host;
mod registers;
mod run;
mod state;
#[cfg(all(target_os = "linux", target_arch = "aarch64"))]
mod vcpu;
#[cfg(all(target_os = "linux", target_arch = "aarch64"))]
mod vgic;
#[cfg(all(target_os = "linux", target_arch = "aarch64"))]
mod vm;

use hw_intc::{GicItsState, GicState};
use target_arm::Timer;

#[cfg(all(target_os = "linux", target_arch = "aarch64"))]
pub use host::Host;
#[cfg(all(target_os = "linux", target_arch = "aarch64"))]
pub use vcpu::{KvmVcpu, Parts};
#[cfg(all(target_os = "linux", target_arch = "aarch64"))]
pub use vm::Vm;

/// CPUs with everything that the host has.
#[cfg(all(target_os = "linux", target_arch = "aarch64"))]
pub const ALL: target_arm::HostOptions = target_arm::HostOptions {
    pmu: true,
    pauth: true,
};

/// The board's models of what the kernel has. Its state is copied into them before the machine is
/// saved and from there after a reset or restore: the saved sections are the models'. Called with the
/// machine stopped.
pub trait Models: Send + Sync {
    /// The interrupt controller.
    fn gic(&self) -> GicState;
    /// Takes over its state.
    fn set_gic(&self, state: GicState);
    /// The translation service, if the board has one.
    fn its(&self) -> Option<GicItsState>;
    /// Takes over its state.
    fn set_its(&self, state: GicItsState);
    /// CTL and CVAL of a CPU's timer.
    fn timer(&self, cpu: u32, timer: Timer) -> (u64, u64);
    /// Takes over its state.
    fn set_timer(&self, cpu: u32, timer: Timer, control: u64, compare: u64);
    /// PSCI turned a CPU on or off.
    fn set_power(&self, cpu: u32, on: bool);
}

#[cfg(test)]
mod tests;
