//! Typed definitions of QMP commands, events and their introspection.
