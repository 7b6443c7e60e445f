//! Local APICs of all CPUs and the bus between them.
//!
//! Spec: Intel SDM volume 3, chapter 11 (Advanced Programmable Interrupt Controller).
//!
//! Registers are atomic words: messages arrive from any thread without a lock, all else is changed
//! by the owning CPU's thread. Only the timer, which the main loop fires, has a mutex, and nothing
//! is called under it but the timer queue.
//!
//! Not modelled: remote reads, relocation of the register page, focus processors, CMCI.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, Weak};

use hw_core::{Clock, Fault};
use hw_intc::{CpuSignal, DeliveryMode, Kick, LVT_COUNT, LapicState, base, lvt, lvt_index, svr};

mod bus;
mod describe;
mod device;
mod registers;
#[cfg(test)]
mod tests;
mod timer;
mod words;

pub use bus::{ApicBus, LINT0, LINT1};
pub use device::{APIC, ApicDevice};
use timer::Timer;
use words::Words;

/// ESR bits (11.5.3).
mod esr {
    pub(super) const SEND_ILLEGAL_VECTOR: u32 = 1 << 5;
    pub(super) const RECEIVED_ILLEGAL_VECTOR: u32 = 1 << 6;
    pub(super) const ILLEGAL_REGISTER: u32 = 1 << 7;
}

/// Vectors below this are the CPU's exceptions.
const FIRST_VECTOR: u8 = 16;

/// How registers are reached.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Mode {
    Disabled,
    XApic,
    X2Apic,
}

/// What all local APICs of a machine share.
struct Config {
    clock: Clock,
    has_x2apic: bool,
    awaits_edges: Arc<AtomicU32>,
}

/// One CPU's local APIC.
pub struct LocalApic {
    index: u32,
    id: u32,
    is_bsp: bool,
    has_x2apic: bool,
    bus: Weak<ApicBus>,
    kick: OnceLock<Arc<dyn Kick>>,
    /// Of the bus.
    awaits_edges: Arc<AtomicU32>,

    base: AtomicU64,
    tpr: AtomicU32,
    ldr: AtomicU32,
    dfr: AtomicU32,
    svr: AtomicU32,
    esr: AtomicU32,
    esr_pending: AtomicU32,
    icr: AtomicU64,
    lvt: [AtomicU32; LVT_COUNT],
    isr: Words,
    tmr: Words,
    irr: Words,
    ext_int: AtomicBool,
    waits_for_sipi: AtomicBool,
    timer: Timer,
}

impl LocalApic {
    fn new(bus: Weak<ApicBus>, index: u32, id: u32, config: &Config) -> Arc<Self> {
        let apic = Arc::new_cyclic(|this: &Weak<LocalApic>| LocalApic {
            index,
            id,
            is_bsp: index == 0,
            has_x2apic: config.has_x2apic,
            bus,
            kick: OnceLock::new(),
            awaits_edges: config.awaits_edges.clone(),
            base: AtomicU64::default(),
            tpr: AtomicU32::default(),
            ldr: AtomicU32::default(),
            dfr: AtomicU32::default(),
            svr: AtomicU32::default(),
            esr: AtomicU32::default(),
            esr_pending: AtomicU32::default(),
            icr: AtomicU64::default(),
            lvt: Default::default(),
            isr: Words::default(),
            tmr: Words::default(),
            irr: Words::default(),
            ext_int: AtomicBool::default(),
            waits_for_sipi: AtomicBool::default(),
            timer: Timer::new(&config.clock, this.clone()),
        });
        apic.set_snapshot(&LapicState::new(id, index == 0));
        apic
    }

    /// The CPU's index in its machine.
    pub fn index(&self) -> u32 {
        self.index
    }

    /// The APIC id.
    pub fn id(&self) -> u32 {
        self.id
    }

    /// Says who is told of interrupts. Once, by the board, before the CPU runs.
    pub fn connect(&self, kick: Arc<dyn Kick>) {
        let _ = self.kick.set(kick);
    }

    fn signal(&self, signal: CpuSignal) {
        if let Some(kick) = self.kick.get() {
            kick.raise(signal);
        }
    }

    /// Tells the CPU if it has something to take: after each change that may let an interrupt
    /// through.
    fn recheck(&self) {
        if self.has_interrupt() {
            self.signal(CpuSignal::Intr);
        }
    }

    fn lvt_entry(&self, n: usize) -> u32 {
        self.lvt
            .get(n)
            .map_or(lvt::MASKED, |e| e.load(Ordering::Acquire))
    }

    fn mode(&self) -> Mode {
        let value = self.base.load(Ordering::Acquire);
        match (value & base::ENABLE != 0, value & base::EXTD != 0) {
            (false, _) => Mode::Disabled,
            (true, false) => Mode::XApic,
            (true, true) => Mode::X2Apic,
        }
    }

    fn is_software_enabled(&self) -> bool {
        self.svr.load(Ordering::Acquire) & svr::ENABLE != 0
    }

    fn ppr(&self) -> u8 {
        let tpr = self.tpr.load(Ordering::Acquire) as u8;
        let in_service = self.isr.highest().unwrap_or(0) & 0xf0;
        if tpr & 0xf0 >= in_service {
            tpr
        } else {
            in_service
        }
    }

    /// The vector that would interrupt now, if the CPU takes interrupts at all.
    pub fn pending_vector(&self) -> Option<u8> {
        let vector = self.irr.highest()?;
        (self.mode() != Mode::Disabled && vector & 0xf0 > self.ppr() & 0xf0).then_some(vector)
    }

    /// Whether the i8259's output reaches this CPU.
    fn accepts_pic(&self) -> bool {
        if self.mode() == Mode::Disabled {
            return self.is_bsp;
        }
        let entry = self.lvt_entry(lvt_index::LINT0);
        entry & lvt::MASKED == 0 && entry >> lvt::MODE_SHIFT & 7 == DeliveryMode::ExtInt.code()
    }

    fn has_ext_int(&self) -> bool {
        self.ext_int.load(Ordering::Acquire)
            || (self.accepts_pic()
                && self
                    .bus
                    .upgrade()
                    .is_some_and(|bus| bus.lint0.load(Ordering::Acquire)))
    }

    /// Whether [`ack`](Self::ack) would give a vector. Any thread, no lock.
    pub fn has_interrupt(&self) -> bool {
        self.pending_vector().is_some() || self.has_ext_int()
    }

    /// The CPU takes an interrupt: the vector, now in service; else the i8259's, which stays there.
    /// Called by the owning CPU's thread with no lock held.
    pub fn ack(&self) -> Option<u8> {
        if let Some(vector) = self.pending_vector() {
            self.irr.clear(vector);
            self.isr.set(vector);
            return Some(vector);
        }
        if !self.has_ext_int() {
            return None;
        }
        self.ext_int.store(false, Ordering::Release);
        let pic = self.bus.upgrade()?.pic.get()?.upgrade()?;
        Some(pic.ack())
    }

    /// End of interrupt, by the owning CPU. Holds no lock while it tells the I/O APICs.
    fn eoi(&self) {
        let Some(vector) = self.isr.highest() else {
            return;
        };
        self.isr.clear(vector);
        let suppressed = self.svr.load(Ordering::Acquire) & svr::NO_EOI_BROADCAST != 0;
        let is_level = self.tmr.test(vector);
        let is_awaited = !is_level && self.awaits_edges.load(Ordering::SeqCst) != 0;
        if (is_level && !suppressed || is_awaited)
            && let Some(bus) = self.bus.upgrade()
        {
            if is_level {
                bus.broadcast_eoi(vector);
            } else {
                bus.end_of_edge(vector);
            }
        }
        self.recheck();
    }

    /// Takes a vector, from any thread.
    fn accept(&self, vector: u8, level: bool) {
        if vector < FIRST_VECTOR {
            self.error(esr::RECEIVED_ILLEGAL_VECTOR);
            return;
        }
        if level {
            self.tmr.set(vector);
        } else {
            self.tmr.clear(vector);
        }
        if self.irr.set(vector) {
            self.signal(CpuSignal::Intr);
        }
    }

    fn error(&self, bit: u32) {
        // Only a new error interrupts, so that an error entry with an illegal vector ends here.
        if self.esr_pending.fetch_or(bit, Ordering::AcqRel) & bit == 0 {
            self.deliver_local(lvt_index::ERROR);
        }
    }

    /// Delivers entry `n` of the local vector table.
    fn deliver_local(&self, n: usize) {
        let entry = self.lvt_entry(n);
        if entry & lvt::MASKED != 0 || self.mode() == Mode::Disabled {
            return;
        }
        let has_mode = !matches!(n, lvt_index::TIMER | lvt_index::ERROR);
        let mode = if has_mode {
            DeliveryMode::from_code(entry >> lvt::MODE_SHIFT)
        } else {
            Some(DeliveryMode::Fixed)
        };
        match mode {
            Some(DeliveryMode::Fixed) => self.accept(entry as u8, false),
            Some(DeliveryMode::LowestPriority | DeliveryMode::StartUp) | None => {}
            Some(mode) => self.receive(mode, entry as u8, false),
        }
    }

    /// Takes a message that was found to be for this CPU, from any thread.
    fn receive(&self, mode: DeliveryMode, vector: u8, level: bool) {
        match mode {
            DeliveryMode::Fixed | DeliveryMode::LowestPriority => {
                if self.is_software_enabled() {
                    self.accept(vector, level);
                }
            }
            DeliveryMode::Smi => self.signal(CpuSignal::Smi),
            DeliveryMode::Nmi => self.signal(CpuSignal::Nmi),
            DeliveryMode::Init => {
                // Noted here, not when the CPU gets to it: its start-up may follow at once.
                self.waits_for_sipi.store(!self.is_bsp, Ordering::Release);
                self.signal(CpuSignal::Init);
            }
            DeliveryMode::StartUp => {
                if self.waits_for_sipi.swap(false, Ordering::AcqRel) {
                    self.signal(CpuSignal::Sipi(vector));
                }
            }
            DeliveryMode::ExtInt => {
                self.ext_int.store(true, Ordering::Release);
                self.signal(CpuSignal::Intr);
            }
        }
    }

    fn logical_matches(&self, dest: u32) -> bool {
        if dest == u32::MAX {
            return true;
        }
        match self.mode() {
            Mode::Disabled => false,
            Mode::X2Apic => {
                let own = self.snapshot_ldr();
                own >> 16 == dest >> 16 && own & dest & 0xffff != 0
            }
            Mode::XApic => {
                let own = self.ldr.load(Ordering::Acquire) >> 24;
                if dest > 0xff {
                    return false;
                }
                // DFR bits 31:28: 1111 flat, 0000 clusters of four.
                if self.dfr.load(Ordering::Acquire) >> 28 == 0x0f {
                    own & dest != 0
                } else {
                    own >> 4 == dest >> 4 && own & dest & 0x0f != 0
                }
            }
        }
    }

    fn snapshot_ldr(&self) -> u32 {
        (self.id >> 4).wrapping_shl(16) | 1u32.wrapping_shl(self.id & 0x0f)
    }

    /// IA32_APIC_BASE.
    pub fn apic_base(&self) -> u64 {
        self.base.load(Ordering::Acquire)
    }

    /// Writes IA32_APIC_BASE; refuses what the CPU answers with #GP (11.12.1).
    pub fn set_apic_base(&self, value: u64) -> Result<(), Fault> {
        // Bits 7:0 and 9 and all above the page number are reserved.
        const RESERVED: u64 = 0xfff0_0000_0000_02ff;
        let (enable, extd) = (value & base::ENABLE != 0, value & base::EXTD != 0);
        let allowed = match (self.mode(), enable, extd) {
            (_, false, true) => false,
            (Mode::Disabled, true, true) | (Mode::X2Apic, true, false) => false,
            (_, true, true) => self.has_x2apic,
            _ => true,
        };
        if value & RESERVED != 0 || !allowed {
            return Err(Fault::BadValue);
        }
        let was = self.mode();
        // The bootstrap flag is a fact, not a choice.
        let bsp = if self.is_bsp { base::BSP } else { 0 };
        self.base
            .store((value & !base::BSP) | bsp, Ordering::Release);
        if !enable && was != Mode::Disabled {
            let kept = (
                self.apic_base(),
                self.waits_for_sipi.load(Ordering::Acquire),
            );
            self.set_snapshot(&LapicState {
                apic_base: kept.0,
                waits_for_sipi: kept.1,
                ..LapicState::new(self.id, self.is_bsp)
            });
            self.timer.rearm();
        }
        self.recheck();
        Ok(())
    }

    /// CR8: the upper half of the task priority.
    pub fn cr8(&self) -> u8 {
        (self.tpr.load(Ordering::Acquire) >> 4) as u8 & 0x0f
    }

    /// Writes CR8.
    pub fn set_cr8(&self, value: u8) {
        self.set_tpr(u32::from(value & 0x0f) << 4);
    }

    fn set_tpr(&self, value: u32) {
        self.tpr.store(value & 0xff, Ordering::Release);
        self.recheck();
    }

    /// IA32_TSC_DEADLINE: 0 unless armed.
    pub fn tsc_deadline(&self) -> u64 {
        self.timer.lock().tsc_deadline
    }

    /// Writes IA32_TSC_DEADLINE. `at_ns` is the virtual time at which the CPU's TSC will have that
    /// value; a past one fires at once. Ignored unless the timer is in TSC-deadline mode.
    pub fn set_tsc_deadline(&self, value: u64, at_ns: u64) {
        if self.lvt_entry(lvt_index::TIMER) & lvt::TIMER_MODE == lvt::TSC_DEADLINE
            && self.timer.set_tsc_deadline(value, at_ns)
        {
            self.deliver_local(lvt_index::TIMER);
        }
    }

    /// Whether the CPU waits for a start-up message: after reset and INIT, but for the bootstrap
    /// processor.
    pub fn waits_for_sipi(&self) -> bool {
        self.waits_for_sipi.load(Ordering::Acquire)
    }

    /// The registers' part of an INIT: called by the owning CPU when it acts on
    /// [`CpuSignal::Init`]. Base and id stay (11.4.7.3).
    pub fn init_reset(&self) {
        self.set_snapshot(&LapicState {
            apic_base: self.apic_base(),
            waits_for_sipi: self.waits_for_sipi(),
            ..LapicState::new(self.id, self.is_bsp)
        });
        self.timer.rearm();
    }

    /// The state, to save or to hand to an accelerator's controller.
    pub fn snapshot(&self) -> LapicState {
        let timer = self.timer.lock();
        LapicState {
            apic_base: self.apic_base(),
            id: self.id,
            tpr: self.tpr.load(Ordering::Acquire) as u8,
            ldr: self.ldr.load(Ordering::Acquire),
            dfr: self.dfr.load(Ordering::Acquire),
            svr: self.svr.load(Ordering::Acquire),
            isr: self.isr.load(),
            tmr: self.tmr.load(),
            irr: self.irr.load(),
            esr: self.esr.load(Ordering::Acquire),
            esr_pending: self.esr_pending.load(Ordering::Acquire),
            icr: self.icr.load(Ordering::Acquire),
            lvt: std::array::from_fn(|n| self.lvt_entry(n)),
            initial_count: timer.initial_count,
            divide: timer.divide,
            started_ns: timer.started_ns,
            fires_ns: timer.fires_ns,
            tsc_deadline: timer.tsc_deadline,
            ext_int: self.ext_int.load(Ordering::Acquire),
            waits_for_sipi: self.waits_for_sipi(),
        }
    }

    /// Takes over a state. The deadline is not armed and the CPU not told before
    /// [`resume`](Self::resume).
    pub fn set_snapshot(&self, state: &LapicState) {
        self.base.store(state.apic_base, Ordering::Release);
        self.tpr.store(state.tpr.into(), Ordering::Release);
        self.ldr.store(state.ldr, Ordering::Release);
        self.dfr.store(state.dfr, Ordering::Release);
        self.svr.store(state.svr, Ordering::Release);
        self.isr.store(state.isr);
        self.tmr.store(state.tmr);
        self.irr.store(state.irr);
        self.esr.store(state.esr, Ordering::Release);
        self.esr_pending.store(state.esr_pending, Ordering::Release);
        self.icr.store(state.icr, Ordering::Release);
        for (slot, entry) in self.lvt.iter().zip(state.lvt) {
            slot.store(entry, Ordering::Release);
        }
        self.ext_int.store(state.ext_int, Ordering::Release);
        self.waits_for_sipi
            .store(state.waits_for_sipi, Ordering::Release);
        let mut timer = self.timer.lock();
        timer.initial_count = state.initial_count;
        timer.divide = state.divide;
        timer.started_ns = state.started_ns;
        timer.fires_ns = state.fires_ns;
        timer.tsc_deadline = state.tsc_deadline;
    }

    /// Deadline and CPU follow the state: after a reset or restore.
    pub fn resume(&self) {
        self.timer.rearm();
        self.recheck();
    }
}
