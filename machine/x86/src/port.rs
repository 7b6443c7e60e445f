//! What a PC wires to each CPU: ports, local APIC, A20.

use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::{Arc, OnceLock};

use accel_core::{Pending, reason};
use device_intc::{CpuSignal, I8259, LocalApic};
use hw_core::{Attrs, ByteOrder, Initiator};
use hw_memory::{MemoryMap, Snapshot};
use target_x86::Port;

/// IA32_APIC_BASE.
const APIC_BASE: u32 = 0x1b;

/// The A20 gate: port 92h and the keyboard controller drive it together.
#[derive(Clone)]
pub(crate) struct A20 {
    open: Arc<AtomicBool>,
}

impl Default for A20 {
    fn default() -> Self {
        A20 {
            open: Arc::new(AtomicBool::new(true)),
        }
    }
}

impl A20 {
    pub(crate) fn is_open(&self) -> bool {
        self.open.load(Ordering::Acquire)
    }

    /// Follows the wire; translations made with the old gate are forgotten.
    pub(crate) fn set(&self, open: bool, memory: &MemoryMap) {
        if self.open.swap(open, Ordering::AcqRel) != open {
            memory.refresh();
        }
    }
}

/// How a local APIC reaches its CPU: connected once the CPU is made.
#[derive(Default)]
pub(crate) struct Ear {
    pending: OnceLock<Arc<Pending>>,
    sipi_vector: AtomicU8,
}

impl Ear {
    pub(crate) fn connect(&self, pending: Arc<Pending>) {
        let _ = self.pending.set(pending);
    }

    pub(crate) fn signal(&self, signal: CpuSignal) {
        let bits = match signal {
            CpuSignal::Intr => reason::INTR,
            CpuSignal::Nmi => reason::NMI,
            CpuSignal::Smi => reason::SMI,
            CpuSignal::Init => reason::INIT,
            CpuSignal::Sipi(vector) => {
                self.sipi_vector.store(vector, Ordering::Release);
                reason::SIPI
            }
        };
        if let Some(pending) = self.pending.get() {
            pending.raise(bits);
        }
    }
}

/// One CPU's wires.
pub(crate) struct PcPort {
    pub(crate) apic: Option<Arc<LocalApic>>,
    pub(crate) ear: Arc<Ear>,
    pub(crate) a20: A20,
    /// The i8259 pair, where it interrupts past a local APIC that is in the kernel.
    pic: Option<Arc<I8259>>,
    ports: MemoryMap,
    snapshot: Arc<Snapshot>,
}

impl PcPort {
    pub(crate) fn new(
        apic: Option<Arc<LocalApic>>,
        ear: Arc<Ear>,
        a20: A20,
        ports: MemoryMap,
    ) -> Self {
        let snapshot = ports.snapshot();
        PcPort {
            apic,
            ear,
            a20,
            pic: None,
            ports,
            snapshot,
        }
    }

    /// Takes interrupts from `pic` alone, if there is one.
    pub(crate) fn with_pic(mut self, pic: Option<Arc<I8259>>) -> Self {
        self.pic = pic;
        self
    }

    fn sync(&mut self) {
        if self.snapshot.generation() != self.ports.generation() {
            self.snapshot = self.ports.snapshot();
        }
    }
}

impl Port for PcPort {
    fn io_in(&mut self, cpu: u32, port: u16, size: u8) -> u32 {
        self.sync();
        let by = Initiator::Cpu(cpu);
        let value = self
            .snapshot
            .read(port.into(), size, ByteOrder::Little, by, Attrs::default());
        value.map_or(u32::MAX, |v| v as u32)
    }

    fn io_out(&mut self, cpu: u32, port: u16, size: u8, value: u32) {
        self.sync();
        let by = Initiator::Cpu(cpu);
        // Writes to nothing are lost, as on hardware.
        let _ = self.snapshot.write(
            port.into(),
            size,
            value.into(),
            ByteOrder::Little,
            by,
            Attrs::default(),
        );
    }

    fn ack(&mut self) -> Option<u8> {
        match &self.pic {
            Some(pic) => pic.is_pending().then(|| pic.ack()),
            None => self.apic.as_ref()?.ack(),
        }
    }

    fn has_interrupt(&mut self) -> bool {
        match &self.pic {
            Some(pic) => pic.is_pending(),
            None => self.apic.as_ref().is_some_and(|apic| apic.has_interrupt()),
        }
    }

    fn cr8(&mut self) -> u64 {
        self.apic.as_ref().map_or(0, |apic| apic.cr8().into())
    }

    fn set_cr8(&mut self, value: u64) {
        if let Some(apic) = &self.apic {
            apic.set_cr8(value as u8);
        }
    }

    fn apic_read(&mut self, msr: u32) -> Option<u64> {
        let apic = self.apic.as_ref()?;
        match msr {
            APIC_BASE => Some(apic.apic_base()),
            _ => apic.read_msr(msr).ok(),
        }
    }

    fn apic_write(&mut self, msr: u32, value: u64) -> Option<()> {
        let apic = self.apic.as_ref()?;
        match msr {
            APIC_BASE => apic.set_apic_base(value).ok(),
            _ => apic.write_msr(msr, value).ok(),
        }
    }

    fn tsc_deadline(&mut self) -> u64 {
        self.apic.as_ref().map_or(0, |apic| apic.tsc_deadline())
    }

    fn set_tsc_deadline(&mut self, value: u64, at_ns: u64) {
        if let Some(apic) = &self.apic {
            apic.set_tsc_deadline(value, at_ns);
        }
    }

    fn sipi_vector(&mut self) -> u8 {
        self.ear.sipi_vector.load(Ordering::Acquire)
    }

    fn init(&mut self) {
        if let Some(apic) = &self.apic {
            apic.init_reset();
        }
    }

    fn a20(&self) -> bool {
        self.a20.is_open()
    }
}
