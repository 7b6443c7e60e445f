//! Operand values worth trying: the edges of every format, and random ones.

use super::Rng;

/// An integer of which some low part is at an edge.
pub(super) fn int(rng: &mut Rng) -> u64 {
    const EDGES: [u64; 16] = [
        0,
        1,
        2,
        0x7f,
        0x80,
        0xff,
        0x7fff,
        0x8000,
        0xffff,
        0x7fff_ffff,
        0x8000_0000,
        0xffff_ffff,
        i64::MAX as u64,
        1 << 63,
        u64::MAX,
        u64::MAX - 1,
    ];
    match rng.below(8) {
        0..3 => rng.pick(&EDGES),
        3 => rng.below(70),
        4 => rng.below(300).wrapping_neg(),
        5 => 1 << rng.below(64),
        _ => rng.u64(),
    }
}

/// A single-precision pattern.
pub(super) fn f32(rng: &mut Rng) -> u32 {
    const EDGES: [u32; 22] = [
        0,
        0x8000_0000, // -0
        0x3f80_0000, // 1
        0xbf80_0000, // -1
        0x3f00_0000, // 0.5
        0x3fc0_0000, // 1.5
        0x4020_0000, // 2.5
        0x7f80_0000, // infinity
        0xff80_0000, // -infinity
        0x7fc0_0000, // QNaN
        0xffc0_0000, // default NaN
        0x7fc0_1234, // QNaN with payload
        0x7f80_0001, // SNaN
        0xffa0_5678, // SNaN
        0x0000_0001, // smallest denormal
        0x807f_ffff, // largest denormal
        0x0080_0000, // smallest normal
        0x7f7f_ffff, // largest
        0x4f00_0000, // 2^31
        0xcf00_0000, // -2^31
        0x5f00_0000, // 2^63
        0x4eff_ffff, // just below 2^31
    ];
    match rng.below(4) {
        0 => rng.pick(&EDGES),
        1 => (rng.below(2001) as f32 / 8.0 - 125.0).to_bits(),
        2 => (0x70 + rng.below(0x20) as u32) << 23 | rng.u64() as u32 & 0x807f_ffff,
        _ => rng.u64() as u32,
    }
}

/// A double-precision pattern.
pub(super) fn f64(rng: &mut Rng) -> u64 {
    const EDGES: [u64; 24] = [
        0,
        1 << 63,
        0x3ff0_0000_0000_0000, // 1
        0xbff0_0000_0000_0000, // -1
        0x3fe0_0000_0000_0000, // 0.5
        0x3ff8_0000_0000_0000, // 1.5
        0x4004_0000_0000_0000, // 2.5
        0x7ff0_0000_0000_0000, // infinity
        0xfff0_0000_0000_0000, // -infinity
        0x7ff8_0000_0000_0000, // QNaN
        0xfff8_0000_0000_0000, // default NaN
        0x7ff8_0000_1234_5678, // QNaN with payload
        0x7ff0_0000_0000_0001, // SNaN
        0xfff4_0000_2000_0000, // SNaN
        0x0000_0000_0000_0001, // smallest denormal
        0x800f_ffff_ffff_ffff, // largest denormal
        0x0010_0000_0000_0000, // smallest normal
        0x7fef_ffff_ffff_ffff, // largest
        0x41df_ffff_ffc0_0000, // 2^31 - 1
        0x41e0_0000_0000_0000, // 2^31
        0xc1e0_0000_0010_0000, // just below -2^31
        0x43e0_0000_0000_0000, // 2^63
        0x47ef_ffff_f000_0000, // rounds beyond the largest single
        0x3690_0000_0000_0000, // half the smallest single denormal
    ];
    match rng.below(4) {
        0 => rng.pick(&EDGES),
        1 => (rng.below(2001) as f64 / 8.0 - 125.0).to_bits(),
        2 => (0x3e0 + rng.below(0x40)) << 52 | rng.u64() & 0x800f_ffff_ffff_ffff,
        _ => rng.u64(),
    }
}

/// An 80-bit extended-precision pattern, the invalid ones included.
pub(super) fn f80(rng: &mut Rng) -> u128 {
    const INTEGER_BIT: u64 = 1 << 63;
    const EDGES: [(u16, u64); 22] = [
        (0, 0),
        (0x8000, 0),
        (0x3fff, INTEGER_BIT),
        (0xbfff, INTEGER_BIT),
        (0x3ffe, INTEGER_BIT),
        (0x3fff, 0xc000_0000_0000_0000),
        (0x4000, 0xc90f_daa2_2168_c235), // pi
        (0x7fff, INTEGER_BIT),           // infinity
        (0xffff, INTEGER_BIT),
        (0x7fff, 0xc000_0000_0000_0000), // QNaN
        (0xffff, 0xc000_0000_0000_0000), // default NaN
        (0x7fff, 0x8000_0000_0000_0001), // SNaN
        (0x7fff, 0xa000_1234_0000_0000), // SNaN
        (0, 1),                          // smallest denormal
        (0x8000, 0x7fff_ffff_ffff_ffff), // largest denormal
        (0, INTEGER_BIT),                // pseudo-denormal
        (1, INTEGER_BIT),                // smallest normal
        (0x7ffe, u64::MAX),              // largest
        (0x4000, 0x1234_5678_0000_0000), // unnormal
        (0x7fff, 0x4000_0000_0000_0000), // pseudo-NaN
        (0x7fff, 0),                     // pseudo-infinity
        (0x403e, INTEGER_BIT),           // 2^63
    ];
    let (exponent, significand) = match rng.below(8) {
        0 | 1 => rng.pick(&EDGES),
        2 => (rng.u64() as u16, rng.u64() | INTEGER_BIT),
        3 => (rng.u64() as u16, rng.u64()),
        4 => return widen((rng.below(2001) as f64 / 8.0 - 125.0).to_bits()),
        5 => {
            // A 53-bit or 24-bit significand: exact in the narrower formats.
            let keep = rng.pick(&[11, 40]);
            (near_one(rng), (rng.u64() | INTEGER_BIT) >> keep << keep)
        }
        _ => (near_one(rng), rng.u64() | INTEGER_BIT),
    };
    u128::from(exponent) << 64 | u128::from(significand)
}

/// Sign and an exponent within 2^±64.
fn near_one(rng: &mut Rng) -> u16 {
    (0x3fbf + rng.below(0x80)) as u16 | (rng.u64() as u16 & 0x8000)
}

/// A normal double or a zero in extended precision.
fn widen(double: u64) -> u128 {
    let sign = (double >> 48) as u16 & 0x8000;
    let exponent = (double >> 52) as u16 & 0x7ff;
    if exponent == 0 {
        return u128::from(sign) << 64;
    }
    let significand = 1 << 63 | double << 11;
    u128::from(sign | (exponent + 0x3fff - 0x3ff)) << 64 | u128::from(significand)
}

/// An 18-digit packed decimal as FBLD reads it.
pub(super) fn bcd(rng: &mut Rng) -> u128 {
    if rng.percent(10) {
        return rng.u128();
    }
    let mut value = u128::from(rng.below(2)) << 79;
    for digit in 0..rng.below(19) {
        value |= u128::from(rng.below(10)) << (4 * digit);
    }
    value
}

/// What the parts of a vector register hold.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Lanes {
    Single,
    Double,
    Integer,
}

/// A 128-bit vector, mostly of lanes of the given kind.
pub(super) fn vector(rng: &mut Rng, lanes: Lanes) -> u128 {
    let lanes = if rng.percent(85) {
        lanes
    } else {
        rng.pick(&[Lanes::Single, Lanes::Double, Lanes::Integer])
    };
    match lanes {
        Lanes::Single => (0..4).fold(0, |v, _| v << 32 | u128::from(f32(rng))),
        Lanes::Double => u128::from(f64(rng)) << 64 | u128::from(f64(rng)),
        Lanes::Integer => {
            let bits = rng.pick(&[8u32, 16, 32, 64]);
            (0..128 / bits).fold(0, |v, _| {
                v << bits | u128::from(int(rng)) & (u128::MAX >> (128 - bits))
            })
        }
    }
}

/// A rounding and precision setting of the x87 control word, sometimes with exceptions unmasked.
pub(super) fn fcw(rng: &mut Rng) -> u16 {
    let masks = if rng.percent(8) {
        rng.u64() as u16 & 0x3f
    } else {
        0x3f
    };
    // Precision 1 is reserved.
    let precision = rng.pick(&[0, 2, 3, 3, 3]);
    let rounding = if rng.percent(60) {
        0
    } else {
        rng.below(4) as u16
    };
    masks | 1 << 6 | precision << 8 | rounding << 10
}

/// An x87 status word that goes with `fcw`: the summary bits tell of unmasked exceptions.
pub(super) fn fsw(rng: &mut Rng, fcw: u16) -> u16 {
    let mut exceptions = if rng.percent(30) {
        rng.u64() as u16 & 0x7f
    } else {
        0
    };
    // A pending exception ends every waiting instruction: seldom worth it.
    if rng.percent(85) {
        exceptions &= fcw | 0x40;
    }
    let conditions = rng.u64() as u16 & 0x4700;
    let top = (rng.below(8) as u16) << 11;
    let summary = if exceptions & !fcw & 0x3f != 0 {
        0x8080
    } else {
        0
    };
    exceptions | conditions | top | summary
}

/// A rounding mode of MXCSR with sticky flags, sometimes with exceptions unmasked or denormals
/// as zero.
pub(super) fn mxcsr(rng: &mut Rng) -> u32 {
    let masks = if rng.percent(8) {
        rng.u64() as u32 & 0x1f80
    } else {
        0x1f80
    };
    let rounding = if rng.percent(60) {
        0
    } else {
        rng.below(4) as u32
    };
    let flush = if rng.percent(10) { 1 << 15 } else { 0 };
    let denormals = if rng.percent(10) { 1 << 6 } else { 0 };
    let flags = if rng.percent(20) {
        rng.u64() as u32 & 0x3f
    } else {
        0
    };
    masks | rounding << 13 | flush | denormals | flags
}
