//! Helpers of integer code: raising exceptions, segment limits, division, and what IR has no
//! operation for.

use accel_core::{Effects, Intrinsic, Trap};
use accel_ir::flags::{self, FlagKind};

use super::decimal::adjust;
use super::mode::{Mode, segment};
use super::string::repeat;
use crate::helper::helpers;
use crate::state::{Segment, SegmentIndex, vector};
use crate::system::raise;
use crate::{Core, regs};

/// Only ends in a trap, or does nothing.
const CHECK: Effects = Effects {
    reads_regs: false,
    writes_regs: false,
    traps: true,
};
/// A function of state outside the register file.
const STATE: Effects = Effects {
    reads_regs: true,
    writes_regs: false,
    traps: false,
};

helpers! { crate::helper::DECODE;
    // (vector, error code or all ones).
    RAISE => raise_vector, CHECK;
    // (segment | write << 8 | size << 16, offset).
    SEGMENT_LIMIT => segment_limit, CHECK;
    // (offset of the last byte of the instruction).
    CODE_LIMIT => code_limit, CHECK;
    // (high, low, divisor, bits): the quotient.
    DIVIDE => divide, CHECK, Intrinsic::Divide { signed: false };
    // As DIVIDE, signed.
    DIVIDE_SIGNED => divide_signed, CHECK, Intrinsic::Divide { signed: true };
    // (linear address, size | context << 8): the value before.
    LOCKED_NEG => locked_neg, CHECK;
    // (linear address, context | lock << 8): 1 if exchanged.
    CMPXCHG16B => cmpxchg16b, Effects::ALL;
    // (value, count, carry, bits | right << 8): the value rotated.
    ROTATE_CARRY => rotate_carry, Effects::PURE;
    // As ROTATE_CARRY: the carry after.
    ROTATE_CARRY_FLAG => rotate_carry_flag, Effects::PURE;
    // (operation, AX, flags, immediate): AX | flags << 16.
    ADJUST => adjust, Effects::PURE;
    // (segment): its selector.
    SELECTOR => selector, STATE;
    // (size to reserve, nesting level, operand size).
    ENTER => enter, Effects::ALL;
    // (operation, see `string`): 1 if iterations are left.
    REPEAT => repeat, Effects::ALL;
    // (CRC so far, data, bytes): CRC32C.
    CRC32 => crc32, Effects::PURE;
}

type Args = [u64; 4];

fn raise_vector(core: &mut Core, [vector, error, ..]: Args) -> Result<u64, Trap> {
    Err(raise(core, vector as u8, u32::try_from(error).ok()))
}

/// The segment register of a number.
pub(super) fn segment_of(number: u64) -> SegmentIndex {
    match number {
        0 => SegmentIndex::Es,
        1 => SegmentIndex::Cs,
        2 => SegmentIndex::Ss,
        4 => SegmentIndex::Fs,
        5 => SegmentIndex::Gs,
        _ => SegmentIndex::Ds,
    }
}

/// Limit and type checks of a segment outside 64-bit mode (SDM vol. 3, 5.3, 5.4).
pub(super) fn check_segment(
    core: &mut Core,
    index: SegmentIndex,
    offset: u64,
    size: u64,
    write: bool,
) -> Result<(), Trap> {
    let mode = Mode(core.mode);
    let seg = *segment(core, index);
    let last = offset.wrapping_add(size.max(1)).wrapping_sub(1);
    let code = seg.kind() & 8 != 0;
    let mut fits = last <= u64::from(seg.limit);
    if mode.has_descriptors() {
        let allowed = if code {
            !write && seg.kind() & 2 != 0
        } else {
            !write || seg.kind() & 2 != 0
        };
        if !code && seg.kind() & 4 != 0 {
            // Expand-down: valid are the offsets above the limit.
            let top = if seg.attributes & Segment::DB != 0 {
                u64::from(u32::MAX)
            } else {
                0xffff
            };
            fits = offset > u64::from(seg.limit) && last <= top;
        }
        fits &= allowed && seg.attributes & Segment::P != 0;
    }
    if fits {
        return Ok(());
    }
    let vector = if index == SegmentIndex::Ss {
        vector::SS
    } else {
        vector::GP
    };
    Err(raise(core, vector, Some(0)))
}

fn segment_limit(core: &mut Core, [what, offset, ..]: Args) -> Result<u64, Trap> {
    check_segment(
        core,
        segment_of(what & 0xff),
        offset,
        what >> 16,
        what & 0x100 != 0,
    )?;
    Ok(0)
}

fn code_limit(core: &mut Core, [last, ..]: Args) -> Result<u64, Trap> {
    if last <= u64::from(segment(core, SegmentIndex::Cs).limit) {
        return Ok(0);
    }
    Err(raise(core, vector::GP, Some(0)))
}

fn selector(core: &mut Core, [index, ..]: Args) -> Result<u64, Trap> {
    Ok(segment(core, segment_of(index)).selector.into())
}

fn mask_of(bits: u64) -> u64 {
    u64::MAX
        .checked_shr(64u32.saturating_sub(bits as u32))
        .unwrap_or(0)
}

/// High and low part as one number of twice the bits.
fn join(high: u64, low: u64, bits: u64) -> u128 {
    u128::from(high & mask_of(bits)).wrapping_shl(bits as u32) | u128::from(low & mask_of(bits))
}

fn divide(core: &mut Core, [high, low, divisor, bits]: Args) -> Result<u64, Trap> {
    let quotient = join(high, low, bits).checked_div(divisor.into());
    match quotient {
        Some(quotient) if quotient <= u128::from(mask_of(bits)) => Ok(quotient as u64),
        _ => Err(raise(core, vector::DE, None)),
    }
}

fn sign_extend(value: u128, bits: u32) -> i128 {
    let unused = 128u32.saturating_sub(bits);
    (value as i128).wrapping_shl(unused).wrapping_shr(unused)
}

fn divide_signed(core: &mut Core, [high, low, divisor, bits]: Args) -> Result<u64, Trap> {
    let wide = (bits as u32).wrapping_mul(2);
    let dividend = sign_extend(join(high, low, bits), wide);
    let divisor = sign_extend(divisor.into(), bits as u32);
    let quotient = dividend.checked_div(divisor);
    match quotient {
        Some(quotient) if sign_extend(quotient as u128, bits as u32) == quotient => {
            Ok(quotient as u64 & mask_of(bits))
        }
        _ => Err(raise(core, vector::DE, None)),
    }
}

fn locked_neg(core: &mut Core, [address, how, ..]: Args) -> Result<u64, Trap> {
    core.update(address, how as u8, (how >> 8) as u8, |old| {
        Some(old.wrapping_neg())
    })
}

fn cmpxchg16b(core: &mut Core, [address, how, ..]: Args) -> Result<u64, Trap> {
    use regs::index::{RAX, RBX, RCX, RDX};
    if !address.is_multiple_of(16) {
        return Err(raise(core, vector::GP, Some(0)));
    }
    let (ctx, locked) = (how as u8, how & 0x100 != 0);
    let pair = |core: &Core, high, low| {
        u128::from(core.regs.get(regs::gpr(high))) << 64 | u128::from(core.regs.get(regs::gpr(low)))
    };
    let expected = pair(core, RDX, RAX);
    let new = pair(core, RCX, RBX);
    let old = if locked {
        core.update_v(address, ctx, |old| (old == expected).then_some(new))?
    } else {
        core.probe_write(address, 16, ctx)?;
        let old = core.load_v(address, ctx)?;
        core.store_v(address, if old == expected { new } else { old }, ctx)?;
        old
    };
    if old != expected {
        core.regs.set(regs::gpr(RAX), old as u64);
        core.regs.set(regs::gpr(RDX), (old >> 64) as u64);
    }
    Ok(u64::from(old == expected))
}

/// RCL and RCR of `bits` plus the carry: value and carry after.
fn rotate(value: u64, count: u64, carry: u64, how: u64) -> (u64, u64) {
    let bits = (how & 0xff) as u32;
    let width = bits.wrapping_add(1);
    let count = (count as u32).checked_rem(width).unwrap_or(0);
    let left = if how & 0x100 != 0 {
        width.wrapping_sub(count).checked_rem(width).unwrap_or(0)
    } else {
        count
    };
    let all = u128::from(carry & 1).wrapping_shl(bits) | u128::from(value);
    let mask = 1u128.wrapping_shl(width).wrapping_sub(1);
    let all = (all.wrapping_shl(left) | all.wrapping_shr(width.wrapping_sub(left))) & mask;
    (
        all as u64 & mask_of(bits.into()),
        all.wrapping_shr(bits) as u64 & 1,
    )
}

fn rotate_carry(_: &mut Core, [value, count, carry, how]: Args) -> Result<u64, Trap> {
    Ok(rotate(value, count, carry, how).0)
}

fn rotate_carry_flag(_: &mut Core, [value, count, carry, how]: Args) -> Result<u64, Trap> {
    Ok(rotate(value, count, carry, how).1)
}

/// CRC-32C, reflected, one bit at a time.
fn crc32(_: &mut Core, [crc, data, bytes, _]: Args) -> Result<u64, Trap> {
    const POLYNOMIAL: u64 = 0x82f6_3b78;
    let mut crc = crc & 0xffff_ffff;
    for byte in data.to_le_bytes().iter().take(bytes as usize) {
        crc ^= u64::from(*byte);
        for _ in 0..8 {
            crc = crc >> 1 ^ if crc & 1 != 0 { POLYNOMIAL } else { 0 };
        }
    }
    Ok(crc)
}

/// ENTER with a nesting level (SDM vol. 2, "ENTER").
fn enter(core: &mut Core, [reserve, level, size, _]: Args) -> Result<u64, Trap> {
    use regs::index::{RBP, RSP};
    let mode = Mode(core.mode);
    let ctx = mode.data_ctx();
    let stack = mask_of(u64::from(mode.stack_bytes()).wrapping_mul(8));
    let operand = mask_of(size.wrapping_mul(8));
    let (rsp, rbp) = (core.regs.get(regs::gpr(RSP)), core.regs.get(regs::gpr(RBP)));
    let bytes = size as u8;
    let mut sp = rsp & stack;
    let mut push = |core: &mut Core, value: u64| {
        sp = sp.wrapping_sub(size) & stack;
        let at = stack_linear(core, mode, sp, size, true)?;
        core.store(at, bytes, value & operand, ctx)
    };
    push(core, rbp)?;
    let frame = rsp.wrapping_sub(size) & stack;
    let mut bp = rbp & stack;
    for _ in 1..level {
        bp = bp.wrapping_sub(size) & stack;
        let at = stack_linear(core, mode, bp, size, false)?;
        let value = core.load(at, bytes, ctx)?;
        push(core, value)?;
    }
    if level > 0 {
        push(core, frame)?;
    }
    let sp = sp.wrapping_sub(reserve) & stack;
    // The new top must be writable, but no limit applies to it.
    let base = if mode.is_64() {
        0
    } else {
        core.regs.get(regs::base(SegmentIndex::Ss as usize))
    };
    let wrap = if mode.is_64() { u64::MAX } else { 0xffff_ffff };
    core.probe_write(base.wrapping_add(sp) & wrap, bytes, ctx)?;
    let merge = |old: u64, new: u64, mask: u64| match mask {
        0xffff => old & !mask | new & mask,
        _ => new & mask,
    };
    core.regs.set(regs::gpr(RBP), merge(rbp, frame, operand));
    core.regs.set(regs::gpr(RSP), merge(rsp, sp, stack));
    Ok(0)
}

fn stack_linear(core: &mut Core, mode: Mode, sp: u64, size: u64, write: bool) -> Result<u64, Trap> {
    if mode.is_64() {
        return Ok(sp);
    }
    check_segment(core, SegmentIndex::Ss, sp, size, write)?;
    let base = core.regs.get(regs::base(SegmentIndex::Ss as usize));
    Ok(base.wrapping_add(sp) & 0xffff_ffff)
}

/// Sets the flags slots as a `sub` of two `bytes`-wide operands.
pub(super) fn set_flags_of_sub(core: &mut Core, bytes: u64, a: u64, b: u64) {
    let slot = |n: u8| accel_ir::Slot(regs::FLAGS.0.wrapping_add(n));
    let ty = accel_ir::Ty::of_bytes(bytes as u32);
    core.regs.set(slot(0), FlagKind::Sub.with(ty).into());
    core.regs.set(slot(1), a);
    core.regs.set(slot(2), b);
    core.regs.set(slot(3), 0);
}

/// The arithmetic flags of a CPU between units, in EFLAGS' layout.
pub fn arithmetic_flags(core: &Core) -> u64 {
    let slot = |n: u8| core.regs.get(accel_ir::Slot(regs::FLAGS.0.wrapping_add(n)));
    let (kind, ty) = FlagKind::of(slot(0));
    flags::pack(kind, ty, slot(1), slot(2), slot(3))
}

/// Sets the arithmetic flags of a CPU between units.
pub fn set_arithmetic_flags(core: &mut Core, bits: u64) {
    let slot = |n: u8| accel_ir::Slot(regs::FLAGS.0.wrapping_add(n));
    let raw = FlagKind::Raw.with(accel_ir::Ty::I64);
    core.regs.set(slot(0), raw.into());
    core.regs.set(slot(1), bits & flags::ALL);
}
