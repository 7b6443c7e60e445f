//! x87, MMX and SSE.
#![allow(missing_docs)]
use crate::helper::helpers;

helpers! { crate::helper::FLOAT; }

/// x87 state.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct X87;

/// Translates the instruction at hand; false if it is none of these.
pub(crate) fn translate(_: &mut crate::decode::Ctx<'_>) -> bool {
    false
}
