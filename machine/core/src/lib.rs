//! The machine: its parts, its life cycle, its vCPU threads.
