//! The project's own chores: `cargo xtask <chore>`.

mod check;
mod guests;
mod host;

use std::process::ExitCode;

use anyhow::{Result, bail};

const USAGE: &str = "\
usage: cargo xtask <chore>

  check [--quick]            format, house rules, layers, clippy (left out by --quick)
  guests [ARCH] [--update]   fetch kernels, busybox and firmware from Debian's packages
";

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match dispatch(&args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn dispatch(args: &[String]) -> Result<()> {
    let Some((chore, rest)) = args.split_first() else {
        bail!("no chore given\n{USAGE}");
    };
    match chore.as_str() {
        "check" => check::run(rest),
        "guests" => guests::run(rest),
        "help" | "--help" | "-h" => {
            print!("{USAGE}");
            Ok(())
        }
        other => bail!("there is no chore `{other}`\n{USAGE}"),
    }
}
