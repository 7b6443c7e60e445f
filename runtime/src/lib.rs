//! Threads, event loops, logging, terminal.
