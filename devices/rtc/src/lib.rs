//! Real time clocks: the MC146818 of PCs with its CMOS memory, and Arm's PL031 (`pl031.rs`).
//!
//! Spec: Motorola MC146818A (ADI1029). Registers carry its names in `regs.rs`.
//!
//! The time is `reference clock + offset`; nothing ticks. Flags of register C are found when they
//! are looked at, and a deadline is armed only for an enabled interrupt that is not pending yet:
//! ticks that a guest misses are one. Under the policy `slew` they are counted, and the guest gets
//! them when it acknowledges one, a few in a row.
//!
//! Not modelled: daylight saving, the square wave, alarms by day of the month, the second bank.
#![deny(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects
)]
#![cfg_attr(test, allow(clippy::indexing_slicing, clippy::arithmetic_side_effects))]

use std::sync::Arc;

use hw_clock::NS_PER_S;
use hw_core::{
    Access, AccessSizes, Args, BusKind, Category, Clock, Device, DeviceClass, DeviceError, Fault,
    Initiator, IrqLine, IrqPin, Prop, PropType, Region, ResetKind, Section, StateError, Timer,
    TimerId, Wiring,
};
use hw_intc::LegacyReplacement;

mod calendar;
mod cmos;
mod pl031;
mod regs;
mod saved;
#[cfg(test)]
mod tests;

use calendar::{Moment, S_PER_DAY, decode, decode_hour, encode, encode_hour};
pub use cmos::{CMOS_LEN, Cmos};
pub use pl031::{PL031, Pl031, Pl031Config};
use regs::{ANY, VALID, a, b, c};

/// All classes of this crate.
pub const CLASSES: &[&DeviceClass] = &[&MC146818RTC, &PL031];

/// Frequency of the crystal.
const CRYSTAL_HZ: u64 = 32_768;
/// UIP is high for this long before each update (t_BUC).
const UPDATE_NS: i128 = 244_000;
/// The first update comes half a second after the divider was let go.
const HALF_SECOND_NS: u32 = 500_000_000;
/// Missed ticks that follow one another at once; more wait for the next true one.
const MOST_IN_A_ROW: u8 = 20;
const SECOND_NS: i128 = NS_PER_S as i128;

/// What the clock shows at power on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RtcBase {
    /// The host's UTC.
    #[default]
    Utc,
    /// The host's UTC and this many seconds: local time.
    Shifted(i64),
    /// This moment, in seconds since 1970.
    Date(i64),
}

impl RtcBase {
    /// This moment, in seconds since 1970, or the host's time with so many seconds added.
    pub fn new(start_s: Option<i64>, shift_s: i64) -> Self {
        match (start_s, shift_s) {
            (Some(start), _) => RtcBase::Date(start),
            (None, 0) => RtcBase::Utc,
            (None, shift) => RtcBase::Shifted(shift),
        }
    }
}

/// What drives the clock.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RtcClock {
    /// The host's clock: goes on while the machine is stopped.
    #[default]
    Host,
    /// The host's monotonic clock: goes on as well, but does not jump when the host's clock is set.
    Rt,
    /// Virtual time.
    Vm,
}

/// What a board says about the clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RtcConfig {
    /// Time at power on.
    pub base: RtcBase,
    /// What drives it.
    pub clock: RtcClock,
    /// Year that the year register counts from.
    pub base_year: i64,
    /// First I/O port.
    pub iobase: u64,
    /// ISA interrupt.
    pub irq: u32,
    /// The guest gets the periodic interrupts that it missed.
    pub slew: bool,
}

impl Default for RtcConfig {
    fn default() -> Self {
        RtcConfig {
            base: RtcBase::default(),
            clock: RtcClock::default(),
            base_year: 2000,
            iobase: 0x70,
            irq: 8,
            slew: false,
        }
    }
}

impl RtcConfig {
    /// What the properties of [`MC146818RTC`] say.
    ///
    /// # Errors
    /// When one is missing.
    pub fn of(args: &Args) -> Result<Self, DeviceError> {
        Ok(RtcConfig {
            base_year: args.need_int("base_year")?.cast_signed(),
            iobase: args.need_int("iobase")?,
            irq: args.need_int("irq")? as u32,
            slew: args.text("lost_tick_policy") == Some("slew"),
            ..RtcConfig::default()
        })
    }
}

/// The clock.
pub struct Rtc {
    irq: IrqLine,
    clock: Option<Clock>,
    deadline: Timer,
    legacy: Arc<LegacyReplacement>,

    config: RtcConfig,

    cmos: Cmos,
    state: State,
}

/// Everything the guest can observe beside the memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct State {
    /// Bits 6:0 select a byte, bit 7 masks NMI.
    index: u8,
    a: u8,
    b: u8,
    /// The three flags; IRQF follows from them.
    c: u8,
    /// The clock's time minus the reference clock's, in seconds since 1970.
    offset_s: i64,
    /// And nanoseconds, below a second.
    offset_ns: u32,
    /// Updates and alarms up to this second were seen.
    seen_s: i64,
    /// Periodic ticks up to this one of the crystal were seen.
    seen_tick: u64,
    /// Periodic interrupts that the guest missed and has not been given since.
    lost: u32,
    /// Given since the last true one.
    in_a_row: u8,
}

impl Default for State {
    fn default() -> Self {
        State {
            index: 0,
            a: a::POWER_ON,
            b: b::HOURS_24,
            c: 0,
            offset_s: 0,
            offset_ns: 0,
            seen_s: 0,
            seen_tick: 0,
            lost: 0,
            in_a_row: 0,
        }
    }
}

impl State {
    fn is_divider_on(&self) -> bool {
        self.a & a::DIVIDER_RESET != a::DIVIDER_RESET
    }

    /// Whether seconds pass.
    fn is_running(&self) -> bool {
        self.b & b::SET == 0 && self.is_divider_on()
    }

    /// Crystal ticks between periodic interrupts (table 5).
    fn period(&self) -> Option<u64> {
        let shift = match self.a & a::RATE {
            0 => return None,
            rate @ (1 | 2) => rate.wrapping_add(6),
            rate => rate.wrapping_sub(1),
        };
        self.is_divider_on()
            .then(|| 1u64.wrapping_shl(shift.into()))
    }

    fn set_offset(&mut self, total_ns: i128) {
        self.offset_s = total_ns.div_euclid(SECOND_NS) as i64;
        self.offset_ns = total_ns.rem_euclid(SECOND_NS) as u32;
    }

    fn offset(&self) -> i128 {
        i128::from(self.offset_s)
            .wrapping_mul(SECOND_NS)
            .wrapping_add(self.offset_ns.into())
    }
}

impl Rtc {
    /// A clock as the board wants it, with memory that the board fills. The HPET may take over its
    /// interrupt.
    pub fn new(config: RtcConfig, cmos: Cmos, legacy: Arc<LegacyReplacement>) -> Self {
        Rtc {
            irq: IrqLine::default(),
            clock: None,
            deadline: Timer::default(),
            legacy,
            config,
            cmos,
            state: State::default(),
        }
    }

    fn reference_ns(&self) -> i128 {
        let Some(clock) = &self.clock else { return 0 };
        match self.config.clock {
            RtcClock::Host => clock.wall_ns().into(),
            RtcClock::Rt => clock.host_ns().into(),
            RtcClock::Vm => clock.now_ns().into(),
        }
    }

    fn wall_ns(&self) -> i128 {
        self.clock
            .as_ref()
            .map_or(0, |clock| clock.wall_ns().into())
    }

    /// The clock's time in nanoseconds since 1970, were it running.
    fn now(&self) -> i128 {
        self.reference_ns().wrapping_add(self.state.offset())
    }

    fn now_s(&self) -> i64 {
        self.now().div_euclid(SECOND_NS) as i64
    }

    fn tick(&self) -> u64 {
        self.clock.as_ref().map_or(0, |c| c.ticks(CRYSTAL_HZ))
    }

    /// Sets the time; updates and alarms before it do not count.
    fn set_time(&mut self, seconds: i64, part_ns: i128) {
        let total = i128::from(seconds)
            .wrapping_mul(SECOND_NS)
            .wrapping_add(part_ns);
        self.state
            .set_offset(total.wrapping_sub(self.reference_ns()));
        self.state.seen_s = seconds;
    }

    /// Puts the time into its bytes.
    fn store_time(&self) {
        let moment = Moment::from_seconds(self.now_s());
        let register_b = self.state.b;
        let year = moment.year.wrapping_sub(self.config.base_year);
        for (index, value) in [
            (regs::SECONDS, encode(moment.second, register_b)),
            (regs::MINUTES, encode(moment.minute, register_b)),
            (regs::HOURS, encode_hour(moment.hour, register_b)),
            (regs::WEEKDAY, encode(moment.weekday(), register_b)),
            (regs::DAY, encode(moment.day, register_b)),
            (regs::MONTH, encode(moment.month, register_b)),
            (regs::YEAR, encode(year, register_b)),
            (
                regs::CENTURY,
                encode(moment.year.div_euclid(100), register_b),
            ),
        ] {
            self.cmos.set(index, value);
        }
    }

    /// The time that the bytes say.
    fn stored_time(&self) -> i64 {
        let register_b = self.state.b;
        let field = |index| decode(self.cmos.get(index), register_b);
        let of_century = field(regs::YEAR)
            .wrapping_add(self.config.base_year)
            .rem_euclid(100);
        Moment {
            year: field(regs::CENTURY)
                .wrapping_mul(100)
                .wrapping_add(of_century),
            month: field(regs::MONTH),
            day: field(regs::DAY),
            hour: decode_hour(self.cmos.get(regs::HOURS), register_b),
            minute: field(regs::MINUTES),
            second: field(regs::SECONDS),
        }
        .seconds()
    }

    /// The first second after `after` at which the alarm matches.
    fn next_alarm(&self, after: i64) -> Option<i64> {
        let register_b = self.state.b;
        let wanted = |index, decode: fn(u8, u8) -> i64| {
            let byte = self.cmos.get(index);
            (byte & ANY != ANY).then(|| decode(byte, register_b))
        };
        let hour = wanted(regs::HOURS_ALARM, decode_hour);
        let minute = wanted(regs::MINUTES_ALARM, decode);
        let second = wanted(regs::SECONDS_ALARM, decode);
        let misses = |wanted: Option<i64>, is: i64| wanted.is_some_and(|w| w != is);
        let last = after.checked_add(S_PER_DAY)?;
        let mut at = after.checked_add(1)?;
        // Steps of hours, minutes and seconds: 24 + 60 + 60 at most, and none for a bad byte.
        while at <= last {
            let moment = Moment::from_seconds(at);
            let step = if misses(hour, moment.hour) {
                3600i64.wrapping_sub(at.rem_euclid(3600))
            } else if misses(minute, moment.minute) {
                60i64.wrapping_sub(at.rem_euclid(60))
            } else if misses(second, moment.second) {
                1
            } else {
                return Some(at);
            };
            at = at.checked_add(step)?;
        }
        None
    }

    /// Sets the flags of what happened since the last look.
    fn catch_up(&mut self) {
        if let Some(period) = self.state.period() {
            let tick = self.tick();
            let of = |tick: u64| tick.checked_div(period).unwrap_or(0);
            let passed = of(tick).saturating_sub(of(self.state.seen_tick));
            if passed != 0 {
                if self.config.slew && self.state.b & b::PIE != 0 {
                    let taken = u64::from(self.state.c & c::PF == 0);
                    let lost = u32::try_from(passed.saturating_sub(taken)).unwrap_or(u32::MAX);
                    self.state.lost = self.state.lost.saturating_add(lost);
                    self.state.in_a_row = 0;
                }
                self.state.c |= c::PF;
            }
            self.state.seen_tick = tick;
        }
        if !self.state.is_running() {
            return;
        }
        let (now, seen) = (self.now_s(), self.state.seen_s);
        if now > seen {
            self.state.c |= c::UF;
            if self.next_alarm(seen).is_some_and(|at| at <= now) {
                self.state.c |= c::AF;
            }
        }
        self.state.seen_s = now;
    }

    /// The guest has read the flags, which are clear now: it gets an interrupt that it missed.
    fn make_up(&mut self) {
        let state = &mut self.state;
        if state.b & b::PIE == 0 || state.lost == 0 || state.in_a_row >= MOST_IN_A_ROW {
            return;
        }
        state.lost = state.lost.saturating_sub(1);
        state.in_a_row = state.in_a_row.saturating_add(1);
        state.c |= c::PF;
        // An edge of its own.
        self.irq.set(false);
    }

    fn has_interrupt(&self) -> bool {
        self.state.c & self.state.b & (c::PF | c::AF | c::UF) != 0
    }

    /// Flags, pin and deadline follow time and state.
    fn sync(&mut self) {
        self.catch_up();
        self.irq.set(self.has_interrupt() && !self.legacy.is_on());
        match self.next_event_ns() {
            Some(at) => self.deadline.arm(at),
            None => self.deadline.disarm(),
        }
    }

    /// Virtual time of the next enabled interrupt whose flag is not set yet.
    fn next_event_ns(&self) -> Option<u64> {
        let clock = self.clock.as_ref()?;
        let waits = |bit: u8| self.state.b & bit != 0 && self.state.c & bit == 0;
        let now = self.now();
        let at_second = |second: i64| {
            let ahead = i128::from(second).wrapping_mul(SECOND_NS).wrapping_sub(now);
            let ahead = u64::try_from(ahead.max(0)).unwrap_or(u64::MAX);
            clock.now_ns().saturating_add(ahead)
        };
        let periodic = self
            .state
            .period()
            .filter(|_| waits(b::PIE))
            .and_then(|period| {
                let n = self.tick().checked_div(period)?.checked_add(1)?;
                Some(hw_clock::ticks_to_ns(n.checked_mul(period)?, CRYSTAL_HZ))
            });
        let is_running = self.state.is_running();
        let seen = self.state.seen_s;
        let update = (is_running && waits(b::UIE)).then(|| at_second(seen.saturating_add(1)));
        let alarm = (is_running && waits(b::AIE))
            .then(|| self.next_alarm(seen))
            .flatten()
            .map(at_second);
        [periodic, update, alarm].into_iter().flatten().min()
    }

    fn peek(&self, index: u8) -> u8 {
        let is_running = self.state.is_running();
        match index {
            regs::A => {
                let part = self.now().rem_euclid(SECOND_NS);
                let is_updating = is_running && part >= SECOND_NS.wrapping_sub(UPDATE_NS);
                self.state.a | if is_updating { a::UIP } else { 0 }
            }
            regs::B => self.state.b,
            regs::C => {
                let irqf = if self.has_interrupt() { c::IRQF } else { 0 };
                self.state.c | irqf
            }
            regs::D => VALID,
            _ => {
                if is_running && regs::TIME.contains(&index) {
                    self.store_time();
                }
                self.cmos.get(index)
            }
        }
    }

    /// Missed interrupts of another rate are as much time as before; without any they are forgotten.
    fn rescale(&mut self, old: Option<u64>) {
        let lost = u64::from(self.state.lost);
        let new = self.state.period().filter(|_| self.state.b & b::PIE != 0);
        let lost = match (old, new) {
            (Some(old), Some(new)) => lost.saturating_mul(old).checked_div(new).unwrap_or(0),
            _ => 0,
        };
        self.state.lost = u32::try_from(lost).unwrap_or(u32::MAX);
    }

    /// A write of register A or B may stop or start the time.
    fn write_control(&mut self, new_a: u8, new_b: u8) {
        let was = self.state;
        if was.is_running() {
            // Also brings the bytes into the old notation, which they keep until written.
            self.store_time();
        }
        self.state.a = new_a & !a::UIP;
        self.state.b = new_b;
        self.rescale(was.period());
        if new_b & b::SET != 0 {
            // "A high SET bit ... clears UIE."
            self.state.b &= !b::UIE;
        }
        if was.is_running() || !self.state.is_running() {
            // The divider's reset begins: its part of a second is gone when it ends.
            if was.is_divider_on() && !self.state.is_divider_on() {
                self.state.seen_tick = self.tick();
            }
            return;
        }
        let part = if was.is_divider_on() {
            self.now().rem_euclid(SECOND_NS)
        } else {
            self.state.seen_tick = self.tick();
            HALF_SECOND_NS.into()
        };
        self.set_time(self.stored_time(), part);
    }

    fn write_data(&mut self, index: u8, value: u8) {
        match index {
            regs::A => self.write_control(value, self.state.b),
            regs::B => self.write_control(self.state.a, value),
            // Read only.
            regs::C | regs::D => {}
            _ if regs::TIME.contains(&index) && self.state.is_running() => {
                self.store_time();
                self.cmos.set(index, value);
                let part = self.now().rem_euclid(SECOND_NS);
                self.set_time(self.stored_time(), part);
            }
            _ => self.cmos.set(index, value),
        }
    }
}

impl Device for Rtc {
    fn realize(&mut self, w: &mut dyn Wiring) -> Result<(), DeviceError> {
        let config = self.config;
        w.ports(Region::new("rtc", config.iobase, 2).sizes(AccessSizes::BYTE));
        self.irq = w.irq(IrqPin::Bus(config.irq));
        let clock = w.clock();
        let wall = i128::from(clock.wall_ns());
        self.clock = Some(clock);
        self.deadline = w.timer(TimerId(0));
        let in_ns = |seconds: i64| i128::from(seconds).wrapping_mul(SECOND_NS);
        let start = match config.base {
            RtcBase::Utc => wall,
            RtcBase::Shifted(seconds) => wall.wrapping_add(in_ns(seconds)),
            RtcBase::Date(seconds) => in_ns(seconds),
        };
        let seconds = start.div_euclid(SECOND_NS) as i64;
        self.set_time(seconds, start.rem_euclid(SECOND_NS));
        self.state.seen_tick = self.tick();
        Ok(())
    }

    fn reset(&mut self, _: ResetKind) {
        // The battery keeps time and memory; RESET clears the interrupts only.
        self.state.b &= !(b::PIE | b::AIE | b::UIE | b::SQWE);
        self.state.c = 0;
        self.state.index = 0;
        (self.state.lost, self.state.in_a_row) = (0, 0);
    }

    fn after_reset(&mut self) {
        self.sync();
    }

    fn read(&mut self, access: Access) -> Result<u64, Fault> {
        if access.offset & 1 == 0 {
            return Err(Fault::WriteOnly);
        }
        let index = self.state.index & 0x7f;
        if access.by == Initiator::Debug {
            return Ok(self.peek(index).into());
        }
        self.sync();
        let value = self.peek(index);
        if index == regs::C {
            self.state.c = 0;
            self.make_up();
            self.sync();
        }
        Ok(value.into())
    }

    fn write(&mut self, access: Access, value: u64) -> Result<(), Fault> {
        let value = value as u8;
        if access.offset & 1 == 0 {
            self.state.index = value;
            return Ok(());
        }
        self.catch_up();
        self.write_data(self.state.index & 0x7f, value);
        self.sync();
        Ok(())
    }

    fn timer(&mut self, _: TimerId) {
        self.sync();
    }

    fn save(&self) -> Section {
        let mut state = self.state;
        if self.config.clock == RtcClock::Rt {
            // Another process's monotonic clock says something else.
            state.set_offset(self.now().wrapping_sub(self.wall_ns()));
        }
        saved::save(&state, &self.cmos.all())
    }

    fn restore(&mut self, section: &Section) -> Result<(), StateError> {
        let (state, cmos) = saved::restore(section)?;
        self.state = state;
        if self.config.clock == RtcClock::Rt {
            let now = state.offset().wrapping_add(self.wall_ns());
            self.state.set_offset(now.wrapping_sub(self.reference_ns()));
        }
        self.cmos.set_all(cmos);
        Ok(())
    }

    fn inspect(&self) -> Vec<(&'static str, u64)> {
        vec![
            ("a", self.peek(regs::A).into()),
            ("b", self.state.b.into()),
            ("c", self.peek(regs::C).into()),
            ("time", self.now_s().cast_unsigned()),
            ("nmi-masked", (self.state.index >> 7).into()),
        ]
    }
}

/// `mc146818rtc`.
pub static MC146818RTC: DeviceClass = DeviceClass {
    name: "mc146818rtc",
    aliases: &[],
    doc: "MC146818 real time clock and CMOS memory",
    bus: BusKind::Isa,
    category: Category::Misc,
    props: &[
        Prop {
            name: "base_year",
            ty: PropType::I32,
            default: "2000",
            doc: "year that the year register counts from",
        },
        Prop {
            name: "iobase",
            ty: PropType::U16,
            default: "0x70",
            doc: "first I/O port",
        },
        Prop {
            name: "irq",
            ty: PropType::U8,
            default: "8",
            doc: "ISA interrupt",
        },
        Prop {
            name: "lost_tick_policy",
            ty: PropType::Enum(&["discard", "slew"]),
            default: "discard",
            doc: "periodic interrupts that the guest missed: dropped, or given when it takes the next",
        },
    ],
    user_creatable: false,
    create: |args, _| {
        Ok(Box::new(Rtc::new(
            RtcConfig::of(args)?,
            Cmos::default(),
            LegacyReplacement::new(),
        )))
    },
};
