//! x87, MMX and SSE.
#![allow(missing_docs)]
use crate::helper::helpers;

helpers! { crate::helper::FLOAT; }

/// x87 state.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct X87;
