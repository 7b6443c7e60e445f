//! Command descriptor blocks (SPC-4, 4.3).

use crate::Job;

/// Operation codes (SPC-4, table D.2).
pub mod op {
    #![allow(missing_docs)]
    pub const TEST_UNIT_READY: u8 = 0x00;
    pub const REZERO_UNIT: u8 = 0x01;
    pub const REQUEST_SENSE: u8 = 0x03;
    pub const READ_6: u8 = 0x08;
    pub const WRITE_6: u8 = 0x0a;
    pub const SEEK_6: u8 = 0x0b;
    pub const INQUIRY: u8 = 0x12;
    pub const MODE_SELECT_6: u8 = 0x15;
    pub const RESERVE_6: u8 = 0x16;
    pub const RELEASE_6: u8 = 0x17;
    pub const MODE_SENSE_6: u8 = 0x1a;
    pub const START_STOP_UNIT: u8 = 0x1b;
    pub const SEND_DIAGNOSTIC: u8 = 0x1d;
    pub const PREVENT_ALLOW: u8 = 0x1e;
    pub const READ_CAPACITY_10: u8 = 0x25;
    pub const READ_10: u8 = 0x28;
    pub const WRITE_10: u8 = 0x2a;
    pub const SEEK_10: u8 = 0x2b;
    pub const WRITE_AND_VERIFY_10: u8 = 0x2e;
    pub const VERIFY_10: u8 = 0x2f;
    pub const SYNCHRONIZE_CACHE_10: u8 = 0x35;
    pub const WRITE_SAME_10: u8 = 0x41;
    pub const UNMAP: u8 = 0x42;
    pub const READ_TOC: u8 = 0x43;
    pub const GET_CONFIGURATION: u8 = 0x46;
    pub const GET_EVENT_STATUS: u8 = 0x4a;
    pub const READ_DISC_INFORMATION: u8 = 0x51;
    pub const MODE_SELECT_10: u8 = 0x55;
    pub const MODE_SENSE_10: u8 = 0x5a;
    pub const READ_16: u8 = 0x88;
    pub const WRITE_16: u8 = 0x8a;
    pub const WRITE_AND_VERIFY_16: u8 = 0x8e;
    pub const VERIFY_16: u8 = 0x8f;
    pub const SYNCHRONIZE_CACHE_16: u8 = 0x91;
    pub const WRITE_SAME_16: u8 = 0x93;
    pub const SERVICE_ACTION_IN_16: u8 = 0x9e;
    pub const REPORT_LUNS: u8 = 0xa0;
    pub const READ_12: u8 = 0xa8;
    pub const WRITE_12: u8 = 0xaa;
    pub const WRITE_AND_VERIFY_12: u8 = 0xae;
    pub const VERIFY_12: u8 = 0xaf;
    pub const SET_CD_SPEED: u8 = 0xbb;
    pub const MECHANISM_STATUS: u8 = 0xbd;
    pub const READ_CD: u8 = 0xbe;
}

/// A command, of which numbers are the high byte first. What is beyond its end is zero.
#[derive(Clone, Copy, Debug)]
pub struct Cdb<'a>(pub &'a [u8]);

impl Cdb<'_> {
    /// The operation code.
    pub fn code(self) -> u8 {
        self.byte(0)
    }

    /// One byte.
    pub fn byte(self, at: usize) -> u8 {
        self.0.get(at).copied().unwrap_or(0)
    }

    /// A number of up to eight bytes.
    pub fn wide(self, at: usize, len: usize) -> u64 {
        (at..).take(len).fold(0, |number, at| {
            number.wrapping_shl(8) | u64::from(self.byte(at))
        })
    }

    /// A number of up to four bytes.
    pub fn number(self, at: usize, len: usize) -> u32 {
        self.wide(at, len.min(4)) as u32
    }

    /// The first block and how many of them, for commands of the medium; the group code says where
    /// they stand (SPC-4, 4.2.5).
    pub fn blocks(self) -> (u64, u64) {
        match self.code() >> 5 {
            0 => {
                // 0 is 256 (SBC-3, 5.8).
                let count = match self.byte(4) {
                    0 => 256,
                    count => count.into(),
                };
                (self.wide(1, 3) & 0x1f_ffff, count)
            }
            4 => (self.wide(2, 8), self.wide(10, 4)),
            5 => (self.wide(2, 4), self.wide(6, 4)),
            _ => (self.wide(2, 4), self.wide(7, 2)),
        }
    }
}

/// At most so many bytes as the host has room for.
pub fn cut(mut bytes: Vec<u8>, room: u32) -> Job {
    bytes.truncate(usize::try_from(room).unwrap_or(usize::MAX));
    Job::In(bytes)
}
