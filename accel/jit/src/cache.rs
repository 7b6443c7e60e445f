//! Compiled units of one CPU: by what they are for, by page, by where their code is.

use accel_core::{Map, PageRef};

use crate::compile::{Compiled, Mark, Way};
use crate::memory::{AHEAD, CodeMemory, cell};
use crate::notes::Notes;
use crate::places::ByPlace;
use crate::ring::Ring;
use crate::table;

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
    /// Its accesses share no checks.
    pub(crate) is_wary: bool,
}

impl Key {
    fn hash(&self) -> u64 {
        let words = [
            self.va,
            self.page,
            self.mode,
            self.extra,
            self.is_wary.into(),
        ];
        words.iter().fold(0, |hash: u64, word| {
            // Pages often lie in the guest as they do in the host: bits must not meet before they are mixed.
            (hash ^ word)
                .wrapping_mul(0x9e37_79b9_7f4a_7c15)
                .rotate_left(29)
        })
    }
}

/// A compiled unit, by its place and by how often that was used before: no two are the same.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Id {
    place: u32,
    turn: u32,
}

/// The places of units, in slabs: there is no more memory than for the most that ever were.
#[derive(Default)]
struct Blocks {
    slabs: Vec<Box<[Option<Block>]>>,
    /// How often each place was used.
    turns: Vec<u32>,
    free: Vec<u32>,
}

/// Places in a slab.
const SLAB: usize = 64;

impl Blocks {
    fn insert(&mut self, block: Block) -> Id {
        let place = self.free.pop().unwrap_or_else(|| {
            if self.turns.len().is_multiple_of(SLAB) {
                self.slabs.push((0..SLAB).map(|_| None).collect());
            }
            self.turns.push(0);
            self.turns.len() as u32 - 1
        });
        let turn = &mut self.turns[place as usize];
        *turn = turn.wrapping_add(1);
        let id = Id { place, turn: *turn };
        if let Some(found) = self.place_of(id) {
            *found = Some(block);
        }
        id
    }

    /// A unit's place, if it is still its own.
    fn place_of(&mut self, id: Id) -> Option<&mut Option<Block>> {
        let place = id.place as usize;
        let is_current = self.turns.get(place) == Some(&id.turn);
        let slab = self.slabs.get_mut(place / SLAB)?;
        slab.get_mut(place % SLAB).filter(|_| is_current)
    }

    fn get(&self, id: Id) -> Option<&Block> {
        let place = id.place as usize;
        let is_current = self.turns.get(place) == Some(&id.turn);
        let block = self.slabs.get(place / SLAB)?.get(place % SLAB)?.as_ref();
        block.filter(|_| is_current)
    }

    fn get_mut(&mut self, id: Id) -> Option<&mut Block> {
        self.place_of(id)?.as_mut()
    }

    fn remove(&mut self, id: Id) -> Option<Block> {
        let block = self.place_of(id)?.take()?;
        self.free.push(id.place);
        Some(block)
    }

    /// Empties all places.
    fn clear(&mut self) {
        for (place, block) in (0..).zip(self.slabs.iter_mut().flatten()) {
            if block.take().is_some() {
                self.free.push(place);
            }
        }
    }
}

/// A compiled unit. There are tens of thousands: what few of them have is elsewhere, and nothing is in two
/// places.
pub(crate) struct Block {
    // --- what it is for, as in `Key`
    va: u64,
    page: u64,
    mode: u64,
    extra: u64,
    is_wary: bool,
    // ---
    /// Offset and length of its code.
    start: u32,
    len: u32,
    notes: Notes,
    /// The granules of the first page that it was read from.
    granules: u64,
    /// Ways of others that are linked to it.
    incoming: Vec<(Id, u16)>,
    rare: Option<Box<Rare>>,
    /// It ends with a computed jump.
    computes: bool,
    /// Times it was about to run when a slice ended.
    pub(crate) heat: u8,
}

const _: () = assert!(size_of::<Option<Block>>() <= 104);

/// What few units have.
#[derive(Default)]
struct Rare {
    /// The PC it begins at, if that is not the address it was fetched from.
    pc: Option<u64>,
    /// Other pages that it was read from, and their granules: of regions and what crosses into another page.
    more_pages: Box<[(u64, u64)]>,
    /// Pages beside the first that it is from, and the identities that the code checks them for.
    others: Box<[(u64, u32)]>,
    /// What only regions have.
    region_parts: Option<RegionParts>,
    /// The region that is run in its place.
    region: Option<Id>,
    /// Where its computed jump went so far.
    went: Vec<u64>,
}

/// What a region has beside what all units have.
struct RegionParts {
    /// What leaves its code when that was overwritten.
    stale: usize,
    /// Its units and how many targets of each one's computed jump were known.
    shape: Box<[(u64, usize)]>,
}

impl Block {
    /// What it is for.
    pub(crate) fn key(&self) -> Key {
        Key {
            va: self.va,
            page: self.page,
            mode: self.mode,
            extra: self.extra,
            is_wary: self.is_wary,
        }
    }

    /// The PC it begins at.
    pub(crate) fn pc(&self) -> u64 {
        self.rare().and_then(|rare| rare.pc).unwrap_or(self.va)
    }

    /// Offset of its code.
    pub(crate) fn start(&self) -> usize {
        self.start as usize
    }

    /// Bytes of its code.
    pub(crate) fn len(&self) -> usize {
        self.len as usize
    }

    fn rare(&self) -> Option<&Rare> {
        self.rare.as_deref()
    }

    fn rare_mut(&mut self) -> &mut Rare {
        self.rare.get_or_insert_default()
    }

    fn region_parts(&self) -> Option<&RegionParts> {
        self.rare()?.region_parts.as_ref()
    }

    /// Pages beside the first that it is from, and the identities that the code checks them for.
    pub(crate) fn others(&self) -> &[(u64, u32)] {
        self.rare().map_or(&[], |rare| &rare.others)
    }

    /// Where its computed jump went so far.
    pub(crate) fn went(&self) -> &[u64] {
        self.rare().map_or(&[], |rare| &rare.went)
    }

    /// Whether it is a region.
    pub(crate) fn is_region(&self) -> bool {
        self.region_parts().is_some()
    }

    /// Its units and how many targets of each one's computed jump were known, if it is a region.
    pub(crate) fn shape(&self) -> &[(u64, usize)] {
        self.region_parts().map_or(&[], |parts| &parts.shape)
    }

    /// Its instructions.
    pub(crate) fn insns(&self) -> usize {
        self.notes.insns()
    }

    /// Where an instruction's code is.
    pub(crate) fn mark(&self, insn: usize) -> Option<Mark> {
        self.notes.marks(self.pc()).nth(insn)
    }

    /// The pages that it was read from, and their granules.
    pub(crate) fn pages(&self) -> impl Iterator<Item = (u64, u64)> + '_ {
        let more = self.rare().map_or(&[][..], |rare| &rare.more_pages);
        std::iter::once((self.page, self.granules)).chain(more.iter().copied())
    }

    /// Whether it was made from any of these granules of a page.
    pub(crate) fn reads(&self, page: u64, granules: u64) -> bool {
        self.pages()
            .any(|(id, read)| id == page && read & granules != 0)
    }

    fn note_target(&mut self, pc: u64) {
        let went = &mut self.rare_mut().went;
        if went.len() < MOST_TARGETS && !went.contains(&pc) {
            went.push(pc);
        }
    }

    /// PCs that it leads to, as far as they are known.
    pub(crate) fn targets(&self) -> impl Iterator<Item = u64> + '_ {
        let ways = self.notes.ways(self.pc()).filter(|way| !way.is_wary);
        let ways = ways.map(|way| way.pc);
        ways.chain(self.went().iter().copied())
    }

    /// The number of the instruction that a return address belongs to.
    pub(crate) fn insn_of(&self, at: usize) -> Option<usize> {
        let at = u32::try_from(at.checked_sub(self.start())?).ok()?;
        let site = self.notes.sites().find(|site| site.at == at)?;
        Some(site.insn.into())
    }

    /// A way out, by its number.
    fn way(&self, way: u16) -> Option<Way> {
        self.notes.ways(self.pc()).nth(way.into())
    }

    /// The way out whose stub a return address belongs to.
    pub(crate) fn way_of(&self, at: usize) -> Option<(u16, Way)> {
        let at = u32::try_from(at.checked_sub(self.start())?).ok()?;
        let mut ways = (0..).zip(self.notes.ways(self.pc()));
        ways.find(|(_, way)| way.site == at)
    }

    /// The instruction before which code was overwritten by a call that returns to this address.
    pub(crate) fn mark_of(&self, at: usize) -> Option<usize> {
        let at = u32::try_from(at.checked_sub(self.start() + CALL)?).ok()?;
        self.notes.marks(self.pc()).position(|m| m.at == at)
    }
}

/// Most targets of a computed jump that are remembered.
const MOST_TARGETS: usize = 24;
/// What units' code begins at multiples of.
const CHUNK: usize = 16;
/// Bytes of a call, or of a jump.
const CALL: usize = 5;
/// The opcode of a call.
const CALLS: u8 = 0xe8;
/// The opcode of a jump.
const JMP: u8 = 0xe9;

/// Bytes of code after which what was written before has settled: most ways are linked soon.
const SETTLES_AFTER: usize = 1 << 20;

/// All compiled units of a CPU.
pub(crate) struct Cache {
    pub(crate) memory: std::sync::Arc<CodeMemory>,
    blocks: Blocks,
    /// By the hash of what they are for.
    index: Map<u64, Id>,
    by_place: ByPlace,
    by_page: Map<u64, Vec<Id>>,
    /// Where the first unit's code may be: behind the thunks.
    first: usize,
    next: usize,
    ring: Ring,
    /// End of the piece that is being filled.
    end: usize,
    /// Bytes of code of units that are alive.
    used: usize,
    /// Units found lately, by address.
    recent: Box<[Option<(Key, Id)>]>,
    /// Where calls returned to lately: offset, and the instruction's PC and number from 1.
    sites: Box<[(usize, u64, u64)]>,
    /// For packing what is noted of units.
    room: Vec<u8>,
    /// Where calls of ways that are not linked go.
    link: usize,
    /// How often code was forgotten, that calls not returned from may be of.
    forgotten: u64,
    /// A page of each block of memory that units are from: as long as the block lives, no other is where
    /// it is.
    memories: Vec<PageRef>,
}

/// Units and sites remembered, each; a power of two.
const RECENT: usize = 1024;

impl Cache {
    pub(crate) fn new(memory: std::sync::Arc<CodeMemory>, first: usize, link: usize) -> Self {
        let first = first.next_multiple_of(CHUNK);
        let end = cell::CODE + memory.len();
        let mut cache = Cache {
            memory,
            blocks: Blocks::default(),
            index: Map::default(),
            by_place: ByPlace::default(),
            by_page: Map::default(),
            first,
            next: first,
            ring: Ring::new(end.saturating_sub(first), CHUNK),
            end: first,
            used: 0,
            recent: vec![None; RECENT].into(),
            sites: vec![(0, 0, 0); RECENT].into(),
            room: Vec::new(),
            link,
            forgotten: 0,
            memories: Vec::new(),
        };
        cache.next_piece();
        cache
    }

    /// Begins the next piece. Whether code may be in it.
    fn next_piece(&mut self) -> bool {
        let (piece, is_old) = self.ring.advance();
        self.next = self.first + piece * self.ring.size();
        self.end = self.next + self.ring.size();
        is_old
    }

    /// Most bytes that one unit's code may have: all of a piece. No chunk is in two pieces, as it is one
    /// unit's.
    pub(crate) fn largest(&self) -> usize {
        self.ring.size()
    }

    /// How often code was forgotten.
    pub(crate) fn forgotten(&self) -> u64 {
        self.forgotten
    }

    /// Bytes that code may take by now.
    pub(crate) fn room(&self) -> usize {
        self.ring.room()
    }

    /// Units alive, and bytes of their code.
    pub(crate) fn size(&self) -> (usize, usize) {
        (self.by_place.len(), self.used)
    }

    /// The unit for this, without remembering that it was asked for.
    pub(crate) fn known(&self, key: &Key) -> Option<Id> {
        let id = *self.index.get(&key.hash())?;
        self.get(id).filter(|block| block.key() == *key)?;
        Some(id)
    }

    pub(crate) fn find(&mut self, key: &Key) -> Option<Id> {
        let slot = (key.va ^ key.va >> 10) as usize & (RECENT - 1);
        if let Some((found, id)) = self.recent[slot]
            && found == *key
        {
            return Some(id);
        }
        let id = self.known(key)?;
        self.recent[slot] = Some((*key, id));
        Some(id)
    }

    /// The PC of the instruction that a return address belongs to, and its number in its unit from 1.
    pub(crate) fn insn_at(&mut self, at: usize) -> Option<(u64, u64)> {
        let slot = at & (RECENT - 1);
        let (known, pc, nth) = self.sites[slot];
        if known == at {
            return Some((pc, nth));
        }
        let (_, block) = self.at(at)?;
        let insn = block.insn_of(at)?;
        let mark = block.mark(insn)?;
        let (pc, nth) = (mark.pc, u64::from(mark.done) + 1);
        self.sites[slot] = (at, pc, nth);
        Some((pc, nth))
    }

    pub(crate) fn get(&self, id: Id) -> Option<&Block> {
        self.blocks.get(id)
    }

    pub(crate) fn get_mut(&mut self, id: Id) -> Option<&mut Block> {
        self.blocks.get_mut(id)
    }

    /// The unit whose code an offset lies in or just behind.
    pub(crate) fn at(&self, at: usize) -> Option<(Id, &Block)> {
        let id = self.by_place.before(at)?;
        let block = self.get(id)?;
        (at <= block.start() + block.len()).then_some((id, block))
    }

    /// Where the next unit's code will be.
    pub(crate) fn origin(&self) -> usize {
        self.next
    }

    /// Whether code of this length fits at `origin`. If not, frees the oldest piece, and the code must be
    /// made again for the new origin.
    pub(crate) fn make_room(&mut self, len: usize) -> bool {
        if self.next + len <= self.end {
            return true;
        }
        if self.next_piece() {
            for id in self.by_place.within(self.next, self.end) {
                if let Some(hash) = self.get(id).map(|block| block.key().hash()) {
                    self.ring.drive_out(hash);
                }
                self.kill(id);
            }
            self.sites.fill((0, 0, 0));
        }
        false
    }

    /// Keeps a unit compiled for `origin`.
    pub(crate) fn insert(
        &mut self,
        key: Key,
        pc: u64,
        compiled: &Compiled,
        pages: (PageRef, Vec<PageRef>),
        others: Vec<(u64, u32)>,
    ) -> Id {
        // Another unit with this hash has to go too.
        if let Some(old) = self.index.get(&key.hash()) {
            self.kill(*old);
        }
        let id = self.keep(key, pc, compiled, pages, others);
        self.index.insert(key.hash(), id);
        self.ring.note_made(key.hash());
        id
    }

    /// Keeps a region compiled for `origin`, which is run in place of a unit from now on.
    pub(crate) fn insert_region(
        &mut self,
        unit: Id,
        key: Key,
        compiled: &Compiled,
        shape: Box<[(u64, usize)]>,
        pages: (PageRef, Vec<PageRef>),
        others: Vec<(u64, u32)>,
    ) {
        if let Some(old) = self.region_of(unit) {
            self.kill(old);
        }
        let id = self.keep(key, key.va, compiled, pages, others);
        if let Some(region) = self.blocks.get_mut(id) {
            let stale = compiled.stale.unwrap_or(region.start());
            region.rare_mut().region_parts = Some(RegionParts { stale, shape });
        }
        let Some(block) = self.blocks.get_mut(unit) else {
            return;
        };
        block.rare_mut().region = Some(id);
        let (pc, start) = (block.pc(), block.start());
        let incoming = std::mem::take(&mut block.incoming);
        table::remove(&self.memory, pc, start);
        self.unlink(&incoming);
    }

    /// Notes where a computed jump went.
    pub(crate) fn note_target(&mut self, site: usize, pc: u64) {
        let id = self.at(site).map(|(id, _)| id);
        if let Some(block) = id.and_then(|id| self.get_mut(id)) {
            block.note_target(pc);
        }
    }

    /// Notes where a unit's computed jump went last.
    pub(crate) fn learn(&mut self, id: Id) {
        let Some(block) = self.blocks.get_mut(id).filter(|block| block.computes) else {
            return;
        };
        if let Some(target) = table::last(&self.memory, block.pc()) {
            block.note_target(target);
        }
    }

    /// The region that is run in place of a unit.
    pub(crate) fn region_of(&self, unit: Id) -> Option<Id> {
        let id = self.get(unit)?.rare()?.region?;
        self.blocks.get(id).map(|_| id)
    }

    fn keep(
        &mut self,
        key: Key,
        pc: u64,
        compiled: &Compiled,
        (page, more_pages): (PageRef, Vec<PageRef>),
        others: Vec<(u64, u32)>,
    ) -> Id {
        let start = self.next;
        debug_assert!(start.is_multiple_of(CHUNK));
        self.memory.write(start, &compiled.code);
        let len = compiled.code.len();
        // Code begins at multiples of 16, where the host fetches best.
        self.next = (start + len).next_multiple_of(CHUNK).min(self.end);
        if start / AHEAD != self.next / AHEAD {
            self.memory.prepare(self.next);
        }
        if start / SETTLES_AFTER != self.next / SETTLES_AFTER {
            self.memory.settle(start);
        }
        self.used += len;
        for page in std::iter::once(&page).chain(&more_pages) {
            let is_same = |known: &PageRef| known.block_id() == page.block_id();
            if !self.memories.iter().any(is_same) {
                self.memories.push(page.clone());
            }
        }
        let pc_elsewhere = Some(pc).filter(|pc| *pc != key.va);
        let has_more = !more_pages.is_empty() || !others.is_empty() || pc_elsewhere.is_some();
        let rare = has_more.then(|| {
            let more_pages = more_pages.iter();
            Box::new(Rare {
                pc: pc_elsewhere,
                more_pages: more_pages.map(|p| (p.page_id(), p.granules())).collect(),
                others: others.into(),
                ..Rare::default()
            })
        });
        let block = Block {
            va: key.va,
            page: page.page_id(),
            mode: key.mode,
            extra: key.extra,
            is_wary: key.is_wary,
            start: start as u32,
            len: len as u32,
            notes: Notes::of(compiled, pc, &mut self.room),
            granules: page.granules(),
            incoming: Vec::new(),
            rare,
            computes: compiled.computes,
            heat: 0,
        };
        let id = self.blocks.insert(block);
        if let Some(block) = self.blocks.get(id) {
            for (page, _) in block.pages() {
                let ids = self.by_page.entry(page).or_default();
                if ids.last() != Some(&id) {
                    ids.push(id);
                }
            }
        }
        self.by_place.insert(start, id);
        id
    }

    /// Has a unit's way out go to another unit at once. `page` is the identity of the target's page
    /// where the way checks it.
    pub(crate) fn link(&mut self, from: Id, way: u16, to: Id, page: u32) {
        let Some(source) = self.get(from) else {
            return;
        };
        let (start, Some(found)) = (source.start(), source.way(way)) else {
            return;
        };
        let Some(target) = self.blocks.get_mut(to) else {
            return;
        };
        // A way is linked anew when its page was mapped elsewhere in between.
        let mut incoming = std::mem::take(&mut target.incoming);
        let start_of_target = target.start();
        if !incoming.contains(&(from, way)) {
            if incoming.len() == incoming.capacity() {
                incoming.retain(|(source, _)| self.blocks.get(*source).is_some());
                // Most have one.
                incoming.reserve_exact(incoming.len().max(1));
            }
            incoming.push((from, way));
        }
        if let Some(target) = self.blocks.get_mut(to) {
            target.incoming = incoming;
        }
        if let Some(check) = found.check {
            let at = start + check.get() as usize - 4;
            self.memory.patch(at, page.to_le_bytes());
        }
        let jump = start + found.jump as usize;
        if found.site == found.jump {
            self.memory.write(jump - CALL, &[JMP]);
        }
        self.point(jump, start_of_target);
    }

    /// Has the jump that ends at an offset go to another one.
    fn point(&self, jump_end: usize, to: usize) {
        let distance = to as i64 - jump_end as i64;
        self.memory
            .patch(jump_end - 4, (distance as i32).to_le_bytes());
    }

    /// Forgets a unit: nothing leads to it any more.
    fn kill(&mut self, id: Id) {
        let Some(block) = self.blocks.remove(id) else {
            return;
        };
        self.forgotten = self.forgotten.wrapping_add(1);
        for (page, _) in block.pages() {
            if let Some(ids) = self.by_page.get_mut(&page) {
                ids.retain(|other| *other != id);
                if ids.is_empty() {
                    self.by_page.remove(&page);
                }
            }
        }
        let hash = block.key().hash();
        if self.index.get(&hash) == Some(&id) {
            self.index.remove(&hash);
        }
        let slot = (block.va ^ block.va >> 10) as usize & (RECENT - 1);
        if self.recent[slot].is_some_and(|(_, found)| found == id) {
            self.recent[slot] = None;
        }
        self.by_place.remove(block.start());
        self.used -= block.len();
        table::remove(&self.memory, block.pc(), block.start());
        self.unlink(&block.incoming);
    }

    /// Has ways lead nowhere again.
    fn unlink(&self, ways: &[(Id, u16)]) {
        for (from, way) in ways {
            if let Some(source) = self.get(*from)
                && let Some(way) = source.way(*way)
            {
                let jump = source.start() + way.jump as usize;
                if way.site == way.jump {
                    self.memory.write(jump - CALL, &[CALLS]);
                    self.point(jump, self.link);
                } else {
                    self.point(jump, source.start() + way.site as usize - CALL);
                }
            }
        }
    }

    /// Forgets all units with code of these granules of a page. Returns how many.
    pub(crate) fn kill_code(&mut self, page: u64, granules: u64) -> u64 {
        let Some(mut ids) = self.by_page.remove(&page) else {
            return 0;
        };
        let mut count = 0;
        ids.retain(|id| {
            let Some(block) = self.get(*id) else {
                return false;
            };
            if !block.reads(page, granules) {
                return true;
            }
            self.kill(*id);
            count += 1;
            false
        });
        if !ids.is_empty() {
            self.by_page.insert(page, ids);
        }
        count
    }

    /// Overwrites the code of an instruction by a call, unless it is a unit's first: at the end of a unit
    /// that may overwrite code last, the budget is looked at.
    pub(crate) fn divert(&self, id: Id, mark: usize, to: usize) {
        if let Some(block) = self.get(id)
            && let Some(mark) = block.mark(mark)
            && !mark.is_first
        {
            let to = block.region_parts().map_or(to, |parts| parts.stale);
            let at = block.start() + mark.at as usize;
            let distance = to as i64 - (at + CALL) as i64;
            let mut call = [CALLS, 0, 0, 0, 0];
            call[1..].copy_from_slice(&(distance as i32).to_le_bytes());
            self.memory.write(at, &call);
        }
    }

    /// Forgets everything.
    pub(crate) fn clear(&mut self) {
        self.forgotten = self.forgotten.wrapping_add(1);
        for id in self.by_place.take() {
            if let Some(block) = self.get(id) {
                table::remove(&self.memory, block.pc(), block.start());
            }
        }
        self.blocks.clear();
        self.memories.clear();
        self.recent.fill(None);
        self.sites.fill((0, 0, 0));
        self.index = Map::default();
        self.by_page = Map::default();
        self.ring.clear();
        self.next_piece();
        self.used = 0;
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::Id;

    /// Some unit's.
    pub(crate) fn id(place: u32) -> Id {
        Id { place, turn: 1 }
    }
}
