//! The local APICs' place in the memory map, their reset and their saved form.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use hw_core::{
    Access, AccessSizes, BusKind, ByteOrder, Category, Device, DeviceClass, DeviceError, Fault,
    Initiator, IoRegion, Mapping, MsiSink, RegionId, ResetKind, Section, StateError, Value, Wiring,
};
use hw_intc::{LapicState, MSI_BASE, MSI_LEN};
use hw_memory::{MappingSpec, What};

use super::ApicBus;

/// Bytes of each CPU's register page.
const PAGE_LEN: u64 = 0x1000;
/// Above RAM, flash and PCI windows.
const PRIORITY: i32 = 0x1000;

const NAME: &str = "apic";
const VERSION: u16 = 1;
const CPUS: u16 = 1;
const LINT0_LEVEL: u16 = 2;
const LINT1_LEVEL: u16 = 3;

/// The message window: each CPU sees its own registers in the first page, everything else is a
/// message. No device lock is on this way: an end of interrupt calls the I/O APICs.
struct Window(Arc<ApicBus>);

impl IoRegion for Window {
    fn read(&self, access: Access) -> Result<u64, Fault> {
        let (index, peek) = match access.by {
            Initiator::Cpu(index) => (index, false),
            Initiator::Debug => (0, true),
            Initiator::Device(_) => return Err(Fault::Unassigned),
        };
        if access.offset >= PAGE_LEN {
            return Err(Fault::Unassigned);
        }
        let apic = self.0.cpu(index).ok_or(Fault::Unassigned)?;
        apic.mmio_read(access.offset, peek).map(u64::from)
    }

    fn write(&self, access: Access, value: u64) -> Result<(), Fault> {
        let value = value as u32;
        let message = |requester| {
            let address = MSI_BASE.wrapping_add(access.offset);
            self.0.message(address, value, requester);
            Ok(())
        };
        match access.by {
            Initiator::Device(requester) => message(requester),
            Initiator::Cpu(_) if access.offset >= PAGE_LEN => message(0),
            Initiator::Cpu(index) => {
                let apic = self.0.cpu(index).ok_or(Fault::Unassigned)?;
                apic.mmio_write(access.offset, value)
            }
            Initiator::Debug => Err(Fault::ReadOnly),
        }
    }
}

/// All local APICs as one device.
pub struct ApicDevice {
    bus: Arc<ApicBus>,
    mapping: Option<Mapping>,
}

impl ApicDevice {
    /// The device of `bus`.
    pub fn new(bus: Arc<ApicBus>) -> Self {
        ApicDevice { bus, mapping: None }
    }
}

impl Device for ApicDevice {
    fn realize(&mut self, w: &mut dyn Wiring) -> Result<(), DeviceError> {
        self.mapping = Some(w.memory_map().add(MappingSpec {
            name: "apic-msi".into(),
            base: MSI_BASE,
            len: MSI_LEN,
            priority: PRIORITY,
            enabled: true,
            what: What::Io {
                io: Arc::new(Window(self.bus.clone())),
                region: RegionId(0),
                order: ByteOrder::Little,
                sizes: AccessSizes::WORD,
            },
        }));
        Ok(())
    }

    fn reset(&mut self, _: ResetKind) {
        for apic in self.bus.cpus() {
            apic.set_snapshot(&LapicState::new(apic.id(), apic.index() == 0));
        }
    }

    fn after_reset(&mut self) {
        self.bus.cpus().iter().for_each(|apic| apic.resume());
    }

    fn save(&self) -> Section {
        let cpus = self.bus.cpus().iter();
        let level = |line: &std::sync::atomic::AtomicBool| line.load(Ordering::Acquire);
        Section::new(NAME, VERSION)
            .with(CPUS, cpus.map(|a| a.snapshot().save()).collect::<Value>())
            .with(LINT0_LEVEL, level(&self.bus.lint0))
            .with(LINT1_LEVEL, level(&self.bus.lint1))
    }

    fn restore(&mut self, s: &Section) -> Result<(), StateError> {
        s.expect(NAME, VERSION)?;
        let list = s.list(CPUS)?;
        let cpus = self.bus.cpus();
        if list.len() != cpus.len() {
            return Err(s.bad(CPUS, "another number of CPUs"));
        }
        let mut states = Vec::new();
        for (value, apic) in list.iter().zip(cpus) {
            let Value::Section(section) = value else {
                return Err(s.bad(CPUS, "not sections"));
            };
            let state = LapicState::restore(section)?;
            if state.id != apic.id() {
                return Err(s.bad(CPUS, "another APIC id"));
            }
            states.push(state);
        }
        let (lint0, lint1) = (s.bool(LINT0_LEVEL)?, s.bool(LINT1_LEVEL)?);
        self.bus.lint0.store(lint0, Ordering::Release);
        self.bus.lint1.store(lint1, Ordering::Release);
        for (apic, state) in cpus.iter().zip(&states) {
            apic.set_snapshot(state);
        }
        Ok(())
    }

    fn inspect(&self) -> Vec<(&'static str, u64)> {
        let first = self.bus.cpus().first().map(|a| a.apic_base());
        vec![("apic-base", first.unwrap_or(0))]
    }
}

/// `apic`.
pub static APIC: DeviceClass = DeviceClass {
    name: "apic",
    aliases: &[],
    doc: "local APICs of all CPUs",
    bus: BusKind::System,
    category: Category::Misc,
    props: &[],
    user_creatable: false,
    create: |_, _| {
        Err(DeviceError::Other(
            "local APICs come with the CPUs of a machine".into(),
        ))
    },
};
