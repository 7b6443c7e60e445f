//! CD and DVD drives: packet devices.
//!
//! Spec: ATA/ATAPI-7 volume 1, 6.4 (the PACKET feature set); the commands in packets are those of
//! MMC-5 (T10/1675-D) and SPC-3 (T10/1416-D).
//!
//! Not modelled: sound, raw sectors, writing.

mod configuration;
mod packet;
mod toc;

use std::sync::Arc;

use backend_block::{SharedBlock, Tray};
use hw_core::{Section, StateError};

use crate::ata::Words;
use crate::drive::{ABORTED, Begun, Failure, Job, Way};
use crate::taskfile::{TaskFile, error, reason};

/// Bytes of a block of a CD.
pub(crate) const BLOCK: u64 = 2048;

/// Command codes (ATA/ATAPI-7 volume 1, 6.4).
mod op {
    pub(super) const DEVICE_RESET: u8 = 0x08;
    pub(super) const READ_SECTORS: u8 = 0x20;
    pub(super) const EXECUTE_DIAGNOSTIC: u8 = 0x90;
    pub(super) const PACKET: u8 = 0xa0;
    pub(super) const IDENTIFY_PACKET: u8 = 0xa1;
    pub(super) const STANDBY_IMMEDIATE: u8 = 0xe0;
    pub(super) const IDLE_IMMEDIATE: u8 = 0xe1;
    pub(super) const CHECK_POWER_MODE: u8 = 0xe5;
    pub(super) const SLEEP: u8 = 0xe6;
    pub(super) const IDENTIFY: u8 = 0xec;
    pub(super) const SET_FEATURES: u8 = 0xef;
}

const SET_TRANSFER_MODE: u8 = 0x03;

/// Properties of a CD drive.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CdOptions {
    /// `serial`, of which 20 bytes are shown.
    pub serial: String,
    /// `model`, of which 40 bytes are shown.
    pub model: String,
    /// `ver`, of which 8 bytes are shown.
    pub version: String,
    /// `wwn`; zero for none.
    pub wwn: u64,
}

/// Why a command failed: key, code and qualifier (SPC-3, 4.5).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
struct Sense {
    key: u8,
    code: u8,
    qualifier: u8,
}

impl Sense {
    const fn new(key: u8, code: u8, qualifier: u8) -> Self {
        Sense {
            key,
            code,
            qualifier,
        }
    }

    const TRAY_CLOSED_EMPTY: Sense = Sense::new(2, 0x3a, 1);
    const TRAY_OPEN: Sense = Sense::new(2, 0x3a, 2);
    const READ_ERROR: Sense = Sense::new(3, 0x11, 0);
    const NO_SUCH_COMMAND: Sense = Sense::new(5, 0x20, 0);
    const NO_SUCH_BLOCK: Sense = Sense::new(5, 0x21, 0);
    const BAD_FIELD: Sense = Sense::new(5, 0x24, 0);
    const NO_SAVED_PAGES: Sense = Sense::new(5, 0x39, 0);
    const REMOVAL_PREVENTED: Sense = Sense::new(5, 0x53, 2);
    const MEDIUM_CHANGED: Sense = Sense::new(6, 0x28, 0);
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
    sense: Sense,
    /// The next command is told that the medium is another.
    attention: bool,
    event: MediaEvent,
    /// Transfer mode as SET FEATURES has it; 0 for none chosen.
    mode: u8,
}

/// A CD drive.
pub(crate) struct Cd {
    tray: Arc<Tray>,
    options: CdOptions,
    is_serial: bool,
    /// The tray's count of changes when it was looked at last.
    seen: u64,
    state: State,
}

impl Cd {
    pub(crate) fn new(tray: Arc<Tray>, options: CdOptions) -> Self {
        tray.set_removable();
        Cd {
            seen: tray.changes(),
            tray,
            options,
            is_serial: false,
            state: State::default(),
        }
    }

    /// Whether the cable is a serial one.
    pub(crate) fn set_serial(&mut self, is_serial: bool) {
        self.is_serial = is_serial;
    }

    /// The medium, behind a closed door.
    pub(crate) fn medium(&self) -> Option<SharedBlock> {
        self.tray.medium().filter(|_| !self.tray.is_open())
    }

    pub(crate) fn power_on(&mut self) {
        self.tray.set_locked(false);
        self.seen = self.tray.changes();
        self.state = State::default();
    }

    pub(crate) fn reset(&mut self) {
        self.state.sense = Sense::default();
    }

    /// A read of the medium failed.
    pub(crate) fn failed(&mut self) -> Failure {
        self.check(Sense::READ_ERROR)
    }

    /// Keeps why a command failed until the host asks.
    fn check(&mut self, sense: Sense) -> Failure {
        self.state.sense = sense;
        Failure(sense.key << 4 | error::ABRT)
    }

    pub(crate) fn begin(
        &mut self,
        command: u8,
        registers: &mut TaskFile,
    ) -> Result<Begun, Failure> {
        let done = Ok(Begun::new(Job::Done));
        match command {
            op::PACKET => {
                registers.count = u16::from(reason::CD);
                Ok(Begun {
                    job: Job::Packet,
                    way: Way::Pio(12),
                })
            }
            op::IDENTIFY_PACKET => Ok(Begun {
                job: Job::In(self.identify()),
                way: Way::Pio(512),
            }),
            op::DEVICE_RESET | op::EXECUTE_DIAGNOSTIC => {
                *registers = TaskFile::signature(true);
                done
            }
            // So a host that does not know tells it from a disk (6.4.1).
            op::IDENTIFY | op::READ_SECTORS => {
                *registers = TaskFile::signature(true);
                Err(ABORTED)
            }
            op::CHECK_POWER_MODE => {
                registers.count = 0xff;
                done
            }
            op::STANDBY_IMMEDIATE | op::IDLE_IMMEDIATE | op::SLEEP => done,
            op::SET_FEATURES if registers.feature as u8 == SET_TRANSFER_MODE => {
                self.state.mode = registers.count as u8;
                done
            }
            _ => Err(ABORTED),
        }
    }

    /// The answer of IDENTIFY PACKET DEVICE (ATA/ATAPI-7 volume 1, 6.18).
    fn identify(&self) -> Vec<u8> {
        let options = &self.options;
        let mut w = Words::new();
        w.set(0, 0x8580); // packets of 12 bytes, a CD drive, removable media
        w.text(10, 10, &options.serial);
        w.text(23, 4, &options.version);
        w.text(27, 20, &options.model);
        w.set(49, 0x0f00); // IORDY, LBA, DMA
        w.set(50, 0x4000);
        w.set(53, 0x0006); // words 64 to 70 and 88 are valid
        let chosen = |class: u8| match self.state.mode >> 3 == class {
            true => 0x100u16.wrapping_shl(u32::from(self.state.mode & 7)),
            false => 0,
        };
        w.set(63, 0x0007 | chosen(4));
        w.set(64, 0x0003);
        for word in 65..=68 {
            w.set(word, 120);
        }
        w.set(80, 0x00f0); // ATA/ATAPI-4 to 7
        w.set(82, 0x0218); // packets, power management, DEVICE RESET
        w.set(83, 0x4000);
        let wwn = if options.wwn == 0 { 0 } else { 1 << 8 };
        w.set(84, 0x4000 | wwn);
        w.set(85, 0x0218);
        w.set(87, 0x4000 | wwn);
        w.set(88, 0x003f | chosen(8));
        w.set(93, if self.is_serial { 0 } else { 0x6001 });
        for (n, word) in (108..112).enumerate() {
            let shift = 48u32.wrapping_sub((n as u32).wrapping_mul(16));
            w.set(word, options.wwn.wrapping_shr(shift) as u16);
        }
        w.finish()
    }

    pub(crate) fn save(&self) -> Section {
        let State {
            sense,
            attention,
            event,
            mode,
        } = &self.state;
        let event = EVENTS.iter().position(|e| e == event).unwrap_or(0);
        Section::new("atapi", 1)
            .with(1, vec![sense.key, sense.code, sense.qualifier])
            .with(2, *attention)
            .with(3, event as u64)
            .with(4, *mode)
            .with(5, self.tray.is_open())
            .with(6, self.tray.is_locked())
    }

    pub(crate) fn restore(&mut self, section: &Section) -> Result<(), StateError> {
        section.expect("atapi", 1)?;
        let [key, code, qualifier] = section.array::<3>(1)?;
        let event = EVENTS.get(usize::from(section.u8(3)?));
        let state = State {
            sense: Sense::new(key & 0xf, code, qualifier),
            attention: section.bool(2)?,
            event: *event.ok_or_else(|| section.bad(3, "no such event"))?,
            mode: section.u8(4)?,
        };
        let (open, locked) = (section.bool(5)?, section.bool(6)?);
        self.tray.set_open(open);
        self.tray.set_locked(locked);
        self.seen = self.tray.changes();
        self.state = state;
        Ok(())
    }
}
