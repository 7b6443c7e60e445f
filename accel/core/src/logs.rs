//! What `-d` shows of the units that an engine runs.

use std::sync::Arc;

use crate::core::Core;
use crate::engine::Guest;

/// The addresses of guest code that are logged (`-dfilter`): all, unless some are named.
#[derive(Clone, Default, Debug, PartialEq, Eq)]
pub struct LogFilter(Arc<[(u64, u64)]>);

impl LogFilter {
    /// Only code between these first and last addresses; of none, all.
    pub fn new(ranges: &[(u64, u64)]) -> Self {
        LogFilter(ranges.into())
    }

    /// Whether code at `address` is logged.
    pub fn has(&self, address: u64) -> bool {
        let within = |(first, last): &(u64, u64)| (*first..=*last).contains(&address);
        self.0.is_empty() || self.0.iter().any(within)
    }
}

/// Whether each unit that is entered is logged. Generated code runs from unit to unit by itself: only
/// an interpreter serves such a log.
pub fn logs_units() -> bool {
    log::log_enabled!(target: "exec", log::Level::Trace)
        || log::log_enabled!(target: "cpu", log::Level::Trace)
}

/// Logs the unit that is entered, and the registers before it.
pub(crate) fn log_unit<T: Guest>(core: &mut Core<T>) {
    let at = T::fetch_address(core);
    if !core.log_filter.has(at) {
        return;
    }
    log::trace!(target: "exec", "cpu {} {at:#018x}", core.index);
    if log::log_enabled!(target: "cpu", log::Level::Trace) {
        let float = log::log_enabled!(target: "fpu", log::Level::Trace);
        let general = if float { None } else { T::report(core, "cpu") };
        let text = general.unwrap_or_else(|| T::describe(core));
        log::trace!(target: "cpu", "{}", text.trim_end());
    }
}

#[cfg(test)]
mod tests {
    use super::LogFilter;

    #[test]
    fn a_filter_of_nothing_lets_all_pass() {
        assert!(LogFilter::default().has(0));
        let some = LogFilter::new(&[(0x1000, 0x1fff), (u64::MAX, u64::MAX)]);
        let seen = [0xfff, 0x1000, 0x1fff, 0x2000, u64::MAX].map(|at| some.has(at));
        assert_eq!(seen, [false, true, true, false, true]);
    }
}
