//! How devices reach guest memory: RAM and ROM only, never another device's registers.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering, fence};

use crate::access::SECURE_SPACE;
use crate::map::{MemoryMap, What};
use crate::ram::RamBlock;

/// Why a transfer was refused. Nothing beyond the failing byte was transferred.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DmaError {
    /// No RAM at that address.
    #[error("no memory at {0:#x}")]
    NoRam(u64),
    /// ROM cannot be written.
    #[error("memory at {0:#x} is read-only")]
    ReadOnly(u64),
    /// The device may not master the bus.
    #[error("bus mastering is off")]
    Disabled,
}

/// A device's way to guest memory. Dirty tracking and the bus-master switch are inside.
#[derive(Clone)]
pub struct Dma {
    map: MemoryMap,
    enabled: Arc<AtomicBool>,
}

impl Dma {
    /// DMA over a memory map, enabled.
    pub fn new(map: MemoryMap) -> Self {
        Dma {
            map,
            enabled: Arc::new(AtomicBool::new(true)),
        }
    }

    /// Another handle whose bus-master switch is its own.
    pub fn fork(&self) -> Self {
        Dma::new(self.map.clone())
    }

    /// Bus mastering on or off (PCI command register bit 2).
    pub fn set_enabled(&self, enabled: bool) {
        self.enabled.store(enabled, Ordering::Release);
    }

    /// Orders all accesses of the device before this against all after it, as CPUs see them that have a
    /// fence of their own between theirs: a store on either side is seen by the load on the other.
    pub fn fence(&self) {
        if self.map.has_light_cpus() {
            crate::ram::heavy_fence();
        } else {
            fence(Ordering::SeqCst);
        }
    }

    /// Visits the RAM behind `address..address + len`, piece by piece: block, offset in it, length.
    fn pieces(
        &self,
        address: u64,
        len: u64,
        write: bool,
        mut visit: impl FnMut(&Arc<RamBlock>, u64, u64) -> Option<()>,
    ) -> Result<(), DmaError> {
        if !self.enabled.load(Ordering::Acquire) {
            return Err(DmaError::Disabled);
        }
        let map = self.map.snapshot();
        let (mut at, mut left) = (address, len);
        while left != 0 {
            let span = map.find(at).filter(|_| at & SECURE_SPACE == 0);
            let span = span.ok_or(DmaError::NoRam(at))?;
            let (block, offset) = span.ram_at(at).ok_or(DmaError::NoRam(at))?;
            if write && matches!(span.what, What::Rom { .. }) {
                return Err(DmaError::ReadOnly(at));
            }
            let here = left.min(span.last.wrapping_sub(at).saturating_add(1));
            visit(block, offset, here).ok_or(DmaError::NoRam(at))?;
            left = left.wrapping_sub(here);
            at = at
                .checked_add(here)
                .filter(|_| left != 0)
                .unwrap_or(u64::MAX);
        }
        Ok(())
    }

    /// Copies guest memory out.
    pub fn read(&self, address: u64, out: &mut [u8]) -> Result<(), DmaError> {
        let len = out.len() as u64;
        let mut rest = out;
        self.pieces(address, len, false, |block, offset, here| {
            let (head, tail) =
                std::mem::take(&mut rest).split_at_mut_checked(usize::try_from(here).ok()?)?;
            rest = tail;
            block.read(offset, head)
        })
    }

    /// Copies into guest memory.
    pub fn write(&self, address: u64, data: &[u8]) -> Result<(), DmaError> {
        let mut rest = data;
        self.pieces(address, data.len() as u64, true, |block, offset, here| {
            let (head, tail) = rest.split_at_checked(usize::try_from(here).ok()?)?;
            rest = tail;
            block.write(offset, head)
        })
    }

    /// Fills guest memory with one byte.
    pub fn fill(&self, address: u64, len: u64, byte: u8) -> Result<(), DmaError> {
        self.pieces(address, len, true, |block, offset, here| {
            block.fill(offset, here, byte)
        })
    }

    /// Resolves a range into block pieces, for I/O straight to and from guest memory. After writing
    /// through them call [`RamBlock::mark_written`].
    pub fn slices(
        &self,
        address: u64,
        len: u64,
        write: bool,
    ) -> Result<Vec<(Arc<RamBlock>, u64, u64)>, DmaError> {
        let mut out = Vec::new();
        self.pieces(address, len, write, |block, offset, here| {
            out.push((block.clone(), offset, here));
            Some(())
        })?;
        Ok(out)
    }

    /// Reads a little-endian value of `size` 1, 2, 4 or 8 bytes, atomically where aligned.
    pub fn load_le(&self, address: u64, size: u8) -> Result<u64, DmaError> {
        let mut value = Err(DmaError::NoRam(address));
        let mut parts = 0u8;
        self.pieces(address, u64::from(size), false, |block, offset, here| {
            parts = parts.saturating_add(1);
            if here == u64::from(size) {
                value = Ok(block.load(offset, size)?);
            }
            Some(())
        })?;
        if parts > 1 {
            let mut bytes = [0; 8];
            let len = usize::from(size.min(8));
            self.read(address, bytes.get_mut(..len).unwrap_or_default())?;
            return Ok(u64::from_le_bytes(bytes));
        }
        value
    }

    /// Writes a little-endian value of `size` 1, 2, 4 or 8 bytes, atomically where aligned.
    pub fn store_le(&self, address: u64, size: u8, value: u64) -> Result<(), DmaError> {
        let mut whole = false;
        self.pieces(address, u64::from(size), true, |block, offset, here| {
            if here == u64::from(size) {
                whole = true;
                block.store(offset, size, value)?;
            }
            Some(())
        })?;
        if whole {
            return Ok(());
        }
        self.write(
            address,
            value
                .to_le_bytes()
                .get(..usize::from(size.min(8)))
                .unwrap_or_default(),
        )
    }
}
