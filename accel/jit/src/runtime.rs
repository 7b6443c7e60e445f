//! What generated code calls.
//!
//! None of these unwinds: a panic in them ends the process, as nothing may unwind through generated
//! code.

use accel_core::{Access, Core, Exit, Target, Trap};
use accel_interp::Stop;
use accel_ir::{FlagKind, Rmw, Ty};

use crate::compile::{ARG, RESULT};
use crate::run::Jit;
use crate::thunks::{Complex, Functions};

/// Addresses of the functions for a target.
pub(crate) fn functions<T: Target>() -> Functions {
    Functions {
        memory: [
            load::<T> as *const () as usize,
            store::<T> as *const () as usize,
            announce::<T> as *const () as usize,
            probe::<T> as *const () as usize,
        ],
        complex: complex::<T> as *const () as usize,
        call: call::<T> as *const () as usize,
        flags: flags as *const () as usize,
    }
}

/// An access, taken out of its number (`thunks::how`).
#[derive(Clone, Copy)]
struct How {
    bytes: u8,
    ctx: u8,
    aligned: bool,
    big: bool,
}

impl How {
    fn of(number: u32) -> How {
        How {
            bytes: number as u8,
            ctx: (number >> 8) as u8 & 3,
            aligned: number >> 10 & 1 != 0,
            big: number >> 11 & 1 != 0,
        }
    }

    fn check<T: Target>(self, core: &mut Core<T>, va: u64, access: Access) -> Result<(), Trap> {
        if self.aligned && !va.is_multiple_of(u64::from(self.bytes.max(1))) {
            return Err(T::alignment_fault(core, va, access));
        }
        Ok(())
    }

    fn swap(self, value: u64) -> u64 {
        if !self.big {
            return value;
        }
        value.swap_bytes() >> (64 - 8 * u32::from(self.bytes.clamp(1, 8)))
    }
}

/// Carries out what generated code asks for, and ends the call: what it came to, and what it stored.
/// `act` returns what it read, as it was in memory.
fn carry_out<T: Target>(
    core: &mut Core<T>,
    site: u64,
    executor: *mut Jit<T>,
    asked: impl FnOnce(&mut Core<T>) -> (Stop, u8),
    act: impl FnOnce(&mut Core<T>) -> Result<u128, Trap>,
) -> u32 {
    // SAFETY: generated code passes the executor that runs it, which lent itself to the run and is
    // used by nobody else meanwhile.
    let executor = unsafe { &mut *executor };
    let result = match executor.check {
        None => act(core).map(|_| ()),
        Some(_) => {
            let (asked, ctx) = asked(core);
            executor.check_call(core, site, &asked).and_then(|met| {
                let result = act(core);
                executor.check_result(core, (met, site), (&asked, ctx), result)
            })
        }
    };
    match result {
        Ok(()) => {
            executor.look_at_calls(core);
            if std::mem::take(&mut core.last_insn) {
                executor.leave_after(site);
            }
            if std::mem::take(&mut core.code_hit) {
                executor.code_hit(site);
            }
            0
        }
        Err(trap) => {
            core.code_hit = false;
            core.last_insn = false;
            core.trap = Some(trap);
            1
        }
    }
}

macro_rules! function {
    ($(#[$doc:meta])* $name:ident($core:ident, $how:ident) asks $asked:block does $body:block) => {
        $(#[$doc])*
        extern "C" fn $name<T: Target>(
            core: *mut Core<T>,
            site: u64,
            how: u32,
            executor: *mut Jit<T>,
        ) -> u32 {
            // SAFETY: generated code passes the core it runs on, which nobody else uses meanwhile.
            let core = unsafe { &mut *core };
            let $how = How::of(how);
            let asked = |$core: &mut Core<T>| ($asked, $how.ctx);
            carry_out(core, site, executor, asked, |$core: &mut Core<T>| $body)
        }
    };
}

function! {
    /// The load behind the fast path.
    load(core, how) asks {
        Stop::Load { va: core.regs.raw()[ARG], bytes: how.bytes }
    } does {
        let va = core.regs.raw()[ARG];
        how.check(core, va, Access::Read)?;
        if how.bytes == 16 {
            let value = core.load_v(va, how.ctx)?;
            core.regs.raw()[RESULT] = value as u64;
            core.regs.raw()[RESULT + 1] = (value >> 64) as u64;
            Ok(value)
        } else {
            let value = core.load(va, how.bytes, how.ctx)?;
            core.regs.raw()[RESULT] = value;
            Ok(value.into())
        }
    }
}

/// The value that a store is given.
fn stored<T: Target>(core: &mut Core<T>, bytes: u8) -> u128 {
    let [low, high] = [ARG + 1, ARG + 2].map(|i| core.regs.raw()[i]);
    match bytes {
        16 => u128::from(low) | u128::from(high) << 64,
        _ => (low & Ty::of_bytes(bytes.into()).mask()).into(),
    }
}

function! {
    /// The store behind the fast path.
    store(core, how) asks {
        let value = stored(core, how.bytes);
        Stop::Store { va: core.regs.raw()[ARG], bytes: how.bytes, value }
    } does {
        let va = core.regs.raw()[ARG];
        how.check(core, va, Access::Write)?;
        let value = stored(core, how.bytes);
        match how.bytes {
            16 => core.store_v(va, value, how.ctx)?,
            bytes => core.store(va, bytes, value as u64, how.ctx)?,
        }
        Ok(0)
    }
}

function! {
    /// A store has hit a page with flags.
    announce(core, how) asks {
        Stop::Probe { va: core.regs.raw()[ARG], bytes: how.bytes }
    } does {
        let va = core.regs.raw()[ARG];
        let mut hit = core.mmu.announce(how.ctx, va, how.bytes);
        // A unit may go on with a page that it has looked at while that leaves the tables.
        if hit.is_none() {
            match core.translate_for(va, Access::Write, how.ctx) {
                Ok(_) => hit = core.mmu.announce(how.ctx, va, how.bytes),
                Err(_) => T::forget(core),
            }
        }
        core.code_hit |= hit.unwrap_or(false);
        Ok(0)
    }
}

function! {
    /// Faults as a store would.
    probe(core, how) asks {
        Stop::Probe { va: core.regs.raw()[ARG], bytes: how.bytes }
    } does {
        let va = core.regs.raw()[ARG];
        how.check(core, va, Access::Write)?;
        core.probe_write(va, how.bytes, how.ctx)?;
        Ok(0)
    }
}

/// An atomic operation that generated code has no instruction for.
extern "C" fn complex<T: Target>(
    core: *mut Core<T>,
    site: u64,
    _: u32,
    executor: *mut Jit<T>,
) -> u32 {
    // SAFETY: as for the others.
    let core = unsafe { &mut *core };
    let asked = |core: &mut Core<T>| {
        let how = How::of(core.regs.raw()[ARG + 4] as u32);
        let mask = Ty::of_bytes(how.bytes.into()).mask();
        let [va, first, second] = [ARG, ARG + 1, ARG + 2].map(|i| core.regs.raw()[i]);
        let second = match Complex::of_number(core.regs.raw()[ARG + 4] as u32) {
            Complex::Cas => second & mask,
            Complex::Rmw(_) => 0,
        };
        let operands = [first & mask, second];
        let bytes = how.bytes;
        let asked = Stop::Atomic {
            va,
            bytes,
            operands,
        };
        (asked, how.ctx)
    };
    carry_out(core, site, executor, asked, atomic)
}

fn atomic<T: Target>(core: &mut Core<T>) -> Result<u128, Trap> {
    let [va, first, second] = [ARG, ARG + 1, ARG + 2].map(|i| core.regs.raw()[i]);
    let number = core.regs.raw()[ARG + 4] as u32;
    let how = How::of(number);
    how.check(core, va, Access::Write)?;
    let mask = Ty::of_bytes(how.bytes.into()).mask();
    let op = Complex::of_number(number);
    let old = core.update(va, how.bytes, how.ctx, |stored| {
        let old = how.swap(stored);
        let new = match op {
            Complex::Cas => {
                if old != first & mask {
                    return None;
                }
                second
            }
            Complex::Rmw(Rmw::Xchg) => first,
            Complex::Rmw(Rmw::Add) => old.wrapping_add(first),
            Complex::Rmw(Rmw::Sub) => old.wrapping_sub(first),
            Complex::Rmw(Rmw::And) => old & first,
            Complex::Rmw(Rmw::Or) => old | first,
            Complex::Rmw(Rmw::Xor) => old ^ first,
        };
        Some(how.swap(new & mask))
    })?;
    core.regs.raw()[RESULT] = how.swap(old);
    Ok(old.into())
}

/// A helper of the target.
extern "C" fn call<T: Target>(core: *mut Core<T>, site: u64, _: u32, executor: *mut Jit<T>) -> u32 {
    // SAFETY: as for the others.
    let core = unsafe { &mut *core };
    // No closures: each of millions of calls a second comes through here, in builds that inline less too.
    let raw = core.regs.raw();
    let args = [raw[ARG], raw[ARG + 1], raw[ARG + 2], raw[ARG + 3]];
    let helper = core.regs.raw()[ARG + 4] as u16;
    let asked = |_: &mut Core<T>| {
        let args = args.map(Some);
        (Stop::Call { helper, args }, 0)
    };
    carry_out(
        core,
        site,
        executor,
        asked,
        |core: &mut Core<T>| match T::helpers().get(usize::from(helper)) {
            Some(helper) => {
                let value = (helper.run)(core, args)?;
                core.regs.raw()[RESULT] = value;
                Ok(value.into())
            }
            None => Err(Trap::Exit(Exit::Internal("unknown helper"))),
        },
    )
}

/// All flags, of lazy ones.
extern "C" fn flags(kind: u64, a: u64, b: u64, c: u64) -> u64 {
    let (kind, ty) = FlagKind::of(kind);
    accel_ir::flags::pack(kind, ty, a, b, c)
}
