//! What others signal to a CPU: interrupts, NMI, INIT, start-up (SDM vol. 3, 6.3, 9.4).

use accel_core::{Exit, reason};

use super::exception::external;
use super::{debug, io, reset};
use crate::Core;
use crate::regs::{self, rflags};
use crate::state::vector;

/// Bits of the pending word that are the thread's business.
const THREAD: u32 = reason::STOP | reason::PARK | reason::WORK;

fn is_open(core: &Core) -> bool {
    core.regs.get(regs::RFLAGS) & rflags::IF != 0 && !core.arch.shadow
}

/// The bits of the pending word that end a halt: what a thread waits for after [`Exit::Halted`].
pub fn wake_mask(core: &Core) -> u32 {
    let always = THREAD | reason::FLUSH | reason::INIT | reason::SIPI;
    if core.arch.wait_for_sipi {
        return always;
    }
    let mut mask = always | reason::SMI;
    if !core.arch.system.nmi_blocked {
        mask |= reason::NMI;
    }
    if core.regs.get(regs::RFLAGS) & rflags::IF != 0 {
        mask |= reason::INTR;
    }
    mask
}

/// Takes what is pending and can be taken now. Called between units.
pub(crate) fn service(core: &mut Core) -> Result<(), Exit> {
    let word = core.pending.get();
    if word & reason::FLUSH != 0 {
        core.pending.clear(reason::FLUSH);
        core.mmu.sync_map();
        io::sync_a20(core);
    }
    if word & reason::INIT != 0 {
        core.pending.clear(reason::INIT);
        reset::init(core);
    }
    if word & reason::SIPI != 0 {
        core.pending.clear(reason::SIPI);
        let vector = core.port.sipi_vector();
        if core.arch.wait_for_sipi {
            reset::start(core, vector);
        }
    }
    if word & reason::SMI != 0 {
        core.pending.clear(reason::SMI);
        log::debug!("CPU {}: SMI ignored: no system management mode", core.index);
    }
    if word & reason::DEBUG != 0 {
        debug::trap(core)?;
    }
    if word & THREAD != 0 {
        return Err(Exit::Pending);
    }
    if core.arch.wait_for_sipi {
        return Err(Exit::Halted);
    }
    if word & reason::NMI != 0 && !core.arch.system.nmi_blocked && !core.arch.shadow {
        core.pending.clear(reason::NMI);
        external(core, vector::NMI)?;
        core.arch.system.nmi_blocked = true;
    }
    if word & reason::INTR != 0 && is_open(core) {
        // Cleared first: what becomes deliverable from here on sets it again.
        core.pending.clear(reason::INTR);
        let vector = core.port.ack();
        if core.port.has_interrupt() {
            core.pending.raise(reason::INTR);
        }
        if let Some(vector) = vector {
            external(core, vector)?;
        }
    }
    if core.arch.halted {
        return Err(Exit::Halted);
    }
    Ok(())
}
