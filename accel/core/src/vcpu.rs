//! What a machine drives: a CPU of any accelerator.

use std::sync::Arc;

use hw_state::{Section, StateError};

use crate::pending::{Pending, Sleeper};

/// Why a vCPU's run returned to its thread.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum VcpuExit {
    /// Nothing: run again.
    Again,
    /// STOP is pending.
    Stopped,
    /// The CPU is dead (x86: triple fault): the machine resets or stops.
    Shutdown,
    /// The accelerator cannot go on; the text says where and why.
    Failed(String),
}

/// Why a vCPU could not be made or its state not be moved.
#[derive(Debug, thiserror::Error)]
pub enum VcpuError {
    /// The saved state was refused.
    #[error(transparent)]
    State(#[from] StateError),
    /// The host refused.
    #[error("{what}")]
    Host {
        /// What was tried.
        what: String,
        /// The host's reason.
        #[source]
        source: std::io::Error,
    },
}

/// One virtual CPU. Owned by its thread while the machine runs, by the machine while it is stopped.
pub trait Vcpu: Send {
    /// Executes guest code until something needs the thread: halting waits inside.
    fn run(&mut self) -> VcpuExit;

    /// The word by which others reach it.
    fn pending(&self) -> Arc<Pending>;

    /// Where the thread sleeps that runs this CPU and all others with the same sleeper in turn; `None`
    /// for a thread of its own.
    fn shares_thread(&self) -> Option<Arc<Sleeper>> {
        None
    }

    /// Whether a CPU that shares its thread has nothing to run for. Its runs do not wait.
    fn is_idle(&self) -> bool {
        false
    }

    /// To the state after power-on.
    fn reset(&mut self);

    /// The saved form: the same for every accelerator of a guest.
    fn save(&mut self) -> Result<Section, VcpuError>;

    /// Takes over a saved state.
    fn restore(&mut self, section: &Section) -> Result<(), VcpuError>;

    /// Registers by name for monitors: general, segment, control, in the target's order.
    fn registers(&mut self) -> Vec<(String, u128)>;

    /// `info registers`, in QEMU's layout.
    fn describe(&mut self) -> String;

    /// The physical address behind a virtual one, without side effects.
    fn debug_translate(&mut self, va: u64) -> Option<u64>;

    /// Whether it waits for an interrupt.
    fn is_halted(&self) -> bool;

    /// A report for a monitor by topic (`tlb`, `mem`, `jit`); `None` if this CPU has none.
    fn report(&mut self, topic: &str) -> Option<String>;
}
