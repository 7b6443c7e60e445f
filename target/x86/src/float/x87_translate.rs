//! x87 instructions as calls of their helpers.

use accel_core::{X87Form as Form, X87Format as Format};
use accel_ir::{Cond, HelperId, Ordering, Ty, Val};
use iced_x86::{MemorySize, Mnemonic, Register};

use super::operand::{forget_mmx, x87_ready};
use super::x87_arith::Arith;
use super::x87_function::Function;
use super::x87_helper::STORE_UNCHECKED;
use crate::decode::context::Ctx;
use crate::state::vector;

/// Translates an x87 instruction; `false` if it is none.
pub(super) fn translate(ctx: &mut Ctx) -> bool {
    let Some(kind) = row(ctx.insn.mnemonic()) else {
        return false;
    };
    forget_mmx(ctx);
    if let Kind::Wait = kind {
        // FWAIT heeds TS only together with MP, and EM not at all (SDM vol. 3, table 2-2).
        if ctx.mode.mp() && ctx.mode.ts() {
            ctx.raise_and_end(vector::NM, None);
        } else if !ctx.mode.x87_masked() {
            ctx.b.call_void(super::X87_WAIT, &[]);
        }
        return true;
    }
    if x87_ready(ctx) && !(ctx.mode.x87_masked() && emit_quiet(ctx, kind)) {
        emit(ctx, kind);
    }
    true
}

/// What an instruction is.
#[derive(Clone, Copy, Debug)]
enum Kind {
    /// Operation and registers popped.
    Arith(Arith, u8),
    /// Quiet, registers popped.
    Compare(bool, u8),
    /// To the flags register: quiet, registers popped.
    CompareFlags(bool, u8),
    Load,
    Constant(u8),
    /// Truncating, registers popped.
    Store(bool, u8),
    Function(Function),
    Exchange,
    /// Registers popped.
    Free(u8),
    MoveIf(Cond),
    Init,
    ClearExceptions,
    LoadControl,
    StoreControl,
    StoreStatus,
    /// FNSTENV, FLDENV, FNSAVE, FRSTOR.
    State(HelperId, bool),
    /// 8087 and 287 instructions that do nothing since.
    Nothing,
    Wait,
}

fn row(mnemonic: Mnemonic) -> Option<Kind> {
    use Kind as K;
    use Mnemonic as M;
    Some(match mnemonic {
        M::Fadd | M::Fiadd => K::Arith(Arith::Add, 0),
        M::Faddp => K::Arith(Arith::Add, 1),
        M::Fmul | M::Fimul => K::Arith(Arith::Mul, 0),
        M::Fmulp => K::Arith(Arith::Mul, 1),
        M::Fsub | M::Fisub => K::Arith(Arith::Sub, 0),
        M::Fsubp => K::Arith(Arith::Sub, 1),
        M::Fsubr | M::Fisubr => K::Arith(Arith::Subr, 0),
        M::Fsubrp => K::Arith(Arith::Subr, 1),
        M::Fdiv | M::Fidiv => K::Arith(Arith::Div, 0),
        M::Fdivp => K::Arith(Arith::Div, 1),
        M::Fdivr | M::Fidivr => K::Arith(Arith::Divr, 0),
        M::Fdivrp => K::Arith(Arith::Divr, 1),
        M::Fcom | M::Ficom => K::Compare(false, 0),
        M::Fcomp | M::Ficomp => K::Compare(false, 1),
        M::Fcompp => K::Compare(false, 2),
        M::Fucom => K::Compare(true, 0),
        M::Fucomp => K::Compare(true, 1),
        M::Fucompp => K::Compare(true, 2),
        M::Fcomi => K::CompareFlags(false, 0),
        M::Fcomip => K::CompareFlags(false, 1),
        M::Fucomi => K::CompareFlags(true, 0),
        M::Fucomip => K::CompareFlags(true, 1),
        M::Fld | M::Fild | M::Fbld => K::Load,
        M::Fld1 => K::Constant(0),
        M::Fldl2t => K::Constant(1),
        M::Fldl2e => K::Constant(2),
        M::Fldpi => K::Constant(3),
        M::Fldlg2 => K::Constant(4),
        M::Fldln2 => K::Constant(5),
        M::Fldz => K::Constant(6),
        M::Fst | M::Fist => K::Store(false, 0),
        M::Fstp | M::Fistp | M::Fbstp | M::Fstpnce => K::Store(false, 1),
        M::Fisttp => K::Store(true, 1),
        M::Fchs => K::Function(Function::Chs),
        M::Fabs => K::Function(Function::Abs),
        M::Fxam => K::Function(Function::Xam),
        M::Ftst => K::Function(Function::Tst),
        M::Fsqrt => K::Function(Function::Sqrt),
        M::Frndint => K::Function(Function::RndInt),
        M::F2xm1 => K::Function(Function::F2xm1),
        M::Fsin => K::Function(Function::Sin),
        M::Fcos => K::Function(Function::Cos),
        M::Fsincos => K::Function(Function::SinCos),
        M::Fptan => K::Function(Function::Ptan),
        M::Fpatan => K::Function(Function::Patan),
        M::Fyl2x => K::Function(Function::Yl2x),
        M::Fyl2xp1 => K::Function(Function::Yl2xp1),
        M::Fscale => K::Function(Function::Scale),
        M::Fprem => K::Function(Function::Prem),
        M::Fprem1 => K::Function(Function::Prem1),
        M::Fxtract => K::Function(Function::Xtract),
        M::Fincstp => K::Function(Function::IncStp),
        M::Fdecstp => K::Function(Function::DecStp),
        M::Fnop => K::Function(Function::Nop),
        M::Fxch => K::Exchange,
        M::Ffree => K::Free(0),
        M::Ffreep => K::Free(1),
        M::Fcmovb => K::MoveIf(Cond::B),
        M::Fcmove => K::MoveIf(Cond::E),
        M::Fcmovbe => K::MoveIf(Cond::Be),
        M::Fcmovu => K::MoveIf(Cond::P),
        M::Fcmovnb => K::MoveIf(Cond::Ae),
        M::Fcmovne => K::MoveIf(Cond::Ne),
        M::Fcmovnbe => K::MoveIf(Cond::A),
        M::Fcmovnu => K::MoveIf(Cond::Np),
        M::Fninit => K::Init,
        M::Fnclex => K::ClearExceptions,
        M::Fldcw => K::LoadControl,
        M::Fnstcw => K::StoreControl,
        M::Fnstsw => K::StoreStatus,
        M::Fnstenv => K::State(super::X87_STORE_ENV, true),
        M::Fldenv => K::State(super::X87_LOAD_ENV, false),
        M::Fnsave => K::State(super::X87_SAVE, true),
        M::Frstor => K::State(super::X87_RESTORE, false),
        M::Fneni | M::Fndisi | M::Fnsetpm => K::Nothing,
        M::Wait => K::Wait,
        _ => return None,
    })
}

/// Format of the memory operand, if there is one.
fn format(size: MemorySize) -> Option<Format> {
    Some(match size {
        MemorySize::Float32 => Format::F32,
        MemorySize::Float64 => Format::F64,
        MemorySize::Float80 => Format::F80,
        MemorySize::Int16 => Format::I16,
        MemorySize::Int32 => Format::I32,
        MemorySize::Int64 => Format::I64,
        MemorySize::Bcd => Format::Bcd,
        _ => return None,
    })
}

/// Destination and source of an instruction on registers; what is implied is ST(0), then ST(1).
fn registers(ctx: &Ctx) -> (u8, u8) {
    let number = |r: Register| r.is_st().then(|| r.number() as u8);
    let (a, b) = (
        number(ctx.insn.op0_register()),
        number(ctx.insn.op1_register()),
    );
    match (a, b) {
        (Some(dst), Some(src)) => (dst, src),
        (Some(only), None) => (only, only),
        _ => (0, 1),
    }
}

/// Calls a helper with the arguments that all of them take.
fn call(ctx: &mut Ctx, helper: HelperId, mut form: Form, write: bool) {
    form.ctx = ctx.mode.data_ctx();
    form.format = format(ctx.insn.memory_size()).filter(|_| ctx.is_memory(0));
    (form.dst, form.src) = registers(ctx);
    let (address, offset) = match form.format {
        Some(format) => operand(ctx, format, write),
        None => {
            let zero = ctx.const64(0);
            (zero, zero)
        }
    };
    let form = ctx.const64(form.pack());
    let pc = ctx.const64(ctx.pc);
    ctx.b.call_void(helper, &[form, pc, address, offset]);
}

/// Calls a helper on registers with one more value.
fn call_with(ctx: &mut Ctx, helper: HelperId, mut form: Form, v: Val) -> Val {
    (form.dst, form.src) = registers(ctx);
    let form = ctx.const64(form.pack());
    let pc = ctx.const64(ctx.pc);
    ctx.b.call(helper, &[form, pc, v])
}

fn emit(ctx: &mut Ctx, kind: Kind) {
    let form = Form::default();
    match kind {
        Kind::Arith(op, pops) => {
            let form = Form {
                op: op as u8,
                pops,
                ..form
            };
            call(ctx, super::X87_ARITH, form, false);
        }
        Kind::Compare(variant, pops) => {
            let form = Form {
                variant,
                pops,
                ..form
            };
            call(ctx, super::X87_COMPARE, form, false);
        }
        Kind::CompareFlags(variant, pops) => {
            let form = Form {
                variant,
                pops,
                ..form
            };
            let zero = ctx.const64(0);
            let flags = call_with(ctx, super::X87_COMPARE_FLAGS, form, zero);
            ctx.set_flags(flags);
        }
        Kind::Load => call(ctx, super::X87_LOAD, form, false),
        Kind::Constant(op) => {
            let form = Form {
                op,
                variant: true,
                ..form
            };
            call(ctx, super::X87_LOAD, form, false);
        }
        Kind::Store(variant, pops) => {
            let form = Form {
                op: if ctx.insn.mnemonic() == Mnemonic::Fstpnce {
                    STORE_UNCHECKED
                } else {
                    0
                },
                variant,
                pops,
                ..form
            };
            call(ctx, super::X87_STORE, form, true);
        }
        Kind::Function(which) => {
            let form = Form {
                op: which as u8,
                ..form
            };
            call(ctx, super::X87_FUNCTION, form, false);
        }
        Kind::Exchange => call(ctx, super::X87_EXCHANGE, form, false),
        Kind::Free(pops) => call(ctx, super::X87_FREE, Form { pops, ..form }, false),
        Kind::MoveIf(cond) => {
            let holds = ctx.b.flags_use(cond);
            call_with(ctx, super::X87_MOVE_IF, form, holds);
        }
        Kind::Init => {
            let next = ctx.next_pc();
            ctx.b.call_void(super::X87_INIT, &[next]);
        }
        Kind::ClearExceptions => ctx.b.call_void(super::X87_CLEAR_EXCEPTIONS, &[]),
        Kind::LoadControl => {
            // A pending exception comes before the operand's fault.
            ctx.b.call_void(super::X87_WAIT, &[]);
            load_control(ctx, super::X87_LOAD_CONTROL);
        }
        Kind::StoreControl => store_word(ctx, super::X87_READ_CONTROL),
        Kind::StoreStatus => store_word(ctx, super::X87_READ_STATUS),
        Kind::State(helper, write) => {
            let small = matches!(
                ctx.insn.memory_size(),
                MemorySize::FpuEnv14 | MemorySize::FpuState94
            );
            let layout = u64::from(small) | u64::from(ctx.mode.has_descriptors()) << 1;
            let address = ctx.operand_address(write);
            let layout = ctx.const64(layout);
            let context = ctx.const64(ctx.mode.data_ctx().into());
            let next = ctx.next_pc();
            ctx.b.call_void(helper, &[layout, address, context, next]);
        }
        Kind::Nothing | Kind::Wait => {}
    }
}

/// FNSTCW and FNSTSW, to memory or AX.
fn store_word(ctx: &mut Ctx, helper: HelperId) {
    let v = ctx.b.call(helper, &[]);
    let v = ctx.b.zext(v, Ty::I16);
    ctx.set_operand(0, v);
}

fn load_control(ctx: &mut Ctx, helper: HelperId) {
    let address = ctx.operand_address(false);
    let v = ctx.load(address, Ty::I16);
    let next = ctx.next_pc();
    ctx.b.call_void(helper, &[v, next]);
}

/// Translates an instruction while all exceptions are masked; `false` if there are no pieces for it.
fn emit_quiet(ctx: &mut Ctx, kind: Kind) -> bool {
    let (dst, src) = registers(ctx);
    let mut form = Form {
        dst,
        src,
        format: format(ctx.insn.memory_size()).filter(|_| ctx.is_memory(0)),
        ..Form::default()
    };
    let in_memory = form.format.is_some();
    // Decimal numbers have more than the pieces hold.
    if form.format == Some(Format::Bcd) {
        return false;
    }
    let helper = match kind {
        Kind::Arith(op, pops) => {
            (form.op, form.pops) = (op as u8, pops);
            match in_memory {
                true => super::QUIET_ARITH_VALUE,
                false => super::QUIET_ARITH,
            }
        }
        Kind::Compare(quiet, pops) => {
            (form.variant, form.pops) = (quiet, pops);
            match in_memory {
                true => super::QUIET_COMPARE_VALUE,
                false => super::QUIET_COMPARE,
            }
        }
        Kind::CompareFlags(quiet, pops) => {
            (form.variant, form.pops) = (quiet, pops);
            let form = ctx.const64(form.pack());
            let flags = ctx.b.call(super::QUIET_COMPARE_FLAGS, &[form]);
            ctx.set_flags(flags);
            note(ctx, None);
            return true;
        }
        Kind::Load if in_memory => super::QUIET_LOAD,
        Kind::Load => super::QUIET_LOAD_REGISTER,
        Kind::Constant(which @ (CONSTANT_ONE | CONSTANT_ZERO)) => {
            form.format = Some(Format::F80);
            let (low, high) = match which {
                CONSTANT_ONE => (1 << 63, 0x3fff),
                _ => (0, 0),
            };
            let args = [form.pack(), low, high].map(|v| ctx.const64(v));
            ctx.b.call_void(super::QUIET_LOAD, &args);
            note(ctx, None);
            return true;
        }
        Kind::Store(truncate, pops) if in_memory => {
            form.variant = truncate;
            store(ctx, form, pops);
            return true;
        }
        Kind::Store(_, pops) if ctx.insn.mnemonic() != Mnemonic::Fstpnce => {
            form.pops = pops;
            super::QUIET_STORE_REGISTER
        }
        Kind::Function(Function::Chs) => super::QUIET_CHANGE_SIGN,
        Kind::Function(Function::Abs) => super::QUIET_ABSOLUTE,
        Kind::Function(Function::Sqrt) => super::QUIET_SQUARE_ROOT,
        Kind::Function(Function::RndInt) => super::QUIET_ROUND,
        Kind::Exchange => super::QUIET_EXCHANGE,
        Kind::LoadControl => {
            load_control(ctx, super::QUIET_LOAD_CONTROL);
            return true;
        }
        Kind::StoreStatus => {
            store_word(ctx, super::QUIET_READ_STATUS);
            return true;
        }
        _ => return false,
    };
    if !in_memory {
        let form = ctx.const64(form.pack());
        ctx.b.call_void(helper, &[form]);
        note(ctx, None);
        return true;
    }
    let format = form.format.unwrap_or(Format::F64);
    let (address, offset) = operand(ctx, format, false);
    let form = ctx.const64(form.pack());
    let low = ctx.load(address, low_type(format));
    let low = ctx.b.zext(low, Ty::I64);
    if format == Format::F80 {
        let address = above(ctx, address);
        let high = ctx.load(address, Ty::I16);
        let high = ctx.b.zext(high, Ty::I64);
        ctx.b.call_void(helper, &[form, low, high]);
    } else {
        ctx.b.call_void(helper, &[form, low]);
    }
    note(ctx, Some(offset));
    true
}

/// Numbers of constants.
const CONSTANT_ONE: u8 = 0;
const CONSTANT_ZERO: u8 = 6;

/// FST, FIST and FISTTP: the address is checked, then the value made, then stored.
fn store(ctx: &mut Ctx, form: Form, pops: u8) {
    let format = form.format.unwrap_or(Format::F64);
    let (address, offset) = operand(ctx, format, true);
    let ty = low_type(format);
    let mem = ctx.mem(ty, Ordering::Release);
    ctx.b.probe(address, mem);
    if format == Format::F80 {
        let above = above(ctx, address);
        let high = ctx.mem(Ty::I16, Ordering::Release);
        ctx.b.probe(above, high);
        let v = ctx.b.call(super::QUIET_SIGNIFICAND, &[]);
        let w = ctx.b.call(super::QUIET_SIGN_EXPONENT, &[]);
        let w = ctx.b.zext(w, Ty::I16);
        ctx.b.store(address, v, mem);
        ctx.b.store(above, w, high);
    } else {
        let form = ctx.const64(form.pack());
        let v = ctx.b.call(super::QUIET_CONVERT, &[form]);
        let v = ctx.b.zext(v, ty);
        ctx.b.store(address, v, mem);
    }
    if pops != 0 {
        ctx.b.call_void(super::QUIET_POP, &[]);
    }
    note(ctx, Some(offset));
}

/// The type of a memory operand's first eight bytes or fewer.
fn low_type(format: Format) -> Ty {
    Ty::of_bytes(u32::from(format.bytes()).min(8))
}

/// The address of the other two of ten bytes.
fn above(ctx: &mut Ctx, address: Val) -> Val {
    let eight = ctx.const64(8);
    ctx.b.add(address, eight)
}

/// Linear address and offset of the memory operand.
fn operand(ctx: &mut Ctx, format: Format, write: bool) -> (Val, Val) {
    let offset = ctx.offset();
    let segment = ctx.memory_segment();
    let address = ctx.linear(segment, offset, format.bytes().into(), write);
    (address, offset)
}

/// Has this instruction, and its memory operand if it has one, be the last one.
fn note(ctx: &mut Ctx, offset: Option<Val>) {
    let pc = ctx.const64(ctx.pc);
    match offset {
        Some(offset) => ctx.b.call_void(super::QUIET_NOTE_DATA, &[pc, offset]),
        None => ctx.b.call_void(super::QUIET_NOTE, &[pc]),
    }
}
