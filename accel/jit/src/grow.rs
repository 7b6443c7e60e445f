//! Making regions: which units are hot, which loop they are of, and its code.
//!
//! What runs is seen by samples: the unit that is about to run when a slice ends. That costs nothing
//! while code runs. Units sampled a few times are the middle of a loop, mostly.

use accel_core::{Core, Source, Target};

use crate::cache::{Id, Key};
use crate::compile::{self, Member, Where};
use crate::graph::Graph;
use crate::run::Jit;

/// What [`Jit::hot`] is: a loop that was sampled so often has run long enough to be worth the work.
pub(crate) const HOT: u8 = 3;
/// Most units that are looked at for a region, at first: most that are sampled so often are of no loop, or a
/// small one.
const FEW_UNITS: usize = 16;
/// Most units that are looked at when that is not the first time.
const MOST_UNITS: usize = 64;
/// What was sampled so many times less often than a unit is not of its loop.
const COLDER: u8 = 8;
/// Most guest instructions of a region that are looked at.
const MOST_INSNS: usize = 1024;
/// Most pages that a region's code is from, beside the first.
const MOST_OTHERS: usize = 3;

/// A unit translated again, with what its code was read from.
struct Node {
    member: Member,
    source: Source,
}

impl<T: Target> Jit<T> {
    /// A slice has ended with this unit to run next.
    pub(crate) fn sample(&mut self, core: &mut Core<T>, id: Id) {
        let Some(block) = self.cache.get_mut(id) else {
            return;
        };
        block.heat = block.heat.saturating_add(1);
        let (heat, key) = (block.heat, block.key());
        self.cache.learn(id);
        let first = self.hot;
        match (0..4).find(|n| first.checked_shl(2 * n) == Some(heat)) {
            Some(0) => self.grow(core, key, FEW_UNITS),
            Some(_) => self.grow(core, key, MOST_UNITS),
            None => {}
        }
    }

    /// Makes a region of the loop that a unit is in, as far as that is found by looking at so many.
    fn grow(&mut self, core: &mut Core<T>, key: Key, most: usize) {
        let ctx = T::fetch_ctx(core);
        let is_flat = T::fetch_address(core) == core.pc() && key.extra == 0;
        if !is_flat || core.unit_limit() == 1 {
            return;
        }
        let mut graph = self.explore(core, key, ctx, most);
        if graph.pcs.first() != Some(&key.va) {
            return;
        }
        let Some(mut found) = graph.innermost(0) else {
            return;
        };
        // What is there already is only added to by what runs about as often: not by a loop around it.
        if let Some(known) = self.region_at(core, graph.pcs[found.units[0]], key, ctx) {
            let enough = self.heat_at(core, key.va, key, ctx) / COLDER;
            let mut is_warm =
                |pc: &u64| known.contains(pc) || self.heat_at(core, *pc, key, ctx) >= enough.max(1);
            let warm: Vec<bool> = graph.pcs.iter().map(&mut is_warm).collect();
            graph.keep(&warm);
            match graph.innermost(0) {
                Some(warm) => found = warm,
                None => return,
            }
        }
        let is_in = |pc: u64| found.units.iter().any(|i| graph.pcs[*i] == pc);
        let pc = core.pc();
        let (mut members, mut sources) = (Vec::new(), Vec::new());
        for va in found.units.iter().map(|i| graph.pcs[*i]) {
            let node = self.translate_in(core, Key { va, ..key }, ctx, is_in);
            core.set_pc(pc);
            let Some(node) = node else { return };
            members.push(node.member);
            sources.push(node.source);
        }
        self.make_region(core, key, ctx, members, sources, &found.weights);
    }

    /// The unit at a PC.
    fn unit_at(&mut self, core: &Core<T>, va: u64, like: Key, ctx: u8) -> Option<Id> {
        let page = core.mmu.fetch_page(ctx, va)?;
        self.cache.find(&Key { va, page, ..like })
    }

    /// The PCs of the units of the region that is run in place of the unit at a PC.
    fn region_at(&mut self, core: &Core<T>, va: u64, like: Key, ctx: u8) -> Option<Vec<u64>> {
        let unit = self.unit_at(core, va, like, ctx)?;
        let region = self.cache.get(self.cache.region_of(unit)?)?;
        Some(region.shape().iter().map(|(pc, _)| *pc).collect())
    }

    /// How often the unit at a PC was sampled.
    fn heat_at(&mut self, core: &Core<T>, va: u64, like: Key, ctx: u8) -> u8 {
        let unit = self.unit_at(core, va, like, ctx);
        let block = unit.and_then(|id| self.cache.get(id));
        block.map_or(0, |block| block.heat)
    }

    /// Translates a unit that lies in one page, up to the last way that leads to a wanted PC.
    fn translate_in(
        &mut self,
        core: &mut Core<T>,
        key: Key,
        ctx: u8,
        is_wanted: impl Fn(u64) -> bool,
    ) -> Option<Node> {
        let page = core.mmu.fetch_page(ctx, key.va)?;
        let known = self.cache.find(&Key { page, ..key })?;
        let went = self.cache.get(known)?.went().to_vec();
        let whole = self.translate_at(core, key.va, ctx, u32::MAX, went)?;
        // What follows the last way within the loop is not part of it.
        let insns = compile::insns_to(&whole.member, is_wanted);
        if insns == whole.member.unit.insns {
            return Some(whole);
        }
        self.translate_at(core, key.va, ctx, insns, whole.member.went)
    }

    /// Translates a unit of up to `limit` instructions that lies in one page.
    fn translate_at(
        &self,
        core: &mut Core<T>,
        va: u64,
        ctx: u8,
        limit: u32,
        went: Vec<u64>,
    ) -> Option<Node> {
        core.set_pc(va);
        let limit = limit.clamp(1, core.unit_limit().max(1));
        let mut source = Source::new(core, va, ctx).ok()?;
        let unit = T::translate(core, &mut source, limit).ok()?;
        let at = Where {
            pc: va,
            is_flat: true,
            fetch_ctx: ctx,
            is_wary: false,
            others: Vec::new(),
        };
        let member = Member { unit, at, went };
        (!source.is_extended()).then_some(Node { member, source })
    }

    /// A unit and up to `most` that it leads to, as far as they have run before.
    fn explore(&mut self, core: &mut Core<T>, start: Key, ctx: u8, most: usize) -> Graph {
        let mut wanted = vec![start.va];
        // Of each one that is known: its number and where it leads.
        let mut known: Vec<(u64, Vec<u64>)> = Vec::new();
        let mut insns = 0;
        let mut next = 0;
        while let Some(va) = wanted.get(next).copied() {
            next += 1;
            let Some(page) = core.mmu.fetch_page(ctx, va) else {
                continue;
            };
            let key = Key { va, page, ..start };
            let Some(id) = self.cache.find(&key) else {
                continue;
            };
            self.cache.learn(id);
            let unit = self.cache.get(id);
            // Those that cross into another page are left out: reading them may fault.
            let Some(unit) = unit.filter(|unit| unit.others().is_empty()) else {
                continue;
            };
            insns += unit.insns();
            if insns > MOST_INSNS || known.len() >= most {
                break;
            }
            let to: Vec<u64> = unit.targets().collect();
            for pc in &to {
                if !wanted.contains(pc) {
                    wanted.push(*pc);
                }
            }
            known.push((va, to));
        }
        let index_of = |pc: &u64| known.iter().position(|(va, _)| va == pc);
        Graph {
            pcs: known.iter().map(|(va, _)| *va).collect(),
            to: known
                .iter()
                .map(|(_, to)| to.iter().filter_map(index_of).collect())
                .collect(),
        }
    }

    fn make_region(
        &mut self,
        core: &mut Core<T>,
        start: Key,
        ctx: u8,
        mut members: Vec<Member>,
        sources: Vec<Source>,
        weights: &[u64],
    ) {
        const PAGE: u64 = !0xfff;
        let Some(va) = members.first().map(|member| member.at.pc) else {
            return;
        };
        let mut others: Vec<(u64, u32)> = Vec::new();
        for member in &members {
            let page = member.at.pc & PAGE;
            if page != va & PAGE && !others.iter().any(|(other, _)| *other == page) {
                others.push((page, core.mmu.exec_id(ctx, page)));
            }
        }
        if others.len() > MOST_OTHERS || others.iter().any(|(_, id)| *id == 0) {
            return;
        }
        let Some(page) = core.mmu.fetch_page(ctx, va) else {
            return;
        };
        let key = Key { va, page, ..start };
        let Some(unit) = self.cache.find(&key) else {
            return;
        };
        let shape_of = |member: &Member| (member.at.pc, member.went.len());
        let shape: Box<[_]> = members.iter().map(shape_of).collect();
        let old = self.cache.region_of(unit).and_then(|id| self.cache.get(id));
        if old.is_some_and(|old| *old.shape() == *shape) {
            return;
        }
        if let Some(first) = members.first_mut() {
            first.at.others.clone_from(&others);
        }
        let mut pages = Vec::new();
        for source in sources {
            match source.track() {
                Some(tracked) if !tracked.is_empty() => pages.extend(tracked),
                _ => return,
            }
        }
        self.watch(core, &pages);
        for _ in 0..2 {
            let (env, shop) = (&self.env, &mut self.shop);
            let origin = self.cache.origin();
            let made = compile::compile_region(env, &members, weights, origin, shop);
            if made.is_err() {
                log::debug!("a loop at {va:#x} is too much for a region");
                return;
            }
            let len = shop.made.code.len();
            if len > self.cache.largest() {
                return;
            }
            if !self.cache.make_room(len) {
                continue;
            }
            if !pages.iter().all(accel_core::PageRef::is_current) {
                return;
            }
            let mut pages = pages.into_iter();
            let Some(page) = pages.next() else {
                return;
            };
            let pages = (page, pages.collect());
            self.show(core, va, "region");
            self.statistics.regions += 1;
            let made = &self.shop.made;
            self.cache
                .insert_region(unit, key, made, shape, pages, others);
            return;
        }
    }
}
