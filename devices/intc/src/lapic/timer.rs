//! The local APIC's timer (11.5.4): nothing ticks, the count follows from virtual time.

use std::sync::Weak;

use hw_core::Clock;
use hw_intc::{LapicState, divide_shift, lvt, lvt_index};
use runtime::{Rank, Ranked, RankedGuard};

use super::LocalApic;

/// A faster periodic timer fires only this often: the guest could not keep up, and the main loop
/// has other work.
const MIN_PERIOD_NS: u64 = 100_000;

#[derive(Clone, Default)]
pub(super) struct Registers {
    pub(super) initial_count: u32,
    pub(super) divide: u32,
    pub(super) started_ns: u64,
    pub(super) fires_ns: Option<u64>,
    pub(super) tsc_deadline: u64,
}

pub(super) struct Timer {
    clock: Clock,
    wake: hw_core::Timer,
    registers: Ranked<Registers>,
}

impl Registers {
    fn ns(&self, count: u32) -> u64 {
        u64::from(count).wrapping_shl(divide_shift(self.divide))
    }
}

impl Timer {
    pub(super) fn new(clock: &Clock, apic: Weak<LocalApic>) -> Self {
        let wake = clock.timer(move || {
            if let Some(apic) = apic.upgrade()
                && apic.timer.fire(apic.lvt_entry(lvt_index::TIMER))
            {
                apic.deliver_local(lvt_index::TIMER);
            }
        });
        Timer {
            clock: clock.clone(),
            wake,
            registers: Ranked::new(Rank::InterruptController, Registers::default()),
        }
    }

    pub(super) fn lock(&self) -> RankedGuard<'_, Registers> {
        self.registers.lock()
    }

    pub(super) fn now_ns(&self) -> u64 {
        self.clock.now_ns()
    }

    /// Arms or disarms the deadline as the registers say.
    pub(super) fn rearm(&self) {
        self.follow(&self.lock());
    }

    fn follow(&self, registers: &Registers) {
        match registers.fires_ns {
            Some(at) => self.wake.arm(at),
            None => self.wake.disarm(),
        }
    }

    /// The deadline passed: true if the timer's interrupt is due.
    fn fire(&self, entry: u32) -> bool {
        let mut registers = self.lock();
        let now = self.now_ns();
        let due = registers.fires_ns.is_some_and(|at| at <= now);
        if due {
            registers.fires_ns = None;
            registers.tsc_deadline = 0;
            let period = registers.ns(registers.initial_count);
            if entry & lvt::TIMER_MODE == lvt::PERIODIC && period != 0 {
                // Missed periods are one interrupt, as they would be in IRR.
                let passed = now.wrapping_sub(registers.started_ns);
                let into = passed.checked_rem(period).unwrap_or(0);
                registers.started_ns = now.wrapping_sub(into);
                let next = registers.started_ns.wrapping_add(period);
                let next = if period < MIN_PERIOD_NS {
                    next.max(now.saturating_add(MIN_PERIOD_NS))
                } else {
                    next
                };
                registers.fires_ns = Some(next);
            }
        }
        self.follow(&registers);
        due
    }

    pub(super) fn set_initial_count(&self, entry: u32, count: u32) {
        if entry & lvt::TSC_DEADLINE != 0 {
            return;
        }
        let mut registers = self.lock();
        registers.initial_count = count;
        registers.started_ns = self.now_ns();
        let fires = registers.started_ns.saturating_add(registers.ns(count));
        registers.fires_ns = (count != 0).then_some(fires);
        self.follow(&registers);
    }

    /// The current count, given the timer's entry of the local vector table.
    pub(super) fn current_count(&self, entry: u32) -> u32 {
        Self::count(&self.lock(), entry, self.now_ns())
    }

    fn count(registers: &Registers, entry: u32, now_ns: u64) -> u32 {
        let mut state = LapicState::new(0, false);
        state.lvt[lvt_index::TIMER] = entry;
        state.initial_count = registers.initial_count;
        state.divide = registers.divide;
        state.started_ns = registers.started_ns;
        state.fires_ns = registers.fires_ns;
        state.current_count(now_ns)
    }

    /// The count goes on at the new pace.
    pub(super) fn set_divide(&self, entry: u32, divide: u32) {
        let mut registers = self.lock();
        let now = self.now_ns();
        let left = Self::count(&registers, entry, now);
        registers.divide = divide;
        if registers.fires_ns.is_some() && entry & lvt::TSC_DEADLINE == 0 {
            let passed = registers.ns(registers.initial_count.saturating_sub(left));
            registers.started_ns = now.wrapping_sub(passed);
            registers.fires_ns = Some(now.saturating_add(registers.ns(left)));
        }
        self.follow(&registers);
    }

    /// A change into or out of TSC-deadline mode disarms the timer. True if its deadline has passed in
    /// the old mode and the interrupt is due.
    pub(super) fn mode_changed(&self, old: u32, new: u32) -> bool {
        let due = (old ^ new) & lvt::TIMER_MODE != 0 && self.fire(old);
        if (old ^ new) & lvt::TSC_DEADLINE != 0 {
            let mut registers = self.lock();
            registers.initial_count = 0;
            registers.fires_ns = None;
            registers.tsc_deadline = 0;
            self.follow(&registers);
        }
        due
    }

    /// True if the deadline has passed already and the interrupt is due.
    pub(super) fn set_tsc_deadline(&self, value: u64, at_ns: u64) -> bool {
        let mut registers = self.lock();
        let due = value != 0 && at_ns <= self.now_ns();
        let armed = value != 0 && !due;
        registers.tsc_deadline = if armed { value } else { 0 };
        registers.fires_ns = armed.then_some(at_ns);
        self.follow(&registers);
        due
    }
}
