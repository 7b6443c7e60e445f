//! One operation of a unit to one or more of flat code.

use accel_core::Target;
use accel_ir::{Binary, Mem, Op, Ordering, Ty, Val};

use super::{Lowering, Place, TooBig};
use crate::code::{self, Instr, Loc, NO_ARG, NOWHERE};

impl<T: Target> Lowering<'_, T> {
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
    pub(super) fn op(&mut self, op: &Op, next: Option<&Op>) -> Result<bool, TooBig> {
        match *op {
            Op::Insn { pc } => {
                self.insns += 1;
                self.marks.push((self.ops.len() as u32, pc));
            }
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
                let number = kind.with(ty).into();
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
            Op::VecSigns { d, a, lane } => {
                let a_loc = self.read(a)?;
                self.done(a);
                let (d, taken) = self.result(d, next)?;
                self.ops.push(Instr::VecSigns { lane, d, a: a_loc });
                return Ok(taken);
            }
            Op::Fp { .. }
            | Op::FpMulAdd { .. }
            | Op::FpFromInt { .. }
            | Op::FpToInt { .. }
            | Op::FpCompare { .. } => {
                return self.floating(op, next);
            }
            Op::VecMake { d, lo, hi } => return self.vec_make(d, lo, hi, next),
            Op::VecHalf { d, a, high } => {
                let from = self.read(a)? + u16::from(high);
                self.done(a);
                if matches!(self.places[a.0 as usize], Some(Place::Guest(_)))
                    && self.uses[d.0 as usize] != 0
                {
                    // Half of a guest's register is a slot like any other.
                    self.live_in(d, from);
                    return Ok(false);
                }
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

    /// Floating point: the control slot is written whatever becomes of the result.
    fn floating(&mut self, op: &Op, next: Option<&Op>) -> Result<bool, TooBig> {
        // The control slot may be wanted as it was.
        self.spill(Loc::from(T::LAYOUT.fp.0))?;
        match *op {
            Op::Fp { how, d, a, b } => {
                let (la, lb) = (self.read(a)?, self.read(b)?);
                self.done(a);
                self.done(b);
                let (d, taken) = self.result_vector(d, next)?;
                let (a, b) = (la, lb);
                self.ops.push(Instr::Fp { how, d, a, b });
                Ok(taken)
            }
            Op::FpMulAdd { how, d, a, b, c } => {
                let (la, lb, lc) = (self.read(a)?, self.read(b)?, self.read(c)?);
                [a, b, c].into_iter().for_each(|v| self.done(v));
                let (d, taken) = self.result_vector(d, next)?;
                let (a, b, c) = (la, lb, lc);
                self.ops.push(Instr::FpMulAdd { how, d, a, b, c });
                Ok(taken)
            }
            Op::FpFromInt {
                fmt,
                rules,
                d,
                a,
                v,
            } => {
                let ty = self.ty(v);
                let (la, lv) = (self.read(a)?, self.read(v)?);
                self.done(a);
                self.done(v);
                let (d, taken) = self.result_vector(d, next)?;
                self.ops.push(Instr::FpFromInt {
                    fmt,
                    rules,
                    ty,
                    d,
                    a: la,
                    v: lv,
                });
                Ok(taken)
            }
            Op::FpToInt { how, d, a } => {
                let (ty, la) = (self.ty(d), self.read(a)?);
                self.done(a);
                let (d, taken) = self.result(d, next)?;
                self.ops.push(Instr::FpToInt { how, ty, d, a: la });
                Ok(taken)
            }
            Op::FpCompare { how, d, a, b } => {
                let (la, lb) = (self.read(a)?, self.read(b)?);
                self.done(a);
                self.done(b);
                let (d, taken) = self.result(d, next)?;
                let (a, b) = (la, lb);
                self.ops.push(Instr::FpCompare { how, d, a, b });
                Ok(taken)
            }
            _ => Err(TooBig),
        }
    }

    fn vec_make(&mut self, d: Val, lo: Val, hi: Val, next: Option<&Op>) -> Result<bool, TooBig> {
        let part = |this: &mut Self, v: Val| -> Result<Result<Loc, u64>, TooBig> {
            match this.constant(v) {
                Some(imm) => Ok(Err(imm)),
                None => this.read_clean(v).map(Ok),
            }
        };
        let (low, high) = (part(self, lo)?, part(self, hi)?);
        self.done(lo);
        self.done(hi);
        let (d, taken) = self.result_vector(d, next)?;
        let put = |d: Loc, from: Result<Loc, u64>| match from {
            Ok(a) => Instr::Mov { d, a },
            Err(imm) => Instr::MovI { d, imm },
        };
        // The halves of the destination may be the operands.
        if high != Ok(d) {
            self.ops.extend([put(d, low), put(d + 1, high)]);
        } else if low != Ok(d + 1) {
            self.ops.extend([put(d + 1, high), put(d, low)]);
        } else {
            let spare = self.scratch(Ty::I64)?;
            let a = d + 1;
            self.ops.extend([
                Instr::Mov { d: spare, a },
                put(d + 1, high),
                Instr::Mov { d, a: spare },
            ]);
            self.released.push(spare);
        }
        Ok(taken)
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
}
