//! Operands that find mistakes: the edges of every format, and random ones that cluster near the edges.

/// A small generator with a fixed seed: the same operands on every run.
pub struct Rng(u64);

impl Rng {
    /// Starts the sequence.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// Sixty-four bits (the splitmix64 sequence).
    pub fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Below `n`.
    pub fn below(&mut self, n: u64) -> u64 {
        self.bits() % n
    }

    /// A significand field of `width` bits: random, sparse, or a run of ones.
    fn fraction(&mut self, width: u32) -> u64 {
        let mask = u64::MAX >> (64 - width);
        let at = self.below(u64::from(width)) as u32;
        mask & match self.below(6) {
            0 => 1 << at,
            1 => mask << at,
            2 => mask >> at,
            3 => self.bits() << at,
            _ => self.bits(),
        }
    }

    /// An exponent field of `width` bits: anything, near the middle, or near either end.
    fn exponent(&mut self, width: u32) -> u64 {
        let max = (1 << width) - 1;
        match self.below(8) {
            0 => self.below(4),
            1 => max - self.below(4),
            2 => self.bits() & max,
            3 => (max / 2).wrapping_add(self.below(140)).wrapping_sub(70) & max,
            _ => (max / 2).wrapping_add(self.below(16)).wrapping_sub(8) & max,
        }
    }

    /// A value with `exponent` and `fraction` bits below its sign.
    pub fn float(&mut self, exponent: u32, fraction: u32) -> u64 {
        let sign = (self.bits() & 1) << (exponent + fraction);
        sign | self.exponent(exponent) << fraction | self.fraction(fraction)
    }

    /// A binary64.
    pub fn f64(&mut self) -> u64 {
        self.float(11, 52)
    }

    /// A binary32.
    pub fn f32(&mut self) -> u32 {
        self.float(8, 23) as u32
    }

    /// A double extended: sign and exponent, then the significand.
    pub fn f80(&mut self) -> (u16, u64) {
        let se = (self.bits() & 1) << 15 | self.exponent(15);
        let frac = self.fraction(63);
        // Now and then an encoding that is no longer supported.
        let integer = u64::from((se & 0x7fff != 0) != (self.below(40) == 0)) << 63;
        (se as u16, integer | frac)
    }
}

/// Edge values of a format, both signs.
pub fn edges(exponent: u32, fraction: u32) -> Vec<u64> {
    let max = (1_u64 << exponent) - 1;
    let ones = (1_u64 << fraction) - 1;
    let bias = max / 2;
    let quiet = 1_u64 << (fraction - 1);
    let fields = [
        (0, 0),
        (0, 1),
        (0, ones),
        (0, quiet),
        (1, 0),
        (1, 1),
        (bias - u64::from(fraction), 1),
        (bias - 2, 0),
        (bias - 1, 0),
        (bias - 1, ones),
        (bias, 0),
        (bias, 1),
        (bias, quiet),
        (bias + 1, 0),
        (bias + u64::from(fraction), ones),
        (max - 1, 0),
        (max - 1, ones),
        (max, 0),
        (max, 1),
        (max, quiet),
        (max, quiet | 0x15),
        (max, ones),
    ];
    let positive = fields.map(|(e, f)| e << fraction | f);
    positive
        .iter()
        .flat_map(|&v| [v, v | 1 << (exponent + fraction)])
        .collect()
}

/// Edge values of the double extended format, both signs, unsupported encodings included.
pub fn edges_f80() -> Vec<(u16, u64)> {
    const TOP: u64 = 1 << 63;
    let positive = [
        (0, 0),
        (0, 1),
        (0, TOP - 1),
        (0, TOP),
        (0, TOP | 5),
        (1, TOP),
        (1, TOP | 1),
        (1, 3),
        (0x3f80, TOP | 0xff),
        (0x3ffd, TOP),
        (0x3ffe, TOP),
        (0x3ffe, u64::MAX),
        (0x3fff, TOP),
        (0x3fff, TOP | 1),
        (0x3fff, TOP | TOP >> 1),
        (0x4000, TOP),
        (0x4000, 7),
        (0x403e, u64::MAX),
        (0x7ffe, TOP),
        (0x7ffe, u64::MAX),
        (0x7fff, TOP),
        (0x7fff, TOP | 1),
        (0x7fff, TOP | TOP >> 1),
        (0x7fff, TOP | TOP >> 1 | 0x15),
        (0x7fff, u64::MAX),
        (0x7fff, 0),
        (0x7fff, 1),
    ];
    positive
        .iter()
        .flat_map(|&(se, sig)| [(se, sig), (se | 0x8000, sig)])
        .collect()
}
