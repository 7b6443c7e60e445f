//! Decoding of instructions into IR.
//!
//! Instructions are decoded by `iced-x86` and translated by the file of their group; SSE, MMX and
//! x87 by [`crate::float`]. A unit is a straight run of instructions up to a control transfer or
//! the end of the page.

use accel_core::{Source, Trap};
use accel_ir::Unit;
use iced_x86::{
    CpuidFeature, Decoder, DecoderError, DecoderOptions, Formatter, Instruction, Mnemonic,
    NasmFormatter,
};

use crate::state::vector;
use crate::system::calls::has_feature;
use crate::{Core, regs};

mod arith;
mod bits;
mod check;
pub(crate) mod context;
mod control;
mod data;
mod decimal;
pub(crate) mod mode;
mod privileged;
mod refine;
mod shift;
mod stack;
mod string;

pub(crate) use check::HELPERS;
pub use check::{arithmetic_flags, set_arithmetic_flags};
#[allow(unused_imports)]
pub(crate) use context::{Ctx, Place};
use mode::Mode;
#[cfg(test)]
pub(crate) use mode::mode_of;
pub use mode::refresh;
pub(crate) use refine::refine;

/// Longest instruction (SDM vol. 2, 2.3.11).
const LONGEST: usize = 15;

/// The linear address that the next instruction is fetched from.
pub(crate) fn linear_pc(core: &Core) -> u64 {
    let rip = core.regs.get(regs::RIP);
    if Mode(core.mode).is_64() {
        return rip;
    }
    rip.wrapping_add(core.regs.get(regs::base(1))) & 0xffff_ffff
}

/// What a decoder made of some bytes.
enum Decoded {
    Instruction(Instruction),
    /// The bytes end within it.
    Incomplete,
    /// Undefined, of this many bytes.
    Undefined(usize),
    /// More than 15 bytes.
    TooLong,
}

fn options(core: &Core) -> u32 {
    let mut options = DecoderOptions::NONE;
    // Without the feature the prefix is ignored: BSF, BSR, WBINVD.
    let ignored = [
        (CpuidFeature::BMI1, DecoderOptions::NO_MPFX_0FBC),
        (CpuidFeature::LZCNT, DecoderOptions::NO_MPFX_0FBD),
        (CpuidFeature::WBNOINVD, DecoderOptions::NO_WBNOINVD),
    ];
    for (feature, option) in ignored {
        if !has_feature(core, feature) {
            options |= option;
        }
    }
    options
}

/// A decoder of some bytes.
fn decoder_of(mode: Mode, options: u32, bytes: &[u8], pc: u64) -> Option<Decoder<'_>> {
    Decoder::try_with_ip(mode.bitness(), bytes, pc, options).ok()
}

/// The instruction at the beginning of some bytes.
fn decode(mode: Mode, options: u32, bytes: &[u8], pc: u64) -> Decoded {
    decode_next(&mut decoder_of(mode, options, bytes, pc), bytes.len())
}

/// The next instruction of a decoder with `left` bytes left.
fn decode_next(decoder: &mut Option<Decoder<'_>>, left: usize) -> Decoded {
    let Some(decoder) = decoder else {
        return Decoded::Undefined(1);
    };
    let insn = decoder.decode();
    match decoder.last_error() {
        DecoderError::None => Decoded::Instruction(insn),
        DecoderError::NoMoreBytes if left < LONGEST => Decoded::Incomplete,
        DecoderError::NoMoreBytes => Decoded::TooLong,
        _ if insn.len() >= LONGEST => Decoded::TooLong,
        _ => Decoded::Undefined(insn.len().max(1)),
    }
}

/// Translates the instructions at the PC.
pub(crate) fn translate(core: &mut Core, source: &mut Source, limit: u32) -> Result<Unit, Trap> {
    let mode = Mode(core.mode);
    let start = core.regs.get(regs::RIP);
    let options = options(core);
    let mut decoder = decoder_of(mode, options, source.bytes(), start);
    let mut first = decode_next(&mut decoder, source.bytes().len());
    if matches!(first, Decoded::Incomplete) {
        source.extend(core)?;
        decoder = decoder_of(mode, options, source.bytes(), start);
        first = decode_next(&mut decoder, source.bytes().len());
    }
    let spare = std::mem::take(&mut core.spare);
    let mut c = Ctx::new(core, mode, spare);
    let mut used = match first {
        Decoded::Instruction(insn) => {
            c.start(insn, start);
            c.goes_on = has_room(&c, source.bytes(), insn.len(), limit)
                && source.is_in_first_page(0, insn.len());
            instruction(&mut c);
            insn.len()
        }
        Decoded::Undefined(len) => {
            c.b.insn(start);
            c.raise_and_end(vector::UD, None);
            len
        }
        Decoded::TooLong | Decoded::Incomplete => {
            c.b.insn(start);
            c.raise_and_end(vector::GP, Some(0));
            LONGEST.min(source.bytes().len())
        }
    };
    let alone = !source.is_in_first_page(0, used);
    if !c.b.is_ended() && !alone && c.b.insns() < limit {
        used = rest(&mut c, &mut decoder, source.bytes(), start, used, limit);
    }
    if !c.b.is_ended() {
        c.b.goto(c.next);
    }
    source.set_used(used);
    let unit = c.b.finish();
    if log::log_enabled!(target: "in_asm", log::Level::Trace) && core.log_filter.has(start) {
        let text = disassemble(core.mode, start, source.code());
        log::trace!(target: "in_asm", "IN:{text}");
    }
    debug_assert_eq!(accel_ir::verify(&unit), Ok(()), "{unit}");
    Ok(unit)
}

/// Guest code for people, each instruction in a line of its own.
#[cold]
pub(crate) fn disassemble(mode: u64, start: u64, bytes: &[u8]) -> String {
    let mut text = String::new();
    let Ok(decoder) = Decoder::try_with_ip(Mode(mode).bitness(), bytes, start, 0) else {
        return text;
    };
    let mut formatter = NasmFormatter::new();
    for insn in decoder {
        text.push_str(&format!("\n{:#010x}:  ", insn.ip()));
        formatter.format(&insn, &mut text);
    }
    text
}

/// Translates the instructions after the first, which took `used` bytes and which the decoder has passed.
/// Returns the bytes used in all.
fn rest(
    c: &mut Ctx<'_>,
    decoder: &mut Option<Decoder<'_>>,
    bytes: &[u8],
    start: u64,
    mut used: usize,
    limit: u32,
) -> usize {
    while !c.b.is_ended() && c.b.insns() < limit {
        let pc = c.next;
        // The instruction after a wrap is not next in memory.
        if pc != start.wrapping_add(used as u64) || used >= bytes.len() {
            break;
        }
        let left = bytes.len().saturating_sub(used);
        let Decoded::Instruction(insn) = decode_next(decoder, left) else {
            break;
        };
        c.start(insn, pc);
        c.goes_on = has_room(c, bytes, used.wrapping_add(insn.len()), limit);
        instruction(c);
        used = used.wrapping_add(insn.len());
    }
    used
}

/// Whether there is room for another instruction after `used` bytes, whatever it is.
fn has_room(c: &Ctx<'_>, bytes: &[u8], used: usize, limit: u32) -> bool {
    c.b.insns() < limit && c.mode.is_64() && bytes.len() >= used.saturating_add(LONGEST)
}

/// Translates the instruction at hand.
fn instruction(c: &mut Ctx<'_>) {
    let past_end = c.mode.bitness() == 16 && c.pc.wrapping_add(c.insn.len() as u64) > 0x1_0000;
    if past_end {
        // Code cannot wrap within an instruction.
        return c.raise_and_end(vector::GP, Some(0));
    }
    if !is_available(c) {
        return c.raise_and_end(vector::UD, None);
    }
    let done = trivial(c)
        || data::translate(c)
        || arith::translate(c)
        || stack::translate(c)
        || control::translate(c)
        || shift::translate(c)
        || bits::translate(c)
        || string::translate(c)
        || privileged::translate(c)
        || decimal::translate(c)
        || crate::float::translate(c);
    if !done {
        c.raise_and_end(vector::UD, None);
    }
}

/// Whether the CPU model and the mode have the instruction.
fn is_available(c: &Ctx<'_>) -> bool {
    if is_hint(c.insn.mnemonic()) {
        return true;
    }
    if needs_descriptors(c.insn.mnemonic()) && !c.mode.has_descriptors() {
        return false;
    }
    c.insn
        .cpuid_features()
        .iter()
        .all(|feature| has_feature(c.core, *feature))
}

/// Not recognised in real and virtual-8086 mode.
fn needs_descriptors(mnemonic: Mnemonic) -> bool {
    use Mnemonic::*;
    matches!(
        mnemonic,
        Arpl | Lar | Lsl | Verr | Verw | Sldt | Str | Lldt | Ltr
    )
}

/// In the space of multi-byte NOPs: does nothing on processors without the feature.
fn is_hint(mnemonic: Mnemonic) -> bool {
    use Mnemonic::*;
    matches!(
        mnemonic,
        Nop | Reservednop
            | Endbr32
            | Endbr64
            | Rdsspd
            | Rdsspq
            | Prefetch
            | Prefetchw
            | Prefetchwt1
            | Prefetchnta
            | Prefetcht0
            | Prefetcht1
            | Prefetcht2
    )
}

/// What is nothing, or a fence.
fn trivial(c: &mut Ctx<'_>) -> bool {
    use Mnemonic::*;
    match c.insn.mnemonic() {
        hint if is_hint(hint) => {}
        Mfence => c.b.fence(),
        Lfence | Sfence => {}
        Clflush | Clflushopt | Clwb => {
            // Checked as a load of a byte.
            let address = c.address(1, false);
            c.load(address, accel_ir::Ty::I8);
        }
        Ud0 | Ud1 | Ud2 => c.raise_and_end(vector::UD, None),
        _ => return false,
    }
    true
}

#[cfg(test)]
mod tests;
