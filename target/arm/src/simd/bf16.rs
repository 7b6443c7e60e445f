//! Brain floating point, FEAT_BF16 without FEAT_EBF16 (DDI 0487, C7.2 "BFDOT", "BFMMLA", "BFMLALB"; J1.1
//! shared/functions/float, `BFDotAdd`, `FPConvertBF`).

use target_softfloat::{Bf16, Env, F32, Flags, Float, FlushOutputs, MulAdd, Rounding};

use super::{Lanes, has, set_v, v};
use crate::Core;
use crate::float;
use crate::model::Feature;

/// A number in single precision, of which it is the upper half.
fn widened(x: u64) -> F32 {
    F32((x as u32) << 16)
}

/// Single precision in brain floating point.
pub(crate) fn narrowed(x: u64, env: &mut Env) -> u64 {
    F32(x as u32).convert::<Bf16>(env).0.into()
}

/// `BFMul` and `BFAdd`: to odd but for infinities, flushed, and without a trace in FPSR, whatever FPCR says.
fn to_odd(compute: impl FnOnce(&mut Env) -> F32) -> F32 {
    let mut env = Env {
        rounding: Rounding::Odd,
        default_nan: true,
        flush_inputs: true,
        flush_outputs: FlushOutputs::Arm,
        ..Env::arm()
    };
    let value = compute(&mut env);
    match env.flags.has(Flags::OVERFLOW) {
        true => F32(value.0 & 1 << 31 | 0xff << 23),
        false => value,
    }
}

/// `BFDotAdd`: the products of two pairs, from lane `x` and `y` on, added to each other and to a sum.
fn dot_add(sum: u64, (a, x): (u128, u32), (b, y): (u128, u32)) -> u64 {
    let halves = Lanes::new(16, 1, 0);
    let product = |i| {
        let (a, b) = (halves.get(a, x + i), halves.get(b, y + i));
        to_odd(|env| widened(a).mul(widened(b), env))
    };
    let (first, second) = (product(0), product(1));
    let both = to_odd(|env| first.add(second, env));
    to_odd(|env| F32(sum as u32).add(both, env)).0.into()
}

/// BFDOT.
pub(super) fn dot(core: &mut Core, q: u32, (rd, rn): (u32, u32), b: u128) -> Option<()> {
    has(core, Feature::Bf16)?;
    let words = Lanes::new(32, q, 0);
    let (a, d) = (v(core, rn), v(core, rd));
    let result = words.build(|i| dot_add(words.get(d, i), (a, 2 * i), (b, 2 * i)));
    set_v(core, rd, result);
    Some(())
}

/// BFMMLA: matrices of two by four, and of two by two.
pub(super) fn matrix(core: &mut Core, (rd, rn, rm): (u32, u32, u32)) -> Option<()> {
    has(core, Feature::Bf16)?;
    let words = Lanes::new(32, 1, 0);
    let (a, b, d) = (v(core, rn), v(core, rm), v(core, rd));
    let result = words.build(|i| {
        let (row, column) = (i / 2 * 4, i % 2 * 4);
        let first = dot_add(words.get(d, i), (a, row), (b, column));
        dot_add(first, (a, row + 2), (b, column + 2))
    });
    set_v(core, rd, result);
    Some(())
}

/// BFMLALB, and BFMLALT of the odd lanes: `b` has the second operands where the first are.
pub(super) fn multiply(core: &mut Core, top: u32, (rd, rn): (u32, u32), b: u128) -> Option<()> {
    has(core, Feature::Bf16)?;
    let (halves, words) = (Lanes::new(16, 1, 0), Lanes::new(32, 1, 0));
    let (a, d) = (v(core, rn), v(core, rd));
    let mut env = float::env(core, false);
    let result = words.build(|i| {
        let [x, y] = [a, b].map(|from| widened(halves.get(from, 2 * i + top)));
        let sum = F32(words.get(d, i) as u32);
        x.mul_add(y, sum, MulAdd::Add, &mut env).0.into()
    });
    set_v(core, rd, result);
    float::settle(core, &env, false);
    Some(())
}
