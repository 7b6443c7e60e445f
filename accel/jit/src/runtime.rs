//! What generated code calls.
//!
//! None of these unwinds: a panic in them ends the process, as nothing may unwind through generated
//! code.

use accel_core::{Access, Core, Exit, Target, Trap};
use accel_ir::{FlagKind, Rmw, Ty};

use crate::compile::{ARG, QUESTION, RESULT, answer};
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
        flags: flags::<T> as *const () as usize,
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

/// Ends a call: what it came to, and what it stored.
fn done<T: Target>(
    core: &mut Core<T>,
    site: u64,
    executor: *mut Jit<T>,
    result: Result<(), Trap>,
) -> u32 {
    match result {
        Ok(()) => {
            if std::mem::take(&mut core.code_hit) {
                // SAFETY: generated code passes the executor that runs it, which lent itself to the
                // run and is used by nobody else meanwhile.
                unsafe { (*executor).code_hit(site) };
            }
            0
        }
        Err(trap) => {
            core.code_hit = false;
            core.trap = Some(trap);
            1
        }
    }
}

macro_rules! function {
    ($(#[$doc:meta])* $name:ident($core:ident, $how:ident) $body:block) => {
        $(#[$doc])*
        extern "C" fn $name<T: Target>(
            core: *mut Core<T>,
            site: u64,
            how: u32,
            executor: *mut Jit<T>,
        ) -> u32 {
            // SAFETY: generated code passes the core it runs on, which nobody else uses meanwhile.
            let $core = unsafe { &mut *core };
            let $how = how;
            #[allow(clippy::redundant_closure_call)]
            let result = (|| -> Result<(), Trap> { $body })();
            done($core, site, executor, result)
        }
    };
}

function! {
    /// The load behind the fast path.
    load(core, how) {
        let how = How::of(how);
        let va = core.regs.raw()[ARG];
        how.check(core, va, Access::Read)?;
        if how.bytes == 16 {
            let value = core.load_v(va, how.ctx)?;
            core.regs.raw()[RESULT] = value as u64;
            core.regs.raw()[RESULT + 1] = (value >> 64) as u64;
        } else {
            let value = core.load(va, how.bytes, how.ctx)?;
            core.regs.raw()[RESULT] = value;
        }
        Ok(())
    }
}

function! {
    /// The store behind the fast path.
    store(core, how) {
        let how = How::of(how);
        let va = core.regs.raw()[ARG];
        how.check(core, va, Access::Write)?;
        let low = core.regs.raw()[ARG + 1];
        if how.bytes == 16 {
            let high = core.regs.raw()[ARG + 2];
            core.store_v(va, u128::from(low) | u128::from(high) << 64, how.ctx)
        } else {
            let mask = Ty::of_bytes(how.bytes.into()).mask();
            core.store(va, how.bytes, low & mask, how.ctx)
        }
    }
}

function! {
    /// A store has hit a page with flags.
    announce(core, how) {
        let how = How::of(how);
        let va = core.regs.raw()[ARG];
        if core.mmu.announce(how.ctx, va, how.bytes) {
            core.code_hit = true;
        }
        Ok(())
    }
}

function! {
    /// Faults as a store would.
    probe(core, how) {
        let how = How::of(how);
        let va = core.regs.raw()[ARG];
        core.probe_write(va, how.bytes, how.ctx)
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
    let result = atomic(core);
    done(core, site, executor, result)
}

fn atomic<T: Target>(core: &mut Core<T>) -> Result<(), Trap> {
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
    Ok(())
}

/// A helper of the target.
extern "C" fn call<T: Target>(core: *mut Core<T>, site: u64, _: u32, executor: *mut Jit<T>) -> u32 {
    // SAFETY: as for the others.
    let core = unsafe { &mut *core };
    let args = [ARG, ARG + 1, ARG + 2, ARG + 3].map(|i| core.regs.raw()[i]);
    let number = core.regs.raw()[ARG + 4] as u32 as usize;
    let result = match T::helpers().get(number) {
        Some(helper) => (helper.run)(core, args).map(|value| core.regs.raw()[RESULT] = value),
        None => Err(Trap::Exit(Exit::Internal("unknown helper"))),
    };
    done(core, site, executor, result)
}

/// A condition on the flags in the register file, or all of them.
extern "C" fn flags<T: Target>(core: *mut Core<T>) -> u32 {
    // SAFETY: as for the others.
    let core = unsafe { &mut *core };
    let at = usize::from(T::LAYOUT.flags.0);
    let raw = core.regs.raw();
    let kind = FlagKind::from_number((raw[at] >> 8) as u8);
    let ty = Ty::of_bytes(raw[at] as u32 & 15);
    raw[RESULT] = answer(
        raw[QUESTION] as u32,
        kind,
        ty,
        raw[at + 1],
        raw[at + 2],
        raw[at + 3],
    );
    0
}
