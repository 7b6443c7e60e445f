//! KVM: the host's own processors run guests of their kind.
//!
//! Spec: Linux, Documentation/virt/kvm/api.rst. Each kind of host has a folder with the same parts:
//! `Host` is what `/dev/kvm` can do, `Vm` one machine, `KvmVcpu` one CPU. What they share is beside
//! them: the run loop, memory slots, and in `kernel` what speaks with the kernel. State crosses in the
//! saved form that all accelerators share.
#![allow(unsafe_code)]

#[cfg(any(test, all(target_os = "linux", target_arch = "aarch64")))]
pub mod arm;
#[cfg(any(
    test,
    all(
        target_os = "linux",
        any(target_arch = "x86_64", target_arch = "aarch64")
    )
))]
mod bus;
#[cfg(any(
    test,
    all(
        target_os = "linux",
        any(target_arch = "x86_64", target_arch = "aarch64")
    )
))]
mod exit;
#[cfg(all(
    target_os = "linux",
    any(target_arch = "x86_64", target_arch = "aarch64")
))]
mod kernel;
#[cfg(any(
    test,
    all(
        target_os = "linux",
        any(target_arch = "x86_64", target_arch = "aarch64")
    )
))]
mod run;
#[cfg(any(
    test,
    all(
        target_os = "linux",
        any(target_arch = "x86_64", target_arch = "aarch64")
    )
))]
mod slots;
#[cfg(any(test, all(target_os = "linux", target_arch = "x86_64")))]
pub mod x86;

/// Why KVM cannot be used, in a sentence for the user.
#[derive(Debug, thiserror::Error)]
pub enum KvmError {
    /// This host cannot have it.
    #[error("this is neither an x86_64 nor an aarch64 Linux host")]
    NoHost,
    /// The device is not there.
    #[error("there is no /dev/kvm: {}", absent())]
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

/// What brings the device.
fn absent() -> &'static str {
    if cfg!(target_arch = "aarch64") {
        "the host's kernel must have KVM and be started at EL2"
    } else {
        "load the module kvm_intel or kvm_amd, and switch virtualisation on in the host's firmware"
    }
}

/// Whether KVM can be used here.
///
/// # Errors
/// Why not.
pub fn available() -> Result<(), KvmError> {
    #[cfg(all(target_os = "linux", target_arch = "x86_64"))]
    return x86::Host::open(x86::Mode::Kernel).map(|_| ());
    #[cfg(all(target_os = "linux", target_arch = "aarch64"))]
    return arm::Host::open(arm::ALL).map(|_| ());
    #[cfg(not(all(
        target_os = "linux",
        any(target_arch = "x86_64", target_arch = "aarch64")
    )))]
    Err(KvmError::NoHost)
}

#[cfg(test)]
mod tests;
