//! Operations with one lane of the second operand (C4.1.97 "Advanced SIMD vector x indexed element").

use super::{Lanes, extra, float_lanes, has, same, set_v, settle_saturation, v, wide};
use crate::Core;
use crate::a64::simd::Insn;
use crate::model::Feature;

pub(super) fn execute(core: &mut Core, insn: Insn) -> Option<()> {
    let Insn::ByElement {
        q,
        u,
        size,
        l,
        m,
        rm,
        opcode,
        h,
        rn,
        rd,
        scalar,
    } = insn
    else {
        return None;
    };
    let full = rm | m << 4;
    // Register and index by the width of a lane.
    let select = |size: u32| match size {
        1 => (rm, h << 2 | l << 1 | m),
        2 => (full, h << 1 | l),
        _ => (full, h),
    };
    let shape = (q, scalar);
    match (u, opcode) {
        // FMLA, FMLS, FMUL, FMULX.
        (0, 1 | 5 | 9) | (1, 9) => {
            let half = size == 0;
            if half && !core.arch.model.has_fp16() || size == 1 {
                return None;
            }
            // shift: below the width of a lane
            let bits: u32 = if half { 16 } else { 16 << (size - 1) };
            if bits == 64 && (l != 0 || q == 0 && scalar == 0) {
                return None;
            }
            let (rm, index) = select(bits.trailing_zeros() - 3);
            let how = match (u, opcode) {
                (0, 1) => (1, 0, 0),
                (0, 5) => (1, 0, 1),
                (0, _) => (3, 1, 0),
                _ => (3, 0, 0),
            };
            let element = Lanes::new(bits, 1, 0).get(v(core, rm), index);
            let lanes = Lanes::new(bits, q, scalar);
            let all = lanes.build(|_| element);
            let (op, u, other) = how;
            let how = float_lanes::Same { bits, op, u, other };
            return float_lanes::same_values(core, how, shape, (rd, rn), all);
        }
        // FMLAL, FMLSL, FMLAL2, FMLSL2.
        (0, 0 | 4) | (1, 8 | 12) if size == 2 && scalar == 0 => {
            has(core, Feature::Fhm)?;
            let index = h << 2 | l << 1 | m;
            let element = Lanes::new(16, 1, 0).get(v(core, rm), index);
            let all = Lanes::new(16, 1, 0).build(|_| element);
            let second = u != 0;
            let subtract = opcode & 4 != 0;
            return extra::widening_multiply_values(core, q, subtract, second, (rd, rn), all);
        }
        // SDOT, UDOT, USDOT, SUDOT, BFDOT, BFMLAL; FCMLA.
        (_, 14) | (0, 15) if scalar == 0 => {
            return extra::dot_element(core, (q, u, size, opcode), (rd, rn), (full, rm), (h, l, m));
        }
        (1, 1 | 3 | 5 | 7) if scalar == 0 => {
            return extra::complex_element(core, (q, size, opcode >> 1), (rd, rn, full), (h, l));
        }
        _ => {}
    }
    if !matches!(size, 1 | 2) {
        return None;
    }
    let (rm, index) = select(size);
    // shift: below the width of a lane
    let bits = 8 << size;
    let element = Lanes::new(bits, 1, 0).get(v(core, rm), index);
    let (a, d) = (v(core, rn), v(core, rd));
    let mut saturated = false;
    let long = matches!(opcode, 2 | 3 | 6 | 7 | 10 | 11);
    let result = if long {
        let narrow = Lanes::new(bits, 0, scalar);
        let to = Lanes {
            bits: bits * 2,
            ..narrow
        };
        let doubling = matches!(opcode, 3 | 7 | 11);
        if doubling && u != 0 || scalar != 0 && !doubling {
            return None;
        }
        let a = a >> (64 * q);
        let y = match u {
            0 => super::sext(element, bits).into(),
            _ => i128::from(element),
        };
        to.build(|i| {
            let product = narrow.wide(a, i, u) * y;
            match opcode {
                2 => to.get(d, i).wrapping_add(product as u64),
                6 => to.get(d, i).wrapping_sub(product as u64),
                10 => product as u64,
                3 => wide::doubled(to, 9, to.signed(d, i), product, &mut saturated),
                7 => wide::doubled(to, 11, to.signed(d, i), product, &mut saturated),
                _ => wide::doubled(to, 13, 0, product, &mut saturated),
            }
        })
    } else {
        let lanes = Lanes::new(bits, q, scalar);
        let product = |i| i128::from(lanes.signed(a, i)) * i128::from(super::sext(element, bits));
        match (u, opcode) {
            (0, 8) if scalar == 0 => lanes.build(|i| product(i) as u64),
            (1, 0) if scalar == 0 => {
                lanes.build(|i| lanes.get(d, i).wrapping_add(product(i) as u64))
            }
            (1, 4) if scalar == 0 => {
                lanes.build(|i| lanes.get(d, i).wrapping_sub(product(i) as u64))
            }
            (0, 12 | 13) => lanes.build(|i| {
                same::doubling_high(lanes, product(i) * 2, 0, opcode == 13, &mut saturated)
            }),
            (1, 13 | 15) => {
                has(core, Feature::Rdm)?;
                lanes.build(|i| {
                    let product = product(i) * 2;
                    let product = if opcode == 13 { product } else { -product };
                    same::doubling_high(lanes, product, lanes.signed(d, i), true, &mut saturated)
                })
            }
            _ => return None,
        }
    };
    set_v(core, rd, result);
    settle_saturation(core, saturated);
    Some(())
}
