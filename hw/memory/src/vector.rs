//! Memory of a transfer: guest pages scattered over RAM, or a buffer of our own.
//!
//! Back ends read and write it in place (`preadv`, `pwritev`, io_uring): the vector keeps what it
//! points to alive, and whoever puts bytes into it behind its back calls [`IoVector::mark_written`].

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::ptr::NonNull;
use std::sync::Arc;

use crate::dma::{Dma, DmaError};
use crate::ram::RamBlock;

/// Alignment of our own buffers: what `O_DIRECT` wants of addresses, on any disk.
pub const BUFFER_ALIGN: usize = 4096;

/// A buffer of our own, zeroed when made.
struct Buffer {
    start: NonNull<u8>,
    layout: Layout,
}

// SAFETY: the memory belongs to the buffer alone and is only touched by byte copies through raw
// pointers, like guest RAM.
unsafe impl Send for Buffer {}
// SAFETY: as above.
unsafe impl Sync for Buffer {}

impl Buffer {
    fn zeroed(len: usize) -> Option<Self> {
        let layout = Layout::from_size_align(len.max(1), BUFFER_ALIGN).ok()?;
        // SAFETY: the layout's size is not zero.
        let start = unsafe { alloc_zeroed(layout) };
        let Some(start) = NonNull::new(start) else {
            handle_alloc_error(layout)
        };
        Some(Buffer { start, layout })
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        // SAFETY: allocated in `zeroed` with this layout, and freed only here.
        unsafe { dealloc(self.start.as_ptr(), self.layout) };
    }
}

#[derive(Clone)]
enum Memory {
    Ram(Arc<RamBlock>),
    Own(Arc<Buffer>),
}

#[derive(Clone)]
struct Piece {
    memory: Memory,
    offset: usize,
    len: usize,
}

impl Piece {
    fn start(&self) -> *mut u8 {
        let base = match &self.memory {
            Memory::Ram(block) => block.host_ptr(),
            Memory::Own(buffer) => buffer.start.as_ptr(),
        };
        // SAFETY: a piece lies within its memory: checked where it was made.
        unsafe { base.add(self.offset) }
    }

    fn mark_written(&self) {
        if let Memory::Ram(block) = &self.memory {
            block.mark_written(self.offset as u64, self.len as u64);
        }
    }
}

/// Memory of a transfer, in pieces. Clones and slices share the memory.
#[derive(Clone, Default)]
pub struct IoVector {
    pieces: Vec<Piece>,
    len: usize,
}

impl std::fmt::Debug for IoVector {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "IoVector({} in {})", self.len, self.pieces.len())
    }
}

impl IoVector {
    /// A buffer of `len` zero bytes, aligned for direct access to disks.
    pub fn zeroed(len: usize) -> Self {
        let Some(buffer) = Buffer::zeroed(len) else {
            return IoVector::default();
        };
        let memory = Memory::Own(Arc::new(buffer));
        IoVector {
            pieces: vec![Piece {
                memory,
                offset: 0,
                len,
            }],
            len,
        }
    }

    /// The guest memory behind these addresses and lengths.
    pub fn guest(
        dma: &Dma,
        ranges: impl IntoIterator<Item = (u64, u64)>,
        write: bool,
    ) -> Result<Self, DmaError> {
        let mut vector = IoVector::default();
        for (address, len) in ranges {
            for (block, offset, len) in dma.slices(address, len, write)? {
                vector
                    .push(block, offset, len)
                    .ok_or(DmaError::NoRam(address))?;
            }
        }
        Ok(vector)
    }

    fn push(&mut self, block: Arc<RamBlock>, offset: u64, len: u64) -> Option<()> {
        if offset.checked_add(len)? > block.len() {
            return None;
        }
        let (offset, len) = (usize::try_from(offset).ok()?, usize::try_from(len).ok()?);
        self.len = self.len.checked_add(len)?;
        if let Some(last) = self.pieces.last_mut()
            && let Memory::Ram(ram) = &last.memory
            && Arc::ptr_eq(ram, &block)
            && last.offset.checked_add(last.len)? == offset
        {
            last.len = last.len.checked_add(len)?;
            return Some(());
        }
        let memory = Memory::Ram(block);
        self.pieces.push(Piece {
            memory,
            offset,
            len,
        });
        Some(())
    }

    /// Bytes.
    pub fn len(&self) -> u64 {
        self.len as u64
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The part `at..at + len`, or what there is of it.
    #[must_use]
    pub fn slice(&self, at: u64, len: u64) -> IoVector {
        let mut out = IoVector::default();
        self.visit(at, len, |piece| {
            out.len = out.len.saturating_add(piece.len);
            out.pieces.push(piece);
        });
        out
    }

    /// Calls `f` with the pieces of `at..at + len`. Returns how many bytes they have.
    fn visit(&self, at: u64, len: u64, mut f: impl FnMut(Piece)) -> usize {
        let mut skip = usize::try_from(at).unwrap_or(usize::MAX);
        let mut left = usize::try_from(len).unwrap_or(usize::MAX);
        let mut done = 0usize;
        for piece in &self.pieces {
            if left == 0 {
                break;
            }
            if skip >= piece.len {
                skip = skip.saturating_sub(piece.len);
                continue;
            }
            let here = piece.len.saturating_sub(skip).min(left);
            f(Piece {
                memory: piece.memory.clone(),
                offset: piece.offset.saturating_add(skip),
                len: here,
            });
            skip = 0;
            left = left.saturating_sub(here);
            done = done.saturating_add(here);
        }
        done
    }

    fn has(&self, at: u64, len: usize) -> Option<()> {
        let end = usize::try_from(at).ok()?.checked_add(len)?;
        (end <= self.len).then_some(())
    }

    /// Copies bytes from `at` on out. `None` when it has not that many.
    pub fn copy_out(&self, at: u64, out: &mut [u8]) -> Option<()> {
        self.has(at, out.len())?;
        let len = out.len() as u64;
        let mut rest = out;
        self.visit(at, len, |piece| {
            let Some((head, tail)) = std::mem::take(&mut rest).split_at_mut_checked(piece.len)
            else {
                return;
            };
            // SAFETY: the piece lies within memory that it keeps alive, `head` has its length and
            // is ours alone. Racing guest stores can tear the bytes, as real DMA does.
            unsafe {
                std::ptr::copy_nonoverlapping(piece.start(), head.as_mut_ptr(), head.len());
            }
            rest = tail;
        });
        Some(())
    }

    /// Copies bytes in from `at` on. `None` when there is no room for them.
    pub fn copy_in(&self, at: u64, data: &[u8]) -> Option<()> {
        self.has(at, data.len())?;
        let mut rest = data;
        self.visit(at, data.len() as u64, |piece| {
            let Some((head, tail)) = rest.split_at_checked(piece.len) else {
                return;
            };
            // SAFETY: as in `copy_out`.
            unsafe { std::ptr::copy_nonoverlapping(head.as_ptr(), piece.start(), head.len()) };
            piece.mark_written();
            rest = tail;
        });
        Some(())
    }

    /// Fills with one byte.
    pub fn fill(&self, byte: u8) {
        for piece in &self.pieces {
            // SAFETY: the piece lies within memory that it keeps alive.
            unsafe { std::ptr::write_bytes(piece.start(), byte, piece.len) };
            piece.mark_written();
        }
    }

    /// A copy of all bytes.
    pub fn to_vec(&self) -> Vec<u8> {
        let mut out = vec![0; self.len];
        self.copy_out(0, &mut out);
        out
    }

    /// Whether all bytes are zero. A guest may change them at any time.
    pub fn is_zero(&self) -> bool {
        /// Bytes looked at together, compared as memory is compared, which is faster than byte by byte.
        const CHUNK: usize = 4096;
        /// What is no zeros shows it in its first bytes, mostly.
        const FIRST: usize = 64;
        const ZEROS: &[u8] = &[0; CHUNK];
        let mut chunk = [0u8; CHUNK];
        let mut at = 0usize;
        while at < self.len {
            let most = if at == 0 { FIRST } else { CHUNK };
            let here = self.len.saturating_sub(at).min(most);
            let Some(part) = chunk.get_mut(..here) else {
                return false;
            };
            self.copy_out(at as u64, part);
            if ZEROS.get(..here) != Some(&*part) {
                return false;
            }
            at = at.saturating_add(here);
        }
        true
    }

    /// Whether every piece starts and ends at a multiple of `align`.
    pub fn is_aligned(&self, align: usize) -> bool {
        self.pieces.iter().all(|piece| {
            (piece.start() as usize).is_multiple_of(align) && piece.len.is_multiple_of(align)
        })
    }

    /// Addresses and lengths, valid while the vector or a clone of it lives. Others may read and
    /// write there at the same time.
    pub fn host_pieces(&self) -> impl ExactSizeIterator<Item = (*mut u8, usize)> + '_ {
        self.pieces.iter().map(|piece| (piece.start(), piece.len))
    }

    /// The host has put bytes in: the guest's pages are marked.
    pub fn mark_written(&self) {
        self.pieces.iter().for_each(Piece::mark_written);
    }
}

impl From<&[u8]> for IoVector {
    fn from(data: &[u8]) -> Self {
        let vector = IoVector::zeroed(data.len());
        vector.copy_in(0, data);
        vector
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{MappingSpec, MemoryMap, What};

    #[test]
    fn one_byte_anywhere_is_no_zeros() {
        let bytes = vec![0u8; 12_345];
        assert!(IoVector::from(bytes.as_slice()).is_zero());
        assert!(IoVector::default().is_zero());
        for at in [0, 63, 64, 4095, 4096, 4159, 4160, 12_344] {
            let mut bytes = bytes.clone();
            bytes[at] = 1;
            assert!(!IoVector::from(bytes.as_slice()).is_zero(), "{at}");
        }
    }

    #[test]
    fn slices_share_the_bytes() {
        let all = IoVector::from([1, 2, 3, 4, 5].as_slice());
        let part = all.slice(1, 3);
        assert_eq!(part.to_vec(), [2, 3, 4]);
        part.copy_in(1, &[9, 9]).unwrap();
        assert_eq!(all.to_vec(), [1, 2, 9, 9, 5]);
        assert_eq!(all.slice(4, 7).len(), 1);
        assert!(all.copy_in(4, &[0, 0]).is_none());
        assert!(all.copy_out(u64::MAX, &mut [0]).is_none());
        all.fill(0);
        assert!(all.is_zero() && all.is_aligned(1) && !all.is_aligned(8));
    }

    #[test]
    fn scattered_guest_pages_are_one_vector_and_marked_when_written() {
        let block = Arc::new(RamBlock::private("ram", 4 << 12).unwrap());
        let map = MemoryMap::default();
        let what = What::Ram {
            block: block.clone(),
            offset: 0,
        };
        let _mapping = map.add(MappingSpec {
            name: "ram".into(),
            base: 0,
            len: 4 << 12,
            priority: 0,
            enabled: true,
            what,
        });
        let dma = Dma::new(map);
        block.log_dirty();
        let vector = IoVector::guest(
            &dma,
            [(0x10, 8), (0x2ffc, 8), (0x1000, 4), (0x1004, 4)],
            true,
        );
        let vector = vector.unwrap();
        assert_eq!((vector.len(), vector.host_pieces().len()), (24, 3));
        let data: Vec<u8> = (1..=24).collect();
        vector.copy_in(0, &data).unwrap();
        let mut out = [0; 8];
        dma.read(0x1000, &mut out).unwrap();
        assert_eq!(out, data[16..24]);
        assert_eq!(block.take_dirty()[0] & 0xf, 0b1111);
        assert!(IoVector::guest(&dma, [(0x3ffc, 8)], true).is_err());
    }
}
