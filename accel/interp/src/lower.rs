//! From a unit to flat code: values get slots, constants become immediates, pairs of operations are
//! fused.
//!
//! A `get` costs nothing: its value *is* the guest's slot, until a `set` of that slot comes while the
//! value is still wanted; then it is moved to a scratch slot first. A result that the next operation
//! sets into a guest slot is computed there.

use std::collections::HashMap;

use accel_core::{SCRATCH, Target};
use accel_ir::{Binary, Block, Cond, End, FlagKind, Mem, Op, Ordering, Ty, Unit, Val};

use crate::code::{self, Code, Instr, Loc, NO_ARG, NOWHERE};

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
    fixups: Vec<(usize, u32)>,
    target: std::marker::PhantomData<T>,
}

/// Flattens a unit.
pub(crate) fn lower<T: Target>(unit: &Unit) -> Result<Code, TooBig> {
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
        fixups: Vec::new(),
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
    op.def().is_some() && !op.may_fault()
}

impl<T: Target> Lowering<'_, T> {
    fn count_uses(&mut self) {
        for block in &self.unit.blocks {
            match &block.end {
                End::Jump { args, .. } => args.iter().for_each(|a| self.uses[a.0 as usize] += 1),
                End::Branch { c, .. } => self.uses[c.0 as usize] += 1,
                End::GotoVal { pc } => self.uses[pc.0 as usize] += 1,
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
        self.flags = None;
        let dead = dead_flags(block);
        let mut at = 0;
        while at < block.ops.len() {
            let op = &block.ops[at];
            at += 1;
            if is_pure(op) && op.def().is_some_and(|d| self.uses[d.0 as usize] == 0) {
                continue;
            }
            if dead[at - 1] {
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

    fn mem(&mut self, mem: Mem) -> u16 {
        let at = self.mems.iter().position(|m| *m == mem).unwrap_or_else(|| {
            self.mems.push(mem);
            self.mems.len() - 1
        });
        at as u16
    }

    /// The slot and displacement of an address, and the value to count as used; sums that only the
    /// address uses are fused.
    fn address(&mut self, addr: Val) -> Result<(Loc, u64, Val), TooBig> {
        if let Some(Op::Binary {
            op: Binary::Add,
            a,
            b,
            ..
        }) = self.deferred.get(&addr).copied()
            && let Some(imm) = self.constant(b)
        {
            self.deferred.remove(&addr);
            let base = self.read(a)?;
            self.done(b);
            return Ok((base, imm, a));
        }
        let base = self.read(addr)?;
        Ok((base, 0, addr))
    }

    /// `a + b` of 64 bits with what can be fused: `a + (x << n) + imm`.
    fn sum(&mut self, d: Val, a: Val, b: Val, next: Option<&Op>) -> Result<bool, TooBig> {
        if let Some(imm) = self.constant(b) {
            if let Some(Op::Binary {
                op: Binary::Add,
                a: x,
                b: y,
                ..
            }) = self.deferred.get(&a).copied()
                && self.constant(y).is_none()
                && let Ok(imm) = i32::try_from(imm.cast_signed())
            {
                self.deferred.remove(&a);
                self.done(b);
                return self.lea(d, x, y, imm, next);
            }
            let from = self.read(a)?;
            self.done(a);
            self.done(b);
            let (d, taken) = self.result(d, next)?;
            self.ops.push(Instr::Add64I { d, a: from, imm });
            return Ok(taken);
        }
        self.lea(d, a, b, 0, next)
    }

    fn lea(&mut self, d: Val, a: Val, b: Val, imm: i32, next: Option<&Op>) -> Result<bool, TooBig> {
        let (b, shift) = match self.deferred.get(&b).copied() {
            Some(Op::Binary {
                op: Binary::Shl,
                a: x,
                b: n,
                ..
            }) if self.constant(n).is_some() => {
                self.deferred.remove(&b);
                let shift = self.constant(n).unwrap_or(0);
                self.done(n);
                (x, shift as u8 & 63)
            }
            _ => (b, 0),
        };
        let (la, lb) = (self.read(a)?, self.read(b)?);
        self.done(a);
        self.done(b);
        let (d, taken) = self.result(d, next)?;
        self.ops.push(match (shift, imm) {
            (0, 0) => Instr::Add64 { d, a: la, b: lb },
            _ => Instr::Lea {
                d,
                a: la,
                b: lb,
                shift,
                imm,
            },
        });
        Ok(taken)
    }

    /// Emits one operation; whether the next one (a `set` of its result) is done with it.
    #[allow(clippy::too_many_lines)]
    fn op(&mut self, op: &Op, next: Option<&Op>) -> Result<bool, TooBig> {
        match *op {
            Op::Insn { pc } => self.marks.push((self.ops.len() as u32, pc)),
            Op::Const { d, value } => self.places[d.0 as usize] = Some(Place::Const(value)),
            Op::Get { d, slot } | Op::GetV { d, slot } => self.live_in(d, Loc::from(slot.0)),
            Op::Set { slot, v } => {
                let d = Loc::from(slot.0);
                if let Some(imm) = self.constant(v) {
                    self.spill(d)?;
                    self.ops.push(Instr::MovI { d, imm });
                    self.done(v);
                    return Ok(false);
                }
                let a = self.read(v)?;
                let ty = self.ty(v);
                let clean =
                    ty == Ty::I64 || matches!(self.places[v.0 as usize], Some(Place::Scratch(_)));
                if a == d && clean {
                    self.done(v);
                    return Ok(false);
                }
                self.spill(d)?;
                let a = self.read(v)?;
                self.ops.push(if clean {
                    Instr::Mov { d, a }
                } else {
                    Instr::Mask {
                        d,
                        a,
                        mask: ty.mask(),
                    }
                });
                self.done(v);
            }
            Op::SetV { slot, v } => {
                let d = Loc::from(slot.0);
                let a = self.read(v)?;
                if a != d {
                    self.spill_vector(d)?;
                    let a = self.read(v)?;
                    self.ops.push(Instr::MovV { d, a });
                }
                self.done(v);
            }
            Op::Unary { op, d, a } => {
                let ty = self.ty(d);
                let from = self.read(a)?;
                self.done(a);
                let (d, taken) = self.result(d, next)?;
                self.ops.push(Instr::Unary { op, ty, d, a: from });
                return Ok(taken);
            }
            Op::Binary { op, d, a, b } => return self.binary(op, d, a, b, next),
            Op::Cmp { op, d, a, b } => {
                let ty = self.ty(a);
                let la = self.read(a)?;
                let made = match self.constant(b) {
                    Some(imm) => Err(imm),
                    None => Ok(self.read(b)?),
                };
                self.done(a);
                self.done(b);
                let (d, taken) = self.result(d, next)?;
                self.ops.push(match made {
                    Ok(b) => code::compare(op, ty, d, la, b),
                    Err(imm) => code::compare_imm(op, ty, d, la, imm),
                });
                return Ok(taken);
            }
            Op::Select { d, c, a, b } => {
                let (c_loc, a_loc, b_loc) = (
                    self.read_clean(c)?,
                    self.read_clean(a)?,
                    self.read_clean(b)?,
                );
                self.done(c);
                self.done(a);
                self.done(b);
                let (d, taken) = self.result(d, next)?;
                self.ops.push(Instr::Select {
                    d,
                    c: c_loc,
                    a: a_loc,
                    b: b_loc,
                });
                return Ok(taken);
            }
            Op::Zext { d, a } => {
                let mask = self.ty(a).mask() & self.ty(d).mask();
                let clean = mask == u64::MAX
                    || (self.ty(d).bits() >= self.ty(a).bits()
                        && matches!(self.places[a.0 as usize], Some(Place::Scratch(_))));
                let from = self.read(a)?;
                self.done(a);
                let (d, taken) = self.result(d, next)?;
                self.ops.push(if clean {
                    Instr::Mov { d, a: from }
                } else {
                    Instr::Mask { d, a: from, mask }
                });
                return Ok(taken);
            }
            Op::Sext { d, a } => {
                let (ty, mask) = (self.ty(a), self.ty(d).mask());
                let from = self.read(a)?;
                self.done(a);
                let (d, taken) = self.result(d, next)?;
                self.ops.push(match ty {
                    Ty::I8 => Instr::Sext8 { d, a: from, mask },
                    Ty::I16 => Instr::Sext16 { d, a: from, mask },
                    Ty::I32 => Instr::Sext32 { d, a: from, mask },
                    Ty::I64 | Ty::V128 => Instr::Mask { d, a: from, mask },
                });
                return Ok(taken);
            }
            Op::Extract { d, a, shift, width } => {
                let bits = u64::MAX >> (64 - u32::from(width.clamp(1, 64)));
                let mask = bits & self.ty(d).mask();
                let from = self.read(a)?;
                self.done(a);
                let (d, taken) = self.result(d, next)?;
                self.ops.push(Instr::Extract {
                    d,
                    a: from,
                    shift: shift & 63,
                    mask,
                });
                return Ok(taken);
            }
            Op::Insert {
                d,
                a,
                b,
                shift,
                width,
            } => {
                let la = self.read_clean(a)?;
                let narrow = u32::from(width) > self.ty(b).bits();
                let lb = if narrow {
                    self.read_clean(b)?
                } else {
                    self.read(b)?
                };
                self.done(a);
                self.done(b);
                let (d, taken) = self.result(d, next)?;
                self.ops.push(Instr::Insert {
                    d,
                    a: la,
                    b: lb,
                    shift,
                    width,
                });
                return Ok(taken);
            }
            Op::Load { d, addr, mem } => {
                let plain =
                    mem.endian == accel_ir::Endian::Little && !mem.aligned && mem.ty != Ty::V128;
                let (a, imm, fused) = if plain {
                    self.address(addr)?
                } else {
                    (self.read(addr)?, 0, addr)
                };
                self.done(fused);
                let index = self.mem(mem);
                // A load whose value nobody wants still faults.
                let (d, taken) = self.result(d, next)?;
                let ctx = mem.ctx;
                self.ops.push(match mem.ty {
                    Ty::I8 if plain => Instr::Load8 { d, a, ctx, imm },
                    Ty::I16 if plain => Instr::Load16 { d, a, ctx, imm },
                    Ty::I32 if plain => Instr::Load32 { d, a, ctx, imm },
                    Ty::I64 if plain => Instr::Load64 { d, a, ctx, imm },
                    _ => Instr::LoadAny { d, a, mem: index },
                });
                return Ok(taken);
            }
            Op::Store { addr, v, mem } => {
                let plain = mem.endian == accel_ir::Endian::Little
                    && !mem.aligned
                    && mem.ty != Ty::V128
                    && mem.ordering != Ordering::SeqCst;
                let value = self.read(v)?;
                let (a, imm, fused) = if plain {
                    self.address(addr)?
                } else {
                    (self.read(addr)?, 0, addr)
                };
                self.done(fused);
                self.done(v);
                let index = self.mem(mem);
                let (v, ctx) = (value, mem.ctx);
                self.ops.push(match mem.ty {
                    Ty::I8 if plain => Instr::Store8 { a, v, ctx, imm },
                    Ty::I16 if plain => Instr::Store16 { a, v, ctx, imm },
                    Ty::I32 if plain => Instr::Store32 { a, v, ctx, imm },
                    Ty::I64 if plain => Instr::Store64 { a, v, ctx, imm },
                    _ => Instr::StoreAny { a, v, mem: index },
                });
            }
            Op::Probe { addr, mem } => {
                let a = self.read(addr)?;
                self.done(addr);
                let mem = self.mem(mem);
                self.ops.push(Instr::Probe { a, mem });
            }
            Op::Rmw {
                op,
                d,
                addr,
                v,
                mem,
            } => {
                let (a, value) = (self.read(addr)?, self.read(v)?);
                self.done(addr);
                self.done(v);
                let mem = self.mem(mem);
                let (d, taken) = self.result(d, next)?;
                self.ops.push(Instr::Rmw {
                    op,
                    d,
                    a,
                    v: value,
                    mem,
                });
                return Ok(taken);
            }
            Op::Cas {
                d,
                addr,
                expected,
                new,
                mem,
            } => {
                let (a, e, n) = (
                    self.read(addr)?,
                    self.read_clean(expected)?,
                    self.read(new)?,
                );
                self.done(addr);
                self.done(expected);
                self.done(new);
                let mem = self.mem(mem);
                let (d, taken) = self.result(d, next)?;
                self.ops.push(Instr::Cas {
                    d,
                    a,
                    expected: e,
                    new: n,
                    mem,
                });
                return Ok(taken);
            }
            Op::Fence => self.ops.push(Instr::Fence),
            Op::FlagsDef { kind, ty, a, b, c } => {
                let la = self.read(a)?;
                let number = u16::from(kind as u8) << 8 | u16::from(ty.bytes());
                match (c, self.constant(b)) {
                    (Some(c), _) => {
                        let (lb, lc) = (self.read(b)?, self.read(c)?);
                        self.ops.push(Instr::FlagsC {
                            kind: number,
                            a: la,
                            b: lb,
                            c: lc,
                        });
                        self.done(c);
                    }
                    (None, Some(imm)) => self.ops.push(Instr::FlagsI {
                        kind: number,
                        a: la,
                        imm,
                    }),
                    (None, None) => {
                        let lb = self.read(b)?;
                        self.ops.push(Instr::Flags {
                            kind: number,
                            a: la,
                            b: lb,
                        });
                    }
                }
                self.done(a);
                self.done(b);
                self.flags = Some((kind, ty));
            }
            Op::FlagsUse { d, cond } => {
                let (d, taken) = self.result(d, next)?;
                self.ops.push(Instr::Test { d, cond });
                return Ok(taken);
            }
            Op::FlagsGet { d } => {
                let (d, taken) = self.result(d, next)?;
                self.ops.push(Instr::Pack { d });
                return Ok(taken);
            }
            Op::Vec { op, d, a, b, imm } => {
                let (la, lb) = (self.read(a)?, self.read(b)?);
                self.done(a);
                self.done(b);
                let (d, taken) = self.result_vector(d, next)?;
                self.ops.push(Instr::Vec {
                    op,
                    imm,
                    d,
                    a: la,
                    b: lb,
                });
                return Ok(taken);
            }
            Op::VecMake { d, lo, hi } => {
                let (lo_loc, hi_loc) = (self.read(lo)?, self.read(hi)?);
                // Not straight into a guest register: its halves may be the operands.
                let loc = self.scratch(Ty::V128)?;
                self.ops.push(Instr::Mov { d: loc, a: lo_loc });
                self.ops.push(Instr::Mov {
                    d: loc + 1,
                    a: hi_loc,
                });
                self.done(lo);
                self.done(hi);
                self.places[d.0 as usize] = Some(Place::Scratch(loc));
            }
            Op::VecHalf { d, a, high } => {
                let from = self.read(a)? + u16::from(high);
                self.done(a);
                let (d, taken) = self.result(d, next)?;
                self.ops.push(Instr::Mov { d, a: from });
                return Ok(taken);
            }
            Op::Call { d, helper, args } => {
                let mut locs = [NO_ARG; 4];
                for (loc, v) in locs.iter_mut().zip(args) {
                    if let Some(v) = v {
                        *loc = self.read_clean(v)?;
                    }
                }
                args.into_iter().flatten().for_each(|v| self.done(v));
                let effects = T::helpers()
                    .get(usize::from(helper.0))
                    .map(|h| h.effects)
                    .unwrap_or_default();
                if effects.writes_regs {
                    self.spill_all()?;
                    self.flags = None;
                }
                let (loc, taken) = match d {
                    Some(d) => self.result(d, next)?,
                    None => (NOWHERE, false),
                };
                self.ops.push(Instr::Call {
                    helper: helper.0,
                    d: loc,
                    args: locs,
                });
                return Ok(taken);
            }
        }
        Ok(false)
    }

    fn result_vector(&mut self, d: Val, next: Option<&Op>) -> Result<(Loc, bool), TooBig> {
        if self.uses[d.0 as usize] == 0 {
            let loc = self.scratch(Ty::V128)?;
            self.free_vectors.push(loc);
            return Ok((loc, false));
        }
        self.result(d, next)
    }

    fn binary(
        &mut self,
        op: Binary,
        d: Val,
        a: Val,
        b: Val,
        next: Option<&Op>,
    ) -> Result<bool, TooBig> {
        let ty = self.ty(d);
        if op == Binary::Add && ty == Ty::I64 {
            return self.sum(d, a, b, next);
        }
        let la = self.read(a)?;
        let second = match self.constant(b) {
            Some(imm) => Err(imm),
            None => Ok(self.read(b)?),
        };
        self.done(a);
        self.done(b);
        let (d, taken) = self.result(d, next)?;
        self.ops.push(match second {
            Ok(b) => code::binary(op, ty, d, la, b),
            Err(imm) => code::binary_imm(op, ty, d, la, imm),
        });
        Ok(taken)
    }

    /// The branch on `c`, fused with what computes it.
    fn branch_on(&mut self, c: Val) -> Result<Instr, TooBig> {
        let flags = Loc::from(T::LAYOUT.flags.0);
        match self.deferred.remove(&c) {
            Some(Op::Cmp { op, a, b, .. }) => {
                let ty = self.ty(a);
                let la = self.read(a)?;
                let instr = match self.constant(b) {
                    Some(imm) => code::branch_imm(op, ty, la, imm),
                    None => {
                        let lb = self.read(b)?;
                        code::branch(op, ty, la, lb)
                    }
                };
                self.done(a);
                self.done(b);
                Ok(instr)
            }
            Some(Op::FlagsUse { cond, .. }) => Ok(match (self.flags, cond) {
                (Some((FlagKind::Sub, ty)), _) if cond.after_sub().is_some() => {
                    let (op, swap) = cond.after_sub().unwrap_or((accel_ir::Cmp::Eq, false));
                    let (a, b) = if swap {
                        (flags + 2, flags + 1)
                    } else {
                        (flags + 1, flags + 2)
                    };
                    code::branch(op, ty, a, b)
                }
                (Some((FlagKind::Logic, ty)), Cond::E) => {
                    code::branch_imm(accel_ir::Cmp::Eq, ty, flags + 1, 0)
                }
                (Some((FlagKind::Logic, ty)), Cond::Ne) => {
                    code::branch_imm(accel_ir::Cmp::Ne, ty, flags + 1, 0)
                }
                (Some((FlagKind::Logic, ty)), Cond::S | Cond::L) => {
                    code::branch_imm(accel_ir::Cmp::Lts, ty, flags + 1, 0)
                }
                _ => Instr::BrTest { cond, to: 0 },
            }),
            Some(other) => {
                self.deferred.insert(c, other);
                let a = self.read_clean(c)?;
                self.done(c);
                Ok(Instr::BrIf { a, to: 0 })
            }
            None => {
                let a = self.read_clean(c)?;
                self.done(c);
                Ok(Instr::BrIf { a, to: 0 })
            }
        }
    }

    fn end(&mut self, index: usize, block: &Block) -> Result<(), TooBig> {
        let insns = self.marks.len() as u16;
        match &block.end {
            End::Goto { pc } => self.ops.push(Instr::Exit { insns, pc: *pc }),
            End::GotoVal { pc } => {
                let a = self.read_clean(*pc)?;
                self.done(*pc);
                self.ops.push(Instr::ExitVal { insns, a });
            }
            End::Leave => self.ops.push(Instr::Leave { insns }),
            End::Jump { to, args } => {
                let params = &self.unit.blocks[to.0 as usize].params;
                for (arg, param) in args.iter().zip(params) {
                    let a = self.read_clean(*arg)?;
                    let Some(Place::Scratch(d)) = self.places[param.0 as usize] else {
                        return Err(TooBig);
                    };
                    self.ops.push(match self.ty(*param) {
                        Ty::V128 => Instr::MovV { d, a },
                        _ => Instr::Mov { d, a },
                    });
                    self.done(*arg);
                }
                self.settle()?;
                self.jump(index, to.0);
            }
            End::Branch { c, then, other } => {
                self.settle_but(*c)?;
                let instr = self.branch_on(*c)?;
                self.settle()?;
                self.fixups.push((self.ops.len(), then.0));
                self.ops.push(instr);
                self.jump(index, other.0);
            }
        }
        self.guests.clear();
        Ok(())
    }

    fn jump(&mut self, from: usize, to: u32) {
        if to as usize != from + 1 {
            self.fixups.push((self.ops.len(), to));
            self.ops.push(Instr::Jump { to: 0 });
        }
    }

    /// At a block's end: values still wanted later leave the guest's slots.
    fn settle(&mut self) -> Result<(), TooBig> {
        let waiting: Vec<Val> = self.deferred.keys().copied().collect();
        waiting.into_iter().try_for_each(|v| self.force(v))?;
        self.spill_all()
    }

    /// As [`settle`](Self::settle), leaving the branch condition to be fused.
    fn settle_but(&mut self, c: Val) -> Result<(), TooBig> {
        let kept = self.deferred.remove(&c);
        let waiting: Vec<Val> = self.deferred.keys().copied().collect();
        waiting.into_iter().try_for_each(|v| self.force(v))?;
        if let Some(op) = kept {
            self.deferred.insert(c, op);
        }
        Ok(())
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
