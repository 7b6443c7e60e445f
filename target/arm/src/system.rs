//! System: exceptions, translation, system registers, reset.
//!
//! Spec: DDI 0487 part D; each file names its chapter.

mod aarch32_id;
pub(crate) mod access;
pub(crate) mod calls;
pub(crate) mod control;
pub(crate) mod dcc;
pub(crate) mod debug;
pub(crate) mod describe;
pub(crate) mod exception;
pub(crate) mod interrupt;
pub(crate) mod pauth;
pub(crate) mod pmu;
pub(crate) mod registers;
pub(crate) mod reset;
pub(crate) mod saved;
pub(crate) mod semihosting;
pub(crate) mod special;
pub(crate) mod syndrome;
pub(crate) mod tlb;
pub(crate) mod translation;

/// Whether HCR_EL2.E2H is in effect.
pub(crate) fn is_host(core: &crate::Core) -> bool {
    control::hcr_in_effect(core) & control::hcr::E2H != 0
}
