//! The aarch64 CPU: state, decoding into IR, MMU, exceptions, models. AArch32 at EL0.
//!
//! Spec: Arm Architecture Reference Manual for A-profile (DDI 0487). Files follow its chapters.
//!
//! # Making a CPU
//!
//! ```text
//! let mut model = CpuModel::parse("max,pauth=off")?;   // what -cpu said
//! model.set_el2(virtualization);                       // what the machine decides
//! model.set_el3(secure);
//! let model = Arc::new(model);
//! let peers = Arc::new(Peers::default());              // one for all CPUs of a machine
//! for index in 0..smp {
//!     let setup = Setup {
//!         mpidr: ...,                                  // affinity fields only
//!         powered_off: index != 0,                     // secondaries wait for PSCI CPU_ON
//!         boot: (index == 0).then(|| Boot { pc: kernel, x: [dtb, 0, 0, 0], el: None }),
//!         peers: peers.clone(),
//!     };
//!     let core = new_core(index, model.clone(), setup, port, memory.clone(), clock.clone());
//!     let vcpu = EngineVcpu::<Arm, _>::new(core, executor, exclusive.clone());
//! }
//! ```
//!
//! [`Port`] is what the board wires to each CPU. The interrupt controller and the generic timers
//! reach it by the pending word (`Vcpu::pending`): they raise `reason::INTR` whenever an interrupt
//! input of the CPU becomes active, which needs no more than that bit; the CPU asks its port which
//! one it is. A CPU that PSCI's CPU_ON turns on is told by `reason::SIPI`, and asks
//! [`Port::start`] where to begin.
#![deny(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects
)]
#![cfg_attr(test, allow(clippy::indexing_slicing, clippy::arithmetic_side_effects))]
pub mod a32;
pub mod a64;
mod cpu;
mod float;
mod guest;
mod helper;
mod mode;
mod model;
mod peers;
mod port;
pub mod regs;
mod simd;
mod state;
mod system;

pub use cpu::Arm;
pub use model::{CpuModel, HostOptions, IdRegisters, ModelError, help, models, properties};
pub use peers::Peers;
pub use port::{
    Answer, Conduit, GicAccess, GicFault, HostRan, HostRead, NoPort, Port, Semihost, Start, SysReg,
    Timer, World,
};
pub use state::{Boot, Setup, State};
pub use system::registers::set_register;
pub use system::reset::new_core;
pub use system::saved::{CpuState, is_saved};

/// A CPU of this guest.
pub type Core = accel_core::Core<Arm>;
