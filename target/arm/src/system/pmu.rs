//! Performance monitors: PMUv3, up to that of Armv8.5 (DDI 0487, D12 "The Performance Monitors Extension").
//!
//! Cycles are nanoseconds of virtual time, as on QEMU: the CPU runs at 1 GHz. Retired instructions are
//! those the engine counts. Counters are brought up to date when somebody looks, and when the exception
//! level changes, on which it depends what counts.
//!
//! The engine knows the count exactly between units only: an instruction that needs it is executed twice,
//! the second time as the first of a unit ([`exact`]).
//!
//! Not modelled: memory and branch events, event export, MDCR_EL2.HLP and HCCD.

use accel_core::{Trap, reason};
use hw_clock::Timer;

use super::control::{self, el2_enabled};
use super::registers as sys;
use crate::Core;
use crate::model::Feature;

mod access;
pub(super) use access::{read, register, write};

/// Event counters.
pub(crate) const COUNTERS: usize = 6;
/// The cycle counter's number, and its bit.
const CYCLES: u16 = 31;
const CYCLES_BIT: u32 = 1 << 31;
/// All counters that there are.
const ALL: u32 = CYCLES_BIT | ((1 << COUNTERS) - 1);

/// PMCR_EL0.
mod pmcr {
    pub(super) const E: u32 = 1;
    pub(super) const P: u32 = 1 << 1;
    pub(super) const C: u32 = 1 << 2;
    pub(super) const D: u32 = 1 << 3;
    pub(super) const LC: u32 = 1 << 6;
    /// FEAT_PMUv3p5: counters overflow at 64 bits.
    pub(super) const LP: u32 = 1 << 7;
    /// E, D, X, DP, LC.
    pub(super) const KEPT: u32 = 0x79;
    /// Implementer Arm.
    pub(super) const FIXED: u64 = 0x41 << 24;
    pub(super) const N_SHIFT: u32 = 11;
}

/// Events (D12.11.3).
mod event {
    pub(super) const SW_INCR: u32 = 0x00;
    pub(super) const INST_RETIRED: u32 = 0x08;
    pub(super) const CPU_CYCLES: u32 = 0x11;
    pub(super) const CHAIN: u32 = 0x1e;
    /// Never happen here.
    pub(super) const STALL_FRONTEND: u32 = 0x23;
    pub(super) const STALL_BACKEND: u32 = 0x24;
    pub(super) const STALL: u32 = 0x3c;
}

/// PMEVTYPER: the event, and what levels do not count: P, U, NSK, NSU, NSH, M.
const TYPE_MASK: u32 = 0xfc00_ffff;

/// The counters.
#[derive(Default)]
pub(crate) struct Pmu {
    control: u32,
    /// PMCNTEN, PMOVS, PMINTEN.
    enabled: u32,
    overflow: u32,
    interrupts: u32,
    select: u32,
    user: u32,
    cycle_filter: u32,
    types: [u32; COUNTERS],
    values: [u64; COUNTERS],
    /// FEAT_PMUv3p5: counters have 64 bits.
    is_long: bool,
    cycles: u64,
    /// Cycles that PMCR.D holds back.
    rest: u64,
    /// Time and instructions when the counters were up to date.
    at: (u64, u64),
    /// Level of the interrupt.
    line: bool,
    /// Fires when a counter of cycles overflows.
    timer: Option<Timer>,
    /// The instruction at hand is to be executed again, at the beginning of a unit.
    pub(crate) retry: bool,
    /// The next instruction is the first of a unit: the count of instructions holds.
    pub(crate) is_exact: bool,
}

/// ID_AA64DFR0_EL1.PMUVer.
fn version(core: &Core) -> u64 {
    core.arch.model.id.dfr0 >> 8 & 15
}

/// Counters that the level at hand sees: MDCR_EL2.HPMN keeps some for EL2.
fn visible(core: &Core) -> u32 {
    if core.arch.el < 2 && el2_enabled(core) {
        let kept = core.regs.get(sys::MDCR_EL2) as u32 & 0x1f;
        kept.min(COUNTERS as u32)
    } else {
        COUNTERS as u32
    }
}

fn visible_mask(core: &Core) -> u32 {
    CYCLES_BIT | 1u32.wrapping_shl(visible(core)).wrapping_sub(1)
}

/// Whether the level at hand counts for a filter (PMEVTYPER, PMCCFILTR).
fn counts_here(core: &Core, filter: u32) -> bool {
    let bit = |n: u32| filter.wrapping_shr(n) & 1 != 0;
    // Without EL3 there is one state, and NSK and NSU do not exist.
    let split = core.arch.model.has(Feature::El3);
    let is_secure = core.arch.el == 3 || control::is_secure_below_el3(core);
    if is_secure && core.regs.get(sys::MDCR_EL3) & control::mdcr::SPME == 0 {
        return false;
    }
    match core.arch.el {
        // In the Secure state there is no other bit.
        0 if is_secure => !bit(30),
        1 if is_secure => !bit(31),
        0 => bit(30) == (split && bit(28)),
        1 => bit(31) == (split && bit(29)),
        2 => bit(27) && core.regs.get(sys::MDCR_EL2) & control::mdcr::HPMD == 0,
        _ => bit(26) == bit(31),
    }
}

impl Pmu {
    fn event(&self, n: usize) -> u32 {
        self.types.get(n).map_or(0, |t| t & 0xffff)
    }

    /// Adds to a counter, and to the next if that counts its overflows. `chained` are those that may.
    fn add(&mut self, n: usize, by: u64, chained: u32) {
        let Some(value) = self.values.get_mut(n) else {
            return;
        };
        let (sum, carry) = value.overflowing_add(by);
        let is_64 = self.is_long && self.control & pmcr::LP != 0;
        let wraps = match is_64 {
            true => carry.into(),
            // Bits above count on, if there are any.
            false => (sum >> 32).wrapping_sub(*value >> 32) & 0xffff_ffff,
        };
        *value = if self.is_long { sum } else { sum & 0xffff_ffff };
        if wraps == 0 {
            return;
        }
        self.overflow |= bit(n);
        let next = n | 1;
        if !is_64 && next != n && self.event(next) == event::CHAIN && chained & bit(next) != 0 {
            self.add(next, wraps, 0);
        }
    }

    fn add_cycles(&mut self, by: u64) {
        let by = if self.control & (pmcr::D | pmcr::LC) == pmcr::D {
            let all = self.rest.saturating_add(by);
            self.rest = all & 63;
            all >> 6
        } else {
            by
        };
        let (sum, wraps) = self.cycles.overflowing_add(by);
        let wraps_32 = self.control & pmcr::LC == 0 && sum >> 32 != self.cycles >> 32;
        self.cycles = sum;
        if wraps || wraps_32 {
            self.overflow |= CYCLES_BIT;
        }
    }

    /// The bits of PMCR_EL0 that there are.
    fn kept(&self) -> u32 {
        pmcr::KEPT | if self.is_long { pmcr::LP } else { 0 }
    }

    /// How much more a counter takes until it overflows.
    fn left(&self, value: u64) -> u64 {
        if self.is_long && self.control & pmcr::LP != 0 {
            match value {
                0 => u64::MAX,
                _ => value.wrapping_neg(),
            }
        } else {
            (1u64 << 32).saturating_sub(value & 0xffff_ffff)
        }
    }

    /// The saved form.
    pub(crate) fn save(&self) -> Vec<u64> {
        let words = [
            self.control,
            self.enabled,
            self.overflow,
            self.interrupts,
            self.select,
            self.user,
            self.cycle_filter,
        ];
        let words = words.into_iter().chain(self.types).map(u64::from);
        let tail = [self.cycles, self.rest];
        words.chain(self.values).chain(tail).collect()
    }

    /// From the saved form, which has [`SAVED`] words.
    pub(crate) fn restore(&mut self, saved: &[u64]) {
        let kept = self.kept();
        let mask = if self.is_long {
            u64::MAX
        } else {
            u32::MAX.into()
        };
        let mut words = saved.iter().copied();
        let mut next = || words.next().unwrap_or(0);
        self.control = next() as u32 & kept;
        self.enabled = next() as u32 & ALL;
        self.overflow = next() as u32 & ALL;
        self.interrupts = next() as u32 & ALL;
        self.select = next() as u32 & 31;
        self.user = next() as u32 & 15;
        self.cycle_filter = next() as u32 & TYPE_MASK & !0xffff;
        for slot in &mut self.types {
            *slot = next() as u32 & TYPE_MASK;
        }
        for slot in &mut self.values {
            *slot = next() & mask;
        }
        self.cycles = next();
        self.rest = next() & 63;
    }
}

/// Words of the saved form.
pub(crate) const SAVED: usize = 7 + 2 * COUNTERS + 2;

fn bit(n: usize) -> u32 {
    1u32.wrapping_shl(n as u32)
}

/// The counters that count at the level at hand, a bit each.
fn counting(core: &Core) -> u32 {
    let pmu = &core.arch.pmu;
    let mut on = 0;
    let is_on = pmu.control & pmcr::E != 0;
    let mdcr = core.regs.get(sys::MDCR_EL2);
    let has_el2 = core.arch.model.has(Feature::El2);
    let split = if has_el2 {
        mdcr as u32 & 0x1f
    } else {
        u32::MAX
    };
    for (n, filter) in (0u32..).zip(&pmu.types) {
        // Those that are EL2's have a switch of their own.
        let is_on = if n < split {
            is_on
        } else {
            mdcr & control::mdcr::HPME != 0
        };
        let one = 1u32.wrapping_shl(n);
        if is_on && pmu.enabled & one != 0 && counts_here(core, *filter) {
            on |= one;
        }
    }
    if is_on && pmu.enabled & CYCLES_BIT != 0 && counts_here(core, pmu.cycle_filter) {
        on |= CYCLES_BIT;
    }
    on
}

/// Those of a set that count an event.
fn of_event(core: &Core, set: u32, event: u32) -> u32 {
    let pmu = &core.arch.pmu;
    let all = 0..COUNTERS;
    all.filter(|n| set & bit(*n) != 0 && pmu.event(*n) == event)
        .fold(0, |bits, n| bits | bit(n))
}

/// Whether anything counts at any level.
pub(crate) fn is_active(core: &Core) -> bool {
    core.arch.pmu.enabled != 0
}

/// Whether instructions are counted that overflow with an interrupt: each slice ends where they do.
pub(crate) fn watches_instructions(core: &Core) -> bool {
    let pmu = &core.arch.pmu;
    let set = pmu.enabled & pmu.interrupts;
    set != 0 && of_event(core, set | chained_below(core, set), event::INST_RETIRED) != 0
}

/// The even counters whose odd neighbours in a set count their overflows.
fn chained_below(core: &Core, set: u32) -> u32 {
    of_event(core, set, event::CHAIN) >> 1 & core.arch.pmu.enabled
}

/// Brings the counters up to date: `instructions` have been executed in all.
fn update(core: &mut Core, instructions: u64) {
    let now = core.clock.now_ns();
    let (then_ns, then) = core.arch.pmu.at;
    core.arch.pmu.at = (now, instructions);
    let on = counting(core);
    if on == 0 {
        return;
    }
    let cycles = now.saturating_sub(then_ns);
    let retired = instructions.saturating_sub(then);
    for n in (0..COUNTERS).filter(|n| on & bit(*n) != 0) {
        match core.arch.pmu.event(n) {
            event::CPU_CYCLES => core.arch.pmu.add(n, cycles, on),
            event::INST_RETIRED => core.arch.pmu.add(n, retired, on),
            _ => {}
        }
    }
    if on & CYCLES_BIT != 0 {
        core.arch.pmu.add_cycles(cycles);
    }
}

/// Brings the counters up to date between units.
pub(crate) fn sync(core: &mut Core) {
    let instructions = core.counters.insns;
    update(core, instructions);
}

/// The level is going to change.
pub(crate) fn level_changes(core: &mut Core) {
    core.arch.pmu.is_exact = false;
    if is_active(core) {
        sync(core);
    }
}

/// An exception return, which is itself of the level it leaves: as above, or it is executed again.
pub(crate) fn level_returns(core: &mut Core) -> Result<(), Trap> {
    if is_active(core) {
        exact_if_counting(core)?;
        let instructions = core.counters.insns.wrapping_add(1);
        update(core, instructions);
    }
    Ok(())
}

/// Sees to it that the count of instructions holds: else the instruction at hand is executed again.
pub(crate) fn exact(core: &mut Core) -> Result<(), Trap> {
    if std::mem::take(&mut core.arch.pmu.is_exact) {
        return Ok(());
    }
    core.arch.pmu.retry = true;
    Err(Trap::Exception)
}

/// As above, if instructions are being counted.
pub(crate) fn exact_if_counting(core: &mut Core) -> Result<(), Trap> {
    let enabled = core.arch.pmu.enabled;
    if enabled != 0 && of_event(core, enabled, event::INST_RETIRED) != 0 {
        return exact(core);
    }
    Ok(())
}

/// The interrupt follows the counters, and what is due next is waited for.
pub(crate) fn follow(core: &mut Core) {
    let pmu = &core.arch.pmu;
    let line = pmu.overflow & pmu.interrupts != 0 && pmu.control & pmcr::E != 0;
    if line != pmu.line {
        core.arch.pmu.line = line;
        core.port.set_pmu_interrupt(line);
    }
    let on = counting(core);
    let pmu = &core.arch.pmu;
    let wanted = on & pmu.interrupts & !pmu.overflow;
    let set = on & (wanted | chained_below(core, wanted));
    let of_values = |events: u32| {
        let values = pmu.values.iter().enumerate();
        let own = values.filter(move |(n, _)| events & bit(*n) != 0);
        own.map(|(_, value)| pmu.left(*value)).min()
    };
    let mut cycles = of_values(of_event(core, set, event::CPU_CYCLES));
    if set & CYCLES_BIT != 0 {
        let left = match pmu.control & pmcr::LC != 0 {
            true => pmu.cycles.wrapping_neg(),
            false => (1u64 << 32).saturating_sub(pmu.cycles & 0xffff_ffff),
        };
        let unit = if pmu.control & (pmcr::D | pmcr::LC) == pmcr::D {
            64
        } else {
            1
        };
        let left = left.saturating_mul(unit);
        cycles = Some(cycles.map_or(left, |c| c.min(left)));
    }
    let instructions = of_values(of_event(core, set, event::INST_RETIRED));
    if let Some(cycles) = cycles {
        let at = core.clock.now_ns().saturating_add(cycles);
        let pending = core.pending.clone();
        let clock = core.clock.clone();
        let make = move || clock.timer(move || pending.raise(reason::NMI));
        core.arch.pmu.timer.get_or_insert_with(make).arm(at);
    } else if let Some(timer) = &core.arch.pmu.timer {
        timer.disarm();
    }
    if let Some(left) = instructions {
        let left = i64::try_from(left).unwrap_or(i64::MAX);
        core.budget = core.budget.min(left.max(1));
    }
}

/// A counter may have overflowed.
pub(crate) fn service(core: &mut Core) {
    sync(core);
    follow(core);
}

/// Takes over the saved form, after reset nothing: it counts from now on, and the interrupt is what the
/// state says.
pub(crate) fn restored(core: &mut Core, saved: &[u64]) {
    core.arch.pmu.is_long = version(core) >= 6;
    core.arch.pmu.restore(saved);
    core.arch.pmu.at = (core.clock.now_ns(), core.counters.insns);
    core.port.set_pmu_interrupt(false);
    core.arch.pmu.line = false;
    follow(core);
    if watches_instructions(core) {
        core.pending.raise(reason::NMI);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_saved_form_brings_everything_back() {
        let words: Vec<u64> = (1..=SAVED as u64).collect();
        let long = || Pmu {
            is_long: true,
            ..Pmu::default()
        };
        let mut pmu = long();
        pmu.restore(&words);
        let saved = pmu.save();
        assert_eq!(saved.len(), SAVED);
        let mut again = long();
        again.restore(&saved);
        assert_eq!(again.save(), saved);
        // All of it, within what there is of each.
        assert_eq!(saved[7 + COUNTERS..], words[7 + COUNTERS..]);
    }

    #[test]
    fn cycles_may_be_counted_by_64() {
        let mut pmu = Pmu {
            control: pmcr::D,
            cycles: 0xffff_fffe,
            ..Pmu::default()
        };
        pmu.add_cycles(100);
        assert_eq!((pmu.cycles, pmu.overflow), (0xffff_ffff, 0));
        pmu.add_cycles(28);
        assert_eq!((pmu.cycles, pmu.overflow), (1 << 32, CYCLES_BIT));
    }
}
