//! Arm generic timers: those of each CPU, and the counter they compare with.
//!
//! Spec: Arm DDI 0487, chapter D12 "The Generic Timer in AArch64 state".
//!
//! CPUs reach the registers through their port; the outputs are level-triggered private interrupts.
//! The counter is virtual time by its frequency, and a deadline is armed only for an enabled,
//! unmasked timer whose condition is not met yet.
//!
//! Not modelled: the memory-mapped frames, the event stream, secure timers' access rights (the CPU's
//! business).

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use hw_clock::ticks_to_ns;
use hw_core::{
    BusKind, Category, Clock, Device, DeviceClass, DeviceError, IrqLine, ResetKind, Section,
    StateError, Timer, Value, Wiring,
};

#[cfg(test)]
mod tests;

/// The timers of a CPU, by the name of their registers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum GenericTimer {
    /// CNTP.
    Physical,
    /// CNTV.
    Virtual,
    /// CNTHP.
    HypPhysical,
    /// CNTHV.
    HypVirtual,
    /// CNTPS.
    SecurePhysical,
}

impl GenericTimer {
    /// All of them.
    pub const ALL: [GenericTimer; KINDS] = [
        GenericTimer::Physical,
        GenericTimer::Virtual,
        GenericTimer::HypPhysical,
        GenericTimer::HypVirtual,
        GenericTimer::SecurePhysical,
    ];
}

const KINDS: usize = 5;

/// `CNT*_CTL`.
const ENABLE: u64 = 1;
const IMASK: u64 = 1 << 1;
const ISTATUS: u64 = 1 << 2;

/// One timer's registers.
#[derive(Clone, Copy, Default, Debug, PartialEq, Eq)]
struct Registers {
    /// ENABLE and IMASK.
    control: u64,
    compare: u64,
}

/// What is saved of a CPU's timers.
#[derive(Clone, Copy, Default, Debug, PartialEq, Eq)]
struct State {
    timers: [Registers; KINDS],
    /// CNTVOFF_EL2.
    offset: u64,
}

/// The wires of a CPU's timers.
struct Wires {
    deadline: Timer,
    outputs: [IrqLine; KINDS],
}

#[derive(Default)]
struct Cpu {
    state: State,
    wires: Option<Wires>,
}

/// The generic timers of all CPUs of a machine.
pub struct GenericTimers {
    clock: Clock,
    hz: u64,
    cpus: Vec<Mutex<Cpu>>,
}

fn lock(cpu: &Mutex<Cpu>) -> MutexGuard<'_, Cpu> {
    cpu.lock().unwrap_or_else(PoisonError::into_inner)
}

impl GenericTimers {
    /// Timers of `cpus` CPUs whose counter runs at `hz`, with the outputs that `output` gives for a
    /// CPU's timer.
    pub fn new(
        clock: &Clock,
        hz: u64,
        cpus: u32,
        output: impl Fn(u32, GenericTimer) -> IrqLine,
    ) -> Arc<Self> {
        let timers = Self::still(clock, hz, cpus);
        for (n, cpu) in (0..cpus).zip(&timers.cpus) {
            let weak: Weak<Self> = Arc::downgrade(&timers);
            let fire = move || {
                if let Some(timers) = weak.upgrade() {
                    timers.with(n, |_| ());
                }
            };
            lock(cpu).wires = Some(Wires {
                deadline: clock.timer(fire),
                outputs: GenericTimer::ALL.map(|kind| output(n, kind)),
            });
        }
        timers
    }

    /// Timers that an accelerator has: here they only carry its state, and never fire.
    pub fn still(clock: &Clock, hz: u64, cpus: u32) -> Arc<Self> {
        Arc::new(GenericTimers {
            clock: clock.clone(),
            hz,
            cpus: (0..cpus).map(|_| Mutex::default()).collect(),
        })
    }

    /// Changes a CPU's timers, then brings outputs and deadline in line.
    fn with<R>(&self, cpu: u32, f: impl FnOnce(&mut State) -> R) -> Option<R> {
        let cpu = self.cpus.get(usize::try_from(cpu).ok()?)?;
        let mut cpu = lock(cpu);
        let result = f(&mut cpu.state);
        self.sync(&cpu);
        Some(result)
    }

    fn sync(&self, cpu: &Cpu) {
        let Some(wires) = &cpu.wires else { return };
        let now = self.clock.ticks(self.hz);
        let mut next: Option<u64> = None;
        for (kind, output) in GenericTimer::ALL.into_iter().zip(&wires.outputs) {
            let timer = cpu.state.timer(kind);
            let is_on = timer.control & (ENABLE | IMASK) == ENABLE;
            let left = cpu.state.left(kind, now);
            output.set(is_on && left == 0);
            if is_on && left != 0 {
                next = Some(next.map_or(left, |n| n.min(left)));
            }
        }
        match next.and_then(|left| now.checked_add(left)) {
            Some(tick) => wires.deadline.arm(ticks_to_ns(tick, self.hz)),
            None => wires.deadline.disarm(),
        }
    }

    /// A timer's `CTL`.
    pub fn control(&self, cpu: u32, timer: GenericTimer) -> u64 {
        self.with(cpu, |state| {
            let control = state.timer(timer).control;
            let is_met = state.left(timer, self.clock.ticks(self.hz)) == 0;
            // "When the timer is not enabled, ISTATUS is unknown."
            let status = is_met && control & ENABLE != 0;
            control | if status { ISTATUS } else { 0 }
        })
        .unwrap_or(0)
    }

    /// Sets a timer's `CTL`.
    pub fn set_control(&self, cpu: u32, timer: GenericTimer, value: u64) {
        self.with(cpu, |state| {
            state.timer_mut(timer).control = value & (ENABLE | IMASK);
        });
    }

    /// A timer's `CVAL`.
    pub fn compare(&self, cpu: u32, timer: GenericTimer) -> u64 {
        self.with(cpu, |state| state.timer(timer).compare)
            .unwrap_or(0)
    }

    /// Sets a timer's `CVAL`.
    pub fn set_compare(&self, cpu: u32, timer: GenericTimer, value: u64) {
        self.with(cpu, |state| state.timer_mut(timer).compare = value);
    }

    /// Sets a CPU's `CNTVOFF_EL2`.
    pub fn set_offset(&self, cpu: u32, offset: u64) {
        self.with(cpu, |state| state.offset = offset);
    }
}

impl State {
    fn timer(&self, kind: GenericTimer) -> &Registers {
        let [p, v, hp, hv, ps] = &self.timers;
        match kind {
            GenericTimer::Physical => p,
            GenericTimer::Virtual => v,
            GenericTimer::HypPhysical => hp,
            GenericTimer::HypVirtual => hv,
            GenericTimer::SecurePhysical => ps,
        }
    }

    fn timer_mut(&mut self, kind: GenericTimer) -> &mut Registers {
        let [p, v, hp, hv, ps] = &mut self.timers;
        match kind {
            GenericTimer::Physical => p,
            GenericTimer::Virtual => v,
            GenericTimer::HypPhysical => hp,
            GenericTimer::HypVirtual => hv,
            GenericTimer::SecurePhysical => ps,
        }
    }

    /// Ticks until a timer's condition is met; 0 when it is.
    fn left(&self, kind: GenericTimer, now: u64) -> u64 {
        let offset = match kind {
            GenericTimer::Virtual => self.offset,
            _ => 0,
        };
        let count = now.wrapping_sub(offset);
        self.timer(kind).compare.saturating_sub(count)
    }

    fn save(&self) -> Section {
        let State { timers, offset } = self;
        let values = timers.iter().flat_map(|t| [t.control, t.compare]);
        Section::new("generic-timer-cpu", 1)
            .with(1, values.collect::<Value>())
            .with(2, *offset)
    }

    fn restore(s: &Section) -> Result<Self, StateError> {
        s.expect("generic-timer-cpu", 1)?;
        let values: [u64; 2 * KINDS] = s.u64_array(1)?;
        let mut state = State {
            offset: s.u64(2)?,
            ..State::default()
        };
        for (timer, pair) in state.timers.iter_mut().zip(values.as_chunks::<2>().0) {
            let [control, compare] = *pair;
            if control & !(ENABLE | IMASK) != 0 {
                return Err(s.bad(1, "unknown control bits"));
            }
            *timer = Registers { control, compare };
        }
        Ok(state)
    }
}

/// The device that resets and saves the timers.
pub struct GenericTimersDevice {
    timers: Arc<GenericTimers>,
}

impl GenericTimersDevice {
    /// The device of these timers.
    pub fn new(timers: Arc<GenericTimers>) -> Self {
        GenericTimersDevice { timers }
    }
}

impl Device for GenericTimersDevice {
    fn realize(&mut self, _: &mut dyn Wiring) -> Result<(), DeviceError> {
        Ok(())
    }

    fn reset(&mut self, _: ResetKind) {
        for cpu in &self.timers.cpus {
            lock(cpu).state = State::default();
        }
    }

    fn after_reset(&mut self) {
        for cpu in &self.timers.cpus {
            self.timers.sync(&lock(cpu));
        }
    }

    fn save(&self) -> Section {
        let cpus = self.timers.cpus.iter().map(|cpu| lock(cpu).state.save());
        Section::new("generic-timer", 1).with(1, cpus.collect::<Value>())
    }

    fn restore(&mut self, s: &Section) -> Result<(), StateError> {
        s.expect("generic-timer", 1)?;
        let list = s.list(1)?;
        if list.len() != self.timers.cpus.len() {
            return Err(s.bad(1, "another number of CPUs"));
        }
        let states = list.iter().map(|value| match value {
            Value::Section(section) => State::restore(section),
            _ => Err(s.bad(1, "not sections")),
        });
        let states = states.collect::<Result<Vec<_>, _>>()?;
        for (cpu, state) in self.timers.cpus.iter().zip(states) {
            lock(cpu).state = state;
        }
        Ok(())
    }
}

/// `arm-generic-timer`.
pub static GENERIC_TIMER: DeviceClass = DeviceClass {
    name: "arm-generic-timer",
    aliases: &[],
    doc: "generic timers of Arm CPUs",
    bus: BusKind::System,
    category: Category::Misc,
    props: &[],
    user_creatable: false,
    create: |args, _| {
        Err(DeviceError::Other(format!(
            "'{}' is part of a machine and cannot be added to one",
            args.class().name
        )))
    },
};
