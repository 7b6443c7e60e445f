//! `cargo xtask test` and `cargo xtask bless`.

use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use crate::{foreign, guests, host};

/// Crates that need guests and the release build.
const WHOLE_MACHINE: &[&str] = &["test_boot", "test_saved"];

/// The chore. Further arguments go to the test runner: a filter, or a package with `-p`.
pub(crate) fn run(args: &[String]) -> Result<()> {
    if let [only] = args
        && only == "--foreign"
    {
        return foreign::run();
    }
    let (all, rest): (Vec<&String>, Vec<&String>) = args.iter().partition(|arg| *arg == "--all");
    let mut command = runner();
    if !rest
        .iter()
        .any(|arg| ["-p", "--package"].contains(&arg.as_str()))
    {
        command.arg("--workspace");
        if all.is_empty() {
            WHOLE_MACHINE.iter().for_each(|name| {
                command.args(["--exclude", name]);
            });
        }
    }
    if !all.is_empty() {
        if rest.is_empty() {
            foreign::run()?;
        }
        // Random tests run ten times as many cases.
        command.env("MIMIC_TEST_ALL", "1");
        command.env("MIMIC_GUESTS", guests::ready_for_tests()?);
        if std::env::var_os("MIMIC_BIN").is_none() {
            command.env("MIMIC_BIN", host::build_mimic()?);
        }
    }
    finish(command.args(rest))
}

/// Rewrites golden files: tests with `golden` in their name write instead of comparing when
/// `BLESS=1` is set.
pub(crate) fn bless(args: &[String]) -> Result<()> {
    finish(
        Command::new(host::cargo())
            .args(["test", "--workspace"])
            .args(WHOLE_MACHINE.iter().flat_map(|name| ["--exclude", *name]))
            .args(args)
            .args(["golden", "--quiet"])
            .env("BLESS", "1"),
    )?;
    // A golden diff is reviewed like code.
    finish(Command::new("git").args(["status", "--short"]))
}

/// cargo-nextest where it is installed, for its speed; otherwise `cargo test`.
fn runner() -> Command {
    let has_nextest = Command::new(host::cargo())
        .args(["nextest", "--version"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success());
    let mut command = Command::new(host::cargo());
    if has_nextest {
        command.args(["nextest", "run"]);
    } else {
        command.args(["test", "--no-fail-fast"]);
    }
    command
}

fn finish(command: &mut Command) -> Result<()> {
    let program = command.get_program().to_string_lossy().into_owned();
    let status = command
        .current_dir(host::workspace())
        .status()
        .with_context(|| format!("cannot start {program}"))?;
    if !status.success() {
        bail!("{program} failed ({status})");
    }
    Ok(())
}
