//! qcow2 images against a model, against QEMU's tools, and against power cuts, failing disks and
//! mutations.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test that cannot go on has failed"
)]

mod disk;
mod faults;
mod interop;
mod jobs;
mod killed;
mod model;
mod mutated;
mod now;
mod power;
mod together;
