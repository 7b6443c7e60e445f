//! What one entry into guest code ends with, and what enters.

use std::io;

use accel_core::Pending;

/// Why guest code was left. Names are those of `KVM_EXIT_*`; `O` is what only one architecture has.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Exit<O> {
    /// A signal or `immediate_exit`: nothing of the guest's.
    Intr,
    /// Memory access that no slot took; a read is answered by [`Entry::answer_mmio`].
    Mmio {
        write: bool,
        address: u64,
        len: u8,
        data: [u8; 8],
    },
    /// The guest asked for something of the whole machine.
    SystemEvent(u32),
    /// A debug exception.
    Debug,
    /// The kernel cannot go on: a sentence.
    Failed(String),
    /// The architecture's own.
    Own(O),
}

/// Enters guest code: a vCPU's file descriptor, or a test's script.
pub(crate) trait Entry: Send {
    /// Exits that only this architecture has.
    type Own;

    /// Enters. `None` if something is pending: then nothing happened, and what the kernel told is
    /// still of the exit before.
    fn enter(&mut self, pending: &Pending) -> io::Result<Option<Exit<Self::Own>>>;
    /// Completes the instruction whose exit was answered, and goes no further.
    fn complete(&mut self) -> io::Result<Exit<Self::Own>>;
    /// Data of an MMIO read.
    fn answer_mmio(&mut self, data: [u8; 8]);
}
