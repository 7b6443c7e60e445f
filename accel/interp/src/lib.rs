//! The interpreter: what the IR means, on any host.
