//! `create`, `resize`, `snapshot` and `rebase`: images made and changed.

use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result, anyhow, bail};
use backend_block::{BlockError, Driver as _, IoVector, Node, beside};
use control_options::Opts;

use super::args::Args;
use super::convert::{is_same_file, shows_zeros};
use super::{How, Progress, make, open, preallocation, size, text};
use crate::entry::print;

/// Bytes copied at a time.
const STEP: u64 = 1 << 20;

pub(super) fn create(args: &mut Args) -> Result<i32> {
    args.parse(&["q", "u"], &["f", "b", "F", "o"])?;
    let words = args.words(1..=2)?;
    let format = args.value("f").unwrap_or("raw");
    let mut options = Opts::default();
    for given in args.values("o") {
        if control_options::opts::is_help(given) {
            return help(format);
        }
        for (key, value) in Opts::parse("-o", given, None)?.iter() {
            options.push(key, value.clone());
        }
    }
    if let Some(backing) = args.value("b") {
        options.push("backing_file", text(backing));
    }
    if let Some(format) = args.value("F") {
        options.push("backing_fmt", text(format));
    }
    let Some(file) = words.first() else {
        bail!("no file was given");
    };
    let mut len = words.get(1).map(|word| size(word)).transpose()?;
    if let Some(given) = options.take("size") {
        len = len.or(Some(size(&given)?));
    }
    if let Some(name) = options.text("backing_file").map(str::to_owned) {
        let Some(backing_format) = options.text("backing_fmt").map(str::to_owned) else {
            bail!("'-b {name}': name the backing file's format too, with '-F FORMAT'");
        };
        if !args.has("u") {
            let path = beside(file, &name)
                .with_context(|| format!("backing file '{name}' is no plain path"))?;
            let path = path
                .to_str()
                .context("the backing file's name is not valid UTF-8")?;
            let how = How {
                format: Some(&backing_format),
                shares: true,
                ..How::default()
            };
            let backing = open(path, how)?;
            len = len.or(Some(backing.node.len()));
        }
    }
    let Some(len) = len else {
        bail!("the size is missing: create {file} SIZE");
    };
    let len = len
        .checked_next_multiple_of(512)
        .context("the size is too large")?;
    make(file, format, len, &options)?;
    if !args.has("q") {
        let options: String = options
            .iter()
            .map(|(key, value)| format!(" {key}={value}"))
            .collect();
        print(&format!(
            "Formatting '{file}', fmt={format} size={len}{options}\n"
        ))?;
    }
    Ok(0)
}

pub(super) fn help(format: &str) -> Result<i32> {
    let opener = backend_block::Opener::new(crate::storage::DRIVERS);
    let class = opener.driver(format)?;
    let text = match class.create {
        Some(create) => control_options::props::help("Supported", create.props),
        None => {
            "Supported options:\n  preallocation=<off|falloc|full> - space set aside\n".to_owned()
        }
    };
    print(&text)?;
    Ok(0)
}

pub(super) fn resize(args: &mut Args) -> Result<i32> {
    args.parse(&["q", "shrink", "image-opts"], &["f", "preallocation"])?;
    let (file, word) = args.two()?;
    let how = How {
        format: args.value("f"),
        writes: true,
        is_opts: args.has("image-opts"),
        ..How::default()
    };
    let open = open(file, how)?;
    let old = open.node.len();
    let new = match word.split_at_checked(1) {
        Some(("+", more)) => old.checked_add(size(more)?),
        Some(("-", less)) => old.checked_sub(size(less)?),
        _ => Some(size(word)?),
    };
    let new = new.and_then(|new| new.checked_next_multiple_of(512));
    let new = new.with_context(|| format!("'{word}' leads to no possible size"))?;
    if new < old && !args.has("shrink") {
        bail!("'{file}' would lose what lies beyond {new} bytes; give '--shrink' if that is meant");
    }
    let mode = preallocation(args.value("preallocation").unwrap_or("off"))?;
    open.node.resize(new, mode).map_err(|error| match error {
        BlockError::Unsupported => {
            anyhow!("'{file}' cannot be resized so: it has snapshots, or its format cannot")
        }
        error => anyhow!("'{file}' cannot be resized: {error}"),
    })?;
    open.node.flush()?;
    if !args.has("q") {
        print("Image resized.\n")?;
    }
    Ok(0)
}

pub(super) fn snapshot(args: &mut Args) -> Result<i32> {
    args.parse(
        &["q", "l", "U", "force-share", "image-opts"],
        &["f", "a", "c", "d"],
    )?;
    let file = args.one()?;
    let action = ["a", "c", "d"]
        .into_iter()
        .filter(|name| args.has(name))
        .count();
    if action > 1 {
        bail!("give one of -l, -a, -c and -d");
    }
    let how = How {
        format: args.value("f"),
        writes: action == 1,
        shares: args.has("U") || args.has("force-share"),
        is_opts: args.has("image-opts"),
        ..How::default()
    };
    let open = open(file, how)?;
    let image = open.need_qcow2("internal snapshots")?;
    let result = if let Some(name) = args.value("c") {
        let now = SystemTime::now().duration_since(UNIX_EPOCH)?;
        let seconds = u32::try_from(now.as_secs()).unwrap_or(u32::MAX);
        image.take_snapshot(name, seconds, now.subsec_nanos())
    } else if let Some(name) = args.value("a") {
        image.apply_snapshot(name)
    } else if let Some(name) = args.value("d") {
        image.delete_snapshot(name)
    } else {
        let snapshots = image.snapshots();
        if !snapshots.is_empty() {
            print(&super::inspect::snapshot_list(&snapshots))?;
        }
        Ok(())
    };
    result.map_err(|error| match error {
        BlockError::OutOfRange => {
            anyhow!("'{file}' has no snapshot of that name; 'snapshot -l' lists them")
        }
        BlockError::Unsupported => {
            anyhow!("'{file}': the disk had another size then, or its data is in another file")
        }
        error => anyhow!("'{file}': {error}"),
    })?;
    Ok(0)
}

pub(super) fn rebase(args: &mut Args) -> Result<i32> {
    args.parse(&["q", "u", "p", "U"], &["f", "t", "T", "b", "F"])?;
    let file = args.one()?;
    let Some(name) = args.value("b") else {
        bail!("'-b BACKING' is missing: the new backing file, or '' for none");
    };
    let format = args.value("F");
    if !name.is_empty() && format.is_none() {
        bail!("'-b {name}': name the backing file's format too, with '-F FORMAT'");
    }
    let how = How {
        format: args.value("f"),
        writes: true,
        cache: args.value("t"),
        ..How::default()
    };
    if !args.has("u") {
        let new = match name {
            "" => None,
            name => {
                let path = beside(file, name)
                    .with_context(|| format!("backing file '{name}' is no plain path"))?;
                if is_same_file(&path, Path::new(file)) {
                    bail!("'{file}' cannot be its own backing file");
                }
                let path = path
                    .to_str()
                    .context("the backing file's name is not valid UTF-8")?;
                let how = How {
                    format,
                    ..How::default()
                };
                Some(open(path, how)?)
            }
        };
        let top = open(file, how)?;
        let mut progress = Progress::new(args.has("p"), top.node.len());
        let new = new.as_ref().map(|open| open.node.as_ref());
        keep(&top.node, new, &mut progress)?;
        top.node.flush()?;
    }
    let top = open(file, How { alone: true, ..how })?;
    let backing = match name {
        "" => None,
        name => Some((name, format.unwrap_or_default())),
    };
    top.need_qcow2("backing file")?.name_backing(backing)?;
    Ok(0)
}

/// Takes over what the old backing file shows and the new one does not.
fn keep(top: &Node, new: Option<&Node>, progress: &mut Progress) -> Result<()> {
    let (mut at, len) = (0, top.len());
    while at < len {
        let extent = top.extent(at, STEP.min(len - at))?;
        let run = extent.len;
        if !extent.is_allocated {
            let (zero_old, run_old) = shows_zeros(top, at, run)?;
            let has = new.map_or(0, |new| new.len().saturating_sub(at));
            let is_same_zero = zero_old && run_old >= run && has == 0;
            if !is_same_zero {
                let (old, other) = (
                    bytes(top, at, run)?,
                    IoVector::zeroed(usize::try_from(run)?),
                );
                if let Some(new) = new {
                    new.read(at, &other.slice(0, has.min(run)))?;
                }
                if old.to_vec() != other.to_vec() {
                    top.write(at, &old)?;
                }
            }
        }
        at += run;
        progress.at(at);
    }
    Ok(())
}

fn bytes(node: &Node, at: u64, len: u64) -> Result<IoVector> {
    let memory = IoVector::zeroed(usize::try_from(len)?);
    node.read(at, &memory)?;
    Ok(memory)
}
