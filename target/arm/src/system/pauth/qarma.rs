//! The block cipher QARMA with its tweak, of which codes of pointers are the output (DDI 0487, shared
//! pseudocode `ComputePAC`; R. Avanzi, "The QARMA Block Cipher Family", 2016). A block is 16 cells of 4 bits.

/// Constants of the rounds: digits of pi.
const ROUNDS: [u64; 5] = [
    0,
    0x1319_8a2e_0370_7344,
    0xa409_3822_299f_31d0,
    0x082e_fa98_ec4e_6c89,
    0x4528_21e6_38d0_1377,
];
const ALPHA: u64 = 0xc0ac_29b7_c97c_50dd;

/// A permutation of a cell's values, value 0 in the lowest bits, and its inverse.
#[derive(Clone, Copy)]
struct Substitution {
    forward: u64,
    inverse: u64,
}

/// `PACSub` and `PACInvSub`.
const SIGMA_2: Substitution = Substitution {
    forward: 0xa12d_5473_e90c_f86b,
    inverse: 0x37c4_0f62_91ba_8de5,
};
/// `PACSub1`, which is its own inverse.
const SIGMA_1: Substitution = Substitution {
    forward: 0x421b_c089_537f_6eda,
    inverse: 0x421b_c089_537f_6eda,
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

/// The cells of a word, the lowest first.
fn cells(word: u64) -> impl DoubleEndedIterator<Item = u64> {
    let shifts = (0..u64::BITS).step_by(4);
    shifts.map(move |shift| word.wrapping_shr(shift) & 15)
}

/// A word of cells.
fn word(cells: impl DoubleEndedIterator<Item = u64>) -> u64 {
    cells.rev().fold(0, |word, cell| word << 4 | cell)
}

fn pick(from: u64, which: u64) -> u64 {
    let shift = u32::try_from(which.wrapping_mul(4)).unwrap_or(0);
    from.wrapping_shr(shift) & 15
}

/// Each cell by a table of values.
fn substitute(block: u64, table: u64) -> u64 {
    word(cells(block).map(|cell| pick(table, cell)))
}

/// Each cell from the place that a table says.
fn permute(block: u64, places: u64) -> u64 {
    word(cells(places).map(|place| pick(block, place)))
}

/// `PACMult`: each row of four cells from the three others.
fn multiply(block: u64) -> u64 {
    // `RotCell`, of all cells.
    let by_one = |x: u64| x << 1 & 0xeeee_eeee_eeee_eeee | x >> 3 & 0x1111_1111_1111_1111;
    let near = block.rotate_right(16) ^ block.rotate_right(48);
    by_one(near ^ by_one(block.rotate_right(32)))
}

/// `TweakShuffle`.
fn next_tweak(tweak: u64) -> u64 {
    let moved = permute(tweak, TWEAK);
    // `TweakCellRot`, of all cells.
    let low = moved >> 1 & 0x7777_7777_7777_7777;
    let rotated = low | ((moved ^ low) & 0x1111_1111_1111_1111) << 3;
    moved & !ROTATED | rotated & ROTATED
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
                block = multiply(permute(block, SHUFFLE));
            }
            block = substitute(block, forward);
            tweak = next_tweak(tweak);
        }
        let middle = key0.rotate_right(1) ^ key0 >> 63;
        block = multiply(permute(block ^ middle ^ tweak, SHUFFLE));
        block = multiply(permute(substitute(block, forward), SHUFFLE));
        block = permute(block ^ key1, UNSHUFFLE);
        block = permute(multiply(substitute(block, inverse)), UNSHUFFLE);
        block ^= key0 ^ tweak;
        for ((n, constant), tweak) in rounds().enumerate().zip(tweaks).rev() {
            block = substitute(block, inverse);
            if n > 0 {
                block = permute(multiply(block), UNSHUFFLE);
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
            for Substitution { forward, inverse } in [SIGMA_1, SIGMA_2] {
                assert_eq!(pick(inverse, pick(forward, n)), n);
            }
        }
    }
}
