//! The QMP monitor.
