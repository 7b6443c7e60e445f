//! The record of what was fetched.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde_json::{Map, Value, json};

use super::apt::Package;
use crate::host;

/// `manifest.json`, of which this edits one architecture's part.
pub(super) struct Manifest {
    path: PathBuf,
    arch: String,
    all: Map<String, Value>,
}

impl Manifest {
    pub(super) fn load(folder: &Path, arch: &str) -> Result<Self> {
        let path = folder.join("manifest.json");
        Ok(Self {
            all: read(&path)?,
            path,
            arch: arch.to_owned(),
        })
    }

    pub(super) fn has(&self, wanted: &str) -> bool {
        self.entry(wanted).is_some()
    }

    pub(super) fn version(&self, wanted: &str) -> Option<&str> {
        self.entry(wanted)?.get("version")?.as_str()
    }

    pub(super) fn record(&mut self, wanted: &str, package: &Package) -> Result<()> {
        // Other architectures' parts may have been written meanwhile.
        self.all = read(&self.path)?;
        let part = self
            .all
            .entry(self.arch.clone())
            .or_insert_with(|| json!({}));
        if let Some(part) = part.as_object_mut() {
            let Package {
                name,
                version,
                sha256,
                file: _,
            } = package;
            part.insert(
                wanted.to_owned(),
                json!({ "package": name, "version": version, "sha256": sha256 }),
            );
        }
        let mut text = serde_json::to_string_pretty(&self.all)?;
        text.push('\n');
        host::write_if_changed(&self.path, text.as_bytes())?;
        Ok(())
    }

    fn entry(&self, wanted: &str) -> Option<&Value> {
        self.all.get(&self.arch)?.get(wanted)
    }
}

fn read(path: &Path) -> Result<Map<String, Value>> {
    match std::fs::read(path) {
        Ok(text) => serde_json::from_slice(&text)
            .with_context(|| format!("{} is damaged; remove it", path.display())),
        Err(_) => Ok(Map::new()),
    }
}
