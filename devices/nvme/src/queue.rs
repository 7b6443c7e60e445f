//! Queues in guest memory (NVMe, 4.1), and the doorbells that say how full they are (3.1.24, 3.1.25).

use std::collections::VecDeque;

use hw_core::{Dma, DmaError, Section, StateError, Value};

use crate::command::{Command, ENTRY, Status};

/// MQES: most entries of a queue, less one.
pub(crate) const ENTRIES_MOST: u16 = 2047;
/// Bytes of an entry of a completion queue.
const COMPLETION: u64 = 16;

fn entry(base: u64, index: u16, len: u64) -> u64 {
    base.wrapping_add(u64::from(index).wrapping_mul(len))
}

fn next(index: u16, size: u16) -> u16 {
    match index.wrapping_add(1) {
        next if next >= size => 0,
        next => next,
    }
}

/// A submission queue.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Submission {
    pub(crate) base: u64,
    /// Entries.
    pub(crate) size: u16,
    pub(crate) head: u16,
    pub(crate) tail: u16,
    /// The completion queue that its commands end in.
    pub(crate) completion: u16,
    /// Commands fetched whose end is not in the completion queue yet.
    pub(crate) under_way: u16,
    /// The command that deletes it, which ends when no command is under way.
    pub(crate) deletion: Option<u16>,
}

impl Submission {
    pub(crate) fn can_fetch(&self) -> bool {
        self.head != self.tail && self.under_way < self.size && self.deletion.is_none()
    }

    pub(crate) fn fetch(&mut self, dma: &Dma) -> Result<Command, DmaError> {
        let mut bytes = [0; ENTRY];
        dma.read(entry(self.base, self.head, ENTRY as u64), &mut bytes)?;
        self.head = next(self.head, self.size);
        self.under_way = self.under_way.saturating_add(1);
        Ok(Command(bytes))
    }

    pub(crate) fn save(&self, id: u16) -> Section {
        let Submission {
            base,
            size,
            head,
            tail,
            completion,
            under_way,
            deletion,
        } = self;
        let mut section = Section::new("submission", 1)
            .with(1, id)
            .with(2, *base)
            .with(3, *size)
            .with(4, *head)
            .with(5, *tail)
            .with(6, *completion)
            .with(7, *under_way);
        if let Some(command) = deletion {
            section.push(8, *command);
        }
        section
    }

    pub(crate) fn restored(section: &Section) -> Result<(u16, Self), StateError> {
        section.expect("submission", 1)?;
        let queue = Submission {
            base: section.u64(2)?,
            size: size(section, 3)?,
            head: section.u16(4)?,
            tail: section.u16(5)?,
            completion: section.u16(6)?,
            under_way: section.u16(7)?,
            deletion: match section.get(8) {
                Some(_) => Some(section.u16(8)?),
                None => None,
            },
        };
        if queue.head.max(queue.tail) >= queue.size || queue.under_way > queue.size {
            return Err(section.bad(4, "outside of the queue"));
        }
        Ok((section.u16(1)?, queue))
    }
}

fn size(section: &Section, tag: u16) -> Result<u16, StateError> {
    match section.u16(tag)? {
        size if size >= 2 && size <= ENTRIES_MOST.saturating_add(1) => Ok(size),
        _ => Err(section.bad(tag, "no size of a queue")),
    }
}

/// The end of a command, not in its queue yet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Ended {
    pub(crate) queue: u16,
    pub(crate) command: u16,
    pub(crate) status: Status,
    pub(crate) result: u32,
}

/// A completion queue.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Completion {
    pub(crate) base: u64,
    /// Entries.
    pub(crate) size: u16,
    pub(crate) head: u16,
    pub(crate) tail: u16,
    /// P of the entries of this round, inverted.
    pub(crate) is_odd: bool,
    /// Whether it interrupts, and by which vector.
    pub(crate) interrupts: bool,
    pub(crate) vector: u16,
    /// There was no room.
    pub(crate) waiting: VecDeque<Ended>,
    /// Something was put in since the last interrupt; not saved, as none is owed when it is.
    pub(crate) is_new: bool,
}

impl Completion {
    pub(crate) fn has_room(&self) -> bool {
        next(self.tail, self.size) != self.head
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.head == self.tail
    }

    /// Puts an end in. `head` is how far the submission queue is worked off.
    pub(crate) fn put(&mut self, dma: &Dma, ended: Ended, head: u16) -> Result<(), DmaError> {
        let at = entry(self.base, self.tail, COMPLETION);
        let words = [
            ended.result,
            0,
            u32::from(head) | u32::from(ended.queue) << 16,
        ];
        for (n, word) in (0u64..).zip(words) {
            dma.store_le(at.wrapping_add(n.wrapping_mul(4)), 4, word.into())?;
        }
        // The phase comes last: it makes the entry valid (4.6).
        let phase = u32::from(!self.is_odd);
        let status = u32::from(ended.status.0) << 1 | phase;
        let last = u32::from(ended.command) | status << 16;
        dma.store_le(at.wrapping_add(12), 4, last.into())?;
        self.tail = next(self.tail, self.size);
        self.is_odd ^= self.tail == 0;
        self.is_new = true;
        Ok(())
    }

    pub(crate) fn save(&self, id: u16) -> Section {
        let Completion {
            base,
            size,
            head,
            tail,
            is_odd,
            interrupts,
            vector,
            waiting,
            is_new: _,
        } = self;
        let waiting: Value = waiting
            .iter()
            .flat_map(|ended| {
                [
                    u64::from(ended.queue),
                    ended.command.into(),
                    ended.status.0.into(),
                    ended.result.into(),
                ]
            })
            .collect();
        Section::new("completion", 1)
            .with(1, id)
            .with(2, *base)
            .with(3, *size)
            .with(4, *head)
            .with(5, *tail)
            .with(6, *is_odd)
            .with(7, *interrupts)
            .with(8, *vector)
            .with(9, waiting)
    }

    pub(crate) fn restored(section: &Section) -> Result<(u16, Self), StateError> {
        section.expect("completion", 1)?;
        let mut waiting = VecDeque::new();
        for four in section.list(9)?.chunks(4) {
            let [
                Value::U64(queue),
                Value::U64(command),
                Value::U64(status),
                Value::U64(result),
            ] = four
            else {
                return Err(section.bad(9, "not ends of commands"));
            };
            waiting.push_back(Ended {
                queue: *queue as u16,
                command: *command as u16,
                status: Status(*status as u16 & 0x7fff),
                result: *result as u32,
            });
        }
        let queue = Completion {
            base: section.u64(2)?,
            size: size(section, 3)?,
            head: section.u16(4)?,
            tail: section.u16(5)?,
            is_odd: section.bool(6)?,
            interrupts: section.bool(7)?,
            vector: section.u16(8)?,
            waiting,
            is_new: false,
        };
        if queue.head.max(queue.tail) >= queue.size {
            return Err(section.bad(4, "outside of the queue"));
        }
        Ok((section.u16(1)?, queue))
    }
}
