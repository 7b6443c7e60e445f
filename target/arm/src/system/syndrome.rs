//! What an instruction does that a stage 2 abort ended: the syndrome by which a hypervisor carries it out
//! (DDI 0487, D24.2.40, "ISS encoding for an exception from a Data Abort": ISV to AR).

/// The syndrome is valid.
const ISV: u64 = 1 << 24;
const SAS_SHIFT: u32 = 22;
/// The value is sign-extended.
const SSE: u64 = 1 << 21;
const SRT_SHIFT: u32 = 16;
/// To or from a 64-bit register.
const SF: u64 = 1 << 15;
/// Acquire or release.
const AR: u64 = 1 << 14;

/// Bits 24 to 14 for an A64 instruction that loads or stores one general register, without writeback and
/// not exclusively; zero for all others.
pub(crate) fn of(word: u32) -> u64 {
    let size = u64::from(word >> 30);
    let opc = word >> 22 & 3;
    let valid = |sign_extended: bool, wide: bool, ordered: bool| {
        let mut iss = ISV | size << SAS_SHIFT | u64::from(word & 31) << SRT_SHIFT;
        for (bit, on) in [(SSE, sign_extended), (SF, wide), (AR, ordered)] {
            if on {
                iss |= bit;
            }
        }
        iss
    };
    // Stores and zero-extending loads, loads extended to 64 bits, and to 32.
    let plain = |ordered: bool| match (opc, size) {
        (0 | 1, _) => valid(false, size == 3, ordered),
        (2, 0..=2) => valid(true, true, ordered),
        (3, 0..=1) => valid(true, false, ordered),
        // PRFM, or unallocated.
        _ => 0,
    };
    match word {
        // Unsigned offset.
        w if w & 0x3f00_0000 == 0x3900_0000 => plain(false),
        // Unscaled offset, and unprivileged.
        w if w & 0x3f20_0400 == 0x3800_0000 => plain(false),
        // Register offset.
        w if w & 0x3f20_0c00 == 0x3820_0800 => plain(false),
        // LDAPUR, STLUR.
        w if w & 0x3f20_0c00 == 0x1900_0000 => plain(true),
        // LDAR, STLR, LDLAR, STLLR.
        w if w & 0x3fa0_0000 == 0x0880_0000 => valid(false, size == 3, true),
        // LDAPR.
        w if w & 0x3fff_fc00 == 0x38bf_c000 => valid(false, size == 3, true),
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn iss(size: u64, sse: u64, srt: u64, sf: u64, ar: u64) -> u64 {
        1 << 24 | size << 22 | sse << 21 | srt << 16 | sf << 15 | ar << 14
    }

    #[test]
    fn loads_and_stores_of_one_register_are_described() {
        for (word, wanted) in [
            // ldr x3, [x1, #8]; str w3, [x1]; ldrb w3, [x1]; strh w3, [x1].
            (0xf940_0423, iss(3, 0, 3, 1, 0)),
            (0xb900_0023, iss(2, 0, 3, 0, 0)),
            (0x3940_0023, iss(0, 0, 3, 0, 0)),
            (0x7900_0023, iss(1, 0, 3, 0, 0)),
            // ldrsb x3, [x1]; ldrsb w3, [x1]; ldrsw x3, [x1].
            (0x3980_0023, iss(0, 1, 3, 1, 0)),
            (0x39c0_0023, iss(0, 1, 3, 0, 0)),
            (0xb980_0023, iss(2, 1, 3, 1, 0)),
            // ldur x3, [x1, #-8]; ldtr w3, [x1]; ldr x3, [x1, x2].
            (0xf85f_8023, iss(3, 0, 3, 1, 0)),
            (0xb840_0823, iss(2, 0, 3, 0, 0)),
            (0xf862_6823, iss(3, 0, 3, 1, 0)),
            // ldar w3, [x1]; stlr x31, [x1]; ldapr x3, [x1].
            (0x88df_fc23, iss(2, 0, 3, 0, 1)),
            (0xc89f_fc3f, iss(3, 0, 31, 1, 1)),
            (0xf8bf_c023, iss(3, 0, 3, 1, 1)),
        ] {
            assert_eq!(of(word), wanted, "{word:#x}");
        }
    }

    #[test]
    fn all_others_are_not() {
        for word in [
            // ldr x3, [x1], #8; ldr x3, [x1, #8]!; ldp x3, x4, [x1]; ldr q3, [x1].
            0xf840_8423,
            0xf840_8c23,
            0xa940_1023,
            0x3dc0_0023,
            // ldxr x3, [x1]; ldaxr x3, [x1]; cas x2, x3, [x1]; ldadd x2, x3, [x1]; prfm pldl1keep, [x1].
            0xc85f_7c23,
            0xc85f_fc23,
            0xc8a2_7c23,
            0xf822_0023,
            0xf980_0020,
            // dc zva, x1; nop.
            0xd50b_7421,
            0xd503_201f,
        ] {
            assert_eq!(of(word), 0, "{word:#x}");
        }
    }
}
