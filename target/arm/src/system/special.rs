//! System registers that are made up of other state: identification, PSTATE, timers, debug, the GIC's.

use accel_core::{Trap, reason};

use super::access::{leave, trap};
use super::exception::undefined;
use super::{control, dcc, debug, exception, pmu, registers as sys};
use crate::model::Feature;
use crate::port::{GicAccess, GicFault, SysReg, Timer};
use crate::{Core, mode, regs};

/// DC ZVA zeroes 64 bytes: log2 of the words.
pub(crate) const ZVA_WORDS: u64 = 4;
/// OSLSR_EL1.OSLM: the lock exists.
const OS_LOCK: u64 = 1 << 3;

fn timer_of(op1: u16, crm: u16) -> Option<(Timer, u8)> {
    Some(match (op1, crm) {
        (3, 2) => (Timer::Physical, 0),
        (3, 3) => (Timer::Virtual, 0),
        (4, 2) => (Timer::HypPhysical, 2),
        (4, 3) => (Timer::HypVirtual, 2),
        (7, 2) => (Timer::SecurePhysical, 1),
        _ => return None,
    })
}

/// The counter.
pub(crate) fn counter(core: &Core) -> u64 {
    core.clock.ticks(core.arch.model.counter_hz())
}

/// What the virtual counter is behind the counter.
fn virtual_offset(core: &Core) -> u64 {
    let host = super::is_host(core) && core.arch.el == 2 || control::is_host_user(core);
    if host || !control::el2_enabled(core) {
        0
    } else {
        core.regs.get(sys::CNTVOFF_EL2)
    }
}

/// The counter that a timer compares with.
fn counter_of(core: &Core, timer: Timer) -> u64 {
    match timer {
        Timer::Virtual => counter(core).wrapping_sub(core.regs.get(sys::CNTVOFF_EL2)),
        _ => counter(core),
    }
}

/// Checks CNTKCTL_EL1 and CNTHCTL_EL2. `bit` is the place of the enabling bit for EL0.
fn check_timer(core: &mut Core, word: u64, bit: u32, physical: Option<u32>) -> Result<(), Trap> {
    let el = core.arch.el;
    let host = control::is_host_user(core);
    if el == 0 {
        let controls = match host {
            true => core.regs.get(sys::CNTHCTL_EL2),
            false => core.regs.get(sys::CNTKCTL_EL1),
        };
        if controls.wrapping_shr(bit) & 1 == 0 {
            let to = exception::default_target(core);
            return Err(trap(core, to, word));
        }
    }
    if let Some(bit) = physical
        && el < 2
        && !host
        && control::el2_enabled(core)
    {
        let shift = if super::is_host(core) { 10u32 } else { 0 };
        let controls = core.regs.get(sys::CNTHCTL_EL2);
        if controls.wrapping_shr(bit.wrapping_add(shift)) & 1 == 0 {
            return Err(trap(core, 2, word));
        }
    }
    Ok(())
}

/// (instruction): CNTPCT_EL0.
pub(crate) fn read_counter(core: &mut Core, [word, ..]: [u64; 4]) -> Result<u64, Trap> {
    check_timer(core, word, 0, Some(0))?;
    Ok(counter(core))
}

/// (instruction): CNTVCT_EL0.
pub(crate) fn read_virtual_counter(core: &mut Core, [word, ..]: [u64; 4]) -> Result<u64, Trap> {
    check_timer(core, word, 1, None)?;
    Ok(counter(core).wrapping_sub(virtual_offset(core)))
}

fn gic_access(core: &Core, reg: SysReg) -> Option<GicAccess> {
    let (op0, op1, crn, crm, _) = reg.fields();
    let is_gic = op0 == 3
        && matches!(
            (op1, crn, crm),
            (0, 4, 6) | (0, 12, 8..=12) | (4, 12, 8..=15) | (6, 12, 12)
        );
    let least = match op1 {
        0 => 1,
        4 => 2,
        _ => 3,
    };
    (is_gic && core.arch.el >= least && core.arch.model.has(Feature::Gic)).then(|| GicAccess {
        reg,
        el: core.arch.el,
        hcr: control::hcr_in_effect(core),
        scr: control::scr_in_effect(core),
    })
}

fn gic_fault(core: &mut Core, fault: GicFault, word: u64) -> Trap {
    match fault {
        GicFault::Undefined => undefined(core),
        GicFault::Trap(to) => trap(core, to, word),
    }
}

/// Identification (D23.2, op0 = 3, op1 = 0, CRn = 0).
fn identification(core: &Core, crm: u16, op2: u16) -> u64 {
    let id = &core.arch.model.id;
    if crm < 4 {
        return super::aarch32_id::value(&core.arch.model, crm, op2);
    }
    match (crm, op2) {
        (4, 0) => id.pfr0,
        (4, 1) => id.pfr1,
        (5, 0) => id.dfr0,
        (6, 0) => id.isar0,
        (6, 1) => id.isar1,
        (6, 2) => id.isar2,
        (7, 0) => id.mmfr0,
        (7, 1) => id.mmfr1,
        (7, 2) => id.mmfr2,
        _ => 0,
    }
}

fn ccsidr(core: &Core) -> u64 {
    let [data, code, second] = core.arch.model.id.ccsidr;
    match core.regs.get(sys::CSSELR_EL1) {
        0 => data,
        1 => code,
        2 => second,
        _ => 0,
    }
}

pub(super) fn read(core: &mut Core, reg: SysReg, word: u64) -> Result<u64, Trap> {
    let el = core.arch.el;
    let privileged = el > 0;
    let guest = el == 1 && control::el2_enabled(core);
    let get = |slot| core.regs.get(slot);
    if let Some(access) = gic_access(core, reg) {
        return core
            .port
            .gic_read(access)
            .map_err(|fault| gic_fault(core, fault, word));
    }
    if let Some(reg) = pmu::register(core, reg) {
        return pmu::read(core, reg, word);
    }
    let has = |f| core.arch.model.has(f);
    let value = match reg.fields() {
        (3, 0, 0, 0, 0) if guest => get(sys::VPIDR_EL2),
        (3, 0, 0, 0, 5) if guest => get(sys::VMPIDR_EL2),
        (3, 0, 0, 0, 0) if privileged => core.arch.model.id.midr,
        (3, 0, 0, 0, 5) if privileged => super::reset::mpidr(core),
        (3, 0, 0, 0, 6) | (3, 1, 0, 0, 7) if privileged => 0,
        (3, 0, 0, crm @ 1..=7, op2) if privileged => identification(core, crm, op2),
        (3, 1, 0, 0, 0) if privileged => ccsidr(core),
        (3, 1, 0, 0, 1) if privileged => core.arch.model.id.clidr,
        (3, 3, 0, 0, 1) => {
            if mode::Mode(core.mode).ctr_traps() {
                let to = exception::default_target(core);
                return Err(trap(core, to, word));
            }
            core.arch.model.id.ctr
        }
        (3, 3, 0, 0, 7) => ZVA_WORDS | u64::from(el == 0 && mode::Mode(core.mode).zva_traps()) << 4,
        (3, 3, 2, 4, 0 | 1) if has(Feature::Rng) => {
            let random = core.port.random();
            // Z says that there was none.
            mode::set_nzcv(core, if random.is_some() { 0 } else { 1 << 30 });
            random.unwrap_or(0)
        }
        (3, 0, 4, 2, 2) if privileged => u64::from(el) << 2,
        (3, 0, 4, 2, 0) if privileged => core.arch.sp_sel.into(),
        (3, 0, 4, 2, 3) if privileged && has(Feature::Pan) => u64::from(core.arch.pan) << 22,
        (3, 0, 4, 2, 4) if privileged && has(Feature::Uao) => u64::from(core.arch.uao) << 23,
        (3, 3, 4, 2, 1) => {
            if mode::Mode(core.mode).daif_traps() {
                let to = exception::default_target(core);
                return Err(trap(core, to, word));
            }
            get(regs::DAIF)
        }
        (3, 3, 4, 2, 5) if has(Feature::Dit) => u64::from(core.arch.dit) << 24,
        (3, 3, 4, 2, 6) if has(Feature::Ssbs2) => u64::from(core.arch.ssbs) << 12,
        // SP_EL0 while it is in use is UNDEFINED.
        (3, 0, 4, 1, 0) if privileged && core.arch.sp_sel => get(regs::sp_bank(0)),
        (3, 4, 4, 1, 0) if el >= 2 => get(regs::sp_bank(1)),
        (3, 6, 4, 1, 0) if el >= 3 => get(regs::sp_bank(2)),
        (3, 3, 4, 4, 0) => get(regs::FPCR),
        (3, 3, 4, 4, 1) => {
            fp_access(core)?;
            crate::float::fpsr(core)
        }
        (3, 0, 12, 0, 1) if el == 1 && reset_level(core) == 1 => core.arch.model.rvbar(),
        (3, 4, 12, 0, 1) if el == 2 && reset_level(core) == 2 => core.arch.model.rvbar(),
        (3, 6, 12, 0, 1) if el == 3 => core.arch.model.rvbar(),
        (3, 0, 12, 1, 0) if privileged => {
            let world = control::world(core);
            u64::from(core.port.irq(world)) << 7 | u64::from(core.port.fiq(world)) << 6
        }
        (3, 3, 14, 0, 0) => {
            // EL0's way; from EL1 on the table has it.
            let both = get(sys::CNTKCTL_EL1) & 3;
            if both == 0 && !control::is_host_user(core) {
                let to = exception::default_target(core);
                return Err(trap(core, to, word));
            }
            get(sys::CNTFRQ_EL0)
        }
        (3, 3, 14, 0, 1) => return read_counter(core, [word, 0, 0, 0]),
        (3, 3, 14, 0, 2) => return read_virtual_counter(core, [word, 0, 0, 0]),
        (3, op1, 14, crm, op2 @ 0..=2) => return timer_read(core, (op1, crm, op2), word),
        (2, 0, 1, 1, 4) if privileged => OS_LOCK | u64::from(core.arch.os_lock) << 1,
        (2, 0, 0, n, kind @ 4..=7) if privileged && debug::exists(core, n, kind) => {
            core.arch.debug_register(n, kind)
        }
        (2, 0, 7, 8, 6) if privileged => 0xff,
        (2, 0, 1, 0, 0) | (2, 0, 7, 9 | 14, 6) if privileged => 0,
        // MDCCSR_EL0, DBGDTR_EL0, DBGDTRRX_EL0.
        (2, 3, 0, 1 | 4 | 5, 0) => {
            channel_access(core, word)?;
            0
        }
        // OSDTRRX_EL1, OSDTRTX_EL1, OSECCR_EL1.
        (2, 0, 0, 0 | 3 | 6, 2) if privileged => 0,
        (3, 0, 10, 4, 7) if privileged && has(Feature::Lor) => 0,
        (3, 0, 10, 4, 0..=3) if has_lor(core) => 0,
        _ => return Err(undefined(core)),
    };
    Ok(value)
}

/// Limited ordering regions are of the Non-secure state (D23.2 "LORC_EL1").
fn has_lor(core: &Core) -> bool {
    let el = core.arch.el;
    let is_there = core.arch.model.has(Feature::Lor) && el > 0;
    is_there && (el == 3 || !control::is_secure_below_el3(core))
}

fn reset_level(core: &Core) -> u8 {
    super::reset::highest_el(core)
}

/// Traps of the communications channel.
fn channel_access(core: &mut Core, word: u64) -> Result<(), Trap> {
    match dcc::trapped_to(core, control::mdcr::TDA) {
        Some(to) => Err(trap(core, to, word)),
        None => Ok(()),
    }
}

fn fp_access(core: &mut Core) -> Result<(), Trap> {
    if mode::Mode(core.mode).fp_traps() {
        return Err(super::calls::fp_trap_of(core));
    }
    Ok(())
}

fn timer_access(core: &mut Core, op1: u16, crm: u16, word: u64) -> Result<Timer, Trap> {
    let Some((mut timer, least)) = timer_of(op1, crm) else {
        return Err(undefined(core));
    };
    let there = match timer {
        Timer::HypPhysical => core.arch.model.has(Feature::El2),
        Timer::HypVirtual => core.arch.model.has(Feature::Vhe) && core.arch.model.has(Feature::El2),
        Timer::SecurePhysical => {
            let el = core.arch.el;
            let is_secure = control::is_secure_below_el3(core);
            if el == 1 && is_secure && control::scr_in_effect(core) & control::scr::ST == 0 {
                return Err(trap(core, 3, word));
            }
            el == 3 || el == 1 && is_secure
        }
        _ => true,
    };
    if core.arch.el < least || !there {
        return Err(undefined(core));
    }
    match timer {
        Timer::Physical => check_timer(core, word, 9, Some(1))?,
        Timer::Virtual => check_timer(core, word, 8, None)?,
        _ => {}
    }
    // A host's own names of EL0's timers are those of EL2.
    let own = super::access::register(word) == SysReg::new(3, 3, 14, crm, word as u16 >> 5 & 7);
    let host = core.arch.el == 2 && super::is_host(core) || control::is_host_user(core);
    if own && host {
        timer = match timer {
            Timer::Physical => Timer::HypPhysical,
            Timer::Virtual => Timer::HypVirtual,
            other => other,
        };
    }
    Ok(timer)
}

fn timer_read(core: &mut Core, (op1, crm, op2): (u16, u16, u16), word: u64) -> Result<u64, Trap> {
    let timer = timer_access(core, op1, crm, word)?;
    Ok(match op2 {
        // TVAL: signed 32 bits, read as zero-extended.
        0 => {
            let left = core.port.timer_compare(timer);
            left.wrapping_sub(counter_of(core, timer)) & 0xffff_ffff
        }
        1 => core.port.timer_control(timer),
        _ => core.port.timer_compare(timer),
    })
}

fn timer_write(
    core: &mut Core,
    (op1, crm, op2): (u16, u16, u16),
    word: u64,
    value: u64,
) -> Result<u64, Trap> {
    let timer = timer_access(core, op1, crm, word)?;
    match op2 {
        0 => {
            let ahead = i64::from(value as i32) as u64;
            let at = counter_of(core, timer).wrapping_add(ahead);
            core.port.set_timer_compare(timer, at);
        }
        1 => core.port.set_timer_control(timer, value & 3),
        _ => core.port.set_timer_compare(timer, value),
    }
    Ok(0)
}

pub(super) fn write(
    core: &mut Core,
    reg: SysReg,
    word: u64,
    value: u64,
    next: u64,
) -> Result<u64, Trap> {
    let el = core.arch.el;
    let privileged = el > 0;
    if let Some(access) = gic_access(core, reg) {
        return match core.port.gic_write(access, value) {
            // Priorities and masks may have changed: interrupts are looked at again.
            Ok(()) if core.pending.get() & reason::INTR != 0 => leave(core, next),
            Ok(()) => Ok(0),
            Err(fault) => Err(gic_fault(core, fault, word)),
        };
    }
    if let Some(reg) = pmu::register(core, reg) {
        pmu::write(core, reg, word, value)?;
        return leave(core, next);
    }
    let model = core.arch.model.clone();
    let has = |f| model.has(f);
    match reg.fields() {
        (3, 0, 4, 2, 0) if privileged => {
            exception::set_level(core, el, value & 1 != 0);
            mode::refresh(core);
            return leave(core, next);
        }
        (3, 0, 4, 2, 3) if privileged && has(Feature::Pan) => {
            core.arch.pan = value >> 22 & 1 != 0;
            mode::refresh(core);
            return leave(core, next);
        }
        (3, 0, 4, 2, 4) if privileged && has(Feature::Uao) => {
            core.arch.uao = value >> 23 & 1 != 0;
            mode::refresh(core);
            return leave(core, next);
        }
        // DAIF where it traps.
        (3, 3, 4, 2, 1) => {
            let to = exception::default_target(core);
            return Err(trap(core, to, word));
        }
        (3, 3, 4, 2, 5) if has(Feature::Dit) => core.arch.dit = value >> 24 & 1 != 0,
        (3, 3, 4, 2, 6) if has(Feature::Ssbs2) => core.arch.ssbs = value >> 12 & 1 != 0,
        (3, 0, 4, 1, 0) if privileged && core.arch.sp_sel => core.regs.set(regs::sp_bank(0), value),
        (3, 4, 4, 1, 0) if el >= 2 => core.regs.set(regs::sp_bank(1), value),
        (3, 6, 4, 1, 0) if el >= 3 => core.regs.set(regs::sp_bank(2), value),
        (3, 3, 4, 4, 0) => {
            fp_access(core)?;
            crate::float::set_fpcr(core, value);
            return leave(core, next);
        }
        (3, 3, 4, 4, 1) => {
            fp_access(core)?;
            crate::float::set_fpsr(core, value);
        }
        (3, op1, 14, crm, op2 @ 0..=2) => {
            return timer_write(core, (op1, crm, op2), word, value);
        }
        (2, 0, 1, 0, 4) if privileged => {
            core.arch.os_lock = value & 1 != 0;
            debug::arm(core);
            return leave(core, next);
        }
        (2, 0, 0, n, kind @ 4..=7) if privileged && debug::exists(core, n, kind) => {
            debug::set(core, n, kind, value);
            return leave(core, next);
        }
        // DBGDTR_EL0, DBGDTRTX_EL0.
        (2, 3, 0, 4 | 5, 0) => channel_access(core, word)?,
        (2, 0, 0, 0 | 3 | 6, 2) if privileged => {}
        (2, 0, 7, 8 | 9, 6) if privileged => {}
        (3, 0, 10, 4, 0..=3) if has_lor(core) => {}
        _ => return Err(undefined(core)),
    }
    Ok(0)
}
