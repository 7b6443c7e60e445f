//! Alignment of the stack pointer (DDI 0487, D1.3.7 "SP alignment checking").
//!
//! Accesses are not looked at: units know by their mode whether the stack pointer is aligned, and what writes
//! it looks, unless it moves by a multiple of 16.

use accel_ir::{Binary, Cmp, Ty};

use super::context::Ctx;
use super::memory::decode;
use crate::{helper, regs};

/// A field of an instruction.
fn field(word: u32, at: u32, bits: u32) -> u32 {
    word.wrapping_shr(at) & 1u32.wrapping_shl(bits).wrapping_sub(1)
}

const SP: u32 = 31;

/// Whether a load or store goes by a stack pointer that is not aligned.
pub(super) fn faults(c: &Ctx) -> bool {
    let word = c.word;
    if !c.mode.sp_is_odd() || field(word, 5, 5) != SP || decode(word).is_none() {
        return false;
    }
    let is_literal = field(word, 27, 3) == 3 && field(word, 24, 2) == 0;
    let is_prefetch = field(word, 27, 3) == 7
        && field(word, 30, 2) == 3
        && field(word, 26, 1) == 0
        && field(word, 22, 2) == 2;
    // That vectors may not be used is said first.
    let is_trapped = field(word, 26, 1) != 0 && c.mode.fp_traps();
    !is_literal && !is_prefetch && !is_trapped
}

/// Whether an instruction that writes the stack pointer moves it by a multiple of 16.
fn keeps_alignment(word: u32) -> bool {
    if field(word, 5, 5) != SP {
        return false;
    }
    let moves_by = |count: u32, bytes: u32| count.wrapping_mul(bytes) & 15 == 0;
    // ADD and SUB (immediate); LDP, STP; LDR, STR (immediate).
    if field(word, 23, 6) == 0b10_0010 {
        return field(word, 22, 1) != 0 || moves_by(field(word, 10, 12), 1);
    }
    match (field(word, 27, 3), field(word, 26, 1), field(word, 30, 2)) {
        (5, 0, 2) => moves_by(field(word, 15, 7), 8),
        (5, 0, 0) => moves_by(field(word, 15, 7), 4),
        (5, 1, size @ 0..=2) => moves_by(field(word, 15, 7), 4u32.wrapping_shl(size)),
        (7, ..) if field(word, 24, 2) == 0 && field(word, 21, 1) == 0 => {
            moves_by(field(word, 12, 9), 1)
        }
        _ => false,
    }
}

/// After an instruction: looks at the stack pointer if it was written.
pub(super) fn moved(c: &mut Ctx) {
    let writes = std::mem::take(&mut c.moves_sp);
    if !writes || c.b.is_ended() || !c.mode.checks_sp() {
        return;
    }
    if c.mode.sp_is_odd() {
        let next = c.imm(Ty::I64, c.next());
        c.b.call_void(helper::SP_MOVED, &[next]);
        return;
    }
    if keeps_alignment(c.word) {
        return;
    }
    let sp = c.b.get(regs::SP);
    let low = c.binary_imm(Binary::And, sp, 15);
    let zero = c.imm(Ty::I64, 0);
    let is_odd = c.b.cmp(Cmp::Ne, low, zero);
    let (odd, done) = (c.b.block(), c.b.block());
    c.b.branch(is_odd, odd, done);
    c.b.switch(odd);
    let next = c.imm(Ty::I64, c.next());
    c.b.call_void(helper::SP_MOVED, &[next]);
    c.b.jump(done, &[]);
    c.b.switch(done);
}
