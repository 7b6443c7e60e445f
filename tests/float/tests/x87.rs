//! Double extended precision against the host's x87: results, flags and condition bits.
#![cfg(target_arch = "x86_64")]

use core::cmp::Ordering;

use target_softfloat::x87::{self as soft, Constant};
use target_softfloat::{Env, F32, F64, F80, Flags, Float, IntOverflow};
use test_float::operands::{Rng, edges_f80};
use test_float::x87 as host;

const RANDOM: usize = 40_000;
/// Condition bits of the status word.
const C0: u16 = 1 << 8;
const C1: u16 = 1 << 9;
const C2: u16 = 1 << 10;
const C3: u16 = 1 << 14;

/// The mask of the underflow exception in the control word.
const UNDERFLOW: u16 = 1 << 4;

fn is_zero(a: F80) -> bool {
    a.se & 0x7fff == 0 && a.sig == 0
}

fn is_tiny(a: F80) -> bool {
    a.se & 0x7fff == 0 && a.sig != 0
}

/// All exceptions masked, every rounding mode under every precision.
fn controls() -> impl Iterator<Item = u16> {
    (0..4).flat_map(|rounding| [0, 2, 3].map(|precision| 0x7f | precision << 8 | rounding << 10))
}

fn f80((se, sig): (u16, u64)) -> F80 {
    F80 { se, sig }
}

fn ones() -> Vec<F80> {
    let mut rng = Rng::new(11);
    edges_f80()
        .into_iter()
        .chain((0..RANDOM).map(|_| rng.f80()))
        .map(f80)
        .collect()
}

fn pairs() -> Vec<(F80, F80)> {
    let mut rng = Rng::new(12);
    let edges = edges_f80();
    let mut all: Vec<_> = edges
        .iter()
        .flat_map(|&a| edges.iter().map(move |&b| (f80(a), f80(b))))
        .collect();
    for _ in 0..RANDOM {
        let (a, mut b) = (rng.f80(), rng.f80());
        if rng.below(2) == 0 {
            // Close enough in magnitude for sums to meet.
            b.0 = (a.0 ^ (rng.bits() as u16 & 0x8000))
                .wrapping_add(rng.below(150) as u16)
                .wrapping_sub(75);
            b.1 |= 1 << 63;
        }
        all.push((f80(a), f80(b)));
    }
    all
}

/// The status word's exception flags, and C1 where it says that the result was rounded up.
fn status(env: &Env) -> u16 {
    let up = env.flags.has(Flags::ROUNDED_UP) && env.flags.has(Flags::INEXACT);
    u16::from(env.flags.x86_bits()) | if up { C1 } else { 0 }
}

fn check(
    name: &str,
    pairs: &[(F80, F80)],
    ours: impl Fn(F80, F80, &mut Env) -> F80,
    host: impl Fn(F80, F80, u16) -> (F80, u16),
) {
    for control in controls() {
        for &(a, b) in pairs {
            let mut env = Env::from_x87_control(control);
            let got = ours(a, b, &mut env);
            let (want, word) = host(a, b, control);
            assert_eq!(
                (got, status(&env)),
                (want, word & (0x3f | C1)),
                "{name} {a:x?} {b:x?} control {control:#x}: got {got:x?} {:#x}, want {want:x?} {word:#x}",
                status(&env)
            );
        }
    }
}

#[test]
fn arithmetic_is_the_hosts() {
    let pairs = pairs();
    check("fadd", &pairs, |a, b, e| a.add(b, e), host::fadd);
    check("fsub", &pairs, |a, b, e| a.sub(b, e), host::fsub);
    check("fmul", &pairs, |a, b, e| a.mul(b, e), host::fmul);
    check("fdiv", &pairs, |a, b, e| a.div(b, e), host::fdiv);
}

#[test]
fn unmasked_exceptions_are_the_hosts() {
    type Ours = fn(F80, F80, &mut Env) -> F80;
    type Host = fn(F80, F80, u16) -> (F80, u16);
    let all: [(&str, Ours, Host); 6] = [
        ("fadd", |a, b, e| a.add(b, e), host::fadd),
        ("fmul", |a, b, e| a.mul(b, e), host::fmul),
        ("fdiv", |a, b, e| a.div(b, e), host::fdiv),
        ("fsqrt", |a, _, e| a.sqrt(e), host::fsqrt),
        ("fscale", soft::fscale, host::fscale),
        (
            "frndint",
            |a, _, e| a.round_to_integral(e.rounding, true, e),
            host::frndint,
        ),
    ];
    let early = Flags::INVALID | Flags::DENORMAL | Flags::DIV_BY_ZERO;
    let pairs = pairs();
    for control in controls() {
        for unmasked in [0x08, 0x10, 0x18, 0x38, 0x01, 0x02, 0x04, 0x3f] {
            let control = control & !unmasked;
            for (name, ours, host) in all {
                for &(a, b) in pairs.iter().step_by(7) {
                    if name == "fscale" && control & UNDERFLOW == 0 && is_tiny(a) && is_zero(b) {
                        // Whether what is scaled by nothing underflows is up to the vendor.
                        continue;
                    }
                    let mut env = Env::from_x87_control(control);
                    let got = ours(a, b, &mut env);
                    let faults = env.x86_faults();
                    let (want, word) = host(a, b, control);
                    // An exception found before computing leaves the destination alone.
                    let got = if faults.has(early) { a } else { got };
                    assert_eq!(
                        (got, env.flags.x86_bits()),
                        (want, word as u8 & 0x3f),
                        "{name} {a:x?} {b:x?} control {control:#x}: got {got:x?}, want {want:x?}"
                    );
                }
            }
        }
    }
}

#[test]
fn square_roots_are_the_hosts() {
    let ones: Vec<_> = ones().into_iter().map(|a| (a, F80::default())).collect();
    check("fsqrt", &ones, |a, _, e| a.sqrt(e), host::fsqrt);
}

#[test]
fn rounding_to_integral_is_the_hosts() {
    let ones: Vec<_> = ones().into_iter().map(|a| (a, F80::default())).collect();
    check(
        "frndint",
        &ones,
        |a, _, e| a.round_to_integral(e.rounding, true, e),
        host::frndint,
    );
}

#[test]
fn scaling_is_the_hosts() {
    let mut pairs = pairs();
    let mut rng = Rng::new(13);
    for (_, by) in pairs.iter_mut().skip(3000) {
        *by = F64::from_i64(rng.below(70_000) as i64 - 35_000, &mut Env::sse())
            .convert(&mut Env::x87());
    }
    check("fscale", &pairs, soft::fscale, host::fscale);
}

#[test]
fn extraction_is_the_hosts() {
    let ones: Vec<_> = ones().into_iter().map(|a| (a, F80::default())).collect();
    check(
        "fxtract",
        &ones,
        |a, _, e| soft::fxtract(a, e).1,
        host::fxtract_significand,
    );
    check(
        "fxtract",
        &ones,
        |a, _, e| soft::fxtract(a, e).0,
        host::fxtract_exponent,
    );
}

/// The quotient bits and C2 as FPREM leaves them.
fn quotient_bits(quotient: u64, partial: bool) -> u16 {
    if partial {
        return C2;
    }
    let bit = |n: u64, to| if quotient >> n & 1 != 0 { to } else { 0 };
    bit(2, C0) | bit(1, C3) | bit(0, C1)
}

#[test]
fn remainders_are_the_hosts() {
    type Ours = fn(F80, F80, &mut Env) -> target_softfloat::Remainder<F80>;
    type Host = fn(F80, F80, u16) -> (F80, u16);
    let both: [(&str, Ours, Host); 2] = [
        ("fprem", soft::fprem, host::fprem),
        ("fprem1", soft::fprem1, host::fprem1),
    ];
    for (name, ours, host) in both {
        for (a, b) in pairs() {
            let mut env = Env::x87();
            let got = ours(a, b, &mut env);
            let (want, word) = host(a, b, 0x37f);
            let bits = u16::from(env.flags.x86_bits()) | quotient_bits(got.quotient, got.partial);
            assert_eq!(
                (got.value, bits),
                (want, word & (0x3f | C0 | C1 | C2 | C3)),
                "{name} {a:x?} {b:x?}: got {got:x?} {bits:#x}, want {want:x?} {word:#x}"
            );
        }
    }
}

#[test]
fn comparisons_are_the_hosts() {
    let bits = |order| match order {
        None => C0 | C2 | C3,
        Some(Ordering::Less) => C0,
        Some(Ordering::Equal) => C3,
        Some(Ordering::Greater) => 0,
    };
    for (a, b) in pairs() {
        let mut env = Env::x87();
        let got = bits(a.compare_signalling(b, &mut env)) | u16::from(env.flags.x86_bits());
        assert_eq!(
            got,
            host::fcom(a, b, 0x37f).1 & 0x453f,
            "fcom {a:x?} {b:x?}"
        );
        let mut env = Env::x87();
        let got = bits(a.compare_quiet(b, &mut env)) | u16::from(env.flags.x86_bits());
        assert_eq!(
            got,
            host::fucom(a, b, 0x37f).1 & 0x453f,
            "fucom {a:x?} {b:x?}"
        );
    }
}

fn check_store<R: PartialEq + core::fmt::Debug>(
    name: &str,
    operands: &[F80],
    ours: impl Fn(F80, &mut Env) -> R,
    host: impl Fn(F80, u16) -> (R, u16),
) {
    for control in controls() {
        for &a in operands {
            let mut env = Env::from_x87_control(control);
            let got = ours(a, &mut env);
            let (want, word) = host(a, control);
            assert_eq!(
                (got, status(&env)),
                (want, word & (0x3f | C1)),
                "{name} {a:x?} control {control:#x}"
            );
        }
    }
}

/// Numbers around the limits of the narrower formats and of integers.
fn storable() -> Vec<F80> {
    let mut rng = Rng::new(14);
    let mut all = ones();
    for _ in 0..RANDOM {
        let (se, sig) = rng.f80();
        let middle = [
            0x3fff_u64,
            0x3fff - 1022,
            0x3fff - 126,
            0x3fff + 1023,
            0x3fff + 127,
            0x3fff + 58,
        ];
        let exp = middle[rng.below(6) as usize] + rng.below(72) - 60;
        all.push(F80 {
            se: se & 0x8000 | exp as u16,
            sig: sig | 1 << 63,
        });
    }
    all
}

#[test]
fn stores_are_the_hosts() {
    let operands = storable();
    check_store(
        "fst m32",
        &operands,
        |a, e| a.convert::<F32>(e).0,
        host::fst32,
    );
    check_store(
        "fst m64",
        &operands,
        |a, e| a.convert::<F64>(e).0,
        host::fst64,
    );
    let x86 = IntOverflow::X86;
    check_store(
        "fist m16",
        &operands,
        |a, e| a.to_int::<i16>(e.rounding, x86, e) as u16,
        host::fist16,
    );
    check_store(
        "fist m32",
        &operands,
        |a, e| a.to_int::<i32>(e.rounding, x86, e) as u32,
        host::fist32,
    );
    check_store(
        "fistp m64",
        &operands,
        |a, e| a.to_int::<i64>(e.rounding, x86, e) as u64,
        host::fistp64,
    );
    check_store("fbstp", &operands, soft::fbstp, host::fbstp);
}

#[test]
fn loads_are_the_hosts() {
    let mut rng = Rng::new(15);
    for _ in 0..RANDOM {
        let (single, double, int) = (rng.f32(), rng.f64(), rng.bits() >> rng.below(64));
        let mut env = Env::x87();
        let got = F32(single).convert::<F80>(&mut env);
        let (want, word) = host::fld32(single, 0x37f);
        assert_eq!(
            (got, status(&env)),
            (want, word & 0x3f),
            "fld m32 {single:#x}"
        );
        let mut env = Env::x87();
        let got = F64(double).convert::<F80>(&mut env);
        let (want, word) = host::fld64(double, 0x37f);
        assert_eq!(
            (got, status(&env)),
            (want, word & 0x3f),
            "fld m64 {double:#x}"
        );
        assert_eq!(
            F80::from_i64(int as i64, &mut env),
            host::fild64(int, 0x37f).0,
            "fild {int:#x}"
        );
        let mut packed = [0_u8; 10];
        for byte in packed.iter_mut().take(9) {
            *byte = (rng.below(10) << 4 | rng.below(10)) as u8;
        }
        packed[9] = (rng.bits() & 0x80) as u8;
        assert_eq!(
            soft::fbld(packed),
            host::fbld(packed, 0x37f).0,
            "fbld {packed:x?}"
        );
    }
}

#[test]
fn constants_are_the_hosts() {
    type Host = fn(F80, F80, u16) -> (F80, u16);
    let all: [(Constant, Host); 7] = [
        (Constant::One, host::fld1),
        (Constant::Log2Of10, host::fldl2t),
        (Constant::Log2OfE, host::fldl2e),
        (Constant::Pi, host::fldpi),
        (Constant::Log10Of2, host::fldlg2),
        (Constant::LnOf2, host::fldln2),
        (Constant::Zero, host::fldz),
    ];
    for control in controls() {
        for (which, host) in all {
            let got = soft::constant(which, Env::from_x87_control(control).rounding);
            assert_eq!(
                got,
                host(F80::default(), F80::default(), control).0,
                "{which:?} control {control:#x}"
            );
        }
    }
}

/// How many representable values lie between two of the same sign.
fn distance(a: F80, b: F80) -> u64 {
    if a.se == b.se {
        return a.sig.abs_diff(b.sig);
    }
    let line = |v: F80| i128::from(v.se & 0x7fff) << 63 | i128::from(v.sig & !(1 << 63));
    if (a.se ^ b.se) & 0x8000 != 0 {
        u64::MAX
    } else {
        line(a).abs_diff(line(b)).min(u64::MAX.into()) as u64
    }
}

/// Special results must agree, flags included; others may be one unit apart, their flags underflow aside equal.
fn near(name: &str, operands: (F80, F80), control: u16, ours: (F80, &Env), host: (F80, u16)) {
    let ((got, env), (want, word)) = (ours, host);
    let flags = u16::from(env.flags.x86_bits());
    let what = format!(
        "{name} {operands:x?} control {control:#x}: got {got:x?} {flags:#x}, want {want:x?} {word:#x}"
    );
    let (flags, word) = (flags & 0x3f, word & 0x3f);
    if got == want {
        assert_eq!(flags, word, "{what}");
    } else {
        assert!(
            !got.is_nan() && !want.is_nan() && distance(got, want) <= 1,
            "{what}"
        );
        assert_eq!(flags & !0x10, word & !0x10, "{what}");
    }
}

/// Numbers below `limit` in exponent, and every edge.
fn arguments(seed: u64, lowest: u64, highest: u64) -> Vec<F80> {
    let mut rng = Rng::new(seed);
    let random = (0..RANDOM / 2).map(|_| {
        let (se, sig) = rng.f80();
        let exp = lowest + rng.below(highest - lowest + 1);
        F80 {
            se: se & 0x8000 | exp as u16,
            sig: sig | 1 << 63,
        }
    });
    let random: Vec<_> = random.collect();
    edges_f80().into_iter().map(f80).chain(random).collect()
}

#[test]
fn sines_and_tangents_are_near_the_hosts() {
    for a in arguments(16, 0x3fff - 70, 0x3fff + 63) {
        for control in [0x37f, 0xf7f] {
            let run = |name: &str, ours: Option<F80>, env: &Env, host: (F80, u16)| {
                assert_eq!(ours.is_none(), host.1 & C2 != 0, "{name} {a:x?}");
                near(name, (a, a), control, (ours.unwrap_or(a), env), host);
            };
            let mut env = Env::from_x87_control(control);
            run(
                "fsin",
                soft::fsin(a, &mut env),
                &env,
                host::fsin(a, a, control),
            );
            let mut env = Env::from_x87_control(control);
            run(
                "fcos",
                soft::fcos(a, &mut env),
                &env,
                host::fcos(a, a, control),
            );
            let mut env = Env::from_x87_control(control);
            run(
                "fptan",
                soft::fptan(a, &mut env),
                &env,
                host::fptan(a, control),
            );
            let mut one = Env::from_x87_control(control);
            let mut both = one;
            let pair = soft::fsincos(a, &mut both);
            assert_eq!(pair.map(|p| p.0), soft::fsin(a, &mut one));
            assert_eq!(pair.map(|p| p.1), soft::fcos(a, &mut one));
        }
    }
}

#[test]
fn f2xm1_is_near_the_hosts() {
    for a in arguments(17, 0x3fff - 70, 0x3ffe) {
        let in_range =
            a.se & 0x7fff < 0x3fff || (a.se & 0x7fff == 0x3fff && a.sig == 1 << 63) || a.is_nan();
        if in_range {
            let mut env = Env::x87();
            let got = soft::f2xm1(a, &mut env);
            near(
                "f2xm1",
                (a, a),
                0x37f,
                (got, &env),
                host::f2xm1(a, a, 0x37f),
            );
        }
    }
}

fn partners() -> Vec<F80> {
    arguments(18, 0x3fff - 40, 0x3fff + 40)
}

/// Every edge with every edge, then the random ones in step.
fn paired(a: Vec<F80>, b: Vec<F80>) -> Vec<(F80, F80)> {
    let edges = edges_f80();
    let all = edges
        .iter()
        .flat_map(|&x| edges.iter().map(move |&y| (f80(x), f80(y))));
    all.chain(a.into_iter().zip(b.into_iter().rev())).collect()
}

#[test]
fn logarithms_are_near_the_hosts() {
    for (x, y) in paired(arguments(19, 0x3ffd, 0x4000), partners())
        .into_iter()
        .chain(pairs())
    {
        let mut env = Env::x87();
        let got = soft::fyl2x(y, x, &mut env);
        near(
            "fyl2x",
            (x, y),
            0x37f,
            (got, &env),
            host::fyl2x(x, y, 0x37f),
        );
    }
}

#[test]
fn logarithms_plus_one_are_near_the_hosts() {
    // Defined while |x| <= 1 - sqrt(2)/2, about 0.29.
    let small = |x: F80| x.se & 0x7fff < 0x3ffd || x.is_nan();
    for (x, y) in paired(arguments(20, 0x3fff - 70, 0x3ffc), partners()) {
        if small(x) {
            let mut env = Env::x87();
            let got = soft::fyl2xp1(y, x, &mut env);
            near(
                "fyl2xp1",
                (x, y),
                0x37f,
                (got, &env),
                host::fyl2xp1(x, y, 0x37f),
            );
        }
    }
}

#[test]
fn arc_tangents_are_near_the_hosts() {
    for (x, y) in paired(partners(), arguments(21, 0x3fff - 40, 0x3fff + 40))
        .into_iter()
        .chain(pairs())
    {
        let mut env = Env::x87();
        let got = soft::fpatan(y, x, &mut env);
        near(
            "fpatan",
            (x, y),
            0x37f,
            (got, &env),
            host::fpatan(x, y, 0x37f),
        );
    }
}
