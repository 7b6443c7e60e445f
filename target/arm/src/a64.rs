//! The A64 instruction set (DDI 0487, C4): each group has a table, `*.decode`, and a translation to IR.

use accel_core::{Source, Trap};
use accel_ir::Unit;

use crate::mode::Mode;
use crate::{Core, helper, regs};

mod branch;
pub(crate) mod context;
pub(crate) mod float;
mod float_away;
mod float_int;
mod float_lanes;
mod immediate;
mod lanes;
mod memory;
pub(crate) mod register;
pub(crate) mod simd;
mod stack;
pub(crate) mod structures;
mod vector;

use context::Ctx;

/// Every form of every table, for tests and lists.
pub fn forms() -> impl Iterator<Item = &'static target_decode::Form> {
    [
        immediate::FORMS,
        branch::FORMS,
        memory::FORMS,
        register::FORMS,
        float::FORMS,
        simd::FORMS,
    ]
    .into_iter()
    .flatten()
}

/// Name and fields of an instruction; `None` if it is UNDEFINED.
pub fn describe(word: u32) -> Option<String> {
    let tables: &[&[target_decode::Form]] = match word >> 25 & 15 {
        0b1000 | 0b1001 => &[immediate::FORMS],
        0b1010 | 0b1011 => &[branch::FORMS],
        0b0100 | 0b0110 | 0b1100 | 0b1110 => &[memory::FORMS],
        0b0101 | 0b1101 => &[register::FORMS],
        0b0111 | 0b1111 => &[float::FORMS, simd::FORMS],
        _ => &[],
    };
    tables
        .iter()
        .find_map(|forms| target_decode::describe(forms, word.into()))
}

/// One instruction of the unit at hand. `None` if it is UNDEFINED; then nothing was emitted that
/// counts.
fn instruction(c: &mut Ctx) -> Option<()> {
    match c.word >> 25 & 15 {
        0b1000 | 0b1001 => immediate::translate(c),
        0b1010 | 0b1011 => branch::translate(c),
        0b0100 | 0b0110 | 0b1100 | 0b1110 if stack::faults(c) => {
            c.leave_by(helper::SP_ALIGNMENT, &[]);
            Some(())
        }
        0b0100 | 0b0110 | 0b1100 | 0b1110 => memory::translate(c),
        0b0101 | 0b1101 => register::translate(c),
        0b0111 | 0b1111 => match float::decode(c.word) {
            Some(insn) => float::translate(c, insn),
            None => simd::translate(c),
        },
        _ => None,
    }
}

fn word_at(bytes: &[u8], offset: usize) -> Option<u32> {
    let end = offset.checked_add(4)?;
    let word = bytes.get(offset..end)?;
    Some(u32::from_le_bytes(word.try_into().ok()?))
}

/// Translates the instructions at the PC: a straight run up to a branch or the end of the page.
pub(crate) fn translate(core: &mut Core, source: &mut Source, limit: u32) -> Result<Unit, Trap> {
    let mode = Mode(core.mode);
    let spare = std::mem::take(&mut core.spare);
    let mut c = Ctx::new(mode, core.arch.model.clone(), spare);
    c.fp_host = core.fp_host;
    c.has_peers = core.arch.setup.peers.has_others();
    let start = core.regs.get(regs::PC);
    c.pc = start;
    let mut used = 0usize;
    let special = if start & 3 != 0 {
        Some(helper::PC_ALIGNMENT)
    } else if mode.is_illegal() {
        Some(helper::ILLEGAL_STATE)
    } else {
        None
    };
    if mode.steps() && !core.arch.ss && special.is_none() {
        // Active and pending: the step exception comes before the instruction.
        crate::system::calls::note_step(core);
        return Err(Trap::Exception);
    }
    if let Some(helper) = special {
        c.b.insn(start);
        c.leave_by(helper, &[]);
        source.set_used(4);
        return Ok(c.b.finish());
    }
    let guarded = mode.has_bti() && crate::system::translation::is_guarded(core, start);
    while !c.b.is_ended() && c.b.insns() < limit {
        let Some(word) = word_at(source.bytes(), used) else {
            break;
        };
        c.word = word;
        c.b.insn(c.pc);
        if used == 0 && mode.has_bti() {
            entry(&mut c, guarded, core);
        }
        if !c.b.is_ended() && instruction(&mut c).is_none() {
            c.undefined();
        }
        stack::moved(&mut c);
        used = used.saturating_add(4);
        c.pc = c.next();
    }
    if !c.b.is_ended() {
        let pc = c.pc;
        c.b.goto(pc);
    }
    source.set_used(used);
    let unit = c.b.finish();
    if log::log_enabled!(target: "in_asm", log::Level::Trace) && core.log_filter.has(start) {
        let text = disassemble(start, source.code());
        log::trace!(target: "in_asm", "IN:{text}");
    }
    debug_assert_eq!(accel_ir::verify(&unit), Ok(()), "{unit}");
    Ok(unit)
}

/// PSTATE.BTYPE at the beginning of a unit (D8.4.5 "BTI"): checked in guarded pages, then cleared.
fn entry(c: &mut Ctx, guarded: bool, core: &Core) {
    if guarded {
        let allowed = landing(c.word, crate::system::control::bt_bit(core));
        if allowed != 0b1111 {
            let btype = c.b.get(regs::BTYPE);
            let allowed = c.imm(accel_ir::Ty::I64, allowed);
            let ok = c.b.binary(accel_ir::Binary::Shr, allowed, btype);
            let ok = c.binary_imm(accel_ir::Binary::And, ok, 1);
            let (good, bad) = (c.b.block(), c.b.block());
            c.b.branch(ok, good, bad);
            c.b.switch(bad);
            c.b.call_void(helper::BRANCH_TARGET, &[]);
            c.b.leave();
            c.b.switch(good);
        }
    }
    c.b.call_void(helper::CLEAR_BTYPE, &[]);
}

/// The values of BTYPE, a bit each, with which a branch may land on an instruction.
fn landing(word: u32, bt: bool) -> u64 {
    match word {
        // BTI c, BTI j, BTI jc.
        0xd503_245f => 0b0111,
        0xd503_249f => 0b1101,
        0xd503_24df => 0b1111,
        // PACIASP, PACIBSP: as BTI jc or c.
        0xd503_233f | 0xd503_237f => {
            if bt {
                0b0111
            } else {
                0b1111
            }
        }
        // BRK and HLT raise their own exceptions.
        w if w & 0xffe0_001f == 0xd420_0000 || w & 0xffe0_001f == 0xd440_0000 => 0b1111,
        _ => 0b0001,
    }
}

/// Guest code for people, each instruction in a line of its own.
#[cold]
pub(crate) fn disassemble(start: u64, bytes: &[u8]) -> String {
    let mut text = String::new();
    for (n, word) in bytes.as_chunks().0.iter().enumerate() {
        let word = u32::from_le_bytes(*word);
        let pc = start.wrapping_add((n as u64).wrapping_mul(4));
        let what = describe(word).unwrap_or_else(|| "undefined".into());
        text.push_str(&format!("\n{pc:#010x}:  {word:08x}  {what}"));
    }
    text
}
