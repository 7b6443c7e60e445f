//! Runs x86 instructions on the host's own processor, as the oracle for the x86 front end.
//!
//! [`Native`] executes a few instruction bytes in this very process, from a full register state
//! to a full register state, and turns the exceptions they raise into values. [`generate`] makes
//! the test cases: every user-level instruction form of the baseline CPU with operands worth
//! testing. [`compare`] holds another engine's results against the host's. Only x86-64 Linux hosts can run anything; elsewhere [`Native::new`] says so.
//!
//! The process is the sandbox, so the bytes must not contain system calls, far transfers or
//! writes to FS and GS: the generator never emits them.

#![allow(unsafe_code)]

pub mod compare;
pub mod generate;
mod state;

#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
pub mod kvm;
#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
mod native;
#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
pub use native::Native;

#[cfg(not(all(target_arch = "x86_64", target_os = "linux")))]
mod unsupported;
#[cfg(not(all(target_arch = "x86_64", target_os = "linux")))]
pub use unsupported::Native;

pub use state::{
    CODE, CODE_MAX, CODE_PAGE, DATA, DATA_SIZE, FxsaveArea, NativeState, Outcome, PAGE, RFLAGS_IN,
};

#[cfg(test)]
mod tests;
