//! KVM: the host's own processors run x86 guests.
//!
//! Spec: Linux, Documentation/virt/kvm/api.rst. [`Host`] is what `/dev/kvm` can do, [`Vm`] one
//! machine with its memory slots and in-kernel interrupt controllers, [`KvmVcpu`] one CPU. State
//! crosses in the saved form that all accelerators share.
//!
//! Not modelled: system management mode, nested state, Hyper-V enlightenments.
#![allow(unsafe_code)]

#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
mod bells;
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
mod kick;
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
mod msrs;
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
mod pit;
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
mod reason;
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
pub mod registers;
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
mod routes;
mod run;
mod slots;
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

/// Why KVM cannot be used, in a sentence for the user.
#[derive(Debug, thiserror::Error)]
pub enum KvmError {
    /// This host cannot have it.
    #[error("this is not an x86_64 Linux host")]
    NoHost,
    /// The device is not there.
    #[error(
        "there is no /dev/kvm: load the module kvm_intel or kvm_amd, and switch virtualisation on in the host's firmware"
    )]
    NoDevice,
    /// The device may not be opened.
    #[error("/dev/kvm may not be opened: become a member of its group (usually 'kvm')")]
    Permission,
    /// The device cannot be opened for another reason.
    #[error("/dev/kvm cannot be opened: {0}")]
    Open(#[source] std::io::Error),
    /// The kernel's interface has another version.
    #[error("the host's KVM has interface version {0}, 12 is needed")]
    Version(i32),
    /// The kernel lacks something.
    #[error("the host's KVM lacks {0}")]
    Lacks(&'static str),
    /// The kernel refused.
    #[error("KVM refused {what}: {source}")]
    Refused {
        /// What was tried.
        what: &'static str,
        /// The kernel's reason.
        #[source]
        source: std::io::Error,
    },
}

/// Whether KVM can be used here.
///
/// # Errors
/// Why not.
pub fn available() -> Result<(), KvmError> {
    #[cfg(all(target_os = "linux", target_arch = "x86_64"))]
    return Host::open(Mode::Kernel).map(|_| ());
    #[cfg(not(all(target_os = "linux", target_arch = "x86_64")))]
    Err(KvmError::NoHost)
}

#[cfg(test)]
mod tests;
