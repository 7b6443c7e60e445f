//! Life cycle and inspection of an engine's CPU.

use accel_core::Guest;
use hw_state::{Section, StateError};

use crate::system::{self, CpuState};
use crate::{Core, X86};

impl Guest for X86 {
    fn reset(core: &mut Core) {
        system::reset(core);
    }

    fn save(core: &mut Core) -> Section {
        system::save(core)
    }

    fn restore(core: &mut Core, section: &Section) -> Result<(), StateError> {
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
            "cpu" => Some(CpuState::of(core).describe_general(core.port.a20())),
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
