//! The contract between guest CPUs, executors and boards.
