//! Integer operations of Advanced SIMD as operations of the IR. What is not here, [`crate::simd`]
//! computes; a form that returns `None` has emitted nothing but values that nobody uses.

use accel_ir::{Binary, Ty, Val, VecOp};

use super::context::{Ctx, width};
use super::float_lanes;
use super::lanes::{ABS, ADD, EQUAL, SUB, UNPACK_HIGH, UNPACK_LOW, of, picks, repeat};
use super::simd::Insn;
use crate::regs;
use crate::simd::moves::expand_immediate;

/// Emits an instruction, if it is one of those here.
pub(super) fn emit(c: &mut Ctx, insn: Insn) -> Option<()> {
    match insn {
        Insn::ThreeSame {
            q,
            u,
            size,
            rm,
            opcode,
            rn,
            rd,
            scalar,
        } => {
            if opcode >= 0b11000 && scalar == 0 {
                return float_lanes::three_same(c, (opcode, u, size), q, (rn, rm), rd);
            }
            if size == 3 && q == 0 && scalar == 0 && opcode != 3 || scalar != 0 && opcode != 16 {
                return None;
            }
            if scalar != 0 && size != 3 {
                return None;
            }
            let how = (opcode, u, size);
            let (n, m) = (c.v(rn), c.v(rm));
            let result = three_same(c, how, q, (n, m), rd)?;
            c.set_vec(rd, q & !scalar, result);
        }
        Insn::TwoMisc {
            q,
            u,
            size,
            opcode,
            rn,
            rd,
            scalar: 0,
        } => {
            if size == 3 && q == 0 {
                return None;
            }
            if let Some(()) = float_lanes::two_misc(c, (opcode, u, size), q, rn, rd) {
                return Some(());
            }
            let n = c.v(rn);
            let result = two_misc(c, (opcode, u, size), q, n, rd)?;
            c.set_vec(rd, if opcode == 0b10010 { 1 } else { q }, result);
        }
        Insn::ShiftImm {
            q,
            u,
            immh,
            immb,
            opcode,
            rn,
            rd,
            scalar: 0,
        } => return shift(c, (q, u, opcode), immh << 3 | immb, rn, rd),
        Insn::ModifiedImm {
            q,
            op,
            high,
            cmode,
            o2: 0,
            low,
            rd,
        } => {
            if cmode == 15 && op != 0 && q == 0 {
                return None;
            }
            let value = expand_immediate(op, cmode, high << 5 | low);
            let both = c.all_lanes(value, 3);
            let result = match (cmode & 1 != 0 && cmode < 12, op) {
                (true, 0) => {
                    let old = c.v(rd);
                    c.vec(VecOp::Or, old, both)
                }
                (true, _) => {
                    let old = c.v(rd);
                    c.vec(VecOp::AndNot, both, old)
                }
                (false, 1) if cmode < 14 => c.all_lanes(!value, 3),
                _ => both,
            };
            c.set_vec(rd, q, result);
        }
        Insn::Copy {
            q,
            op,
            imm5,
            imm4,
            rn,
            rd,
        } => return copy(c, (q, op), (imm5, imm4), rn, rd),
        Insn::Permute {
            q,
            size,
            rm,
            opcode,
            rn,
            rd,
        } => {
            if size == 3 && q == 0 {
                return None;
            }
            let (n, m) = (c.v(rn), c.v(rm));
            let part = opcode >> 2;
            let result = match opcode & 3 {
                1 => c.every_other(size, q, part, n, m),
                2 => {
                    let lanes = 16u32.wrapping_shr(size);
                    let even = |lane: u32, on: u32| lane & 1 == on;
                    // Lanes that are not taken from here are zero.
                    let mut choose = |v: Val, on: u32| {
                        let bytes = picks(size, lanes, |i| (i & !1).wrapping_add(part));
                        let mask = (0..16u32).fold(0u128, |out, n| {
                            let keep = even(n.wrapping_shr(size), on);
                            let byte = if keep { 0 } else { 0x80u128 };
                            out | byte.wrapping_shl(n.wrapping_mul(8))
                        });
                        c.shuffle(v, bytes | mask)
                    };
                    let (a, b) = (choose(n, 0), choose(m, 1));
                    c.vec(VecOp::Or, a, b)
                }
                3 if q == 0 => {
                    let both = c.vec(of(UNPACK_LOW, size)?, n, m);
                    match part {
                        0 => both,
                        _ => c.vec_imm(VecOp::ShrBytes, both, 8),
                    }
                }
                3 => {
                    let table = if part == 0 { UNPACK_LOW } else { UNPACK_HIGH };
                    c.vec(of(table, size)?, n, m)
                }
                _ => return None,
            };
            c.set_vec(rd, q, result);
        }
        Insn::Ext {
            q,
            rm,
            index,
            rn,
            rd,
        } => {
            if q == 0 && index > 7 {
                return None;
            }
            let (n, m) = (c.v(rn), c.v(rm));
            let result = match q {
                0 => {
                    let both = c.vec(VecOp::UnpackLo64, n, m);
                    c.vec_imm(VecOp::ShrBytes, both, index)
                }
                _ => c.b.vec(VecOp::Align8, m, n, index as u8),
            };
            c.set_vec(rd, q, result);
        }
        Insn::Tbl {
            q,
            rm,
            len: 0,
            op: 0,
            rn,
            rd,
        } => {
            let (n, m) = (c.v(rn), c.v(rm));
            // Numbers from 16 on get their top bit, by which zero is chosen.
            let push = c.all_lanes(0x70, 0);
            let picks = c.vec(VecOp::AddU8, m, push);
            let result = c.vec(VecOp::Shuffle8, n, picks);
            c.set_vec(rd, q, result);
        }
        Insn::Across {
            q,
            u: 1,
            size: 0,
            opcode: opcode @ (0b01010 | 0b11010),
            rn,
            rd,
        } => {
            let op = if opcode == 0b01010 {
                VecOp::MaxU8
            } else {
                VecOp::MinU8
            };
            let mut v = c.v(rn);
            for bytes in [8, 4, 2, 1].into_iter().skip(usize::from(q == 0)) {
                let moved = c.vec_imm(VecOp::ShrBytes, v, bytes);
                v = c.vec(op, v, moved);
            }
            let low = c.b.vec_half(v, false);
            let low = c.binary_imm(Binary::And, low, 0xff);
            let zero = c.imm(Ty::I64, 0);
            let v = c.b.vec_make(low, zero);
            c.b.set_v(regs::v(rd), v);
        }
        // ADDV of bytes.
        Insn::Across {
            q,
            u: 0,
            size: 0,
            opcode: 0b11011,
            rn,
            rd,
        } => {
            let (n, zero) = (c.v(rn), c.vec_const(0));
            let sums = c.vec(VecOp::Sad8, n, zero);
            let mut sum = c.b.vec_half(sums, false);
            if q != 0 {
                let high = c.b.vec_half(sums, true);
                sum = c.b.add(sum, high);
            }
            let sum = c.binary_imm(Binary::And, sum, 0xff);
            let zero = c.imm(Ty::I64, 0);
            let v = c.b.vec_make(sum, zero);
            c.b.set_v(regs::v(rd), v);
        }
        // ADDP (scalar).
        Insn::Pairwise {
            u: 0,
            size: 3,
            opcode: 0b11011,
            rn,
            rd,
        } => {
            let n = c.v(rn);
            let (low, high) = (c.b.vec_half(n, false), c.b.vec_half(n, true));
            let (sum, zero) = (c.b.add(low, high), c.imm(Ty::I64, 0));
            let v = c.b.vec_make(sum, zero);
            c.b.set_v(regs::v(rd), v);
        }
        Insn::ByElement {
            q,
            u: 0,
            size,
            l,
            m,
            rm,
            opcode,
            h,
            rn,
            rd,
            scalar,
        } if size >= 2 => {
            let element = (size, h << 1 | l, m << 4 | rm);
            return float_lanes::by_element(c, opcode, (q, scalar), element, (rn, rd));
        }
        // FADDP (scalar).
        Insn::Pairwise {
            u: 1,
            size: size @ (0 | 1),
            opcode: 0b01101,
            rn,
            rd,
        } => return float_lanes::pair(c, size, rn, rd),
        _ => return None,
    }
    Some(())
}

fn three_same(
    c: &mut Ctx,
    (opcode, u, size): (u32, u32, u32),
    q: u32,
    (n, m): (Val, Val),
    rd: u32,
) -> Option<Val> {
    let unsigned = u != 0;
    Some(match (opcode, u) {
        (0b00011, 0) => match size {
            0 => c.vec(VecOp::And, n, m),
            1 => c.vec(VecOp::AndNot, m, n),
            2 => c.vec(VecOp::Or, n, m),
            _ => {
                let m = c.vec_not(m);
                c.vec(VecOp::Or, n, m)
            }
        },
        (0b00011, _) => match size {
            0 => c.vec(VecOp::Xor, n, m),
            // BSL, BIT, BIF: the mask is the destination, or the second operand.
            1 => {
                let d = c.v(rd);
                c.vec_choose(d, n, m)
            }
            2 => {
                let d = c.v(rd);
                c.vec_choose(m, n, d)
            }
            _ => {
                let d = c.v(rd);
                c.vec_choose(m, d, n)
            }
        },
        (0b10000, 0) => c.vec(of(ADD, size)?, n, m),
        (0b10000, _) => c.vec(of(SUB, size)?, n, m),
        (0b10001, 0) => {
            let (both, zero) = (c.vec(VecOp::And, n, m), c.vec_const(0));
            let none = c.vec(of(EQUAL, size)?, both, zero);
            c.vec_not(none)
        }
        (0b10001, _) => c.vec(of(EQUAL, size)?, n, m),
        (0b00110, _) => c.greater(size, unsigned, n, m)?,
        (0b00111, _) => {
            let less = c.greater(size, unsigned, m, n)?;
            c.vec_not(less)
        }
        (0b01100 | 0b01101, _) => c.extreme(size, unsigned, opcode & 1 == 0, n, m)?,
        (0b10011, 0) => c.product(size, n, m)?,
        (0b10010, _) => {
            let product = c.product(size, n, m)?;
            let d = c.v(rd);
            let table = if unsigned { SUB } else { ADD };
            c.vec(of(table, size)?, d, product)
        }
        (0b10100 | 0b10101, _) => {
            let even = c.every_other(size, q, 0, n, m);
            let odd = c.every_other(size, q, 1, n, m);
            c.extreme(size, unsigned, opcode & 1 == 0, even, odd)?
        }
        (0b10111, 0) => {
            let even = c.every_other(size, q, 0, n, m);
            let odd = c.every_other(size, q, 1, n, m);
            c.vec(of(ADD, size)?, even, odd)
        }
        _ => return None,
    })
}

fn two_misc(
    c: &mut Ctx,
    (opcode, u, size): (u32, u32, u32),
    q: u32,
    n: Val,
    rd: u32,
) -> Option<Val> {
    let zero = c.vec_const(0);
    Some(match (opcode, u) {
        // REV64, REV32, REV16: lanes in turned order within 8, 4 or 2 bytes.
        (0b00000 | 0b00001, _) => {
            let group = match (opcode, u) {
                (0, 0) => 3,
                (0, _) => 2,
                (_, 0) => 1,
                _ => return None,
            };
            if size >= group {
                return None;
            }
            let flip = 1u32.wrapping_shl(group.wrapping_sub(size)).wrapping_sub(1);
            let choose = picks(size, 16u32.wrapping_shr(size), |i| i ^ flip);
            c.shuffle(n, choose)
        }
        (0b00101, 0) if size == 0 => {
            // CNT: of each half byte by a table.
            let low = c.all_lanes(0x0f, 0);
            let table = c.vec_const(0x04030302_03020201_03020201_02010100);
            let high = c.vec_imm(VecOp::ShrImm16, n, 4);
            let (a, b) = (c.vec(VecOp::And, n, low), c.vec(VecOp::And, high, low));
            let a = c.vec(VecOp::Shuffle8, table, a);
            let b = c.vec(VecOp::Shuffle8, table, b);
            c.vec(VecOp::Add8, a, b)
        }
        (0b00101, 1) if size == 0 => c.vec_not(n),
        (0b01000, 0) => c.greater(size, false, n, zero)?,
        (0b01000, _) => {
            let less = c.greater(size, false, zero, n)?;
            c.vec_not(less)
        }
        (0b01001, 0) => c.vec(of(EQUAL, size)?, n, zero),
        (0b01001, _) => {
            let more = c.greater(size, false, n, zero)?;
            c.vec_not(more)
        }
        (0b01010, 0) => c.greater(size, false, zero, n)?,
        (0b01011, 0) => c.vec_imm(of(ABS, size)?, n, 0),
        (0b01011, _) => c.vec(of(SUB, size)?, zero, n),
        // XTN, XTN2.
        (0b10010, 0) if size < 3 => narrow(c, size, q, n, rd),
        _ => return None,
    })
}

/// The low halves of lanes of twice `size`: into the low half of a register, or its high half.
fn narrow(c: &mut Ctx, size: u32, q: u32, n: Val, rd: u32) -> Val {
    let choose = picks(size, 8u32.wrapping_shr(size), |i| i.wrapping_mul(2));
    let low = c.shuffle(n, choose);
    match q {
        0 => low,
        _ => {
            let d = c.v(rd);
            c.vec(VecOp::UnpackLo64, d, low)
        }
    }
}

fn shift(c: &mut Ctx, (q, u, opcode): (u32, u32, u32), imm: u32, rn: u32, rd: u32) -> Option<()> {
    let size = (imm >> 3).checked_ilog2()?;
    let bits = 8u32.wrapping_shl(size);
    if size == 3 && q == 0 {
        return None;
    }
    let right = bits.wrapping_mul(2).wrapping_sub(imm);
    let left = imm.wrapping_sub(bits);
    let signed = u == 0;
    let n = c.v(rn);
    let result = match (opcode, u) {
        // SSHR, USHR, SSRA, USRA.
        (0b00000 | 0b00010, _) => {
            let moved = match (right == bits, signed) {
                (true, false) => c.vec_const(0),
                (true, true) => c.shift_right(size, true, n, bits.wrapping_sub(1))?,
                _ => c.shift_right(size, signed, n, right)?,
            };
            match opcode {
                0 => moved,
                _ => {
                    let d = c.v(rd);
                    c.vec(of(ADD, size)?, d, moved)
                }
            }
        }
        (0b01010, 0) => c.shift_left(size, n, left),
        // SLI, SRI: the bits shifted in are the destination's.
        (0b01010, _) => {
            let moved = c.shift_left(size, n, left);
            let mask = c.all_lanes(u64::MAX.wrapping_shl(left), size);
            let d = c.v(rd);
            c.vec_choose(mask, moved, d)
        }
        (0b01000, 1) if right < bits => {
            let moved = c.shift_right(size, false, n, right)?;
            let lane = u64::MAX.wrapping_shr(64u32.wrapping_sub(bits));
            let mask = c.all_lanes(lane.wrapping_shr(right), size);
            let d = c.v(rd);
            c.vec_choose(mask, moved, d)
        }
        // SHRN, SHRN2: from lanes of twice the size.
        (0b10000, 0) if size < 3 => {
            let moved = c.shift_right(size.wrapping_add(1), false, n, right)?;
            let result = narrow(c, size, q, moved, rd);
            c.set_vec(rd, 1, result);
            return Some(());
        }
        // SSHLL, USHLL: to lanes of twice the size.
        (0b10100, _) if size < 3 => {
            let table = if q == 0 { UNPACK_LOW } else { UNPACK_HIGH };
            let zero = c.vec_const(0);
            let wide = size.wrapping_add(1);
            let wider = if signed {
                let high = c.vec(of(table, size)?, zero, n);
                c.shift_right(wide, true, high, bits)?
            } else {
                c.vec(of(table, size)?, n, zero)
            };
            let result = c.shift_left(wide, wider, left);
            c.set_vec(rd, 1, result);
            return Some(());
        }
        _ => return None,
    };
    c.set_vec(rd, q, result);
    Some(())
}

/// DUP, INS, SMOV, UMOV.
fn copy(
    c: &mut Ctx,
    (q, op): (u32, u32),
    (imm5, imm4): (u32, u32),
    rn: u32,
    rd: u32,
) -> Option<()> {
    let size = imm5.trailing_zeros();
    if size > 3 {
        return None;
    }
    let bits = 8u32.wrapping_shl(size);
    let index = imm5.wrapping_shr(size.wrapping_add(1));
    let lane_at = |index: u32| (index.wrapping_mul(bits) & 63) as u8;
    let is_high = |index: u32| index.wrapping_mul(bits) >= 64;
    let lane = |c: &mut Ctx, n: u32, index: u32| {
        let v = c.v(n);
        let half = c.b.vec_half(v, is_high(index));
        match bits {
            64 => half,
            _ => c.b.extract(half, lane_at(index), bits as u8, Ty::I64),
        }
    };
    let from_x = |c: &mut Ctx, n: u32| {
        let x = c.x(n, Ty::I64);
        match bits {
            64 => x,
            _ => c.b.extract(x, 0, bits as u8, Ty::I64),
        }
    };
    let put = |c: &mut Ctx, index: u32, value: Val| {
        let v = c.v(rd);
        let (low, high) = (c.b.vec_half(v, false), c.b.vec_half(v, true));
        let change = |c: &mut Ctx, half: Val| match bits {
            64 => value,
            _ => c.b.insert(half, value, lane_at(index), bits as u8),
        };
        let (low, high) = match is_high(index) {
            true => (low, change(c, high)),
            false => (change(c, low), high),
        };
        let v = c.b.vec_make(low, high);
        c.b.set_v(regs::v(rd), v);
    };
    match (op, imm4) {
        // DUP.
        (0, 0 | 1) => {
            if size == 3 && q == 0 {
                return None;
            }
            let value = match imm4 {
                0 => lane(c, rn, index),
                _ => from_x(c, rn),
            };
            let value = match bits {
                64 => value,
                _ => c.binary_imm(Binary::Mul, value, repeat(1, size)),
            };
            let high = match q {
                0 => c.imm(Ty::I64, 0),
                _ => value,
            };
            let v = c.b.vec_make(value, high);
            c.b.set_v(regs::v(rd), v);
        }
        // INS.
        (0, 3) if q != 0 => {
            let value = from_x(c, rn);
            put(c, index, value);
        }
        (1, _) if q != 0 => {
            let value = lane(c, rn, imm4.wrapping_shr(size));
            put(c, index, value);
        }
        // SMOV, UMOV.
        (0, 5) if size < 2 || size == 2 && q != 0 => {
            let value = lane(c, rn, index);
            let narrow = match size {
                0 => Ty::I8,
                1 => Ty::I16,
                _ => Ty::I32,
            };
            let value = c.b.zext(value, narrow);
            let value = c.b.sext(value, width(q));
            c.set_x(rd, value);
        }
        (0, 7) if (size == 3) == (q != 0) => {
            let value = lane(c, rn, index);
            c.set_x(rd, value);
        }
        _ => return None,
    }
    Some(())
}
