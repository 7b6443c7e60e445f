//! The controller: its registers (NVMe, 3.1), and the work on its queues.
//!
//! Not modelled: scatter gather lists, controller memory buffers, metadata, fused commands, namespace
//! management, reservations, firmware, Format NVM, shadow doorbells; more than one controller at a
//! namespace.

use std::collections::{BTreeMap, BTreeSet};

use backend_block::Flights;
use hw_core::{
    Access, AccessSizes, ChildBus, DeviceError, Dma, Fault, ResetKind, Section, StateError, Value,
};
use hw_pci::{BarKind, BarSpec, Pci, PciDevice, PciFunction, PciOptions, Setup, VENDOR_REDHAT};

use crate::bus::NvmeBus;
use crate::command::{Command, ENTRY, Status};
use crate::event::{Event, Events};
use crate::features::{Features, NAMESPACE_NOTICES};
use crate::io::Task;
use crate::queue::{Completion, ENTRIES_MOST, Ended, Submission};

const DEVICE: u16 = 0x0010;
/// Mass storage, NVM, NVMe.
const CLASS: u32 = 0x01_0802;
const REVISION: u8 = 2;
const BAR: u8 = 0;
const BAR_LEN: u64 = 0x4000;
const MSIX_BAR: u8 = 4;

/// 1.4.0
pub(crate) const VERSION: u32 = 0x1_0400;
/// Posted when operations are finished, and when a namespace is another than before.
const FINISHED: u64 = 0;
const CHANGED: u64 = 1;
/// Commands under way at once at most, over all queues.
const TASKS: usize = 256;

/// Offsets of registers.
mod reg {
    pub(super) const CAP: u64 = 0x00;
    pub(super) const CAP_HIGH: u64 = 0x04;
    pub(super) const VS: u64 = 0x08;
    pub(super) const INTMS: u64 = 0x0c;
    pub(super) const INTMC: u64 = 0x10;
    pub(super) const CC: u64 = 0x14;
    pub(super) const CSTS: u64 = 0x1c;
    pub(super) const AQA: u64 = 0x24;
    pub(super) const ASQ: u64 = 0x28;
    pub(super) const ASQ_HIGH: u64 = 0x2c;
    pub(super) const ACQ: u64 = 0x30;
    pub(super) const ACQ_HIGH: u64 = 0x34;
    pub(super) const DOORBELLS: u64 = 0x1000;
}

/// CAP: queues are contiguous and ready after 7.5 s at most; the NVM command set; pages of 4 KiB to
/// 64 KiB.
const CAP_LOW: u32 = 0x0f << 24 | 1 << 16 | ENTRIES_MOST as u32;
const CAP_HIGH: u32 = 4 << 20 | 1 << 5;

mod cc {
    pub(super) const EN: u32 = 1;
    pub(super) const CSS: u32 = 7 << 4;
    pub(super) const SHN: u32 = 3 << 14;
    pub(super) const WRITABLE: u32 = 0x00ff_fff1;
}

mod csts {
    pub(super) const RDY: u32 = 1;
    pub(super) const CFS: u32 = 2;
    pub(super) const SHST: u32 = 3 << 2;
    pub(super) const SHST_OCCURRING: u32 = 1 << 2;
    pub(super) const SHST_COMPLETE: u32 = 2 << 2;
}

/// Properties of the controller.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct NvmeOptions {
    /// `serial`, of which 20 bytes are shown.
    pub(crate) serial: String,
    /// `max_ioqpairs`
    pub(crate) max_ioqpairs: u16,
    /// `msix_qsize`
    pub(crate) msix_qsize: u16,
    /// `mdts`: binary logarithm of the pages that a command moves at most; 0 for no limit.
    pub(crate) mdts: u8,
    /// `aerl`: events that can be waited for at once, less one.
    pub(crate) aerl: u8,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct State {
    cc: u32,
    csts: u32,
    /// The interrupt mask.
    mask: u32,
    aqa: u32,
    asq: u64,
    acq: u64,
    pub(crate) submissions: BTreeMap<u16, Submission>,
    pub(crate) completions: BTreeMap<u16, Completion>,
    /// The submission queue that was served last.
    turn: u16,
    pub(crate) events: Events,
    /// Namespaces that are others than before.
    pub(crate) changed: BTreeSet<u32>,
    pub(crate) features: Features,
}

/// The controller.
pub(crate) struct Nvme {
    pub(crate) bus: NvmeBus,
    /// The namespace of its own `drive`.
    own: Option<u32>,
    pub(crate) options: NvmeOptions,
    pub(crate) flights: Flights,
    /// Which task an operation under way belongs to.
    pub(crate) flying: BTreeMap<u64, u64>,
    pub(crate) tasks: BTreeMap<u64, Task>,
    pub(crate) next_task: u64,
    /// Flushes that a shutdown waits for.
    pub(crate) shutting: BTreeSet<u64>,
    /// Restored commands, to be begun again.
    restored: Vec<(u16, Command)>,
    pub(crate) state: State,
}

impl Nvme {
    /// A controller with the properties all functions have; `own` is the number of a namespace on
    /// `bus` that no device plugged in.
    pub(crate) fn new(
        bus: NvmeBus,
        own: Option<u32>,
        options: NvmeOptions,
        pci: PciOptions,
    ) -> PciDevice<Self> {
        let state = State::new(Features::new(options.max_ioqpairs, true));
        let controller = Nvme {
            bus,
            own,
            options,
            flights: Flights::default(),
            flying: BTreeMap::new(),
            tasks: BTreeMap::new(),
            next_task: 0,
            shutting: BTreeSet::new(),
            restored: Vec::new(),
            state,
        };
        PciDevice::new(controller, pci)
    }

    /// The features at power on.
    pub(crate) fn default_features(&self) -> Features {
        Features::new(self.options.max_ioqpairs, true)
    }

    /// Interrupt vectors.
    pub(crate) fn vectors(&self) -> u16 {
        self.options.msix_qsize
    }

    /// Bytes of a page of the host.
    pub(crate) fn page(&self) -> u64 {
        4096u64.wrapping_shl(self.state.cc >> 7 & 0xf)
    }

    fn is_ready(&self) -> bool {
        self.state.csts & (csts::RDY | csts::CFS) == csts::RDY
    }

    fn fatal(&mut self, why: &str) {
        log::debug!("nvme: {why}; the controller needs a reset");
        self.state.csts |= csts::CFS;
    }

    /// CC.EN is set: the admin queues are made.
    fn enable(&mut self) {
        const MPS_MOST: u32 = 4;
        const SIZES: u32 = 0x46;
        let State {
            cc, aqa, asq, acq, ..
        } = self.state;
        let offset = self.page().wrapping_sub(1);
        let (submission, completion) = (aqa as u16 & 0xfff, (aqa >> 16) as u16 & 0xfff);
        let is_possible = cc >> 7 & 0xf <= MPS_MOST
            && cc & cc::CSS == 0
            && (asq | acq) & offset == 0
            && submission != 0
            && completion != 0
            && submission.max(completion) <= ENTRIES_MOST;
        // Some drivers say how large entries are only afterwards; there is one size anyway.
        if !is_possible || !matches!(cc >> 16 & 0xff, 0 | SIZES) {
            return self.fatal("it was enabled with registers that make no sense");
        }
        let queue = Submission {
            base: asq,
            size: submission.saturating_add(1),
            ..Submission::default()
        };
        self.state.submissions.insert(0, queue);
        let queue = Completion {
            base: acq,
            size: completion.saturating_add(1),
            interrupts: true,
            ..Completion::default()
        };
        self.state.completions.insert(0, queue);
        self.state.csts |= csts::RDY;
    }

    /// Gives everything up that is under way: none of it touches memory afterwards.
    fn give_up(&mut self) {
        self.flights.cancel();
        self.flying.clear();
        self.tasks.clear();
        self.shutting.clear();
        self.restored.clear();
    }

    /// A reset by the host: the registers of the admin queues stay (7.3.2).
    fn disable(&mut self) {
        self.give_up();
        let State { aqa, asq, acq, .. } = self.state;
        self.state = State {
            aqa,
            asq,
            acq,
            ..State::new(self.default_features())
        };
    }

    /// All caches are written.
    pub(crate) fn shut_down(&mut self) {
        self.state.csts = self.state.csts & !csts::SHST | csts::SHST_COMPLETE;
    }

    fn configure(&mut self, value: u32) {
        let old = self.state.cc;
        let new = value & cc::WRITABLE;
        if old & cc::EN != 0 && new & cc::EN == 0 {
            self.disable();
        }
        self.state.cc = new;
        if new & cc::EN != 0 && old & cc::EN == 0 {
            self.enable();
        }
        if new & cc::SHN != 0 && old & cc::SHN == 0 {
            self.state.csts = self.state.csts & !csts::SHST | csts::SHST_OCCURRING;
            self.flush_all();
        } else if new & cc::SHN == 0 && old & cc::SHN != 0 {
            self.state.csts &= !csts::SHST;
        }
    }

    /// Keeps how a command ended for its completion queue.
    pub(crate) fn end(&mut self, ended: Ended) {
        let submissions = &self.state.submissions;
        let queue = submissions.get(&ended.queue).map(|q| q.completion);
        let queue = queue.and_then(|id| self.state.completions.get_mut(&id));
        if let Some(queue) = queue {
            queue.waiting.push_back(ended);
        }
    }

    /// The next queue with a command, in turns (4.13.1).
    fn next_queue(&self) -> Option<u16> {
        let can = |(_, queue): &(&u16, &Submission)| queue.can_fetch();
        let queues = &self.state.submissions;
        let after = queues.range(self.state.turn.saturating_add(1)..).find(can);
        let found = after.or_else(|| queues.iter().find(can))?;
        Some(*found.0)
    }

    /// Fetches one command and begins it.
    fn fetch(&mut self, dma: &Dma, id: u16) {
        let Some(queue) = self.state.submissions.get_mut(&id) else {
            return;
        };
        self.state.turn = id;
        let Ok(command) = queue.fetch(dma) else {
            return self.fatal("a submission queue is not in memory");
        };
        if id != 0 {
            return self.begin(dma, id, command);
        }
        if let Some(result) = self.admin(dma, &command) {
            let (status, result) = match result {
                Ok(result) => (Status::SUCCESS, result),
                Err(status) => (status, 0),
            };
            self.end(Ended {
                queue: 0,
                command: command.id(),
                status,
                result,
            });
        }
    }

    /// Puts ends into completion queues as far as there is room.
    fn complete(&mut self, dma: &Dma) {
        let mut is_lost = false;
        for queue in self.state.completions.values_mut() {
            while queue.has_room()
                && let Some(ended) = queue.waiting.pop_front()
            {
                let Some(from) = self.state.submissions.get_mut(&ended.queue) else {
                    continue;
                };
                from.under_way = from.under_way.saturating_sub(1);
                is_lost |= queue.put(dma, ended, from.head).is_err();
            }
        }
        if is_lost {
            self.fatal("a completion queue is not in memory");
        }
    }

    /// Queues that are to be deleted and have nothing under way any more are gone.
    fn delete_queues(&mut self) {
        let mut commands = Vec::new();
        self.state.submissions.retain(|_, queue| {
            let done = queue.deletion.filter(|_| queue.under_way == 0);
            commands.extend(done);
            done.is_none()
        });
        for command in commands {
            self.end(Ended {
                queue: 0,
                command,
                status: Status::SUCCESS,
                result: 0,
            });
        }
    }

    /// Works the queues off, as far as there is room for what comes of it.
    fn work(&mut self, pci: &mut Pci) {
        let dma = pci.dma().clone();
        while self.is_ready() {
            self.delete_queues();
            self.tell_events();
            self.complete(&dma);
            if self.tasks.len() >= TASKS {
                break;
            }
            let Some(queue) = self.next_queue() else {
                break;
            };
            self.fetch(&dma, queue);
        }
        // A queue's last end may have let its deletion go on.
        self.delete_queues();
        self.complete(&dma);
        self.sync(pci);
    }

    /// Interrupts follow the completion queues (7.5).
    fn sync(&mut self, pci: &mut Pci) {
        let is_msix = pci.msix_enabled();
        let mut level = false;
        for queue in self.state.completions.values_mut() {
            let is_new = std::mem::take(&mut queue.is_new);
            if !queue.interrupts {
                continue;
            }
            if is_msix {
                if is_new {
                    pci.raise_msix(queue.vector);
                }
            } else {
                // All vectors are the one pin; the mask has a bit for each.
                let bit = 1u32.wrapping_shl(u32::from(queue.vector).min(31));
                level |= !queue.is_empty() && self.state.mask & bit == 0;
            }
        }
        pci.set_intx(level);
    }

    /// The host has moved the tail of a submission or the head of a completion queue.
    fn doorbell(&mut self, offset: u64, value: u32) {
        let number = offset.wrapping_sub(reg::DOORBELLS) >> 2;
        let (id, is_completion) = ((number >> 1) as u16, number & 1 != 0);
        let value = u16::try_from(value).unwrap_or(u16::MAX);
        let (index, size) = match is_completion {
            true => match self.state.completions.get_mut(&id) {
                Some(queue) => (&mut queue.head, queue.size),
                None => return self.event(Event::BAD_DOORBELL),
            },
            false => match self.state.submissions.get_mut(&id) {
                Some(queue) => (&mut queue.tail, queue.size),
                None => return self.event(Event::BAD_DOORBELL),
            },
        };
        match value < size {
            true => *index = value,
            false => self.event(Event::BAD_DOORBELL_VALUE),
        }
    }

    fn register_read(&self, offset: u64) -> u32 {
        let state = &self.state;
        match offset {
            reg::CAP => CAP_LOW,
            reg::CAP_HIGH => CAP_HIGH,
            reg::VS => VERSION,
            reg::INTMS | reg::INTMC => state.mask,
            reg::CC => state.cc,
            reg::CSTS => state.csts,
            reg::AQA => state.aqa,
            reg::ASQ => state.asq as u32,
            reg::ASQ_HIGH => (state.asq >> 32) as u32,
            reg::ACQ => state.acq as u32,
            reg::ACQ_HIGH => (state.acq >> 32) as u32,
            _ => 0,
        }
    }

    fn register_write(&mut self, offset: u64, value: u32) {
        let state = &mut self.state;
        let wide = u64::from(value);
        let low = |old: u64| old & !0xffff_ffff | wide & !0xfff;
        let high = |old: u64| old & 0xffff_ffff | wide << 32;
        match offset {
            reg::INTMS => state.mask |= value,
            reg::INTMC => state.mask &= !value,
            reg::CC => self.configure(value),
            reg::AQA => state.aqa = value & 0x0fff_0fff,
            reg::ASQ => state.asq = low(state.asq),
            reg::ASQ_HIGH => state.asq = high(state.asq),
            reg::ACQ => state.acq = low(state.acq),
            reg::ACQ_HIGH => state.acq = high(state.acq),
            reg::DOORBELLS.. if self.is_ready() => self.doorbell(offset, value),
            _ => {}
        }
    }

    /// Namespaces are others than before.
    fn namespaces_changed(&mut self) {
        self.state.changed.extend(self.bus.take_changed());
        if self.state.features.async_events & NAMESPACE_NOTICES != 0 {
            self.event(Event::NAMESPACES_CHANGED);
        }
    }
}

impl PciFunction for Nvme {
    fn name(&self) -> &'static str {
        "nvme"
    }

    fn setup(&mut self, setup: &mut Setup<'_>) -> Result<(), DeviceError> {
        setup.ids(VENDOR_REDHAT, DEVICE, CLASS, REVISION);
        setup.interrupt_pin(1);
        setup.bar(BarSpec {
            sizes: AccessSizes::WORD,
            ..BarSpec::new(BAR, "nvme", BarKind::Memory64 { prefetch: false }, BAR_LEN)
        })?;
        setup.msix_bar(MSIX_BAR, "nvme-msix", self.options.msix_qsize)?;
        let poke = setup.wiring.poke();
        self.flights.connect(poke.clone(), FINISHED);
        self.bus.connect(poke, CHANGED);
        if let Some(id) = self.own
            && let Some(namespace) = self.bus.namespace(id)
        {
            namespace.wire(setup.wiring, &self.bus, id);
        }
        Ok(())
    }

    fn bar_read(&mut self, _: &mut Pci, bar: u8, access: Access) -> Result<u64, Fault> {
        match bar {
            BAR => Ok(self.register_read(access.offset).into()),
            _ => Err(Fault::NoRegister),
        }
    }

    fn bar_write(
        &mut self,
        pci: &mut Pci,
        bar: u8,
        access: Access,
        value: u64,
    ) -> Result<(), Fault> {
        if bar != BAR {
            return Err(Fault::NoRegister);
        }
        self.register_write(access.offset, value as u32);
        self.work(pci);
        Ok(())
    }

    fn reset(&mut self, _: ResetKind) {
        self.give_up();
        self.state = State::new(self.default_features());
    }

    fn after_reset(&mut self, pci: &mut Pci) {
        let dma = pci.dma().clone();
        for (queue, command) in std::mem::take(&mut self.restored) {
            self.begin(&dma, queue, command);
        }
        if self.state.csts & csts::SHST == csts::SHST_OCCURRING {
            self.flush_all();
        }
        self.work(pci);
    }

    fn poke(&mut self, pci: &mut Pci, token: u64) {
        match token {
            CHANGED => self.namespaces_changed(),
            _ => self.landed(),
        }
        self.work(pci);
    }

    fn unplug(&mut self) {
        self.give_up();
    }

    fn save(&self) -> Section {
        let State {
            cc,
            csts,
            mask,
            aqa,
            asq,
            acq,
            submissions,
            completions,
            turn,
            events,
            changed,
            features,
        } = &self.state;
        let submissions: Value = submissions.iter().map(|(id, q)| q.save(*id)).collect();
        let completions: Value = completions.iter().map(|(id, q)| q.save(*id)).collect();
        let tasks: Value = self
            .tasks
            .values()
            .map(|task| {
                Section::new("task", 1)
                    .with(1, task.queue)
                    .with(2, task.command.0.as_slice())
            })
            .collect();
        let requests: Value = events.requests.iter().map(|id| u64::from(*id)).collect();
        let queued: Value = (events.queued.iter())
            .flat_map(|e| [u64::from(e.kind), e.info.into(), e.page.into()])
            .collect();
        let changed: Value = changed.iter().map(|id| u64::from(*id)).collect();
        Section::new(self.name(), 1)
            .with(1, *cc)
            .with(2, *csts)
            .with(3, *mask)
            .with(4, *aqa)
            .with(5, *asq)
            .with(6, *acq)
            .with(7, submissions)
            .with(8, completions)
            .with(9, *turn)
            .with(10, tasks)
            .with(11, requests)
            .with(12, queued)
            .with(13, events.masked)
            .with(14, changed)
            .with(15, features.save())
    }

    fn restore(&mut self, section: &Section) -> Result<(), StateError> {
        section.expect(self.name(), 1)?;
        let (state, restored) = restored(section, &self.options)?;
        self.give_up();
        self.state = state;
        self.restored = restored;
        Ok(())
    }

    fn child_buses(&self) -> Vec<ChildBus> {
        vec![self.bus.child()]
    }
}

impl State {
    fn new(features: Features) -> Self {
        State {
            cc: 0,
            csts: 0,
            mask: 0,
            aqa: 0,
            asq: 0,
            acq: 0,
            submissions: BTreeMap::new(),
            completions: BTreeMap::new(),
            turn: 0,
            events: Events::default(),
            changed: BTreeSet::new(),
            features,
        }
    }
}

fn sections(section: &Section, tag: u16, most: usize) -> Result<Vec<&Section>, StateError> {
    let list = section.list(tag)?;
    if list.len() > most {
        return Err(section.bad(tag, "too many"));
    }
    let sections = list.iter().map(|value| match value {
        Value::Section(section) => Ok(section),
        _ => Err(section.bad(tag, "not sections")),
    });
    sections.collect()
}

fn numbers(section: &Section, tag: u16) -> Result<Vec<u64>, StateError> {
    let numbers = section.list(tag)?.iter().map(|value| match value {
        Value::U64(number) => Ok(*number),
        _ => Err(section.bad(tag, "not numbers")),
    });
    numbers.collect()
}

fn restored(
    section: &Section,
    options: &NvmeOptions,
) -> Result<(State, Vec<(u16, Command)>), StateError> {
    let queues = usize::from(options.max_ioqpairs).saturating_add(1);
    let mut completions = BTreeMap::new();
    for saved in sections(section, 8, queues)? {
        let (id, queue) = Completion::restored(saved)?;
        if queue.vector >= options.msix_qsize {
            return Err(section.bad(8, "no such vector"));
        }
        completions.insert(id, queue);
    }
    let mut submissions = BTreeMap::new();
    for saved in sections(section, 7, queues)? {
        let (id, queue) = Submission::restored(saved)?;
        if !completions.contains_key(&queue.completion) {
            return Err(section.bad(7, "no such completion queue"));
        }
        submissions.insert(id, queue);
    }
    let mut tasks = Vec::new();
    for saved in sections(section, 10, TASKS)? {
        saved.expect("task", 1)?;
        let queue = saved.u16(1)?;
        if !submissions.contains_key(&queue) {
            return Err(section.bad(10, "no such queue"));
        }
        tasks.push((queue, Command(saved.array::<ENTRY>(2)?)));
    }
    let mut events = Events {
        masked: section.u8(13)?,
        ..Events::default()
    };
    events.requests = (numbers(section, 11)?.iter().map(|id| *id as u16)).collect();
    if events.requests.len() > usize::from(options.aerl).saturating_add(1) {
        return Err(section.bad(11, "too many"));
    }
    for event in numbers(section, 12)?.chunks(3) {
        let [kind, info, page] = event else {
            return Err(section.bad(12, "not events"));
        };
        events.queued.push_back(Event {
            kind: *kind as u8 & 7,
            info: *info as u8,
            page: *page as u8,
        });
    }
    let changed = numbers(section, 14)?;
    let changed = changed.iter().filter_map(|id| u32::try_from(*id).ok());
    let state = State {
        cc: section.u32(1)? & cc::WRITABLE,
        csts: section.u32(2)?,
        mask: section.u32(3)?,
        aqa: section.u32(4)?,
        asq: section.u64(5)?,
        acq: section.u64(6)?,
        submissions,
        completions,
        turn: section.u16(9)?,
        events,
        changed: changed.take(crate::bus::NAMESPACES as usize).collect(),
        features: Features::restored(section.section(15)?)?,
    };
    Ok((state, tasks))
}
