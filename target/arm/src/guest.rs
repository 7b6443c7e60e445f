//! Life cycle and inspection of an engine's CPU.

use accel_core::{Guest, reason};
use hw_state::{Section, StateError};

use crate::{Arm, Core, system};

impl Guest for Arm {
    fn reset(core: &mut Core) {
        system::reset::reset(core);
    }

    fn save(_: &mut Core) -> Section {
        Section::new("aarch64-cpu", 1)
    }

    fn restore(_: &mut Core, section: &Section) -> Result<(), StateError> {
        section.expect("aarch64-cpu", 1)
    }

    fn registers(core: &mut Core) -> Vec<(String, u128)> {
        let value = |r: &accel_core::RegInfo| match r.bits {
            128 => core.regs.get_v(r.slot),
            _ => u128::from(core.regs.get(r.slot)),
        };
        let table = crate::regs::REGS.iter();
        table.map(|r| (r.name.to_string(), value(r))).collect()
    }

    fn describe(_: &mut Core) -> String {
        String::new()
    }

    fn report(_: &mut Core, _: &str) -> Option<String> {
        None
    }

    fn debug_translate(_: &mut Core, _: u64) -> Option<u64> {
        None
    }

    fn is_halted(core: &Core) -> bool {
        core.arch.halted || core.arch.powered_off
    }

    fn wake_mask(core: &Core) -> u32 {
        let always = reason::STOP | reason::PARK | reason::WORK | reason::FLUSH;
        if core.arch.powered_off {
            always | reason::SIPI
        } else {
            always | reason::INTR
        }
    }
}
