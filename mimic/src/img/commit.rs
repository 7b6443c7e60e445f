//! `commit`: what an overlay holds goes into its backing file, or, with `-b`, what all images above a base
//! hold goes into that.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context as _, Result, bail};
use backend_block::{IoVector, Node, Preallocation, beside};

use super::args::Args;
use super::convert::is_same_file;
use super::pace::Pace;
use super::{How, Open, Progress, open};
use crate::entry::print;

/// Bytes copied at a time.
const STEP: u64 = 1 << 20;

pub(super) fn commit(args: &mut Args) -> Result<i32> {
    args.parse(&["q", "d", "p"], &["f", "t", "b", "r"])?;
    let file = args.one()?;
    let pace = Pace::new(args.value("r"))?;
    let how = How {
        format: args.value("f"),
        writes: true,
        cache: args.value("t"),
        ..How::default()
    };
    // Of the image alone its own clusters are read; with `-b` those of others above the base too.
    let look = How {
        writes: false,
        alone: args.value("b").is_none(),
        shares: args.value("b").is_some(),
        ..how
    };
    let top = open(file, look)?;
    let above = match args.value("b") {
        Some(base) => above(&top.node, file, base)?,
        None => vec![top.node.clone()],
    };
    let (path, format) = backing_of(file, above.last().unwrap_or(&top.node))?;
    let how_below = How {
        format: format.as_deref(),
        ..how
    };
    let below = open(&path, how_below)?;
    copy(&top.node, &above, &below, args.has("p"), pace)?;
    // With `-b` the images between would show something else: the top one keeps what it has.
    if !args.has("d") && args.value("b").is_none() {
        drop((top, above));
        let top = open(file, How { alone: true, ..how })?;
        top.node.driver().empty()?;
    }
    drop(below);
    if !args.has("q") {
        print("Image committed.\n")?;
    }
    Ok(0)
}

/// Where the backing file of an image is, and its format.
fn backing_of(top: &str, node: &Node) -> Result<(String, Option<String>)> {
    let file = node.file();
    let image = node
        .driver()
        .as_any()
        .downcast_ref::<backend_qcow2::Qcow2>();
    let Some((name, format)) = image.and_then(backend_qcow2::Qcow2::backing) else {
        bail!("'{top}' has no backing file to commit into");
    };
    let path =
        beside(file, &name).with_context(|| format!("backing file '{name}' is no plain path"))?;
    let path = path.to_str();
    let path = path.context("the backing file's name is not valid UTF-8")?;
    Ok((path.to_owned(), format))
}

/// The images of a chain that lie above a base.
fn above(top: &Arc<Node>, file: &str, base: &str) -> Result<Vec<Arc<Node>>> {
    let wanted = beside(file, base);
    let is_base = |node: &Node| {
        let path = Path::new(node.file());
        let beside = wanted
            .as_ref()
            .is_some_and(|wanted| is_same_file(path, wanted));
        beside || is_same_file(path, Path::new(base))
    };
    let mut above = vec![top.clone()];
    while let Some(next) = above.last().and_then(|node| node.child("backing")) {
        if is_base(&next) {
            return Ok(above);
        }
        above.push(next);
    }
    bail!(
        "'{base}' is not in the backing chain of '{file}'; 'info --backing-chain {file}' shows that"
    )
}

/// Copies all that the images above hold.
fn copy(
    top: &Node,
    above: &[Arc<Node>],
    below: &Open,
    shows_progress: bool,
    mut pace: Pace,
) -> Result<()> {
    let below = &below.node;
    let len = top.len();
    if below.len() < len {
        below.resize(len, Preallocation::Off)?;
    }
    let mut progress = Progress::new(shows_progress, len);
    let mut at = 0;
    while at < len {
        let (has, run) = held(above, at, len - at)?;
        match has {
            Held::Nothing => {}
            Held::Zeros => below.write_zeroes(at, run, true)?,
            Held::Data => {
                let memory = IoVector::zeroed(usize::try_from(run)?);
                top.read(at, &memory)?;
                below.write(at, &memory)?;
                pace.wrote(run);
            }
        }
        at += run;
        progress.at(at);
    }
    below.flush()?;
    Ok(())
}

/// What images hold at an offset.
enum Held {
    Nothing,
    Zeros,
    Data,
}

/// What the first image that has anything there holds at an offset, and how far.
fn held(above: &[Arc<Node>], at: u64, len: u64) -> Result<(Held, u64)> {
    let mut run = len;
    for node in above {
        let has = node.len().saturating_sub(at);
        if has == 0 {
            // What lies above shows zeros behind the end of this one.
            return Ok((Held::Zeros, run));
        }
        let extent = node.extent(at, run.min(has))?;
        run = extent.len;
        if extent.is_allocated {
            return Ok(match extent.is_zero {
                true => (Held::Zeros, run),
                false => (Held::Data, run.min(STEP)),
            });
        }
    }
    Ok((Held::Nothing, run))
}
