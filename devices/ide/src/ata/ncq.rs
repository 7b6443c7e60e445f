//! Native command queuing (Serial ATA 2.6, 13.6) and the log of its last error.

use hw_core::{Section, StateError};

use super::{Address, Disk};
use crate::drive::{ABORTED, Failure, Job};
use crate::taskfile::{TaskFile, device};

const READ_FPDMA: u8 = 0x60;
const WRITE_FPDMA: u8 = 0x61;
/// Log addresses of READ LOG EXT (ATA8-ACS, A.2).
const LOG_DIRECTORY: u8 = 0x00;
const LOG_QUEUE_ERROR: u8 = 0x10;

/// A queued command, understood.
#[derive(Debug)]
pub(crate) struct Queued {
    pub(crate) tag: u8,
    pub(crate) job: Job,
}

/// What the log tells of the command that stopped the queue (13.7.4).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct QueueError {
    tag: u8,
    error: u8,
    lba: u64,
}

impl QueueError {
    pub(super) fn save(&self) -> Section {
        let QueueError { tag, error, lba } = *self;
        Section::new("queue-error", 1)
            .with(1, tag)
            .with(2, error)
            .with(3, lba)
    }

    pub(super) fn restored(section: &Section) -> Result<Self, StateError> {
        section.expect("queue-error", 1)?;
        Ok(QueueError {
            tag: section.u8(1)?,
            error: section.u8(2)?,
            lba: section.u64(3)?,
        })
    }
}

impl Disk {
    /// Whether a command is one of the queue's.
    pub(crate) fn is_queued(command: u8) -> bool {
        matches!(command, READ_FPDMA | WRITE_FPDMA)
    }

    /// Understands a command of the queue. The sector count is where others have features, the tag
    /// where they have the count.
    pub(crate) fn queue(&self, command: u8, registers: &TaskFile) -> Result<Queued, Failure> {
        let tag = (registers.count as u8) >> 3;
        let sectors = match registers.feature {
            0 => 0x1_0000,
            sectors => u64::from(sectors),
        };
        if self.queue_depth <= 1 || tag >= self.queue_depth {
            return Err(ABORTED);
        }
        let (offset, len) = self.place(registers, Address::Long, sectors)?;
        let fua = registers.device & 0x80 != 0;
        let job = match command {
            READ_FPDMA => Job::Read { offset, len },
            WRITE_FPDMA => Job::Write { offset, len, fua },
            _ => return Err(ABORTED),
        };
        Ok(Queued { tag, job })
    }

    /// Notes which command stopped the queue.
    pub(crate) fn queue_failed(&mut self, tag: u8, failure: Failure, lba: u64) {
        let Failure(error) = failure;
        self.state.queue_error = Some(QueueError { tag, error, lba });
    }

    /// READ LOG EXT: the directory, and the error of the queue.
    pub(super) fn read_log(&mut self, registers: &TaskFile) -> Result<Vec<u8>, Failure> {
        let [low, mid, _] = registers.lba;
        // The middle of the address is the page.
        if registers.count48() != 1 || mid != 0 {
            return Err(ABORTED);
        }
        let mut bytes = vec![0; 511];
        let mut set = |at: usize, value: u8| {
            if let Some(byte) = bytes.get_mut(at) {
                *byte = value;
            }
        };
        match low as u8 {
            LOG_DIRECTORY => {
                set(0, 1);
                set(usize::from(LOG_QUEUE_ERROR).wrapping_mul(2), 1);
                bytes.push(0);
                return Ok(bytes);
            }
            LOG_QUEUE_ERROR => match self.state.queue_error.take() {
                // No queued command: bit 7.
                None => set(0, 0x80),
                Some(QueueError { tag, error, lba }) => {
                    let byte = |n: u32| lba.wrapping_shr(n.wrapping_mul(8)) as u8;
                    set(0, tag & 0x1f);
                    set(2, 0x41);
                    set(3, error);
                    for (n, at) in [(0, 4), (1, 5), (2, 6), (3, 8), (4, 9), (5, 10)] {
                        set(at, byte(n));
                    }
                    set(7, device::LBA);
                }
            },
            _ => return Err(ABORTED),
        }
        let sum = bytes.iter().fold(0u8, |sum, byte| sum.wrapping_add(*byte));
        bytes.push(sum.wrapping_neg());
        Ok(bytes)
    }
}
