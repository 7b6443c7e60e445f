//! Three registers of the same type (C4.1.97 "Advanced SIMD three same").

use super::{Lanes, float_lanes, set_v, settle_saturation, v};
use crate::Core;
use crate::a64::simd::Insn;

/// A shift left by the signed low byte of a lane; right if negative.
pub(super) fn shift_by(
    lanes: Lanes,
    value: i128,
    by: i64,
    round: bool,
    saturated: Option<(&mut bool, u32)>,
    unsigned: u32,
) -> u64 {
    let shift = i64::from(by as i8);
    let result = if shift >= 0 {
        if shift >= 64 + i64::from(lanes.bits) || shift >= 64 {
            // All bits leave.
            if let Some((saturated, _)) = saturated {
                if value == 0 {
                    return 0;
                }
                let huge = if value < 0 { i128::MIN } else { i128::MAX };
                return lanes.saturate(huge, unsigned, saturated);
            }
            return 0;
        }
        // shift: below the width of a lane
        value << shift
    } else {
        let count = (-shift) as u32;
        let rounding = if round {
            // shift: below the width of a lane
            1i128 << (count - 1).min(126)
        } else {
            0
        };
        if count >= 127 {
            if round {
                0
            } else if value < 0 {
                -1
            } else {
                0
            }
        } else {
            // shift: below the width of a lane
            (value + rounding) >> count
        }
    };
    match saturated {
        Some((saturated, unsigned)) => lanes.saturate(result, unsigned, saturated),
        None => result as u64 & lanes.mask(),
    }
}

/// Carry-less product of two bytes.
fn polynomial(a: u64, b: u64) -> u64 {
    // shift: below the width of a lane
    (0..8).fold(0, |sum, i| if b >> i & 1 != 0 { sum ^ a << i } else { sum })
}

pub(super) fn execute(core: &mut Core, insn: Insn) -> Option<()> {
    let (q, u, size, rm, opcode, rn, rd, scalar) = match insn {
        Insn::ThreeSame {
            q,
            u,
            size,
            rm,
            opcode,
            rn,
            rd,
            scalar,
        } => (q, u, size, rm, opcode, rn, rd, scalar),
        Insn::ThreeSameHalf {
            q,
            u,
            a,
            rm,
            opcode,
            rn,
            rd,
            scalar,
        } => {
            if !core.arch.model.has_fp16() {
                return None;
            }
            let how = float_lanes::Same {
                bits: 16,
                op: opcode,
                u,
                other: a,
            };
            return float_lanes::same(core, how, (q, scalar), (rd, rn, rm));
        }
        _ => return None,
    };
    if opcode >= 24 {
        if matches!((opcode, u), (29, 0) | (25, 1)) {
            return super::extra::widening_multiply(
                core,
                (q, scalar, size),
                opcode == 25,
                (rd, rn, rm),
            );
        }
        let bits = 32 << (size & 1);
        if bits == 64 && q == 0 && scalar == 0 {
            return None;
        }
        let how = float_lanes::Same {
            bits,
            op: opcode - 24,
            u,
            other: size >> 1,
        };
        return float_lanes::same(core, how, (q, scalar), (rd, rn, rm));
    }
    let (a, b) = (v(core, rn), v(core, rm));
    if opcode == 3 {
        if scalar != 0 {
            return None;
        }
        let d = v(core, rd);
        let result = match (u, size) {
            (0, 0) => a & b,
            (0, 1) => a & !b,
            (0, 2) => a | b,
            (0, _) => a | !b,
            (_, 0) => a ^ b,
            (_, 1) => b ^ (b ^ a) & d,
            (_, 2) => d ^ (d ^ a) & b,
            _ => d ^ (d ^ a) & !b,
        };
        let kept = if q != 0 { u128::MAX } else { u64::MAX.into() };
        set_v(core, rd, result & kept);
        return Some(());
    }
    let allowed = match (scalar, opcode) {
        (0, 18 | 19) => !(size == 3 || opcode == 19 && u != 0 && size != 0),
        (0, 0 | 2 | 4 | 12..=15 | 20 | 21) => size != 3,
        (_, 22) => matches!(size, 1 | 2),
        (0, 23) => u == 0 && !(size == 3 && q == 0),
        (0, _) => !(size == 3 && q == 0),
        (_, 1 | 5 | 9 | 11) => true,
        (_, 6 | 7 | 8 | 10 | 16 | 17) => size == 3,
        _ => false,
    };
    if !allowed {
        return None;
    }
    // shift: below the width of a lane
    let lanes = Lanes::new(8 << size, q, scalar);
    let d = v(core, rd);
    let mut saturated = false;
    let x = |i| lanes.wide(a, i, u);
    let y = |i| lanes.wide(b, i, u);
    let result = match opcode {
        0 => lanes.build(|i| ((x(i) + y(i)) >> 1) as u64),
        2 => lanes.build(|i| ((x(i) + y(i) + 1) >> 1) as u64),
        4 => lanes.build(|i| ((x(i) - y(i)) >> 1) as u64),
        1 => lanes.build(|i| lanes.saturate(x(i) + y(i), u, &mut saturated)),
        5 => lanes.build(|i| lanes.saturate(x(i) - y(i), u, &mut saturated)),
        6 => lanes.build(|i| lanes.all(x(i) > y(i))),
        7 => lanes.build(|i| lanes.all(x(i) >= y(i))),
        8 | 10 => lanes.build(|i| shift_by(lanes, x(i), lanes.signed(b, i), opcode == 10, None, u)),
        9 | 11 => lanes.build(|i| {
            let by = lanes.signed(b, i);
            shift_by(lanes, x(i), by, opcode == 11, Some((&mut saturated, u)), u)
        }),
        12 => lanes.build(|i| x(i).max(y(i)) as u64),
        13 => lanes.build(|i| x(i).min(y(i)) as u64),
        14 => lanes.build(|i| (x(i) - y(i)).unsigned_abs() as u64),
        15 => lanes.build(|i| {
            let difference = (x(i) - y(i)).unsigned_abs() as u64;
            lanes.get(d, i).wrapping_add(difference)
        }),
        16 if u == 0 => lanes.build(|i| lanes.get(a, i).wrapping_add(lanes.get(b, i))),
        16 => lanes.build(|i| lanes.get(a, i).wrapping_sub(lanes.get(b, i))),
        17 if u == 0 => lanes.build(|i| lanes.all(lanes.get(a, i) & lanes.get(b, i) != 0)),
        17 => lanes.build(|i| lanes.all(lanes.get(a, i) == lanes.get(b, i))),
        18 => lanes.build(|i| {
            let product = lanes.get(a, i).wrapping_mul(lanes.get(b, i));
            match u {
                0 => lanes.get(d, i).wrapping_add(product),
                _ => lanes.get(d, i).wrapping_sub(product),
            }
        }),
        19 if u == 0 => lanes.build(|i| lanes.get(a, i).wrapping_mul(lanes.get(b, i))),
        19 => lanes.build(|i| polynomial(lanes.get(a, i), lanes.get(b, i))),
        20 | 21 | 23 => {
            let half = lanes.count / 2;
            lanes.build(|i| {
                let (from, at) = if i < half {
                    (a, i * 2)
                } else {
                    (b, (i - half) * 2)
                };
                let (x, y) = (lanes.wide(from, at, u), lanes.wide(from, at + 1, u));
                match opcode {
                    20 => x.max(y) as u64,
                    21 => x.min(y) as u64,
                    _ => x.wrapping_add(y) as u64,
                }
            })
        }
        22 => lanes.build(|i| {
            let product = i128::from(lanes.signed(a, i)) * i128::from(lanes.signed(b, i)) * 2;
            doubling_high(lanes, product, 0, u != 0, &mut saturated)
        }),
        _ => return None,
    };
    set_v(core, rd, result);
    settle_saturation(core, saturated);
    Some(())
}

/// The high half of `addend << bits + product`, rounded if wanted, saturated.
pub(super) fn doubling_high(
    lanes: Lanes,
    product: i128,
    addend: i64,
    round: bool,
    saturated: &mut bool,
) -> u64 {
    // shift: below the width of a lane
    let rounding = if round { 1i128 << (lanes.bits - 1) } else { 0 };
    // shift: below the width of a lane
    let sum = (i128::from(addend) << lanes.bits) + product + rounding;
    // shift: below the width of a lane
    lanes.saturate(sum >> lanes.bits, 0, saturated)
}
