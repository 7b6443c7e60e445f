//! What only the x87 has.
