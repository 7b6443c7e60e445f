//! Ports, flags and halting: what IOPL and privilege guard (SDM vol. 1, chapter 19; vol. 2).

use accel_core::{Exit, Trap};

use super::exception::hold_off;
use super::task::io_allowed;
use super::{Shadow, debug, flags, gp, is_vm86, leave, leave_if_changed, mode_changed, need_cpl0};
use crate::Core;
use crate::regs::{self, index, rflags};

fn check_port(core: &mut Core, port: u16, size: u8) -> Result<(), Trap> {
    let vm86 = is_vm86(core);
    if !core.arch.is_protected() || !vm86 && core.arch.cpl <= flags::iopl(core) {
        return Ok(());
    }
    if io_allowed(core, port, size)? {
        Ok(())
    } else {
        Err(gp(core, 0))
    }
}

/// IN and INS.
pub(crate) fn input(core: &mut Core, port: u16, size: u8) -> Result<u64, Trap> {
    check_port(core, port, size)?;
    let index = core.index;
    let value = core.port.io_in(index, port, size);
    debug::port(core, port, size);
    Ok(u64::from(value))
}

/// OUT and OUTS.
pub(crate) fn output(core: &mut Core, port: u16, size: u8, value: u32) -> Result<u64, Trap> {
    check_port(core, port, size)?;
    let index = core.index;
    core.port.io_out(index, port, size, value);
    sync_a20(core);
    debug::port(core, port, size);
    Ok(0)
}

/// Forgets translations made with another level of the A20 gate.
pub(crate) fn sync_a20(core: &mut Core) {
    let now = core.port.a20();
    if std::mem::replace(&mut core.arch.system.a20, now) != now {
        core.mmu.flush_all();
    }
}

fn check_if(core: &mut Core) -> Result<(), Trap> {
    let iopl = flags::iopl(core);
    if core.arch.is_protected() && core.arch.cpl > iopl {
        return Err(gp(core, 0));
    }
    Ok(())
}

/// CLI.
pub(crate) fn cli(core: &mut Core) -> Result<u64, Trap> {
    check_if(core)?;
    flags::clear(core, rflags::IF);
    Ok(0)
}

/// STI.
pub(crate) fn sti(core: &mut Core, next: u64) -> Result<u64, Trap> {
    check_if(core)?;
    if core.regs.get(regs::RFLAGS) & rflags::IF != 0 {
        return Ok(0);
    }
    flags::set(core, rflags::IF);
    hold_off(core, Shadow::Sti);
    leave(core, next)
}

/// STI that is not the last instruction of its unit. What comes from now on is looked at when the unit is
/// left, which is after the next instruction at the earliest: only what waits already needs a shadow.
pub(crate) fn sti_inside(core: &mut Core, next: u64) -> Result<u64, Trap> {
    if core.pending.get() != 0 || super::exception::is_traced(core) {
        return sti(core, next);
    }
    check_if(core)?;
    flags::set(core, rflags::IF);
    Ok(0)
}

/// What PUSHF raises in virtual-8086 mode.
pub(crate) fn pushf_check(core: &mut Core) -> Result<u64, Trap> {
    if is_vm86(core) && flags::iopl(core) < 3 {
        return Err(gp(core, 0));
    }
    Ok(0)
}

/// POPF.
pub(crate) fn popf(core: &mut Core, value: u64, size: u8, next: u64, sp: u64) -> Result<u64, Trap> {
    pushf_check(core)?;
    let mut mask =
        accel_ir::flags::ALL | rflags::TF | rflags::DF | rflags::NT | rflags::AC | rflags::ID;
    if core.arch.cpl == 0 {
        mask |= rflags::IOPL;
    }
    if !core.arch.is_protected() || core.arch.cpl <= flags::iopl(core) {
        mask |= rflags::IF;
    }
    if size == 2 {
        mask &= 0xffff;
    }
    let before = core.regs.get(regs::RFLAGS);
    flags::merge(core, value, mask);
    super::exception::tf_loaded(core, before);
    core.regs.set(regs::gpr(index::RSP), sp);
    let opened = core.regs.get(regs::RFLAGS) & !before;
    // Interrupts that come from now on are looked at when the unit is left.
    let waits = opened & rflags::IF != 0 && core.pending.get() != 0;
    if waits || opened & rflags::TF != 0 {
        mode_changed(core);
        return leave(core, next);
    }
    leave_if_changed(core, next)
}

/// HLT.
pub(crate) fn halt(core: &mut Core, next: u64) -> Result<u64, Trap> {
    need_cpl0(core)?;
    core.set_pc(next);
    if super::exception::is_traced(core) {
        // The trap after it would end the halt at once.
        return Err(Trap::Leave);
    }
    core.arch.halted = true;
    // This is the instruction that STI's shadow covers.
    core.arch.shadow = false;
    core.arch.system.fresh_shadow = None;
    Err(Trap::Exit(Exit::Halted))
}
