//! qcow2 images against a model, against QEMU's tools, and against power cuts, failing disks and
//! mutations.

mod disk;
mod faults;
mod interop;
mod model;
mod mutated;
mod power;
mod together;
