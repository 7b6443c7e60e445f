//! Power-on and reset (DDI 0487, D1.2.2 "Reset").

use std::sync::Arc;

use hw_clock::Clock;
use hw_memory::MemoryMap;

use crate::model::{CpuModel, Feature};
use crate::port::Port;
use crate::state::{Setup, State};
use crate::{Core, regs};

/// A CPU after power-on.
pub fn new_core(
    index: u32,
    model: Arc<CpuModel>,
    setup: Setup,
    port: Box<dyn Port>,
    memory: MemoryMap,
    clock: Clock,
) -> Core {
    let mut model = model;
    if port.has_gic_registers() != model.has(Feature::Gic) {
        Arc::make_mut(&mut model).set_gic(port.has_gic_registers());
    }
    let pending = Arc::<accel_core::Pending>::default();
    let peer = setup.peers.join(pending.clone());
    let arch = State::new(model, setup, peer);
    let mut core = Core::new(index, arch, port, memory, clock);
    core.pending = pending;
    reset(&mut core);
    core
}

/// To the state after power-on or reset.
pub(crate) fn reset(core: &mut Core) {
    let raw = core.regs.raw();
    raw.iter_mut().for_each(|slot| *slot = 0);
    let highest = highest_el(core);
    let setup = core.arch.setup.clone();
    core.arch.powered_off = setup.powered_off;
    core.arch.halted = false;
    core.arch.exception = None;
    match setup.boot {
        Some(boot) => {
            core.arch.el = boot.el.unwrap_or(highest.min(2));
            core.set_pc(boot.pc);
            for (n, value) in (0..).zip(boot.x) {
                core.regs.set(regs::x(n), value);
            }
        }
        None => {
            core.arch.el = highest;
            core.set_pc(setup.rvbar);
        }
    }
    core.mmu.sync_map();
    core.mmu.flush_all();
    log::debug!(target: "cpu_reset", "CPU reset (CPU {})", core.index);
}

/// The highest exception level that the model has.
pub(crate) fn highest_el(core: &Core) -> u8 {
    if core.arch.model.has(Feature::El3) {
        3
    } else if core.arch.model.has(Feature::El2) {
        2
    } else {
        1
    }
}
