//! Writing: in place where a cluster is the image's alone, and else into clusters made for it, filled
//! up with what the guest saw there before (copy on write).

use std::sync::PoisonError;

use backend_block::{BlockError, IoVector, Node};

use crate::compress;
use crate::entry::{Entry, bits};
use crate::image::Qcow2;
use crate::meta::Meta;

/// How a run of guest bytes is to be written.
enum Plan {
    /// Over what is there.
    InPlace { host: u64 },
    /// Into a place that was made for it.
    Make(Place),
}

/// A place for guest clusters.
struct Place {
    /// Guest offset of the first cluster.
    start: u64,
    clusters: u64,
    /// Where the first is stored.
    host: u64,
    /// What the image said of each before.
    old: Vec<Entry>,
    /// Whether it was taken for this.
    is_new: bool,
    /// Whether nothing was ever stored there: it reads as zeros.
    is_blank: bool,
}

impl Qcow2 {
    /// Writes what the guest has in `memory`.
    pub(crate) fn write_guest(&self, offset: u64, memory: &IoVector) -> Result<(), BlockError> {
        let _moving = self.moving.share();
        let mut done = 0u64;
        while done < memory.len() {
            let at = offset.checked_add(done).ok_or(BlockError::OutOfRange)?;
            let (plan, len) = self.plan(at, memory.len().saturating_sub(done))?;
            let part = memory.slice(done, len);
            match plan {
                Plan::InPlace { host } => self.data_node().write(host, &part)?,
                Plan::Make(place) => self.fill(at, &part, place)?,
            }
            done = done.saturating_add(len);
        }
        Ok(())
    }

    /// How to write `len` bytes from `offset` on, and how many of them in that way.
    fn plan(&self, offset: u64, len: u64) -> Result<(Plan, u64), BlockError> {
        let geometry = self.geometry;
        let node = self.file.node();
        let first = geometry.index(offset);
        let mut meta = self.meta();
        // Another request makes a place for this cluster: what it says of it comes first.
        while meta.is_busy(first, 1) {
            meta = self.made.wait(meta).unwrap_or_else(PoisonError::into_inner);
        }
        meta.check_usable()?;
        if let Some((host, run)) = self.in_place(&mut meta, &node, offset, len)? {
            return Ok((Plan::InPlace { host }, run));
        }
        let within = geometry.within(offset);
        let end = offset.saturating_add(len).min(self.table_end(offset));
        let wanted = geometry.clusters(end.saturating_sub(geometry.start(offset)));
        let place = self.make(&mut meta, &node, offset, wanted)?;
        let covered = place.clusters.saturating_mul(geometry.cluster());
        let run = covered.saturating_sub(within).min(len);
        Ok((Plan::Make(place), run))
    }

    /// Where `len` bytes from `offset` on may be overwritten, and how many of them.
    pub(crate) fn in_place(
        &self,
        meta: &mut Meta,
        node: &Node,
        offset: u64,
        len: u64,
    ) -> Result<Option<(u64, u64)>, BlockError> {
        let geometry = self.geometry;
        let entry = meta.entry(node, offset)?;
        let within = geometry.within(offset);
        let rest = geometry.cluster().saturating_sub(within);
        let touched = geometry.touched(within, len.min(rest));
        let Some(host) = writable_in_place(entry, touched) else {
            return Ok(None);
        };
        let host = host.saturating_add(within);
        let mut run = rest.min(len);
        let table_end = self.table_end(offset);
        while run < len && offset.saturating_add(run) < table_end {
            let at = offset.saturating_add(run);
            let more = geometry.cluster().min(len.saturating_sub(run));
            if meta.is_busy(geometry.index(at), 1) {
                break;
            }
            let entry = meta.entry(node, at)?;
            let next = writable_in_place(entry, geometry.touched(0, more));
            if next != Some(host.saturating_add(run)) {
                break;
            }
            run = run.saturating_add(more);
        }
        Ok(Some((host, run)))
    }

    /// Where the L2 table of an offset ends.
    fn table_end(&self, offset: u64) -> u64 {
        let covers = self.geometry.l2_covers();
        let index = offset.checked_div(covers).unwrap_or(0);
        index.saturating_add(1).saturating_mul(covers)
    }

    /// Makes a place for the cluster of `offset` and as many of the next as also need one, `wanted`
    /// at most, and keeps other requests away from them.
    fn make(
        &self,
        meta: &mut Meta,
        node: &Node,
        offset: u64,
        wanted: u64,
    ) -> Result<Place, BlockError> {
        let geometry = self.geometry;
        let start = geometry.start(offset);
        let first = geometry.index(start);
        meta.own_l2(node, offset)?;
        let entry = meta.entry(node, start)?;
        if let Some(host) = entry.host.filter(|_| entry.copied) {
            // Space was set aside, or only some subclusters are stored.
            meta.busy.insert(first, 1);
            return Ok(Place {
                start,
                clusters: 1,
                host,
                old: vec![entry],
                is_new: false,
                is_blank: false,
            });
        }
        let mut old = vec![entry];
        while (old.len() as u64) < wanted {
            let next = first.saturating_add(old.len() as u64);
            let entry = meta.entry(node, geometry.offset(next))?;
            if entry.copied || meta.is_busy(next, 1) {
                break;
            }
            old.push(entry);
        }
        let (host, count) = if geometry.has_data_file {
            (start, old.len() as u64)
        } else {
            let (first, count) = meta.refcounts.allocate_run(node, old.len() as u64)?;
            (geometry.offset(first), count)
        };
        old.truncate(usize::try_from(count).unwrap_or(usize::MAX));
        meta.busy.insert(first, count);
        Ok(Place {
            start,
            clusters: count,
            host,
            old,
            is_new: !geometry.has_data_file,
            is_blank: host >= self.data_node().len(),
        })
    }

    /// Writes into a place that was made, and enters it.
    fn fill(&self, offset: u64, memory: &IoVector, place: Place) -> Result<(), BlockError> {
        let written = self.fill_data(offset, memory, &place);
        let node = self.file.node();
        let mut meta = self.meta();
        let entered = written.and_then(|()| self.enter(&mut meta, &node, offset, memory, &place));
        if entered.is_err() && place.is_new {
            meta.give_back(&node, self.geometry.index(place.host), place.clusters);
        }
        meta.busy.remove(&self.geometry.index(place.start));
        self.made.notify_all();
        entered
    }

    /// Bits of the subclusters of cluster number `index` of a place that `len` bytes at `offset`
    /// touch.
    fn touched(&self, place: &Place, index: u64, offset: u64, len: u64) -> u32 {
        let geometry = self.geometry;
        let cluster = index.saturating_mul(geometry.cluster());
        let start = place.start.saturating_add(cluster);
        let from = offset.max(start);
        let end = offset.saturating_add(len);
        let to = end.min(start.saturating_add(geometry.cluster()));
        geometry.touched(from.saturating_sub(start), to.saturating_sub(from))
    }

    /// Bits of the subclusters that are stored in cluster number `index` when it is filled.
    fn stored_bits(&self, place: &Place, index: u64, offset: u64, len: u64) -> u32 {
        let old = usize::try_from(index).ok().and_then(|i| place.old.get(i));
        let old = old.copied().unwrap_or_default();
        let touched = self.touched(place, index, offset, len);
        match (place.is_new, old.compressed) {
            // All of it is copied.
            (true, Some(_)) => self.geometry.all(),
            // What was stored elsewhere is copied. Without a gap, so that one copy does.
            (true, None) if old.alloc != 0 => span(old.alloc | touched),
            _ => touched,
        }
    }

    fn fill_data(&self, offset: u64, memory: &IoVector, place: &Place) -> Result<(), BlockError> {
        let geometry = self.geometry;
        let data = self.data_node();
        let last = place.clusters.saturating_sub(1);
        let sub = geometry.subcluster();
        let end = offset.saturating_add(memory.len());
        let host_of = |guest: u64| place.host.saturating_add(guest.saturating_sub(place.start));
        // Only at its two ends does a place hold bytes that are not the guest's new ones.
        let first_bits = self.stored_bits(place, 0, offset, memory.len());
        let from = place
            .start
            .saturating_add(u64::from(first_bits.trailing_zeros()).saturating_mul(sub));
        let last_bits = self.stored_bits(place, last, offset, memory.len());
        let last_start = place
            .start
            .saturating_add(last.saturating_mul(geometry.cluster()));
        let stored = u64::from(32u32.saturating_sub(last_bits.leading_zeros()));
        let to = last_start.saturating_add(stored.saturating_mul(sub));
        // What is stored there already stays: another request may be writing to it in place.
        let is_there = |guest: u64| {
            let old = place.old.first().copied().unwrap_or_default();
            !place.is_new && old.alloc & 1u32.wrapping_shl(geometry.sub_of(guest)) != 0
        };
        let from = if is_there(offset) { offset } else { from };
        let to = if is_there(end.saturating_sub(1)) {
            end
        } else {
            to
        };
        self.copy(from, offset, host_of(from), place.is_blank, &data)?;
        data.write(host_of(offset), memory)?;
        self.copy(end, to, host_of(end), place.is_blank, &data)
    }

    /// Copies what the guest sees of `from..to` to a place.
    fn copy(
        &self,
        from: u64,
        to: u64,
        host: u64,
        is_blank: bool,
        data: &Node,
    ) -> Result<(), BlockError> {
        let mut at = from;
        while at < to {
            let (stored, len) = self.run(at, to.saturating_sub(at))?;
            let is_zero = match stored {
                crate::mapping::Stored::Zero => true,
                crate::mapping::Stored::Behind => !self.has_behind(),
                _ => false,
            };
            let host = host.saturating_add(at.saturating_sub(from));
            if !is_zero {
                let buffer = IoVector::zeroed(usize::try_from(len).unwrap_or(0));
                self.read_guest(at, &buffer)?;
                data.write(host, &buffer)?;
            } else if !is_blank {
                data.write_zeroes(host, len, true)?;
            }
            if len == 0 {
                return Err(BlockError::Corrupt);
            }
            at = at.saturating_add(len);
        }
        Ok(())
    }

    /// Makes the tables refer to a place that was filled.
    fn enter(
        &self,
        meta: &mut Meta,
        node: &Node,
        offset: u64,
        memory: &IoVector,
        place: &Place,
    ) -> Result<(), BlockError> {
        let geometry = self.geometry;
        let mut entries = Vec::with_capacity(place.old.len());
        for (index, old) in (0u64..).zip(&place.old) {
            let cluster = index.saturating_mul(geometry.cluster());
            let stored = self.stored_bits(place, index, offset, memory.len());
            let alloc = stored | if place.is_new { 0 } else { old.alloc };
            let entry = Entry {
                host: Some(place.host.saturating_add(cluster)),
                copied: true,
                alloc,
                zero: old.zero & !alloc,
                compressed: None,
            };
            entries.push((place.start.saturating_add(cluster), entry, *old));
        }
        // The L2 table is in memory and ours: the first entry tells whether the others can be set.
        for (guest, entry, _) in &entries {
            meta.set_entry(node, *guest, *entry)?;
        }
        if place.is_new {
            entries.iter().for_each(|(_, _, old)| meta.free_entry(*old));
        }
        Ok(())
    }

    /// A cluster, or the last part of the image, as it is stored compressed; `None` if that saves nothing.
    pub fn pack(&self, memory: &IoVector) -> Option<Vec<u8>> {
        let mut cluster = memory.to_vec();
        cluster.resize(usize::try_from(self.geometry.cluster()).ok()?, 0);
        let compression = self.meta().header.compression;
        compress::pack(compression, &cluster)
    }

    /// Writes one cluster compressed, if that saves anything.
    pub(crate) fn write_packing(&self, offset: u64, memory: &IoVector) -> Result<(), BlockError> {
        self.check_packed(offset, memory.len())?;
        match self.pack(memory) {
            Some(packed) => self.store_packed(offset, memory.len(), &packed),
            None => self.write_guest(offset, memory),
        }
    }

    /// Whether so many bytes are what is stored compressed in one piece.
    fn check_packed(&self, offset: u64, len: u64) -> Result<(), BlockError> {
        let geometry = self.geometry;
        let is_end = offset.saturating_add(len) == backend_block::Driver::len(self);
        let is_whole = len == geometry.cluster() || (is_end && len != 0);
        match geometry.has_data_file || geometry.within(offset) != 0 || !is_whole {
            true => Err(BlockError::Unsupported),
            false => Ok(()),
        }
    }

    /// Stores `len` bytes that are compressed already.
    pub(crate) fn store_packed(
        &self,
        offset: u64,
        len: u64,
        packed: &[u8],
    ) -> Result<(), BlockError> {
        self.check_packed(offset, len)?;
        let geometry = self.geometry;
        let _moving = self.moving.share();
        let node = self.file.node();
        let mut meta = self.meta();
        while meta.is_busy(geometry.index(offset), 1) {
            meta = self.made.wait(meta).unwrap_or_else(PoisonError::into_inner);
        }
        meta.own_l2(&node, offset)?;
        let old = meta.entry(&node, offset)?;
        let place = meta.place_packed(&node, packed.len() as u64)?;
        // Under the lock: another one may share the last cluster of this one.
        node.write(place, &IoVector::from(packed))?;
        let entry = Entry {
            compressed: Some((place, packed.len() as u64)),
            ..Entry::default()
        };
        meta.set_entry(&node, offset, entry)?;
        meta.free_entry(old);
        Ok(())
    }
}

/// Where an entry stores these subclusters, if they may be overwritten there.
fn writable_in_place(entry: Entry, touched: u32) -> Option<u64> {
    entry
        .host
        .filter(|_| entry.copied && entry.alloc & touched == touched)
}

/// The bits between the first and the last one set, too.
fn span(set: u32) -> u32 {
    let end = 32u32.saturating_sub(set.leading_zeros());
    bits(set.trailing_zeros().min(end), end)
}
