//! System: segmentation, paging, exceptions, control registers, MSRs, CPUID.
//!
//! Spec: Intel SDM volume 3, AMD APM volume 2; each file names its chapter.
//!
//! Not modelled: system management mode (SMIs are dropped, RSM is undefined), virtual-8086 mode
//! extensions and protected-mode virtual interrupts (CR4.VME, CR4.PVI), branch records and branch
//! traps, 5-level paging, VMX and SVM.

use std::sync::Arc;

use accel_core::Trap;

pub(crate) mod calls;
mod control;
pub mod cpuid;
pub(crate) mod debug;
mod describe;
mod exception;
mod fast;
pub mod feature;
pub mod flags;
mod interrupt;
mod io;
pub mod model;
pub mod msr;
pub mod mtrr;
mod paging;
mod reset;
pub mod saved;
mod segment;
mod stack;
mod tables;
mod task;
mod transfer;

pub(crate) use calls::HELPERS;
pub use cpuid::Topology;
pub(crate) use exception::{after_step, deliver};
pub(crate) use interrupt::service;
pub use interrupt::wake_mask;
pub use model::{CpuModel, ModelError};
pub use msr::{Msrs, tsc};
pub use paging::debug_translate;
pub(crate) use paging::walk;
pub use reset::{new_core, reset};
pub use saved::{CpuState, restore, save};
pub use tables::{info_mem, info_tlb};

use crate::regs::{self, rflags};
use crate::state::vector;
use crate::{Core, Exception};

/// What started an interrupt shadow.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Shadow {
    /// STI.
    Sti,
    /// MOV SS, POP SS: holds off single-step traps too.
    StackSwitch,
}

/// Control state beside the control registers: what only this module looks at.
#[derive(Clone, Debug, Default)]
pub struct SystemState {
    /// What CPUID shows.
    pub model: Arc<CpuModel>,
    /// How the machine's CPUs are arranged.
    pub topology: Topology,
    /// The APIC id at power-on.
    pub apic_id: u32,
    /// The four page-directory-pointer-table entries of PAE paging.
    pub pdptes: [u64; 4],
    /// DR0 to DR3.
    pub dr: [u64; 4],
    /// DR6.
    pub dr6: u64,
    /// DR7.
    pub dr7: u64,
    /// XCR0.
    pub xcr0: u64,
    /// NMIs wait for an IRET.
    pub nmi_blocked: bool,
    /// The instruction that has just run alone started the interrupt shadow.
    pub(crate) fresh_shadow: Option<Shadow>,
    /// TF before the instruction that has just run alone, if that changed it.
    pub(crate) tf_before: Option<bool>,
    /// Data and port breakpoints that were hit and have not trapped yet, as bits of DR6.
    pub(crate) debug_hits: u64,
    /// Linear address of the instruction that RF holds breakpoints off for.
    pub(crate) resume_at: Option<u64>,
    /// Level of the A20 gate that cached translations were made with.
    pub(crate) a20: bool,
    /// MSRs.
    pub msr: Msrs,
}

/// Notes an exception.
pub(crate) fn raise(core: &mut Core, vector: u8, error: Option<u32>) -> Trap {
    core.arch.exception = Some(Exception {
        vector,
        error,
        address: None,
        software: false,
    });
    Trap::Exception
}

/// #GP.
pub(crate) fn gp(core: &mut Core, error: u32) -> Trap {
    raise(core, vector::GP, Some(error))
}

/// #NP.
pub(crate) fn np(core: &mut Core, error: u32) -> Trap {
    raise(core, vector::NP, Some(error))
}

/// #UD.
pub(crate) fn ud(core: &mut Core) -> Trap {
    raise(core, vector::UD, None)
}

/// Virtual-8086 mode.
pub(crate) fn is_vm86(core: &Core) -> bool {
    core.arch.is_protected() && core.regs.get(regs::RFLAGS) & rflags::VM != 0
}

/// Brings the packed mode in line; whether it is another now.
pub(crate) fn mode_changed(core: &mut Core) -> bool {
    crate::decode::refresh(core)
}

/// #GP(0) unless at privilege 0.
pub(crate) fn need_cpl0(core: &mut Core) -> Result<(), Trap> {
    if core.arch.cpl == 0 {
        Ok(())
    } else {
        Err(gp(core, 0))
    }
}

/// Ends an instruction after which the unit must be left.
pub(crate) fn leave(core: &mut Core, next: u64) -> Result<u64, Trap> {
    core.set_pc(next);
    Err(Trap::Leave)
}

/// Ends an instruction: leaves the unit if the mode is another now.
pub(crate) fn leave_if_changed(core: &mut Core, next: u64) -> Result<u64, Trap> {
    if mode_changed(core) {
        leave(core, next)
    } else {
        Ok(0)
    }
}

#[cfg(test)]
mod tests;
