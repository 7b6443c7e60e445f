//! PC boards: pc, q35, microvm, none.
