//! Where operands in memory are, how their address is made, and what they hold.

use iced_x86::{Code, MemorySize, Register};

use super::values::{self, Lanes};
use super::{Form, Prefix, Rng};
use crate::state::{DATA, DATA_SIZE, NativeState, PAGE};

/// A ModRM memory operand.
pub(super) struct Address {
    pub(super) effective: u64,
    pub(super) base: Option<usize>,
    pub(super) index: Option<usize>,
    /// log2 of the scale.
    pub(super) shift: u32,
    pub(super) displacement: i64,
    /// 32-bit address size.
    pub(super) short: bool,
    /// Encode small displacements in four bytes.
    pub(super) wide: bool,
    /// Encode no displacement if it is zero.
    pub(super) omit_zero: bool,
    pub(super) segment: Register,
    index_value: u64,
}

/// Bytes the operand of `code` has; generous where that depends.
pub(super) fn size(code: Code) -> u64 {
    match code.op_code().memory_size().size() as u64 {
        0 => 8,
        known => known,
    }
}

/// An address for the operand: mostly aligned, sometimes at an edge or nowhere.
pub(super) fn target(form: &Form, rng: &mut Rng) -> u64 {
    const END: u64 = DATA + DATA_SIZE as u64;
    const MIDDLE: u64 = DATA + PAGE as u64;
    let size = size(form.code);
    let anywhere = DATA + rng.below(DATA_SIZE as u64 - size + 1);
    // A locked access across cache lines stops the whole host, and some kernels forbid it.
    if form.prefix == Prefix::Lock || form.code.mnemonic() == iced_x86::Mnemonic::Xchg {
        return match rng.below(20) {
            0 => END,
            1 => 1 << 63,
            _ => anywhere & !(size.next_power_of_two() - 1),
        };
    }
    match rng.below(20) {
        0 | 1 => MIDDLE - rng.below(size + 1),
        2 => END - rng.below(size + 1),
        3 => 0x8000_0000_0000_0000 | rng.u64(),
        4..8 => anywhere,
        _ => anywhere & !15,
    }
}

/// A target, and registers and displacement that lead to it.
pub(super) fn choose(form: &Form, rng: &mut Rng) -> Address {
    let effective = target(form, rng);
    let low = u32::try_from(effective).is_ok();
    let mut base = rng.percent(90).then(|| rng.below(16) as usize);
    // RSP cannot be an index.
    let mut index = rng
        .percent(40)
        .then(|| rng.pick(&[0, 1, 2, 3, 5, 6, 7, 8, 12, 13, 15]));
    if base.is_none() && !low {
        base = Some(3);
    }
    let shift = if index.is_some() {
        rng.below(4) as u32
    } else {
        0
    };
    let index_value = rng
        .below(1 << 16)
        .wrapping_sub(if rng.percent(50) { 1 << 15 } else { 0 });
    let mut displacement = match rng.below(4) {
        0 => 0,
        1 | 2 => i64::from(rng.u64() as i8),
        _ => i64::from(rng.u64() as i32 >> 4),
    };
    if base.is_some() && base == index && !low {
        index = None;
    }
    if base.is_none() || base == index {
        // Nothing is left to adjust but the displacement.
        let scaled = match index {
            Some(_) if base.is_none() => index_value << shift,
            Some(_) => index_value.wrapping_add(index_value << shift),
            None => 0,
        };
        displacement = effective.wrapping_sub(scaled) as i64;
    }
    Address {
        effective,
        base,
        index,
        shift,
        displacement,
        short: low && rng.percent(8),
        wide: rng.percent(10),
        omit_zero: rng.percent(80),
        segment: if rng.percent(4) {
            rng.pick(&[Register::ES, Register::CS, Register::SS, Register::DS])
        } else {
            Register::None
        },
        index_value,
    }
}

impl Address {
    /// Gives the registers the values that make up the address.
    pub(super) fn apply(&self, state: &mut NativeState, rng: &mut Rng) {
        // With 32-bit addresses the high halves must not matter.
        let garbage = if self.short { rng.u64() << 32 } else { 0 };
        let mut rest = self.effective.wrapping_sub(self.displacement as u64);
        if let Some(index) = self.index {
            state.gpr[index] = self.size_to(self.index_value, garbage);
            rest = rest.wrapping_sub(self.index_value << self.shift);
        }
        if let Some(base) = self.base
            && self.base != self.index
        {
            state.gpr[base] = self.size_to(rest, garbage);
        }
    }

    fn size_to(&self, value: u64, garbage: u64) -> u64 {
        if self.short {
            value & 0xffff_ffff | garbage
        } else {
            value
        }
    }
}

/// Puts values fit for the operand of `code` at `address`.
pub(super) fn fill(code: Code, address: u64, data: &mut [u8], rng: &mut Rng) {
    let memory_size = code.op_code().memory_size();
    let element = memory_size.element_type();
    match element {
        MemorySize::Float32 => put_each(rng, data, address, memory_size, |rng| {
            u128::from(values::f32(rng))
        }),
        MemorySize::Float64 => put_each(rng, data, address, memory_size, |rng| {
            u128::from(values::f64(rng))
        }),
        MemorySize::Float80 => put_each(rng, data, address, memory_size, values::f80),
        MemorySize::Bcd => put_each(rng, data, address, memory_size, values::bcd),
        MemorySize::UInt128 | MemorySize::Int128 => {
            put_each(rng, data, address, memory_size, |rng| {
                values::vector(rng, Lanes::Integer)
            });
        }
        _ if element.size() <= 8 && element.size() > 0 => {
            put_each(rng, data, address, memory_size, |rng| {
                u128::from(values::int(rng))
            });
        }
        // Unknown, or an image that is made elsewhere.
        _ => {}
    }
}

fn put_each(
    rng: &mut Rng,
    data: &mut [u8],
    address: u64,
    size: MemorySize,
    value: impl Fn(&mut Rng) -> u128,
) {
    let element = size.element_size().clamp(1, 16);
    for i in 0..size.element_count() {
        let bytes = value(rng).to_le_bytes();
        put(
            data,
            address.wrapping_add((i * element) as u64),
            &bytes[..element],
        );
    }
}

/// Writes what of `bytes` at `address` lies in the data pages.
pub(super) fn put(data: &mut [u8], address: u64, bytes: &[u8]) {
    let at = address.wrapping_sub(DATA);
    for (i, &byte) in bytes.iter().enumerate() {
        if let Ok(at) = usize::try_from(at.wrapping_add(i as u64))
            && let Some(cell) = data.get_mut(at)
        {
            *cell = byte;
        }
    }
}

/// Reads `size` bytes at `address`; what lies outside reads as zero.
pub(super) fn get(data: &[u8], address: u64, size: usize) -> u64 {
    let at = address.wrapping_sub(DATA);
    (0..size).rev().fold(0, |value, i| {
        let byte = usize::try_from(at.wrapping_add(i as u64))
            .ok()
            .and_then(|at| data.get(at));
        value << 8 | u64::from(byte.copied().unwrap_or(0))
    })
}
