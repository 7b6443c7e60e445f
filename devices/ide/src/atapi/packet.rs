//! Commands in packets (SPC-3, chapter 6; MMC-5, chapter 6).

use super::{BLOCK, Cd, MediaEvent, Sense};
use crate::drive::{Failure, Job};

/// Operation codes.
mod op {
    pub(super) const TEST_UNIT_READY: u8 = 0x00;
    pub(super) const REQUEST_SENSE: u8 = 0x03;
    pub(super) const INQUIRY: u8 = 0x12;
    pub(super) const START_STOP: u8 = 0x1b;
    pub(super) const PREVENT_ALLOW: u8 = 0x1e;
    pub(super) const READ_CAPACITY: u8 = 0x25;
    pub(super) const READ_10: u8 = 0x28;
    pub(super) const SEEK_10: u8 = 0x2b;
    pub(super) const READ_TOC: u8 = 0x43;
    pub(super) const GET_CONFIGURATION: u8 = 0x46;
    pub(super) const GET_EVENT_STATUS: u8 = 0x4a;
    pub(super) const READ_DISC_INFORMATION: u8 = 0x51;
    pub(super) const MODE_SENSE_10: u8 = 0x5a;
    pub(super) const READ_12: u8 = 0xa8;
    pub(super) const SET_CD_SPEED: u8 = 0xbb;
    pub(super) const MECHANISM_STATUS: u8 = 0xbd;
    pub(super) const READ_CD: u8 = 0xbe;
}

/// A packet, of which numbers are the high byte first.
#[derive(Clone, Copy)]
pub(super) struct Packet<'a>(&'a [u8; 12]);

impl Packet<'_> {
    pub(super) fn byte(self, at: usize) -> u8 {
        self.0.get(at).copied().unwrap_or(0)
    }

    /// A number of up to four bytes.
    pub(super) fn number(self, at: usize, len: usize) -> u32 {
        let bytes = self.0.iter().skip(at).take(len);
        bytes.fold(0, |number, byte| number << 8 | u32::from(*byte))
    }
}

/// At most so many bytes as the host has room for.
fn cut(mut bytes: Vec<u8>, room: u32) -> Job {
    bytes.truncate(usize::try_from(room).unwrap_or(usize::MAX));
    match bytes.is_empty() {
        true => Job::Done,
        false => Job::In(bytes),
    }
}

/// Puts the number of the bytes that follow the first two in front.
pub(super) fn counted(mut bytes: Vec<u8>) -> Vec<u8> {
    let len = u16::try_from(bytes.len()).unwrap_or(u16::MAX);
    bytes.splice(0..0, len.to_be_bytes());
    bytes
}

impl Cd {
    /// Blocks of the medium.
    pub(super) fn blocks(&self) -> Option<u32> {
        let blocks = self.medium()?.len().checked_div(BLOCK)?;
        Some(u32::try_from(blocks).unwrap_or(u32::MAX))
    }

    /// Notices what happened to the tray.
    fn look(&mut self) {
        let changes = self.tray.changes();
        if changes == self.seen {
            return;
        }
        self.seen = changes;
        let is_there = self.medium().is_some();
        self.state.attention = is_there;
        self.state.event = match is_there {
            true => MediaEvent::New,
            false => MediaEvent::Removed,
        };
    }

    /// Carries a packet's command out, or says what is left to be done.
    pub(crate) fn command(&mut self, packet: &[u8; 12]) -> Result<Job, Failure> {
        self.look();
        let packet = Packet(packet);
        let code = packet.byte(0);
        // These answer whatever the state of the medium (SPC-3, 5.8; MMC-5, 4.1.7.2).
        let answers_always = matches!(
            code,
            op::REQUEST_SENSE | op::INQUIRY | op::GET_CONFIGURATION | op::GET_EVENT_STATUS
        );
        if !answers_always && std::mem::take(&mut self.state.attention) {
            return Err(self.check(Sense::MEDIUM_CHANGED));
        }
        let sense = std::mem::take(&mut self.state.sense);
        self.dispatch(packet, sense)
            .map_err(|sense| self.check(sense))
    }

    /// The blocks there must be for a command of the medium.
    fn medium_blocks(&self) -> Result<u32, Sense> {
        match self.blocks() {
            Some(blocks) => Ok(blocks),
            None if self.tray.is_open() => Err(Sense::TRAY_OPEN),
            None => Err(Sense::TRAY_CLOSED_EMPTY),
        }
    }

    fn dispatch(&mut self, packet: Packet<'_>, before: Sense) -> Result<Job, Sense> {
        match packet.byte(0) {
            op::TEST_UNIT_READY => self.medium_blocks().map(|_| Job::Done),
            op::REQUEST_SENSE => {
                let Sense {
                    key,
                    code,
                    qualifier,
                } = before;
                let bytes = vec![
                    0x70, 0, key, 0, 0, 0, 0, 10, 0, 0, 0, 0, code, qualifier, 0, 0, 0, 0,
                ];
                Ok(cut(bytes, packet.number(4, 1)))
            }
            op::INQUIRY => {
                let bytes = self.inquiry(packet)?;
                Ok(cut(bytes, packet.number(3, 2)))
            }
            op::START_STOP => self.start_stop(packet),
            op::PREVENT_ALLOW => {
                self.tray.set_locked(packet.byte(4) & 1 != 0);
                Ok(Job::Done)
            }
            op::READ_CAPACITY => {
                let last = self.medium_blocks()?.saturating_sub(1);
                let block = BLOCK as u32;
                Ok(Job::In([last.to_be_bytes(), block.to_be_bytes()].concat()))
            }
            op::READ_10 => self.read(packet.number(2, 4), packet.number(7, 2)),
            op::READ_12 => self.read(packet.number(2, 4), packet.number(6, 4)),
            op::READ_CD => match packet.byte(9) & 0xf8 {
                0 => Ok(Job::Done),
                // User data only.
                0x10 => self.read(packet.number(2, 4), packet.number(6, 3)),
                _ => Err(Sense::BAD_FIELD),
            },
            op::SEEK_10 => {
                let blocks = self.medium_blocks()?;
                match packet.number(2, 4) < blocks {
                    true => Ok(Job::Done),
                    false => Err(Sense::NO_SUCH_BLOCK),
                }
            }
            op::READ_TOC => {
                let blocks = self.medium_blocks()?;
                let bytes = super::toc::toc(packet, blocks).ok_or(Sense::BAD_FIELD)?;
                Ok(cut(bytes, packet.number(7, 2)))
            }
            op::GET_CONFIGURATION => {
                let bytes = self.configuration(packet.byte(1) & 3, packet.number(2, 2));
                Ok(cut(bytes, packet.number(7, 2)))
            }
            op::GET_EVENT_STATUS => {
                // Only immediate operation is possible.
                if packet.byte(1) & 1 == 0 {
                    return Err(Sense::BAD_FIELD);
                }
                let bytes = self.event_status(packet.byte(4));
                Ok(cut(bytes, packet.number(7, 2)))
            }
            op::READ_DISC_INFORMATION => {
                self.medium_blocks()?;
                let mut bytes = vec![0; 32];
                // Complete, the first track and session are number 1 and the only ones (6.22).
                for (slot, value) in bytes.iter_mut().zip([0x0e, 1, 1, 1, 1, 0x20]) {
                    *slot = value;
                }
                Ok(cut(counted(bytes), packet.number(7, 2)))
            }
            op::MODE_SENSE_10 => {
                let bytes = self.mode_sense(packet.byte(2))?;
                Ok(cut(bytes, packet.number(7, 2)))
            }
            op::SET_CD_SPEED => Ok(Job::Done),
            op::MECHANISM_STATUS => {
                let door = if self.tray.is_open() { 0x10 } else { 0 };
                Ok(cut(vec![0, door, 0, 0, 0, 1, 0, 0], packet.number(8, 2)))
            }
            _ => Err(Sense::NO_SUCH_COMMAND),
        }
    }

    fn read(&self, block: u32, count: u32) -> Result<Job, Sense> {
        let blocks = u64::from(self.medium_blocks()?);
        let (block, count) = (u64::from(block), u64::from(count));
        if block.saturating_add(count) > blocks {
            return Err(Sense::NO_SUCH_BLOCK);
        }
        if count == 0 {
            return Ok(Job::Done);
        }
        Ok(Job::Read {
            offset: block.wrapping_mul(BLOCK),
            len: count.wrapping_mul(BLOCK),
        })
    }

    /// START STOP UNIT (MMC-5, 6.42): the tray.
    fn start_stop(&mut self, packet: Packet<'_>) -> Result<Job, Sense> {
        let flags = packet.byte(4);
        let (loads, starts, power) = (flags & 2 != 0, flags & 1 != 0, flags >> 4);
        if power != 0 || !loads {
            return Ok(Job::Done);
        }
        if !starts && self.tray.is_locked() && !self.tray.is_open() {
            return Err(Sense::REMOVAL_PREVENTED);
        }
        self.tray.set_open(!starts);
        // The host knows of what it did itself, but not of what somebody puts in.
        if !starts {
            self.seen = self.tray.changes();
        }
        Ok(Job::Done)
    }

    /// GET EVENT STATUS NOTIFICATION (MMC-5, 6.6): events of media, and no others.
    fn event_status(&mut self, wanted: u8) -> Vec<u8> {
        const MEDIA: u8 = 4;
        const SUPPORTED: u8 = 1 << MEDIA;
        const NONE_AVAILABLE: u8 = 0x80;
        if wanted & SUPPORTED == 0 {
            return counted(vec![NONE_AVAILABLE, SUPPORTED]);
        }
        let code = match std::mem::take(&mut self.state.event) {
            MediaEvent::New => 2,
            MediaEvent::Removed => 3,
            MediaEvent::None if self.tray.take_eject_request() => 1,
            MediaEvent::None => 0,
        };
        let open = u8::from(self.tray.is_open());
        let present = u8::from(self.medium().is_some()) << 1;
        let mut bytes = vec![0, 6, MEDIA, SUPPORTED];
        bytes.extend([code, open | present, 0, 0]);
        bytes
    }

    /// INQUIRY (SPC-3, 6.4).
    fn inquiry(&self, packet: Packet<'_>) -> Result<Vec<u8>, Sense> {
        let text = |bytes: &mut Vec<u8>, text: &str, len: usize| {
            bytes.extend(text.bytes().chain(std::iter::repeat(b' ')).take(len));
        };
        let options = &self.options;
        if packet.byte(1) & 1 == 0 {
            if packet.byte(2) != 0 {
                return Err(Sense::BAD_FIELD);
            }
            // A removable CD, as packets over ATA have it.
            let mut bytes = vec![0x05, 0x80, 0x00, 0x21, 31, 0, 0, 0];
            text(&mut bytes, "QEMU", 8);
            text(&mut bytes, &options.model, 16);
            text(&mut bytes, &options.version, 4);
            return Ok(bytes);
        }
        let page = packet.byte(2);
        let body = match page {
            0x00 => vec![0x00, 0x80, 0x83],
            0x80 => options.serial.bytes().take(20).collect(),
            0x83 => {
                let serial: Vec<u8> = options.serial.bytes().take(20).collect();
                let len = u8::try_from(serial.len()).unwrap_or(0);
                let mut body = [vec![2, 0, 0, len], serial].concat();
                if options.wwn != 0 {
                    body.extend([1, 3, 0, 8]);
                    body.extend(options.wwn.to_be_bytes());
                }
                body
            }
            _ => return Err(Sense::BAD_FIELD),
        };
        let mut bytes = vec![0x05, page];
        bytes.extend(counted(body));
        Ok(bytes)
    }
}
