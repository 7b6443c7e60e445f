//! Fast system calls (SDM vol. 3, 5.8.7 and 5.8.8; APM vol. 2, 6.1) and SWAPGS.

use accel_core::Trap;

use super::exception::end_fast_call;
use super::paging::is_canonical;
use super::segment::set;
use super::{flags, gp, leave_if_changed, mode_changed, need_cpl0, ud};
use crate::regs::{self, index, rflags};
use crate::state::{Segment, SegmentIndex, efer};
use crate::{Core, state::cr4};

const INTEL: &str = "GenuineIntel";

/// Flags that SYSRET loads from R11.
const SYSRET_FLAGS: u64 = 0x3c_7fd7;

/// Flat code or data, present and accessed: only selector, privilege and size differ.
fn flat(core: &mut Core, n: SegmentIndex, selector: u64, dpl: u16, attributes: u16) {
    let segment = Segment {
        selector: selector as u16,
        base: 0,
        limit: 0xffff_ffff,
        attributes: attributes | dpl << 5,
    };
    set(core, n, segment);
}

/// Present, code, readable, accessed, in pages.
const CODE: u16 = Segment::G | 0x9b;
/// Present, data, writable, accessed, in pages, 32-bit.
const DATA: u16 = Segment::G | Segment::DB | 0x93;

fn is_intel(core: &Core) -> bool {
    core.arch.system.model.vendor == INTEL
}

/// SYSCALL.
pub(crate) fn syscall(core: &mut Core, next: u64) -> Result<u64, Trap> {
    let state = &core.arch;
    if state.efer & efer::SCE == 0 || !state.is_protected() || is_intel(core) && !core.arch.is_64()
    {
        return Err(ud(core));
    }
    let msr = &core.arch.system.msr;
    let (star, mask) = (msr.star, msr.sfmask);
    let old = flags::read(core);
    let selector = star >> 32 & 0xfffc;
    if core.arch.is_long() {
        let target = if core.arch.is_64() {
            core.arch.system.msr.lstar
        } else {
            core.arch.system.msr.cstar
        };
        core.regs.set(regs::gpr(index::RCX), next);
        core.regs.set(regs::gpr(11), old & !rflags::RF);
        flags::write(core, old & !mask);
        flat(core, SegmentIndex::Cs, selector, 0, CODE | Segment::L);
        core.set_pc(target);
    } else {
        core.regs.set(regs::gpr(index::RCX), next & 0xffff_ffff);
        flags::clear(core, rflags::VM | rflags::IF);
        flat(core, SegmentIndex::Cs, selector, 0, CODE | Segment::DB);
        core.set_pc(star & 0xffff_ffff);
    }
    flat(core, SegmentIndex::Ss, selector.wrapping_add(8), 0, DATA);
    core.arch.cpl = 0;
    mode_changed(core);
    Err(end_fast_call(core))
}

/// SYSRET.
pub(crate) fn sysret(core: &mut Core, size: u8) -> Result<u64, Trap> {
    if core.arch.efer & efer::SCE == 0 || is_intel(core) && !core.arch.is_64() {
        return Err(ud(core));
    }
    if !core.arch.is_protected() {
        return Err(gp(core, 0));
    }
    need_cpl0(core)?;
    let base = core.arch.system.msr.star >> 48;
    let target = core.regs.get(regs::gpr(index::RCX));
    let wide = size == 8 && core.arch.is_64();
    // Intel checks the target here, AMD leaves it to the fetch.
    if wide && is_intel(core) && !is_canonical(target) {
        return Err(gp(core, 0));
    }
    if core.arch.is_long() {
        let r11 = core.regs.get(regs::gpr(11));
        flags::write(core, r11 & SYSRET_FLAGS);
    } else {
        flags::set(core, rflags::IF);
    }
    if wide {
        let selector = base.wrapping_add(16) | 3;
        flat(core, SegmentIndex::Cs, selector, 3, CODE | Segment::L);
        core.set_pc(target);
    } else {
        flat(core, SegmentIndex::Cs, base | 3, 3, CODE | Segment::DB);
        core.set_pc(target & 0xffff_ffff);
    }
    flat(core, SegmentIndex::Ss, base.wrapping_add(8) | 3, 3, DATA);
    core.arch.cpl = 3;
    mode_changed(core);
    Err(end_fast_call(core))
}

/// SYSENTER.
pub(crate) fn sysenter(core: &mut Core) -> Result<u64, Trap> {
    let long = core.arch.is_long();
    if long && !is_intel(core) {
        return Err(ud(core));
    }
    let msr = &core.arch.system.msr;
    let (cs, esp, eip) = (msr.sysenter_cs & 0xfffc, msr.sysenter_esp, msr.sysenter_eip);
    if !core.arch.is_protected() || cs == 0 {
        return Err(gp(core, 0));
    }
    flags::clear(core, rflags::VM | rflags::IF);
    let (kind, mask) = if long {
        (CODE | Segment::L, u64::MAX)
    } else {
        (CODE | Segment::DB, 0xffff_ffff)
    };
    flat(core, SegmentIndex::Cs, cs, 0, kind);
    flat(core, SegmentIndex::Ss, cs.wrapping_add(8), 0, DATA);
    core.arch.cpl = 0;
    core.regs.set(regs::gpr(index::RSP), esp & mask);
    core.set_pc(eip & mask);
    mode_changed(core);
    Err(Trap::Leave)
}

/// SYSEXIT.
pub(crate) fn sysexit(core: &mut Core, size: u8) -> Result<u64, Trap> {
    if core.arch.is_long() && !is_intel(core) {
        return Err(ud(core));
    }
    let cs = core.arch.system.msr.sysenter_cs & 0xfffc;
    if !core.arch.is_protected() || cs == 0 {
        return Err(gp(core, 0));
    }
    need_cpl0(core)?;
    let rip = core.regs.get(regs::gpr(index::RDX));
    let rsp = core.regs.get(regs::gpr(index::RCX));
    if size == 8 {
        if !is_canonical(rip) || !is_canonical(rsp) {
            return Err(gp(core, 0));
        }
        let selector = cs.wrapping_add(32) | 3;
        flat(core, SegmentIndex::Cs, selector, 3, CODE | Segment::L);
        flat(core, SegmentIndex::Ss, cs.wrapping_add(40) | 3, 3, DATA);
        core.regs.set(regs::gpr(index::RSP), rsp);
        core.set_pc(rip);
    } else {
        let selector = cs.wrapping_add(16) | 3;
        flat(core, SegmentIndex::Cs, selector, 3, CODE | Segment::DB);
        flat(core, SegmentIndex::Ss, cs.wrapping_add(24) | 3, 3, DATA);
        core.regs.set(regs::gpr(index::RSP), rsp & 0xffff_ffff);
        core.set_pc(rip & 0xffff_ffff);
    }
    core.arch.cpl = 3;
    mode_changed(core);
    Err(Trap::Leave)
}

/// Sets the base of FS or GS.
pub(crate) fn set_base(core: &mut Core, n: SegmentIndex, base: u64) {
    let mut segment = core.arch.segment(n as usize);
    segment.base = base;
    set(core, n, segment);
}

/// SWAPGS.
pub(crate) fn swapgs(core: &mut Core, next: u64) -> Result<u64, Trap> {
    need_cpl0(core)?;
    let old = core.arch.segment(SegmentIndex::Gs as usize).base;
    let new = std::mem::replace(&mut core.arch.system.msr.kernel_gs_base, old);
    set_base(core, SegmentIndex::Gs, new);
    leave_if_changed(core, next)
}

/// FS or GS, if the FSGSBASE instructions are enabled.
fn fs_or_gs(core: &mut Core, n: u64) -> Result<SegmentIndex, Trap> {
    if core.arch.cr4 & cr4::FSGSBASE == 0 || !core.arch.is_64() {
        return Err(ud(core));
    }
    Ok(if n == SegmentIndex::Fs as u64 {
        SegmentIndex::Fs
    } else {
        SegmentIndex::Gs
    })
}

/// RDFSBASE and RDGSBASE.
pub(crate) fn read_base(core: &mut Core, n: u64) -> Result<u64, Trap> {
    let n = fs_or_gs(core, n)?;
    Ok(core.arch.segment(n as usize).base)
}

/// WRFSBASE and WRGSBASE.
pub(crate) fn write_base(core: &mut Core, n: u64, base: u64) -> Result<u64, Trap> {
    let n = fs_or_gs(core, n)?;
    if !is_canonical(base) {
        return Err(gp(core, 0));
    }
    set_base(core, n, base);
    Ok(0)
}

/// CLAC and STAC.
pub(crate) fn set_ac(core: &mut Core, on: bool, next: u64) -> Result<u64, Trap> {
    if core.arch.cpl != 0 {
        return Err(ud(core));
    }
    if on {
        flags::set(core, rflags::AC);
    } else {
        flags::clear(core, rflags::AC);
    }
    leave_if_changed(core, next)
}
