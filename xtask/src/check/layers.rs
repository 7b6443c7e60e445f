//! Who may use whom.

use std::process::Command;

use anyhow::{Context, Result};
use serde_json::Value;

use super::Finding;
use super::rules::Rules;
use crate::host;

const RULE: &str = "layers";

/// The folders whose name is a prefix of its crates' names, in the singular.
const FOLDERS: &[(&str, &str)] = &[
    ("accel", "accel"),
    ("backends", "backend"),
    ("control", "control"),
    ("devices", "device"),
    ("firmware", "firmware"),
    ("hw", "hw"),
    ("machine", "machine"),
    ("target", "target"),
    ("tests", "test"),
];

struct Crate {
    name: String,
    folder: String,
    layer: Option<u64>,
    uses: Vec<Use>,
}

struct Use {
    name: String,
    in_tests: bool,
}

/// Checks every crate of the workspace by `cargo metadata`.
pub(super) fn all(rules: &Rules) -> Result<Vec<Finding>> {
    let text = host::output(
        Command::new(host::cargo())
            .args([
                "metadata",
                "--no-deps",
                "--offline",
                "--format-version",
                "1",
            ])
            .current_dir(host::workspace()),
    )?;
    let metadata: Value = serde_json::from_str(&text).context("cargo metadata is not JSON")?;
    let crates = crates(&metadata);
    Ok(judge(&crates, rules))
}

fn crates(metadata: &Value) -> Vec<Crate> {
    let root = metadata["workspace_root"].as_str().unwrap_or_default();
    let list = metadata["packages"]
        .as_array()
        .map(Vec::as_slice)
        .unwrap_or_default();
    list.iter()
        .map(|package| Crate {
            name: package["name"].as_str().unwrap_or_default().to_owned(),
            folder: package["manifest_path"]
                .as_str()
                .and_then(|path| path.strip_prefix(root)?.strip_suffix("/Cargo.toml"))
                .unwrap_or_default()
                .trim_start_matches('/')
                .to_owned(),
            layer: package["metadata"]["mimic"]["layer"].as_u64(),
            uses: package["dependencies"]
                .as_array()
                .map(Vec::as_slice)
                .unwrap_or_default()
                .iter()
                .filter(|dependency| dependency["path"].is_string())
                .map(|dependency| Use {
                    name: dependency["name"].as_str().unwrap_or_default().to_owned(),
                    in_tests: dependency["kind"].as_str() == Some("dev"),
                })
                .collect(),
        })
        .collect()
}

fn judge(crates: &[Crate], rules: &Rules) -> Vec<Finding> {
    let mut findings = Vec::new();
    for user in crates {
        let place = format!("{}/Cargo.toml", user.folder);
        let mut say = |message| {
            findings.push(Finding {
                place: place.clone(),
                rule: RULE,
                message,
            })
        };
        let expected = name_of(&user.folder);
        if user.name != expected {
            say(format!(
                "the crate is named `{}`, its folder says `{expected}`",
                user.name
            ));
        }
        let Some(layer) = user.layer else {
            say("no `[package.metadata.mimic] layer = N`".to_owned());
            continue;
        };
        for used in &user.uses {
            let Some(below) = crates
                .iter()
                .find(|c| c.name == used.name)
                .and_then(|c| c.layer)
            else {
                continue;
            };
            let pair = (user.name.clone(), used.name.clone());
            if below > layer {
                say(format!(
                    "layer {layer} uses `{}` of layer {below}: put a trait at the lower layer",
                    used.name
                ));
            } else if below == layer && !used.in_tests && !rules.same_layer.contains(&pair) {
                say(format!(
                    "uses `{}` of its own layer {layer}: not among the pairs of xtask/layers.toml",
                    used.name
                ));
            }
        }
    }
    findings
}

/// `devices/rtc` is `device_rtc`; a crate at the top is named like its folder.
pub(super) fn name_of(folder: &str) -> String {
    match folder.split_once('/') {
        Some((parent, child)) => {
            let prefix = FOLDERS
                .iter()
                .find(|(name, _)| *name == parent)
                .map(|(_, prefix)| *prefix);
            format!("{}_{}", prefix.unwrap_or(parent), child.replace('-', "_"))
        }
        None => folder.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn krate(folder: &str, layer: u64, uses: &[&str]) -> Crate {
        Crate {
            name: name_of(folder),
            folder: folder.to_owned(),
            layer: Some(layer),
            uses: uses
                .iter()
                .map(|n| Use {
                    name: (*n).to_owned(),
                    in_tests: false,
                })
                .collect(),
        }
    }

    #[test]
    fn an_upward_arrow_is_found() {
        let crates = [
            krate("devices/rtc", 3, &["machine_core"]),
            krate("machine/core", 4, &["device_rtc"]),
        ];
        let findings = judge(&crates, &Rules::default());
        assert_eq!(findings.len(), 1);
        assert!(findings[0].place.starts_with("devices/rtc"));
    }

    #[test]
    fn a_sideways_arrow_needs_a_listed_pair() {
        let crates = [
            krate("hw/core", 1, &["hw_state"]),
            krate("hw/state", 1, &[]),
        ];
        let mut rules = Rules::default();
        assert_eq!(judge(&crates, &rules).len(), 1);
        rules
            .same_layer
            .insert(("hw_core".to_owned(), "hw_state".to_owned()));
        assert!(judge(&crates, &rules).is_empty());
    }

    #[test]
    fn a_crate_is_named_after_its_folder() {
        assert_eq!(name_of("backends/char"), "backend_char");
        assert_eq!(name_of("runtime"), "runtime");
    }
}
