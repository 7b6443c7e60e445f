//! The block cipher QARMA with its tweak, of which codes of pointers are the output (DDI 0487, shared
//! pseudocode `ComputePAC`; R. Avanzi, "The QARMA Block Cipher Family", 2016). A block is 16 cells of 4 bits.
//! Its functions are tables by byte, made at compile time.
#![allow(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    reason = "only constants are indexed and counted, at compile time"
)]

/// Constants of the rounds: digits of pi.
const ROUNDS: [u64; 5] = [
    0,
    0x1319_8a2e_0370_7344,
    0xa409_3822_299f_31d0,
    0x082e_fa98_ec4e_6c89,
    0x4528_21e6_38d0_1377,
];
const ALPHA: u64 = 0xc0ac_29b7_c97c_50dd;

/// A permutation of a cell's values and its inverse, each for two cells at a time.
#[derive(Clone, Copy)]
struct Substitution {
    forward: &'static [u8; 256],
    inverse: &'static [u8; 256],
}

/// `PACSub` and `PACInvSub`.
const SIGMA_2: Substitution = Substitution {
    forward: &of_pairs(0xa12d_5473_e90c_f86b),
    inverse: &of_pairs(0x37c4_0f62_91ba_8de5),
};
/// `PACSub1`, which is its own inverse.
const SIGMA_1: Substitution = Substitution {
    forward: &of_pairs(0x421b_c089_537f_6eda),
    inverse: &of_pairs(0x421b_c089_537f_6eda),
};

/// Which of the family.
#[derive(Clone, Copy)]
pub(super) struct Qarma {
    /// Rounds before the middle, less one.
    rounds: usize,
    substitution: Substitution,
}

/// FEAT_PACQARMA3.
pub(super) const QARMA3: Qarma = Qarma {
    rounds: 2,
    substitution: SIGMA_1,
};
/// FEAT_PACQARMA5.
pub(super) const QARMA5: Qarma = Qarma {
    rounds: 4,
    substitution: SIGMA_2,
};

/// `PACCellShuffle`: where each cell of the result comes from, cell 0 in the lowest bits.
const SHUFFLE: u64 = 0xf492_5e38_a1c7_0b6d;
/// `PACCellInvShuffle`.
const UNSHUFFLE: u64 = 0xfa05_27d8_41be_9c63;
/// `TweakShuffle`, but for what becomes of some cells.
const TWEAK: u64 = 0x9a10_fedc_832b_7654;
/// The cells of the shuffled tweak that `TweakCellRot` is done to.
const ROTATED: u64 = 0xff0f_f000_f00f_0f00;

/// What a linear function of a block makes of each value of each byte.
type Linear = [[u64; 256]; 8];

/// `PACCellShuffle`, then `PACMult`.
static MIX: Linear = linear(SHUFFLE, Then::Multiply);
/// `PACMult`, then `PACCellInvShuffle`.
static UNMIX: Linear = linear(UNSHUFFLE, Then::MultiplyFirst);
/// `TweakShuffle`.
static NEXT_TWEAK: Linear = linear(TWEAK, Then::Rotate);

/// What a linear function does beside moving cells.
#[derive(Clone, Copy)]
enum Then {
    Multiply,
    MultiplyFirst,
    Rotate,
}

/// A substitution of cells, value 0 in the lowest bits of `values`, as one of bytes.
const fn of_pairs(values: u64) -> [u8; 256] {
    let mut table = [0; 256];
    let mut n = 0;
    while n < table.len() {
        let byte = n as u64;
        table[n] = (pick(values, byte & 15) | pick(values, byte >> 4) << 4) as u8;
        n += 1;
    }
    table
}

const fn linear(places: u64, then: Then) -> Linear {
    let mut table = [[0; 256]; 8];
    let mut at = 0;
    while at < 8 {
        let mut n = 0;
        while n < 256 {
            let block = (n as u64).wrapping_shl(8 * at as u32);
            table[at][n] = match then {
                Then::Multiply => multiply(permute(block, places)),
                Then::MultiplyFirst => permute(multiply(block), places),
                Then::Rotate => rotate_some(permute(block, places)),
            };
            n += 1;
        }
        at += 1;
    }
    table
}

/// The value at a place among sixteen of four bits.
const fn pick(from: u64, which: u64) -> u64 {
    from.wrapping_shr(4 * which as u32) & 15
}

/// Each cell from the place that a table says.
const fn permute(block: u64, places: u64) -> u64 {
    let (mut moved, mut n) = (0, 0);
    while n < 16 {
        moved |= pick(block, pick(places, n)).wrapping_shl(4 * n as u32);
        n += 1;
    }
    moved
}

/// A linear function, by its table.
fn apply(block: u64, table: &Linear) -> u64 {
    let parts = block.to_le_bytes().into_iter().zip(table);
    parts.fold(0, |sum, (byte, row)| {
        sum ^ row.get(usize::from(byte)).copied().unwrap_or(0)
    })
}

/// Each cell by a table of values.
fn substitute(block: u64, table: &[u8; 256]) -> u64 {
    let of = |byte| table.get(usize::from(byte)).copied().unwrap_or(0);
    u64::from_le_bytes(block.to_le_bytes().map(of))
}

/// `RotCell` by one, of all cells.
const fn by_one(x: u64) -> u64 {
    x << 1 & 0xeeee_eeee_eeee_eeee | x >> 3 & 0x1111_1111_1111_1111
}

/// `PACMult`, which is its own inverse: each row of four cells from the three others.
const fn multiply(block: u64) -> u64 {
    let near = block.rotate_right(16) ^ block.rotate_right(48);
    by_one(near ^ by_one(block.rotate_right(32)))
}

/// `TweakCellRot`, of the cells that it is done to.
const fn rotate_some(tweak: u64) -> u64 {
    let low = tweak >> 1 & 0x7777_7777_7777_7777;
    let rotated = low | ((tweak ^ low) & 0x1111_1111_1111_1111) << 3;
    tweak & !ROTATED | rotated & ROTATED
}

impl Qarma {
    /// `ComputePAC`: the block `data` under a key of two words, K<127:64> and K<63:0>.
    pub(super) fn encrypt(self, data: u64, tweak: u64, key0: u64, key1: u64) -> u64 {
        let Substitution { forward, inverse } = self.substitution;
        let rounds = || ROUNDS.iter().take(self.rounds.wrapping_add(1));
        let mut tweaks = [0; ROUNDS.len()];
        let mut tweak = tweak;
        let mut block = data ^ key0;
        for ((n, constant), slot) in rounds().enumerate().zip(&mut tweaks) {
            *slot = tweak;
            block ^= key1 ^ tweak ^ constant;
            if n > 0 {
                block = apply(block, &MIX);
            }
            block = substitute(block, forward);
            tweak = apply(tweak, &NEXT_TWEAK);
        }
        let middle = key0.rotate_right(1) ^ key0 >> 63;
        block = apply(block ^ middle ^ tweak, &MIX);
        block = apply(substitute(block, forward), &MIX);
        // `PACCellInvShuffle` alone is before a substitution of all cells, as well as after it.
        block = multiply(substitute(block ^ key1, inverse));
        block = apply(apply(block, &UNMIX), &UNMIX) ^ key0 ^ tweak;
        for ((n, constant), tweak) in rounds().enumerate().zip(tweaks).rev() {
            block = substitute(block, inverse);
            if n > 0 {
                block = apply(block, &UNMIX);
            }
            block ^= constant ^ key1 ^ tweak ^ ALPHA;
        }
        block ^ middle
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The paper's examples, of five rounds each: table 6.
    #[test]
    fn blocks_are_those_of_the_paper() {
        let of = |substitution| {
            let qarma = Qarma {
                rounds: 4,
                substitution,
            };
            let (whitening, core) = (0x84be_85ce_9804_e94b, 0xec28_02d4_e0a4_88e9);
            qarma.encrypt(
                0xfb62_3599_da6e_8127,
                0x477d_469d_ec0b_8762,
                whitening,
                core,
            )
        };
        assert_eq!(of(SIGMA_1), 0x544b_0ab9_5bda_7c3a);
        assert_eq!(of(SIGMA_2), 0xc003_b939_99b3_3765);
    }

    #[test]
    fn tables_are_each_others_inverse() {
        for n in 0..16 {
            assert_eq!(pick(SHUFFLE, pick(UNSHUFFLE, n)), n);
        }
        for Substitution { forward, inverse } in [SIGMA_1, SIGMA_2] {
            for byte in 0..=255 {
                let there = substitute(byte, forward) & 0xff;
                assert_eq!(substitute(there, inverse) & 0xff, byte);
            }
        }
        for block in [1, 0x477d_469d_ec0b_8762] {
            assert_eq!(apply(apply(block, &MIX), &UNMIX), block);
        }
    }
}
