//! Saved form of the clock. Tags are for ever: add, never renumber or reuse.

use hw_core::{Section, StateError};

use crate::State;
use crate::cmos::CMOS_LEN;
use crate::regs::{a, c};

const NAME: &str = "mc146818rtc";
const VERSION: u16 = 1;
const INDEX: u16 = 1;
const A: u16 = 2;
const B: u16 = 3;
const C: u16 = 4;
const OFFSET_S: u16 = 5;
const OFFSET_NS: u16 = 6;
const SEEN_S: u16 = 7;
const SEEN_TICK: u16 = 8;
const CMOS: u16 = 9;
const LOST: u16 = 10;
const IN_A_ROW: u16 = 11;

/// Years that the chip can hold, in seconds since 1970, and as much again.
const MAX_OFFSET_S: u64 = 1 << 40;

pub(crate) fn save(state: &State, cmos: &[u8; CMOS_LEN]) -> Section {
    let State {
        index,
        a,
        b,
        c,
        offset_s,
        offset_ns,
        seen_s,
        seen_tick,
        lost,
        in_a_row,
    } = *state;
    Section::new(NAME, VERSION)
        .with(INDEX, index)
        .with(A, a)
        .with(B, b)
        .with(C, c)
        .with(OFFSET_S, offset_s)
        .with(OFFSET_NS, offset_ns)
        .with(SEEN_S, seen_s)
        .with(SEEN_TICK, seen_tick)
        .with(CMOS, cmos.to_vec())
        .with(LOST, lost)
        .with(IN_A_ROW, in_a_row)
}

pub(crate) fn restore(s: &Section) -> Result<(State, [u8; CMOS_LEN]), StateError> {
    s.expect(NAME, VERSION)?;
    let (offset_s, seen_s, offset_ns) = (s.i64(OFFSET_S)?, s.i64(SEEN_S)?, s.u32(OFFSET_NS)?);
    if offset_s.unsigned_abs() > MAX_OFFSET_S || seen_s.unsigned_abs() > MAX_OFFSET_S {
        return Err(s.bad(OFFSET_S, "beyond the calendar"));
    }
    if offset_ns >= 1_000_000_000 {
        return Err(s.bad(OFFSET_NS, "not a part of a second"));
    }
    let state = State {
        index: s.u8(INDEX)?,
        a: s.u8(A)? & !a::UIP,
        b: s.u8(B)?,
        c: s.u8(C)? & (c::PF | c::AF | c::UF),
        offset_s,
        offset_ns,
        seen_s,
        seen_tick: s.u64(SEEN_TICK)?,
        lost: s.u64_or(LOST, 0)? as u32,
        in_a_row: s.u64_or(IN_A_ROW, 0)? as u8,
    };
    Ok((state, s.array(CMOS)?))
}
