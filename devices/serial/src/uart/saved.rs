//! Saved form of the 16550A. Tags are for ever: add, never renumber or reuse.

use hw_core::{Section, StateError, Value};

use super::regs::{fcr, ier, mcr, msr};
use super::{Char, FIFO_LEN, State};

const NAME: &str = "serial";
const VERSION: u16 = 1;
const IER: u16 = 1;
const FCR: u16 = 2;
const LCR: u16 = 3;
const MCR: u16 = 4;
const SCR: u16 = 5;
const DIVISOR: u16 = 6;
const MODEM: u16 = 7;
const DELTAS: u16 = 8;
const OVERRUN: u16 = 9;
const RX: u16 = 10;
const TX: u16 = 11;
const THR_PENDING: u16 = 12;
const TIMEOUT_PENDING: u16 = 13;
const TIMEOUT_AT: u16 = 14;
const INBOX: u16 = 15;

pub(super) fn save(state: &State, inbox: Vec<u8>) -> Section {
    let State {
        ier,
        fcr,
        lcr,
        mcr,
        scr,
        divisor,
        modem,
        deltas,
        overrun,
        rx,
        tx,
        thr_pending,
        timeout_pending,
        timeout_at,
    } = state.clone();
    let pair = |c: &Char| u16::from_le_bytes([c.data, c.errors]);
    let mut section = Section::new(NAME, VERSION)
        .with(IER, ier)
        .with(FCR, fcr)
        .with(LCR, lcr)
        .with(MCR, mcr)
        .with(SCR, scr)
        .with(DIVISOR, divisor)
        .with(MODEM, modem)
        .with(DELTAS, deltas)
        .with(OVERRUN, overrun)
        .with(RX, rx.iter().map(pair).collect::<Value>())
        .with(TX, tx.into_iter().collect::<Vec<u8>>())
        .with(THR_PENDING, thr_pending)
        .with(TIMEOUT_PENDING, timeout_pending)
        .with(INBOX, inbox);
    if let Some(at) = timeout_at {
        section.push(TIMEOUT_AT, at);
    }
    section
}

pub(super) fn restore(s: &Section) -> Result<(State, Vec<u8>), StateError> {
    s.expect(NAME, VERSION)?;
    let rx = s.list(RX)?;
    let tx = s.bytes(TX)?;
    if rx.len() > FIFO_LEN || tx.len() > FIFO_LEN {
        return Err(s.bad(RX, "more characters than the FIFO holds"));
    }
    let char = |value: &Value| match value {
        Value::U64(v) => {
            let [data, errors, ..] = v.to_le_bytes();
            Ok(Char { data, errors })
        }
        _ => Err(s.bad(RX, "not integers")),
    };
    let state = State {
        ier: s.u8(IER)? & ier::ALL,
        fcr: s.u8(FCR)? & fcr::KEPT,
        lcr: s.u8(LCR)?,
        mcr: s.u8(MCR)? & mcr::ALL,
        scr: s.u8(SCR)?,
        divisor: s.u16(DIVISOR)?,
        modem: s.u8(MODEM)? & !msr::DELTAS,
        deltas: s.u8(DELTAS)? & msr::DELTAS,
        overrun: s.bool(OVERRUN)?,
        rx: rx.iter().map(char).collect::<Result<_, _>>()?,
        tx: tx.iter().copied().collect(),
        thr_pending: s.bool(THR_PENDING)?,
        timeout_pending: s.bool(TIMEOUT_PENDING)?,
        timeout_at: s.get(TIMEOUT_AT).map(|_| s.u64(TIMEOUT_AT)).transpose()?,
    };
    Ok((state, s.bytes(INBOX)?.to_vec()))
}
