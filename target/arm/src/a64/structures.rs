//! Loads and stores of Advanced SIMD structures (DDI 0487, C4.1.95): LD1 to LD4, ST1 to ST4, LD1R.

use accel_core::Trap;
use accel_ir::{Ty, Val};

use super::context::Ctx;
use crate::{Core, helper, regs};

/// Number of registers and of elements in a structure, by opcode.
fn shape(opcode: u32) -> Option<(u32, u32)> {
    Some(match opcode {
        0b0000 => (4, 4),
        0b0010 => (4, 1),
        0b0100 => (3, 3),
        0b0110 => (3, 1),
        0b0111 => (1, 1),
        0b1000 => (2, 2),
        0b1010 => (2, 1),
        _ => return None,
    })
}

/// Adds the post-index to the base register.
fn post_index(c: &mut Ctx, base: Val, rn: u32, rm: u32, bytes: u32) {
    let moved = match rm {
        31 => c.b.add_const(base, bytes.into()),
        _ => {
            let step = c.x(rm, Ty::I64);
            c.b.add(base, step)
        }
    };
    c.set_x_sp(rn, moved);
}

pub(super) fn multiple(
    c: &mut Ctx,
    (q, l, opcode, size): (u32, u32, u32, u32),
    (rn, rt, rm): (u32, u32, u32),
    post: bool,
) -> Option<()> {
    let (count, elements) = shape(opcode)?;
    if size == 3 && q == 0 && elements > 1 {
        return None;
    }
    if !c.fp_access() {
        return Some(());
    }
    let base = c.x_sp(rn, Ty::I64);
    let bytes = if q != 0 { 16u32 } else { 8 };
    let total = bytes.wrapping_mul(count);
    if elements == 1 {
        plain(
            c,
            base,
            l != 0,
            (rt, count),
            if q != 0 { Ty::V128 } else { Ty::I64 },
        );
    } else {
        let how = u64::from(l | q << 1 | size << 2 | elements << 4 | rt << 8)
            | u64::from(c.mode.ctx()) << 16;
        let how = c.imm(Ty::I64, how);
        c.b.call_void(helper::STRUCTURES, &[base, how]);
    }
    if post {
        post_index(c, base, rn, rm, total);
    }
    Some(())
}

/// Whole registers one after the other.
fn plain(c: &mut Ctx, base: Val, load: bool, (rt, count): (u32, u32), ty: Ty) {
    let bytes = u64::from(ty.bytes());
    let at = |c: &mut Ctx, n: u32| c.b.add_const(base, u64::from(n).wrapping_mul(bytes));
    let mem = c.mem(ty);
    let mem = accel_ir::Mem {
        aligned: false,
        ..mem
    };
    let register = |n: u32| rt.wrapping_add(n) & 31;
    if load {
        let values: Vec<_> = (0..count)
            .map(|n| {
                let address = at(c, n);
                c.b.load(address, mem)
            })
            .collect();
        for (n, v) in (0..).zip(values) {
            c.set_v_low(register(n), v);
        }
        return;
    }
    if count > 1 {
        let last = at(c, count.wrapping_sub(1));
        c.b.probe(last, mem);
    }
    for n in 0..count {
        let v = c.v_low(register(n), ty);
        let address = at(c, n);
        c.b.store(address, v, mem);
    }
}

pub(super) fn single(
    c: &mut Ctx,
    (q, l, r): (u32, u32, u32),
    (opcode, s, size): (u32, u32, u32),
    (rn, rt, rm): (u32, u32, u32),
    post: bool,
) -> Option<()> {
    let elements = (opcode << 1 & 2 | r).wrapping_add(1);
    // Size and lane, or replicate.
    let (bits, lane) = match opcode >> 1 {
        0 => (0, q << 3 | s << 2 | size),
        1 if size & 1 == 0 => (1, q << 2 | s << 1 | size >> 1),
        2 if size == 0 => (2, q << 1 | s),
        2 if size == 1 && s == 0 => (3, q),
        3 if l != 0 && s == 0 => (size, 16),
        _ => return None,
    };
    if !c.fp_access() {
        return Some(());
    }
    let base = c.x_sp(rn, Ty::I64);
    let how = u64::from(l | q << 1 | bits << 2 | elements << 4 | rt << 8)
        | u64::from(c.mode.ctx()) << 16
        | u64::from(lane) << 24;
    let how = c.imm(Ty::I64, how);
    c.b.call_void(helper::STRUCTURE, &[base, how]);
    if post {
        post_index(c, base, rn, rm, elements.wrapping_shl(bits));
    }
    Some(())
}

/// The fields of a helper's argument.
struct How {
    load: bool,
    q: bool,
    /// log2 of an element's bytes.
    size: u32,
    elements: u32,
    rt: u32,
    ctx: u8,
    lane: u32,
}

impl How {
    fn of(how: u64) -> How {
        How {
            load: how & 1 != 0,
            q: how & 2 != 0,
            size: (how >> 2 & 3) as u32,
            elements: (how >> 4 & 7) as u32,
            rt: (how >> 8 & 31) as u32,
            ctx: (how >> 16) as u8,
            lane: (how >> 24) as u32 & 31,
        }
    }

    fn bytes(&self) -> u8 {
        1u8.wrapping_shl(self.size)
    }

    fn register(&self, n: u32) -> accel_ir::Slot {
        regs::v(self.rt.wrapping_add(n) & 31)
    }

    fn mask(&self) -> u128 {
        u128::from(u64::MAX.wrapping_shr(64u32.wrapping_sub(8u32.wrapping_shl(self.size))))
    }
}

/// Checks all bytes of a store before any is written.
fn probe(core: &mut Core, address: u64, len: u64, ctx: u8) -> Result<(), Trap> {
    core.probe_write(address, 1, ctx)?;
    core.probe_write(address.wrapping_add(len.wrapping_sub(1)), 1, ctx)
}

/// (address, how): LD2 to LD4, ST2 to ST4 of all lanes.
pub(crate) fn multiple_helper(core: &mut Core, [address, how, ..]: [u64; 4]) -> Result<u64, Trap> {
    let how = How::of(how);
    let bytes = how.bytes();
    let lanes = (if how.q { 16u32 } else { 8 }).wrapping_shr(how.size);
    let mut values = [0u128; 4];
    let used = values.iter_mut().take(how.elements as usize);
    let mut at = address;
    if how.load {
        for lane in 0..lanes {
            let shift = lane.wrapping_mul(u32::from(bytes)).wrapping_mul(8);
            for value in values.iter_mut().take(how.elements as usize) {
                let element = core.load(at, bytes, how.ctx)?;
                *value |= u128::from(element).wrapping_shl(shift);
                at = at.wrapping_add(bytes.into());
            }
        }
        for (n, value) in (0..how.elements).zip(values) {
            core.regs.set_v(how.register(n), value);
        }
        return Ok(0);
    }
    for (n, value) in (0..how.elements).zip(used) {
        *value = core.regs.get_v(how.register(n));
    }
    let len = u64::from(lanes.wrapping_mul(how.elements).wrapping_mul(bytes.into()));
    probe(core, address, len, how.ctx)?;
    for lane in 0..lanes {
        let shift = lane.wrapping_mul(u32::from(bytes)).wrapping_mul(8);
        for value in values.iter().take(how.elements as usize) {
            core.store(at, bytes, value.wrapping_shr(shift) as u64, how.ctx)?;
            at = at.wrapping_add(bytes.into());
        }
    }
    Ok(0)
}

/// (address, how): one lane, or, if the lane is 16, one element to all lanes.
pub(crate) fn single_helper(core: &mut Core, [address, how, ..]: [u64; 4]) -> Result<u64, Trap> {
    let how = How::of(how);
    let bytes = how.bytes();
    let at = |n: u32| address.wrapping_add(u64::from(n.wrapping_mul(bytes.into())));
    let shift = how.lane.wrapping_mul(u32::from(bytes)).wrapping_mul(8);
    if !how.load {
        let len = u64::from(how.elements.wrapping_mul(bytes.into()));
        probe(core, address, len, how.ctx)?;
        for n in 0..how.elements {
            let value = core.regs.get_v(how.register(n));
            core.store(at(n), bytes, value.wrapping_shr(shift) as u64, how.ctx)?;
        }
        return Ok(0);
    }
    let mut elements = [0u64; 4];
    for (n, element) in (0..how.elements).zip(&mut elements) {
        *element = core.load(at(n), bytes, how.ctx)?;
    }
    for (n, element) in (0..how.elements).zip(elements) {
        let element = u128::from(element);
        let slot = how.register(n);
        let value = if how.lane == 16 {
            let width = u32::from(bytes).wrapping_mul(8);
            let mut all = 0;
            let top = if how.q { 128 } else { 64 };
            let mut to = 0u32;
            while to < top {
                all |= element.wrapping_shl(to);
                to = to.wrapping_add(width);
            }
            all
        } else {
            let old = core.regs.get_v(slot);
            old & !how.mask().wrapping_shl(shift) | element.wrapping_shl(shift)
        };
        core.regs.set_v(slot, value);
    }
    Ok(0)
}
