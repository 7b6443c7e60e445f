//! Delivery of exceptions and interrupts (SDM vol. 3, chapter 6).

use accel_core::{Exit, Trap};

use super::segment::{self, Descriptor, kind};
use super::stack::{self, Stack, ctx_at, load_entry};
use super::task::{self, Reason};
use super::{debug, flags, gp, mode_changed, np, raise};
use crate::regs::{self, index, rflags};
use crate::state::{Segment, SegmentIndex, vector};
use crate::{Core, Exception};

/// DR6.BS: a single step.
pub(crate) const DR6_BS: u64 = 1 << 14;

/// What is to be delivered.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Event {
    pub(crate) vector: u8,
    pub(crate) error: Option<u32>,
    /// By INT n, INT3 or INTO: the gate's privilege is checked, and EXT is clear.
    pub(crate) software: bool,
    /// RIP to return to.
    pub(crate) next: u64,
    /// A fault: RF is set in the saved flags.
    pub(crate) fault: bool,
}

impl Event {
    fn ext(&self) -> u32 {
        u32::from(!self.software)
    }

    /// Error code that names the gate.
    fn idt_error(&self) -> u32 {
        u32::from(self.vector) << 3 | 2 | self.ext()
    }
}

/// How exceptions combine (SDM vol. 3, table 6-5).
#[derive(Clone, Copy, PartialEq, Eq)]
enum Class {
    Benign,
    Contributory,
    PageFault,
    DoubleFault,
}

fn class(vector: u8) -> Class {
    match vector {
        vector::DE | vector::TS | vector::NP | vector::SS | vector::GP => Class::Contributory,
        vector::PF => Class::PageFault,
        vector::DF => Class::DoubleFault,
        _ => Class::Benign,
    }
}

fn is_fault(vector: u8) -> bool {
    !matches!(
        vector,
        vector::DB | vector::BP | vector::OF | vector::NMI | vector::DF | vector::MC
    )
}

/// Delivers the noted exception, and those that delivery itself raises.
pub(crate) fn deliver(core: &mut Core) -> Result<(), Exit> {
    let mut before = Class::Benign;
    while let Some(mut noted) = core.arch.exception.take() {
        if let Some(address) = noted.address {
            core.arch.cr2 = address;
        }
        if noted.vector == vector::DB {
            // SDM vol. 3, 19.2.4: the handler may touch debug registers.
            core.arch.system.dr7 &= !debug::DR7_GD;
        }
        let now = class(noted.vector);
        match (before, now) {
            (Class::DoubleFault, Class::Contributory | Class::PageFault) => {
                return Err(Exit::Shutdown);
            }
            (Class::Contributory, Class::Contributory)
            | (Class::PageFault, Class::Contributory | Class::PageFault) => {
                noted = Exception {
                    vector: vector::DF,
                    error: Some(0),
                    address: None,
                    software: false,
                };
                before = Class::DoubleFault;
            }
            // A benign one on the way does not make a double fault less of one.
            (Class::DoubleFault, Class::Benign | Class::DoubleFault) => {}
            (_, now) => before = now,
        }
        let event = Event {
            vector: noted.vector,
            error: noted.error,
            software: noted.software,
            next: core.pc(),
            fault: is_fault(noted.vector) && !noted.software,
        };
        match enter(core, event) {
            Ok(()) | Err(Trap::Exception) => {}
            Err(Trap::Exit(exit)) => return Err(exit),
            Err(_) => {
                return Err(Exit::Internal(
                    "memory changed while an event was delivered",
                ));
            }
        }
    }
    Ok(())
}

/// Delivers an external interrupt.
pub(crate) fn external(core: &mut Core, vector: u8) -> Result<(), Exit> {
    let event = Event {
        vector,
        error: None,
        software: false,
        next: core.pc(),
        fault: false,
    };
    core.counters.exceptions = core.counters.exceptions.wrapping_add(1);
    match enter(core, event) {
        Ok(()) => Ok(()),
        Err(Trap::Exception) => deliver(core),
        Err(Trap::Exit(exit)) => Err(exit),
        Err(_) => Err(Exit::Internal(
            "memory changed while an interrupt was delivered",
        )),
    }
}

/// INT n, INT3 and INTO: ends the instruction, or raises what delivery raises.
pub(crate) fn software(core: &mut Core, vector: u8, next: u64) -> Result<u64, Trap> {
    enter(
        core,
        Event {
            vector,
            error: None,
            software: true,
            next,
            fault: false,
        },
    )?;
    Err(Trap::Leave)
}

/// Goes through the vector's gate. On an exception nothing but memory below the stack has changed.
fn enter(core: &mut Core, event: Event) -> Result<(), Trap> {
    log::debug!(
        target: "int",
        "cpu {}: v={:02x} e={:04x} i={} cpl={} pc={:016x} next={:016x} cr2={:016x}",
        core.index,
        event.vector,
        event.error.unwrap_or(0),
        u8::from(event.software),
        core.arch.cpl,
        core.pc(),
        event.next,
        core.arch.cr2,
    );
    if !core.arch.is_protected() {
        real(core, event)?;
    } else if core.arch.is_long() {
        long(core, event)?;
    } else {
        protected(core, event)?;
    }
    core.arch.shadow = false;
    core.arch.system.fresh_shadow = None;
    core.arch.halted = false;
    mode_changed(core);
    Ok(())
}

/// Real-address mode: the interrupt vector table (SDM vol. 3, 20.1.4).
fn real(core: &mut Core, event: Event) -> Result<(), Trap> {
    let at = u64::from(event.vector) << 2;
    if at.wrapping_add(3) > u64::from(core.arch.idtr.limit) {
        return Err(gp(core, event.idt_error()));
    }
    let base = core.arch.idtr.base;
    let entry = stack::load(core, base, at, 4)?;
    let old = flags::read(core);
    let mut stack = Stack::current(core);
    stack.push(core, 2, old)?;
    stack.push(core, 2, u64::from(core.arch.cs().selector))?;
    stack.push(core, 2, event.next)?;
    stack.commit(core);
    flags::clear(core, rflags::IF | rflags::TF | rflags::AC);
    segment::set_real(core, SegmentIndex::Cs, (entry >> 16) as u16);
    core.set_pc(entry & 0xffff);
    Ok(())
}

/// The checks of a gate that all modes share.
fn check_gate(core: &mut Core, event: &Event, gate: Descriptor, kinds: &[u8]) -> Result<(), Trap> {
    let error = event.idt_error();
    if gate.is_user() || !kinds.contains(&gate.kind()) {
        return Err(gp(core, error));
    }
    if event.software && gate.dpl() < core.arch.cpl {
        return Err(gp(core, error));
    }
    if !gate.is_present() {
        return Err(np(core, error));
    }
    Ok(())
}

/// The code segment that a gate leads to.
fn gate_target(core: &mut Core, event: &Event, selector: u16) -> Result<Descriptor, Trap> {
    let ext = event.ext();
    if segment::is_null(selector) {
        return Err(gp(core, ext));
    }
    let error = segment::error_of(selector) | ext;
    let code = segment::need(core, selector, ext)?;
    if !code.is_code() || code.dpl() > core.arch.cpl {
        return Err(gp(core, error));
    }
    if core.arch.is_long() && (!code.is_64() || code.is_32()) {
        return Err(gp(core, error));
    }
    if !code.is_present() {
        return Err(np(core, error));
    }
    segment::set_accessed(core, selector, code)
}

/// Flags after a gate was passed.
fn pass_flags(core: &mut Core, gate: Descriptor) {
    let mut gone = rflags::TF | rflags::NT | rflags::RF | rflags::VM;
    if gate.kind() & 1 == 0 {
        gone |= rflags::IF;
    }
    flags::clear(core, gone);
}

fn saved_flags(core: &mut Core, event: &Event) -> u64 {
    let fault = if event.fault { rflags::RF } else { 0 };
    let flags = flags::read(core) | debug::rf(core) | fault;
    core.arch.system.resume_at = None;
    flags
}

/// Protected mode, 32-bit and 16-bit gates (SDM vol. 3, 6.12).
fn protected(core: &mut Core, event: Event) -> Result<(), Trap> {
    use kind::{INTERRUPT, INTERRUPT_16, TASK, TRAP, TRAP_16};
    let ext = event.ext();
    let table = core.arch.idtr;
    let Some((entry, _)) = load_entry(core, table, u64::from(event.vector) << 3, 8)? else {
        return Err(gp(core, event.idt_error()));
    };
    let gate = Descriptor(entry);
    check_gate(
        core,
        &event,
        gate,
        &[TASK, INTERRUPT_16, TRAP_16, INTERRUPT, TRAP],
    )?;
    if gate.kind() == TASK {
        return through_task_gate(core, event, gate.gate_selector());
    }
    let selector = gate.gate_selector();
    let code = gate_target(core, &event, selector)?;
    let wide = gate.kind() & 8 != 0;
    let size = if wide { 4 } else { 2 };
    let cpl = core.arch.cpl;
    let new_cpl = if code.is_conforming() {
        cpl
    } else {
        code.dpl()
    };
    let vm86 = super::is_vm86(core);
    if vm86 && new_cpl != 0 {
        return Err(gp(core, segment::error_of(selector) | ext));
    }
    let target = gate.gate_offset() & if wide { 0xffff_ffff } else { 0xffff };
    if target > u64::from(code.limit()) {
        return Err(gp(core, ext));
    }
    let old_flags = saved_flags(core, &event);
    let old_sp = core.regs.get(regs::gpr(index::RSP));
    let old_ss = core.arch.ss().selector;
    let mut new_ss = None;
    let mut stack = if new_cpl < cpl {
        let (ss, sp) = task::inner_stack(core, new_cpl, ext)?;
        if segment::is_null(ss) {
            return Err(raise(core, vector::TS, Some(ext)));
        }
        let ss_segment = segment::check_ss(core, ss, new_cpl, vector::TS, ext)?;
        new_ss = Some(ss_segment);
        Stack::segmented(ss_segment, sp, ctx_at(core, new_cpl))
            .with_error(segment::error_of(ss) | ext)
    } else {
        Stack::current(core).with_error(ext)
    };
    if new_ss.is_some() {
        if vm86 {
            use SegmentIndex::{Ds, Es, Fs, Gs};
            for n in [Gs, Fs, Ds, Es] {
                let selector = core.arch.segment(n as usize).selector;
                stack.push(core, size, u64::from(selector))?;
            }
        }
        stack.push(core, size, u64::from(old_ss))?;
        stack.push(core, size, old_sp)?;
    }
    stack.push(core, size, old_flags)?;
    stack.push(core, size, u64::from(core.arch.cs().selector))?;
    stack.push(core, size, event.next)?;
    if let Some(error) = event.error {
        stack.push(core, size, u64::from(error))?;
    }
    if let Some(ss) = new_ss {
        if vm86 {
            use SegmentIndex::{Ds, Es, Fs, Gs};
            for n in [Gs, Fs, Ds, Es] {
                segment::set(core, n, Segment::default());
            }
        }
        segment::set(core, SegmentIndex::Ss, ss);
        // The new stack pointer replaces all of ESP.
        stack.sp &= 0xffff_ffff;
    }
    pass_flags(core, gate);
    segment::set_cs(core, selector, code, new_cpl);
    stack.commit(core);
    core.set_pc(target);
    Ok(())
}

fn through_task_gate(core: &mut Core, event: Event, selector: u16) -> Result<(), Trap> {
    task::switch(core, selector, Reason::Event(event.ext()), event.next)?;
    // The switch is complete: what fails now is the new task's problem.
    if let Some(error) = event.error {
        let size = if core.arch.tr.kind() & 8 != 0 { 4 } else { 2 };
        let mut stack = Stack::current(core).with_error(event.ext());
        stack.push(core, size, u64::from(error))?;
        stack.commit(core);
    }
    Ok(())
}

/// IA-32e mode (SDM vol. 3, 6.14).
fn long(core: &mut Core, event: Event) -> Result<(), Trap> {
    let ext = event.ext();
    let table = core.arch.idtr;
    let Some((low, high)) = load_entry(core, table, u64::from(event.vector) << 4, 16)? else {
        return Err(gp(core, event.idt_error()));
    };
    let gate = Descriptor(low);
    check_gate(core, &event, gate, &[kind::INTERRUPT, kind::TRAP])?;
    let selector = gate.gate_selector();
    let code = gate_target(core, &event, selector)?;
    let cpl = core.arch.cpl;
    let new_cpl = if code.is_conforming() {
        cpl
    } else {
        code.dpl()
    };
    let target = gate.gate_offset() | high << 32;
    if !super::paging::is_canonical(target) {
        return Err(gp(core, ext));
    }
    let ist = low >> 32 & 7;
    let old_sp = core.regs.get(regs::gpr(index::RSP));
    let sp = if ist != 0 {
        task::load_tss(core, ist.wrapping_mul(8).wrapping_add(0x1c), 8, ext)?
    } else if new_cpl < cpl {
        let at = u64::from(new_cpl).wrapping_mul(8).wrapping_add(4);
        task::load_tss(core, at, 8, ext)?
    } else {
        old_sp
    };
    let mut stack = Stack::flat(sp & !15, ctx_at(core, new_cpl)).with_error(ext);
    let old_flags = saved_flags(core, &event);
    stack.push(core, 8, u64::from(core.arch.ss().selector))?;
    stack.push(core, 8, old_sp)?;
    stack.push(core, 8, old_flags)?;
    stack.push(core, 8, u64::from(core.arch.cs().selector))?;
    stack.push(core, 8, event.next)?;
    if let Some(error) = event.error {
        stack.push(core, 8, u64::from(error))?;
    }
    if new_cpl < cpl {
        let ss = segment::null_ss(u16::from(new_cpl), new_cpl);
        segment::set(core, SegmentIndex::Ss, ss);
    }
    pass_flags(core, gate);
    segment::set_cs(core, selector, code, new_cpl);
    stack.commit(core);
    core.set_pc(target);
    Ok(())
}

/// After an instruction that ran alone: the interrupt shadow ends, and TF traps.
pub(crate) fn after_step(core: &mut Core) -> Result<(), Exit> {
    let fresh = core.arch.system.fresh_shadow.take();
    if fresh.is_none() {
        core.arch.shadow = false;
    }
    // MOV SS and POP SS hold off the trap too (SDM vol. 3, 6.8.3).
    let held = fresh == Some(super::Shadow::StackSwitch);
    // What counts is TF at the start of the instruction (SDM vol. 3, 19.3.1.4).
    let traced = core
        .arch
        .system
        .tf_before
        .take()
        .unwrap_or_else(|| is_traced(core));
    debug::after_step(core);
    if traced && !held {
        debug::take_hits(core);
        note_step(core);
        return deliver(core);
    }
    Ok(())
}

/// RFLAGS.TF.
pub(super) fn is_traced(core: &Core) -> bool {
    core.regs.get(regs::RFLAGS) & rflags::TF != 0
}

/// Notes a single-step trap.
fn note_step(core: &mut Core) {
    core.arch.system.dr6 |= DR6_BS;
    core.arch.exception = Some(Exception {
        vector: vector::DB,
        error: None,
        address: None,
        software: false,
    });
}

/// After POPF or IRET loaded the flags: TF decides from the next instruction on.
pub(super) fn tf_loaded(core: &mut Core, before: u64) {
    let before = before & rflags::TF != 0;
    // Without `after_step` for this instruction, there is nothing to remember.
    core.arch.system.tf_before = (core.stepping && before != is_traced(core)).then_some(before);
}

/// Ends SYSCALL or SYSRET: they trap by the TF that they load.
pub(super) fn end_fast_call(core: &mut Core) -> Trap {
    if core.stepping || !is_traced(core) {
        return Trap::Leave;
    }
    note_step(core);
    Trap::After
}

/// Holds interrupts off for one more instruction.
pub(crate) fn hold_off(core: &mut Core, why: super::Shadow) {
    // In a longer unit nobody calls `after_step` for this instruction, only for the next.
    core.arch.system.fresh_shadow = core.stepping.then_some(why);
    core.arch.shadow = true;
}
