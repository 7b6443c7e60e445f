//! `-snapshot` and `snapshot=on`: an overlay that takes what is written, in a file that has no name any
//! more when the machine starts.

use std::sync::Arc;

use anyhow::{Context as _, Result};
use backend_block::{Child, Node, Opener, SECTOR, perm};
use control_options::{Opts, Scalar};

use super::Drive;

/// A node that shows `node` until it is written to.
pub(super) fn overlay(opener: &Opener, node: Arc<Node>, drive: &Drive) -> Result<Arc<Node>> {
    let folder = std::env::temp_dir();
    let template = format!("mimic-snapshot-{}-{}", std::process::id(), node.name());
    let path = folder.join(template.replace(['#', '/'], "_"));
    // Not somebody else's file: created here, or not at all.
    std::fs::File::options()
        .write(true)
        .create_new(true)
        .open(&path)
        .with_context(|| format!("cannot make a temporary image in '{}'", folder.display()))?;
    // Users know the disk by the image that they named.
    let mut opener = opener.clone();
    opener.shown_as = Some(node.file().to_owned());
    let opened = make(&opener, &node, drive, &path);
    let removed = std::fs::remove_file(&path);
    let overlay = opened?;
    removed.with_context(|| format!("cannot unlink the temporary image '{}'", path.display()))?;
    Ok(overlay)
}

fn make(
    opener: &Opener,
    node: &Arc<Node>,
    drive: &Drive,
    path: &std::path::Path,
) -> Result<Arc<Node>> {
    let text = |text: &str| Scalar::Text(text.to_owned());
    let mut file = Opts::default();
    file.push("driver", text("file"));
    file.push("filename", Scalar::Text(path.display().to_string()));
    file.push("locking", text("off"));
    file.push("discard", text("unmap"));
    // It is gone after a crash anyway.
    file.push("cache.no-flush", Scalar::Bool(true));
    let below = opener.open("-snapshot", &file)?;
    let create = opener.driver("qcow2")?.create.context("no qcow2")?;
    {
        let child = Child::attach(
            Arc::clone(&below),
            "-snapshot",
            "file",
            perm::ALL,
            perm::ALL,
        )?;
        // The rest of a last, partial sector is there too.
        (create.create)(
            &child,
            node.len().next_multiple_of(SECTOR),
            &Opts::default(),
        )?;
    }
    let mut opts = Opts::default();
    opts.push("driver", text("qcow2"));
    opts.push("file", text(below.name()));
    opts.push("backing", text(node.name()));
    opts.push("discard", text("unmap"));
    if let Some(value) = drive.opts.get("detect-zeroes") {
        opts.push("detect-zeroes", value.clone());
    }
    Ok(opener.open("-snapshot", &opts)?)
}
