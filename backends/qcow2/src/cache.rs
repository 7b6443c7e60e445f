//! Tables of the image kept in memory: L2 tables and refcount blocks, a cluster each, written back
//! when [`Meta`](crate::meta::Meta) says so.

use std::collections::HashMap;

use backend_block::{BlockError, IoVector, Node};

use crate::bytes::{put, u64_at};

/// Bytes that are written together.
const WRITE_UNIT: usize = 4096;

struct Table {
    bytes: Box<[u8]>,
    /// Bytes that differ from the file: first and one past the last.
    dirty: Option<(usize, usize)>,
    used: u64,
}

/// A bounded number of tables, by their offset in the file.
pub(crate) struct Cache {
    tables: HashMap<u64, Table>,
    table_len: usize,
    limit: usize,
    clock: u64,
    dirty: usize,
}

impl Cache {
    /// Room for `bytes` of tables, and for some in any case.
    pub(crate) fn new(table_len: usize, bytes: u64) -> Self {
        Cache {
            tables: HashMap::new(),
            table_len,
            limit: Self::limit(table_len, bytes),
            clock: 0,
            dirty: 0,
        }
    }

    /// Room for `bytes` from now on: what is too much goes as others come.
    pub(crate) fn set_limit(&mut self, bytes: u64) {
        self.limit = Self::limit(self.table_len, bytes);
    }

    fn limit(table_len: usize, bytes: u64) -> usize {
        let bytes = usize::try_from(bytes).unwrap_or(usize::MAX);
        bytes.checked_div(table_len).unwrap_or(0).max(8)
    }

    fn touch(&mut self, node: &Node, offset: u64) -> Result<&mut Table, BlockError> {
        self.clock = self.clock.wrapping_add(1);
        let clock = self.clock;
        if !self.tables.contains_key(&offset) {
            let memory = IoVector::zeroed(self.table_len);
            node.read(offset, &memory)?;
            self.make_room();
            let table = Table {
                bytes: memory.to_vec().into_boxed_slice(),
                dirty: None,
                used: clock,
            };
            self.tables.insert(offset, table);
        }
        let table = self.tables.get_mut(&offset).ok_or(BlockError::Io)?;
        table.used = clock;
        Ok(table)
    }

    /// Drops the quarter of the clean tables that was used longest ago, when there are too many.
    fn make_room(&mut self) {
        if self.tables.len() < self.limit {
            return;
        }
        let clean = |table: &Table| table.dirty.is_none();
        let mut ages: Vec<u64> = (self.tables.values())
            .filter(|table| clean(table))
            .map(|table| table.used)
            .collect();
        ages.sort_unstable();
        let Some(&oldest) = ages.get(self.limit >> 2).or(ages.last()) else {
            return;
        };
        self.tables
            .retain(|_, table| !clean(table) || table.used > oldest);
    }

    /// Whether a table need not be read.
    pub(crate) fn holds(&self, offset: u64) -> bool {
        self.tables.contains_key(&offset)
    }

    /// Whether so much waits to be written that it should be.
    pub(crate) fn is_full(&self) -> bool {
        self.dirty >= self.limit >> 1
    }

    pub(crate) fn is_dirty(&self) -> bool {
        self.dirty != 0
    }

    /// The table's bytes.
    pub(crate) fn bytes(&mut self, node: &Node, offset: u64) -> Result<&[u8], BlockError> {
        Ok(&self.touch(node, offset)?.bytes)
    }

    /// Entry `index` of a table of 64-bit words.
    pub(crate) fn word(&mut self, node: &Node, offset: u64, index: u64) -> Result<u64, BlockError> {
        let at = usize::try_from(index.saturating_mul(8)).unwrap_or(usize::MAX);
        u64_at(self.bytes(node, offset)?, at).ok_or(BlockError::Corrupt)
    }

    /// Changes bytes of a table.
    pub(crate) fn put(
        &mut self,
        node: &Node,
        offset: u64,
        at: usize,
        value: &[u8],
    ) -> Result<(), BlockError> {
        let table = self.touch(node, offset)?;
        put(&mut table.bytes, at, value).ok_or(BlockError::Corrupt)?;
        let end = at.saturating_add(value.len());
        let was_clean = table.dirty.is_none();
        let (from, to) = table.dirty.unwrap_or((at, end));
        table.dirty = Some((from.min(at), to.max(end)));
        self.dirty = self.dirty.saturating_add(usize::from(was_clean));
        Ok(())
    }

    /// A table that is not in the file yet.
    pub(crate) fn create(&mut self, offset: u64, bytes: Vec<u8>) {
        self.forget(offset);
        self.make_room();
        self.clock = self.clock.wrapping_add(1);
        let table = Table {
            dirty: Some((0, bytes.len())),
            bytes: bytes.into_boxed_slice(),
            used: self.clock,
        };
        self.dirty = self.dirty.saturating_add(1);
        self.tables.insert(offset, table);
    }

    /// The table is no table any more.
    pub(crate) fn forget(&mut self, offset: u64) {
        let gone = self.tables.remove(&offset);
        if gone.is_some_and(|table| table.dirty.is_some()) {
            self.dirty = self.dirty.saturating_sub(1);
        }
    }

    /// Writes all that differs from the file, in the order of the file. What cannot be written stays.
    pub(crate) fn write_back(&mut self, node: &Node) -> Result<(), BlockError> {
        let dirty = self
            .tables
            .iter()
            .filter(|(_, table)| table.dirty.is_some());
        let mut offsets: Vec<u64> = dirty.map(|(offset, _)| *offset).collect();
        offsets.sort_unstable();
        for offset in offsets {
            let Some(table) = self.tables.get_mut(&offset) else {
                continue;
            };
            let Some((from, to)) = table.dirty else {
                continue;
            };
            let from = from & !WRITE_UNIT.wrapping_sub(1);
            let to = to.next_multiple_of(WRITE_UNIT).min(table.bytes.len());
            let part = table.bytes.get(from..to).ok_or(BlockError::Corrupt)?;
            node.write(offset.saturating_add(from as u64), &IoVector::from(part))?;
            table.dirty = None;
            self.dirty = self.dirty.saturating_sub(1);
        }
        Ok(())
    }
}
