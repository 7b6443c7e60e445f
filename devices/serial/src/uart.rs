//! The 16550A UART as a PC's serial port.
//!
//! Spec: National Semiconductor PC16550D (June 1995). Registers carry its names in `regs.rs`.
//!
//! Output leaves at once: what the stream does not take waits in the transmit FIFO with THRE low,
//! so a stalled terminal stops the guest's driver and never a thread. The only deadline is the
//! receive FIFO's character timeout.
//!
//! Not modelled: the bit rate of characters, word lengths below eight bits, parity and framing
//! errors, DMA mode.

use std::collections::VecDeque;
use std::sync::Arc;

use hw_clock::NS_PER_S;
use hw_core::{
    Access, AccessSizes, Clock, Device, DeviceError, Fault, Initiator, IrqLine, IrqPin, Region,
    ResetKind, Section, StateError, Timer, TimerId, Wiring,
};

use crate::isa::{COM_PORTS, Wish};
use crate::line::{Inbox, Input, Line};

mod regs;
mod saved;
#[cfg(test)]
mod tests;

use regs::{fcr, ier, iir, lcr, lsr, mcr, msr};

/// Characters in each FIFO.
const FIFO_LEN: usize = 16;

/// Characters per second times bits per character at divisor 1: 1.8432 MHz / 16.
const BAUD_BASE: u64 = 115_200;

/// 9600 baud, as PC firmware leaves it.
const POWER_ON_DIVISOR: u16 = 12;

const TIMEOUT: TimerId = TimerId(0);

/// A 16550A at some ports.
#[derive(Default)]
pub struct Uart16550 {
    irq: IrqLine,
    clock: Option<Clock>,
    timeout: Timer,
    line: Option<Box<dyn Line>>,
    inbox: Option<Arc<Inbox>>,

    wish: Wish,

    state: State,
}

/// A received character with the LSR error bits it came with.
#[derive(Clone, Copy, Default, Debug, PartialEq, Eq)]
struct Char {
    data: u8,
    errors: u8,
}

/// Everything the guest can observe, and all that is saved.
#[derive(Clone, Debug, PartialEq, Eq)]
struct State {
    ier: u8,
    fcr: u8,
    lcr: u8,
    mcr: u8,
    scr: u8,
    divisor: u16,
    /// Modem inputs as last seen: the upper half of MSR.
    modem: u8,
    /// The lower half of MSR.
    deltas: u8,
    overrun: bool,
    rx: VecDeque<Char>,
    tx: VecDeque<u8>,
    /// The transmitter interrupt waits for IIR to be read.
    thr_pending: bool,
    timeout_pending: bool,
    /// When the character timeout passes, in virtual time.
    timeout_at: Option<u64>,
}

impl Default for State {
    fn default() -> Self {
        State {
            ier: 0,
            fcr: 0,
            lcr: 0,
            // Firmware leaves the interrupt gate open; some loaders rely on it.
            mcr: mcr::OUT2,
            scr: 0,
            divisor: POWER_ON_DIVISOR,
            modem: msr::DCD | msr::DSR | msr::CTS,
            deltas: 0,
            overrun: false,
            rx: VecDeque::new(),
            tx: VecDeque::new(),
            thr_pending: false,
            timeout_pending: false,
            timeout_at: None,
        }
    }
}

impl State {
    fn fifos(&self) -> bool {
        self.fcr & fcr::ENABLE != 0
    }

    fn capacity(&self) -> usize {
        if self.fifos() { FIFO_LEN } else { 1 }
    }

    /// Received characters that raise the interrupt (FCR bits 7:6).
    fn trigger(&self) -> usize {
        match (self.fifos(), self.fcr >> 6) {
            (false, _) | (true, 0) => 1,
            (true, 1) => 4,
            (true, 2) => 8,
            (true, _) => 14,
        }
    }

    fn lsr(&self) -> u8 {
        let mut value = 0;
        if let Some(head) = self.rx.front() {
            value |= lsr::DR | head.errors;
        }
        if self.overrun {
            value |= lsr::OE;
        }
        if self.tx.is_empty() {
            value |= lsr::THRE | lsr::TEMT;
        }
        if self.fifos() && self.rx.iter().any(|c| c.errors != 0) {
            value |= lsr::FIFO_ERROR;
        }
        value
    }

    /// The pending interrupt of highest priority (table IV).
    fn iir(&self) -> u8 {
        let enabled = |bit: u8| self.ier & bit != 0;
        let cause = if enabled(ier::RLSI) && self.lsr() & lsr::ERRORS != 0 {
            iir::RLSI
        } else if enabled(ier::RDI) && self.rx.len() >= self.trigger() {
            iir::RDI
        } else if enabled(ier::RDI) && self.timeout_pending {
            iir::CTI
        } else if enabled(ier::THRI) && self.thr_pending {
            iir::THRI
        } else if enabled(ier::MSI) && self.deltas != 0 {
            iir::MSI
        } else {
            iir::NONE
        };
        let fifos = if self.fifos() { iir::FIFOS } else { 0 };
        cause | fifos
    }

    /// Modem inputs: the outputs in loop-back, else a cable to a ready terminal.
    fn modem_inputs(&self) -> u8 {
        if self.mcr & mcr::LOOP == 0 {
            return msr::DCD | msr::DSR | msr::CTS;
        }
        [
            (mcr::DTR, msr::DSR),
            (mcr::RTS, msr::CTS),
            (mcr::OUT1, msr::RI),
            (mcr::OUT2, msr::DCD),
        ]
        .iter()
        .filter(|(out, _)| self.mcr & out != 0)
        .fold(0, |inputs, (_, input)| inputs | input)
    }

    /// Notes changes of the modem inputs.
    fn sample_modem(&mut self) {
        let inputs = self.modem_inputs();
        let mut changed = (self.modem ^ inputs) >> 4;
        // Only the trailing edge of the ring indicator counts.
        if inputs & msr::RI != 0 {
            changed &= !msr::TERI;
        }
        self.deltas |= changed;
        self.modem = inputs;
    }

    /// Nanoseconds of four characters: how long the receive FIFO waits for more.
    fn timeout_ns(&self) -> u64 {
        let bits = [
            1,
            u64::from(self.lcr & 3).saturating_add(5),
            u64::from(self.lcr & lcr::PARITY != 0),
            if self.lcr & lcr::STOP != 0 { 2 } else { 1 },
        ];
        let ticks = bits
            .iter()
            .sum::<u64>()
            .saturating_mul(4)
            .saturating_mul(u64::from(self.divisor.max(1)));
        hw_clock::ticks_to_ns(ticks, BAUD_BASE).min(NS_PER_S)
    }

    /// Starts the character timeout anew, or forgets it when nothing waits.
    fn restart_timeout(&mut self, now_ns: u64) {
        self.timeout_pending = false;
        self.timeout_at =
            (self.fifos() && !self.rx.is_empty()).then(|| now_ns.saturating_add(self.timeout_ns()));
    }

    fn receive(&mut self, char: Char, now_ns: u64) {
        if self.rx.len() >= self.capacity() {
            // The newest character is lost in FIFO mode, the older one without.
            self.overrun = true;
            if !self.fifos() {
                self.rx.clear();
                self.rx.push_back(char);
            }
            return;
        }
        self.rx.push_back(char);
        self.restart_timeout(now_ns);
    }

    fn clear_rx(&mut self) {
        self.rx.clear();
        self.timeout_pending = false;
        self.timeout_at = None;
    }

    fn clear_tx(&mut self) {
        self.tx.clear();
        self.thr_pending = true;
    }
}

impl Uart16550 {
    /// A port at the wished place, connected to `line`.
    pub(crate) fn new(wish: Wish, line: Option<Box<dyn Line>>) -> Self {
        Uart16550 {
            line,
            wish,
            ..Uart16550::default()
        }
    }

    fn now_ns(&self) -> u64 {
        self.clock.as_ref().map_or(0, Clock::now_ns)
    }

    /// Moves characters in and out, then brings pin and deadline in line with the state.
    fn sync(&mut self) {
        self.transmit();
        self.pull_input();
        let pending = self.state.iir() & iir::NONE == 0;
        self.irq.set(pending && self.state.mcr & mcr::OUT2 != 0);
        match self.state.timeout_at {
            Some(at) => self.timeout.arm(at),
            None => self.timeout.disarm(),
        }
    }

    fn transmit(&mut self) {
        if self.state.tx.is_empty() {
            return;
        }
        let looped = self.state.mcr & mcr::LOOP != 0;
        let bytes: &[u8] = self.state.tx.make_contiguous();
        let taken = if looped {
            bytes.len()
        } else {
            self.line
                .as_ref()
                .map_or(bytes.len(), |line| line.write(bytes))
        };
        let now = self.now_ns();
        let sent: Vec<u8> = self
            .state
            .tx
            .drain(..taken.min(self.state.tx.len()))
            .collect();
        if looped {
            for data in sent {
                self.state.receive(Char { data, errors: 0 }, now);
            }
        }
        if self.state.tx.is_empty() {
            self.state.thr_pending = true;
        }
    }

    fn pull_input(&mut self) {
        let now = self.now_ns();
        let Some(inbox) = &self.inbox else { return };
        // In loop-back the receiver is cut off from its pin: input waits outside.
        let room = |state: &State| {
            if state.mcr & mcr::LOOP != 0 {
                0
            } else {
                state.capacity().saturating_sub(state.rx.len())
            }
        };
        while room(&self.state) > 0 {
            let char = match inbox.take() {
                Some(Input::Byte(data)) => Char { data, errors: 0 },
                Some(Input::Break) => Char {
                    data: 0,
                    errors: lsr::BI,
                },
                None => break,
            };
            self.state.receive(char, now);
        }
        if inbox.set_room(room(&self.state))
            && let Some(line) = &self.line
        {
            line.accept_input();
        }
    }

    fn write_fcr(&mut self, value: u8) {
        let state = &mut self.state;
        let toggled = (state.fcr ^ value) & fcr::ENABLE != 0;
        if toggled || value & fcr::CLEAR_RX != 0 {
            state.clear_rx();
        }
        if toggled || value & fcr::CLEAR_TX != 0 {
            state.clear_tx();
        }
        // "Bit 0 must be a 1 when other FCR bits are written to or they will not be programmed."
        state.fcr = if value & fcr::ENABLE != 0 {
            value & fcr::KEPT
        } else {
            0
        };
    }

    fn write_ier(&mut self, value: u8) {
        let value = value & ier::ALL;
        let newly = value & !self.state.ier;
        if newly & ier::THRI != 0 && self.state.tx.is_empty() {
            self.state.thr_pending = true;
        }
        self.state.ier = value;
    }

    fn write_lcr(&mut self, value: u8) {
        let changed = self.state.lcr ^ value;
        self.state.lcr = value;
        if changed & lcr::BREAK != 0
            && let Some(line) = &self.line
        {
            line.set_break(value & lcr::BREAK != 0);
        }
    }

    /// What a read would answer, without its side effects.
    fn peek(&self, offset: u64) -> Result<u8, Fault> {
        let state = &self.state;
        let dlab = state.lcr & lcr::DLAB != 0;
        let [dll, dlm] = state.divisor.to_le_bytes();
        Ok(match offset {
            0 if dlab => dll,
            0 => state.rx.front().map_or(0, |c| c.data),
            1 if dlab => dlm,
            1 => state.ier,
            2 => state.iir(),
            3 => state.lcr,
            4 => state.mcr,
            5 => state.lsr(),
            6 => state.modem | state.deltas,
            7 => state.scr,
            _ => return Err(Fault::NoRegister),
        })
    }
}

impl Device for Uart16550 {
    fn realize(&mut self, w: &mut dyn Wiring) -> Result<(), DeviceError> {
        let (base, irq) = self.wish.place(w, &COM_PORTS, "serial")?;
        w.ports(Region::new("serial", base, 8).sizes(AccessSizes::BYTE));
        self.irq = w.irq(IrqPin::Bus(irq));
        self.clock = Some(w.clock());
        self.timeout = w.timer(TIMEOUT);
        let inbox = Inbox::new(w.poke());
        inbox.set_room(self.state.capacity());
        if let Some(line) = &self.line {
            line.attach(inbox.clone());
        }
        self.inbox = Some(inbox);
        Ok(())
    }

    fn reset(&mut self, _: ResetKind) {
        self.state = State::default();
    }

    fn after_reset(&mut self) {
        self.sync();
    }

    fn read(&mut self, access: Access) -> Result<u64, Fault> {
        let value = self.peek(access.offset)?;
        if access.by == Initiator::Debug {
            return Ok(value.into());
        }
        let now = self.now_ns();
        let state = &mut self.state;
        match access.offset {
            0 if state.lcr & lcr::DLAB == 0 => {
                state.rx.pop_front();
                state.restart_timeout(now);
            }
            2 if value & !iir::FIFOS == iir::THRI => state.thr_pending = false,
            5 => {
                state.overrun = false;
                if let Some(head) = state.rx.front_mut() {
                    head.errors = 0;
                }
            }
            6 => state.deltas = 0,
            _ => return Ok(value.into()),
        }
        self.sync();
        Ok(value.into())
    }

    fn write(&mut self, access: Access, value: u64) -> Result<(), Fault> {
        let value = value as u8;
        let dlab = self.state.lcr & lcr::DLAB != 0;
        let [dll, dlm] = self.state.divisor.to_le_bytes();
        match access.offset {
            0 if dlab => self.state.divisor = u16::from_le_bytes([value, dlm]),
            0 => {
                self.state.thr_pending = false;
                if self.state.tx.len() >= self.state.capacity() {
                    self.state.tx.pop_back();
                }
                self.state.tx.push_back(value);
            }
            1 if dlab => self.state.divisor = u16::from_le_bytes([dll, value]),
            1 => self.write_ier(value),
            2 => self.write_fcr(value),
            3 => self.write_lcr(value),
            4 => {
                self.state.mcr = value & mcr::ALL;
                self.state.sample_modem();
            }
            // LSR is for factory testing only; MSR's inputs are pins.
            5 => return Err(Fault::ReadOnly),
            6 => return Err(Fault::ReadOnly),
            7 => self.state.scr = value,
            _ => return Err(Fault::NoRegister),
        }
        self.sync();
        Ok(())
    }

    fn timer(&mut self, _: TimerId) {
        let now = self.now_ns();
        if self.state.timeout_at.is_some_and(|at| at <= now) {
            self.state.timeout_at = None;
            self.state.timeout_pending = !self.state.rx.is_empty();
        }
        self.sync();
    }

    fn poke(&mut self, _: u64) {
        self.sync();
    }

    fn save(&self) -> Section {
        let inbox = self.inbox.as_ref().map(|i| i.waiting()).unwrap_or_default();
        saved::save(&self.state, inbox)
    }

    fn restore(&mut self, section: &Section) -> Result<(), StateError> {
        let (state, waiting) = saved::restore(section)?;
        self.state = state;
        if let Some(inbox) = &self.inbox {
            inbox.replace(&waiting);
        }
        Ok(())
    }

    fn inspect(&self) -> Vec<(&'static str, u64)> {
        let s = &self.state;
        vec![
            ("ier", s.ier.into()),
            ("iir", s.iir().into()),
            ("fcr", s.fcr.into()),
            ("lcr", s.lcr.into()),
            ("mcr", s.mcr.into()),
            ("lsr", s.lsr().into()),
            ("msr", (s.modem | s.deltas).into()),
            ("divisor", s.divisor.into()),
        ]
    }
}
