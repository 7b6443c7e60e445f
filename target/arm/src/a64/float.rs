//! Scalar floating point (DDI 0487, C4.1.97).
//!
//! Arithmetic is that of SSE, whose results and flags are Arm's but for two cases (Intel SDM vol. 1,
//! 4.8.3.5 and 4.9.1.5; DDI 0487, A1.5): which NaN comes out, and whether a result that was rounded up
//! to the least normal number underflowed. In these, and wherever FPCR.FZ is set, [`crate::float`]
//! computes again. Flags that SSE leaves are part of FPSR: see [`crate::float::fpsr_now`].

use accel_ir::{Binary, Cmp, Fp, FpCompare, FpFmt, FpOp, FpRules, FpShape, ToInt, Ty, Val};

use super::context::{Ctx, width};
use crate::simd::moves::float_immediate;
use crate::{helper, regs};

mod table {
    include!(concat!(env!("OUT_DIR"), "/float.rs"));
}
pub(crate) use table::{FORMS, Insn, decode};

pub(super) fn translate(c: &mut Ctx, insn: Insn) -> Option<()> {
    if !c.fp_access() {
        return Some(());
    }
    if emit(c, insn).is_none() {
        again(c, helper::FLOAT);
    }
    Some(())
}

/// Has a helper compute the instruction.
pub(super) fn again(c: &mut Ctx, by: accel_ir::HelperId) {
    let word = c.imm(Ty::I64, c.word.into());
    c.b.call_void(by, &[word]);
}

fn format(ty: u32) -> Option<FpFmt> {
    match ty {
        0 => Some(FpFmt::F32),
        1 => Some(FpFmt::F64),
        _ => None,
    }
}

pub(crate) fn how(op: FpOp, fmt: FpFmt, shape: FpShape) -> Fp {
    Fp {
        op,
        fmt,
        shape,
        rules: FpRules::Sse,
    }
}

/// The low lane of a vector.
fn low(c: &mut Ctx, fmt: FpFmt, v: Val) -> Val {
    let half = c.b.vec_half(v, false);
    match fmt {
        FpFmt::F32 => c.b.extract(half, 0, 32, Ty::I64),
        FpFmt::F64 => half,
    }
}

/// Writes bits to the low lane, and zeros above.
fn set_bits(c: &mut Ctx, rd: u32, bits: Val) {
    let zero = c.imm(Ty::I64, 0);
    let v = c.b.vec_make(bits, zero);
    c.b.set_v(regs::v(rd), v);
}

fn bits_of(c: &mut Ctx, fmt: FpFmt, n: u32) -> Val {
    let v = c.b.get_v(regs::v(n));
    low(c, fmt, v)
}

/// Sign bit of a format.
fn sign(fmt: FpFmt) -> u64 {
    match fmt {
        FpFmt::F32 => 1 << 31,
        FpFmt::F64 => 1 << 63,
    }
}

/// Whether a result is one that SSE may have wrong, or zero; and what is zero if it is zero.
pub(crate) fn rare(c: &mut Ctx, fmt: FpFmt, bits: Val) -> (Val, Val) {
    // Without its sign, less one: subnormal numbers and the least normal one are the lowest, NaNs the
    // highest. So they are together from `first` on, with zero among them.
    let (least, nan) = match fmt {
        FpFmt::F32 => (0x0100_0000u64, 0xff00_0000u64),
        FpFmt::F64 => (0x0020_0000_0000_0000, 0xffe0_0000_0000_0000),
    };
    let ty = match fmt {
        FpFmt::F32 => Ty::I32,
        FpFmt::F64 => Ty::I64,
    };
    let number = c.b.zext(bits, ty);
    let magnitude = c.shl(number, 1);
    let span = nan.wrapping_neg() & ty.mask();
    let moved = c.binary_imm(Binary::Add, magnitude, span.wrapping_sub(1) & ty.mask());
    let limit = c.imm(ty, span.wrapping_add(least));
    (c.b.cmp(Cmp::Ltu, moved, limit), magnitude)
}

/// Writes a result, unless it is one that SSE may have wrong.
fn settle(c: &mut Ctx, fmt: FpFmt, result: Val, rd: u32) {
    let bits = low(c, fmt, result);
    let (is_rare, magnitude) = rare(c, fmt, bits);
    let (rare, slow, store, done) = (c.b.block(), c.b.block(), c.b.block(), c.b.block());
    c.b.branch(is_rare, rare, store);
    c.b.switch(rare);
    let zero = c.imm(c.b.ty(magnitude), 0);
    let is_zero = c.b.cmp(Cmp::Eq, magnitude, zero);
    c.b.branch(is_zero, store, slow);
    c.b.switch(slow);
    again(c, helper::FLOAT);
    c.b.jump(done, &[]);
    c.b.switch(store);
    set_bits(c, rd, bits);
    c.b.jump(done, &[]);
    c.b.switch(done);
}

/// Emits an instruction, if it is one of those here.
fn emit(c: &mut Ctx, insn: Insn) -> Option<()> {
    match insn {
        Insn::FpTwo {
            r#type,
            rm,
            opcode,
            rn,
            rd,
        } if !c.mode.flushes() => {
            let fmt = format(r#type)?;
            let op = match opcode {
                0 => FpOp::Mul,
                1 => FpOp::Div,
                2 => FpOp::Add,
                3 => FpOp::Sub,
                _ => return None,
            };
            let (n, m) = (c.b.get_v(regs::v(rn)), c.b.get_v(regs::v(rm)));
            let result = c.b.fp(how(op, fmt, FpShape::Scalar), n, m);
            settle(c, fmt, result, rd);
        }
        Insn::FpOne {
            r#type,
            opcode,
            rn,
            rd,
        } => return one(c, r#type, opcode, rn, rd),
        Insn::FpCmp {
            r#type,
            rm,
            rn,
            e,
            z,
        } if !c.mode.flushes() => {
            let flags = compare(c, r#type, (rn, (z == 0).then_some(rm)), e)?;
            c.raw_flags(flags);
        }
        Insn::FpCsel {
            r#type,
            rm,
            cond,
            rn,
            rd,
        } => {
            let fmt = format(r#type)?;
            let holds = c.holds(cond);
            let (n, m) = (bits_of(c, fmt, rn), bits_of(c, fmt, rm));
            let bits = c.b.select(holds, n, m);
            set_bits(c, rd, bits);
        }
        Insn::FpImm { r#type, imm, rd } => {
            let width = match format(r#type)? {
                FpFmt::F32 => 32,
                FpFmt::F64 => 64,
            };
            let bits = c.imm(Ty::I64, float_immediate(imm, width));
            set_bits(c, rd, bits);
        }
        Insn::FpInt {
            sf,
            r#type,
            rmode,
            opcode,
            rn,
            rd,
        } => return integer(c, (sf, r#type), (rmode, opcode), rn, rd),
        _ => return None,
    }
    Some(())
}

fn one(c: &mut Ctx, ty: u32, opcode: u32, rn: u32, rd: u32) -> Option<()> {
    let fmt = format(ty)?;
    match opcode {
        // FMOV, FABS, FNEG.
        0..=2 => {
            let bits = bits_of(c, fmt, rn);
            let bits = match opcode {
                0 => bits,
                1 => c.binary_imm(Binary::And, bits, !sign(fmt)),
                _ => c.binary_imm(Binary::Xor, bits, sign(fmt)),
            };
            set_bits(c, rd, bits);
        }
        3 if !c.mode.flushes() => {
            let n = c.b.get_v(regs::v(rn));
            let result = c.b.fp(how(FpOp::Sqrt, fmt, FpShape::Scalar), n, n);
            settle(c, fmt, result, rd);
        }
        // FCVT between single and double.
        4 | 5 if !c.mode.flushes() && opcode & 1 != ty => {
            let to = format(opcode & 1)?;
            let n = c.b.get_v(regs::v(rn));
            let result = c.b.fp(how(FpOp::Convert, to, FpShape::Scalar), n, n);
            settle(c, to, result, rd);
        }
        _ => return None,
    }
    Some(())
}

/// The flags of a comparison, in x86's places with C inverted.
fn compare(c: &mut Ctx, ty: u32, (rn, rm): (u32, Option<u32>), e: u32) -> Option<Val> {
    let fmt = format(ty)?;
    let n = c.b.get_v(regs::v(rn));
    let m = match rm {
        Some(rm) => c.b.get_v(regs::v(rm)),
        None => {
            let zero = c.imm(Ty::I64, 0);
            c.b.vec_make(zero, zero)
        }
    };
    let how = FpCompare {
        fmt,
        rules: FpRules::Sse,
        signals: e != 0,
    };
    let relation = c.b.fp_compare(how, n, m);
    // Less is N, equal is Z and C, greater C, unordered C and V; C is inverted.
    let less = c.binary_imm(Binary::And, relation, accel_ir::flags::CF);
    let equal = c.binary_imm(Binary::And, relation, accel_ir::flags::ZF);
    let minus = c.shl(less, 7);
    let both = c.b.or(less, minus);
    let ordered = c.b.or(both, equal);
    let unordered = c.binary_imm(Binary::And, relation, accel_ir::flags::PF);
    let overflow = c.imm(Ty::I64, accel_ir::flags::OF);
    Some(c.b.select(unordered, overflow, ordered))
}

fn integer(
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
        // SCVTF, and UCVTF of what is not negative as 64 bits.
        (0, 2 | 3) if opcode == 2 || sf == 0 => {
            let fmt = format(ty)?;
            let x = c.x(rn, width(sf));
            let x = match (opcode, sf) {
                (3, _) => c.b.zext(x, Ty::I64),
                _ => x,
            };
            let old = c.b.get_v(regs::v(rd));
            let result = c.b.fp_from_int(fmt, FpRules::Sse, old, x);
            let bits = low(c, fmt, result);
            set_bits(c, rd, bits);
        }
        // FCVTZS: what does not fit is the least integer, and anything else than that is right.
        (3, 0) if !c.mode.flushes() => {
            let how = ToInt {
                fmt: format(ty)?,
                rules: FpRules::Sse,
                truncate: true,
            };
            let ty = width(sf);
            let n = c.b.get_v(regs::v(rn));
            let result = c.b.fp_to_int(how, n, ty);
            let least = c.imm(ty, 1u64.wrapping_shl(ty.bits().wrapping_sub(1)));
            let is_rare = c.b.cmp(Cmp::Eq, result, least);
            let (slow, store, done) = (c.b.block(), c.b.block(), c.b.block());
            c.b.branch(is_rare, slow, store);
            c.b.switch(slow);
            again(c, helper::FLOAT);
            c.b.jump(done, &[]);
            c.b.switch(store);
            c.set_x(rd, result);
            c.b.jump(done, &[]);
            c.b.switch(done);
        }
        _ => return None,
    }
    Some(())
}
