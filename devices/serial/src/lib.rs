//! Serial and parallel ports.
