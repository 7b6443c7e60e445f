//! Arm PL061 general purpose input/output, with a key on one of its pins.
//!
//! Spec: Arm DDI 0190B, "PrimeCell General Purpose Input/Output (PL061) Technical Reference Manual".
//!
//! Pins that nothing drives are low. A key holds its pin high for a tenth of a second, as a finger
//! would: drivers wait for bounces to end.
//!
//! Not modelled: hardware control of pins (GPIOAFSEL is kept, without effect).

use hw_core::{
    Access, BusKind, Category, Clock, Device, DeviceClass, DeviceError, Fault, IrqLine, IrqPin,
    PowerButton, Prop, PropType, Region, Request, Requests, ResetKind, Section, StateError, Timer,
    TimerId, Wiring,
};

#[cfg(test)]
mod tests;

const LEN: u64 = 0x1000;
/// GPIODATA: address bits 9:2 say which pins an access is about.
const DATA_END: u64 = 0x400;
const DIR: u64 = 0x400;
const IS: u64 = 0x404;
const IBE: u64 = 0x408;
const IEV: u64 = 0x40c;
const IE: u64 = 0x410;
const RIS: u64 = 0x414;
const MIS: u64 = 0x418;
const IC: u64 = 0x41c;
const AFSEL: u64 = 0x420;
const ID: [u8; 8] = [0x61, 0x10, 0x04, 0x00, 0x0d, 0xf0, 0x05, 0xb1];

const RELEASE: TimerId = TimerId(0);
const PRESSED_NS: u64 = 100_000_000;

/// A key on a pin.
#[derive(Clone)]
pub struct Key {
    /// Pin, 0 to 7.
    pub pin: u8,
    /// What presses it.
    pub button: PowerButton,
}

/// An output pin that asks something of the machine when it rises.
#[derive(Clone, Copy, Debug)]
pub struct Output {
    /// Pin, 0 to 7.
    pub pin: u8,
    /// What it asks for.
    pub request: Request,
}

/// Eight pins.
#[derive(Default)]
pub struct Pl061 {
    irq: IrqLine,
    clock: Option<Clock>,
    release: Timer,
    requests: Requests,

    base: u64,
    key: Option<Key>,
    outputs: Vec<Output>,

    state: State,
}

/// Everything the guest can observe, and all that is saved.
#[derive(Clone, Copy, Default, Debug, PartialEq, Eq)]
struct State {
    /// Levels that the output pins would have.
    outputs: u8,
    /// Levels that others drive.
    inputs: u8,
    /// GPIODIR: output pins.
    direction: u8,
    /// GPIOIS: by level.
    level: u8,
    /// GPIOIBE: on both edges.
    both: u8,
    /// GPIOIEV: on the rising edge or the high level.
    rising: u8,
    /// GPIOIE.
    enabled: u8,
    /// Edges seen and not cleared.
    edges: u8,
    afsel: u8,
    /// When the key is let go, in virtual time; 0 while it is.
    release_at: u64,
}

impl State {
    fn pins(&self) -> u8 {
        self.outputs & self.direction | self.inputs & !self.direction
    }

    /// GPIORIS.
    fn raw(&self) -> u8 {
        self.edges | self.level & !(self.pins() ^ self.rising)
    }

    /// Changes the state and notes the edges that this makes.
    fn change(&mut self, f: impl FnOnce(&mut State)) {
        let before = self.pins();
        f(self);
        let after = self.pins();
        let wanted = self.both | !(after ^ self.rising);
        self.edges |= (before ^ after) & wanted & !self.level;
    }
}

impl Pl061 {
    /// Pins at `base`.
    pub fn new(base: u64, key: Option<Key>) -> Self {
        Pl061 {
            base,
            key,
            ..Pl061::default()
        }
    }

    /// With pins that ask something of the machine.
    #[must_use]
    pub fn with_outputs(mut self, outputs: &[Output]) -> Self {
        self.outputs = outputs.to_vec();
        self
    }

    /// Asks for what the output pins that rose are for.
    fn rose(&self, before: u8) {
        let now = self.state.outputs & self.state.direction;
        for output in &self.outputs {
            let bit = 1u8.checked_shl(output.pin.into()).unwrap_or(0);
            if now & !before & bit != 0 {
                self.requests.post(output.request);
            }
        }
    }

    fn sync(&mut self) {
        self.irq.set(self.state.raw() & self.state.enabled != 0);
        match self.state.release_at {
            0 => self.release.disarm(),
            at => self.release.arm(at),
        }
    }

    fn hold(&mut self, down: bool) {
        let Some(key) = &self.key else { return };
        let bit = 1u8.checked_shl(key.pin.into()).unwrap_or(0);
        let now = self.clock.as_ref().map_or(0, Clock::now_ns);
        self.state.change(|state| {
            if down {
                state.inputs |= bit;
                state.release_at = now.saturating_add(PRESSED_NS);
            } else {
                state.inputs &= !bit;
                state.release_at = 0;
            }
        });
        self.sync();
    }
}

impl Device for Pl061 {
    fn realize(&mut self, w: &mut dyn Wiring) -> Result<(), DeviceError> {
        w.mmio(Region::new("pl061", self.base, LEN));
        self.irq = w.irq(IrqPin::Named("irq"));
        self.clock = Some(w.clock());
        self.release = w.timer(RELEASE);
        self.requests = w.requests();
        if let Some(key) = &self.key {
            key.button.connect(w.poke());
        }
        Ok(())
    }

    fn reset(&mut self, _: ResetKind) {
        self.state = State::default();
    }

    fn after_reset(&mut self) {
        self.sync();
    }

    fn read(&mut self, access: Access) -> Result<u64, Fault> {
        let state = &self.state;
        let value = match access.offset & !3 {
            at @ 0..DATA_END => state.pins() & (at >> 2) as u8,
            DIR => state.direction,
            IS => state.level,
            IBE => state.both,
            IEV => state.rising,
            IE => state.enabled,
            RIS => state.raw(),
            MIS => state.raw() & state.enabled,
            AFSEL => state.afsel,
            IC => return Err(Fault::WriteOnly),
            at @ 0xfe0..0x1000 => {
                let n = usize::try_from(at >> 2 & 7).unwrap_or(0);
                ID.get(n).copied().unwrap_or(0)
            }
            _ => return Err(Fault::NoRegister),
        };
        Ok(value.into())
    }

    fn write(&mut self, access: Access, value: u64) -> Result<(), Fault> {
        let value = value as u8;
        let before = self.state.outputs & self.state.direction;
        let state = &mut self.state;
        match access.offset & !3 {
            at @ 0..DATA_END => {
                let mask = (at >> 2) as u8 & state.direction;
                state.change(|state| state.outputs = state.outputs & !mask | value & mask);
            }
            DIR => state.change(|state| state.direction = value),
            IS => state.level = value,
            IBE => state.both = value,
            IEV => state.rising = value,
            IE => state.enabled = value,
            IC => state.edges &= !value,
            AFSEL => state.afsel = value,
            RIS | MIS | 0xfe0..0x1000 => return Err(Fault::ReadOnly),
            _ => return Err(Fault::NoRegister),
        }
        self.rose(before);
        self.sync();
        Ok(())
    }

    fn timer(&mut self, _: TimerId) {
        self.hold(false);
    }

    fn poke(&mut self, _: u64) {
        self.hold(true);
    }

    fn save(&self) -> Section {
        let State {
            outputs,
            inputs,
            direction,
            level,
            both,
            rising,
            enabled,
            edges,
            afsel,
            release_at,
        } = self.state;
        Section::new("pl061", 1)
            .with(1, outputs)
            .with(2, inputs)
            .with(3, direction)
            .with(4, level)
            .with(5, both)
            .with(6, rising)
            .with(7, enabled)
            .with(8, edges)
            .with(9, afsel)
            .with(10, release_at)
    }

    fn restore(&mut self, s: &Section) -> Result<(), StateError> {
        s.expect("pl061", 1)?;
        self.state = State {
            outputs: s.u8(1)?,
            inputs: s.u8(2)?,
            direction: s.u8(3)?,
            level: s.u8(4)?,
            both: s.u8(5)?,
            rising: s.u8(6)?,
            enabled: s.u8(7)?,
            edges: s.u8(8)?,
            afsel: s.u8(9)?,
            release_at: s.u64(10)?,
        };
        Ok(())
    }
}

/// `pl061`. Its pin is `irq`.
pub static PL061: DeviceClass = DeviceClass {
    name: "pl061",
    aliases: &[],
    doc: "Arm PrimeCell general purpose input/output",
    bus: BusKind::System,
    category: Category::Misc,
    props: &[Prop {
        name: "base",
        ty: PropType::U64,
        default: "",
        doc: "first address",
    }],
    user_creatable: false,
    create: |args, _| Ok(Box::new(Pl061::new(args.need_int("base")?, None))),
};
