//! Power-on, reset, INIT and start-up (SDM vol. 3, 9.1 and table 9-1).

use std::sync::Arc;

use hw_clock::Clock;
use hw_memory::MemoryMap;

use super::control::{DR6_FIXED, DR7_FIXED};
use super::cpuid::{Topology, View};
use super::{CpuModel, Msrs, SystemState, debug, flags, mode_changed, paging, segment};
use crate::regs::{self, index};
use crate::state::{Segment, SegmentIndex, Table, cr0};
use crate::{Core, Port, State};

/// MXCSR with all exceptions masked.
const MXCSR_RESET: u64 = 0x1f80;
/// The reset vector's offset.
const RESET_RIP: u64 = 0xfff0;

/// A CPU after power-on. CPU 0 is the bootstrap processor.
pub fn new_core(
    index: u32,
    model: Arc<CpuModel>,
    topology: Topology,
    port: Box<dyn Port>,
    memory: MemoryMap,
    clock: Clock,
) -> Core {
    let arch = State {
        system: SystemState {
            model,
            topology,
            apic_id: topology.apic_id(index),
            ..SystemState::default()
        },
        ..State::default()
    };
    let mut core = Core::new(index, arch, port, memory, clock);
    reset(&mut core);
    core
}

/// To the state after power-on or RESET.
pub fn reset(core: &mut Core) {
    let now = core.clock.ticks(core.arch.system.model.tsc_hz);
    core.arch.system.msr = Msrs {
        // The TSC starts at zero.
        tsc_offset: now.wrapping_neg(),
        ..Msrs::default()
    };
    core.arch.system.xcr0 = 1;
    core.arch.x87 = Default::default();
    for n in 0..16 {
        core.regs.set_v(regs::xmm(n), 0);
    }
    core.regs.set(regs::MXCSR, MXCSR_RESET);
    core.arch.cr0 = cr0::CD | cr0::NW;
    common(core);
    core.mmu.sync_map();
    core.mmu.flush_all();
    log::debug!(target: "cpu_reset", "CPU reset (CPU {})", core.index);
}

/// INIT: as a reset, but for MSRs, caches, x87 and SSE.
pub(super) fn init(core: &mut Core) {
    core.port.init();
    core.arch.system.msr.kernel_gs_base = 0;
    common(core);
}

/// What RESET and INIT have in common.
fn common(core: &mut Core) {
    use SegmentIndex::{Cs, Ds, Es, Fs, Gs, Ss};
    for n in 0..16 {
        core.regs.set(regs::gpr(n), 0);
    }
    let signature = view(core).leaf(1, 0)[0];
    core.regs.set(regs::gpr(index::RDX), u64::from(signature));
    flags::write(core, 0);
    core.set_pc(RESET_RIP);
    let data = Segment {
        selector: 0,
        base: 0,
        limit: 0xffff,
        attributes: 0x93,
    };
    for n in [Es, Ss, Ds, Fs, Gs] {
        segment::set(core, n, data);
    }
    let code = Segment {
        selector: 0xf000,
        base: 0xffff_0000,
        attributes: 0x9b,
        ..data
    };
    segment::set(core, Cs, code);
    let is_bsp = core.index == 0;
    let state = &mut core.arch;
    let table = Table {
        base: 0,
        limit: 0xffff,
    };
    state.gdtr = table;
    state.idtr = table;
    state.ldtr = Segment {
        attributes: 0x82,
        ..data
    };
    state.tr = Segment {
        attributes: 0x8b,
        ..data
    };
    state.cr0 = state.cr0 & (cr0::CD | cr0::NW) | cr0::ET;
    state.cr2 = 0;
    state.cr3 = 0;
    state.cr4 = 0;
    state.efer = 0;
    state.cpl = 0;
    state.exception = None;
    state.shadow = false;
    state.halted = false;
    state.wait_for_sipi = !is_bsp;
    let system = &mut state.system;
    system.fresh_shadow = None;
    system.nmi_blocked = false;
    system.pdptes = [0; 4];
    system.debug_hits = 0;
    system.resume_at = None;
    system.dr = [0; 4];
    system.dr6 = DR6_FIXED;
    system.dr7 = DR7_FIXED;
    system.a20 = core.port.a20();
    paging::switch(core);
    core.mmu.flush_all();
    debug::arm(core);
    mode_changed(core);
}

/// A start-up message: real mode at `vector << 12`.
pub(super) fn start(core: &mut Core, vector: u8) {
    let code = Segment {
        selector: u16::from(vector) << 8,
        base: u64::from(vector) << 12,
        limit: 0xffff,
        attributes: 0x9b,
    };
    segment::set(core, SegmentIndex::Cs, code);
    core.set_pc(0);
    core.arch.wait_for_sipi = false;
    core.arch.halted = false;
    mode_changed(core);
}

/// What CPUID shows of this CPU now.
pub(crate) fn view(core: &mut Core) -> View<'_> {
    // A board without APICs answers nothing, and has none to hide.
    let apic_base = core.port.apic_read(super::msr::number::APIC_BASE);
    let system = &core.arch.system;
    View {
        model: &system.model,
        topology: system.topology,
        apic_id: system.apic_id,
        apic_enabled: apic_base.is_none_or(|base| base & super::msr::APIC_BASE_EN != 0),
        osxsave: core.arch.cr4 & crate::state::cr4::OSXSAVE != 0,
        xcr0: system.xcr0,
    }
}
