//! FLD1, FLDZ and the irrational constants, which the rounding mode rounds (Intel SDM volume 1, 8.3.8).

use crate::env::{Env, Rounding};
use crate::format::F80;
use crate::num::Num;
use crate::round::round;

/// pi.
pub(super) const PI: Num<u128> = positive(1, 0xc90f_daa2_2168_c234_c4c6_628b_80dc_1cd1);
/// pi / 2.
pub(super) const HALF_PI: Num<u128> = Num { exp: 0, ..PI };
/// pi / 4.
pub(super) const QUARTER_PI: Num<u128> = Num { exp: -1, ..PI };
/// The natural logarithm of 2.
pub(super) const LN_2: Num<u128> = positive(-1, 0xb172_17f7_d1cf_79ab_c9e3_b398_03f2_f6af);
/// The binary logarithm of e.
pub(super) const LOG2_E: Num<u128> = positive(0, 0xb8aa_3b29_5c17_f0bb_be87_fed0_691d_3e88);
const LOG2_10: Num<u128> = positive(1, 0xd49a_784b_cd1b_8afe_492b_f6ff_4daf_db4c);
const LOG10_2: Num<u128> = positive(-2, 0x9a20_9a84_fbcf_f798_8f89_59ac_0b7c_9178);
/// 1.
pub(super) const ONE: Num<u128> = positive(0, 1 << 127);
/// 2.
pub(super) const TWO: Num<u128> = positive(1, 1 << 127);

const fn positive(exp: i32, sig: u128) -> Num<u128> {
    Num {
        sign: false,
        exp,
        sig,
    }
}

/// What a constant instruction loads.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Constant {
    /// FLD1.
    One,
    /// FLDL2T: the binary logarithm of 10.
    Log2Of10,
    /// FLDL2E: the binary logarithm of e.
    Log2OfE,
    /// FLDPI.
    Pi,
    /// FLDLG2: the decimal logarithm of 2.
    Log10Of2,
    /// FLDLN2: the natural logarithm of 2.
    LnOf2,
    /// FLDZ.
    Zero,
}

/// The constant as this rounding mode gives it; no flags.
pub fn constant(which: Constant, rounding: Rounding) -> F80 {
    let value = match which {
        Constant::One => ONE,
        Constant::Log2Of10 => LOG2_10,
        Constant::Log2OfE => LOG2_E,
        Constant::Pi => PI,
        Constant::Log10Of2 => LOG10_2,
        Constant::LnOf2 => LN_2,
        Constant::Zero => return F80::default(),
    };
    round(
        value,
        &mut Env {
            rounding,
            ..Env::x87()
        },
    )
}
