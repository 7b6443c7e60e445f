//! From a unit to flat code: values get slots, constants become immediates, pairs of operations are
//! fused.
//!
//! A `get` costs nothing: its value *is* the guest's slot, until a `set` of that slot comes while the
//! value is still wanted; then it is moved to a scratch slot first. A result that the next operation
//! sets into a guest slot is computed there.

use std::collections::HashMap;

mod ends;
mod ops;

use accel_core::{SCRATCH, Target};
use accel_ir::{Binary, Block, End, FlagKind, Mem, Op, Ty, Unit, Val};

use crate::code::{Code, Instr, Loc, NOWHERE};

/// Scratch slots for integers, then pairs of them for vectors.
const INTS: std::ops::Range<u16> = SCRATCH as u16..448;
const VECTORS: std::ops::Range<u16> = 448..510;

/// More values were alive at once than there are scratch slots: translate fewer instructions.
#[derive(Debug)]
pub(crate) struct TooBig;

/// Where a value is.
#[derive(Clone, Copy, Debug)]
enum Place {
    /// A constant, nowhere yet.
    Const(u64),
    /// A guest slot, as long as that is not written.
    Guest(Loc),
    /// A scratch slot of its own.
    Scratch(Loc),
    /// Not computed yet: its operation is in `deferred`.
    Deferred,
}

struct Lowering<'a, T> {
    unit: &'a Unit,
    uses: Vec<u32>,
    places: Vec<Option<Place>>,
    /// Operations computed where their one use is.
    deferred: HashMap<Val, Op>,
    /// Values living in each guest slot.
    guests: HashMap<Loc, Vec<Val>>,
    free_ints: Vec<Loc>,
    free_vectors: Vec<Loc>,
    released: Vec<Loc>,
    ops: Vec<Instr>,
    marks: Vec<(u32, u64)>,
    mems: Vec<Mem>,
    /// Kind of the flags if known here.
    flags: Option<(FlagKind, Ty)>,
    starts: Vec<u32>,
    /// Guest instructions before each block, once a way into it is known.
    before: Vec<u16>,
    /// Guest instructions so far in this block and before it.
    insns: u16,
    fixups: Vec<(usize, u32)>,
    /// Flags are defined even if the same unit defines them anew before it looks.
    keeps_flags: bool,
    target: std::marker::PhantomData<T>,
}

/// Flattens a unit.
pub(crate) fn lower<T: Target>(unit: &Unit) -> Result<Code, TooBig> {
    lower_with::<T>(unit, false)
}

/// Flattens a unit whose state is looked at after each instruction.
pub(crate) fn lower_by_insn<T: Target>(unit: &Unit) -> Result<Code, TooBig> {
    lower_with::<T>(unit, true)
}

fn lower_with<T: Target>(unit: &Unit, keeps_flags: bool) -> Result<Code, TooBig> {
    let mut lowering = Lowering::<T> {
        unit,
        uses: vec![0; unit.types.len()],
        places: vec![None; unit.types.len()],
        deferred: HashMap::new(),
        guests: HashMap::new(),
        free_ints: INTS.rev().collect(),
        free_vectors: VECTORS.rev().step_by(2).map(|n| n - 1).collect(),
        released: Vec::new(),
        ops: Vec::with_capacity(unit.blocks.iter().map(|b| b.ops.len()).sum()),
        marks: Vec::with_capacity(unit.insns as usize),
        mems: Vec::new(),
        flags: None,
        starts: Vec::with_capacity(unit.blocks.len()),
        before: vec![0; unit.blocks.len()],
        insns: 0,
        fixups: Vec::new(),
        keeps_flags,
        target: std::marker::PhantomData,
    };
    lowering.count_uses();
    for block in &unit.blocks {
        for p in &block.params {
            let loc = lowering.scratch(unit.ty(*p))?;
            lowering.places[p.0 as usize] = Some(Place::Scratch(loc));
        }
    }
    for index in 0..unit.blocks.len() {
        lowering.block(index)?;
    }
    for (at, block) in std::mem::take(&mut lowering.fixups) {
        let start = lowering.starts.get(block as usize).copied().ok_or(TooBig)?;
        if let Some(to) = lowering.ops[at].target() {
            *to = start;
        }
    }
    Ok(Code {
        ops: lowering.ops,
        marks: lowering.marks,
        mems: lowering.mems,
        pages: Vec::new(),
    })
}

/// Whether an operation whose result nobody wants can be left out.
fn is_pure(op: &Op) -> bool {
    op.def().is_some() && !op.may_fault() && !op.touches_fp()
}

impl<T: Target> Lowering<'_, T> {
    fn count_uses(&mut self) {
        for block in &self.unit.blocks {
            match &block.end {
                End::Jump { args, .. } => args.iter().for_each(|a| self.uses[a.0 as usize] += 1),
                End::Branch { c, .. } => self.uses[c.0 as usize] += 1,
                End::GotoVal { pc, .. } => self.uses[pc.0 as usize] += 1,
                End::Goto { .. } | End::Leave => {}
            }
        }
        for block in self.unit.blocks.iter().rev() {
            for op in block.ops.iter().rev() {
                if is_pure(op) && op.def().is_some_and(|d| self.uses[d.0 as usize] == 0) {
                    continue;
                }
                op.for_each_use(|v| self.uses[v.0 as usize] += 1);
            }
        }
    }

    fn ty(&self, v: Val) -> Ty {
        self.unit.ty(v)
    }

    fn scratch(&mut self, ty: Ty) -> Result<Loc, TooBig> {
        let pool = if ty == Ty::V128 {
            &mut self.free_vectors
        } else {
            &mut self.free_ints
        };
        pool.pop().ok_or(TooBig)
    }

    /// One use of `v` is done: its scratch slot may be free once the current operation is emitted.
    fn done(&mut self, v: Val) {
        let uses = &mut self.uses[v.0 as usize];
        *uses = uses.saturating_sub(1);
        if *uses == 0
            && let Some(Place::Scratch(loc)) = self.places[v.0 as usize]
        {
            self.released.push(loc);
        }
    }

    /// Frees the slots of values that the operation just emitted was the last to read.
    fn release(&mut self) {
        for loc in self.released.drain(..) {
            if loc >= VECTORS.start {
                self.free_vectors.push(loc);
            } else {
                self.free_ints.push(loc);
            }
        }
    }

    /// The constant that `v` is.
    fn constant(&self, v: Val) -> Option<u64> {
        match self.places[v.0 as usize] {
            Some(Place::Const(value)) => Some(value),
            _ => None,
        }
    }

    /// Makes `v` readable from a slot. Its upper bits may be stray.
    fn read(&mut self, v: Val) -> Result<Loc, TooBig> {
        match self.places[v.0 as usize] {
            Some(Place::Guest(loc) | Place::Scratch(loc)) => Ok(loc),
            Some(Place::Const(imm)) => {
                let d = self.scratch(Ty::I64)?;
                self.ops.push(Instr::MovI { d, imm });
                self.places[v.0 as usize] = Some(Place::Scratch(d));
                Ok(d)
            }
            Some(Place::Deferred) | None => {
                self.force(v)?;
                match self.places[v.0 as usize] {
                    Some(Place::Guest(loc) | Place::Scratch(loc)) => Ok(loc),
                    _ => Err(TooBig),
                }
            }
        }
    }

    /// As [`read`](Self::read), with zeros above the value's type.
    fn read_clean(&mut self, v: Val) -> Result<Loc, TooBig> {
        let loc = self.read(v)?;
        let ty = self.ty(v);
        if matches!(self.places[v.0 as usize], Some(Place::Guest(_))) && ty.bits() < 64 {
            let d = self.scratch(ty)?;
            self.ops.push(Instr::Mask {
                d,
                a: loc,
                mask: ty.mask(),
            });
            self.forget_guest(v);
            self.places[v.0 as usize] = Some(Place::Scratch(d));
            return Ok(d);
        }
        Ok(loc)
    }

    fn forget_guest(&mut self, v: Val) {
        for list in self.guests.values_mut() {
            list.retain(|x| *x != v);
        }
    }

    /// Before guest slot `slot` is written: values living in it, or in a vector that it is half of,
    /// and still wanted move out.
    fn spill(&mut self, slot: Loc) -> Result<(), TooBig> {
        let below = slot.wrapping_sub(1);
        let vector = |v: &Val| self.unit.ty(*v) == Ty::V128;
        if self
            .guests
            .get(&below)
            .is_some_and(|list| list.iter().any(vector))
        {
            self.spill(below)?;
        }
        let Some(values) = self.guests.remove(&slot) else {
            return Ok(());
        };
        for v in values {
            if self.uses[v.0 as usize] == 0 {
                continue;
            }
            let ty = self.ty(v);
            let d = self.scratch(ty)?;
            self.ops.push(match ty {
                Ty::V128 => Instr::MovV { d, a: slot },
                _ => Instr::Mask {
                    d,
                    a: slot,
                    mask: ty.mask(),
                },
            });
            self.places[v.0 as usize] = Some(Place::Scratch(d));
        }
        Ok(())
    }

    fn spill_all(&mut self) -> Result<(), TooBig> {
        let slots: Vec<Loc> = self.guests.keys().copied().collect();
        slots.into_iter().try_for_each(|slot| self.spill(slot))
    }

    /// A vector's slots overlap those of its neighbours' integer view.
    fn spill_vector(&mut self, slot: Loc) -> Result<(), TooBig> {
        self.spill(slot)?;
        self.spill(slot + 1)
    }

    fn live_in(&mut self, v: Val, slot: Loc) {
        self.places[v.0 as usize] = Some(Place::Guest(slot));
        self.guests.entry(slot).or_default().push(v);
    }

    /// The slot for a result: the guest's, if the next operation sets it there, else a scratch one.
    /// The caller has read its operands; `taken` is how many operations this consumed.
    fn result(&mut self, d: Val, next: Option<&Op>) -> Result<(Loc, bool), TooBig> {
        if self.uses[d.0 as usize] == 0 {
            return Ok((NOWHERE, false));
        }
        match next {
            Some(Op::Set { slot, v }) if *v == d => {
                let slot = Loc::from(slot.0);
                self.spill(slot)?;
                self.live_in(d, slot);
                self.done(d);
                Ok((slot, true))
            }
            Some(Op::SetV { slot, v }) if *v == d => {
                let slot = Loc::from(slot.0);
                self.spill_vector(slot)?;
                self.live_in(d, slot);
                self.done(d);
                Ok((slot, true))
            }
            _ => {
                let loc = self.scratch(self.ty(d))?;
                self.places[d.0 as usize] = Some(Place::Scratch(loc));
                Ok((loc, false))
            }
        }
    }

    fn block(&mut self, index: usize) -> Result<(), TooBig> {
        let unit = self.unit;
        let block = &unit.blocks[index];
        self.starts.push(self.ops.len() as u32);
        self.insns = self.before[index];
        self.flags = None;
        let dead = dead_flags(block);
        let mut at = 0;
        while at < block.ops.len() {
            let op = &block.ops[at];
            at += 1;
            if is_pure(op) && op.def().is_some_and(|d| self.uses[d.0 as usize] == 0) {
                continue;
            }
            if dead[at - 1] && !self.keeps_flags {
                let mut freed = Vec::new();
                op.for_each_use(|v| freed.push(v));
                freed.into_iter().for_each(|v| self.done(v));
                continue;
            }
            if self.can_defer(block, at - 1) {
                if let Some(d) = op.def() {
                    self.places[d.0 as usize] = Some(Place::Deferred);
                    self.deferred.insert(d, *op);
                }
                continue;
            }
            if self.op(op, block.ops.get(at))? {
                at += 1;
            }
            self.release();
        }
        self.end(index, block)
    }

    /// Whether an operation is better computed where its one use is: sums that become part of an
    /// address, a comparison that becomes part of the block's branch.
    fn can_defer(&self, block: &Block, at: usize) -> bool {
        let op = &block.ops[at];
        let Some(d) = op.def() else { return false };
        if self.uses[d.0 as usize] != 1 {
            return false;
        }
        let rest = &block.ops[at + 1..];
        match op {
            Op::Binary {
                op: Binary::Add | Binary::Shl,
                ..
            } if self.ty(d) == Ty::I64 => {
                !matches!(rest.first(), Some(Op::Set { v, .. }) if *v == d)
                    && rest.iter().any(|o| uses(o, d))
                    && rest
                        .first()
                        .is_some_and(|o| is_address_step(o) || uses(o, d))
            }
            Op::Cmp { .. } => matches!(block.end, End::Branch { c, .. } if c == d),
            Op::FlagsUse { .. } => {
                matches!(block.end, End::Branch { c, .. } if c == d)
                    && !rest
                        .iter()
                        .any(|o| matches!(o, Op::FlagsDef { .. } | Op::Call { .. }))
            }
            _ => false,
        }
    }

    /// Emits a deferred operation now.
    fn force(&mut self, v: Val) -> Result<(), TooBig> {
        let op = self.deferred.remove(&v).ok_or(TooBig)?;
        self.places[v.0 as usize] = None;
        self.op(&op, None).map(|_| ())
    }
}

/// Which flag definitions of a block nobody can see: another follows before a reader, a fault or the
/// block's end.
fn dead_flags(block: &Block) -> Vec<bool> {
    let mut dead = vec![false; block.ops.len()];
    let mut overwritten = false;
    for (at, op) in block.ops.iter().enumerate().rev() {
        match op {
            Op::FlagsDef { .. } => {
                dead[at] = overwritten;
                overwritten = true;
            }
            Op::FlagsUse { .. } | Op::FlagsGet { .. } => overwritten = false,
            _ if op.may_fault() => overwritten = false,
            _ => {}
        }
    }
    dead
}

/// Operations that address arithmetic consists of.
fn is_address_step(op: &Op) -> bool {
    matches!(
        op,
        Op::Const { .. }
            | Op::Get { .. }
            | Op::Binary {
                op: Binary::Add | Binary::Shl,
                ..
            }
            | Op::Load { .. }
            | Op::Store { .. }
    )
}

/// Whether an operation reads `v`.
fn uses(op: &Op, v: Val) -> bool {
    let mut found = false;
    op.for_each_use(|x| found |= x == v);
    found
}
