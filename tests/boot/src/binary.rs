//! Finding or building the program under test.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::Error;

/// A build that takes longer is told.
const NOTABLE: Duration = Duration::from_secs(3);

/// The workspace's folder.
pub(crate) fn workspace() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.ancestors().nth(2).unwrap_or(here).to_path_buf()
}

/// `$MIMIC_BIN`, or the release build of this workspace, brought up to date once per process.
///
/// # Errors
/// When it does not build.
pub fn program() -> Result<PathBuf, Error> {
    static BUILT: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    if let Some(path) = std::env::var_os("MIMIC_BIN").filter(|path| !path.is_empty()) {
        return Ok(PathBuf::from(path));
    }
    BUILT
        .get_or_init(build)
        .clone()
        .map_err(|reason| Error::Start {
            program: PathBuf::from("mimic"),
            reason,
        })
}

/// Under nextest each test is a process, and the first ones wait here for the whole build: the test is
/// not slow then, so say where the time went.
fn build() -> Result<PathBuf, String> {
    let started = Instant::now();
    let program = cargo_build();
    let took = started.elapsed();
    if took > NOTABLE {
        eprintln!(
            "test_boot: {} s of this test were the release build of mimic; MIMIC_BIN names one that is there",
            took.as_secs()
        );
    }
    program
}

fn cargo_build() -> Result<PathBuf, String> {
    build_with(cargo(PROGRAM).arg("--release"))
}

/// What cargo is told to build the program under test.
pub(crate) const PROGRAM: &[&str] = &["--package", "mimic", "--bin", "mimic"];

/// `cargo build` of a program.
pub(crate) fn cargo(what: &[&str]) -> Command {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command.arg("build").args(what);
    command
}

/// Runs it; the program's path.
pub(crate) fn build_with(command: &mut Command) -> Result<PathBuf, String> {
    let out = command
        .arg("--message-format=json-render-diagnostics")
        .current_dir(workspace())
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .map_err(|error| error.to_string())?;
    if !out.status.success() {
        return Err(format!("{command:?} failed ({})", out.status));
    }
    String::from_utf8_lossy(&out.stdout)
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok())
        .find_map(|message| message["executable"].as_str().map(PathBuf::from))
        .ok_or_else(|| "cargo named no executable".to_owned())
}
