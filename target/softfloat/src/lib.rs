//! Floating point exact to the bit, for every guest's rules.
