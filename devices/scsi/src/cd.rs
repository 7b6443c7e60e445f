//! CD and DVD drives (MMC-5; SPC-3, chapter 6), on any cable.
//!
//! Not modelled: sound, raw sectors, writing.

mod configuration;
mod toc;

use std::sync::Arc;

use backend_block::{SharedBlock, Tray};
use hw_core::{Section, StateError};
use hw_scsi::{Cdb, Job, Sense, Unit, cut, op};

use crate::inquiry::{Identity, Standard};
use crate::{counted, more_urgent};

/// Bytes of a block of a CD.
pub const CD_BLOCK: u64 = 2048;
const BLOCK: u64 = CD_BLOCK;

/// What a drive is connected by.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Cable {
    /// A SCSI bus.
    Scsi,
    /// ATA, which carries commands in packets.
    Atapi,
}

/// What happened to the medium since the host asked last (MMC-5, 6.6.2.6).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
enum MediaEvent {
    #[default]
    None,
    New,
    Removed,
}

const EVENTS: [MediaEvent; 3] = [MediaEvent::None, MediaEvent::New, MediaEvent::Removed];

#[derive(Clone, PartialEq, Eq, Debug, Default)]
struct State {
    /// What the next command is told.
    attention: Option<Sense>,
    event: MediaEvent,
}

/// A CD drive.
pub struct Cd {
    tray: Arc<Tray>,
    identity: Identity,
    cable: Cable,
    /// The tray's count of changes when it was looked at last.
    seen: u64,
    state: State,
}

impl Cd {
    /// A drive around this tray.
    pub fn new(tray: Arc<Tray>, identity: Identity, cable: Cable) -> Self {
        tray.set_removable();
        Cd {
            seen: tray.changes(),
            tray,
            identity,
            cable,
            state: State::default(),
        }
    }

    /// Names and numbers.
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// Adds the drive's state to a section, as tags 2 to 7.
    #[must_use]
    pub fn save_to(&self, section: Section) -> Section {
        let State { attention, event } = &self.state;
        let event = EVENTS.iter().position(|e| e == event).unwrap_or(0);
        let mut section = section
            .with(2, *attention == Some(Sense::MEDIUM_CHANGED))
            .with(3, event as u64)
            .with(5, self.tray.is_open())
            .with(6, self.tray.is_locked());
        if let Some(sense) = attention {
            section.push(7, vec![sense.key, sense.code, sense.qualifier]);
        }
        section
    }

    /// Takes over what [`save_to`](Self::save_to) added.
    pub fn restore(&mut self, section: &Section) -> Result<(), StateError> {
        let event = EVENTS.get(usize::from(section.u8(3)?));
        let attention = match section.get(7) {
            Some(_) => {
                let [key, code, qualifier] = section.array::<3>(7)?;
                Some(Sense::new(key & 0xf, code, qualifier))
            }
            None => section.bool(2)?.then_some(Sense::MEDIUM_CHANGED),
        };
        let state = State {
            attention,
            event: *event.ok_or_else(|| section.bad(3, "no such event"))?,
        };
        let (open, locked) = (section.bool(5)?, section.bool(6)?);
        self.tray.set_open(open);
        self.tray.set_locked(locked);
        self.seen = self.tray.changes();
        self.state = state;
        Ok(())
    }

    /// Power on: nothing is held, and nothing is to be told.
    pub fn power_on(&mut self) {
        self.tray.set_locked(false);
        self.seen = self.tray.changes();
        self.state = State::default();
    }

    /// Blocks of the medium.
    fn blocks(&self) -> Option<u32> {
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
        match is_there {
            true => self.attention(Sense::MEDIUM_CHANGED),
            false => {
                let other = |sense: &Sense| *sense != Sense::MEDIUM_CHANGED;
                self.state.attention = self.state.attention.filter(other);
            }
        }
        self.state.event = match is_there {
            true => MediaEvent::New,
            false => MediaEvent::Removed,
        };
    }

    /// The blocks there must be for a command of the medium.
    fn medium_blocks(&self) -> Result<u32, Sense> {
        match self.blocks() {
            Some(blocks) => Ok(blocks),
            None if self.tray.is_open() => Err(Sense::TRAY_OPEN),
            None => Err(Sense::TRAY_CLOSED_EMPTY),
        }
    }

    fn dispatch(&mut self, cdb: Cdb<'_>) -> Result<Job, Sense> {
        match cdb.code() {
            op::TEST_UNIT_READY => self.medium_blocks().map(|_| Job::DONE),
            op::REQUEST_SENSE => {
                let sense = self.state.attention.take().unwrap_or_default();
                Ok(cut(sense.fixed(), cdb.number(4, 1)))
            }
            op::INQUIRY => self.inquiry(cdb),
            op::START_STOP_UNIT => self.start_stop(cdb),
            op::PREVENT_ALLOW => {
                self.tray.set_locked(cdb.byte(4) & 1 != 0);
                Ok(Job::DONE)
            }
            op::READ_CAPACITY_10 => {
                let last = self.medium_blocks()?.saturating_sub(1);
                let block = BLOCK as u32;
                Ok(Job::In([last.to_be_bytes(), block.to_be_bytes()].concat()))
            }
            op::READ_10 => self.read(cdb.number(2, 4), cdb.number(7, 2)),
            op::READ_12 => self.read(cdb.number(2, 4), cdb.number(6, 4)),
            op::READ_CD => match cdb.byte(9) & 0xf8 {
                0 => Ok(Job::DONE),
                // User data only.
                0x10 => self.read(cdb.number(2, 4), cdb.number(6, 3)),
                _ => Err(Sense::BAD_FIELD),
            },
            op::SEEK_10 => {
                let blocks = self.medium_blocks()?;
                match cdb.number(2, 4) < blocks {
                    true => Ok(Job::DONE),
                    false => Err(Sense::NO_SUCH_BLOCK),
                }
            }
            op::READ_TOC => {
                let blocks = self.medium_blocks()?;
                let bytes = toc::toc(cdb, blocks).ok_or(Sense::BAD_FIELD)?;
                Ok(cut(bytes, cdb.number(7, 2)))
            }
            op::GET_CONFIGURATION => {
                let bytes = self.configuration(cdb.byte(1) & 3, cdb.number(2, 2));
                Ok(cut(bytes, cdb.number(7, 2)))
            }
            op::GET_EVENT_STATUS => {
                // Only immediate operation is possible.
                if cdb.byte(1) & 1 == 0 {
                    return Err(Sense::BAD_FIELD);
                }
                let bytes = self.event_status(cdb.byte(4));
                Ok(cut(bytes, cdb.number(7, 2)))
            }
            op::READ_DISC_INFORMATION => {
                self.medium_blocks()?;
                let mut bytes = vec![0; 32];
                // Complete, the first track and session are number 1 and the only ones (6.22).
                for (slot, value) in bytes.iter_mut().zip([0x0e, 1, 1, 1, 1, 0x20]) {
                    *slot = value;
                }
                Ok(cut(counted(bytes), cdb.number(7, 2)))
            }
            op::MODE_SENSE_6 => {
                let pages = self.mode_pages(cdb.byte(2))?;
                let len = u8::try_from(pages.len().saturating_add(3)).unwrap_or(u8::MAX);
                // No block descriptors.
                let bytes = [vec![len, 0, 0, 0], pages].concat();
                Ok(cut(bytes, cdb.number(4, 1)))
            }
            op::MODE_SENSE_10 => {
                let pages = self.mode_pages(cdb.byte(2))?;
                let bytes = counted([vec![0; 6], pages].concat());
                Ok(cut(bytes, cdb.number(7, 2)))
            }
            op::SET_CD_SPEED => Ok(Job::DONE),
            op::MECHANISM_STATUS => {
                let door = if self.tray.is_open() { 0x10 } else { 0 };
                Ok(cut(vec![0, door, 0, 0, 0, 1, 0, 0], cdb.number(8, 2)))
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
            return Ok(Job::DONE);
        }
        Ok(Job::Read {
            offset: block.wrapping_mul(BLOCK),
            len: count.wrapping_mul(BLOCK),
        })
    }

    /// START STOP UNIT (MMC-5, 6.42): the tray.
    fn start_stop(&mut self, cdb: Cdb<'_>) -> Result<Job, Sense> {
        let flags = cdb.byte(4);
        let (loads, starts, power) = (flags & 2 != 0, flags & 1 != 0, flags >> 4);
        if power != 0 || !loads {
            return Ok(Job::DONE);
        }
        if !starts && self.tray.is_locked() && !self.tray.is_open() {
            return Err(Sense::REMOVAL_PREVENTED);
        }
        self.tray.set_open(!starts);
        // The host knows of what it did itself, but not of what somebody puts in.
        if !starts {
            self.seen = self.tray.changes();
        }
        Ok(Job::DONE)
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

    fn inquiry(&self, cdb: Cdb<'_>) -> Result<Job, Sense> {
        const CD: u8 = 5;
        let (version, format, flags) = match self.cable {
            Cable::Scsi => (5, 0x12, 0x12),
            // As packets over ATA have it.
            Cable::Atapi => (0, 0x21, 0),
        };
        let standard = Standard {
            kind: CD,
            is_removable: true,
            version,
            format,
            flags,
        };
        self.identity.inquiry(cdb, &standard, Vec::new())
    }
}

impl Unit for Cd {
    fn medium(&self) -> Option<SharedBlock> {
        self.tray.medium().filter(|_| !self.tray.is_open())
    }

    fn command(&mut self, cdb: Cdb<'_>) -> Result<Job, Sense> {
        self.look();
        // These answer whatever the state of the medium (SPC-3, 5.8; MMC-5, 4.1.7.2).
        let answers_always = matches!(
            cdb.code(),
            op::REQUEST_SENSE | op::INQUIRY | op::GET_CONFIGURATION | op::GET_EVENT_STATUS
        );
        if !answers_always && let Some(sense) = self.state.attention.take() {
            return Err(sense);
        }
        self.dispatch(cdb)
    }

    fn parameters(&mut self, _: Cdb<'_>, _: &[u8]) -> Result<Job, Sense> {
        Err(Sense::NO_SUCH_COMMAND)
    }

    fn attention(&mut self, sense: Sense) {
        self.state.attention = more_urgent(self.state.attention, sense);
    }

    fn reset(&mut self) {
        self.power_on();
        self.attention(Sense::RESET);
    }
}
