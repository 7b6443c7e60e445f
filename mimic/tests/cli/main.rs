//! The command line as a user meets it: what is printed where, and with which exit status.

#![allow(clippy::unwrap_used, clippy::panic)]

mod blocks;
mod control;
mod fds;
mod guests;
mod help;
mod img;
mod mistakes;
mod semihosting;
mod virt;

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use test_boot::kernels;

fn mimic() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_mimic"));
    command.stdin(Stdio::null()).env_remove("MIMIC_LOG");
    command
}

fn run(line: &str) -> Output {
    mimic().args(words(line)).output().unwrap()
}

/// Words of a line; a word in single quotes may have spaces in it.
fn words(line: &str) -> Vec<String> {
    let mut out = Vec::new();
    for (index, part) in line.split('\'').enumerate() {
        if index % 2 == 1 {
            out.push(part.to_owned());
        } else {
            out.extend(part.split_whitespace().map(str::to_owned));
        }
    }
    out
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

fn golden_path(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/golden")
        .join(name)
}

/// Compares with a golden file, or rewrites it under `BLESS=1`.
fn golden(name: &str, text: &str) {
    let path = golden_path(name);
    if std::env::var_os("BLESS").is_some_and(|v| v == "1") {
        std::fs::write(&path, text).unwrap();
        return;
    }
    let wanted = std::fs::read_to_string(&path).unwrap_or_default();
    if text != wanted {
        let line = text
            .lines()
            .zip(wanted.lines())
            .position(|(a, b)| a != b)
            .unwrap_or(0);
        panic!(
            "{} differs from line {} on; 'cargo xtask bless' rewrites it. Now it is:\n{text}",
            path.display(),
            line + 1
        );
    }
}

/// A kernel that loads an empty interrupt table and then needs it.
fn triple_faults() -> Vec<u8> {
    // push 0; push 0; lidt [esp]; ud2
    kernels::pvh_elf(&[
        0xbc, 0, 0x80, 0, 0, 0x6a, 0, 0x6a, 0, 0x0f, 0x01, 0x1c, 0x24, 0x0f, 0x0b,
    ])
}

/// A file of this test's own, removed at the end.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str, contents: &[u8]) -> Self {
        let path = std::env::temp_dir().join(format!("mimic-cli-{}-{name}", std::process::id()));
        std::fs::write(&path, contents).unwrap();
        Self(path)
    }

    fn path(&self) -> &str {
        self.0.to_str().unwrap()
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}
