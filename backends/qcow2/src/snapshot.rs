//! Internal snapshots (qcow2 specification, "Snapshots").

use backend_block::{BlockError, IoVector, Node};

use crate::bytes::{slice, u16_at, u32_at, u64_at};
use crate::entry::{COPIED, OFFSET, l2_offset};
use crate::header::{Header, L1_MAX, read};
use crate::meta::Meta;

/// Most snapshots, as QEMU has it.
const SNAPSHOTS_MAX: u32 = 65536;
/// Longest snapshot table, as QEMU has it.
const TABLE_MAX: usize = 64 << 20;
/// Fixed part of an entry.
const FIXED: usize = 40;
/// Extra data that version 3 wants: size of the VM state, size of the disk, instruction count.
const EXTRA: usize = 24;

/// One snapshot.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Snapshot {
    pub(crate) l1_offset: u64,
    pub(crate) l1_size: u32,
    /// Unique number, as text.
    pub id: String,
    /// The user's name for it.
    pub name: String,
    /// When it was taken: seconds since 1970.
    pub date_s: u32,
    /// When it was taken: nanoseconds.
    pub date_ns: u32,
    /// How long the guest had run.
    pub vm_clock_ns: u64,
    /// Bytes of the machine's state.
    pub vm_state_len: u64,
    /// Bytes of the disk.
    pub disk_size: u64,
    /// Instructions the guest had run, or -1.
    pub icount: u64,
    more: Vec<u8>,
}

/// Reads the snapshot table.
pub(crate) fn read_table(header: &Header, node: &Node) -> Result<Vec<Snapshot>, String> {
    if header.snapshots == 0 {
        return Ok(Vec::new());
    }
    if header.snapshots > SNAPSHOTS_MAX {
        return Err(format!("{} snapshots are not possible", header.snapshots));
    }
    let start = header.snapshots_offset;
    let least = u64::from(header.snapshots).saturating_mul(FIXED as u64);
    header.check_table("snapshot table", start, least, node.len())?;
    // Its length is known when it has been read.
    let rest = node.len().saturating_sub(start);
    let len = usize::try_from(rest).unwrap_or(TABLE_MAX).min(TABLE_MAX);
    let step = 64usize << 10;
    let mut table = Vec::new();
    let mut all = Vec::new();
    let mut at = 0usize;
    while all.len() < header.snapshots as usize {
        if let Some((snapshot, end)) = Snapshot::parse(&table, at, header) {
            let l1_len = u64::from(snapshot.l1_size).saturating_mul(8);
            if l1_len > L1_MAX {
                return Err(format!("snapshot '{}' is too large", snapshot.name));
            }
            header.check_table("snapshot", snapshot.l1_offset, l1_len, node.len())?;
            all.push(snapshot);
            at = end;
            continue;
        }
        if table.len() >= len {
            return Err("its snapshot table is cut off".to_owned());
        }
        let more = len.saturating_sub(table.len()).min(step);
        let from = start.saturating_add(table.len() as u64);
        table.extend(read(node, from, more).map_err(|e| e.to_string())?);
    }
    Ok(all)
}

impl Snapshot {
    /// The entry at `at`, and where the next one begins. `None` if it is cut off.
    fn parse(table: &[u8], at: usize, header: &Header) -> Option<(Self, usize)> {
        let field = |more: usize| at.saturating_add(more);
        let id_len = usize::from(u16_at(table, field(12))?);
        let name_len = usize::from(u16_at(table, field(14))?);
        let extra_len = u32_at(table, field(36))? as usize;
        let extra = slice(table, field(FIXED), extra_len)?;
        let id_at = field(FIXED).checked_add(extra_len)?;
        let name_at = id_at.checked_add(id_len)?;
        let text = |at, len| Some(String::from_utf8_lossy(slice(table, at, len)?).into_owned());
        let snapshot = Snapshot {
            l1_offset: u64_at(table, at)?,
            l1_size: u32_at(table, field(8))?,
            id: text(id_at, id_len)?,
            name: text(name_at, name_len)?,
            date_s: u32_at(table, field(16))?,
            date_ns: u32_at(table, field(20))?,
            vm_clock_ns: u64_at(table, field(24))?,
            vm_state_len: u64_at(extra, 0).unwrap_or(u64::from(u32_at(table, field(32))?)),
            disk_size: u64_at(extra, 8).unwrap_or(header.size),
            icount: u64_at(extra, 16).unwrap_or(u64::MAX),
            more: extra.get(EXTRA..).unwrap_or_default().to_vec(),
        };
        let end = name_at.checked_add(name_len)?;
        let end = at.checked_add(end.checked_sub(at)?.checked_next_multiple_of(8)?)?;
        Some((snapshot, end))
    }

    fn write(&self, out: &mut Vec<u8>) {
        let small = |len: usize| u16::try_from(len).unwrap_or(u16::MAX).to_be_bytes();
        out.extend(self.l1_offset.to_be_bytes());
        out.extend(self.l1_size.to_be_bytes());
        out.extend(small(self.id.len()));
        out.extend(small(self.name.len()));
        out.extend(self.date_s.to_be_bytes());
        out.extend(self.date_ns.to_be_bytes());
        out.extend(self.vm_clock_ns.to_be_bytes());
        let short = u32::try_from(self.vm_state_len).unwrap_or(0);
        out.extend(short.to_be_bytes());
        let extra = EXTRA.saturating_add(self.more.len());
        out.extend(u32::try_from(extra).unwrap_or(0).to_be_bytes());
        out.extend(self.vm_state_len.to_be_bytes());
        out.extend(self.disk_size.to_be_bytes());
        out.extend(self.icount.to_be_bytes());
        out.extend(&self.more);
        out.extend(self.id.bytes());
        out.extend(self.name.bytes());
        out.resize(out.len().next_multiple_of(8), 0);
    }
}

/// How far the counts of everything that an L1 table refers to are moved.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Count {
    More,
    Less,
    /// Not at all: only the marks of clusters that are used once are set anew.
    Same,
}

impl Meta {
    /// Moves the refcounts of all L2 tables and clusters of an L1 table, and sets the marks of the
    /// active one. Under the dirty bit: a cut leaves counts that are set right when next opened.
    fn count_all(&mut self, node: &Node, l1: &mut [u64], count: Count) -> Result<(), BlockError> {
        let is_active = count != Count::Less;
        for slot in l1.iter_mut() {
            let Some(table) = l2_offset(self.geometry, *slot)? else {
                continue;
            };
            for index in 0..self.geometry.l2_entries() {
                let mut entry = self.entry_of(node, table, index)?;
                let (offset, len) = match (entry.compressed, entry.host) {
                    (Some(place), _) => place,
                    (None, Some(host)) => (host, self.geometry.cluster()),
                    (None, None) => continue,
                };
                let mut last = 0;
                for cluster in self.cluster_range(offset, len) {
                    last = match count {
                        Count::More => self.refcounts.add(node, cluster, true)?,
                        Count::Less => self.count_less(node, cluster)?,
                        Count::Same => self.refcounts.get(node, cluster)?,
                    };
                }
                let copied = entry.compressed.is_none() && last == 1;
                if is_active && entry.compressed.is_none() && entry.copied != copied {
                    entry.copied = copied;
                    self.set_entry_of(node, table, index, entry)?;
                }
            }
            let cluster = self.geometry.index(table);
            let now = match count {
                Count::More => self.refcounts.add(node, cluster, true)?,
                Count::Less => self.count_less(node, cluster)?,
                Count::Same => self.refcounts.get(node, cluster)?,
            };
            if is_active {
                *slot = (*slot & OFFSET) | if now == 1 { COPIED } else { 0 };
            }
            if self.l2.is_full() || self.refcounts.is_full() {
                self.refcounts.write_back(node)?;
                self.l2.write_back(node)?;
            }
        }
        Ok(())
    }

    /// Sets the marks of the active tables anew, after counts were changed.
    pub(crate) fn mark_all(&mut self, node: &Node) -> Result<(), BlockError> {
        self.count_active(node, Count::Same)
    }

    fn count_active(&mut self, node: &Node, count: Count) -> Result<(), BlockError> {
        let mut l1 = self.l1.clone();
        self.count_all(node, &mut l1, count)?;
        for (index, entry) in l1.into_iter().enumerate() {
            if self.l1.get(index) != Some(&entry) {
                self.set_l1(index, entry);
            }
        }
        Ok(())
    }

    /// Bytes of the snapshot table.
    pub(crate) fn snapshot_table_len(&self) -> u64 {
        let mut table = Vec::new();
        self.snapshots.iter().for_each(|s| s.write(&mut table));
        table.len() as u64
    }

    /// Clusters that are free now for `len` bytes, and the bytes in them.
    fn store(&mut self, node: &Node, data: &[u8]) -> Result<u64, BlockError> {
        let clusters = self.geometry.clusters(data.len() as u64).max(1);
        let first = self.refcounts.allocate(node, clusters)?;
        let offset = self.geometry.offset(first);
        let len = usize::try_from(clusters.saturating_mul(self.geometry.cluster())).unwrap_or(0);
        let mut whole = data.to_vec();
        whole.resize(len, 0);
        node.write(offset, &IoVector::from(whole.as_slice()))?;
        Ok(offset)
    }

    /// Writes the snapshot table to a new place and puts it in force.
    fn write_snapshots(&mut self, node: &Node, all: Vec<Snapshot>) -> Result<(), BlockError> {
        let len = |all: &[Snapshot]| {
            let mut table = Vec::new();
            all.iter().for_each(|snapshot| snapshot.write(&mut table));
            table
        };
        let table = len(&all);
        let offset = match table.is_empty() {
            true => 0,
            false => self.store(node, &table)?,
        };
        self.flush(node, None)?;
        let old = (self.header.snapshots_offset, len(&self.snapshots).len());
        let count = u32::try_from(all.len()).unwrap_or(u32::MAX);
        // Bytes 60 to 71 of the header, in one sector.
        let mut field = count.to_be_bytes().to_vec();
        field.extend(offset.to_be_bytes());
        self.syncing.put(node, 60, &field)?;
        self.header.snapshots_offset = offset;
        self.header.snapshots = count;
        self.snapshots = all;
        if old.1 != 0 {
            self.free(old.0, old.1 as u64);
        }
        Ok(())
    }

    /// Freezes the disk as it is under a name. No request may be under way.
    pub(crate) fn take_snapshot(
        &mut self,
        node: &Node,
        new: NewSnapshot,
    ) -> Result<(), BlockError> {
        if self.snapshots.len() >= SNAPSHOTS_MAX as usize {
            return Err(BlockError::NoSpace);
        }
        self.reclaim(node, None)?;
        self.flush(node, None)?;
        self.set_dirty(node)?;
        let ids = self
            .snapshots
            .iter()
            .filter_map(|s| s.id.parse::<u64>().ok());
        let id = ids.max().unwrap_or(0).saturating_add(1).to_string();
        self.count_active(node, Count::More)?;
        let table = crate::bytes::table(&self.l1);
        let l1_offset = self.store(node, &table)?;
        let mut all = self.snapshots.clone();
        all.push(Snapshot {
            l1_offset,
            l1_size: self.header.l1_size,
            id,
            name: new.name,
            date_s: new.date_s,
            date_ns: new.date_ns,
            vm_clock_ns: 0,
            vm_state_len: 0,
            disk_size: self.header.size,
            icount: u64::MAX,
            more: Vec::new(),
        });
        self.write_snapshots(node, all)?;
        self.reclaim(node, None)?;
        self.set_clean(node, None)
    }

    fn snapshot_l1(&self, node: &Node, snapshot: &Snapshot) -> Result<Vec<u64>, BlockError> {
        let len = usize::try_from(snapshot.l1_size)
            .unwrap_or(0)
            .saturating_mul(8);
        Ok(crate::bytes::entries(&read(node, snapshot.l1_offset, len)?))
    }

    /// Has the tables of a snapshot in place of the image's, which nobody will write. Returns how long the
    /// disk was.
    pub(crate) fn show_snapshot(&mut self, node: &Node, index: usize) -> Result<u64, BlockError> {
        let snapshot = self.snapshots.get(index).ok_or(BlockError::OutOfRange)?;
        let snapshot = snapshot.clone();
        if snapshot.disk_size > i64::MAX as u64 {
            return Err(BlockError::Corrupt);
        }
        self.l1 = self.snapshot_l1(node, &snapshot)?;
        Ok(snapshot.disk_size)
    }

    /// Forgets a snapshot. No request may be under way.
    pub(crate) fn delete_snapshot(&mut self, node: &Node, index: usize) -> Result<(), BlockError> {
        self.reclaim(node, None)?;
        self.flush(node, None)?;
        self.set_dirty(node)?;
        let mut all = self.snapshots.clone();
        if index >= all.len() {
            return Err(BlockError::OutOfRange);
        }
        let gone = all.remove(index);
        let mut l1 = self.snapshot_l1(node, &gone)?;
        self.write_snapshots(node, all)?;
        self.count_all(node, &mut l1, Count::Less)?;
        self.free(gone.l1_offset, u64::from(gone.l1_size).saturating_mul(8));
        self.mark_all(node)?;
        self.reclaim(node, None)?;
        self.flush(node, None)?;
        self.set_clean(node, None)
    }

    /// The disk is as it was when the snapshot was taken. No request may be under way.
    pub(crate) fn apply_snapshot(&mut self, node: &Node, index: usize) -> Result<(), BlockError> {
        let snapshot = self.snapshots.get(index).ok_or(BlockError::OutOfRange)?;
        let snapshot = snapshot.clone();
        // As QEMU: the size must be right before.
        if snapshot.disk_size != self.header.size || snapshot.l1_size > self.header.l1_size {
            return Err(BlockError::Unsupported);
        }
        self.reclaim(node, None)?;
        self.flush(node, None)?;
        self.set_dirty(node)?;
        let mut new = self.snapshot_l1(node, &snapshot)?;
        new.resize(self.l1.len(), 0);
        self.count_all(node, &mut new, Count::More)?;
        let mut old = self.l1.clone();
        for (index, entry) in new.into_iter().enumerate() {
            self.set_l1(index, entry);
        }
        // What the old tables refer to is let go when the new ones are in force.
        self.flush(node, None)?;
        self.count_all(node, &mut old, Count::Less)?;
        self.mark_all(node)?;
        self.flush(node, None)?;
        self.set_clean(node, None)
    }
}

/// What the user says of a snapshot to be taken.
pub(crate) struct NewSnapshot {
    pub(crate) name: String,
    pub(crate) date_s: u32,
    pub(crate) date_ns: u32,
}
