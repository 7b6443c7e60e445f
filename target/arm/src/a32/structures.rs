//! Loads and stores of Advanced SIMD structures (DDI 0487, F5.1 on "VLD1" to "VST4"), as functions.
#![allow(
    clippy::arithmetic_side_effects,
    reason = "at most 32 registers of eight lanes; tests run with overflow checks"
)]

use accel_core::{Access, Target, Trap};

use super::neon::{Insn, decode};
use super::vfp::{d_slot, number};
use crate::{Arm, Core};

/// Which elements an instruction moves.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Shape {
    load: bool,
    /// First D register.
    first: u32,
    /// log2 of an element's bytes.
    size: u32,
    /// Elements of a structure, and the distance of their registers.
    elements: u32,
    step: u32,
    /// How often the structure's registers are filled, one after the other.
    repeats: u32,
    /// One lane, all lanes, or one element to all lanes of so many registers.
    lanes: Lanes,
    /// What the address is a multiple of, if said.
    align: u32,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Lanes {
    All,
    One(u32),
    Replicated(u32),
}

impl Shape {
    /// D registers of VLD1 and VST1.
    pub(super) fn registers(self) -> u32 {
        self.repeats
    }

    fn element(self) -> u32 {
        1 << (self.size & 3)
    }

    /// Bytes of memory.
    pub(super) fn bytes(self) -> u32 {
        match self.lanes {
            Lanes::All => 8 * self.elements * self.repeats,
            _ => self.element() * self.elements,
        }
    }

    fn last(self) -> u32 {
        let more = match self.lanes {
            Lanes::All => self.repeats - 1,
            Lanes::One(_) => 0,
            Lanes::Replicated(registers) => registers - 1,
        };
        self.first + (self.elements - 1) * self.step + more
    }

    /// Registers beyond the last one are unpredictable.
    fn checked(self) -> Option<Shape> {
        (self.last() < 32).then_some(self)
    }
}

/// VLD1 to VLD4 and VST1 to VST4 of whole registers.
pub(super) fn multiple(insn: Insn) -> Option<Shape> {
    let Insn::NMulti {
        d,
        l,
        vd,
        r#type,
        size,
        align,
        ..
    } = insn
    else {
        return None;
    };
    let (elements, step, repeats) = match r#type {
        0 => (4, 1, 1),
        1 => (4, 2, 1),
        2 => (1, 1, 4),
        3 => (2, 2, 2),
        4 => (3, 1, 1),
        5 => (3, 2, 1),
        6 => (1, 1, 3),
        7 => (1, 1, 1),
        8 => (2, 1, 1),
        9 => (2, 2, 1),
        10 => (1, 1, 2),
        _ => return None,
    };
    let is_bad = match r#type {
        4..=7 => align & 2 != 0,
        8..=10 => align == 3,
        _ => false,
    };
    if is_bad || elements > 1 && size == 3 {
        return None;
    }
    Shape {
        load: l != 0,
        first: number(true, vd, d),
        size,
        elements,
        step,
        repeats,
        lanes: Lanes::All,
        // shift: a field of two or three bits, or below the width of a register
        align: if align == 0 { 1 } else { 4 << align },
    }
    .checked()
}

/// VLD1 to VLD4 and VST1 to VST4 of one lane, VLD1 to VLD4 to all lanes.
pub(super) fn single(insn: Insn) -> Option<Shape> {
    match insn {
        Insn::NSingle {
            d,
            l,
            vd,
            size,
            nn,
            place,
            ..
        } => {
            // shift: a field of two or three bits, or below the width of a register
            let bit = |n: u32| place >> n & 1;
            // shift: a field of two or three bits, or below the width of a register
            let lane = place >> (size + 1);
            let is_bad = match (nn, size) {
                (0, 0) => bit(0) != 0,
                (0, 1) => bit(1) != 0,
                (0, _) => bit(2) != 0 || !matches!(place & 3, 0 | 3),
                (1, 2) => bit(1) != 0,
                (2, 0 | 1) => bit(0) != 0,
                (2, _) => place & 3 != 0,
                (3, 2) => place & 3 == 3,
                _ => false,
            };
            if is_bad {
                return None;
            }
            let step = 1 + if nn == 0 || size == 0 { 0 } else { bit(size) };
            let elements = nn + 1;
            let align = match (nn, size) {
                (0, 2) if place & 3 == 0 => 1,
                (0, 2) => 4,
                (3, 2) if place & 3 == 0 => 1,
                (3, 2) => 4 << (place & 3),
                (2, _) => 1,
                // shift: a field of two or three bits, or below the width of a register
                _ if bit(0) != 0 => elements << size,
                _ => 1,
            };
            Shape {
                load: l != 0,
                first: number(true, vd, d),
                size,
                elements,
                step,
                repeats: 1,
                lanes: Lanes::One(lane),
                align,
            }
            .checked()
        }
        Insn::NAll {
            d,
            vd,
            nn,
            size,
            t,
            a,
            ..
        } => {
            let is_bad = match nn {
                0 => size == 3 || size == 0 && a != 0,
                1 => size == 3,
                2 => size == 3 || a != 0,
                _ => size == 3 && a == 0,
            };
            if is_bad {
                return None;
            }
            let size_of = size.min(2);
            let align = match (nn, size) {
                _ if a == 0 => 1,
                (3, 3) => 16,
                (3, 2) => 8,
                // shift: a field of two or three bits, or below the width of a register
                _ => (nn + 1) << size,
            };
            Shape {
                load: true,
                first: number(true, vd, d),
                size: size_of,
                elements: nn + 1,
                step: if nn == 0 { 1 } else { t + 1 },
                repeats: 1,
                lanes: Lanes::Replicated(if nn == 0 { t + 1 } else { 1 }),
                align,
            }
            .checked()
        }
        _ => None,
    }
}

/// (address, write): an alignment fault.
pub(crate) fn misaligned(core: &mut Core, [address, write, ..]: [u64; 4]) -> Result<u64, Trap> {
    let access = if write != 0 {
        Access::Write
    } else {
        Access::Read
    };
    Err(Arm::alignment_fault(core, address, access))
}

/// (address, instruction, context | big-endian << 8 | aligned << 9).
pub(crate) fn run(core: &mut Core, [address, word, how, ..]: [u64; 4]) -> Result<u64, Trap> {
    let shape = decode(word as u32).and_then(|insn| multiple(insn).or_else(|| single(insn)));
    let Some(shape) = shape else {
        return Err(crate::system::exception::undefined(core));
    };
    let big = how >> 8 & 1 != 0;
    let align = match how >> 9 & 1 {
        0 => shape.align,
        _ => shape.align.max(shape.element()),
    };
    if address & u64::from(align - 1) != 0 {
        return misaligned(core, [address, u64::from(!shape.load), 0, 0]);
    }
    transfer(core, shape, address, how as u8, big).map(|()| 0)
}

/// Places of all elements in memory order: D register and lane.
fn places(shape: Shape) -> impl Iterator<Item = (u32, u32)> {
    let lanes = match shape.lanes {
        // shift: a field of two or three bits, or below the width of a register
        Lanes::All => 0..8 >> shape.size,
        Lanes::One(lane) => lane..lane + 1,
        Lanes::Replicated(_) => 0..1,
    };
    (0..shape.repeats).flat_map(move |repeat| {
        lanes.clone().flat_map(move |lane| {
            (0..shape.elements).map(move |e| (shape.first + repeat + e * shape.step, lane))
        })
    })
}

fn transfer(core: &mut Core, shape: Shape, address: u64, ctx: u8, big: bool) -> Result<(), Trap> {
    let bytes = shape.element();
    let bits = bytes * 8;
    let mask = u64::MAX >> (64 - bits);
    let swapped = |v: u64| match big {
        true => v.swap_bytes() >> (64 - bits),
        false => v,
    };
    let mut at = address;
    if !shape.load {
        core.probe_write(address, 1, ctx)?;
        core.probe_write(address + u64::from(shape.bytes()) - 1, 1, ctx)?;
        for (n, lane) in places(shape) {
            // shift: a field of two or three bits, or below the width of a register
            let value = core.regs.get(d_slot(n)) >> (lane * bits) & mask;
            core.store(at, bytes as u8, swapped(value), ctx)?;
            at = at.wrapping_add(bytes.into());
        }
        return Ok(());
    }
    let mut loaded = Vec::with_capacity(32);
    for place in places(shape) {
        loaded.push((place, swapped(core.load(at, bytes as u8, ctx)?)));
        at = at.wrapping_add(bytes.into());
    }
    for ((n, lane), value) in loaded {
        if let Lanes::Replicated(registers) = shape.lanes {
            // shift: a field of two or three bits, or below the width of a register
            let all = (0..8 / bytes).fold(0, |all, i| all | value << (i * bits));
            for more in 0..registers {
                core.regs.set(d_slot(n + more), all);
            }
            continue;
        }
        let slot = d_slot(n);
        let shift = lane * bits;
        // shift: below the width of a D register
        let old = core.regs.get(slot) & !(mask << shift);
        // shift: below the width of a D register
        core.regs.set(slot, old | value << shift);
    }
    Ok(())
}
