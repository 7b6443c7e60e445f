//! The image's tables as they are now, and when they are written.
//!
//! The order of writes is what keeps an image whole over a power cut. A table that refers to a cluster
//! is written when the cluster's contents and its refcount are stable; a cluster is counted as free
//! when nothing stable refers to it any more. A cut between two steps leaves clusters that are counted
//! but not used, and nothing worse:
//!
//! 1. refcount blocks, then (stable) the refcount table
//! 2. stable: guest data, refcounts
//! 3. L2 tables, then (stable) the L1 table
//! 4. stable: then what these tables no longer refer to is counted as free

use std::collections::BTreeMap;
use std::sync::Arc;

use backend_block::{BlockError, IoVector, Node};

use crate::bytes;
use crate::cache::Cache;
use crate::entry::{COPIED, Entry, Geometry, l2_offset};
use crate::header::{Header, incompatible};
use crate::refcount::Refcounts;
use crate::settings::Settings;
use crate::snapshot::Snapshot;
use crate::sync::{DataNode, Syncing};

/// Clusters that wait to be counted as free before they are, without the guest asking.
const FREE_MAX: usize = 1024;

/// Everything of an image that changes.
pub(crate) struct Meta {
    pub(crate) header: Header,
    pub(crate) geometry: Geometry,
    pub(crate) l1: Vec<u64>,
    /// Entries that differ from the file: first and one past the last.
    l1_dirty: Option<(usize, usize)>,
    pub(crate) l2: Cache,
    pub(crate) refcounts: Refcounts,
    pub(crate) snapshots: Vec<Snapshot>,
    /// Guest clusters that a request is making a place for: first, and how many.
    pub(crate) busy: BTreeMap<u64, u64>,
    /// Clusters to be counted one less, when nothing stable refers to them.
    freed: Vec<(u64, u64)>,
    /// Where the next compressed cluster goes, if it fits there.
    packed_next: Option<u64>,
    pub(crate) syncing: Arc<Syncing>,
    /// Refcounts are written late, under the dirty bit.
    is_lazy: bool,
    /// Discarded clusters stay allocated.
    pub(crate) keeps_place: bool,
}

impl Meta {
    pub(crate) fn new(
        header: Header,
        l1: Vec<u64>,
        refcounts: Refcounts,
        snapshots: Vec<Snapshot>,
        settings: Settings,
    ) -> Self {
        let geometry = Geometry::of(&header);
        let cluster = usize::try_from(geometry.cluster()).unwrap_or(0);
        Meta {
            header,
            geometry,
            l1,
            l1_dirty: None,
            l2: Cache::new(cluster, settings.l2_cache),
            is_lazy: settings.is_lazy,
            keeps_place: settings.keeps_place,
            syncing: refcounts.syncing(),
            refcounts,
            snapshots,
            busy: BTreeMap::new(),
            freed: Vec::new(),
            packed_next: None,
        }
    }

    /// Other settings from now on.
    pub(crate) fn set(&mut self, settings: Settings) {
        self.is_lazy = settings.is_lazy;
        self.keeps_place = settings.keeps_place;
        self.l2.set_limit(settings.l2_cache);
        self.refcounts.set_limit(settings.refcount_cache);
    }

    /// Whether writes that need an entry must fail.
    pub(crate) fn check_usable(&self) -> Result<(), BlockError> {
        self.syncing.check()
    }

    /// L1 index, and entry in the L2 table, of a guest offset.
    pub(crate) fn place(&self, offset: u64) -> (usize, u64) {
        let cluster = self.geometry.index(offset);
        let entries = self.geometry.l2_entries();
        let l1 = cluster.checked_div(entries).unwrap_or(0);
        let l2 = cluster.checked_rem(entries).unwrap_or(0);
        (usize::try_from(l1).unwrap_or(usize::MAX), l2)
    }

    fn l2_table(&self, index: usize) -> Result<Option<u64>, BlockError> {
        let entry = self.l1.get(index).copied().unwrap_or(0);
        l2_offset(self.geometry, entry)
    }

    /// Whether [`entry`](Self::entry) needs nothing from the file.
    pub(crate) fn is_at_hand(&self, offset: u64) -> bool {
        match self.l2_table(self.place(offset).0) {
            Ok(Some(table)) => self.l2.holds(table),
            Ok(None) => true,
            Err(_) => false,
        }
    }

    /// What the image says of the cluster of a guest offset.
    pub(crate) fn entry(&mut self, node: &Node, offset: u64) -> Result<Entry, BlockError> {
        let (l1, l2) = self.place(offset);
        match self.l2_table(l1)? {
            Some(table) => self.entry_of(node, table, l2),
            None => Ok(Entry::default()),
        }
    }

    /// Entry `index` of an L2 table.
    pub(crate) fn entry_of(
        &mut self,
        node: &Node,
        table: u64,
        index: u64,
    ) -> Result<Entry, BlockError> {
        let geometry = self.geometry;
        let words = geometry.entry_words();
        let at = index.saturating_mul(words);
        let word = self.l2.word(node, table, at)?;
        let bitmap = match words {
            2 => self.l2.word(node, table, at.saturating_add(1))?,
            _ => 0,
        };
        Entry::decode(geometry, word, bitmap)
    }

    /// Changes entry `index` of an L2 table that is the image's alone.
    pub(crate) fn set_entry_of(
        &mut self,
        node: &Node,
        table: u64,
        index: u64,
        entry: Entry,
    ) -> Result<(), BlockError> {
        let (word, bitmap) = entry.encode(self.geometry);
        let mut value = word.to_be_bytes().to_vec();
        if self.geometry.extended {
            value.extend(bitmap.to_be_bytes());
        }
        let at = index.saturating_mul(value.len() as u64);
        let at = usize::try_from(at).map_err(|_| BlockError::Corrupt)?;
        self.l2.put(node, table, at, &value)
    }

    /// Changes what the image says of the cluster of a guest offset, whose L2 table
    /// [`own_l2`](Self::own_l2) has made the image's alone.
    pub(crate) fn set_entry(
        &mut self,
        node: &Node,
        offset: u64,
        entry: Entry,
    ) -> Result<(), BlockError> {
        let (l1, l2) = self.place(offset);
        let table = self.l2_table(l1)?.ok_or(BlockError::Corrupt)?;
        self.set_entry_of(node, table, l2, entry)
    }

    /// Sees to it that the L2 table of a guest offset may be changed: there is one, and no snapshot
    /// uses it.
    pub(crate) fn own_l2(&mut self, node: &Node, offset: u64) -> Result<(), BlockError> {
        self.check_usable()?;
        let (index, _) = self.place(offset);
        let entry = *self.l1.get(index).ok_or(BlockError::OutOfRange)?;
        let old = l2_offset(self.geometry, entry)?;
        if entry & COPIED != 0 && old.is_some() {
            return Ok(());
        }
        let bytes = match old {
            Some(old) => self.l2.bytes(node, old)?.to_vec(),
            None => vec![0; usize::try_from(self.geometry.cluster()).unwrap_or(0)],
        };
        let new = self.refcounts.allocate(node, 1)?;
        let new = self.geometry.offset(new);
        self.l2.create(new, bytes);
        self.set_l1(index, new | COPIED);
        if let Some(old) = old {
            self.free(old, self.geometry.cluster());
        }
        Ok(())
    }

    /// Changes an L1 entry.
    pub(crate) fn set_l1(&mut self, index: usize, entry: u64) {
        if let Some(slot) = self.l1.get_mut(index) {
            *slot = entry;
            let end = index.saturating_add(1);
            let (from, to) = self.l1_dirty.unwrap_or((index, end));
            self.l1_dirty = Some((from.min(index), to.max(end)));
        }
    }

    /// The L1 table is in the file as it is here.
    pub(crate) fn l1_is_written(&mut self) {
        self.l1_dirty = None;
    }

    /// The tables refer to these bytes of the file once less. They are counted so when that is
    /// stable.
    pub(crate) fn free(&mut self, offset: u64, len: u64) {
        self.freed.push((offset, len));
    }

    /// What an entry stores is not needed any more.
    pub(crate) fn free_entry(&mut self, entry: Entry) {
        if self.geometry.has_data_file {
            return;
        }
        if let Some((offset, len)) = entry.compressed {
            self.free(offset, len);
        } else if let Some(host) = entry.host {
            self.free(host, self.geometry.cluster());
        }
    }

    /// Clusters of these bytes of the file.
    pub(crate) fn cluster_range(&self, offset: u64, len: u64) -> std::ops::Range<u64> {
        let first = self.geometry.index(offset);
        let last = offset.saturating_add(len.saturating_sub(1));
        first..self.geometry.index(last).saturating_add(1)
    }

    /// Makes a place for a compressed cluster of `len` bytes: behind the last one, or in a new
    /// cluster.
    pub(crate) fn place_packed(&mut self, node: &Node, len: u64) -> Result<u64, BlockError> {
        let geometry = self.geometry;
        if let Some(at) = self.packed_next.filter(|at| geometry.within(*at) != 0) {
            let index = geometry.index(at);
            let end = at.saturating_add(len);
            let room = geometry.cluster().saturating_sub(geometry.within(at));
            let next = index.saturating_add(1);
            let goes_on = len > room;
            let fits = self.refcounts.get(node, index)? < self.refcounts.max()
                && (!goes_on || self.refcounts.get(node, next)? == 0);
            if fits {
                if goes_on {
                    self.refcounts.set(node, next, 1)?;
                }
                self.refcounts.add(node, index, true)?;
                self.packed_next = Some(end);
                return Ok(at);
            }
        }
        let index = self.refcounts.allocate(node, 1)?;
        let at = geometry.offset(index);
        // Specification: offsets of compressed clusters have 70 - cluster_bits bits, 56 at most.
        if at
            .checked_shr(70u32.saturating_sub(geometry.cluster_bits))
            .unwrap_or(0)
            != 0
        {
            self.give_back(node, index, 1);
            return Err(BlockError::NoSpace);
        }
        self.packed_next = Some(at.saturating_add(len));
        Ok(at)
    }

    /// Clusters that were just taken and are referred to by nothing.
    pub(crate) fn give_back(&mut self, node: &Node, first: u64, count: u64) {
        for index in first..first.saturating_add(count) {
            // What cannot be counted leaks.
            let _ = self.refcounts.add(node, index, false);
        }
    }

    /// Whether so much waits that it should be written or counted now.
    pub(crate) fn is_full(&self) -> bool {
        self.l2.is_full() || self.refcounts.is_full() || self.freed.len() >= FREE_MAX
    }

    /// Whether something waits to be counted as free.
    pub(crate) fn has_freed(&self) -> bool {
        !self.freed.is_empty()
    }

    fn stable(&mut self, node: &Node, data: DataNode<'_>) -> Result<(), BlockError> {
        self.syncing.alone(node, data)
    }

    /// Whether tables differ from those in the file.
    pub(crate) fn has_unwritten(&self) -> bool {
        self.l2.is_dirty() || self.l1_dirty.is_some() || self.refcounts.is_dirty()
    }

    /// Writes the tables in order. What was written may still have to be flushed.
    pub(crate) fn write_out(&mut self, node: &Node, data: DataNode<'_>) -> Result<(), BlockError> {
        self.check_usable()?;
        let has_tables = self.l2.is_dirty() || self.l1_dirty.is_some();
        let is_late = self.is_lazy && !self.refcounts.is_full();
        if self.is_lazy && self.refcounts.is_dirty() {
            self.set_dirty(node)?;
        }
        if self.refcounts.is_dirty() && !is_late {
            self.refcounts.write_back(node)?;
        }
        if !has_tables {
            return Ok(());
        }
        self.stable(node, data)?;
        self.l2.write_back(node)?;
        if let Some((from, to)) = self.l1_dirty {
            self.stable(node, data)?;
            let entries = self.l1.get(from..to).unwrap_or_default();
            let at = (from as u64).saturating_mul(8);
            let offset = self.header.l1_offset.saturating_add(at);
            node.write(offset, &IoVector::from(bytes::table(entries).as_slice()))?;
            self.l1_dirty = None;
        }
        Ok(())
    }

    /// Everything reaches stable storage.
    pub(crate) fn flush(&mut self, node: &Node, data: DataNode<'_>) -> Result<(), BlockError> {
        self.write_out(node, data)?;
        self.stable(node, data)
    }

    /// Counts what is not referred to any more. No request may be under way: what it reads must not
    /// be given to another.
    pub(crate) fn reclaim(&mut self, node: &Node, data: DataNode<'_>) -> Result<(), BlockError> {
        if self.freed.is_empty() {
            return Ok(());
        }
        self.flush(node, data)?;
        let mut result = Ok(());
        for (offset, len) in std::mem::take(&mut self.freed) {
            for index in self.cluster_range(offset, len) {
                // Otherwise the cluster leaks, and the caller hears of it.
                result = result.and(self.count_less(node, index).map(|_| ()));
            }
        }
        result
    }

    /// One user of a cluster less, who is not in the file any more either. Returns how many are left.
    pub(crate) fn count_less(&mut self, node: &Node, index: u64) -> Result<u64, BlockError> {
        let left = self.refcounts.add(node, index, false)?;
        if left == 0 {
            let start = self.geometry.offset(index);
            self.l2.forget(start);
            if (self.packed_next).is_some_and(|at| self.geometry.start(at) == start) {
                self.packed_next = None;
            }
            // A hint; only if the node's options say so.
            let _ = node.discard(start, self.geometry.cluster());
        }
        Ok(left)
    }

    /// Says in the header that refcounts may be wrong, before they are.
    pub(crate) fn set_dirty(&mut self, node: &Node) -> Result<(), BlockError> {
        if self.header.version < 3 || self.header.incompatible & incompatible::DIRTY != 0 {
            return Ok(());
        }
        let bits = self.header.incompatible | incompatible::DIRTY;
        self.set_incompatible(node, bits)
    }

    /// Says that refcounts are right again, once they are stable.
    pub(crate) fn set_clean(&mut self, node: &Node, data: DataNode<'_>) -> Result<(), BlockError> {
        if self.header.incompatible & incompatible::DIRTY == 0 {
            return Ok(());
        }
        self.write_out(node, data)?;
        self.refcounts.write_back(node)?;
        self.stable(node, data)?;
        let bits = self.header.incompatible & !incompatible::DIRTY;
        self.set_incompatible(node, bits)
    }

    /// Bytes 72 to 79 of the header.
    pub(crate) fn set_incompatible(&mut self, node: &Node, bits: u64) -> Result<(), BlockError> {
        self.syncing.put(node, 72, &bits.to_be_bytes())?;
        self.header.incompatible = bits;
        Ok(())
    }

    /// Writes the whole first cluster anew.
    pub(crate) fn write_header(&mut self, node: &Node) -> Result<(), BlockError> {
        self.header.refcount_table_offset = self.refcounts.table_offset();
        let clusters = self.refcounts.table_clusters();
        self.header.refcount_table_clusters = u32::try_from(clusters).unwrap_or(u32::MAX);
        let bytes = self.header.to_bytes().ok_or(BlockError::NoSpace)?;
        self.syncing.put(node, 0, &bytes)
    }

    /// Whether a request is making a place for any of these guest clusters.
    pub(crate) fn is_busy(&self, first: u64, count: u64) -> bool {
        let end = first.saturating_add(count);
        let before = self.busy.range(..end).next_back();
        before.is_some_and(|(start, len)| start.saturating_add(*len) > first)
    }
}
