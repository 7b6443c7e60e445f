//! The control queue: task management (VIRTIO 1.2 section 5.6.6.2; SAM-5, chapter 7).

use std::collections::BTreeSet;
use std::sync::Arc;

use hw_scsi::Address;
use hw_virtio::{Chain, Io};

use super::task::{self, Fate, Rest, Task};
use super::{CONTROL, Scsi, code};

/// Types of requests.
const TASK_MANAGEMENT: u32 = 0;
const ASYNC_QUERY: u32 = 1;
const ASYNC_SUBSCRIBE: u32 = 2;

/// Task management functions.
mod function {
    pub(super) const ABORT_TASK: u32 = 0;
    pub(super) const ABORT_TASK_SET: u32 = 1;
    pub(super) const CLEAR_TASK_SET: u32 = 3;
    pub(super) const I_T_NEXUS_RESET: u32 = 4;
    pub(super) const LOGICAL_UNIT_RESET: u32 = 5;
    pub(super) const QUERY_TASK: u32 = 6;
    pub(super) const QUERY_TASK_SET: u32 = 7;
}

/// Bytes of the longest request.
const REQUEST_LEN: usize = 24;

/// A function that is carried out when these tasks are gone.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Waiting {
    pub(super) chain: Chain,
    pub(super) tasks: BTreeSet<u64>,
}

/// What becomes of a function.
enum Outcome {
    Answer(u8),
    After(BTreeSet<u64>),
}

impl Scsi {
    /// Carries out a request of the control queue.
    pub(super) fn manage(&mut self, io: &mut Io<'_>, chain: Chain) {
        let mut bytes = [0; REQUEST_LEN];
        let len = match chain.read_at(io.dma(), 0, &mut bytes) {
            Ok(len) => len,
            Err(error) => return io.fail(error),
        };
        let word = |at: usize| {
            let bytes = bytes.get(at..).and_then(|rest| rest.first_chunk::<4>());
            bytes.map_or(0, |bytes| u32::from_le_bytes(*bytes))
        };
        let lun = |at: usize| {
            let bytes = bytes.get(at..).and_then(|rest| rest.first_chunk::<8>());
            bytes.copied().unwrap_or_default()
        };
        match word(0) {
            TASK_MANAGEMENT if len == REQUEST_LEN => {
                let tag = u64::from_le_bytes(lun(16));
                match self.function(word(4), task::address(lun(8)), tag) {
                    Outcome::Answer(answer) => respond(io, &chain, &[answer]),
                    Outcome::After(tasks) => self.state.waiting.push(Waiting { chain, tasks }),
                }
            }
            // No event is to be had this way.
            ASYNC_QUERY | ASYNC_SUBSCRIBE if len >= 16 => {
                respond(io, &chain, &[0, 0, 0, 0, code::OK]);
            }
            _ => io.fail("the control queue has a request that makes no sense"),
        }
    }

    fn function(&mut self, function: u32, address: Option<Address>, tag: u64) -> Outcome {
        let Some(at) = address.filter(|at| self.bus.has_target(at.channel, at.target)) else {
            return Outcome::Answer(code::BAD_TARGET);
        };
        let is_of_target = function == function::I_T_NEXUS_RESET;
        if !is_of_target && self.bus.unit(at).is_none() {
            return Outcome::Answer(code::INCORRECT_LUN);
        }
        let (first, last) = match is_of_target {
            true => (
                Address { lun: 0, ..at },
                Address {
                    lun: u16::MAX,
                    ..at
                },
            ),
            false => (at, at),
        };
        let is_one = matches!(function, function::ABORT_TASK | function::QUERY_TASK);
        let meant =
            |task: &Task| (first..=last).contains(&task.address) && (!is_one || task.tag == tag);
        let tasks = &mut self.state.tasks;
        let meant: BTreeSet<u64> = (tasks.iter().filter(|(_, task)| meant(task)))
            .map(|(number, _)| *number)
            .collect();
        let fate = match function {
            function::ABORT_TASK | function::ABORT_TASK_SET | function::CLEAR_TASK_SET => {
                Fate::Aborted
            }
            function::LOGICAL_UNIT_RESET | function::I_T_NEXUS_RESET => {
                self.bus.reset(first..=last);
                Fate::Reset
            }
            function::QUERY_TASK | function::QUERY_TASK_SET => {
                return Outcome::Answer(match meant.is_empty() {
                    true => code::OK,
                    false => code::FUNCTION_SUCCEEDED,
                });
            }
            _ => return Outcome::Answer(code::FUNCTION_REJECTED),
        };
        for number in &meant {
            if let Some(task) = tasks.get_mut(number) {
                task.fate = Some(fate);
            }
        }
        match meant.is_empty() {
            true => Outcome::Answer(code::OK),
            false => Outcome::After(meant),
        }
    }

    /// A task is gone: functions that waited for it may be answered.
    pub(super) fn task_gone(&mut self, io: &mut Io<'_>, number: u64) {
        for waiting in &mut self.state.waiting {
            waiting.tasks.remove(&number);
        }
        self.answer_waiting(io);
    }

    /// Answers functions that wait for nothing any more.
    pub(super) fn answer_waiting(&mut self, io: &mut Io<'_>) {
        self.state.waiting.retain(|waiting| {
            if waiting.tasks.is_empty() {
                respond(io, &waiting.chain, &[code::OK]);
            }
            !waiting.tasks.is_empty()
        });
    }

    /// Gives a command back that was to be aborted when the machine was saved.
    pub(super) fn forsake(&mut self, io: &mut Io<'_>, queue: u16, chain: Chain, fate: Fate) {
        let task = Task {
            queue,
            chain: Arc::new(chain),
            address: Address::default(),
            tag: 0,
            rest: Rest::NOTHING,
            moved: 0,
            is_write: false,
            fate: Some(fate),
        };
        let code = match fate {
            Fate::Aborted => code::ABORTED,
            Fate::Reset => code::RESET,
        };
        self.end(io, &task, code);
    }
}

fn respond(io: &mut Io<'_>, chain: &Chain, bytes: &[u8]) {
    match chain.write_at(io.dma(), 0, bytes) {
        Ok(written) if written == bytes.len() => {
            io.push(CONTROL, chain, u32::try_from(written).unwrap_or(0));
        }
        Ok(_) => io.fail("a request of the control queue has no room for its response"),
        Err(error) => io.fail(error),
    }
}
