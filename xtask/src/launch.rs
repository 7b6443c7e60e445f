//! `cargo xtask run`: from nothing to a guest's shell on this terminal.

use std::os::unix::process::CommandExt;
use std::process::Command;

use anyhow::{Result, anyhow};

use crate::{guests, host};

/// The chore. Further arguments are Mimic's: `cargo xtask run -M q35 -smp 4`.
pub(crate) fn run(args: &[String]) -> Result<()> {
    let guests = guests::ready()?;
    let mimic = host::build_mimic()?;
    let home = guests.join("amd64");
    let mut command = Command::new(&mimic);
    command
        .args(["-machine", "pc", "-m", "512", "-nographic", "-no-reboot"])
        .arg("-L")
        .arg(guests.join("share/seabios"))
        .arg("-kernel")
        .arg(home.join("vmlinuz"))
        .arg("-initrd")
        .arg(home.join("initrd"))
        .args(["-append", "console=ttyS0"])
        .args(args);
    // Replaces this process: the terminal and its signals are Mimic's alone.
    let reason = command.exec();
    Err(anyhow!(reason).context(format!("cannot start {}", mimic.display())))
}
