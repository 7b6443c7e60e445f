//! virtio-scsi: a SCSI host adapter.
//!
//! Spec: VIRTIO 1.2 section 5.6.
//!
//! Commands go to the units on the [`ScsiBus`]; their data move straight between guest memory and
//! images, on the back end's threads. A command that is to be aborted is given back when what the host
//! is at work on is done; only then the driver is told that it is aborted.
//!
//! Not modelled: asynchronous notifications that a driver subscribes to, task attributes beyond
//! SIMPLE, protection information.

mod config;
mod manage;
mod task;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use backend_block::{BlockError, Flights, IoVector, Operation, SharedBlock};
use hw_core::{ChildBus, DeviceError, Section, StateError, Value, Wiring};
use hw_scsi::{Job, ScsiBus, Sense, What};
use hw_virtio::{Chain, Io, VirtioDevice, device_id};

pub use config::ScsiOptions;
use config::{F_CHANGE, F_HOTPLUG, LIMITS, Sizes};
use manage::Waiting;
use task::{Fate, Layout, Parsed, Response, Rest, Saved, Task};

const CONTROL: u16 = 0;
const EVENT: u16 = 1;
/// The first of the request queues.
const REQUEST: u16 = 2;

/// Responses (5.6.6.1.1).
mod code {
    pub(super) const OK: u8 = 0;
    pub(super) const OVERRUN: u8 = 1;
    pub(super) const ABORTED: u8 = 2;
    pub(super) const BAD_TARGET: u8 = 3;
    pub(super) const RESET: u8 = 4;
    pub(super) const FUNCTION_SUCCEEDED: u8 = 10;
    pub(super) const FUNCTION_REJECTED: u8 = 11;
    pub(super) const INCORRECT_LUN: u8 = 12;
}

/// SAM-5, 5.3.1.
const CHECK_CONDITION: u8 = 2;

/// Posted when operations are finished, and when something happened on the bus.
const FINISHED: u64 = 0;
const NOTICED: u64 = 1;

#[derive(Clone, PartialEq, Eq, Debug, Default)]
struct State {
    /// By number, in the order they were taken.
    tasks: BTreeMap<u64, Task>,
    /// Functions whose answer waits for tasks.
    waiting: Vec<Waiting>,
    /// There was no buffer for an event.
    events_missed: bool,
    sizes: Sizes,
}

/// The host adapter.
pub struct Scsi {
    bus: ScsiBus,
    options: ScsiOptions,
    flights: Flights,
    /// Which task an operation under way belongs to.
    flying: BTreeMap<u64, u64>,
    next_task: u64,
    /// Restored commands, to be begun again.
    restored: Vec<Saved>,
    state: State,
}

impl Scsi {
    /// An adapter without units.
    pub fn new(options: ScsiOptions) -> Result<Self, DeviceError> {
        options.check()?;
        Ok(Scsi {
            bus: ScsiBus::new(LIMITS),
            options,
            flights: Flights::default(),
            flying: BTreeMap::new(),
            next_task: 0,
            restored: Vec::new(),
            state: State::default(),
        })
    }

    /// The bus.
    pub fn bus(&self) -> &ScsiBus {
        &self.bus
    }

    fn layout(&self) -> Layout {
        Layout::new(self.state.sizes)
    }

    /// Begins a command, or answers it at once.
    fn begin(&mut self, io: &mut Io<'_>, queue: u16, chain: Chain) {
        let parsed = match self.layout().parse(io, self.state.sizes, &chain) {
            Ok(parsed) => parsed,
            Err(why) => return io.fail(why),
        };
        let there = |at: &hw_scsi::Address| self.bus.has_target(at.channel, at.target);
        let mut task = Task {
            queue,
            chain: Arc::new(chain),
            address: parsed.address.unwrap_or_default(),
            tag: parsed.tag,
            rest: Rest::NOTHING,
            moved: 0,
            is_write: false,
            fate: None,
        };
        if !parsed.address.as_ref().is_some_and(there) {
            return self.end(io, &task, code::BAD_TARGET);
        }
        let job = self.bus.command(task.address, parsed.cdb());
        let job = match job {
            Ok(Job::Parameters(len)) => {
                task.moved = len;
                match self.parameters(io, &task, &parsed, len) {
                    Some(job) => job,
                    None => return self.end(io, &task, code::OVERRUN),
                }
            }
            job => job,
        };
        match job {
            Ok(job) => self.start(io, task, job),
            Err(sense) => self.check(io, &task, sense),
        }
    }

    /// Hands a command its parameters. `None` if the driver gives less.
    fn parameters(
        &self,
        io: &Io<'_>,
        task: &Task,
        parsed: &Parsed,
        len: u64,
    ) -> Option<Result<Job, Sense>> {
        let layout = self.layout();
        if len > layout.out_len(&task.chain) {
            return None;
        }
        let memory = layout.data_out(io, &task.chain, len);
        let bytes = match memory {
            Ok(memory) => memory.to_vec(),
            Err(_) => return Some(Err(Sense::TARGET_FAILURE)),
        };
        Some(self.bus.parameters(task.address, parsed.cdb(), &bytes))
    }

    fn start(&mut self, io: &mut Io<'_>, mut task: Task, job: Job) {
        let layout = self.layout();
        let (first, memory) = match job {
            Job::In(bytes) => {
                let len = bytes.len() as u64;
                if len > layout.in_len(&task.chain) {
                    return self.end(io, &task, code::OVERRUN);
                }
                if layout.answer(io, &task.chain, &bytes).is_err() {
                    return self.check(io, &task, Sense::TARGET_FAILURE);
                }
                task.moved = task.moved.saturating_add(len);
                return self.good(io, &task);
            }
            Job::Read { offset, len } => {
                if len > layout.in_len(&task.chain) {
                    return self.end(io, &task, code::OVERRUN);
                }
                task.moved = len;
                let memory = layout.data_in(io, &task.chain, len);
                (Some(Operation::Read { offset }), memory)
            }
            Job::Write { offset, len, fua } => {
                if len > layout.out_len(&task.chain) {
                    return self.end(io, &task, code::OVERRUN);
                }
                task.moved = len;
                task.is_write = true;
                if fua {
                    task.rest = Rest::Operations([Operation::Flush].into());
                }
                let memory = layout.data_out(io, &task.chain, len);
                (Some(Operation::Write { offset }), memory)
            }
            Job::Fill {
                offset,
                len,
                block,
                fua,
            } => {
                task.is_write = true;
                task.rest = Rest::Fill {
                    offset,
                    len,
                    block,
                    fua,
                };
                (None, Ok(IoVector::default()))
            }
            Job::Operations(operations) => {
                task.is_write = true;
                task.rest = Rest::Operations(operations);
                (None, Ok(IoVector::default()))
            }
            // Parameters are asked for once.
            Job::Parameters(_) => return self.check(io, &task, Sense::TARGET_FAILURE),
        };
        let Ok(memory) = memory else {
            return self.check(io, &task, Sense::TARGET_FAILURE);
        };
        let number = self.next_task;
        self.next_task = number.wrapping_add(1);
        let next = first.map(|operation| (operation, memory));
        self.state.tasks.insert(number, task);
        self.go_on(io, number, next);
    }

    /// Begins a task's next operation, or ends it.
    fn go_on(&mut self, io: &mut Io<'_>, number: u64, next: Option<(Operation, IoVector)>) {
        let Some(task) = self.state.tasks.get_mut(&number) else {
            return;
        };
        let next = match task.fate {
            Some(_) => None,
            None => next.or_else(|| task.rest.next()),
        };
        let Some((operation, memory)) = next else {
            return self.done(io, number, Ok(()));
        };
        match self.bus.medium(task.address) {
            // Nothing comes after a read.
            Some(medium) if is_read_now(&medium, operation, &memory) => {
                self.done(io, number, Ok(()));
            }
            Some(medium) => {
                let flight = self.flights.submit(&medium, operation, memory);
                self.flying.insert(flight, number);
            }
            None => self.done(io, number, Err(Sense::TRAY_OPEN)),
        }
    }

    /// A task has nothing left to do.
    fn done(&mut self, io: &mut Io<'_>, number: u64, result: Result<(), Sense>) {
        let Some(task) = self.state.tasks.remove(&number) else {
            return;
        };
        match (task.fate, result) {
            (Some(Fate::Aborted), _) => self.end(io, &task, code::ABORTED),
            (Some(Fate::Reset), _) => self.end(io, &task, code::RESET),
            (None, Ok(())) => self.good(io, &task),
            (None, Err(sense)) => self.check(io, &task, sense),
        }
        self.task_gone(io, number);
    }

    fn good(&self, io: &mut Io<'_>, task: &Task) {
        self.respond(io, task, &Response::default(), task.moved);
    }

    fn check(&self, io: &mut Io<'_>, task: &Task, sense: Sense) {
        let response = Response {
            status: CHECK_CONDITION,
            sense: sense.fixed(),
            ..Response::default()
        };
        self.respond(io, task, &response, 0);
    }

    fn end(&self, io: &mut Io<'_>, task: &Task, code: u8) {
        let response = Response {
            code,
            ..Response::default()
        };
        self.respond(io, task, &response, 0);
    }

    fn respond(&self, io: &mut Io<'_>, task: &Task, response: &Response, moved: u64) {
        match self.layout().respond(io, &task.chain, response, moved) {
            Ok(written) => io.push(task.queue, &task.chain, written),
            Err(error) => io.fail(error),
        }
    }

    /// What happened to the media, from their threads.
    fn finished(&mut self, io: &mut Io<'_>) {
        for (flight, result) in self.flights.take() {
            let Some(number) = self.flying.remove(&flight) else {
                continue;
            };
            match result {
                Ok(()) => self.go_on(io, number, None),
                Err(error) => self.failed(io, number, error),
            }
        }
    }

    fn failed(&mut self, io: &mut Io<'_>, number: u64, error: BlockError) {
        log::debug!("virtio-scsi: {error}");
        let is_write = self.state.tasks.get(&number).is_some_and(|t| t.is_write);
        self.done(io, number, Err(Sense::of(error, is_write)));
    }

    /// What happened on the bus, for the driver to know (5.6.6.3).
    fn noticed(&mut self, io: &mut Io<'_>) {
        const TRANSPORT_RESET: u32 = 1;
        const PARAM_CHANGE: u32 = 3;
        const RESCAN: u32 = 1;
        const REMOVED: u32 = 2;
        for notice in self.bus.take_notices() {
            let at = notice.address;
            let (feature, event, reason) = match notice.what {
                What::Plugged => (F_HOTPLUG, TRANSPORT_RESET, RESCAN),
                What::Unplugged => (F_HOTPLUG, TRANSPORT_RESET, REMOVED),
                What::Changed(sense) => {
                    let reason = u32::from(sense.code) | u32::from(sense.qualifier) << 8;
                    (F_CHANGE, PARAM_CHANGE, reason)
                }
            };
            if !matches!(notice.what, What::Changed(_)) {
                self.bus.units_changed(at.channel, at.target);
            }
            if io.features() & feature != 0 {
                self.event(io, event, task::lun(at), reason);
            }
        }
    }

    fn event(&mut self, io: &mut Io<'_>, event: u32, lun: [u8; 8], reason: u32) {
        const EVENTS_MISSED: u32 = 1 << 31;
        let Some(chain) = io.pop(EVENT) else {
            self.state.events_missed = true;
            return;
        };
        let missed = match std::mem::take(&mut self.state.events_missed) {
            true => EVENTS_MISSED,
            false => 0,
        };
        let mut bytes = (event | missed).to_le_bytes().to_vec();
        bytes.extend(lun);
        bytes.extend(reason.to_le_bytes());
        match chain.write_at(io.dma(), 0, &bytes) {
            Ok(written) if written == bytes.len() => {
                io.push(EVENT, &chain, u32::try_from(written).unwrap_or(0));
            }
            Ok(_) => io.fail("a buffer is too short for an event"),
            Err(error) => io.fail(error),
        }
    }
}

/// Whether it is a read, and done.
fn is_read_now(medium: &SharedBlock, operation: Operation, memory: &IoVector) -> bool {
    matches!(operation, Operation::Read { offset } if medium.read_now(offset, memory))
}

impl VirtioDevice for Scsi {
    fn id(&self) -> u16 {
        device_id::SCSI
    }

    fn name(&self) -> &'static str {
        "virtio-scsi"
    }

    fn features(&self) -> u64 {
        self.options.features()
    }

    fn queue_sizes(&self) -> Vec<u16> {
        let queues = usize::from(self.options.num_queues.saturating_add(REQUEST));
        vec![self.options.queue_size; queues]
    }

    fn config(&self) -> Vec<u8> {
        self.options.config(self.state.sizes)
    }

    fn config_written(&mut self, _: &mut Io<'_>, offset: u64, data: &[u8]) {
        let config = self.config();
        self.state.sizes = self.state.sizes.written(config, offset, data);
    }

    fn realize(&mut self, wiring: &mut dyn Wiring) -> Result<(), DeviceError> {
        let poke = wiring.poke();
        self.flights.connect(poke.clone(), FINISHED);
        self.bus.connect(poke, NOTICED);
        Ok(())
    }

    fn hands_on(&self) -> bool {
        true
    }

    fn queue_notified(&mut self, io: &mut Io<'_>, queue: u16) {
        match queue {
            CONTROL => {
                while let Some(chain) = io.pop(CONTROL) {
                    self.manage(io, chain);
                }
            }
            EVENT => {
                // Buffers stay until there is something to say.
                if self.state.events_missed {
                    self.event(io, 0, [0; 8], 0);
                }
            }
            _ => {
                while let Some(chain) = io.pop(queue) {
                    self.begin(io, queue, chain);
                }
            }
        }
    }

    fn poke(&mut self, io: &mut Io<'_>, token: u64) {
        match token {
            NOTICED => self.noticed(io),
            _ => self.finished(io),
        }
    }

    fn reset(&mut self) {
        self.flights.cancel();
        self.flying.clear();
        self.restored.clear();
        self.bus.reset(..);
        // The next driver finds out by itself.
        self.bus.take_notices();
        self.state = State::default();
    }

    fn save(&self) -> Section {
        let State {
            tasks,
            waiting,
            events_missed,
            sizes,
        } = &self.state;
        let tasks: Value = tasks.values().map(Saved::section).collect();
        let waiting: Value = waiting.iter().map(|w| w.chain.save()).collect();
        Section::new(self.name(), 1)
            .with(1, tasks)
            .with(2, waiting)
            .with(3, *events_missed)
            .with(4, sizes.sense)
            .with(5, sizes.cdb)
    }

    fn restore(&mut self, section: &Section) -> Result<(), StateError> {
        section.expect(self.name(), 1)?;
        let queues = REQUEST..REQUEST.saturating_add(self.options.num_queues);
        let size = usize::from(self.options.queue_size);
        let list = section.list(1)?;
        if list.len() > size.saturating_mul(queues.len()) {
            return Err(section.bad(1, "more requests than descriptors"));
        }
        let mut restored = Vec::new();
        for value in list {
            let Value::Section(saved) = value else {
                return Err(section.bad(1, "not sections"));
            };
            let saved = Saved::restored(saved)?;
            if !queues.contains(&saved.queue) {
                return Err(section.bad(1, "no such queue"));
            }
            restored.push(saved);
        }
        let list = section.list(2)?;
        if list.len() > size {
            return Err(section.bad(2, "more functions than descriptors"));
        }
        let mut waiting = Vec::new();
        for value in list {
            let Value::Section(chain) = value else {
                return Err(section.bad(2, "not sections"));
            };
            waiting.push(Waiting {
                chain: Chain::restore(chain)?,
                tasks: BTreeSet::new(),
            });
        }
        let state = State {
            tasks: BTreeMap::new(),
            waiting,
            events_missed: section.bool(3)?,
            sizes: Sizes {
                sense: section.u32(4)?,
                cdb: section.u32(5)?,
            },
        };
        self.flights.cancel();
        self.flying.clear();
        self.restored = restored;
        self.state = state;
        Ok(())
    }

    fn resume(&mut self, io: &mut Io<'_>) {
        for saved in std::mem::take(&mut self.restored) {
            let Saved { queue, chain, fate } = saved;
            match fate {
                None => self.begin(io, queue, chain),
                Some(fate) => self.forsake(io, queue, chain, fate),
            }
        }
        self.answer_waiting(io);
    }

    fn child_bus(&self) -> Option<ChildBus> {
        Some(self.bus.child())
    }
}
