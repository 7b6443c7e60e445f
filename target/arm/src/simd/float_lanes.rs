//! Floating point in lanes.

use super::{Lanes, set_v, v};
use crate::float::{self, arithmetic};
use crate::{Core, float::arithmetic::Op};

/// Which operation of "three same": the low bits of its opcode, U, and the bit that chooses between
/// two (`a`, or the upper bit of `size`).
#[derive(Clone, Copy, Debug)]
pub(super) struct Same {
    pub(super) bits: u32,
    pub(super) op: u32,
    pub(super) u: u32,
    pub(super) other: u32,
}

pub(super) fn same(
    core: &mut Core,
    how: Same,
    (q, scalar): (u32, u32),
    (rd, rn, rm): (u32, u32, u32),
) -> Option<()> {
    let scalar_there = matches!(
        (how.op, how.u, how.other),
        (2, 1, 1) | (3, 0, 0) | (4, ..) | (5, 1, _) | (7, 0, _)
    );
    if scalar != 0 && !scalar_there {
        return None;
    }
    let b = v(core, rm);
    let pairwise = matches!((how.op, how.u, how.other), (0 | 6, 1, _) | (2, 1, 0));
    if pairwise {
        let op = operation(how)?;
        let lanes = Lanes::new(how.bits, q, scalar);
        let a = v(core, rn);
        let mut env = float::env(core, how.bits == 16);
        let half = lanes.count / 2;
        let result = lanes.build(|i| {
            let (from, at) = if i < half {
                (a, i * 2)
            } else {
                (b, (i - half) * 2)
            };
            let (x, y) = (lanes.get(from, at), lanes.get(from, at + 1));
            arithmetic::two(lanes.bits, op, x, y, &mut env)
        });
        set_v(core, rd, result);
        float::settle(core, &env, how.bits == 16);
        return Some(());
    }
    same_values(core, how, (q, scalar), (rd, rn), b)
}

fn operation(how: Same) -> Option<Op> {
    Some(match (how.op, how.u, how.other) {
        (0, _, 0) => Op::MaxNumber,
        (0, ..) => Op::MinNumber,
        (2, _, 0) => Op::Add,
        (2, 0, _) => Op::Sub,
        (2, ..) => Op::Difference,
        (3, 0, 0) => Op::MulExtended,
        (3, 1, 0) => Op::Mul,
        (4, 0, 0) => Op::Equal,
        (4, 1, 0) => Op::GreaterEqual,
        (4, 1, _) => Op::Greater,
        (5, 1, 0) => Op::AbsoluteGreaterEqual,
        (5, 1, _) => Op::AbsoluteGreater,
        (6, _, 0) => Op::Max,
        (6, ..) => Op::Min,
        (7, 0, 0) => Op::ReciprocalStep,
        (7, 0, _) => Op::RootStep,
        (7, 1, 0) => Op::Div,
        _ => return None,
    })
}

pub(super) fn same_values(
    core: &mut Core,
    how: Same,
    (q, scalar): (u32, u32),
    (rd, rn): (u32, u32),
    b: u128,
) -> Option<()> {
    let lanes = Lanes::new(how.bits, q, scalar);
    let (a, d) = (v(core, rn), v(core, rd));
    let half = how.bits == 16;
    let mut env = float::env(core, half);
    let result = if how.op == 1 && how.u == 0 {
        lanes.build(|i| {
            let negate = how.other != 0;
            let (x, y) = (lanes.get(a, i), lanes.get(b, i));
            arithmetic::mul_add(lanes.bits, (x, negate), y, lanes.get(d, i), &mut env)
        })
    } else {
        let op = operation(how)?;
        lanes.build(|i| arithmetic::two(lanes.bits, op, lanes.get(a, i), lanes.get(b, i), &mut env))
    };
    set_v(core, rd, result);
    float::settle(core, &env, half);
    Some(())
}

/// SCVTF, UCVTF, FCVTZS, FCVTZU of fixed-point numbers.
pub(super) fn fixed(
    core: &mut Core,
    (bits, fraction): (u32, u32),
    u: u32,
    to_int: bool,
    (q, scalar): (u32, u32),
    (rd, rn): (u32, u32),
) -> Option<()> {
    let lanes = Lanes::new(bits, q, scalar);
    let a = v(core, rn);
    let half = bits == 16;
    let mut env = float::env(core, half);
    let result = lanes.build(|i| {
        let value = lanes.get(a, i);
        if to_int {
            let rounding = target_softfloat::Rounding::TowardZero;
            arithmetic::to_int((bits, bits), u != 0, fraction, rounding, value, &mut env)
        } else {
            arithmetic::from_int((bits, bits), u != 0, fraction, value, &mut env)
        }
    });
    set_v(core, rd, result);
    float::settle(core, &env, half);
    Some(())
}

/// One operation on each lane.
pub(super) fn map(
    core: &mut Core,
    lanes: Lanes,
    (rd, rn): (u32, u32),
    mut f: impl FnMut(u64, &mut target_softfloat::Env) -> u64,
) {
    let a = v(core, rn);
    let half = lanes.bits == 16;
    let mut env = float::env(core, half);
    let result = lanes.build(|i| f(lanes.get(a, i), &mut env));
    set_v(core, rd, result);
    float::settle(core, &env, half);
}
