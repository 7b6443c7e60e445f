//! Reference counts of host clusters, and finding free ones (qcow2 specification, "Host cluster
//! management").

use std::sync::Arc;

use backend_block::{BlockError, IoVector, Node};

use crate::bytes;
use crate::cache::Cache;
use crate::entry::Geometry;
use crate::header::{Header, REFCOUNT_TABLE_MAX};
use crate::sync::Syncing;

/// The offset of a refcount block in its table.
const BLOCK_OFFSET: u64 = !0x1ff;

/// All refcounts of an image.
pub(crate) struct Refcounts {
    geometry: Geometry,
    order: u32,
    /// Offsets of the blocks.
    table: Vec<u64>,
    table_offset: u64,
    /// Entries that differ from the file: first and one past the last.
    table_dirty: Option<(usize, usize)>,
    blocks: Cache,
    /// No cluster below this one is free.
    free_from: u64,
    syncing: Arc<Syncing>,
}

impl Refcounts {
    /// Memory for blocks from now on.
    pub(crate) fn set_limit(&mut self, bytes: u64) {
        self.blocks.set_limit(bytes);
    }

    pub(crate) fn new(header: &Header, table: Vec<u64>, cache_bytes: u64) -> Self {
        let geometry = Geometry::of(header);
        let cluster = usize::try_from(geometry.cluster()).unwrap_or(0);
        Refcounts {
            geometry,
            order: header.refcount_order,
            table,
            table_offset: header.refcount_table_offset,
            table_dirty: None,
            blocks: Cache::new(cluster, cache_bytes),
            free_from: 0,
            syncing: Arc::default(),
        }
    }

    /// The flushes of the image that these counts are of.
    pub(crate) fn syncing(&self) -> Arc<Syncing> {
        self.syncing.clone()
    }

    /// Greatest count.
    pub(crate) fn max(&self) -> u64 {
        let bits = 1u32.wrapping_shl(self.order);
        u64::MAX.wrapping_shr(64u32.saturating_sub(bits))
    }

    /// Counts of a block.
    pub(crate) fn block_entries(&self) -> u64 {
        (self.geometry.cluster() << 3).wrapping_shr(self.order)
    }

    pub(crate) fn table_offset(&self) -> u64 {
        self.table_offset
    }

    /// Clusters of the table.
    pub(crate) fn table_clusters(&self) -> u64 {
        self.geometry
            .clusters((self.table.len() as u64).saturating_mul(8))
    }

    /// Block and place in it of a cluster.
    fn place(&self, index: u64) -> (usize, u64) {
        let entries = self.block_entries();
        let block = index.checked_div(entries).unwrap_or(0);
        let within = index.checked_rem(entries).unwrap_or(0);
        (usize::try_from(block).unwrap_or(usize::MAX), within)
    }

    fn block(&self, number: usize) -> Result<Option<u64>, BlockError> {
        let entry = self.table.get(number).copied().unwrap_or(0);
        let offset = entry & BLOCK_OFFSET;
        if entry != offset || self.geometry.within(offset) != 0 {
            return Err(BlockError::Corrupt);
        }
        Ok((offset != 0).then_some(offset))
    }

    /// The count of a cluster.
    pub(crate) fn get(&mut self, node: &Node, index: u64) -> Result<u64, BlockError> {
        let (number, within) = self.place(index);
        let Some(block) = self.block(number)? else {
            return Ok(0);
        };
        let order = self.order;
        read_count(self.blocks.bytes(node, block)?, order, within).ok_or(BlockError::Corrupt)
    }

    fn set_in_block(
        &mut self,
        node: &Node,
        block: u64,
        within: u64,
        count: u64,
    ) -> Result<(), BlockError> {
        let order = self.order;
        let bytes = self.blocks.bytes(node, block)?;
        let (at, value) = write_count(bytes, order, within, count).ok_or(BlockError::Corrupt)?;
        self.blocks.put(node, block, at, &value)
    }

    /// Sets the count of a cluster, with a block for it if there is none.
    pub(crate) fn set(&mut self, node: &Node, index: u64, count: u64) -> Result<(), BlockError> {
        if count > self.max() {
            return Err(BlockError::Unsupported);
        }
        let (number, within) = self.place(index);
        let block = match self.block(number)? {
            Some(block) => block,
            None if count == 0 => return Ok(()),
            None => self.make_block(node, number)?,
        };
        self.set_in_block(node, block, within, count)?;
        if count == 0 {
            self.free_from = self.free_from.min(index);
        }
        Ok(())
    }

    /// One more, or one less. Returns the new count.
    pub(crate) fn add(&mut self, node: &Node, index: u64, more: bool) -> Result<u64, BlockError> {
        let old = self.get(node, index)?;
        let new = match more {
            true => old.checked_add(1),
            false => old.checked_sub(1),
        };
        let new = new.ok_or(BlockError::Corrupt)?;
        self.set(node, index, new)?;
        Ok(new)
    }

    /// A new block for these counts, in a free cluster. Blocks in whose own range there is no block
    /// count themselves.
    fn make_block(&mut self, node: &Node, number: usize) -> Result<u64, BlockError> {
        loop {
            if number >= self.table.len() {
                self.grow_table(node, number)?;
                if let Some(block) = self.block(number)? {
                    return Ok(block);
                }
            }
            let index = self.find_free(node, 1)?;
            let (own, within) = self.place(index);
            let offset = self.geometry.offset(index);
            match self.block(own)? {
                Some(block) => {
                    self.set_in_block(node, block, within, 1)?;
                    self.put_block(node, number, offset, None)?;
                    return Ok(offset);
                }
                None if own >= self.table.len() => self.grow_table(node, own)?,
                None => {
                    self.put_block(node, own, offset, Some(within))?;
                    if own == number {
                        return Ok(offset);
                    }
                }
            }
        }
    }

    /// Enters an empty block into the table, that counts itself if told where.
    fn put_block(
        &mut self,
        node: &Node,
        number: usize,
        offset: u64,
        own: Option<u64>,
    ) -> Result<(), BlockError> {
        let cluster = usize::try_from(self.geometry.cluster()).unwrap_or(0);
        let slot = self.table.get_mut(number).ok_or(BlockError::NoSpace)?;
        *slot = offset;
        self.blocks.create(offset, vec![0; cluster]);
        if let Some(within) = own {
            self.set_in_block(node, offset, within, 1)?;
        }
        let end = number.saturating_add(1);
        let (from, to) = self.table_dirty.unwrap_or((number, end));
        self.table_dirty = Some((from.min(number), to.max(end)));
        Ok(())
    }

    /// A longer table, in clusters that no block counts yet, with blocks that count it: written and
    /// put in force at once, so that the old one is not needed any more.
    fn grow_table(&mut self, node: &Node, number: usize) -> Result<(), BlockError> {
        let entries = self.block_entries();
        let cluster = self.geometry.cluster();
        // Behind all that any block counts, and behind the file's end.
        let counted = (self.table.len() as u64).saturating_mul(entries);
        let start = counted.max(self.geometry.clusters(node.len()));
        let needed = (number as u64).saturating_add(1);
        let (mut blocks, mut table_clusters) = (1u64, 1u64);
        let len = loop {
            let end = start.saturating_add(blocks).saturating_add(table_clusters);
            let len = end.div_ceil(entries).max(needed);
            // Half as much again, so that it does not happen often.
            let len = len.saturating_add(len >> 1).saturating_mul(8);
            let wanted_table = len.div_ceil(cluster);
            let first = start.checked_div(entries).unwrap_or(0);
            let end = start.saturating_add(blocks).saturating_add(wanted_table);
            let wanted_blocks = end.div_ceil(entries).saturating_sub(first);
            if (wanted_blocks, wanted_table) == (blocks, table_clusters) {
                break wanted_table.saturating_mul(cluster) >> 3;
            }
            (blocks, table_clusters) = (wanted_blocks, wanted_table);
        };
        if len.saturating_mul(8) > REFCOUNT_TABLE_MAX {
            return Err(BlockError::NoSpace);
        }
        // What is counted so far must be in the file before the new table points there.
        self.write_back(node)?;
        let mut table = self.table.clone();
        table.resize(usize::try_from(len).unwrap_or(0), 0);
        let first = start.checked_div(entries).unwrap_or(0);
        let end = start.saturating_add(blocks).saturating_add(table_clusters);
        let cluster_len = usize::try_from(cluster).unwrap_or(0);
        for block in 0..blocks {
            let number = first.saturating_add(block);
            let offset = self.geometry.offset(start.saturating_add(block));
            let slot = usize::try_from(number).unwrap_or(usize::MAX);
            let slot = table.get_mut(slot).ok_or(BlockError::NoSpace)?;
            if *slot != 0 {
                return Err(BlockError::Corrupt);
            }
            *slot = offset;
            let mut bytes = vec![0; cluster_len];
            let from = number.saturating_mul(entries);
            for index in start.max(from)..end.min(from.saturating_add(entries)) {
                let within = index.saturating_sub(from);
                let place = write_count(&bytes, self.order, within, 1);
                let (at, value) = place.ok_or(BlockError::Corrupt)?;
                bytes::put(&mut bytes, at, &value).ok_or(BlockError::Corrupt)?;
            }
            node.write(offset, &IoVector::from(bytes.as_slice()))?;
        }
        let table_offset = self.geometry.offset(start.saturating_add(blocks));
        node.write(
            table_offset,
            &IoVector::from(bytes::table(&table).as_slice()),
        )?;
        self.syncing.alone(node, None)?;
        // Bytes 48 to 59 of the header: offset and clusters of the table, in one sector.
        let clusters = u32::try_from(table_clusters).map_err(|_| BlockError::NoSpace)?;
        let mut field = table_offset.to_be_bytes().to_vec();
        field.extend(clusters.to_be_bytes());
        self.syncing.put(node, 48, &field)?;
        let (old_offset, old_clusters) = (self.table_offset, self.table_clusters());
        self.table = table;
        self.table_offset = table_offset;
        self.table_dirty = None;
        for index in 0..old_clusters {
            let index = self.geometry.index(old_offset).saturating_add(index);
            self.add(node, index, false)?;
        }
        Ok(())
    }

    /// The first of `count` free clusters in a row. Never the header's, whatever its count.
    fn find_free(&mut self, node: &Node, count: u64) -> Result<u64, BlockError> {
        let mut first = self.free_from.max(1);
        let mut have = 0u64;
        while have < count {
            let index = first.checked_add(have).ok_or(BlockError::NoSpace)?;
            let (number, _) = self.place(index);
            if self.block(number)?.is_none() {
                // Everything up to the next block is free.
                have = have.saturating_add(1);
                continue;
            }
            match self.get(node, index)? {
                0 => have = have.saturating_add(1),
                _ => {
                    first = index.saturating_add(1);
                    have = 0;
                }
            }
        }
        if self.geometry.offset(first.saturating_add(count)) >> 56 != 0 {
            return Err(BlockError::NoSpace);
        }
        if count == 1 {
            self.free_from = first;
        }
        Ok(first)
    }

    /// `count` clusters in a row, counted once each. Returns the number of the first.
    pub(crate) fn allocate(&mut self, node: &Node, count: u64) -> Result<u64, BlockError> {
        loop {
            let first = self.find_free(node, count)?;
            // Making blocks for them may take some of them.
            let mut taken = 0u64;
            for index in first..first.saturating_add(count) {
                let (number, within) = self.place(index);
                let block = match self.block(number)? {
                    Some(block) => block,
                    None => self.make_block(node, number)?,
                };
                if self.get(node, index)? != 0 {
                    break;
                }
                self.set_in_block(node, block, within, 1)?;
                taken = taken.saturating_add(1);
            }
            if taken == count {
                if first == self.free_from {
                    self.free_from = first.saturating_add(count);
                }
                return Ok(first);
            }
            for index in first..first.saturating_add(taken) {
                self.set(node, index, 0)?;
            }
        }
    }

    /// As many clusters in a row as can be had without a search, one at least, `most` at most.
    pub(crate) fn allocate_run(
        &mut self,
        node: &Node,
        most: u64,
    ) -> Result<(u64, u64), BlockError> {
        let first = self.allocate(node, 1)?;
        let mut count = 1u64;
        while count < most {
            let index = first.saturating_add(count);
            let (number, within) = self.place(index);
            let Some(block) = self.block(number)? else {
                break;
            };
            if self.get(node, index)? != 0 {
                break;
            }
            self.set_in_block(node, block, within, 1)?;
            count = count.saturating_add(1);
        }
        if self.free_from == first.saturating_add(1) {
            self.free_from = first.saturating_add(count);
        }
        Ok((first, count))
    }

    pub(crate) fn is_dirty(&self) -> bool {
        self.table_dirty.is_some() || self.blocks.is_dirty()
    }

    pub(crate) fn is_full(&self) -> bool {
        self.blocks.is_full()
    }

    /// Writes everything: blocks, and when they are stable the table.
    pub(crate) fn write_back(&mut self, node: &Node) -> Result<(), BlockError> {
        self.blocks.write_back(node)?;
        let Some((from, to)) = self.table_dirty else {
            return Ok(());
        };
        self.syncing.alone(node, None)?;
        let entries = self.table.get(from..to).unwrap_or_default();
        let offset = self
            .table_offset
            .saturating_add((from as u64).saturating_mul(8));
        node.write(offset, &IoVector::from(bytes::table(entries).as_slice()))?;
        self.table_dirty = None;
        Ok(())
    }

    /// Where the blocks are.
    pub(crate) fn block_offsets(&self) -> impl Iterator<Item = u64> + '_ {
        self.table.iter().map(|entry| entry & BLOCK_OFFSET)
    }
}

/// Count number `within` of a block. Counts of less than a byte begin with the lowest bits.
fn read_count(block: &[u8], order: u32, within: u64) -> Option<u64> {
    let within = usize::try_from(within).ok()?;
    Some(match order {
        0..=2 => {
            let per_byte = 8usize.wrapping_shr(order);
            let byte = bytes::u8_at(block, within.checked_div(per_byte)?)?;
            let width = 1u32.wrapping_shl(order);
            let shift = (within.checked_rem(per_byte)? as u32).saturating_mul(width);
            let mask = 1u8.wrapping_shl(width).wrapping_sub(1);
            u64::from(byte.wrapping_shr(shift) & mask)
        }
        3 => u64::from(bytes::u8_at(block, within)?),
        4 => u64::from(bytes::u16_at(block, within.checked_mul(2)?)?),
        5 => u64::from(bytes::u32_at(block, within.checked_mul(4)?)?),
        _ => bytes::u64_at(block, within.checked_mul(8)?)?,
    })
}

/// Where and what to write for a count to be `count`.
fn write_count(block: &[u8], order: u32, within: u64, count: u64) -> Option<(usize, Vec<u8>)> {
    let within = usize::try_from(within).ok()?;
    Some(match order {
        0..=2 => {
            let per_byte = 8usize.wrapping_shr(order);
            let at = within.checked_div(per_byte)?;
            let byte = bytes::u8_at(block, at)?;
            let width = 1u32.wrapping_shl(order);
            let shift = (within.checked_rem(per_byte)? as u32).saturating_mul(width);
            let mask = 1u8.wrapping_shl(width).wrapping_sub(1).wrapping_shl(shift);
            let value = (count as u8).wrapping_shl(shift) & mask;
            (at, vec![byte & !mask | value])
        }
        3 => (within, vec![count as u8]),
        4 => (
            within.checked_mul(2)?,
            (count as u16).to_be_bytes().to_vec(),
        ),
        5 => (
            within.checked_mul(4)?,
            (count as u32).to_be_bytes().to_vec(),
        ),
        _ => (within.checked_mul(8)?, count.to_be_bytes().to_vec()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_of_any_width_are_kept_apart() {
        for order in 0..=6 {
            let mut block = vec![0u8; 512];
            let max = u64::MAX >> (64 - (1u32 << order));
            for within in 0..20 {
                let value = (within * 77) & max;
                let (at, bytes) = write_count(&block, order, within, value).unwrap();
                bytes::put(&mut block, at, &bytes).unwrap();
            }
            for within in 0..20 {
                assert_eq!(read_count(&block, order, within), Some((within * 77) & max));
            }
        }
    }
}
