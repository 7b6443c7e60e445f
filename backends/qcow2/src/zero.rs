//! Zeros and discards: entries change, and clusters are given back.

use std::sync::PoisonError;

use backend_block::{BlockError, Driver as _, IoVector};

use crate::entry::Entry;
use crate::image::Qcow2;
use crate::mapping::Stored;

/// Bytes of zeros written at a time, where an entry cannot say so.
const CHUNK: u64 = 1 << 20;

/// What becomes of whole clusters.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Wish {
    /// Zeros; the space stays.
    Keep,
    /// Zeros; the space is given back.
    Unmap,
    /// Whatever; the space is given back.
    Discard,
}

impl Qcow2 {
    /// Zeros from now on.
    pub(crate) fn zero_guest(&self, offset: u64, len: u64, unmap: bool) -> Result<(), BlockError> {
        let wish = if unmap { Wish::Unmap } else { Wish::Keep };
        let unit = match self.geometry.version {
            2 => self.geometry.cluster(),
            _ => self.geometry.subcluster(),
        };
        let end = offset.checked_add(len).ok_or(BlockError::OutOfRange)?;
        let (from, to) = self.whole(offset, end, unit);
        if from >= to {
            return self.write_zeros(offset, end);
        }
        self.write_zeros(offset, from)?;
        self.change(from, to, wish)?;
        self.write_zeros(to.min(end), end)
    }

    /// The contents are not needed any more. Parts of clusters stay.
    pub(crate) fn discard_guest(&self, offset: u64, len: u64) -> Result<(), BlockError> {
        let end = offset.checked_add(len).ok_or(BlockError::OutOfRange)?;
        let (from, to) = self.whole(offset, end, self.geometry.cluster());
        match from < to {
            true => self.change(from, to, Wish::Discard),
            false => Ok(()),
        }
    }

    /// The whole units of a range. One that the disk's end cuts off is whole.
    fn whole(&self, offset: u64, end: u64, unit: u64) -> (u64, u64) {
        let mask = unit.wrapping_sub(1);
        let up = |at: u64| at.saturating_add(mask) & !mask;
        let to = match end >= self.len() {
            true => up(end),
            false => end & !mask,
        };
        (up(offset), to)
    }

    /// Writes zeros, but where there are zeros already.
    fn write_zeros(&self, offset: u64, end: u64) -> Result<(), BlockError> {
        let mut at = offset;
        while at < end {
            let (stored, len) = self.run(at, end.saturating_sub(at).min(CHUNK))?;
            let is_zero = match stored {
                Stored::Zero => true,
                Stored::Behind => !self.has_behind(),
                _ => false,
            };
            if len == 0 {
                return Err(BlockError::Corrupt);
            }
            if !is_zero || self.geometry.data_file_raw {
                let zeros = IoVector::zeroed(usize::try_from(len).unwrap_or(0));
                self.write_guest(at, &zeros)?;
            }
            at = at.saturating_add(len);
        }
        Ok(())
    }

    /// Changes whole subclusters.
    fn change(&self, from: u64, to: u64, wish: Wish) -> Result<(), BlockError> {
        let mut at = from;
        while at < to {
            let covers = self.geometry.l2_covers();
            let table = at.checked_div(covers).unwrap_or(0);
            let end = table.saturating_add(1).saturating_mul(covers).min(to);
            self.change_in_table(at, end, wish)?;
            at = end;
        }
        Ok(())
    }

    /// Changes whole subclusters, all of one L2 table.
    fn change_in_table(&self, from: u64, to: u64, wish: Wish) -> Result<(), BlockError> {
        let geometry = self.geometry;
        let mut at = from;
        // Not even a table: it reads as zeros.
        let is_blank = {
            let meta = self.meta();
            let (index, _) = meta.place(from);
            meta.l1.get(index).is_none_or(|entry| *entry == 0)
        };
        if is_blank && !self.has_behind() && !geometry.data_file_raw {
            return Ok(());
        }
        while at < to {
            let end = geometry
                .start(at)
                .saturating_add(geometry.cluster())
                .min(to);
            if let Some(zeros) = self.change_cluster(at, end, wish)? {
                self.write_guest(at, &zeros)?;
            }
            self.tidy()?;
            at = end;
        }
        Ok(())
    }

    /// Changes subclusters of one cluster, or says which zeros must be written.
    fn change_cluster(
        &self,
        at: u64,
        end: u64,
        wish: Wish,
    ) -> Result<Option<IoVector>, BlockError> {
        let geometry = self.geometry;
        let node = self.file.node();
        let start = geometry.start(at);
        let bits = geometry.touched(geometry.within(at), end.saturating_sub(at));
        let len = end.min(self.len()).saturating_sub(at);
        let _moving = self.moving.share();
        let mut meta = self.meta();
        while meta.is_busy(geometry.index(at), 1) {
            meta = self.made.wait(meta).unwrap_or_else(PoisonError::into_inner);
        }
        let old = meta.entry(&node, start)?;
        let keeps_place = wish == Wish::Keep || meta.keeps_place;
        let new = match self.changed(old, bits, wish, keeps_place) {
            Change::None => return Ok(None),
            Change::Write => {
                let len = usize::try_from(len).unwrap_or(0);
                return Ok(Some(IoVector::zeroed(len)));
            }
            Change::To(new) => new,
        };
        if geometry.data_file_raw {
            // Who reads the file without the tables sees zeros too.
            self.data_node().write_zeroes(at, len, wish != Wish::Keep)?;
        }
        if new == old {
            return Ok(None);
        }
        meta.own_l2(&node, start)?;
        meta.set_entry(&node, start, new)?;
        if old.compressed.is_some() || new.host != old.host {
            meta.free_entry(old);
            if geometry.has_data_file && !geometry.data_file_raw {
                self.data_node().discard(at, len)?;
            }
        } else if let (Some(host), false) = (new.host, wish == Wish::Keep)
            && new.alloc == 0
            && old.copied
        {
            // Its place stays, without the host's blocks. One of a snapshot's too keeps them.
            self.data_node().discard(host, geometry.cluster())?;
        }
        Ok(None)
    }

    /// What an entry becomes.
    fn changed(&self, old: Entry, bits: u32, wish: Wish, keeps_place: bool) -> Change {
        let geometry = self.geometry;
        let is_whole = bits == geometry.all();
        let shows_behind = self.has_behind();
        if old.is_unallocated() && (!shows_behind || wish == Wish::Discard) {
            return match geometry.data_file_raw {
                true => Change::To(old),
                false => Change::None,
            };
        }
        if geometry.version < 3 {
            return match (wish, shows_behind) {
                (Wish::Unmap | Wish::Discard, false) => Change::To(Entry::default()),
                (Wish::Discard, true) => Change::None,
                _ => Change::Write,
            };
        }
        if old.compressed.is_some() && !is_whole {
            return Change::Write;
        }
        let stays = keeps_place && old.copied && old.compressed.is_none();
        let zero = old.zero | bits;
        if is_whole && !stays {
            return Change::To(Entry {
                zero,
                ..Entry::default()
            });
        }
        Change::To(Entry {
            alloc: old.alloc & !bits,
            zero,
            ..old
        })
    }
}

enum Change {
    None,
    To(Entry),
    /// It takes real zeros.
    Write,
}
