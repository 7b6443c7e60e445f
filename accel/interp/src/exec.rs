//! Runs flat code.

use std::sync::atomic::{Ordering, fence};

use accel_core::{Core, Exit, Fast, Target, Trap};
use accel_ir::{Endian, FlagKind, FpFmt, FpRules, Mem, Rmw, Ty, Unary, VecOp, flags, fp, vector};
use target_softfloat::Env;

use crate::code::{Code, Instr, Loc, NO_ARG, rows};

/// How a run of flat code ended.
pub(crate) enum Flow {
    /// The unit was left after this many instructions; the PC is set.
    Done(u16),
    /// The operation at this index trapped.
    Trap(Trap, usize),
    /// The end of the range was reached (a store hit code in it).
    Fell(usize),
}

#[inline(always)]
fn get<T: Target>(core: &mut Core<T>, loc: Loc) -> u64 {
    core.regs.raw()[usize::from(loc) & 511]
}

#[inline(always)]
fn set<T: Target>(core: &mut Core<T>, loc: Loc, value: u64) {
    core.regs.raw()[usize::from(loc) & 511] = value;
}

fn get_v<T: Target>(core: &mut Core<T>, loc: Loc) -> u128 {
    u128::from(get(core, loc)) | u128::from(get(core, loc + 1)) << 64
}

fn set_v<T: Target>(core: &mut Core<T>, loc: Loc, value: u128) {
    set(core, loc, value as u64);
    set(core, loc + 1, (value >> 64) as u64);
}

#[inline(always)]
fn flag_state<T: Target>(core: &mut Core<T>) -> (FlagKind, Ty, u64, u64, u64) {
    let at = T::LAYOUT.flags.0.into();
    let number = get(core, at);
    let kind = FlagKind::from_number((number >> 8) as u8);
    let ty = Ty::of_bytes(number as u32 & 15);
    (
        kind,
        ty,
        get(core, at + 1),
        get(core, at + 2),
        get(core, at + 3),
    )
}

#[inline(always)]
fn set_flags<T: Target>(core: &mut Core<T>, kind: u16, a: u64, b: u64) {
    let at = Loc::from(T::LAYOUT.flags.0);
    set(core, at, u64::from(kind));
    set(core, at + 1, a);
    set(core, at + 2, b);
}

/// Computes under the floating-point control slot and adds the flags to it.
#[inline]
fn with_fp<T: Target, R>(core: &mut Core<T>, rules: FpRules, run: impl FnOnce(&mut Env) -> R) -> R {
    let slot = T::LAYOUT.fp;
    let control = core.regs.get(slot);
    let mut env = rules.env(control);
    let result = run(&mut env);
    core.regs.set(slot, rules.settle(control, env.flags));
    result
}

fn unary(op: Unary, ty: Ty, a: u64) -> u64 {
    let a = a & ty.mask();
    let spare = 64 - ty.bits().min(64);
    let value = match op {
        Unary::Not => !a,
        Unary::Neg => a.wrapping_neg(),
        Unary::Clz => u64::from(a.leading_zeros() - spare),
        Unary::Ctz => u64::from(a.trailing_zeros().min(ty.bits())),
        Unary::Popcnt => u64::from(a.count_ones()),
        Unary::Bswap => a.swap_bytes() >> spare,
    };
    value & ty.mask()
}

fn swap(mem: &Mem, value: u64) -> u64 {
    if mem.endian == Endian::Little {
        return value;
    }
    value.swap_bytes() >> (64 - mem.ty.bits().min(64))
}

fn check_alignment<T: Target>(
    core: &mut Core<T>,
    va: u64,
    mem: &Mem,
    access: accel_core::Access,
) -> Result<(), Trap> {
    if mem.aligned && !va.is_multiple_of(u64::from(mem.ty.bytes())) {
        return Err(T::alignment_fault(core, va, access));
    }
    Ok(())
}

#[cold]
#[inline(never)]
fn load_any<T: Target>(core: &mut Core<T>, d: Loc, a: Loc, mem: &Mem) -> Result<(), Trap> {
    let va = get(core, a);
    check_alignment(core, va, mem, accel_core::Access::Read)?;
    if mem.ty == Ty::V128 {
        let value = core.load_v(va, mem.ctx)?;
        let value = if mem.endian == Endian::Little {
            value
        } else {
            value.swap_bytes()
        };
        set_v(core, d, value);
    } else {
        let value = core.load(va, mem.ty.bytes(), mem.ctx)?;
        set(core, d, swap(mem, value));
    }
    Ok(())
}

#[cold]
#[inline(never)]
fn store_any<T: Target>(core: &mut Core<T>, a: Loc, v: Loc, mem: &Mem) -> Result<(), Trap> {
    let va = get(core, a);
    check_alignment(core, va, mem, accel_core::Access::Write)?;
    if mem.ty == Ty::V128 {
        let value = get_v(core, v);
        let value = if mem.endian == Endian::Little {
            value
        } else {
            value.swap_bytes()
        };
        core.store_v(va, value, mem.ctx)?;
    } else {
        let value = swap(mem, get(core, v) & mem.ty.mask());
        core.store(va, mem.ty.bytes(), value, mem.ctx)?;
    }
    if mem.ordering == accel_ir::Ordering::SeqCst {
        fence(Ordering::SeqCst);
    }
    Ok(())
}

fn rmw<T: Target>(core: &mut Core<T>, op: Rmw, va: u64, v: u64, mem: &Mem) -> Result<u64, Trap> {
    check_alignment(core, va, mem, accel_core::Access::Write)?;
    let mask = mem.ty.mask();
    let v = v & mask;
    let old = core.update(va, mem.ty.bytes(), mem.ctx, |old| {
        let old = swap(mem, old);
        let new = match op {
            Rmw::Xchg => v,
            Rmw::Add => old.wrapping_add(v),
            Rmw::Sub => old.wrapping_sub(v),
            Rmw::And => old & v,
            Rmw::Or => old | v,
            Rmw::Xor => old ^ v,
        };
        Some(swap(mem, new & mask))
    })?;
    Ok(swap(mem, old))
}

/// Slow path of a load.
#[cold]
#[inline(never)]
fn load_slow<T: Target>(
    core: &mut Core<T>,
    d: Loc,
    va: u64,
    size: u8,
    ctx: u8,
) -> Result<(), Trap> {
    let value = core.load_slow(va, size, ctx)?;
    set(core, d, value);
    Ok(())
}

/// A load from plain RAM, or the slow way.
macro_rules! load {
    ($core:ident, $at:ident, $load:ident, $size:expr, $d:expr, $a:expr, $ctx:expr, $imm:expr) => {{
        let va = get($core, $a).wrapping_add($imm);
        match $core.mmu.$load($ctx, va) {
            Some(value) => set($core, $d, u64::from(value)),
            None => {
                if let Err(trap) = load_slow($core, $d, va, $size, $ctx) {
                    return Flow::Trap(trap, $at - 1);
                }
            }
        }
    }};
}

/// A store to plain RAM, or the slow way.
macro_rules! store {
    ($core:ident, $code:ident, $at:ident, $store:ident, $t:ty, $size:expr, $a:expr, $v:expr, $ctx:expr, $imm:expr) => {{
        let va = get($core, $a).wrapping_add($imm);
        let value = get($core, $v);
        match $core.mmu.$store($ctx, va, value as $t) {
            Fast::Done(()) => {}
            Fast::HitCode(()) => return finish_insn($core, $code, $at),
            Fast::Slow => {
                if let Err(trap) = $core.store_slow(va, $size, value, $ctx) {
                    return Flow::Trap(trap, $at - 1);
                }
                if $core.code_hit {
                    return finish_insn($core, $code, $at);
                }
            }
        }
    }};
}

/// The value, or the end of the run by a trap.
macro_rules! attempt {
    ($at:ident, $result:expr) => {
        match $result {
            Ok(value) => value,
            Err(trap) => return Flow::Trap(trap, $at - 1),
        }
    };
}

macro_rules! define {
    (
        binary { $($r:ident $i:ident $op:ident $ty:ident ($f:expr);)* }
        compare { $($v:ident $vi:ident $b:ident $bi:ident $cmp:ident $cty:ident ($cf:expr);)* }
    ) => {
        /// Runs from operation `from` until the unit is left, traps, or `until` is reached.
        pub(crate) fn run<T: Target>(core: &mut Core<T>, code: &Code, from: usize, until: usize) -> Flow {
            let ops = code.ops.get(..until).unwrap_or(&code.ops);
            let mut at = from;
            loop {
                let Some(instr) = ops.get(at) else { return Flow::Fell(at) };
                at += 1;
                match *instr {
                    $(
                        Instr::$r { d, a, b } => {
                            let value = ($f)(get(core, a) as _, get(core, b) as _);
                            set(core, d, u64::from(value));
                        }
                        Instr::$i { d, a, imm } => {
                            let value = ($f)(get(core, a) as _, imm as _);
                            set(core, d, u64::from(value));
                        }
                    )*
                    $(
                        Instr::$v { d, a, b } => {
                            let yes = ($cf)(get(core, a) as _, get(core, b) as _);
                            set(core, d, u64::from(yes));
                        }
                        Instr::$vi { d, a, imm } => {
                            let yes = ($cf)(get(core, a) as _, imm as _);
                            set(core, d, u64::from(yes));
                        }
                        Instr::$b { a, b, to } => {
                            if ($cf)(get(core, a) as _, get(core, b) as _) {
                                at = to as usize;
                            }
                        }
                        Instr::$bi { a, to, imm } => {
                            if ($cf)(get(core, a) as _, imm as _) {
                                at = to as usize;
                            }
                        }
                    )*
                    Instr::Mov { d, a } => {
                        let value = get(core, a);
                        set(core, d, value);
                    }
                    Instr::MovI { d, imm } => set(core, d, imm),
                    Instr::MovV { d, a } => {
                        let value = get_v(core, a);
                        set_v(core, d, value);
                    }
                    Instr::Mask { d, a, mask } => {
                        let value = get(core, a) & mask;
                        set(core, d, value);
                    }
                    Instr::Sext8 { d, a, mask } => {
                        let value = get(core, a) as i8 as u64 & mask;
                        set(core, d, value);
                    }
                    Instr::Sext16 { d, a, mask } => {
                        let value = get(core, a) as i16 as u64 & mask;
                        set(core, d, value);
                    }
                    Instr::Sext32 { d, a, mask } => {
                        let value = get(core, a) as i32 as u64 & mask;
                        set(core, d, value);
                    }
                    Instr::Extract { d, a, shift, mask } => {
                        let value = get(core, a) >> (shift & 63) & mask;
                        set(core, d, value);
                    }
                    Instr::Insert { d, a, b, shift, width } => {
                        let mask = (u64::MAX >> (64 - u32::from(width) & 63)) << (shift & 63);
                        let value = get(core, a) & !mask | get(core, b) << (shift & 63) & mask;
                        set(core, d, value);
                    }
                    Instr::Lea { d, a, b, shift, imm } => {
                        let value = get(core, a)
                            .wrapping_add(get(core, b) << (shift & 63))
                            .wrapping_add(imm as i64 as u64);
                        set(core, d, value);
                    }
                    Instr::Unary { op, ty, d, a } => {
                        let value = unary(op, ty, get(core, a));
                        set(core, d, value);
                    }
                    Instr::Select { d, c, a, b } => {
                        let from = if get(core, c) != 0 { a } else { b };
                        let value = get(core, from);
                        set(core, d, value);
                    }
                    Instr::Load8 { d, a, ctx, imm } => load!(core, at, load8, 1, d, a, ctx, imm),
                    Instr::Load16 { d, a, ctx, imm } => load!(core, at, load16, 2, d, a, ctx, imm),
                    Instr::Load32 { d, a, ctx, imm } => load!(core, at, load32, 4, d, a, ctx, imm),
                    Instr::Load64 { d, a, ctx, imm } => load!(core, at, load64, 8, d, a, ctx, imm),
                    Instr::Store8 { a, v, ctx, imm } => store!(core, code, at, store8, u8, 1, a, v, ctx, imm),
                    Instr::Store16 { a, v, ctx, imm } => store!(core, code, at, store16, u16, 2, a, v, ctx, imm),
                    Instr::Store32 { a, v, ctx, imm } => store!(core, code, at, store32, u32, 4, a, v, ctx, imm),
                    Instr::Store64 { a, v, ctx, imm } => store!(core, code, at, store64, u64, 8, a, v, ctx, imm),
                    Instr::LoadAny { d, a, mem } => attempt!(at, load_any(core, d, a, &code.mems[usize::from(mem)])),
                    Instr::StoreAny { a, v, mem } => {
                        attempt!(at, store_any(core, a, v, &code.mems[usize::from(mem)]));
                        if core.code_hit {
                            return finish_insn(core, code, at);
                        }
                    }
                    Instr::Probe { a, mem } => {
                        let mem = &code.mems[usize::from(mem)];
                        let va = get(core, a);
                        attempt!(at, core.probe_write(va, mem.ty.bytes(), mem.ctx));
                    }
                    Instr::Rmw { op, d, a, v, mem } => {
                        let (va, v) = (get(core, a), get(core, v));
                        let old = attempt!(at, rmw(core, op, va, v, &code.mems[usize::from(mem)]));
                        set(core, d, old);
                        if core.code_hit {
                            return finish_insn(core, code, at);
                        }
                    }
                    Instr::Cas { d, a, expected, new, mem } => {
                        let mem = &code.mems[usize::from(mem)];
                        let (va, expected, new) = (get(core, a), get(core, expected), get(core, new));
                        attempt!(at, check_alignment(core, va, mem, accel_core::Access::Write));
                        let new = swap(mem, new & mem.ty.mask());
                        let old = attempt!(at, core.update(va, mem.ty.bytes(), mem.ctx, |old| {
                            (swap(mem, old) == expected).then_some(new)
                        }));
                        set(core, d, swap(mem, old));
                        if core.code_hit {
                            return finish_insn(core, code, at);
                        }
                    }
                    Instr::Fence => fence(Ordering::SeqCst),
                    Instr::Flags { kind, a, b } => {
                        let (a, b) = (get(core, a), get(core, b));
                        set_flags(core, kind, a, b);
                    }
                    Instr::FlagsI { kind, a, imm } => {
                        let a = get(core, a);
                        set_flags(core, kind, a, imm);
                    }
                    Instr::FlagsC { kind, a, b, c } => {
                        let (a, b, c) = (get(core, a), get(core, b), get(core, c));
                        set_flags(core, kind, a, b);
                        set(core, Loc::from(T::LAYOUT.flags.0) + 3, c);
                    }
                    Instr::Test { d, cond } => {
                        let (kind, ty, a, b, c) = flag_state(core);
                        set(core, d, u64::from(flags::test(cond, kind, ty, a, b, c)));
                    }
                    Instr::Pack { d } => {
                        let (kind, ty, a, b, c) = flag_state(core);
                        set(core, d, flags::pack(kind, ty, a, b, c));
                    }
                    Instr::Vec { op, imm, d, a, b } => {
                        let value = vector::eval(op, get_v(core, a), get_v(core, b), imm);
                        set_v(core, d, value);
                    }
                    Instr::VecSigns { lane, d, a } => {
                        let value = vector::signs(get_v(core, a), lane);
                        set(core, d, value.into());
                    }
                    Instr::Fp { how, d, a, b } => {
                        let (a, b) = (get_v(core, a), get_v(core, b));
                        let value = with_fp(core, how.rules, |env| fp::eval(how, a, b, env));
                        set_v(core, d, value);
                    }
                    Instr::FpFromInt { fmt, rules, ty, d, a, v } => {
                        let (a, v) = (get_v(core, a), ty.sext(get(core, v)));
                        let lane = with_fp(core, rules, |env| fp::from_int(fmt, v, env));
                        let low = match fmt {
                            FpFmt::F32 => VecOp::MoveLow32,
                            FpFmt::F64 => VecOp::MoveLow64,
                        };
                        set_v(core, d, vector::eval(low, a, lane.into(), 0));
                    }
                    Instr::FpToInt { how, ty, d, a } => {
                        let a = get(core, a);
                        let value = with_fp(core, how.rules, |env| fp::to_int(how, a, ty, env));
                        set(core, d, value);
                    }
                    Instr::FpCompare { how, d, a, b } => {
                        let (a, b) = (get(core, a), get(core, b));
                        let value = with_fp(core, how.rules, |env| fp::compare(how, a, b, env));
                        set(core, d, value);
                    }
                    Instr::Call { helper, d, args } => {
                        let args = args.map(|a| if a == NO_ARG { 0 } else { get(core, a) });
                        let Some(helper) = T::helpers().get(usize::from(helper)) else {
                            return Flow::Trap(Trap::Exit(Exit::Internal("unknown helper")), at - 1);
                        };
                        let value = attempt!(at, (helper.run)(core, args));
                        set(core, d, value);
                        if core.code_hit {
                            return finish_insn(core, code, at);
                        }
                    }
                    Instr::Jump { to } => at = to as usize,
                    Instr::BrIf { a, to } => {
                        if get(core, a) != 0 {
                            at = to as usize;
                        }
                    }
                    Instr::BrTest { cond, to } => {
                        let (kind, ty, a, b, c) = flag_state(core);
                        if flags::test(cond, kind, ty, a, b, c) {
                            at = to as usize;
                        }
                    }
                    Instr::Exit { insns, pc } => {
                        core.set_pc(pc);
                        return Flow::Done(insns);
                    }
                    Instr::ExitVal { insns, a } => {
                        let pc = get(core, a);
                        core.set_pc(pc);
                        return Flow::Done(insns);
                    }
                    Instr::Leave { insns } => return Flow::Done(insns),
                    Instr::Fail => return Flow::Trap(Trap::Exit(Exit::Internal("bad unit")), at - 1),
                }
            }
        }
    };
}
rows!(define);

/// A store hit translated code, perhaps this unit's: completes the instruction and leaves.
#[cold]
#[inline(never)]
fn finish_insn<T: Target>(core: &mut Core<T>, code: &Code, at: usize) -> Flow {
    core.code_hit = false;
    let mut at = at;
    loop {
        // The instruction's operations end where the next instruction's begin.
        let next = code
            .marks
            .partition_point(|(start, _)| (*start as usize) < at);
        let next = match code.marks.get(next) {
            Some((start, pc)) if *start as usize == at => {
                core.set_pc(*pc);
                return Flow::Done(next as u16);
            }
            other => other.map_or(code.ops.len(), |(start, _)| *start as usize),
        };
        match run(core, code, at, next) {
            Flow::Fell(reached) => at = reached,
            flow => return flow,
        }
    }
}
