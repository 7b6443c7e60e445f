//! `cargo xtask check`: what can be said about a change without running it.

mod layers;
mod lints;
mod rules;
mod shifts;
mod sources;

use std::process::Command;

use anyhow::{Result, bail};

use crate::host;
use rules::Rules;
use sources::Sources;

/// Names the place and the rule, so that a reader can find both.
pub(crate) struct Finding {
    pub(crate) place: String,
    pub(crate) rule: &'static str,
    pub(crate) message: String,
}

/// The chore. `--quick` leaves out clippy, by far the slowest part.
pub(crate) fn run(args: &[String]) -> Result<()> {
    let mut quick = false;
    for arg in args {
        match arg.as_str() {
            "--quick" => quick = true,
            other => bail!("`cargo xtask check` does not know `{other}`; there is --quick"),
        }
    }
    let mut failed = Vec::new();

    let sources = Sources::read()?;
    let rules = Rules::read()?;
    let mut findings = lints::target_guard()?;
    findings.extend(lints::all(&sources, &rules));
    findings.extend(shifts::all(&sources));
    findings.extend(layers::all(&rules)?);
    for Finding {
        place,
        rule,
        message,
    } in &findings
    {
        eprintln!("{place}: {message} [{rule}]");
    }
    if !findings.is_empty() {
        failed.push(format!("{} findings of the house rules", findings.len()));
    }

    if !cargo(&["fmt", "--all", "--", "--check"])? {
        failed.push("format (`cargo fmt --all` repairs it)".to_owned());
    }
    if !quick
        && !cargo(&[
            "clippy",
            "--workspace",
            "--all-targets",
            "--quiet",
            "--",
            "-D",
            "warnings",
        ])?
    {
        failed.push("clippy".to_owned());
    }
    if failed.is_empty() {
        println!("check: {} files, no complaints", sources.files.len());
        return Ok(());
    }
    bail!("check failed: {}", failed.join("; "))
}

fn cargo(args: &[&str]) -> Result<bool> {
    let status = Command::new(host::cargo())
        .args(args)
        .current_dir(host::workspace())
        .status()?;
    Ok(status.success())
}
