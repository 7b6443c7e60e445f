//! What flat code works on: a CPU, or the shadow of one.

use std::sync::atomic::{Ordering, fence};

use accel_core::{Access, Core, Exit, Fast, Target, Trap};
use accel_ir::{Endian, Mem, Rmw, Slot, Ty};

use crate::code::Loc;

/// A result of an operation on memory, or how it trapped.
pub(crate) type Outcome<R> = Result<R, Trap>;

/// The state that flat code changes and the memory it accesses. All values of memory are
/// little-endian.
pub(crate) trait Machine {
    /// The guest.
    type Target: Target;

    /// A slot's value.
    fn get(&mut self, loc: Loc) -> u64;
    /// Sets a slot.
    fn set(&mut self, loc: Loc, value: u64);
    /// The operation at this index comes next.
    fn at(&mut self, at: usize);

    /// A load from plain RAM at hand.
    fn load8(&mut self, ctx: u8, va: u64) -> Option<u8>;
    /// As [`load8`](Self::load8).
    fn load16(&mut self, ctx: u8, va: u64) -> Option<u16>;
    /// As [`load8`](Self::load8).
    fn load32(&mut self, ctx: u8, va: u64) -> Option<u32>;
    /// As [`load8`](Self::load8).
    fn load64(&mut self, ctx: u8, va: u64) -> Option<u64>;
    /// A load that the fast path did not do.
    fn load_slow(&mut self, va: u64, size: u8, ctx: u8) -> Outcome<u64>;
    /// Any load of 16 bytes.
    fn load_v(&mut self, va: u64, ctx: u8) -> Outcome<u128>;

    /// A store to plain RAM at hand.
    fn store8(&mut self, ctx: u8, va: u64, value: u8) -> Fast<()>;
    /// As [`store8`](Self::store8).
    fn store16(&mut self, ctx: u8, va: u64, value: u16) -> Fast<()>;
    /// As [`store8`](Self::store8).
    fn store32(&mut self, ctx: u8, va: u64, value: u32) -> Fast<()>;
    /// As [`store8`](Self::store8).
    fn store64(&mut self, ctx: u8, va: u64, value: u64) -> Fast<()>;
    /// A store that the fast path did not do.
    fn store_slow(&mut self, va: u64, size: u8, value: u64, ctx: u8) -> Outcome<()>;
    /// Any store of 16 bytes.
    fn store_v(&mut self, va: u64, value: u128, ctx: u8) -> Outcome<()>;
    /// Faults as a store would.
    fn probe(&mut self, va: u64, mem: &Mem) -> Outcome<()>;
    /// An atomic operation: the old value.
    fn rmw(&mut self, op: Rmw, va: u64, v: u64, mem: &Mem) -> Outcome<u64>;
    /// A comparison and exchange: the old value.
    fn cas(&mut self, va: u64, expected: u64, new: u64, mem: &Mem) -> Outcome<u64>;
    /// A misaligned access that must be aligned.
    fn misaligned(&mut self, va: u64, mem: &Mem, access: Access) -> Trap;
    /// A helper; arguments not given are zero.
    fn call(&mut self, helper: u16, args: [Option<u64>; 4]) -> Outcome<u64>;
    /// Whether a store hit translated code since this was last asked.
    fn code_hit(&mut self) -> bool;
    /// Orders memory accesses.
    fn fence(&mut self);

    /// Any load of up to 8 bytes.
    fn load(&mut self, va: u64, size: u8, ctx: u8) -> Outcome<u64> {
        let value = match size {
            1 => self.load8(ctx, va).map(u64::from),
            2 => self.load16(ctx, va).map(u64::from),
            4 => self.load32(ctx, va).map(u64::from),
            _ => self.load64(ctx, va),
        };
        match value {
            Some(value) => Ok(value),
            None => self.load_slow(va, size, ctx),
        }
    }

    /// Faults if the access must be aligned and is not.
    fn check_alignment(&mut self, va: u64, mem: &Mem, access: Access) -> Outcome<()> {
        if mem.aligned && !va.is_multiple_of(u64::from(mem.ty.bytes())) {
            return Err(self.misaligned(va, mem, access));
        }
        Ok(())
    }
}

/// To or from the order of bytes in memory.
pub(crate) fn swap(mem: &Mem, value: u64) -> u64 {
    if mem.endian == Endian::Little {
        return value;
    }
    value.swap_bytes() >> (64 - mem.ty.bits().min(64))
}

/// As [`swap`] for 16 bytes.
pub(crate) fn swap_v(mem: &Mem, value: u128) -> u128 {
    match mem.endian {
        Endian::Little => value,
        Endian::Big => value.swap_bytes(),
    }
}

/// What an atomic operation puts in the place of the value in memory.
pub(crate) fn rmw_result(op: Rmw, stored: u64, v: u64, mem: &Mem) -> u64 {
    let old = swap(mem, stored);
    let v = v & mem.ty.mask();
    let new = match op {
        Rmw::Xchg => v,
        Rmw::Add => old.wrapping_add(v),
        Rmw::Sub => old.wrapping_sub(v),
        Rmw::And => old & v,
        Rmw::Or => old | v,
        Rmw::Xor => old ^ v,
    };
    swap(mem, new & mem.ty.mask())
}

/// What a comparison and exchange puts there, if it does.
pub(crate) fn cas_result(stored: u64, expected: u64, new: u64, mem: &Mem) -> Option<u64> {
    (swap(mem, stored) == expected).then(|| swap(mem, new & mem.ty.mask()))
}

macro_rules! to_mmu {
    ($($load:ident $store:ident $t:ty;)*) => {
        $(
            #[inline(always)]
            fn $load(&mut self, ctx: u8, va: u64) -> Option<$t> {
                self.mmu.$load(ctx, va)
            }

            #[inline(always)]
            fn $store(&mut self, ctx: u8, va: u64, value: $t) -> Fast<()> {
                self.mmu.$store(ctx, va, value)
            }
        )*
    };
}

impl<T: Target> Machine for Core<T> {
    type Target = T;

    #[inline(always)]
    fn get(&mut self, loc: Loc) -> u64 {
        self.regs.raw()[usize::from(loc) & 511]
    }

    #[inline(always)]
    fn set(&mut self, loc: Loc, value: u64) {
        self.regs.raw()[usize::from(loc) & 511] = value;
    }

    #[inline(always)]
    fn at(&mut self, _: usize) {}

    to_mmu! {
        load8 store8 u8;
        load16 store16 u16;
        load32 store32 u32;
        load64 store64 u64;
    }

    fn load_slow(&mut self, va: u64, size: u8, ctx: u8) -> Outcome<u64> {
        Core::load_slow(self, va, size, ctx)
    }

    fn load_v(&mut self, va: u64, ctx: u8) -> Outcome<u128> {
        Core::load_v(self, va, ctx)
    }

    fn store_slow(&mut self, va: u64, size: u8, value: u64, ctx: u8) -> Outcome<()> {
        Core::store_slow(self, va, size, value, ctx)
    }

    fn store_v(&mut self, va: u64, value: u128, ctx: u8) -> Outcome<()> {
        Core::store_v(self, va, value, ctx)
    }

    fn probe(&mut self, va: u64, mem: &Mem) -> Outcome<()> {
        self.probe_write(va, mem.ty.bytes(), mem.ctx)
    }

    fn rmw(&mut self, op: Rmw, va: u64, v: u64, mem: &Mem) -> Outcome<u64> {
        self.update(va, mem.ty.bytes(), mem.ctx, |old| {
            Some(rmw_result(op, old, v, mem))
        })
    }

    fn cas(&mut self, va: u64, expected: u64, new: u64, mem: &Mem) -> Outcome<u64> {
        self.update(va, mem.ty.bytes(), mem.ctx, |old| {
            cas_result(old, expected, new, mem)
        })
    }

    fn misaligned(&mut self, va: u64, _: &Mem, access: Access) -> Trap {
        T::alignment_fault(self, va, access)
    }

    #[inline(always)]
    fn call(&mut self, helper: u16, args: [Option<u64>; 4]) -> Outcome<u64> {
        match T::helpers().get(usize::from(helper)) {
            Some(helper) => (helper.run)(self, args.map(Option::unwrap_or_default)),
            None => Err(Trap::Exit(Exit::Internal("unknown helper"))),
        }
    }

    #[inline(always)]
    fn code_hit(&mut self) -> bool {
        self.last_insn = false;
        std::mem::take(&mut self.code_hit)
    }

    fn fence(&mut self) {
        fence(Ordering::SeqCst);
    }
}

/// Two consecutive slots as a vector.
pub(crate) fn get_v<M: Machine>(machine: &mut M, loc: Loc) -> u128 {
    u128::from(machine.get(loc)) | u128::from(machine.get(loc + 1)) << 64
}

/// Sets two consecutive slots.
pub(crate) fn set_v<M: Machine>(machine: &mut M, loc: Loc, value: u128) {
    machine.set(loc, value as u64);
    machine.set(loc + 1, (value >> 64) as u64);
}

/// Sets the PC.
pub(crate) fn set_pc<M: Machine>(machine: &mut M, pc: u64) {
    let Slot(slot) = M::Target::LAYOUT.pc;
    machine.set(slot.into(), pc);
}

/// A store of up to 8 bytes.
pub(crate) fn store<M: Machine>(
    machine: &mut M,
    va: u64,
    ty: Ty,
    value: u64,
    ctx: u8,
) -> Outcome<bool> {
    let done = match ty.bytes() {
        1 => machine.store8(ctx, va, value as u8),
        2 => machine.store16(ctx, va, value as u16),
        4 => machine.store32(ctx, va, value as u32),
        _ => machine.store64(ctx, va, value),
    };
    match done {
        Fast::Done(()) => Ok(false),
        Fast::HitCode(()) => Ok(true),
        Fast::Slow => {
            machine.store_slow(va, ty.bytes(), value, ctx)?;
            Ok(machine.code_hit())
        }
    }
}
