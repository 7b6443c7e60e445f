//! What every part of the process leans on: named threads, event loops, ranked locks, the terminal,
//! signals, daemon life, the heap and rate-limited logging.
//!
//! Nothing here knows a guest or a machine.

#![allow(unsafe_code)]

pub mod event_fd;
pub mod event_loop;
pub mod fd_sets;
pub mod heap;
pub mod limit;
pub mod lock;
pub mod process;
pub mod signals;
pub mod terminal;
pub mod thread;
pub mod time;

pub use event_fd::EventFd;
pub use event_loop::{EventLoop, Handle, Interest, LoopThread, Ready, Timer, Watch};
pub use fd_sets::FdSets;
pub use limit::RateLimit;
pub use lock::{Rank, Ranked, RankedGuard};
