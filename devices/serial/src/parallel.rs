//! The PC's parallel port in standard (SPP) mode, with a printer that is always ready.
//!
//! Spec: IBM PC AT Technical Reference, "Parallel Printer Adapter"; IEEE 1284-1994, compatibility
//! mode.
//!
//! Not modelled: EPP and ECP registers, DMA.

use std::sync::Arc;

use hw_core::{
    Access, AccessSizes, Device, DeviceError, Fault, IrqLine, IrqPin, Region, ResetKind, Section,
    StateError, Wiring,
};

use crate::isa::{LPT_PORTS, Wish};
use crate::line::{Inbox, Line};

/// Status: not busy, no acknowledge pulse, selected, no fault.
const READY: u8 = 0xd8;
/// Status of a printer that has not taken its last character.
const BUSY: u8 = 0x58;

const CONTROL_STROBE: u8 = 1 << 0;
const CONTROL_IRQ: u8 = 1 << 4;
const CONTROL_INPUT: u8 = 1 << 5;
/// INIT off and SELECT on, as firmware leaves them.
const CONTROL_POWER_ON: u8 = 0x0c;
/// Bits 7:6 of the control register read as ones.
const CONTROL_ONES: u8 = 0xc0;

const NAME: &str = "parallel";
const DATA: u16 = 1;
const CONTROL: u16 = 2;
const HELD: u16 = 3;

/// A parallel port.
#[derive(Default)]
pub struct Parallel {
    irq: IrqLine,
    line: Option<Box<dyn Line>>,
    wish: Wish,
    state: State,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct State {
    data: u8,
    control: u8,
    /// A strobed character the stream has not taken.
    held: Option<u8>,
}

impl Default for State {
    fn default() -> Self {
        State {
            data: 0,
            control: CONTROL_POWER_ON,
            held: None,
        }
    }
}

impl Parallel {
    /// A port at the wished place, connected to `line`.
    pub(crate) fn new(wish: Wish, line: Option<Box<dyn Line>>) -> Self {
        Parallel {
            line,
            wish,
            ..Parallel::default()
        }
    }

    /// Sends the held character; the printer acknowledges it with an edge on the interrupt.
    fn sync(&mut self) {
        let Some(byte) = self.state.held else { return };
        if self.line.as_ref().is_none_or(|l| l.write(&[byte]) == 1) {
            self.state.held = None;
            if self.state.control & CONTROL_IRQ != 0 {
                self.irq.pulse();
            }
        }
    }
}

impl Device for Parallel {
    fn realize(&mut self, w: &mut dyn Wiring) -> Result<(), DeviceError> {
        let (base, irq) = self.wish.place(w, &LPT_PORTS, "parallel")?;
        w.ports(Region::new("parallel", base, 3).sizes(AccessSizes::BYTE));
        self.irq = w.irq(IrqPin::Bus(irq));
        let inbox: Arc<Inbox> = Inbox::new(w.poke());
        if let Some(line) = &self.line {
            line.attach(inbox);
        }
        Ok(())
    }

    fn reset(&mut self, _: ResetKind) {
        self.state = State::default();
    }

    fn read(&mut self, access: Access) -> Result<u64, Fault> {
        let State {
            data,
            control,
            held,
        } = self.state;
        Ok(u64::from(match access.offset {
            // Nothing drives the data lines from outside.
            0 if control & CONTROL_INPUT != 0 => 0xff,
            0 => data,
            1 if held.is_some() => BUSY,
            1 => READY,
            2 => control | CONTROL_ONES,
            _ => return Err(Fault::NoRegister),
        }))
    }

    fn write(&mut self, access: Access, value: u64) -> Result<(), Fault> {
        let value = value as u8;
        match access.offset {
            0 => self.state.data = value,
            1 => return Err(Fault::ReadOnly),
            2 => {
                let strobed = value & !self.state.control & CONTROL_STROBE != 0;
                self.state.control = value & !CONTROL_ONES;
                if strobed && self.state.held.is_none() {
                    self.state.held = Some(self.state.data);
                }
                self.sync();
            }
            _ => return Err(Fault::NoRegister),
        }
        Ok(())
    }

    fn poke(&mut self, _: u64) {
        self.sync();
    }

    fn save(&self) -> Section {
        let State {
            data,
            control,
            held,
        } = self.state.clone();
        let mut section = Section::new(NAME, 1)
            .with(DATA, data)
            .with(CONTROL, control);
        if let Some(held) = held {
            section.push(HELD, held);
        }
        section
    }

    fn restore(&mut self, s: &Section) -> Result<(), StateError> {
        s.expect(NAME, 1)?;
        self.state = State {
            data: s.u8(DATA)?,
            control: s.u8(CONTROL)? & !CONTROL_ONES,
            held: s.get(HELD).map(|_| s.u8(HELD)).transpose()?,
        };
        Ok(())
    }

    fn inspect(&self) -> Vec<(&'static str, u64)> {
        vec![
            ("data", self.state.data.into()),
            ("control", self.state.control.into()),
        ]
    }
}

#[cfg(test)]
mod tests;
