//! The [`Target`] implementation: ties decoding, memory management and exceptions together.

use accel_core::{Access, Exit, Helper, Layout, Source, Target, Translation, Trap};
use accel_ir::Unit;
use hw_memory::Fault;

use crate::state::State;
use crate::{Core, decode, regs, system};

/// The x86_64 architecture.
#[derive(Debug)]
pub struct X86;

/// Translation contexts of a bank.
pub(crate) mod ctx {
    /// Accesses of CPL 3.
    pub(crate) const USER: u8 = 0;
    /// Accesses of CPL 0 to 2, where SMAP forbids user pages (CR4.SMAP set, RFLAGS.AC clear), and
    /// implicit supervisor accesses (descriptor tables) under SMAP.
    pub(crate) const SUPERVISOR_SMAP: u8 = 1;
    /// Accesses of CPL 0 to 2 that may reach user pages.
    pub(crate) const SUPERVISOR: u8 = 2;
}

/// What the board wires to a CPU. Called by the CPU's own thread with no lock held.
pub trait Port: Send {
    /// `IN`: reads `size` (1, 2, 4) bytes from a port; all ones if nothing answers.
    fn io_in(&mut self, cpu: u32, port: u16, size: u8) -> u32;
    /// `OUT`: writes `size` (1, 2, 4) bytes to a port.
    fn io_out(&mut self, cpu: u32, port: u16, size: u8, value: u32);
    /// INTA: the interrupt controller's highest pending vector above the CPU's priority, now in
    /// service. `None` for a spurious call.
    fn ack(&mut self) -> Option<u8>;
    /// Whether `ack` would give a vector now. Asked after each `ack`: the CPU then keeps `INTR` in
    /// its pending word. A later change must set the bit by itself.
    fn has_interrupt(&mut self) -> bool;
    /// CR8: the task priority's upper four bits.
    fn cr8(&mut self) -> u64;
    /// Sets CR8 (0 to 15).
    fn set_cr8(&mut self, value: u64);
    /// Reads an MSR of the local APIC: 0x1b, 0x800 to 0x8ff. `None` raises #GP.
    fn apic_read(&mut self, msr: u32) -> Option<u64>;
    /// Writes an MSR of the local APIC. `None` raises #GP.
    fn apic_write(&mut self, msr: u32, value: u64) -> Option<()>;
    /// IA32_TSC_DEADLINE: the value last set, 0 once it has fired.
    fn tsc_deadline(&mut self) -> u64;
    /// Sets IA32_TSC_DEADLINE; the TSC reaches `value` at the virtual time `at_ns`. 0 disarms.
    fn set_tsc_deadline(&mut self, value: u64, at_ns: u64);
    /// The vector of the start-up message that set `SIPI` in the pending word.
    fn sipi_vector(&mut self) -> u8;
    /// The CPU went through INIT: the local APIC resets but for its id.
    fn init(&mut self);
    /// Level of the A20 gate.
    fn a20(&self) -> bool;
}

/// A port to nothing: for CPUs whose state is looked at, and for tests.
pub struct NoPort {
    /// Level of the A20 gate.
    pub a20: bool,
}

impl Port for NoPort {
    fn io_in(&mut self, _: u32, _: u16, _: u8) -> u32 {
        u32::MAX
    }
    fn io_out(&mut self, _: u32, _: u16, _: u8, _: u32) {}
    fn ack(&mut self) -> Option<u8> {
        None
    }
    fn has_interrupt(&mut self) -> bool {
        false
    }
    fn cr8(&mut self) -> u64 {
        0
    }
    fn set_cr8(&mut self, _: u64) {}
    fn apic_read(&mut self, _: u32) -> Option<u64> {
        None
    }
    fn apic_write(&mut self, _: u32, _: u64) -> Option<()> {
        None
    }
    fn tsc_deadline(&mut self) -> u64 {
        0
    }
    fn set_tsc_deadline(&mut self, _: u64, _: u64) {}
    fn sipi_vector(&mut self) -> u8 {
        0
    }
    fn init(&mut self) {}
    fn a20(&self) -> bool {
        self.a20
    }
}

impl Target for X86 {
    const NAME: &'static str = "x86_64";
    const LAYOUT: Layout = regs::LAYOUT;
    type State = State;
    type Port = dyn Port;

    fn helpers() -> &'static [Helper<Self>] {
        &crate::helper::ALL
    }

    fn fetch_address(core: &Core) -> u64 {
        decode::linear_pc(core)
    }

    fn extra_key(core: &Core) -> u64 {
        core.regs.get(regs::base(1))
    }

    fn fetch_ctx(core: &Core) -> u8 {
        if core.arch.cpl == 3 {
            ctx::USER
        } else {
            ctx::SUPERVISOR
        }
    }

    fn unit_limit(core: &Core) -> u32 {
        let single = core.arch.shadow || core.regs.get(regs::RFLAGS) & regs::rflags::TF != 0;
        if single { 1 } else { 32 }
    }

    fn translate(core: &mut Core, source: &mut Source, limit: u32) -> Result<Unit, Trap> {
        decode::translate(core, source, limit)
    }

    fn disassemble(core: &Core, start: u64, code: &[u8]) -> String {
        decode::disassemble(core.mode, start, code)
    }

    fn walk(core: &mut Core, va: u64, access: Access, ctx: u8) -> Result<Translation, Trap> {
        system::walk(core, va, access, ctx)
    }

    fn bus_fault(core: &mut Core, pa: u64, access: Access, fault: Fault) -> Result<u64, Trap> {
        log::debug!(target: "invalid_mem", "cpu {}: {access:?} at {pa:#x}: {fault}", core.index);
        // PCs: reads of nothing float high, writes to nothing are lost.
        Ok(u64::MAX)
    }

    fn alignment_fault(core: &mut Core, _: u64, _: Access) -> Trap {
        // Only accesses marked `aligned` come here: SSE's, which raise #GP(0).
        system::raise(core, crate::vector::GP, Some(0))
    }

    fn forget(core: &mut Core) {
        core.arch.exception = None;
    }

    fn deliver(core: &mut Core) -> Result<(), Exit> {
        decode::refine(core);
        system::deliver(core)
    }

    fn service(core: &mut Core) -> Result<(), Exit> {
        system::service(core)
    }

    fn before_step(core: &mut Core) -> Result<(), Trap> {
        system::debug::before_step(core)
    }

    fn watched(core: &mut Core, va: u64, size: u8, access: Access) {
        system::debug::watched(core, va, size, access);
    }

    fn after_step(core: &mut Core) -> Result<(), Exit> {
        system::after_step(core)
    }
}
