//! Advanced SIMD (DDI 0487, C4.1.97): what the IR has, in the IR; the rest by [`crate::simd`].

use super::context::Ctx;
use super::float;
use super::vector;
use crate::helper;

mod table {
    include!(concat!(env!("OUT_DIR"), "/simd.rs"));
}
pub(crate) use table::{FORMS, Insn, decode};

pub(super) fn translate(c: &mut Ctx) -> Option<()> {
    let insn = decode(c.word)?;
    if !c.fp_access() || vector::emit(c, insn).is_some() {
        return Some(());
    }
    float::again(c, helper::SIMD);
    Some(())
}
