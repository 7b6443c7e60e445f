//! Accesses that share one check of their addresses.
//!
//! Accesses at different offsets from the same address, as of a stack or a structure, mostly lie in one
//! page. The first of a group checks that all of them do; the others use the host's address that it found.
//! If they do not, or the page is not plain RAM that is at hand, the unit is left before the instruction of
//! the first, for one of the same code that shares nothing.

use accel_core::Effects;
use accel_ir::{Binary, End, Op, Slot, Ty, Unit, Val};
use accel_softmmu::recent_layout as recent;

use super::plan::{Base, Plan};

/// Most bytes between the first and the last access of a group.
const MOST_SPAN: i64 = 256;
/// Most groups at a time: each holds a register.
const MOST_OPEN: usize = 2;

/// An access of a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Shared {
    /// The block it is in, and its number there.
    at: (u32, u32),
    /// Number of the group.
    pub(super) group: u32,
    /// Where it is, counted from the access at the highest address: not positive.
    pub(super) offset: i32,
    /// Whether it is the first.
    pub(super) leads: bool,
}

/// A group of accesses.
#[derive(Clone, Copy, Debug)]
pub(super) struct Group {
    /// Accesses.
    pub(super) members: u16,
    /// Bytes from the lowest to the highest one.
    pub(super) span: i32,
    is_write: bool,
    ctx: u8,
    /// What the addresses are counted from.
    root: u32,
    low: i64,
    high: i64,
    /// The page last used that the first one looks at.
    entry: i32,
}

/// Groups of a unit, and the accesses in them in the order they come.
#[derive(Default)]
pub(super) struct Sharing {
    pub(super) groups: Vec<Group>,
    members: Vec<Shared>,
    /// What is known of each value: an address counted from some root, or a constant.
    known: Vec<Option<Known>>,
    slots: Slots,
    /// Groups that further accesses may join.
    open: Vec<usize>,
}

/// What is known of each slot's value.
#[derive(Default)]
struct Slots {
    /// With the time when it was found out.
    values: Vec<(u32, Option<Known>)>,
    /// What was known before this time does not count.
    since: u32,
}

impl Slots {
    fn forget(&mut self) {
        if self.values.is_empty() || self.since == u32::MAX {
            self.since = 0;
            self.values.clear();
            self.values.resize(256, (0, None));
        }
        self.since += 1;
    }

    fn get(&self, slot: Slot) -> Option<Known> {
        let (at, known) = *self.values.get(usize::from(slot.0))?;
        known.filter(|_| at == self.since)
    }

    fn set(&mut self, slot: u8, known: Option<Known>) {
        if let Some(value) = self.values.get_mut(usize::from(slot)) {
            *value = (self.since, known);
        }
    }
}

/// A value as a sum.
#[derive(Clone, Copy, PartialEq)]
struct Known {
    /// 0 for constants.
    root: u32,
    offset: i64,
}

/// An access as groups see it.
struct Access {
    addr: Val,
    ctx: u8,
    is_write: bool,
    /// It can be of a group.
    is_plain: bool,
}

impl Access {
    fn of(op: &Op) -> Option<Access> {
        let (addr, mem, is_write, is_plain) = match op {
            Op::Load { addr, mem, .. } => (addr, mem, false, true),
            Op::Store { addr, mem, .. } => (addr, mem, true, true),
            Op::Rmw { addr, mem, .. } | Op::Cas { addr, mem, .. } => (addr, mem, true, false),
            Op::Probe { addr, mem } => (addr, mem, true, true),
            _ => return None,
        };
        Some(Access {
            addr: *addr,
            ctx: mem.ctx,
            is_write,
            is_plain: is_plain && !mem.aligned,
        })
    }
}

impl Sharing {
    pub(super) fn clear(&mut self) {
        self.groups.clear();
        self.members.clear();
    }

    /// Finds those of a unit, whose plan says what addresses are made from.
    pub(super) fn make(&mut self, unit: &Unit, plan: &Plan, effects: fn(u16) -> Effects) {
        super::plan::renew(&mut self.known, unit.types.len(), None);
        self.slots.forget();
        self.open.clear();
        let mut roots = 0;
        // A helper may have held interrupts off for this instruction: the unit is not left before it.
        let mut is_held = false;
        for (i, block) in unit.blocks.iter().enumerate() {
            if i != 0 && !follows(unit, plan, i) {
                self.slots.forget();
                self.open.clear();
            }
            // Nothing of the instruction was done that must not be done again.
            let mut is_fresh = false;
            for (n, op) in block.ops.iter().enumerate() {
                match *op {
                    Op::Insn { .. } => is_fresh = !std::mem::take(&mut is_held),
                    Op::Const { d, value } => self.know(d, 0, value as i64),
                    Op::Get { d, slot } if unit.ty(d) == Ty::I64 => {
                        let known = self.slots.get(slot);
                        let found = known.unwrap_or_else(|| root(&mut roots));
                        self.slots.set(slot.0, Some(found));
                        self.know(d, found.root, found.offset);
                    }
                    Op::Set { slot, v } => {
                        let is_whole = unit.ty(v) == Ty::I64;
                        self.slots.set(slot.0, self.of(v).filter(|_| is_whole));
                    }
                    Op::SetV { slot, .. } => {
                        self.slots.set(slot.0, None);
                        self.slots.set(slot.0.wrapping_add(1), None);
                    }
                    Op::Binary { op, d, a, b } if unit.ty(d) == Ty::I64 => self.sum(op, d, a, b),
                    Op::Call { helper, .. } => {
                        let effects = effects(helper.0);
                        is_held |= effects.writes_regs;
                        if effects.writes_regs {
                            self.slots.forget();
                        }
                        if effects != Effects::PURE {
                            self.open.clear();
                            is_fresh = false;
                        }
                    }
                    ref op => {
                        if let Some(access) = Access::of(op) {
                            let at = (i as u32, n as u32);
                            self.access(&access, at, is_fresh, plan, &mut roots);
                            is_fresh = false;
                        }
                    }
                }
            }
        }
        self.settle();
    }

    fn know(&mut self, d: Val, root: u32, offset: i64) {
        self.known[d.0 as usize] = Some(Known { root, offset });
    }

    fn of(&self, v: Val) -> Option<Known> {
        self.known[v.0 as usize]
    }

    fn sum(&mut self, op: Binary, d: Val, a: Val, b: Val) {
        let (Some(a), Some(b)) = (self.of(a), self.of(b)) else {
            return;
        };
        let offset = match op {
            Binary::Add if a.root == 0 || b.root == 0 => a.offset.wrapping_add(b.offset),
            Binary::Sub if b.root == 0 => a.offset.wrapping_sub(b.offset),
            _ => return,
        };
        self.know(d, a.root.max(b.root), offset);
    }

    fn access(
        &mut self,
        access: &Access,
        at: (u32, u32),
        is_fresh: bool,
        plan: &Plan,
        roots: &mut u32,
    ) {
        let addr = access.addr.0 as usize;
        // Later ones of the same value are counted from it too.
        let known = *self.known[addr].get_or_insert_with(|| root(roots));
        let fits = |group: &Group| {
            let (low, high) = (group.low.min(known.offset), group.high.max(known.offset));
            access.is_plain
                && (group.is_write, group.ctx, group.root)
                    == (access.is_write, access.ctx, known.root)
                && high.checked_sub(low).is_some_and(|span| span <= MOST_SPAN)
        };
        let mut shared = Shared {
            at,
            group: 0,
            offset: 0,
            leads: false,
        };
        if let Some(n) = self.open.iter().copied().find(|n| fits(&self.groups[*n])) {
            let group = &mut self.groups[n];
            group.members = group.members.saturating_add(1);
            group.low = group.low.min(known.offset);
            group.high = group.high.max(known.offset);
            shared.group = n as u32;
            self.note(shared, known.offset);
            return;
        }
        let base = plan.base[addr];
        let entry = match base {
            Base::Slot(slot) => recent::entry(access.ctx, Some(slot)),
            Base::None => recent::entry(access.ctx, None),
            Base::Wild => -1,
        };
        // What announces stores of a group reads the page last used.
        let is_other = |n: &usize| {
            let group = &self.groups[*n];
            !(group.is_write && access.is_write && group.entry == entry)
        };
        self.open.retain(is_other);
        let is_wild_store = base == Base::Wild && access.is_write;
        if !access.is_plain || !is_fresh || known.root == 0 || is_wild_store {
            return;
        }
        if self.open.len() >= MOST_OPEN {
            self.open.remove(0);
        }
        self.open.push(self.groups.len());
        shared.group = self.groups.len() as u32;
        shared.leads = true;
        self.groups.push(Group {
            members: 1,
            span: 0,
            is_write: access.is_write,
            ctx: access.ctx,
            root: known.root,
            low: known.offset,
            high: known.offset,
            entry,
        });
        self.note(shared, known.offset);
    }

    /// Notes an access, its offset as low bits of the sum until the group is complete.
    fn note(&mut self, mut shared: Shared, offset: i64) {
        // Offsets of a group are near each other: their differences fit.
        shared.offset = offset as i32;
        self.members.push(shared);
    }

    /// Counts offsets from the highest access, and drops groups of one.
    fn settle(&mut self) {
        for group in &mut self.groups {
            group.span = (group.high - group.low) as i32;
        }
        let groups = &self.groups;
        self.members.retain_mut(|shared| {
            let group = &groups[shared.group as usize];
            shared.offset = shared.offset.wrapping_sub(group.high as i32);
            group.members > 1
        });
    }

    /// The group that an access is of.
    pub(super) fn find(&self, block: usize, op: usize) -> Option<Shared> {
        let at = (block as u32, op as u32);
        let n = self.members.binary_search_by_key(&at, |s| s.at).ok()?;
        Some(self.members[n])
    }
}

fn root(roots: &mut u32) -> Known {
    *roots += 1;
    Known {
        root: *roots,
        offset: 0,
    }
}

/// Whether a block is come to from the one before it only, and nothing is put elsewhere between them.
fn follows(unit: &Unit, plan: &Plan, block: usize) -> bool {
    let single = |b: u32| plan.blocks[b as usize].preds == 1;
    let leads_here = |b: u32| b as usize == block;
    let Some(before) = (0..block).rev().find(|b| plan.blocks[*b].is_emitted) else {
        return false;
    };
    match &unit.blocks[before].end {
        End::Jump { to, .. } => leads_here(to.0) && single(to.0),
        End::Branch { then, other, .. } => {
            (leads_here(then.0) || leads_here(other.0)) && single(then.0) && single(other.0)
        }
        _ => false,
    }
}
