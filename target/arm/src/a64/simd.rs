//! Advanced SIMD (DDI 0487, C4.1.97): what the IR has, in the IR; the rest by [`crate::simd`].

use super::context::Ctx;
use crate::helper;

mod table {
    include!(concat!(env!("OUT_DIR"), "/simd.rs"));
}
pub(crate) use table::{FORMS, Insn, decode};

pub(super) fn translate(c: &mut Ctx) -> Option<()> {
    decode(c.word)?;
    if !c.fp_access() {
        return Some(());
    }
    let word = c.imm(accel_ir::Ty::I64, c.word.into());
    c.b.call_void(helper::SIMD, &[word]);
    Some(())
}
