//! MRS, MSR and SYS: who may, where it traps to, what it does (DDI 0487, C5, D1.5 "Configurable
//! instruction controls").

use accel_core::{Trap, reason};

use super::control::{self, hcr, mdcr};
use super::exception::{self, class, esr, raise_to, undefined};
use super::registers::{self as sys, Effect, Row};
use super::{debug, special, tlb, translation};
use crate::model::Feature;
use crate::port::SysReg;
use crate::{Core, mode};

/// The register of an MRS, MSR or SYS instruction.
pub(super) fn register(word: u64) -> SysReg {
    SysReg((word >> 5) as u16)
}

/// Syndrome of a trapped access (ESR_ELx, EC 0x18).
pub(super) fn iss(word: u64) -> u64 {
    let (op0, op1, crn, crm, op2) = register(word).fields();
    let [op0, op1, crn, crm, op2] = [op0, op1, crn, crm, op2].map(u64::from);
    let read = word >> 21 & 1;
    op0 << 20 | op2 << 17 | op1 << 14 | crn << 10 | (word & 31) << 5 | crm << 1 | read
}

/// A trapped access: noted.
pub(super) fn trap(core: &mut Core, to: u8, word: u64) -> Trap {
    raise_to(core, to, esr(class::SYSTEM, iss(word)), None)
}

/// Debug registers that a bit of MDCR_ELx traps.
fn debug_trap(reg: SysReg) -> u64 {
    match reg.fields() {
        (2, 0, 1, 0, 4) | (2, 0, 1, 1 | 3 | 4, 4) => mdcr::TDOSA,
        (2, 0, 0, _, _) | (2, 3, 0, _, _) | (2, 0, 7, _, _) => mdcr::TDA,
        _ => 0,
    }
}

/// Traps that CPTR_ELx, MDCR_EL3, SCR_EL3 and, from EL1, HCR_EL2 ask for.
fn check_traps(core: &mut Core, word: u64, write: bool) -> Result<(), Trap> {
    if core.arch.el == 1 {
        check_hypervisor(core, word, write)?;
    }
    if core.arch.el == 3 || !core.arch.model.has(Feature::El3) {
        return Ok(());
    }
    let get = |slot| core.regs.get(slot);
    let reg = register(word);
    let traps = match reg.fields() {
        (3, 0, 1, 0, 2) => core.arch.el > 0 && get(sys::CPTR_EL3) & control::TCPAC != 0,
        (3, 4, 1, 1, 2) => core.arch.el == 2 && get(sys::CPTR_EL3) & control::TCPAC != 0,
        (3, 0, 10, 4, _) => core.arch.el > 0 && get(sys::SCR_EL3) & control::scr::TLOR != 0,
        (3, 0, 2, 1..=3, _) => core.arch.el > 0 && get(sys::SCR_EL3) & control::scr::APK == 0,
        // Those that are not there are UNDEFINED, and EL0 has but few.
        _ => core.arch.el > 0 && get(sys::MDCR_EL3) & debug_trap(reg) != 0,
    };
    if traps {
        return Err(trap(core, 3, word));
    }
    Ok(())
}

/// Traps from EL1 that HCR_EL2, MDCR_EL2 and CPTR_EL2 ask for.
fn check_hypervisor(core: &mut Core, word: u64, write: bool) -> Result<(), Trap> {
    let now = control::hcr_in_effect(core);
    let (op0, op1, crn, crm, op2) = register(word).fields();
    let debug = control::mdcr_in_effect(core);
    let debug_traps = match debug_trap(register(word)) {
        0 => 0,
        own => own | mdcr::TDE,
    };
    let is_cpacr = register(word).fields() == (3, 0, 1, 0, 2) && control::el2_enabled(core);
    let cptr = core.regs.get(sys::CPTR_EL2);
    if debug & debug_traps != 0 || is_cpacr && cptr & control::TCPAC != 0 {
        return Err(trap(core, 2, word));
    }
    let is_key = matches!((op0, op1, crn, crm), (3, 0, 2, 1..=3));
    if is_key && control::traps_keys(core) {
        return Err(trap(core, 2, word));
    }
    if now & hcr::TRAPS == 0 {
        return Ok(());
    }
    let has = |bit: u64| now & bit != 0;
    let traps = match (op0, op1, crn, crm, op2) {
        // Virtual memory controls.
        (3, 0, 1, 0, 0) | (3, 0, 2, 0, 0..=2) | (3, 0, 5, 1, 0 | 1) | (3, 0, 5, 2, 0) => {
            has(if write { hcr::TVM } else { hcr::TRVM })
        }
        (3, 0, 6, 0, 0) | (3, 0, 10, 2 | 3, 0) | (3, 0, 13, 0, 1) => {
            has(if write { hcr::TVM } else { hcr::TRVM })
        }
        (3, 0, 1, 0, 1) => has(hcr::TACR),
        (3, 0, 0, 1..=7, _) => has(hcr::TID3),
        (3, 0, 0, 0, 6) | (3, 1, 0, 0, 7) => has(hcr::TID1),
        (3, 1, 0, 0, 0..=2) | (3, 2, 0, 0, 0) | (3, 3, 0, 0, 1) => has(hcr::TID2),
        (1, 0, 7, 6 | 10 | 14, 2) => has(hcr::TSW),
        (1, 0, 8, _, _) => has(hcr::TTLB),
        _ => false,
    };
    if traps {
        return Err(trap(core, 2, word));
    }
    Ok(())
}

/// The row of a register that exists and may be accessed; `None` if it is not one of the table.
fn row(core: &Core, reg: SysReg, write: bool) -> Option<Result<&'static Row, ()>> {
    let row = sys::find(reg)?;
    let least = if write { row.write } else { row.read };
    let may = core.arch.el >= least && row.exists(&core.arch.model);
    Some(if may { Ok(row) } else { Err(()) })
}

/// EL3 finds the registers of an EL2 that is not there (D1.3 "RES0 from EL3").
fn is_absent_el2(core: &Core, reg: SysReg) -> bool {
    let model = &core.arch.model;
    let is_its = sys::find(reg).is_some_and(|row| row.read == 2 && row.feature.is_none());
    core.arch.el == 3 && is_its && !model.has(Feature::El2)
}

/// What they hold.
fn absent_el2(core: &Core, reg: SysReg) -> u64 {
    match sys::find(reg).map(|row| row.slot) {
        Some(sys::VPIDR_EL2) => core.arch.model.id.midr,
        Some(sys::VMPIDR_EL2) => super::reset::mpidr(core),
        _ => 0,
    }
}

/// Names with op1 = 5 exist only for a host.
fn redirected(core: &Core, word: u64) -> Option<SysReg> {
    let reg = register(word);
    let host = core.arch.el == 2 && super::is_host(core);
    let (op0, op1, ..) = reg.fields();
    if op0 == 3 && op1 == 5 && !host {
        return None;
    }
    Some(sys::redirect(reg, host))
}

/// (instruction): value.
pub(crate) fn mrs(core: &mut Core, [word, ..]: [u64; 4]) -> Result<u64, Trap> {
    check_traps(core, word, false)?;
    let Some(reg) = redirected(core, word) else {
        return Err(undefined(core));
    };
    match row(core, reg, false) {
        Some(Ok(row)) => Ok(core.regs.get(row.slot)),
        Some(Err(())) if is_absent_el2(core, reg) => Ok(absent_el2(core, reg)),
        // CNTFRQ_EL0 has another way from EL0.
        Some(Err(())) | None => special::read(core, reg, word),
    }
}

/// (instruction, value, next): may leave.
pub(crate) fn msr(core: &mut Core, [word, value, next, ..]: [u64; 4]) -> Result<u64, Trap> {
    check_traps(core, word, true)?;
    let Some(reg) = redirected(core, word) else {
        return Err(undefined(core));
    };
    match row(core, reg, true) {
        Some(Ok(row)) => write_row(core, row, value, next),
        Some(Err(())) if is_absent_el2(core, reg) => Ok(0),
        Some(Err(())) => Err(undefined(core)),
        None => special::write(core, reg, word, value, next),
    }
}

fn write_row(core: &mut Core, row: &Row, value: u64, next: u64) -> Result<u64, Trap> {
    let old = core.regs.get(row.slot);
    match row.effect {
        Effect::None => {
            core.regs.set(row.slot, value);
            return Ok(0);
        }
        Effect::Mask(mask) => {
            core.regs.set(row.slot, value & mask);
            return Ok(0);
        }
        Effect::CounterOffset => {
            core.regs.set(row.slot, value);
            core.port.set_counter_offset(value);
            return Ok(0);
        }
        Effect::Base => core.regs.set(row.slot, value),
        // Address spaces of the worlds are apart: nothing is forgotten.
        Effect::Secure => {
            core.regs.set(row.slot, control::scr_value(core, value));
            core.pending.raise(reason::INTR);
        }
        Effect::Mode => {
            core.regs.set(row.slot, value);
            if row.slot == sys::MDSCR_EL1 {
                debug::arm(core);
            }
        }
        Effect::Translation => {
            core.regs.set(row.slot, value);
            if old != value {
                core.mmu.flush_all();
            }
        }
        Effect::Hypervisor => {
            core.regs.set(row.slot, value);
            core.mmu.flush_all();
            core.pending.raise(reason::INTR);
        }
    }
    exception::changed(core);
    leave(core, next)
}

/// Ends an instruction after which the unit must be left.
pub(super) fn leave(core: &mut Core, next: u64) -> Result<u64, Trap> {
    core.set_pc(next);
    Err(Trap::Leave)
}

/// (instruction): the trap of an access that EL0 may not make.
pub(crate) fn sys_trap(core: &mut Core, [word, ..]: [u64; 4]) -> Result<u64, Trap> {
    let to = exception::default_target(core);
    Err(trap(core, to, word))
}

/// (instruction, value, next): TLB maintenance and address translation. Leaves.
pub(crate) fn sys(core: &mut Core, [word, value, next, ..]: [u64; 4]) -> Result<u64, Trap> {
    check_traps(core, word, true)?;
    let reg = register(word);
    let (_, op1, crn, crm, op2) = reg.fields();
    let el = core.arch.el;
    let least = match op1 {
        0 => 1,
        4 => 2,
        6 => 3,
        _ => return Err(undefined(core)),
    };
    if el < least || op1 == 4 && !core.arch.model.has(Feature::El2) {
        return Err(undefined(core));
    }
    let there = match (crn, crm) {
        (8, 1 | 5) => core.arch.model.has(Feature::TlbiOs),
        (8, 2 | 6) => core.arch.model.has(Feature::TlbiRange),
        _ => true,
    };
    if there && crn == 8 && tlb::invalidate(core, reg, value) {
        return leave(core, next);
    }
    if crn == 7 && crm == 8
        || crn == 7 && crm == 9 && op1 == 0 && core.arch.model.has(Feature::Pan2)
    {
        return translate(core, (op1, crm, op2), value).map(|()| 0);
    }
    Err(undefined(core))
}

/// AT: PAR_EL1 (D23.2.111).
fn translate(core: &mut Core, (op1, crm, op2): (u16, u16, u16), va: u64) -> Result<(), Trap> {
    use accel_core::Access;
    let regime = match op1 {
        0 if core.arch.el == 2 && control::hcr_in_effect(core) & hcr::TGE != 0 => {
            control::regime(core)
        }
        0 => 1,
        4 if op2 >= 4 => 1,
        4 => 2,
        _ => 3,
    };
    let user = op2 & 2 != 0;
    let ctx = if user {
        mode::ctx::USER
    } else if crm == 9 && core.arch.pan {
        mode::ctx::PAN
    } else {
        mode::ctx::PRIVILEGED
    };
    let query = translation::Query {
        va,
        access: if op2 & 1 != 0 {
            Access::Write
        } else {
            Access::Read
        },
        regime,
        ctx,
        update: false,
        // S12E1 and S12E0 are what asks for both.
        first_stage: !(op1 == 4 && op2 >= 4),
    };
    let par = match translation::find(core, &query) {
        // Normal memory, inner and outer write-back, outer shareable.
        Ok(found) => 0xff << 56 | found.physical & 0x0000_ffff_ffff_f000 | 2 << 7 | 1 << 11,
        // A guest's own tables that its hypervisor has not mapped: as an access would.
        Err(fault) if fault.is_in_walk() && core.arch.el == 1 => {
            let trap = translation::abort(core, va, query.access, fault);
            if let Some(exception) = &mut core.arch.exception {
                // CM and WnR.
                exception.esr |= 1 << 8 | 1 << 6;
            }
            return Err(trap);
        }
        Err(fault) => {
            let stage = u64::from(fault.is_stage_2()) << 9;
            let walk = u64::from(fault.is_in_walk()) << 8;
            1 | fault.status() << 1 | walk | stage | 1 << 11
        }
    };
    core.regs.set(sys::PAR_EL1, par);
    Ok(())
}

/// (op1:op2, immediate, next): MSR (immediate) of PSTATE fields. Leaves.
pub(crate) fn msr_imm(core: &mut Core, [what, imm, next, ..]: [u64; 4]) -> Result<u64, Trap> {
    let on = imm & 1 != 0;
    match what {
        0b000_011 => core.arch.uao = on,
        0b000_100 => core.arch.pan = on,
        0b000_101 => {
            let el = core.arch.el;
            exception::set_level(core, el, on);
        }
        0b011_001 => core.arch.ssbs = on,
        0b011_010 => core.arch.dit = on,
        _ => return Err(undefined(core)),
    }
    mode::refresh(core);
    leave(core, next)
}

/// (next): PSTATE.DAIF changed: leaves if an interrupt may be taken now.
pub(crate) fn unmasked(core: &mut Core, [next, ..]: [u64; 4]) -> Result<u64, Trap> {
    let stepping = core.regs.get(sys::MDSCR_EL1) & 1 != 0;
    let changed = stepping && mode::refresh(core);
    if changed || core.pending.get() & reason::INTR != 0 {
        return leave(core, next);
    }
    Ok(0)
}
