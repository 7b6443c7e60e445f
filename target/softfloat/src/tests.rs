use crate::*;

const ONE: F64 = F64(0x3ff0_0000_0000_0000);

#[test]
fn odd_rounding_marks_a_lost_bit() {
    let mut env = Env {
        rounding: Rounding::Odd,
        ..Env::power()
    };
    let tiny = F64(0x0010_0000_0000_0000);
    assert_eq!(ONE.add(tiny, &mut env).0, ONE.0 | 1);
    assert_eq!(ONE.add(F64::zero(false), &mut env), ONE);
}

#[test]
fn arm_takes_a_signalling_nan_before_a_quiet_one() {
    let (quiet, signalling) = (F64(0x7ff8_0000_0000_0001), F64(0x7ff0_0000_0000_0002));
    let mut env = Env::arm();
    assert_eq!(quiet.add(signalling, &mut env).0, 0x7ff8_0000_0000_0002);
    assert!(env.flags.has(Flags::INVALID));
    env.default_nan = true;
    assert_eq!(quiet.add(ONE, &mut env).0, 0x7ff8_0000_0000_0000);
}

#[test]
fn power_takes_the_addend_before_the_multiplier() {
    let (b, c) = (F64(0x7ff8_0000_0000_000b), F64(0x7ff8_0000_0000_000c));
    let mut env = Env::power();
    assert_eq!(ONE.mul_add(c, b, MulAdd::Add, &mut env), b);
    assert_eq!(Env::sse().flags, env.flags);
}

#[test]
fn infinity_times_zero_plus_a_quiet_nan_differs_by_guest() {
    let (inf, zero, nan) = (F32(0x7f80_0000), F32(0), F32(0x7fc0_0007));
    let run = |mut env: Env| {
        (
            inf.mul_add(zero, nan, MulAdd::Add, &mut env).0,
            env.flags.has(Flags::INVALID),
        )
    };
    assert_eq!(run(Env::sse()), (0x7fc0_0007, false));
    assert_eq!(run(Env::arm()), (0x7fc0_0000, true));
    assert_eq!(run(Env::power()), (0x7fc0_0007, true));
    assert_eq!(run(Env::s390x()), (0x7fc0_0000, true));
}

#[test]
fn tininess_before_rounding_underflows_where_after_does_not() {
    // (1 - 2^-52) * (1 + 2^-52) * 2^-1022 is just below the smallest normal number and rounds up to it.
    let (a, b) = (F64(0x3fef_ffff_ffff_fffe), F64(0x0010_0000_0000_0001));
    let run = |mut env: Env| (a.mul(b, &mut env).0, env.flags.has(Flags::UNDERFLOW));
    assert_eq!(run(Env::arm()), (0x0010_0000_0000_0000, true));
    assert_eq!(run(Env::sse()), (0x0010_0000_0000_0000, false));
}

#[test]
fn arm_flushing_reports_its_own_flags() {
    let mut env = Env {
        flush_inputs: true,
        flush_outputs: FlushOutputs::Arm,
        ..Env::arm()
    };
    assert_eq!(F64(1).add(ONE, &mut env), ONE);
    assert_eq!(env.flags, Flags::INPUT_FLUSHED);
    env.flags = Flags::NONE;
    let small = F64(0x0010_0000_0000_0000);
    assert_eq!(small.div(F64(0x4000_0000_0000_0000), &mut env).0, 0);
    assert_eq!(env.flags, Flags::UNDERFLOW);
}

#[test]
fn a_trapped_overflow_wraps_the_exponent() {
    let mut env = Env {
        unmasked: Flags::OVERFLOW,
        ..Env::power()
    };
    let huge = F64(0x7fe0_0000_0000_0000);
    let got = huge.mul(huge, &mut env);
    // 2^1023 * 2^1023 * 2^-1536
    assert_eq!(got.0, (1023 + 2046 - 1536) << 52);
    assert_eq!(env.flags, Flags::OVERFLOW);
}

#[test]
fn a_trapped_underflow_wraps_the_exponent_and_needs_no_inexact() {
    let mut env = Env {
        unmasked: Flags::UNDERFLOW,
        ..Env::power()
    };
    let small = F64(0x0010_0000_0000_0000);
    assert_eq!(
        small.div(F64(0x4000_0000_0000_0000), &mut env).0,
        1536 << 52
    );
    assert_eq!(env.flags, Flags::UNDERFLOW);
}

#[test]
fn minima_of_the_standard_order_zeros_and_treat_nans_by_rule() {
    let mut env = Env::arm();
    let (minus, plus, nan) = (F32(0x8000_0000), F32(0), F32(0x7fc0_0000));
    for rule in [MinMax::Num, MinMax::Propagate, MinMax::Number] {
        assert_eq!(plus.min(minus, rule, &mut env), minus);
        assert_eq!(minus.max(plus, rule, &mut env), plus);
    }
    let one = F32(0x3f80_0000);
    assert_eq!(one.min(nan, MinMax::Num, &mut env), one);
    assert_eq!(one.min(nan, MinMax::Propagate, &mut env), nan);
    let signalling = F32(0x7f80_0001);
    assert_eq!(one.max(signalling, MinMax::Num, &mut env).0, 0x7fc0_0001);
    assert_eq!(one.max(signalling, MinMax::Number, &mut env), one);
}

#[test]
fn saturating_conversions_clamp_and_are_invalid() {
    let mut env = Env::arm();
    let big = F64(0x43f0_0000_0000_0000);
    let nan = F64(0x7ff8_0000_0000_0000);
    let to = |v: F64, how, env: &mut Env| v.to_int::<i32>(Rounding::TowardZero, how, env);
    assert_eq!(to(big, IntOverflow::SaturateNanZero, &mut env), i32::MAX);
    assert_eq!(env.flags, Flags::INVALID | Flags::BY_CONVERT);
    assert_eq!(
        to(big.neg(), IntOverflow::SaturateNanZero, &mut env),
        i32::MIN
    );
    assert_eq!(to(nan, IntOverflow::SaturateNanZero, &mut env), 0);
    assert_eq!(to(nan, IntOverflow::SaturateNanMin, &mut env), i32::MIN);
    assert_eq!(
        ONE.neg()
            .to_int::<u64>(Rounding::TowardZero, IntOverflow::SaturateNanZero, &mut env),
        0
    );
}

#[test]
fn fixed_point_conversions_round_once() {
    let mut env = Env::arm();
    assert_eq!(
        ONE.to_fixed::<i32>(
            8,
            Rounding::TowardZero,
            IntOverflow::SaturateNanZero,
            &mut env
        ),
        256
    );
    assert_eq!(
        F64::from_fixed_i64(-384, 8, &mut env).0,
        0xbff8_0000_0000_0000
    );
    assert_eq!(env.flags, Flags::NONE);
}

#[test]
fn ieee_remainder_takes_the_nearest_quotient() {
    let mut env = Env::sse();
    let mut f = |v: i64| F64::from_i64(v, &mut env);
    let (five, three, seven) = (f(5), f(3), f(7));
    let (minus_one, one, two) = (f(-1), f(1), f(2));
    let near = five.rem(three, Rounding::NearestEven, &mut env);
    assert_eq!((near.value, near.quotient), (minus_one, 2));
    let cut = five.rem(three, Rounding::TowardZero, &mut env);
    assert_eq!((cut.value, cut.quotient), (two, 1));
    assert_eq!(
        three.rem(seven, Rounding::NearestEven, &mut env).value,
        three
    );
    let one_from_seven = seven.rem(three, Rounding::NearestEven, &mut env);
    assert_eq!((one_from_seven.value, one_from_seven.quotient), (one, 2));
}

#[test]
fn an_unmasked_denormal_operand_hides_what_computing_would_find() {
    let mut env = Env {
        unmasked: Flags::DENORMAL,
        ..Env::sse()
    };
    F64(1).add(ONE, &mut env);
    assert_eq!(env.x86_faults(), Flags::DENORMAL);
    assert_eq!(env.flags, Flags::DENORMAL);
    let mut env = Env {
        unmasked: Flags::INEXACT,
        ..Env::sse()
    };
    F64(1).add(ONE, &mut env);
    assert_eq!(env.x86_faults(), Flags::INEXACT);
    assert!(env.flags.has(Flags::DENORMAL));
}

#[test]
fn every_operation_answers_any_bits_under_any_environment() {
    let edges = [
        0_u16, 0x8000, 1, 0x3ff, 0x400, 0x3c00, 0x7bff, 0x7c00, 0x7c01, 0x7e00, 0xffff, 0xfbff,
    ];
    let envs = [
        Env::sse(),
        Env::x87(),
        Env::arm(),
        Env::power(),
        Env::s390x(),
    ];
    for mut env in envs {
        for rounding in [
            Rounding::Odd,
            Rounding::NearestAway,
            Rounding::Up,
            Rounding::Down,
        ] {
            env.rounding = rounding;
            env.unmasked = Flags(0x3f);
            for (a, b) in edges.iter().flat_map(|&a| edges.map(|b| (F16(a), F16(b)))) {
                let c = a
                    .mul_add(b, a, MulAdd::NegSub, &mut env)
                    .div(b, &mut env)
                    .sqrt(&mut env);
                let wide: F128 = c.convert(&mut env);
                let scaled = wide.scale(i32::MIN, &mut env).scale(i32::MAX, &mut env);
                let extended: F80 = scaled.convert(&mut env);
                let tail: Bf16 = x87::fscale(extended, extended, &mut env).convert(&mut env);
                tail.to_fixed::<u8>(u32::MAX, rounding, IntOverflow::SaturateNanMin, &mut env);
                F64::from_fixed_u64(u64::MAX, u32::MAX, &mut env);
                let both = F80 {
                    se: a.0,
                    sig: u64::from(b.0) << 48,
                };
                x87::fpatan(both, extended, &mut env);
                x87::fyl2x(both, extended, &mut env);
                x87::fyl2xp1(both, both, &mut env);
                x87::f2xm1(both, &mut env);
                x87::fptan(both, &mut env);
                x87::fprem(both, extended, &mut env);
                x87::fbstp(both, &mut env);
                x87::fxtract(both, &mut env);
            }
        }
    }
}
