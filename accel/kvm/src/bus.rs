//! Memory accesses that no slot took, as the board answers them.

use std::sync::Arc;

use hw_core::{Attrs, ByteOrder, Initiator, Requests};
use hw_memory::{MemoryMap, Snapshot};

/// What the board gives a CPU of any architecture.
pub(crate) struct Bus {
    pub(crate) index: u32,
    pub(crate) memory: MemoryMap,
    pub(crate) snapshot: Arc<Snapshot>,
    pub(crate) requests: Requests,
    /// The bytes that nobody answers with.
    pub(crate) void: u8,
}

impl Bus {
    fn sync(&mut self) {
        if self.snapshot.generation() != self.memory.generation() {
            self.snapshot = self.memory.snapshot();
        }
    }

    /// The accesses that `len` bytes are made in: one, if the size is one that instructions have.
    fn pieces(len: u8) -> (u8, u8) {
        if matches!(len, 1 | 2 | 4 | 8) {
            (1, len)
        } else {
            (len, 1)
        }
    }

    pub(crate) fn read(&mut self, address: u64, len: u8) -> [u8; 8] {
        self.sync();
        let (count, size) = Self::pieces(len.min(8));
        let void = [self.void; 8];
        let mut data = void;
        for (n, piece) in data.chunks_mut(size.into()).take(count.into()).enumerate() {
            let at = address.wrapping_add(n as u64 * u64::from(size));
            let by = Initiator::Cpu(self.index);
            let value = self
                .snapshot
                .read(at, size, ByteOrder::Little, by, Attrs::default())
                .map_or(void, u64::to_le_bytes);
            for (to, from) in piece.iter_mut().zip(value) {
                *to = from;
            }
        }
        data
    }

    pub(crate) fn write(&mut self, address: u64, len: u8, data: [u8; 8]) {
        self.sync();
        let (count, size) = Self::pieces(len.min(8));
        for (n, piece) in data.chunks(size.into()).take(count.into()).enumerate() {
            let at = address.wrapping_add(n as u64 * u64::from(size));
            let by = Initiator::Cpu(self.index);
            // Writes to nothing and to ROM are lost, as on hardware.
            let _ = self.snapshot.write(
                at,
                size,
                number(piece),
                ByteOrder::Little,
                by,
                Attrs::default(),
            );
        }
    }
}

/// Bytes as memory has them.
pub(crate) fn number(bytes: &[u8]) -> u64 {
    bytes.iter().rev().fold(0, |v, b| v << 8 | u64::from(*b))
}
