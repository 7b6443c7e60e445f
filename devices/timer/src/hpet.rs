//! High precision event timer.
//!
//! Spec: IA-PC HPET Specification 1.0a. Registers carry its names in `regs.rs`.
//!
//! The counter is `virtual time / 10 ns + offset`. A comparator that is set to a value just passed
//! matches at once: hardware would miss it, and a guest that was slow would wait for a wrap.
//! Periods that the host was too late for are made up for, one interrupt each, as the i8254's are.
//!
//! Not modelled: the interrupt of a 32-bit one-shot comparator at each wrap of the counter.

use std::sync::Arc;

use hw_core::{
    Access, AccessSizes, BusKind, Category, Clock, Device, DeviceClass, DeviceError, Fault,
    Initiator, IrqLine, IrqPin, Msi, Prop, PropType, Region, ResetKind, Section, StateError, Timer,
    TimerId, Wiring,
};
use hw_intc::LegacyReplacement;

use crate::{MIN_PERIOD_NS, MOST_LATE};

mod regs;
mod saved;
#[cfg(test)]
mod tests;

use regs::{general, timer};

/// Address on PCs.
pub const HPET_BASE: u64 = 0xfed0_0000;
const LEN: u64 = 0x400;

const NS_PER_TICK: u64 = 10;

/// Lines a timer can be routed to: the inputs of an I/O APIC.
const LINES: u32 = 24;
/// Lines of timers 0 and 1 under legacy replacement.
const LEGACY_LINES: [usize; 2] = [0, 8];

/// What a board says about an HPET.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HpetConfig {
    /// Address.
    pub base: u64,
    /// Comparators, 3 to 32.
    pub timers: u8,
    /// I/O APIC inputs that timers can be routed to, a bit each.
    pub routes: u32,
    /// Timers can interrupt by message.
    pub msi: bool,
}

impl Default for HpetConfig {
    fn default() -> Self {
        HpetConfig {
            base: HPET_BASE,
            timers: 3,
            routes: 1 << 2,
            msi: false,
        }
    }
}

/// The timer block.
pub struct Hpet {
    lines: Vec<IrqLine>,
    msi: Msi,
    clock: Option<Clock>,
    deadline: Timer,
    legacy: Arc<LegacyReplacement>,

    config: HpetConfig,

    state: State,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Comparator {
    /// The writable bits of the configuration register.
    config: u64,
    comparator: u64,
    period: u64,
    fsb: u64,
    /// Counter value, extended to 64 bits, of the next match.
    fires: Option<u64>,
}

impl Default for Comparator {
    fn default() -> Self {
        Comparator {
            config: 0,
            comparator: u64::MAX,
            period: 0,
            fsb: 0,
            fires: None,
        }
    }
}

impl Comparator {
    fn has(&self, bit: u64) -> bool {
        self.config & bit != 0
    }

    /// Bits that count in the width in force.
    fn mask(&self) -> u64 {
        if self.has(timer::MODE_32) {
            u32::MAX.into()
        } else {
            u64::MAX
        }
    }

    /// Finds the next match, given the counter.
    fn schedule(&mut self, counter: u64) {
        let mask = self.mask();
        let ahead = self.comparator.wrapping_sub(counter) & mask;
        // In the past, in the sense of the width: at once. All ones is "never" after reset.
        let is_past = ahead > mask >> 1;
        self.fires = match (self.comparator & mask == mask, is_past) {
            (true, _) => None,
            (false, true) => Some(counter),
            (false, false) => Some(counter.wrapping_add(ahead)),
        };
    }

    /// Steps over matches up to the counter, and counts those that a guest could take.
    fn catch_up(&mut self, counter: u64) -> u64 {
        let Some(at) = self.fires else { return 0 };
        let late = counter.wrapping_sub(at);
        if late > u64::MAX >> 1 {
            return 0;
        }
        self.fires = None;
        let period = self.period & self.mask();
        if self.has(timer::PERIODIC)
            && let Some(missed) = late.checked_div(period)
        {
            let step = missed.saturating_add(1).wrapping_mul(period);
            self.comparator = self.comparator.wrapping_add(step) & self.mask();
            self.fires = Some(at.wrapping_add(step));
            let slowest = period.max(MIN_PERIOD_NS / NS_PER_TICK);
            return late.checked_div(slowest).unwrap_or(0).saturating_add(1);
        }
        1
    }

    /// Ticks to the next match. The counter goes on: what was ahead when matches were carried out may be due
    /// by now.
    fn ahead(&self, counter: u64) -> Option<u64> {
        let ahead = self.fires?.wrapping_sub(counter);
        Some(if ahead > u64::MAX >> 1 { 0 } else { ahead })
    }

    fn route(&self) -> usize {
        (self.config >> timer::ROUTE_SHIFT) as usize & 0x1f
    }
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct State {
    config: u64,
    /// Level interrupts that wait, a bit for each timer.
    status: u32,
    /// Counter minus virtual time while it runs, else the counter.
    offset: u64,
    timers: Vec<Comparator>,
}

impl State {
    fn new(timers: usize) -> Self {
        State {
            timers: vec![Comparator::default(); timers],
            ..State::default()
        }
    }

    fn is_enabled(&self) -> bool {
        self.config & general::ENABLE != 0
    }

    fn is_legacy(&self) -> bool {
        self.config & general::LEGACY != 0
    }

    fn counter(&self, ticks: u64) -> u64 {
        if self.is_enabled() {
            self.offset.wrapping_add(ticks)
        } else {
            self.offset
        }
    }

    /// The line of timer `n`.
    fn line(&self, n: usize) -> Option<usize> {
        let timer = self.timers.get(n)?;
        LEGACY_LINES
            .get(n)
            .filter(|_| self.is_legacy())
            .copied()
            .or_else(|| Some(timer.route()))
    }
}

fn bit(n: usize) -> u32 {
    1u32.wrapping_shl(n as u32)
}

impl Hpet {
    /// A timer block as the board wants it, that takes interrupts 0 and 8 over `legacy`.
    pub fn new(config: HpetConfig, legacy: Arc<LegacyReplacement>) -> Self {
        let config = HpetConfig {
            timers: config.timers.clamp(3, 32),
            ..config
        };
        Hpet {
            lines: Vec::new(),
            msi: Msi::default(),
            clock: None,
            deadline: Timer::default(),
            legacy,
            config,
            state: State::new(config.timers.into()),
        }
    }

    /// The lower half of the capability register: the event timer block id of the ACPI table.
    pub fn block_id(&self) -> u32 {
        let last = u32::from(self.config.timers.wrapping_sub(1));
        regs::CAPABILITIES as u32 | last.wrapping_shl(regs::LAST_TIMER_SHIFT)
    }

    fn ticks(&self) -> u64 {
        let now = self.clock.as_ref().map_or(0, Clock::now_ns);
        now.checked_div(NS_PER_TICK).unwrap_or(0)
    }

    fn counter(&self) -> u64 {
        self.state.counter(self.ticks())
    }

    /// Carries out the matches up to now.
    fn catch_up(&mut self) {
        if !self.state.is_enabled() {
            return;
        }
        let counter = self.counter();
        for n in 0..self.state.timers.len() {
            let Some(timer) = self.state.timers.get_mut(n) else {
                continue;
            };
            let matches = timer.catch_up(counter);
            if matches == 0 {
                continue;
            }
            if timer.has(timer::LEVEL) {
                self.state.status |= bit(n);
            } else if timer.has(timer::ENABLE) {
                self.interrupt(n, matches.min(MOST_LATE));
            }
        }
    }

    /// Edges of timer `n`.
    fn interrupt(&self, n: usize, edges: u64) {
        let Some(timer) = self.state.timers.get(n) else {
            return;
        };
        if timer.has(timer::FSB_ENABLE) {
            self.msi.send(timer.fsb >> 32, timer.fsb as u32);
        } else if let Some(line) = self.state.line(n).and_then(|n| self.lines.get(n)) {
            // Controllers keep those of interrupt 0 that the guest is too slow for; see the i8254.
            for _ in 0..edges {
                line.pulse();
            }
        }
    }

    /// Lines and deadline follow the state.
    fn sync(&mut self) {
        self.catch_up();
        let state = &self.state;
        self.legacy.set(state.is_enabled() && state.is_legacy());
        let mut levels = 0u32;
        for (n, timer) in state.timers.iter().enumerate() {
            let drives = timer.has(timer::LEVEL)
                && timer.has(timer::ENABLE)
                && !timer.has(timer::FSB_ENABLE)
                && state.is_enabled()
                && state.status & bit(n) != 0;
            if drives && let Some(line) = state.line(n) {
                levels |= bit(line);
            }
        }
        for (n, line) in self.lines.iter().enumerate() {
            line.set(levels & bit(n) != 0);
        }
        self.arm();
    }

    fn arm(&self) {
        let (ticks, counter) = (self.ticks(), self.counter());
        let wait = |timer: &Comparator| {
            let ahead = timer.ahead(counter)?;
            let is_seen = timer.has(timer::ENABLE) || timer.has(timer::LEVEL);
            let is_fast = timer.has(timer::PERIODIC)
                && timer.period & timer.mask() < MIN_PERIOD_NS / NS_PER_TICK;
            let least = if is_fast {
                MIN_PERIOD_NS / NS_PER_TICK
            } else {
                0
            };
            is_seen.then_some(ahead.max(least))
        };
        let next = self.state.timers.iter().filter_map(wait).min();
        match next.filter(|_| self.state.is_enabled()) {
            Some(ahead) => {
                let at = ticks.saturating_add(ahead).saturating_mul(NS_PER_TICK);
                self.deadline.arm(at);
            }
            None => self.deadline.disarm(),
        }
    }

    fn reschedule(&mut self) {
        let counter = self.counter();
        for timer in &mut self.state.timers {
            timer.schedule(counter);
        }
    }

    fn timer_at(&self, offset: u64) -> Option<(usize, u64)> {
        let from = offset.checked_sub(regs::TIMERS)?;
        let n = usize::try_from(from.checked_div(regs::TIMER_LEN)?).ok()?;
        (n < self.state.timers.len()).then_some((n, from % regs::TIMER_LEN))
    }

    /// The capability bits of every timer.
    fn timer_capabilities(&self) -> u64 {
        let fsb = if self.config.msi { timer::FSB_CAP } else { 0 };
        timer::PERIODIC_CAP
            | timer::SIZE_CAP
            | fsb
            | (u64::from(self.config.routes) << timer::ROUTES_SHIFT)
    }

    /// A whole 64-bit register.
    fn read_register(&self, offset: u64) -> u64 {
        match offset {
            regs::GEN_CAP => u64::from(self.block_id()) | (regs::PERIOD_FS << 32),
            regs::GEN_CONFIG => self.state.config,
            regs::GEN_STATUS => self.state.status.into(),
            regs::COUNTER => self.counter(),
            _ => {
                let Some((n, register)) = self.timer_at(offset) else {
                    return 0;
                };
                let Some(timer) = self.state.timers.get(n) else {
                    return 0;
                };
                match register {
                    regs::TIMER_CONFIG => timer.config | self.timer_capabilities(),
                    regs::TIMER_COMPARATOR => timer.comparator & timer.mask(),
                    regs::TIMER_FSB => timer.fsb,
                    _ => 0,
                }
            }
        }
    }

    fn write_general_config(&mut self, value: u64) {
        let ticks = self.ticks();
        let counter = self.state.counter(ticks);
        let was_enabled = self.state.is_enabled();
        self.state.config = value & (general::ENABLE | general::LEGACY);
        let is_enabled = self.state.is_enabled();
        if was_enabled != is_enabled {
            self.state.offset = if is_enabled {
                counter.wrapping_sub(ticks)
            } else {
                counter
            };
        }
    }

    fn write_timer(&mut self, n: usize, register: u64, write: Write) {
        let counter = self.counter();
        let can_msi = self.config.msi;
        let Some(timer) = self.state.timers.get_mut(n) else {
            return;
        };
        match register {
            regs::TIMER_CONFIG => {
                let old = timer.config;
                let mut new = write.over(old) & timer::WRITABLE;
                if !can_msi {
                    new &= !timer::FSB_ENABLE;
                }
                timer.config = new;
                if new & timer::MODE_32 != 0 {
                    timer.comparator &= timer.mask();
                    timer.period &= timer.mask();
                }
                if (old ^ new) & (timer::PERIODIC | timer::MODE_32) != 0 {
                    timer.schedule(counter);
                }
                // A level that is no longer one does not wait any more.
                if new & timer::LEVEL == 0 {
                    self.state.status &= !bit(n);
                }
            }
            regs::TIMER_COMPARATOR => {
                let is_periodic = timer.has(timer::PERIODIC);
                if is_periodic {
                    timer.period = write.over(timer.period) & timer.mask();
                }
                if !is_periodic || timer.has(timer::VALUE_SET) {
                    timer.comparator = write.over(timer.comparator) & timer.mask();
                    timer.schedule(counter);
                }
                timer.config &= !timer::VALUE_SET;
            }
            regs::TIMER_FSB => timer.fsb = write.over(timer.fsb),
            _ => {}
        }
    }
}

/// The written part of a 64-bit register.
#[derive(Clone, Copy)]
struct Write {
    value: u64,
    mask: u64,
}

impl Write {
    fn new(access: Access, value: u64) -> Self {
        let half = u64::from(u32::MAX);
        let (value, mask) = match (access.size, access.offset & 4) {
            (8, _) => (value, u64::MAX),
            (_, 0) => (value & half, half),
            _ => (value << 32, half << 32),
        };
        Write { value, mask }
    }

    fn over(self, old: u64) -> u64 {
        (old & !self.mask) | self.value
    }
}

impl Device for Hpet {
    fn realize(&mut self, w: &mut dyn Wiring) -> Result<(), DeviceError> {
        let sizes = AccessSizes { min: 4, max: 8 };
        w.mmio(Region::new("hpet", self.config.base, LEN).sizes(sizes));
        self.lines = (0..LINES).map(|n| w.irq(IrqPin::Bus(n))).collect();
        self.msi = w.msi();
        self.clock = Some(w.clock());
        self.deadline = w.timer(TimerId(0));
        Ok(())
    }

    fn reset(&mut self, _: ResetKind) {
        self.state = State::new(self.config.timers.into());
    }

    fn after_reset(&mut self) {
        self.sync();
    }

    fn read(&mut self, access: Access) -> Result<u64, Fault> {
        if access.by != Initiator::Debug {
            // Periodic comparators show their next match.
            self.sync();
        }
        let value = self.read_register(access.offset & !7);
        Ok(match (access.size, access.offset & 4) {
            (8, _) => value,
            (_, 0) => value & u64::from(u32::MAX),
            _ => value >> 32,
        })
    }

    fn write(&mut self, access: Access, value: u64) -> Result<(), Fault> {
        let write = Write::new(access, value);
        self.catch_up();
        match access.offset & !7 {
            regs::GEN_CAP => return Err(Fault::ReadOnly),
            regs::GEN_CONFIG => self.write_general_config(write.over(self.state.config)),
            regs::GEN_STATUS => self.state.status &= !(write.value as u32),
            regs::COUNTER => {
                let ticks = self.ticks();
                let counter = write.over(self.state.counter(ticks));
                self.state.offset = if self.state.is_enabled() {
                    counter.wrapping_sub(ticks)
                } else {
                    counter
                };
                self.reschedule();
            }
            offset => {
                let (n, register) = self.timer_at(offset).ok_or(Fault::NoRegister)?;
                self.write_timer(n, register, write);
            }
        }
        self.sync();
        Ok(())
    }

    fn timer(&mut self, _: TimerId) {
        self.sync();
    }

    fn save(&self) -> Section {
        saved::save(&self.state)
    }

    fn restore(&mut self, section: &Section) -> Result<(), StateError> {
        self.state = saved::restore(section, self.config.timers.into())?;
        Ok(())
    }

    fn inspect(&self) -> Vec<(&'static str, u64)> {
        vec![
            ("config", self.state.config),
            ("status", self.state.status.into()),
            ("counter", self.counter()),
        ]
    }
}

/// `hpet`.
pub static HPET: DeviceClass = DeviceClass {
    name: "hpet",
    aliases: &[],
    doc: "high precision event timer",
    bus: BusKind::System,
    category: Category::Misc,
    props: &[
        Prop {
            name: "timers",
            ty: PropType::U8,
            default: "3",
            doc: "comparators, 3 to 32",
        },
        Prop {
            name: "msi",
            ty: PropType::Bool,
            default: "off",
            doc: "timers can interrupt by message",
        },
        Prop {
            name: "hpet-intcap",
            ty: PropType::U32,
            default: "4",
            doc: "I/O APIC inputs that timers can be routed to, a bit each",
        },
    ],
    user_creatable: false,
    create: |args, _| {
        let config = HpetConfig {
            timers: args.need_int("timers")? as u8,
            msi: args.flag("msi").unwrap_or(false),
            routes: args.need_int("hpet-intcap")? as u32,
            ..HpetConfig::default()
        };
        Ok(Box::new(Hpet::new(config, LegacyReplacement::new())))
    },
};
