//! Life cycle and inspection of an engine's CPU.

use accel_core::Guest;
use hw_state::{Section, StateError};

use crate::system::{self, CpuState};
use crate::{Core, Segment, Table, X86};

impl Guest for X86 {
    fn reset(core: &mut Core) {
        system::reset(core);
    }

    fn save(core: &mut Core) -> Section {
        system::save(core)
    }

    fn restore(core: &mut Core, section: &Section) -> Result<(), StateError> {
        if section.name() == "x86-start" {
            return start(core, section);
        }
        system::restore(core, section)
    }

    fn registers(core: &mut Core) -> Vec<(String, u128)> {
        CpuState::of(core).registers()
    }

    fn describe(core: &mut Core) -> String {
        let a20 = core.port.a20();
        CpuState::of(core).describe(a20)
    }

    fn report(core: &mut Core, topic: &str) -> Option<String> {
        match topic {
            "tlb" => Some(system::info_tlb(core)),
            "mem" => Some(system::info_mem(core)),
            _ => None,
        }
    }

    fn debug_translate(core: &mut Core, va: u64) -> Option<u64> {
        system::debug_translate(core, va)
    }

    fn is_halted(core: &Core) -> bool {
        core.arch.halted || core.arch.wait_for_sipi
    }

    fn wake_mask(core: &Core) -> u32 {
        system::wake_mask(core)
    }
}

/// The registers that a boot protocol defines, until boards fill a [`CpuState`] themselves.
fn start(core: &mut Core, s: &Section) -> Result<(), StateError> {
    let segment = |tag: u16| -> Result<Segment, StateError> {
        let [selector, base, limit, attributes] = s.u64_array(tag)?;
        Ok(Segment {
            selector: selector as u16,
            base,
            limit: limit as u32,
            attributes: attributes as u16,
        })
    };
    let mut state = CpuState::of(core);
    let data = segment(11)?;
    state.rip = s.u64(1)?;
    state.gprs = [0; 16];
    for (n, tag) in [(4, 2), (0, 3), (3, 4), (6, 5)] {
        if let Some(gpr) = state.gprs.get_mut(n) {
            *gpr = s.u64(tag)?;
        }
    }
    state.cr0 = s.u64(6)?;
    state.cr3 = s.u64(7)?;
    state.cr4 = s.u64(8)?;
    state.efer = s.u64(9)?;
    state.segments = [data, segment(10)?, data, data, data, data];
    state.tr = segment(12)?;
    state.gdtr = Table {
        base: s.u64(13)?,
        limit: s.u16(14)?,
    };
    state.apply(core);
    Ok(())
}
