//! The state of one CPU as executors and targets share it.

use std::sync::Arc;

use accel_ir::FpHost;
use accel_softmmu::Mmu;
use hw_clock::Clock;
use hw_memory::{Attrs, Initiator, MemoryMap};

use crate::logs::LogFilter;
use crate::pending::Pending;
use crate::target::{Exit, Target, Trap};

/// First scratch slot: slots from here on belong to the executor and hold nothing between units.
pub const SCRATCH: usize = 256;

/// The guest's register file, and an executor's scratch slots behind it. The only part of a CPU that
/// IR addresses. Slot numbers are the target's.
#[derive(Clone)]
#[repr(C, align(64))]
pub struct RegFile {
    slots: [u64; 512],
}

impl Default for RegFile {
    fn default() -> Self {
        RegFile { slots: [0; 512] }
    }
}

impl RegFile {
    /// A slot's value.
    #[inline(always)]
    pub fn get(&self, slot: accel_ir::Slot) -> u64 {
        self.slots[slot.0 as usize]
    }

    /// Sets a slot.
    #[inline(always)]
    pub fn set(&mut self, slot: accel_ir::Slot, value: u64) {
        self.slots[slot.0 as usize] = value;
    }

    /// Two consecutive slots as a vector.
    #[inline(always)]
    pub fn get_v(&self, slot: accel_ir::Slot) -> u128 {
        let i = slot.0 as usize;
        u128::from(self.slots[i]) | u128::from(self.slots[i + 1]) << 64
    }

    /// Sets two consecutive slots.
    #[inline(always)]
    pub fn set_v(&mut self, slot: accel_ir::Slot, value: u128) {
        let i = slot.0 as usize;
        self.slots[i] = value as u64;
        self.slots[i + 1] = (value >> 64) as u64;
    }

    /// All slots, for executors. Indices are masked by their length.
    #[inline(always)]
    pub fn raw(&mut self) -> &mut [u64; 512] {
        &mut self.slots
    }

    /// The guest's slots.
    pub fn guest(&self) -> &[u64] {
        &self.slots[..SCRATCH]
    }
}

/// What an executor counted, for `info jit` and tests.
#[derive(Clone, Copy, Default, Debug)]
pub struct Counters {
    /// Guest instructions executed.
    pub insns: u64,
    /// Units translated.
    pub units: u64,
    /// Guest instructions in them.
    pub unit_insns: u64,
    /// Units thrown away because their code was overwritten.
    pub stale: u64,
    /// Page walks.
    pub walks: u64,
    /// Exceptions and interrupts delivered.
    pub exceptions: u64,
}

/// One CPU.
pub struct Core<T: Target> {
    /// Registers.
    pub regs: RegFile,
    /// Everything that decoding depends on beside the bytes, packed: part of every unit's key. The
    /// target keeps it current.
    pub mode: u64,
    /// Guest instructions left in this slice; execution leaves when it is used up.
    pub budget: i64,
    /// Set when a store hit translated code: the unit is left after the instruction.
    pub code_hit: bool,
    /// The instruction that is being executed is to be the last of its unit.
    pub last_insn: bool,
    /// What ended the last run of generated code early.
    pub trap: Option<Trap>,
    /// Set while all other CPUs are parked: atomics may be done in pieces.
    pub alone: bool,
    /// A unit that is not needed any more, for its memory.
    pub spare: accel_ir::Unit,
    /// No other CPU ever runs while this one does: atomics may be done in pieces, and are no fences.
    pub sole: bool,
    /// What floating-point operations its executor has.
    pub fp_host: FpHost,
    /// The unit that is being executed is of one instruction, and [`Target::after_step`] follows.
    pub stepping: bool,
    /// Each instruction is to be a unit of its own.
    pub single: bool,
    /// Called before each unit that is entered, for logs.
    pub on_unit: Option<fn(&mut Core<T>)>,
    /// What code is logged.
    pub log_filter: LogFilter,
    /// Attributes of this CPU's accesses now.
    pub attrs: Attrs,
    /// Translations and memory.
    pub mmu: Mmu,
    /// All other state of the guest's CPU.
    pub arch: T::State,
    /// What the board wired to it.
    pub port: Box<T::Port>,
    /// Its pending word.
    pub pending: Arc<Pending>,
    /// Time.
    pub clock: Clock,
    /// Its number.
    pub index: u32,
    /// Statistics.
    pub counters: Counters,
}

impl<T: Target> Core<T> {
    /// A CPU after power-on, as `arch` describes; the target's reset fills the registers.
    pub fn new(
        index: u32,
        arch: T::State,
        port: Box<T::Port>,
        memory: MemoryMap,
        clock: Clock,
    ) -> Self {
        Core {
            regs: RegFile::default(),
            mode: 0,
            budget: 0,
            code_hit: false,
            last_insn: false,
            trap: None,
            alone: false,
            sole: false,
            fp_host: FpHost::ALL,
            stepping: false,
            spare: accel_ir::Unit::default(),
            single: false,
            on_unit: None,
            log_filter: LogFilter::default(),
            attrs: Attrs::default(),
            mmu: Mmu::new(memory, Initiator::Cpu(index)),
            arch,
            port,
            pending: Arc::default(),
            clock,
            index,
            counters: Counters::default(),
        }
    }

    /// The PC slot.
    #[inline(always)]
    pub fn pc(&self) -> u64 {
        self.regs.get(T::LAYOUT.pc)
    }

    /// Sets the PC slot.
    #[inline(always)]
    pub fn set_pc(&mut self, pc: u64) {
        self.regs.set(T::LAYOUT.pc, pc);
    }

    /// Most instructions the next unit may have.
    pub fn unit_limit(&self) -> u32 {
        let near_watch = || self.mmu.is_watching() && self.mmu.watches_code(T::fetch_address(self));
        if self.alone || self.single || near_watch() {
            1
        } else {
            T::unit_limit(self)
        }
    }

    /// Has the unit left after the instruction that is being executed. A bit of the pending word says
    /// what is to be done then.
    pub fn leave_after(&mut self, why: u32) {
        self.code_hit = true;
        self.last_insn = true;
        self.pending.raise(why);
    }

    /// Acts on a trap. `at` is the PC of the instruction that trapped and its number in the unit from
    /// 1; `None` if the fetch did. Returns an exit if the CPU stops.
    #[cold]
    pub fn after_trap(&mut self, trap: Trap, at: Option<(u64, u64)>) -> Result<(), Exit> {
        self.code_hit = false;
        self.last_insn = false;
        let (pc, done) = at.unwrap_or((self.pc(), 0));
        let complete = !matches!(trap, Trap::Exception | Trap::Exclusive);
        let count = if complete {
            done
        } else {
            done.saturating_sub(1)
        };
        self.budget -= count as i64;
        self.counters.insns += count;
        match trap {
            Trap::Exception => {
                self.set_pc(pc);
                self.counters.exceptions += 1;
                self.budget -= 1;
                T::deliver(self)
            }
            Trap::After => {
                self.counters.exceptions += 1;
                T::deliver(self)
            }
            Trap::Leave => Ok(()),
            Trap::Exclusive => {
                self.set_pc(pc);
                Err(Exit::Exclusive)
            }
            Trap::Exit(exit) => Err(exit),
        }
    }
}
