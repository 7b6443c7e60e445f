//! Which part of the code memory is filled next: pieces in turn, the one filled longest ago being freed.
//!
//! How many pieces are in use is measured, not guessed. A guest begins with few, as most code of a boot
//! runs once. When units that were driven out are made again, there are more, up to the bound.

use std::collections::VecDeque;

/// Bytes of a piece, if the bound allows for [`FIRST`] of them.
const PIECE: usize = 1 << 20;
/// Pieces in use at first.
const FIRST: usize = 14;
/// There are more pieces when one unit in so many was driven out before.
const TOO_OFTEN: u32 = 2;
/// log2 of the bits that tell what was driven out.
const BITS: u32 = 16;
/// Units noted as driven out before that begins anew: with more, it would take others for them.
const MOST_NOTED: u32 = 1 << (BITS - 2);

/// The pieces.
pub(crate) struct Ring {
    /// Bytes of each.
    size: usize,
    /// How many there may ever be.
    most: usize,
    /// How many may be in use.
    allowed: usize,
    /// Those in use, the one filled longest ago first.
    filled: VecDeque<usize>,
    /// By hash: units that were driven out.
    gone: Box<[u64]>,
    noted: u32,
    /// Units made since the last piece was begun, and those of them that had been driven out.
    made: u32,
    remade: u32,
}

impl Ring {
    /// For so many bytes, in multiples of `chunk`.
    pub(crate) fn new(len: usize, chunk: usize) -> Self {
        let size = PIECE.min(len / FIRST) / chunk * chunk;
        let size = size.max(chunk);
        Ring {
            size,
            most: (len / size).max(1),
            allowed: FIRST.min(len / size).max(1),
            filled: VecDeque::new(),
            gone: vec![0; 1 << (BITS - 6)].into(),
            noted: 0,
            made: 0,
            remade: 0,
        }
    }

    /// Bytes of a piece.
    pub(crate) fn size(&self) -> usize {
        self.size
    }

    /// Bytes of those that may be in use.
    pub(crate) fn room(&self) -> usize {
        self.allowed * self.size
    }

    /// The number of the next piece to fill, from 0, and whether something is in it.
    pub(crate) fn advance(&mut self) -> (usize, bool) {
        if self.remade > self.made / TOO_OFTEN {
            self.allowed = (self.allowed + self.allowed.div_ceil(4)).min(self.most);
        }
        (self.made, self.remade) = (0, 0);
        let in_use = self.filled.len();
        let oldest = match in_use < self.allowed {
            true => None,
            false => self.filled.pop_front(),
        };
        let piece = oldest.unwrap_or(in_use);
        self.filled.push_back(piece);
        (piece, oldest.is_some())
    }

    /// Nothing is in any piece.
    pub(crate) fn clear(&mut self) {
        self.filled.clear();
        self.forget();
        (self.made, self.remade) = (0, 0);
    }

    fn forget(&mut self) {
        self.gone.fill(0);
        self.noted = 0;
    }

    /// A unit with this hash is driven out.
    pub(crate) fn drive_out(&mut self, hash: u64) {
        if self.noted >= MOST_NOTED {
            self.forget();
        }
        let (word, bit) = place(hash);
        self.gone[word] |= bit;
        self.noted += 1;
    }

    /// A unit with this hash was made.
    pub(crate) fn note_made(&mut self, hash: u64) {
        let (word, bit) = place(hash);
        self.made += 1;
        self.remade += u32::from(self.gone[word] & bit != 0);
        self.gone[word] &= !bit;
    }
}

fn place(hash: u64) -> (usize, u64) {
    let bit = hash.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> (64 - BITS);
    ((bit >> 6) as usize, 1 << (bit & 63))
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEN: usize = 40 * PIECE;

    #[test]
    fn pieces_are_filled_in_turn() {
        let mut ring = Ring::new(FIRST * 4096, 16);
        assert_eq!((ring.size(), ring.room()), (4096, FIRST * 4096));
        for turn in 0..3 {
            for piece in 0..FIRST {
                assert_eq!(ring.advance(), (piece, turn > 0));
            }
        }
    }

    #[test]
    fn what_runs_once_takes_no_more_pieces() {
        let mut ring = Ring::new(LEN, 16);
        for n in 0..1000 {
            let (piece, is_old) = ring.advance();
            assert!(piece < FIRST);
            for unit in 0..100 {
                if is_old {
                    ring.drive_out((n - FIRST as u64) * 100 + unit);
                }
                ring.note_made(n * 100 + unit);
            }
        }
        assert_eq!(ring.room(), FIRST * PIECE);
    }

    #[test]
    fn what_is_made_again_gets_more_pieces_up_to_the_bound() {
        let mut ring = Ring::new(LEN, 16);
        let mut seen = std::collections::HashMap::new();
        let mut before = 0;
        for _ in 0..100 {
            let (piece, is_old) = ring.advance();
            assert!(piece * PIECE < LEN);
            // Whatever was driven out, is wanted at once.
            for hash in seen
                .insert(piece, 0..50u64)
                .filter(|_| is_old)
                .into_iter()
                .flatten()
            {
                ring.drive_out(hash);
            }
            (0..50).for_each(|hash| ring.note_made(hash));
            assert!(ring.room() >= before && ring.room() <= LEN);
            before = ring.room();
        }
        assert_eq!(ring.room(), LEN);
        assert_eq!(seen.len(), 40);
    }
}
