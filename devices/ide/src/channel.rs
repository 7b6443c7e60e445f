//! A channel of a parallel controller: two drives behind one set of ports.
//!
//! Spec: ATA/ATAPI-7 volume 2, chapter 5 (ports) and volume 1, chapter 6 (protocols); ATA/ATAPI-7
//! volume 2, 5.3 for which drive answers when one is missing.
//!
//! A drive that moves data through the data port has a buffer with blocks in it: after each block it
//! interrupts. One that uses the bus master waits until that is started.

use backend_block::{BlockError, IoVector, Operation, SECTOR};
use hw_core::{IrqLine, Section, StateError};

use crate::bus::IdeBus;
use crate::drive::{Drive, Failure, Job, SharedDrive, Way};
use crate::taskfile::{control, device, reason, status};
use crate::transfer::{BUFFER_MOST, Phase, Transfer};

/// Offsets of the command block's ports; the data port is the first.
pub(crate) mod port {
    pub(crate) const DEVICE: u8 = 6;
    /// Status when read, command when written.
    pub(crate) const STATUS: u8 = 7;
}

/// How a transfer of the bus master went.
pub(crate) enum Mastered {
    /// The memory for it, as long as the transfer or shorter.
    Memory(IoVector),
    /// There is none.
    Fault,
}

/// The channel's own state.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct State {
    /// The device control register.
    control: u8,
    /// Whether device 1 is the selected one.
    second: bool,
    /// The interrupt line, as the selected drive has it.
    intrq: bool,
}

/// A channel.
pub(crate) struct Channel {
    pub(crate) bus: IdeBus,
    pub(crate) irq: IrqLine,
    state: State,
}

impl Channel {
    pub(crate) fn new() -> Self {
        Channel {
            bus: IdeBus::parallel(),
            irq: IrqLine::default(),
            state: State::default(),
        }
    }

    /// The level of the interrupt line, whether it is let through or not.
    pub(crate) fn intrq(&self) -> bool {
        self.state.intrq
    }

    /// A drive interrupts.
    pub(crate) fn interrupt(&mut self) {
        self.set_intrq(true);
    }

    fn set_intrq(&mut self, level: bool) {
        self.state.intrq = level;
        self.sync();
    }

    /// The pin follows the state.
    pub(crate) fn sync(&self) {
        let masked = self.state.control & control::NIEN != 0;
        self.irq.set(self.state.intrq && !masked);
    }

    /// The selected drive.
    pub(crate) fn selected(&self) -> Option<SharedDrive> {
        self.bus.drive(u8::from(self.state.second))
    }

    fn drives(&self) -> impl Iterator<Item = SharedDrive> + use<> {
        [self.bus.drive(0), self.bus.drive(1)].into_iter().flatten()
    }

    /// A read of ports 1 to 7.
    pub(crate) fn read(&mut self, port: u8) -> u8 {
        if port == port::STATUS {
            let value = self.status();
            self.set_intrq(false);
            return value;
        }
        let Some(drive) = self.selected() else {
            // Device 0 answers for a device 1 that is not there; nobody for both.
            return match self.bus.drive(0) {
                Some(first) => first.lock().registers.read(port, false) | self.dev(port),
                None => 0xff,
            };
        };
        let hob = self.state.control & control::HOB != 0;
        drive.lock().registers.read(port, hob) | self.dev(port)
    }

    fn dev(&self, port: u8) -> u8 {
        match port == port::DEVICE && self.state.second {
            true => device::DEV,
            false => 0,
        }
    }

    /// The status, without further ado: the alternate status register.
    pub(crate) fn status(&self) -> u8 {
        match self.selected() {
            Some(drive) => drive.lock().registers.status,
            // Nobody pulls the lines of an empty cable; device 0 answers 0 for a missing device 1.
            None if self.bus.drive(0).is_some() || self.bus.drive(1).is_some() => 0,
            None => 0x7f,
        }
    }

    /// A write to the device control register.
    pub(crate) fn write_control(&mut self, value: u8) {
        let before = self.state.control;
        self.state.control = value;
        let (was, is) = (before & control::SRST, value & control::SRST);
        if is != 0 && was == 0 {
            self.reset_drives();
            for drive in self.drives() {
                drive.lock().registers.status = status::BSY;
            }
        }
        if is == 0 && was != 0 {
            self.reset_drives();
        }
        self.sync();
    }

    fn reset_drives(&mut self) {
        self.drives().for_each(|drive| drive.lock().reset());
        self.state.second = false;
        self.state.intrq = false;
    }

    /// A machine reset: own state only; the drives have theirs.
    pub(crate) fn reset(&mut self) {
        self.state = State::default();
    }

    /// A write to ports 1 to 7. Parameters go to both drives, as they share the cable.
    pub(crate) fn write(&mut self, port: u8, value: u8) {
        if port == port::STATUS {
            return self.command(value);
        }
        // Any write to the command block shows the newer halves again.
        self.state.control &= !control::HOB;
        for drive in self.drives() {
            let mut drive = drive.lock();
            // A busy drive takes nothing.
            if drive.registers.status & (status::BSY | status::DRQ) == 0 {
                drive.registers.write(port, value);
            }
        }
        if port == port::DEVICE {
            self.state.second = value & device::DEV != 0;
        }
    }

    fn command(&mut self, command: u8) {
        const DEVICE_RESET: u8 = 0x08;
        const EXECUTE_DIAGNOSTIC: u8 = 0x90;
        self.set_intrq(false);
        if command == EXECUTE_DIAGNOSTIC {
            // For both, whichever is selected.
            self.reset_drives();
            return self.set_intrq(true);
        }
        let Some(drive) = self.selected() else {
            return;
        };
        let mut drive = drive.lock();
        if command == DEVICE_RESET && drive.is_packet() {
            // The only command that a busy device takes; it does not interrupt.
            return drive.reset();
        }
        if drive.registers.status & (status::BSY | status::DRQ) != 0 {
            return;
        }
        let begun = drive.begin(command);
        let interrupts = match begun {
            Ok(begun) => advance(&mut drive, begun.job, begun.way),
            Err(failure) => {
                let signature = drive.registers;
                drive.finish(Err(failure));
                // A packet device that was taken for a disk says what it is.
                drive.registers.count = signature.count;
                true
            }
        };
        drop(drive);
        if interrupts {
            self.set_intrq(true);
        }
    }

    /// A read of the data port.
    pub(crate) fn read_data(&mut self, size: u8) -> u64 {
        let Some(drive) = self.selected() else {
            return u64::MAX;
        };
        let mut drive = drive.lock();
        if drive.transfer.phase != Phase::ToHost {
            return 0;
        }
        let transfer = &mut drive.transfer;
        let mut value = [0u8; 8];
        let end = transfer
            .end
            .min(transfer.at.saturating_add(usize::from(size)));
        let bytes = transfer.buffer.get(transfer.at..end).unwrap_or_default();
        for (slot, byte) in value.iter_mut().zip(bytes) {
            *slot = *byte;
        }
        transfer.at = end;
        let interrupts = end == transfer.end && next_block_in(&mut drive);
        drop(drive);
        if interrupts {
            self.set_intrq(true);
        }
        u64::from_le_bytes(value)
    }

    /// A write to the data port.
    pub(crate) fn write_data(&mut self, size: u8, value: u64) {
        let Some(drive) = self.selected() else {
            return;
        };
        let mut drive = drive.lock();
        if drive.transfer.phase != Phase::FromHost {
            return;
        }
        let transfer = &mut drive.transfer;
        let end = transfer
            .end
            .min(transfer.at.saturating_add(usize::from(size)));
        if let Some(bytes) = transfer.buffer.get_mut(transfer.at..end) {
            for (slot, byte) in bytes.iter_mut().zip(value.to_le_bytes()) {
                *slot = byte;
            }
        }
        transfer.at = end;
        let interrupts = end == transfer.end && block_taken(&mut drive);
        drop(drive);
        if interrupts {
            self.set_intrq(true);
        }
    }

    /// The drive that waits for the bus master, if one does.
    pub(crate) fn waiting(&self) -> Option<SharedDrive> {
        self.drives()
            .find(|drive| drive.lock().transfer.phase == Phase::Waiting)
    }

    /// Requests of the medium have ended. Answers whether the bus master's work is done.
    pub(crate) fn poke(&mut self) -> bool {
        let mut mastered = false;
        for drive in self.drives() {
            let mut drive = drive.lock();
            for (number, result) in drive.flights.take() {
                if drive.transfer.flight != Some(number) {
                    continue;
                }
                drive.transfer.flight = None;
                mastered |= is_mastered(&drive);
                if ended(&mut drive, result) {
                    // Only the selected drive drives the line (5.2.10).
                    self.state.intrq = true;
                }
            }
        }
        self.sync();
        mastered
    }

    /// After a restore: what the media were at work on is begun again; what the bus master moved, it
    /// moves again.
    pub(crate) fn resume(&mut self) {
        for drive in self.drives() {
            let mut drive = drive.lock();
            if drive.transfer.phase != Phase::Busy || drive.transfer.flight.is_some() {
                continue;
            }
            let Transfer { job, way, .. } = drive.transfer.clone();
            if way == Way::Dma && job.len() != 0 {
                drive.transfer.phase = Phase::Waiting;
            } else if start(&mut drive).is_err() {
                end(&mut drive, Err(crate::drive::ABORTED));
            }
        }
        self.sync();
    }

    pub(crate) fn save(&self) -> Section {
        let State {
            control,
            second,
            intrq,
        } = self.state;
        Section::new("ide-channel", 1)
            .with(1, control)
            .with(2, second)
            .with(3, intrq)
    }

    /// Takes over a state that was restored.
    pub(crate) fn set_state(&mut self, state: State) {
        self.state = state;
    }
}

impl State {
    pub(crate) fn restored(section: &Section) -> Result<Self, StateError> {
        section.expect("ide-channel", 1)?;
        Ok(State {
            control: section.u8(1)?,
            second: section.bool(2)?,
            intrq: section.bool(3)?,
        })
    }
}

/// Ends a command. A packet device interrupts at its end like all others.
fn end(drive: &mut Drive, result: Result<(), Failure>) -> bool {
    drive.transfer = Transfer::default();
    drive.finish(result);
    true
}

/// Goes on with what is left of a command. Returns whether the drive interrupts.
fn advance(drive: &mut Drive, job: Job, way: Way) -> bool {
    let is_packet_data = drive.is_packet() && !matches!(job, Job::Packet);
    drive.transfer = Transfer {
        job,
        way,
        ..Transfer::default()
    };
    let len = drive.transfer.job.len();
    match (&mut drive.transfer.job, way) {
        (Job::Done, _) => end(drive, Ok(())),
        (Job::Packet, _) => {
            drive.registers.count = u16::from(reason::CD);
            offer_room(drive, 12);
            false
        }
        (Job::Operations(_), _) => begin_io(drive),
        (_, Way::Dma) => {
            drive.transfer.phase = Phase::Waiting;
            drive.registers.status = status::READY | status::DRQ;
            if is_packet_data {
                drive.registers.count = u16::from(reason::IO);
            }
            false
        }
        (Job::In(bytes), Way::Pio(_)) => {
            drive.transfer.buffer = std::mem::take(bytes);
            next_block_in(drive)
        }
        (Job::Read { .. }, Way::Pio(_)) => begin_io(drive),
        (Job::Ranges(_) | Job::Write { .. }, Way::Pio(block)) => {
            // No interrupt for the first block (volume 1, 6.3.7).
            offer_room(drive, len.min(block));
            false
        }
    }
}

/// Waits for a block of data from the host.
fn offer_room(drive: &mut Drive, len: u64) {
    let len = len.min(BUFFER_MOST) as usize;
    let transfer = &mut drive.transfer;
    transfer.buffer = vec![0; len];
    transfer.at = 0;
    transfer.end = len;
    transfer.phase = Phase::FromHost;
    drive.registers.status = status::READY | status::DRQ;
}

/// Gives the host the next block of the buffer, fills the buffer again, or ends.
fn next_block_in(drive: &mut Drive) -> bool {
    let transfer = &mut drive.transfer;
    let Way::Pio(block) = transfer.way else {
        return end(drive, Ok(()));
    };
    if transfer.at < transfer.buffer.len() {
        let block = usize::try_from(block).unwrap_or(usize::MAX);
        transfer.end = transfer.buffer.len().min(transfer.at.saturating_add(block));
        transfer.phase = Phase::ToHost;
        let len = transfer.end.saturating_sub(transfer.at);
        drive.registers.status = status::READY | status::DRQ;
        if drive.is_packet() {
            drive.registers.count = u16::from(reason::IO);
            drive
                .registers
                .set_byte_count(u16::try_from(len).unwrap_or(u16::MAX));
        }
        return true;
    }
    let is_packet = drive.is_packet();
    match drive.transfer.job {
        Job::Read { len, .. } if len != 0 => begin_io(drive),
        // A disk has said that it is done with the interrupt of its last block.
        _ if !is_packet => {
            end(drive, Ok(()));
            false
        }
        _ => end(drive, Ok(())),
    }
}

/// A block from the host is complete.
fn block_taken(drive: &mut Drive) -> bool {
    let way = drive.transfer.way;
    match drive.transfer.job {
        Job::Packet => {
            let mut packet = [0u8; 12];
            for (slot, byte) in packet.iter_mut().zip(&drive.transfer.buffer) {
                *slot = *byte;
            }
            match drive.packet(&packet) {
                Ok(begun) => advance(drive, begun.job, begun.way),
                Err(failure) => end(drive, Err(failure)),
            }
        }
        Job::Ranges(_) => {
            let data = std::mem::take(&mut drive.transfer.buffer);
            match drive.ranges(&data) {
                Ok(job) => advance(drive, job, way),
                Err(failure) => end(drive, Err(failure)),
            }
        }
        _ => begin_io(drive),
    }
}

/// Has the medium begin, or ends the command if there is none.
fn begin_io(drive: &mut Drive) -> bool {
    match start(drive) {
        Ok(()) => false,
        Err(error) => {
            let job = drive.transfer.job.clone();
            let failure = drive.failed(error, &job);
            end(drive, Err(failure))
        }
    }
}

/// Hands the medium the next step of a command that goes through the data port, or has no data.
fn start(drive: &mut Drive) -> Result<(), BlockError> {
    drive.registers.status = status::READY | status::BSY;
    drive.transfer.phase = Phase::Busy;
    let (operation, memory) = match &drive.transfer.job {
        Job::Read { offset, len } => {
            let len = (*len).min(BUFFER_MOST) as usize;
            (Operation::Read { offset: *offset }, IoVector::zeroed(len))
        }
        Job::Write { offset, .. } => (
            Operation::Write { offset: *offset },
            IoVector::from(drive.transfer.buffer.as_slice()),
        ),
        Job::Operations(operations) => {
            let first = operations.front().ok_or(BlockError::Unsupported)?;
            (*first, IoVector::default())
        }
        _ => return Err(BlockError::Unsupported),
    };
    submit(drive, operation, memory)
}

fn submit(drive: &mut Drive, operation: Operation, memory: IoVector) -> Result<(), BlockError> {
    let kept = memory.clone();
    let number = drive.submit(operation, memory)?;
    drive.transfer.flight = Some(number);
    if drive.transfer.way != Way::Dma && matches!(operation, Operation::Read { .. }) {
        drive.transfer.reading = kept;
    }
    Ok(())
}

/// Whether the medium is at work on what the bus master moves.
pub(crate) fn is_mastered(drive: &Drive) -> bool {
    let transfer = &drive.transfer;
    transfer.phase == Phase::Busy && transfer.way == Way::Dma && transfer.job.len() != 0
}

/// The bus master brings memory for a drive that waits for it. Returns whether the drive interrupts.
pub(crate) fn master(drive: &mut Drive, memory: Mastered) -> bool {
    let len = drive.transfer.job.len();
    let memory = match memory {
        Mastered::Memory(memory) if memory.len() >= len => memory.slice(0, len),
        // Too little of it: nothing is moved.
        Mastered::Memory(_) | Mastered::Fault => {
            let job = drive.transfer.job.clone();
            let failure = drive.failed(BlockError::BadBuffer, &job);
            return end(drive, Err(failure));
        }
    };
    let job = drive.transfer.job.clone();
    match &job {
        Job::In(bytes) => {
            let moved = memory.copy_in(0, bytes);
            end(drive, moved.ok_or(crate::drive::ABORTED))
        }
        Job::Ranges(_) => match drive.ranges(&memory.to_vec()) {
            Ok(job) => advance(drive, job, Way::Dma),
            Err(failure) => end(drive, Err(failure)),
        },
        Job::Read { offset, .. } | Job::Write { offset, .. } => {
            let operation = match job.is_out() {
                true => Operation::Write { offset: *offset },
                false => Operation::Read { offset: *offset },
            };
            drive.registers.status = status::READY | status::BSY;
            drive.transfer.phase = Phase::Busy;
            match submit(drive, operation, memory) {
                Ok(()) => false,
                Err(error) => {
                    let failure = drive.failed(error, &job);
                    end(drive, Err(failure))
                }
            }
        }
        Job::Done | Job::Packet | Job::Operations(_) => end(drive, Ok(())),
    }
}

/// The medium has done its step. Returns whether the drive interrupts.
fn ended(drive: &mut Drive, result: Result<(), BlockError>) -> bool {
    if let Err(error) = result {
        let job = drive.transfer.job.clone();
        let failure = drive.failed(error, &job);
        return end(drive, Err(failure));
    }
    let way = drive.transfer.way;
    let is_write_through = drive.is_write_through();
    let reading = std::mem::take(&mut drive.transfer.reading);
    match (&mut drive.transfer.job, way) {
        (Job::Read { offset, len }, Way::Pio(_)) => {
            *offset = offset.saturating_add(reading.len());
            *len = len.saturating_sub(reading.len());
            drive.transfer.buffer = reading.to_vec();
            drive.transfer.at = 0;
            next_block_in(drive)
        }
        (Job::Write { offset, len, fua }, Way::Pio(block)) => {
            let done = drive.transfer.buffer.len() as u64;
            *offset = offset.saturating_add(done);
            *len = len.saturating_sub(done);
            let (left, must_flush) = (*len, *fua || is_write_through);
            if left != 0 {
                offer_room(drive, left.min(block));
                return true;
            }
            flush_or_end(drive, must_flush)
        }
        (Job::Write { fua, .. }, Way::Dma) => {
            let must_flush = *fua || is_write_through;
            flush_or_end(drive, must_flush)
        }
        (Job::Operations(operations), _) => {
            operations.pop_front();
            match operations.is_empty() {
                true => end(drive, Ok(())),
                false => begin_io(drive),
            }
        }
        _ => end(drive, Ok(())),
    }
}

fn flush_or_end(drive: &mut Drive, must_flush: bool) -> bool {
    match must_flush {
        true => advance(drive, Job::operation(Operation::Flush), Way::Dma),
        false => end(drive, Ok(())),
    }
}

/// Whole sectors come out of whole blocks.
const _: () = assert!(BUFFER_MOST.is_multiple_of(16 * SECTOR));
