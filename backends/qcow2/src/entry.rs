//! Entries of L1 and L2 tables (qcow2 specification, "Cluster mapping", "Extended L2 Entries").
//!
//! A cluster without subclusters is treated as one of a single subcluster, so that both kinds of
//! entries have the same form here.

use backend_block::BlockError;

use crate::header::Header;

/// The refcount is exactly one: may be written in place.
pub(crate) const COPIED: u64 = 1 << 63;
const COMPRESSED: u64 = 1 << 62;
/// The offset of a cluster, in L1 and L2 entries.
pub(crate) const OFFSET: u64 = 0x00ff_ffff_ffff_fe00;
const RESERVED_L1: u64 = 0x7f00_0000_0000_01ff;
const RESERVED_L2: u64 = 0x3f00_0000_0000_01fe;
const ZERO: u64 = 1;
/// Subclusters of a cluster with an extended entry.
const SUBCLUSTERS: u32 = 32;

/// Sizes that follow from the header and never change.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Geometry {
    pub(crate) version: u32,
    pub(crate) cluster_bits: u32,
    pub(crate) extended: bool,
    pub(crate) has_data_file: bool,
    pub(crate) data_file_raw: bool,
}

impl Geometry {
    pub(crate) fn of(header: &Header) -> Self {
        Geometry {
            version: header.version,
            cluster_bits: header.cluster_bits,
            extended: header.is_extended(),
            has_data_file: header.has_data_file(),
            data_file_raw: header.has_data_file() && header.is_data_file_raw(),
        }
    }

    pub(crate) fn cluster(self) -> u64 {
        1u64.wrapping_shl(self.cluster_bits)
    }

    /// Offset within a cluster.
    pub(crate) fn within(self, offset: u64) -> u64 {
        offset & self.cluster().wrapping_sub(1)
    }

    /// Start of the cluster of an offset.
    pub(crate) fn start(self, offset: u64) -> u64 {
        offset & !self.cluster().wrapping_sub(1)
    }

    /// Number of the cluster of an offset.
    pub(crate) fn index(self, offset: u64) -> u64 {
        offset.wrapping_shr(self.cluster_bits)
    }

    /// Offset of a cluster.
    pub(crate) fn offset(self, index: u64) -> u64 {
        index.saturating_mul(self.cluster())
    }

    /// Clusters that hold `len` bytes.
    pub(crate) fn clusters(self, len: u64) -> u64 {
        len.div_ceil(self.cluster())
    }

    /// 64-bit words of an entry.
    pub(crate) fn entry_words(self) -> u64 {
        if self.extended { 2 } else { 1 }
    }

    /// Entries of an L2 table.
    pub(crate) fn l2_entries(self) -> u64 {
        let shift = if self.extended { 4 } else { 3 };
        self.cluster().wrapping_shr(shift)
    }

    /// Bytes of the disk that an L2 table covers.
    pub(crate) fn l2_covers(self) -> u64 {
        self.l2_entries().saturating_mul(self.cluster())
    }

    pub(crate) fn subclusters(self) -> u32 {
        if self.extended { SUBCLUSTERS } else { 1 }
    }

    pub(crate) fn subcluster(self) -> u64 {
        self.cluster()
            .checked_div(u64::from(self.subclusters()))
            .unwrap_or(1)
    }

    /// The subcluster of an offset.
    pub(crate) fn sub_of(self, offset: u64) -> u32 {
        let number = self.within(offset).checked_div(self.subcluster());
        number.map_or(0, |number| number as u32)
    }

    /// Bits of the subclusters that `len` bytes from `within` on in a cluster touch.
    pub(crate) fn touched(self, within: u64, len: u64) -> u32 {
        let first = self.sub_of(within);
        let last = within.saturating_add(len.saturating_sub(1));
        let last = self.sub_of(last.min(self.cluster().wrapping_sub(1)));
        bits(first, last.saturating_add(1))
    }

    /// Bits of all subclusters.
    pub(crate) fn all(self) -> u32 {
        bits(0, self.subclusters())
    }
}

/// Bits `from..to`.
pub(crate) fn bits(from: u32, to: u32) -> u32 {
    let below = |n: u32| 1u64.wrapping_shl(n.min(32)).wrapping_sub(1);
    (below(to) & !below(from)) as u32
}

/// What an entry says of a cluster.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Entry {
    /// Where the cluster is stored, if space is set aside for it.
    pub(crate) host: Option<u64>,
    /// Nobody else uses that space.
    pub(crate) copied: bool,
    /// Subclusters that are stored.
    pub(crate) alloc: u32,
    /// Subclusters that read as zeros.
    pub(crate) zero: u32,
    /// Where it is stored compressed, and how many bytes at most.
    pub(crate) compressed: Option<(u64, u64)>,
}

impl Entry {
    /// Reads an entry, checking all that can be.
    pub(crate) fn decode(geometry: Geometry, word: u64, bitmap: u64) -> Result<Self, BlockError> {
        if word & COMPRESSED != 0 {
            // Specification: x = 62 - (cluster_bits - 8)
            let x = 70u32.saturating_sub(geometry.cluster_bits);
            let offset = word & 1u64.wrapping_shl(x).wrapping_sub(1);
            let sectors = (word & !(COMPRESSED | COPIED)).wrapping_shr(x);
            if offset >> 56 != 0 || geometry.has_data_file || word & COPIED != 0 {
                return Err(BlockError::Corrupt);
            }
            let len = sectors.saturating_add(1).saturating_mul(512);
            let len = len.saturating_sub(offset & 511);
            return Ok(Entry {
                compressed: Some((offset, len)),
                ..Entry::default()
            });
        }
        let offset = word & OFFSET;
        let copied = word & COPIED != 0;
        let has_host = offset != 0 || (geometry.has_data_file && copied);
        let entry = if geometry.extended {
            Entry {
                host: has_host.then_some(offset),
                copied,
                alloc: bitmap as u32,
                zero: (bitmap >> 32) as u32,
                compressed: None,
            }
        } else {
            let zero = u32::from(word & ZERO != 0 && geometry.version >= 3);
            Entry {
                host: has_host.then_some(offset),
                copied,
                alloc: u32::from(has_host && zero == 0),
                zero,
                compressed: None,
            }
        };
        let odd = word & RESERVED_L2 != 0
            || geometry.within(offset) != 0
            || (word & ZERO != 0 && (geometry.extended || geometry.version < 3))
            || (entry.alloc != 0 && !has_host)
            || entry.alloc & entry.zero != 0;
        if odd {
            return Err(BlockError::Corrupt);
        }
        Ok(entry)
    }

    /// The words of the entry.
    pub(crate) fn encode(self, geometry: Geometry) -> (u64, u64) {
        if let Some((offset, len)) = self.compressed {
            let x = 70u32.saturating_sub(geometry.cluster_bits);
            let first = offset >> 9;
            let last = offset.saturating_add(len.saturating_sub(1)) >> 9;
            let sectors = last.saturating_sub(first).wrapping_shl(x);
            return (COMPRESSED | sectors | offset, 0);
        }
        let copied = if self.copied { COPIED } else { 0 };
        let word = self.host.map_or(0, |host| host | copied);
        match geometry.extended {
            true => (word, u64::from(self.alloc) | u64::from(self.zero) << 32),
            false => (word | u64::from(self.zero != 0), 0),
        }
    }

    /// Whether the entry says nothing of the cluster: what lies behind shows.
    pub(crate) fn is_unallocated(self) -> bool {
        self.alloc == 0 && self.zero == 0 && self.compressed.is_none()
    }
}

/// The L2 table of an L1 entry, if there is one.
pub(crate) fn l2_offset(geometry: Geometry, entry: u64) -> Result<Option<u64>, BlockError> {
    let offset = entry & OFFSET;
    if entry & RESERVED_L1 != 0 || geometry.within(offset) != 0 {
        return Err(BlockError::Corrupt);
    }
    Ok((offset != 0).then_some(offset))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn geometry(cluster_bits: u32, extended: bool) -> Geometry {
        Geometry {
            version: 3,
            cluster_bits,
            extended,
            has_data_file: false,
            data_file_raw: false,
        }
    }

    #[test]
    fn entries_survive_being_written() {
        for (extended, alloc, zero) in [(false, 1, 0), (false, 0, 1), (true, 0xff, 0xff00)] {
            let geometry = geometry(16, extended);
            let entry = Entry {
                host: Some(0x50000),
                copied: true,
                alloc,
                zero,
                compressed: None,
            };
            let (word, bitmap) = entry.encode(geometry);
            assert_eq!(Entry::decode(geometry, word, bitmap), Ok(entry));
        }
        for bits in 9..=21 {
            let geometry = geometry(bits, false);
            let entry = Entry {
                compressed: Some((0x12345, 512 - 0x145 + 512)),
                ..Entry::default()
            };
            let (word, _) = entry.encode(geometry);
            assert_eq!(Entry::decode(geometry, word, 0), Ok(entry), "{bits}");
        }
    }

    #[test]
    fn entries_that_cannot_be_are_corrupt() {
        let plain = geometry(16, false);
        for word in [0x50001 | 2, 0x50200, 0x0100_0000_0005_0000] {
            assert_eq!(Entry::decode(plain, word, 0), Err(BlockError::Corrupt));
        }
        let extended = geometry(16, true);
        assert!(Entry::decode(extended, 0x50000, 1 << 32 | 1).is_err());
        assert!(Entry::decode(extended, 0, 1).is_err());
        assert!(l2_offset(plain, 0x50001).is_err());
    }

    #[test]
    fn subclusters_of_a_range() {
        let extended = geometry(16, true);
        assert_eq!(extended.touched(0, 1), 1);
        assert_eq!(extended.touched(2047, 2), 3);
        assert_eq!(extended.touched(0, 65536), u32::MAX);
        assert_eq!(geometry(16, false).touched(4096, 512), 1);
    }
}
