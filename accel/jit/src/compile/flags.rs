//! Lazy flags: definitions, and conditions on them by the host's own flags.

use accel_ir::{Cond, FlagKind, Op, Val, flags};

use super::int::imm_of;
use super::memory::size_of;
use super::place::Place;
use super::plan::Def;
use super::{Compiler, TooBig, slot_at};
use crate::asm::{Alu, CC_B, CC_E, CC_NE, Cc, RAX, Reg, Rm, Shift, Size};

/// Which operand of a definition.
#[derive(Clone, Copy)]
enum Operand {
    A,
    B,
    C,
}

impl Compiler<'_> {
    pub(super) fn flags_def(&mut self, _: &Op) -> Result<(), TooBig> {
        let id = self.next_def;
        self.next_def += 1;
        self.force_if(|op| matches!(op, Op::FlagsUse { .. }))?;
        let def = self.plan.defs[id as usize];
        if def.is_stored {
            self.store_flags(&def)?;
        }
        if def.is_stored {
            self.release(&def);
        }
        self.flags = Some(id);
        Ok(())
    }

    /// The definition's operands are not needed any more, or can be had from the guest's state.
    fn release(&mut self, def: &Def) {
        self.consume(def.a);
        self.consume(def.b);
        if let Some(c) = def.c {
            self.consume(c);
        }
    }

    /// Puts a definition into the guest's state. Leaves the host's flags alone.
    fn store_flags(&mut self, def: &Def) -> Result<(), TooBig> {
        let at = usize::from(self.env.layout.flags.0);
        // The rest of the slot is always zero.
        let kind = i32::from(def.kind.with(def.ty));
        self.asm.mov_imm_to(Size::B, slot_at(at), kind);
        let b = def.kind.reads_b().then_some(def.b);
        for (i, v) in [Some(def.a), b, def.c].into_iter().enumerate() {
            let Some(v) = v else { continue };
            let to = slot_at(at + 1 + i);
            match self.places.constant(v) {
                Some(value) if i64::from(value as i32) as u64 == value => {
                    self.asm.mov_imm_to(Size::Q, to, value as i32);
                }
                _ => {
                    let from = self.reg(v)?;
                    self.asm.mov_to(Size::Q, to, from);
                    self.places.unlock();
                }
            }
        }
        Ok(())
    }

    /// Whether an addition or subtraction is the one whose flags a definition describes.
    pub(super) fn is_definition(&self, def: u32, op: Alu, a: Val, b: Val) -> bool {
        let def = &self.plan.defs[def as usize];
        match (def.kind, op) {
            (FlagKind::Sub, Alu::Sub) => def.a == a && def.b == b,
            (FlagKind::Add, Alu::Add) => def.a == a && def.b == b || def.a == b && def.b == a,
            _ => false,
        }
    }

    /// One read of a definition is done.
    fn was_read(&mut self, id: u32) {
        let def = &mut self.plan.defs[id as usize];
        def.reads = def.reads.saturating_sub(1);
        let def = *def;
        if def.reads == 0 && !def.is_stored {
            self.release(&def);
        }
    }

    fn value_of(def: &Def, which: Operand) -> Val {
        match which {
            Operand::A => def.a,
            Operand::B => def.b,
            Operand::C => def.c.unwrap_or(def.b),
        }
    }

    /// An operand of a definition, from wherever it still is; not a constant.
    fn flag_operand(&mut self, def: &Def, which: Operand) -> Result<Rm, TooBig> {
        let v = Self::value_of(def, which);
        if self.places.of(v) == Place::Gone {
            if !def.is_stored {
                return Err(TooBig);
            }
            let n = match which {
                Operand::A => 1,
                Operand::B => 2,
                Operand::C => 3,
            };
            return Ok(slot_at(usize::from(self.env.layout.flags.0) + n).into());
        }
        self.force(v)?;
        match self.places.constant(v) {
            Some(_) => Ok(self.reg(v)?.into()),
            None => self.operand(v),
        }
    }

    /// An operand in a register that may be changed.
    fn flag_copy(&mut self, def: &Def, which: Operand) -> Result<Reg, TooBig> {
        let from = self.flag_operand(def, which)?;
        let to = self.alloc()?;
        match from {
            Rm::Mem(_) => self.asm.movzx(size_of(def.ty), to, from),
            _ => self.asm.mov(Size::Q, to, from),
        }
        Ok(to)
    }

    fn flag_imm(&self, def: &Def, which: Operand) -> Option<i32> {
        let value = self.places.constant(Self::value_of(def, which))?;
        imm_of(def.ty, value)
    }

    /// Sets the host's flags as the definition says, where one instruction does that.
    fn replay(&mut self, id: u32) -> Result<bool, TooBig> {
        if self.asm.flags_of == Some(id) {
            return Ok(true);
        }
        let def = self.plan.defs[id as usize];
        let size = size_of(def.ty);
        match def.kind {
            FlagKind::Sub => {
                let a = self.flag_operand(&def, Operand::A)?;
                match self.flag_imm(&def, Operand::B) {
                    Some(imm) => self.asm.alu_imm(Alu::Cmp, size, a, imm),
                    None => {
                        let b = self.flag_operand(&def, Operand::B)?;
                        let left = match (a, b) {
                            (Rm::Reg(a), _) => a,
                            (_, Rm::Reg(b)) if matches!(a, Rm::Mem(_)) => {
                                let Rm::Mem(a) = a else { return Ok(false) };
                                self.asm.alu_to(Alu::Cmp, size, a, b);
                                self.asm.flags_of = Some(id);
                                return Ok(true);
                            }
                            _ => self.flag_copy(&def, Operand::A)?,
                        };
                        self.asm.alu(Alu::Cmp, size, left, b);
                    }
                }
            }
            FlagKind::Add => {
                let sum = self.flag_copy(&def, Operand::A)?;
                match self.flag_imm(&def, Operand::B) {
                    Some(imm) => self.asm.alu_imm(Alu::Add, size, sum, imm),
                    None => {
                        let b = self.flag_operand(&def, Operand::B)?;
                        self.asm.alu(Alu::Add, size, sum, b);
                    }
                }
            }
            FlagKind::Adc | FlagKind::Sbb => {
                let sum = self.flag_copy(&def, Operand::A)?;
                let b = self.flag_operand(&def, Operand::B)?;
                let carry = self.flag_copy(&def, Operand::C)?;
                self.asm.bt_imm(carry, 0);
                let op = match def.kind {
                    FlagKind::Adc => Alu::Adc,
                    _ => Alu::Sbb,
                };
                self.asm.alu(op, size, sum, b);
            }
            FlagKind::Logic | FlagKind::LogicC => match self.flag_operand(&def, Operand::A)? {
                Rm::Reg(a) => self.asm.test(size, a, a),
                a => self.asm.alu_imm(Alu::Cmp, size, a, 0),
            },
            FlagKind::Shl | FlagKind::Shr | FlagKind::Sar => {
                let count = self.places.constant(def.b);
                let Some(count @ 1..) = count.filter(|n| *n <= u64::from(def.ty.bits())) else {
                    return Ok(false);
                };
                let result = self.flag_copy(&def, Operand::A)?;
                let op = match def.kind {
                    FlagKind::Shl => Shift::Shl,
                    FlagKind::Shr => Shift::Shr,
                    _ => Shift::Sar,
                };
                if count as u32 >= def.ty.bits() {
                    return Ok(false);
                }
                self.asm.shift_imm(op, size, result, count as u8);
            }
            FlagKind::Raw | FlagKind::Inc | FlagKind::Dec | FlagKind::Mul => return Ok(false),
        }
        self.asm.flags_of = Some(id);
        Ok(true)
    }

    /// A condition on the flags, to be used at once.
    pub(super) fn flags_condition(&mut self, cond: Cond) -> Result<Cc, TooBig> {
        let Some(id) = self.flags else {
            self.recall(None)?;
            return Ok(cond as u8);
        };
        let cc = match self.known_condition(id, cond)? {
            Some(cc) => cc,
            None => {
                self.recall(Some(id))?;
                cond as u8
            }
        };
        let flags = self.asm.flags_of;
        self.was_read(id);
        self.asm.flags_of = flags;
        Ok(cc)
    }

    fn known_condition(&mut self, id: u32, cond: Cond) -> Result<Option<Cc>, TooBig> {
        let def = self.plan.defs[id as usize];
        let cc = cond as u8;
        let size = size_of(def.ty);
        // The condition without its negation, and which of two to take.
        let (even, negate) = (Cond::from_number(cc & !1), cc & 1);
        let carry_only = even == Cond::B;
        let needs_carry = matches!(even, Cond::B | Cond::Be);
        match def.kind {
            FlagKind::Add | FlagKind::Sub | FlagKind::Adc | FlagKind::Sbb | FlagKind::Logic => {
                // CMP with zero, which may stand for TEST, has no carry and no overflow either.
                self.replay(id)?;
                Ok(Some(cc))
            }
            // The host's carry is zero after the same test.
            FlagKind::LogicC if !needs_carry => {
                self.replay(id)?;
                Ok(Some(cc))
            }
            FlagKind::Shl | FlagKind::Shr | FlagKind::Sar => {
                let exact = matches!(even, Cond::B | Cond::E | Cond::Be | Cond::S | Cond::P);
                Ok((exact && self.replay(id)?).then_some(cc))
            }
            FlagKind::Inc | FlagKind::Dec if carry_only => {
                let c = self.flag_operand(&def, Operand::C)?;
                self.asm.test_imm(Size::B, c, 1);
                Ok(Some(CC_NE ^ negate))
            }
            FlagKind::Inc | FlagKind::Dec if !needs_carry => {
                let a = self.flag_copy(&def, Operand::A)?;
                let op = match def.kind {
                    FlagKind::Inc => Alu::Add,
                    _ => Alu::Sub,
                };
                self.asm.alu_imm(op, size, a, 1);
                Ok(Some(cc))
            }
            FlagKind::Mul if matches!(even, Cond::O | Cond::B) => {
                let b = self.flag_operand(&def, Operand::B)?;
                self.asm.test_imm(Size::B, b, 1);
                Ok(Some(CC_NE ^ negate))
            }
            FlagKind::Mul if matches!(even, Cond::E | Cond::S | Cond::P) => {
                let a = self.flag_copy(&def, Operand::A)?;
                self.asm.test(size, a, a);
                Ok(Some(cc))
            }
            FlagKind::Raw => {
                let mask = match even {
                    Cond::O => flags::OF,
                    Cond::B => flags::CF,
                    Cond::E => flags::ZF,
                    Cond::Be => flags::CF | flags::ZF,
                    Cond::S => flags::SF,
                    Cond::P => flags::PF,
                    _ => return Ok(None),
                };
                let a = self.flag_operand(&def, Operand::A)?;
                self.asm.test_imm(Size::D, a, mask as i32);
                Ok(Some(CC_NE ^ negate))
            }
            _ => Ok(None),
        }
    }

    /// Makes the host's flags what those in the guest's state are, or the definition's.
    fn recall(&mut self, id: Option<u32>) -> Result<(), TooBig> {
        self.see_stored(id)?;
        self.asm.call_to(self.env.thunks.flags);
        self.asm.flags_of = id;
        Ok(())
    }

    /// Puts a definition into the guest's state if it is not there. Unlocks all registers.
    fn see_stored(&mut self, id: Option<u32>) -> Result<(), TooBig> {
        if let Some(id) = id {
            let def = self.plan.defs[id as usize];
            if !def.is_stored {
                self.store_flags(&def)?;
            }
        }
        Ok(())
    }

    /// A condition on the flags as a value.
    pub(super) fn flags_value(&mut self, d: Val, cond: Cond) -> Result<(), TooBig> {
        let cc = self.flags_condition(cond)?;
        self.places.unlock();
        self.condition_value(d, cc)
    }

    /// All flags in the guest's layout.
    pub(super) fn flags_get(&mut self, d: Val) -> Result<(), TooBig> {
        let kind = self.flags.map(|id| self.plan.defs[id as usize].kind);
        let replays = matches!(kind, Some(FlagKind::Add | FlagKind::Sub));
        if !replays {
            self.see_stored(self.flags)?;
        }
        self.claim(RAX)?;
        let overflow = self.alloc()?;
        match self.flags {
            Some(id) if replays => {
                if !self.replay(id)? {
                    return Err(TooBig);
                }
            }
            _ => self.asm.call_to(self.env.thunks.flags),
        }
        self.asm.setcc(0, overflow);
        self.asm.lahf();
        self.asm.movzx_eax_ah();
        let low = flags::CF | flags::PF | flags::AF | flags::ZF | flags::SF;
        self.asm.alu_imm(Alu::And, Size::D, RAX, low as i32);
        self.asm.movzx(Size::B, overflow, overflow);
        self.asm.shift_imm(Shift::Shl, Size::D, overflow, 11);
        self.asm.alu(Alu::Or, Size::D, RAX, overflow);
        if let Some(id) = self.flags {
            self.was_read(id);
        }
        self.define(d, RAX, false);
        Ok(())
    }
}

const _: () = assert!(CC_B == Cond::B as u8 && CC_E == Cond::E as u8);
