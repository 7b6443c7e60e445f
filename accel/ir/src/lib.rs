//! The typed intermediate representation between guest and host code.
