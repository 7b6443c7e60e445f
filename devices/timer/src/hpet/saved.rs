//! Saved form of the HPET. Tags are for ever: add, never renumber or reuse.

use hw_core::{Section, StateError, Value};

use super::regs::{general, timer};
use super::{Comparator, State};

const NAME: &str = "hpet";
const VERSION: u16 = 1;
const CONFIG: u16 = 1;
const STATUS: u16 = 2;
const OFFSET: u16 = 3;
const TIMERS: u16 = 4;

fn save_timer(timer: &Comparator) -> Section {
    let Comparator {
        config,
        comparator,
        period,
        fsb,
        fires,
    } = timer.clone();
    let mut section = Section::new("comparator", VERSION)
        .with(1, config)
        .with(2, comparator)
        .with(3, period)
        .with(4, fsb);
    if let Some(at) = fires {
        section.push(5, at);
    }
    section
}

fn restore_timer(value: &Value, s: &Section) -> Result<Comparator, StateError> {
    let Value::Section(t) = value else {
        return Err(s.bad(TIMERS, "not sections"));
    };
    t.expect("comparator", VERSION)?;
    Ok(Comparator {
        config: t.u64(1)? & timer::WRITABLE,
        comparator: t.u64(2)?,
        period: t.u64(3)?,
        fsb: t.u64(4)?,
        fires: t.get(5).map(|_| t.u64(5)).transpose()?,
    })
}

pub(super) fn save(state: &State) -> Section {
    let State {
        config,
        status,
        offset,
        timers,
    } = state;
    Section::new(NAME, VERSION)
        .with(CONFIG, *config)
        .with(STATUS, *status)
        .with(OFFSET, *offset)
        .with(TIMERS, timers.iter().map(save_timer).collect::<Value>())
}

pub(super) fn restore(s: &Section, timers: usize) -> Result<State, StateError> {
    s.expect(NAME, VERSION)?;
    let list = s.list(TIMERS)?;
    if list.len() != timers {
        return Err(s.bad(TIMERS, "another number of timers"));
    }
    let timers: Result<Vec<_>, _> = list.iter().map(|t| restore_timer(t, s)).collect();
    Ok(State {
        config: s.u64(CONFIG)? & (general::ENABLE | general::LEGACY),
        status: s.u32(STATUS)?,
        offset: s.u64(OFFSET)?,
        timers: timers?,
    })
}
