//! System: exceptions, translation, system registers, reset.

pub(crate) mod reset;
