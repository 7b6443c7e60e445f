//! What decoding depends on beside the bytes, packed into [`accel_core::Core::mode`].

use crate::model::Feature;
use crate::system::registers as sys;
use crate::system::{control, is_host};
use crate::{Core, regs};

/// Translation contexts of a bank.
pub(crate) mod ctx {
    /// Unprivileged accesses.
    pub(crate) const USER: u8 = 0;
    /// Privileged accesses that PSTATE.PAN keeps from user pages.
    pub(crate) const PAN: u8 = 1;
    /// Privileged accesses.
    pub(crate) const PRIVILEGED: u8 = 2;
}

/// The packed mode.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Mode(pub(crate) u64);

const SP_SEL: u64 = 1 << 2;
const PAN: u64 = 1 << 3;
const UAO: u64 = 1 << 4;
const ALIGNED: u64 = 1 << 5;
const IL: u64 = 1 << 6;
const HOST: u64 = 1 << 7;
const TRAPS: u64 = 1 << 8;
const NO_FP: u64 = 1 << 9;
/// EL0 may not: DC ZVA.
const NO_ZVA: u64 = 1 << 10;
/// EL0 may not: cache maintenance by address.
const NO_CACHE: u64 = 1 << 11;
/// EL0 may not: CTR_EL0.
const NO_CTR: u64 = 1 << 12;
/// EL0 may not: DAIF.
const NO_DAIF: u64 = 1 << 13;
const STEP: u64 = 1 << 14;
const BTI: u64 = 1 << 15;
/// FPCR.FZ.
const FLUSH: u64 = 1 << 16;
/// EL2 wants to see pointer authentication.
const PAUTH_TRAPS: u64 = 1 << 17;
/// AArch32, its PSTATE.T and PSTATE.E.
const AARCH32: u64 = 1 << 24;
const THUMB: u64 = 1 << 25;
const BIG: u64 = 1 << 26;
/// EL0 may not: SETEND; may: the barriers of CP15.
const NO_SETEND: u64 = 1 << 27;
const CP15_BARRIERS: u64 = 1 << 28;
/// IT blocks are of one instruction of 16 bits.
const SHORT_IT: u64 = 1 << 31;
/// Accesses by a stack pointer that is not aligned to 16 bytes are exceptions; and it is not.
const SP_CHECKED: u64 = 1 << 29;
const SP_ODD: u64 = 1 << 30;

impl Mode {
    /// The exception level.
    pub(crate) fn el(self) -> u8 {
        (self.0 & 3) as u8
    }

    fn has(self, bit: u64) -> bool {
        self.0 & bit != 0
    }

    /// Whether SP_ELx is in use, not SP_EL0.
    pub(crate) fn sp_sel(self) -> bool {
        self.has(SP_SEL)
    }

    /// Translation context of ordinary accesses.
    pub(crate) fn ctx(self) -> u8 {
        match (self.el(), self.has(PAN)) {
            (0, _) => ctx::USER,
            (_, true) => ctx::PAN,
            _ => ctx::PRIVILEGED,
        }
    }

    /// Translation context of LDTR and STTR.
    pub(crate) fn unprivileged_ctx(self) -> u8 {
        let unprivileged = self.el() == 1 || self.el() == 2 && self.has(HOST);
        if unprivileged && !self.has(UAO) {
            ctx::USER
        } else {
            self.ctx()
        }
    }

    /// SCTLR_ELx.A.
    pub(crate) fn is_aligned(self) -> bool {
        self.has(ALIGNED)
    }

    /// PSTATE.IL.
    pub(crate) fn is_illegal(self) -> bool {
        self.has(IL)
    }

    /// At EL2 with HCR_EL2.E2H: names of EL1 mean registers of EL2.
    pub(crate) fn is_host(self) -> bool {
        self.has(HOST)
    }

    /// EL2 or EL3 wants to see accesses to system registers: each asks at run time.
    pub(crate) fn has_traps(self) -> bool {
        self.has(TRAPS)
    }

    /// Advanced SIMD and floating point trap.
    pub(crate) fn fp_traps(self) -> bool {
        self.has(NO_FP)
    }

    /// DC ZVA at EL0 traps.
    pub(crate) fn zva_traps(self) -> bool {
        self.has(NO_ZVA)
    }

    /// Cache maintenance at EL0 traps.
    pub(crate) fn cache_traps(self) -> bool {
        self.has(NO_CACHE)
    }

    /// CTR_EL0 at EL0 traps.
    pub(crate) fn ctr_traps(self) -> bool {
        self.has(NO_CTR)
    }

    /// DAIF at EL0 traps.
    pub(crate) fn daif_traps(self) -> bool {
        self.has(NO_DAIF)
    }

    /// Software step is active.
    pub(crate) fn steps(self) -> bool {
        self.has(STEP)
    }

    /// Subnormal numbers are taken for zeros.
    pub(crate) fn flushes(self) -> bool {
        self.has(FLUSH)
    }

    /// EL2 wants to see pointer authentication: each instruction asks whether it is on at run time.
    pub(crate) fn pauth_traps(self) -> bool {
        self.has(PAUTH_TRAPS)
    }

    /// AArch32, not AArch64.
    pub(crate) fn is_aarch32(self) -> bool {
        self.has(AARCH32)
    }

    /// T32, not A32.
    pub(crate) fn is_thumb(self) -> bool {
        self.has(THUMB)
    }

    /// Data is big-endian.
    pub(crate) fn is_big_endian(self) -> bool {
        self.has(BIG)
    }

    /// SETEND is UNDEFINED.
    pub(crate) fn setend_is_disabled(self) -> bool {
        self.has(NO_SETEND)
    }

    /// IT blocks have one instruction, of 16 bits, and not any.
    pub(crate) fn has_short_it_blocks(self) -> bool {
        self.has(SHORT_IT)
    }

    /// CP15ISB, CP15DSB and CP15DMB are there.
    pub(crate) fn has_cp15_barriers(self) -> bool {
        self.has(CP15_BARRIERS)
    }

    /// The stack pointer's alignment is checked.
    pub(crate) fn checks_sp(self) -> bool {
        self.has(SP_CHECKED)
    }

    /// It is checked, and wrong.
    pub(crate) fn sp_is_odd(self) -> bool {
        self.has(SP_ODD)
    }

    /// Branch targets are checked.
    pub(crate) fn has_bti(self) -> bool {
        self.has(BTI)
    }
}

/// The mode of the CPU as it is.
fn current(core: &Core) -> u64 {
    let state = &core.arch;
    let el = state.el;
    let get = |slot| core.regs.get(slot);
    let mut mode = u64::from(el & 3);
    let mut add = |bit: u64, on: bool| {
        if on {
            mode |= bit;
        }
    };
    let host = is_host(core);
    let in_host = host && (el == 2 || el == 0 && get(sys::HCR_EL2) & control::hcr::TGE != 0);
    let sctlr = control::sctlr(core);
    add(SP_SEL, state.sp_sel);
    add(PAN, state.pan && el != 0);
    add(UAO, state.uao);
    add(ALIGNED, sctlr & control::sctlr_bits::A != 0);
    add(IL, state.il);
    add(HOST, host && el == 2);
    add(TRAPS, control::traps_registers(core));
    add(NO_FP, control::fp_trap(core).is_some());
    add(PAUTH_TRAPS, control::traps_pauth(core));
    if el == 0 {
        let may = |bit| sctlr & bit != 0;
        add(NO_ZVA, !may(control::sctlr_bits::DZE));
        add(NO_CACHE, !may(control::sctlr_bits::UCI));
        add(NO_CTR, !may(control::sctlr_bits::UCT));
        add(NO_DAIF, !may(control::sctlr_bits::UMA) || in_host);
    }
    if state.aarch32 {
        add(AARCH32, true);
        add(THUMB, state.thumb);
        add(BIG, state.big_endian);
        add(SHORT_IT, sctlr & control::sctlr_bits::ITD != 0);
        add(NO_SETEND, sctlr & control::sctlr_bits::SED != 0);
        add(CP15_BARRIERS, sctlr & control::sctlr_bits::CP15BEN != 0);
    }
    let checks_sp = match el {
        0 => sctlr & control::sctlr_bits::SA0 != 0,
        _ => sctlr & control::sctlr_bits::SA != 0,
    };
    if checks_sp && !state.aarch32 {
        add(SP_CHECKED, true);
        add(SP_ODD, get(regs::SP) & 15 != 0);
    }
    add(FLUSH, crate::float::flushes(core));
    add(STEP, control::steps(core));
    add(BTI, state.guarded && state.model.has(Feature::Bti));
    mode
}

/// Brings the packed mode in line with the state. Whether it is another now.
pub(crate) fn refresh(core: &mut Core) -> bool {
    core.arch.pauth = None;
    let mode = current(core);
    core.attrs.user = core.arch.el == 0;
    core.attrs.secure = control::is_secure(core);
    let changed = core.mode != mode;
    core.mode = mode;
    changed
}

/// Lazy flags as NZCV in bits 31 to 28.
pub(crate) fn nzcv(core: &Core) -> u64 {
    let get = |n: u8| core.regs.get(accel_ir::Slot(regs::FLAGS.0.wrapping_add(n)));
    let (kind, ty) = accel_ir::FlagKind::of(get(0));
    from_x86(accel_ir::flags::pack(kind, ty, get(1), get(2), get(3)))
}

/// Sets the flags from bits 31 to 28.
pub(crate) fn set_nzcv(core: &mut Core, nzcv: u64) {
    let raw = accel_ir::FlagKind::Raw.with(accel_ir::Ty::I64);
    core.regs.set(regs::FLAGS, raw.into());
    let a = accel_ir::Slot(regs::FLAGS.0.wrapping_add(1));
    core.regs.set(a, to_x86(nzcv));
}

/// NZCV in bits 31 to 28 of flags in their x86 places, C inverted.
pub(crate) fn from_x86(flags: u64) -> u64 {
    (flags >> 7 & 1) << 31 | (flags >> 6 & 1) << 30 | (!flags & 1) << 29 | (flags >> 11 & 1) << 28
}

/// Flags in their x86 places, C inverted, of NZCV in bits 31 to 28.
pub(crate) fn to_x86(nzcv: u64) -> u64 {
    (nzcv >> 31 & 1) << 7 | (nzcv >> 30 & 1) << 6 | (!nzcv >> 29 & 1) | (nzcv >> 28 & 1) << 11
}

#[cfg(test)]
mod tests {
    #[test]
    fn flags_go_both_ways() {
        for n in 0..16u64 {
            assert_eq!(super::from_x86(super::to_x86(n << 28)), n << 28);
        }
        assert_eq!(super::to_x86(0b0010 << 28), 0);
    }
}
