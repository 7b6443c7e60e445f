//! `measure` and `dd`: how large a copy would be, and a part of an image copied.

use anyhow::{Context as _, Result, bail};
use control_options::{Opts, Props};
use serde_json::json;

use super::args::Args;
use super::convert::{Copy, SPARSE, shows_zeros};
use super::pace::Pace;
use super::{BUFFER_MAX, How, Open, Progress, make, open, size};
use crate::entry::print;

/// Bytes of an entry of the L1, L2 and refcount tables.
const ENTRY: u64 = 8;

/// Bytes that an image of a format needs.
struct Needs {
    /// For what there is now.
    required: u64,
    /// If everything was written.
    full: u64,
    /// For bitmaps, where formats have them.
    bitmaps: Option<u64>,
}

impl Needs {
    fn text(&self, is_json: bool) -> String {
        if is_json {
            let mut out = json!({ "required": self.required, "fully-allocated": self.full });
            if let (Some(bitmaps), Some(members)) = (self.bitmaps, out.as_object_mut()) {
                members.insert("bitmaps".to_owned(), json!(bitmaps));
            }
            return format!("{out:#}\n");
        }
        let bitmaps = self.bitmaps.map(|bytes| format!("bitmaps size: {bytes}\n"));
        format!(
            "required size: {}\nfully allocated size: {}\n{}",
            self.required,
            self.full,
            bitmaps.unwrap_or_default()
        )
    }
}

/// Options of a qcow2 image that its size depends on.
struct Layout {
    cluster: u64,
    refcount_bits: u64,
    extended: bool,
    is_version_2: bool,
}

impl Layout {
    fn of(options: &Opts) -> Result<Self> {
        let number =
            |key: &str, usual: u64| -> Result<u64> { options.text(key).map_or(Ok(usual), size) };
        let layout = Layout {
            cluster: number("cluster_size", 64 << 10)?,
            refcount_bits: number("refcount_bits", 16)?,
            extended: options.switch("-o", "extended_l2")? == Some(true),
            is_version_2: matches!(options.text("compat"), Some("0.10" | "v2")),
        };
        let mut known = options.clone();
        known.take("size");
        let props = backend_qcow2::CLASS
            .create
            .map_or(&[][..], |create| create.props);
        Props::check("-o", "format 'qcow2'", &known, props)?;
        if !layout.cluster.is_power_of_two() || !(512..=2 << 20).contains(&layout.cluster) {
            bail!("'cluster_size' is a power of two from 512 to 2M");
        }
        if !layout.refcount_bits.is_power_of_two() || layout.refcount_bits > 64 {
            bail!("'refcount_bits' is 1, 2, 4, 8, 16, 32 or 64");
        }
        Ok(layout)
    }

    /// Bytes of a whole image that shows `len` bytes (qcow2 specification: header, L1, L2 tables,
    /// refcount table and blocks, each in clusters of its own).
    fn whole(&self, len: u64) -> Option<u64> {
        let clusters = len.div_ceil(self.cluster);
        let entry = if self.extended { ENTRY * 2 } else { ENTRY };
        let l2 = clusters.div_ceil(self.cluster / entry);
        let l1 = l2.checked_mul(ENTRY)?.div_ceil(self.cluster).max(1);
        let others = clusters.checked_add(l2)?.checked_add(l1)?.checked_add(1)?;
        // Refcounts are counted themselves.
        let per_block = self.cluster.checked_mul(8)? / self.refcount_bits;
        let mut refcounts = 0u64;
        loop {
            let blocks = others.checked_add(refcounts)?.div_ceil(per_block);
            let table = blocks.checked_mul(ENTRY)?.div_ceil(self.cluster).max(1);
            let now = blocks.checked_add(table)?;
            if now == refcounts {
                return others.checked_add(refcounts)?.checked_mul(self.cluster);
            }
            refcounts = now;
        }
    }
}

pub(super) fn measure(args: &mut Args) -> Result<i32> {
    args.parse(
        &["U", "force-share", "image-opts"],
        &["f", "O", "o", "size", "output", "l"],
    )?;
    let mut options = Opts::default();
    for given in args.values("o") {
        for (key, value) in Opts::parse("-o", given, None)?.iter() {
            options.push(key, value.clone());
        }
    }
    let source = match args.value("size") {
        Some(word) => {
            args.words(0..=0)?;
            Err(size(word)?)
        }
        None => Ok(open(
            args.one()?,
            How {
                format: args.value("f"),
                shares: args.has("U") || args.has("force-share"),
                is_opts: args.has("image-opts"),
                ..How::default()
            },
        )?),
    };
    if let Some(snapshot) = args.value("l") {
        match &source {
            Ok(open) => open.show_snapshot(snapshot)?,
            Err(_) => bail!("'-l {snapshot}': name the image that has the snapshot"),
        }
    }
    let len = match &source {
        Ok(open) => open.node.len(),
        Err(len) => *len,
    };
    let needs = match args.value("O").unwrap_or("raw") {
        "raw" => Needs {
            required: len,
            full: len,
            bitmaps: None,
        },
        "qcow2" => {
            let layout = Layout::of(&options)?;
            let full = layout.whole(len).context("the size is too large")?;
            let mut data = 0u64;
            if let Ok(open) = &source {
                let mut at = 0;
                // The end of the last run that was counted: clusters count once.
                let mut counted = 0;
                while at < len {
                    let (is_zero, run) = shows_zeros(&open.node, at, len - at)?;
                    if !is_zero {
                        let start = (at / layout.cluster * layout.cluster).max(counted);
                        counted = (at + run).next_multiple_of(layout.cluster);
                        data += counted.saturating_sub(start);
                    }
                    at += run;
                }
            }
            let guest = len.next_multiple_of(layout.cluster);
            Needs {
                required: full.saturating_sub(guest).saturating_add(data),
                full,
                bitmaps: match source.as_ref().ok().and_then(Open::qcow2) {
                    Some(image) if !layout.is_version_2 => image.bitmap_space(layout.cluster)?,
                    _ => None,
                },
            }
        }
        other => bail!("images of format '{other}' cannot be made; there are raw, qcow2"),
    };
    print(&needs.text(args.wants_json()?))?;
    Ok(0)
}

pub(super) fn dd(args: &mut Args) -> Result<i32> {
    args.parse(&["U", "force-share", "image-opts"], &["f", "O"])?;
    let mut operands = Opts::default();
    for word in args.words(1..=8)? {
        let Some((key, value)) = word.split_once('=') else {
            bail!("'{word}' is no operand; there are if=, of=, bs=, count=, skip=");
        };
        if !["if", "of", "bs", "count", "skip"].contains(&key) {
            bail!("there is no operand '{key}='; there are if=, of=, bs=, count=, skip=");
        }
        operands.push(key, super::text(value));
    }
    let (Some(input), Some(output)) = (operands.text("if"), operands.text("of")) else {
        bail!("name the images with if= and of=");
    };
    let block = operands.text("bs").map_or(Ok(512), size)?;
    if block == 0 || block > BUFFER_MAX {
        bail!("'bs={block}' must be from 1 to {BUFFER_MAX}");
    }
    let blocks = |key: &str| -> Result<Option<u64>> {
        let Some(word) = operands.text(key) else {
            return Ok(None);
        };
        let bytes = size(word)?.checked_mul(block);
        bytes
            .map(Some)
            .with_context(|| format!("'{key}={word}' is too large"))
    };
    let from = open(
        input,
        How {
            format: args.value("f"),
            shares: args.has("U") || args.has("force-share"),
            is_opts: args.has("image-opts"),
            ..How::default()
        },
    )?;
    let end = from.node.len().min(blocks("count")?.unwrap_or(u64::MAX));
    let start = blocks("skip")?.unwrap_or(0).min(end);
    let format = args.value("O").unwrap_or("raw");
    let len = end - start;
    make(output, format, len.next_multiple_of(512), &Opts::default())?;
    let how = How {
        format: Some(format),
        writes: true,
        ..How::default()
    };
    let to = open(output, how)?;
    let copy = Copy {
        to: &to.node,
        packs: false,
        is_blank: true,
        over_backing: false,
        salvages: false,
        sparse: SPARSE,
        threads: 1,
    };
    let (mut progress, mut pace) = (Progress::new(false, len), Pace::new(None)?);
    copy.part(&from.node, start..end, 0, &mut progress, &mut pace)?;
    to.node.flush()?;
    Ok(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_whole_image_has_the_size_that_qemu_img_says() {
        let whole = |options: &str, len| {
            let layout = Layout::of(&Opts::parse("-o", options, None).unwrap()).unwrap();
            layout.whole(len).unwrap()
        };
        // `qemu-img measure -O qcow2 --size 1G`, 7.2.
        assert_eq!(whole("", 1 << 30), 1_074_135_040);
        assert!(Layout::of(&Opts::parse("-o", "cluster_size=1000", None).unwrap()).is_err());
    }
}
