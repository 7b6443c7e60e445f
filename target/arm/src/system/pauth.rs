//! Pointer authentication (DDI 0487, D8.10), by default with an implementation-defined hash: fast, not secret.

use accel_core::Trap;

use super::control::{self, sctlr_bits};
use super::exception::{class, esr, raise_to};
use super::registers as sys;
use super::translation;
use crate::Core;
use crate::model::Feature;

mod qarma;

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

/// The code of a pointer, in all 64 bits, by the model's algorithm.
fn code(core: &Core, pointer: u64, modifier: u64, key: (u64, u64)) -> u64 {
    let (low, high) = key;
    let model = &core.arch.model;
    if model.has(Feature::PauthQarma5) {
        qarma::QARMA5.encrypt(pointer, modifier, high, low)
    } else if model.has(Feature::PauthQarma3) {
        qarma::QARMA3.encrypt(pointer, modifier, high, low)
    } else {
        hash(pointer, modifier, key)
    }
}

/// The implementation-defined algorithm.
fn hash(pointer: u64, modifier: u64, (low, high): (u64, u64)) -> u64 {
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
    let wanted = code(core, original, modifier, key(core, how)) & mask;
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
    Ok(code(core, value, modifier, key) & !0xffff_ffff)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hash_depends_on_everything() {
        let base = hash(1, 2, (3, 4));
        for other in [
            hash(2, 2, (3, 4)),
            hash(1, 3, (3, 4)),
            hash(1, 2, (4, 4)),
            hash(1, 2, (3, 5)),
        ] {
            assert_ne!(base >> 48, other >> 48);
        }
    }

    /// A CPU at EL1 whose pointers have 39 bits, with keys.
    fn signing(model: &str) -> Core {
        let setup = crate::Setup {
            boot: Some(crate::Boot {
                pc: 0,
                x: [0; 4],
                el: Some(1),
            }),
            ..crate::Setup::default()
        };
        let model = std::sync::Arc::new(crate::CpuModel::parse(model).unwrap());
        let (clock, _) = hw_clock::Clock::manual();
        let map = hw_memory::MemoryMap::default();
        let mut core = crate::new_core(0, model, setup, Box::new(crate::NoPort), map, clock);
        let (a, b) = (0x84be_85ce_9804_e94b, 0xec28_02d4_e0a4_88e9);
        for (slot, value) in [
            (
                sys::SCTLR_EL1,
                0x30d0_0800 | 1 << 31 | 1 << 30 | 1 << 27 | 1 << 13,
            ),
            (sys::TCR_EL1, 0x8019_0019),
            (sys::APIAKEYLO_EL1, a),
            (sys::APIAKEYHI_EL1, b),
            (sys::APIBKEYLO_EL1, a ^ b),
            (sys::APIBKEYHI_EL1, a),
            (sys::APDAKEYLO_EL1, b),
            (sys::APDAKEYHI_EL1, a ^ b),
            (sys::APDBKEYLO_EL1, !a),
            (sys::APDBKEYHI_EL1, b),
            (sys::APGAKEYLO_EL1, a ^ b),
            (sys::APGAKEYHI_EL1, !a),
        ] {
            core.regs.set(slot, value);
        }
        core
    }

    /// A pointer, and what each key makes of it; those of QARMA5 are what QEMU 7.2 says, of QARMA3 what 10.0 does.
    #[test]
    fn pointers_are_signed_by_the_algorithm_of_the_model() {
        let (pointer, modifier) = (0x12_3456_7890, 0x477d_469d_ec0b_8762);
        let signed = |model: &str| {
            let mut core = signing(model);
            [0, 1, 2, 3].map(|key| process(&mut core, pointer, modifier, key))
        };
        let qarma5 = signed("max,pauth-qarma5=on");
        assert_eq!(
            qarma5,
            [
                0xba51_6112_3456_7890,
                0xf842_df92_3456_7890,
                0x9633_da12_3456_7890,
                0xec55_b512_3456_7890,
            ]
        );
        let mut core = signing("max,pauth-qarma5=on");
        let code = generic(&mut core, [pointer, modifier, 0, 0]);
        assert!(matches!(code, Ok(0xaf97_428f_0000_0000)));
        // The code of a pointer that is no address.
        let no_address = process(&mut core, 0x5a5a_1234_5678_9abc, modifier, 0);
        assert_eq!(no_address, 0xd25d_6934_5678_9abc);
        assert_eq!(
            process(&mut core, no_address, modifier, 6),
            0x2000_0034_5678_9abc
        );
        assert_eq!(
            signed("max,pauth-qarma3=on"),
            [
                0xc27a_9912_3456_7890,
                0x041b_3892_3456_7890,
                0xcd74_2712_3456_7890,
                0xa138_3512_3456_7890,
            ]
        );
        assert_ne!(signed("max"), qarma5);
    }

    #[test]
    fn what_was_signed_authenticates_and_nothing_else() {
        for model in ["max", "max,pauth-qarma3=on", "max,pauth-qarma5=on"] {
            let mut core = signing(model);
            for pointer in [0x12_3456_7890, 0xffff_ffff_1234_5678] {
                for key in 0..4 {
                    let signed = process(&mut core, pointer, 5, key);
                    assert_ne!(signed, pointer);
                    assert_eq!(process(&mut core, signed, 5, key | 4), pointer);
                    assert_ne!(process(&mut core, signed, 6, key | 4), pointer);
                }
            }
        }
    }
}
