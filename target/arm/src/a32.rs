//! The A32 and T32 instruction sets at EL0 (DDI 0487, part F): each has a table of encodings, `*.decode`;
//! what instructions do is written once for both.
//!
//! The general registers are X0 to X14 (D1.4 "Mapping of the general-purpose registers between the
//! Execution states"), with R13 the stack pointer of User mode. PSTATE.IT is in the register file, set
//! after each instruction of an IT block for the next one, and part of what units depend on. Encodings
//! that are unpredictable are UNDEFINED unless said otherwise.

use accel_core::{Source, Trap};
use accel_ir::{FlagKind, Op, Unit, Val};

use crate::mode::Mode;
use crate::{Core, a64, helper, regs};

mod alu;
mod arithmetic;
mod arm;
mod as_a64;
mod bits;
mod context;
pub(crate) mod lanes;
pub(crate) mod media;
mod memory;
mod multiply;
mod neon;
pub(crate) mod scalar;
pub(crate) mod structures;
pub(crate) mod system;
mod thumb;
mod thumb_wide;
mod vfp;

use context::Ctx;

/// Every form of A32, or of T32, for tests and lists.
pub fn forms(thumb: bool) -> impl Iterator<Item = &'static target_decode::Form> {
    let own = if thumb { thumb::FORMS } else { arm::FORMS };
    [own, system::FORMS, vfp::FORMS, neon::FORMS]
        .into_iter()
        .flatten()
}

/// Whether an instruction of T32 that begins with this halfword has 32 bits.
fn is_wide(first: u16) -> bool {
    first >> 11 >= 0b11101
}

/// Which table an instruction of 32 bits is in.
enum Group {
    Own,
    System,
    Vfp,
    Neon,
}

/// The group of an instruction of 32 bits, and its word as A32 has it where both sets share the table.
fn group(word: u32, thumb: bool) -> (Group, u32) {
    // Coprocessors are the same in both sets but for the condition: 10 and 11 are floating point.
    if word >> 25 & 7 == 6 || word >> 24 & 15 == 14 {
        return match word >> 8 & 15 {
            8..=11 => (Group::Vfp, word),
            _ => (Group::System, word),
        };
    }
    match (thumb, word >> 24) {
        (true, 0xef | 0xff) => {
            let u = word >> 28 & 1;
            (Group::Neon, 0xf200_0000 | u << 24 | word & 0x00ff_ffff)
        }
        (true, 0xf9) if word >> 20 & 1 == 0 => (Group::Neon, 0xf400_0000 | word & 0x00ff_ffff),
        (false, 0xf2 | 0xf3) => (Group::Neon, word),
        (false, 0xf4) if word >> 20 & 1 == 0 => (Group::Neon, word),
        _ => (Group::Own, word),
    }
}

/// An instruction of a table that both sets share, as T32 has it.
pub fn to_t32(word: u32) -> u32 {
    match word >> 24 {
        0xf2 | 0xf3 => 0xef00_0000 | (word >> 24 & 1) << 28 | word & 0x00ff_ffff,
        0xf4 => 0xf900_0000 | word & 0x00ff_ffff,
        0xf0..=0xff => word,
        _ => 0xe000_0000 | word & 0x0fff_ffff,
    }
}

/// Name and fields of an instruction (T32: one of 16 bits in the upper half); `None` if it is UNDEFINED.
pub fn describe(word: u32, thumb: bool) -> Option<String> {
    let (group, word) = match thumb && !is_wide((word >> 16) as u16) {
        true => (Group::Own, word),
        false => group(word, thumb),
    };
    let forms = match group {
        Group::Own if thumb => thumb::FORMS,
        Group::Own => arm::FORMS,
        Group::System => system::FORMS,
        Group::Vfp => vfp::FORMS,
        Group::Neon => neon::FORMS,
    };
    target_decode::describe(forms, word.into())
}

/// Whether an IT block may hold an instruction that begins with this halfword, where SCTLR_ELx.ITD is set
/// (D23.2 "SCTLR_EL1"): none of 32 bits, that touches the PC, or of several others.
fn is_in_short_it_blocks(first: u32) -> bool {
    !(first & 0xc000 == 0xc000
        || first & 0xf000 == 0xb000
        || first & 0xf800 == 0xa000
        || first & 0xf800 == 0x4800
        || first & 0xf478 == 0x4478
        || first & 0xfc87 == 0x4487)
}

/// One instruction, without its condition. `None` if it is UNDEFINED.
fn instruction(c: &mut Ctx) -> Option<()> {
    if c.in_it_block() && c.mode.has_short_it_blocks() && !is_in_short_it_blocks(c.word >> 16) {
        return None;
    }
    let (group, word) = match c.len {
        2 => (Group::Own, c.word),
        _ => group(c.word, c.thumb),
    };
    match group {
        Group::Own if c.thumb => thumb::translate(c),
        Group::Own => arm::translate(c),
        Group::System => system::translate(c, word),
        Group::Vfp => vfp::translate(c, word),
        Group::Neon => neon::translate(c, word),
    }
}

/// Instructions that an IT block does not make conditional: IT, BKPT and HLT.
fn is_unconditional(c: &Ctx) -> bool {
    c.thumb && c.len == 2 && (matches!(c.word >> 24, 0xbe | 0xbf) || c.word >> 22 == 0xba << 2 | 2)
}

/// One instruction and its condition. Whether the unit goes on.
fn conditional(c: &mut Ctx) -> bool {
    let cond = match c.thumb {
        true if c.in_it_block() && !is_unconditional(c) => u32::from(c.it >> 4),
        true => 14,
        false => c.word >> 28,
    };
    let (_, flags_before) = c.b.flags_defined();
    if cond >= 14 {
        if instruction(c).is_none() {
            c.undefined();
        }
        if c.b.is_ended() {
            return false;
        }
        note_flags(c, flags_before);
        c.settle_it();
        return true;
    }
    let holds = c.holds(cond);
    if without_branch(c, holds) {
        note_flags(c, flags_before);
        c.settle_it();
        return true;
    }
    let (body, on) = (c.b.block(), c.b.block());
    c.b.branch(holds, body, on);
    c.b.switch(body);
    if instruction(c).is_none() {
        c.undefined();
    }
    let ended = c.b.is_ended();
    if c.b.current() != body {
        // The instruction has blocks of its own, behind `on`: what goes on does so in one that is later
        // still. A way to the next instruction is last, where compiled code may fall through.
        let later = c.b.block();
        if !ended {
            c.b.jump(later, &[]);
        }
        c.b.switch(on);
        c.b.jump(later, &[]);
        c.b.switch(later);
    } else {
        if !ended {
            c.b.jump(on, &[]);
        }
        c.b.switch(on);
    }
    if ended {
        let next = c.after();
        c.go(next);
        return false;
    }
    let (_, flags_after) = c.b.flags_defined();
    match c.known_flags {
        _ if flags_after != flags_before => c.known_flags = None,
        // The same on both ways: said again, so that it is known in this block.
        Some(op) => c.b.push(op),
        None => {}
    }
    c.settle_it();
    true
}

/// Remembers the flags' last definition if the instruction just translated had one.
fn note_flags(c: &mut Ctx, before: u32) {
    let (op, count) = c.b.flags_defined();
    if count != before {
        c.known_flags = op;
    }
}

/// Translates an instruction that only computes registers, or compares, as a selection of values. Whether
/// it is one.
fn without_branch(c: &mut Ctx, holds: Val) -> bool {
    let mark = c.b.mark();
    c.predicate = Some(holds);
    let done = instruction(c).is_some();
    c.predicate = None;
    let is_plain = |op: &Op| match op {
        Op::Const { .. }
        | Op::Get { .. }
        | Op::Unary { .. }
        | Op::Binary { .. }
        | Op::Cmp { .. }
        | Op::Select { .. }
        | Op::Zext { .. }
        | Op::Sext { .. }
        | Op::Extract { .. }
        | Op::Insert { .. }
        | Op::FlagsUse { .. } => true,
        Op::Set { slot, .. } => slot.0 < regs::x(15).0,
        Op::FlagsDef { kind, .. } => *kind == FlagKind::Sub,
        _ => false,
    };
    let ops = c.b.since(&mark);
    // An instruction that does nothing in any case needs no condition.
    if done && ops.is_some_and(|ops| ops.iter().all(is_plain)) {
        return true;
    }
    c.b.rewind(mark);
    false
}

/// The instruction at an offset: its word and length. `None` if it is not all there.
fn fetch(bytes: &[u8], at: usize, thumb: bool) -> Option<(u32, usize)> {
    let half = |at: usize| -> Option<u16> {
        let bytes = bytes.get(at..at.checked_add(2)?)?;
        Some(u16::from_le_bytes(bytes.try_into().ok()?))
    };
    let first = half(at)?;
    if thumb && !is_wide(first) {
        return Some((u32::from(first) << 16, 2));
    }
    let second = half(at.checked_add(2)?)?;
    let (high, low) = if thumb {
        (first, second)
    } else {
        (second, first)
    };
    Some((u32::from(high) << 16 | u32::from(low), 4))
}

/// Translates the instructions at the PC: a straight run up to a branch or the end of the page.
pub(crate) fn translate(core: &mut Core, source: &mut Source, limit: u32) -> Result<Unit, Trap> {
    let mode = Mode(core.mode);
    let thumb = mode.is_thumb();
    if mode.steps() && !core.arch.ss {
        // Active and pending: the step exception comes before the instruction.
        crate::system::calls::note_step(core);
        return Err(Trap::Exception);
    }
    let start = core.regs.get(regs::PC);
    let aligned = start & if thumb { 1 } else { 3 } == 0;
    if aligned && !mode.is_illegal() && fetch(source.bytes(), 0, thumb).is_none() {
        source.extend(core)?;
    }
    let spare = std::mem::take(&mut core.spare);
    let base = a64::context::Ctx::new(mode, core.arch.model.clone(), spare);
    let mut c = Ctx::new(base, thumb, core.regs.get(regs::IT) as u8);
    c.pc = start;
    let special = match (aligned, mode.is_illegal()) {
        (false, _) => Some(helper::PC_ALIGNMENT),
        (_, true) => Some(helper::ILLEGAL_STATE),
        _ => None,
    };
    if let Some(helper) = special {
        c.b.insn(start);
        c.leave_by(helper, &[]);
        source.set_used(4);
        return Ok(c.finish());
    }
    let mut used = 0usize;
    let mut goes_on = true;
    while goes_on && c.b.insns() < limit {
        let Some((word, len)) = fetch(source.bytes(), used, thumb) else {
            break;
        };
        if used > 0 && !source.is_in_first_page(used, len) {
            break;
        }
        c.word = word;
        c.len = len as u64;
        c.it_next = context::advanced(c.it);
        let pc = c.pc;
        c.b.insn(pc);
        goes_on = conditional(&mut c);
        used = used.saturating_add(len);
        c.pc = c.after();
        c.it = c.it_next;
    }
    if goes_on {
        let pc = c.pc;
        c.go(pc);
    }
    source.set_used(used);
    let unit = c.finish();
    if log::log_enabled!(target: "in_asm", log::Level::Trace) && core.log_filter.has(start) {
        let text = disassemble(start, source.code(), thumb);
        log::trace!(target: "in_asm", "IN:{text}");
    }
    debug_assert_eq!(accel_ir::verify(&unit), Ok(()), "{unit}");
    Ok(unit)
}

/// Guest code for people, each instruction in a line of its own.
#[cold]
pub(crate) fn disassemble(start: u64, bytes: &[u8], thumb: bool) -> String {
    let mut text = String::new();
    let mut at = 0usize;
    while let Some((word, len)) = fetch(bytes, at, thumb) {
        let pc = start.wrapping_add(at as u64);
        let what = describe(word, thumb).unwrap_or_else(|| "undefined".into());
        let shown = match len {
            2 => format!("{:04x}    ", word >> 16),
            _ => format!("{word:08x}"),
        };
        text.push_str(&format!("\n{pc:#010x}:  {shown}  {what}"));
        at = at.saturating_add(len);
    }
    text
}
