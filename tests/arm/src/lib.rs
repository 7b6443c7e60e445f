//! Checks the aarch64 front end against `qemu-aarch64` and, for A32 and T32 ([`aarch32`]), `qemu-arm`
//! (Debian's package `qemu-user`).
//!
//! A [`program`] is a static ELF of many cases: for each, registers, flags and a piece of memory are
//! loaded from a record, one random instruction of a table runs, and the results are stored. It runs once under
//! `qemu-aarch64`, which writes the records to its output, and once in each executor of the
//! engine, at EL0 with translation off. Records must be alike.
//!
//! [`bare`] is for programs at EL1: what system code does, which `qemu-aarch64` has not; [`frame`] for an
//! instruction or two with translation or at EL2.
//!
//! An UNDEFINED instruction is a result too: the record is marked, by a signal handler there and by an
//! exception vector here.

pub mod aarch32;
pub mod bare;
pub mod engine;
pub mod frame;
pub mod generate;
pub mod program;
pub mod qemu;
pub mod random;

pub use engine::executors;
pub use program::{Case, Program, Record};
