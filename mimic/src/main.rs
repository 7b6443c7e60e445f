//! Mimic: command line in, machine out.
fn main() {}
