//! Conversions between SSE's formats and integers (SDM vol. 1, 11.4.1.6 and table 11-2).

use accel_core::Trap;
use iced_x86::Mnemonic;
use target_softfloat::{Env, F32, F64, Float, IntOverflow};

use super::sse_fp::{begin, rounding, settle};
use crate::Core;

/// What is converted to what. Results narrower than 64 bits leave the rest zero.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub(super) enum Convert {
    /// A signed integer to binary32.
    I32ToF32,
    I64ToF32,
    I32ToF64,
    I64ToF64,
    /// Rounded by MXCSR, or truncated.
    F32ToI32,
    F32ToI64,
    F64ToI32,
    F64ToI64,
    F32ToF64,
    F64ToF32,
    /// Two lanes in 64 bits.
    TwoI32ToF32,
    TwoF32ToI32,
    /// Two lanes of 128 bits to two in 64 bits.
    TwoF64ToI32,
    TwoF64ToF32,
}

impl Convert {
    const ALL: [Convert; 14] = {
        use Convert::*;
        [
            I32ToF32,
            I64ToF32,
            I32ToF64,
            I64ToF64,
            F32ToI32,
            F32ToI64,
            F64ToI32,
            F64ToI64,
            F32ToF64,
            F64ToF32,
            TwoI32ToF32,
            TwoF32ToI32,
            TwoF64ToI32,
            TwoF64ToF32,
        ]
    };

    fn from_number(n: u8) -> Convert {
        Self::ALL
            .get(usize::from(n))
            .copied()
            .unwrap_or(Convert::I32ToF32)
    }
}

/// Where operands live.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Shape {
    /// From XMM, memory or a general register to the low lane of an XMM register.
    ToScalar,
    /// To a general register.
    ToGeneral,
    /// 64 bits of XMM, MMX or memory to a whole XMM register, two lanes.
    Widen,
    /// A whole XMM register to the low half of one; the high half becomes zero.
    Narrow,
    /// Four lanes to four lanes.
    Same,
    /// MMX or memory to the low half of an XMM register; the high half stays.
    MmxToLow,
    /// XMM or memory to an MMX register.
    ToMmx,
}

/// One row: the lane conversion, whether it truncates, and the shape.
#[derive(Clone, Copy, Debug)]
pub(super) struct Row {
    pub(super) convert: Convert,
    pub(super) truncate: bool,
    pub(super) shape: Shape,
}

/// The row of an instruction; `wide` says that the integer operand has 64 bits.
pub(super) fn row(mnemonic: Mnemonic, wide: bool) -> Option<Row> {
    use Convert::*;
    use Mnemonic as M;
    use Shape::*;
    let pick = |narrow, wider| if wide { wider } else { narrow };
    let (convert, truncate, shape) = match mnemonic {
        M::Cvtsi2ss => (pick(I32ToF32, I64ToF32), false, ToScalar),
        M::Cvtsi2sd => (pick(I32ToF64, I64ToF64), false, ToScalar),
        M::Cvtss2sd => (F32ToF64, false, ToScalar),
        M::Cvtsd2ss => (F64ToF32, false, ToScalar),
        M::Cvtss2si => (pick(F32ToI32, F32ToI64), false, ToGeneral),
        M::Cvttss2si => (pick(F32ToI32, F32ToI64), true, ToGeneral),
        M::Cvtsd2si => (pick(F64ToI32, F64ToI64), false, ToGeneral),
        M::Cvttsd2si => (pick(F64ToI32, F64ToI64), true, ToGeneral),
        M::Cvtdq2pd => (I32ToF64, false, Widen),
        M::Cvtps2pd => (F32ToF64, false, Widen),
        M::Cvtpi2pd => (I32ToF64, false, Widen),
        M::Cvtpd2dq => (TwoF64ToI32, false, Narrow),
        M::Cvttpd2dq => (TwoF64ToI32, true, Narrow),
        M::Cvtpd2ps => (TwoF64ToF32, false, Narrow),
        M::Cvtdq2ps => (TwoI32ToF32, false, Same),
        M::Cvtps2dq => (TwoF32ToI32, false, Same),
        M::Cvttps2dq => (TwoF32ToI32, true, Same),
        M::Cvtpi2ps => (TwoI32ToF32, false, MmxToLow),
        M::Cvtps2pi => (TwoF32ToI32, false, ToMmx),
        M::Cvttps2pi => (TwoF32ToI32, true, ToMmx),
        M::Cvtpd2pi => (TwoF64ToI32, false, ToMmx),
        M::Cvttpd2pi => (TwoF64ToI32, true, ToMmx),
        _ => return None,
    };
    Some(Row {
        convert,
        truncate,
        shape,
    })
}

impl Row {
    /// The first argument of the helpers.
    pub(super) fn code(self, dst: usize) -> u64 {
        let widen = self.shape == Shape::Widen;
        let bytes = [
            self.convert as u8,
            u8::from(self.truncate),
            dst as u8,
            u8::from(widen),
        ];
        u64::from(u32::from_le_bytes(bytes))
    }
}

/// One value or a pair of lanes in, 64 bits out. `high` is the second binary64 lane.
fn run(convert: Convert, truncate: bool, low: u64, high: u64, env: &mut Env) -> u64 {
    let mode = rounding(env, truncate);
    let f32_to_i32 = |v: u32, env: &mut Env| -> u64 {
        let i: i32 = F32(v).to_int(mode, IntOverflow::X86, env);
        u64::from(i as u32)
    };
    let f64_to_i32 = |v: u64, env: &mut Env| -> u64 {
        let i: i32 = F64(v).to_int(mode, IntOverflow::X86, env);
        u64::from(i as u32)
    };
    let i32_to_f32 = |v: u32, env: &mut Env| u64::from(F32::from_i64((v as i32).into(), env).0);
    let f64_to_f32 = |v: u64, env: &mut Env| u64::from(F64(v).convert::<F32>(env).0);
    let upper = (low >> 32) as u32;
    match convert {
        Convert::I32ToF32 => i32_to_f32(low as u32, env),
        Convert::I64ToF32 => F32::from_i64(low as i64, env).0.into(),
        Convert::I32ToF64 => F64::from_i64((low as i32).into(), env).0,
        Convert::I64ToF64 => F64::from_i64(low as i64, env).0,
        Convert::F32ToI32 => f32_to_i32(low as u32, env),
        Convert::F32ToI64 => {
            let i: i64 = F32(low as u32).to_int(mode, IntOverflow::X86, env);
            i as u64
        }
        Convert::F64ToI32 => f64_to_i32(low, env),
        Convert::F64ToI64 => {
            let i: i64 = F64(low).to_int(mode, IntOverflow::X86, env);
            i as u64
        }
        Convert::F32ToF64 => F32(low as u32).convert::<F64>(env).0,
        Convert::F64ToF32 => f64_to_f32(low, env),
        Convert::TwoI32ToF32 => i32_to_f32(low as u32, env) | i32_to_f32(upper, env) << 32,
        Convert::TwoF32ToI32 => f32_to_i32(low as u32, env) | f32_to_i32(upper, env) << 32,
        Convert::TwoF64ToI32 => f64_to_i32(low, env) | f64_to_i32(high, env) << 32,
        Convert::TwoF64ToF32 => f64_to_f32(low, env) | f64_to_f32(high, env) << 32,
    }
}

/// (code, low half, high half): 64 bits.
pub(super) fn convert(core: &mut Core, [code, low, high, _]: [u64; 4]) -> Result<u64, Trap> {
    let [which, truncate, ..] = code.to_le_bytes();
    let mut env = begin(core);
    let result = run(
        Convert::from_number(which),
        truncate != 0,
        low,
        high,
        &mut env,
    );
    settle(core, &mut env)?;
    Ok(result)
}

/// (code, low half, high half): into a whole XMM register.
pub(super) fn convert_packed(core: &mut Core, [code, low, high, _]: [u64; 4]) -> Result<u64, Trap> {
    let [which, truncate, dst, widen, ..] = code.to_le_bytes();
    let which = Convert::from_number(which);
    // Widening takes its two lanes from the low half.
    let second = if widen != 0 { low >> 32 } else { high };
    let mut env = begin(core);
    let first = run(which, truncate != 0, low, 0, &mut env);
    let second = run(which, truncate != 0, second, 0, &mut env);
    settle(core, &mut env)?;
    core.regs.set_v(
        crate::regs::xmm(dst.into()),
        u128::from(first) | u128::from(second) << 64,
    );
    Ok(0)
}
