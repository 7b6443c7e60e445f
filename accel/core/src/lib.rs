//! The contract between guest CPUs, executors and boards.
//!
//! A guest architecture implements [`Target`]: it decodes instructions into IR, walks page tables,
//! delivers exceptions. An [`Executor`] runs its units. Both work on a [`Core`], the state of one
//! CPU. Boards drive CPUs of any accelerator through [`Vcpu`]; controllers reach them through
//! [`Pending`].

mod core;
mod engine;
mod exclusive;
mod logs;
mod map;
mod memory;
mod pending;
mod source;
mod spin;
mod target;
mod vcpu;
mod x87;

pub use crate::core::{Core, Counters, RegFile, SCRATCH};
pub use engine::{EngineVcpu, Guest};
pub use exclusive::{Exclusive, ExclusiveGuard};
pub use logs::{LogFilter, logs_units};
pub use map::{Map, Mixer};
pub use pending::{Pending, Sleeper, reason};
pub use source::{PageRef, Source};
pub use target::{
    Effects, Executor, Exit, Helper, HelperFn, Intrinsic, Layout, RegInfo, Target, Trap,
};
pub use vcpu::{Vcpu, VcpuError, VcpuExit};
pub use x87::{X87Form, X87Format, X87Layout, X87Op};

pub use accel_softmmu::{
    Access, CONTEXTS, Fast, Mmu, Peek, Permissions, Physical, Translation, Watch,
};

#[cfg(test)]
mod tests;
