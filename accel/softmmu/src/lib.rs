//! The engine's software MMU: translation banks and access paths.
