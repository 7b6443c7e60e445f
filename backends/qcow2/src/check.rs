//! Looking at all tables of an image, and repairing refcounts.
//!
//! Every cluster that something refers to is counted, and the counts compared with those of the
//! image. Counts are kept by refcount block, for blocks that something refers into: memory grows with
//! what the image uses, not with what it claims.

use std::collections::BTreeMap;

use backend_block::{BlockError, Node};

use crate::bitmap::bitmaps;
use crate::bytes;
use crate::entry::{COPIED, Entry, l2_offset};
use crate::header::{incompatible, read};
use crate::meta::Meta;

/// What is repaired.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fix {
    /// Nothing.
    None,
    /// Clusters that are counted and not used.
    Leaks,
    /// All that can be.
    All,
}

/// What was found.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Findings {
    /// Errors that can lose data.
    pub corruptions: u64,
    /// Clusters that are counted and not used.
    pub leaks: u64,
    /// Errors that were repaired.
    pub corruptions_fixed: u64,
    /// Leaks that were repaired.
    pub leaks_fixed: u64,
    /// Clusters of the disk.
    pub total_clusters: u64,
    /// Those that are stored.
    pub allocated_clusters: u64,
    /// Those that do not follow the one before them.
    pub fragmented_clusters: u64,
    /// Those that are compressed.
    pub compressed_clusters: u64,
    /// Where the last cluster in use ends.
    pub image_end_offset: u64,
}

/// Clusters whose counts are kept together. Few, so that what a hostile image refers to here and
/// there costs little.
const CHUNK: u64 = 64;

/// Counts of clusters as they should be.
#[derive(Default)]
struct Counts(BTreeMap<u64, [u32; CHUNK as usize]>);

impl Counts {
    fn add(&mut self, index: u64) {
        let chunk = self.0.entry(index / CHUNK).or_insert([0; CHUNK as usize]);
        if let Some(count) = chunk.get_mut((index % CHUNK) as usize) {
            *count = count.saturating_add(1);
        }
    }

    fn get(&self, index: u64) -> u64 {
        let chunk = self.0.get(&(index / CHUNK));
        let count = chunk.and_then(|chunk| chunk.get((index % CHUNK) as usize));
        count.copied().unwrap_or(0).into()
    }

    /// Blocks of so many counts that hold any.
    fn blocks(&self, per_block: u64) -> Vec<u64> {
        let first = self.0.keys().map(|chunk| chunk.saturating_mul(CHUNK));
        // A block of few wide counts is smaller than a chunk.
        let mut all: Vec<u64> = first
            .flat_map(|first| [first, first.saturating_add(CHUNK - 1)])
            .filter_map(|index| index.checked_div(per_block))
            .collect();
        all.dedup();
        all
    }
}

struct Checker<'a> {
    meta: &'a mut Meta,
    node: &'a Node,
    counts: Counts,
    findings: Findings,
    /// First cluster that cannot be in use, for it lies beyond the file.
    end: u64,
}

/// Looks at an image that nothing is under way on.
pub(crate) fn check(meta: &mut Meta, node: &Node, fix: Fix) -> Result<Findings, BlockError> {
    let geometry = meta.geometry;
    let mut checker = Checker {
        counts: Counts::default(),
        end: geometry.clusters(node.len()),
        findings: Findings {
            total_clusters: geometry.clusters(meta.header.size),
            ..Findings::default()
        },
        meta,
        node,
    };
    checker.count()?;
    checker.compare(fix)?;
    // Marks follow counts; they are set anew only if all counts are right now.
    match fix {
        Fix::All => checker.fix_marks()?,
        Fix::Leaks if checker.findings.corruptions == 0 => checker.fix_marks()?,
        Fix::Leaks | Fix::None => checker.check_marks()?,
    }
    if fix == Fix::All {
        let findings = checker.findings;
        let meta = checker.meta;
        meta.refcounts.write_back(node)?;
        meta.flush(node, None)?;
        meta.set_clean(node, None)?;
        let is_marked = meta.header.incompatible & incompatible::CORRUPT != 0;
        if is_marked && findings.corruptions == 0 {
            let bits = meta.header.incompatible & !incompatible::CORRUPT;
            meta.set_incompatible(node, bits)?;
        }
        return Ok(findings);
    }
    let findings = checker.findings;
    if fix == Fix::Leaks {
        checker.meta.flush(node, None)?;
    }
    Ok(findings)
}

impl Checker<'_> {
    fn corrupt(&mut self) {
        self.findings.corruptions = self.findings.corruptions.saturating_add(1);
    }

    /// These bytes of the file are used once.
    fn used(&mut self, offset: u64, len: u64) {
        if len == 0 {
            return;
        }
        for index in self.meta.cluster_range(offset, len) {
            if index > self.end {
                // Nothing can be there.
                self.corrupt();
                return;
            }
            self.counts.add(index);
        }
    }

    /// Counts everything that the image refers to.
    fn count(&mut self) -> Result<(), BlockError> {
        let geometry = self.meta.geometry;
        let header = self.meta.header.clone();
        self.used(0, geometry.cluster());
        let table = self.meta.refcounts.table_offset();
        let clusters = self.meta.refcounts.table_clusters();
        self.used(table, clusters.saturating_mul(geometry.cluster()));
        let blocks: Vec<u64> = self.meta.refcounts.block_offsets().collect();
        for block in blocks.into_iter().filter(|block| *block != 0) {
            if geometry.within(block) != 0 {
                self.corrupt();
                continue;
            }
            self.used(block, geometry.cluster());
        }
        let l1 = self.meta.l1.clone();
        self.count_l1(header.l1_offset, &l1, true)?;
        let snapshots = self.meta.snapshots.clone();
        for snapshot in &snapshots {
            let len = usize::try_from(snapshot.l1_size)
                .unwrap_or(0)
                .saturating_mul(8);
            let l1 = bytes::entries(&read(self.node, snapshot.l1_offset, len)?);
            self.count_l1(snapshot.l1_offset, &l1, false)?;
        }
        let len = self.meta.snapshot_table_len();
        self.used(header.snapshots_offset, len);
        match bitmaps(&header, self.node) {
            Ok(bitmaps) => {
                if let Some(extension) = header.bitmaps.filter(|_| !bitmaps.is_empty()) {
                    self.used(extension.directory_offset, extension.directory_len);
                }
                for bitmap in &bitmaps {
                    self.count_bitmap(bitmap)?;
                }
            }
            Err(_) => self.corrupt(),
        }
        Ok(())
    }

    fn count_bitmap(&mut self, bitmap: &crate::bitmap::Bitmap) -> Result<(), BlockError> {
        let len = u64::from(bitmap.table_entries).saturating_mul(8);
        let header = &self.meta.header;
        let fits = header.check_table("bitmap", bitmap.table_offset, len, self.node.len());
        if fits.is_err() {
            self.corrupt();
            return Ok(());
        }
        self.used(bitmap.table_offset, len);
        let table = read(
            self.node,
            bitmap.table_offset,
            usize::try_from(len).unwrap_or(0),
        )?;
        for entry in bytes::entries(&table) {
            let offset = entry & crate::entry::OFFSET;
            if offset != 0 {
                self.used(offset, self.meta.geometry.cluster());
            }
        }
        Ok(())
    }

    fn count_l1(&mut self, offset: u64, l1: &[u64], is_active: bool) -> Result<(), BlockError> {
        let geometry = self.meta.geometry;
        self.used(offset, (l1.len() as u64).saturating_mul(8));
        let mut next = None;
        for entry in l1 {
            let table = match l2_offset(geometry, *entry) {
                Ok(Some(table)) => table,
                Ok(None) => continue,
                Err(_) => {
                    self.corrupt();
                    continue;
                }
            };
            self.used(table, geometry.cluster());
            if geometry.index(table) >= self.end {
                continue;
            }
            for index in 0..geometry.l2_entries() {
                let entry = match self.meta.entry_of(self.node, table, index) {
                    Ok(entry) => entry,
                    Err(BlockError::Corrupt) => {
                        self.corrupt();
                        continue;
                    }
                    Err(error) => return Err(error),
                };
                self.count_entry(entry, is_active, &mut next);
            }
        }
        Ok(())
    }

    fn count_entry(&mut self, entry: Entry, is_active: bool, next: &mut Option<u64>) {
        let geometry = self.meta.geometry;
        let findings = &mut self.findings;
        let place = match (entry.compressed, entry.host) {
            (Some(place), _) => {
                findings.compressed_clusters = findings
                    .compressed_clusters
                    .saturating_add(u64::from(is_active));
                place
            }
            (None, Some(host)) => (host, geometry.cluster()),
            (None, None) => return,
        };
        if is_active {
            findings.allocated_clusters = findings.allocated_clusters.saturating_add(1);
            let follows = next.is_none_or(|next| next == geometry.start(place.0));
            if !follows || entry.compressed.is_some() {
                findings.fragmented_clusters = findings.fragmented_clusters.saturating_add(1);
            }
            *next = Some(geometry.start(place.0).saturating_add(geometry.cluster()));
        }
        if !geometry.has_data_file {
            self.used(place.0, place.1);
        }
    }

    /// Compares the counts with the image's, and sets those that are wrong.
    fn compare(&mut self, fix: Fix) -> Result<(), BlockError> {
        let geometry = self.meta.geometry;
        let per_block = self.meta.refcounts.block_entries();
        let table: Vec<u64> = self.meta.refcounts.block_offsets().collect();
        let mut blocks = self.counts.blocks(per_block);
        let there = (0u64..).zip(&table).filter(|(_, block)| **block != 0);
        blocks.extend(there.map(|(number, _)| number));
        blocks.sort_unstable();
        blocks.dedup();
        let mut last = 0;
        for block in blocks {
            let first = block.saturating_mul(per_block);
            for index in first..first.saturating_add(per_block) {
                let wanted = self.counts.get(index);
                let is = match self.meta.refcounts.get(self.node, index) {
                    Ok(is) => is,
                    Err(BlockError::Corrupt) if wanted == 0 => break,
                    Err(error) => return Err(error),
                };
                if is != 0 || wanted != 0 {
                    last = last.max(index.saturating_add(1));
                }
                if is == wanted {
                    continue;
                }
                let is_leak = is > wanted;
                let repairs = fix == Fix::All || (fix == Fix::Leaks && is_leak);
                if repairs {
                    self.meta.refcounts.set(self.node, index, wanted)?;
                }
                let findings = &mut self.findings;
                let slot = match (is_leak, repairs) {
                    (true, false) => &mut findings.leaks,
                    (true, true) => &mut findings.leaks_fixed,
                    (false, false) => &mut findings.corruptions,
                    (false, true) => &mut findings.corruptions_fixed,
                };
                *slot = slot.saturating_add(1);
            }
        }
        self.findings.image_end_offset = geometry.offset(last);
        Ok(())
    }

    /// Whether the marks of clusters that are used once are right in the active tables.
    fn check_marks(&mut self) -> Result<(), BlockError> {
        let wrong = self.wrong_marks()?;
        self.findings.corruptions = self.findings.corruptions.saturating_add(wrong);
        Ok(())
    }

    fn fix_marks(&mut self) -> Result<(), BlockError> {
        let wrong = self.wrong_marks()?;
        if wrong != 0 {
            self.meta.mark_all(self.node)?;
            self.findings.corruptions_fixed = self.findings.corruptions_fixed.saturating_add(wrong);
        }
        Ok(())
    }

    fn wrong_marks(&mut self) -> Result<u64, BlockError> {
        let geometry = self.meta.geometry;
        let mut wrong = 0u64;
        for slot in self.meta.l1.clone() {
            let Ok(Some(table)) = l2_offset(geometry, slot) else {
                continue;
            };
            if geometry.index(table) >= self.end {
                continue;
            }
            let once = self.meta.refcounts.get(self.node, geometry.index(table))? == 1;
            wrong = wrong.saturating_add(u64::from(once != (slot & COPIED != 0)));
            for index in 0..geometry.l2_entries() {
                let Ok(entry) = self.meta.entry_of(self.node, table, index) else {
                    continue;
                };
                let Some(host) = entry.host else {
                    continue;
                };
                let once = geometry.has_data_file
                    || self.meta.refcounts.get(self.node, geometry.index(host))? == 1;
                wrong = wrong.saturating_add(u64::from(once != entry.copied));
            }
        }
        Ok(wrong)
    }
}
