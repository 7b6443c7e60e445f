//! Operations of one vector, reductions, scalar pairs (C4.1.97 "two-register miscellaneous", "across lanes", "scalar
//! pairwise").

use target_softfloat::Rounding;

use super::shift::put_half;
use super::{Lanes, bf16, float_lanes, has, set_v, settle_saturation, v};
use crate::Core;
use crate::a64::simd::Insn;
use crate::float::{self, arithmetic, arithmetic::Op, estimate};
use crate::model::Feature;

pub(super) fn execute(core: &mut Core, insn: Insn) -> Option<()> {
    match insn {
        Insn::TwoMisc {
            q,
            u,
            size,
            opcode,
            rn,
            rd,
            scalar,
        } => {
            let is_float = matches!(opcode, 12..=15 | 22..=31);
            if is_float {
                let bits = 32 << (size & 1);
                return floats(core, (bits, size >> 1, u, opcode), (q, scalar), (rd, rn));
            }
            integers(core, (u, size, opcode), (q, scalar), (rd, rn))
        }
        Insn::TwoMiscHalf {
            q,
            u,
            a,
            opcode,
            rn,
            rd,
            scalar,
        } => {
            if !core.arch.model.has_fp16() || matches!((opcode, a), (28, 1) | (22 | 23 | 30, _)) {
                return None;
            }
            floats(core, (16, a, u, opcode), (q, scalar), (rd, rn))
        }
        Insn::Across {
            q,
            u,
            size,
            opcode,
            rn,
            rd,
        } => across(core, (q, u, size), opcode, (rd, rn)),
        Insn::Pairwise {
            u,
            size,
            opcode,
            rn,
            rd,
        } => pairwise(core, (u, size), opcode, (rd, rn)),
        _ => None,
    }
}

fn integers(
    core: &mut Core,
    (u, size, opcode): (u32, u32, u32),
    (q, scalar): (u32, u32),
    (rd, rn): (u32, u32),
) -> Option<()> {
    let a = v(core, rn);
    let d = v(core, rd);
    let allowed = match (scalar, opcode) {
        (_, 3 | 7) => scalar != 0 || size != 3 || q != 0,
        (0, 8..=11) => size != 3 || q != 0,
        (_, 8..=11) => size == 3,
        (0, 18) => size != 3,
        (_, 18) => u != 0 && size != 3,
        (_, 20) => size != 3,
        (0, 0) => size < 3 - u,
        (0, 1) => u == 0 && size == 0,
        (0, 2 | 6 | 4) => size != 3,
        (0, 5) => size == 0 || u != 0 && size == 1,
        (0, 19) => u != 0 && size != 3,
        _ => false,
    };
    if !allowed {
        return None;
    }
    // shift: below the width of a lane
    let lanes = Lanes::new(8 << size, q, scalar);
    let mut saturated = false;
    let s = |i| lanes.signed(a, i);
    let result = match (opcode, u) {
        (0 | 1, _) => {
            // Lanes of 64, 32 or 16 bits are reversed.
            let group = match (opcode, u) {
                (0, 0) => 64,
                (0, _) => 32,
                _ => 16,
            } / lanes.bits;
            lanes.build(|i| lanes.get(a, i ^ (group - 1)))
        }
        (2 | 6, _) => {
            let wide = Lanes::new(lanes.bits * 2, q, 0);
            wide.build(|i| {
                let sum = (lanes.wide(a, 2 * i, u) + lanes.wide(a, 2 * i + 1, u)) as u64;
                if opcode == 6 {
                    sum.wrapping_add(wide.get(d, i))
                } else {
                    sum
                }
            })
        }
        // SUQADD, USQADD.
        (3, 0) => lanes.build(|i| {
            let sum = i128::from(lanes.get(a, i)) + i128::from(lanes.signed(d, i));
            lanes.saturate(sum, 0, &mut saturated)
        }),
        (3, _) => lanes.build(|i| {
            let sum = i128::from(s(i)) + i128::from(lanes.get(d, i));
            lanes.saturate(sum, 1, &mut saturated)
        }),
        (4, 0) => lanes.build(|i| {
            let x = lanes.get((s(i) ^ (s(i) >> 1)) as u64 as u128, 0);
            u64::from(x.leading_zeros() - (64 - lanes.bits)) - 1
        }),
        (4, _) => lanes.build(|i| u64::from(lanes.get(a, i).leading_zeros() - (64 - lanes.bits))),
        (5, 0) => lanes.build(|i| lanes.get(a, i).count_ones().into()),
        (5, _) => {
            let bytes = Lanes::new(8, q, 0);
            bytes.build(|i| match size {
                0 => !bytes.get(a, i),
                _ => u64::from((bytes.get(a, i) as u8).reverse_bits()),
            })
        }
        (7, 0) => lanes.build(|i| lanes.saturate(i128::from(s(i)).abs(), 0, &mut saturated)),
        (7, _) => lanes.build(|i| lanes.saturate(-i128::from(s(i)), 0, &mut saturated)),
        (8, 0) => lanes.build(|i| lanes.all(s(i) > 0)),
        (8, _) => lanes.build(|i| lanes.all(s(i) >= 0)),
        (9, 0) => lanes.build(|i| lanes.all(s(i) == 0)),
        (9, _) => lanes.build(|i| lanes.all(s(i) <= 0)),
        (10, 0) => lanes.build(|i| lanes.all(s(i) < 0)),
        (11, 0) => lanes.build(|i| s(i).wrapping_abs() as u64),
        (11, _) => lanes.build(|i| s(i).wrapping_neg() as u64),
        (18 | 20, _) => {
            // XTN, SQXTUN (18), SQXTN, UQXTN (20).
            // shift: below the width of a lane
            let narrow = Lanes::new(8 << size, 0, scalar);
            let wide = Lanes {
                // shift: below the width of a lane
                bits: 16 << size,
                ..narrow
            };
            let result = narrow.build(|i| match (opcode, u) {
                (18, 0) => wide.get(a, i),
                (18, _) => narrow.saturate(wide.signed(a, i).into(), 1, &mut saturated),
                _ => narrow.saturate(wide.wide(a, i, u), u, &mut saturated),
            });
            put_half(core, rd, result, q);
            settle_saturation(core, saturated);
            return Some(());
        }
        // SHLL.
        (19, _) => {
            // shift: below the width of a lane
            let narrow = Lanes::new(8 << size, 0, 0);
            // shift: below the width of a lane
            let wide = Lanes::new(16 << size, 1, 0);
            let a = a >> (64 * q);
            // shift: below the width of a lane
            wide.build(|i| narrow.get(a, i) << narrow.bits)
        }
        _ => return None,
    };
    set_v(core, rd, result);
    settle_saturation(core, saturated);
    Some(())
}

/// The rounding of FRINT* and FCVT* by their opcode's low bits and `a`: N, P, M, Z.
fn rounding(opcode: u32, a: u32) -> Rounding {
    float::rounding(u64::from(a | (opcode & 1) << 1))
}

fn floats(
    core: &mut Core,
    (bits, a, u, opcode): (u32, u32, u32, u32),
    (q, scalar): (u32, u32),
    (rd, rn): (u32, u32),
) -> Option<()> {
    if matches!(opcode, 22 | 23) {
        return resize(core, (bits, a, u, opcode), (q, scalar), (rd, rn));
    }
    if bits == 64 && q == 0 && scalar == 0 {
        return None;
    }
    let lanes = Lanes::new(bits, q, scalar);
    let current = float::env(core, bits == 16).rounding;
    let to = (rd, rn);
    let int = |rounding| {
        move |x, env: &mut _| arithmetic::to_int((bits, bits), u != 0, 0, rounding, x, env)
    };
    let compare = |op: Op, swap: bool| {
        move |x, env: &mut _| {
            let (x, y) = if swap { (0, x) } else { (x, 0) };
            arithmetic::two(bits, op, x, y, env)
        }
    };
    let vector_only = |ok: bool| (ok && scalar == 0).then_some(());
    match (opcode, a, u) {
        (12, 1, 0) => float_lanes::map(core, lanes, to, compare(Op::Greater, false)),
        (12, 1, _) => float_lanes::map(core, lanes, to, compare(Op::GreaterEqual, false)),
        (13, 1, 0) => float_lanes::map(core, lanes, to, compare(Op::Equal, false)),
        (13, 1, _) => float_lanes::map(core, lanes, to, compare(Op::GreaterEqual, true)),
        (14, 1, 0) => float_lanes::map(core, lanes, to, compare(Op::Greater, true)),
        (15, 1, 0) => {
            vector_only(true)?;
            float_lanes::map(core, lanes, to, |x, _| x & lanes.mask() >> 1);
        }
        (15, 1, _) => {
            vector_only(true)?;
            float_lanes::map(core, lanes, to, |x, _| arithmetic::negated(bits, x));
        }
        (24 | 25, _, 0) => {
            vector_only(true)?;
            let mode = rounding(opcode, a);
            float_lanes::map(core, lanes, to, |x, env| {
                arithmetic::round(bits, x, mode, false, env)
            });
        }
        // FRINTA, FRINTX, FRINTI.
        (24, 0, _) | (25, _, _) => {
            vector_only(true)?;
            let mode = if opcode == 24 {
                Rounding::NearestAway
            } else {
                current
            };
            let exact = opcode == 25 && a == 0;
            float_lanes::map(core, lanes, to, |x, env| {
                arithmetic::round(bits, x, mode, exact, env)
            });
        }
        (26 | 27, ..) => float_lanes::map(core, lanes, to, int(rounding(opcode, a))),
        (28, 0, _) => float_lanes::map(core, lanes, to, int(Rounding::NearestAway)),
        (28, _, 0) if bits == 32 => {
            vector_only(true)?;
            float_lanes::map(core, lanes, to, |x, _| {
                estimate::integer_reciprocal(x as u32).into()
            });
        }
        (28, _, _) if bits == 32 => {
            vector_only(true)?;
            float_lanes::map(core, lanes, to, |x, _| {
                estimate::integer_root(x as u32).into()
            });
        }
        (29, 0, _) => float_lanes::map(core, lanes, to, |x, env| {
            arithmetic::from_int((bits, bits), u != 0, 0, x, env)
        }),
        (29, _, 0) => {
            float_lanes::map(core, lanes, to, |x, env| estimate::reciprocal(bits, x, env))
        }
        (29, ..) => float_lanes::map(core, lanes, to, |x, env| estimate::root(bits, x, env)),
        (31, 1, 0) => {
            if scalar == 0 {
                return None;
            }
            float_lanes::map(core, lanes, to, |x, env| {
                estimate::reciprocal_exponent(bits, x, env)
            });
        }
        (31, 1, _) => {
            vector_only(true)?;
            float_lanes::map(core, lanes, to, |x, env| arithmetic::sqrt(bits, x, env));
        }
        // FRINT32Z, FRINT32X, FRINT64Z, FRINT64X.
        (30 | 31, 0, _) if bits != 16 => {
            vector_only(true)?;
            has(core, Feature::FrintTs)?;
            let mode = if u != 0 {
                current
            } else {
                Rounding::TowardZero
            };
            let within = if opcode == 30 { 32 } else { 64 };
            float_lanes::map(core, lanes, to, |x, env| {
                arithmetic::round_within(bits, x, mode, within, env)
            });
        }
        _ => return None,
    }
    Some(())
}

/// FCVTN, FCVTXN, BFCVTN, FCVTL.
fn resize(
    core: &mut Core,
    (bits, a, u, opcode): (u32, u32, u32, u32),
    (q, scalar): (u32, u32),
    (rd, rn): (u32, u32),
) -> Option<()> {
    let source = v(core, rn);
    let alternative = float::is_alternative(core);
    let wide = Lanes::new(bits, 1, scalar);
    let narrow = Lanes {
        bits: bits / 2,
        ..wide
    };
    let mut env = float::env(core, false);
    if opcode == 23 {
        if a != 0 || u != 0 || scalar != 0 {
            return None;
        }
        let source = source >> (64 * q);
        let result = wide.build(|i| {
            if bits == 32 {
                float::half_input(&mut env);
            }
            let x = narrow.get(source, i);
            arithmetic::convert((bits / 2, bits), x, alternative && bits == 32, &mut env)
        });
        set_v(core, rd, result);
        float::settle(core, &env, false);
        return Some(());
    }
    let result = match (a, u) {
        (0, 0) if scalar == 0 => narrow.build(|i| {
            if bits == 32 {
                float::half_output(&mut env);
            }
            let x = wide.get(source, i);
            arithmetic::convert((bits, bits / 2), x, alternative && bits == 32, &mut env)
        }),
        // BFCVTN.
        (1, 0) if bits == 32 && scalar == 0 => {
            has(core, Feature::Bf16)?;
            narrow.build(|i| bf16::narrowed(wide.get(source, i), &mut env))
        }
        // FCVTXN: to odd.
        (0, 1) if bits == 64 => {
            env.rounding = Rounding::Odd;
            narrow.build(|i| arithmetic::convert((64, 32), wide.get(source, i), false, &mut env))
        }
        _ => return None,
    };
    put_half(core, rd, result, q);
    float::settle(core, &env, false);
    Some(())
}

fn across(
    core: &mut Core,
    (q, u, size): (u32, u32, u32),
    opcode: u32,
    (rd, rn): (u32, u32),
) -> Option<()> {
    let a = v(core, rn);
    if matches!(opcode, 12 | 15) {
        let bits = match (u, size & 1) {
            (0, 0) if core.arch.model.has_fp16() => 16,
            (1, 0) if q != 0 => 32,
            _ => return None,
        };
        let op = match (opcode, size >> 1) {
            (12, 0) => Op::MaxNumber,
            (12, _) => Op::MinNumber,
            (_, 0) => Op::Max,
            _ => Op::Min,
        };
        let lanes = Lanes::new(bits, q, 0);
        let mut env = float::env(core, bits == 16);
        let result = reduce(lanes, a, 0, lanes.count, op, &mut env);
        set_v(core, rd, result.into());
        float::settle(core, &env, bits == 16);
        return Some(());
    }
    if size == 3 || size == 2 && q == 0 {
        return None;
    }
    // shift: below the width of a lane
    let lanes = Lanes::new(8 << size, q, 0);
    let values = (0..lanes.count).map(|i| lanes.wide(a, i, u));
    let (value, bits) = match opcode {
        // shift: below the width of a lane
        3 => (values.sum::<i128>(), 16 << size),
        27 if u == 0 => (values.sum(), lanes.bits),
        10 => (values.max()?, lanes.bits),
        26 => (values.min()?, lanes.bits),
        _ => return None,
    };
    let one = Lanes { bits, count: 1 };
    set_v(core, rd, one.build(|_| value as u64));
    Some(())
}

/// Halves first, as the manual reduces.
fn reduce(
    lanes: Lanes,
    a: u128,
    from: u32,
    count: u32,
    op: Op,
    env: &mut target_softfloat::Env,
) -> u64 {
    if count == 1 {
        return lanes.get(a, from);
    }
    let half = count / 2;
    let low = reduce(lanes, a, from, half, op, env);
    let high = reduce(lanes, a, from + half, half, op, env);
    arithmetic::two(lanes.bits, op, low, high, env)
}

fn pairwise(
    core: &mut Core,
    (u, size): (u32, u32),
    opcode: u32,
    (rd, rn): (u32, u32),
) -> Option<()> {
    let a = v(core, rn);
    if (u, size, opcode) == (0, 3, 27) {
        let sum = (a as u64).wrapping_add((a >> 64) as u64);
        set_v(core, rd, sum.into());
        return Some(());
    }
    let bits = match (u, size & 1) {
        (0, 0) if core.arch.model.has_fp16() => 16,
        (0, _) => return None,
        (_, 0) => 32,
        _ => 64,
    };
    let op = match (opcode, size >> 1) {
        (12, 0) => Op::MaxNumber,
        (12, _) => Op::MinNumber,
        (13, 0) => Op::Add,
        (15, 0) => Op::Max,
        (15, _) => Op::Min,
        _ => return None,
    };
    let lanes = Lanes { bits, count: 2 };
    let mut env = float::env(core, bits == 16);
    let result = reduce(lanes, a, 0, 2, op, &mut env);
    set_v(core, rd, result.into());
    float::settle(core, &env, bits == 16);
    Some(())
}
