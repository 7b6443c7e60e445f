//! Floating point exact to the bit, for every guest's rules.
//!
//! Spec: IEEE 754-2019; what it leaves open (NaN choice, tininess, flushing, extra flags) is set
//! per guest in [`Env`], with citations there.
//!
//! A value is its bit pattern in a newtype ([`F64`]`(u64)`); operations are the methods of [`Float`]
//! and take the environment by `&mut`, which collects the sticky flags:
//!
//! ```
//! use target_softfloat::{Env, F64, Flags, Float};
//! let mut env = Env::sse();
//! let third = F64(0x3ff0_0000_0000_0000).div(F64(0x4008_0000_0000_0000), &mut env);
//! assert_eq!((third.0, env.flags), (0x3fd5_5555_5555_5555, Flags::INEXACT));
//! ```
//!
//! Inside, a finite number is a significand whose leading one sits in the top bit of a `u64` or
//! `u128`, so that every format rounds by the same code and the low bits are guard and sticky bits.
//! Two normal operands take a short path; everything else is classified first.
//!
//! What only the x87 has (partial remainder, scaling, transcendentals, packed decimal) is in [`x87`].
//!
//! Not modelled: decimal formats; Arm's `FPCR.AH` and `FPCR.NEP`.
#![deny(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]
#![allow(
    clippy::arithmetic_side_effects,
    reason = "all of this crate is bounded arithmetic on exponents and significands; tests run with overflow checks"
)]

mod arith;
mod compare;
mod convert;
mod env;
mod float;
mod fma;
mod format;
mod limbs;
mod nan;
mod num;
mod rem;
mod round;
pub mod x87;

pub use compare::MinMax;
pub use convert::{Int, IntOverflow};
pub use env::{Env, Flags, FlushOutputs, NanRule, Precision, Rounding, Tininess};
pub use float::{Float, MulAdd};
pub use format::{Bf16, F16, F32, F64, F80, F128};
pub use rem::Remainder;

#[cfg(test)]
mod tests;
