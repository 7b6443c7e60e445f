//! The bus between local APICs: who a message is for, and what is wired to all of them.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, OnceLock, PoisonError, RwLock, Weak};

use hw_core::{Clock, IrqSink, MsiSink};
use hw_intc::{ApicMessage, CpuSignal, DeliveryMode, Destination, lvt, lvt_index};

use super::{Config, LocalApic, Mode};
use crate::i8259::I8259;
use crate::ioapic::IoApic;

/// Input of [`ApicBus`] that the i8259 drives.
pub const LINT0: u32 = 0;
/// Input of [`ApicBus`] for non-maskable interrupts.
pub const LINT1: u32 = 1;

/// All local APICs of a machine, and how messages find them.
pub struct ApicBus {
    apics: Vec<Arc<LocalApic>>,
    by_id: BTreeMap<u32, usize>,
    pub(super) pic: OnceLock<Weak<I8259>>,
    ioapics: RwLock<Arc<[Weak<IoApic>]>>,
    /// How many of them wait for ends of edge interrupts.
    awaits_edges: Arc<AtomicU32>,
    pub(super) lint0: AtomicBool,
    pub(super) lint1: AtomicBool,
}

impl ApicBus {
    /// Local APICs with these ids, by CPU index; the first is the bootstrap processor's.
    /// `has_x2apic` is what CPUID says.
    pub fn new(clock: &Clock, ids: &[u32], has_x2apic: bool) -> Arc<Self> {
        let config = Config {
            clock: clock.clone(),
            has_x2apic,
            awaits_edges: Arc::default(),
        };
        Arc::new_cyclic(|bus: &Weak<ApicBus>| {
            let apics: Vec<_> = (0u32..)
                .zip(ids)
                .map(|(index, id)| LocalApic::new(bus.clone(), index, *id, &config))
                .collect();
            ApicBus {
                by_id: ids.iter().copied().zip(0..).collect(),
                apics,
                pic: OnceLock::new(),
                ioapics: RwLock::new(Arc::new([])),
                awaits_edges: config.awaits_edges.clone(),
                lint0: AtomicBool::new(false),
                lint1: AtomicBool::new(false),
            }
        })
    }

    /// The local APIC of the CPU of this index.
    pub fn cpu(&self, index: u32) -> Option<&Arc<LocalApic>> {
        self.apics.get(usize::try_from(index).ok()?)
    }

    /// All local APICs by CPU index.
    pub fn cpus(&self) -> &[Arc<LocalApic>] {
        &self.apics
    }

    /// Says who answers acknowledge cycles of ExtINT interrupts. Once, by the board.
    pub fn connect_pic(&self, pic: &Arc<I8259>) {
        let _ = self.pic.set(Arc::downgrade(pic));
    }

    /// Says who is told of ends of level interrupts. By the board, for each I/O APIC.
    pub fn connect_ioapic(&self, ioapic: &Arc<IoApic>) {
        let mut list = self.ioapics.write().unwrap_or_else(PoisonError::into_inner);
        ioapic.tell_awaiting(&self.awaits_edges);
        *list = list
            .iter()
            .cloned()
            .chain([Arc::downgrade(ioapic)])
            .collect();
    }

    fn ioapics(&self) -> Arc<[Weak<IoApic>]> {
        let list = self.ioapics.read().unwrap_or_else(PoisonError::into_inner);
        list.clone()
    }

    pub(super) fn broadcast_eoi(&self, vector: u8) {
        for ioapic in self.ioapics().iter().filter_map(Weak::upgrade) {
            ioapic.eoi(vector);
        }
    }

    /// Tells those that wait for it of the end of an edge interrupt.
    pub(super) fn end_of_edge(&self, vector: u8) {
        for ioapic in self.ioapics().iter().filter_map(Weak::upgrade) {
            if ioapic.awaits_edges() {
                ioapic.end_of_edge(vector);
            }
        }
    }

    fn is_for(apic: &LocalApic, destination: Destination) -> bool {
        apic.mode() != Mode::Disabled
            && match destination {
                Destination::Physical(id) => id == u32::MAX || id == apic.id,
                Destination::Logical(dest) => apic.logical_matches(dest),
                Destination::All => true,
                Destination::AllBut(index) => apic.index != index,
                Destination::Cpu(index) => apic.index == index,
            }
    }

    /// Delivers a message, from any thread and without a lock.
    pub fn deliver(&self, message: ApicMessage) {
        let ApicMessage {
            destination,
            mode,
            vector,
            level,
        } = message;
        let one = match destination {
            Destination::Physical(id) if id != u32::MAX => self.by_id.get(&id).copied(),
            Destination::Cpu(index) => usize::try_from(index).ok(),
            _ if mode == DeliveryMode::LowestPriority => {
                let Some(n) = self.lowest_priority(destination, vector) else {
                    return;
                };
                Some(n)
            }
            _ => {
                for apic in &self.apics {
                    if Self::is_for(apic, destination) {
                        apic.receive(mode, vector, level);
                    }
                }
                return;
            }
        };
        if let Some(apic) = one.and_then(|n| self.apics.get(n))
            && apic.mode() != Mode::Disabled
        {
            apic.receive(mode, vector, level);
        }
    }

    /// Among the addressed CPUs the one with the lowest priority; equals share by vector.
    fn lowest_priority(&self, destination: Destination, vector: u8) -> Option<usize> {
        let first = usize::from(vector).checked_rem(self.apics.len())?;
        let (before, after) = self.apics.split_at_checked(first)?;
        after
            .iter()
            .chain(before)
            .filter(|apic| Self::is_for(apic, destination) && apic.is_software_enabled())
            .min_by_key(|apic| apic.ppr() >> 4)
            .and_then(|apic| usize::try_from(apic.index).ok())
    }

    /// What `info lapic` shows for all CPUs.
    pub fn describe(&self) -> String {
        self.apics.iter().map(|apic| apic.describe()).collect()
    }
}

impl MsiSink for ApicBus {
    fn message(&self, address: u64, data: u32, _: u32) {
        if let Some(message) = ApicMessage::from_msi(address, data) {
            self.deliver(message);
        }
    }
}

/// Inputs [`LINT0`] and [`LINT1`] are those pins of all CPUs.
impl IrqSink for ApicBus {
    fn set(&self, pin: u32, level: bool) {
        let (line, entry) = match pin {
            LINT0 => (&self.lint0, lvt_index::LINT0),
            LINT1 => (&self.lint1, lvt_index::LINT1),
            _ => return,
        };
        if line.swap(level, Ordering::AcqRel) || !level {
            return;
        }
        for apic in &self.apics {
            if pin == LINT0 && apic.accepts_pic() {
                apic.signal(CpuSignal::Intr);
            } else if pin == LINT1 && apic.mode() == Mode::Disabled {
                apic.signal(CpuSignal::Nmi);
            } else if apic.lvt_entry(entry) >> lvt::MODE_SHIFT & 7 != DeliveryMode::ExtInt.code() {
                apic.deliver_local(entry);
            }
        }
    }
}
