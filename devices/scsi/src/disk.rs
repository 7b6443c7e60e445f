//! Disks: direct access block devices (SBC-3, chapter 5).
//!
//! Not modelled: protection information, reservations that hold anybody off (there is one initiator),
//! comparing, FORMAT UNIT, log pages, defect lists.

mod modes;
mod pages;

use std::collections::VecDeque;

use backend_block::{Operation, SharedBlock};
use hw_core::{DeviceError, Section, StateError};
use hw_scsi::{Cdb, Job, Sense, Unit, cut, op};

use crate::inquiry::{Identity, Standard};
use crate::more_urgent;

/// Most bytes that one command moves, whatever `max_io_size` says.
const MOST: u64 = 1 << 31;
/// Most descriptors of an UNMAP, as page B0h says.
const UNMAP_DESCRIPTORS: u32 = 255;
const UNMAP_HEADER: usize = 8;
const UNMAP_DESCRIPTOR: usize = 16;
/// Bytes of parameters that a command has at most.
const PARAMETERS: u64 = 0x1_0000;
/// Service action of READ CAPACITY(16).
const READ_CAPACITY_16: u8 = 0x10;

/// Properties of a disk.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct DiskOptions {
    pub(crate) identity: Identity,
    /// `logical_block_size`
    pub(crate) logical_block_size: u32,
    /// `physical_block_size`
    pub(crate) physical_block_size: u32,
    /// `min_io_size`, bytes.
    pub(crate) min_io_size: u32,
    /// `opt_io_size`, bytes.
    pub(crate) opt_io_size: u32,
    /// `discard_granularity`, bytes; zero for a disk that is not thin.
    pub(crate) discard_granularity: u32,
    /// `max_unmap_size`, bytes.
    pub(crate) max_unmap_size: u64,
    /// `max_io_size`, bytes.
    pub(crate) max_io_size: u64,
    /// `rotation_rate`
    pub(crate) rotation_rate: u16,
    /// `scsi_version`
    pub(crate) scsi_version: u8,
    /// `removable`
    pub(crate) removable: bool,
    /// `dpofua`
    pub(crate) dpofua: bool,
    /// Whether the write cache is on at first.
    pub(crate) write_back: bool,
    /// Whether writes are refused.
    pub(crate) read_only: bool,
}

#[derive(Clone, PartialEq, Eq, Debug)]
struct State {
    /// What the next command is told.
    attention: Option<Sense>,
    /// WCE: writes may stay in caches.
    write_cache: bool,
}

/// A disk.
pub(crate) struct Disk {
    medium: SharedBlock,
    options: DiskOptions,
    state: State,
}

impl Disk {
    pub(crate) fn new(medium: SharedBlock, options: DiskOptions) -> Result<Self, DeviceError> {
        let bad = |why: &str| Err(DeviceError::Other(format!("scsi-hd: {why}")));
        let block = |size: u32| size.is_power_of_two() && (512..=2 << 20).contains(&size);
        if !block(options.logical_block_size) || !block(options.physical_block_size) {
            return bad("block sizes must be powers of two from 512 to 2097152");
        }
        if options.logical_block_size > options.physical_block_size {
            return bad("logical_block_size is larger than physical_block_size");
        }
        let whole = [
            ("min_io_size", u64::from(options.min_io_size)),
            ("opt_io_size", u64::from(options.opt_io_size)),
            (
                "discard_granularity",
                u64::from(options.discard_granularity),
            ),
        ];
        for (name, bytes) in whole {
            if !bytes.is_multiple_of(options.logical_block_size.into()) {
                return bad(&format!("{name} must be a multiple of logical_block_size"));
            }
        }
        if options.max_io_size < options.logical_block_size.into() {
            return bad("max_io_size is less than a block");
        }
        if !(3..=6).contains(&options.scsi_version) {
            return bad("scsi_version must be from 3 to 6");
        }
        Ok(Disk {
            state: State {
                attention: None,
                write_cache: options.write_back,
            },
            medium,
            options,
        })
    }

    fn block(&self) -> u64 {
        self.options.logical_block_size.into()
    }

    /// Blocks there are.
    fn blocks(&self) -> u64 {
        self.medium.len().checked_div(self.block()).unwrap_or(0)
    }

    /// Where `count` blocks are on the medium: offset and bytes.
    fn place(&self, first: u64, count: u64) -> Result<(u64, u64), Sense> {
        let end = first.checked_add(count).ok_or(Sense::NO_SUCH_BLOCK)?;
        if end > self.blocks() {
            return Err(Sense::NO_SUCH_BLOCK);
        }
        // Within the medium, so within 64 bits.
        let bytes = |blocks: u64| blocks.wrapping_mul(self.block());
        Ok((bytes(first), bytes(count)))
    }

    /// As [`place`](Self::place), for blocks that are moved.
    fn moved(&self, cdb: Cdb<'_>) -> Result<(u64, u64), Sense> {
        // RDPROTECT, WRPROTECT: there is no protection information (SBC-3, 5.10). The shortest
        // commands have the address there.
        if cdb.code() >> 5 != 0 && cdb.byte(1) >> 5 != 0 {
            return Err(Sense::BAD_FIELD);
        }
        let (first, count) = cdb.blocks();
        let (offset, len) = self.place(first, count)?;
        if len > self.most() {
            return Err(Sense::BAD_FIELD);
        }
        Ok((offset, len))
    }

    /// Most bytes that a command moves.
    fn most(&self) -> u64 {
        self.options.max_io_size.min(MOST)
    }

    fn writable(&self) -> Result<(), Sense> {
        match self.options.read_only {
            true => Err(Sense::WRITE_PROTECTED),
            false => Ok(()),
        }
    }

    /// Whether a write that does not say so is to be safe at once.
    fn is_through(&self) -> bool {
        !self.state.write_cache
    }

    fn dispatch(&mut self, cdb: Cdb<'_>) -> Result<Job, Sense> {
        match cdb.code() {
            op::TEST_UNIT_READY
            | op::REZERO_UNIT
            | op::RESERVE_6
            | op::RELEASE_6
            | op::START_STOP_UNIT
            | op::PREVENT_ALLOW => Ok(Job::DONE),
            op::SEND_DIAGNOSTIC if cdb.byte(1) & 4 != 0 => Ok(Job::DONE),
            op::REQUEST_SENSE => {
                let sense = self.state.attention.take().unwrap_or_default();
                let bytes = match cdb.byte(1) & 1 {
                    0 => sense.fixed(),
                    _ => sense.descriptors(),
                };
                Ok(cut(bytes, cdb.number(4, 1)))
            }
            op::INQUIRY => self.inquiry(cdb),
            op::MODE_SENSE_6 | op::MODE_SENSE_10 => self.mode_sense(cdb),
            op::MODE_SELECT_6 => Ok(Job::Parameters(cdb.number(4, 1).into())),
            op::MODE_SELECT_10 => Ok(Job::Parameters(cdb.number(7, 2).into())),
            // A disk without a block has no last one to tell.
            op::READ_CAPACITY_10 if self.blocks() == 0 => Err(Sense::NOT_READY),
            op::SERVICE_ACTION_IN_16
                if cdb.byte(1) & 0x1f == READ_CAPACITY_16 && self.blocks() == 0 =>
            {
                Err(Sense::NOT_READY)
            }
            op::READ_CAPACITY_10 => {
                let last = self.blocks().saturating_sub(1);
                let last = u32::try_from(last).unwrap_or(u32::MAX);
                let block = self.options.logical_block_size;
                Ok(Job::In([last.to_be_bytes(), block.to_be_bytes()].concat()))
            }
            op::SERVICE_ACTION_IN_16 if cdb.byte(1) & 0x1f == READ_CAPACITY_16 => {
                Ok(cut(self.capacity(), cdb.number(10, 4)))
            }
            op::READ_6 | op::READ_10 | op::READ_12 | op::READ_16 => {
                let (offset, len) = self.moved(cdb)?;
                match len {
                    0 => Ok(Job::DONE),
                    _ => Ok(Job::Read { offset, len }),
                }
            }
            op::WRITE_6
            | op::WRITE_10
            | op::WRITE_12
            | op::WRITE_16
            | op::WRITE_AND_VERIFY_10
            | op::WRITE_AND_VERIFY_12
            | op::WRITE_AND_VERIFY_16 => self.write(cdb),
            op::SEEK_6 | op::SEEK_10 => {
                let (first, _) = match cdb.code() {
                    op::SEEK_6 => cdb.blocks(),
                    _ => (cdb.wide(2, 4), 0),
                };
                self.place(first, 1).map(|_| Job::DONE)
            }
            op::VERIFY_10 | op::VERIFY_12 | op::VERIFY_16 => {
                // BYTCHK, RDPROTECT.
                if cdb.byte(1) & 0xe6 != 0 {
                    return Err(Sense::BAD_FIELD);
                }
                let (first, count) = cdb.blocks();
                self.place(first, count).map(|_| Job::DONE)
            }
            op::SYNCHRONIZE_CACHE_10 | op::SYNCHRONIZE_CACHE_16 => {
                let (first, count) = cdb.blocks();
                self.place(first, count)?;
                Ok(Job::operation(Operation::Flush))
            }
            op::UNMAP => {
                self.writable()?;
                // ANCHOR.
                if cdb.byte(1) & 1 != 0 {
                    return Err(Sense::BAD_FIELD);
                }
                Ok(Job::Parameters(cdb.number(7, 2).into()))
            }
            op::WRITE_SAME_10 | op::WRITE_SAME_16 => self.write_same(cdb),
            _ => Err(Sense::NO_SUCH_COMMAND),
        }
    }

    fn write(&self, cdb: Cdb<'_>) -> Result<Job, Sense> {
        self.writable()?;
        let (offset, len) = self.moved(cdb)?;
        let is_verified = matches!(
            cdb.code(),
            op::WRITE_AND_VERIFY_10 | op::WRITE_AND_VERIFY_12 | op::WRITE_AND_VERIFY_16
        );
        // The shortest command has no flags; those that verify have others.
        let fua = cdb.code() != op::WRITE_6 && cdb.byte(1) & 8 != 0;
        match len {
            0 => Ok(Job::DONE),
            _ => Ok(Job::Write {
                offset,
                len,
                fua: fua || is_verified || self.is_through(),
            }),
        }
    }

    /// WRITE SAME (SBC-3, 5.43, 5.44).
    fn write_same(&self, cdb: Cdb<'_>) -> Result<Job, Sense> {
        const ANCHOR_LBDATA_PBDATA: u8 = 0x16;
        const NDOB: u8 = 1;
        self.writable()?;
        let flags = cdb.byte(1);
        let (first, count) = cdb.blocks();
        self.place(first, count)?;
        if flags & (0xe0 | ANCHOR_LBDATA_PBDATA) != 0 || count == 0 || count > self.most_same() {
            return Err(Sense::BAD_FIELD);
        }
        match (cdb.code(), flags & NDOB) {
            (_, 0) => Ok(Job::Parameters(self.block())),
            (op::WRITE_SAME_16, _) => self.same(cdb, &[]),
            _ => Err(Sense::BAD_FIELD),
        }
    }

    /// MAXIMUM WRITE SAME LENGTH, in blocks.
    fn most_same(&self) -> u64 {
        MOST.checked_div(self.block()).unwrap_or(0)
    }

    /// WRITE SAME with its block; none for zeros.
    fn same(&self, cdb: Cdb<'_>, data: &[u8]) -> Result<Job, Sense> {
        const UNMAP: u8 = 8;
        let (first, count) = cdb.blocks();
        let (offset, len) = self.place(first, count)?;
        let fua = self.is_through();
        if data.iter().any(|byte| *byte != 0) {
            let block = data.to_vec();
            return Ok(Job::Fill {
                offset,
                len,
                block,
                fua,
            });
        }
        let unmap = cdb.byte(1) & UNMAP != 0;
        let zero = Operation::WriteZeroes { offset, len, unmap };
        Ok(Job::Operations(flushed([zero].into(), fua)))
    }

    /// The list of an UNMAP (SBC-3, 5.28).
    fn unmap(&self, data: &[u8]) -> Result<Job, Sense> {
        let list = Cdb(data);
        if data.is_empty() {
            return Ok(Job::DONE);
        }
        let blocks_len = usize::try_from(list.number(2, 2)).unwrap_or(usize::MAX);
        let is_whole = blocks_len.is_multiple_of(UNMAP_DESCRIPTOR);
        let has_all = data.len() >= UNMAP_HEADER.saturating_add(blocks_len);
        if !is_whole || !has_all || data.len() < UNMAP_HEADER {
            return Err(Sense::BAD_LIST_LENGTH);
        }
        let most = self.options.max_unmap_size;
        let mut operations = VecDeque::new();
        for at in (UNMAP_HEADER..).step_by(UNMAP_DESCRIPTOR) {
            if at.saturating_sub(UNMAP_HEADER) >= blocks_len {
                break;
            }
            if operations.len() >= UNMAP_DESCRIPTORS as usize {
                return Err(Sense::BAD_PARAMETER);
            }
            let count = list.wide(at.saturating_add(8), 4);
            let (offset, len) = self.place(list.wide(at, 8), count)?;
            if len > most {
                return Err(Sense::BAD_PARAMETER);
            }
            operations.push_back(Operation::Discard { offset, len });
        }
        Ok(Job::Operations(operations))
    }

    fn inquiry(&self, cdb: Cdb<'_>) -> Result<Job, Sense> {
        let standard = Standard {
            kind: 0,
            is_removable: self.options.removable,
            version: self.options.scsi_version,
            format: 0x12,
            flags: 0x12,
        };
        self.options
            .identity
            .inquiry(cdb, &standard, self.vital_product_data())
    }

    pub(crate) fn save(&self) -> Section {
        let State {
            attention,
            write_cache,
        } = &self.state;
        let mut section = Section::new("scsi-hd", 1).with(1, *write_cache);
        if let Some(sense) = attention {
            section.push(2, vec![sense.key, sense.code, sense.qualifier]);
        }
        section
    }

    pub(crate) fn restore(&mut self, section: &Section) -> Result<(), StateError> {
        section.expect("scsi-hd", 1)?;
        let attention = match section.get(2) {
            Some(_) => {
                let [key, code, qualifier] = section.array::<3>(2)?;
                Some(Sense::new(key & 0xf, code, qualifier))
            }
            None => None,
        };
        self.state = State {
            attention,
            write_cache: section.bool(1)?,
        };
        Ok(())
    }
}

/// With a flush at the end, if need be.
fn flushed(mut operations: VecDeque<Operation>, flush: bool) -> VecDeque<Operation> {
    if flush {
        operations.push_back(Operation::Flush);
    }
    operations
}

impl Unit for Disk {
    fn medium(&self) -> Option<SharedBlock> {
        Some(self.medium.clone())
    }

    fn command(&mut self, cdb: Cdb<'_>) -> Result<Job, Sense> {
        // These two answer at any time (SAM-5, 5.14).
        let answers_always = matches!(cdb.code(), op::REQUEST_SENSE | op::INQUIRY);
        if !answers_always && let Some(sense) = self.state.attention.take() {
            return Err(sense);
        }
        match self.dispatch(cdb)? {
            Job::Parameters(len) if len > PARAMETERS.max(self.block()) => {
                Err(Sense::BAD_LIST_LENGTH)
            }
            job => Ok(job),
        }
    }

    fn parameters(&mut self, cdb: Cdb<'_>, data: &[u8]) -> Result<Job, Sense> {
        match cdb.code() {
            op::MODE_SELECT_6 | op::MODE_SELECT_10 => self.mode_select(cdb, data),
            op::UNMAP => self.unmap(data),
            op::WRITE_SAME_10 | op::WRITE_SAME_16 => self.same(cdb, data),
            _ => Err(Sense::NO_SUCH_COMMAND),
        }
    }

    fn attention(&mut self, sense: Sense) {
        self.state.attention = more_urgent(self.state.attention, sense);
    }

    fn reset(&mut self) {
        self.state = State {
            attention: Some(Sense::RESET),
            write_cache: self.options.write_back,
        };
    }
}
