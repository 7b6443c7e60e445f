//! Pointer authentication (DDI 0487, D8.10) with an implementation-defined hash: fast, not secret.

use accel_core::Trap;

use super::control::{self, sctlr_bits};
use super::exception::{class, esr, raise_to};
use super::registers as sys;
use super::translation;
use crate::Core;

/// Not a key of addresses: PACGA.
pub(crate) const GENERIC: u64 = 8;

/// Key of an instruction's key number: A, B for instructions, then for data.
fn key(core: &Core, number: u64) -> (u64, u64) {
    let (low, high) = match number & 3 {
        0 => (sys::APIAKEYLO_EL1, sys::APIAKEYHI_EL1),
        1 => (sys::APIBKEYLO_EL1, sys::APIBKEYHI_EL1),
        2 => (sys::APDAKEYLO_EL1, sys::APDAKEYHI_EL1),
        _ => (sys::APDBKEYLO_EL1, sys::APDBKEYHI_EL1),
    };
    (core.regs.get(low), core.regs.get(high))
}

/// The code of a pointer, in all 64 bits.
fn code(pointer: u64, modifier: u64, (low, high): (u64, u64)) -> u64 {
    let mut h = pointer ^ low;
    for word in [modifier, high, 0x9e37_79b9_7f4a_7c15] {
        h = (h.rotate_left(29) ^ word).wrapping_mul(0xff51_afd7_ed55_8ccd);
        h ^= h >> 32;
    }
    h
}

/// What the registers in force say of pointers: worked out once, as each function of a guest may ask.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PauthShape {
    /// Where the code is in a pointer of the lower and of the upper range: all bits that translation does
    /// not use but bit 55.
    masks: [u64; 2],
    /// The top byte is not part of the address.
    tagged: [bool; 2],
    /// SCTLR_ELx.
    sctlr: u64,
}

impl PauthShape {
    fn of(core: &mut Core) -> Self {
        if let Some(shape) = core.arch.pauth {
            return shape;
        }
        let regime = control::regime(core);
        let [low, high] = [0, 1 << 55].map(|pointer| {
            let (bottom, tbi) = translation::address_bits(core, regime, pointer);
            let all = match tbi {
                true => (1 << 55) - 1,
                false => !(1 << 55),
            };
            (all & u64::MAX.wrapping_shl(bottom), tbi)
        });
        let shape = PauthShape {
            masks: [low.0, high.0],
            tagged: [low.1, high.1],
            sctlr: control::sctlr(core),
        };
        core.arch.pauth = Some(shape);
        shape
    }

    fn mask(self, pointer: u64) -> (u64, bool) {
        let [low, high] = self.masks;
        let [low_tagged, high_tagged] = self.tagged;
        match pointer >> 55 & 1 {
            0 => (low, low_tagged),
            _ => (high, high_tagged),
        }
    }

    /// Whether SCTLR_ELx lets a key be used.
    fn is_on(self, how: u64) -> bool {
        let enable = match how & 3 {
            0 => sctlr_bits::ENIA,
            1 => sctlr_bits::ENIB,
            2 => sctlr_bits::ENDA,
            _ => sctlr_bits::ENDB,
        };
        self.sctlr & enable != 0
    }
}

/// A pointer without its code.
fn plain(pointer: u64, mask: u64) -> u64 {
    if pointer >> 55 & 1 != 0 {
        pointer | mask
    } else {
        pointer & !mask
    }
}

/// (key, or [`GENERIC`]): an instruction that EL2 wants to see, unless its key is off.
pub(crate) fn trap(core: &mut Core, [how, ..]: [u64; 4]) -> Result<u64, Trap> {
    if how & GENERIC == 0 && !PauthShape::of(core).is_on(how) {
        return Ok(0);
    }
    Err(raise_to(core, 2, esr(class::PAUTH, 0), None))
}

/// Signs (`how` bit 2 clear) or authenticates a pointer; bits 1 and 0 are the key's number.
pub(super) fn process(core: &mut Core, pointer: u64, modifier: u64, how: u64) -> u64 {
    let shape = PauthShape::of(core);
    if !shape.is_on(how) {
        return pointer;
    }
    let (mask, tbi) = shape.mask(pointer);
    let original = plain(pointer, mask);
    let wanted = code(original, modifier, key(core, how)) & mask;
    if how & 4 == 0 {
        // The code of a pointer that is no address does not authenticate.
        let flip = match (original == pointer, tbi) {
            (true, _) => 0,
            (false, true) => 1 << 54,
            (false, false) => 1 << 62,
        };
        return pointer & !mask | wanted ^ flip;
    }
    if pointer & mask == wanted {
        return original;
    }
    let shift = if tbi { 53u32 } else { 61 };
    // Error code 01 for key A, 10 for key B.
    let error: u64 = if how & 1 == 0 { 1 } else { 2 };
    original & !3u64.wrapping_shl(shift) | error.wrapping_shl(shift)
}

/// (pointer, modifier, key | authenticate << 2): the pointer signed or authenticated.
pub(crate) fn pointer_auth(
    core: &mut Core,
    [pointer, modifier, how, _]: [u64; 4],
) -> Result<u64, Trap> {
    Ok(process(core, pointer, modifier, how))
}

/// (pointer): the pointer without its code.
pub(crate) fn strip(core: &mut Core, [pointer, ..]: [u64; 4]) -> Result<u64, Trap> {
    let (mask, _) = PauthShape::of(core).mask(pointer);
    Ok(plain(pointer, mask))
}

/// (value, modifier): PACGA.
pub(crate) fn generic(core: &mut Core, [value, modifier, ..]: [u64; 4]) -> Result<u64, Trap> {
    let key = (
        core.regs.get(sys::APGAKEYLO_EL1),
        core.regs.get(sys::APGAKEYHI_EL1),
    );
    Ok(code(value, modifier, key) & !0xffff_ffff)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_code_depends_on_everything() {
        let base = code(1, 2, (3, 4));
        for other in [
            code(2, 2, (3, 4)),
            code(1, 3, (3, 4)),
            code(1, 2, (4, 4)),
            code(1, 2, (3, 5)),
        ] {
            assert_ne!(base >> 48, other >> 48);
        }
    }
}
