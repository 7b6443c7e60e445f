//! Instructions on halfwords and bytes of a register (DDI 0487, F1.4.3 "Parallel addition and
//! subtraction"), as functions.
#![allow(
    clippy::arithmetic_side_effects,
    reason = "lanes of 8 and 16 bits in 32; tests run with overflow checks"
)]

use accel_core::Trap;

use crate::{Core, regs};

/// What the helper is to do: in bits 15 to 8; operands of that below.
const PARALLEL: u64 = 0;
const SATURATE: u64 = 1 << 8;
/// SEL.
pub(super) const SEL: u64 = 2 << 8;
/// USAD8.
pub(super) const USAD8: u64 = 3 << 8;

/// SADD16 and the like, by A32's numbers.
pub(super) fn parallel(prefix: u32, op: u32) -> u64 {
    PARALLEL | u64::from(prefix << 3 | op)
}

/// SSAT16 and USAT16.
pub(super) fn saturate(unsigned: u32, to: u32) -> u64 {
    SATURATE | u64::from(unsigned << 4 | to)
}

fn lane(v: u32, n: u32, bits: u32, signed: bool) -> i32 {
    // shift: within 32 bits
    let up = v << (32 - bits - n * bits);
    if signed {
        up as i32 >> (32 - bits)
    } else {
        (up >> (32 - bits)) as i32
    }
}

fn put(v: &mut u32, n: u32, bits: u32, value: i32) {
    // shift: below the width of a lane
    let mask = (1u32 << bits) - 1;
    // shift: below the width of a lane
    *v |= (value as u32 & mask) << (n * bits);
}

/// Q and GE: what comes out of an operation.
fn run_parallel(core: &mut Core, a: u32, b: u32, how: u32) -> u32 {
    let (prefix, op) = (how >> 3 & 7, how & 7);
    let signed = prefix & 4 == 0;
    let bits = if op & 4 != 0 { 8 } else { 16 };
    let mut result = 0;
    let mut ge = 0;
    for n in 0..32 / bits {
        // ASX and SAX take the other halfword.
        let exchanged = matches!(op, 1 | 2);
        let subtracts = match op {
            0 | 4 => false,
            1 => n == 0,
            2 => n == 1,
            _ => true,
        };
        let x = lane(a, n, bits, signed);
        let y = lane(b, if exchanged { n ^ 1 } else { n }, bits, signed);
        let v = if subtracts { x - y } else { x + y };
        let value = match prefix & 3 {
            1 => {
                let holds = match (signed, subtracts) {
                    (true, _) | (false, true) => v >= 0,
                    // shift: the width of a lane
                    (false, false) => v >= 1 << bits,
                };
                if holds {
                    let lanes = bits / 8;
                    // shift: within four bits
                    ge |= ((1u64 << lanes) - 1) << (n * lanes);
                }
                v
            }
            2 => {
                let (least, most) = match signed {
                    // shift: below the width of a lane
                    true => (-(1 << (bits - 1)), (1 << (bits - 1)) - 1),
                    // shift: below the width of a lane
                    false => (0, (1 << bits) - 1),
                };
                v.clamp(least, most)
            }
            _ => v >> 1,
        };
        put(&mut result, n, bits, value);
    }
    if prefix & 3 == 1 {
        core.regs.set(regs::GE, ge);
    }
    result
}

fn run_saturate(core: &mut Core, a: u32, how: u32) -> u32 {
    let to = how & 15;
    let (least, most) = match how & 16 {
        // shift: at most 15
        0 => (-(1i32 << to), (1i32 << to) - 1),
        // shift: below the width of a lane
        _ => (0, (1i32 << to) - 1),
    };
    let mut result = 0;
    for n in 0..2 {
        let v = lane(a, n, 16, true);
        let clamped = v.clamp(least, most);
        if clamped != v {
            core.regs.set(regs::Q, 1);
        }
        put(&mut result, n, 16, clamped);
    }
    result
}

/// (operand, operand, what): the result.
pub(crate) fn run(core: &mut Core, [a, b, how, ..]: [u64; 4]) -> Result<u64, Trap> {
    let (a, b) = (a as u32, b as u32);
    let value = match how & 0xff00 {
        PARALLEL => run_parallel(core, a, b, how as u32),
        SATURATE => run_saturate(core, a, how as u32),
        SEL => {
            let ge = core.regs.get(regs::GE);
            let mut result = 0;
            for n in 0..4 {
                let from = if ge.wrapping_shr(n) & 1 != 0 { a } else { b };
                put(&mut result, n, 8, lane(from, n, 8, false));
            }
            result
        }
        _ => (0..4)
            .map(|n| lane(a, n, 8, false).abs_diff(lane(b, n, 8, false)))
            .sum(),
    };
    Ok(value.into())
}
