//! Saved form of the PL011. Tags are for ever: add, never renumber or reuse.

use hw_core::{Section, StateError, Value};

use super::regs::int;
use super::{FIFO_LEN, State};

const NAME: &str = "pl011";
const VERSION: u16 = 1;
const RX: u16 = 1;
const TX: u16 = 2;
const ERRORS: u16 = 3;
const ILPR: u16 = 4;
const IBRD: u16 = 5;
const FBRD: u16 = 6;
const LCR_H: u16 = 7;
const CR: u16 = 8;
const IFLS: u16 = 9;
const IMSC: u16 = 10;
const RAW: u16 = 11;
const DMACR: u16 = 12;
const INBOX: u16 = 13;

pub(super) fn save(state: &State, inbox: Vec<u8>) -> Section {
    let State {
        rx,
        tx,
        errors,
        ilpr,
        ibrd,
        fbrd,
        lcr_h,
        cr,
        ifls,
        imsc,
        raw,
        dmacr,
    } = state.clone();
    Section::new(NAME, VERSION)
        .with(RX, rx.into_iter().collect::<Value>())
        .with(TX, tx.into_iter().collect::<Vec<u8>>())
        .with(ERRORS, errors)
        .with(ILPR, ilpr)
        .with(IBRD, ibrd)
        .with(FBRD, fbrd)
        .with(LCR_H, lcr_h)
        .with(CR, cr)
        .with(IFLS, ifls)
        .with(IMSC, imsc)
        .with(RAW, raw)
        .with(DMACR, dmacr)
        .with(INBOX, inbox)
}

pub(super) fn restore(s: &Section) -> Result<(State, Vec<u8>), StateError> {
    s.expect(NAME, VERSION)?;
    let (rx, tx) = (s.list(RX)?, s.bytes(TX)?);
    if rx.len() > FIFO_LEN || tx.len() > FIFO_LEN {
        return Err(s.bad(RX, "more characters than a FIFO holds"));
    }
    let char = |value: &Value| match value {
        Value::U64(v) if *v < 0x1000 => Ok(*v as u16),
        _ => Err(s.bad(RX, "not received characters")),
    };
    let state = State {
        rx: rx.iter().map(char).collect::<Result<_, _>>()?,
        tx: tx.iter().copied().collect(),
        errors: s.u8(ERRORS)?,
        ilpr: s.u8(ILPR)?,
        ibrd: s.u16(IBRD)?,
        fbrd: s.u8(FBRD)?,
        lcr_h: s.u8(LCR_H)?,
        cr: s.u16(CR)?,
        ifls: s.u8(IFLS)? & 0x3f,
        imsc: s.u16(IMSC)? & int::ALL,
        raw: s.u16(RAW)? & int::ALL,
        dmacr: s.u8(DMACR)?,
    };
    Ok((state, s.bytes(INBOX)?.to_vec()))
}
