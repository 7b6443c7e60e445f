//! Exits that only x86 has, and what else its loop asks of an entry.

use std::io;

use target_x86::system::CpuState;

/// Why guest code was left. Names are those of `KVM_EXIT_*`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Exit {
    /// Port access; `count` values of `size` bytes are in [`Entry::io_data`].
    Io {
        write: bool,
        port: u16,
        size: u8,
        count: u32,
    },
    /// HLT, if the local APIC is in user space.
    Hlt,
    /// An interrupt can be injected now.
    IrqWindowOpen,
    /// Triple fault.
    Shutdown,
    /// End of a level interrupt of an I/O APIC in user space.
    IoapicEoi(u8),
    /// RDMSR (`None`) or WRMSR of a register that the kernel does not know; answered by
    /// [`Entry::answer_msr`].
    Msr { index: u32, write: Option<u64> },
}

/// What the kernel tells with each exit.
#[derive(Clone, Copy, Default, Debug)]
pub(crate) struct Flags {
    /// An interrupt can be injected.
    pub(crate) ready: bool,
    /// RFLAGS.IF.
    pub(crate) interrupts: bool,
    /// CR8.
    pub(crate) cr8: u64,
    /// IA32_APIC_BASE.
    pub(crate) apic_base: u64,
}

/// Enters guest code: a vCPU's file descriptor, or a test's script.
pub(crate) trait Entry: crate::exit::Entry<Own = Exit> {
    /// Data of a port access.
    fn io_data(&mut self) -> &mut [u8];
    /// Value of an MSR read, or that a write is done; `None` raises #GP.
    fn answer_msr(&mut self, value: Option<u64>);
    /// As of the last exit.
    fn flags(&mut self) -> Flags;
    /// Asks for an exit when an interrupt can be injected.
    fn set_window(&mut self, wanted: bool);
    /// CR8 for the next entry.
    fn set_cr8(&mut self, cr8: u64);
    /// Injects an interrupt.
    fn interrupt(&mut self, vector: u8) -> io::Result<()>;
    /// Injects a non-maskable interrupt.
    fn nmi(&mut self) -> io::Result<()>;
    /// INIT, or a start-up message with its vector, where the local APIC is in user space: changes
    /// the state by `change`.
    fn change(&mut self, change: &mut dyn FnMut(&mut CpuState)) -> io::Result<()>;
}
