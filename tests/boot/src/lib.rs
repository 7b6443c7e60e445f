//! Drives whole machines: starts the built `mimic`, types on its console, talks QMP to it.
//!
//! ```no_run
//! use test_boot::{Guest, Vm};
//!
//! # fn main() -> Result<(), test_boot::Error> {
//! let Some(guest) = Guest::find("amd64")? else { return Ok(()) };
//! let mut vm = Vm::new("pc").linux(&guest).cpus(4).boot()?;
//! vm.expect("GUEST-UP")?;
//! assert_eq!(vm.shell("nproc")?, "4");
//! vm.send("exit\n")?;
//! vm.expect_success()
//! # }
//! ```
//!
//! | variable | meaning |
//! |---|---|
//! | `MIMIC_BIN` | the program to test; otherwise `mimic` is built in release form |
//! | `MIMIC_BIN_AARCH64` | the same program for aarch64 hosts; otherwise it is built for them |
//! | `MIMIC_GUESTS` | where `cargo xtask guests` put the guests; otherwise `.cache/guests` |
//! | `CI_NO_SKIP=1` | a missing guest or outer machine is a failure, not a skipped test |
//!
//! Any QEMU serves as `MIMIC_BIN` too: so the tests themselves are tested.

pub mod arm_program;
mod binary;
mod console;
pub mod cpio;
mod cross;
mod error;
mod folder;
mod guest;
pub mod kernels;
mod outer;
pub mod programs;
mod qmp;
mod state;
mod vm;

pub use binary::program;
pub use console::Console;
pub use error::Error;
pub use folder::Folder;
pub use guest::{Guest, has_kvm, skip};
pub use outer::Outer;
pub use qmp::Qmp;
pub use vm::{Ended, Vm, VmBuilder};
