//! The run loop: what is pending goes in, exits are answered by the board.

use std::sync::Arc;

use accel_core::{Pending, VcpuExit, reason};
use hw_core::{Attrs, ByteOrder, Initiator, Request, Requests};
use hw_memory::{MemoryMap, Snapshot};
use target_x86::system::CpuState;
use target_x86::{Port, Segment};

use crate::exit::{Entry, Exit};
use crate::{Chips, Mode};

const APIC_BASE: u32 = 0x1b;
const TSC_DEADLINE: u32 = 0x6e0;
/// System events (`KVM_SYSTEM_EVENT_*`).
const EVENT_SHUTDOWN: u32 = 1;
const EVENT_RESET: u32 = 2;
const EVENT_CRASH: u32 = 3;
const EVENT_WAKEUP: u32 = 4;
const EVENT_SUSPEND: u32 = 5;
const EVENT_SEV_TERM: u32 = 6;
/// Most exits that completing one instruction may take: a page-crossing string operation has a few.
const MOST_EXITS: u32 = 64;
/// Refused MSRs are logged this often in a CPU's life.
const LOGGED: u32 = 16;

/// What the board gives a CPU.
pub(crate) struct Bus {
    pub(crate) index: u32,
    pub(crate) port: Box<dyn Port>,
    pub(crate) memory: MemoryMap,
    pub(crate) snapshot: Arc<Snapshot>,
    pub(crate) chips: Arc<dyn Chips>,
    pub(crate) requests: Requests,
}

impl Bus {
    fn sync(&mut self) {
        if self.snapshot.generation() != self.memory.generation() {
            self.snapshot = self.memory.snapshot();
        }
    }

    /// The accesses that `len` bytes are made in: one, if the size is one that instructions have.
    fn pieces(len: u8) -> (u8, u8) {
        if matches!(len, 1 | 2 | 4 | 8) {
            (1, len)
        } else {
            (len, 1)
        }
    }

    fn read(&mut self, address: u64, len: u8) -> [u8; 8] {
        self.sync();
        let (count, size) = Self::pieces(len.min(8));
        let mut data = [0xff; 8];
        for (n, piece) in data.chunks_mut(size.into()).take(count.into()).enumerate() {
            let at = address.wrapping_add(n as u64 * u64::from(size));
            let by = Initiator::Cpu(self.index);
            // What nobody answers reads as ones.
            let value = self
                .snapshot
                .read(at, size, ByteOrder::Little, by, Attrs::default())
                .unwrap_or(u64::MAX);
            for (to, from) in piece.iter_mut().zip(value.to_le_bytes()) {
                *to = from;
            }
        }
        data
    }

    fn write(&mut self, address: u64, len: u8, data: [u8; 8]) {
        self.sync();
        let (count, size) = Self::pieces(len.min(8));
        for (n, piece) in data.chunks(size.into()).take(count.into()).enumerate() {
            let at = address.wrapping_add(n as u64 * u64::from(size));
            let by = Initiator::Cpu(self.index);
            // Writes to nothing and to ROM are lost, as on hardware.
            let _ = self.snapshot.write(
                at,
                size,
                number(piece),
                ByteOrder::Little,
                by,
                Attrs::default(),
            );
        }
    }
}

fn number(bytes: &[u8]) -> u64 {
    bytes.iter().rev().fold(0, |v, b| v << 8 | u64::from(*b))
}

/// One CPU's loop.
pub(crate) struct Loop<E> {
    pub(crate) entry: E,
    pub(crate) bus: Bus,
    pub(crate) mode: Mode,
    pub(crate) pending: Arc<Pending>,
    /// The state after power-on: what INIT goes back to.
    pub(crate) initial: CpuState,
    /// The interrupt controller in user space may have a vector.
    intr: bool,
    /// The kernel takes an interrupt now.
    ready: bool,
    interrupts: bool,
    apic_base: u64,
    /// Waits after HLT; only where the local APIC is in user space, else the kernel waits.
    pub(crate) halted: bool,
    /// Waits for a start-up message; as above.
    pub(crate) wait_for_sipi: bool,
    /// The last exit's instruction is completed by the next entry.
    open: bool,
    logged: u32,
}

impl<E: Entry> Loop<E> {
    pub(crate) fn new(
        entry: E,
        bus: Bus,
        mode: Mode,
        pending: Arc<Pending>,
        initial: CpuState,
    ) -> Self {
        Loop {
            entry,
            bus,
            mode,
            pending,
            initial,
            intr: false,
            ready: false,
            interrupts: false,
            apic_base: 0,
            halted: false,
            wait_for_sipi: false,
            open: false,
            logged: 0,
        }
    }

    /// The state was replaced: what was known of the old one is not true any more.
    pub(crate) fn replaced(&mut self, state: &CpuState) {
        self.open = false;
        self.ready = false;
        self.intr = true;
        self.interrupts = state.rflags & 1 << 9 != 0;
        self.apic_base = self.bus.port.apic_read(APIC_BASE).unwrap_or(0);
        self.halted = state.halted && self.mode == Mode::User;
        self.wait_for_sipi = state.wait_for_sipi && self.mode == Mode::User;
    }

    /// One entry and its exit, or one wait.
    pub(crate) fn step(&mut self) -> VcpuExit {
        if let Some(exit) = self.heed() {
            return exit;
        }
        if let Err(error) = self.prepare() {
            return self.failed(&format!("cannot inject an interrupt: {error}"));
        }
        let entered = self.entry.enter(&self.pending);
        match entered {
            // What was injected still waits in the kernel: `ready` must not be believed again.
            Ok(None) => VcpuExit::Again,
            Ok(Some(Exit::Intr)) => {
                self.after();
                VcpuExit::Again
            }
            Ok(Some(exit)) => {
                self.open = false;
                self.after();
                self.handle(exit)
            }
            Err(error) => self.failed(&format!("KVM_RUN: {error}")),
        }
    }

    fn failed(&self, why: &str) -> VcpuExit {
        VcpuExit::Failed(format!("CPU {}: {why}", self.bus.index))
    }

    /// Acts on the pending word; `Some` if the guest is not to be entered now.
    fn heed(&mut self) -> Option<VcpuExit> {
        let word = self.pending.take(!reason::STOP);
        if word & reason::INTR != 0 {
            self.intr = true;
        }
        let user = self.mode == Mode::User;
        if user && word & (reason::INIT | reason::SIPI) != 0 {
            if let Err(error) = self.finish() {
                return Some(error);
            }
            if word & reason::INIT != 0 {
                self.init();
            }
            if word & reason::SIPI != 0 && self.wait_for_sipi {
                self.start();
            }
        }
        if word & reason::NMI != 0 && !self.wait_for_sipi {
            self.halted = false;
            if let Err(error) = self.entry.nmi() {
                log::warn!("CPU {}: the NMI is lost: {error}", self.bus.index);
            }
        }
        if self.pending.get() & reason::STOP != 0 {
            return Some(self.finish().err().unwrap_or(VcpuExit::Stopped));
        }
        if self.wait_for_sipi {
            self.pending
                .wait(reason::INIT | reason::SIPI | reason::STOP);
            return Some(VcpuExit::Again);
        }
        if self.halted {
            if self.intr && self.interrupts && self.bus.port.has_interrupt() {
                self.halted = false;
                return None;
            }
            let wake = reason::INIT | reason::NMI | reason::INTR;
            self.pending.wait(wake | reason::STOP);
            return Some(VcpuExit::Again);
        }
        None
    }

    /// Hands over what a controller in user space has.
    fn prepare(&mut self) -> std::io::Result<()> {
        if self.mode == Mode::Kernel {
            return Ok(());
        }
        if self.intr {
            if self.ready
                && let Some(vector) = self.bus.port.ack()
            {
                self.entry.interrupt(vector)?;
                self.ready = false;
            }
            // What comes later raises the bit by itself.
            self.intr = self.bus.port.has_interrupt();
        }
        self.entry.set_window(self.intr);
        if self.mode == Mode::User {
            self.entry.set_cr8(self.bus.port.cr8());
        }
        Ok(())
    }

    /// Takes over what the kernel told with the exit.
    fn after(&mut self) {
        if self.mode == Mode::Kernel {
            return;
        }
        let flags = self.entry.flags();
        self.ready = flags.ready;
        self.interrupts = flags.interrupts;
        if self.mode == Mode::User {
            if flags.cr8 != self.bus.port.cr8() {
                self.bus.port.set_cr8(flags.cr8);
            }
            if flags.apic_base != self.apic_base {
                self.apic_base = flags.apic_base;
                let _ = self.bus.port.apic_write(APIC_BASE, flags.apic_base);
            }
        }
    }

    fn handle(&mut self, exit: Exit) -> VcpuExit {
        match exit {
            Exit::Intr | Exit::IrqWindowOpen | Exit::Debug => {}
            Exit::Io {
                write,
                port,
                size,
                count,
            } => {
                self.open = true;
                self.io(write, port, size, count);
            }
            Exit::Mmio {
                write,
                address,
                len,
                data,
            } => {
                self.open = true;
                if write {
                    self.bus.write(address, len, data);
                } else {
                    let data = self.bus.read(address, len);
                    self.entry.answer_mmio(data);
                }
            }
            Exit::Hlt => self.halted = true,
            Exit::IoapicEoi(vector) => self.bus.chips.eoi(vector),
            Exit::Msr { index, write } => {
                self.open = true;
                let answer = self.msr(index, write);
                self.entry.answer_msr(answer);
            }
            Exit::SystemEvent(EVENT_SHUTDOWN) => self.bus.requests.post(Request::PowerOff),
            Exit::SystemEvent(EVENT_RESET) => self.bus.requests.post(Request::Reset),
            Exit::SystemEvent(EVENT_CRASH) => self.bus.requests.post(Request::Panicked),
            Exit::SystemEvent(EVENT_WAKEUP) => self.bus.requests.post(Request::WakeUp),
            Exit::SystemEvent(EVENT_SUSPEND) => self.bus.requests.post(Request::Suspend),
            Exit::SystemEvent(EVENT_SEV_TERM) => {
                return self
                    .failed("the guest ended itself as an encrypted machine, which it is not");
            }
            Exit::SystemEvent(other) => {
                return self.failed(&format!("unknown KVM system event {other}"));
            }
            Exit::Shutdown => return VcpuExit::Shutdown,
            Exit::Failed(why) => return self.failed(&why),
        }
        VcpuExit::Again
    }

    fn io(&mut self, write: bool, port: u16, size: u8, count: u32) {
        let step = usize::from(size.clamp(1, 4));
        let data = self.entry.io_data();
        for value in data.chunks_mut(step).take(count as usize) {
            if write {
                let value = number(value) as u32;
                self.bus.port.io_out(self.bus.index, port, size, value);
            } else {
                let read = self.bus.port.io_in(self.bus.index, port, size);
                for (to, from) in value.iter_mut().zip(read.to_le_bytes()) {
                    *to = from;
                }
            }
        }
    }

    /// MSRs that the kernel does not know: those of a local APIC in user space are here.
    fn msr(&mut self, index: u32, write: Option<u64>) -> Option<u64> {
        let ours = self.mode == Mode::User && matches!(index, APIC_BASE | 0x800..=0x8ff);
        let answer = match write {
            Some(value) if ours => self.bus.port.apic_write(index, value).map(|()| 0),
            None if ours => self.bus.port.apic_read(index),
            None if self.mode == Mode::User && index == TSC_DEADLINE => Some(0),
            _ => None,
        };
        if answer.is_none() && self.logged < LOGGED {
            self.logged += 1;
            log::debug!("CPU {}: MSR {index:#x} is refused", self.bus.index);
        }
        answer
    }

    /// Completes an answered instruction, so that the state can be read or replaced.
    pub(crate) fn finish(&mut self) -> Result<(), VcpuExit> {
        for _ in 0..MOST_EXITS {
            if !self.open {
                return Ok(());
            }
            self.open = false;
            match self.entry.complete() {
                Ok(Exit::Intr) => return Ok(()),
                Ok(exit) => match self.handle(exit) {
                    VcpuExit::Again => {}
                    exit => return Err(exit),
                },
                Err(error) => return Err(self.failed(&format!("KVM_RUN: {error}"))),
            }
        }
        Ok(())
    }

    /// INIT (SDM vol. 3, 9.1): MSRs, caches, x87 and SSE stay.
    fn init(&mut self) {
        self.bus.port.init();
        let initial = self.initial.clone();
        let changed = self.entry.change(&mut |state| {
            let old = std::mem::replace(state, initial.clone());
            state.x87 = old.x87;
            state.xmm = old.xmm;
            state.mxcsr = old.mxcsr;
            state.msrs = old.msrs;
            state.xcr0 = old.xcr0;
            state.tsc_offset = old.tsc_offset;
            // CD and NW.
            let caches = 3 << 29;
            state.cr0 = state.cr0 & !caches | old.cr0 & caches;
        });
        self.halted = false;
        self.wait_for_sipi = self.bus.index != 0;
        self.ready = false;
        self.interrupts = false;
        if let Err(error) = changed {
            log::error!("CPU {}: INIT: {error}", self.bus.index);
        }
    }

    /// A start-up message: real mode at `vector << 12`.
    fn start(&mut self) {
        let vector = self.bus.port.sipi_vector();
        let changed = self.entry.change(&mut |state| {
            let [_, cs, ..] = &mut state.segments;
            *cs = Segment {
                selector: u16::from(vector) << 8,
                base: u64::from(vector) << 12,
                limit: 0xffff,
                attributes: 0x9b,
            };
            state.rip = 0;
            state.wait_for_sipi = false;
            state.halted = false;
        });
        self.wait_for_sipi = false;
        if let Err(error) = changed {
            log::error!("CPU {}: start-up: {error}", self.bus.index);
        }
    }
}
