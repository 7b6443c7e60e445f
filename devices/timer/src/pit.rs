//! i8254 programmable interval timer, and port 61h that gates its speaker counter.
//!
//! Spec: Intel 8254 (231164-005); port 61h: Intel 82371AB (PIIX4), 7.3.1.
//!
//! Counter 0's interrupt is a pulse at each rising edge of its output; only those edges are armed.
//! Periods that the host was too late for are made up for, one pulse each, and the interrupt controllers keep
//! those that the guest is too slow for: kernels count their time by them.
//!
//! Not modelled: sound; a new count in the periodic modes begins at once instead of after the
//! running period; the parity and channel check bits of port 61h.

use std::sync::Arc;

use hw_core::{
    Access, AccessSizes, BusKind, Category, Clock, Device, DeviceClass, DeviceError, Fault,
    Initiator, IrqLine, IrqPin, Prop, PropType, Region, RegionId, ResetKind, Section, StateError,
    Timer, TimerId, Wiring,
};
use hw_intc::{I8254State, LegacyReplacement, PIT_HZ};

use crate::{MIN_PERIOD_NS, MOST_LATE};

mod counter;
mod kernel;
#[cfg(test)]
mod tests;

use counter::Counter;
pub use kernel::{KVM_PIT, KernelPit};

const CONTROL: u64 = 3;
/// Control word: the counter field's value for read-back.
const READ_BACK: u8 = 3;
const READ_BACK_NO_COUNT: u8 = 1 << 5;
const READ_BACK_NO_STATUS: u8 = 1 << 4;

/// Where a PC has it.
const PORT_40: u64 = 0x40;
/// Port 61h.
const PORT_61: u64 = 0x61;
const SPEAKER_GATE: u8 = 1 << 0;
const SPEAKER_DATA: u8 = 1 << 1;
const REFRESH: u8 = 1 << 4;
const SPEAKER_OUT: u8 = 1 << 5;
/// Half a period of the refresh signal, in ticks.
const REFRESH_TICKS: u64 = 18;

const FIRE: TimerId = TimerId(0);
/// The HPET took the interrupt over, or gave it back.
const REPLACED: TimerId = TimerId(1);

/// The timer.
pub struct Pit {
    irq: IrqLine,
    clock: Option<Clock>,
    deadline: Timer,
    legacy: Arc<LegacyReplacement>,
    port_61: RegionId,

    iobase: u64,

    state: I8254State,
}

impl Pit {
    /// A timer at `iobase`, whose interrupt the HPET may take over.
    pub fn new(iobase: u64, legacy: Arc<LegacyReplacement>) -> Self {
        Pit {
            irq: IrqLine::default(),
            clock: None,
            deadline: Timer::default(),
            legacy,
            port_61: RegionId::default(),
            iobase,
            state: I8254State::default(),
        }
    }

    fn now(&self) -> u64 {
        self.clock.as_ref().map_or(0, |clock| clock.ticks(PIT_HZ))
    }

    /// Finds counter 0's next edge, not sooner than a guest could take it.
    fn schedule(&mut self, after: u64) {
        self.state.fires_at = self.state.channels[0].next_rise(after);
    }

    /// Level and deadline follow the state.
    fn sync(&mut self) {
        // Cut off, it must not hold up the line that the HPET pulses now.
        let out = self.state.channels[0].out(self.now());
        self.irq.set(out && !self.legacy.is_on());
        match self.state.fires_at {
            Some(at) => self.deadline.arm(hw_clock::ticks_to_ns(at, PIT_HZ)),
            None => self.deadline.disarm(),
        }
    }

    fn fire(&mut self) {
        let now = self.now();
        let Some(due) = self.state.fires_at.filter(|at| *at <= now) else {
            return self.sync();
        };
        if self.legacy.is_on() {
            // Nothing is to be heard before the interrupt is given back.
            self.state.fires_at = None;
            return;
        }
        let wait = hw_clock::ns_to_ticks(MIN_PERIOD_NS, PIT_HZ);
        let period = self.state.channels[0].period().map(|n| n.max(wait));
        let late = period.and_then(|n| now.saturating_sub(due).checked_div(n));
        for _ in 0..=late.unwrap_or(0).min(MOST_LATE) {
            self.irq.set(false);
            self.irq.set(true);
        }
        self.schedule(now);
        if self
            .state
            .fires_at
            .is_some_and(|at| at < now.saturating_add(wait))
        {
            self.schedule(now.saturating_add(wait));
        }
        // The line stays high till the next edge even where the output falls before: inputs are
        // edge-triggered, and a wake-up is saved.
        if let Some(at) = self.state.fires_at {
            self.deadline.arm(hw_clock::ticks_to_ns(at, PIT_HZ));
        }
    }

    fn write_control(&mut self, value: u8, now: u64) {
        let selected = value >> 6;
        if selected == READ_BACK {
            for (bit, channel) in (1..).zip(&mut self.state.channels) {
                if value & 1u8.wrapping_shl(bit) != 0 {
                    if value & READ_BACK_NO_COUNT == 0 {
                        channel.latch_count(now);
                    }
                    if value & READ_BACK_NO_STATUS == 0 {
                        channel.latch_status(now);
                    }
                }
            }
            return;
        }
        let Some(channel) = self.state.channels.get_mut(usize::from(selected)) else {
            return;
        };
        if value & 0x30 == 0 {
            channel.latch_count(now);
            return;
        }
        channel.set_control(value & 0x3f);
        if selected == 0 {
            self.schedule(now);
            self.sync();
        }
    }
}

fn read_61(state: &I8254State, now: u64) -> u8 {
    let [_, _, speaker] = &state.channels;
    let refresh = (now.checked_div(REFRESH_TICKS).unwrap_or(0) & 1) != 0;
    [
        (speaker.gate, SPEAKER_GATE),
        (state.speaker_data, SPEAKER_DATA),
        (refresh, REFRESH),
        (speaker.out(now), SPEAKER_OUT),
    ]
    .iter()
    .filter(|(on, _)| *on)
    .fold(0, |value, (_, bit)| value | bit)
}

fn inspect(state: &I8254State) -> Vec<(&'static str, u64)> {
    let [a, b, c] = &state.channels;
    vec![
        ("mode0", a.mode.into()),
        ("count0", a.reload.into()),
        ("mode1", b.mode.into()),
        ("count1", b.reload.into()),
        ("mode2", c.mode.into()),
        ("count2", c.reload.into()),
    ]
}

impl Device for Pit {
    fn realize(&mut self, w: &mut dyn Wiring) -> Result<(), DeviceError> {
        w.ports(Region::new("pit", self.iobase, 4).sizes(AccessSizes::BYTE));
        (self.port_61, _) = w.ports(Region::new("pcspk", PORT_61, 1).sizes(AccessSizes::BYTE));
        self.irq = w.irq(IrqPin::Bus(0));
        self.irq.keep_edges();
        self.clock = Some(w.clock());
        self.deadline = w.timer(FIRE);
        self.legacy.on_change(w.timer(REPLACED));
        Ok(())
    }

    fn reset(&mut self, _: ResetKind) {
        self.state = I8254State::default();
    }

    fn after_reset(&mut self) {
        self.sync();
    }

    fn read(&mut self, access: Access) -> Result<u64, Fault> {
        let now = self.now();
        if access.region == self.port_61 {
            return Ok(read_61(&self.state, now).into());
        }
        let n = usize::try_from(access.offset).unwrap_or(usize::MAX);
        match self.state.channels.get_mut(n) {
            Some(channel) if access.by == Initiator::Debug => Ok(channel.peek(now).into()),
            Some(channel) => Ok(channel.read(now).into()),
            None => Err(Fault::WriteOnly),
        }
    }

    fn write(&mut self, access: Access, value: u64) -> Result<(), Fault> {
        let (now, value) = (self.now(), value as u8);
        if access.region == self.port_61 {
            self.state.speaker_data = value & SPEAKER_DATA != 0;
            let [_, _, speaker] = &mut self.state.channels;
            speaker.set_gate(value & SPEAKER_GATE != 0, now);
            return Ok(());
        }
        if access.offset == CONTROL {
            self.write_control(value, now);
            return Ok(());
        }
        let n = usize::try_from(access.offset).unwrap_or(usize::MAX);
        let channel = self.state.channels.get_mut(n).ok_or(Fault::NoRegister)?;
        channel.write(value, now);
        if n == 0 && channel.write_low.is_none() {
            self.schedule(now);
            self.sync();
        }
        Ok(())
    }

    fn timer(&mut self, timer: TimerId) {
        if timer == REPLACED {
            self.schedule(self.now());
            self.sync();
        } else {
            self.fire();
        }
    }

    fn save(&self) -> Section {
        self.state.save()
    }

    fn restore(&mut self, section: &Section) -> Result<(), StateError> {
        self.state = I8254State::restore(section)?;
        Ok(())
    }

    fn inspect(&self) -> Vec<(&'static str, u64)> {
        inspect(&self.state)
    }
}

/// `isa-pit`.
pub static ISA_PIT: DeviceClass = DeviceClass {
    name: "isa-pit",
    aliases: &[],
    doc: "i8254 interval timer with port 61h",
    bus: BusKind::Isa,
    category: Category::Misc,
    props: &[Prop {
        name: "iobase",
        ty: PropType::U32,
        default: "0x40",
        doc: "first I/O port",
    }],
    user_creatable: false,
    create: |args, _| {
        let iobase = args.need_int("iobase")?;
        Ok(Box::new(Pit::new(iobase, LegacyReplacement::new())))
    },
};
