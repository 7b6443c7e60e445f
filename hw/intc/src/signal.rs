//! How an interrupt controller tells a CPU.

/// Something a CPU must look at.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum CpuSignal {
    /// The local controller may have a vector: ask it.
    Intr,
    /// Non-maskable interrupt.
    Nmi,
    /// System management interrupt.
    Smi,
    /// INIT: reset the CPU; if it is an application processor, wait for a start-up message.
    Init,
    /// Start-up: begin in real mode at `vector << 12`. Sent only to a CPU that waits for it, always
    /// after its INIT.
    Sipi(u8),
}

/// One CPU's ear: the run loop of its accelerator.
pub trait Kick: Send + Sync {
    /// Notes the signal in the CPU's pending word and wakes it if it halts or runs.
    ///
    /// Called from any thread, possibly with a device and a controller locked: must only touch
    /// atomics and wake, never lock a device or wait.
    fn raise(&self, signal: CpuSignal);
}

impl<F: Fn(CpuSignal) + Send + Sync> Kick for F {
    fn raise(&self, signal: CpuSignal) {
        self(signal);
    }
}
