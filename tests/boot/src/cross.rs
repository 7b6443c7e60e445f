//! Programs for aarch64 hosts, wherever the tests run.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::guest::skip_always;
use crate::{Error, binary, skip};

const TRIPLE: &str = "aarch64-unknown-linux-gnu";
/// Of Debian's package `gcc-aarch64-linux-gnu`.
const LINKER: &str = "aarch64-linux-gnu-gcc";

/// What cargo is told to build `moves`.
const MOVES: &[&str] = &["--package", "test_saved", "--example", "moves"];

/// `$MIMIC_BIN_AARCH64`, or a static build of this workspace; `None` after a loud word where it cannot be
/// built.
pub(crate) fn program() -> Result<Option<PathBuf>, Error> {
    if let Some(path) = std::env::var_os("MIMIC_BIN_AARCH64").filter(|path| !path.is_empty()) {
        return Ok(Some(PathBuf::from(path)));
    }
    if cfg!(target_arch = "aarch64") {
        return binary::program().map(Some);
    }
    build(binary::PROGRAM)
}

/// The program that moves a machine while it runs; `None` as for the one under test.
pub(crate) fn moves() -> Result<Option<PathBuf>, Error> {
    build(MOVES)
}

fn build(what: &[&str]) -> Result<Option<PathBuf>, Error> {
    if Command::new(LINKER).arg("--version").output().is_err() {
        skip(&format!(
            "no {LINKER}: install the packages gcc-aarch64-linux-gnu and libc6-dev-arm64-cross"
        ))?;
        return Ok(None);
    }
    if !has_library() {
        // Not every release of Rust can be given one.
        skip_always(&format!(
            "no standard library for {TRIPLE}: `rustup target add {TRIPLE}`"
        ));
        return Ok(None);
    }
    // A variable of cargo's for this target.
    let variable = |what| {
        let triple = TRIPLE.replace('-', "_").to_uppercase();
        format!("CARGO_TARGET_{triple}_{what}")
    };
    let built = binary::build_with(
        binary::cargo(what)
            .args(["--profile", "cross", "--target", TRIPLE])
            .env(variable("LINKER"), LINKER)
            // The outer machine has no libraries.
            .env(variable("RUSTFLAGS"), "-Ctarget-feature=+crt-static"),
    );
    built.map(Some).map_err(|reason| Error::Start {
        program: PathBuf::from("cargo"),
        reason,
    })
}

fn has_library() -> bool {
    let said = Command::new("rustc").args(["--print", "sysroot"]).output();
    said.is_ok_and(|said| {
        let root = String::from_utf8_lossy(&said.stdout).into_owned();
        Path::new(root.trim())
            .join("lib/rustlib")
            .join(TRIPLE)
            .exists()
    })
}
