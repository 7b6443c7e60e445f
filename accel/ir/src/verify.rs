//! The verifier: what every unit must satisfy, checked in debug builds and tests.

use crate::{BlockId, End, Op, Ty, Unit, Val};

/// What is wrong with a unit.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum VerifyError {
    /// A value is read that is not defined on every way here.
    #[error("b{0}: {1} is used before it is defined")]
    Undefined(usize, Val),
    /// A value is defined twice.
    #[error("b{0}: {1} is defined twice")]
    Twice(usize, Val),
    /// Operands do not have the types the operation wants.
    #[error("b{0}: types do not fit in '{1}'")]
    Types(usize, String),
    /// A jump backward, to nowhere, or with the wrong parameters.
    #[error("b{0}: bad edge to b{1}")]
    Edge(usize, u32),
    /// State was changed before an operation of the same instruction that may fault.
    #[error("b{0}: '{1}' may fault after a set in the same instruction")]
    SetBeforeFault(usize, String),
}

/// Checks definitions, types, edges and the order of sets and faults.
///
/// Helper calls are exempt from the last: they fault before they change anything, or not at all.
pub fn verify(unit: &Unit) -> Result<(), VerifyError> {
    // Edges go forward and each block but the entry is dominated by the entry; a value may be used
    // where every predecessor chain defines it: with forward edges one pass of intersection is exact.
    let count = unit.types.len();
    let mut entry_sets: Vec<Option<Vec<bool>>> = vec![None; unit.blocks.len()];
    if let Some(first) = entry_sets.first_mut() {
        *first = Some(vec![false; count]);
    }
    let mut ever = vec![false; count];
    for (index, block) in unit.blocks.iter().enumerate() {
        let Some(mut defined) = entry_sets[index].take() else {
            continue;
        };
        let define = |v: Val, defined: &mut Vec<bool>, ever: &mut Vec<bool>| {
            match ever.get_mut(v.0 as usize) {
                Some(seen) if !*seen => *seen = true,
                _ => return Err(VerifyError::Twice(index, v)),
            }
            defined[v.0 as usize] = true;
            Ok(())
        };
        for p in &block.params {
            define(*p, &mut defined, &mut ever)?;
        }
        let mut dirty = false;
        for op in &block.ops {
            let mut missing = None;
            op.for_each_use(|v| {
                if !defined.get(v.0 as usize).copied().unwrap_or(false) {
                    missing = Some(v);
                }
            });
            if let Some(v) = missing {
                return Err(VerifyError::Undefined(index, v));
            }
            if !types_fit(unit, op) {
                return Err(VerifyError::Types(index, format!("{op:?}")));
            }
            match op {
                Op::Insn { .. } => dirty = false,
                Op::Set { .. } | Op::SetV { .. } | Op::FlagsDef { .. } => dirty = true,
                // The control slot changes.
                _ if op.touches_fp() => dirty = true,
                Op::Call { .. } => {}
                _ if op.may_fault() && dirty => {
                    return Err(VerifyError::SetBeforeFault(index, format!("{op:?}")));
                }
                _ => {}
            }
            if let Some(d) = op.def() {
                define(d, &mut defined, &mut ever)?;
            }
        }
        let used = |v: &Val| defined.get(v.0 as usize).copied().unwrap_or(false);
        let mut flow = |to: BlockId, args: &[Val]| {
            let target = unit
                .blocks
                .get(to.0 as usize)
                .ok_or(VerifyError::Edge(index, to.0))?;
            let fits = args.len() == target.params.len()
                && args
                    .iter()
                    .zip(&target.params)
                    .all(|(a, p)| unit.ty(*a) == unit.ty(*p));
            if to.0 as usize <= index || !fits {
                return Err(VerifyError::Edge(index, to.0));
            }
            match &mut entry_sets[to.0 as usize] {
                Some(set) => set.iter_mut().zip(&defined).for_each(|(s, d)| *s &= *d),
                empty => *empty = Some(defined.clone()),
            }
            Ok(())
        };
        match &block.end {
            End::Jump { to, args } => {
                if let Some(v) = args.iter().find(|v| !used(v)) {
                    return Err(VerifyError::Undefined(index, *v));
                }
                flow(*to, args)?;
            }
            End::Branch { c, then, other } => {
                if !used(c) {
                    return Err(VerifyError::Undefined(index, *c));
                }
                flow(*then, &[])?;
                flow(*other, &[])?;
            }
            End::GotoVal { pc, .. } if !used(pc) => return Err(VerifyError::Undefined(index, *pc)),
            _ => {}
        }
    }
    Ok(())
}

fn types_fit(unit: &Unit, op: &Op) -> bool {
    let ty = |v: Val| unit.ty(v);
    let int = |v: Val| ty(v) != Ty::V128;
    match *op {
        Op::Insn { .. } | Op::Fence => true,
        Op::Const { d, value } => int(d) && value & !ty(d).mask() == 0,
        Op::Get { d, .. } => int(d),
        Op::Set { v, .. } => int(v),
        Op::GetV { d, .. } => !int(d),
        Op::SetV { v, .. } => !int(v),
        Op::Unary { d, a, .. } => int(d) && ty(d) == ty(a),
        Op::Binary { op, d, a, b } => {
            use crate::Binary::{Rotl, Rotr, Sar, Shl, Shr};
            let count = matches!(op, Shl | Shr | Sar | Rotl | Rotr);
            int(d) && ty(d) == ty(a) && (ty(a) == ty(b) || (count && int(b)))
        }
        Op::Cmp { d, a, b, .. } => ty(d) == Ty::I8 && int(a) && ty(a) == ty(b),
        Op::Select { d, c, a, b } => int(c) && ty(d) == ty(a) && ty(a) == ty(b),
        Op::Zext { d, a } | Op::Sext { d, a } => int(d) && int(a),
        Op::Extract { d, a, shift, width } => {
            int(d) && u32::from(shift) + u32::from(width) <= ty(a).bits()
        }
        Op::Insert {
            d,
            a,
            b,
            shift,
            width,
        } => {
            int(d)
                && ty(d) == ty(a)
                && int(b)
                && u32::from(shift) + u32::from(width) <= ty(a).bits()
        }
        Op::Load { d, addr, mem } => ty(d) == mem.ty && ty(addr) == Ty::I64,
        Op::Store { addr, v, mem } => ty(v) == mem.ty && ty(addr) == Ty::I64,
        Op::Probe { addr, .. } => ty(addr) == Ty::I64,
        Op::Rmw {
            d, addr, v, mem, ..
        } => ty(d) == mem.ty && ty(v) == mem.ty && ty(addr) == Ty::I64,
        Op::Cas {
            d,
            addr,
            expected,
            new,
            mem,
        } => ty(d) == mem.ty && ty(expected) == mem.ty && ty(new) == mem.ty && ty(addr) == Ty::I64,
        Op::FlagsDef { ty: t, a, b, .. } => t != Ty::V128 && int(a) && int(b),
        Op::FlagsUse { d, .. } => ty(d) == Ty::I8,
        Op::FlagsGet { d } => ty(d) == Ty::I64,
        Op::Vec { d, a, b, .. } => !int(d) && !int(a) && !int(b),
        Op::VecSigns { d, a, lane } => {
            ty(d) == Ty::I32 && !int(a) && matches!(lane, Ty::I8 | Ty::I32 | Ty::I64)
        }
        Op::Fp { how, d, a, b } => how.has_its_shape() && !int(d) && !int(a) && !int(b),
        Op::FpMulAdd { d, a, b, c, .. } => ![d, a, b, c].into_iter().any(int),
        Op::FpFromInt { d, a, v, .. } => !int(d) && !int(a) && matches!(ty(v), Ty::I32 | Ty::I64),
        Op::FpToInt { d, a, .. } => matches!(ty(d), Ty::I32 | Ty::I64) && !int(a),
        Op::FpCompare { d, a, b, .. } => ty(d) == Ty::I64 && !int(a) && !int(b),
        Op::VecMake { d, lo, hi } => !int(d) && ty(lo) == Ty::I64 && ty(hi) == Ty::I64,
        Op::VecHalf { d, a, .. } => ty(d) == Ty::I64 && !int(a),
        Op::Call { args, .. } => args.into_iter().flatten().all(int),
    }
}
