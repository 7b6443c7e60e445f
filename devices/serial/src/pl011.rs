//! Arm PL011 UART.
//!
//! Spec: Arm DDI 0183G, "PrimeCell UART (PL011) Technical Reference Manual". Registers carry its
//! names in `regs.rs`.
//!
//! Output leaves at once: what the stream does not take waits in the transmit FIFO. The receive
//! time-out (32 bit times without a character) comes as soon as nothing more is waiting outside.
//! UARTEN, TXE and RXE are kept and not asked for: kernels print before they set them.
//!
//! Not modelled: the bit rate of characters, parity and framing errors, DMA, IrDA, modem lines.

use std::collections::VecDeque;
use std::sync::Arc;

use hw_core::{
    Access, BusKind, Category, Device, DeviceClass, DeviceError, Fault, Initiator, IrqLine, IrqPin,
    Prop, PropType, Region, ResetKind, Section, StateError, Wiring,
};

use crate::isa::{CHARDEV, line};
use crate::line::{Inbox, Input, Line};

mod regs;
mod saved;
#[cfg(test)]
mod tests;

use regs::{Reg, cr, dr, fr, int, lcr};

/// Characters in each FIFO.
const FIFO_LEN: usize = 16;
const LEN: u64 = 0x1000;

/// A PL011.
#[derive(Default)]
pub struct Pl011 {
    irq: IrqLine,
    line: Option<Box<dyn Line>>,
    inbox: Option<Arc<Inbox>>,

    base: u64,

    state: State,
}

/// Everything the guest can observe, and all that is saved.
#[derive(Clone, Debug, PartialEq, Eq)]
struct State {
    /// Received characters with the error bits they came with (UARTDR bits 11:8).
    rx: VecDeque<u16>,
    tx: VecDeque<u8>,
    /// UARTRSR.
    errors: u8,
    ilpr: u8,
    ibrd: u16,
    fbrd: u8,
    lcr_h: u8,
    cr: u16,
    ifls: u8,
    imsc: u16,
    /// UARTRIS.
    raw: u16,
    dmacr: u8,
}

impl Default for State {
    fn default() -> Self {
        State {
            rx: VecDeque::new(),
            tx: VecDeque::new(),
            errors: 0,
            ilpr: 0,
            ibrd: 0,
            fbrd: 0,
            lcr_h: 0,
            cr: cr::RESET,
            ifls: regs::IFLS_RESET,
            imsc: 0,
            raw: 0,
            dmacr: 0,
        }
    }
}

impl State {
    fn capacity(&self) -> usize {
        if self.lcr_h & lcr::FEN != 0 {
            FIFO_LEN
        } else {
            1
        }
    }

    /// Characters at which a FIFO with this level in UARTIFLS interrupts (table 3-13).
    fn level(&self, code: u8) -> usize {
        if self.lcr_h & lcr::FEN == 0 {
            return 1;
        }
        match code & 7 {
            0 => 2,
            1 => 4,
            2 => 8,
            3 => 12,
            _ => 14,
        }
    }

    fn flags(&self) -> u16 {
        let flag = |on: bool, bit: u16| if on { bit } else { 0 };
        flag(self.rx.is_empty(), fr::RXFE)
            | flag(self.rx.len() >= self.capacity(), fr::RXFF)
            | flag(self.tx.is_empty(), fr::TXFE)
            | flag(self.tx.len() >= self.capacity(), fr::TXFF | fr::BUSY)
            // A cable to a ready terminal.
            | fr::CTS
            | fr::DSR
            | fr::DCD
    }

    fn receive(&mut self, char: u16) {
        if self.rx.len() >= self.capacity() {
            self.raw |= int::OE;
            self.errors |= regs::RSR_OE;
            return;
        }
        self.rx.push_back(char);
        if char & dr::BE != 0 {
            self.raw |= int::BE;
        }
        if self.rx.len() >= self.level(self.ifls >> 3) {
            self.raw |= int::RX;
        }
    }

    fn clear_fifos(&mut self) {
        self.rx.clear();
        self.tx.clear();
        self.raw &= !(int::RX | int::RT);
    }
}

impl Pl011 {
    /// A UART at `base`, connected to `line`.
    pub fn new(base: u64, line: Option<Box<dyn Line>>) -> Self {
        Pl011 {
            base,
            line,
            ..Pl011::default()
        }
    }

    /// Moves characters in and out, then brings the pin in line with the state.
    fn sync(&mut self) {
        self.transmit();
        self.pull_input();
        self.irq.set(self.state.raw & self.state.imsc != 0);
    }

    fn transmit(&mut self) {
        let state = &mut self.state;
        if state.tx.is_empty() {
            return;
        }
        let looped = state.cr & cr::LBE != 0;
        let bytes: &[u8] = state.tx.make_contiguous();
        let taken = match &self.line {
            Some(line) if !looped => line.write(bytes),
            _ => bytes.len(),
        };
        let sent: Vec<u8> = state.tx.drain(..taken.min(state.tx.len())).collect();
        if looped {
            sent.iter().for_each(|byte| state.receive((*byte).into()));
        }
        // The FIFO passed through its level on the way down.
        if !sent.is_empty() && state.tx.len() <= FIFO_LEN.saturating_sub(state.level(state.ifls)) {
            state.raw |= int::TX;
        }
    }

    fn pull_input(&mut self) {
        let Some(inbox) = &self.inbox else { return };
        let state = &mut self.state;
        // In loop-back the receiver is cut off from its pin: input waits outside.
        let room = |state: &State| match state.cr & cr::LBE {
            0 => state.capacity().saturating_sub(state.rx.len()),
            _ => 0,
        };
        let mut came = false;
        while room(state) > 0 {
            let char = match inbox.take() {
                Some(Input::Byte(data)) => data.into(),
                Some(Input::Break) => dr::BE,
                None => break,
            };
            state.receive(char);
            came = true;
        }
        if came {
            state.raw |= int::RT;
        }
        if inbox.set_room(room(state))
            && let Some(line) = &self.line
        {
            line.accept_input();
        }
    }

    fn take(&mut self) -> u16 {
        let state = &mut self.state;
        let char = state.rx.pop_front().unwrap_or(0);
        state.errors = (char >> 8) as u8;
        if state.rx.len() < state.level(state.ifls >> 3) {
            state.raw &= !int::RX;
        }
        if state.rx.is_empty() {
            state.raw &= !int::RT;
        }
        char
    }

    /// What a read would answer, without its side effects.
    fn peek(&self, reg: Reg) -> Result<u16, Fault> {
        let state = &self.state;
        Ok(match reg {
            Reg::Data => state.rx.front().copied().unwrap_or(0),
            Reg::Status => state.errors.into(),
            Reg::Flags => state.flags(),
            Reg::IrDa => state.ilpr.into(),
            Reg::IntegerBaud => state.ibrd,
            Reg::FractionalBaud => state.fbrd.into(),
            Reg::LineControl => state.lcr_h.into(),
            Reg::Control => state.cr,
            Reg::FifoLevels => state.ifls.into(),
            Reg::IntMask => state.imsc,
            Reg::RawInt => state.raw,
            Reg::MaskedInt => state.raw & state.imsc,
            Reg::DmaControl => state.dmacr.into(),
            Reg::Id(n) => regs::ID.get(n).copied().unwrap_or(0).into(),
            Reg::IntClear => return Err(Fault::WriteOnly),
        })
    }

    fn set_line_control(&mut self, value: u8) {
        let changed = self.state.lcr_h ^ value;
        if changed & lcr::FEN != 0 {
            self.state.clear_fifos();
        }
        self.state.lcr_h = value;
        if changed & lcr::BRK != 0
            && let Some(line) = &self.line
        {
            line.set_break(value & lcr::BRK != 0);
        }
    }
}

impl Device for Pl011 {
    fn realize(&mut self, w: &mut dyn Wiring) -> Result<(), DeviceError> {
        w.mmio(Region::new("pl011", self.base, LEN));
        self.irq = w.irq(IrqPin::Named("irq"));
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
        let reg = Reg::at(access.offset).ok_or(Fault::NoRegister)?;
        let value = self.peek(reg)?;
        if access.by != Initiator::Debug && reg == Reg::Data {
            self.take();
            self.sync();
        }
        Ok(value.into())
    }

    fn write(&mut self, access: Access, value: u64) -> Result<(), Fault> {
        let value = value as u16;
        let state = &mut self.state;
        match Reg::at(access.offset).ok_or(Fault::NoRegister)? {
            Reg::Data => {
                if state.tx.len() < state.capacity() {
                    state.tx.push_back(value as u8);
                }
            }
            Reg::Status => state.errors = 0,
            Reg::IrDa => state.ilpr = value as u8,
            Reg::IntegerBaud => state.ibrd = value,
            Reg::FractionalBaud => state.fbrd = value as u8 & 0x3f,
            Reg::LineControl => self.set_line_control(value as u8),
            Reg::Control => state.cr = value,
            Reg::FifoLevels => state.ifls = value as u8 & 0x3f,
            Reg::IntMask => state.imsc = value & int::ALL,
            Reg::IntClear => state.raw &= !value,
            Reg::DmaControl => state.dmacr = value as u8 & 7,
            Reg::Flags | Reg::RawInt | Reg::MaskedInt | Reg::Id(_) => return Err(Fault::ReadOnly),
        }
        self.sync();
        Ok(())
    }

    fn poke(&mut self, _: u64) {
        self.sync();
    }

    fn save(&self) -> Section {
        let waiting = self.inbox.as_ref().map(|inbox| inbox.waiting());
        saved::save(&self.state, waiting.unwrap_or_default())
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
        vec![
            ("cr", self.state.cr.into()),
            ("imsc", self.state.imsc.into()),
            ("ris", self.state.raw.into()),
        ]
    }
}

/// `pl011`. Its pin is `irq`.
pub static PL011: DeviceClass = DeviceClass {
    name: "pl011",
    aliases: &[],
    doc: "Arm PrimeCell UART",
    bus: BusKind::System,
    category: Category::Input,
    props: &[
        Prop {
            name: "base",
            ty: PropType::U64,
            default: "",
            doc: "first address",
        },
        CHARDEV,
    ],
    user_creatable: false,
    create: |args, links| {
        let base = args.need_int("base")?;
        Ok(Box::new(Pl011::new(base, line(args, links)?)))
    },
};
