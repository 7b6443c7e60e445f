//! A drive, whatever cable it is on: registers, and what a command comes down to.
//!
//! A command becomes a [`Job`]: which bytes go between host and drive, and what is done with them. The
//! controllers move the bytes, each in its way.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use backend_block::{BlockError, Flights, IoVector, Operation, SECTOR, SharedBlock};
use hw_core::{Section, StateError};

use crate::ata::Disk;
use crate::atapi::Cd;
use crate::taskfile::{TaskFile, device, error, reason, status};
use crate::transfer::Transfer;

/// What is left to do of a command.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) enum Job {
    /// Nothing.
    #[default]
    Done,
    /// A packet comes from the host.
    Packet,
    /// These bytes go to the host.
    In(Vec<u8>),
    /// This many bytes of ranges to be discarded come from the host.
    Ranges(u64),
    /// Bytes of the medium go to the host.
    Read {
        /// Where on the medium.
        offset: u64,
        /// How many.
        len: u64,
    },
    /// Bytes from the host go to the medium.
    Write {
        /// Where on the medium.
        offset: u64,
        /// How many.
        len: u64,
        /// They are not written before they are safe.
        fua: bool,
    },
    /// One after the other, without data.
    Operations(VecDeque<Operation>),
}

impl Job {
    /// A single operation.
    pub(crate) fn operation(operation: Operation) -> Self {
        Job::Operations([operation].into())
    }

    /// Bytes that a command moves.
    pub(crate) fn len(&self) -> u64 {
        match self {
            Job::In(bytes) => bytes.len() as u64,
            Job::Ranges(len) | Job::Read { len, .. } | Job::Write { len, .. } => *len,
            Job::Done | Job::Packet | Job::Operations(_) => 0,
        }
    }

    /// Whether the data come from the host.
    pub(crate) fn is_out(&self) -> bool {
        matches!(self, Job::Packet | Job::Ranges(_) | Job::Write { .. })
    }
}

/// How a command's data pass the cable.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) enum Way {
    /// Through the data port, so many bytes at a time.
    Pio(u64),
    /// By a bus master.
    #[default]
    Dma,
}

/// A command, understood.
pub(crate) struct Begun {
    pub(crate) job: Job,
    pub(crate) way: Way,
}

impl Begun {
    /// A command without data.
    pub(crate) fn new(job: Job) -> Self {
        let way = Way::Dma;
        Begun { job, way }
    }
}

/// A command that failed: what the error register then says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Failure(pub(crate) u8);

/// The command is not one of the drive's, or not now, or its parameters are wrong.
pub(crate) const ABORTED: Failure = Failure(error::ABRT);

/// What kind of drive.
pub(crate) enum Kind {
    Disk(Disk),
    Cd(Cd),
}

/// A drive.
pub(crate) struct Drive {
    pub(crate) kind: Kind,
    pub(crate) flights: Flights,
    pub(crate) registers: TaskFile,
    /// What moves through the data port of a parallel cable.
    pub(crate) transfer: Transfer,
}

/// How controllers and the drive's own device hold it.
#[derive(Clone)]
pub(crate) struct SharedDrive(Arc<Mutex<Drive>>);

impl SharedDrive {
    pub(crate) fn new(drive: Drive) -> Self {
        SharedDrive(Arc::new(Mutex::new(drive)))
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, Drive> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drive {
    pub(crate) fn new(kind: Kind) -> Self {
        let mut drive = Drive {
            kind,
            flights: Flights::default(),
            registers: TaskFile::default(),
            transfer: Transfer::default(),
        };
        drive.registers = TaskFile::signature(drive.is_packet());
        drive
    }

    /// Whether it takes packets.
    pub(crate) fn is_packet(&self) -> bool {
        matches!(self.kind, Kind::Cd(_))
    }

    /// The medium, if there is one.
    pub(crate) fn medium(&self) -> Option<SharedBlock> {
        match &self.kind {
            Kind::Disk(disk) => Some(disk.medium().clone()),
            Kind::Cd(cd) => cd.medium(),
        }
    }

    /// Power on.
    pub(crate) fn power_on(&mut self) {
        self.reset();
        match &mut self.kind {
            Kind::Disk(disk) => disk.power_on(),
            Kind::Cd(cd) => cd.power_on(),
        }
    }

    /// A reset by the cable or its registers: what is under way is given up, settings stay.
    pub(crate) fn reset(&mut self) {
        self.flights.cancel();
        self.transfer = Transfer::default();
        self.registers = TaskFile::signature(self.is_packet());
        if let Kind::Cd(cd) = &mut self.kind {
            cd.reset();
        }
    }

    /// Begins a command whose parameters are in the registers.
    pub(crate) fn begin(&mut self, command: u8) -> Result<Begun, Failure> {
        let registers = &mut self.registers;
        registers.error = 0;
        match &mut self.kind {
            Kind::Disk(disk) => disk.begin(command, registers),
            Kind::Cd(cd) => cd.begin(command, registers),
        }
    }

    /// Begins the command of a packet.
    pub(crate) fn packet(&mut self, packet: &[u8; 12]) -> Result<Begun, Failure> {
        let Kind::Cd(cd) = &mut self.kind else {
            return Err(ABORTED);
        };
        let dma = self.registers.feature & 1 != 0;
        // 0 and odd numbers make no sense to a cable of two bytes; real drives take the next one.
        let limit = match self.registers.byte_count() {
            0 | u16::MAX => u16::MAX.wrapping_sub(1),
            bytes => bytes,
        };
        let job = cd.command(packet)?;
        let way = match dma {
            true => Way::Dma,
            false => Way::Pio(u64::from(limit.max(2) & !1)),
        };
        Ok(Begun { job, way })
    }

    /// The ranges that a [`Job::Ranges`] asked for.
    pub(crate) fn ranges(&self, data: &[u8]) -> Result<Job, Failure> {
        match &self.kind {
            Kind::Disk(disk) => disk.ranges(data),
            Kind::Cd(_) => Err(ABORTED),
        }
    }

    /// Hands an operation to the medium.
    pub(crate) fn submit(
        &mut self,
        operation: Operation,
        memory: IoVector,
    ) -> Result<u64, BlockError> {
        let medium = self.medium().ok_or(BlockError::Io)?;
        Ok(self.flights.submit(&medium, operation, memory))
    }

    /// Whether a write is to be followed by a flush.
    pub(crate) fn is_write_through(&self) -> bool {
        match &self.kind {
            Kind::Disk(disk) => !disk.write_cache(),
            Kind::Cd(_) => false,
        }
    }

    /// What a failed operation of the medium is to the host. `offset` is where it was.
    pub(crate) fn failed(&mut self, failure: BlockError, job: &Job) -> Failure {
        match &mut self.kind {
            Kind::Disk(_) => {
                if let Job::Read { offset, .. } | Job::Write { offset, .. } = job {
                    self.registers
                        .set_lba48(offset.checked_div(SECTOR).unwrap_or(0));
                }
                match (failure, job) {
                    (BlockError::OutOfRange, _) => Failure(error::IDNF),
                    (_, Job::Read { .. }) => Failure(error::UNC),
                    _ => ABORTED,
                }
            }
            Kind::Cd(cd) => cd.failed(),
        }
    }

    /// The registers at the end of a command.
    pub(crate) fn finish(&mut self, result: Result<(), Failure>) {
        let is_packet = self.is_packet();
        let registers = &mut self.registers;
        registers.status = status::READY;
        if is_packet {
            registers.count = u16::from(reason::CD | reason::IO);
        }
        if let Err(Failure(bits)) = result {
            registers.status |= status::ERR;
            registers.error = bits;
        }
        registers.device |= device::OBSOLETE;
    }

    pub(crate) fn save(&self) -> Section {
        let Drive {
            kind,
            // Saved as what is left of the transfer, and begun again.
            flights: _,
            registers,
            transfer,
        } = self;
        let own = match kind {
            Kind::Disk(disk) => disk.save(),
            Kind::Cd(cd) => cd.save(),
        };
        Section::new("ide-drive", 1)
            .with(1, registers.save())
            .with(2, transfer.save())
            .with(3, own)
    }

    pub(crate) fn restore(&mut self, section: &Section) -> Result<(), StateError> {
        section.expect("ide-drive", 1)?;
        let registers = TaskFile::restored(section.section(1)?)?;
        let transfer = Transfer::restored(section.section(2)?)?;
        match &mut self.kind {
            Kind::Disk(disk) => disk.restore(section.section(3)?)?,
            Kind::Cd(cd) => cd.restore(section.section(3)?)?,
        }
        self.flights.cancel();
        self.registers = registers;
        self.transfer = transfer;
        Ok(())
    }
}
