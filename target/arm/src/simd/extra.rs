//! Later additions of three operands: dot products, matrices, complex numbers, products of half
//! precision (C4.1.97 "Advanced SIMD three-register extension").

use target_softfloat::{Env, F16, F32, Float};

use super::{Lanes, bf16, has, same, set_v, settle_saturation, v};
use crate::Core;
use crate::a64::simd::Insn;
use crate::float::{self, arithmetic};
use crate::model::Feature;

pub(super) fn execute(core: &mut Core, insn: Insn) -> Option<()> {
    let Insn::ThreeExtra {
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
    match (u, opcode) {
        (1, 0 | 1) if matches!(size, 1 | 2) => {
            has(core, Feature::Rdm)?;
            // shift: below the width of a lane
            let lanes = Lanes::new(8 << size, q, scalar);
            let (a, b, d) = (v(core, rn), v(core, rm), v(core, rd));
            let mut saturated = false;
            let result = lanes.build(|i| {
                let product = i128::from(lanes.signed(a, i)) * i128::from(lanes.signed(b, i)) * 2;
                let product = if opcode == 0 { product } else { -product };
                same::doubling_high(lanes, product, lanes.signed(d, i), true, &mut saturated)
            });
            set_v(core, rd, result);
            settle_saturation(core, saturated);
        }
        _ if scalar != 0 => return None,
        (_, 2) if size == 2 => {
            has(core, Feature::DotProd)?;
            let b = v(core, rm);
            dot(core, q, (u, u), (rd, rn), b);
        }
        (0, 3) if size == 2 => {
            has(core, Feature::I8mm)?;
            let b = v(core, rm);
            dot(core, q, (1, 0), (rd, rn), b);
        }
        (_, 4) | (0, 5) if size == 2 && q != 0 => {
            has(core, Feature::I8mm)?;
            // SMMLA, UMMLA, USMMLA.
            let (left, right) = match (u, opcode) {
                (0, 4) => (0, 0),
                (_, 4) => (1, 1),
                _ => (1, 0),
            };
            let (bytes, words) = (Lanes::new(8, 1, 0), Lanes::new(32, 1, 0));
            let (a, b, d) = (v(core, rn), v(core, rm), v(core, rd));
            let result = words.build(|i| {
                let (row, column) = (i / 2 * 8, i % 2 * 8);
                let sum: i128 = (0..8)
                    .map(|k| bytes.wide(a, row + k, left) * bytes.wide(b, column + k, right))
                    .sum();
                words.get(d, i).wrapping_add(sum as u64)
            });
            set_v(core, rd, result);
        }
        (1, 13) if size == 1 && q != 0 => bf16::matrix(core, (rd, rn, rm))?,
        (1, 15) if size == 1 => {
            let b = v(core, rm);
            bf16::dot(core, q, (rd, rn), b)?;
        }
        (1, 15) if size == 3 => {
            let b = v(core, rm);
            bf16::multiply(core, q, (rd, rn), b)?;
        }
        (1, 8..=11) => {
            let bits = complex_width(core, q, size)?;
            let b = v(core, rm);
            complex_multiply(core, (bits, q), opcode & 3, (rd, rn), b);
        }
        (1, 12 | 14) => {
            let bits = complex_width(core, q, size)?;
            let lanes = Lanes::new(bits, q, 0);
            let (a, b) = (v(core, rn), v(core, rm));
            let mut env = float::env(core, bits == 16);
            // By 90 degrees the real part subtracts; by 270 the imaginary one.
            let negate = if opcode == 12 { 0 } else { 1 };
            let result = lanes.build(|i| {
                let y = lanes.get(b, i ^ 1);
                let y = if i & 1 == negate {
                    arithmetic::negated(bits, y)
                } else {
                    y
                };
                arithmetic::two(bits, arithmetic::Op::Add, lanes.get(a, i), y, &mut env)
            });
            set_v(core, rd, result);
            float::settle(core, &env, bits == 16);
        }
        _ => return None,
    }
    Some(())
}

/// Four products of bytes added to each word.
fn dot(core: &mut Core, q: u32, (left, right): (u32, u32), (rd, rn): (u32, u32), b: u128) {
    let (bytes, words) = (Lanes::new(8, q, 0), Lanes::new(32, q, 0));
    let (a, d) = (v(core, rn), v(core, rd));
    let result = words.build(|i| {
        let sum: i128 = (i * 4..i * 4 + 4)
            .map(|k| bytes.wide(a, k, left) * bytes.wide(b, k, right))
            .sum();
        words.get(d, i).wrapping_add(sum as u64)
    });
    set_v(core, rd, result);
}

pub(super) fn dot_element(
    core: &mut Core,
    (q, u, size, opcode): (u32, u32, u32, u32),
    (rd, rn): (u32, u32),
    (rm, rm_of_halves): (u32, u32),
    (h, l, m): (u32, u32, u32),
) -> Option<()> {
    let words = Lanes::new(32, 1, 0);
    let element = words.get(v(core, rm), h << 1 | l);
    let all = words.build(|_| element);
    let signs = match (opcode, u, size) {
        (14, u, 2) => {
            has(core, Feature::DotProd)?;
            (u, u)
        }
        // USDOT, SUDOT.
        (15, 0, 2) => {
            has(core, Feature::I8mm)?;
            (1, 0)
        }
        (15, 0, 0) => {
            has(core, Feature::I8mm)?;
            (0, 1)
        }
        (15, 0, 1) => return bf16::dot(core, q, (rd, rn), all),
        (15, 0, 3) => {
            let halves = Lanes::new(16, 1, 0);
            let element = halves.get(v(core, rm_of_halves), h << 2 | l << 1 | m);
            return bf16::multiply(core, q, (rd, rn), halves.build(|_| element));
        }
        _ => return None,
    };
    dot(core, q, signs, (rd, rn), all);
    Some(())
}

fn complex_width(core: &Core, q: u32, size: u32) -> Option<u32> {
    has(core, Feature::Fcma)?;
    match size {
        1 if core.arch.model.has_fp16() => Some(16),
        2 => Some(32),
        3 if q != 0 => Some(64),
        _ => None,
    }
}

/// FCMLA, turned by `rotation` times 90 degrees.
fn complex_multiply(
    core: &mut Core,
    (bits, q): (u32, u32),
    rotation: u32,
    (rd, rn): (u32, u32),
    b: u128,
) {
    let lanes = Lanes::new(bits, q, 0);
    let (a, d) = (v(core, rn), v(core, rd));
    let mut env = float::env(core, bits == 16);
    let result = lanes.build(|i| {
        let odd = i & 1;
        let x = lanes.get(a, i & !1 | rotation & 1);
        let y = lanes.get(b, if rotation & 1 == 0 { i } else { i ^ 1 });
        let negate = match rotation {
            0 => false,
            1 => odd == 0,
            2 => true,
            _ => odd == 1,
        };
        let y = if negate {
            arithmetic::negated(bits, y)
        } else {
            y
        };
        arithmetic::mul_add(bits, (x, false), y, lanes.get(d, i), &mut env)
    });
    set_v(core, rd, result);
    float::settle(core, &env, bits == 16);
}

pub(super) fn complex_element(
    core: &mut Core,
    (q, size, rotation): (u32, u32, u32),
    (rd, rn, rm): (u32, u32, u32),
    (h, l): (u32, u32),
) -> Option<()> {
    let bits = complex_width(core, 1, size)?;
    if bits == 64 || bits == 32 && (l != 0 || q == 0) || bits == 16 && q == 0 && h != 0 {
        return None;
    }
    let index = if bits == 16 { h << 1 | l } else { h };
    let lanes = Lanes::new(bits, 1, 0);
    let from = v(core, rm);
    let all = lanes.build(|i| lanes.get(from, index * 2 + (i & 1)));
    complex_multiply(core, (bits, q), rotation, (rd, rn), all);
    Some(())
}

/// FMLAL, FMLSL, and those of the upper half (`second`).
pub(super) fn widening_multiply(
    core: &mut Core,
    (q, scalar, size): (u32, u32, u32),
    second: bool,
    (rd, rn, rm): (u32, u32, u32),
) -> Option<()> {
    if scalar != 0 || size & 1 != 0 {
        return None;
    }
    has(core, Feature::Fhm)?;
    // shift: below the width of a lane
    let b = v(core, rm) >> half_of(q, second);
    widening_multiply_values(core, q, size & 2 != 0, second, (rd, rn), b)
}

/// Where the half precision operands begin.
fn half_of(q: u32, second: bool) -> u32 {
    match (second, q) {
        (false, _) => 0,
        (true, 0) => 32,
        (true, _) => 64,
    }
}

/// As [`widening_multiply`], the second operand given.
pub(super) fn widening_multiply_values(
    core: &mut Core,
    q: u32,
    subtract: bool,
    second: bool,
    (rd, rn): (u32, u32),
    b: u128,
) -> Option<()> {
    let (halves, words) = (Lanes::new(16, q, 0), Lanes::new(32, q, 0));
    // shift: below the width of a lane
    let a = v(core, rn) >> half_of(q, second);
    let d = v(core, rd);
    let flush = float::env(core, true).flush_inputs;
    let mut env = float::env(core, false);
    let result = words.build(|i| {
        let x = widened(halves.get(a, i), flush);
        let y = widened(halves.get(b, i), flush);
        arithmetic::mul_add(32, (x, subtract), y, words.get(d, i), &mut env)
    });
    set_v(core, rd, result);
    float::settle(core, &env, false);
    Some(())
}

/// Half precision in single precision, signalling NaNs as they are.
fn widened(x: u64, flush: bool) -> u64 {
    let half = F16(x as u16);
    if half.is_nan() {
        return (x & 0x8000) << 16 | 0xff << 23 | (x & 0x3ff) << 13;
    }
    if flush && half.is_subnormal() {
        return (x & 0x8000) << 16;
    }
    half.convert::<F32>(&mut Env::arm()).0.into()
}
