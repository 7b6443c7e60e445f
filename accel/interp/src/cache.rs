//! The units of one CPU: all of them by key, the recent ones by address.

use accel_core::{Map, PageRef};

use crate::code::Code;

/// Units kept; when there are more, all are dropped and what is still used is made again.
const LIMIT: usize = 1 << 17;
/// Recent units; a power of two.
const RECENT: usize = 1 << 15;
/// An empty entry of the recent ones.
const NONE: u32 = u32::MAX;

/// What a unit is for: everything its translation depended on.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) struct Key {
    /// Address fetched from.
    pub(crate) va: u64,
    /// Identity of the physical page there.
    pub(crate) page: u64,
    /// The CPU's mode.
    pub(crate) mode: u64,
    /// What else the target named.
    pub(crate) extra: u64,
    /// Made for one instruction at a time.
    pub(crate) single: bool,
}

/// All units of a CPU.
pub(crate) struct Cache {
    units: Vec<(Key, Code)>,
    index: Map<Key, u32>,
    recent: Vec<u32>,
}

impl Default for Cache {
    fn default() -> Self {
        Cache {
            units: Vec::new(),
            index: Map::default(),
            recent: vec![NONE; RECENT],
        }
    }
}

impl Cache {
    #[inline(always)]
    fn slot(key: &Key) -> usize {
        (key.va ^ key.va >> 15).wrapping_add(key.mode.wrapping_mul(0x9e37_79b9)) as usize
            & (RECENT - 1)
    }

    /// A unit that is still what memory holds.
    #[inline(always)]
    pub(crate) fn find(&mut self, key: &Key) -> Option<usize> {
        let recent = self.recent[Self::slot(key)] as usize;
        if let Some((found, code)) = self.units.get(recent)
            && found == key
            && code.pages.iter().all(PageRef::is_current)
        {
            return Some(recent);
        }
        self.find_older(key)
    }

    #[inline(never)]
    fn find_older(&mut self, key: &Key) -> Option<usize> {
        let at = *self.index.get(key)?;
        let (_, code) = self.units.get(at as usize)?;
        if !code.pages.iter().all(PageRef::is_current) {
            return None;
        }
        self.recent[Self::slot(key)] = at;
        Some(at as usize)
    }

    /// Keeps a unit. Whether it took the place of one whose code was overwritten.
    pub(crate) fn insert(&mut self, key: Key, code: Code) -> (usize, bool) {
        if let Some(at) = self.index.get(&key).copied()
            && let Some(unit) = self.units.get_mut(at as usize)
        {
            unit.1 = code;
            self.recent[Self::slot(&key)] = at;
            return (at as usize, true);
        }
        if self.units.len() >= LIMIT {
            self.clear();
        }
        let at = self.units.len();
        self.units.push((key, code));
        self.index.insert(key, at as u32);
        self.recent[Self::slot(&key)] = at as u32;
        (at, false)
    }

    /// A unit found or inserted just now.
    #[inline(always)]
    pub(crate) fn get(&self, at: usize) -> Option<&Code> {
        self.units.get(at).map(|(_, code)| code)
    }

    /// Forgets everything.
    pub(crate) fn clear(&mut self) {
        self.units = Vec::new();
        self.index = Map::default();
        self.recent.fill(NONE);
    }
}
