//! What moves between a drive and the data port of its parallel cable, or its bus master.

use std::collections::VecDeque;

use backend_block::{IoVector, Operation, SECTOR};
use hw_core::{Section, StateError, Value};

use crate::drive::{Job, Way};

/// Most bytes that are read ahead for the data port, and most that a command holds at once.
pub(crate) const BUFFER_MOST: u64 = 128 << 10;
/// Most ranges of a discard command.
const RANGES_MOST: usize = 4096;

/// Where a command is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) enum Phase {
    /// There is none.
    #[default]
    Idle,
    /// The host writes to the data port.
    FromHost,
    /// The host reads from the data port.
    ToHost,
    /// The bus master is to be started.
    Waiting,
    /// The medium is at work.
    Busy,
}

const PHASES: [Phase; 5] = [
    Phase::Idle,
    Phase::FromHost,
    Phase::ToHost,
    Phase::Waiting,
    Phase::Busy,
];

/// A command under way.
#[derive(Clone, Debug, Default)]
pub(crate) struct Transfer {
    pub(crate) phase: Phase,
    pub(crate) job: Job,
    pub(crate) way: Way,
    /// What the data port gives or has taken.
    pub(crate) buffer: Vec<u8>,
    /// Where in the buffer the host is.
    pub(crate) at: usize,
    /// Where in the buffer this block ends.
    pub(crate) end: usize,
    /// Number of the request that the medium is at work on; not saved.
    pub(crate) flight: Option<u64>,
    /// What it reads into for the data port; not saved.
    pub(crate) reading: IoVector,
}

impl Transfer {
    pub(crate) fn save(&self) -> Section {
        let Transfer {
            phase,
            job,
            way,
            buffer,
            at,
            end,
            flight: _,
            reading: _,
        } = self;
        let phase = PHASES.iter().position(|p| p == phase).unwrap_or(0);
        let block = match way {
            Way::Pio(block) => *block,
            Way::Dma => 0,
        };
        Section::new("transfer", 1)
            .with(1, phase as u64)
            .with(2, save_job(job))
            .with(3, block)
            .with(4, buffer.as_slice())
            .with(5, *at as u64)
            .with(6, *end as u64)
    }

    pub(crate) fn restored(section: &Section) -> Result<Self, StateError> {
        section.expect("transfer", 1)?;
        let phase = usize::from(section.u8(1)?);
        let phase = *PHASES
            .get(phase)
            .ok_or_else(|| section.bad(1, "no such phase"))?;
        let job = restored_job(section.section(2)?)?;
        let way = match section.u64(3)? {
            0 => Way::Dma,
            block if block <= BUFFER_MOST && block.is_multiple_of(2) => Way::Pio(block),
            _ => return Err(section.bad(3, "no size of a block")),
        };
        let buffer = section.bytes(4)?.to_vec();
        if buffer.len() as u64 > BUFFER_MOST {
            return Err(section.bad(4, "too much"));
        }
        let place = |tag| -> Result<usize, StateError> {
            let at = usize::try_from(section.u64(tag)?).unwrap_or(usize::MAX);
            match at <= buffer.len() {
                true => Ok(at),
                false => Err(section.bad(tag, "outside of the buffer")),
            }
        };
        let (at, end) = (place(5)?, place(6)?);
        let moves = matches!(phase, Phase::FromHost | Phase::ToHost);
        if at > end || (moves && at == end) {
            return Err(section.bad(5, "behind the end of its block"));
        }
        if phase == Phase::FromHost && !job.is_out() || phase != Phase::Idle && job == Job::Done {
            return Err(section.bad(1, "not a phase of this command"));
        }
        Ok(Transfer {
            phase,
            job,
            way,
            buffer,
            at,
            end,
            flight: None,
            reading: IoVector::default(),
        })
    }
}

const DONE: u64 = 0;
const PACKET: u64 = 1;
const IN: u64 = 2;
const RANGES: u64 = 3;
const READ: u64 = 4;
const WRITE: u64 = 5;
const OPERATIONS: u64 = 6;

fn save_job(job: &Job) -> Section {
    let section = |kind: u64| Section::new("job", 1).with(1, kind);
    match job {
        Job::Done => section(DONE),
        Job::Packet => section(PACKET),
        Job::In(bytes) => section(IN).with(2, bytes.as_slice()),
        Job::Ranges(len) => section(RANGES).with(3, *len),
        Job::Read { offset, len } => section(READ).with(3, *len).with(4, *offset),
        Job::Write { offset, len, fua } => {
            section(WRITE).with(3, *len).with(4, *offset).with(5, *fua)
        }
        Job::Operations(operations) => {
            let list: Value = operations.iter().filter_map(save_operation).collect();
            section(OPERATIONS).with(6, list)
        }
    }
}

/// A drive flushes and discards; nothing else is an operation without data.
fn save_operation(operation: &Operation) -> Option<Section> {
    let section = Section::new("operation", 1);
    match operation {
        Operation::Flush => Some(section),
        Operation::Discard { offset, len } => Some(section.with(1, *offset).with(2, *len)),
        _ => None,
    }
}

fn restored_job(section: &Section) -> Result<Job, StateError> {
    section.expect("job", 1)?;
    Ok(match section.u64(1)? {
        DONE => Job::Done,
        PACKET => Job::Packet,
        IN => match section.bytes(2)? {
            bytes if bytes.len() as u64 <= BUFFER_MOST => Job::In(bytes.to_vec()),
            _ => return Err(section.bad(2, "too much")),
        },
        RANGES => match section.u64(3)? {
            len if len <= BUFFER_MOST => Job::Ranges(len),
            _ => return Err(section.bad(3, "too much")),
        },
        READ => Job::Read {
            offset: whole(section, 4)?,
            len: whole(section, 3)?,
        },
        WRITE => Job::Write {
            offset: whole(section, 4)?,
            len: whole(section, 3)?,
            fua: section.bool(5)?,
        },
        OPERATIONS => {
            let list = section.list(6)?;
            if list.len() > RANGES_MOST {
                return Err(section.bad(6, "too many"));
            }
            let mut operations = VecDeque::new();
            for value in list {
                let Value::Section(operation) = value else {
                    return Err(section.bad(6, "not sections"));
                };
                operation.expect("operation", 1)?;
                operations.push_back(match operation.get(1) {
                    None => Operation::Flush,
                    Some(_) => Operation::Discard {
                        offset: operation.u64(1)?,
                        len: operation.u64(2)?,
                    },
                });
            }
            Job::Operations(operations)
        }
        _ => return Err(section.bad(1, "no such job")),
    })
}

/// A number of bytes in whole sectors, none beyond what 48-bit addresses reach.
fn whole(section: &Section, tag: u16) -> Result<u64, StateError> {
    match section.u64(tag)? {
        bytes if bytes.is_multiple_of(SECTOR) && bytes < 1 << 57 => Ok(bytes),
        _ => Err(section.bad(tag, "not whole sectors")),
    }
}
