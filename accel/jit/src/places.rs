//! Which unit's code an address is in.

use crate::cache::Id;

/// log2 of the bytes that have a list of their own.
const PART_BITS: u32 = 12;

/// Units by where their code begins: for each part of the code memory, those that begin in it, in order.
#[derive(Default)]
pub(crate) struct ByPlace {
    parts: Vec<Vec<(u16, Id)>>,
    count: usize,
}

fn part_of(at: usize) -> (usize, u16) {
    (at >> PART_BITS, (at & ((1 << PART_BITS) - 1)) as u16)
}

impl ByPlace {
    /// Units that are noted.
    pub(crate) fn len(&self) -> usize {
        self.count
    }

    pub(crate) fn insert(&mut self, start: usize, id: Id) {
        let (part, offset) = part_of(start);
        if self.parts.len() <= part {
            self.parts.resize_with(part + 1, Vec::new);
        }
        let list = &mut self.parts[part];
        // Mostly it is the last.
        if list.last().is_none_or(|(other, _)| *other < offset) {
            list.push((offset, id));
            self.count += 1;
            return;
        }
        let at = list.partition_point(|(other, _)| *other < offset);
        match list.get_mut(at) {
            Some(found) if found.0 == offset => found.1 = id,
            _ => {
                list.insert(at, (offset, id));
                self.count += 1;
            }
        }
    }

    pub(crate) fn remove(&mut self, start: usize) {
        let (part, offset) = part_of(start);
        let Some(list) = self.parts.get_mut(part) else {
            return;
        };
        if let Ok(at) = list.binary_search_by_key(&offset, |(other, _)| *other) {
            list.remove(at);
            self.count -= 1;
        }
    }

    /// The last unit that begins before an offset.
    pub(crate) fn before(&self, at: usize) -> Option<Id> {
        let (part, offset) = part_of(at);
        if let Some(list) = self.parts.get(part) {
            let n = list.partition_point(|(other, _)| *other < offset);
            if let Some((_, id)) = list.get(n.wrapping_sub(1)) {
                return Some(*id);
            }
        }
        let earlier = self.parts.get(..part.min(self.parts.len()))?;
        let (_, id) = earlier.iter().rev().find_map(|list| list.last())?;
        Some(*id)
    }

    /// Units that begin in a range.
    pub(crate) fn within(&self, from: usize, to: usize) -> Vec<Id> {
        let parts = from >> PART_BITS..(to >> PART_BITS) + 1;
        let mut found = Vec::new();
        for part in parts {
            let list = self.parts.get(part).into_iter().flatten();
            let start = |offset: u16| (part << PART_BITS) + usize::from(offset);
            let inside = list.filter(|(offset, _)| (from..to).contains(&start(*offset)));
            found.extend(inside.map(|(_, id)| *id));
        }
        found
    }

    /// Forgets all, and says which they were.
    pub(crate) fn take(&mut self) -> impl Iterator<Item = Id> + use<> {
        self.count = 0;
        let parts = std::mem::take(&mut self.parts);
        parts.into_iter().flatten().map(|(_, id)| id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::tests::id;

    #[test]
    fn the_unit_before_an_address_may_begin_parts_earlier() {
        let mut places = ByPlace::default();
        for (n, start) in [0x40, 0x100, 0x9000].into_iter().enumerate() {
            places.insert(start, id(n as u32));
        }
        let before = |at| places.before(at);
        assert_eq!(before(0x40), None);
        assert_eq!(before(0x41), Some(id(0)));
        assert_eq!(before(0x101), Some(id(1)));
        assert_eq!(before(0x9000), Some(id(1)));
        assert_eq!(before(0x9001), Some(id(2)));
        assert_eq!(before(0x100_0000), Some(id(2)));
    }

    #[test]
    fn what_is_taken_out_is_not_found() {
        let mut places = ByPlace::default();
        for n in 0..100 {
            places.insert(n * 0x110, id(n as u32));
        }
        assert_eq!(places.len(), 100);
        places.remove(0x110);
        places.remove(0x111);
        assert_eq!((places.len(), places.before(0x200)), (99, Some(id(0))));
        let range = places.within(0x220, 0x1100);
        assert_eq!(range, (2..16).map(id).collect::<Vec<_>>());
        assert_eq!(places.take().count(), 99);
        assert_eq!((places.len(), places.before(0x9000)), (0, None));
    }
}
