//! The x86_64 CPU: state, decoding into IR, MMU, exceptions, models.
