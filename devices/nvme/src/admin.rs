//! Commands of the admin queue (NVMe, chapter 5).

use hw_core::Dma;

use crate::command::{Command, Status};
use crate::controller::Nvme;
use crate::features::TEMPERATURE;
use crate::prp;
use crate::queue::{Completion, ENTRIES_MOST, Submission};

/// Opcodes (figure 139).
mod op {
    pub(super) const DELETE_SQ: u8 = 0x00;
    pub(super) const CREATE_SQ: u8 = 0x01;
    pub(super) const GET_LOG_PAGE: u8 = 0x02;
    pub(super) const DELETE_CQ: u8 = 0x04;
    pub(super) const CREATE_CQ: u8 = 0x05;
    pub(super) const IDENTIFY: u8 = 0x06;
    pub(super) const ABORT: u8 = 0x08;
    pub(super) const SET_FEATURES: u8 = 0x09;
    pub(super) const GET_FEATURES: u8 = 0x0a;
    pub(super) const ASYNC_EVENT: u8 = 0x0c;
}

/// Opcodes of commands of the NVM command set, for the log of what there is.
const IO_OPCODES: &[(u8, bool)] = &[
    (0x00, false),
    (0x01, true),
    (0x02, false),
    (0x05, false),
    (0x08, true),
    (0x09, true),
];

/// Physically contiguous: the only kind of queue (CAP.CQR).
const CONTIGUOUS: u32 = 1;

impl Nvme {
    /// Carries a command out. `None`: it ends later.
    pub(crate) fn admin(&mut self, dma: &Dma, command: &Command) -> Option<Result<u32, Status>> {
        if !command.is_plain() {
            return Some(Err(Status::INVALID_FIELD));
        }
        let done = |result: Result<(), Status>| Some(result.map(|()| 0));
        match command.opcode() {
            op::DELETE_SQ => self.delete_submission(command).map(Err),
            op::CREATE_SQ => done(self.create_submission(command)),
            op::DELETE_CQ => done(self.delete_completion(command)),
            op::CREATE_CQ => done(self.create_completion(command)),
            op::GET_LOG_PAGE => done(self.log_page(dma, command)),
            op::IDENTIFY => {
                let answer = self.identify(command);
                done(answer.and_then(|bytes| self.give(dma, command, &bytes)))
            }
            // What is under way is not given up: the command was not aborted.
            op::ABORT => Some(Ok(1)),
            op::SET_FEATURES => Some(self.set_features(command)),
            op::GET_FEATURES => Some(self.get_features(command)),
            op::ASYNC_EVENT => self.event_request(command.id()).map(Err),
            _ => Some(Err(Status::INVALID_OPCODE)),
        }
    }

    /// Puts bytes where a command's data go.
    fn give(&self, dma: &Dma, command: &Command, bytes: &[u8]) -> Result<(), Status> {
        let len = bytes.len() as u64;
        let memory = prp::memory(dma, command, len, self.page(), true)?;
        memory.copy_in(0, bytes).ok_or(Status::DATA_TRANSFER_ERROR)
    }

    /// Number and size of a queue to be made, and where it is.
    fn new_queue(&self, command: &Command) -> Result<(u16, u16, u64), Status> {
        let (id, last) = (command.word(10) as u16, (command.word(10) >> 16) as u16);
        if id == 0 || id > self.options.max_ioqpairs {
            return Err(Status::INVALID_QUEUE);
        }
        if last == 0 || last > ENTRIES_MOST {
            return Err(Status::INVALID_QUEUE_SIZE);
        }
        let [base, _] = command.prps();
        if base & self.page().wrapping_sub(1) != 0 {
            return Err(Status::PRP_OFFSET_INVALID);
        }
        if command.word(11) & CONTIGUOUS == 0 {
            return Err(Status::INVALID_FIELD);
        }
        Ok((id, last.saturating_add(1), base))
    }

    fn create_submission(&mut self, command: &Command) -> Result<(), Status> {
        let completion = (command.word(11) >> 16) as u16;
        if completion == 0 || !self.state.completions.contains_key(&completion) {
            return Err(Status::INVALID_CQ);
        }
        let (id, size, base) = self.new_queue(command)?;
        if self.state.submissions.contains_key(&id) {
            return Err(Status::INVALID_QUEUE);
        }
        let queue = Submission {
            base,
            size,
            completion,
            ..Submission::default()
        };
        self.state.submissions.insert(id, queue);
        Ok(())
    }

    /// `None`: it ends when the queue's commands have.
    fn delete_submission(&mut self, command: &Command) -> Option<Status> {
        let id = command.word(10) as u16;
        let queue = self.state.submissions.get_mut(&id).filter(|_| id != 0);
        match queue {
            Some(queue) if queue.deletion.is_none() => {
                queue.deletion = Some(command.id());
                None
            }
            _ => Some(Status::INVALID_QUEUE),
        }
    }

    fn create_completion(&mut self, command: &Command) -> Result<(), Status> {
        const INTERRUPTS: u32 = 2;
        let (id, size, base) = self.new_queue(command)?;
        if self.state.completions.contains_key(&id) {
            return Err(Status::INVALID_QUEUE);
        }
        let vector = (command.word(11) >> 16) as u16;
        if vector >= self.vectors() {
            return Err(Status::INVALID_VECTOR);
        }
        let queue = Completion {
            base,
            size,
            interrupts: command.word(11) & INTERRUPTS != 0,
            vector,
            ..Completion::default()
        };
        self.state.completions.insert(id, queue);
        Ok(())
    }

    fn delete_completion(&mut self, command: &Command) -> Result<(), Status> {
        let id = command.word(10) as u16;
        if id == 0 || !self.state.completions.contains_key(&id) {
            return Err(Status::INVALID_QUEUE);
        }
        let mut users = self.state.submissions.values();
        if users.any(|queue| queue.completion == id) {
            return Err(Status::INVALID_QUEUE_DELETION);
        }
        self.state.completions.remove(&id);
        Ok(())
    }

    /// Get Log Page (5.14).
    fn log_page(&mut self, dma: &Dma, command: &Command) -> Result<(), Status> {
        const RETAIN: u32 = 1 << 15;
        let page = command.word(10) as u8;
        let words = u64::from(command.word(10) >> 16) | u64::from(command.word(11) as u16) << 16;
        let offset = u64::from(command.word(12)) | u64::from(command.word(13)) << 32;
        if offset & 3 != 0 {
            return Err(Status::INVALID_FIELD);
        }
        let bytes = match page {
            // Errors: there is one entry, and it is empty.
            1 => vec![0; 64],
            2 => self.health(command.namespace())?,
            // Firmware: slot 1 is active.
            3 => {
                let mut bytes = vec![1, 0, 0, 0, 0, 0, 0, 0];
                bytes.extend(b"1.0     ");
                bytes.resize(512, 0);
                bytes
            }
            4 => {
                let changed = std::mem::take(&mut self.state.changed);
                let mut bytes: Vec<u8> = changed.iter().flat_map(|id| id.to_le_bytes()).collect();
                bytes.resize(4096, 0);
                bytes
            }
            5 => effects(),
            _ => return Err(Status::INVALID_LOG_PAGE),
        };
        let len = words.saturating_add(1).saturating_mul(4);
        let from = usize::try_from(offset)
            .ok()
            .filter(|from| *from <= bytes.len());
        let rest = from.and_then(|from| bytes.get(from..));
        let rest = rest.ok_or(Status::INVALID_FIELD)?;
        let len = usize::try_from(len).unwrap_or(usize::MAX).min(rest.len());
        if command.word(10) & RETAIN == 0 {
            self.page_read(page);
        }
        self.give(dma, command, rest.get(..len).unwrap_or_default())
    }

    /// SMART / Health Information (5.14.1.2): all is well.
    fn health(&self, namespace: u32) -> Result<Vec<u8>, Status> {
        if !matches!(namespace, 0 | u32::MAX) {
            return Err(Status::INVALID_NAMESPACE);
        }
        let mut bytes = vec![0];
        bytes.extend(TEMPERATURE.to_le_bytes());
        bytes.extend([100, 10]); // available spare, and what would be too little
        bytes.resize(32, 0);
        let mut counts = [0u64; 4];
        for (_, namespace) in self.bus.namespaces() {
            let stats = namespace.disk.stats();
            let units = |bytes: u64| bytes.div_ceil(512 * 1000);
            let [read, written, reads, writes] = &mut counts;
            *read = read.saturating_add(units(stats.rd.bytes));
            *written = written.saturating_add(units(stats.wr.bytes));
            *reads = reads.saturating_add(stats.rd.operations);
            *writes = writes.saturating_add(stats.wr.operations);
        }
        for count in counts {
            bytes.extend(u128::from(count).to_le_bytes());
        }
        bytes.resize(512, 0);
        Ok(bytes)
    }
}

/// Commands Supported and Effects (5.14.1.5).
fn effects() -> Vec<u8> {
    const SUPPORTED: u32 = 1;
    const CHANGES_BLOCKS: u32 = 2;
    let mut words = vec![0u32; 1024];
    let admin = [
        op::DELETE_SQ,
        op::CREATE_SQ,
        op::GET_LOG_PAGE,
        op::DELETE_CQ,
        op::CREATE_CQ,
        op::IDENTIFY,
        op::ABORT,
        op::SET_FEATURES,
        op::GET_FEATURES,
        op::ASYNC_EVENT,
    ];
    for opcode in admin {
        if let Some(word) = words.get_mut(usize::from(opcode)) {
            *word = SUPPORTED;
        }
    }
    for (opcode, changes) in IO_OPCODES {
        if let Some(word) = words.get_mut(usize::from(*opcode).saturating_add(256)) {
            *word = if *changes {
                SUPPORTED | CHANGES_BLOCKS
            } else {
                SUPPORTED
            };
        }
    }
    words.iter().flat_map(|word| word.to_le_bytes()).collect()
}
