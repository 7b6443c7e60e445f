//! Controls in force at the exception level at hand: SCTLR, traps of floating point and of registers
//! (DDI 0487, D1.3, D23.2).

use super::registers as sys;
use crate::model::Feature;
use crate::port::World;
use crate::{Core, regs};

/// SCTLR_ELx.
#[allow(missing_docs)]
pub(crate) mod sctlr_bits {
    pub(crate) const M: u64 = 1 << 0;
    pub(crate) const A: u64 = 1 << 1;
    pub(crate) const SA: u64 = 1 << 3;
    pub(crate) const SA0: u64 = 1 << 4;
    pub(crate) const CP15BEN: u64 = 1 << 5;
    pub(crate) const ITD: u64 = 1 << 7;
    pub(crate) const SED: u64 = 1 << 8;
    pub(crate) const UMA: u64 = 1 << 9;
    pub(crate) const DZE: u64 = 1 << 14;
    pub(crate) const UCT: u64 = 1 << 15;
    pub(crate) const NTWI: u64 = 1 << 16;
    pub(crate) const NTWE: u64 = 1 << 18;
    pub(crate) const WXN: u64 = 1 << 19;
    pub(crate) const SPAN: u64 = 1 << 23;
    pub(crate) const UCI: u64 = 1 << 26;
    pub(crate) const ENIA: u64 = 1 << 31;
    pub(crate) const ENIB: u64 = 1 << 30;
    pub(crate) const ENDA: u64 = 1 << 27;
    pub(crate) const ENDB: u64 = 1 << 13;
    pub(crate) const BT0: u64 = 1 << 35;
    pub(crate) const BT1: u64 = 1 << 36;
    pub(crate) const DSSBS: u64 = 1 << 44;
    /// Bits that read as one without the features behind them (Armv8.0).
    pub(crate) const RES1: u64 = 0x30d0_0800;
}

/// HCR_EL2.
#[allow(missing_docs)]
pub(crate) mod hcr {
    pub(crate) const VM: u64 = 1 << 0;
    pub(crate) const PTW: u64 = 1 << 2;
    pub(crate) const FMO: u64 = 1 << 3;
    pub(crate) const IMO: u64 = 1 << 4;
    pub(crate) const AMO: u64 = 1 << 5;
    pub(crate) const VF: u64 = 1 << 6;
    pub(crate) const VI: u64 = 1 << 7;
    pub(crate) const FB: u64 = 1 << 9;
    pub(crate) const DC: u64 = 1 << 12;
    pub(crate) const TWI: u64 = 1 << 13;
    pub(crate) const TWE: u64 = 1 << 14;
    pub(crate) const TID1: u64 = 1 << 16;
    pub(crate) const TID2: u64 = 1 << 17;
    pub(crate) const TID3: u64 = 1 << 18;
    pub(crate) const TSC: u64 = 1 << 19;
    pub(crate) const TACR: u64 = 1 << 21;
    pub(crate) const TSW: u64 = 1 << 22;
    pub(crate) const TTLB: u64 = 1 << 25;
    pub(crate) const TVM: u64 = 1 << 26;
    pub(crate) const TGE: u64 = 1 << 27;
    pub(crate) const HCD: u64 = 1 << 29;
    pub(crate) const TRVM: u64 = 1 << 30;
    pub(crate) const E2H: u64 = 1 << 34;
    pub(crate) const APK: u64 = 1 << 40;
    pub(crate) const API: u64 = 1 << 41;
    /// What makes registers trap from EL1.
    pub(crate) const TRAPS: u64 = TID1 | TID2 | TID3 | TACR | TSW | TTLB | TVM | TRVM;
}

/// SCR_EL3.
#[allow(missing_docs)]
pub(crate) mod scr {
    pub(crate) const NS: u64 = 1 << 0;
    pub(crate) const IRQ: u64 = 1 << 1;
    pub(crate) const FIQ: u64 = 1 << 2;
    pub(crate) const EA: u64 = 1 << 3;
    /// Bits that are one.
    pub(crate) const RES1: u64 = 3 << 4;
    pub(crate) const SMD: u64 = 1 << 7;
    pub(crate) const HCE: u64 = 1 << 8;
    pub(crate) const SIF: u64 = 1 << 9;
    pub(crate) const RW: u64 = 1 << 10;
    pub(crate) const ST: u64 = 1 << 11;
    pub(crate) const TWI: u64 = 1 << 12;
    pub(crate) const TWE: u64 = 1 << 13;
    pub(crate) const TLOR: u64 = 1 << 14;
    pub(crate) const APK: u64 = 1 << 16;
    pub(crate) const API: u64 = 1 << 17;
    /// Those of every CPU.
    pub(crate) const WRITABLE: u64 = NS | IRQ | FIQ | EA | SMD | HCE | SIF | ST | TWI | TWE;
}

/// CPTR_ELx.TCPAC: CPACR_EL1 traps, and to EL3 CPTR_EL2.
pub(crate) const TCPAC: u64 = 1 << 31;

/// SCR_EL3 as it is in effect: without EL3, what its software would have set.
pub(crate) fn scr_in_effect(core: &Core) -> u64 {
    if core.arch.model.has(Feature::El3) {
        core.regs.get(sys::SCR_EL3)
    } else {
        scr::NS | scr::HCE | scr::RW | scr::APK | scr::API
    }
}

/// Whether EL0 to EL2 are in the Secure state (D1.3.1).
pub(crate) fn is_secure_below_el3(core: &Core) -> bool {
    scr_in_effect(core) & scr::NS == 0
}

/// Whether the exception level at hand is in the Secure state.
pub(crate) fn is_secure(core: &Core) -> bool {
    core.arch.el == 3 || is_secure_below_el3(core)
}

/// What a write leaves in SCR_EL3. EL1 and EL2 are AArch64, so RW is always one.
pub(crate) fn scr_value(core: &Core, value: u64) -> u64 {
    let model = &core.arch.model;
    let mut writable = scr::WRITABLE;
    if !model.has(Feature::El2) {
        writable &= !scr::HCE;
    }
    if model.has(Feature::Lor) {
        writable |= scr::TLOR;
    }
    if model.has_pauth() {
        writable |= scr::APK | scr::API;
    }
    value & writable | scr::RES1 | scr::RW
}

/// What the GIC is told of the state.
pub(crate) fn world(core: &Core) -> World {
    match core.arch.el {
        3 => World::Monitor,
        _ if is_secure_below_el3(core) => World::Secure,
        _ => World::NonSecure,
    }
}

/// MDCR_EL3, as it is in effect below EL3.
pub(crate) fn monitor_mdcr(core: &Core) -> u64 {
    if core.arch.model.has(Feature::El3) && core.arch.el < 3 {
        core.regs.get(sys::MDCR_EL3)
    } else {
        0
    }
}

/// Whether EL2 exists and is enabled in the current security state.
pub(crate) fn el2_enabled(core: &Core) -> bool {
    if !core.arch.model.has(Feature::El2) {
        return false;
    }
    // No secure EL2.
    !is_secure_below_el3(core)
}

/// HCR_EL2 as it is in effect.
pub(crate) fn hcr_in_effect(core: &Core) -> u64 {
    if !el2_enabled(core) {
        return 0;
    }
    let mut value = core.regs.get(sys::HCR_EL2);
    if value & hcr::TGE != 0 {
        if value & hcr::E2H != 0 {
            value &= !(hcr::VM | hcr::PTW | hcr::FB | hcr::DC | hcr::TRAPS | hcr::TWI | hcr::TWE);
            value &= !(hcr::FMO | hcr::IMO | hcr::AMO | hcr::TSC);
        }
        value |= hcr::FMO | hcr::IMO | hcr::AMO;
        value &= !(hcr::VM | hcr::VI | hcr::VF);
    }
    if value & hcr::DC != 0 {
        value |= hcr::VM;
    }
    value
}

/// Whether EL0 runs under a host at EL2 (HCR_EL2.{E2H, TGE}).
pub(crate) fn is_host_user(core: &Core) -> bool {
    let both = hcr::E2H | hcr::TGE;
    core.arch.el == 0 && hcr_in_effect(core) & both == both
}

/// Bits of a VMID in use (VTCR_EL2.VS).
pub(crate) fn vmid_bits(core: &Core) -> u32 {
    let wide = core.arch.model.has(Feature::Vmid16) && core.regs.get(sys::VTCR_EL2) >> 19 & 1 != 0;
    if wide { 16 } else { 8 }
}

/// The exception level whose translation regime and controls are in force: EL0 has EL1's or, under a
/// host, EL2's.
pub(crate) fn regime(core: &Core) -> u8 {
    match core.arch.el {
        0 if is_host_user(core) => 2,
        0 => 1,
        el => el,
    }
}

/// SCTLR of the regime in force.
pub(crate) fn sctlr(core: &Core) -> u64 {
    sctlr_of(core, regime(core))
}

/// SCTLR_ELx.
pub(crate) fn sctlr_of(core: &Core, el: u8) -> u64 {
    core.regs.get(match el {
        0 | 1 => sys::SCTLR_EL1,
        2 => sys::SCTLR_EL2,
        _ => sys::SCTLR_EL3,
    })
}

/// The exception level that use of floating point traps to, if it does.
pub(crate) fn fp_trap(core: &Core) -> Option<u8> {
    let get = |slot| core.regs.get(slot);
    let el = core.arch.el;
    let hcr_now = hcr_in_effect(core);
    let host = hcr_now & hcr::E2H != 0;
    if el < 2 && hcr_now & (hcr::E2H | hcr::TGE) != hcr::E2H | hcr::TGE {
        let fpen = get(sys::CPACR_EL1) >> 20 & 3;
        if fpen & 1 == 0 || fpen == 1 && el == 0 {
            return Some(if el == 0 && hcr_now & hcr::TGE != 0 {
                2
            } else {
                1
            });
        }
    }
    if el < 3 && el2_enabled(core) {
        let cptr = get(sys::CPTR_EL2);
        if host {
            let fpen = cptr >> 20 & 3;
            let user = el == 0 && hcr_now & hcr::TGE != 0;
            if fpen & 1 == 0 || fpen == 1 && user {
                return Some(2);
            }
        } else if cptr >> 10 & 1 != 0 {
            return Some(2);
        }
    }
    if core.arch.model.has(Feature::El3) && get(sys::CPTR_EL3) >> 10 & 1 != 0 {
        return Some(3);
    }
    None
}

/// MDCR_EL2 as it is in effect below EL2.
pub(crate) fn mdcr_in_effect(core: &Core) -> u64 {
    if core.arch.el < 2 && el2_enabled(core) {
        core.regs.get(sys::MDCR_EL2)
    } else {
        0
    }
}

/// MDCR_EL2.
pub(crate) mod mdcr {
    /// Debug exceptions go to EL2.
    pub(crate) const TDE: u64 = 1 << 8;
    /// Accesses to the debug ROM's address trap.
    pub(crate) const TDRA: u64 = 1 << 11;
    /// Accesses to debug registers trap.
    pub(crate) const TDA: u64 = 1 << 9;
    /// Accesses to OS lock registers trap.
    pub(crate) const TDOSA: u64 = 1 << 10;
    /// What makes debug registers trap.
    pub(crate) const TRAPS: u64 = TDE | TDA | TDOSA;
    /// PMCR_EL0 traps.
    pub(crate) const TPMCR: u64 = 1 << 5;
    /// All registers of the PMU trap.
    pub(crate) const TPM: u64 = 1 << 6;
    /// EL2's own counters count.
    pub(crate) const HPME: u64 = 1 << 7;
    /// The others do not count at EL2.
    pub(crate) const HPMD: u64 = 1 << 17;
    /// MDCR_EL3: no debug exceptions in the Secure state.
    pub(crate) const SDD: u64 = 1 << 16;
    /// MDCR_EL3: counters count in the Secure state too.
    pub(crate) const SPME: u64 = 1 << 17;
}

/// Whether accesses to system registers may trap to EL2 or EL3 from here.
pub(crate) fn traps_registers(core: &Core) -> bool {
    let to_hypervisor = core.arch.el < 2
        && (hcr_in_effect(core) & hcr::TRAPS != 0
            || mdcr_in_effect(core) & mdcr::TRAPS != 0
            || traps_keys(core));
    to_hypervisor || monitor_mdcr(core) & mdcr::TRAPS != 0
}

/// Whether EL2 wants to see EL1's accesses to the keys of pointer authentication (HCR_EL2.APK).
pub(crate) fn traps_keys(core: &Core) -> bool {
    lacks(core, hcr::APK)
}

/// Whether EL2 wants to see pointer authentication itself (HCR_EL2.API).
pub(crate) fn traps_pauth(core: &Core) -> bool {
    core.arch.el < 2 && lacks(core, hcr::API)
}

/// Whether a bit of HCR_EL2 that lets EL1 and EL0 have pointer authentication is clear.
fn lacks(core: &Core, bit: u64) -> bool {
    let both = hcr::E2H | hcr::TGE;
    let value = core.regs.get(sys::HCR_EL2);
    el2_enabled(core) && core.arch.model.has_pauth() && value & bit == 0 && value & both != both
}

/// Whether software step is active (D2.12): MDSCR_EL1.SS with an exception level that debugs.
pub(crate) fn steps(core: &Core) -> bool {
    core.regs.get(sys::MDSCR_EL1) & 1 != 0 && debugs_here(core)
}

/// Whether the exception level at hand is debugged (D2.4).
pub(crate) fn debugs_here(core: &Core) -> bool {
    let mdscr = core.regs.get(sys::MDSCR_EL1);
    let debugger = debug_target(core);
    let el = core.arch.el;
    if is_secure(core) && monitor_mdcr(core) & mdcr::SDD != 0 {
        return false;
    }
    if el == debugger {
        // KDE, and PSTATE.D clear.
        mdscr >> 13 & 1 != 0 && core.regs.get(regs::DAIF) & 1 << 9 == 0
    } else {
        el < debugger
    }
}

/// The exception level that debug exceptions go to.
pub(crate) fn debug_target(core: &Core) -> u8 {
    let tde = core.regs.get(sys::MDCR_EL2) >> 8 & 1 != 0;
    if el2_enabled(core) && (tde || hcr_in_effect(core) & hcr::TGE != 0) {
        2
    } else {
        1
    }
}

/// SCTLR_ELx.BT: PACIASP is no landing pad for every branch.
pub(crate) fn bt_bit(core: &Core) -> bool {
    let bit = if core.arch.el == 0 {
        sctlr_bits::BT0
    } else {
        sctlr_bits::BT1
    };
    sctlr(core) & bit != 0
}
