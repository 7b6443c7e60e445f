//! Far transfers (SDM vol. 3, 5.8; vol. 2, CALL, JMP, RET, IRET).

use accel_core::Trap;

use super::segment::{self, Descriptor, kind};
use super::stack::{Stack, ctx_at};
use super::task::{self, Reason};
use super::{debug, flags, gp, is_vm86, mode_changed, np, paging, raise};
use crate::Core;
use crate::regs::{self, index, rflags};
use crate::state::{SegmentIndex, vector};

/// Whether CALL or JMP.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Far {
    Call,
    Jump,
}

impl Far {
    fn name(self) -> &'static str {
        match self {
            Far::Call => "call far",
            Far::Jump => "jump far",
        }
    }
}

/// Logs a transfer between privileges or segments (`-d pcall`).
fn log(core: &Core, what: &str, selector: u16, offset: u64) {
    log::trace!(
        target: "pcall",
        "cpu {}: {what} from {:04x}:{:#x} cpl={} to {selector:04x}:{offset:#x}",
        core.index,
        core.arch.cs().selector,
        core.pc(),
        core.arch.cpl,
    );
}

fn size_mask(size: u8) -> u64 {
    match size {
        2 => 0xffff,
        4 => 0xffff_ffff,
        _ => u64::MAX,
    }
}

/// Checks an offset against the code segment that will hold it.
fn check_target(core: &mut Core, code: Descriptor, offset: u64) -> Result<(), Trap> {
    let fine = if core.arch.is_long() && code.is_64() {
        paging::is_canonical(offset)
    } else {
        offset <= u64::from(code.limit())
    };
    if fine { Ok(()) } else { Err(gp(core, 0)) }
}

/// CALL and JMP far.
pub(crate) fn far(
    core: &mut Core,
    how: Far,
    selector: u16,
    offset: u64,
    size: u8,
    next: u64,
) -> Result<u64, Trap> {
    log(core, how.name(), selector, offset);
    if !core.arch.is_protected() || is_vm86(core) {
        let offset = offset & size_mask(size);
        if offset > u64::from(core.arch.cs().limit) {
            return Err(gp(core, 0));
        }
        if how == Far::Call {
            let mut stack = Stack::current(core);
            stack.push(core, size, u64::from(core.arch.cs().selector))?;
            stack.push(core, size, next)?;
            stack.commit(core);
        }
        load_real_cs(core, selector);
        core.set_pc(offset);
        mode_changed(core);
        return Err(Trap::Leave);
    }
    if segment::is_null(selector) {
        return Err(gp(core, 0));
    }
    let descriptor = segment::need(core, selector, 0)?;
    if descriptor.is_user() {
        direct(core, how, selector, descriptor, offset, size, next)?;
    } else {
        through_gate(core, how, selector, descriptor, next)?;
    }
    mode_changed(core);
    Err(Trap::Leave)
}

fn load_real_cs(core: &mut Core, selector: u16) {
    if is_vm86(core) {
        segment::set_vm86(core, SegmentIndex::Cs, selector);
    } else {
        segment::set_real(core, SegmentIndex::Cs, selector);
    }
}

/// To a code segment.
#[allow(clippy::too_many_arguments)]
fn direct(
    core: &mut Core,
    how: Far,
    selector: u16,
    code: Descriptor,
    offset: u64,
    size: u8,
    next: u64,
) -> Result<(), Trap> {
    let error = segment::error_of(selector);
    let cpl = core.arch.cpl;
    let rpl = selector as u8 & 3;
    let allowed = if code.is_conforming() {
        code.dpl() <= cpl
    } else {
        rpl <= cpl && code.dpl() == cpl
    };
    if !code.is_code() || !allowed {
        return Err(gp(core, error));
    }
    if core.arch.is_long() && code.is_64() && code.is_32() {
        return Err(gp(core, error));
    }
    if !code.is_present() {
        return Err(np(core, error));
    }
    let offset = offset & size_mask(size);
    check_target(core, code, offset)?;
    let code = segment::set_accessed(core, selector, code)?;
    if how == Far::Call {
        let mut stack = Stack::current(core);
        stack.push(core, size, u64::from(core.arch.cs().selector))?;
        stack.push(core, size, next)?;
        stack.commit(core);
    }
    segment::set_cs(core, selector, code, cpl);
    core.set_pc(offset);
    Ok(())
}

/// To a call gate, a task gate or a TSS.
fn through_gate(
    core: &mut Core,
    how: Far,
    selector: u16,
    gate: Descriptor,
    next: u64,
) -> Result<(), Trap> {
    let error = segment::error_of(selector);
    let long = core.arch.is_long();
    let rpl = selector as u8 & 3;
    let allowed = gate.dpl() >= core.arch.cpl.max(rpl);
    let reason = match how {
        Far::Call => Reason::Call,
        Far::Jump => Reason::Jump,
    };
    match gate.kind() {
        kind::TSS | kind::TSS_16 if !long && allowed => task::switch(core, selector, reason, next),
        kind::TASK if !long && allowed => {
            if !gate.is_present() {
                return Err(np(core, error));
            }
            task::switch(core, gate.gate_selector(), reason, next)
        }
        kind::CALL if allowed => call_gate(core, how, selector, gate, next),
        kind::CALL_16 if !long && allowed => call_gate(core, how, selector, gate, next),
        _ => Err(gp(core, error)),
    }
}

fn call_gate(
    core: &mut Core,
    how: Far,
    gate_selector: u16,
    gate: Descriptor,
    next: u64,
) -> Result<(), Trap> {
    let long = core.arch.is_long();
    let gate_error = segment::error_of(gate_selector);
    if !gate.is_present() {
        return Err(np(core, gate_error));
    }
    let mut target = gate.gate_offset();
    let size = if long {
        let (_, high) = match segment::find_long(core, gate_selector)? {
            Some(found) => found,
            None => return Err(gp(core, gate_error)),
        };
        if high >> 40 & 0x1f != 0 {
            return Err(gp(core, gate_error));
        }
        target |= high << 32;
        8
    } else if gate.kind() == kind::CALL {
        4
    } else {
        target &= 0xffff;
        2
    };
    let selector = gate.gate_selector();
    if segment::is_null(selector) {
        return Err(gp(core, 0));
    }
    let error = segment::error_of(selector);
    let code = segment::need(core, selector, 0)?;
    let cpl = core.arch.cpl;
    if !code.is_code() || code.dpl() > cpl {
        return Err(gp(core, error));
    }
    if long && (!code.is_64() || code.is_32()) {
        return Err(gp(core, error));
    }
    if how == Far::Jump && !code.is_conforming() && code.dpl() != cpl {
        return Err(gp(core, error));
    }
    if !code.is_present() {
        return Err(np(core, error));
    }
    check_target(core, code, target)?;
    let code = segment::set_accessed(core, selector, code)?;
    let old_cs = u64::from(core.arch.cs().selector);
    if how == Far::Call && !code.is_conforming() && code.dpl() < cpl {
        let new_cpl = code.dpl();
        let outer = Stack::current(core);
        let old_ss = u64::from(core.arch.ss().selector);
        let (ss, mut stack) = if long {
            let at = u64::from(new_cpl).wrapping_mul(8).wrapping_add(4);
            let sp = task::load_tss(core, at, 8, 0)?;
            let ss = segment::null_ss(u16::from(new_cpl), new_cpl);
            (ss, Stack::flat(sp, ctx_at(core, new_cpl)))
        } else {
            let (ss, sp) = task::inner_stack(core, new_cpl, 0)?;
            if segment::is_null(ss) {
                return Err(raise(core, vector::TS, Some(0)));
            }
            let segment = segment::check_ss(core, ss, new_cpl, vector::TS, 0)?;
            let stack = Stack::segmented(segment, sp, ctx_at(core, new_cpl))
                .with_error(segment::error_of(ss));
            (segment, stack)
        };
        stack.push(core, size, old_ss)?;
        stack.push(core, size, outer.sp)?;
        if !long {
            let count = gate.0 >> 32 & 31;
            for n in (0..count).rev() {
                let parameter = outer.peek(core, size, n.wrapping_mul(u64::from(size)))?;
                stack.push(core, size, parameter)?;
            }
        }
        stack.push(core, size, old_cs)?;
        stack.push(core, size, next)?;
        segment::set(core, SegmentIndex::Ss, ss);
        segment::set_cs(core, selector, code, new_cpl);
        stack.commit(core);
    } else {
        if how == Far::Call {
            let mut stack = Stack::current(core);
            stack.push(core, size, old_cs)?;
            stack.push(core, size, next)?;
            stack.commit(core);
        }
        segment::set_cs(core, selector, code, cpl);
    }
    core.set_pc(target);
    Ok(())
}

/// The code segment of a far return or IRET, checked against privilege.
fn return_target(core: &mut Core, selector: u16, offset: u64) -> Result<Descriptor, Trap> {
    if segment::is_null(selector) {
        return Err(gp(core, 0));
    }
    let error = segment::error_of(selector);
    let code = segment::need(core, selector, 0)?;
    let rpl = selector as u8 & 3;
    let allowed = if code.is_conforming() {
        code.dpl() <= rpl
    } else {
        code.dpl() == rpl
    };
    if !code.is_code() || rpl < core.arch.cpl || !allowed {
        return Err(gp(core, error));
    }
    if core.arch.is_long() && code.is_64() && code.is_32() {
        return Err(gp(core, error));
    }
    if !code.is_present() {
        return Err(np(core, error));
    }
    check_target(core, code, offset)?;
    segment::set_accessed(core, selector, code)
}

/// SS of the outer level, for a return that leaves this one.
fn outer_ss(
    core: &mut Core,
    selector: u16,
    cpl: u8,
    code: Descriptor,
) -> Result<crate::Segment, Trap> {
    if segment::is_null(selector) {
        // 64-bit code below privilege 3 runs with a null SS.
        if !core.arch.is_long() || !code.is_64() || cpl == 3 || selector as u8 & 3 != cpl {
            return Err(gp(core, 0));
        }
        return Ok(segment::null_ss(selector, cpl));
    }
    segment::check_ss(core, selector, cpl, vector::GP, 0)
}

/// RET far, releasing `bytes` of parameters.
pub(crate) fn far_return(core: &mut Core, size: u8, bytes: u64) -> Result<u64, Trap> {
    let mut stack = Stack::current(core);
    let offset = stack.pop(core, size)?;
    let selector = stack.pop(core, size)? as u16;
    log(core, "return far", selector, offset);
    if !core.arch.is_protected() || is_vm86(core) {
        if offset > u64::from(core.arch.cs().limit) {
            return Err(gp(core, 0));
        }
        stack.drop(bytes);
        stack.commit(core);
        load_real_cs(core, selector);
        core.set_pc(offset);
        mode_changed(core);
        return Err(Trap::Leave);
    }
    let code = return_target(core, selector, offset)?;
    let new_cpl = selector as u8 & 3;
    if new_cpl > core.arch.cpl {
        stack.drop(bytes);
        let sp = stack.pop(core, size)?;
        let ss = stack.pop(core, size)? as u16;
        let ss = outer_ss(core, ss, new_cpl, code)?;
        segment::set_cs(core, selector, code, new_cpl);
        segment::set(core, SegmentIndex::Ss, ss);
        // The parameters lie on the outer stack too.
        let mut outer = if core.arch.is_64() {
            Stack::flat(sp, 0)
        } else {
            Stack::segmented(ss, merged_sp(core, &ss, sp), 0)
        };
        outer.drop(bytes);
        outer.commit(core);
        segment::drop_inner_segments(core);
    } else {
        segment::set_cs(core, selector, code, new_cpl);
        stack.drop(bytes);
        stack.commit(core);
    }
    core.set_pc(offset);
    mode_changed(core);
    Err(Trap::Leave)
}

/// A popped stack pointer as it enters RSP: a 16-bit stack keeps the upper bits.
fn merged_sp(core: &Core, ss: &crate::Segment, sp: u64) -> u64 {
    if ss.attributes & crate::Segment::DB != 0 {
        sp & 0xffff_ffff
    } else {
        let old = core.regs.get(regs::gpr(index::RSP));
        old & 0xffff_0000 | sp & 0xffff
    }
}

/// Flags that IRET may change from its privilege.
fn iret_mask(core: &Core, size: u8) -> u64 {
    let cpl = core.arch.cpl;
    let mut mask =
        accel_ir::flags::ALL | rflags::TF | rflags::DF | rflags::NT | rflags::AC | rflags::ID;
    if cpl == 0 {
        mask |= rflags::IOPL | rflags::VIF | rflags::VIP;
    }
    if cpl <= flags::iopl(core) {
        mask |= rflags::IF;
    }
    if size == 2 {
        mask &= 0xffff;
    }
    mask
}

/// IRET, IRETD and IRETQ. `next` is for the outgoing task, if this is a task return. Returns where it goes on if
/// that is 64-bit code in the same mode, which the kernel does to serialize.
pub(crate) fn iret(core: &mut Core, size: u8, next: u64) -> Result<u64, Trap> {
    let vm86 = is_vm86(core);
    let before = core.regs.get(regs::RFLAGS);
    if !core.arch.is_protected() || vm86 {
        iret_real(core, size, vm86)?;
    } else if core.regs.get(regs::RFLAGS) & rflags::NT != 0 {
        if core.arch.is_long() {
            return Err(gp(core, 0));
        }
        let link = task::load_tss(core, 0, 2, 0)? as u16;
        task::switch(core, link, Reason::Return, next)?;
    } else {
        iret_protected(core, size)?;
    }
    core.arch.system.nmi_blocked = false;
    super::exception::tf_loaded(core, before);
    let changed = mode_changed(core);
    let is_watched = core.stepping || super::exception::is_traced(core);
    // Elsewhere the base of CS may be another now, which is not part of the mode.
    if changed || is_watched || !core.arch.is_64() || core.pending.get() != 0 {
        return Err(Trap::Leave);
    }
    Ok(core.pc())
}

fn iret_real(core: &mut Core, size: u8, vm86: bool) -> Result<(), Trap> {
    if vm86 && flags::iopl(core) < 3 {
        return Err(gp(core, 0));
    }
    let mut stack = Stack::current(core);
    let offset = stack.pop(core, size)?;
    let selector = stack.pop(core, size)? as u16;
    let popped = stack.pop(core, size)?;
    log(core, "iret", selector, offset);
    if offset > u64::from(core.arch.cs().limit) {
        return Err(gp(core, 0));
    }
    let mut mask = accel_ir::flags::ALL
        | rflags::TF
        | rflags::IF
        | rflags::DF
        | rflags::NT
        | rflags::AC
        | rflags::ID;
    if !vm86 {
        mask |= rflags::IOPL;
    }
    if size == 2 {
        mask &= 0xffff;
    }
    stack.commit(core);
    load_real_cs(core, selector);
    core.set_pc(offset);
    flags::merge(core, popped, mask);
    debug::resume(core, if size == 2 { 0 } else { popped });
    Ok(())
}

fn iret_protected(core: &mut Core, size: u8) -> Result<(), Trap> {
    let long64 = core.arch.is_64();
    let mut stack = Stack::current(core);
    let offset = stack.pop(core, size)?;
    let selector = stack.pop(core, size)? as u16;
    let popped = stack.pop(core, size)?;
    let to_vm86 = popped & rflags::VM != 0 && size == 4 && !core.arch.is_long();
    if to_vm86 && core.arch.cpl == 0 {
        return iret_to_vm86(core, stack, offset, selector, popped);
    }
    log(core, "iret", selector, offset);
    let code = return_target(core, selector, offset)?;
    let new_cpl = selector as u8 & 3;
    let mask = iret_mask(core, size);
    if new_cpl > core.arch.cpl || long64 {
        // In 64-bit mode RSP and SS are popped always.
        let sp = stack.pop(core, size)?;
        let ss = stack.pop(core, size)? as u16;
        let outward = new_cpl > core.arch.cpl;
        let ss = outer_ss(core, ss, new_cpl, code)?;
        segment::set_cs(core, selector, code, new_cpl);
        segment::set(core, SegmentIndex::Ss, ss);
        let sp = if core.arch.is_64() {
            sp
        } else {
            merged_sp(core, &ss, sp)
        };
        core.regs.set(regs::gpr(index::RSP), sp);
        if outward {
            segment::drop_inner_segments(core);
        }
    } else {
        segment::set_cs(core, selector, code, new_cpl);
        stack.commit(core);
    }
    core.set_pc(offset);
    flags::merge(core, popped, mask);
    debug::resume(core, if size == 2 { 0 } else { popped });
    Ok(())
}

fn iret_to_vm86(
    core: &mut Core,
    mut stack: Stack,
    offset: u64,
    cs: u16,
    popped: u64,
) -> Result<(), Trap> {
    use SegmentIndex::{Cs, Ds, Es, Fs, Gs, Ss};
    let sp = stack.pop(core, 4)?;
    let mut selectors = [0; 5];
    for selector in &mut selectors {
        *selector = stack.pop(core, 4)? as u16;
    }
    if offset > 0xffff {
        return Err(gp(core, 0));
    }
    flags::write(core, popped);
    for (n, selector) in [Ss, Es, Ds, Fs, Gs].into_iter().zip(selectors) {
        segment::set_vm86(core, n, selector);
    }
    segment::set_vm86(core, Cs, cs);
    core.arch.cpl = 3;
    core.regs.set(regs::gpr(index::RSP), sp);
    core.set_pc(offset);
    debug::resume(core, popped);
    Ok(())
}
