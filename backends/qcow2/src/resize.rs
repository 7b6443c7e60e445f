//! Changing the size of the disk, and setting space aside.

use backend_block::{BlockError, Driver as _, IoVector, Preallocation};

use crate::bytes;
use crate::entry::Entry;
use crate::header::L1_MAX;
use crate::image::Qcow2;

impl Qcow2 {
    pub(crate) fn resize_to(
        &self,
        len: u64,
        preallocation: Preallocation,
    ) -> Result<(), BlockError> {
        let old = self.len();
        if len > i64::MAX as u64 {
            return Err(BlockError::OutOfRange);
        }
        if len < old {
            self.shrink(len, old)?;
        } else {
            self.grow_l1(len)?;
            self.hide_backing(old, len)?;
        }
        self.with_data(|node, data| {
            let _alone = self.alone();
            let mut meta = self.meta();
            meta.reclaim(node, data)?;
            meta.flush(node, data)?;
            // Bytes 24 to 31 of the header.
            meta.syncing.put(node, 24, &len.to_be_bytes())?;
            meta.header.size = len;
            Ok(())
        })?;
        self.set_len(len);
        if let Some(data) = &self.data {
            data.node().resize(len, Preallocation::Off)?;
        }
        match preallocation {
            Preallocation::Off => Ok(()),
            _ => self.preallocate(old, len, preallocation),
        }
    }

    /// What lies beyond the new end is given up.
    fn shrink(&self, len: u64, old: u64) -> Result<(), BlockError> {
        if !self.meta().snapshots.is_empty() {
            return Err(BlockError::Unsupported);
        }
        let mask = self.geometry.cluster().wrapping_sub(1);
        let from = len.saturating_add(mask) & !mask;
        // The rest of the last cluster must not come back when the disk grows again.
        self.zero_guest(len, from.min(old).saturating_sub(len), true)?;
        self.forget(from, old)
    }

    /// Nothing is stored any more in these whole clusters.
    pub(crate) fn forget(&self, from: u64, to: u64) -> Result<(), BlockError> {
        let node = self.file.node();
        let mut at = self.next_used(from, to);
        while at < to {
            let moving = self.moving.share();
            {
                let mut meta = self.meta();
                let entry = meta.entry(&node, at)?;
                if entry != Entry::default() {
                    meta.own_l2(&node, at)?;
                    meta.set_entry(&node, at, Entry::default())?;
                    meta.free_entry(entry);
                }
            }
            drop(moving);
            self.tidy()?;
            at = self.next_used(at.saturating_add(self.geometry.cluster()), to);
        }
        Ok(())
    }

    /// The next offset that has an L2 table.
    fn next_used(&self, from: u64, end: u64) -> u64 {
        let meta = self.meta();
        let mut at = from;
        while at < end {
            let (index, entry) = meta.place(at);
            if meta.l1.get(index).is_some_and(|entry| *entry != 0) {
                return at;
            }
            let left = self.geometry.l2_entries().saturating_sub(entry);
            at = at.saturating_add(left.saturating_mul(self.geometry.cluster()));
        }
        end
    }

    /// A longer L1 table in a place of its own, put in force when it is stable.
    fn grow_l1(&self, len: u64) -> Result<(), BlockError> {
        let _alone = self.alone();
        let node = self.file.node();
        let mut meta = self.meta();
        let needed = meta.header.l1_needed(len);
        if needed <= meta.l1.len() as u64 {
            return Ok(());
        }
        if needed.saturating_mul(8) > L1_MAX {
            return Err(BlockError::OutOfRange);
        }
        meta.check_usable()?;
        let clusters = meta.geometry.clusters(needed.saturating_mul(8));
        let first = meta.refcounts.allocate(&node, clusters)?;
        let offset = meta.geometry.offset(first);
        let mut l1 = meta.l1.clone();
        l1.resize(usize::try_from(needed).unwrap_or(0), 0);
        let mut table = bytes::table(&l1);
        let whole = clusters.saturating_mul(meta.geometry.cluster());
        table.resize(usize::try_from(whole).unwrap_or(0), 0);
        self.with_data(|node, data| {
            // The L2 tables that it names must be there before.
            meta.flush(node, data)?;
            node.write(offset, &IoVector::from(table.as_slice()))?;
            meta.flush(node, data)?;
            let entries = u32::try_from(needed).map_err(|_| BlockError::OutOfRange)?;
            // Bytes 36 to 47 of the header, in one sector.
            let mut field = entries.to_be_bytes().to_vec();
            field.extend(offset.to_be_bytes());
            meta.syncing.put(node, 36, &field)?;
            let old = (meta.header.l1_offset, u64::from(meta.header.l1_size));
            meta.header.l1_offset = offset;
            meta.header.l1_size = entries;
            meta.l1 = l1;
            meta.l1_is_written();
            if old.1 != 0 {
                meta.free(old.0, old.1.saturating_mul(8));
            }
            Ok(())
        })
    }

    /// What is gained reads as zeros, also where the backing file is longer than the disk was.
    fn hide_backing(&self, old: u64, new: u64) -> Result<(), BlockError> {
        let Some(backing) = self.behind() else {
            return Ok(());
        };
        let end = backing.node().len().min(new);
        if end <= old {
            return Ok(());
        }
        let mask = self.geometry.cluster().wrapping_sub(1);
        let from = (old.saturating_add(mask) & !mask).min(end);
        if from > old {
            let zeros = from.saturating_sub(old);
            let zeros = IoVector::zeroed(usize::try_from(zeros).unwrap_or(0));
            self.write_guest(old, &zeros)?;
        }
        let to = end.saturating_add(mask) & !mask;
        self.set_len(to.max(old));
        let hidden = self.zero_guest(from, to.saturating_sub(from), true);
        self.set_len(old);
        hidden
    }

    /// Places for all clusters of a range, that read as zeros.
    pub(crate) fn preallocate(
        &self,
        from: u64,
        to: u64,
        how: Preallocation,
    ) -> Result<(), BlockError> {
        const STEP: u64 = 1 << 20;
        if how == Preallocation::Full {
            let zeros = IoVector::zeroed(STEP as usize);
            let mut at = from;
            while at < to {
                let part = zeros.slice(0, to.saturating_sub(at));
                self.write(at, &part)?;
                at = at.saturating_add(part.len());
            }
            return Ok(());
        }
        let node = self.file.node();
        let geometry = self.geometry;
        let mut at = geometry.start(from);
        let mut end = 0u64;
        while at < to {
            {
                let _alone = self.alone();
                let mut meta = self.meta();
                let old = meta.entry(&node, at)?;
                if old.host.is_none() && old.compressed.is_none() {
                    meta.own_l2(&node, at)?;
                    let host = match geometry.has_data_file {
                        true => at,
                        false => geometry.offset(meta.refcounts.allocate(&node, 1)?),
                    };
                    end = end.max(host.saturating_add(geometry.cluster()));
                    // With a backing file, or where the cluster was used before, zeros must be said.
                    let says_zero =
                        self.has_behind() || old.zero != 0 || host < self.data_node().len();
                    let can_say = geometry.version >= 3;
                    if says_zero && !can_say {
                        self.data_node()
                            .write_zeroes(host, geometry.cluster(), false)?;
                    }
                    let is_zero = says_zero && can_say;
                    let entry = Entry {
                        host: Some(host),
                        copied: true,
                        alloc: if is_zero { 0 } else { geometry.all() },
                        zero: if is_zero { geometry.all() } else { 0 },
                        compressed: None,
                    };
                    meta.set_entry(&node, at, entry)?;
                }
            }
            self.tidy()?;
            at = at.saturating_add(geometry.cluster());
        }
        let data = self.data_node();
        if end > data.len() {
            let how = match how {
                Preallocation::Metadata => Preallocation::Off,
                how => how,
            };
            data.resize(end, how)?;
        }
        self.flush()
    }
}
