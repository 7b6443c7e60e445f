//! House rules on files and their text.

use anyhow::{Context, Result};

use super::Finding;
use super::rules::Rules;
use super::sources::{Source, Sources};
use crate::host;

const MAX_LINES: usize = 1_000;

/// Module names that say nothing. Engine helpers are a term of their own in `target/`.
const EMPTY_NAMES: &[&str] = &[
    "mod.rs",
    "utils.rs",
    "util.rs",
    "common.rs",
    "helpers.rs",
    "misc.rs",
];

/// Layers a guest can talk to: their crates begin with these.
const GUEST_FACING: &[&str] = &["devices/", "hw/", "target/", "firmware/", "backends/"];
const PANIC_LINTS: &[&str] = &[
    "clippy::unwrap_used",
    "clippy::expect_used",
    "clippy::panic",
    "clippy::indexing_slicing",
    "clippy::arithmetic_side_effects",
];

/// Traces of somebody's machine. The folder of this checkout is added to them.
const PRIVATE_PATHS: &[&str] = &["/home/", "/root/", "/Users/"];

/// Cargo's output belongs in `build/`; in `target/`, `cargo clean` would delete sources with it.
pub(super) fn target_guard() -> Result<Vec<Finding>> {
    let folder = host::workspace().join("target");
    let mut findings = Vec::new();
    let entries = std::fs::read_dir(&folder)
        .with_context(|| format!("cannot read {}: it holds sources", folder.display()))?;
    for entry in entries {
        let entry = entry?;
        if !entry.path().join("Cargo.toml").exists() {
            findings.push(Finding {
                place: format!("target/{}", entry.file_name().to_string_lossy()),
                rule: "target-guard",
                message: "build output among the sources: run cargo from inside the repository or \
                          with CARGO_TARGET_DIR=build, and remove this by hand, never by `cargo \
                          clean`"
                    .to_owned(),
            });
        }
    }
    Ok(findings)
}

/// The rules that look at one file at a time.
pub(super) fn all(sources: &Sources, rules: &Rules) -> Vec<Finding> {
    let mut findings = Vec::new();
    for source in &sources.files {
        if let Some(message) = private_path(source) {
            findings.push(at(source, message, "private-path"));
        }
        if source.path.ends_with("/Cargo.toml")
            && !source.text.contains("[lints]\nworkspace = true")
        {
            let message = (1, "no `[lints] workspace = true`".to_owned());
            findings.push(at(source, message, "lints"));
        }
    }
    for source in sources.rust() {
        findings.extend(size_and_name(source));
        findings.extend(todo(source));
        findings.extend(unsafe_list(source, rules));
        findings.extend(panic_lints(source));
    }
    findings
}

fn at(source: &Source, (line, message): (usize, String), rule: &'static str) -> Finding {
    Finding {
        place: format!("{}:{line}", source.path),
        rule,
        message,
    }
}

fn size_and_name(source: &Source) -> Vec<Finding> {
    let mut findings = Vec::new();
    let lines = source.text.lines().count();
    // Tables of the manual may be as long as the manual's.
    let is_table = source
        .text
        .lines()
        .take(20)
        .any(|line| line.contains("house: table"));
    if lines > MAX_LINES && !is_table {
        let message =
            format!("{lines} lines; split it by the manual's chapters before {MAX_LINES} lines");
        findings.push(at(source, (MAX_LINES, message), "file-size"));
    }
    let name = source.file_name();
    let is_term = name == "helpers.rs" && source.path.starts_with("target/");
    if EMPTY_NAMES.contains(&name) && !is_term {
        let message = format!("`{name}` says nothing about what is in it");
        findings.push(at(source, (1, message), "names"));
    }
    findings
}

fn todo(source: &Source) -> Option<Finding> {
    // Spelt so that this file does not find itself.
    let words = [
        concat!("TO", "DO"),
        concat!("FIX", "ME"),
        concat!("XX", "X:"),
    ];
    source.text.lines().enumerate().find_map(|(number, line)| {
        let word = words.iter().find(|word| line.contains(*word))?;
        let has_issue = line.contains(&format!("{word}(#"));
        (!has_issue).then(|| {
            let message = format!("`{word}` without an issue: write {word}(#123) or do it");
            at(source, (number + 1, message), "todo")
        })
    })
}

fn unsafe_list(source: &Source, rules: &Rules) -> Option<Finding> {
    let krate = crate_of(&source.path);
    if rules.may_be_unsafe.contains(&krate) {
        return None;
    }
    source.code_lines().into_iter().find_map(|(number, line)| {
        let has_unsafe = line.contains("allow(unsafe_code)")
            || line
                .split(|c: char| !c.is_alphanumeric() && c != '_')
                .any(|word| word == "unsafe");
        // Edition 2024 spells some harmless attributes `unsafe(...)`; those stay on the list too.
        has_unsafe.then(|| {
            let message = format!(
                "`unsafe` in {krate}, which is not among the crates of xtask/layers.toml [unsafe]"
            );
            at(source, (number, message), "unsafe")
        })
    })
}

fn panic_lints(source: &Source) -> Option<Finding> {
    let is_root = source.path.ends_with("/src/lib.rs")
        && GUEST_FACING
            .iter()
            .any(|folder| source.path.starts_with(folder));
    if !is_root {
        return None;
    }
    let has_code = source
        .code_lines()
        .iter()
        .any(|(_, line)| !line.trim().is_empty());
    let missing: Vec<&str> = PANIC_LINTS
        .iter()
        .copied()
        .filter(|lint| !source.text.contains(lint))
        .collect();
    (has_code && !missing.is_empty()).then(|| {
        let message = format!(
            "a guest reaches this crate: deny {} at its top",
            missing.join(", ")
        );
        at(source, (1, message), "no-panic")
    })
}

fn private_path(source: &Source) -> Option<(usize, String)> {
    // This file and the list of what git ignores name such paths for a reason.
    let is_excused = ["xtask/src/check/lints.rs", ".gitignore", ".git"];
    if is_excused.contains(&source.path.as_str()) {
        return None;
    }
    let checkout = host::workspace()
        .parent()
        .map(|parent| format!("{}/", parent.display()))
        .filter(|parent| parent.len() > 2);
    source.text.lines().enumerate().find_map(|(number, line)| {
        let found = PRIVATE_PATHS
            .iter()
            .copied()
            .chain(checkout.as_deref())
            .find(|path| line.contains(path))?;
        Some((number + 1, format!("`{found}` is a path of one machine")))
    })
}

/// `devices/rtc/src/lib.rs` belongs to `device_rtc`.
fn crate_of(path: &str) -> String {
    let mut parts = path.split('/');
    let top = parts.next().unwrap_or_default();
    let next = parts.next().unwrap_or_default();
    match next {
        "src" | "tests" | "benches" | "build.rs" => top.to_owned(),
        name => super::layers::name_of(&format!("{top}/{name}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(path: &str, text: &str) -> Source {
        Source {
            path: path.to_owned(),
            text: text.to_owned(),
        }
    }

    #[test]
    fn unsafe_outside_the_listed_crates_is_found() {
        let mut rules = Rules::default();
        let file = source(
            "devices/rtc/src/lib.rs",
            "fn f() {\n    unsafe { g() }\n}\n",
        );
        assert!(unsafe_list(&file, &rules).is_some_and(|f| f.place.ends_with(":2")));
        rules.may_be_unsafe.insert("device_rtc".to_owned());
        assert!(unsafe_list(&file, &rules).is_none());
    }

    #[test]
    fn the_word_unsafe_in_a_comment_is_not_code() {
        let file = source("devices/rtc/src/lib.rs", "// never unsafe\n");
        assert!(unsafe_list(&file, &Rules::default()).is_none());
    }

    #[test]
    fn a_long_file_and_an_empty_name_are_found() {
        let file = source("hw/core/src/utils.rs", &"x\n".repeat(1_001));
        assert_eq!(size_and_name(&file).len(), 2);
    }

    #[test]
    fn a_crate_that_guests_reach_denies_panics() {
        let file = source("hw/core/src/lib.rs", "//! Doc.\npub fn f() {}\n");
        assert!(panic_lints(&file).is_some());
    }
}
