//! Several units as one piece of code: tier 2.
//!
//! A region is a loop of units that were run often. Its parts jump to each other without leaving:
//! flags are stored only where one of them, or someone outside, could look; instructions are taken off
//! the budget where a loop is closed, where ways meet, and on the way out. Inside, the registers that the
//! loop uses most are in host registers, whichever they are ([`Map`]); on the way in and out, and around
//! every call, they are moved to where all other code expects them.

use accel_core::Effects;
use accel_ir::{End, Op, Slot, Val, Via};

use super::plan::Plan;
use super::{Compiler, Env, Member, PINNED, TooBig, Workshop, XMMS, slot_at};
use crate::asm::{Alu, CC_E, CC_NE, CC_S, Cc, Fix, Mem, RAX, RCX, RDX, Reg, Shift, Size, Xmm};
use crate::memory::cell;

/// Vector registers left for values.
const XMM_VALUES: u8 = 6;
/// Most instructions that are not taken off the budget yet.
const MOST_CARRIED: u16 = 4096;

/// Which guest registers are in host registers, and where.
#[derive(Clone)]
pub(crate) struct Map {
    /// Counts the instructions done that are not taken off the budget.
    pub(super) done: Option<Reg>,
    regs: [Option<Reg>; 256],
    xmms: [Option<Xmm>; 256],
    /// The same as pairs.
    pub(super) pairs: Vec<(Slot, Reg)>,
    pub(super) vectors: Vec<(Slot, Xmm)>,
}

impl Map {
    pub(crate) fn new(pairs: &[(Slot, Reg)], vectors: &[(Slot, Xmm)]) -> Map {
        let mut map = Map {
            done: None,
            regs: [None; 256],
            xmms: [None; 256],
            pairs: pairs.to_vec(),
            vectors: vectors.to_vec(),
        };
        for (slot, reg) in pairs {
            map.regs[usize::from(slot.0)] = Some(*reg);
        }
        for (slot, xmm) in vectors {
            map.xmms[usize::from(slot.0)] = Some(*xmm);
        }
        map
    }

    pub(super) fn reg(&self, slot: Slot) -> Option<Reg> {
        self.regs[usize::from(slot.0)]
    }

    pub(super) fn xmm(&self, slot: Slot) -> Option<Xmm> {
        self.xmms[usize::from(slot.0)]
    }

    /// How many moves it takes from there to here and on to there again.
    fn moves_from(&self, other: &Map) -> u64 {
        let moved = |(slot, reg): &&(Slot, Reg)| other.reg(*slot) != Some(*reg);
        let regs = self.pairs.iter().filter(moved).count() + self.vectors.len();
        2 * regs as u64 + u64::from(self.done.is_some())
    }

    pub(super) fn slot_of(&self, reg: Reg) -> Option<Slot> {
        self.pairs.iter().find(|(_, r)| *r == reg).map(|(s, _)| *s)
    }
}

/// How often slots are used, weighed by loops.
struct Uses {
    gets: [u64; 256],
    vectors: [u64; 256],
    /// Slots that are parts of vectors somewhere and integers elsewhere.
    as_integer: [bool; 256],
}

impl Uses {
    fn of(members: &[Member], weights: &[u64]) -> Uses {
        let mut uses = Uses {
            gets: [0; 256],
            vectors: [0; 256],
            as_integer: [false; 256],
        };
        for (member, weight) in members.iter().zip(weights) {
            for op in member.unit.blocks.iter().flat_map(|block| &block.ops) {
                match op {
                    Op::Get { slot, .. } | Op::Set { slot, .. } => {
                        uses.gets[usize::from(slot.0)] += weight;
                        uses.as_integer[usize::from(slot.0)] = true;
                    }
                    Op::GetV { slot, .. } | Op::SetV { slot, .. } => {
                        uses.vectors[usize::from(slot.0)] += weight;
                    }
                    _ => {}
                }
            }
        }
        uses
    }
}

/// How often registers are moved to where all other code expects them and back, weighed by loops: around calls
/// of helpers, and where a subroutine returns as the host's do. What is left by then does not count: exceptions mostly.
fn crossings(env: &Env, members: &[Member], weights: &[u64]) -> u64 {
    let foresees = returns_vary(members);
    let of_block = |block: &accel_ir::Block| match block.end {
        End::Leave => 0,
        ref end => {
            let is_call = |op: &&Op| match op {
                Op::Call { helper, .. } => (env.intrinsic)(helper.0).is_none(),
                _ => false,
            };
            let calls = block.ops.iter().filter(is_call).count() as u64;
            calls + u64::from(foresees && is_return(end))
        }
    };
    let of_member = |(member, weight): (&Member, &u64)| {
        let blocks = member.unit.blocks.iter();
        weight * blocks.map(of_block).sum::<u64>()
    };
    members.iter().zip(weights).map(of_member).sum()
}

fn is_return(end: &End) -> bool {
    matches!(
        end,
        End::GotoVal {
            via: Via::Return,
            ..
        }
    )
}

/// Whether a subroutine of the region returns to several places in it, so that it depends on the call which.
fn returns_vary(members: &[Member]) -> bool {
    let is_in = |pc: &&u64| members.iter().any(|member| member.at.pc == **pc);
    let returns = |member: &&Member| {
        let mut blocks = member.unit.blocks.iter();
        blocks.any(|block| is_return(&block.end))
    };
    let mut returning = members.iter().filter(returns);
    returning.any(|member| member.went.iter().filter(is_in).count() > 1)
}

/// The registers for a region.
fn choose(env: &Env, members: &[Member], weights: &[u64]) -> Map {
    let uses = Uses::of(members, weights);
    let special = |slot: u8| {
        let flags = env.layout.flags.0;
        slot == env.layout.pc.0 || slot == env.layout.fp.0 || (flags..flags + 4).contains(&slot)
    };
    let mut wanted: Vec<u8> = (0..=u8::MAX)
        .filter(|slot| !special(*slot) && uses.gets[usize::from(*slot)] != 0)
        .filter(|slot| {
            let before = slot
                .checked_sub(1)
                .map_or(0, |s| uses.vectors[usize::from(s)]);
            uses.vectors[usize::from(*slot)] == 0 && before == 0
        })
        .collect();
    wanted.sort_by_key(|slot| std::cmp::Reverse(uses.gets[usize::from(*slot)]));
    wanted.truncate(PINNED.len());
    // Whoever has a place keeps it.
    let mut pairs: Vec<(Slot, Reg)> = wanted
        .iter()
        .filter_map(|slot| Some((Slot(*slot), env.map.reg(Slot(*slot))?)))
        .collect();
    let mut free = PINNED
        .into_iter()
        .filter(|reg| !pairs.iter().any(|(_, r)| r == reg))
        .collect::<Vec<_>>()
        .into_iter();
    for slot in wanted {
        if env.map.reg(Slot(slot)).is_none()
            && let Some(reg) = free.next()
        {
            pairs.push((Slot(slot), reg));
        }
    }
    let mut vectors: Vec<u8> = (0..u8::MAX)
        .filter(|slot| uses.vectors[usize::from(*slot)] != 0)
        .filter(|slot| {
            let halves = [usize::from(*slot), usize::from(*slot) + 1];
            !halves.iter().any(|half| uses.as_integer[*half])
        })
        .collect();
    vectors.sort_by_key(|slot| std::cmp::Reverse(uses.vectors[usize::from(*slot)]));
    vectors.truncate(usize::from(XMMS - XMM_VALUES));
    let vectors: Vec<(Slot, Xmm)> = (0..XMMS)
        .rev()
        .zip(vectors)
        .map(|(xmm, slot)| (Slot(slot), Xmm(xmm)))
        .collect();
    let mut map = Map::new(&pairs, &vectors);
    map.done = free.next();
    // What is gained against the common places, and what it costs to go back to them.
    let in_reg = uses.gets.iter().zip(0..=u8::MAX);
    let in_reg = in_reg.filter(|(_, slot)| env.map.reg(Slot(*slot)).is_none());
    let in_reg = in_reg.filter(|(_, slot)| map.reg(Slot(*slot)).is_some());
    let in_xmm = map
        .vectors
        .iter()
        .map(|(slot, _)| &uses.vectors[usize::from(slot.0)]);
    let gain: u64 = in_reg.map(|(uses, _)| uses).chain(in_xmm).sum();
    let moves = map.moves_from(&env.map) + env.map.moves_from(&map);
    match gain < crossings(env, members, weights) * moves {
        true => env.map.clone(),
        false => map,
    }
}

/// The PCs that a unit leaves to by known ways.
pub(super) fn targets(unit: &accel_ir::Unit) -> impl Iterator<Item = u64> + '_ {
    unit.blocks.iter().filter_map(|block| match block.end {
        End::Goto { pc, .. } => Some(pc),
        _ => None,
    })
}

/// How many of a unit's instructions it takes to reach the last of its ways to any of these PCs.
pub(crate) fn insns_to(member: &Member, is_wanted: impl Fn(u64) -> bool) -> u32 {
    let (mut insns, mut needed) = (0, 0);
    let went = member.went.iter().any(|pc| is_wanted(*pc));
    for block in &member.unit.blocks {
        insns += block
            .ops
            .iter()
            .filter(|op| matches!(op, Op::Insn { .. }))
            .count() as u32;
        let is_needed = match block.end {
            End::Goto { pc, .. } => is_wanted(pc),
            End::GotoVal { .. } => went,
            _ => false,
        };
        if is_needed {
            needed = insns;
        }
    }
    needed
}

/// log2 of the bytes of an entry of a table of targets.
const ENTRY_SHIFT: u8 = 4;
/// Fewest targets of a computed jump that make a table worthwhile.
const FEWEST_IN_TABLE: usize = 3;
/// log2 of the most entries that a table has for each target.
const MOST_SPREAD: u32 = 3;

/// A table in which each of some PCs has an entry of its own.
struct Spread {
    /// Where in the PC the entry's number begins.
    shift: u8,
    /// The number of the PC that each is for.
    entries: Vec<Option<usize>>,
}

impl Spread {
    /// `None` if there are too few PCs, or they do not go into a small table.
    fn of(known: &[(u64, usize)]) -> Option<Spread> {
        if known.len() < FEWEST_IN_TABLE {
            return None;
        }
        let least = known.len().next_power_of_two();
        (0..=MOST_SPREAD)
            .flat_map(|more| (0..16).map(move |shift| (least << more, shift)))
            .find_map(|(len, shift)| {
                let mut spread = Spread {
                    shift,
                    entries: vec![None; len],
                };
                for (n, (pc, _)) in known.iter().enumerate() {
                    let i = spread.index(*pc);
                    if spread.entries.get_mut(i)?.replace(n).is_some() {
                        return None;
                    }
                }
                Some(spread)
            })
    }

    fn index(&self, pc: u64) -> usize {
        (pc as u32 >> self.shift) as usize & (self.entries.len() - 1)
    }
}

/// How a unit of a region is come to from another.
#[derive(Clone, Copy, PartialEq, Eq)]
enum From {
    /// From the end of its main line.
    Line,
    /// From behind the main line.
    Behind,
    /// By a call that is expected to return to a PC.
    Call { back: u64 },
    /// By the return of such a call.
    Return,
}

/// What the parts of a region need of each other.
pub(super) struct Region {
    /// Where each begins, once it is emitted.
    labels: Vec<Option<usize>>,
    waiting: Vec<Vec<Fix>>,
    /// Instructions not taken off the budget at each one's beginning, once that is settled.
    carries: Vec<Option<u16>>,
    /// Begins a loop, or may be come to in other ways that need a fixed number.
    is_header: Vec<bool>,
    stores_last: Vec<bool>,
    current: usize,
    /// Moves guest registers to where other code expects them, and back.
    out: usize,
    back: usize,
    /// Offset in the code memory of what leaves overwritten code.
    pub(super) stale: usize,
    /// Its subroutines return as the host's do.
    foresees: bool,
}

/// Compiles a region whose first unit is where it is entered. Units that are come to only by loops from
/// later ones are fine. `weights` says how often each is expected to run.
pub(crate) fn compile(
    env: &Env,
    members: &[Member],
    weights: &[u64],
    origin: usize,
    shop: &mut Workshop,
) -> Result<(), TooBig> {
    let map = choose(env, members, weights);
    let plans = plans(members, env.effects);
    let index_of = |pc: u64| members.iter().position(|member| member.at.pc == pc);
    let mut is_header = vec![false; members.len()];
    is_header[0] = true;
    for (i, member) in members.iter().enumerate() {
        for to in member.targets().filter_map(index_of) {
            is_header[to] |= to <= i;
        }
    }
    let mut compiler = Compiler::new(env, members, &map, origin, shop)?;
    compiler.region = Some(Region {
        labels: vec![None; members.len()],
        waiting: members.iter().map(|_| Vec::new()).collect(),
        carries: is_header.iter().map(|header| header.then_some(0)).collect(),
        stores_last: plans.iter().map(|plan| plan.stores_last).collect(),
        is_header,
        current: 0,
        out: 0,
        back: 0,
        stale: 0,
        foresees: returns_vary(members),
    });
    compiler.start();
    compiler.enter();
    for (i, plan) in plans.into_iter().enumerate() {
        compiler.begin_member(i)?;
        *compiler.plan = plan;
        compiler.unit_code(i)?;
    }
    compiler.late();
    compiler.done();
    Ok(())
}

/// The units' plans, each knowing whether the next ones look at flags.
fn plans(members: &[Member], effects: fn(u16) -> Effects) -> Vec<Plan> {
    let mut wants = vec![false; members.len()];
    loop {
        let live = |pc: u64| match members.iter().position(|member| member.at.pc == pc) {
            Some(i) => wants[i],
            None => true,
        };
        let plans: Vec<Plan> = members
            .iter()
            .map(|member| {
                let is_in = |pc: &u64| members.iter().any(|member| member.at.pc == *pc);
                let is_known = member.went.iter().any(is_in);
                Plan::of(&member.unit, effects, &live, is_known)
            })
            .collect();
        let now: Vec<bool> = plans.iter().map(|plan| plan.wants_flags).collect();
        if now == wants {
            return plans;
        }
        wants = now;
    }
}

impl Compiler<'_> {
    /// The way in: registers to where the region has them, and the code that moves them.
    fn enter(&mut self) {
        self.move_registers(false);
        let skip = self.asm.jmp();
        let out = self.asm.here();
        self.move_registers(true);
        self.asm.ret();
        let back = self.asm.here();
        self.move_registers(false);
        self.asm.ret();
        let stale = self.asm.here();
        self.move_registers(true);
        self.asm.jmp_to(self.env.thunks.stale);
        self.asm.bind(skip);
        if let Some(region) = &mut self.region {
            (region.out, region.back, region.stale) = (out, back, stale);
        }
    }

    /// Moves registers from the region's places to the common ones, or the other way.
    fn move_registers(&mut self, is_out: bool) {
        let (from, to) = match is_out {
            true => (self.map, &self.env.map),
            false => (&self.env.map, self.map),
        };
        if let Some(done) = from.done {
            let budget = Mem::Code(cell::BUDGET as i32);
            self.asm.alu_to(Alu::Sub, Size::D, budget, done);
        }
        for (slot, reg) in &from.pairs {
            if to.reg(*slot) != Some(*reg) {
                self.asm.mov_to(Size::Q, slot_at(slot.0.into()), *reg);
            }
        }
        for (slot, xmm) in &from.vectors {
            self.asm.movups_to(slot_at(slot.0.into()), *xmm);
        }
        for (slot, reg) in &to.pairs {
            if from.reg(*slot) != Some(*reg) {
                self.asm.mov(Size::Q, *reg, slot_at(slot.0.into()));
            }
        }
        for (slot, xmm) in &to.vectors {
            self.asm.movups(*xmm, slot_at(slot.0.into()));
        }
        if let Some(done) = to.done {
            self.asm.mov_imm(done, 0);
        }
    }

    /// Whether guest registers are elsewhere than other code expects them.
    fn is_moved(&self) -> bool {
        let map = self.map;
        map.done.is_some() || !map.vectors.is_empty() || map.pairs != self.env.map.pairs
    }

    /// Before the way out: all registers where other code expects them. Scratch registers stay.
    pub(super) fn leave_region(&mut self) {
        if let Some(region) = &self.region
            && self.is_moved()
        {
            self.asm.call_to(region.out);
        }
    }

    /// Calls a thunk that may fault in the current instruction.
    pub(super) fn call_out(&mut self, thunk: usize) {
        let insn = self.insn();
        self.call_out_for(thunk, insn);
    }

    /// Calls a thunk that may fault in an instruction.
    pub(super) fn call_out_for(&mut self, thunk: usize, insn: u16) {
        self.leave_region();
        self.asm.call_to(thunk);
        self.site(insn);
        self.come_into_region();
    }

    /// The opposite of [`leave_region`](Self::leave_region).
    fn come_into_region(&mut self) {
        if let Some(region) = &self.region
            && self.is_moved()
        {
            self.asm.call_to(region.back);
        }
    }

    /// A unit of the region begins here.
    fn begin_member(&mut self, index: usize) -> Result<(), TooBig> {
        let here = self.asm.here();
        let region = self.region.as_mut().ok_or(TooBig)?;
        region.current = index;
        region.labels[index] = Some(here);
        // One that nothing emitted so far leads to is come to from behind only.
        self.carry = *region.carries[index].get_or_insert(0);
        for fix in std::mem::take(&mut region.waiting[index]) {
            self.asm.bind(fix);
        }
        Ok(())
    }

    /// The number of the unit at hand.
    pub(super) fn member(&self) -> usize {
        self.region.as_ref().map_or(0, |region| region.current)
    }

    /// What is emitted now belongs to a unit that was emitted.
    pub(super) fn be_in(&mut self, index: usize) {
        if let Some(member) = self.members.get(index) {
            self.at = &member.at;
        }
        if let Some(region) = &mut self.region {
            region.current = index;
        }
    }

    /// Whether a unit of the region begins before here.
    pub(super) fn is_passed(&self, to: usize) -> bool {
        let region = self.region.as_ref();
        region.is_some_and(|region| region.labels.get(to).is_some_and(Option::is_some))
    }

    /// The unit of the region that begins at a PC.
    pub(super) fn member_at(&self, pc: u64) -> Option<usize> {
        self.region.as_ref()?;
        self.members.iter().position(|member| member.at.pc == pc)
    }

    /// Whether going to a unit of the region needs nothing but a jump, or may need it later.
    pub(super) fn is_plain(&mut self, to: usize, insns: u16) -> bool {
        let Some(region) = &mut self.region else {
            return false;
        };
        if region.is_header[to] || region.stores_last[region.current] || insns > MOST_CARRIED {
            return false;
        }
        *region.carries[to].get_or_insert(insns) == insns
    }

    /// A jump to a unit of the region, to be bound when that is emitted.
    pub(super) fn jumps_to(&mut self, to: usize, fix: Fix) {
        if let Some(region) = &mut self.region {
            match region.labels[to] {
                Some(label) => self.asm.bind_to(fix, label),
                None => region.waiting[to].push(fix),
            }
        }
    }

    /// Takes the computed jump that the plan says is taken here, if it goes on in the region.
    pub(super) fn go_early(&mut self, target: Val) -> Result<(), TooBig> {
        self.ready(target)?;
        for reg in [RAX, RCX, RDX] {
            self.claim(reg)?;
        }
        // Of what was moved for them nothing is needed here.
        self.places.unlock();
        for reg in [RAX, RCX, RDX] {
            self.places.lock(reg);
        }
        let from = self.clean(target)?;
        self.asm.mov(Size::Q, RAX, from);
        self.consume(target);
        self.go_to_known();
        self.places.unlock();
        Ok(())
    }

    /// Before a computed jump, its target in RAX: goes on in the region if that went there before.
    pub(super) fn go_to_known(&mut self) {
        let Some(member) = self.members.get(self.member()) else {
            return;
        };
        let known: Vec<(u64, usize)> = member
            .went
            .iter()
            .filter_map(|pc| Some((*pc, self.member_at(*pc)?)))
            .collect();
        if known.is_empty() {
            return;
        }
        if let Some(spread) = Spread::of(&known) {
            return self.jump_by_table(&spread, &known);
        }
        for (pc, to) in known {
            self.compare_target(pc);
            self.go_on_if(CC_E, to, pc);
        }
    }

    /// Jumps to the one of these that is in RAX, or goes on.
    fn jump_by_table(&mut self, spread: &Spread, known: &[(u64, usize)]) {
        self.asm.lea(Size::Q, RCX, Mem::Code(0));
        let table = self.asm.last_disp();
        self.asm.mov(Size::D, RDX, RAX);
        match spread.shift.checked_sub(ENTRY_SHIFT) {
            Some(0) => {}
            Some(right) => self.asm.shift_imm(Shift::Shr, Size::D, RDX, right),
            None => {
                let left = ENTRY_SHIFT - spread.shift;
                self.asm.shift_imm(Shift::Shl, Size::D, RDX, left);
            }
        }
        let mask = (spread.entries.len() as i32 - 1) << ENTRY_SHIFT;
        self.asm.alu_imm(Alu::And, Size::D, RDX, mask);
        self.asm.alu(Alu::Add, Size::Q, RCX, RDX);
        self.asm.alu(Alu::Cmp, Size::Q, RAX, Mem::base(RCX, 0));
        let unknown = self.asm.jcc(CC_NE);
        self.asm.movsx(Size::D, Size::Q, RDX, Mem::base(RCX, 8));
        let target = Mem::At {
            base: Some(RCX),
            index: Some((RDX, 0)),
            disp: 12,
        };
        self.asm.lea(Size::Q, RCX, target);
        self.asm.jmp_rm(RCX);
        while !self.asm.here().is_multiple_of(8) {
            self.asm.byte(0);
        }
        // Each entry: the PC, where its code is from behind that, nothing.
        self.asm.bind(table);
        for (i, entry) in spread.entries.iter().enumerate() {
            let target = entry.and_then(|n| known.get(n));
            // An empty entry has a PC that belongs into another.
            let pc = match (target, known.iter().find(|(pc, _)| spread.index(*pc) != i)) {
                (Some((pc, _)), _) | (None, Some((pc, _))) => *pc,
                (None, None) => 0,
            };
            let fix = self.asm.far_entry(pc);
            if let Some((pc, to)) = target {
                self.go_on_from(fix, *to, *pc);
            }
        }
        self.asm.bind(unknown);
    }

    fn compare_target(&mut self, pc: u64) {
        match i32::try_from(pc as i64) {
            Ok(pc) => self.asm.alu_imm(Alu::Cmp, Size::Q, RAX, pc),
            Err(_) => {
                self.asm.mov_imm(RCX, pc);
                self.asm.alu(Alu::Cmp, Size::Q, RAX, RCX);
            }
        }
    }

    /// Goes on with a unit of the region on a condition.
    fn go_on_if(&mut self, cc: Cc, to: usize, pc: u64) {
        let from = self.asm.jcc(cc);
        self.go_on_from(from, to, pc);
    }

    /// Has a jump go on with a unit of the region.
    fn go_on_from(&mut self, from: Fix, to: usize, pc: u64) {
        let insns = self.insns_done();
        if self.is_plain(to, insns) {
            return self.jumps_to(to, from);
        }
        self.exits.push(super::ends::Exit {
            from,
            pc,
            insns,
            member: self.member(),
            leaves: false,
            is_wary: false,
            is_onward: false,
        });
    }

    /// Whether subroutines of the region return as the host's do.
    pub(super) fn foresees(&self) -> bool {
        self.region.as_ref().is_none_or(|region| region.foresees)
    }

    /// Goes on with a unit of the region, and comes back if it is a subroutine.
    pub(super) fn go_on_by(&mut self, to: usize, pc: u64, insns: u16, via: Via) {
        match via {
            Via::Call { back } if self.foresees() => {
                self.go_on_to(to, pc, insns, From::Call { back });
                self.come_back_to_region(back);
            }
            _ => self.go_on(to, pc, insns, false),
        }
    }

    /// Where the host returns to from a subroutine: see [`Self::come_back`].
    fn come_back_to_region(&mut self, pc: u64) {
        match self.member_at(pc) {
            Some(to) => {
                // From wherever it returns, registers are where all code expects them, and the budget was looked at.
                self.come_into_region();
                self.go_on_to(to, pc, 0, From::Return);
            }
            None => self.come_back(pc),
        }
    }

    /// Goes on with a unit of the region.
    pub(super) fn go_on(&mut self, to: usize, pc: u64, insns: u16, is_late: bool) {
        let from = if is_late { From::Behind } else { From::Line };
        self.go_on_to(to, pc, insns, from);
    }

    fn go_on_to(&mut self, to: usize, pc: u64, insns: u16, from: From) {
        let mut behind = self.plan.blocks.iter().skip(self.block + 1);
        let is_last = behind.all(|block| !block.is_emitted);
        let Some(region) = &mut self.region else {
            return;
        };
        let is_back = region.labels[to].is_some();
        let too_many = insns > MOST_CARRIED;
        let carried = *region.carries[to].get_or_insert(if too_many { 0 } else { insns });
        let less = i32::from(insns) - i32::from(carried);
        let closes = region.is_header[to] && (is_back || from == From::Behind);
        let check = from != From::Return && (closes || region.stores_last[region.current]);
        let follows = from == From::Line && is_last && to == region.current + 1;
        let (current, budget) = (region.current, Mem::Code(cell::BUDGET as i32));
        match self.map.done {
            Some(done) => {
                if less != 0 {
                    self.asm.alu_imm(Alu::Add, Size::D, done, less);
                }
                if check {
                    self.asm.alu_to(Alu::Cmp, Size::D, budget, done);
                }
            }
            None if less != 0 || check => {
                self.asm.alu_imm(Alu::Sub, Size::D, budget, less);
            }
            None => {}
        }
        if check {
            // The rest of what was done is taken off on the way out.
            let fix = self.asm.jcc(CC_S);
            self.exits.push(super::ends::Exit {
                from: fix,
                pc,
                insns: carried,
                member: current,
                leaves: true,
                is_wary: false,
                is_onward: false,
            });
        }
        if let From::Call { back } = from {
            let fix = self.call_for(back);
            self.jumps_to(to, fix);
        } else if !follows {
            let fix = self.asm.jmp();
            self.jumps_to(to, fix);
        }
    }
}
