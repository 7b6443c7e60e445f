//! Units of IR into host code: one alone (tier 1), or several as a region (`region.rs`, tier 2).
//!
//! Per unit, one pass forward over the operations, after one pass backward that finds what is used
//! (`plan.rs`). The hottest guest registers live in fixed host registers, across units too; the
//! others, and lazy flags, in the register file. A guest register is written when its `set` comes, so
//! at each operation that may fault, and between instructions, the guest's state is whole: a fault
//! needs nothing but the instruction's number, which is found by where in the code it happened.
//!
//! Values of the unit are held in five scratch registers, or stand for something that need not be
//! held: a constant, an unchanged guest register, a sum that becomes an address (`place.rs`).

mod ends;
mod flags;
mod float;
mod int;
mod memory;
mod place;
mod plan;
mod region;
mod share;
mod vector;
mod x87;

use std::num::NonZeroU32;

use accel_core::{Effects, Intrinsic, Layout, X87Op};
use accel_ir::{Op, Slot, Unit, Val};

use crate::asm::{
    Alu, Asm, CC_B, Code, Fix, Mem, R8, R9, R10, R11, R12, R13, R14, R15, RBP, RBX, RCX, RDX, Reg,
    Size,
};
use crate::thunks::{Cells, Thunks, forget_x87};
pub(crate) use float::host;
use place::Places;
use plan::Plan;
pub(crate) use region::{Map, compile as compile_region, insns_to};

/// Host registers that hold guest registers, those that calls keep first.
pub(crate) const PINNED: [Reg; 9] = [RBX, R12, R13, R14, R15, R8, R9, R10, R11];
/// How many of them calls keep.
pub(crate) const KEPT_BY_CALLS: usize = 5;

/// RBP points this many bytes into the register file, so that the first 32 slots are near.
pub(crate) const BIAS: i32 = 128;

/// Scratch slots behind the guest's: arguments of what generated code calls.
pub(crate) const ARG: usize = accel_core::SCRATCH;
/// Its result, two slots.
pub(crate) const RESULT: usize = ARG + 8;
/// Values of the unit that found no register.
const SPILL: usize = ARG + 12;
const SPILLS: usize = 512 - SPILL;

/// Where a slot of the register file is.
pub(crate) fn slot_at(slot: usize) -> Mem {
    Mem::base(RBP, slot as i32 * 8 - BIAS)
}

/// What code depends on beside the unit: where things are.
pub(crate) struct Env {
    /// Host registers of guest registers between units.
    pub(crate) map: Map,
    pub(crate) layout: Layout,
    /// Distance from RBP to the array of pointers to translation tables.
    pub(crate) hot: i32,
    /// Distance from RBP to the pages used last.
    pub(crate) recent: i32,
    pub(crate) thunks: Thunks,
    /// Where the guest's x87 unit is, if generated code may do without its helpers.
    pub(crate) x87: Option<Cells>,
    /// Atomics need no lock ([`accel_core::Core::sole`]).
    pub(crate) sole: bool,
    /// All ways out look at the budget, as lock step goes no further than that.
    pub(crate) always_looks: bool,
    /// Effects of a helper, by number.
    pub(crate) effects: fn(u16) -> Effects,
    /// What a helper computes, by number.
    pub(crate) intrinsic: fn(u16) -> Option<Intrinsic>,
}

/// The unit is too much for this compiler: the interpreter takes it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct TooBig;

/// A guest instruction's code.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Mark {
    /// Offset from the start of the code.
    pub(crate) at: u32,
    /// Its PC.
    pub(crate) pc: u64,
    /// Instructions done by then that are not taken off the budget yet.
    pub(crate) done: u16,
    /// It is the first of its unit.
    pub(crate) is_first: bool,
}

/// A return address of something that may fault or overwrite code.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Site {
    /// Offset from the start of the code.
    pub(crate) at: u32,
    /// The instruction's number in the code.
    pub(crate) insn: u16,
}

/// A way out of the unit to a known PC.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Way {
    /// Offset of what its stub's call returns to: how it is recognised.
    pub(crate) site: u32,
    /// Offset behind the displacement of the jump to be linked; the same as `site` if the stub's call becomes
    /// that jump.
    pub(crate) jump: u32,
    /// Offset behind the constant that the target's page identity is compared with, for jumps into
    /// other pages.
    pub(crate) check: Option<NonZeroU32>,
    /// Where it goes.
    pub(crate) pc: u64,
    /// To code that shares no checks.
    pub(crate) is_wary: bool,
}

/// Code of a unit, not yet in its memory.
#[derive(Default)]
pub(crate) struct Compiled {
    pub(crate) code: Code,
    pub(crate) marks: Vec<Mark>,
    pub(crate) sites: Vec<Site>,
    pub(crate) ways: Vec<Way>,
    /// What takes the place of the thunk for overwritten code, if guest registers are elsewhere.
    pub(crate) stale: Option<usize>,
    /// Whether it ends with a computed jump.
    pub(crate) computes: bool,
}

/// A unit and where it is.
pub(crate) struct Member {
    pub(crate) unit: Unit,
    pub(crate) at: Where,
    /// Where its computed jump went so far.
    pub(crate) went: Vec<u64>,
}

impl Member {
    /// PCs that it leads to, as far as they are known.
    pub(crate) fn targets(&self) -> impl Iterator<Item = u64> + '_ {
        region::targets(&self.unit).chain(self.went.iter().copied())
    }
}

/// Where a unit is in the guest.
#[derive(Clone, Debug)]
pub(crate) struct Where {
    /// The PC it begins at.
    pub(crate) pc: u64,
    /// Whether PCs are the addresses that are fetched from.
    pub(crate) is_flat: bool,
    /// The translation context of fetches.
    pub(crate) fetch_ctx: u8,
    /// Each access checks its address itself.
    pub(crate) is_wary: bool,
    /// Pages beside the first that the code is from, and the identities they had.
    pub(crate) others: Vec<(u64, u32)>,
}

/// A detour out of the main line, emitted behind it.
struct Detour {
    from: Fix,
    back: usize,
    insn: u16,
    what: What,
}

/// What a detour does.
enum What {
    /// Accesses a page that was not the last one.
    Access {
        check: memory::Check,
        access: memory::Slow,
    },
    /// Looks for the page of a group's first access.
    Lead {
        looked_at: memory::LookedAt,
        exit: ends::Exit,
    },
    /// Announces a store.
    Announce { by: memory::By, ways: memory::Ways },
    /// Announces a store of a group, by the page last used at this entry.
    AnnounceAt {
        at: Mem,
        entry: i32,
        ways: memory::Ways,
        /// What follows relies on [`FLAGS`].
        keeps: bool,
    },
    /// Calls a helper whose arguments are in place.
    Call { helper: u16, thunk: usize },
    /// Divides by a helper.
    Divide {
        args: [Reg; 3],
        bits: i32,
        helper: u16,
        vectors: bool,
    },
}

/// How registers stand at the beginning of a block that has one predecessor.
#[derive(Clone)]
struct Entry {
    places: Places,
    /// The flags' last definition, if it is known.
    flags: Option<u32>,
}

/// What compiling needs, kept from one unit to the next for its memory.
#[derive(Default)]
pub(crate) struct Workshop {
    plan: Plan,
    places: Places,
    lists: Lists,
    /// What came of it.
    pub(crate) made: Compiled,
}

/// Lists in the making.
#[derive(Default)]
struct Lists {
    entries: Vec<Option<Entry>>,
    jumps: Vec<Vec<Fix>>,
    cells: Vec<Option<u16>>,
    exits: Vec<ends::Exit>,
    detours: Vec<Detour>,
    pending_ways: Vec<ends::PendingWay>,
    misses: Vec<Fix>,
}

/// What [`FLAGS`] points to.
#[derive(Clone, Copy)]
struct FlagsAt {
    /// The entry of the page.
    entry: i32,
    /// The detour that has not left it so.
    detour: usize,
}

struct Compiler<'a> {
    env: &'a Env,
    members: &'a [Member],
    map: &'a Map,
    /// What the region's parts need of each other; `None` for a unit alone.
    region: Option<region::Region>,
    // --- of the unit at hand
    unit: &'a Unit,
    at: &'a Where,
    plan: &'a mut Plan,
    places: &'a mut Places,
    /// The flags' last definition, if it is known.
    flags: Option<u32>,
    /// Definitions of the flags passed so far.
    next_def: u32,
    entries: Vec<Option<Entry>>,
    jumps: Vec<Vec<Fix>>,
    /// Instructions done before the unit that are not taken off the budget yet.
    carry: u16,
    first_mark: usize,
    /// Nothing of it so far may have stored.
    is_quiet: bool,
    /// Spill slot of each value that was ever spilled.
    cells: Vec<Option<u16>>,
    spilled: u16,
    block: usize,
    /// Number of the operation in its block.
    op: usize,
    /// The page last used whose flags [`FLAGS`] points to, if it does.
    flags_at: Option<FlagsAt>,
    /// By group of accesses: what its first one looked at.
    shared_by: Vec<Option<memory::By>>,
    // --- of all the code
    asm: Asm,
    exits: Vec<ends::Exit>,
    detours: Vec<Detour>,
    marks: Vec<Mark>,
    sites: Vec<Site>,
    ways: Vec<Way>,
    pending_ways: Vec<ends::PendingWay>,
    /// Jumps of computed jumps whose targets are not known.
    misses: Vec<Fix>,
    /// Whether there is a computed jump.
    computes: bool,
    /// Whether the code computes under the guest's MXCSR.
    has_float: bool,
    /// The jump that loads it at the start, and where that comes back to.
    float_start: Option<(Fix, usize)>,
    // --- where memory and what was made go when it is done
    lists: &'a mut Lists,
    made: &'a mut Compiled,
}

/// Compiles a unit for the code memory from `origin` on.
pub(crate) fn compile(
    env: &Env,
    member: &Member,
    origin: usize,
    shop: &mut Workshop,
) -> Result<(), TooBig> {
    let members = std::slice::from_ref(member);
    let mut compiler = Compiler::new(env, members, &env.map, origin, shop)?;
    compiler.start();
    let shares = !member.at.is_wary;
    compiler
        .plan
        .make(&member.unit, env.effects, &|_| true, shares);
    compiler.unit_code(0)?;
    compiler.late();
    compiler.done();
    Ok(())
}

impl<'a> Compiler<'a> {
    fn new(
        env: &'a Env,
        members: &'a [Member],
        map: &'a Map,
        origin: usize,
        shop: &'a mut Workshop,
    ) -> Result<Self, TooBig> {
        let first = members.first().ok_or(TooBig)?;
        // What an earlier one that was given up left behind is of no use.
        let mut lists = std::mem::take(&mut shop.lists);
        lists.exits.clear();
        lists.detours.clear();
        lists.pending_ways.clear();
        lists.misses.clear();
        let mut made = std::mem::take(&mut shop.made);
        made.code.clear();
        made.marks.clear();
        made.sites.clear();
        made.ways.clear();
        Ok(Compiler {
            env,
            members,
            map,
            region: None,
            unit: &first.unit,
            at: &first.at,
            plan: &mut shop.plan,
            places: &mut shop.places,
            flags: None,
            next_def: 0,
            entries: lists.entries,
            jumps: lists.jumps,
            carry: 0,
            first_mark: 0,
            is_quiet: true,
            cells: lists.cells,
            spilled: 0,
            block: 0,
            op: 0,
            flags_at: None,
            shared_by: Vec::new(),
            asm: Asm::reusing(made.code, origin),
            exits: lists.exits,
            detours: lists.detours,
            marks: made.marks,
            sites: made.sites,
            ways: made.ways,
            pending_ways: lists.pending_ways,
            misses: lists.misses,
            computes: false,
            has_float: false,
            float_start: None,
            lists: &mut shop.lists,
            made: &mut shop.made,
        })
    }

    fn done(self) {
        *self.lists = Lists {
            entries: self.entries,
            jumps: self.jumps,
            cells: self.cells,
            exits: self.exits,
            detours: self.detours,
            pending_ways: self.pending_ways,
            misses: self.misses,
        };
        *self.made = Compiled {
            code: self.asm.code,
            marks: self.marks,
            sites: self.sites,
            ways: self.ways,
            stale: self.region.map(|region| region.stale),
            computes: self.computes,
        };
    }

    /// What stands before all else.
    fn start(&mut self) {
        for (page, id) in &self.at.others {
            self.check_page(*page, *id);
        }
        self.start_float();
    }

    /// A unit's main line, once its plan is made.
    fn unit_code(&mut self, index: usize) -> Result<(), TooBig> {
        let member = self.members.get(index).ok_or(TooBig)?;
        let unit = &member.unit;
        self.unit = unit;
        self.at = &member.at;
        self.places.make(self.plan.rest.len(), self.map);
        self.flags = None;
        self.asm.flags_of = None;
        self.next_def = 0;
        self.entries.clear();
        self.entries.resize_with(unit.blocks.len(), || None);
        if self.jumps.len() < unit.blocks.len() {
            self.jumps.resize_with(unit.blocks.len(), Vec::new);
        }
        self.jumps.iter_mut().for_each(Vec::clear);
        self.first_mark = self.marks.len();
        self.is_quiet = true;
        plan::renew(&mut self.cells, self.plan.rest.len(), None);
        self.shared_by.clear();
        self.spilled = 0;
        for index in 0..self.unit.blocks.len() {
            if !self.plan.blocks[index].is_emitted {
                // Its operations count all the same.
                self.pass_over(index);
                continue;
            }
            self.begin(index);
            self.ops(index)?;
            self.end(index)?;
        }
        Ok(())
    }

    /// Keeps the numbering of flags in step over a block that is not emitted in line.
    fn pass_over(&mut self, index: usize) {
        for op in &self.unit.blocks[index].ops {
            match op {
                Op::FlagsDef { .. } => self.next_def += 1,
                Op::Insn { pc } => self.mark(*pc),
                _ => {}
            }
        }
    }

    fn begin(&mut self, index: usize) {
        self.block = index;
        self.flags_at = None;
        for fix in self.jumps[index].drain(..) {
            self.asm.bind(fix);
        }
        if let Some(entry) = self.entries[index].take() {
            *self.places = entry.places;
            self.flags = entry.flags;
        }
        if index != 0 {
            self.places.free_unused(&self.plan.rest);
        }
    }

    fn ops(&mut self, index: usize) -> Result<(), TooBig> {
        let unit = self.unit;
        for (i, op) in unit.blocks[index].ops.iter().enumerate() {
            if let Some(early) = self.plan.early
                && (early.block, early.op) == (index, i)
            {
                self.places.unlock();
                self.go_early(early.target)?;
            }
            match op {
                Op::Insn { pc } => self.mark(*pc),
                Op::Const { d, value } => self.places.set_const(*d, *value),
                op => {
                    self.op = i;
                    self.places.unlock();
                    self.is_quiet = self.is_quiet && !plan::stores(op, self.env.effects);
                    self.one(op)?;
                }
            }
        }
        self.op = unit.blocks[index].ops.len();
        self.places.unlock();
        Ok(())
    }

    fn one(&mut self, op: &Op) -> Result<(), TooBig> {
        match op {
            // Done by `ops`.
            Op::Insn { .. } | Op::Const { .. } => {}
            Op::FlagsDef { .. } => self.flags_def(op)?,
            op if plan::is_pure(op) && op.def().is_some_and(|d| !self.plan.is_used(d)) => {}
            Op::FlagsUse { d, .. } if self.can_defer(*d) => self.places.defer(*d, *op),
            Op::FlagsUse { d, cond } => self.flags_value(*d, *cond)?,
            Op::FlagsGet { d } => self.flags_get(*d)?,
            Op::Get { d, slot } if *slot == self.env.layout.fp => self.get_control(*d, *slot)?,
            Op::Set { slot, .. } if *slot == self.env.layout.fp => return Err(TooBig),
            Op::Get { d, slot } => {
                let dirty = self.ty(*d) != accel_ir::Ty::I64;
                self.places.set_guest(*d, *slot, dirty);
            }
            Op::Set { slot, v } => self.set(*slot, *v)?,
            Op::GetV { d, slot } => self.places.set_guest_v(*d, *slot),
            Op::SetV { slot, v } => self.set_v(*slot, *v)?,
            Op::Unary { op, d, a } => self.unary(*op, *d, *a)?,
            Op::Binary { op, d, a, b } => self.binary(*op, *d, *a, *b)?,
            Op::Cmp { d, .. } if self.can_defer(*d) => self.places.defer(*d, *op),
            Op::Cmp { op, d, a, b } => self.cmp(*op, *d, *a, *b)?,
            Op::Select { d, c, a, b } => self.select(*d, *c, *a, *b)?,
            Op::Zext { d, a } => self.zext(*d, *a)?,
            Op::Sext { d, a } => self.sext(*d, *a)?,
            Op::Extract { d, a, shift, width } => self.extract(*d, *a, *shift, *width)?,
            Op::Insert {
                d,
                a,
                b,
                shift,
                width,
            } => self.insert(*d, *a, *b, *shift, *width)?,
            Op::Load { d, addr, mem } => self.load(*d, *addr, mem)?,
            Op::Store { addr, v, mem } => self.store(*addr, *v, mem)?,
            Op::Probe { addr, mem } => self.probe(*addr, mem)?,
            Op::Rmw {
                op,
                d,
                addr,
                v,
                mem,
            } => self.rmw(*op, *d, *addr, *v, mem)?,
            Op::Cas {
                d,
                addr,
                expected,
                new,
                mem,
            } => self.cas(*d, *addr, *expected, *new, mem)?,
            Op::Fence => self.fence(),
            Op::Vec { op, d, a, b, imm } => self.vec(*op, *d, *a, *b, *imm)?,
            Op::VecSigns { d, a, lane } => self.vec_signs(*d, *a, *lane)?,
            Op::Fp { how, d, a, b } => self.fp(*how, *d, *a, *b)?,
            Op::FpMulAdd { how, d, a, b, c } => self.fp_mul_add(*how, *d, (*a, *b), *c)?,
            Op::FpFromInt { fmt, d, a, v, .. } => self.fp_from_int(*fmt, *d, *a, *v)?,
            Op::FpToInt { how, d, a } => self.fp_to_int(*how, *d, *a)?,
            Op::FpCompare { how, d, a, b } => self.fp_compare(*how, *d, *a, *b)?,
            Op::VecMake { d, lo, hi } => self.vec_make(*d, *lo, *hi)?,
            Op::VecHalf { d, a, high } => self.vec_half(*d, *a, *high)?,
            Op::Call { d, helper, args } => self.call(*d, helper.0, args)?,
        }
        Ok(())
    }

    fn mark(&mut self, pc: u64) {
        self.marks.push(Mark {
            at: self.asm.code.len() as u32,
            pc,
            done: self.insns_done(),
            is_first: self.marks.len() == self.first_mark,
        });
    }

    /// Number of the current instruction.
    fn insn(&self) -> u16 {
        (self.marks.len() as u16).saturating_sub(1)
    }

    /// Records that the call just emitted belongs to an instruction.
    fn site(&mut self, insn: u16) {
        self.sites.push(Site {
            at: self.asm.code.len() as u32,
            insn,
        });
    }

    /// Whether a value may wait, unemitted, for its only use.
    fn can_defer(&self, d: Val) -> bool {
        self.plan.rest[d.0 as usize] == 1
    }

    // --- guest registers

    fn set(&mut self, slot: Slot, v: Val) -> Result<(), TooBig> {
        self.rescue(slot, Some(v))?;
        let pinned = self.map.reg(slot);
        if let (Some(reg), Some(&Op::Binary { op, a, b, .. })) = (pinned, self.places.deferred(v)) {
            self.places.take_deferred(v);
            self.places.set(v, place::Place::Gone);
            self.sum_into(reg, op, a, b)?;
            self.consume(v);
            self.places.changed(slot);
            return Ok(());
        }
        self.force(v)?;
        let is_there = self.places.is_guest(v, slot) && !self.places.is_dirty(v);
        match (pinned, self.places.constant(v)) {
            (Some(reg), Some(0)) if self.asm.flags_of.is_none() => {
                self.asm.alu(Alu::Xor, Size::D, reg, reg);
            }
            (Some(reg), Some(value)) => self.asm.mov_imm(reg, value),
            (None, Some(value)) if i64::from(value as i32) as u64 == value => {
                let at = slot_at(slot.0.into());
                self.asm.mov_imm_to(Size::Q, at, value as i32);
            }
            _ if is_there => {}
            (Some(reg), None) => {
                let size = match self.places.is_dirty(v) {
                    true => memory::size_of(self.ty(v)),
                    false => Size::Q,
                };
                let from = self.operand(v)?;
                self.asm.movzx(size, reg, from);
            }
            (None, _) => {
                let from = self.clean(v)?;
                self.asm.mov_to(Size::Q, slot_at(slot.0.into()), from);
            }
        }
        self.consume(v);
        self.places.changed(slot);
        Ok(())
    }

    fn set_v(&mut self, slot: Slot, v: Val) -> Result<(), TooBig> {
        self.rescue(slot, Some(v))?;
        self.rescue(Slot(slot.0 + 1), Some(v))?;
        if let Some(&Op::VecMake { lo, hi, .. }) = self.places.deferred(v) {
            // Both halves may be what the register held.
            self.places.take_deferred(v);
            self.consume(v);
            return self.set_halves(slot, lo, hi);
        }
        if !self.places.is_guest_v(v, slot) {
            let from = self.xmm(v)?;
            match self.map.xmm(slot) {
                Some(to) => self.asm.movaps(to, from),
                None => self.asm.movups_to(slot_at(slot.0.into()), from),
            }
        }
        self.consume(v);
        self.places.changed_v(slot, v);
        Ok(())
    }

    // --- helpers

    fn call(&mut self, d: Option<Val>, helper: u16, args: &[Option<Val>; 4]) -> Result<(), TooBig> {
        if let (
            Some(Intrinsic::Divide { signed }),
            Some(d),
            [Some(high), Some(low), Some(by), Some(bits)],
        ) = ((self.env.intrinsic)(helper), d, *args)
            && let Some(bits @ (32 | 64)) = self.places.constant(bits)
        {
            return self.divide(signed, helper, d, [high, low, by], bits);
        }
        let x87 = match (self.env.intrinsic)(helper) {
            Some(Intrinsic::X87(op)) => self.env.x87.map(|cells| (op, cells)),
            _ => None,
        };
        if let Some((op, cells)) = x87
            && self.x87(op, &cells, d, args)?
        {
            return Ok(());
        }
        let effects = (self.env.effects)(helper);
        for (i, arg) in args.iter().enumerate() {
            let at = slot_at(ARG + i);
            match arg {
                None => {}
                Some(v) => match self.places.constant(*v) {
                    Some(value) if i64::from(value as i32) as u64 == value => {
                        self.asm.mov_imm_to(Size::Q, at, value as i32);
                    }
                    _ => {
                        let from = self.clean(*v)?;
                        self.asm.mov_to(Size::Q, at, from);
                        self.places.unlock();
                    }
                },
            }
        }
        let piece = x87.and_then(|(op, _)| self.x87_piece(op, args));
        for arg in args.iter().flatten() {
            self.consume(*arg);
        }
        if effects.writes_regs {
            self.rescue_all()?;
            self.flags = None;
        }
        let vectors = self.places.has_vectors();
        let thunk = self.env.thunks.call(effects.writes_regs, vectors);
        if let Some(piece) = piece {
            self.asm.call_to(piece);
            let slow = self.asm.jcc(CC_B);
            self.detour(slow, What::Call { helper, thunk });
        } else {
            self.asm
                .mov_imm_to(Size::Q, slot_at(ARG + 4), i32::from(helper));
            self.call_out(thunk);
        }
        if x87.is_some_and(|(op, _)| op == X87Op::Changes) {
            forget_x87(&mut self.asm);
        }
        if effects.writes_regs {
            self.places.all_changed();
        }
        if let Some(d) = d
            && self.plan.is_used(d)
        {
            let to = self.fresh(d)?;
            self.asm.mov(Size::Q, to, slot_at(RESULT));
            self.define(d, to, false);
        }
        Ok(())
    }
}

/// Where checks of addresses leave the host's address.
const HOST: Reg = RDX;
/// What announcing stores uses beside.
const FLAGS: Reg = RCX;
/// Where looking at tables leaves the page's line.
const LINE: Reg = RCX;

/// Vector registers; the last of them may hold guest registers.
const XMMS: u8 = 16;
