//! The emulated CPU in any mode, with the state that the oracle takes.

use std::sync::Arc;

use accel_core::{Executor, Exit, Source, Target};
use hw_clock::Clock;
use hw_memory::{MemoryMap, PAGE_SIZE, RamBlock};
use target_x86::system::{self, CpuModel, Topology};
use target_x86::{Core, NoPort, SegmentIndex, X86, decode, regs};
use test_native::kvm::{Stop, SystemState};

use crate::machine::ram;

/// Instructions a run may execute.
const BUDGET: i64 = 200_000;

fn cpu(index: u32, map: MemoryMap) -> Core {
    system::new_core(
        index,
        Arc::new(CpuModel::default()),
        Topology::default(),
        Box::new(NoPort { a20: true }),
        map,
        Clock::manual().0,
    )
}

/// A CPU and its memory, from physical address 0 on.
pub struct EmulatedSystem {
    core: Core,
    engine: Box<dyn Executor<X86>>,
    memory: Arc<RamBlock>,
}

impl EmulatedSystem {
    /// A CPU with `len` bytes of memory.
    pub fn new(len: usize, engine: Box<dyn Executor<X86>>) -> Self {
        let map = MemoryMap::default();
        let memory = ram(&map, "memory", 0, len as u64);
        EmulatedSystem {
            core: cpu(0, map),
            engine,
            memory,
        }
    }

    /// Another CPU with the same memory.
    pub fn beside(&self, engine: Box<dyn Executor<X86>>) -> Self {
        EmulatedSystem {
            core: cpu(1, self.map().clone()),
            engine,
            memory: self.memory.clone(),
        }
    }

    /// The map that `memory` is in, to put more there.
    pub fn map(&self) -> &MemoryMap {
        self.core.mmu.map()
    }

    /// What the executor counts.
    pub fn report(&self) -> Vec<(&'static str, u64)> {
        self.engine.report()
    }

    /// Instructions executed.
    pub fn insns(&self) -> u64 {
        self.core.counters.insns
    }

    /// Copies memory out.
    pub fn read(&self, out: &mut [u8]) {
        self.memory.read(0, out);
    }

    /// Writes the pages of `wanted` that differ from `now`.
    pub fn restore(&mut self, now: &[u8], wanted: &[u8]) {
        let pages = now
            .chunks(PAGE_SIZE as usize)
            .zip(wanted.chunks(PAGE_SIZE as usize));
        for (n, (now, wanted)) in pages.enumerate() {
            if now != wanted {
                self.memory.write(n as u64 * PAGE_SIZE, wanted);
            }
        }
    }

    fn load(&mut self, state: &SystemState) {
        let core = &mut self.core;
        for (n, value) in state.gpr.iter().enumerate() {
            core.regs.set(regs::gpr(n), *value);
        }
        let arch = &mut core.arch;
        arch.segments = state.segments;
        (arch.tr, arch.ldtr) = (state.tr, state.ldtr);
        (arch.gdtr, arch.idtr) = (state.gdtr, state.idtr);
        (arch.cr0, arch.cr2, arch.cr3) = (state.cr0, state.cr2, state.cr3);
        (arch.cr4, arch.efer) = (state.cr4, state.efer);
        let vm86 = state.rflags & regs::rflags::VM != 0;
        arch.cpl = if vm86 {
            3
        } else if state.cr0 & 1 == 0 {
            0
        } else {
            arch.segments[SegmentIndex::Ss as usize].dpl()
        };
        arch.exception = None;
        arch.halted = false;
        arch.shadow = false;
        for (n, s) in state.segments.iter().enumerate() {
            core.regs.set(regs::base(n), s.base);
        }
        core.regs
            .set(regs::RFLAGS, state.rflags & regs::rflags::SYSTEM);
        decode::set_arithmetic_flags(core, state.rflags);
        core.set_pc(state.rip);
        core.mmu.sync_map();
        core.mmu.flush_all();
        decode::refresh(core);
    }

    fn store(&self, state: &mut SystemState) {
        let core = &self.core;
        for (n, value) in state.gpr.iter_mut().enumerate() {
            *value = core.regs.get(regs::gpr(n));
        }
        state.rip = core.pc();
        state.rflags =
            core.regs.get(regs::RFLAGS) | decode::arithmetic_flags(core) | regs::rflags::FIXED;
        let arch = &core.arch;
        state.segments = arch.segments;
        (state.tr, state.ldtr) = (arch.tr, arch.ldtr);
        (state.gdtr, state.idtr) = (arch.gdtr, arch.idtr);
        (state.cr0, state.cr2, state.cr3) = (arch.cr0, arch.cr2, arch.cr3);
        (state.cr4, state.efer) = (arch.cr4, arch.efer);
    }

    /// Translates at `state`'s RIP without executing: the unit in text form, verified.
    pub fn translate(&mut self, state: &SystemState) -> Result<String, String> {
        self.load(state);
        let core = &mut self.core;
        let va = <X86 as Target>::fetch_address(core);
        let ctx = <X86 as Target>::fetch_ctx(core);
        let mut source = Source::new(core, va, ctx).map_err(|t| format!("fetch: {t:?}"))?;
        let unit = <X86 as Target>::translate(core, &mut source, 32)
            .map_err(|t| format!("translate: {t:?}"))?;
        accel_ir::verify(&unit).map_err(|e| format!("{e}: {unit}"))?;
        Ok(unit.to_string())
    }

    /// Writes to memory.
    pub fn write(&mut self, at: u64, bytes: &[u8]) {
        self.memory.write(at, bytes);
    }

    /// Runs from `state` until something ends it.
    pub fn run(&mut self, state: &mut SystemState) -> Stop {
        self.run_for(state, BUDGET)
    }

    /// As [`run`](Self::run), but so many instructions.
    pub fn run_for(&mut self, state: &mut SystemState, budget: i64) -> Stop {
        self.load(state);
        self.core.budget = budget;
        let stop = loop {
            match self.engine.run(&mut self.core) {
                Exit::Halted => break Stop::Halted,
                Exit::Shutdown => break Stop::Shutdown,
                Exit::Yield => std::thread::yield_now(),
                // One CPU is always alone.
                Exit::Exclusive if !self.core.alone => self.core.alone = true,
                _ => break Stop::Other,
            }
        };
        self.core.alone = false;
        self.store(state);
        stop
    }

    /// Runs from `state` to where KVM leaves a HLT with TF set that ends at `rip`: after the HLT, but
    /// before the single-step trap that it owes. `None` if that is never reached.
    pub fn run_through_traced_halt(&mut self, state: &mut SystemState, rip: u64) -> Option<()> {
        const HLT: u8 = 0xf4;
        self.load(state);
        for _ in 0..BUDGET {
            let core = &self.core;
            let traced = core.regs.get(regs::RFLAGS) & regs::rflags::TF != 0;
            if traced && core.pc().wrapping_add(1) == rip {
                let mut byte = [0];
                let at = <X86 as Target>::fetch_address(core);
                // Paging is off in the modes that need this.
                self.memory.read(at, &mut byte)?;
                if byte == [HLT] {
                    self.core.set_pc(rip);
                    self.store(state);
                    return Some(());
                }
            }
            self.core.budget = 1;
            match self.engine.run(&mut self.core) {
                Exit::Budget | Exit::Yield => {}
                Exit::Exclusive if !self.core.alone => self.core.alone = true,
                _ => break,
            }
        }
        self.core.alone = false;
        None
    }
}
