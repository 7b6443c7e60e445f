//! From guest offsets to where the bytes are (qcow2 specification, "Cluster mapping"), and reading.

use backend_block::{BlockError, Extent, IoVector};

use crate::compress;
use crate::entry::Entry;
use crate::image::Qcow2;
use crate::meta::Meta;

/// What a run of guest bytes is stored as.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Stored {
    /// As it is, from here on in the data file.
    At(u64),
    /// Zeros.
    Zero,
    /// Not at all: the backing file shows.
    Behind,
    /// Compressed: where, and how many bytes at most.
    Compressed(u64, u64),
}

impl Qcow2 {
    /// How an entry stores the subcluster of a guest offset.
    pub(crate) fn stored(&self, entry: Entry, offset: u64) -> Stored {
        let geometry = self.geometry;
        if let Some((at, len)) = entry.compressed {
            return Stored::Compressed(at, len);
        }
        let bit = 1u32.wrapping_shl(geometry.sub_of(offset));
        match entry.host {
            Some(host) if entry.alloc & bit != 0 => {
                Stored::At(host.saturating_add(geometry.within(offset)))
            }
            _ if entry.zero & bit != 0 => Stored::Zero,
            _ => Stored::Behind,
        }
    }

    /// What is stored from `offset` on, and for how many of `len` bytes that goes on in the same way.
    pub(crate) fn run(&self, offset: u64, len: u64) -> Result<(Stored, u64), BlockError> {
        self.run_in(&mut self.meta(), offset, len)
    }

    pub(crate) fn run_in(
        &self,
        meta: &mut Meta,
        offset: u64,
        len: u64,
    ) -> Result<(Stored, u64), BlockError> {
        let geometry = self.geometry;
        let node = self.file.node();
        let mut kind = None;
        let mut done = 0u64;
        // No further than the L2 table: what lies behind it may have to be read first.
        let table_end = (offset.checked_div(geometry.l2_covers()).unwrap_or(0))
            .saturating_add(1)
            .saturating_mul(geometry.l2_covers());
        let len = len.min(table_end.saturating_sub(offset));
        let mut entry = Entry::default();
        while done < len {
            let at = offset.saturating_add(done);
            if done == 0 || geometry.within(at) == 0 {
                entry = meta.entry(&node, at)?;
            }
            let stored = self.stored(entry, at);
            let goes_on = match (kind, stored) {
                (None, _) => true,
                (Some(Stored::At(first)), Stored::At(here)) => {
                    here == u64::saturating_add(first, done)
                }
                (Some(Stored::Zero), Stored::Zero) | (Some(Stored::Behind), Stored::Behind) => true,
                _ => false,
            };
            if !goes_on {
                break;
            }
            kind.get_or_insert(stored);
            let unit = match stored {
                Stored::Compressed(..) => geometry.cluster(),
                _ => geometry.subcluster(),
            };
            let rest = unit.saturating_sub(at & unit.wrapping_sub(1));
            done = done.saturating_add(rest).min(len);
            if matches!(stored, Stored::Compressed(..)) {
                break;
            }
        }
        Ok((kind.unwrap_or(Stored::Zero), done))
    }

    /// Fills `memory` with what the guest sees from `offset` on. The caller holds `moving`.
    pub(crate) fn read_guest(&self, offset: u64, memory: &IoVector) -> Result<(), BlockError> {
        let mut done = 0u64;
        while done < memory.len() {
            let at = offset.checked_add(done).ok_or(BlockError::OutOfRange)?;
            let (stored, len) = self.run(at, memory.len().saturating_sub(done))?;
            if len == 0 {
                return Err(BlockError::Corrupt);
            }
            let part = memory.slice(done, len);
            match stored {
                Stored::At(host) => self.data_node().read(host, &part)?,
                Stored::Zero => part.fill(0),
                Stored::Behind => self.read_behind(at, &part)?,
                Stored::Compressed(host, most) => {
                    let cluster = self.unpack(host, most)?;
                    let from = usize::try_from(self.geometry.within(at)).unwrap_or(0);
                    let to = from.saturating_add(usize::try_from(len).unwrap_or(0));
                    let bytes = cluster.get(from..to).ok_or(BlockError::Corrupt)?;
                    part.copy_in(0, bytes).ok_or(BlockError::BadBuffer)?;
                }
            }
            done = done.saturating_add(len);
        }
        Ok(())
    }

    /// What the backing file shows; zeros where it is too short, or missing.
    fn read_behind(&self, offset: u64, memory: &IoVector) -> Result<(), BlockError> {
        let Some(backing) = self.behind() else {
            memory.fill(0);
            return Ok(());
        };
        let backing = backing.node();
        let has = backing.len().saturating_sub(offset).min(memory.len());
        backing.read(offset, &memory.slice(0, has))?;
        memory.slice(has, u64::MAX).fill(0);
        Ok(())
    }

    /// The bytes of a compressed cluster.
    fn unpack(&self, host: u64, most: u64) -> Result<Vec<u8>, BlockError> {
        // The last sector may be cut off by the file's end.
        let node = self.file.node();
        let has = node.len().saturating_sub(host).min(most);
        let packed = IoVector::zeroed(usize::try_from(has).map_err(|_| BlockError::Corrupt)?);
        if packed.is_empty() {
            return Err(BlockError::Corrupt);
        }
        node.read(host, &packed)?;
        let compression = self.meta().header.compression;
        let cluster = usize::try_from(self.geometry.cluster()).unwrap_or(0);
        compress::unpack(compression, &packed.to_vec(), cluster)
    }

    /// For `info` and `map`: what lies at `offset`.
    pub(crate) fn extent_of(&self, offset: u64, len: u64) -> Result<Extent, BlockError> {
        let (stored, len) = self.run(offset, len)?;
        Ok(match stored {
            Stored::At(host) => Extent::data(len, Some(host)),
            Stored::Zero => Extent::zero(len),
            Stored::Behind if !self.has_behind() => Extent {
                is_zero: true,
                ..Extent::backing(len)
            },
            Stored::Behind => Extent::backing(len),
            Stored::Compressed(..) => Extent {
                is_compressed: true,
                ..Extent::data(len, None)
            },
        })
    }
}
