//! The [`Target`] implementation: ties decoding, memory management and exceptions together.

use accel_core::{Access, Exit, Helper, Layout, Source, Target, Translation, Trap};
use accel_ir::Unit;
use hw_memory::Fault;

use crate::mode::Mode;
use crate::port::Port;
use crate::state::State;
use crate::system::exception::{class, esr, raise_to};
use crate::system::{calls, control, debug, exception, interrupt, translation};
use crate::{Core, a32, a64, helper, regs};

/// The aarch64 architecture.
#[derive(Debug)]
pub struct Arm;

/// Fault status code of a synchronous external abort, and FnV: the address is not known.
const EXTERNAL: u64 = 0x10 | 1 << 10;
/// Fault status code of a misaligned access.
const ALIGNMENT: u64 = 0x21;

/// Most instructions of a unit.
const MOST_INSNS: u32 = 32;

impl Target for Arm {
    const NAME: &'static str = "aarch64";
    const LAYOUT: Layout = regs::LAYOUT;
    const UNIT_BYTES: usize = 4 * MOST_INSNS as usize;
    type State = State;
    type Port = dyn Port;

    fn helpers() -> &'static [Helper<Self>] {
        helper::TABLE
    }

    fn fetch_address(core: &Core) -> u64 {
        core.regs.get(regs::PC)
    }

    fn extra_key(core: &Core) -> u64 {
        // Zero in AArch64.
        core.regs.get(regs::IT)
    }

    fn fetch_ctx(core: &Core) -> u8 {
        Mode(core.mode).ctx()
    }

    fn unit_limit(core: &Core) -> u32 {
        if Mode(core.mode).steps() {
            1
        } else {
            MOST_INSNS
        }
    }

    fn translate(core: &mut Core, source: &mut Source, limit: u32) -> Result<Unit, Trap> {
        if Mode(core.mode).is_aarch32() {
            return a32::translate(core, source, limit);
        }
        a64::translate(core, source, limit)
    }

    fn disassemble(core: &Core, start: u64, code: &[u8]) -> String {
        let mode = Mode(core.mode);
        if mode.is_aarch32() {
            return a32::disassemble(start, code, mode.is_thumb());
        }
        a64::disassemble(start, code)
    }

    fn walk(core: &mut Core, va: u64, access: Access, ctx: u8) -> Result<Translation, Trap> {
        translation::walk(core, va, access, ctx)
    }

    fn bus_fault(core: &mut Core, pa: u64, access: Access, fault: Fault) -> Result<u64, Trap> {
        log::debug!(target: "invalid_mem", "cpu {}: {access:?} at {pa:#x}: {fault}", core.index);
        match fault {
            // Nothing is there. Reserved registers of a device that is there read as zero, and writes
            // to them are ignored.
            Fault::Unassigned => Err(data_abort(core, EXTERNAL, access, None)),
            _ => Ok(0),
        }
    }

    fn alignment_fault(core: &mut Core, va: u64, access: Access) -> Trap {
        data_abort(core, ALIGNMENT, access, Some(va))
    }

    fn forget(core: &mut Core) {
        core.arch.exception = None;
    }

    fn deliver(core: &mut Core) -> Result<(), Exit> {
        exception::deliver(core)
    }

    fn service(core: &mut Core) -> Result<(), Exit> {
        interrupt::service(core)
    }

    fn before_step(core: &mut Core) -> Result<(), Trap> {
        debug::before_step(core)
    }

    fn before_watched(core: &mut Core, va: u64, size: u8, access: Access) -> Option<Trap> {
        debug::before_access(core, va, size, access)
    }

    fn after_step(core: &mut Core) -> Result<(), Exit> {
        if Mode(core.mode).steps() && control::steps(core) && core.arch.ss {
            core.arch.ss = false;
            return calls::step_exception(core);
        }
        Ok(())
    }
}

/// Notes an abort of this CPU's own access that translation had nothing against.
fn data_abort(core: &mut Core, status: u64, access: Access, va: Option<u64>) -> Trap {
    let to = match status & 0x3f {
        // External aborts are EL3's if it wants them.
        0x10 if control::scr_in_effect(core) & control::scr::EA != 0 => 3,
        _ => exception::default_target(core),
    };
    let lower = to > core.arch.el;
    let class = match (access, lower) {
        (Access::Fetch, true) => class::FETCH_LOWER,
        (Access::Fetch, false) => class::FETCH_SAME,
        (_, true) => class::DATA_LOWER,
        (_, false) => class::DATA_SAME,
    };
    let write = u64::from(access == Access::Write) << 6;
    raise_to(core, to, esr(class, status | write), va)
}
