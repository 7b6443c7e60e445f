//! The machine's clocks and timers: the only way to host time.
