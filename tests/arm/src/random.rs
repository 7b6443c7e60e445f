//! Random numbers that a seed determines.

/// A generator (splitmix64).
#[derive(Clone, Debug)]
pub struct Rng(pub u64);

impl Rng {
    /// The next number.
    pub fn word(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }

    /// A number below `n`.
    pub fn below(&mut self, n: u64) -> u64 {
        self.word() % n.max(1)
    }

    /// An operand: small, near a power of two, a floating-point value of some kind, or anything.
    pub fn operand(&mut self) -> u64 {
        match self.below(8) {
            0 => self.below(4),
            1 => self.below(4).wrapping_neg(),
            2 => 1u64.wrapping_shl(self.below(64) as u32),
            3 => 1u64
                .wrapping_shl(self.below(64) as u32)
                .wrapping_sub(1 + self.below(2)),
            4 => u64::from(self.single()) | u64::from(self.single()) << 32,
            5 => self.double(),
            6 => (0..4).fold(0, |all, _| all << 16 | u64::from(self.half())),
            _ => self.word(),
        }
    }

    fn float(&mut self, exponent_bits: u32, fraction_bits: u32) -> u64 {
        let all = (1u64 << exponent_bits) - 1;
        let fraction = self.word() & ((1 << fraction_bits) - 1);
        let (exponent, fraction) = match self.below(8) {
            0 => (0, 0),
            1 => (0, fraction),
            2 => (all, 0),
            3 => (all, fraction),
            4 => (all / 2, 0),
            5 => (all / 2 + self.below(20) - 10, fraction),
            _ => (self.word() & all, fraction),
        };
        self.below(2) << (exponent_bits + fraction_bits) | exponent << fraction_bits | fraction
    }

    fn half(&mut self) -> u16 {
        self.float(5, 10) as u16
    }

    fn single(&mut self) -> u32 {
        self.float(8, 23) as u32
    }

    fn double(&mut self) -> u64 {
        self.float(11, 52)
    }
}
