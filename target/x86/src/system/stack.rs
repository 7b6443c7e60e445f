//! Memory that the CPU touches by itself: stacks, descriptor tables, task-state segments.

use accel_core::Trap;

use super::paging::is_canonical;
use crate::cpu::ctx;
use crate::regs::{self, index, rflags};
use crate::state::{Segment, cr4, vector};
use crate::{Core, Table};

/// Context of implicit supervisor accesses (SDM vol. 3, 4.6.1): descriptor tables and the like.
pub(crate) fn system_ctx(core: &Core) -> u8 {
    if core.arch.cr4 & cr4::SMAP != 0 {
        ctx::SUPERVISOR_SMAP
    } else {
        ctx::SUPERVISOR
    }
}

/// Context of explicit accesses at a privilege level.
pub(crate) fn ctx_at(core: &Core, cpl: u8) -> u8 {
    if cpl == 3 {
        ctx::USER
    } else if core.arch.cr4 & cr4::SMAP != 0 && core.regs.get(regs::RFLAGS) & rflags::AC == 0 {
        ctx::SUPERVISOR_SMAP
    } else {
        ctx::SUPERVISOR
    }
}

/// A linear address: 32 bits wide outside IA-32e mode.
pub(crate) fn linear(core: &Core, va: u64) -> u64 {
    if core.arch.is_long() {
        va
    } else {
        va & 0xffff_ffff
    }
}

/// Reads from a system structure.
pub(crate) fn load(core: &mut Core, base: u64, offset: u64, size: u8) -> Result<u64, Trap> {
    let va = linear(core, base.wrapping_add(offset));
    let ctx = system_ctx(core);
    core.load(va, size, ctx)
}

/// Writes to a system structure.
pub(crate) fn store(
    core: &mut Core,
    base: u64,
    offset: u64,
    size: u8,
    value: u64,
) -> Result<(), Trap> {
    let va = linear(core, base.wrapping_add(offset));
    let ctx = system_ctx(core);
    core.store(va, size, value, ctx)
}

/// Sets bits in a byte of a system structure, atomically where it is RAM.
pub(crate) fn set_bits(core: &mut Core, va: u64, set: u64, clear: u64) -> Result<(), Trap> {
    let va = linear(core, va);
    let ctx = system_ctx(core);
    let change = |old: u64| old & !clear | set;
    match core.update(va, 1, ctx, |old| Some(change(old))) {
        // Not RAM: nobody else updates it.
        Err(Trap::Exclusive) => {
            let old = core.load(va, 1, ctx)?;
            core.store(va, 1, change(old), ctx)
        }
        other => other.map(|_| ()),
    }
}

/// Reads from a descriptor table. `None`: beyond its limit.
pub(crate) fn load_entry(
    core: &mut Core,
    table: Table,
    offset: u64,
    len: u64,
) -> Result<Option<(u64, u64)>, Trap> {
    if offset.wrapping_add(len).wrapping_sub(1) > u64::from(table.limit) {
        return Ok(None);
    }
    let low = load(core, table.base, offset, 8)?;
    let high = if len > 8 {
        load(core, table.base, offset.wrapping_add(8), 8)?
    } else {
        0
    };
    Ok(Some((low, high)))
}

/// Whether bytes at an offset lie within a segment's limit (SDM vol. 3, 5.3).
pub(crate) fn in_limit(segment: &Segment, offset: u64, size: u64) -> bool {
    let last = offset.wrapping_add(size).wrapping_sub(1);
    let data = segment.kind() & 8 == 0;
    if data && segment.kind() & 4 != 0 {
        // Expand down: above the limit, up to 64K or 4G.
        let top = if segment.attributes & Segment::DB != 0 {
            0xffff_ffff
        } else {
            0xffff
        };
        offset > u64::from(segment.limit) && last <= top && last >= offset
    } else {
        last <= u64::from(segment.limit) && last >= offset
    }
}

/// A stack in use by an instruction that changes RSP only when all went well.
#[derive(Clone, Copy)]
pub(crate) struct Stack {
    segment: Segment,
    /// Bits of RSP that are the stack pointer.
    mask: u64,
    flat: bool,
    ctx: u8,
    /// Error code of #SS.
    error: u32,
    /// RSP.
    pub(crate) sp: u64,
}

impl Stack {
    /// The current stack.
    pub(crate) fn current(core: &Core) -> Self {
        let ctx = ctx_at(core, core.arch.cpl);
        let sp = core.regs.get(regs::gpr(index::RSP));
        if core.arch.is_64() {
            Stack::flat(sp, ctx)
        } else {
            Stack::segmented(core.arch.ss(), sp, ctx)
        }
    }

    /// A stack of 64-bit mode.
    pub(crate) fn flat(sp: u64, ctx: u8) -> Self {
        Stack {
            segment: Segment::default(),
            mask: u64::MAX,
            flat: true,
            ctx,
            error: 0,
            sp,
        }
    }

    /// A stack in a segment.
    pub(crate) fn segmented(segment: Segment, sp: u64, ctx: u8) -> Self {
        let mask = if segment.attributes & Segment::DB != 0 {
            0xffff_ffff
        } else {
            0xffff
        };
        Stack {
            segment,
            mask,
            flat: false,
            ctx,
            error: 0,
            sp,
        }
    }

    /// With another error code of #SS: a new stack's selector, or EXT.
    pub(crate) fn with_error(mut self, error: u32) -> Self {
        self.error = error;
        self
    }

    fn address(&self, core: &mut Core, offset: u64, size: u8) -> Result<u64, Trap> {
        let last = offset.wrapping_add(u64::from(size)).wrapping_sub(1);
        let fine = if self.flat {
            is_canonical(offset) && is_canonical(last)
        } else {
            in_limit(&self.segment, offset, u64::from(size))
        };
        if !fine {
            return Err(super::raise(core, vector::SS, Some(self.error)));
        }
        Ok(if self.flat {
            offset
        } else {
            // Segments of legacy and compatibility mode reach 4 GB.
            self.segment.base.wrapping_add(offset) & 0xffff_ffff
        })
    }

    fn moved(&self, by: u64) -> u64 {
        self.sp & !self.mask | self.sp.wrapping_add(by) & self.mask
    }

    /// Pushes `size` bytes.
    pub(crate) fn push(&mut self, core: &mut Core, size: u8, value: u64) -> Result<(), Trap> {
        let sp = self.moved(u64::from(size).wrapping_neg());
        let at = self.address(core, sp & self.mask, size)?;
        core.store(at, size, value, self.ctx)?;
        self.sp = sp;
        Ok(())
    }

    /// Reads `size` bytes, `ahead` bytes above the top.
    pub(crate) fn peek(&self, core: &mut Core, size: u8, ahead: u64) -> Result<u64, Trap> {
        let at = self.address(core, self.sp.wrapping_add(ahead) & self.mask, size)?;
        core.load(at, size, self.ctx)
    }

    /// Pops `size` bytes.
    pub(crate) fn pop(&mut self, core: &mut Core, size: u8) -> Result<u64, Trap> {
        let value = self.peek(core, size, 0)?;
        self.drop(u64::from(size));
        Ok(value)
    }

    /// Forgets bytes at the top.
    pub(crate) fn drop(&mut self, bytes: u64) {
        self.sp = self.moved(bytes);
    }

    /// Makes this the CPU's stack pointer.
    pub(crate) fn commit(&self, core: &mut Core) {
        core.regs.set(regs::gpr(index::RSP), self.sp);
    }
}
