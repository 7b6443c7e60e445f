//! Control and debug registers (SDM vol. 3, 2.5 and 18.2), XCR0.

use accel_core::Trap;

use super::paging;
use super::{debug, gp, is_vm86, leave, leave_if_changed, mode_changed, need_cpl0, raise, ud};
use crate::regs::{self, index};
use crate::state::{Segment, cr0, cr4, efer, vector};
use crate::{Core, system::feature};

/// Bits of CR0 that exist.
const CR0_BITS: u64 = cr0::PE
    | cr0::MP
    | cr0::EM
    | cr0::TS
    | cr0::ET
    | cr0::NE
    | cr0::WP
    | cr0::AM
    | cr0::NW
    | cr0::CD
    | cr0::PG;

/// DR6 with nothing detected.
pub(crate) const DR6_FIXED: u64 = 0xffff_0ff0;
const DR6_WRITABLE: u64 = 0xe00f;
/// DR6.BD: a debug register was touched under DR7.GD.
const DR6_BD: u64 = 1 << 13;
/// DR7 with nothing enabled.
pub(crate) const DR7_FIXED: u64 = 1 << 10;
const DR7_RESERVED_ZERO: u64 = 0xd800;

/// x87 and SSE state.
const XCR0_BITS: u64 = 3;

/// MOV from CR0, 2, 3, 4, 8.
pub(crate) fn read_cr(core: &mut Core, n: u64) -> Result<u64, Trap> {
    need_cpl0(core)?;
    match n {
        0 => Ok(core.arch.cr0),
        2 => Ok(core.arch.cr2),
        3 => Ok(core.arch.cr3),
        4 => Ok(core.arch.cr4),
        8 => Ok(core.port.cr8()),
        _ => Err(ud(core)),
    }
}

/// MOV to CR0, 2, 3, 4, 8.
pub(crate) fn write_cr(core: &mut Core, n: u64, value: u64, next: u64) -> Result<u64, Trap> {
    need_cpl0(core)?;
    match n {
        0 => write_cr0(core, value)?,
        2 => {
            core.arch.cr2 = value;
            return Ok(0);
        }
        3 => write_cr3(core, value)?,
        4 => write_cr4(core, value)?,
        8 if value > 15 => return Err(gp(core, 0)),
        8 => core.port.set_cr8(value),
        _ => return Err(ud(core)),
    }
    mode_changed(core);
    leave(core, next)
}

fn write_cr0(core: &mut Core, value: u64) -> Result<(), Trap> {
    let state = &core.arch;
    let old = state.cr0;
    let new = value & CR0_BITS | cr0::ET;
    let has = |bit: u64| new & bit != 0;
    let is_64 = state.is_64();
    let bad = value >> 32 != 0
        || has(cr0::PG) && !has(cr0::PE)
        || has(cr0::NW) && !has(cr0::CD)
        || !has(cr0::PG) && old & cr0::PG != 0 && (is_64 || state.cr4 & cr4::PCIDE != 0);
    if bad {
        return Err(gp(core, 0));
    }
    let paging_on = has(cr0::PG) && old & cr0::PG == 0;
    let long = state.efer & efer::LME != 0;
    let pae = state.cr4 & cr4::PAE != 0;
    if paging_on && long && (!pae || state.cs().attributes & Segment::L != 0) {
        return Err(gp(core, 0));
    }
    if paging_on && !long && pae {
        load_pdptes(core, core.arch.cr3)?;
    }
    let state = &mut core.arch;
    state.cr0 = new;
    if paging_on && long {
        state.efer |= efer::LMA;
    }
    if !has(cr0::PG) {
        state.efer &= !efer::LMA;
    }
    if !has(cr0::PE) {
        state.cpl = 0;
    }
    if (old ^ new) & cr0::PG != 0 {
        paging::switch(core);
        if has(cr0::PG) {
            core.mmu.bank().flush();
        }
    } else if (old ^ new) & cr0::WP != 0 {
        core.mmu.flush_all();
    }
    Ok(())
}

fn load_pdptes(core: &mut Core, cr3: u64) -> Result<(), Trap> {
    match paging::read_pdptes(core, cr3) {
        Some(pdptes) => {
            core.arch.system.pdptes = pdptes;
            Ok(())
        }
        None => Err(gp(core, 0)),
    }
}

fn write_cr3(core: &mut Core, value: u64) -> Result<(), Trap> {
    let mut value = value;
    let mut keep = false;
    let state = &core.arch;
    if state.is_long() {
        if state.cr4 & cr4::PCIDE != 0 {
            keep = value >> 63 != 0;
            value &= !(1 << 63);
        }
        let width = state.system.model.phys_bits;
        if value.checked_shr(width).unwrap_or(0) != 0 {
            return Err(gp(core, 0));
        }
    } else {
        value &= 0xffff_ffff;
        if state.cr0 & cr0::PG != 0 && state.cr4 & cr4::PAE != 0 {
            load_pdptes(core, value)?;
        }
    }
    core.arch.cr3 = value;
    paging::cr3_written(core, keep);
    Ok(())
}

/// Bits of CR4 that the model allows.
pub(super) fn cr4_bits(core: &Core) -> u64 {
    let model = &core.arch.system.model;
    [
        (cr4::TSD, feature::TSC),
        (cr4::DE, feature::DE),
        (cr4::PSE, feature::PSE),
        (cr4::PAE, feature::PAE),
        (cr4::MCE, feature::MCE),
        (cr4::PGE, feature::PGE),
        (cr4::OSFXSR, feature::FXSR),
        (cr4::OSXMMEXCPT, feature::SSE),
        (cr4::UMIP, feature::UMIP),
        (cr4::FSGSBASE, feature::FSGSBASE),
        (cr4::PCIDE, feature::PCID),
        (cr4::OSXSAVE, feature::XSAVE),
        (cr4::SMEP, feature::SMEP),
        (cr4::SMAP, feature::SMAP),
    ]
    .iter()
    .filter(|(_, feature)| model.has(*feature))
    .fold(cr4::PCE, |bits, (bit, _)| bits | bit)
}

fn write_cr4(core: &mut Core, new: u64) -> Result<(), Trap> {
    let state = &core.arch;
    let old = state.cr4;
    let changed = old ^ new;
    let long = state.is_long();
    let pcid_on = changed & new & cr4::PCIDE != 0;
    let bad = new & !cr4_bits(core) != 0
        || long && new & cr4::PAE == 0
        || pcid_on && (!long || state.cr3 & 0xfff != 0);
    if bad {
        return Err(gp(core, 0));
    }
    let pdptes = cr4::PAE | cr4::PSE | cr4::PGE | cr4::SMEP;
    if changed & pdptes != 0
        && new & cr4::PAE != 0
        && core.arch.cr0 & cr0::PG != 0
        && !core.arch.is_long()
    {
        load_pdptes(core, core.arch.cr3)?;
    }
    core.arch.cr4 = new;
    let cached = cr4::PSE | cr4::PAE | cr4::PGE | cr4::PCIDE | cr4::SMEP | cr4::SMAP;
    if changed & cached != 0 {
        paging::switch(core);
        core.mmu.flush_all();
    }
    Ok(())
}

/// LMSW: the low four bits of CR0; PE stays once it is set.
pub(crate) fn lmsw(core: &mut Core, value: u64, next: u64) -> Result<u64, Trap> {
    need_cpl0(core)?;
    let low = cr0::PE | cr0::MP | cr0::EM | cr0::TS;
    let old = core.arch.cr0;
    write_cr0(core, old & !(low & !cr0::PE) | value & low)?;
    leave_if_changed(core, next)
}

/// SMSW.
pub(crate) fn smsw(core: &mut Core) -> Result<u64, Trap> {
    check_umip(core)?;
    Ok(core.arch.cr0)
}

/// CLTS.
pub(crate) fn clts(core: &mut Core, next: u64) -> Result<u64, Trap> {
    need_cpl0(core)?;
    core.arch.cr0 &= !cr0::TS;
    leave_if_changed(core, next)
}

/// User-mode instruction prevention: #GP(0) for the S-instructions above privilege 0.
pub(crate) fn check_umip(core: &mut Core) -> Result<(), Trap> {
    if core.arch.cr4 & cr4::UMIP != 0 && core.arch.cpl != 0 {
        return Err(gp(core, 0));
    }
    Ok(())
}

/// DR4 and DR5 are DR6 and DR7 unless CR4.DE is set.
fn debug_register(core: &mut Core, n: u64) -> Result<u64, Trap> {
    need_cpl0(core)?;
    let n = match n {
        4 | 5 if core.arch.cr4 & cr4::DE != 0 => return Err(ud(core)),
        4 | 5 => n.wrapping_add(2),
        0..=7 => n,
        _ => return Err(ud(core)),
    };
    if core.arch.system.dr7 & debug::DR7_GD != 0 {
        core.arch.system.dr6 |= DR6_BD;
        return Err(raise(core, vector::DB, None));
    }
    Ok(n)
}

/// MOV from DRn.
pub(crate) fn read_dr(core: &mut Core, n: u64) -> Result<u64, Trap> {
    let n = debug_register(core, n)?;
    let system = &core.arch.system;
    Ok(match n {
        6 => system.dr6,
        7 => system.dr7,
        n => system.dr.get(n as usize).copied().unwrap_or(0),
    })
}

/// MOV to DRn.
pub(crate) fn write_dr(core: &mut Core, n: u64, value: u64, next: u64) -> Result<u64, Trap> {
    let n = debug_register(core, n)?;
    if n >= 6 && value >> 32 != 0 {
        return Err(gp(core, 0));
    }
    let system = &mut core.arch.system;
    match n {
        6 => system.dr6 = value & DR6_WRITABLE | DR6_FIXED,
        7 => system.dr7 = value & !DR7_RESERVED_ZERO | DR7_FIXED,
        n => {
            if let Some(dr) = system.dr.get_mut(n as usize) {
                *dr = value;
            }
        }
    }
    if n == 6 {
        return Ok(0);
    }
    debug::arm(core);
    leave(core, next)
}

fn edx_eax(core: &Core) -> u64 {
    let low = core.regs.get(regs::gpr(index::RAX)) & 0xffff_ffff;
    core.regs.get(regs::gpr(index::RDX)) << 32 | low
}

/// EDX:EAX as WRMSR and XSETBV read it.
pub(crate) fn pair(core: &Core) -> u64 {
    edx_eax(core)
}

/// Sets EDX:EAX, clearing the upper halves.
pub(crate) fn set_pair(core: &mut Core, value: u64) {
    core.regs.set(regs::gpr(index::RAX), value & 0xffff_ffff);
    core.regs.set(regs::gpr(index::RDX), value >> 32);
}

/// ECX.
pub(crate) fn ecx(core: &Core) -> u32 {
    core.regs.get(regs::gpr(index::RCX)) as u32
}

/// XGETBV.
pub(crate) fn xgetbv(core: &mut Core) -> Result<u64, Trap> {
    if core.arch.cr4 & cr4::OSXSAVE == 0 {
        return Err(ud(core));
    }
    if ecx(core) != 0 {
        return Err(gp(core, 0));
    }
    let xcr0 = core.arch.system.xcr0;
    set_pair(core, xcr0);
    Ok(0)
}

/// XSETBV.
pub(crate) fn xsetbv(core: &mut Core, next: u64) -> Result<u64, Trap> {
    if core.arch.cr4 & cr4::OSXSAVE == 0 {
        return Err(ud(core));
    }
    need_cpl0(core)?;
    let value = edx_eax(core);
    if ecx(core) != 0 || value & 1 == 0 || value & !XCR0_BITS != 0 {
        return Err(gp(core, 0));
    }
    core.arch.system.xcr0 = value;
    leave_if_changed(core, next)
}

/// SGDT and SIDT: the limit, or the base.
pub(crate) fn read_table(core: &mut Core, idt: bool, base: bool) -> Result<u64, Trap> {
    check_umip(core)?;
    let table = super::task::table(core, idt);
    Ok(if base {
        table.base
    } else {
        u64::from(table.limit)
    })
}

/// LGDT and LIDT.
pub(crate) fn load_table(core: &mut Core, idt: bool, limit: u64, base: u64) -> Result<u64, Trap> {
    need_cpl0(core)?;
    if core.arch.is_64() && !paging::is_canonical(base) {
        return Err(gp(core, 0));
    }
    let table = crate::Table {
        base,
        limit: limit as u16,
    };
    if idt {
        core.arch.idtr = table;
    } else {
        core.arch.gdtr = table;
    }
    Ok(0)
}

fn need_descriptors(core: &mut Core) -> Result<(), Trap> {
    if !core.arch.is_protected() || is_vm86(core) {
        return Err(ud(core));
    }
    Ok(())
}

/// SLDT and STR.
pub(crate) fn read_system_segment(core: &mut Core, tr: bool) -> Result<u64, Trap> {
    need_descriptors(core)?;
    check_umip(core)?;
    let segment = if tr { core.arch.tr } else { core.arch.ldtr };
    Ok(u64::from(segment.selector))
}

/// LLDT and LTR.
pub(crate) fn load_system_segment(core: &mut Core, tr: bool, selector: u16) -> Result<u64, Trap> {
    need_descriptors(core)?;
    need_cpl0(core)?;
    if tr {
        super::segment::ltr(core, selector)?;
    } else {
        super::segment::lldt(core, selector)?;
    }
    Ok(0)
}
