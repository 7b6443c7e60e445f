//! x87 instructions while all exceptions are masked, in the pieces that executors know ([`X87Op`]).
//!
//! Nothing is pending and nothing traps: memory operands are loaded and stored by IR, before and after
//! these.
//!
//! [`X87Op`]: accel_core::X87Op

use accel_core::{Trap, X87Form as Form, X87Format as Format};

use super::x87::INDEFINITE;
use super::x87_arith::{Arith, Source};
use super::x87_function::Function;
use crate::Core;

type Done = Result<u64, Trap>;

/// A memory operand of arithmetic and comparisons.
fn source(form: Form, bits: u64) -> Source {
    match form.format {
        Some(Format::F32) => Source::f32(bits as u32),
        Some(Format::F64) => Source::f64(bits),
        Some(Format::I16) => Source::int((bits as i16).into()),
        _ => Source::int((bits as i32).into()),
    }
}

/// FADD to FDIVR of registers: (form).
pub(super) fn arith(core: &mut Core, [form, ..]: [u64; 4]) -> Done {
    let form = Form::unpack(form);
    let x87 = &mut core.arch.x87;
    let source = x87.get(form.src).map(Source::register);
    x87.arith(Arith::from_number(form.op), form.dst, source, form.pops);
    Ok(0)
}

/// FADD to FDIVR and FIADD to FIDIVR of memory: (form, bits).
pub(super) fn arith_value(core: &mut Core, [form, bits, ..]: [u64; 4]) -> Done {
    let form = Form::unpack(form);
    let source = Some(source(form, bits));
    let op = Arith::from_number(form.op);
    core.arch.x87.arith(op, form.dst, source, form.pops);
    Ok(0)
}

/// FCOM and FUCOM of registers: (form).
pub(super) fn compare(core: &mut Core, [form, ..]: [u64; 4]) -> Done {
    let form = Form::unpack(form);
    let x87 = &mut core.arch.x87;
    let source = x87.get(form.src).map(Source::register);
    x87.compare(source, form.variant, form.pops);
    Ok(0)
}

/// FCOM and FICOM of memory: (form, bits).
pub(super) fn compare_value(core: &mut Core, [form, bits, ..]: [u64; 4]) -> Done {
    let form = Form::unpack(form);
    let source = Some(source(form, bits));
    core.arch.x87.compare(source, form.variant, form.pops);
    Ok(0)
}

/// FCOMI and FUCOMI: (form), the flags.
pub(super) fn compare_flags(core: &mut Core, [form, ..]: [u64; 4]) -> Done {
    let form = Form::unpack(form);
    let x87 = &mut core.arch.x87;
    Ok(x87.compare_flags(form.src, form.variant, form.pops))
}

/// FLD and FILD of memory, FLD1 and FLDZ: (form, bits 0 to 63, bits 64 to 79).
pub(super) fn load(core: &mut Core, [form, low, high, _]: [u64; 4]) -> Done {
    let format = Form::unpack(form).format.unwrap_or(Format::F80);
    let bits = u128::from(low) | u128::from(high) << 64;
    core.arch.x87.load_memory(format, bits);
    Ok(0)
}

/// FLD ST(i): (form).
pub(super) fn load_register(core: &mut Core, [form, ..]: [u64; 4]) -> Done {
    core.arch.x87.load_register(Form::unpack(form).src);
    Ok(0)
}

/// FST and FSTP to a register: (form).
pub(super) fn store_register(core: &mut Core, [form, ..]: [u64; 4]) -> Done {
    let form = Form::unpack(form);
    core.arch.x87.store_register(form.dst, form.pops);
    Ok(0)
}

/// What FST, FIST and FISTTP store: (form).
pub(super) fn convert(core: &mut Core, [form, ..]: [u64; 4]) -> Done {
    let form = Form::unpack(form);
    let x87 = &mut core.arch.x87;
    let format = form.format.unwrap_or(Format::F64);
    let stored = x87.store_memory(format, form.variant, 0);
    *x87 = stored.after;
    Ok(stored.bits.unwrap_or_default() as u64)
}

/// What FSTP stores of ten bytes, the low eight.
pub(super) fn significand(core: &mut Core, _: [u64; 4]) -> Done {
    let x87 = &mut core.arch.x87;
    let stored = x87.store_memory(Format::F80, false, 0);
    *x87 = stored.after;
    Ok(stored.bits.unwrap_or_default() as u64)
}

/// The others.
pub(super) fn sign_exponent(core: &mut Core, _: [u64; 4]) -> Done {
    let value = core.arch.x87.get(0).unwrap_or(INDEFINITE);
    Ok(value.se.into())
}

/// A register popped.
pub(super) fn pop(core: &mut Core, _: [u64; 4]) -> Done {
    core.arch.x87.pop(1);
    Ok(0)
}

/// FXCH: (form).
pub(super) fn exchange(core: &mut Core, [form, ..]: [u64; 4]) -> Done {
    core.arch.x87.exchange(Form::unpack(form).src);
    Ok(0)
}

/// FCHS.
pub(super) fn change_sign(core: &mut Core, _: [u64; 4]) -> Done {
    core.arch.x87.function(Function::Chs);
    Ok(0)
}

/// FABS.
pub(super) fn absolute(core: &mut Core, _: [u64; 4]) -> Done {
    core.arch.x87.function(Function::Abs);
    Ok(0)
}

/// FSQRT.
pub(super) fn square_root(core: &mut Core, _: [u64; 4]) -> Done {
    core.arch.x87.function(Function::Sqrt);
    Ok(0)
}

/// FRNDINT.
pub(super) fn round(core: &mut Core, _: [u64; 4]) -> Done {
    core.arch.x87.function(Function::RndInt);
    Ok(0)
}

/// Remembers the last instruction: (its offset).
pub(super) fn note(core: &mut Core, [ip, ..]: [u64; 4]) -> Done {
    core.arch.x87.ip = ip;
    Ok(0)
}

/// Remembers the last instruction and its memory operand: (offsets).
pub(super) fn note_data(core: &mut Core, [ip, dp, ..]: [u64; 4]) -> Done {
    core.arch.x87.ip = ip;
    core.arch.x87.dp = dp;
    Ok(0)
}
