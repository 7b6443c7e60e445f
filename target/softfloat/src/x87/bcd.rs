//! FBLD and FBSTP: packed decimal integers of eighteen digits (Intel SDM volume 1, 4.7).

use crate::convert::IntOverflow;
use crate::env::{Env, Flags};
use crate::float::Float;
use crate::format::F80;

/// The largest number of eighteen digits.
const MAX: u64 = 999_999_999_999_999_999;
/// The packed decimal indefinite value.
const INDEFINITE: [u8; 10] = [0, 0, 0, 0, 0, 0, 0, 0xc0, 0xff, 0xff];

/// FBLD: two digits in each of nine bytes, the sign in the tenth. Always exact.
pub fn fbld(packed: [u8; 10]) -> F80 {
    let [digits @ .., sign] = packed;
    let value = digits.iter().rev().fold(0_u64, |sum, &byte| {
        let pair = u64::from(byte >> 4) * 10 + u64::from(byte & 0xf);
        sum.wrapping_mul(100).wrapping_add(pair)
    });
    let number = F80::from_u64(value, &mut Env::x87());
    if sign & 0x80 != 0 {
        number.neg()
    } else {
        number
    }
}

/// FBSTP: the integer nearest by the rounding mode.
pub fn fbstp(st0: F80, env: &mut Env) -> [u8; 10] {
    let mut attempt = Env {
        flags: Flags::NONE,
        ..*env
    };
    let mut rest: u64 =
        st0.abs()
            .to_int(magnitude_rounding(st0, env), IntOverflow::X86, &mut attempt);
    if rest > MAX || attempt.flags.has(Flags::BY_CONVERT) {
        env.raise(Flags::INVALID);
        return INDEFINITE;
    }
    env.raise(attempt.flags);
    let mut packed = [0; 10];
    for byte in packed.iter_mut().take(9) {
        let pair = rest % 100;
        rest /= 100;
        *byte = (((pair / 10) << 4) | (pair % 10)) as u8;
    }
    if let Some(sign) = packed.last_mut() {
        *sign = u8::from(st0.is_negative()) << 7;
    }
    packed
}

/// The mode that rounds the magnitude as `env` rounds the signed number.
fn magnitude_rounding(value: F80, env: &Env) -> crate::Rounding {
    use crate::Rounding::{Down, Up};
    match env.rounding {
        Up if value.is_negative() => Down,
        Down if value.is_negative() => Up,
        other => other,
    }
}
