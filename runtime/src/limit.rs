//! Rate limits for what a guest can make the log say.

use std::sync::atomic::{AtomicU64, Ordering};

const NS_PER_S: u64 = 1_000_000_000;

/// Lets `burst` messages through per second and counts what it holds back.
///
/// Each owner of a message (a device, a bus) has its own, so one noisy device does not silence another.
#[derive(Debug)]
pub struct RateLimit {
    burst: u64,
    window_start_ns: AtomicU64,
    used: AtomicU64,
    suppressed: AtomicU64,
}

impl RateLimit {
    /// A limit of `burst` messages a second.
    pub const fn new(burst: u64) -> Self {
        Self {
            burst,
            window_start_ns: AtomicU64::new(0),
            used: AtomicU64::new(0),
            suppressed: AtomicU64::new(0),
        }
    }

    /// Asks to say one message at `now_ns`. `Some(n)` means yes, and that `n` were held back since the last one;
    /// `None` means no.
    pub fn admit(&self, now_ns: u64) -> Option<u64> {
        let start = self.window_start_ns.load(Ordering::Relaxed);
        // Racing threads may both open the window: then a message more gets through, which harms nobody.
        if now_ns.saturating_sub(start) >= NS_PER_S || now_ns < start {
            self.window_start_ns.store(now_ns, Ordering::Relaxed);
            self.used.store(0, Ordering::Relaxed);
        }
        if self.used.fetch_add(1, Ordering::Relaxed) < self.burst {
            Some(self.suppressed.swap(0, Ordering::Relaxed))
        } else {
            self.suppressed.fetch_add(1, Ordering::Relaxed);
            None
        }
    }
}

impl Default for RateLimit {
    fn default() -> Self {
        Self::new(10)
    }
}

/// Logs at `level` under `target` unless `limit` is used up.
///
/// ```
/// let limit = runtime::RateLimit::default();
/// runtime::log_limited!(limit, log::Level::Warn, target: "guest_errors", "write to {:#x}", 0x80);
/// ```
#[macro_export]
macro_rules! log_limited {
    ($limit:expr, $level:expr, target: $target:expr, $($message:tt)+) => {
        // A disabled level must not use up the budget.
        if $crate::limit::enabled($level, $target) {
            if let Some(held_back) = $limit.admit($crate::time::monotonic_ns()) {
                $crate::limit::emit($level, $target, held_back, format_args!($($message)+));
            }
        }
    };
}

/// Whether the log would take a message: used by [`log_limited!`].
pub fn enabled(level: log::Level, target: &str) -> bool {
    log::log_enabled!(target: target, level)
}

/// Says one message: used by [`log_limited!`].
pub fn emit(level: log::Level, target: &str, held_back: u64, message: std::fmt::Arguments<'_>) {
    if held_back == 0 {
        log::log!(target: target, level, "{message}");
    } else {
        log::log!(target: target, level, "{message} ({held_back} similar messages left out)");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_passes_and_the_rest_is_counted() {
        let limit = RateLimit::new(2);
        let said: Vec<_> = (0..5).map(|i| limit.admit(NS_PER_S + i)).collect();
        assert_eq!(said, [Some(0), Some(0), None, None, None]);
        assert_eq!(limit.admit(3 * NS_PER_S), Some(3));
    }
}
