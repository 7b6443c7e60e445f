//! Exceptions: syndromes, routing, entry and return (DDI 0487, D1.3, D24.2.40 "ESR_EL1").

use accel_core::{Exit, Trap};

use super::control::{self, hcr, sctlr_bits};
use super::registers as sys;
use crate::mode;
use crate::model::Feature;
use crate::state::{Exception, Vector};
use crate::{Core, regs};

/// Exception classes (ESR_ELx.EC).
#[allow(missing_docs)]
pub(crate) mod class {
    pub(crate) const UNKNOWN: u64 = 0x00;
    pub(crate) const WFX: u64 = 0x01;
    pub(crate) const CP15: u64 = 0x03;
    pub(crate) const CP15_WIDE: u64 = 0x04;
    pub(crate) const CP14: u64 = 0x05;
    pub(crate) const CP14_WIDE: u64 = 0x0c;
    pub(crate) const FP: u64 = 0x07;
    pub(crate) const PAUTH: u64 = 0x09;
    pub(crate) const BTI: u64 = 0x0d;
    pub(crate) const ILLEGAL: u64 = 0x0e;
    pub(crate) const SVC_32: u64 = 0x11;
    pub(crate) const SVC: u64 = 0x15;
    pub(crate) const HVC: u64 = 0x16;
    pub(crate) const SMC: u64 = 0x17;
    pub(crate) const SYSTEM: u64 = 0x18;
    pub(crate) const FETCH_LOWER: u64 = 0x20;
    pub(crate) const FETCH_SAME: u64 = 0x21;
    pub(crate) const PC_ALIGNMENT: u64 = 0x22;
    pub(crate) const DATA_LOWER: u64 = 0x24;
    pub(crate) const DATA_SAME: u64 = 0x25;
    pub(crate) const SP_ALIGNMENT: u64 = 0x26;
    pub(crate) const BREAKPOINT_LOWER: u64 = 0x30;
    pub(crate) const STEP_LOWER: u64 = 0x32;
    pub(crate) const STEP_SAME: u64 = 0x33;
    pub(crate) const WATCHPOINT_LOWER: u64 = 0x34;
    pub(crate) const BKPT_32: u64 = 0x38;
    pub(crate) const BRK: u64 = 0x3c;
}

/// ESR_ELx.IL: the instruction has 32 bits.
pub(crate) const IL: u64 = 1 << 25;

/// A syndrome.
pub(crate) fn esr(class: u64, iss: u64) -> u64 {
    class << 26 | IL | iss & 0x1ff_ffff
}

/// Where exceptions go that nothing routes elsewhere.
pub(crate) fn default_target(core: &Core) -> u8 {
    match core.arch.el {
        0 if control::hcr_in_effect(core) & hcr::TGE != 0 => 2,
        0 => 1,
        el => el,
    }
}

/// Notes a synchronous exception.
pub(crate) fn raise_to(core: &mut Core, to: u8, esr: u64, far: Option<u64>) -> Trap {
    core.arch.exception = Some(Exception {
        vector: Vector::Synchronous,
        to,
        esr,
        far,
        hpfar: None,
    });
    Trap::Exception
}

/// Notes a synchronous exception to where it goes by default.
pub(crate) fn raise(core: &mut Core, class: u64, iss: u64, far: Option<u64>) -> Trap {
    let to = default_target(core);
    raise_to(core, to, esr(class, iss), far)
}

/// An UNDEFINED instruction.
pub(crate) fn undefined(core: &mut Core) -> Trap {
    raise(core, class::UNKNOWN, 0, None)
}

/// SPSR_ELx.M of AArch32's User mode.
const USER_32: u64 = 0x10;

/// What PSTATE has in AArch32 only (C5.2.19): T, E, IT, GE, Q.
fn pstate_32(core: &Core) -> u64 {
    let it = core.regs.get(regs::IT);
    let mut value = USER_32 | (it & 0xfc) << 8 | (it & 3) << 25;
    value |= (core.regs.get(regs::GE) & 15) << 16 | (core.regs.get(regs::Q) & 1) << 27;
    for (bit, on) in [(5, core.arch.thumb), (9, core.arch.big_endian)] {
        value |= u64::from(on).wrapping_shl(bit);
    }
    // SSBS is elsewhere.
    value | u64::from(core.arch.ssbs) << 23
}

/// Changes to AArch32 as an SPSR says, or to AArch64.
pub(crate) fn set_state(core: &mut Core, spsr: u64) {
    let is_32 = spsr & USER_32 != 0;
    let when = |value: u64| if is_32 { value } else { 0 };
    core.arch.aarch32 = is_32;
    core.arch.thumb = when(spsr >> 5 & 1) != 0;
    core.arch.big_endian = when(spsr >> 9 & 1) != 0;
    core.regs
        .set(regs::IT, when(spsr >> 8 & 0xfc | spsr >> 25 & 3));
    core.regs.set(regs::GE, when(spsr >> 16 & 15));
    core.regs.set(regs::Q, when(spsr >> 27 & 1));
}

/// PSTATE as SPSR_ELx holds it (C5.2.19).
pub(crate) fn pstate(core: &Core) -> u64 {
    let state = &core.arch;
    let mut value = mode::nzcv(core) | core.regs.get(regs::DAIF) & 0x3c0;
    let is_32 = state.aarch32;
    if is_32 {
        value |= pstate_32(core);
        // PSTATE.D is AArch64's.
        value &= !(1 << 9) | u64::from(state.big_endian) << 9;
    } else {
        value |= u64::from(state.el) << 2 | u64::from(state.sp_sel);
        value |= (core.regs.get(regs::BTYPE) & 3) << 10;
    }
    for (bit, on) in [
        (12, state.ssbs && !is_32),
        (20, state.il),
        (21, state.ss),
        (22, state.pan),
        (23, state.uao && !is_32),
        (24, state.dit),
    ] {
        value |= u64::from(on).wrapping_shl(bit);
    }
    value
}

/// The slot of a register by exception level.
fn by_level(el: u8, slots: [accel_ir::Slot; 3]) -> accel_ir::Slot {
    let [one, two, three] = slots;
    match el {
        0 | 1 => one,
        2 => two,
        _ => three,
    }
}

fn spsr(el: u8) -> accel_ir::Slot {
    by_level(el, [sys::SPSR_EL1, sys::SPSR_EL2, sys::SPSR_EL3])
}

fn elr(el: u8) -> accel_ir::Slot {
    by_level(el, [sys::ELR_EL1, sys::ELR_EL2, sys::ELR_EL3])
}

/// Changes exception level and stack pointer.
pub(crate) fn set_level(core: &mut Core, el: u8, sp_sel: bool) {
    let bank = |el: u8, sel: bool| regs::sp_bank(if sel { el } else { 0 });
    let old = bank(core.arch.el, core.arch.sp_sel);
    let new = bank(el, sp_sel);
    if old != new {
        let sp = core.regs.get(regs::SP);
        core.regs.set(old, sp);
        let sp = core.regs.get(new);
        core.regs.set(regs::SP, sp);
    }
    core.arch.el = el;
    core.arch.sp_sel = sp_sel;
}

/// Delivers the noted exception.
pub(crate) fn deliver(core: &mut Core) -> Result<(), Exit> {
    if std::mem::take(&mut core.arch.again) {
        return Err(Exit::Yield);
    }
    if std::mem::take(&mut core.arch.pmu.retry) {
        core.arch.pmu.is_exact = true;
        return Ok(());
    }
    let Some(mut exception) = core.arch.exception.take() else {
        return Err(Exit::Internal("an exception without a reason"));
    };
    if exception.hpfar.is_some() && exception.esr >> 26 == class::DATA_LOWER {
        exception.esr |= stage_2_syndrome(core, exception.esr);
    }
    enter(core, exception);
    Ok(())
}

/// What the syndrome of a stage 2 data abort says of the instruction, if that is one of A64.
fn stage_2_syndrome(core: &Core, esr: u64) -> u64 {
    // S1PTW: of the walk of stage 1, not of the instruction's own access.
    if esr >> 7 & 1 != 0 || core.arch.aarch32 {
        return 0;
    }
    let address = super::describe::debug_translate(core, core.pc());
    let word = address.and_then(|pa| {
        let (block, offset) = core.mmu.block_at(pa)?;
        block.load(offset, 4)
    });
    word.map_or(0, |word| super::syndrome::of(word as u32))
}

/// `AArch64.TakeException`.
pub(crate) fn enter(core: &mut Core, exception: Exception) {
    super::pmu::level_changes(core);
    let from = core.arch.el;
    let to = exception.to;
    log::debug!(
        target: "int",
        "cpu {}: {:?} from EL{from} to EL{to}, ESR {:#x}, ELR {:#x}, FAR {:x?}",
        core.index, exception.vector, exception.esr, core.pc(), exception.far
    );
    let offset = match exception.vector {
        Vector::Synchronous => 0,
        Vector::Irq => 0x80,
        Vector::Fiq => 0x100,
    };
    let host = control::hcr_in_effect(core) & (hcr::E2H | hcr::TGE) == hcr::E2H | hcr::TGE;
    let source = if from < to {
        // What counts is the level just below, which only EL0 can have AArch32 at.
        let below = to == 1 || to == 2 && host;
        if core.arch.aarch32 && below {
            0x600
        } else {
            0x400
        }
    } else if core.arch.sp_sel {
        0x200
    } else {
        0
    };
    let saved = pstate(core);
    core.regs.set(spsr(to), saved);
    let pc = core.pc();
    core.regs.set(elr(to), pc);
    if exception.vector == Vector::Synchronous {
        core.regs.set(
            by_level(to, [sys::ESR_EL1, sys::ESR_EL2, sys::ESR_EL3]),
            exception.esr,
        );
        if let Some(far) = exception.far {
            core.regs.set(
                by_level(to, [sys::FAR_EL1, sys::FAR_EL2, sys::FAR_EL3]),
                far,
            );
        }
        if let Some(hpfar) = exception.hpfar {
            core.regs.set(sys::HPFAR_EL2, hpfar);
        }
    }
    set_level(core, to, true);
    set_state(core, 0);
    if super::pmu::is_active(core) {
        super::pmu::follow(core);
    }
    let sctlr = control::sctlr_of(core, to);
    core.regs.set(regs::DAIF, 0x3c0);
    core.regs.set(regs::BTYPE, 0);
    let host =
        to == 2 && control::hcr_in_effect(core) & (hcr::E2H | hcr::TGE) == hcr::E2H | hcr::TGE;
    if core.arch.model.has(Feature::Pan) && (to == 1 || host) && sctlr & sctlr_bits::SPAN == 0 {
        core.arch.pan = true;
    }
    core.arch.uao = false;
    core.arch.il = false;
    core.arch.ss = false;
    if core.arch.model.has(Feature::Ssbs) {
        core.arch.ssbs = sctlr & sctlr_bits::DSSBS != 0;
    }
    let base = core
        .regs
        .get(by_level(to, [sys::VBAR_EL1, sys::VBAR_EL2, sys::VBAR_EL3]));
    core.set_pc(base.wrapping_add(source).wrapping_add(offset));
    changed(core);
}

/// Exception level, controls or address space changed: brings what is derived in line.
pub(crate) fn changed(core: &mut Core) {
    super::translation::switch(core);
    mode::refresh(core);
}

/// Whether an SPSR describes a state that an exception return may lead to.
fn is_legal(core: &Core, spsr: u64) -> bool {
    let el = (spsr >> 2 & 3) as u8;
    let model = &core.arch.model;
    let exists = match el {
        2 => control::el2_enabled(core),
        3 => model.has(Feature::El3),
        _ => true,
    };
    let tge = control::hcr_in_effect(core) & hcr::TGE != 0;
    if spsr & USER_32 != 0 {
        // AArch32 at EL0 only.
        return spsr & 0xf == 0 && model.has(Feature::El0Is32);
    }
    spsr & 2 == 0
        && exists
        && el <= core.arch.el
        && !(el == 0 && spsr & 1 != 0)
        && !(el == 1 && tge)
}

/// ERET: `next` comes from ELR, already authenticated where that was asked for.
pub(crate) fn exception_return(core: &mut Core, target: u64) -> Trap {
    if let Err(trap) = super::pmu::level_returns(core) {
        return trap;
    }
    let from = core.arch.el;
    let value = core.regs.get(spsr(from));
    core.regs.set(regs::MONITOR, u64::MAX);
    let legal = is_legal(core, value);
    let stepping = control::steps(core);
    mode::set_nzcv(core, value);
    let is_32 = legal && value & USER_32 != 0;
    // AArch32 has E where PSTATE.D is.
    core.regs
        .set(regs::DAIF, value & if is_32 { 0x1c0 } else { 0x3c0 });
    let model = core.arch.model.clone();
    let bit = |n: u32, there: bool| there && value.wrapping_shr(n) & 1 != 0;
    let btype = if model.has(Feature::Bti) {
        value >> 10 & 3
    } else {
        0
    };
    if legal {
        set_level(core, (value >> 2 & 3) as u8, value & 1 != 0);
        set_state(core, value);
        core.arch.il = bit(20, true);
        core.regs.set(regs::BTYPE, if is_32 { 0 } else { btype });
        core.arch.ssbs = bit(if is_32 { 23 } else { 12 }, model.has(Feature::Ssbs));
        core.arch.pan = bit(22, model.has(Feature::Pan));
        core.arch.uao = bit(23, model.has(Feature::Uao)) && !is_32;
        core.arch.dit = bit(24, model.has(Feature::Dit));
    } else {
        // The level stays; the next instruction is an illegal state.
        core.arch.il = true;
    }
    changed(core);
    if super::pmu::is_active(core) {
        super::pmu::follow(core);
    }
    core.arch.ss = bit(21, true) && !stepping && control::steps(core);
    core.set_pc(match core.arch.aarch32 {
        true => {
            target
                & if core.arch.thumb {
                    0xffff_fffe
                } else {
                    0xffff_fffc
                }
        }
        false => target,
    });
    if core.arch.guarded && btype != 0 {
        mode::refresh(core);
    }
    Trap::Leave
}

/// The return address of an ERET at the current level.
pub(crate) fn return_address(core: &Core) -> u64 {
    core.regs.get(elr(core.arch.el))
}
