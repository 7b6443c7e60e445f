//! binary32 and binary64 under SSE's rules, against the host's processor: results and flags.
#![cfg(target_arch = "x86_64")]

use core::cmp::Ordering;

use target_softfloat::{Env, F16, F32, F64, Float, IntOverflow, MinMax, MulAdd, Rounding};
use test_float::operands::{Rng, edges};
use test_float::sse;

const RANDOM: usize = 60_000;

/// All exceptions masked, every rounding mode, DAZ and FTZ in turn.
fn modes() -> impl Iterator<Item = u32> {
    (0..16).map(|m| 0x1f80 | (m & 3) << 13 | (m >> 2 & 1) << 6 | (m >> 3 & 1) << 15)
}

fn doubles() -> Vec<u64> {
    edges(11, 52)
}

fn singles() -> Vec<u32> {
    edges(8, 23).into_iter().map(|v| v as u32).collect()
}

fn pairs64() -> Vec<(u64, u64)> {
    let mut rng = Rng::new(1);
    let edges = doubles();
    let mut all: Vec<_> = edges
        .iter()
        .flat_map(|&a| edges.iter().map(move |&b| (a, b)))
        .collect();
    all.extend((0..RANDOM).map(|_| (rng.f64(), rng.f64())));
    all
}

fn pairs32() -> Vec<(u32, u32)> {
    let mut rng = Rng::new(2);
    let edges = singles();
    let mut all: Vec<_> = edges
        .iter()
        .flat_map(|&a| edges.iter().map(move |&b| (a, b)))
        .collect();
    all.extend((0..RANDOM).map(|_| (rng.f32(), rng.f32())));
    all
}

fn check64(
    name: &str,
    ours: impl Fn(F64, F64, &mut Env) -> F64,
    host: impl Fn(u64, u64, u32) -> (u64, u8),
) {
    let pairs = pairs64();
    for mxcsr in modes() {
        for &(a, b) in &pairs {
            let mut env = Env::from_mxcsr(mxcsr);
            let got = ours(F64(a), F64(b), &mut env).0;
            let want = host(a, b, mxcsr);
            assert_eq!(
                (got, env.flags.x86_bits()),
                want,
                "{name} {a:#018x} {b:#018x} mxcsr {mxcsr:#x}: got {got:#018x}, want {:#018x}",
                want.0
            );
        }
    }
}

fn check32(
    name: &str,
    ours: impl Fn(F32, F32, &mut Env) -> F32,
    host: impl Fn(u32, u32, u32) -> (u32, u8),
) {
    let pairs = pairs32();
    for mxcsr in modes() {
        for &(a, b) in &pairs {
            let mut env = Env::from_mxcsr(mxcsr);
            let got = ours(F32(a), F32(b), &mut env).0;
            let want = host(a, b, mxcsr);
            assert_eq!(
                (got, env.flags.x86_bits()),
                want,
                "{name} {a:#010x} {b:#010x} mxcsr {mxcsr:#x}: got {got:#010x}, want {:#010x}",
                want.0
            );
        }
    }
}

/// For instructions with one operand, in and out as plain bits.
fn check_one<A: Copy + core::fmt::LowerHex, R: PartialEq + core::fmt::Debug>(
    name: &str,
    operands: &[A],
    ours: impl Fn(A, &mut Env) -> R,
    host: impl Fn(A, u32) -> (R, u8),
) {
    for mxcsr in modes() {
        for &a in operands {
            let mut env = Env::from_mxcsr(mxcsr);
            let got = (ours(a, &mut env), env.flags.x86_bits());
            assert_eq!(got, host(a, mxcsr), "{name} {a:#x} mxcsr {mxcsr:#x}");
        }
    }
}

fn ones64() -> Vec<u64> {
    let mut rng = Rng::new(3);
    doubles()
        .into_iter()
        .chain((0..RANDOM).map(|_| rng.f64()))
        .collect()
}

fn ones32() -> Vec<u32> {
    let mut rng = Rng::new(4);
    singles()
        .into_iter()
        .chain((0..RANDOM).map(|_| rng.f32()))
        .collect()
}

#[test]
fn double_arithmetic_is_the_hosts() {
    check64("addsd", |a, b, e| a.add(b, e), sse::addsd);
    check64("subsd", |a, b, e| a.sub(b, e), sse::subsd);
    check64("mulsd", |a, b, e| a.mul(b, e), sse::mulsd);
    check64("divsd", |a, b, e| a.div(b, e), sse::divsd);
}

#[test]
fn single_arithmetic_is_the_hosts() {
    check32("addss", |a, b, e| a.add(b, e), sse::addss);
    check32("subss", |a, b, e| a.sub(b, e), sse::subss);
    check32("mulss", |a, b, e| a.mul(b, e), sse::mulss);
    check32("divss", |a, b, e| a.div(b, e), sse::divss);
}

#[test]
fn square_roots_are_the_hosts() {
    check_one("sqrtsd", &ones64(), |a, e| F64(a).sqrt(e).0, sse::sqrtsd);
    check_one("sqrtss", &ones32(), |a, e| F32(a).sqrt(e).0, sse::sqrtss);
}

#[test]
fn minimum_and_maximum_are_the_hosts() {
    check64("minsd", |a, b, e| a.min(b, MinMax::Sse, e), sse::minsd);
    check64("maxsd", |a, b, e| a.max(b, MinMax::Sse, e), sse::maxsd);
    check32("minss", |a, b, e| a.min(b, MinMax::Sse, e), sse::minss);
    check32("maxss", |a, b, e| a.max(b, MinMax::Sse, e), sse::maxss);
}

#[test]
fn conversions_between_formats_are_the_hosts() {
    check_one(
        "cvtsd2ss",
        &ones64(),
        |a, e| F64(a).convert::<F32>(e).0,
        sse::cvtsd2ss,
    );
    check_one(
        "cvtss2sd",
        &ones32(),
        |a, e| F32(a).convert::<F64>(e).0,
        sse::cvtss2sd,
    );
}

#[test]
fn conversions_to_integers_are_the_hosts() {
    let x86 = IntOverflow::X86;
    let (doubles, singles) = (ones64(), ones32());
    let zero = Rounding::TowardZero;
    check_one(
        "cvtsd2si",
        &doubles,
        |a, e| F64(a).to_int::<i32>(e.rounding, x86, e) as u32,
        sse::cvtsd2si32,
    );
    check_one(
        "cvtsd2si",
        &doubles,
        |a, e| F64(a).to_int::<i64>(e.rounding, x86, e) as u64,
        sse::cvtsd2si64,
    );
    check_one(
        "cvttsd2si",
        &doubles,
        |a, e| F64(a).to_int::<i32>(zero, x86, e) as u32,
        sse::cvttsd2si32,
    );
    check_one(
        "cvttsd2si",
        &doubles,
        |a, e| F64(a).to_int::<i64>(zero, x86, e) as u64,
        sse::cvttsd2si64,
    );
    check_one(
        "cvtss2si",
        &singles,
        |a, e| F32(a).to_int::<i32>(e.rounding, x86, e) as u32,
        sse::cvtss2si32,
    );
    check_one(
        "cvtss2si",
        &singles,
        |a, e| F32(a).to_int::<i64>(e.rounding, x86, e) as u64,
        sse::cvtss2si64,
    );
}

#[test]
fn conversions_from_integers_are_the_hosts() {
    let mut rng = Rng::new(5);
    let wide: Vec<u64> = (0..RANDOM)
        .map(|n| rng.bits() >> (n % 64))
        .chain([0, 1, u64::MAX, 1 << 63])
        .collect();
    let narrow: Vec<u32> = wide
        .iter()
        .map(|&v| v as u32)
        .chain([0, u32::MAX, 1 << 31])
        .collect();
    let s32 = |v: u32| i64::from(v as i32);
    check_one(
        "cvtsi2sd",
        &narrow,
        |a, e| F64::from_i64(s32(a), e).0,
        sse::cvtsi2sd32,
    );
    check_one(
        "cvtsi2sd",
        &wide,
        |a, e| F64::from_i64(a as i64, e).0,
        sse::cvtsi2sd64,
    );
    check_one(
        "cvtsi2ss",
        &narrow,
        |a, e| F32::from_i64(s32(a), e).0,
        sse::cvtsi2ss32,
    );
    check_one(
        "cvtsi2ss",
        &wide,
        |a, e| F32::from_i64(a as i64, e).0,
        sse::cvtsi2ss64,
    );
}

#[test]
fn rounding_to_integral_is_the_hosts() {
    if sse::roundsd(0, 0x1f80).is_none() {
        eprintln!("SKIPPED: this host has no SSE4.1");
        return;
    }
    let (doubles, singles) = (ones64(), ones32());
    let host64 = |a, m| sse::roundsd(a, m).unwrap();
    let quiet64 = |a, m| sse::roundsd_quiet(a, m).unwrap();
    let host32 = |a, m| sse::roundss(a, m).unwrap();
    check_one(
        "roundsd",
        &doubles,
        |a, e| F64(a).round_to_integral(e.rounding, true, e).0,
        host64,
    );
    check_one(
        "roundsd",
        &doubles,
        |a, e| F64(a).round_to_integral(e.rounding, false, e).0,
        quiet64,
    );
    check_one(
        "roundss",
        &singles,
        |a, e| F32(a).round_to_integral(e.rounding, true, e).0,
        host32,
    );
}

#[test]
fn half_precision_conversions_are_the_hosts() {
    if sse::vcvtph2ps(0, 0x1f80).is_none() {
        eprintln!("SKIPPED: this host has no F16C");
        return;
    }
    // F16C ignores FTZ when it stores, and DAZ and the denormal flag when it loads.
    for mxcsr in modes().filter(|m| m & 0x8040 == 0) {
        for a in 0..=u16::MAX {
            let mut env = Env::from_mxcsr(mxcsr);
            let got = F16(a).convert::<F32>(&mut env).0;
            let want = sse::vcvtph2ps(u32::from(a), mxcsr).unwrap();
            assert_eq!((got, env.flags.x86_bits() & !2), want, "vcvtph2ps {a:#06x}");
        }
        for &a in &ones32() {
            let mut env = Env::from_mxcsr(mxcsr);
            let got = u32::from(F32(a).convert::<F16>(&mut env).0);
            let want = sse::vcvtps2ph(a, mxcsr).unwrap();
            assert_eq!(
                (got, env.flags.x86_bits()),
                want,
                "vcvtps2ph {a:#010x} mxcsr {mxcsr:#x}"
            );
        }
    }
}

#[test]
fn comparisons_are_the_hosts() {
    let bits = |o: Option<Ordering>| match o {
        None => 0x45,
        Some(Ordering::Less) => 0x01,
        Some(Ordering::Equal) => 0x40,
        Some(Ordering::Greater) => 0,
    };
    let (doubles, singles) = (pairs64(), pairs32());
    for mxcsr in modes() {
        for &(a, b) in &doubles {
            let mut env = Env::from_mxcsr(mxcsr);
            let got = bits(F64(a).compare_quiet(F64(b), &mut env));
            assert_eq!(
                (got, env.flags.x86_bits()),
                sse::ucomisd(a, b, mxcsr),
                "ucomisd {a:#x} {b:#x} {mxcsr:#x}"
            );
            let mut env = Env::from_mxcsr(mxcsr);
            let got = bits(F64(a).compare_signalling(F64(b), &mut env));
            assert_eq!(
                (got, env.flags.x86_bits()),
                sse::comisd(a, b, mxcsr),
                "comisd {a:#x} {b:#x} {mxcsr:#x}"
            );
        }
        for &(a, b) in &singles {
            let mut env = Env::from_mxcsr(mxcsr);
            let got = bits(F32(a).compare_quiet(F32(b), &mut env));
            assert_eq!(
                (got, env.flags.x86_bits()),
                sse::ucomiss(a, b, mxcsr),
                "ucomiss {a:#x} {b:#x} {mxcsr:#x}"
            );
            let mut env = Env::from_mxcsr(mxcsr);
            let got = bits(F32(a).compare_signalling(F32(b), &mut env));
            assert_eq!(
                (got, env.flags.x86_bits()),
                sse::comiss(a, b, mxcsr),
                "comiss {a:#x} {b:#x} {mxcsr:#x}"
            );
        }
    }
}

/// Operands whose product nearly cancels against the addend, among random ones.
fn triples64() -> Vec<(u64, u64, u64)> {
    let mut rng = Rng::new(6);
    let edges: Vec<u64> = doubles().into_iter().step_by(3).collect();
    let mut all = Vec::new();
    for &a in &edges {
        for &b in &edges {
            all.extend(doubles().into_iter().map(|c| (a, b, c)));
        }
    }
    for _ in 0..RANDOM {
        let (a, b) = (rng.f64(), rng.f64());
        let product = F64(a).mul(F64(b), &mut Env::sse()).0;
        let near = product.wrapping_add(rng.below(5)).wrapping_sub(2) ^ (rng.bits() & 1) << 63;
        all.push((a, b, if rng.below(3) == 0 { near } else { rng.f64() }));
    }
    all
}

#[test]
fn fused_multiply_add_is_the_hosts() {
    if sse::vfmadd213sd(0, 0, 0, 0x1f80).is_none() {
        eprintln!("SKIPPED: this host has no FMA3");
        return;
    }
    type Host = fn(u64, u64, u64, u32) -> Option<(u64, u8)>;
    let forms: [(MulAdd, Host); 4] = [
        (MulAdd::Add, sse::vfmadd213sd),
        (MulAdd::Sub, sse::vfmsub213sd),
        (MulAdd::NegProductAdd, sse::vfnmadd213sd),
        (MulAdd::NegProductSub, sse::vfnmsub213sd),
    ];
    let triples = triples64();
    for mxcsr in modes() {
        for (kind, host) in forms {
            for &(a, b, c) in &triples {
                let mut env = Env::from_mxcsr(mxcsr);
                let got = F64(a).mul_add(F64(b), F64(c), kind, &mut env).0;
                let want = host(b, a, c, mxcsr).unwrap();
                assert_eq!(
                    (got, env.flags.x86_bits()),
                    want,
                    "{kind:?} {a:#x} {b:#x} {c:#x} mxcsr {mxcsr:#x}: got {got:#x} want {:#x}",
                    want.0
                );
            }
        }
        let mut rng = Rng::new(7);
        for _ in 0..RANDOM {
            let (a, b, c) = (rng.f32(), rng.f32(), rng.f32());
            let mut env = Env::from_mxcsr(mxcsr);
            let got = F32(a).mul_add(F32(b), F32(c), MulAdd::Add, &mut env).0;
            let want = sse::vfmadd213ss(b, a, c, mxcsr).unwrap();
            assert_eq!(
                (got, env.flags.x86_bits()),
                want,
                "{a:#x} {b:#x} {c:#x} mxcsr {mxcsr:#x}"
            );
        }
    }
}
