//! CD and DVD drives: packet devices.
//!
//! Spec: ATA/ATAPI-7 volume 1, 6.4 (the PACKET feature set). The commands in packets are those of a
//! SCSI CD drive.

use std::sync::Arc;

use backend_block::{SharedBlock, Tray};
use device_scsi::{Cable, Identity};
use hw_core::{Section, StateError};
use hw_scsi::{Cdb, Sense, Unit as _, cut};

use crate::ata::Words;
use crate::drive::{ABORTED, Begun, Failure, Job, Way};
use crate::taskfile::{TaskFile, error, reason};

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
/// Characters of a serial number on ATA.
const SERIAL_LEN: usize = 20;

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

#[derive(Clone, PartialEq, Eq, Debug, Default)]
struct State {
    /// Why the last packet's command failed.
    sense: Sense,
    /// Transfer mode as SET FEATURES has it; 0 for none chosen.
    mode: u8,
}

/// A CD drive.
pub(crate) struct Cd {
    drive: device_scsi::Cd,
    options: CdOptions,
    is_serial: bool,
    state: State,
}

impl Cd {
    pub(crate) fn new(tray: Arc<Tray>, options: CdOptions) -> Self {
        let serial: String = options.serial.chars().take(SERIAL_LEN).collect();
        let identity = Identity {
            vendor: "QEMU".into(),
            product: options.model.clone(),
            version: options.version.clone(),
            device_id: serial.clone(),
            serial,
            wwn: options.wwn,
            ..Identity::default()
        };
        Cd {
            drive: device_scsi::Cd::new(tray, identity, Cable::Atapi),
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
        self.drive.medium()
    }

    pub(crate) fn power_on(&mut self) {
        self.drive.power_on();
        self.state = State::default();
    }

    pub(crate) fn reset(&mut self) {
        self.state.sense = Sense::default();
    }

    /// A read of the medium failed.
    pub(crate) fn failed(&mut self) -> Failure {
        self.check(Sense::READ_ERROR)
    }

    /// Carries a packet's command out, or says what is left to be done.
    pub(crate) fn command(&mut self, packet: &[u8; 12]) -> Result<Job, Failure> {
        use hw_scsi::{Job as Scsi, op};
        let cdb = Cdb(packet);
        let sense = std::mem::take(&mut self.state.sense);
        let job = match cdb.code() {
            op::REQUEST_SENSE => Ok(cut(sense.fixed(), cdb.number(4, 1))),
            _ => self.drive.command(cdb),
        };
        match job {
            Ok(Scsi::In(bytes)) if bytes.is_empty() => Ok(Job::Done),
            Ok(Scsi::In(bytes)) => Ok(Job::In(bytes)),
            Ok(Scsi::Read { offset, len }) => Ok(Job::Read { offset, len }),
            // It writes nothing, and takes no parameters.
            Ok(_) => Err(self.check(Sense::NO_SUCH_COMMAND)),
            Err(sense) => Err(self.check(sense)),
        }
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
        let State { sense, mode } = &self.state;
        let section = Section::new("atapi", 1)
            .with(1, vec![sense.key, sense.code, sense.qualifier])
            .with(4, *mode);
        self.drive.save_to(section)
    }

    pub(crate) fn restore(&mut self, section: &Section) -> Result<(), StateError> {
        section.expect("atapi", 1)?;
        let [key, code, qualifier] = section.array::<3>(1)?;
        let state = State {
            sense: Sense::new(key & 0xf, code, qualifier),
            mode: section.u8(4)?,
        };
        self.drive.restore(section)?;
        self.state = state;
        Ok(())
    }
}
