//! Arm PL031 real time clock.
//!
//! Spec: Arm DDI 0224C, "PrimeCell Real Time Clock (PL031) Technical Reference Manual".
//!
//! The counter is never ticked: it is `reference clock + offset`, so an idle guest costs nothing.
//!
//! Not modelled: stopping the counter, the integration test registers.

use hw_clock::NS_PER_S;
use hw_core::{
    Access, BusKind, Category, Clock, Device, DeviceClass, DeviceError, Fault, IrqLine, IrqPin,
    Prop, PropType, Region, ResetKind, Section, StateError, Timer, TimerId, Wiring,
};

use crate::{RtcBase, RtcClock};

#[cfg(test)]
mod tests;

const LEN: u64 = 0x1000;
const ALARM: TimerId = TimerId(0);

/// PeriphID0-3 and PCellID0-3.
const ID: [u8; 8] = [0x31, 0x10, 0x14, 0x00, 0x0d, 0xf0, 0x05, 0xb1];

/// One register (section 3.2).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Reg {
    /// RTCDR, 0x00, RO: the counter.
    Data,
    /// RTCMR, 0x04, RW: the alarm.
    Match,
    /// RTCLR, 0x08, RW: sets the counter.
    Load,
    /// RTCCR, 0x0c, RW: bit 0 starts the counter.
    Control,
    /// RTCIMSC, 0x10, RW: bit 0 lets the interrupt out.
    IntMask,
    /// RTCRIS, 0x14, RO.
    RawInt,
    /// RTCMIS, 0x18, RO.
    MaskedInt,
    /// RTCICR, 0x1c, WO: bit 0 clears the interrupt.
    IntClear,
    /// 0xfe0-0xffc, RO.
    Id(usize),
}

impl Reg {
    fn at(offset: u64) -> Option<Self> {
        Some(match offset & !3 {
            0x00 => Reg::Data,
            0x04 => Reg::Match,
            0x08 => Reg::Load,
            0x0c => Reg::Control,
            0x10 => Reg::IntMask,
            0x14 => Reg::RawInt,
            0x18 => Reg::MaskedInt,
            0x1c => Reg::IntClear,
            n @ 0xfe0..0x1000 => Reg::Id(usize::try_from(n >> 2 & 7).ok()?),
            _ => return None,
        })
    }
}

/// What a board says about the clock.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pl031Config {
    /// First address.
    pub address: u64,
    /// Time at power on.
    pub base: RtcBase,
    /// What drives it.
    pub clock: RtcClock,
}

/// Seconds-resolution clock with one alarm.
#[derive(Default)]
pub struct Pl031 {
    irq: IrqLine,
    clock: Option<Clock>,
    alarm: Timer,

    config: Pl031Config,

    state: State,
}

/// Everything the guest can observe, and all that is saved.
#[derive(Clone, Default, Debug, PartialEq, Eq)]
struct State {
    /// Guest seconds minus those of the reference clock, modulo 2^32.
    offset: u32,
    load: u32,
    match_at: u32,
    raised: bool,
    mask: bool,
}

impl Pl031 {
    /// A clock as the board wants it.
    pub fn new(config: Pl031Config) -> Self {
        Pl031 {
            config,
            ..Pl031::default()
        }
    }

    fn reference_ns(&self) -> u64 {
        let Some(clock) = &self.clock else { return 0 };
        match self.config.clock {
            RtcClock::Host => clock.wall_ns(),
            RtcClock::Rt => clock.host_ns(),
            RtcClock::Vm => clock.now_ns(),
        }
    }

    /// Seconds of the reference clock ahead of the one that other processes know, too.
    fn skew(&self) -> u32 {
        match (&self.clock, self.config.clock) {
            (Some(clock), RtcClock::Rt) => {
                let seconds = |ns: u64| (ns / NS_PER_S) as u32;
                seconds(self.reference_ns()).wrapping_sub(seconds(clock.wall_ns()))
            }
            _ => 0,
        }
    }

    fn now(&self) -> u32 {
        let seconds = (self.reference_ns() / NS_PER_S) as u32;
        seconds.wrapping_add(self.state.offset)
    }

    fn set(&mut self, seconds: u32) {
        self.state.offset = self
            .state
            .offset
            .wrapping_add(seconds.wrapping_sub(self.now()));
    }

    /// Brings pin and alarm in line with the state. Called after every change.
    fn sync(&mut self) {
        self.irq.set(self.state.raised && self.state.mask);
        let Some(clock) = &self.clock else { return };
        let left_s = self.state.match_at.wrapping_sub(self.now());
        if self.state.raised || left_s == 0 {
            return self.alarm.disarm();
        }
        let within = self.reference_ns() % NS_PER_S;
        let wait = u64::from(left_s).saturating_mul(NS_PER_S);
        let at = clock.now_ns().saturating_add(wait.saturating_sub(within));
        self.alarm.arm(at);
    }
}

impl Device for Pl031 {
    fn realize(&mut self, w: &mut dyn Wiring) -> Result<(), DeviceError> {
        w.mmio(Region::new("pl031", self.config.address, LEN));
        self.irq = w.irq(IrqPin::Named("irq"));
        self.alarm = w.timer(ALARM);
        let clock = w.clock();
        let wall = (clock.wall_ns() / NS_PER_S).cast_signed();
        self.clock = Some(clock);
        self.set(match self.config.base {
            RtcBase::Utc => wall as u32,
            RtcBase::Shifted(seconds) => wall.wrapping_add(seconds) as u32,
            RtcBase::Date(seconds) => seconds as u32,
        });
        Ok(())
    }

    fn reset(&mut self, _: ResetKind) {
        // A machine reset is not a power cut: the battery keeps the time, the alarm is lost.
        self.state = State {
            offset: self.state.offset,
            ..State::default()
        };
    }

    fn after_reset(&mut self) {
        self.sync();
    }

    fn read(&mut self, access: Access) -> Result<u64, Fault> {
        let state = &self.state;
        Ok(match Reg::at(access.offset).ok_or(Fault::NoRegister)? {
            Reg::Data => self.now().into(),
            Reg::Match => state.match_at.into(),
            Reg::Load => state.load.into(),
            Reg::Control => 1,
            Reg::IntMask => state.mask.into(),
            Reg::RawInt => state.raised.into(),
            Reg::MaskedInt => (state.raised && state.mask).into(),
            Reg::Id(n) => ID.get(n).copied().unwrap_or(0).into(),
            Reg::IntClear => return Err(Fault::WriteOnly),
        })
    }

    fn write(&mut self, access: Access, value: u64) -> Result<(), Fault> {
        let value = value as u32;
        match Reg::at(access.offset).ok_or(Fault::NoRegister)? {
            Reg::Match => self.state.match_at = value,
            Reg::Load => {
                self.state.load = value;
                self.set(value);
            }
            // "Once enabled, the counter cannot be stopped"; it is so from power on.
            Reg::Control => {}
            Reg::IntMask => self.state.mask = value & 1 != 0,
            Reg::IntClear if value & 1 != 0 => self.state.raised = false,
            Reg::IntClear => {}
            Reg::Data | Reg::RawInt | Reg::MaskedInt | Reg::Id(_) => return Err(Fault::ReadOnly),
        }
        self.sync();
        Ok(())
    }

    fn timer(&mut self, _: TimerId) {
        // The wall clock may have been set back meanwhile.
        let late_s = self.now().wrapping_sub(self.state.match_at);
        self.state.raised |= late_s < u32::MAX / 2;
        self.sync();
    }

    fn save(&self) -> Section {
        let State {
            offset,
            load,
            match_at,
            raised,
            mask,
        } = self.state.clone();
        Section::new("pl031", 1)
            .with(1, offset.wrapping_add(self.skew()))
            .with(2, load)
            .with(3, match_at)
            .with(4, raised)
            .with(5, mask)
    }

    fn restore(&mut self, s: &Section) -> Result<(), StateError> {
        s.expect("pl031", 1)?;
        self.state = State {
            offset: s.u32(1)?.wrapping_sub(self.skew()),
            load: s.u32(2)?,
            match_at: s.u32(3)?,
            raised: s.bool(4)?,
            mask: s.bool(5)?,
        };
        Ok(())
    }
}

/// `pl031`. Its pin is `irq`.
pub static PL031: DeviceClass = DeviceClass {
    name: "pl031",
    aliases: &[],
    doc: "Arm PrimeCell real time clock",
    bus: BusKind::System,
    category: Category::Misc,
    props: &[Prop {
        name: "base",
        ty: PropType::U64,
        default: "",
        doc: "first address",
    }],
    user_creatable: false,
    create: |args, _| {
        Ok(Box::new(Pl031::new(Pl031Config {
            address: args.need_int("base")?,
            ..Pl031Config::default()
        })))
    },
};
