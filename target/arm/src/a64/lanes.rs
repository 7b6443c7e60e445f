//! What operations on lanes are made of: tables by size, shuffles, comparisons, shifts.

use accel_ir::{Ty, Val, VecOp};

use super::context::Ctx;
use crate::regs;

/// The operation for lanes of 8, 16, 32 or 64 bits.
pub(super) type BySize = [Option<VecOp>; 4];

pub(super) const ADD: BySize = [
    Some(VecOp::Add8),
    Some(VecOp::Add16),
    Some(VecOp::Add32),
    Some(VecOp::Add64),
];
pub(super) const SUB: BySize = [
    Some(VecOp::Sub8),
    Some(VecOp::Sub16),
    Some(VecOp::Sub32),
    Some(VecOp::Sub64),
];
pub(super) const EQUAL: BySize = [
    Some(VecOp::CmpEq8),
    Some(VecOp::CmpEq16),
    Some(VecOp::CmpEq32),
    None,
];
pub(super) const GREATER: BySize = [
    Some(VecOp::CmpGt8),
    Some(VecOp::CmpGt16),
    Some(VecOp::CmpGt32),
    None,
];
pub(super) const ABS: BySize = [
    Some(VecOp::Abs8),
    Some(VecOp::Abs16),
    Some(VecOp::Abs32),
    None,
];
pub(super) const UNPACK_LOW: BySize = [
    Some(VecOp::UnpackLo8),
    Some(VecOp::UnpackLo16),
    Some(VecOp::UnpackLo32),
    Some(VecOp::UnpackLo64),
];
pub(super) const UNPACK_HIGH: BySize = [
    Some(VecOp::UnpackHi8),
    Some(VecOp::UnpackHi16),
    Some(VecOp::UnpackHi32),
    Some(VecOp::UnpackHi64),
];

pub(super) fn of(table: BySize, size: u32) -> Option<VecOp> {
    table.get(size as usize).copied().flatten()
}

/// A lane's value in all lanes of 64 bits.
pub(super) fn repeat(value: u64, size: u32) -> u64 {
    let bits = 8u32.wrapping_shl(size);
    let lane = value & u64::MAX.wrapping_shr(64u32.wrapping_sub(bits));
    let mut out = lane;
    let mut at = bits;
    while at < 64 {
        out |= lane.wrapping_shl(at);
        at = at.wrapping_add(bits);
    }
    out
}

/// Byte numbers for [`VecOp::Shuffle8`]: lane `i` of the result is lane `from(i)`; beyond `count`
/// there are zeros.
pub(super) fn picks(size: u32, count: u32, from: impl Fn(u32) -> u32) -> u128 {
    let bytes = 1u32.wrapping_shl(size);
    (0..16u32).fold(0, |out, n| {
        let (lane, byte) = (n.wrapping_shr(size), n & bytes.wrapping_sub(1));
        let pick = match lane < count {
            true => from(lane).wrapping_shl(size).wrapping_add(byte) & 15,
            false => 0x80,
        };
        out | u128::from(pick).wrapping_shl(n.wrapping_mul(8))
    })
}

/// A register in the making: short names for what is emitted.
impl Ctx {
    pub(super) fn v(&mut self, n: u32) -> Val {
        self.b.get_v(regs::v(n))
    }

    pub(super) fn vec(&mut self, op: VecOp, a: Val, b: Val) -> Val {
        self.b.vec(op, a, b, 0)
    }

    pub(super) fn vec_imm(&mut self, op: VecOp, a: Val, imm: u32) -> Val {
        self.b.vec(op, a, a, imm as u8)
    }

    pub(super) fn vec_const(&mut self, value: u128) -> Val {
        let (low, high) = (value as u64, (value >> 64) as u64);
        let (low, high) = (self.imm(Ty::I64, low), self.imm(Ty::I64, high));
        self.b.vec_make(low, high)
    }

    pub(super) fn all_lanes(&mut self, value: u64, size: u32) -> Val {
        let half = repeat(value, size);
        self.vec_const(u128::from(half) << 64 | u128::from(half))
    }

    pub(super) fn vec_not(&mut self, a: Val) -> Val {
        let ones = self.vec_const(u128::MAX);
        self.vec(VecOp::Xor, a, ones)
    }

    pub(super) fn shuffle(&mut self, a: Val, picks: u128) -> Val {
        let picks = self.vec_const(picks);
        self.vec(VecOp::Shuffle8, a, picks)
    }

    /// `yes` where the mask is ones, else `no`.
    pub(super) fn vec_choose(&mut self, mask: Val, yes: Val, no: Val) -> Val {
        let yes = self.vec(VecOp::And, mask, yes);
        let no = self.vec(VecOp::AndNot, mask, no);
        self.vec(VecOp::Or, yes, no)
    }

    /// Writes a vector register: all of it, or the low half and zeros.
    pub(super) fn set_vec(&mut self, rd: u32, q: u32, v: Val) {
        let v = match q {
            0 => self.vec_imm(VecOp::Low64, v, 0),
            _ => v,
        };
        self.b.set_v(regs::v(rd), v);
    }

    /// All ones where `a` is greater.
    pub(super) fn greater(&mut self, size: u32, unsigned: bool, a: Val, b: Val) -> Option<Val> {
        let op = of(GREATER, size)?;
        if !unsigned {
            return Some(self.vec(op, a, b));
        }
        let sign = 0x80u64.wrapping_shl(8u32.wrapping_shl(size).wrapping_sub(8));
        let sign = self.all_lanes(sign, size);
        let (a, b) = (self.vec(VecOp::Xor, a, sign), self.vec(VecOp::Xor, b, sign));
        Some(self.vec(op, a, b))
    }

    pub(super) fn extreme(
        &mut self,
        size: u32,
        unsigned: bool,
        max: bool,
        a: Val,
        b: Val,
    ) -> Option<Val> {
        let native = match (size, unsigned, max) {
            (0, true, true) => Some(VecOp::MaxU8),
            (0, true, false) => Some(VecOp::MinU8),
            (1, false, true) => Some(VecOp::MaxS16),
            (1, false, false) => Some(VecOp::MinS16),
            _ => None,
        };
        if let Some(op) = native {
            return Some(self.vec(op, a, b));
        }
        let mask = self.greater(size, unsigned, a, b)?;
        let (yes, no) = if max { (a, b) } else { (b, a) };
        Some(self.vec_choose(mask, yes, no))
    }

    pub(super) fn product(&mut self, size: u32, a: Val, b: Val) -> Option<Val> {
        match size {
            1 => Some(self.vec(VecOp::MulLo16, a, b)),
            2 => {
                let even = self.vec(VecOp::MulU32, a, b);
                let a = self.vec_imm(VecOp::ShrImm64, a, 32);
                let b = self.vec_imm(VecOp::ShrImm64, b, 32);
                let odd = self.vec(VecOp::MulU32, a, b);
                let even = self.vec_imm(VecOp::Shuffle32, even, 0b1000);
                let odd = self.vec_imm(VecOp::Shuffle32, odd, 0b1000);
                Some(self.vec(VecOp::UnpackLo32, even, odd))
            }
            _ => None,
        }
    }

    /// Lanes `part`, `part + 2`, ... of `a`, then those of `b`.
    pub(super) fn every_other(&mut self, size: u32, q: u32, part: u32, a: Val, b: Val) -> Val {
        if size == 3 {
            let op = match part {
                0 => VecOp::UnpackLo64,
                _ => VecOp::UnpackHi64,
            };
            return self.vec(op, a, b);
        }
        let lanes = 16u32.wrapping_shr(size);
        let choose = picks(size, lanes / 2, |i| i.wrapping_mul(2).wrapping_add(part));
        if q == 0 {
            let both = self.vec(VecOp::UnpackLo64, a, b);
            return self.shuffle(both, choose);
        }
        let (a, b) = (self.shuffle(a, choose), self.shuffle(b, choose));
        self.vec(VecOp::UnpackLo64, a, b)
    }

    /// Shifts each lane right, by less than its width.
    pub(super) fn shift_right(
        &mut self,
        size: u32,
        signed: bool,
        a: Val,
        count: u32,
    ) -> Option<Val> {
        Some(match (size, signed) {
            (1, true) => self.vec_imm(VecOp::SarImm16, a, count),
            (2, true) => self.vec_imm(VecOp::SarImm32, a, count),
            (1, false) => self.vec_imm(VecOp::ShrImm16, a, count),
            (2, false) => self.vec_imm(VecOp::ShrImm32, a, count),
            (3, false) => self.vec_imm(VecOp::ShrImm64, a, count),
            (0, _) => {
                let moved = self.vec_imm(VecOp::ShrImm16, a, count);
                let kept = self.all_lanes(0xffu64.wrapping_shr(count), 0);
                let moved = self.vec(VecOp::And, moved, kept);
                if !signed {
                    return Some(moved);
                }
                // The sign is now lower: spread from there.
                let sign = self.all_lanes(0x80u64.wrapping_shr(count), 0);
                let flipped = self.vec(VecOp::Xor, moved, sign);
                self.vec(VecOp::Sub8, flipped, sign)
            }
            _ => return None,
        })
    }

    pub(super) fn shift_left(&mut self, size: u32, a: Val, count: u32) -> Val {
        match size {
            0 => {
                let moved = self.vec_imm(VecOp::ShlImm16, a, count);
                let kept = self.all_lanes(0xffu64.wrapping_shl(count), 0);
                self.vec(VecOp::And, moved, kept)
            }
            1 => self.vec_imm(VecOp::ShlImm16, a, count),
            2 => self.vec_imm(VecOp::ShlImm32, a, count),
            _ => self.vec_imm(VecOp::ShlImm64, a, count),
        }
    }
}
