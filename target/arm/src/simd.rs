//! Advanced SIMD instructions as functions on the vector registers (DDI 0487, C7): all of them, whether
//! or not translation has a faster way.
#![allow(
    clippy::arithmetic_side_effects,
    reason = "lanes and shifts are bounded by the width of a register; tests run with overflow checks"
)]

use accel_core::Trap;

use crate::a64::simd::{Insn, decode};
use crate::model::Feature;
use crate::system::exception;
use crate::{Core, float, regs};

pub(crate) mod bf16;
mod crypto;
mod element;
mod extra;
mod float_lanes;
pub(crate) mod moves;
mod one;
mod same;
mod shift;
mod wide;

/// (instruction): executes it.
pub(crate) fn run(core: &mut Core, [word, ..]: [u64; 4]) -> Result<u64, Trap> {
    match decode(word as u32).and_then(|insn| execute(core, insn)) {
        Some(()) => Ok(0),
        None => Err(exception::undefined(core)),
    }
}

/// Executes an instruction word. `None` if it is UNDEFINED; then nothing has changed.
pub(crate) fn execute_word(core: &mut Core, word: u32) -> Option<()> {
    decode(word).and_then(|insn| execute(core, insn))
}

fn execute(core: &mut Core, insn: Insn) -> Option<()> {
    match insn {
        Insn::ThreeSame { .. } | Insn::ThreeSameHalf { .. } => same::execute(core, insn),
        Insn::ThreeExtra { .. } => extra::execute(core, insn),
        Insn::TwoMisc { .. }
        | Insn::TwoMiscHalf { .. }
        | Insn::Across { .. }
        | Insn::Pairwise { .. } => one::execute(core, insn),
        Insn::ThreeDiff { .. } => wide::execute(core, insn),
        Insn::ByElement { .. } => element::execute(core, insn),
        Insn::ShiftImm { .. } => shift::execute(core, insn),
        Insn::ModifiedImm { .. }
        | Insn::Copy { .. }
        | Insn::CopyScalar { .. }
        | Insn::Permute { .. }
        | Insn::Ext { .. }
        | Insn::Tbl { .. } => moves::execute(core, insn),
        _ => crypto::execute(core, insn),
    }
}

/// The lanes of a vector operation: how many, of how many bits.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Lanes {
    pub(crate) bits: u32,
    pub(crate) count: u32,
}

impl Lanes {
    /// All lanes of a vector of 64 (`q` 0) or 128 bits, or one of a scalar.
    pub(crate) fn new(bits: u32, q: u32, scalar: u32) -> Lanes {
        let count = if scalar != 0 {
            1
        } else {
            (64 << (q & 1)) / bits
        };
        Lanes { bits, count }
    }

    pub(crate) fn mask(self) -> u64 {
        u64::MAX >> (64 - self.bits)
    }

    pub(crate) fn get(self, v: u128, i: u32) -> u64 {
        // shift: below the width of a lane
        (v >> (i * self.bits)) as u64 & self.mask()
    }

    /// A lane with its sign.
    pub(crate) fn signed(self, v: u128, i: u32) -> i64 {
        sext(self.get(v, i), self.bits)
    }

    /// A lane with its sign, or without.
    pub(crate) fn wide(self, v: u128, i: u32, unsigned: u32) -> i128 {
        if unsigned != 0 {
            self.get(v, i).into()
        } else {
            self.signed(v, i).into()
        }
    }

    pub(crate) fn put(self, v: &mut u128, i: u32, value: u64) {
        let shift = i * self.bits;
        // shift: below the width of a lane
        *v = *v & !(u128::from(self.mask()) << shift) | u128::from(value & self.mask()) << shift;
    }

    /// A vector of lanes, zeros above.
    pub(crate) fn build(self, mut f: impl FnMut(u32) -> u64) -> u128 {
        let mut v = 0;
        for i in 0..self.count {
            self.put(&mut v, i, f(i));
        }
        v
    }

    pub(crate) fn all(self, yes: bool) -> u64 {
        if yes { self.mask() } else { 0 }
    }

    /// Clamps to what a lane holds; notes that it had to.
    pub(crate) fn saturate(self, value: i128, unsigned: u32, saturated: &mut bool) -> u64 {
        let (least, most) = if unsigned != 0 {
            (0, i128::from(self.mask()))
        } else {
            // shift: below the width of a lane
            (-(1i128 << (self.bits - 1)), (1i128 << (self.bits - 1)) - 1)
        };
        let clamped = value.clamp(least, most);
        *saturated |= clamped != value;
        clamped as u64 & self.mask()
    }
}

/// Sign-extends the low bits.
pub(crate) fn sext(value: u64, bits: u32) -> i64 {
    ((value << (64 - bits)) as i64) >> (64 - bits)
}

pub(crate) fn v(core: &Core, n: u32) -> u128 {
    core.regs.get_v(regs::v(n))
}

pub(crate) fn set_v(core: &mut Core, n: u32, value: u128) {
    core.regs.set_v(regs::v(n), value);
}

/// Sets FPSR.QC if a result was saturated.
pub(crate) fn settle_saturation(core: &mut Core, saturated: bool) {
    if saturated {
        let fpsr = core.regs.get(regs::FPSR);
        core.regs.set(regs::FPSR, fpsr | float::QC);
    }
}

pub(crate) fn has(core: &Core, feature: Feature) -> Option<()> {
    core.arch.model.has(feature).then_some(())
}
