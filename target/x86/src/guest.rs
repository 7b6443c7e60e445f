//! temporary
use accel_core::Guest;
use hw_state::{Section, StateError};

use crate::state::{Segment, SegmentIndex, Table};
use crate::{Core, X86, regs, system};

impl Guest for X86 {
    fn reset(core: &mut Core) {
        system::reset(core);
    }
    fn save(_: &mut Core) -> Section {
        Section::new("x86-cpu", 1)
    }
    fn restore(core: &mut Core, s: &Section) -> Result<(), StateError> {
        s.expect("x86-start", 1)?;
        let seg = |tag: u16| -> Result<Segment, StateError> {
            let [selector, base, limit, attributes] = s.u64_array::<4>(tag)?;
            Ok(Segment { selector: selector as u16, base, limit: limit as u32, attributes: attributes as u16 })
        };
        core.set_pc(s.u64(1)?);
        core.regs.set(regs::gpr(4), s.u64(2)?);
        core.regs.set(regs::gpr(0), s.u64(3)?);
        core.regs.set(regs::gpr(3), s.u64(4)?);
        core.regs.set(regs::gpr(6), s.u64(5)?);
        core.regs.set(regs::gpr(2), 0);
        core.arch.cr0 = s.u64(6)?;
        core.arch.cr3 = s.u64(7)?;
        core.arch.cr4 = s.u64(8)?;
        core.arch.efer = s.u64(9)?;
        let (cs, data, tr) = (seg(10)?, seg(11)?, seg(12)?);
        core.arch.segments = [data, cs, data, data, data, data];
        core.arch.tr = tr;
        core.arch.gdtr = Table { base: s.u64(13)?, limit: s.u16(14)? };
        core.arch.cpl = 0;
        for n in 0..6 {
            core.regs.set(regs::base(n), 0);
        }
        let _ = SegmentIndex::Cs;
        system::flags::write(core, 2);
        crate::decode::refresh(core);
        core.mmu.flush_all();
        system::paging_switch(core);
        Ok(())
    }
    fn registers(core: &mut Core) -> Vec<(String, u128)> {
        regs::REGS.iter().map(|r| (r.name.to_string(), u128::from(core.regs.get(r.slot)))).collect()
    }
    fn describe(core: &mut Core) -> String {
        let mut t = String::new();
        for r in regs::REGS.iter().take(17) { t += &format!("{}={:x} ", r.name, core.regs.get(r.slot)); }
        t += &format!("cr0={:x} cr2={:x} cr3={:x} cr4={:x} efer={:x} cpl={} halted={} fl={:x}\n", core.arch.cr0, core.arch.cr2, core.arch.cr3, core.arch.cr4, core.arch.efer, core.arch.cpl, core.arch.halted, system::flags::read(core));
        for s in core.arch.segments { t += &format!("{:x?}\n", s); }
        t
    }
    fn report(_: &mut Core, _: &str) -> Option<String> {
        None
    }
    fn debug_translate(core: &mut Core, va: u64) -> Option<u64> {
        system::debug_translate(core, va)
    }
    fn is_halted(core: &Core) -> bool {
        core.arch.halted
    }
    fn wake_mask(core: &Core) -> u32 {
        system::wake_mask(core)
    }
}
