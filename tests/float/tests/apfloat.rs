//! binary16, binary128 and the operations without a host instruction, against LLVM's APFloat.
//!
//! APFloat takes no part in the choice of NaNs, so any NaN equals any other here.

use core::cmp::Ordering;
use core::fmt::Debug;

use rustc_apfloat::ieee::{Double, Half, Quad, Single};
use rustc_apfloat::{Float as _, FloatConvert, Round, Status, StatusAnd};
use target_softfloat::{Env, F16, F32, F64, F128, Flags, Float, MulAdd, Rounding};
use test_float::operands::{Rng, edges};

const RANDOM: usize = 20_000;

const MODES: [(Rounding, Round); 5] = [
    (Rounding::NearestEven, Round::NearestTiesToEven),
    (Rounding::NearestAway, Round::NearestTiesToAway),
    (Rounding::TowardZero, Round::TowardZero),
    (Rounding::Up, Round::TowardPositive),
    (Rounding::Down, Round::TowardNegative),
];

/// A format under both implementations.
trait Both: Float {
    type Oracle: rustc_apfloat::Float;
    const FRACTION: u32;
    fn oracle(self) -> Self::Oracle;
    fn ours(oracle: Self::Oracle) -> Self;
    fn random(rng: &mut Rng) -> Self;
    fn edges() -> Vec<Self>;
    fn next_up(self) -> Self;
}

macro_rules! both {
    ($($name:ident, $bits:ty, $oracle:ty, $exponent:literal, $fraction:literal, |$rng:ident| $random:expr, $edges:expr;)*) => {$(
        impl Both for $name {
            type Oracle = $oracle;
            const FRACTION: u32 = $fraction;
            fn oracle(self) -> $oracle {
                <$oracle>::from_bits(self.0.into())
            }
            fn ours(oracle: $oracle) -> Self {
                Self(oracle.to_bits() as $bits)
            }
            fn random($rng: &mut Rng) -> Self {
                Self($random as $bits)
            }
            fn edges() -> Vec<Self> {
                $edges.into_iter().map(|v| Self(v as $bits)).collect()
            }
            fn next_up(self) -> Self {
                Self(self.0 + 1)
            }
        }
    )*};
}
both! {
    F16, u16, Half, 5, 10, |rng| rng.float(5, 10), edges(5, 10);
    F32, u32, Single, 8, 23, |rng| rng.f32(), edges(8, 23);
    F64, u64, Double, 11, 52, |rng| rng.f64(), edges(11, 52);
    F128, u128, Quad, 15, 112, |rng| wide(rng.float(15, 48), rng), edges(15, 48).into_iter().map(widened);
}

/// A binary128 from its top 64 bits, the rest random, sparse or the last bits repeated.
fn wide(top: u64, rng: &mut Rng) -> u128 {
    match rng.below(3) {
        0 => widened(top),
        1 => u128::from(top) << 64 | u128::from(rng.bits()),
        _ => u128::from(top) << 64 | 1 << rng.below(64),
    }
}

/// Stretches a fraction, so that ones stay ones to the end and a lowest bit stays the lowest.
fn widened(top: u64) -> u128 {
    let last = top & 1;
    if top & 3 == 3 {
        return u128::from(top) << 64 | u128::from(u64::MAX);
    }
    u128::from(top & !1) << 64 | u128::from(last)
}

fn flags(status: Status) -> Flags {
    let mut flags = Flags::NONE;
    for (bit, flag) in [
        (Status::INVALID_OP, Flags::INVALID),
        (Status::DIV_BY_ZERO, Flags::DIV_BY_ZERO),
        (Status::OVERFLOW, Flags::OVERFLOW),
        (Status::UNDERFLOW, Flags::UNDERFLOW),
        (Status::INEXACT, Flags::INEXACT),
    ] {
        if status.contains(bit) {
            flags |= flag;
        }
    }
    flags
}

fn same<F: Both>(what: &dyn Debug, got: F, env: &Env, want: StatusAnd<F::Oracle>) {
    let expected = F::ours(want.value);
    let value_is_right = got == expected || (got.is_nan() && expected.is_nan());
    let mut relevant = Flags::X86 & !Flags::DENORMAL;
    // APFloat calls a result tiny by its final form; the standard looks at it with an unbounded exponent.
    let smallest = F::ours(F::Oracle::smallest_normalized());
    if got.abs() == smallest {
        relevant = relevant & !Flags::UNDERFLOW;
    }
    // And it raises no overflow for a result that directed rounding keeps finite.
    if got.abs() == F::ours(F::Oracle::largest()) {
        relevant = relevant & !Flags::OVERFLOW;
    }
    assert!(
        value_is_right && env.flags & relevant == flags(want.status) & relevant,
        "{what:x?}: got {got:x?} {:?}, want {expected:x?} {:?}",
        env.flags,
        want.status
    );
}

fn pairs<F: Both>() -> Vec<(F, F)> {
    let mut rng = Rng::new(31);
    let edges = F::edges();
    let mut all: Vec<_> = edges
        .iter()
        .flat_map(|&a| edges.iter().map(move |&b| (a, b)))
        .collect();
    all.extend((0..RANDOM).map(|_| (F::random(&mut rng), F::random(&mut rng))));
    all
}

fn arithmetic<F: Both>() {
    for (rounding, round) in MODES {
        for (a, b) in pairs::<F>() {
            let (x, y) = (a.oracle(), b.oracle());
            let new = Env {
                rounding,
                ..Env::sse()
            };
            let mut env = new;
            same(
                &("add", a, b, rounding),
                a.add(b, &mut env),
                &env,
                x.add_r(y, round),
            );
            env = new;
            same(
                &("sub", a, b, rounding),
                a.sub(b, &mut env),
                &env,
                x.sub_r(y, round),
            );
            env = new;
            same(
                &("mul", a, b, rounding),
                a.mul(b, &mut env),
                &env,
                x.mul_r(y, round),
            );
            env = new;
            same(
                &("div", a, b, rounding),
                a.div(b, &mut env),
                &env,
                x.div_r(y, round),
            );
        }
    }
}

#[test]
fn half_arithmetic_is_right() {
    arithmetic::<F16>();
}

#[test]
fn quad_arithmetic_is_right() {
    arithmetic::<F128>();
}

fn fused<F: Both>() {
    let mut rng = Rng::new(32);
    for (rounding, round) in MODES {
        for (a, b) in pairs::<F>() {
            let near = a.mul(
                b,
                &mut Env {
                    rounding,
                    ..Env::sse()
                },
            );
            let c = match rng.below(3) {
                0 => near.neg(),
                1 => near.next_up_or_same().neg(),
                _ => F::random(&mut rng),
            };
            // APFloat finds an invalid product before it looks for a NaN.
            if a.is_nan() || b.is_nan() || c.is_nan() {
                continue;
            }
            let mut env = Env {
                rounding,
                ..Env::sse()
            };
            let got = a.mul_add(b, c, MulAdd::Add, &mut env);
            let want = a.oracle().mul_add_r(b.oracle(), c.oracle(), round);
            same(&("fma", a, b, c, rounding), got, &env, want);
        }
    }
}

trait NextUpOrSame: Both {
    fn next_up_or_same(self) -> Self {
        if self.is_nan() || self.is_infinite() {
            self
        } else {
            self.next_up()
        }
    }
}
impl<F: Both> NextUpOrSame for F {}

#[test]
fn half_fused_multiply_add_is_right() {
    fused::<F16>();
}

#[test]
fn quad_fused_multiply_add_is_right() {
    fused::<F128>();
}

/// Checks by squaring: the root toward zero is the last number whose square is not above the operand.
fn root<F: Both>() {
    let mut rng = Rng::new(33);
    let randoms: Vec<F> = (0..RANDOM).map(|_| F::random(&mut rng)).collect();
    for a in F::edges().into_iter().chain(randoms) {
        let a = a.abs();
        if a.is_nan() || a.is_infinite() || a.is_zero() {
            continue;
        }
        let x = a.oracle();
        let mut env = Env {
            rounding: Rounding::TowardZero,
            ..Env::sse()
        };
        let r = a.sqrt(&mut env);
        let square = r.oracle().mul_r(r.oracle(), Round::TowardPositive);
        let above = r
            .next_up()
            .oracle()
            .mul_r(r.next_up().oracle(), Round::TowardZero);
        // Squares of roots of subnormal numbers may be rounded too coarsely to tell.
        if a.is_subnormal() {
            continue;
        }
        assert!(square.value <= x, "sqrt {a:x?}: {r:x?} is too large");
        let reaches =
            above.value > x || (above.value == x && above.status.contains(Status::INEXACT));
        assert!(reaches, "sqrt {a:x?}: {r:x?} is too small");
        let exact = square.value == x && square.status == Status::OK;
        assert_eq!(env.flags.has(Flags::INEXACT), !exact, "sqrt {a:x?}");
        let mut env = Env {
            rounding: Rounding::Up,
            ..Env::sse()
        };
        assert_eq!(a.sqrt(&mut env), if exact { r } else { r.next_up() });
    }
}

#[test]
fn square_roots_are_right() {
    root::<F16>();
    root::<F128>();
}

fn converts<F: Both, G: Both>()
where
    F::Oracle: FloatConvert<G::Oracle>,
{
    let mut rng = Rng::new(34);
    let randoms: Vec<F> = (0..RANDOM).map(|_| F::random(&mut rng)).collect();
    for a in F::edges().into_iter().chain(randoms) {
        for (rounding, round) in MODES {
            let mut env = Env {
                rounding,
                ..Env::sse()
            };
            let got: G = a.convert(&mut env);
            let want = a.oracle().convert_r(round, &mut false);
            same(&("convert", a, G::FRACTION, rounding), got, &env, want);
        }
    }
}

#[test]
fn conversions_between_formats_are_right() {
    converts::<F128, F64>();
    converts::<F128, F32>();
    converts::<F128, F16>();
    converts::<F64, F16>();
    converts::<F64, F128>();
    converts::<F16, F128>();
    converts::<F32, F128>();
}

fn integral<F: Both>() {
    let mut rng = Rng::new(35);
    let randoms: Vec<F> = (0..RANDOM).map(|_| F::random(&mut rng)).collect();
    for a in F::edges().into_iter().chain(randoms) {
        for (rounding, round) in MODES {
            let mut env = Env {
                rounding,
                ..Env::sse()
            };
            let got = a.round_to_integral(rounding, true, &mut env);
            same(
                &("round", a, rounding),
                got,
                &env,
                a.oracle().round_to_integral(round),
            );
        }
    }
}

#[test]
fn rounding_to_integral_is_right() {
    integral::<F16>();
    integral::<F64>();
    integral::<F128>();
}

fn remainders<F: Both>() {
    for (a, b) in pairs::<F>() {
        let mut env = Env::sse();
        let near = a.rem(b, Rounding::NearestEven, &mut env);
        same(
            &("ieee_rem", a, b),
            near.value,
            &env,
            a.oracle().ieee_rem(b.oracle()),
        );
        let mut env = Env::sse();
        let cut = a.rem(b, Rounding::TowardZero, &mut env);
        same(
            &("fmod", a, b),
            cut.value,
            &env,
            a.oracle().c_fmod(b.oracle()),
        );
    }
}

#[test]
fn remainders_are_right() {
    remainders::<F16>();
    remainders::<F64>();
}

#[test]
fn comparisons_are_right() {
    for (a, b) in pairs::<F128>() {
        let want = a.oracle().partial_cmp(&b.oracle());
        assert_eq!(a.compare_quiet(b, &mut Env::sse()), want, "{a:x?} {b:x?}");
        assert_eq!(
            b.compare_quiet(a, &mut Env::sse()),
            want.map(Ordering::reverse),
            "{b:x?} {a:x?}"
        );
    }
}

#[test]
fn integers_go_in_and_out() {
    let mut rng = Rng::new(36);
    for n in 0..RANDOM {
        let value = rng.bits() >> (n % 64);
        for (rounding, round) in MODES {
            let mut env = Env {
                rounding,
                ..Env::sse()
            };
            let half = F16::from_u64(value, &mut env);
            same(
                &("from_u64", value, rounding),
                half,
                &env,
                Half::from_u128_r(value.into(), round),
            );
            let mut env = Env {
                rounding,
                ..Env::sse()
            };
            let signed = F32::from_i64(value as i64, &mut env);
            let want = Single::from_i128_r((value as i64).into(), round);
            same(&("from_i64", value, rounding), signed, &env, want);
            let quad = F128::from_u64(value, &mut env);
            let back: u64 = quad.to_int(rounding, target_softfloat::IntOverflow::X86, &mut env);
            assert_eq!(back, value);
        }
    }
}
