//! Loaders: what a guest finds in memory before its first instruction.
