//! x86's side of the run loop: interrupts, INIT and start-up messages, ports, MSRs.

use std::io;
use std::sync::Arc;

use accel_core::{Pending, VcpuExit, reason};
use target_x86::system::CpuState;
use target_x86::{Port, Segment};

use super::exit::{Entry, Exit};
use super::{Chips, Mode};
use crate::bus::{Bus, number};
use crate::run::{Loop, Parts};

const APIC_BASE: u32 = 0x1b;
const TSC_DEADLINE: u32 = 0x6e0;
/// Refused MSRs are logged this often in a CPU's life.
const LOGGED: u32 = 16;

/// What the board gives a CPU beside memory.
pub(crate) struct Board {
    pub(crate) port: Box<dyn Port>,
    pub(crate) chips: Arc<dyn Chips>,
}

/// One CPU's loop.
pub(crate) struct PcLoop<E> {
    pub(crate) parts: Parts<E>,
    pub(crate) board: Board,
    pub(crate) mode: Mode,
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
    logged: u32,
}

impl<E: Entry> PcLoop<E> {
    pub(crate) fn new(
        entry: E,
        bus: Bus,
        board: Board,
        mode: Mode,
        pending: Arc<Pending>,
        initial: CpuState,
    ) -> Self {
        PcLoop {
            parts: Parts::new(entry, bus, pending),
            board,
            mode,
            initial,
            intr: false,
            ready: false,
            interrupts: false,
            apic_base: 0,
            halted: false,
            wait_for_sipi: false,
            logged: 0,
        }
    }

    /// The state was replaced: what was known of the old one is not true any more.
    #[cfg(all(target_os = "linux", target_arch = "x86_64"))]
    pub(crate) fn replaced(&mut self, state: &CpuState) {
        self.parts.open = false;
        self.ready = false;
        self.intr = true;
        self.interrupts = state.rflags & 1 << 9 != 0;
        self.apic_base = self.board.port.apic_read(APIC_BASE).unwrap_or(0);
        self.halted = state.halted && self.mode == Mode::User;
        self.wait_for_sipi = state.wait_for_sipi && self.mode == Mode::User;
    }

    fn io(&mut self, write: bool, port: u16, size: u8, count: u32) {
        let step = usize::from(size.clamp(1, 4));
        let data = self.parts.entry.io_data();
        for value in data.chunks_mut(step).take(count as usize) {
            if write {
                let value = number(value) as u32;
                self.board
                    .port
                    .io_out(self.parts.bus.index, port, size, value);
            } else {
                let read = self.board.port.io_in(self.parts.bus.index, port, size);
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
            Some(value) if ours => self.board.port.apic_write(index, value).map(|()| 0),
            None if ours => self.board.port.apic_read(index),
            None if self.mode == Mode::User && index == TSC_DEADLINE => Some(0),
            _ => None,
        };
        if answer.is_none() && self.logged < LOGGED {
            self.logged += 1;
            log::debug!("CPU {}: MSR {index:#x} is refused", self.parts.bus.index);
        }
        answer
    }

    /// INIT (SDM vol. 3, 9.1): MSRs, caches, x87 and SSE stay.
    fn init(&mut self) {
        self.board.port.init();
        let initial = self.initial.clone();
        let changed = self.parts.entry.change(&mut |state| {
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
        self.wait_for_sipi = self.parts.bus.index != 0;
        self.ready = false;
        self.interrupts = false;
        if let Err(error) = changed {
            log::error!("CPU {}: INIT: {error}", self.parts.bus.index);
        }
    }

    /// A start-up message: real mode at `vector << 12`.
    fn start(&mut self) {
        let vector = self.board.port.sipi_vector();
        let changed = self.parts.entry.change(&mut |state| {
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
            log::error!("CPU {}: start-up: {error}", self.parts.bus.index);
        }
    }
}

impl<E: Entry> Loop for PcLoop<E> {
    type Entry = E;

    fn parts(&mut self) -> &mut Parts<E> {
        &mut self.parts
    }

    fn heed(&mut self) -> Option<VcpuExit> {
        let word = self.parts.pending.take(!reason::STOP);
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
            if let Err(error) = self.parts.entry.nmi() {
                log::warn!("CPU {}: the NMI is lost: {error}", self.parts.bus.index);
            }
        }
        if self.parts.pending.get() & reason::STOP != 0 {
            return Some(self.finish().err().unwrap_or(VcpuExit::Stopped));
        }
        if self.wait_for_sipi {
            self.parts
                .pending
                .wait(reason::INIT | reason::SIPI | reason::STOP);
            return Some(VcpuExit::Again);
        }
        if self.halted {
            if self.intr && self.interrupts && self.board.port.has_interrupt() {
                self.halted = false;
                return None;
            }
            let wake = reason::INIT | reason::NMI | reason::INTR;
            self.parts.pending.wait(wake | reason::STOP);
            return Some(VcpuExit::Again);
        }
        None
    }

    fn prepare(&mut self) -> io::Result<()> {
        if self.mode == Mode::Kernel {
            return Ok(());
        }
        if self.intr {
            if self.ready
                && let Some(vector) = self.board.port.ack()
            {
                self.parts.entry.interrupt(vector)?;
                self.ready = false;
            }
            // What comes later raises the bit by itself.
            self.intr = self.board.port.has_interrupt();
        }
        self.parts.entry.set_window(self.intr);
        if self.mode == Mode::User {
            self.parts.entry.set_cr8(self.board.port.cr8());
        }
        Ok(())
    }

    fn after(&mut self) {
        if self.mode == Mode::Kernel {
            return;
        }
        let flags = self.parts.entry.flags();
        self.ready = flags.ready;
        self.interrupts = flags.interrupts;
        if self.mode == Mode::User {
            if flags.cr8 != self.board.port.cr8() {
                self.board.port.set_cr8(flags.cr8);
            }
            if flags.apic_base != self.apic_base {
                self.apic_base = flags.apic_base;
                let _ = self.board.port.apic_write(APIC_BASE, flags.apic_base);
            }
        }
    }

    fn own(&mut self, exit: Exit) -> VcpuExit {
        match exit {
            Exit::IrqWindowOpen => {}
            Exit::Io {
                write,
                port,
                size,
                count,
            } => {
                self.parts.open = true;
                self.io(write, port, size, count);
            }
            Exit::Hlt => self.halted = true,
            Exit::IoapicEoi(vector) => self.board.chips.eoi(vector),
            Exit::Msr { index, write } => {
                self.parts.open = true;
                let answer = self.msr(index, write);
                self.parts.entry.answer_msr(answer);
            }
            Exit::Shutdown => return VcpuExit::Shutdown,
        }
        VcpuExit::Again
    }
}
