//! Ends of blocks: branches fused with what they test, jumps, exits.

use accel_core::Target;
use accel_ir::{Block, BlockId, Cond, End, FlagKind, Op, Ty, Val};

use super::{Lowering, Place, TooBig};
use crate::code::{self, Instr, Loc};

impl<T: Target> Lowering<'_, T> {
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
                (Some((FlagKind::Logic | FlagKind::LogicC, ty)), Cond::E) => {
                    code::branch_imm(accel_ir::Cmp::Eq, ty, flags + 1, 0)
                }
                (Some((FlagKind::Logic | FlagKind::LogicC, ty)), Cond::Ne) => {
                    code::branch_imm(accel_ir::Cmp::Ne, ty, flags + 1, 0)
                }
                (Some((FlagKind::Logic | FlagKind::LogicC, ty)), Cond::S | Cond::L) => {
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

    pub(super) fn end(&mut self, index: usize, block: &Block) -> Result<(), TooBig> {
        let insns = self.insns;
        for to in successors(&block.end) {
            if let Some(before) = self.before.get_mut(to.0 as usize) {
                *before = insns;
            }
        }
        match &block.end {
            End::Goto { pc, .. } => self.ops.push(Instr::Exit { insns, pc: *pc }),
            End::GotoVal { pc, .. } => {
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

/// The blocks that an end leads to.
fn successors(end: &End) -> impl Iterator<Item = BlockId> {
    let (first, second) = match end {
        End::Jump { to, .. } => (Some(*to), None),
        End::Branch { then, other, .. } => (Some(*then), Some(*other)),
        End::Goto { .. } | End::GotoVal { .. } | End::Leave => (None, None),
    };
    first.into_iter().chain(second)
}
