//! Life cycle and inspection of an engine's CPU.

use accel_core::Guest;
use hw_state::{Section, StateError};

use crate::system::saved::CpuState;
use crate::system::{describe, interrupt, reset};
use crate::{Arm, Core, regs};

impl Guest for Arm {
    fn reset(core: &mut Core) {
        reset::reset(core);
    }

    fn save(core: &mut Core) -> Section {
        crate::system::pmu::sync(core);
        CpuState::of(core).save()
    }

    fn restore(core: &mut Core, section: &Section) -> Result<(), StateError> {
        let state = CpuState::load(section, &core.arch.model)?;
        state.apply(core);
        Ok(())
    }

    fn registers(core: &mut Core) -> Vec<(String, u128)> {
        let value = |r: &accel_core::RegInfo| match r.bits {
            128 => core.regs.get_v(r.slot),
            _ => u128::from(core.regs.get(r.slot)),
        };
        let table = regs::REGS.iter();
        let mut list: Vec<_> = table.map(|r| (r.name.to_string(), value(r))).collect();
        list.push(("cpsr".into(), crate::system::exception::pstate(core).into()));
        list
    }

    fn describe(core: &mut Core) -> String {
        describe::describe(core)
    }

    fn report(_: &mut Core, _: &str) -> Option<String> {
        None
    }

    fn debug_translate(core: &mut Core, va: u64) -> Option<u64> {
        describe::debug_translate(core, va)
    }

    fn is_halted(core: &Core) -> bool {
        core.arch.halted || core.arch.powered_off
    }

    fn wake_mask(core: &Core) -> u32 {
        interrupt::wake_mask(core)
    }
}
