//! Register map (IA-PC HPET Specification 1.0a, section 2.3).

/// General capabilities and id: revision 1, 64-bit counter, legacy replacement, Intel; the number
/// of the last comparator goes to bits 12:8, the period to the upper half.
pub(super) const CAPABILITIES: u64 = 0x8086_a001;
pub(super) const LAST_TIMER_SHIFT: u32 = 8;
/// Counter period in femtoseconds: 10 ns.
pub(super) const PERIOD_FS: u64 = 10_000_000;

pub(super) const GEN_CAP: u64 = 0x000;
pub(super) const GEN_CONFIG: u64 = 0x010;
pub(super) const GEN_STATUS: u64 = 0x020;
pub(super) const COUNTER: u64 = 0x0f0;
pub(super) const TIMERS: u64 = 0x100;
pub(super) const TIMER_LEN: u64 = 0x20;
pub(super) const TIMER_CONFIG: u64 = 0x00;
pub(super) const TIMER_COMPARATOR: u64 = 0x08;
pub(super) const TIMER_FSB: u64 = 0x10;

/// General configuration bits.
pub(super) mod general {
    /// The counter runs and interrupts are on.
    pub(crate) const ENABLE: u64 = 1 << 0;
    /// Timers 0 and 1 have interrupts 0 and 8.
    pub(crate) const LEGACY: u64 = 1 << 1;
}

/// Timer configuration and capability bits.
pub(super) mod timer {
    /// Level-triggered.
    pub(crate) const LEVEL: u64 = 1 << 1;
    /// Interrupts.
    pub(crate) const ENABLE: u64 = 1 << 2;
    /// Periodic.
    pub(crate) const PERIODIC: u64 = 1 << 3;
    /// Can be periodic.
    pub(crate) const PERIODIC_CAP: u64 = 1 << 4;
    /// Is 64 bits wide.
    pub(crate) const SIZE_CAP: u64 = 1 << 5;
    /// The next write of the comparator sets the accumulator.
    pub(crate) const VALUE_SET: u64 = 1 << 6;
    /// Works as a 32-bit timer.
    pub(crate) const MODE_32: u64 = 1 << 8;
    /// I/O APIC input, five bits from here.
    pub(crate) const ROUTE_SHIFT: u32 = 9;
    /// Interrupts by message.
    pub(crate) const FSB_ENABLE: u64 = 1 << 14;
    /// Can interrupt by message.
    pub(crate) const FSB_CAP: u64 = 1 << 15;
    /// Possible I/O APIC inputs, 32 bits from here.
    pub(crate) const ROUTES_SHIFT: u32 = 32;
    /// What software may write.
    pub(crate) const WRITABLE: u64 = 0x7f4e;
}
