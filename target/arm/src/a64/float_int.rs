//! Scalar floating point to and from general registers (DDI 0487, C4.1.97 "Conversion between floating-point
//! and integer").

use accel_ir::{Binary, Cmp, FpFmt, FpOp, FpRound, FpRules, FpShape, ToInt, Ty, Val};

use super::context::{Ctx, width};
use super::float::{bits_of, format, how, scalar, set_bits, sign, when};
use super::float_away;
use crate::regs;

pub(super) fn integer(
    c: &mut Ctx,
    (sf, ty): (u32, u32),
    (rmode, opcode): (u32, u32),
    rn: u32,
    rd: u32,
) -> Option<()> {
    match (rmode, opcode) {
        // FMOV to and from a general register of the same width.
        (0, 6) if sf == ty && ty < 2 => {
            let bits = bits_of(c, format(ty)?, rn);
            c.set_x(rd, bits);
        }
        (0, 7) if sf == ty && ty < 2 => {
            let x = c.x(rn, width(sf));
            let x = c.b.zext(x, Ty::I64);
            set_bits(c, rd, x);
        }
        // SCVTF, UCVTF.
        (0, 2 | 3) => {
            let fmt = format(ty)?;
            let x = c.x(rn, width(sf));
            match (opcode, sf) {
                (2, _) => from_int(c, fmt, x, rd),
                (_, 0) => {
                    let x = c.b.zext(x, Ty::I64);
                    from_int(c, fmt, x, rd);
                }
                _ => {
                    let zero = c.imm(Ty::I64, 0);
                    let is_small = c.b.cmp(Cmp::Les, zero, x);
                    when(c, is_small, |c| {
                        let x = c.x(rn, Ty::I64);
                        from_int(c, fmt, x, rd);
                    });
                }
            }
        }
        // FCVTZS: what does not fit is the least integer, and anything else than that is right.
        (3, 0) if !c.mode.flushes() => {
            let ty = format(ty)?;
            let result = to_int(c, ty, sf, None, rn);
            let ty = width(sf);
            let least = c.imm(ty, 1u64.wrapping_shl(ty.bits().wrapping_sub(1)));
            let is_right = c.b.cmp(Cmp::Ne, result, least);
            when(c, is_right, |c| c.set_x(rd, result));
        }
        // The others: what is surely in range, for SSE is not only invalid where it is not.
        (_, 0 | 1) | (0, 4 | 5) if !c.mode.flushes() => {
            let fmt = format(ty)?;
            let is_away = opcode >= 4;
            let round = match rmode {
                0 if is_away => None,
                0 => Some(FpRound::Nearest),
                1 => Some(FpRound::Up),
                2 => Some(FpRound::Down),
                _ => None,
            };
            if (round.is_some() || is_away) && !c.fp_host.rounds {
                return None;
            }
            let bits = bits_of(c, fmt, rn);
            // A negative number is, as bits, greater than all positive ones.
            let magnitude = match opcode & 1 {
                0 => c.binary_imm(Binary::And, bits, !sign(fmt)),
                _ => bits,
            };
            let limit = c.imm(Ty::I64, half_of_range(fmt, sf));
            let is_within = c.b.cmp(Cmp::Ltu, magnitude, limit);
            when(c, is_within, |c| {
                let mut result = to_int(c, fmt, sf, round, rn);
                if is_away {
                    let n = scalar(c, fmt, rn);
                    let more = float_away::correction(c, fmt, n, width(sf));
                    result = c.b.add(result, more);
                }
                c.set_x(rd, result);
            });
        }
        _ => return None,
    }
    Some(())
}

fn from_int(c: &mut Ctx, fmt: FpFmt, x: Val, rd: u32) {
    let zero = c.imm(Ty::I64, 0);
    let zeros = c.b.vec_make(zero, zero);
    let result = c.b.fp_from_int(fmt, FpRules::Sse, zeros, x);
    c.b.set_v(regs::v(rd), result);
}

/// The bits of 2^30, or of 2^62 for 64-bit integers.
fn half_of_range(fmt: FpFmt, sf: u32) -> u64 {
    let exponent = if sf != 0 { 62 } else { 30u64 };
    match fmt {
        FpFmt::F32 => exponent.wrapping_add(127) << 23,
        FpFmt::F64 => exponent.wrapping_add(1023) << 52,
    }
}

fn to_int(c: &mut Ctx, fmt: FpFmt, sf: u32, round: Option<FpRound>, rn: u32) -> Val {
    let mut n = scalar(c, fmt, rn);
    if let Some(to) = round {
        // Inexact here, as what follows is not.
        n = c.b.fp(how(FpOp::Round(to), fmt, FpShape::Scalar), n, n);
    }
    let how = ToInt {
        fmt,
        rules: FpRules::Sse,
        truncate: true,
    };
    c.b.fp_to_int(how, n, width(sf))
}
