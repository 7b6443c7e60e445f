//! KVM as the boards see it: the one that this kind of host has.

#[cfg(target_arch = "aarch64")]
mod arm;
#[cfg(target_arch = "x86_64")]
mod x86;

#[cfg(target_arch = "aarch64")]
pub(crate) use arm::make;
#[cfg(target_arch = "x86_64")]
pub(crate) use x86::make;
