//! Operations between lanes of different widths (C4.1.97 "Advanced SIMD three different").

use super::shift::put_half;
use super::{Lanes, has, set_v, settle_saturation, v};
use crate::Core;
use crate::a64::simd::Insn;
use crate::model::Feature;

/// Carry-less product of 64 bits.
pub(super) fn polynomial(a: u64, b: u64) -> u128 {
    (0..64).fold(0, |sum, i| {
        // shift: below the width of a lane
        if b >> i & 1 != 0 {
            // shift: below the width of a lane
            sum ^ u128::from(a) << i
        } else {
            sum
        }
    })
}

pub(super) fn execute(core: &mut Core, insn: Insn) -> Option<()> {
    let Insn::ThreeDiff {
        q,
        u,
        size,
        rm,
        opcode,
        rn,
        rd,
        scalar,
    } = insn
    else {
        return None;
    };
    let doubling = matches!(opcode, 9 | 11 | 13);
    if doubling && (u != 0 || !matches!(size, 1 | 2)) || scalar != 0 && !doubling {
        return None;
    }
    if opcode == 14 {
        if u != 0 || !matches!(size, 0 | 3) {
            return None;
        }
        return polynomials(core, (q, size), (rd, rn, rm));
    }
    if size == 3 || opcode == 15 {
        return None;
    }
    // shift: below the width of a lane
    let narrow = Lanes::new(8 << size, 0, scalar);
    let wide = Lanes {
        // shift: below the width of a lane
        bits: 16 << size,
        ..narrow
    };
    let upper = |value: u128| value >> (64 * q);
    let d = v(core, rd);
    let mut saturated = false;
    if matches!(opcode, 4 | 6) {
        // ADDHN, RADDHN, SUBHN, RSUBHN.
        let (a, b) = (v(core, rn), v(core, rm));
        // shift: below the width of a lane
        let rounding = if u != 0 { 1 << (narrow.bits - 1) } else { 0u64 };
        let result = narrow.build(|i| {
            let (x, y) = (wide.get(a, i), wide.get(b, i));
            let sum = match opcode {
                4 => x.wrapping_add(y),
                _ => x.wrapping_sub(y),
            };
            // shift: below the width of a lane
            (sum.wrapping_add(rounding) & wide.mask()) >> narrow.bits
        });
        put_half(core, rd, result, q);
        return Some(());
    }
    let first_is_wide = matches!(opcode, 1 | 3);
    let a = if first_is_wide {
        v(core, rn)
    } else {
        upper(v(core, rn))
    };
    let b = upper(v(core, rm));
    let x = |i| match first_is_wide {
        true => wide.wide(a, i, u),
        false => narrow.wide(a, i, u),
    };
    let y = |i| narrow.wide(b, i, u);
    let old = |i| wide.get(d, i);
    let result = wide.build(|i| match opcode {
        0 | 1 => (x(i) + y(i)) as u64,
        2 | 3 => (x(i) - y(i)) as u64,
        5 => old(i).wrapping_add((x(i) - y(i)).unsigned_abs() as u64),
        7 => (x(i) - y(i)).unsigned_abs() as u64,
        8 => old(i).wrapping_add((x(i) * y(i)) as u64),
        10 => old(i).wrapping_sub((x(i) * y(i)) as u64),
        12 => (x(i) * y(i)) as u64,
        _ => doubled(wide, opcode, wide.signed(d, i), x(i) * y(i), &mut saturated),
    });
    set_v(core, rd, result);
    settle_saturation(core, saturated);
    Some(())
}

/// SQDMLAL (9), SQDMLSL (11), SQDMULL (13): both steps saturate.
pub(super) fn doubled(
    wide: Lanes,
    opcode: u32,
    old: i64,
    product: i128,
    saturated: &mut bool,
) -> u64 {
    let product = wide.saturate(product * 2, 0, saturated);
    let product = i128::from(super::sext(product, wide.bits));
    match opcode {
        9 => wide.saturate(i128::from(old) + product, 0, saturated),
        11 => wide.saturate(i128::from(old) - product, 0, saturated),
        _ => product as u64,
    }
}

/// PMULL.
fn polynomials(
    core: &mut Core,
    (q, size): (u32, u32),
    (rd, rn, rm): (u32, u32, u32),
) -> Option<()> {
    let (a, b) = (v(core, rn) >> (64 * q), v(core, rm) >> (64 * q));
    let result = if size == 3 {
        has(core, Feature::Pmull)?;
        polynomial(a as u64, b as u64)
    } else {
        let (narrow, wide) = (Lanes::new(8, 0, 0), Lanes::new(16, 1, 0));
        wide.build(|i| polynomial(narrow.get(a, i), narrow.get(b, i)) as u64)
    };
    set_v(core, rd, result);
    Some(())
}
