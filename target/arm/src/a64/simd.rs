//! Advanced SIMD (DDI 0487, C4.1.97): what the IR has, in the IR; the rest by [`crate::simd`].

use accel_ir::Op;

use super::context::Ctx;
use super::float;
use super::vector;
use crate::helper;

mod table {
    include!(concat!(env!("OUT_DIR"), "/simd.rs"));
}
pub(crate) use table::{FORMS, Insn, decode};

/// The operations of an instruction, if it has some and they take neither a function nor floating point.
pub(crate) fn integers(c: &mut Ctx, word: u32) -> Option<()> {
    let insn = decode(word)?;
    let mark = c.b.mark();
    let done = vector::emit(c, insn);
    let is_plain = |op: &Op| {
        matches!(
            op,
            Op::Const { .. }
                | Op::GetV { .. }
                | Op::SetV { .. }
                | Op::Vec { .. }
                | Op::VecMake { .. }
                | Op::VecHalf { .. }
        )
    };
    let ops = c.b.since(&mark);
    if done.is_some() && ops.is_some_and(|ops| ops.iter().all(is_plain)) {
        return Some(());
    }
    c.b.rewind(mark);
    None
}

pub(super) fn translate(c: &mut Ctx) -> Option<()> {
    let insn = decode(c.word)?;
    if !c.fp_access() || vector::emit(c, insn).is_some() {
        return Some(());
    }
    float::again(c, helper::SIMD);
    Some(())
}
