//! RFLAGS as one value: the lazy arithmetic flags and the rest.

use accel_ir::{FlagKind, Slot, Ty, flags};

use crate::Core;
use crate::regs::{self, rflags};

/// The lazy flags' slot `n`: kind and type, a, b, c.
fn slot(n: u8) -> Slot {
    Slot(regs::FLAGS.0.wrapping_add(n))
}

/// RFLAGS.
pub fn read(core: &Core) -> u64 {
    arithmetic(core) | core.regs.get(regs::RFLAGS) | rflags::FIXED
}

fn arithmetic(core: &Core) -> u64 {
    let head = core.regs.get(slot(0));
    let (kind, ty) = FlagKind::of(head);
    let [a, b, c] = [1, 2, 3].map(|n| core.regs.get(slot(n)));
    flags::pack(kind, ty, a, b, c)
}

/// Sets all of RFLAGS. RF is not kept there: see `debug::resume`.
pub fn write(core: &mut Core, value: u64) {
    core.regs.set(slot(0), FlagKind::Raw.with(Ty::I64).into());
    core.regs.set(slot(1), value & flags::ALL);
    core.regs.set(slot(2), 0);
    core.regs.set(slot(3), 0);
    core.regs
        .set(regs::RFLAGS, value & rflags::SYSTEM & !rflags::RF);
}

/// Changes the bits of `mask` to those of `value`.
pub(crate) fn merge(core: &mut Core, value: u64, mask: u64) {
    let old = read(core);
    write(core, old & !mask | value & mask);
}

/// Clears bits outside the arithmetic flags.
pub(crate) fn clear(core: &mut Core, bits: u64) {
    let old = core.regs.get(regs::RFLAGS);
    core.regs.set(regs::RFLAGS, old & !bits);
}

/// Sets bits outside the arithmetic flags.
pub(crate) fn set(core: &mut Core, bits: u64) {
    let old = core.regs.get(regs::RFLAGS);
    core.regs.set(regs::RFLAGS, old | bits & rflags::SYSTEM);
}

/// IOPL.
pub(crate) fn iopl(core: &Core) -> u8 {
    (core.regs.get(regs::RFLAGS) >> 12) as u8 & 3
}
