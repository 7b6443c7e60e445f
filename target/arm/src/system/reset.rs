//! Power-on and reset (DDI 0487, D1.2.2 "Reset"), PSCI's CPU_ON.

use std::sync::Arc;

use hw_clock::Clock;
use hw_memory::MemoryMap;

use super::control::{hcr, scr, sctlr_bits};
use super::{exception, registers as sys};
use crate::model::{CpuModel, Feature};
use crate::port::{Port, Start};
use crate::state::{Setup, State};
use crate::{Core, regs};

/// HCR_EL2.RW: EL1 is AArch64.
const HCR_RW: u64 = 1 << 31;
/// CPTR_EL2 with nothing trapped.
const CPTR: u64 = 0x33ff;
/// MXCSR as FPCR zero has it: all exceptions masked.
pub(crate) const MXCSR: u64 = 0x1f80;

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

/// The highest exception level that the model has.
pub(crate) fn highest_of(model: &CpuModel) -> u8 {
    if model.has(Feature::El3) {
        3
    } else if model.has(Feature::El2) {
        2
    } else {
        1
    }
}

/// The exception level that kernels begin at: the highest below EL3.
fn kernel_el(core: &Core) -> u8 {
    if core.arch.model.has(Feature::El2) {
        2
    } else {
        1
    }
}

/// The highest exception level that a CPU has.
pub(crate) fn highest_el(core: &Core) -> u8 {
    highest_of(&core.arch.model)
}

/// To the state after power-on or reset.
pub(crate) fn reset(core: &mut Core) {
    let setup = core.arch.setup.clone();
    clear(core);
    core.arch.powered_off = setup.powered_off;
    match setup.boot {
        Some(boot) => {
            let el = boot.el.unwrap_or_else(|| kernel_el(core));
            begin(core, el.min(highest_el(core)), boot.pc);
            for (n, value) in (0..).zip(boot.x) {
                core.regs.set(regs::x(n), value);
            }
        }
        None => {
            let el = highest_el(core);
            let rvbar = core.arch.model.rvbar();
            begin(core, el, rvbar);
        }
    }
    core.mmu.sync_map();
    core.mmu.flush_all();
    log::debug!(target: "cpu_reset", "CPU reset (CPU {})", core.index);
}

/// PSCI's CPU_ON (DEN 0022, 6.4): as after a reset, at the highest level below EL3.
pub(crate) fn start(core: &mut Core, start: Start) {
    clear(core);
    begin(core, kernel_el(core), start.entry);
    core.regs.set(regs::x(0), start.context);
    core.mmu.flush_all();
}

fn begin(core: &mut Core, el: u8, pc: u64) {
    if el < 3 && core.arch.model.has(Feature::El3) {
        // What firmware would have done.
        let scr = super::control::scr_value(core, scr::NS | scr::HCE | scr::APK | scr::API);
        core.regs.set(sys::SCR_EL3, scr);
    }
    if el < 2 && core.arch.model.has(Feature::El2) {
        core.regs.set(sys::HCR_EL2, HCR_RW | hcr::APK | hcr::API);
    }
    core.arch.el = el;
    core.arch.sp_sel = el != 0;
    core.set_pc(pc);
    exception::changed(core);
}

/// MPIDR_EL1.
pub(crate) fn mpidr(core: &Core) -> u64 {
    1 << 31 | core.arch.setup.mpidr & 0xff_00ff_ffff
}

fn clear(core: &mut Core) {
    core.regs.raw().iter_mut().for_each(|slot| *slot = 0);
    core.port.set_counter_offset(0);
    let model = core.arch.model.clone();
    let mpidr = mpidr(core);
    for (slot, value) in [
        (regs::DAIF, 0x3c0),
        (regs::MONITOR, u64::MAX),
        (regs::MXCSR, MXCSR),
        (sys::SCTLR_EL1, sctlr_bits::RES1),
        (sys::SCTLR_EL2, sctlr_bits::RES1),
        (sys::SCTLR_EL3, sctlr_bits::RES1),
        (sys::CPTR_EL2, CPTR),
        (sys::MDCR_EL2, super::pmu::COUNTERS as u64),
        (sys::CNTFRQ_EL0, model.counter_hz()),
        (sys::VPIDR_EL2, model.id.midr),
        (sys::VMPIDR_EL2, mpidr),
    ] {
        core.regs.set(slot, value);
    }
    if model.has(Feature::El3) {
        let scr = super::control::scr_value(core, 0);
        core.regs.set(sys::SCR_EL3, scr);
    }
    crate::mode::set_nzcv(core, 0);
    let arch = &mut core.arch;
    let (model, setup, peer) = (arch.model.clone(), arch.setup.clone(), arch.peer.clone());
    *arch = State::new(model, setup, peer);
    super::debug::arm(core);
    super::pmu::restored(core, &[]);
}
