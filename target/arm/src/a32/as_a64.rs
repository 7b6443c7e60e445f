//! The instruction of A64 that does what one of AArch32's Advanced SIMD does, and where its operands are.
#![allow(
    clippy::arithmetic_side_effects,
    reason = "lanes and shifts are bounded by the width of a register; tests run with overflow checks"
)]

use super::neon::Insn;
use super::vfp::{d_slot, number};
use crate::Core;

/// A D or Q register, by the number of its (first) D register.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Reg {
    pub(super) n: u32,
    pub(super) q: bool,
}

impl Reg {
    /// `None` if a Q register is odd.
    pub(super) fn new(q: u32, four: u32, one: u32) -> Option<Reg> {
        let n = number(true, four, one);
        (q == 0 || n & 1 == 0).then_some(Reg { n, q: q != 0 })
    }

    pub(super) fn get(self, core: &Core) -> u128 {
        let low = core.regs.get(d_slot(self.n));
        match self.q {
            true => u128::from(core.regs.get(d_slot(self.n | 1))) << 64 | u128::from(low),
            false => low.into(),
        }
    }

    pub(super) fn set(self, core: &mut Core, value: u128) {
        core.regs.set(d_slot(self.n), value as u64);
        if self.q {
            core.regs.set(d_slot(self.n | 1), (value >> 64) as u64);
        }
    }
}

/// The registers of A64 that operands go to.
pub(super) const D: u32 = 16;
pub(super) const N: u32 = 17;
pub(super) const M: u32 = 18;

/// Words of A64 (C4.1.97) without their registers.
fn three_same(q: u32, u: u32, size: u32, opcode: u32) -> u32 {
    let word = u << 29 | size << 22 | opcode << 11 | M << 16;
    // One lane of 64 bits is a scalar there; opcode 3 is the bitwise operations.
    if size == 3 && q == 0 && opcode != 3 {
        return 0x5e20_0400 | word;
    }
    0x0e20_0400 | q << 30 | word
}

fn three_extra(q: u32, size: u32, opcode: u32) -> u32 {
    0x2e00_8400 | q << 30 | size << 22 | opcode << 11 | M << 16
}

fn three_diff(u: u32, size: u32, opcode: u32) -> u32 {
    0x0e20_0000 | u << 29 | size << 22 | opcode << 12 | M << 16
}

fn two_misc(q: u32, u: u32, size: u32, opcode: u32) -> u32 {
    0x0e20_0800 | q << 30 | u << 29 | size << 22 | opcode << 12
}

pub(super) fn permute(q: u32, size: u32, opcode: u32) -> u32 {
    0x0e00_0800 | q << 30 | size << 22 | opcode << 12 | M << 16
}

/// An instruction of A64 and where its operands are. `n` and `m` may be the same register.
#[derive(Clone, Copy, Debug)]
pub(super) struct Plan {
    pub(super) word: u32,
    pub(super) d: Reg,
    pub(super) n: Reg,
    pub(super) m: Reg,
    /// What A64 has no instruction for.
    pub(super) own: Option<Own>,
}

/// The instruction of A64 on the registers themselves, where that changes no other half: the destination is a
/// Q register, and the operands Q registers or the lower halves of some.
pub(super) fn word(insn: Insn) -> Option<u32> {
    let of_two = |insn| three(insn).or_else(|| diff(insn));
    let (plan, second) = match of_two(insn) {
        Some(plan) => (plan, true),
        None => (two(insn).or_else(|| shift(insn))?, false),
    };
    let is_whole = |r: Reg| r.n & 1 == 0;
    let fits = plan.d.q && [plan.d, plan.n, plan.m].into_iter().all(is_whole);
    if !fits || plan.own.is_some() || plan.word == 0 {
        return None;
    }
    let [d, n, m] = [plan.d, plan.n, plan.m].map(|r| r.n >> 1);
    let word = match second {
        true => plan.word & !(31 << 16) | m << 16,
        false => plan.word,
    };
    Some(word | d | n << 5)
}

/// Floating-point arithmetic of two roundings.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Own {
    MultiplyAdd,
    MultiplySubtract,
    ReciprocalStep,
    RootStep,
}

/// Three operands of one width.
pub(super) fn three(insn: Insn) -> Option<Plan> {
    let Insn::NThree {
        u,
        d,
        size,
        vn,
        vd,
        op,
        n,
        q,
        m,
        o1,
        vm,
    } = insn
    else {
        return None;
    };
    let (d, n, m) = (
        Reg::new(q, vd, d)?,
        Reg::new(q, vn, n)?,
        Reg::new(q, vm, m)?,
    );
    let number = op << 1 | o1;
    let mut plan = same(number, (u, q, size), (d, n, m))?;
    if matches!(number, 8..=11) {
        // Shifts by a register have it second.
        (plan.n, plan.m) = (m, n);
    }
    Some(plan)
}

/// Instructions of three operands of one width, by `op` and `o1`, which are mostly A64's opcode too.
fn same(number: u32, (u, q, size): (u32, u32, u32), (d, n, m): (Reg, Reg, Reg)) -> Option<Plan> {
    let float = size & 1 == 0;
    let high = size >> 1;
    let mut own = None;
    let plain = three_same(q, u, size, number);
    let word = match (number, u) {
        (1 | 3 | 5 | 8..=11 | 16, _) => plain,
        (0 | 2 | 4 | 6 | 7 | 12..=15 | 18, _) if size != 3 => plain,
        (17, _) if size != 3 => plain,
        (19, 0) if size != 3 => plain,
        (19, _) if size == 0 => plain,
        (20 | 21, _) if size != 3 && q == 0 => plain,
        (22, _) if matches!(size, 1 | 2) => plain,
        (23, 0) if size != 3 && q == 0 => plain,
        (23, 1) if matches!(size, 1 | 2) => three_extra(q, size, 0),
        (25, 1) if matches!(size, 1 | 2) => three_extra(q, size, 1),
        (24, _) if q != 0 && (u == 0 || size != 3) => {
            // SHA.
            0x5e00_0000 | M << 16 | (u << 2 | size) << 12
        }
        (25, 0) if float => plain,
        (26, 0) if float => plain,
        (26, _) if size == 0 && q == 0 => plain,
        (26, _) if size == 2 => plain,
        (27, 0) if float => {
            own = Some(match high {
                0 => Own::MultiplyAdd,
                _ => Own::MultiplySubtract,
            });
            plain
        }
        (27, _) if size == 0 => plain,
        (28, 0) if size == 0 => plain,
        (28 | 29, 1) if float => plain,
        (30, 0) if float => plain,
        (30, _) if float && q == 0 => plain,
        (31, 0) if float => {
            own = Some(match high {
                0 => Own::ReciprocalStep,
                _ => Own::RootStep,
            });
            plain
        }
        // VMAXNM, VMINNM.
        (31, _) if float => three_same(q, 0, size, 24),
        _ => return None,
    };
    Some(Plan { word, d, n, m, own })
}

/// Long, wide and narrowing instructions of three operands.
pub(super) fn diff(insn: Insn) -> Option<Plan> {
    let Insn::NDiff {
        u,
        d,
        size,
        vn,
        vd,
        op,
        n,
        m,
        vm,
    } = insn
    else {
        return None;
    };
    let (d_wide, n_wide, m_wide) = match op {
        1 | 3 => (1, 1, 0),
        4 | 6 => (0, 1, 1),
        _ => (1, 0, 0),
    };
    let d = Reg::new(d_wide, vd, d)?;
    let n = Reg::new(n_wide, vn, n)?;
    let m = Reg::new(m_wide, vm, m)?;
    let word = long(op, u, size)?;
    Some(Plan {
        word,
        d,
        n,
        m,
        own: None,
    })
}

fn long(op: u32, u: u32, size: u32) -> Option<u32> {
    Some(match (op, u) {
        (9 | 11 | 13, 0) if size != 0 => three_diff(0, size, op),
        (9 | 11 | 13 | 15, _) => return None,
        // Polynomials of 8 and of 64 bits.
        (14, 0) if size == 0 => three_diff(0, 0, 14),
        (14, 0) if size == 2 => three_diff(0, 3, 14),
        (14, _) => return None,
        _ => three_diff(u, size, op),
    })
}

/// Instructions with a scalar: as the ones of two vectors, the second having it in all lanes.
pub(super) fn scalar(insn: Insn) -> Option<(Plan, u32, u32)> {
    let Insn::NScalar {
        q,
        d,
        size,
        vn,
        vd,
        op,
        n,
        m,
        vm,
    } = insn
    else {
        return None;
    };
    let (register, lane) = match size {
        1 => (vm & 7, m << 1 | vm >> 3),
        2 => (vm, m),
        _ => return None,
    };
    let wide = matches!(op, 2 | 3 | 6 | 7 | 10 | 11);
    let is_q = if wide { 0 } else { q };
    let n = Reg::new(is_q, vn, n)?;
    let d = Reg::new(if wide { 1 } else { q }, vd, d)?;
    let m = Reg {
        n: register,
        q: false,
    };
    if wide {
        let op = match op {
            2 => 8,
            3 => 9,
            6 => 10,
            7 => 11,
            10 => 12,
            _ => 13,
        };
        let word = long(op, q, size)?;
        let plan = Plan {
            word,
            d,
            n,
            m,
            own: None,
        };
        return Some((plan, size, lane));
    }
    let float = size == 2;
    let (number, u, of) = match op {
        0 => (18, 0, size),
        4 => (18, 1, size),
        8 => (19, 0, size),
        12 => (22, 0, size),
        13 => (22, 1, size),
        14 => (23, 1, size),
        15 => (25, 1, size),
        1 if float => (27, 0, 0),
        5 if float => (27, 0, 2),
        9 if float => (27, 1, 0),
        _ => return None,
    };
    let plan = same(number, (u, q, of), (d, n, m))?;
    Some((plan, size, lane))
}

/// Instructions of one operand that are one of A64. The operand is `n`.
pub(super) fn two(insn: Insn) -> Option<Plan> {
    let Insn::NTwo {
        d,
        size,
        op1,
        vd,
        op2,
        q,
        m,
        vm,
    } = insn
    else {
        return None;
    };
    let narrow = op1 == 2 && (matches!(op2, 4 | 5) || op2 == 12);
    let widen = op1 == 2 && matches!(op2, 6 | 14);
    let crypto = matches!((op1, op2), (0, 6 | 7) | (1, 5) | (2, 7));
    let (d_q, m_q) = match (narrow, widen, crypto) {
        (true, ..) => (0, 1),
        (_, true, _) => (1, 0),
        (.., true) => (1, 1),
        _ => (q, q),
    };
    let d = Reg::new(d_q, vd, d)?;
    let n = Reg::new(m_q, vm, m)?;
    let word = two_word(op1, op2, size, q)?;
    Some(Plan {
        word,
        d,
        n,
        m: n,
        own: None,
    })
}

fn two_word(op1: u32, op2: u32, size: u32, q: u32) -> Option<u32> {
    let below = |most: u32, word: u32| (size < most).then_some(word);
    let only = |wanted: u32, word: u32| (size == wanted).then_some(word);
    let misc = |u: u32, opcode: u32| two_misc(q, u, size, opcode);
    // Single precision: size 2 here; there the upper bit is part of the opcode.
    let float = |u: u32, high: u32, opcode: u32| only(2, two_misc(q, u, high << 1, opcode));
    match (op1, op2) {
        (0, 0) => below(3, misc(0, 0)),
        (0, 1) => below(2, misc(1, 0)),
        (0, 2) => below(1, misc(0, 1)),
        (0, 4 | 5) => below(3, misc(op2 & 1, 2)),
        (0, 6) => only(0, 0x4e28_0800 | (4 + q) << 12),
        (0, 7) => only(0, 0x4e28_0800 | (6 + q) << 12),
        (0, 8) => below(3, misc(0, 4)),
        (0, 9) => below(3, misc(1, 4)),
        (0, 10) => below(1, misc(0, 5)),
        (0, 11) => below(1, misc(1, 5)),
        (0, 12 | 13) => below(3, misc(op2 & 1, 6)),
        (0, 14) => below(3, misc(0, 7)),
        (0, 15) => below(3, misc(1, 7)),
        (1, 0) => below(3, misc(0, 8)),
        (1, 1) => below(3, misc(1, 8)),
        (1, 2) => below(3, misc(0, 9)),
        (1, 3) => below(3, misc(1, 9)),
        (1, 4) => below(3, misc(0, 10)),
        // SHA1H.
        (1, 5) if q != 0 => only(2, 0x5e28_0800),
        (1, 6) => below(3, misc(0, 11)),
        (1, 7) => below(3, misc(1, 11)),
        (1, 8) => float(0, 1, 12),
        (1, 9) => float(1, 1, 12),
        (1, 10) => float(0, 1, 13),
        (1, 11) => float(1, 1, 13),
        (1, 12) => float(0, 1, 14),
        (1, 14) => float(0, 1, 15),
        (1, 15) => float(1, 1, 15),
        // VMOVN, VQMOVUN, VQMOVN.
        (2, 4) => below(3, two_misc(0, q, size, 18)),
        (2, 5) => below(3, two_misc(0, q, size, 20)),
        // VSHLL by the width.
        (2, 6) if q == 0 => below(3, two_misc(0, 1, size, 19)),
        // SHA1SU1, SHA256SU0.
        (2, 7) => only(2, 0x5e28_0800 | (1 + q) << 12),
        (2, 8) => float(0, 0, 24),
        (2, 9) => float(1, 0, 25),
        (2, 10) => float(1, 0, 24),
        (2, 11) => float(0, 1, 25),
        (2, 12) if q == 0 => only(1, two_misc(0, 0, 0, 22)),
        (2, 13) => float(0, 0, 25),
        (2, 14) if q == 0 => only(1, two_misc(0, 0, 0, 23)),
        (2, 15) => float(0, 1, 24),
        (3, 0 | 1) => float(op2 & 1, 0, 28),
        (3, 2 | 3) => float(op2 & 1, 0, 26),
        (3, 4 | 5) => float(op2 & 1, 1, 26),
        (3, 6 | 7) => float(op2 & 1, 0, 27),
        (3, 8) => float(0, 1, 28),
        (3, 9) => float(1, 1, 28),
        (3, 10) => float(0, 1, 29),
        (3, 11) => float(1, 1, 29),
        (3, 12 | 13) => float(op2 & 1, 0, 29),
        (3, 14 | 15) => float(op2 & 1, 1, 27),
        // VSWP, VTRN, VUZP, VZIP have no word of their own.
        (2, 0) => only(0, 0),
        (2, 1) => below(3, 0),
        (2, 2 | 3) => below(if q != 0 { 3 } else { 2 }, 0),
        _ => None,
    }
}

/// Shifts by a constant, conversions to and from fixed point. The operand is `n`.
pub(super) fn shift(insn: Insn) -> Option<Plan> {
    let Insn::NShift {
        u,
        d,
        imm,
        vd,
        op,
        l,
        q,
        m,
        vm,
    } = insn
    else {
        return None;
    };
    let (opcode, d_q, m_q, q_bit) = match op {
        4 | 6 if u == 0 => return None,
        0..=7 => (op << 1, q, q, q),
        8 | 9 if l == 0 => (op << 1 | q, 0, 1, 0),
        10 if l == 0 && q == 0 => (20, 1, 0, 0),
        14 if l == 0 && imm & 32 != 0 => (28, q, q, q),
        15 if l == 0 && imm & 32 != 0 => (31, q, q, q),
        _ => return None,
    };
    let d = Reg::new(d_q, vd, d)?;
    let n = Reg::new(m_q, vm, m)?;
    // One lane of 64 bits is a scalar there.
    let base = if l != 0 && q == 0 {
        0x5f00_0400
    } else {
        0x0f00_0400 | q_bit << 30
    };
    let word = base | u << 29 | (l << 6 | imm) << 16 | opcode << 11;
    Some(Plan {
        word,
        d,
        n,
        m: n,
        own: None,
    })
}

#[cfg(test)]
mod tests {
    use super::super::neon::decode;

    #[test]
    fn what_is_in_whole_registers_is_the_same_in_a64() {
        let word = |word| decode(word).and_then(super::word);
        // VADD.I32 q0, q1, q2; VMULL.U32 q0, d2, d4.
        assert_eq!(word(0xf222_0844), Some(0x4ea2_8420));
        assert_eq!(word(0xf3a2_0c04), Some(0x2ea2_c020));
        // VADD.I32 d0, d1, d2; VMULL.U32 q0, d1, d4: an upper half is one of them.
        assert_eq!(word(0xf221_0802), None);
        assert_eq!(word(0xf3a1_0c04), None);
    }
}
