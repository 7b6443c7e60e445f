//! The project's own chores: `cargo xtask <chore>`.

mod bench;
mod check;
mod foreign;
mod guests;
mod host;
mod launch;
mod tests;

use std::process::ExitCode;

use anyhow::{Result, bail};

const USAGE: &str = "\
usage: cargo xtask <chore>

  run [ARGS]                 boot a Debian kernel to a shell on this terminal
  test [--all] [ARGS]        unit and property tests; with --all the whole-machine ones too
  test --foreign             the engine's tests on other kinds of hosts, by qemu-user
  check [--quick]            format, house rules, layers, clippy (left out by --quick)
  bless                      rewrite the golden files
  guests [ARCH] [--update]   fetch kernels, busybox and firmware from Debian's packages
  bench [OPTIONS]            measure against the installed QEMU; `bench --help` lists options
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
        "bench" => bench::run(rest),
        bench::MONITOR => bench::monitor(rest),
        "bless" => tests::bless(rest),
        "check" => check::run(rest),
        "guests" => guests::run(rest),
        "run" => launch::run(rest),
        "test" => tests::run(rest),
        "help" | "--help" | "-h" => {
            print!("{USAGE}");
            Ok(())
        }
        other => bail!("there is no chore `{other}`\n{USAGE}"),
    }
}
