//! `compare`: whether two images show the same.

use anyhow::{Context as _, Result};
use backend_block::{IoVector, Node};

use super::args::Args;
use super::convert::shows_zeros;
use super::inspect::how;
use super::{How, Progress, open};
use crate::entry::print;

/// Bytes compared at a time.
const STEP: u64 = 2 << 20;

pub(super) fn compare(args: &mut Args) -> Result<i32> {
    args.parse(
        &["p", "q", "s", "U", "force-share", "image-opts"],
        &["f", "F", "T"],
    )?;
    let (first, second) = args.two()?;
    let open_one = |file: &str, format: Option<&str>| {
        let how = How {
            format,
            cache: args.value("T"),
            ..how(args)
        };
        open(file, how)
    };
    // Errors of compare have the status 2 and more: 1 says that they differ.
    let opened =
        open_one(first, args.value("f")).and_then(|a| Ok((a, open_one(second, args.value("F"))?)));
    let (a, b) = match opened {
        Ok(both) => both,
        Err(error) => {
            eprintln!("{error:#}");
            return Ok(2);
        }
    };
    let (a, b) = (&a.node, &b.node);
    let say = |text: &str| match args.has("q") {
        true => Ok(0),
        false => print(text),
    };
    if args.has("s") && a.len() != b.len() {
        say("Strict mode: Image size mismatch!\n")?;
        return Ok(1);
    }
    let len = a.len().max(b.len());
    let mut progress = Progress::new(args.has("p"), len);
    let mut sides = [Side::new(a, len)?, Side::new(b, len)?];
    let mut at = 0;
    while at < len {
        let most = STEP.min(len - at);
        let (zero_a, run_a) = side(a, at, most)?;
        let (zero_b, run_b) = side(b, at, run_a)?;
        let run = run_a.min(run_b);
        if !(zero_a && zero_b)
            && let Some(differs) = first_difference(&mut sides, at, run)?
        {
            say(&format!("Content mismatch at offset {differs}!\n"))?;
            return Ok(1);
        }
        at += run;
        progress.at(at);
    }
    if a.len() != b.len() {
        say("Warning: Image size mismatch!\n")?;
    }
    say("Images are identical.\n")?;
    Ok(0)
}

/// Whether an image shows zeros; beyond its end it does.
fn side(node: &Node, at: u64, len: u64) -> Result<(bool, u64)> {
    let has = node.len().saturating_sub(at);
    match has {
        0 => Ok((true, len)),
        _ => shows_zeros(node, at, len.min(has)),
    }
}

/// One of two images, and the piece of it that is looked at. Fresh memory for each piece would cost more
/// than the reads.
struct Side<'a> {
    node: &'a Node,
    memory: IoVector,
    bytes: Vec<u8>,
}

impl<'a> Side<'a> {
    fn new(node: &'a Node, len: u64) -> Result<Self> {
        let most = usize::try_from(STEP.min(len))?;
        Ok(Side {
            node,
            memory: IoVector::zeroed(most),
            bytes: vec![0; most],
        })
    }

    /// The bytes at an offset; beyond its end they are zeros.
    fn read(&mut self, at: u64, len: u64) -> Result<&[u8]> {
        let has = self.node.len().saturating_sub(at).min(len);
        let memory = self.memory.slice(0, has);
        let read = self.node.read(at, &memory);
        read.with_context(|| format!("reading '{}' at {at}", self.node.file()))?;
        let piece = self.bytes.get_mut(..usize::try_from(len)?);
        let piece = piece.context("a piece is longer than the memory for it")?;
        let (shown, beyond) = piece.split_at_mut(usize::try_from(has)?);
        memory.copy_out(0, shown);
        beyond.fill(0);
        Ok(piece)
    }
}

fn first_difference(sides: &mut [Side<'_>; 2], at: u64, len: u64) -> Result<Option<u64>> {
    let [a, b] = sides;
    let (left, right) = (a.read(at, len)?, b.read(at, len)?);
    if left == right {
        return Ok(None);
    }
    let differs = left.iter().zip(right).position(|(a, b)| a != b);
    // As QEMU: the sector.
    Ok(differs.map(|n| at + n as u64 / 512 * 512))
}
