//! Shifts by an immediate, and conversions of fixed-point numbers (C4.1.97 "Advanced SIMD shift by
//! immediate").

use super::{Lanes, float_lanes, set_v, settle_saturation, v};
use crate::Core;
use crate::a64::simd::Insn;

pub(super) fn execute(core: &mut Core, insn: Insn) -> Option<()> {
    let Insn::ShiftImm {
        q,
        u,
        immh,
        immb,
        opcode,
        rn,
        rd,
        scalar,
    } = insn
    else {
        return None;
    };
    let size = 31 - immh.leading_zeros();
    // shift: below the width of a lane
    let bits = 8 << size;
    let imm = immh << 3 | immb;
    let (left, right) = (imm - bits, 2 * bits - imm);
    let a = v(core, rn);
    let narrow = matches!(opcode, 16..=19);
    let long = opcode == 20;
    if narrow || long {
        // A scalar narrows one lane, by saturation only.
        if size == 3 || scalar != 0 && (long || u == 0 && opcode < 18) {
            return None;
        }
        return if long {
            widen(core, (q, u, size), left, (rd, rn));
            Some(())
        } else {
            narrowed(core, (q, u, opcode), (size, scalar), right, (rd, rn));
            Some(())
        };
    }
    if matches!(opcode, 28 | 31) {
        let there = match size {
            0 => false,
            1 => core.arch.model.has_fp16(),
            3 => q != 0 || scalar != 0,
            _ => true,
        };
        if !there {
            return None;
        }
        return float_lanes::fixed(core, (bits, right), u, opcode == 31, (q, scalar), (rd, rn));
    }
    let saturating = matches!((opcode, u), (12, 1) | (14, _));
    if scalar != 0 && size != 3 && !saturating || scalar == 0 && size == 3 && q == 0 {
        return None;
    }
    let lanes = Lanes::new(bits, q, scalar);
    let d = v(core, rd);
    let mut saturated = false;
    let x = |i| lanes.wide(a, i, u);
    let shifted = |i, round: bool| {
        // shift: below the width of a lane
        let rounding = if round { 1i128 << (right - 1) } else { 0 };
        // shift: below the width of a lane
        ((x(i) + rounding) >> right) as u64
    };
    let result = match (opcode, u) {
        (0, _) => lanes.build(|i| shifted(i, false)),
        (2, _) => lanes.build(|i| lanes.get(d, i).wrapping_add(shifted(i, false))),
        (4, _) => lanes.build(|i| shifted(i, true)),
        (6, _) => lanes.build(|i| lanes.get(d, i).wrapping_add(shifted(i, true))),
        // SRI, SLI.
        (8, 1) => lanes.build(|i| {
            let mask = lanes.mask().checked_shr(right).unwrap_or(0);
            let new = lanes.get(a, i).checked_shr(right).unwrap_or(0);
            lanes.get(d, i) & !mask | new & mask
        }),
        (10, 1) => lanes.build(|i| {
            // shift: below the width of a lane
            let mask = lanes.mask() << left;
            // shift: below the width of a lane
            lanes.get(d, i) & !mask | lanes.get(a, i) << left & mask
        }),
        // shift: below the width of a lane
        (10, 0) => lanes.build(|i| lanes.get(a, i) << left),
        // SQSHLU.
        (12, 1) => lanes.build(|i| {
            // shift: below the width of a lane
            let value = i128::from(lanes.signed(a, i)) << left;
            lanes.saturate(value, 1, &mut saturated)
        }),
        // shift: below the width of a lane
        (14, _) => lanes.build(|i| lanes.saturate(x(i) << left, u, &mut saturated)),
        _ => return None,
    };
    set_v(core, rd, result);
    settle_saturation(core, saturated);
    Some(())
}

/// SSHLL, USHLL.
fn widen(core: &mut Core, (q, u, size): (u32, u32, u32), left: u32, (rd, rn): (u32, u32)) {
    // shift: below the width of a lane
    let from = Lanes::new(8 << size, 0, 0);
    // shift: below the width of a lane
    let to = Lanes::new(16 << size, 1, 0);
    let a = v(core, rn) >> (64 * q);
    // shift: below the width of a lane
    let result = to.build(|i| (from.wide(a, i, u) << left) as u64);
    set_v(core, rd, result);
}

/// SHRN, RSHRN, SQSHRUN, SQRSHRUN (U), SQSHRN, UQSHRN, SQRSHRN, UQRSHRN.
fn narrowed(
    core: &mut Core,
    (q, u, opcode): (u32, u32, u32),
    (size, scalar): (u32, u32),
    right: u32,
    (rd, rn): (u32, u32),
) {
    // shift: below the width of a lane
    let from = Lanes::new(16 << size, 1, scalar);
    let to = Lanes {
        // shift: below the width of a lane
        bits: 8 << size,
        ..from
    };
    let a = v(core, rn);
    let round = opcode & 1 != 0;
    let saturates = opcode >= 18 || u != 0;
    let unsigned_in = u32::from(opcode >= 18 && u != 0);
    let mut saturated = false;
    let result = to.build(|i| {
        // shift: below the width of a lane
        let rounding = if round { 1i128 << (right - 1) } else { 0 };
        // shift: below the width of a lane
        let value = (from.wide(a, i, unsigned_in) + rounding) >> right;
        match saturates {
            true => to.saturate(value, u, &mut saturated),
            false => value as u64,
        }
    });
    put_half(core, rd, result, q);
    settle_saturation(core, saturated);
}

/// Writes a narrowed result to the lower half, zeros above, or to the upper half alone.
pub(super) fn put_half(core: &mut Core, rd: u32, result: u128, upper: u32) {
    let value = match upper {
        0 => result,
        _ => u128::from(v(core, rd) as u64) | result << 64,
    };
    set_v(core, rd, value);
}
