//! Oracles for `target_softfloat`: the host's SSE, FMA3 and x87 units, driven by inline assembly with their own
//! control registers, and the operands to feed them.
#![allow(unsafe_code)]

pub mod operands;
#[cfg(target_arch = "x86_64")]
pub mod sse;
#[cfg(target_arch = "x86_64")]
pub mod x87;
