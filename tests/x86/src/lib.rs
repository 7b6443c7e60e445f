//! Runs the oracle's test cases on the emulated CPU.
//!
//! [`Emulated`] is a bare CPU in 64-bit mode at CPL 3, with the pages a case expects mapped at
//! their addresses and everything it takes to receive exceptions in the upper half.

//!
//! [`fuzz`] compares the modes that a user program does not reach, with KVM as the oracle.

#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
pub mod fuzz;
mod machine;
#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
mod system;

pub use machine::Emulated;
#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
pub use system::EmulatedSystem;
