//! A command under way: its layout in the buffers, and what is left to do of it (VIRTIO 1.2 section
//! 5.6.6.1).

use std::collections::VecDeque;
use std::sync::Arc;

use backend_block::{IoVector, Operation};
use hw_core::{DmaError, Section, StateError};
use hw_scsi::{Address, Cdb};
use hw_virtio::{Chain, Io, Range};

use super::config::{LIMITS, Sizes};

/// Bytes of a request in front of the command: unit, tag and attributes.
const HEADER: u64 = 19;
/// Bytes of a response in front of the sense.
const RESPONSE: u64 = 12;
/// Bytes of a command at most, whatever the driver chooses.
const CDB_MOST: u32 = 256;

/// Bytes that a fill writes at once.
const FILL_PIECE: u64 = 64 << 10;

/// The unit that eight bytes name (5.6.6.1); none for targets that cannot be.
pub(super) fn address(lun: [u8; 8]) -> Option<Address> {
    let [first, target, high, low, ..] = lun;
    if first != 1 || !matches!(high, 0 | 0x40..0x80) {
        return None;
    }
    Some(Address {
        channel: 0,
        target: target.into(),
        lun: u16::from_be_bytes([high, low]) & LIMITS.lun,
    })
}

/// A unit as events name it: as REPORT LUNS does.
pub(super) fn lun(address: Address) -> [u8; 8] {
    let [high, low] = match address.lun {
        lun @ 0..256 => lun.to_be_bytes(),
        lun => (lun | 0x4000).to_be_bytes(),
    };
    [1, address.target as u8, high, low, 0, 0, 0, 0]
}

/// Why a command ends without having been carried out.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Fate {
    Aborted,
    Reset,
}

/// What comes after the operation that is under way.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Rest {
    Operations(VecDeque<Operation>),
    Fill {
        offset: u64,
        len: u64,
        block: Vec<u8>,
        fua: bool,
    },
}

impl Rest {
    pub(super) const NOTHING: Rest = Rest::Operations(VecDeque::new());

    /// The next operation, and the memory that it needs.
    pub(super) fn next(&mut self) -> Option<(Operation, IoVector)> {
        match self {
            Rest::Operations(operations) => Some((operations.pop_front()?, IoVector::default())),
            Rest::Fill {
                offset,
                len,
                block,
                fua,
            } => {
                let block_len = block.len() as u64;
                let piece = FILL_PIECE.max(block_len).min(*len);
                let count = piece.checked_div(block_len).filter(|count| *count != 0);
                let Some(count) = count else {
                    let is_to_flush = std::mem::take(fua);
                    return is_to_flush.then(|| (Operation::Flush, IoVector::default()));
                };
                let bytes = block.repeat(usize::try_from(count).unwrap_or(1));
                let memory = IoVector::zeroed(bytes.len());
                memory.copy_in(0, &bytes)?;
                let at = *offset;
                *offset = at.saturating_add(memory.len());
                *len = len.saturating_sub(memory.len());
                Some((Operation::Write { offset: at }, memory))
            }
        }
    }
}

/// A command under way.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Task {
    pub(super) queue: u16,
    pub(super) chain: Arc<Chain>,
    pub(super) address: Address,
    pub(super) tag: u64,
    pub(super) rest: Rest,
    /// Bytes of data that the operation under way moves.
    pub(super) moved: u64,
    pub(super) is_write: bool,
    pub(super) fate: Option<Fate>,
}

/// A request, read.
pub(super) struct Parsed {
    pub(super) address: Option<Address>,
    pub(super) tag: u64,
    pub(super) cdb: Vec<u8>,
}

impl Parsed {
    pub(super) fn cdb(&self) -> Cdb<'_> {
        Cdb(&self.cdb)
    }
}

/// Where data are in a request's buffers.
#[derive(Clone, Copy)]
pub(super) struct Layout {
    request: u64,
    response: u64,
}

impl Layout {
    pub(super) fn new(sizes: Sizes) -> Self {
        Layout {
            request: HEADER.saturating_add(sizes.cdb.into()),
            response: RESPONSE.saturating_add(sizes.sense.into()),
        }
    }

    /// Bytes that the driver gives.
    pub(super) fn out_len(self, chain: &Chain) -> u64 {
        chain.readable_len().saturating_sub(self.request)
    }

    /// Room for bytes that the driver gets.
    pub(super) fn in_len(self, chain: &Chain) -> u64 {
        chain.writable_len().saturating_sub(self.response)
    }

    /// Bytes of data in and out.
    pub(super) fn data_len(self, chain: &Chain) -> u64 {
        self.out_len(chain).saturating_add(self.in_len(chain))
    }

    pub(super) fn parse(self, io: &Io<'_>, sizes: Sizes, chain: &Chain) -> Result<Parsed, String> {
        if sizes.cdb > CDB_MOST {
            return Err(format!("the driver chose commands of {} bytes", sizes.cdb));
        }
        if chain.readable_len() < self.request || chain.writable_len() < self.response {
            return Err("a request is shorter than its header and response".into());
        }
        let mut bytes = vec![0; usize::try_from(self.request).unwrap_or(0)];
        let read = chain.read_at(io.dma(), 0, &mut bytes);
        read.map_err(|error| error.to_string())?;
        let part = |at: usize| bytes.get(at..).and_then(|rest| rest.first_chunk::<8>());
        Ok(Parsed {
            address: part(0).and_then(|bytes| address(*bytes)),
            tag: part(8).map_or(0, |bytes| u64::from_le_bytes(*bytes)),
            cdb: bytes.get(HEADER as usize..).unwrap_or_default().to_vec(),
        })
    }

    /// Guest memory that data go to.
    pub(super) fn data_in(
        self,
        io: &Io<'_>,
        chain: &Chain,
        len: u64,
    ) -> Result<IoVector, DmaError> {
        Ok(memory(io, chain.writable(), true)?.slice(self.response, len))
    }

    /// Guest memory that data come from.
    pub(super) fn data_out(
        self,
        io: &Io<'_>,
        chain: &Chain,
        len: u64,
    ) -> Result<IoVector, DmaError> {
        Ok(memory(io, chain.readable(), false)?.slice(self.request, len))
    }

    /// Puts bytes where data go.
    pub(super) fn answer(self, io: &Io<'_>, chain: &Chain, bytes: &[u8]) -> Result<(), DmaError> {
        chain.write_at(io.dma(), self.response, bytes).map(|_| ())
    }

    /// Puts a response down and returns how much of the buffers is written, `moved` bytes of data
    /// included.
    pub(super) fn respond(
        self,
        io: &Io<'_>,
        chain: &Chain,
        response: &Response,
        moved: u64,
    ) -> Result<u32, DmaError> {
        let room = usize::try_from(self.response.saturating_sub(RESPONSE)).unwrap_or(0);
        let sense = response.sense.get(..room.min(response.sense.len()));
        let sense = sense.unwrap_or_default();
        let left = self.data_len(chain).saturating_sub(moved);
        let mut bytes = (sense.len() as u32).to_le_bytes().to_vec();
        bytes.extend(u32::try_from(left).unwrap_or(u32::MAX).to_le_bytes());
        bytes.extend([0, 0, response.status, response.code]);
        bytes.extend(sense);
        chain.write_at(io.dma(), 0, &bytes)?;
        let data_in = moved.min(self.in_len(chain));
        let written = self.response.saturating_add(data_in);
        Ok(u32::try_from(written).unwrap_or(u32::MAX))
    }
}

/// How a command ended.
#[derive(Default)]
pub(super) struct Response {
    /// VIRTIO_SCSI_S_...
    pub(super) code: u8,
    /// SAM status.
    pub(super) status: u8,
    pub(super) sense: Vec<u8>,
}

fn memory(io: &Io<'_>, ranges: &[Range], write: bool) -> Result<IoVector, DmaError> {
    let ranges = ranges
        .iter()
        .map(|range| (range.addr, u64::from(range.len)));
    IoVector::guest(io.dma(), ranges, write)
}

/// A saved command: where it is from; the rest is in the driver's buffers.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Saved {
    pub(super) queue: u16,
    pub(super) chain: Chain,
    pub(super) fate: Option<Fate>,
}

impl Saved {
    pub(super) fn section(task: &Task) -> Section {
        let fate = match task.fate {
            None => 0u8,
            Some(Fate::Aborted) => 1,
            Some(Fate::Reset) => 2,
        };
        Section::new("task", 1)
            .with(1, task.queue)
            .with(2, task.chain.save())
            .with(3, fate)
    }

    pub(super) fn restored(section: &Section) -> Result<Self, StateError> {
        section.expect("task", 1)?;
        Ok(Saved {
            queue: section.u16(1)?,
            chain: Chain::restore(section.section(2)?)?,
            fate: match section.u8(3)? {
                0 => None,
                1 => Some(Fate::Aborted),
                2 => Some(Fate::Reset),
                _ => return Err(section.bad(3, "no such end")),
            },
        })
    }
}
