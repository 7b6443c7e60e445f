//! A port: fetches commands, has its drive carry them out, and says so.
//!
//! Spec: Serial ATA AHCI 1.3.1, chapters 5 and 6; Serial ATA 2.6, 11 (protocols) and 13.6 (queues).

use std::collections::BTreeMap;

use backend_block::{BlockError, IoVector, Operation, SECTOR};
use hw_core::{Dma, DmaError, Section, StateError};

use crate::ata::{Disk, Queued};
use crate::bus::IdeBus;
use crate::drive::{ABORTED, Drive, Failure, Job, Kind, SharedDrive, Way};
use crate::taskfile::{TaskFile, control, status};

use super::list::{CommandFis, Header, device_bits_fis, pio_setup_fis, register_fis};
use super::registers::{
    DIAG_N, DIAG_X, LINK_OFF, LINK_UP, SCTL_WRITABLE, SIG_NONE, cmd, event, port, received,
};

/// Registers, and what else the guest can see.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct State {
    clb: u64,
    fb: u64,
    is: u32,
    ie: u32,
    cmd: u32,
    tfd: u16,
    sig: u32,
    ssts: u32,
    sctl: u32,
    serr: u32,
    sact: u32,
    ci: u32,
    /// The device has sent its first FIS since its reset.
    greeted: bool,
    /// A software reset has begun.
    in_reset: bool,
    /// A command failed: nothing more is done until software stops the port.
    halted: bool,
    /// Queued commands that the device has accepted.
    accepted: u32,
}

impl Default for State {
    fn default() -> Self {
        State {
            clb: 0,
            fb: 0,
            is: 0,
            ie: 0,
            // Power on, spun up (3.3.7).
            cmd: 1 << 1 | 1 << 2,
            tfd: 0x7f,
            sig: SIG_NONE,
            ssts: 0,
            sctl: 0,
            serr: 0,
            sact: 0,
            ci: 0,
            greeted: false,
            in_reset: false,
            halted: false,
            accepted: 0,
        }
    }
}

/// The command that is not queued and under way.
struct Running {
    slot: u8,
    header: Header,
    job: Job,
    way: Way,
    /// Bytes that were moved.
    moved: u64,
    flight: Option<u64>,
}

/// A queued command under way.
struct InQueue {
    slot: u8,
    header: Header,
    job: Job,
    must_flush: bool,
}

/// A port.
pub(super) struct Port {
    pub(super) bus: IdeBus,
    state: State,
    running: Option<Running>,
    queue: BTreeMap<u64, InQueue>,
}

fn bit(slot: u8) -> u32 {
    1u32.wrapping_shl(u32::from(slot & 31))
}

impl Port {
    pub(super) fn new() -> Self {
        Port {
            bus: IdeBus::serial(),
            state: State::default(),
            running: None,
            queue: BTreeMap::new(),
        }
    }

    fn drive(&self) -> Option<SharedDrive> {
        self.bus.drive(0)
    }

    /// Whether it interrupts.
    pub(super) fn is_pending(&self) -> bool {
        self.events() & self.state.ie != 0
    }

    /// PxIS, of which two bits follow PxSERR.
    fn events(&self) -> u32 {
        let follow = |diag: u32, bit: u32| match self.state.serr & diag {
            0 => 0,
            _ => bit,
        };
        self.state.is | follow(DIAG_X, event::PCS) | follow(DIAG_N, event::PRCS)
    }

    /// A reset of the controller: registers and what is under way. With `device` the drive too.
    pub(super) fn reset(&mut self, device: bool) {
        self.give_up();
        self.state = State::default();
        if let Some(drive) = self.drive() {
            if device {
                drive.lock().reset();
            }
            self.state.ssts = LINK_UP;
        }
    }

    fn give_up(&mut self) {
        if self.running.take().is_some() || !self.queue.is_empty() {
            self.queue.clear();
            if let Some(drive) = self.drive() {
                drive.lock().flights.cancel();
            }
        }
        self.state.accepted = 0;
    }

    pub(super) fn read(&self, register: u64) -> u32 {
        let s = &self.state;
        match register {
            port::CLB => s.clb as u32,
            port::CLBU => (s.clb >> 32) as u32,
            port::FB => s.fb as u32,
            port::FBU => (s.fb >> 32) as u32,
            port::IS => self.events(),
            port::IE => s.ie,
            port::CMD => {
                let when = |bit: u32, shown: u32| if s.cmd & bit != 0 { shown } else { 0 };
                let slot = self.running.as_ref().map_or(0, |r| u32::from(r.slot));
                s.cmd | when(cmd::ST, cmd::CR) | when(cmd::FRE, cmd::FR) | slot << 8
            }
            port::TFD => u32::from(s.tfd),
            port::SIG => s.sig,
            port::SSTS => s.ssts,
            port::SCTL => s.sctl,
            port::SERR => s.serr,
            port::SACT => s.sact,
            port::CI => s.ci,
            _ => 0,
        }
    }

    pub(super) fn write(&mut self, dma: &Dma, register: u64, value: u32) {
        let low = |old: u64, mask: u32| old & !0xffff_ffff | u64::from(value & mask);
        let high = |old: u64| old & 0xffff_ffff | u64::from(value) << 32;
        let s = &mut self.state;
        match register {
            port::CLB => s.clb = low(s.clb, !0x3ff),
            port::CLBU => s.clb = high(s.clb),
            port::FB => s.fb = low(s.fb, !0xff),
            port::FBU => s.fb = high(s.fb),
            port::IS => s.is &= !value,
            port::IE => s.ie = value & event::ALL,
            port::CMD => self.write_cmd(dma, value),
            port::SCTL => self.write_sctl(dma, value),
            port::SERR => s.serr &= !value,
            port::SACT if s.cmd & cmd::ST != 0 => s.sact |= value,
            port::CI if s.cmd & cmd::ST != 0 => {
                s.ci |= value;
                self.process(dma);
            }
            port::SNTF => {}
            _ => {}
        }
    }

    fn write_cmd(&mut self, dma: &Dma, value: u32) {
        let was = self.state.cmd;
        self.state.cmd = value & cmd::WRITABLE;
        if value & cmd::CLO != 0 {
            self.state.tfd &= !u16::from(status::BSY | status::DRQ);
        }
        if was & cmd::ST != 0 && value & cmd::ST == 0 {
            // Stopped (3.3.7, 3.3.13, 3.3.14): what is under way is given up.
            self.give_up();
            self.state.ci = 0;
            self.state.sact = 0;
            self.state.halted = false;
        }
        if value & cmd::FRE != 0 {
            self.greet(dma);
        }
        self.process(dma);
    }

    /// PxSCTL.DET (3.3.11): 1 resets the link for as long as it is there, 4 switches it off.
    fn write_sctl(&mut self, dma: &Dma, value: u32) {
        let was = self.state.sctl & 0xf;
        self.state.sctl = value & SCTL_WRITABLE;
        match (was, value & 0xf) {
            (_, 1) => self.state.ssts = 0,
            (_, 4) => self.state.ssts = LINK_OFF,
            (1 | 4, 0) => {
                let Some(drive) = self.drive() else {
                    self.state.ssts = 0;
                    return;
                };
                self.give_up();
                drive.lock().reset();
                self.state.ssts = LINK_UP;
                self.state.serr |= DIAG_N | DIAG_X;
                self.state.tfd = u16::from(status::BSY);
                self.state.greeted = false;
                self.greet(dma);
            }
            _ => {}
        }
    }

    /// The first FIS of a device after its reset (5.3.8.1 waits for it): its signature.
    fn greet(&mut self, dma: &Dma) {
        if self.state.greeted || self.state.cmd & cmd::FRE == 0 || self.state.ssts != LINK_UP {
            return;
        }
        let Some(drive) = self.drive() else { return };
        self.state.greeted = true;
        let registers = drive.lock().registers;
        let [low, mid, high] = registers.lba.map(|register| register as u8);
        self.state.sig = u32::from_le_bytes([registers.count as u8, low, mid, high]);
        self.send_registers(dma, &registers, false);
    }

    /// Stores a FIS that came from the device.
    fn store(&mut self, dma: &Dma, at: u64, bytes: &[u8]) {
        if self.state.cmd & cmd::FRE == 0 {
            return;
        }
        if dma.write(self.state.fb.wrapping_add(at), bytes).is_err() {
            self.state.is |= event::HBFS;
        }
    }

    fn show(&mut self, registers: &TaskFile) {
        self.state.tfd = u16::from_le_bytes([registers.status, registers.error]);
        if registers.status & status::ERR != 0 {
            self.state.is |= event::TFES;
            self.state.halted = true;
        }
    }

    fn send_registers(&mut self, dma: &Dma, registers: &TaskFile, interrupts: bool) {
        self.store(
            dma,
            received::REGISTER,
            &register_fis(registers, interrupts),
        );
        self.show(registers);
        if interrupts {
            self.state.is |= event::DHRS;
        }
    }

    /// Takes commands from the list as long as there are some that can begin.
    pub(super) fn process(&mut self, dma: &Dma) {
        while self.state.cmd & cmd::ST != 0
            && !self.state.halted
            && self.running.is_none()
            && self.state.ssts == LINK_UP
            && let Some(drive) = self.drive()
        {
            let new = self.state.ci & !self.state.accepted;
            let slot = new.trailing_zeros();
            let Some(slot) = u8::try_from(slot).ok().filter(|slot| *slot < 32) else {
                return;
            };
            if self.fetch(dma, &drive, slot).is_err() {
                self.state.is |= event::HBFS;
                self.state.halted = true;
            }
        }
    }

    /// Begins the command of a slot. An error means that memory could not be read.
    fn fetch(&mut self, dma: &Dma, drive: &SharedDrive, slot: u8) -> Result<(), DmaError> {
        let header = Header::read(dma, self.state.clb, slot)?;
        let Some(fis) = header.fis(dma)? else {
            // No command: the list is nonsense.
            self.state.halted = true;
            self.state.is |= event::HBFS;
            return Ok(());
        };
        let CommandFis {
            command,
            control,
            registers,
        } = fis;
        let mut drive = drive.lock();
        let Some(command) = command else {
            self.state.ci &= !bit(slot);
            self.control(dma, &mut drive, control);
            return Ok(());
        };
        let parameters = TaskFile {
            status: drive.registers.status,
            error: 0,
            ..registers
        };
        if let Kind::Disk(disk) = &mut drive.kind
            && Disk::is_queued(command)
        {
            let queued = disk.queue(command, &parameters);
            drive.registers = parameters;
            return self.accept(dma, &mut drive, slot, header, queued);
        }
        drive.registers = parameters;
        // A command that is not queued while the queue is not empty is an error of the host's, and ends
        // the queue (Serial ATA 2.6, 13.6.4).
        let begun = match self.queue.is_empty() {
            true => drive.begin(command),
            false => Err(ABORTED),
        };
        self.state.tfd = u16::from(status::READY | status::BSY);
        let mut running = Running {
            slot,
            header,
            job: Job::Done,
            way: Way::Dma,
            moved: 0,
            flight: None,
        };
        let begun = match begun {
            Ok(begun) if begun.job == Job::Packet => {
                let packet = header.packet(dma)?;
                drive.packet(&packet)
            }
            begun => begun,
        };
        match begun {
            Ok(begun) => {
                running.job = begun.job;
                running.way = begun.way;
                self.step(dma, &mut drive, running)
            }
            Err(failure) => {
                self.complete(dma, &mut drive, running, Err(failure));
                Ok(())
            }
        }
    }

    /// A change of device control: software reset.
    fn control(&mut self, dma: &Dma, drive: &mut Drive, value: u8) {
        let resets = value & control::SRST != 0;
        if resets && !self.state.in_reset {
            self.running = None;
            self.queue.clear();
            self.state.accepted = 0;
            drive.reset();
            self.state.tfd = u16::from(status::READY | status::BSY);
        }
        let is_over = self.state.in_reset && !resets;
        self.state.in_reset = resets;
        if is_over {
            drive.reset();
            let registers = drive.registers;
            self.send_registers(dma, &registers, false);
        }
    }

    /// Does what is left of a command, or has the medium begin with it.
    fn step(&mut self, dma: &Dma, drive: &mut Drive, mut running: Running) -> Result<(), DmaError> {
        let len = running.job.len();
        let memory = match len {
            0 => IoVector::default(),
            len => running.header.memory(dma, len, !running.job.is_out())?,
        };
        // What packets answer may find less room than they said; sectors may not.
        if memory.len() < len && !matches!(running.job, Job::In(_)) {
            self.state.is |= event::OFS;
            self.complete(dma, drive, running, Err(ABORTED));
            return Ok(());
        }
        let next = match &running.job {
            Job::In(bytes) => {
                let bytes = bytes.get(..memory.len() as usize).unwrap_or(bytes);
                let _ = memory.copy_in(0, bytes);
                running.moved = bytes.len() as u64;
                None
            }
            Job::Ranges(_) => {
                running.moved = len;
                match drive.ranges(&memory.to_vec()) {
                    Ok(job) => running.job = job,
                    Err(failure) => {
                        self.complete(dma, drive, running, Err(failure));
                        return Ok(());
                    }
                }
                match &running.job {
                    Job::Operations(operations) => operations.front().copied(),
                    _ => None,
                }
            }
            Job::Read { offset, .. } => Some(Operation::Read { offset: *offset }),
            Job::Write { offset, .. } => Some(Operation::Write { offset: *offset }),
            Job::Operations(operations) => operations.front().copied(),
            Job::Done | Job::Packet => None,
        };
        let Some(operation) = next else {
            self.complete(dma, drive, running, Ok(()));
            return Ok(());
        };
        match drive.submit(operation, memory) {
            Ok(number) => {
                running.flight = Some(number);
                self.running = Some(running);
            }
            Err(error) => {
                let failure = drive.failed(error, &running.job);
                self.complete(dma, drive, running, Err(failure));
            }
        }
        Ok(())
    }

    /// Ends a command that is not queued.
    fn complete(
        &mut self,
        dma: &Dma,
        drive: &mut Drive,
        running: Running,
        result: Result<(), Failure>,
    ) {
        let Running {
            slot,
            header,
            job,
            way,
            moved,
            ..
        } = running;
        drive.finish(result);
        let registers = drive.registers;
        if header.moved(dma, moved).is_err() {
            self.state.is |= event::HBFS;
        }
        let is_pio = matches!(way, Way::Pio(_)) && job.len() != 0 && result.is_ok();
        if is_pio {
            let before = TaskFile {
                status: status::READY | status::DRQ,
                ..registers
            };
            let fis = pio_setup_fis(&before, !job.is_out(), moved, registers.status);
            self.store(dma, received::PIO_SETUP, &fis);
            self.state.is |= event::PSS;
        }
        if result.is_ok() {
            self.state.ci &= !bit(slot);
        }
        // Data of a disk through PIO towards the host end with the setup FIS (Serial ATA 2.6, 11.7).
        if is_pio && !job.is_out() && !drive.is_packet() {
            self.show(&registers);
        } else {
            self.send_registers(dma, &registers, true);
        }
    }

    /// A queued command: accepted, and begun.
    fn accept(
        &mut self,
        dma: &Dma,
        drive: &mut Drive,
        slot: u8,
        header: Header,
        queued: Result<Queued, Failure>,
    ) -> Result<(), DmaError> {
        let (tag, job) = match queued {
            Ok(Queued { tag, job }) if tag == slot => (tag, job),
            Ok(Queued { tag, .. }) => {
                self.refuse(dma, drive, tag, ABORTED);
                return Ok(());
            }
            Err(failure) => {
                self.refuse(dma, drive, slot, failure);
                return Ok(());
            }
        };
        let memory = header.memory(dma, job.len(), !job.is_out())?;
        self.state.ci &= !bit(slot);
        drive.finish(Ok(()));
        let registers = drive.registers;
        self.send_registers(dma, &registers, false);
        if memory.len() < job.len() {
            self.state.is |= event::OFS;
            self.queue_ended(dma, drive, tag, Err((ABORTED, &job)));
            return Ok(());
        }
        let (operation, must_flush) = match job {
            Job::Write { offset, fua, .. } => {
                (Operation::Write { offset }, fua || drive.is_write_through())
            }
            Job::Read { offset, .. } => (Operation::Read { offset }, false),
            _ => return Ok(()),
        };
        match drive.submit(operation, memory) {
            Ok(number) => {
                self.state.accepted |= bit(slot);
                let entry = InQueue {
                    slot,
                    header,
                    job,
                    must_flush,
                };
                self.queue.insert(number, entry);
            }
            Err(error) => {
                let failure = drive.failed(error, &job);
                self.queue_ended(dma, drive, tag, Err((failure, &job)));
            }
        }
        Ok(())
    }

    /// A queued command that the device does not accept.
    fn refuse(&mut self, dma: &Dma, drive: &mut Drive, tag: u8, failure: Failure) {
        let lba = drive.registers.lba48();
        if let Kind::Disk(disk) = &mut drive.kind {
            disk.queue_failed(tag, failure, lba);
        }
        self.queue.clear();
        self.state.accepted = 0;
        drive.flights.cancel();
        drive.finish(Err(failure));
        let registers = drive.registers;
        self.send_registers(dma, &registers, true);
    }

    /// A queued command has ended.
    fn queue_ended(
        &mut self,
        dma: &Dma,
        drive: &mut Drive,
        slot: u8,
        result: Result<(), (Failure, &Job)>,
    ) {
        self.state.accepted &= !bit(slot);
        let done = match result {
            Ok(()) => {
                drive.finish(Ok(()));
                bit(slot)
            }
            Err((failure, job)) => {
                let lba = match job {
                    Job::Read { offset, .. } | Job::Write { offset, .. } => {
                        offset.checked_div(SECTOR).unwrap_or(0)
                    }
                    _ => 0,
                };
                if let Kind::Disk(disk) = &mut drive.kind {
                    disk.queue_failed(slot, failure, lba);
                }
                // The others are aborted with it (Serial ATA 2.6, 13.6.4.1).
                self.queue.clear();
                self.state.accepted = 0;
                drive.flights.cancel();
                drive.finish(Err(failure));
                0
            }
        };
        let registers = drive.registers;
        self.state.sact &= !done;
        self.store(
            dma,
            received::DEVICE_BITS,
            &device_bits_fis(&registers, done),
        );
        self.show(&registers);
        self.state.is |= event::SDBS;
    }

    /// Requests of the medium have ended.
    pub(super) fn poke(&mut self, dma: &Dma) {
        let Some(shared) = self.drive() else { return };
        let mut drive = shared.lock();
        for (number, result) in drive.flights.take() {
            if let Some(entry) = self.queue.remove(&number) {
                self.queue_went(dma, &mut drive, entry, result);
            } else if let Some(running) = self
                .running
                .take_if(|running| running.flight == Some(number))
            {
                self.went(dma, &mut drive, running, result);
            }
        }
        drop(drive);
        self.process(dma);
    }

    fn queue_went(
        &mut self,
        dma: &Dma,
        drive: &mut Drive,
        entry: InQueue,
        result: Result<(), BlockError>,
    ) {
        match result {
            Ok(()) if entry.must_flush => {
                if let Ok(number) = drive.submit(Operation::Flush, IoVector::default()) {
                    let entry = InQueue {
                        must_flush: false,
                        ..entry
                    };
                    self.queue.insert(number, entry);
                }
            }
            Ok(()) => {
                if entry.header.moved(dma, entry.job.len()).is_err() {
                    self.state.is |= event::HBFS;
                }
                self.queue_ended(dma, drive, entry.slot, Ok(()));
            }
            Err(error) => {
                let failure = drive.failed(error, &entry.job);
                self.queue_ended(dma, drive, entry.slot, Err((failure, &entry.job)));
            }
        }
    }

    fn went(
        &mut self,
        dma: &Dma,
        drive: &mut Drive,
        mut running: Running,
        result: Result<(), BlockError>,
    ) {
        if let Err(error) = result {
            let failure = drive.failed(error, &running.job);
            return self.complete(dma, drive, running, Err(failure));
        }
        let must_flush = drive.is_write_through();
        match &mut running.job {
            Job::Read { len, .. } => running.moved = *len,
            Job::Write { len, fua, .. } => {
                running.moved = *len;
                if *fua || must_flush {
                    running.job = Job::operation(Operation::Flush);
                    running.way = Way::Dma;
                    let _ = self.step(dma, drive, running);
                    return;
                }
            }
            Job::Operations(operations) => {
                operations.pop_front();
                if !operations.is_empty() {
                    let _ = self.step(dma, drive, running);
                    return;
                }
            }
            _ => {}
        }
        self.complete(dma, drive, running, Ok(()));
    }

    /// After a restore: queued commands that were accepted, and the one that was begun, are begun again
    /// from the list.
    pub(super) fn resume(&mut self, dma: &Dma) {
        if self.running.is_some() || !self.queue.is_empty() {
            return;
        }
        self.state.ci |= std::mem::take(&mut self.state.accepted);
        self.process(dma);
    }

    pub(super) fn save(&self) -> Section {
        let State {
            clb,
            fb,
            is,
            ie,
            cmd,
            tfd,
            sig,
            ssts,
            sctl,
            serr,
            sact,
            ci,
            greeted,
            in_reset,
            halted,
            accepted,
        } = self.state;
        Section::new("ahci-port", 1)
            .with(1, clb)
            .with(2, fb)
            .with(3, is)
            .with(4, ie)
            .with(5, cmd)
            .with(6, tfd)
            .with(7, sig)
            .with(8, ssts)
            .with(9, sctl)
            .with(10, serr)
            .with(11, sact)
            .with(12, ci)
            .with(13, greeted)
            .with(14, in_reset)
            .with(15, halted)
            .with(16, accepted)
    }

    /// Takes over a state that was restored.
    pub(super) fn set_state(&mut self, state: State) {
        self.running = None;
        self.queue.clear();
        self.state = state;
    }
}

impl State {
    pub(super) fn restored(section: &Section) -> Result<Self, StateError> {
        section.expect("ahci-port", 1)?;
        Ok(State {
            clb: section.u64(1)? & !0x3ff,
            fb: section.u64(2)? & !0xff,
            is: section.u32(3)?,
            ie: section.u32(4)? & event::ALL,
            cmd: section.u32(5)? & cmd::WRITABLE,
            tfd: section.u16(6)?,
            sig: section.u32(7)?,
            ssts: section.u32(8)?,
            sctl: section.u32(9)? & SCTL_WRITABLE,
            serr: section.u32(10)?,
            sact: section.u32(11)?,
            ci: section.u32(12)?,
            greeted: section.bool(13)?,
            in_reset: section.bool(14)?,
            halted: section.bool(15)?,
            accepted: section.u32(16)?,
        })
    }
}
