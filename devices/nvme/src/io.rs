//! Commands of the NVM command set (NVMe, chapter 6).

use std::collections::VecDeque;

use backend_block::{BlockError, IoVector, Operation, SharedBlock};
use hw_core::Dma;

use crate::command::{Command, Status};
use crate::controller::Nvme;
use crate::namespace::Namespace;
use crate::prp;
use crate::queue::Ended;

/// Opcodes (figure 346).
mod op {
    pub(super) const FLUSH: u8 = 0x00;
    pub(super) const WRITE: u8 = 0x01;
    pub(super) const READ: u8 = 0x02;
    pub(super) const COMPARE: u8 = 0x05;
    pub(super) const WRITE_ZEROES: u8 = 0x08;
    pub(super) const DATASET_MANAGEMENT: u8 = 0x09;
}

const FUA: u32 = 1 << 30;
const DEALLOCATE: u32 = 1 << 25;
/// Bytes of a range.
const RANGE: u64 = 16;
/// Bytes that a command moves at most if MDTS sets no limit.
const MOST: u64 = 128 << 20;
/// Bytes that are compared at a time.
const PIECE: u64 = 64 << 10;
/// Stands for all namespaces.
const ALL: u32 = u32::MAX;

/// Something a disk is to do.
#[derive(Clone)]
pub(crate) struct Step {
    disk: SharedBlock,
    operation: Operation,
    memory: IoVector,
}

/// A command under way.
pub(crate) struct Task {
    pub(crate) queue: u16,
    pub(crate) command: Command,
    /// What is to be done after what is being done.
    steps: VecDeque<Step>,
    compare: Option<Compare>,
}

/// Data of the host that are compared with a disk's, piece by piece: many commands at once are bounded in
/// what they take of memory, whatever their length.
struct Compare {
    disk: SharedBlock,
    /// The host's.
    given: IoVector,
    /// Where on the disk.
    offset: u64,
    /// Bytes that are equal.
    done: u64,
    /// The piece of the disk that comes after them, once it is asked for.
    read: Option<IoVector>,
    differs: bool,
}

impl Compare {
    /// Compares what was read, and says what to read next.
    fn next(&mut self) -> Option<Step> {
        if let Some(read) = &self.read {
            let given = self.given.slice(self.done, read.len());
            self.differs = given.to_vec() != read.to_vec();
            self.done = self.done.saturating_add(read.len());
        }
        let left = self.given.len().saturating_sub(self.done).min(PIECE);
        if self.differs || left == 0 {
            self.read = None;
            return None;
        }
        let memory = match self.read.take() {
            Some(read) => read.slice(0, left),
            None => IoVector::zeroed(usize::try_from(left).ok()?),
        };
        self.read = Some(memory.clone());
        let offset = self.offset.saturating_add(self.done);
        Some(Step {
            disk: self.disk.clone(),
            operation: Operation::Read { offset },
            memory,
        })
    }
}

impl Task {
    /// One that does this.
    fn new(queue: u16, command: Command, steps: VecDeque<Step>) -> Self {
        Task {
            queue,
            command,
            steps,
            compare: None,
        }
    }

    /// The next thing to do.
    pub(crate) fn next(&mut self) -> Option<(SharedBlock, Operation, IoVector)> {
        let compared = self.compare.as_mut().and_then(Compare::next);
        let step = compared.or_else(|| self.steps.pop_front())?;
        Some((step.disk, step.operation, step.memory))
    }

    /// How it ended.
    fn status(&self) -> Status {
        match &self.compare {
            Some(compare) if compare.differs => Status::COMPARE_FAILURE,
            _ => Status::SUCCESS,
        }
    }
}

/// What a failed operation is to the host.
fn failure(command: &Command, error: BlockError) -> Status {
    match (error, command.opcode()) {
        (BlockError::OutOfRange, _) => Status::LBA_OUT_OF_RANGE,
        (BlockError::NoSpace, _) => Status::CAPACITY_EXCEEDED,
        (BlockError::ReadOnly, _) => Status::WRITE_PROTECTED,
        (BlockError::Unsupported, _) => Status::INVALID_FIELD,
        (BlockError::BadBuffer | BlockError::Cancelled, _) => Status::INTERNAL_ERROR,
        (_, op::READ | op::COMPARE) => Status::READ_ERROR,
        _ => Status::WRITE_FAULT,
    }
}

impl Nvme {
    /// Most bytes that a command moves.
    fn most(&self) -> u64 {
        const SMALLEST_PAGE: u64 = 4096;
        match self.options.mdts {
            0 => MOST,
            mdts => SMALLEST_PAGE.wrapping_shl(mdts.into()).min(MOST),
        }
    }

    /// Begins a command of an I/O queue, or ends it at once.
    pub(crate) fn begin(&mut self, dma: &Dma, queue: u16, command: Command) {
        match self.understood(dma, queue, command) {
            Ok(task) => {
                let number = self.next_task;
                self.next_task = number.wrapping_add(1);
                self.tasks.insert(number, task);
                self.go_on(number);
            }
            Err(status) => self.end(Ended {
                queue,
                command: command.id(),
                status,
                result: 0,
            }),
        }
    }

    fn understood(&self, dma: &Dma, queue: u16, command: Command) -> Result<Task, Status> {
        if !command.is_plain() {
            return Err(Status::INVALID_FIELD);
        }
        if command.opcode() == op::FLUSH && command.namespace() == ALL {
            let all = self.bus.namespaces();
            let steps = all.iter().map(|(_, namespace)| flush(namespace)).collect();
            return Ok(Task::new(queue, command, steps));
        }
        let namespace = self.bus.namespace(command.namespace());
        let namespace = namespace.ok_or(Status::INVALID_NAMESPACE)?;
        let namespace = namespace.as_ref();
        let mut task = Task::new(queue, command, VecDeque::new());
        let page = self.page();
        let changes = matches!(
            command.opcode(),
            op::WRITE | op::WRITE_ZEROES | op::DATASET_MANAGEMENT
        );
        if changes && namespace.is_read_only {
            return Err(Status::WRITE_PROTECTED);
        }
        let step = |operation, memory| Step {
            disk: namespace.disk.clone(),
            operation,
            memory,
        };
        match command.opcode() {
            op::FLUSH => task.steps.push_back(flush(namespace)),
            op::READ => {
                let (offset, len) = self.place(namespace, &command)?;
                let memory = prp::memory(dma, &command, len, page, true)?;
                task.steps
                    .push_back(step(Operation::Read { offset }, memory));
            }
            op::WRITE => {
                let (offset, len) = self.place(namespace, &command)?;
                let memory = prp::memory(dma, &command, len, page, false)?;
                task.steps
                    .push_back(step(Operation::Write { offset }, memory));
            }
            op::COMPARE => {
                let (offset, len) = self.place(namespace, &command)?;
                let given = prp::memory(dma, &command, len, page, false)?;
                task.compare = Some(Compare {
                    disk: namespace.disk.clone(),
                    given,
                    offset,
                    done: 0,
                    read: None,
                    differs: false,
                });
            }
            op::WRITE_ZEROES => {
                let (first, count) = command.blocks();
                let (offset, len) = namespace.place(first, count)?;
                let unmap = command.word(12) & DEALLOCATE != 0;
                let operation = Operation::WriteZeroes { offset, len, unmap };
                task.steps.push_back(step(operation, IoVector::default()));
            }
            op::DATASET_MANAGEMENT => {
                for (offset, len) in ranges(dma, namespace, &command, page)? {
                    let operation = Operation::Discard { offset, len };
                    task.steps.push_back(step(operation, IoVector::default()));
                }
            }
            _ => return Err(Status::INVALID_OPCODE),
        }
        let is_through = command.word(12) & FUA != 0 || !self.state.features.write_cache;
        if matches!(command.opcode(), op::WRITE | op::WRITE_ZEROES) && is_through {
            task.steps.push_back(flush(namespace));
        }
        Ok(task)
    }

    /// Where the blocks are that a command moves: offset and bytes.
    fn place(&self, namespace: &Namespace, command: &Command) -> Result<(u64, u64), Status> {
        // PRINFO, and data for a file system's use: there is no metadata.
        let (first, count) = command.blocks();
        let (offset, len) = namespace.place(first, count)?;
        match len > self.most() {
            true => Err(Status::INVALID_FIELD),
            false => Ok((offset, len)),
        }
    }

    /// Begins a task's next step, or ends it.
    fn go_on(&mut self, number: u64) {
        let Some(task) = self.tasks.get_mut(&number) else {
            return;
        };
        let mut next = task.next();
        while let Some((disk, Operation::Read { offset }, memory)) = &next
            && disk.read_now(*offset, memory)
        {
            next = task.next();
        }
        match next {
            Some((disk, operation, memory)) => {
                let flight = self.flights.submit(&disk, operation, memory);
                self.flying.insert(flight, number);
            }
            None => {
                let status = task.status();
                self.finish(number, status);
            }
        }
    }

    fn finish(&mut self, number: u64, status: Status) {
        if let Some(task) = self.tasks.remove(&number) {
            self.end(Ended {
                queue: task.queue,
                command: task.command.id(),
                status,
                result: 0,
            });
        }
    }

    /// What the disks have done.
    pub(crate) fn landed(&mut self) {
        for (flight, result) in self.flights.take() {
            if let Some(number) = self.flying.remove(&flight) {
                match (result, self.tasks.get(&number)) {
                    (Err(error), Some(task)) => {
                        log::debug!("nvme: {error}");
                        let status = failure(&task.command, error);
                        self.finish(number, status);
                    }
                    _ => self.go_on(number),
                }
            }
            if self.shutting.remove(&flight) && self.shutting.is_empty() {
                self.shut_down();
            }
        }
    }

    /// Has all caches written, for a shutdown that ends when they are.
    pub(crate) fn flush_all(&mut self) {
        for (_, namespace) in self.bus.namespaces() {
            let memory = IoVector::default();
            let flight = self
                .flights
                .submit(&namespace.disk, Operation::Flush, memory);
            self.shutting.insert(flight);
        }
        if self.shutting.is_empty() {
            self.shut_down();
        }
    }
}

fn flush(namespace: &Namespace) -> Step {
    Step {
        disk: namespace.disk.clone(),
        operation: Operation::Flush,
        memory: IoVector::default(),
    }
}

/// What a Dataset Management command lets go (6.7).
fn ranges(
    dma: &Dma,
    namespace: &Namespace,
    command: &Command,
    page: u64,
) -> Result<Vec<(u64, u64)>, Status> {
    const DEALLOCATE: u32 = 4;
    let count = u64::from(command.word(10) & 0xff).saturating_add(1);
    let memory = prp::memory(dma, command, count.saturating_mul(RANGE), page, false)?;
    if command.word(11) & DEALLOCATE == 0 {
        // The others are advice.
        return Ok(Vec::new());
    }
    let bytes = memory.to_vec();
    let (entries, _) = bytes.as_chunks::<16>();
    let mut ranges = Vec::new();
    for entry in entries {
        let entry = u128::from_le_bytes(*entry);
        let (count, first) = ((entry >> 32) as u32, (entry >> 64) as u64);
        let (offset, len) = namespace.place(first, count.into())?;
        if len != 0 {
            ranges.push((offset, len));
        }
    }
    Ok(ranges)
}
