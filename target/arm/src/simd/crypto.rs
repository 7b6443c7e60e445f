//! Cryptographic extensions (C7: AES, SHA1, SHA256, SHA512, SHA3).

use super::{Lanes, has, set_v, v};
use crate::Core;
use crate::a64::simd::Insn;
use crate::model::Feature;

/// Product in AES's field.
const fn field_product(mut a: u8, mut b: u8) -> u8 {
    let mut sum = 0;
    while b != 0 {
        if b & 1 != 0 {
            sum ^= a;
        }
        let carry = a & 0x80 != 0;
        a <<= 1;
        if carry {
            a ^= 0x1b;
        }
        b >>= 1;
    }
    sum
}

/// The S-box (FIPS 197, 5.1.1): the inverse, then an affine map.
#[allow(clippy::indexing_slicing, reason = "runs at compile time")]
const fn s_box() -> [u8; 256] {
    let mut table = [0; 256];
    let mut n = 0usize;
    while n < 256 {
        // The inverse is the 254th power.
        let x = n as u8;
        let mut inverse = 1u8;
        let mut i = 0;
        while i < 254 {
            inverse = field_product(inverse, x);
            i += 1;
        }
        let b = inverse;
        table[n] =
            b ^ b.rotate_left(1) ^ b.rotate_left(2) ^ b.rotate_left(3) ^ b.rotate_left(4) ^ 0x63;
        n += 1;
    }
    table
}

#[allow(clippy::indexing_slicing, reason = "runs at compile time")]
const fn inverted(table: [u8; 256]) -> [u8; 256] {
    let mut inverse = [0; 256];
    let mut n = 0usize;
    while n < 256 {
        inverse[table[n] as usize] = n as u8;
        n += 1;
    }
    inverse
}

static S_BOX: [u8; 256] = s_box();
static INVERSE_S_BOX: [u8; 256] = inverted(s_box());

fn look_up(table: &[u8; 256], byte: u64) -> u64 {
    table.get(byte as usize & 255).copied().unwrap_or(0).into()
}

/// MixColumns with a column's factors.
fn mix(state: u128, factors: [u8; 4]) -> u128 {
    let bytes = Lanes::new(8, 1, 0);
    bytes.build(|i| {
        let (column, row) = (i & !3, i & 3);
        let sum = (0..4u32).zip(factors).fold(0, |sum, (k, factor)| {
            sum ^ field_product(bytes.get(state, column + ((row + k) & 3)) as u8, factor)
        });
        sum.into()
    })
}

fn aes(opcode: u32, state: u128) -> Option<u128> {
    let bytes = Lanes::new(8, 1, 0);
    Some(match opcode {
        // AESE: ShiftRows, SubBytes.
        4 => bytes.build(|i| look_up(&S_BOX, bytes.get(state, (i + 4 * (i & 3)) & 15))),
        5 => bytes.build(|i| {
            let from = i.wrapping_sub(4 * (i & 3)) & 15;
            look_up(&INVERSE_S_BOX, bytes.get(state, from))
        }),
        6 => mix(state, [2, 3, 1, 1]),
        7 => mix(state, [14, 11, 13, 9]),
        _ => return None,
    })
}

pub(super) fn execute(core: &mut Core, insn: Insn) -> Option<()> {
    match insn {
        Insn::Aes { opcode, rn, rd } => {
            has(core, Feature::Aes)?;
            let mut state = v(core, rn);
            if opcode < 6 {
                state ^= v(core, rd);
            }
            set_v(core, rd, aes(opcode, state)?);
        }
        Insn::ShaThree { rm, opcode, rn, rd } => {
            let feature = if opcode < 4 {
                Feature::Sha1
            } else {
                Feature::Sha256
            };
            has(core, feature)?;
            let result = sha_three(opcode, v(core, rd), v(core, rn), v(core, rm))?;
            set_v(core, rd, result);
        }
        Insn::ShaTwo { opcode, rn, rd } => {
            let w = Lanes::new(32, 1, 0);
            let (d, n) = (v(core, rd), v(core, rn));
            let result = match opcode {
                0 => {
                    has(core, Feature::Sha1)?;
                    u128::from((n as u32).rotate_left(30))
                }
                1 => {
                    has(core, Feature::Sha1)?;
                    let t = d ^ n >> 32;
                    let first = w.get(t, 0) as u32;
                    w.build(|i| match i {
                        3 => ((w.get(t, 3) as u32).rotate_left(1) ^ first.rotate_left(2)).into(),
                        _ => (w.get(t, i) as u32).rotate_left(1).into(),
                    })
                }
                2 => {
                    has(core, Feature::Sha256)?;
                    let t = d >> 32 | n << 96;
                    w.build(|i| {
                        let x = w.get(t, i) as u32;
                        let sigma = x.rotate_right(7) ^ x.rotate_right(18) ^ x >> 3;
                        (w.get(d, i) as u32).wrapping_add(sigma).into()
                    })
                }
                _ => return None,
            };
            set_v(core, rd, result);
        }
        Insn::Sha512Three { rm, opcode, rn, rd } => {
            let (d, n, m) = (v(core, rd), v(core, rn), v(core, rm));
            let result = if opcode == 3 {
                has(core, Feature::Sha3)?;
                let w = Lanes::new(64, 1, 0);
                w.build(|i| w.get(n, i) ^ w.get(m, i).rotate_left(1))
            } else {
                has(core, Feature::Sha512)?;
                sha512(opcode, d, n, m)
            };
            set_v(core, rd, result);
        }
        Insn::Sha512Two { opcode: 0, rn, rd } => {
            has(core, Feature::Sha512)?;
            let w = Lanes::new(64, 1, 0);
            let (d, n) = (v(core, rd), v(core, rn));
            let t = d >> 64 | n << 64;
            let result = w.build(|i| {
                let x = w.get(t, i);
                let sigma = x.rotate_right(1) ^ x.rotate_right(8) ^ x >> 7;
                w.get(d, i).wrapping_add(sigma)
            });
            set_v(core, rd, result);
        }
        Insn::CryptoFour { op, rm, ra, rn, rd } => {
            has(core, Feature::Sha3)?;
            let (n, m, a) = (v(core, rn), v(core, rm), v(core, ra));
            let result = match op {
                0 => n ^ m ^ a,
                1 => n ^ m & !a,
                _ => return None,
            };
            set_v(core, rd, result);
        }
        Insn::Xar { rm, imm, rn, rd } => {
            has(core, Feature::Sha3)?;
            let w = Lanes::new(64, 1, 0);
            let x = v(core, rn) ^ v(core, rm);
            set_v(core, rd, w.build(|i| w.get(x, i).rotate_right(imm)));
        }
        _ => return None,
    }
    Some(())
}

fn choose(x: u32, y: u32, z: u32) -> u32 {
    (y ^ z) & x ^ z
}

fn majority(x: u32, y: u32, z: u32) -> u32 {
    x & y | (x | y) & z
}

fn sha_three(opcode: u32, d: u128, n: u128, m: u128) -> Option<u128> {
    let w = Lanes::new(32, 1, 0);
    let word = |v: u128, i: u32| w.get(v, i) as u32;
    Some(match opcode {
        0..=2 => {
            let (mut x, mut y) = (d, n as u32);
            for e in 0..4 {
                let (a, b, c) = (word(x, 1), word(x, 2), word(x, 3));
                let t = match opcode {
                    0 => choose(a, b, c),
                    1 => a ^ b ^ c,
                    _ => majority(a, b, c),
                };
                y = y
                    .wrapping_add(word(x, 0).rotate_left(5))
                    .wrapping_add(t)
                    .wrapping_add(word(m, e));
                w.put(&mut x, 1, a.rotate_left(30).into());
                // The 160 bits turn left by a word.
                let out = (x >> 96) as u32;
                x = x << 32 | u128::from(y);
                y = out;
            }
            x
        }
        3 => (d >> 64 | n << 64) ^ d ^ m,
        4 => sha256(d, n, m, true),
        5 => sha256(n, d, m, false),
        6 => {
            // SHA256SU1.
            let t0 = n >> 32 | m << 96;
            let mut result = 0;
            for i in 0..4 {
                let x = match i {
                    0 => word(m, 2),
                    1 => word(m, 3),
                    _ => word(result, i - 2),
                };
                let sigma = x.rotate_right(17) ^ x.rotate_right(19) ^ x >> 10;
                let sum = sigma.wrapping_add(word(d, i)).wrapping_add(word(t0, i));
                w.put(&mut result, i, sum.into());
            }
            result
        }
        _ => return None,
    })
}

/// `SHA256hash`.
fn sha256(mut x: u128, mut y: u128, w: u128, first: bool) -> u128 {
    let l = Lanes::new(32, 1, 0);
    let word = |v: u128, i: u32| l.get(v, i) as u32;
    for e in 0..4 {
        let ch = choose(word(y, 0), word(y, 1), word(y, 2));
        let maj = majority(word(x, 0), word(x, 1), word(x, 2));
        let s1 = word(y, 0);
        let s1 = s1.rotate_right(6) ^ s1.rotate_right(11) ^ s1.rotate_right(25);
        let t = word(y, 3)
            .wrapping_add(s1)
            .wrapping_add(ch)
            .wrapping_add(word(w, e));
        let d = word(x, 3).wrapping_add(t);
        l.put(&mut x, 3, d.into());
        let s0 = word(x, 0);
        let s0 = s0.rotate_right(2) ^ s0.rotate_right(13) ^ s0.rotate_right(22);
        let h = t.wrapping_add(s0).wrapping_add(maj);
        l.put(&mut y, 3, h.into());
        // The 256 bits turn left by a word.
        let (top_x, top_y) = (x >> 96, y >> 96);
        x = x << 32 | top_y;
        y = y << 32 | top_x;
    }
    if first { x } else { y }
}

/// SHA512H (0), SHA512H2 (1), SHA512SU1 (2).
fn sha512(opcode: u32, d: u128, n: u128, m: u128) -> u128 {
    let w = Lanes::new(64, 1, 0);
    let (low, high) = (|v: u128| v as u64, |v: u128| (v >> 64) as u64);
    let sum = |parts: [u64; 4]| parts.into_iter().fold(0u64, u64::wrapping_add);
    let join = |low: u64, high: u64| u128::from(low) | u128::from(high) << 64;
    match opcode {
        0 => {
            let sigma = |x: u64| x.rotate_right(14) ^ x.rotate_right(18) ^ x.rotate_right(41);
            let (x0, x1, y0, y1) = (low(n), high(n), low(m), high(m));
            let t1 = y1 & x0 ^ !y1 & x1;
            let t1 = sum([high(d), sigma(y1), t1, 0]);
            let t = t1.wrapping_add(y0);
            let t0 = t & y1 ^ !t & x0;
            join(sum([low(d), sigma(t), t0, 0]), t1)
        }
        1 => {
            let sigma = |x: u64| x.rotate_right(28) ^ x.rotate_right(34) ^ x.rotate_right(39);
            let maj = |x: u64, y: u64, z: u64| x & y ^ x & z ^ y & z;
            let (x, y0, y1) = (low(n), low(m), high(m));
            let t1 = sum([high(d), sigma(y0), maj(x, y1, y0), 0]);
            join(sum([low(d), sigma(t1), maj(t1, y0, y1), 0]), t1)
        }
        _ => w.build(|i| {
            let x = w.get(n, i);
            let sigma = x.rotate_right(19) ^ x.rotate_right(61) ^ x >> 6;
            sum([w.get(d, i), sigma, w.get(m, i), 0])
        }),
    }
}
