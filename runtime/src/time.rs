//! The host's clocks. Only event loops and the owners of the machine's `Clock` read them.

use rustix::time::{ClockId, clock_gettime};

const NS_PER_S: u64 = 1_000_000_000;

fn read_ns(clock: ClockId) -> u64 {
    let now = clock_gettime(clock);
    let seconds = u64::try_from(now.tv_sec).unwrap_or(0);
    let nanos = u64::try_from(now.tv_nsec).unwrap_or(0);
    seconds.saturating_mul(NS_PER_S).saturating_add(nanos)
}

/// Nanoseconds of the host's monotonic clock.
pub fn monotonic_ns() -> u64 {
    read_ns(ClockId::Monotonic)
}

/// Nanoseconds since 1970 of the host's wall clock.
pub fn wall_ns() -> u64 {
    read_ns(ClockId::Realtime)
}

/// Nanoseconds of processor time this process has used.
pub fn process_cpu_ns() -> u64 {
    read_ns(ClockId::ProcessCPUTime)
}

/// Seconds that local time is ahead of UTC at `seconds` since 1970, by the host's time zone.
pub fn utc_offset_s(seconds: i64) -> i64 {
    // SAFETY: all-zero is a valid `tm`; `localtime_r` fills it in.
    let mut local: libc::tm = unsafe { std::mem::zeroed() };
    let at: libc::time_t = seconds;
    // SAFETY: both pointers are valid for the call. It reads TZ, which this process never changes.
    let done = unsafe { libc::localtime_r(&raw const at, &raw mut local) };
    if done.is_null() { 0 } else { local.tm_gmtoff }
}
