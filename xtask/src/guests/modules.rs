//! Drivers of a kernel package with everything they depend on.
//!
//! `modules.dep` is made when a kernel is installed, which it is not here: the dependencies are
//! read from the `depends=` strings in the files themselves.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::host;

/// Drivers for one kernel release.
pub(super) struct Modules {
    pub(super) release: String,
    pub(super) files: Vec<Module>,
    /// Paths of the wanted ones that are part of the kernel: `modprobe` accepts their names.
    pub(super) builtin: Vec<String>,
}

/// One driver.
pub(super) struct Module {
    pub(super) name: String,
    pub(super) content: Vec<u8>,
    /// What must be loaded before it; the nearest first, as in `modules.dep`.
    pub(super) needs_in_order: Vec<String>,
}

/// Reads the wanted drivers and their dependencies. What is built into the kernel has no file.
pub(super) fn collect(tree: &Path, release: &str, wanted: &[&str]) -> Result<Modules> {
    let mut places = BTreeMap::new();
    let mut builtin = Vec::new();
    for root in ["lib/modules", "usr/lib/modules"] {
        let home = tree.join(root).join(release);
        index(&home, &mut places);
        let list = fs::read_to_string(home.join("modules.builtin")).unwrap_or_default();
        let is_wanted = |path: &&str| {
            let name = path.rsplit('/').next().unwrap_or_default();
            wanted.contains(&name.trim_end_matches(".ko").replace('-', "_").as_str())
        };
        builtin.extend(list.lines().filter(is_wanted).map(str::to_owned));
    }
    let mut found: BTreeMap<String, (Vec<u8>, Vec<String>)> = BTreeMap::new();
    let mut queue: Vec<String> = wanted.iter().map(|name| (*name).to_owned()).collect();
    while let Some(name) = queue.pop() {
        let Some(path) = places.get(&name) else {
            continue;
        };
        if found.contains_key(&name) {
            continue;
        }
        let content = read(path)?;
        let needs = depends(&content);
        queue.extend(needs.iter().cloned());
        found.insert(name, (content, needs));
    }
    let mut files = Vec::new();
    for (name, (content, _)) in &found {
        let mut needs_in_order = Vec::new();
        closure(name, &found, &mut needs_in_order);
        files.push(Module {
            name: name.clone(),
            content: content.clone(),
            needs_in_order,
        });
    }
    Ok(Modules {
        release: release.to_owned(),
        files,
        builtin,
    })
}

fn index(folder: &Path, places: &mut BTreeMap<String, PathBuf>) {
    let Ok(entries) = fs::read_dir(folder) else {
        return;
    };
    for entry in entries.flatten() {
        let path = entry.path();
        // Not `is_dir` of the path: a link `build` leads out of the package.
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            index(&path, places);
        } else if let Some((stem, _)) = entry.file_name().to_string_lossy().split_once(".ko") {
            places.insert(stem.replace('-', "_"), path);
        }
    }
}

fn read(path: &Path) -> Result<Vec<u8>> {
    let content = fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    match path.extension().and_then(|ext| ext.to_str()) {
        Some("xz") => host::filter(Command::new("xz").arg("-dc"), &content),
        Some("zst") => host::filter(Command::new("zstd").arg("-dc"), &content),
        _ => Ok(content),
    }
}

/// The names in the `depends=` string of the section `.modinfo`.
fn depends(content: &[u8]) -> Vec<String> {
    const KEY: &[u8] = b"\0depends=";
    let Some(at) = content.windows(KEY.len()).position(|window| window == KEY) else {
        return Vec::new();
    };
    let text = content.get(at + KEY.len()..).unwrap_or_default();
    let text = text.split(|&byte| byte == 0).next().unwrap_or_default();
    String::from_utf8_lossy(text)
        .split(',')
        .filter(|name| !name.is_empty())
        .map(|name| name.replace('-', "_"))
        .collect()
}

fn closure(name: &str, found: &BTreeMap<String, (Vec<u8>, Vec<String>)>, order: &mut Vec<String>) {
    let Some((_, needs)) = found.get(name) else {
        return;
    };
    for need in needs.iter().filter(|need| found.contains_key(*need)) {
        // A name seen before moves to the end: it must be loaded before this one, too.
        order.retain(|other| other != need);
        order.push(need.clone());
        closure(need, found, order);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dependencies_come_from_the_files_own_words() {
        let content = b"xx\0license=GPL\0depends=virtio,virtio-ring\0name=virtio_blk\0";
        assert_eq!(depends(content), ["virtio", "virtio_ring"]);
        assert!(depends(b"\0depends=\0").is_empty());
    }
}
