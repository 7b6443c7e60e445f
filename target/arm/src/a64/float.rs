//! Scalar floating point (DDI 0487, C4.1.97): by [`crate::float`], but for moves.

use super::context::Ctx;
use crate::helper;

mod table {
    include!(concat!(env!("OUT_DIR"), "/float.rs"));
}
pub(crate) use table::{FORMS, Insn, decode};

pub(super) fn translate(c: &mut Ctx, _: Insn) -> Option<()> {
    if !c.fp_access() {
        return Some(());
    }
    let word = c.imm(accel_ir::Ty::I64, c.word.into());
    c.b.call_void(helper::FLOAT, &[word]);
    Some(())
}
