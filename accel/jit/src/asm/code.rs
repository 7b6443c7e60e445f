//! Bytes of code.

/// Bytes of code, in memory that is kept.
#[derive(Default)]
pub(crate) struct Code {
    /// Room, of which the beginning is code.
    room: Vec<u8>,
    pub(super) len: usize,
}

impl Code {
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    pub(crate) fn clear(&mut self) {
        self.len = 0;
    }

    pub(super) fn push(&mut self, byte: u8) {
        self.put(one(byte));
    }

    pub(crate) fn extend_from_slice(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|byte| self.push(*byte));
    }

    /// Adds up to eight bytes.
    pub(super) fn put(&mut self, bytes: Bytes) {
        let Some(room) = self.room_for(8).and_then(<[u8]>::first_chunk_mut) else {
            self.grow();
            return self.put(bytes);
        };
        // All of a fixed length is one store.
        *room = bytes.bits.to_le_bytes();
        self.len += bytes.len as usize;
    }

    /// What comes next, if there is room for so many bytes.
    pub(super) fn room_for(&mut self, bytes: usize) -> Option<&mut [u8]> {
        self.room.get_mut(self.len..self.len + bytes)
    }

    #[cold]
    #[inline(never)]
    pub(super) fn grow(&mut self) {
        let wanted = (2 * self.room.len()).max(LEAST_ROOM);
        self.room.resize(wanted, 0);
    }
}

impl std::ops::Deref for Code {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.room[..self.len]
    }
}

impl std::ops::DerefMut for Code {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.room[..self.len]
    }
}

/// Bytes of room for code at first.
const LEAST_ROOM: usize = 4096;

/// Up to eight bytes, the lowest first, and zeros above them.
#[derive(Clone, Copy, Default)]
pub(super) struct Bytes {
    pub(super) bits: u64,
    pub(super) len: u32,
}

impl Bytes {
    /// The low bytes of a number that has no others.
    pub(super) const fn of(bits: u64, len: u32) -> Bytes {
        Bytes { bits, len }
    }

    pub(super) fn and(self, more: Bytes) -> Bytes {
        Bytes {
            bits: self.bits | more.bits << (8 * self.len),
            len: self.len + more.len,
        }
    }

    /// An immediate, cut to this many bytes.
    pub(super) fn imm(value: i32, len: u32) -> Bytes {
        let cut = (1_u64 << (8 * len)) - 1;
        Bytes::of(u64::from(value as u32) & cut, len)
    }
}

/// A one-byte opcode.
pub(super) const fn one(opcode: u8) -> Bytes {
    Bytes::of(opcode as u64, 1)
}

/// An opcode behind the escape byte.
pub(super) const fn two(opcode: u8) -> Bytes {
    Bytes::of(0x0f | (opcode as u64) << 8, 2)
}
