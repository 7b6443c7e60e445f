//! What others signal to a CPU: interrupts, start-up, TLB maintenance (DDI 0487, D1.3.7).

use accel_core::{Exit, reason};

use super::control::{self, hcr, scr};
use super::{exception, pmu, reset, tlb};
use crate::state::{Exception, Vector};
use crate::{Core, regs};

/// Bits of the pending word that are the thread's business.
const THREAD: u32 = reason::STOP | reason::PARK;

/// PSTATE.I and PSTATE.F in the DAIF slot.
const I: u64 = 1 << 7;
const F: u64 = 1 << 6;

/// The pending bits that end a wait.
pub(crate) fn wake_mask(core: &Core) -> u32 {
    let always = THREAD | reason::WORK | reason::FLUSH;
    // NMI is the PMU's: a counter may have overflowed.
    if core.arch.powered_off {
        always | reason::SIPI
    } else {
        always | reason::INTR | reason::NMI
    }
}

/// Where a physical interrupt goes, and whether it is masked now.
fn route(core: &Core, scr_bit: u64, hcr_bit: u64, mask: u64) -> (u8, bool) {
    let el = core.arch.el;
    let masked = core.regs.get(regs::DAIF) & mask != 0;
    let to = if control::scr_in_effect(core) & scr_bit != 0 {
        3
    } else if control::hcr_in_effect(core) & hcr_bit != 0 {
        2
    } else {
        1
    };
    // From a lower level it cannot be masked; to a lower one it is not taken.
    (
        to,
        if to > el && to > 1 {
            false
        } else {
            to < el || masked
        },
    )
}

fn take(core: &mut Core, vector: Vector, to: u8) {
    core.counters.exceptions = core.counters.exceptions.wrapping_add(1);
    exception::enter(
        core,
        Exception {
            vector,
            to,
            esr: 0,
            far: None,
            hpfar: None,
        },
    );
}

/// An interrupt that can be taken now.
fn deliverable(core: &mut Core) -> Option<(Vector, u8)> {
    let world = control::world(core);
    if core.port.fiq(world) {
        let (to, masked) = route(core, scr::FIQ, hcr::FMO, F);
        if !masked {
            return Some((Vector::Fiq, to));
        }
    }
    if core.port.irq(world) {
        let (to, masked) = route(core, scr::IRQ, hcr::IMO, I);
        if !masked {
            return Some((Vector::Irq, to));
        }
    }
    let now = control::hcr_in_effect(core);
    if core.arch.el < 2 && now & hcr::TGE == 0 {
        let daif = core.regs.get(regs::DAIF);
        let virtual_fiq = now & hcr::VF != 0 || core.port.virtual_fiq();
        if now & hcr::FMO != 0 && daif & F == 0 && virtual_fiq {
            return Some((Vector::Fiq, 1));
        }
        let virtual_irq = now & hcr::VI != 0 || core.port.virtual_irq();
        if now & hcr::IMO != 0 && daif & I == 0 && virtual_irq {
            return Some((Vector::Irq, 1));
        }
    }
    None
}

/// Whether any interrupt input is active, masked or not.
fn is_active(core: &mut Core) -> bool {
    let now = control::hcr_in_effect(core);
    let world = control::world(core);
    core.port.irq(world)
        || core.port.fiq(world)
        || now & (hcr::VI | hcr::VF) != 0
        || core.port.virtual_irq()
        || core.port.virtual_fiq()
}

/// Takes what is pending and can be taken now. Called between units.
pub(crate) fn service(core: &mut Core) -> Result<(), Exit> {
    let peer = core.arch.peer.clone();
    peer.set_idle(false);
    let result = service_awake(core);
    if result.is_err() {
        // Executes nothing until the next call; what is listed by then is carried out first.
        peer.set_idle(true);
    }
    result
}

fn service_awake(core: &mut Core) -> Result<(), Exit> {
    let word = core.pending.get();
    if word & reason::FLUSH != 0 {
        core.pending.clear(reason::FLUSH);
        core.mmu.sync_map();
    }
    core.pending.clear(reason::WORK);
    tlb::carry_out(core);
    if word & reason::SIPI != 0 {
        core.pending.clear(reason::SIPI);
        if core.arch.powered_off
            && let Some(start) = core.port.start()
        {
            reset::start(core, start);
        }
    }
    if word & THREAD != 0 {
        return Err(Exit::Pending);
    }
    if core.arch.powered_off {
        return Err(Exit::Halted);
    }
    if word & reason::NMI != 0 {
        core.pending.clear(reason::NMI);
        pmu::service(core);
    }
    let word = core.pending.get();
    if word & reason::INTR != 0 {
        // Cleared first: what becomes active from here on sets it again.
        core.pending.clear(reason::INTR);
        if is_active(core) {
            core.arch.halted = false;
            core.pending.raise(reason::INTR);
        }
        if let Some((vector, to)) = deliverable(core) {
            take(core, vector, to);
        }
    }
    if core.arch.halted {
        return Err(Exit::Halted);
    }
    if pmu::watches_instructions(core) {
        // Asked again at the beginning of each slice.
        core.pending.raise(reason::NMI);
    }
    Ok(())
}
