//! SSE floating point: arithmetic, comparisons and conversions (SDM vol. 1, 10.4.1, 11.4.1 and 12.3).
//!
//! One row of [`row`] names an instruction's operation, format and shape. While MXCSR masks all
//! exceptions, which is part of the mode, operations are IR of their own; otherwise they are calls
//! of the helpers below, which compute the same and raise #XM before anything is written.

use accel_core::Trap;
use accel_ir::{Fp, FpCmp, FpCompare, FpFmt, FpOp, FpRules, FpShape, ToInt, Ty, fp};
use iced_x86::Mnemonic;
use target_softfloat::{Env, F32, Flags, Float};

use crate::state::vector;
use crate::{Core, regs, system};

/// CR4.OSXMMEXCPT: the system handles #XM.
const CR4_OSXMMEXCPT: u64 = 1 << 10;

/// Operation, format and shape of an instruction on XMM registers; `imm` is its immediate.
pub(super) fn row(mnemonic: Mnemonic, imm: u8) -> Option<Fp> {
    use FpFmt::{F32, F64};
    use FpOp::*;
    use FpShape::{Packed, Scalar};
    use Mnemonic as M;
    let cmp = Cmp(FpCmp::from_number(imm));
    let (op, fmt, shape) = match mnemonic {
        M::Addss => (Add, F32, Scalar),
        M::Addsd => (Add, F64, Scalar),
        M::Addps => (Add, F32, Packed),
        M::Addpd => (Add, F64, Packed),
        M::Subss => (Sub, F32, Scalar),
        M::Subsd => (Sub, F64, Scalar),
        M::Subps => (Sub, F32, Packed),
        M::Subpd => (Sub, F64, Packed),
        M::Mulss => (Mul, F32, Scalar),
        M::Mulsd => (Mul, F64, Scalar),
        M::Mulps => (Mul, F32, Packed),
        M::Mulpd => (Mul, F64, Packed),
        M::Divss => (Div, F32, Scalar),
        M::Divsd => (Div, F64, Scalar),
        M::Divps => (Div, F32, Packed),
        M::Divpd => (Div, F64, Packed),
        M::Minss => (Min, F32, Scalar),
        M::Minsd => (Min, F64, Scalar),
        M::Minps => (Min, F32, Packed),
        M::Minpd => (Min, F64, Packed),
        M::Maxss => (Max, F32, Scalar),
        M::Maxsd => (Max, F64, Scalar),
        M::Maxps => (Max, F32, Packed),
        M::Maxpd => (Max, F64, Packed),
        M::Cmpss => (cmp, F32, Scalar),
        M::Cmpsd => (cmp, F64, Scalar),
        M::Cmpps => (cmp, F32, Packed),
        M::Cmppd => (cmp, F64, Packed),
        M::Sqrtss => (Sqrt, F32, Scalar),
        M::Sqrtsd => (Sqrt, F64, Scalar),
        M::Sqrtps => (Sqrt, F32, Packed),
        M::Sqrtpd => (Sqrt, F64, Packed),
        M::Haddps => (HAdd, F32, Packed),
        M::Haddpd => (HAdd, F64, Packed),
        M::Hsubps => (HSub, F32, Packed),
        M::Hsubpd => (HSub, F64, Packed),
        M::Addsubps => (AddSub, F32, Packed),
        M::Addsubpd => (AddSub, F64, Packed),
        M::Cvtss2sd => (Convert, F64, Scalar),
        M::Cvtsd2ss => (Convert, F32, Scalar),
        M::Cvtps2pd => (Convert, F64, Packed),
        M::Cvtpd2ps => (Convert, F32, Packed),
        M::Cvtdq2ps | M::Cvtpi2ps => (FromI32, F32, Packed),
        M::Cvtdq2pd | M::Cvtpi2pd => (FromI32, F64, Packed),
        M::Cvtps2dq | M::Cvtps2pi => (ToI32, F32, Packed),
        M::Cvttps2dq | M::Cvttps2pi => (ToI32Trunc, F32, Packed),
        M::Cvtpd2dq | M::Cvtpd2pi => (ToI32, F64, Packed),
        M::Cvttpd2dq | M::Cvttpd2pi => (ToI32Trunc, F64, Packed),
        _ => return None,
    };
    Some(Fp {
        op,
        fmt,
        shape,
        rules: FpRules::Sse,
    })
}

/// The conversion of CVTSS2SI and its like.
pub(super) fn to_int_row(mnemonic: Mnemonic) -> Option<ToInt> {
    let (fmt, truncate) = match mnemonic {
        Mnemonic::Cvtss2si => (FpFmt::F32, false),
        Mnemonic::Cvttss2si => (FpFmt::F32, true),
        Mnemonic::Cvtsd2si => (FpFmt::F64, false),
        Mnemonic::Cvttsd2si => (FpFmt::F64, true),
        _ => return None,
    };
    Some(ToInt {
        fmt,
        rules: FpRules::Sse,
        truncate,
    })
}

/// The comparison of COMISS and its like.
pub(super) fn compare_row(mnemonic: Mnemonic) -> Option<FpCompare> {
    let (fmt, signals) = match mnemonic {
        Mnemonic::Comiss => (FpFmt::F32, true),
        Mnemonic::Comisd => (FpFmt::F64, true),
        Mnemonic::Ucomiss => (FpFmt::F32, false),
        Mnemonic::Ucomisd => (FpFmt::F64, false),
        _ => return None,
    };
    Some(FpCompare {
        fmt,
        rules: FpRules::Sse,
        signals,
    })
}

/// Operations by the number that helpers get; comparisons follow.
const OPS: [FpOp; 14] = [
    FpOp::Add,
    FpOp::Sub,
    FpOp::Mul,
    FpOp::Div,
    FpOp::Min,
    FpOp::Max,
    FpOp::Sqrt,
    FpOp::HAdd,
    FpOp::HSub,
    FpOp::AddSub,
    FpOp::Convert,
    FpOp::FromI32,
    FpOp::ToI32,
    FpOp::ToI32Trunc,
];

fn format(double: bool) -> FpFmt {
    if double { FpFmt::F64 } else { FpFmt::F32 }
}

/// The first argument of [`operate`]; `dst` is the XMM register that gets the result, if one does.
pub(super) fn code_of(how: Fp, dst: Option<usize>) -> u64 {
    let op = match how.op {
        FpOp::Cmp(cmp) => OPS.len().wrapping_add(cmp as usize),
        op => OPS.iter().position(|o| *o == op).unwrap_or_default(),
    };
    let bytes = [
        op as u8,
        u8::from(how.fmt == FpFmt::F64),
        u8::from(how.shape == FpShape::Packed),
        dst.map_or(NOWHERE, |dst| dst as u8),
    ];
    u32::from_le_bytes(bytes).into()
}

/// In place of a register's number.
const NOWHERE: u8 = 0xff;

/// (code, low half of b, high half of b): XMM(dst) becomes `XMM(dst) op b`. Returns the low half.
pub(super) fn operate(core: &mut Core, [code, low, high, _]: [u64; 4]) -> Result<u64, Trap> {
    let [op, double, packed, dst, ..] = code.to_le_bytes();
    let op = OPS
        .get(usize::from(op))
        .copied()
        .unwrap_or(FpOp::Cmp(FpCmp::from_number(
            op.wrapping_sub(OPS.len() as u8),
        )));
    let how = Fp {
        op,
        fmt: format(double != 0),
        shape: if packed != 0 {
            FpShape::Packed
        } else {
            FpShape::Scalar
        },
        rules: FpRules::Sse,
    };
    let slot = regs::xmm(dst.into());
    let a = core.regs.get_v(slot);
    let b = u128::from(low) | u128::from(high) << 64;
    let result = checked(core, |env| fp::eval(how, a, b, env))?;
    if dst != NOWHERE {
        core.regs.set_v(slot, result);
    }
    Ok(result as u64)
}

/// CVTSI2SS and CVTSI2SD: (bit 0: double, integer): the bits.
pub(super) fn from_int(core: &mut Core, [double, v, ..]: [u64; 4]) -> Result<u64, Trap> {
    checked(core, |env| {
        fp::from_int(format(double != 0), v.cast_signed(), env)
    })
}

/// CVTSS2SI and its like: (bit 0: double, bit 1: truncating, bit 2: to 64 bits; bits): the integer.
pub(super) fn to_int(core: &mut Core, [how, bits, ..]: [u64; 4]) -> Result<u64, Trap> {
    let ty = if how & 4 != 0 { Ty::I64 } else { Ty::I32 };
    let how = ToInt {
        fmt: format(how & 1 != 0),
        rules: FpRules::Sse,
        truncate: how & 2 != 0,
    };
    checked(core, |env| fp::to_int(how, bits, ty, env))
}

/// COMISS to UCOMISD: (bit 0: double, bit 1: signals; a, b): the arithmetic flags.
pub(super) fn compare(core: &mut Core, [how, a, b, _]: [u64; 4]) -> Result<u64, Trap> {
    let how = FpCompare {
        fmt: format(how & 1 != 0),
        rules: FpRules::Sse,
        signals: how & 2 != 0,
    };
    checked(core, |env| fp::compare(how, a, b, env))
}

/// Runs an operation; puts its flags into MXCSR, or raises #XM for those unmasked.
fn checked<R>(core: &mut Core, run: impl FnOnce(&mut Env) -> R) -> Result<R, Trap> {
    let control = core.regs.get(regs::MXCSR);
    let mut env = FpRules::Sse.env(control);
    let result = run(&mut env);
    if env.flags & Flags::X86 == Flags::NONE {
        return Ok(result);
    }
    let faults = env.x86_faults();
    core.regs
        .set(regs::MXCSR, FpRules::Sse.settle(control, env.flags));
    if faults == Flags::NONE {
        return Ok(result);
    }
    Err(simd_exception(core))
}

#[cold]
fn simd_exception(core: &mut Core) -> Trap {
    let vector = if core.arch.cr4 & CR4_OSXMMEXCPT != 0 {
        vector::XM
    } else {
        vector::UD
    };
    system::raise(core, vector, None)
}

/// 1.0 in binary32.
const ONE: u32 = 0x3f80_0000;
/// Significand bits that an estimate leaves zero.
const ESTIMATE_DROPS: u32 = 0xfff;

/// RCPPS and RSQRTPS: (bit 0: of the square root; two lanes): two lanes.
pub(super) fn estimates(_: &mut Core, [root, lanes, ..]: [u64; 4]) -> Result<u64, Trap> {
    let one = |bits: u64| u64::from(estimate(F32(bits as u32), root & 1 != 0).0);
    Ok(one(lanes) | one(lanes >> 32) << 32)
}

/// RCPSS and RSQRTSS raise no exceptions and give about twelve bits (SDM vol. 2, "RCPPS"); results
/// too small for a normal number are zero.
fn estimate(x: F32, root: bool) -> F32 {
    if x.is_subnormal() {
        return F32::infinity(x.is_negative());
    }
    let mut env = Env::sse();
    let under = if root { x.sqrt(&mut env) } else { x };
    let exact = F32(ONE).div(under, &mut env);
    if exact.is_subnormal() {
        return F32::zero(exact.is_negative());
    }
    if exact.is_nan() {
        return exact;
    }
    // To nearest: truncation alone would leave an error of 2^-11.
    F32(exact.0.wrapping_add(ESTIMATE_DROPS.wrapping_add(1) >> 1) & !ESTIMATE_DROPS)
}
