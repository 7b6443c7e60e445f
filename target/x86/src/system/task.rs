//! Task management (SDM vol. 3, chapter 8): task-state segments and the hardware task switch.

use accel_core::Trap;

use super::segment::{self, Descriptor, kind};
use super::stack;
use super::{debug, flags, gp, mode_changed, np, paging, raise};
use crate::regs::{self, rflags};
use crate::state::{Segment, SegmentIndex, cr0, cr4, vector};
use crate::{Core, Table};

/// What causes a task switch.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Reason {
    Jump,
    Call,
    /// An exception or interrupt through a task gate, with EXT.
    Event(u32),
    /// IRET with NT set.
    Return,
}

/// Where a TSS keeps things (SDM vol. 3, 8.2.1 and 8.6).
struct Form {
    /// Smallest limit.
    limit: u32,
    /// Bytes of a register.
    size: u8,
    ip: u64,
    flags: u64,
    gprs: u64,
    segments: u64,
    /// Segment registers kept.
    segment_count: usize,
    ldt: u64,
    /// The word with the debug trap flag.
    trap: Option<u64>,
}

const FORM_32: Form = Form {
    limit: 0x67,
    size: 4,
    ip: 0x20,
    flags: 0x24,
    gprs: 0x28,
    segments: 0x48,
    segment_count: 6,
    ldt: 0x60,
    trap: Some(0x64),
};

const FORM_16: Form = Form {
    limit: 0x2b,
    size: 2,
    ip: 0x0e,
    flags: 0x10,
    gprs: 0x12,
    segments: 0x22,
    segment_count: 4,
    ldt: 0x2a,
    trap: None,
};

/// CR3 in a 32-bit TSS.
const CR3: u64 = 0x1c;

fn form(kind: u8) -> &'static Form {
    if kind & 8 != 0 { &FORM_32 } else { &FORM_16 }
}

fn nth(start: u64, n: usize, size: u8) -> u64 {
    start.wrapping_add((n as u64).wrapping_mul(u64::from(size)))
}

/// Reads from the current TSS; #TS beyond its limit.
pub(crate) fn load_tss(core: &mut Core, offset: u64, size: u8, ext: u32) -> Result<u64, Trap> {
    let tr = core.arch.tr;
    if offset.wrapping_add(u64::from(size)).wrapping_sub(1) > u64::from(tr.limit) {
        let error = segment::error_of(tr.selector) | ext;
        return Err(raise(core, vector::TS, Some(error)));
    }
    stack::load(core, tr.base, offset, size)
}

/// SS and ESP for a privilege level, from the current TSS of legacy mode.
pub(crate) fn inner_stack(core: &mut Core, cpl: u8, ext: u32) -> Result<(u16, u64), Trap> {
    let n = u64::from(cpl);
    if core.arch.tr.kind() & 8 != 0 {
        let at = n.wrapping_mul(8).wrapping_add(4);
        let sp = load_tss(core, at, 4, ext)?;
        let ss = load_tss(core, at.wrapping_add(4), 2, ext)?;
        Ok((ss as u16, sp))
    } else {
        let at = n.wrapping_mul(4).wrapping_add(2);
        let sp = load_tss(core, at, 2, ext)?;
        let ss = load_tss(core, at.wrapping_add(2), 2, ext)?;
        Ok((ss as u16, sp))
    }
}

/// The new task as its TSS describes it.
struct Incoming {
    cr3: Option<u64>,
    ip: u64,
    flags: u64,
    gprs: [u64; 8],
    segments: [u16; 6],
    ldt: u16,
    /// A debug exception comes before its first instruction.
    traps: bool,
}

fn read_incoming(core: &mut Core, base: u64, form: &Form) -> Result<Incoming, Trap> {
    let size = form.size;
    let mut new = Incoming {
        cr3: None,
        ip: stack::load(core, base, form.ip, size)?,
        flags: stack::load(core, base, form.flags, size)?,
        gprs: [0; 8],
        segments: [0; 6],
        ldt: stack::load(core, base, form.ldt, 2)? as u16,
        traps: false,
    };
    if let Some(at) = form.trap {
        new.traps = stack::load(core, base, at, 2)? & 1 != 0;
    }
    if size == 4 {
        new.cr3 = Some(stack::load(core, base, CR3, 4)?);
    }
    for (n, gpr) in new.gprs.iter_mut().enumerate() {
        *gpr = stack::load(core, base, nth(form.gprs, n, size), size)?;
        if size == 2 {
            *gpr |= 0xffff_0000;
        }
    }
    for (n, selector) in new.segments.iter_mut().enumerate().take(form.segment_count) {
        *selector = stack::load(core, base, nth(form.segments, n, size), 2)? as u16;
    }
    Ok(new)
}

fn save_outgoing(core: &mut Core, next: u64, flags: u64) -> Result<(), Trap> {
    let tr = core.arch.tr;
    let form = form(tr.kind());
    let size = form.size;
    // All of it can be written, or nothing is.
    let (first, last) = (
        stack::linear(core, tr.base),
        stack::linear(core, tr.base.wrapping_add(u64::from(form.limit))),
    );
    let ctx = stack::system_ctx(core);
    core.probe_write(first, 1, ctx)?;
    core.probe_write(last, 1, ctx)?;
    stack::store(core, tr.base, form.ip, size, next)?;
    stack::store(core, tr.base, form.flags, size, flags)?;
    for n in 0..8 {
        let value = core.regs.get(regs::gpr(n));
        stack::store(core, tr.base, nth(form.gprs, n, size), size, value)?;
    }
    for n in 0..form.segment_count {
        let selector = u64::from(core.arch.segment(n).selector);
        stack::store(core, tr.base, nth(form.segments, n, size), 2, selector)?;
    }
    Ok(())
}

/// Switches to the task of a TSS selector. `next` is the outgoing task's EIP. After an exception
/// raised by the new task's segments, the switch has taken place.
pub(crate) fn switch(
    core: &mut Core,
    selector: u16,
    reason: Reason,
    next: u64,
) -> Result<(), Trap> {
    let ext = if let Reason::Event(ext) = reason {
        ext
    } else {
        0
    };
    let error = segment::error_of(selector) | ext;
    let bad = if reason == Reason::Return {
        vector::TS
    } else {
        vector::GP
    };
    let found = if selector & 4 == 0 {
        segment::find(core, selector)?
    } else {
        None
    };
    let wanted = if reason == Reason::Return {
        [kind::TSS_BUSY, kind::TSS_16_BUSY]
    } else {
        [kind::TSS, kind::TSS_16]
    };
    let Some(tss) = found.filter(|d| !d.is_user() && wanted.contains(&d.kind())) else {
        return Err(raise(core, bad, Some(error)));
    };
    if !tss.is_present() {
        return Err(np(core, error));
    }
    let form = form(tss.kind());
    if tss.limit() < form.limit {
        return Err(raise(core, vector::TS, Some(error)));
    }
    let new = read_incoming(core, tss.base(), form)?;
    let old_tr = core.arch.tr;
    let mut old_flags = flags::read(core);
    if reason == Reason::Return {
        old_flags &= !rflags::NT;
    }
    save_outgoing(core, next, old_flags)?;
    if matches!(reason, Reason::Jump | Reason::Return) {
        segment::set_busy(core, old_tr.selector, false)?;
    }
    let nested = matches!(reason, Reason::Call | Reason::Event(_));
    if nested {
        stack::store(core, tss.base(), 0, 2, u64::from(old_tr.selector))?;
    }
    if reason != Reason::Return {
        segment::set_busy(core, selector, true)?;
    }
    core.arch.tr = Descriptor(tss.0 | 2 << 40).segment(selector);
    core.arch.cr0 |= cr0::TS;
    debug::task_switched(core);
    take_over(core, &new, nested)?;
    if new.traps {
        debug::task_traps(core);
    }
    Ok(())
}

fn take_over(core: &mut Core, new: &Incoming, nested: bool) -> Result<(), Trap> {
    use SegmentIndex::{Cs, Ds, Es, Fs, Gs, Ss};
    if let Some(cr3) = new.cr3
        && core.arch.cr0 & cr0::PG != 0
    {
        core.arch.cr3 = cr3;
        if core.arch.cr4 & cr4::PAE != 0
            && let Some(pdptes) = paging::read_pdptes(core, cr3)
        {
            core.arch.system.pdptes = pdptes;
        }
        paging::cr3_written(core, false);
    }
    let flags = new.flags | if nested { rflags::NT } else { 0 };
    flags::write(core, flags);
    for (n, gpr) in new.gprs.iter().enumerate() {
        core.regs.set(regs::gpr(n), *gpr);
    }
    core.set_pc(new.ip);
    let order = [Es, Cs, Ss, Ds, Fs, Gs];
    let [_, cs, ss, ..] = new.segments;
    if flags & rflags::VM != 0 {
        core.arch.cpl = 3;
        for (n, selector) in order.iter().zip(new.segments) {
            segment::set_vm86(core, *n, selector);
        }
    } else {
        core.arch.cpl = cs as u8 & 3;
        for (n, selector) in order.iter().zip(new.segments) {
            let empty = Segment {
                selector,
                ..Segment::default()
            };
            segment::set(core, *n, empty);
        }
    }
    core.arch.ldtr = Segment {
        selector: new.ldt,
        ..Segment::default()
    };
    mode_changed(core);
    load_ldt(core, new.ldt)?;
    if flags & rflags::VM == 0 {
        load_cs(core, cs)?;
        let cpl = core.arch.cpl;
        if segment::is_null(ss) {
            return Err(raise(core, vector::TS, Some(segment::error_of(ss))));
        }
        let segment = segment::check_ss(core, ss, cpl, vector::TS, 0)?;
        segment::set(core, Ss, segment);
        for n in [Ds, Es, Fs, Gs] {
            let selector = core.arch.segment(n as usize).selector;
            let loaded = segment::check_data(core, selector, cpl);
            let segment = loaded.inspect_err(|_| as_task_fault(core))?;
            segment::set(core, n, segment);
        }
    }
    mode_changed(core);
    if new.ip > u64::from(core.arch.cs().limit) {
        return Err(gp(core, 0));
    }
    Ok(())
}

/// What a segment load calls #GP is #TS in a task switch.
fn as_task_fault(core: &mut Core) {
    if let Some(noted) = &mut core.arch.exception
        && noted.vector == vector::GP
    {
        noted.vector = vector::TS;
    }
}

fn load_ldt(core: &mut Core, selector: u16) -> Result<(), Trap> {
    if segment::is_null(selector) {
        return Ok(());
    }
    let error = segment::error_of(selector);
    let found = if selector & 4 == 0 {
        segment::find(core, selector)?
    } else {
        None
    };
    match found {
        Some(d) if !d.is_user() && d.kind() == kind::LDT && d.is_present() => {
            core.arch.ldtr = d.segment(selector);
            Ok(())
        }
        _ => Err(raise(core, vector::TS, Some(error))),
    }
}

fn load_cs(core: &mut Core, selector: u16) -> Result<(), Trap> {
    let error = segment::error_of(selector);
    let rpl = selector as u8 & 3;
    let found = segment::find(core, selector)?.filter(|d| {
        d.is_code()
            && if d.is_conforming() {
                d.dpl() <= rpl
            } else {
                d.dpl() == rpl
            }
    });
    let Some(code) = found else {
        return Err(raise(core, vector::TS, Some(error)));
    };
    if !code.is_present() {
        return Err(np(core, error));
    }
    let code = segment::set_accessed(core, selector, code)?;
    segment::set_cs(core, selector, code, rpl);
    Ok(())
}

/// Whether the TSS's I/O permission map lets `size` ports from `port` on through (SDM vol. 1, 19.5.2).
pub(crate) fn io_allowed(core: &mut Core, port: u16, size: u8) -> Result<bool, Trap> {
    let tr = core.arch.tr;
    let limit = u64::from(tr.limit);
    if tr.kind() & 8 == 0 || !tr.is_present() || limit < 0x67 {
        return Ok(false);
    }
    let map = stack::load(core, tr.base, 0x66, 2)?;
    let at = map.wrapping_add(u64::from(port) >> 3);
    // Two bytes are read always.
    if at.wrapping_add(1) > limit {
        return Ok(false);
    }
    let bits = stack::load(core, tr.base, at, 2)? >> (port & 7);
    let mask = (1u64 << (size & 7)).wrapping_sub(1);
    Ok(bits & mask == 0)
}

/// GDTR or IDTR.
pub(crate) fn table(core: &Core, idt: bool) -> Table {
    if idt { core.arch.idtr } else { core.arch.gdtr }
}
