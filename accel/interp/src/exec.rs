//! Runs flat code.

use accel_core::{Access, Exit, Fast, Target, Trap};
use accel_ir::{FlagKind, FpFmt, FpRules, Mem, Ty, Unary, VecOp, flags, fp, vector};
use target_softfloat::Env;

use crate::code::{Code, Instr, Loc, NO_ARG, rows};
use crate::machine::{Machine, get_v, set_pc, set_v, store as store_to, swap, swap_v};

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
fn flag_state<M: Machine>(m: &mut M) -> (FlagKind, Ty, u64, u64, u64) {
    let at = M::Target::LAYOUT.flags.0.into();
    let number = m.get(at);
    let (kind, ty) = FlagKind::of(number);
    (kind, ty, m.get(at + 1), m.get(at + 2), m.get(at + 3))
}

#[inline(always)]
fn set_flags<M: Machine>(m: &mut M, kind: u16, a: u64, b: u64) {
    let at = Loc::from(M::Target::LAYOUT.flags.0);
    m.set(at, u64::from(kind));
    m.set(at + 1, a);
    m.set(at + 2, b);
}

/// Computes under the floating-point control slot and adds the flags to it.
#[inline]
fn with_fp<M: Machine, R>(m: &mut M, rules: FpRules, run: impl FnOnce(&mut Env) -> R) -> R {
    let slot = M::Target::LAYOUT.fp.0.into();
    let control = m.get(slot);
    let mut env = rules.env(control);
    let result = run(&mut env);
    m.set(slot, rules.settle(control, env.flags));
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

#[cold]
#[inline(never)]
fn load_any<M: Machine>(m: &mut M, d: Loc, a: Loc, mem: &Mem) -> Result<(), Trap> {
    let va = m.get(a);
    m.check_alignment(va, mem, Access::Read)?;
    if mem.ty == Ty::V128 {
        let value = m.load_v(va, mem.ctx)?;
        set_v(m, d, swap_v(mem, value));
    } else {
        let value = m.load(va, mem.ty.bytes(), mem.ctx)?;
        m.set(d, swap(mem, value));
    }
    Ok(())
}

/// Says whether translated code was hit.
#[cold]
#[inline(never)]
fn store_any<M: Machine>(m: &mut M, a: Loc, v: Loc, mem: &Mem) -> Result<bool, Trap> {
    let va = m.get(a);
    m.check_alignment(va, mem, Access::Write)?;
    let hit = if mem.ty == Ty::V128 {
        let value = swap_v(mem, get_v(m, v));
        m.store_v(va, value, mem.ctx)?;
        m.code_hit()
    } else {
        let value = swap(mem, m.get(v) & mem.ty.mask());
        store_to(m, va, mem.ty, value, mem.ctx)?
    };
    if mem.ordering == accel_ir::Ordering::SeqCst {
        m.fence();
    }
    Ok(hit)
}

/// Slow path of a load.
#[cold]
#[inline(never)]
fn load_slow<M: Machine>(m: &mut M, d: Loc, va: u64, size: u8, ctx: u8) -> Result<(), Trap> {
    let value = m.load_slow(va, size, ctx)?;
    m.set(d, value);
    Ok(())
}

/// A load from plain RAM, or the slow way.
macro_rules! load {
    ($machine:ident, $code:ident, $at:ident, $load:ident, $size:expr, $d:expr, $a:expr, $ctx:expr, $imm:expr) => {{
        let va = $machine.get($a).wrapping_add($imm);
        match $machine.$load($ctx, va) {
            Some(value) => $machine.set($d, u64::from(value)),
            None => {
                if let Err(trap) = load_slow($machine, $d, va, $size, $ctx) {
                    return Flow::Trap(trap, $at - 1);
                }
                if $machine.code_hit() {
                    return finish_insn($machine, $code, $at);
                }
            }
        }
    }};
}

/// A store to plain RAM, or the slow way.
macro_rules! store {
    ($machine:ident, $code:ident, $at:ident, $store:ident, $t:ty, $size:expr, $a:expr, $v:expr, $ctx:expr, $imm:expr) => {{
        let va = $machine.get($a).wrapping_add($imm);
        let value = $machine.get($v);
        match $machine.$store($ctx, va, value as $t) {
            Fast::Done(()) => {}
            Fast::HitCode(()) => return finish_insn($machine, $code, $at),
            Fast::Slow => {
                if let Err(trap) = $machine.store_slow(va, $size, value, $ctx) {
                    return Flow::Trap(trap, $at - 1);
                }
                if $machine.code_hit() {
                    return finish_insn($machine, $code, $at);
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
        pub(crate) fn run<M: Machine>(machine: &mut M, code: &Code, from: usize, until: usize) -> Flow {
            let ops = code.ops.get(..until).unwrap_or(&code.ops);
            let mut at = from;
            loop {
                let Some(instr) = ops.get(at) else { return Flow::Fell(at) };
                machine.at(at);
                at += 1;
                match *instr {
                    $(
                        Instr::$r { d, a, b } => {
                            let value = ($f)(machine.get(a) as _, machine.get(b) as _);
                            machine.set(d, u64::from(value));
                        }
                        Instr::$i { d, a, imm } => {
                            let value = ($f)(machine.get(a) as _, imm as _);
                            machine.set(d, u64::from(value));
                        }
                    )*
                    $(
                        Instr::$v { d, a, b } => {
                            let yes = ($cf)(machine.get(a) as _, machine.get(b) as _);
                            machine.set(d, u64::from(yes));
                        }
                        Instr::$vi { d, a, imm } => {
                            let yes = ($cf)(machine.get(a) as _, imm as _);
                            machine.set(d, u64::from(yes));
                        }
                        Instr::$b { a, b, to } => {
                            if ($cf)(machine.get(a) as _, machine.get(b) as _) {
                                at = to as usize;
                            }
                        }
                        Instr::$bi { a, to, imm } => {
                            if ($cf)(machine.get(a) as _, imm as _) {
                                at = to as usize;
                            }
                        }
                    )*
                    Instr::Mov { d, a } => {
                        let value = machine.get(a);
                        machine.set(d, value);
                    }
                    Instr::MovI { d, imm } => machine.set(d, imm),
                    Instr::MovV { d, a } => {
                        let value = get_v(machine, a);
                        set_v(machine, d, value);
                    }
                    Instr::Mask { d, a, mask } => {
                        let value = machine.get(a) & mask;
                        machine.set(d, value);
                    }
                    Instr::Sext8 { d, a, mask } => {
                        let value = machine.get(a) as i8 as u64 & mask;
                        machine.set(d, value);
                    }
                    Instr::Sext16 { d, a, mask } => {
                        let value = machine.get(a) as i16 as u64 & mask;
                        machine.set(d, value);
                    }
                    Instr::Sext32 { d, a, mask } => {
                        let value = machine.get(a) as i32 as u64 & mask;
                        machine.set(d, value);
                    }
                    Instr::Extract { d, a, shift, mask } => {
                        let value = machine.get(a) >> (shift & 63) & mask;
                        machine.set(d, value);
                    }
                    Instr::Insert { d, a, b, shift, width } => {
                        let mask = (u64::MAX >> (64 - u32::from(width) & 63)) << (shift & 63);
                        let value = machine.get(a) & !mask | machine.get(b) << (shift & 63) & mask;
                        machine.set(d, value);
                    }
                    Instr::Lea { d, a, b, shift, imm } => {
                        let value = machine.get(a)
                            .wrapping_add(machine.get(b) << (shift & 63))
                            .wrapping_add(imm as i64 as u64);
                        machine.set(d, value);
                    }
                    Instr::Unary { op, ty, d, a } => {
                        let value = unary(op, ty, machine.get(a));
                        machine.set(d, value);
                    }
                    Instr::Select { d, c, a, b } => {
                        let from = if machine.get(c) != 0 { a } else { b };
                        let value = machine.get(from);
                        machine.set(d, value);
                    }
                    Instr::Load8 { d, a, ctx, imm } => load!(machine, code, at, load8, 1, d, a, ctx, imm),
                    Instr::Load16 { d, a, ctx, imm } => load!(machine, code, at, load16, 2, d, a, ctx, imm),
                    Instr::Load32 { d, a, ctx, imm } => load!(machine, code, at, load32, 4, d, a, ctx, imm),
                    Instr::Load64 { d, a, ctx, imm } => load!(machine, code, at, load64, 8, d, a, ctx, imm),
                    Instr::Store8 { a, v, ctx, imm } => store!(machine, code, at, store8, u8, 1, a, v, ctx, imm),
                    Instr::Store16 { a, v, ctx, imm } => store!(machine, code, at, store16, u16, 2, a, v, ctx, imm),
                    Instr::Store32 { a, v, ctx, imm } => store!(machine, code, at, store32, u32, 4, a, v, ctx, imm),
                    Instr::Store64 { a, v, ctx, imm } => store!(machine, code, at, store64, u64, 8, a, v, ctx, imm),
                    Instr::LoadAny { d, a, mem } => {
                        attempt!(at, load_any(machine, d, a, &code.mems[usize::from(mem)]));
                        if machine.code_hit() {
                            return finish_insn(machine, code, at);
                        }
                    }
                    Instr::StoreAny { a, v, mem } => {
                        if attempt!(at, store_any(machine, a, v, &code.mems[usize::from(mem)])) {
                            return finish_insn(machine, code, at);
                        }
                    }
                    Instr::Probe { a, mem } => {
                        let mem = &code.mems[usize::from(mem)];
                        let va = machine.get(a);
                        attempt!(at, machine.check_alignment(va, mem, Access::Write));
                        attempt!(at, machine.probe(va, mem));
                    }
                    Instr::Rmw { op, d, a, v, mem } => {
                        let (va, v) = (machine.get(a), machine.get(v));
                        let mem = &code.mems[usize::from(mem)];
                        attempt!(at, machine.check_alignment(va, mem, Access::Write));
                        let old = attempt!(at, machine.rmw(op, va, v, mem));
                        machine.set(d, swap(mem, old));
                        if machine.code_hit() {
                            return finish_insn(machine, code, at);
                        }
                    }
                    Instr::Cas { d, a, expected, new, mem } => {
                        let mem = &code.mems[usize::from(mem)];
                        let (va, expected, new) = (machine.get(a), machine.get(expected), machine.get(new));
                        attempt!(at, machine.check_alignment(va, mem, Access::Write));
                        let old = attempt!(at, machine.cas(va, expected, new, mem));
                        machine.set(d, swap(mem, old));
                        if machine.code_hit() {
                            return finish_insn(machine, code, at);
                        }
                    }
                    Instr::Fence => machine.fence(),
                    Instr::Flags { kind, a, b } => {
                        let (a, b) = (machine.get(a), machine.get(b));
                        set_flags(machine, kind, a, b);
                    }
                    Instr::FlagsI { kind, a, imm } => {
                        let a = machine.get(a);
                        set_flags(machine, kind, a, imm);
                    }
                    Instr::FlagsC { kind, a, b, c } => {
                        let (a, b, c) = (machine.get(a), machine.get(b), machine.get(c));
                        set_flags(machine, kind, a, b);
                        machine.set(Loc::from(M::Target::LAYOUT.flags.0) + 3, c);
                    }
                    Instr::Test { d, cond } => {
                        let (kind, ty, a, b, c) = flag_state(machine);
                        machine.set(d, u64::from(flags::test(cond, kind, ty, a, b, c)));
                    }
                    Instr::Pack { d } => {
                        let (kind, ty, a, b, c) = flag_state(machine);
                        machine.set(d, flags::pack(kind, ty, a, b, c));
                    }
                    Instr::Vec { op, imm, d, a, b } => {
                        let value = vector::eval(op, get_v(machine, a), get_v(machine, b), imm);
                        set_v(machine, d, value);
                    }
                    Instr::VecSigns { lane, d, a } => {
                        let value = vector::signs(get_v(machine, a), lane);
                        machine.set(d, value.into());
                    }
                    Instr::Fp { how, d, a, b } => {
                        let (a, b) = (get_v(machine, a), get_v(machine, b));
                        let value = with_fp(machine, how.rules, |env| fp::eval(how, a, b, env));
                        set_v(machine, d, value);
                    }
                    Instr::FpMulAdd { how, d, a, b, c } => {
                        let (a, b) = (get_v(machine, a), get_v(machine, b));
                        let c = get_v(machine, c);
                        let value =
                            with_fp(machine, how.rules, |env| fp::mul_add(how, (a, b), c, env));
                        set_v(machine, d, value);
                    }
                    Instr::FpFromInt { fmt, rules, ty, d, a, v } => {
                        let (a, v) = (get_v(machine, a), ty.sext(machine.get(v)));
                        let lane = with_fp(machine, rules, |env| fp::from_int(fmt, v, env));
                        let low = match fmt {
                            FpFmt::F32 => VecOp::MoveLow32,
                            FpFmt::F64 => VecOp::MoveLow64,
                        };
                        set_v(machine, d, vector::eval(low, a, lane.into(), 0));
                    }
                    Instr::FpToInt { how, ty, d, a } => {
                        let a = machine.get(a);
                        let value = with_fp(machine, how.rules, |env| fp::to_int(how, a, ty, env));
                        machine.set(d, value);
                    }
                    Instr::FpCompare { how, d, a, b } => {
                        let (a, b) = (machine.get(a), machine.get(b));
                        let value = with_fp(machine, how.rules, |env| fp::compare(how, a, b, env));
                        machine.set(d, value);
                    }
                    Instr::Call { helper, d, args } => {
                        let args = args.map(|a| (a != NO_ARG).then(|| machine.get(a)));
                        let value = attempt!(at, machine.call(helper, args));
                        machine.set(d, value);
                        if machine.code_hit() {
                            return finish_insn(machine, code, at);
                        }
                    }
                    Instr::Jump { to } => at = to as usize,
                    Instr::BrIf { a, to } => {
                        if machine.get(a) != 0 {
                            at = to as usize;
                        }
                    }
                    Instr::BrTest { cond, to } => {
                        let (kind, ty, a, b, c) = flag_state(machine);
                        if flags::test(cond, kind, ty, a, b, c) {
                            at = to as usize;
                        }
                    }
                    Instr::Exit { insns, pc } => {
                        set_pc(machine, pc);
                        return Flow::Done(insns);
                    }
                    Instr::ExitVal { insns, a } => {
                        let pc = machine.get(a);
                        set_pc(machine, pc);
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
fn finish_insn<M: Machine>(machine: &mut M, code: &Code, at: usize) -> Flow {
    let mut at = at;
    loop {
        // The instruction's operations end where the next instruction's begin.
        let next = code
            .marks
            .partition_point(|(start, _)| (*start as usize) < at);
        let next = match code.marks.get(next) {
            Some((start, pc)) if *start as usize == at => {
                set_pc(machine, *pc);
                return Flow::Done(next as u16);
            }
            other => other.map_or(code.ops.len(), |(start, _)| *start as usize),
        };
        match run(machine, code, at, next) {
            Flow::Fell(reached) => at = reached,
            flow => return flow,
        }
    }
}
