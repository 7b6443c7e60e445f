//! What a unit needs, found before anything is emitted.

use super::share::Sharing;
use accel_core::Effects;
use accel_ir::{Binary, BlockId, End, FlagKind, Op, Ty, Unit, Val, Via};

/// A definition of the flags.
#[derive(Clone, Copy, Debug)]
pub(super) struct Def {
    pub(super) kind: FlagKind,
    pub(super) ty: Ty,
    pub(super) a: Val,
    pub(super) b: Val,
    pub(super) c: Option<Val>,
    /// The flags it defines may be looked at in the guest's state: outside the unit, by a helper, in
    /// an exception.
    pub(super) is_stored: bool,
    /// Operations of the unit that read them and are still to come.
    pub(super) reads: u32,
    block: usize,
}

/// What an address is made from, as far as that says where it leads.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Base {
    /// A guest register and constants.
    Slot(u8),
    /// Constants.
    None,
    /// Something loaded or computed from two registers.
    Wild,
}

/// A block.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct BlockPlan {
    /// Blocks that lead here.
    pub(super) preds: u32,
    /// Emitted in its place; not if it cannot be reached or is nothing but a way out.
    pub(super) is_emitted: bool,
    /// Does nothing but leave the unit to this PC.
    pub(super) goes_to: Option<u64>,
    /// The definition of the flags that it begins with, if that is known.
    seen: Option<u32>,
    /// Flags from before it may be looked at.
    is_live: bool,
}

/// Where a unit's computed jump is taken if it goes where it went so far: before its target is checked, which
/// those have passed.
#[derive(Clone, Copy)]
pub(super) struct Early {
    pub(super) block: usize,
    /// Before this operation.
    pub(super) op: usize,
    pub(super) target: Val,
}

/// What a unit needs.
#[derive(Default)]
pub(super) struct Plan {
    /// Uses of each value still to come.
    pub(super) rest: Vec<u16>,
    used: Vec<bool>,
    pub(super) defs: Vec<Def>,
    /// For each read of the flags, the definition it sees, if that is known.
    pub(super) seen: Vec<Option<u32>>,
    pub(super) blocks: Vec<BlockPlan>,
    /// What values are made from, if they are addresses.
    pub(super) base: Vec<Base>,
    /// Flags from before the unit may be looked at.
    pub(super) wants_flags: bool,
    /// Its last instruction may store.
    pub(super) stores_last: bool,
    /// Accesses that share checks.
    pub(super) sharing: Sharing,
    /// Where its computed jump is taken, if that is before the end.
    pub(super) early: Option<Early>,
    /// By instruction: the one before it may have stored.
    stored_before: Vec<bool>,
}

/// Makes a list this long, all elements the same, in the memory it has.
pub(super) fn renew<T: Clone>(list: &mut Vec<T>, len: usize, value: T) {
    list.clear();
    list.resize(len, value);
}

/// Whether an operation only computes its value.
pub(super) fn is_pure(op: &Op) -> bool {
    !matches!(
        op,
        Op::Insn { .. }
            | Op::Set { .. }
            | Op::SetV { .. }
            | Op::Load { .. }
            | Op::Store { .. }
            | Op::Probe { .. }
            | Op::Rmw { .. }
            | Op::Cas { .. }
            | Op::Fence
            | Op::FlagsDef { .. }
            | Op::Fp { .. }
            | Op::FpMulAdd { .. }
            | Op::FpFromInt { .. }
            | Op::FpToInt { .. }
            | Op::FpCompare { .. }
            | Op::Call { .. }
    )
}

/// Whether an operation may store to memory.
pub(super) fn stores(op: &Op, effects: fn(u16) -> Effects) -> bool {
    match op {
        Op::Store { .. } | Op::Rmw { .. } | Op::Cas { .. } => true,
        Op::Call { helper, .. } => effects(helper.0) != Effects::PURE,
        _ => false,
    }
}

fn successors(end: &End) -> impl Iterator<Item = usize> {
    let (a, b) = match end {
        End::Jump { to, .. } => (Some(to.0), None),
        End::Branch { then, other, .. } => (Some(then.0), Some(other.0)),
        _ => (None, None),
    };
    a.into_iter().chain(b).map(|b| b as usize)
}

impl Early {
    /// A computed jump that comes after nothing but a check that depends on its target alone.
    fn find(unit: &Unit, plan: &Plan) -> Option<Early> {
        let jump_at = |b: BlockId| {
            let block = unit.blocks.get(b.0 as usize)?;
            // What else leads there does not check it so.
            let is_sole = plan.blocks.get(b.0 as usize)?.preds == 1;
            match block.end {
                End::GotoVal { pc, via: Via::Jump } if is_sole && block.ops.is_empty() => Some(pc),
                _ => None,
            }
        };
        unit.blocks.iter().enumerate().find_map(|(i, block)| {
            let End::Branch { c, then, other } = block.end else {
                return None;
            };
            let target = jump_at(then).or_else(|| jump_at(other))?;
            let is_before = |op: &Op| {
                let is_read = matches!(op, Op::FlagsUse { .. } | Op::FlagsGet { .. });
                op.def() == Some(target) || is_read || !is_pure(op)
            };
            let op = block.ops.iter().rposition(is_before).map_or(0, |n| n + 1);
            let check = block.ops.get(op..)?;
            let is_wanted = plan.blocks.get(i)?.is_emitted && is_made(c, check, target);
            is_wanted.then_some(Early {
                block: i,
                op,
                target,
            })
        })
    }
}

/// Whether operations make a value, and all else, of another one and constants alone.
fn is_made(value: Val, ops: &[Op], of: Val) -> bool {
    let mut known = vec![of];
    let is_known = |op: &Op| {
        let mut is_known = !matches!(op, Op::Get { .. } | Op::GetV { .. });
        op.for_each_use(|v| is_known &= known.contains(&v));
        known.extend(op.def());
        is_known
    };
    ops.iter().all(is_known) && ops.iter().any(|op| op.def() == Some(value))
}

impl Plan {
    /// `live` says whether the flags may be looked at from a PC on that the unit leaves to; `is_known`, whether
    /// its computed jump is expected to go on in the region.
    pub(super) fn of(
        unit: &Unit,
        effects: fn(u16) -> Effects,
        live: &dyn Fn(u64) -> bool,
        is_known: bool,
    ) -> Plan {
        let mut plan = Plan::default();
        plan.make(unit, effects, live, true);
        plan.early = Early::find(unit, &plan).filter(|_| is_known);
        if let Some(early) = plan.early {
            plan.add_use(early.target);
        }
        plan
    }

    /// Makes it that of another unit.
    pub(super) fn make(
        &mut self,
        unit: &Unit,
        effects: fn(u16) -> Effects,
        live: &dyn Fn(u64) -> bool,
        shares: bool,
    ) {
        renew(&mut self.rest, unit.types.len(), 0);
        renew(&mut self.used, unit.types.len(), false);
        self.defs.clear();
        self.seen.clear();
        self.early = None;
        renew(&mut self.blocks, unit.blocks.len(), BlockPlan::default());
        self.shape(unit);
        let accesses = self.forward(unit, effects);
        let mut sharing = std::mem::take(&mut self.sharing);
        sharing.clear();
        if shares && accesses > 1 {
            sharing.make(unit, self, effects);
        }
        self.sharing = sharing;
        self.backward(unit, effects, live);
    }

    pub(super) fn is_used(&self, v: Val) -> bool {
        self.used[v.0 as usize]
    }

    fn shape(&mut self, unit: &Unit) {
        self.blocks[0].preds = 1;
        for (i, block) in unit.blocks.iter().enumerate() {
            if self.blocks[i].preds == 0 {
                continue;
            }
            for to in successors(&block.end) {
                self.blocks[to].preds += 1;
            }
            let only_leaves = block.ops.iter().all(|op| matches!(op, Op::Const { .. }));
            if let (End::Goto { pc, .. }, true, 1, true) =
                (&block.end, only_leaves, self.blocks[i].preds, i != 0)
            {
                self.blocks[i].goes_to = Some(*pc);
            }
            self.blocks[i].is_emitted = true;
        }
        // Ways out are emitted behind the main line if a branch leads there.
        for block in &unit.blocks {
            if let End::Branch { then, other, .. } = &block.end {
                for to in [then, other] {
                    let to = &mut self.blocks[to.0 as usize];
                    to.is_emitted &= to.goes_to.is_none();
                }
            }
        }
    }

    /// What addresses are made from, which definition each read of the flags sees, and whether instructions
    /// follow one that may have stored. Returns how many accesses there are that may share checks.
    fn forward(&mut self, unit: &Unit, effects: fn(u16) -> Effects) -> usize {
        renew(&mut self.base, unit.types.len(), Base::Wild);
        let mut is_wild = [false; 256];
        self.stored_before.clear();
        let mut stored = false;
        let mut accesses = 0;
        for (i, block) in unit.blocks.iter().enumerate() {
            let mut now = self.blocks[i].seen;
            for op in &block.ops {
                let of = |v: Val| self.base[v.0 as usize];
                match *op {
                    Op::Insn { .. } => {
                        self.stored_before.push(stored);
                        stored = false;
                    }
                    Op::Const { d, .. } => self.base[d.0 as usize] = Base::None,
                    Op::Get { d, slot } => self.base[d.0 as usize] = Base::Slot(slot.0),
                    Op::Binary {
                        op: Binary::Add | Binary::Sub,
                        d,
                        a,
                        b,
                    } => {
                        if let (base, Base::None) | (Base::None, base) = (of(a), of(b)) {
                            self.base[d.0 as usize] = base;
                        }
                    }
                    Op::Zext { d, a } => self.base[d.0 as usize] = of(a),
                    Op::Set { slot, v } => is_wild[usize::from(slot.0)] |= of(v) == Base::Wild,
                    Op::FlagsDef { kind, ty, a, b, c } => {
                        now = Some(self.defs.len() as u32);
                        self.defs.push(Def {
                            kind,
                            ty,
                            a,
                            b,
                            c,
                            is_stored: false,
                            reads: 0,
                            block: i,
                        });
                    }
                    Op::FlagsUse { .. } | Op::FlagsGet { .. } => {
                        if let Some(def) = now
                            && let Some(def) = self.defs.get_mut(def as usize)
                            && def.block != i
                        {
                            // Its operands are not kept over the end of a block.
                            def.is_stored = true;
                        }
                        self.seen.push(now);
                    }
                    Op::Load { .. } | Op::Probe { .. } => accesses += 1,
                    Op::Store { .. } => {
                        accesses += 1;
                        stored = true;
                    }
                    Op::Call { helper, .. } => {
                        if effects(helper.0).writes_regs {
                            now = None;
                        }
                        stored |= stores(op, effects);
                    }
                    Op::Rmw { .. } | Op::Cas { .. } => stored = true,
                    _ => {}
                }
            }
            for to in successors(&block.end) {
                if self.blocks[to].preds == 1 {
                    self.blocks[to].seen = now;
                }
            }
        }
        self.stores_last = stored;
        // Units are run again and again: what is set later counts too.
        for base in &mut self.base {
            if matches!(base, Base::Slot(slot) if is_wild[usize::from(*slot)]) {
                *base = Base::Wild;
            }
        }
        accesses
    }

    /// Which definitions of the flags must reach the guest's state, and how often values are used by
    /// operations that are needed.
    fn backward(
        &mut self,
        unit: &Unit,
        effects: fn(u16) -> Effects,
        live_at: &dyn Fn(u64) -> bool,
    ) {
        let (mut def, mut read) = (self.defs.len(), self.seen.len());
        let mut insn = self.stored_before.len();
        // The host's address that a group's first access leaves for the others is a value too.
        for group in &self.sharing.groups {
            self.rest.push(group.members - 1);
        }
        for (i, block) in unit.blocks.iter().enumerate().rev() {
            match &block.end {
                End::Jump { args, .. } => args.iter().for_each(|v| self.add_use(*v)),
                End::Branch { c, .. } => self.add_use(*c),
                End::GotoVal { pc, .. } => self.add_use(*pc),
                End::Goto { .. } | End::Leave => {}
            }
            let mut live = match &block.end {
                End::Goto { pc, .. } => live_at(*pc),
                End::GotoVal { .. } | End::Leave => true,
                end => successors(end).any(|to| self.blocks[to].is_live),
            };
            for (n, op) in block.ops.iter().enumerate().rev() {
                match op {
                    Op::Insn { .. } => {
                        insn -= 1;
                        live |= self.stored_before[insn];
                    }
                    Op::FlagsDef { .. } => {
                        def -= 1;
                        let found = &mut self.defs[def];
                        found.is_stored |= live;
                        live = false;
                        if found.is_stored || found.reads != 0 {
                            op.for_each_use(|v| self.add_use(v));
                        }
                    }
                    Op::FlagsUse { d, .. } | Op::FlagsGet { d } => {
                        read -= 1;
                        match self.seen[read] {
                            None => live = true,
                            Some(seen) if self.is_used(*d) => self.defs[seen as usize].reads += 1,
                            Some(_) => {}
                        }
                    }
                    Op::Load { .. } | Op::Store { .. } | Op::Probe { .. } if self.follows(i, n) => {
                        if let Op::Store { v, .. } = op {
                            self.add_use(*v);
                        }
                    }
                    Op::Call { helper, .. } => {
                        live |= effects(helper.0) != Effects::PURE;
                        op.for_each_use(|v| self.add_use(v));
                    }
                    op => {
                        if !is_pure(op) {
                            live |= op.may_fault();
                        } else if op.def().is_some_and(|d| !self.is_used(d)) {
                            continue;
                        }
                        op.for_each_use(|v| self.add_use(v));
                    }
                }
            }
            self.blocks[i].is_live = live;
        }
        self.wants_flags = self.blocks[0].is_live;
    }

    /// Whether an access uses an address that another one checked.
    fn follows(&self, block: usize, op: usize) -> bool {
        let shared = self.sharing.find(block, op);
        shared.is_some_and(|shared| !shared.leads)
    }

    fn add_use(&mut self, v: Val) {
        let i = v.0 as usize;
        self.used[i] = true;
        self.rest[i] = self.rest[i].saturating_add(1);
    }
}
