//! What a guest architecture provides, and what an executor returns.

use accel_ir::{Slot, Unit};
use accel_softmmu::{Access, Translation};
use hw_memory::Fault;

use crate::core::Core;
use crate::source::Source;
use crate::x87::{X87Layout, X87Op};

/// Why an instruction could not complete.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Trap {
    /// The target has noted an exception in its state; it will be delivered with the PC at the
    /// instruction (faults) or where the helper put it (traps, see [`Trap::After`]).
    Exception,
    /// As `Exception`, but the instruction is complete: the PC slot is already right.
    After,
    /// The instruction is complete, the PC slot is right, and the unit must be left: mode, mapping
    /// or interruptibility changed.
    Leave,
    /// The instruction must run alone; the PC goes back to it.
    Exclusive,
    /// The instruction is complete, the PC slot is right, and the CPU stops executing for this
    /// reason.
    Exit(Exit),
}

/// Why an executor returns.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Exit {
    /// The slice is used up.
    Budget,
    /// The CPU waits for an interrupt.
    Halted,
    /// The CPU gave up its slice (PAUSE in a spin loop).
    Yield,
    /// Something in the pending word is not the target's business (STOP, PARK, WORK).
    Pending,
    /// The next instruction must run with all other CPUs parked.
    Exclusive,
    /// The CPU is dead (x86: triple fault).
    Shutdown,
    /// The engine itself cannot go on.
    Internal(&'static str),
}

/// State that a helper reads and writes, beyond its arguments and result.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Effects {
    /// Reads slots of the register file.
    pub reads_regs: bool,
    /// Writes slots of the register file.
    pub writes_regs: bool,
    /// May end in a [`Trap`].
    pub traps: bool,
}

impl Effects {
    /// A function of its arguments.
    pub const PURE: Effects = Effects {
        reads_regs: false,
        writes_regs: false,
        traps: false,
    };
    /// May do anything.
    pub const ALL: Effects = Effects {
        reads_regs: true,
        writes_regs: true,
        traps: true,
    };
}

/// A helper: called by both executors, never unwinds.
pub type HelperFn<T> = fn(&mut Core<T>, [u64; 4]) -> Result<u64, Trap>;

/// What a helper computes, where an executor may do so by itself.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Intrinsic {
    /// The quotient of a dividend of twice a width by a divisor: (high half, low half, divisor, width
    /// in bits). The helper is called whenever the quotient does not exist or may not fit the width.
    Divide {
        /// Operands and quotient are signed.
        signed: bool,
    },
    /// An instruction of an x87 or MMX unit, which [`Layout::x87`] says where to find.
    X87(X87Op),
}

/// A helper and what it touches. Every helper that may trap does so before it changes anything.
pub struct Helper<T: Target + 'static> {
    /// Name, for the text form.
    pub name: &'static str,
    /// The function.
    pub run: HelperFn<T>,
    /// What it touches.
    pub effects: Effects,
    /// What it computes.
    pub intrinsic: Option<Intrinsic>,
}

impl<T: Target> Helper<T> {
    /// Whether it is a function of its arguments, but for exceptions: it may be called twice, or not
    /// at all where an executor knows better.
    pub fn is_plain(&self) -> bool {
        self.effects == Effects::PURE || matches!(self.intrinsic, Some(Intrinsic::Divide { .. }))
    }
}

impl<T: Target> Clone for Helper<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T: Target> Copy for Helper<T> {}

/// One register of the register table: gdb, `info registers`, saved state and KVM read it.
#[derive(Clone, Copy, Debug)]
pub struct RegInfo {
    /// The manual's name, in lower case.
    pub name: &'static str,
    /// Its slot; a vector takes two.
    pub slot: Slot,
    /// Width in bits: up to 64, or 128.
    pub bits: u32,
}

/// The register file of a target.
#[derive(Clone, Copy, Debug)]
pub struct Layout {
    /// The program counter.
    pub pc: Slot,
    /// Four consecutive slots of lazy flags: kind and type ([`accel_ir::FlagKind::with`]), and the operands
    /// a, b and c.
    pub flags: Slot,
    /// The flags that the guest has, in EFLAGS' layout.
    pub seen_flags: u64,
    /// Control and sticky flags of floating point, laid out as the operations' `FpRules` say. An
    /// executor may keep it elsewhere (in the host's MXCSR), as long as the slot is right whenever
    /// IR gets it, a helper reads registers, or the unit is left.
    pub fp: Slot,
    /// The hottest slots, hottest first: a JIT keeps as many as it can in host registers. None of
    /// `pc` and `flags`.
    pub pinned: &'static [Slot],
    /// Where the x87 unit is, if there is one.
    pub x87: Option<X87Layout>,
    /// All registers.
    pub regs: &'static [RegInfo],
}

/// A guest architecture.
pub trait Target: Sized + Send + 'static {
    /// Name as in `-cpu` lists and logs.
    const NAME: &'static str;
    /// Register file.
    const LAYOUT: Layout;
    /// Most bytes of code that are offered for a unit.
    const UNIT_BYTES: usize = 512;
    /// All state outside the register file.
    type State: Send;
    /// What the board provides to the CPU: interrupt controller, ports, hypercalls.
    type Port: ?Sized + Send;

    /// The helper table.
    fn helpers() -> &'static [Helper<Self>];

    /// The address that the next instruction is fetched from.
    fn fetch_address(core: &Core<Self>) -> u64;

    /// What beside address and mode a unit depends on (a segment base).
    fn extra_key(core: &Core<Self>) -> u64 {
        let _ = core;
        0
    }

    /// Translation context of fetches in the current mode.
    fn fetch_ctx(core: &Core<Self>) -> u8;

    /// Most instructions the next unit may have (single-step, interrupt shadows).
    fn unit_limit(core: &Core<Self>) -> u32;

    /// Decodes from `source` on. Returns a unit of at least one instruction, or the trap of the
    /// first one. An undecodable instruction becomes a unit that raises the exception.
    fn translate(core: &mut Core<Self>, source: &mut Source, limit: u32) -> Result<Unit, Trap>;

    /// Guest code for people, a line for each instruction, from `start` on in the current mode.
    fn disassemble(core: &Core<Self>, start: u64, code: &[u8]) -> String {
        let _ = (core, start, code);
        String::new()
    }

    /// Translates an address, or notes the exception. The result allows at least `access`.
    fn walk(core: &mut Core<Self>, va: u64, access: Access, ctx: u8) -> Result<Translation, Trap>;

    /// An access at `pa` that nothing took: the value read, or a trap.
    fn bus_fault(core: &mut Core<Self>, pa: u64, access: Access, fault: Fault)
    -> Result<u64, Trap>;

    /// A misaligned access that must be aligned: notes the exception.
    fn alignment_fault(core: &mut Core<Self>, va: u64, access: Access) -> Trap;

    /// The exception just noted does not happen: an executor only wanted to know.
    fn forget(core: &mut Core<Self>);

    /// Delivers the noted exception: changes state as the manual says.
    fn deliver(core: &mut Core<Self>) -> Result<(), Exit>;

    /// Called between units while the pending word is not zero: takes interrupts that can be taken.
    fn service(core: &mut Core<Self>) -> Result<(), Exit>;

    /// Called before a unit of [`unit_limit`](Self::unit_limit) one: breakpoints on its instruction.
    fn before_step(core: &mut Core<Self>) -> Result<(), Trap> {
        let _ = core;
        Ok(())
    }

    /// An access has touched what the target has the MMU watch. The instruction goes on;
    /// [`Core::leave_after`] has its unit left after it.
    fn watched(core: &mut Core<Self>, va: u64, size: u8, access: Access) {
        let _ = (core, va, size, access);
    }

    /// An access is about to touch what the target has the MMU watch: a trap instead of it.
    fn before_watched(core: &mut Core<Self>, va: u64, size: u8, access: Access) -> Option<Trap> {
        let _ = (core, va, size, access);
        None
    }

    /// Called after a unit of [`unit_limit`](Self::unit_limit) one: single-step traps, shadows end.
    fn after_step(core: &mut Core<Self>) -> Result<(), Exit>;
}

/// Runs a CPU's instructions.
pub trait Executor<T: Target>: Send {
    /// Runs until the budget is used up or something else is due. Never loops beyond the budget,
    /// never waits, so that one thread can drive many CPUs.
    fn run(&mut self, core: &mut Core<T>) -> Exit;

    /// Forgets all translated code.
    fn flush(&mut self);

    /// What it counted, for `info jit`.
    fn report(&self) -> Vec<(&'static str, u64)> {
        Vec::new()
    }
}

impl<T: Target> Executor<T> for Box<dyn Executor<T>> {
    fn run(&mut self, core: &mut Core<T>) -> Exit {
        (**self).run(core)
    }

    fn flush(&mut self) {
        (**self).flush();
    }

    fn report(&self) -> Vec<(&'static str, u64)> {
        (**self).report()
    }
}
