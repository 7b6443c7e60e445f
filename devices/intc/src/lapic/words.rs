//! A 256-bit register that any thread may change.

use std::sync::atomic::{AtomicU32, Ordering};

#[derive(Default)]
pub(super) struct Words([AtomicU32; 8]);

impl Words {
    fn word(&self, vector: u8) -> Option<(&AtomicU32, u32)> {
        let word = self.0.get(usize::from(vector >> 5))?;
        Some((word, 1u32.wrapping_shl(u32::from(vector & 31))))
    }

    /// Sets a bit; true if it was clear.
    pub(super) fn set(&self, vector: u8) -> bool {
        self.word(vector)
            .is_some_and(|(word, bit)| word.fetch_or(bit, Ordering::SeqCst) & bit == 0)
    }

    pub(super) fn clear(&self, vector: u8) {
        if let Some((word, bit)) = self.word(vector)
            && word.load(Ordering::Acquire) & bit != 0
        {
            word.fetch_and(!bit, Ordering::SeqCst);
        }
    }

    pub(super) fn test(&self, vector: u8) -> bool {
        self.word(vector)
            .is_some_and(|(word, bit)| word.load(Ordering::Acquire) & bit != 0)
    }

    /// The highest bit set.
    pub(super) fn highest(&self) -> Option<u8> {
        (0u8..8).zip(&self.0).rev().find_map(|(n, word)| {
            let bit = word.load(Ordering::SeqCst).checked_ilog2()?;
            Some((n << 5) | bit as u8)
        })
    }

    pub(super) fn get(&self, n: u32) -> u32 {
        usize::try_from(n)
            .ok()
            .and_then(|n| self.0.get(n))
            .map_or(0, |word| word.load(Ordering::Acquire))
    }

    pub(super) fn load(&self) -> [u32; 8] {
        std::array::from_fn(|n| self.0.get(n).map_or(0, |w| w.load(Ordering::Acquire)))
    }

    pub(super) fn store(&self, words: [u32; 8]) {
        for (slot, word) in self.0.iter().zip(words) {
            slot.store(word, Ordering::SeqCst);
        }
    }
}
