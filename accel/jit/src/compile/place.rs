//! Where the unit's values are.

use accel_ir::{Binary, Op, Slot, Ty, Val};

use super::plan::{is_pure, renew};
use super::{Compiler, FLAGS, Map, SPILL, SPILLS, TooBig, XMMS, memory::size_of, slot_at};
use crate::asm::{Alu, Mem, RAX, RCX, RDI, RDX, RSI, Reg, Rm, Shift, Size, Xmm};

/// Host registers for values, in the order they are taken: checks of addresses use the last two.
const SCRATCH: [Reg; 5] = [RSI, RDI, RAX, RDX, RCX];

/// How many operations are looked at to see what becomes of a value.
const LOOK_AHEAD: usize = 16;

/// Where a value is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Place {
    /// Nowhere: not defined yet, or not needed any more.
    Gone,
    /// It is this constant.
    Const(u64),
    /// It is (the low part of) a guest register as that is now.
    Guest(Slot),
    /// In a scratch register.
    Reg(Reg),
    /// In a spill slot of its own; two for vectors.
    Spill(u16),
    /// In a vector register.
    Xmm(Xmm),
    /// It is a guest's vector register as that is now.
    GuestV(Slot),
    /// Not computed yet: an operation with one use, whose operands are kept.
    Deferred,
}

/// All places, and what the scratch registers hold.
#[derive(Clone, Default)]
pub(super) struct Places {
    of: Vec<Place>,
    /// Whether the bits above the value's type are garbage.
    dirty: Vec<bool>,
    /// By number: scratch registers are among the first eight.
    owner: [Option<Val>; 8],
    owner_v: [Option<Val>; XMMS as usize],
    locked: u32,
    locked_v: u32,
    /// Operations that wait for their use.
    deferred: Vec<(Val, Op)>,
    /// Values that stand for a guest register.
    guests: Vec<Val>,
    /// How many of the vector registers are for values.
    xmms: u8,
}

impl Places {
    /// Makes them those of another unit.
    pub(super) fn make(&mut self, values: usize, map: &Map) {
        renew(&mut self.of, values, Place::Gone);
        renew(&mut self.dirty, values, false);
        self.owner = [None; 8];
        self.owner_v = [None; XMMS as usize];
        (self.locked, self.locked_v) = (0, 0);
        self.deferred.clear();
        self.guests.clear();
        self.xmms = XMMS - map.vectors.len() as u8;
    }

    pub(super) fn of(&self, v: Val) -> Place {
        self.of[v.0 as usize]
    }

    pub(super) fn set(&mut self, v: Val, place: Place) {
        self.of[v.0 as usize] = place;
    }

    /// From here on the bits above each narrow value's type may be garbage.
    pub(super) fn distrust(&mut self, types: &[Ty]) {
        for (dirty, ty) in self.dirty.iter_mut().zip(types) {
            *dirty |= ty.bits() < Ty::I64.bits();
        }
    }

    pub(super) fn is_dirty(&self, v: Val) -> bool {
        self.dirty[v.0 as usize]
    }

    /// Ends the operation's hold on the registers of its operands.
    pub(super) fn unlock(&mut self) {
        self.locked = 0;
        self.locked_v = 0;
    }

    pub(super) fn lock(&mut self, reg: Reg) {
        self.locked |= 1 << reg.0;
    }

    pub(super) fn unlock_one(&mut self, reg: Reg) {
        self.locked &= !(1 << reg.0);
    }

    pub(super) fn lock_v(&mut self, reg: Xmm) {
        self.locked_v |= 1 << reg.0;
    }

    pub(super) fn has_vectors(&self) -> bool {
        self.owner_v.iter().any(Option::is_some)
    }

    pub(super) fn set_const(&mut self, d: Val, value: u64) {
        self.set(d, Place::Const(value));
    }

    pub(super) fn set_guest(&mut self, d: Val, slot: Slot, dirty: bool) {
        self.set(d, Place::Guest(slot));
        self.dirty[d.0 as usize] = dirty;
        self.guests.push(d);
    }

    pub(super) fn set_guest_v(&mut self, d: Val, slot: Slot) {
        self.set(d, Place::GuestV(slot));
        self.guests.push(d);
    }

    pub(super) fn defer(&mut self, d: Val, op: Op) {
        self.set(d, Place::Deferred);
        self.deferred.push((d, op));
    }

    /// The operation of a deferred value, which is no longer deferred.
    pub(super) fn take_deferred(&mut self, v: Val) -> Option<Op> {
        let at = self.deferred.iter().position(|(d, _)| *d == v)?;
        Some(self.deferred.swap_remove(at).1)
    }

    pub(super) fn deferred(&self, v: Val) -> Option<&Op> {
        self.deferred
            .iter()
            .find(|(d, _)| *d == v)
            .map(|(_, op)| op)
    }

    pub(super) fn constant(&self, v: Val) -> Option<u64> {
        match self.of(v) {
            Place::Const(value) => Some(value),
            _ => None,
        }
    }

    pub(super) fn is_guest(&self, v: Val, slot: Slot) -> bool {
        self.of(v) == Place::Guest(slot)
    }

    pub(super) fn is_guest_v(&self, v: Val, slot: Slot) -> bool {
        self.of(v) == Place::GuestV(slot)
    }

    /// A guest register has another value: nothing stands for it any more. Values still needed were
    /// rescued.
    pub(super) fn changed(&mut self, slot: Slot) {
        let of = &mut self.of;
        self.guests.retain(|v| {
            let place = &mut of[v.0 as usize];
            let gone = match *place {
                Place::Guest(s) => s == slot,
                Place::GuestV(s) => s == slot || s.0 + 1 == slot.0,
                _ => return false,
            };
            if gone {
                *place = Place::Gone;
            }
            !gone
        });
    }

    /// As [`changed`](Self::changed) for a vector register that now is `v`, which then stands for it if it
    /// is in no register.
    pub(super) fn changed_v(&mut self, slot: Slot, v: Val) {
        let keep = self.of(v);
        self.changed(slot);
        self.changed(Slot(slot.0 + 1));
        if keep == Place::GuestV(slot) {
            self.set_guest_v(v, slot);
        }
    }

    /// Any guest register may have another value.
    pub(super) fn all_changed(&mut self) {
        for v in std::mem::take(&mut self.guests) {
            if matches!(self.of(v), Place::Guest(_) | Place::GuestV(_)) {
                self.set(v, Place::Gone);
            }
        }
    }

    /// Frees registers of values without uses.
    pub(super) fn free_unused(&mut self, rest: &[u16]) {
        for owner in self.owner.iter_mut().chain(&mut self.owner_v) {
            if let Some(v) = *owner
                && rest[v.0 as usize] == 0
            {
                self.of[v.0 as usize] = Place::Gone;
                *owner = None;
            }
        }
    }

    /// Takes a value out of its register.
    fn vacate(&mut self, v: Val) {
        match self.of(v) {
            Place::Reg(reg) => self.owner[usize::from(reg.0)] = None,
            Place::Xmm(reg) => self.owner_v[usize::from(reg.0)] = None,
            _ => {}
        }
    }
}

impl Compiler<'_> {
    pub(super) fn ty(&self, v: Val) -> Ty {
        self.unit.ty(v)
    }

    /// One use of a value is done; its register is free after the last.
    pub(super) fn consume(&mut self, v: Val) {
        let rest = &mut self.plan.rest[v.0 as usize];
        *rest = rest.saturating_sub(1);
        if *rest == 0 && matches!(self.places.of(v), Place::Reg(_) | Place::Xmm(_)) {
            self.places.vacate(v);
            self.places.set(v, Place::Gone);
        }
    }

    /// A value's own spill slot: the same on all paths, whether or not something was stored there on
    /// this one.
    fn spill_slot(&mut self, v: Val, cells: u16) -> Result<u16, TooBig> {
        let i = v.0 as usize;
        if let Some(at) = self.cells[i] {
            return Ok(at);
        }
        let at = self.spilled;
        if usize::from(at + cells) > SPILLS {
            return Err(TooBig);
        }
        self.spilled += cells;
        self.cells[i] = Some(at);
        Ok(at)
    }

    pub(super) fn spill_at(n: u16) -> Mem {
        slot_at(SPILL + usize::from(n))
    }

    /// Moves a value out of its register into a spill slot.
    pub(super) fn spill(&mut self, v: Val) -> Result<(), TooBig> {
        match self.places.of(v) {
            Place::Reg(reg) => {
                let n = self.spill_slot(v, 1)?;
                self.asm.mov_to(Size::Q, Self::spill_at(n), reg);
                self.places.vacate(v);
                self.places.set(v, Place::Spill(n));
            }
            Place::Xmm(reg) => {
                let n = self.spill_slot(v, 2)?;
                self.asm.movups_to(Self::spill_at(n), reg);
                self.places.vacate(v);
                self.places.set(v, Place::Spill(n));
            }
            _ => {}
        }
        Ok(())
    }

    /// A scratch register that nothing is in, locked for this operation.
    pub(super) fn alloc(&mut self) -> Result<Reg, TooBig> {
        let free = |c: &Self, r: &Reg| c.places.locked & 1 << r.0 == 0;
        let found = SCRATCH
            .into_iter()
            .find(|r| free(self, r) && self.places.owner[usize::from(r.0)].is_none());
        let reg = match found {
            Some(reg) => reg,
            None => {
                let reg = SCRATCH.into_iter().find(|r| free(self, r)).ok_or(TooBig)?;
                if let Some(v) = self.places.owner[usize::from(reg.0)] {
                    self.spill(v)?;
                }
                reg
            }
        };
        self.takes(reg);
        Ok(reg)
    }

    /// As [`alloc`](Self::alloc), if there is one without moving anything.
    pub(super) fn spare(&mut self) -> Option<Reg> {
        let reg = SCRATCH.into_iter().find(|reg| {
            self.places.locked & 1 << reg.0 == 0 && self.places.owner[usize::from(reg.0)].is_none()
        })?;
        self.takes(reg);
        Some(reg)
    }

    /// Has a scratch register hold something else.
    fn takes(&mut self, reg: Reg) {
        if reg == FLAGS {
            self.flags_at = None;
        }
        self.places.lock(reg);
    }

    /// Makes a certain scratch register free, and locks it.
    pub(super) fn claim(&mut self, reg: Reg) -> Result<(), TooBig> {
        if let Some(v) = self.places.owner[usize::from(reg.0)] {
            self.places.lock(reg);
            let free = SCRATCH.into_iter().find(|r| {
                self.places.locked & 1 << r.0 == 0
                    && self.places.owner[usize::from(r.0)].is_none()
                    && *r != RCX
                    && *r != RDX
            });
            match free {
                Some(to) => {
                    self.asm.mov(Size::Q, to, reg);
                    self.places.vacate(v);
                    self.places.owner[usize::from(to.0)] = Some(v);
                    self.places.set(v, Place::Reg(to));
                    // Whoever locked the value's register means the value.
                    self.places.lock(to);
                }
                None => self.spill(v)?,
            }
        }
        self.takes(reg);
        Ok(())
    }

    /// A register for the value about to be defined: the guest register's own if that is where it
    /// goes next, else a scratch register.
    pub(super) fn fresh(&mut self, d: Val) -> Result<Reg, TooBig> {
        match self.destination(d) {
            Some((_, reg)) => Ok(reg),
            None => self.alloc(),
        }
    }

    /// The guest register that a value may be computed in: it is set to the value before anything
    /// could see the difference.
    pub(super) fn destination(&self, d: Val) -> Option<(Slot, Reg)> {
        let ty = self.ty(d);
        if !matches!(ty, Ty::I32 | Ty::I64) {
            return None;
        }
        let slot = self.set_target(d)?;
        let reg = self.map.reg(slot)?;
        // Values that stand for the register as it is must not be needed any more.
        let needed = |v: &Val| self.places.is_guest(*v, slot) && self.plan.rest[v.0 as usize] != 0;
        if self.places.guests.iter().any(needed) || self.waits_for(slot) {
            return None;
        }
        Some((slot, reg))
    }

    /// The guest register that is set to a value soon, with nothing before that could fault or read
    /// the register as it was.
    pub(super) fn set_target(&self, d: Val) -> Option<Slot> {
        let ops = &self.unit.blocks[self.block].ops;
        let mut read = [0_u64; 4];
        for op in ops.get(self.op + 1..)?.iter().take(LOOK_AHEAD) {
            match op {
                Op::Set { slot, v } if *v == d => {
                    let bit = read[usize::from(slot.0 >> 6)] >> (slot.0 & 63) & 1;
                    return (bit == 0).then_some(*slot);
                }
                Op::Get { slot, .. } | Op::GetV { slot, .. } => {
                    read[usize::from(slot.0 >> 6)] |= 1 << (slot.0 & 63);
                }
                Op::FlagsDef { .. } | Op::Set { .. } => {}
                op if is_pure(op) => {}
                _ => return None,
            }
        }
        None
    }

    /// Whether a deferred operation reads a guest register.
    fn waits_for(&self, slot: Slot) -> bool {
        self.places.deferred.iter().any(|(_, op)| {
            let mut found = false;
            op.for_each_use(|v| found |= self.reads(v, slot));
            found
        })
    }

    fn reads(&self, v: Val, slot: Slot) -> bool {
        match self.places.of(v) {
            Place::Guest(s) => s == slot,
            Place::GuestV(s) => s == slot || s.0 + 1 == slot.0,
            _ => false,
        }
    }

    /// The value is now in a register: a scratch register, or that of the guest register it will be
    /// set into.
    pub(super) fn define(&mut self, d: Val, reg: Reg, dirty: bool) {
        self.places.dirty[d.0 as usize] = dirty;
        if let Some(slot) = self.slot_of(reg) {
            self.places.changed(slot);
            self.places.set_guest(d, slot, dirty);
            return;
        }
        self.places.owner[usize::from(reg.0)] = Some(d);
        self.places.set(d, Place::Reg(reg));
    }

    fn slot_of(&self, reg: Reg) -> Option<Slot> {
        self.map.slot_of(reg)
    }

    /// The value takes over where another one is, which is not needed any more.
    pub(super) fn alias(&mut self, d: Val, a: Val, dirty: bool) {
        let place = self.places.of(a);
        self.places.dirty[d.0 as usize] = dirty;
        match place {
            Place::Reg(reg) => {
                self.places.set(a, Place::Gone);
                self.places.owner[usize::from(reg.0)] = Some(d);
                self.places.set(d, place);
            }
            Place::Guest(slot) => self.places.set_guest(d, slot, dirty),
            _ => self.places.set(d, place),
        }
    }

    /// The value as an operand of its type's size; bits above may be garbage.
    pub(super) fn operand(&mut self, v: Val) -> Result<Rm, TooBig> {
        match self.places.of(v) {
            Place::Guest(slot) => match self.map.reg(slot) {
                Some(reg) => Ok(reg.into()),
                None => Ok(slot_at(slot.0.into()).into()),
            },
            Place::Spill(n) => Ok(Self::spill_at(n).into()),
            _ => Ok(self.reg(v)?.into()),
        }
    }

    /// The value in a register, locked; bits above its type may be garbage. Not to be changed.
    pub(super) fn reg(&mut self, v: Val) -> Result<Reg, TooBig> {
        match self.places.of(v) {
            Place::Const(value) => {
                let reg = self.alloc()?;
                self.asm.mov_imm(reg, value);
                // Later uses may still want the constant; it stays one.
                Ok(reg)
            }
            Place::Guest(slot) => match self.map.reg(slot) {
                Some(reg) => Ok(reg),
                None => {
                    let reg = self.alloc()?;
                    let size = size_of(self.ty(v));
                    self.asm.movzx(size, reg, slot_at(slot.0.into()));
                    self.hold(v, reg);
                    Ok(reg)
                }
            },
            Place::Reg(reg) => {
                self.places.lock(reg);
                Ok(reg)
            }
            Place::Spill(n) => {
                let reg = self.alloc()?;
                self.asm.mov(Size::Q, reg, Self::spill_at(n));
                let dirty = self.places.is_dirty(v);
                self.define(v, reg, dirty);
                Ok(reg)
            }
            Place::Deferred => {
                self.force(v)?;
                self.reg(v)
            }
            Place::Gone | Place::Xmm(_) | Place::GuestV(_) => Err(TooBig),
        }
    }

    /// A clean copy of the value was loaded into a register, which holds it from now on.
    fn hold(&mut self, v: Val, reg: Reg) {
        self.places.dirty[v.0 as usize] = false;
        self.places.owner[usize::from(reg.0)] = Some(v);
        self.places.set(v, Place::Reg(reg));
    }

    /// The value in a register, zero-extended to 64 bits. Not to be changed.
    pub(super) fn clean(&mut self, v: Val) -> Result<Reg, TooBig> {
        let ty = self.ty(v);
        if let Place::Deferred = self.places.of(v) {
            self.force(v)?;
        }
        if self.places.constant(v).is_some() || !self.places.is_dirty(v) {
            return self.reg(v);
        }
        if let Place::Reg(reg) = self.places.of(v) {
            self.places.lock(reg);
            self.asm.movzx(size_of(ty), reg, reg);
            self.places.dirty[v.0 as usize] = false;
            return Ok(reg);
        }
        let from = self.operand(v)?;
        let reg = self.alloc()?;
        self.asm.movzx(size_of(ty), reg, from);
        self.hold(v, reg);
        Ok(reg)
    }

    /// A copy of the value in a register that may be changed: its own if this is the last use.
    /// Garbage above the type may stay.
    pub(super) fn copy_into(&mut self, to: Reg, v: Val) -> Result<(), TooBig> {
        if let Some(value) = self.places.constant(v) {
            if value == 0 {
                self.asm.alu(Alu::Xor, Size::D, to, to);
            } else {
                self.asm.mov_imm(to, value);
            }
            return Ok(());
        }
        if let Place::Deferred = self.places.of(v) {
            self.force(v)?;
        }
        let from = self.operand(v)?;
        if from != to.into() {
            let size = match (self.ty(v), from) {
                (Ty::I64, _) => Size::Q,
                (Ty::I32, _) | (_, Rm::Reg(_)) => Size::D,
                (ty, _) => {
                    return {
                        self.asm.movzx(size_of(ty), to, from);
                        Ok(())
                    };
                }
            };
            self.asm.mov(size, to, from);
        }
        Ok(())
    }

    /// Computes a deferred value before an operation that uses it takes any registers.
    pub(super) fn ready(&mut self, v: Val) -> Result<(), TooBig> {
        self.force(v)?;
        self.places.unlock();
        Ok(())
    }

    /// Computes a deferred value into a register.
    pub(super) fn force(&mut self, v: Val) -> Result<(), TooBig> {
        if self.places.of(v) != Place::Deferred {
            return Ok(());
        }
        let Some(op) = self.places.take_deferred(v) else {
            return Ok(());
        };
        match op {
            Op::Cmp { op, d, a, b } => self.cmp(op, d, a, b),
            Op::FlagsUse { d, cond } => self.flags_value(d, cond),
            Op::VecMake { d, lo, hi } => self.make_vector(d, lo, hi),
            Op::Binary { op, d, a, b } => self.sum(op, d, a, b),
            _ => Err(TooBig),
        }
    }

    /// Computes all deferred values.
    pub(super) fn force_all(&mut self) -> Result<(), TooBig> {
        while let Some((v, _)) = self.places.deferred.first() {
            let v = *v;
            self.force(v)?;
            self.places.unlock();
        }
        Ok(())
    }

    /// Computes deferred values that fulfil a condition.
    pub(super) fn force_if(&mut self, which: impl Fn(&Op) -> bool) -> Result<(), TooBig> {
        let waiting: Vec<Val> = self
            .places
            .deferred
            .iter()
            .filter(|(_, op)| which(op))
            .map(|(v, _)| *v)
            .collect();
        for v in waiting {
            self.force(v)?;
            self.places.unlock();
        }
        Ok(())
    }

    /// Before a guest register changes: values that stand for it and are still needed get registers
    /// of their own. `but` is the new value, whose own use does not count.
    pub(super) fn rescue(&mut self, slot: Slot, but: Option<Val>) -> Result<(), TooBig> {
        if self.waits_for(slot) {
            let waiting: Vec<Val> = self
                .places
                .deferred
                .iter()
                .filter(|(d, op)| {
                    let mut found = false;
                    op.for_each_use(|v| found |= self.reads(v, slot));
                    // A sum goes straight to where it belongs.
                    found && !(Some(*d) == but && matches!(op, Op::Binary { .. }))
                })
                .map(|(v, _)| *v)
                .collect();
            for v in waiting {
                self.force(v)?;
            }
        }
        let mut at = 0;
        while let Some(v) = self.places.guests.get(at).copied() {
            at += 1;
            if self.reads(v, slot) && self.plan.rest[v.0 as usize] > u16::from(Some(v) == but) {
                self.detach(v)?;
            }
        }
        self.places.unlock();
        Ok(())
    }

    /// Gives a value that stands for a guest register a register of its own.
    fn detach(&mut self, v: Val) -> Result<(), TooBig> {
        match self.places.of(v) {
            Place::Guest(slot) => {
                let size = size_of(self.ty(v));
                let from: Rm = match self.map.reg(slot) {
                    Some(reg) => reg.into(),
                    None => slot_at(slot.0.into()).into(),
                };
                let reg = self.alloc()?;
                self.asm.movzx(size, reg, from);
                self.places.unlock_one(reg);
                self.hold(v, reg);
            }
            Place::GuestV(slot) => match self.map.xmm(slot) {
                Some(from) => {
                    let reg = self.alloc_v()?;
                    self.asm.movaps(reg, from);
                    self.define_v(v, reg);
                }
                None => {
                    self.xmm(v)?;
                }
            },
            _ => {}
        }
        Ok(())
    }

    /// Before anything may happen to guest registers: values that stand for one get registers.
    pub(super) fn rescue_all(&mut self) -> Result<(), TooBig> {
        self.force_all()?;
        let needed: Vec<Val> = self
            .places
            .guests
            .iter()
            .copied()
            .filter(|v| self.plan.rest[v.0 as usize] != 0)
            .collect();
        for v in needed {
            self.detach(v)?;
            self.places.unlock();
        }
        Ok(())
    }

    /// Puts all values that are still needed where every block finds them.
    pub(super) fn settle(&mut self) -> Result<(), TooBig> {
        self.rescue_all()?;
        let held: Vec<Val> = self
            .places
            .owner
            .iter()
            .chain(&self.places.owner_v)
            .flatten()
            .copied()
            .collect();
        held.into_iter().try_for_each(|v| self.spill(v))
    }

    /// The value as the address of an access, in a certain scratch register, which was claimed.
    pub(super) fn address_into(&mut self, to: Reg, v: Val) -> Result<(), TooBig> {
        self.address_past(to, v, 0)
    }

    /// The guest register that an address is counted from, and how far away it is, if a host register
    /// keeps that.
    pub(super) fn counted_from(&self, v: Val) -> Option<(Reg, i64)> {
        let (of, at) = match self.places.deferred(v) {
            Some(&Op::Binary {
                op: Binary::Add,
                a,
                b,
                ..
            }) => (a, self.places.constant(b)?.cast_signed()),
            Some(_) => return None,
            None => (v, 0),
        };
        match self.places.of(of) {
            Place::Guest(slot) if !self.places.is_dirty(of) => Some((self.map.reg(slot)?, at)),
            _ => None,
        }
    }

    /// As [`address_into`](Self::address_into), so many bytes further on.
    pub(super) fn address_past(&mut self, to: Reg, v: Val, bytes: i32) -> Result<(), TooBig> {
        if let Some(&Op::Binary { op, a, b, .. }) = self.places.deferred(v) {
            self.places.take_deferred(v);
            self.places.set(v, Place::Gone);
            self.plan.rest[v.0 as usize] = 0;
            let mut parts = Parts::default();
            self.collect(op, a, b, 0, &mut parts)?;
            let rest = match parts.disp.checked_add(bytes) {
                Some(disp) => {
                    parts.disp = disp;
                    0
                }
                None => bytes,
            };
            self.lea(to, &parts);
            for v in parts.used() {
                self.consume(v);
            }
            if rest != 0 {
                self.asm.alu_imm(Alu::Add, Size::Q, to, rest);
            }
            return Ok(());
        }
        match self.places.constant(v) {
            Some(value) => self.asm.mov_imm(to, value.wrapping_add(bytes as u64)),
            None => {
                let from = self.clean(v)?;
                if bytes != 0 {
                    self.asm.lea(Size::Q, to, Mem::base(from, bytes));
                } else if from != to {
                    self.asm.mov(Size::Q, to, from);
                }
            }
        }
        self.consume(v);
        Ok(())
    }

    /// Whether the operation may wait until it is needed as part of an address.
    pub(super) fn is_sum(&self, op: Binary, b: Val, ty: Ty) -> bool {
        let small = |c: &Self, limit: u64| c.places.constant(b).is_some_and(|n| n <= limit);
        ty == Ty::I64
            && match op {
                Binary::Add => true,
                Binary::Shl => small(self, 3),
                _ => false,
            }
    }

    /// Computes a sum, or a shift by up to 3, by LEA, with the deferred sums in it.
    fn sum(&mut self, op: Binary, d: Val, a: Val, b: Val) -> Result<(), TooBig> {
        let mut parts = Parts::default();
        self.collect(op, a, b, 0, &mut parts)?;
        for v in parts.used() {
            self.consume(v);
        }
        // The operands' registers may be reused for the result.
        let to = match (parts.base, parts.index) {
            (Some(base), _) if self.is_free(base) => base,
            (_, Some((index, _))) if self.is_free(index) => index,
            _ => self.alloc()?,
        };
        self.places.lock(to);
        self.lea(to, &parts);
        self.define(d, to, false);
        Ok(())
    }

    /// As [`sum`](Self::sum), into the register of a guest's.
    pub(super) fn sum_into(&mut self, to: Reg, op: Binary, a: Val, b: Val) -> Result<(), TooBig> {
        let mut parts = Parts::default();
        self.collect(op, a, b, 0, &mut parts)?;
        for v in parts.used() {
            self.consume(v);
        }
        self.lea(to, &parts);
        Ok(())
    }

    /// Adds up parts.
    fn lea(&mut self, to: Reg, parts: &Parts) {
        let Parts {
            base, index, disp, ..
        } = *parts;
        match (base, index) {
            (Some(base), None) if disp == 0 => {
                if base != to {
                    self.asm.mov(Size::Q, to, base);
                }
            }
            (None, Some((index, shift))) if disp == 0 => {
                if index != to {
                    self.asm.mov(Size::Q, to, index);
                }
                if shift != 0 {
                    self.asm.shift_imm(Shift::Shl, Size::Q, to, shift);
                }
            }
            _ => self.asm.lea(Size::Q, to, Mem::At { base, index, disp }),
        }
    }

    /// A scratch register whose value is gone.
    pub(super) fn is_free(&self, reg: Reg) -> bool {
        SCRATCH.contains(&reg) && self.places.owner[usize::from(reg.0)].is_none()
    }

    fn collect(
        &mut self,
        op: Binary,
        a: Val,
        b: Val,
        depth: u32,
        parts: &mut Parts,
    ) -> Result<(), TooBig> {
        match op {
            Binary::Shl if parts.index.is_none() => {
                let shift = self.places.constant(b).unwrap_or(0) as u8;
                let reg = self.clean(a)?;
                parts.index = Some((reg, shift));
                parts.note(a)?;
                parts.note(b)
            }
            Binary::Add => {
                self.part(a, depth, parts)?;
                self.part(b, depth, parts)
            }
            _ => Err(TooBig),
        }
    }

    fn part(&mut self, v: Val, depth: u32, parts: &mut Parts) -> Result<(), TooBig> {
        if let Some(value) = self.places.constant(v) {
            let sum = (parts.disp as i64).wrapping_add(value as i64);
            if let Ok(disp) = i32::try_from(sum) {
                parts.disp = disp;
                return parts.note(v);
            }
        }
        if depth < MOST_NESTED
            && let Some(&Op::Binary { op, a, b, .. }) = self.places.deferred(v)
            && self.fits(op, a, b, parts)
        {
            self.places.take_deferred(v);
            self.places.set(v, Place::Gone);
            self.plan.rest[v.0 as usize] = 0;
            return self.collect(op, a, b, depth + 1, parts);
        }
        let reg = self.clean(v)?;
        parts.note(v)?;
        if parts.base.is_none() {
            parts.base = Some(reg);
        } else if parts.index.is_none() {
            parts.index = Some((reg, 0));
        } else {
            // Three registers: add two of them first.
            let sum = self.alloc()?;
            let (base, index) = (parts.base, parts.index);
            let disp = std::mem::take(&mut parts.disp);
            self.asm.lea(Size::Q, sum, Mem::At { base, index, disp });
            parts.base = Some(sum);
            parts.index = Some((reg, 0));
        }
        Ok(())
    }

    /// Whether a sum within a sum can become part of the same address.
    fn fits(&self, op: Binary, a: Val, b: Val, parts: &Parts) -> bool {
        let is_const = |v| self.places.constant(v).is_some();
        match op {
            Binary::Shl => parts.index.is_none(),
            Binary::Add => {
                let free =
                    2 - usize::from(parts.base.is_some()) - usize::from(parts.index.is_some());
                let wanted = usize::from(!is_const(a)) + usize::from(!is_const(b));
                wanted <= free
            }
            _ => false,
        }
    }

    /// The value in a vector register, locked. Not to be changed.
    pub(super) fn xmm(&mut self, v: Val) -> Result<Xmm, TooBig> {
        let from = match self.places.of(v) {
            Place::Xmm(reg) => {
                self.places.locked_v |= 1 << reg.0;
                return Ok(reg);
            }
            Place::GuestV(slot) => match self.map.xmm(slot) {
                Some(reg) => return Ok(reg),
                None => slot_at(slot.0.into()),
            },
            Place::Spill(n) => Self::spill_at(n),
            _ => return Err(TooBig),
        };
        let reg = self.alloc_v()?;
        self.asm.movups(reg, from);
        self.define_v(v, reg);
        Ok(reg)
    }

    /// A vector operand that need not be in a register. Memory operands must be aligned, as the
    /// register file is.
    pub(super) fn operand_v(&mut self, v: Val) -> Result<Rm, TooBig> {
        match self.places.of(v) {
            Place::GuestV(slot) if self.map.xmm(slot).is_none() && slot.0.is_multiple_of(2) => {
                Ok(slot_at(slot.0.into()).into())
            }
            _ => Ok(self.xmm(v)?.into()),
        }
    }

    /// A vector register that nothing is in, locked for this operation.
    pub(super) fn alloc_v(&mut self) -> Result<Xmm, TooBig> {
        let free = |c: &Self, r: u8| c.places.locked_v & 1 << r == 0;
        let found = (0..self.places.xmms)
            .find(|r| free(self, *r) && self.places.owner_v[usize::from(*r)].is_none());
        let reg = match found {
            Some(reg) => reg,
            None => {
                let reg = (0..self.places.xmms)
                    .find(|r| free(self, *r))
                    .ok_or(TooBig)?;
                if let Some(v) = self.places.owner_v[usize::from(reg)] {
                    self.spill(v)?;
                }
                reg
            }
        };
        self.places.locked_v |= 1 << reg;
        Ok(Xmm(reg))
    }

    pub(super) fn define_v(&mut self, d: Val, reg: Xmm) {
        self.places.owner_v[usize::from(reg.0)] = Some(d);
        self.places.set(d, Place::Xmm(reg));
    }

    /// A register with the value that may be changed into the result; the value's use is consumed.
    pub(super) fn change_v(&mut self, v: Val) -> Result<Xmm, TooBig> {
        let last = self.plan.rest[v.0 as usize] == 1;
        if let (Place::Xmm(reg), true) = (self.places.of(v), last) {
            self.places.locked_v |= 1 << reg.0;
            self.consume(v);
            return Ok(reg);
        }
        let from = self.operand_or_spill_v(v)?;
        let reg = self.alloc_v()?;
        match from {
            Rm::Xmm(from) => self.asm.movaps(reg, from),
            Rm::Mem(mem) => self.asm.movups(reg, mem),
            Rm::Reg(_) => return Err(TooBig),
        }
        self.consume(v);
        Ok(reg)
    }

    fn operand_or_spill_v(&mut self, v: Val) -> Result<Rm, TooBig> {
        match self.places.of(v) {
            Place::Spill(n) => Ok(Self::spill_at(n).into()),
            Place::GuestV(slot) if self.map.xmm(slot).is_none() => {
                Ok(slot_at(slot.0.into()).into())
            }
            _ => Ok(self.xmm(v)?.into()),
        }
    }
}

/// Parts of an address.
#[derive(Default)]
struct Parts {
    base: Option<Reg>,
    index: Option<(Reg, u8)>,
    disp: i32,
    /// Values whose use is done when the address is: the leaves of a tree of [`MOST_NESTED`].
    used: [Option<Val>; 2 << MOST_NESTED],
    count: usize,
}

/// How deep sums in sums become part of one address.
const MOST_NESTED: u32 = 3;

impl Parts {
    fn note(&mut self, v: Val) -> Result<(), TooBig> {
        *self.used.get_mut(self.count).ok_or(TooBig)? = Some(v);
        self.count += 1;
        Ok(())
    }

    fn used(&self) -> impl Iterator<Item = Val> + use<> {
        self.used.into_iter().flatten()
    }
}
