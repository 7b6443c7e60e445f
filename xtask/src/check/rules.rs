//! `xtask/layers.toml`: the exceptions, each with its reason.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result, bail};

use crate::host;

/// The file's two tables.
#[derive(Default)]
pub(super) struct Rules {
    /// Allowed dependencies inside a layer.
    pub(super) same_layer: BTreeSet<(String, String)>,
    /// Crates that may contain `unsafe`.
    pub(super) may_be_unsafe: BTreeSet<String>,
}

impl Rules {
    pub(super) fn read() -> Result<Self> {
        let path = host::workspace().join("xtask/layers.toml");
        let text = std::fs::read_to_string(&path)
            .with_context(|| format!("cannot read {}", path.display()))?;
        Self::parse(&text)
    }

    /// Reads the little of TOML that the file needs: tables of `"key" = "reason"`.
    fn parse(text: &str) -> Result<Self> {
        let mut rules = Self::default();
        let mut table = "";
        for (number, line) in text
            .lines()
            .enumerate()
            .map(|(n, line)| (n + 1, line.trim()))
        {
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            if let Some(name) = line
                .strip_prefix('[')
                .and_then(|rest| rest.strip_suffix(']'))
            {
                table = name;
                continue;
            }
            let quoted = |text: &str| -> Option<String> {
                let inner = text.trim().strip_prefix('"')?.strip_suffix('"')?;
                (!inner.is_empty()).then(|| inner.to_owned())
            };
            let Some((key, _reason)) = line
                .split_once('=')
                .and_then(|(key, reason)| Some((quoted(key)?, quoted(reason)?)))
            else {
                bail!("xtask/layers.toml:{number}: not of the form \"key\" = \"reason\"");
            };
            match table {
                "same-layer" => {
                    let Some((from, to)) = key.split_once(" -> ") else {
                        bail!("xtask/layers.toml:{number}: `{key}` is not `crate -> crate`");
                    };
                    rules.same_layer.insert((from.to_owned(), to.to_owned()));
                }
                "unsafe" => {
                    rules.may_be_unsafe.insert(key);
                }
                other => bail!("xtask/layers.toml:{number}: there is no table [{other}]"),
            }
        }
        if let Some(circle) = circle(&rules.same_layer) {
            bail!("xtask/layers.toml allows a circle through `{circle}`");
        }
        Ok(rules)
    }
}

/// A crate that could use itself by way of the allowed pairs.
fn circle(pairs: &BTreeSet<(String, String)>) -> Option<String> {
    let mut open: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for (from, to) in pairs {
        open.entry(from).or_default().insert(to);
        open.entry(to).or_default();
    }
    // Crates that use nothing left are in no circle; remove them until none is.
    while let Some(done) = open
        .iter()
        .find(|(_, to)| to.is_empty())
        .map(|(from, _)| *from)
    {
        open.remove(done);
        for to in open.values_mut() {
            to.remove(done);
        }
    }
    open.keys().next().map(|name| (*name).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_exception_without_a_reason_is_refused() {
        assert!(Rules::parse("[unsafe]\n\"runtime\" = \"\"\n").is_err());
        assert!(Rules::parse("[unsafe]\n\"runtime\"\n").is_err());
    }

    #[test]
    fn allowed_pairs_may_not_form_a_circle() {
        let text = "[same-layer]\n\"a -> b\" = \"x\"\n\"b -> c\" = \"x\"\n\"c -> a\" = \"x\"\n";
        assert!(Rules::parse(text).is_err());
    }

    #[test]
    fn the_file_in_the_repository_is_well_formed() {
        let rules = Rules::read().unwrap();
        assert!(rules.may_be_unsafe.contains("runtime"));
    }
}
