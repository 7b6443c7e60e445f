//! Registers of the performance monitors: who may, what they read as, what a write does (DDI 0487, D12.11).

use accel_core::{Trap, reason};

use super::{
    COUNTERS, CYCLES, TYPE_MASK, bit, counting, event, exact, exact_if_counting, follow, of_event,
    pmcr, sync, update, version, visible, visible_mask, watches_instructions,
};
use crate::Core;
use crate::model::Feature;
use crate::port::SysReg;
use crate::system::access::trap;
use crate::system::{control, exception};

/// PMUSERENR_EL0.
mod user {
    pub(super) const EN: u32 = 1;
    pub(super) const SW: u32 = 1 << 1;
    pub(super) const CR: u32 = 1 << 2;
    pub(super) const ER: u32 = 1 << 3;
}

/// What a register of the PMU is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in crate::system) enum Reg {
    Control,
    EnableSet,
    EnableClear,
    OverflowClear,
    OverflowSet,
    InterruptSet,
    InterruptClear,
    Increment,
    Select,
    Events(u32),
    Cycles,
    Machine,
    User,
    /// By number, or the selected one.
    Type(Option<u16>),
    Counter(Option<u16>),
}

/// The register of an encoding.
pub(in crate::system) fn register(core: &Core, reg: SysReg) -> Option<Reg> {
    if !core.arch.model.has(Feature::Pmu) {
        return None;
    }
    Some(match reg.fields() {
        (3, 3, 9, 12, 0) => Reg::Control,
        (3, 3, 9, 12, 1) => Reg::EnableSet,
        (3, 3, 9, 12, 2) => Reg::EnableClear,
        (3, 3, 9, 12, 3) => Reg::OverflowClear,
        (3, 3, 9, 12, 4) => Reg::Increment,
        (3, 3, 9, 12, 5) => Reg::Select,
        (3, 3, 9, 12, op2 @ 6..=7) => Reg::Events(u32::from(op2 & 1)),
        (3, 3, 9, 13, 0) => Reg::Cycles,
        (3, 3, 9, 13, 1) => Reg::Type(None),
        (3, 3, 9, 13, 2) => Reg::Counter(None),
        (3, 3, 9, 14, 0) => Reg::User,
        (3, 3, 9, 14, 3) => Reg::OverflowSet,
        (3, 0, 9, 14, 1) => Reg::InterruptSet,
        (3, 0, 9, 14, 2) => Reg::InterruptClear,
        (3, 0, 9, 14, 6) if version(core) >= 5 => Reg::Machine,
        (3, 3, 14, crm @ 8..=11, op2) => Reg::Counter(Some((crm & 3) << 3 | op2)),
        (3, 3, 14, crm @ 12..=15, op2) => Reg::Type(Some((crm & 3) << 3 | op2)),
        _ => return None,
    })
}

/// Checks PMUSERENR_EL0 and MDCR_EL2. `write` tells what is done.
fn check(core: &mut Core, reg: Reg, write: bool, word: u64) -> Result<(), Trap> {
    let is_interrupt = matches!(reg, Reg::InterruptSet | Reg::InterruptClear | Reg::Machine);
    if core.arch.el == 0 {
        let pmu = &core.arch.pmu;
        let has = |bits: u32| pmu.user & (bits | user::EN) != 0;
        let may = match reg {
            Reg::User => !write,
            _ if is_interrupt => return Err(exception::undefined(core)),
            Reg::Increment => has(user::SW),
            Reg::Cycles => has(if write { 0 } else { user::CR }),
            Reg::Counter(_) => has(if write { 0 } else { user::ER }),
            Reg::Select => has(user::ER),
            _ => has(0),
        };
        if !may {
            let to = exception::default_target(core);
            return Err(trap(core, to, word));
        }
    }
    let traps = control::mdcr_in_effect(core);
    let own = match reg {
        Reg::Control => control::mdcr::TPM | control::mdcr::TPMCR,
        _ => control::mdcr::TPM,
    };
    if traps & own != 0 {
        return Err(trap(core, 2, word));
    }
    if control::monitor_mdcr(core) & control::mdcr::TPM != 0 {
        return Err(trap(core, 3, word));
    }
    Ok(())
}

/// A counter's number: one that there is, and that the level sees.
fn number(core: &Core, n: Option<u16>) -> Option<u16> {
    let n = n.unwrap_or(core.arch.pmu.select as u16 & 31);
    (n == CYCLES || u32::from(n) < visible(core)).then_some(n)
}

pub(in crate::system) fn read(core: &mut Core, reg: Reg, word: u64) -> Result<u64, Trap> {
    check(core, reg, false, word)?;
    if matches!(reg, Reg::Counter(_) | Reg::OverflowClear | Reg::OverflowSet) {
        exact_if_counting(core)?;
    }
    sync(core);
    let seen = visible_mask(core);
    let pmu = &core.arch.pmu;
    Ok(match reg {
        Reg::Control => {
            let n = u64::from(visible(core)).wrapping_shl(pmcr::N_SHIFT);
            pmcr::FIXED | n | u64::from(pmu.control)
        }
        Reg::EnableSet | Reg::EnableClear => u64::from(pmu.enabled & seen),
        Reg::OverflowClear | Reg::OverflowSet => u64::from(pmu.overflow & seen),
        Reg::InterruptSet | Reg::InterruptClear => u64::from(pmu.interrupts & seen),
        Reg::Select => pmu.select.into(),
        Reg::Events(half) => events(core, half),
        // PMMIR_EL1: there are no slots.
        Reg::Machine => 0,
        Reg::Cycles => pmu.cycles,
        Reg::User => pmu.user.into(),
        Reg::Increment => return Err(exception::undefined(core)),
        Reg::Type(n) => match number(core, n) {
            Some(CYCLES) => pmu.cycle_filter.into(),
            Some(n) => pmu.types.get(usize::from(n)).map_or(0, |t| u64::from(*t)),
            None => return nothing(core, n),
        },
        Reg::Counter(n) => match number(core, n).filter(|n| *n != CYCLES) {
            Some(n) => pmu.values.get(usize::from(n)).copied().unwrap_or(0),
            None => return nothing(core, n),
        },
    })
}

/// A counter that is not there: by its own name undefined, else zero.
fn nothing(core: &mut Core, n: Option<u16>) -> Result<u64, Trap> {
    match n {
        Some(_) => Err(exception::undefined(core)),
        None => Ok(0),
    }
}

/// PMCEID0_EL0 and PMCEID1_EL0.
fn events(core: &Core, half: u32) -> u64 {
    // With the least version that has them.
    let all = [
        (event::SW_INCR, 1),
        (event::INST_RETIRED, 1),
        (event::CPU_CYCLES, 1),
        (event::CHAIN, 1),
        (event::STALL_FRONTEND, 1),
        (event::STALL_BACKEND, 1),
        (event::STALL, 5),
    ];
    let version = version(core);
    let own = all
        .iter()
        .filter(|(event, least)| event >> 5 == half && version >= *least);
    own.fold(0, |bits, (event, _)| bits | 1u64.wrapping_shl(event & 31))
}

/// Writes a register. The unit is to be left.
pub(in crate::system) fn write(
    core: &mut Core,
    reg: Reg,
    word: u64,
    value: u64,
) -> Result<(), Trap> {
    check(core, reg, true, word)?;
    exact(core)?;
    // Whatever is changed holds from the next instruction on.
    let instructions = core.counters.insns.wrapping_add(1);
    update(core, instructions);
    let seen = visible_mask(core);
    let on = counting(core);
    let wanted = value as u32;
    match reg {
        Reg::Control => {
            let own = COUNTERS.min(visible(core) as usize);
            let pmu = &mut core.arch.pmu;
            if wanted & pmcr::P != 0 {
                pmu.values.iter_mut().take(own).for_each(|value| *value = 0);
            }
            if wanted & pmcr::C != 0 {
                pmu.cycles = 0;
                pmu.rest = 0;
            }
            pmu.control = wanted & pmu.kept();
        }
        Reg::EnableSet => core.arch.pmu.enabled |= wanted & seen,
        Reg::EnableClear => core.arch.pmu.enabled &= !(wanted & seen),
        Reg::OverflowSet => core.arch.pmu.overflow |= wanted & seen,
        Reg::OverflowClear => core.arch.pmu.overflow &= !(wanted & seen),
        Reg::InterruptSet => core.arch.pmu.interrupts |= wanted & seen,
        Reg::InterruptClear => core.arch.pmu.interrupts &= !(wanted & seen),
        Reg::Select => core.arch.pmu.select = wanted & 31,
        Reg::User => core.arch.pmu.user = wanted & 15,
        Reg::Cycles => core.arch.pmu.cycles = value,
        Reg::Increment => {
            let which = of_event(core, on & wanted & seen, event::SW_INCR);
            for n in (0..COUNTERS).filter(|n| which & bit(*n) != 0) {
                core.arch.pmu.add(n, 1, on);
            }
        }
        Reg::Type(n) => match number(core, n) {
            Some(CYCLES) => core.arch.pmu.cycle_filter = wanted & TYPE_MASK & !0xffff,
            Some(n) => {
                if let Some(slot) = core.arch.pmu.types.get_mut(usize::from(n)) {
                    *slot = wanted & TYPE_MASK;
                }
            }
            None => {
                nothing(core, n)?;
            }
        },
        Reg::Counter(n) => match number(core, n).filter(|n| *n != CYCLES) {
            Some(n) => {
                let is_long = core.arch.pmu.is_long;
                if let Some(slot) = core.arch.pmu.values.get_mut(usize::from(n)) {
                    *slot = if is_long { value } else { wanted.into() };
                }
            }
            None => {
                nothing(core, n)?;
            }
        },
        Reg::Events(_) | Reg::Machine => return Err(exception::undefined(core)),
    }
    follow(core);
    // Slices are to end where instructions overflow: from the next on.
    if watches_instructions(core) {
        core.pending.raise(reason::NMI);
    }
    Ok(())
}
