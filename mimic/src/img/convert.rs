//! `convert`: the disk that images show, written into another one.

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Condvar, Mutex, PoisonError};

use anyhow::{Context as _, Result, bail};
use backend_block::{IoVector, Node};
use control_options::Opts;

use super::args::Args;
use super::pace::Pace;
use super::{How, Open, Progress, make, open, size, text};

/// Bytes copied at a time.
const STEP: u64 = 2 << 20;
/// Runs of zeros that are not written, at least (`-S`).
pub(super) const SPARSE: u64 = 4096;

pub(super) fn convert(args: &mut Args) -> Result<i32> {
    args.parse(
        &[
            "c",
            "p",
            "q",
            "n",
            "U",
            "W",
            "C",
            "image-opts",
            "force-share",
            "target-image-opts",
            "target-is-zero",
            "salvage",
            "bitmaps",
        ],
        &["f", "t", "T", "O", "B", "F", "o", "S", "l", "m", "r"],
    )?;
    if args.has("bitmaps") {
        bail!("'--bitmaps': bitmaps are not copied yet; leave it out");
    }
    let mut pace = Pace::new(args.value("r"))?;
    if let Some(format) = args.value("O")
        && args.values("o").any(control_options::opts::is_help)
    {
        return super::modify::help(format);
    }
    let words = args.words(2..=64)?;
    let Some((output, inputs)) = words.split_last() else {
        bail!("no files were given");
    };
    let how = How {
        format: args.value("f"),
        cache: args.value("T"),
        shares: args.has("U") || args.has("force-share"),
        is_opts: args.has("image-opts"),
        ..How::default()
    };
    let inputs: Vec<Open> = inputs
        .iter()
        .map(|file| open(file, how))
        .collect::<Result<_>>()?;
    if let Some(snapshot) = args.value("l") {
        let [input] = inputs.as_slice() else {
            bail!("'-l {snapshot}': give the one image that has the snapshot");
        };
        input.show_snapshot(snapshot)?;
    }
    let len = inputs.iter().map(|input| input.node.len()).sum();
    let format = args.value("O").unwrap_or("raw");
    let mut options = Opts::default();
    for given in args.values("o") {
        for (key, value) in Opts::parse("-o", given, None)?.iter() {
            options.push(key, value.clone());
        }
    }
    if let Some(backing) = args.value("B") {
        options.push("backing_file", text(backing));
    }
    if let Some(format) = args.value("F") {
        options.push("backing_fmt", text(format));
    }
    let is_there = args.has("n") || args.has("target-image-opts");
    let over_backing = options.text("backing_file").is_some();
    if over_backing {
        check_over_backing(&options, output, &inputs, is_there)?;
    }
    if args.has("target-image-opts") && !args.has("n") {
        bail!("'--target-image-opts' names an image that is there: give '-n' too");
    }
    if args.has("target-is-zero") && !args.has("n") {
        bail!("'--target-is-zero' is about an image that is there: give '-n' too");
    }
    if is_there && args.has("o") {
        bail!("'-o' is for an image that is made: leave it out with '-n'");
    }
    let sparse = match args.value("S") {
        Some("0") => u64::MAX,
        Some(word) => size(word)?.max(512).next_multiple_of(512),
        None => SPARSE,
    };
    let target = match args.has("target-image-opts") {
        true => Target::opened_with(output),
        false => Target::new(output, is_there)?,
    };
    if !is_there {
        make(target.path()?, format, len, &options)?;
    }
    let how = How {
        format: Some(format),
        cache: Some(args.value("t").unwrap_or("unsafe")),
        writes: true,
        is_opts: args.has("target-image-opts"),
        ..How::default()
    };
    {
        let out = open(target.path()?, how)?;
        if out.node.len() < len {
            bail!("'{output}' has {} bytes, {len} are needed", out.node.len());
        }
        let copy = Copy {
            to: &out.node,
            packs: args.has("c"),
            is_blank: !over_backing && (!is_there || args.has("target-is-zero")),
            over_backing,
            salvages: args.has("salvage"),
            sparse,
            threads: threads(args.value("m"))?,
        };
        let mut progress = Progress::new(args.has("p"), len);
        let mut start = 0;
        for input in &inputs {
            copy.all(&input.node, start, &mut progress, &mut pace)?;
            start += input.node.len();
        }
        if copy.packs && !start.is_multiple_of(512) {
            log::debug!("the last cluster is filled up with zeros");
        }
        out.node.flush()?;
    }
    // As with QEMU's tool, who asks for no cache mode does not wait for the disk.
    target.put_in_place(args.value("t").is_some_and(|mode| mode != "unsafe"))?;
    Ok(0)
}

/// Whether an overlay can be made that has only what the input itself holds: its backing file shows what
/// the input's shows, as the user says.
fn check_over_backing(options: &Opts, output: &str, inputs: &[Open], is_there: bool) -> Result<()> {
    let name = options.text("backing_file").unwrap_or_default();
    if is_there {
        bail!("'-B {name}' is for an image that is made: leave it out with '-n'");
    }
    if inputs.len() != 1 {
        bail!("'-B {name}': images put together have no backing file; give one input");
    }
    let Some(format) = options.text("backing_fmt") else {
        bail!("'-B {name}': name the backing file's format too, with '-F FORMAT'");
    };
    let path = backend_block::beside(output, name)
        .with_context(|| format!("backing file '{name}' is no plain path"))?;
    let path = path
        .to_str()
        .context("the backing file's name is not valid UTF-8")?;
    let how = How {
        format: Some(format),
        shares: true,
        ..How::default()
    };
    open(path, how).map(|_| ())
}

/// How many threads copy: one more than there are processors, as one is writing, or as `-m` says.
fn threads(given: Option<&str>) -> Result<usize> {
    let Some(word) = given else {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        return Ok(cores.saturating_add(1).min(16));
    };
    let number: Option<usize> = word.parse().ok().filter(|n| (1..=16).contains(n));
    number.with_context(|| format!("'-m {word}' must be from 1 to 16"))
}

/// Where the result goes: a file beside it that gets its name when it is whole.
struct Target {
    /// Where it will be.
    output: PathBuf,
    temporary: Option<PathBuf>,
}

impl Target {
    fn new(output: &str, is_there: bool) -> Result<Self> {
        let path = PathBuf::from(crate::storage::plain_file("OUTPUT", output)?);
        // What is there already is written in place: devices, links, and with -n.
        let kind = std::fs::symlink_metadata(&path);
        let in_place = is_there || kind.is_ok_and(|kind| !kind.is_file());
        let name = path.file_name().context("the output has no file name")?;
        let mut temporary = name.to_owned();
        temporary.push(format!(".mimic-{}", std::process::id()));
        Ok(Target {
            temporary: (!in_place).then(|| path.with_file_name(temporary)),
            output: path,
        })
    }

    /// An image that is there, under properties instead of a name.
    fn opened_with(properties: &str) -> Self {
        Target {
            temporary: None,
            output: PathBuf::from(properties),
        }
    }

    fn path(&self) -> Result<&str> {
        let path = self.temporary.as_ref().unwrap_or(&self.output);
        path.to_str()
            .context("the output's name is not valid UTF-8")
    }

    /// Gives the file its name; when that must outlive a power cut, after its bytes.
    fn put_in_place(mut self, is_stable: bool) -> Result<()> {
        let Some(temporary) = self.temporary.take() else {
            return Ok(());
        };
        let whole = match is_stable {
            true => std::fs::File::open(&temporary).and_then(|file| file.sync_all()),
            false => Ok(()),
        };
        let moved = whole.and_then(|()| match is_stable {
            true => std::fs::rename(&temporary, &self.output),
            false => replace(&temporary, &self.output),
        });
        if moved.is_err() {
            let _ = std::fs::remove_file(&temporary);
        }
        moved.with_context(|| format!("cannot write '{}'", self.output.display()))
    }
}

/// Gives a file the name of another one, which goes. A plain rename onto a file that is there makes ext4
/// write the new one's bytes at once, which nobody has asked for; an exchange of names does not.
fn replace(new: &Path, old: &Path) -> std::io::Result<()> {
    use rustix::fs::{CWD, RenameFlags, renameat_with};
    match renameat_with(CWD, new, CWD, old, RenameFlags::EXCHANGE) {
        Ok(()) => std::fs::remove_file(new),
        // There is none of that name yet, or the file system knows no exchange.
        Err(_) => std::fs::rename(new, old),
    }
}

impl Drop for Target {
    fn drop(&mut self) {
        if let Some(temporary) = &self.temporary {
            let _ = std::fs::remove_file(temporary);
        }
    }
}

/// Copies a disk's contents.
pub(super) struct Copy<'a> {
    pub(super) to: &'a Node,
    /// Clusters are compressed.
    pub(super) packs: bool,
    /// The target reads as zeros where nothing was written.
    pub(super) is_blank: bool,
    /// The target shows what the source's backing file does where nothing was written.
    pub(super) over_backing: bool,
    /// What cannot be read is taken for zeros.
    pub(super) salvages: bool,
    /// Shortest run of zeros that is not written.
    pub(super) sparse: u64,
    /// Threads that work at it.
    pub(super) threads: usize,
}

impl Copy<'_> {
    /// All of `from`, to `start` on.
    fn all(&self, from: &Node, start: u64, progress: &mut Progress, pace: &mut Pace) -> Result<()> {
        self.part(from, 0..from.len(), start, progress, pace)
    }

    /// A part of `from`, to `start` on. Threads read and compress pieces, each after the other; they are
    /// written one at a time, in their order.
    pub(super) fn part(
        &self,
        from: &Node,
        range: Range<u64>,
        start: u64,
        progress: &mut Progress,
        pace: &mut Pace,
    ) -> Result<()> {
        let line = Line {
            copy: self,
            from,
            range: range.clone(),
            start,
            ahead: Mutex::new((range.start, 0)),
            turn: Mutex::new(Turn {
                number: 0,
                has_failed: false,
                progress,
                pace,
            }),
            moved: Condvar::new(),
        };
        std::thread::scope(|scope| {
            let work = || line.work();
            let others: Vec<_> = (1..self.threads).map(|_| scope.spawn(work)).collect();
            let mut result = work();
            for other in others {
                let theirs = other.join();
                result = result.and(theirs.unwrap_or_else(|_| bail!("a copying thread failed")));
            }
            result
        })
    }

    fn zeros(&self, at: u64, len: u64) -> Result<()> {
        if self.is_blank && self.sparse != u64::MAX {
            return Ok(());
        }
        Ok(self.to.write_zeroes(at, len, self.sparse != u64::MAX)?)
    }

    /// Writes data, but not its long runs of zeros.
    pub(super) fn data(&self, at: u64, memory: &IoVector) -> Result<()> {
        let failed = || format!("writing '{}' at {at}", self.to.file());
        if self.sparse == u64::MAX {
            return self.to.write(at, memory).with_context(failed);
        }
        let mut done = 0;
        while done < memory.len() {
            let is_zero = memory.slice(done, self.sparse).is_zero();
            let mut run = self.sparse;
            while done + run < memory.len()
                && memory.slice(done + run, self.sparse).is_zero() == is_zero
            {
                run += self.sparse;
            }
            let part = memory.slice(done, run);
            match is_zero {
                true => self.zeros(at + done, part.len())?,
                false => self.to.write(at + done, &part).with_context(failed)?,
            }
            done += part.len();
        }
        Ok(())
    }

    /// Compresses the clusters of a piece.
    fn pack(&self, at: u64, memory: &IoVector) -> Result<Vec<Cluster>> {
        let driver = self.to.driver().as_any();
        let Some(image) = driver.downcast_ref::<backend_qcow2::Qcow2>() else {
            bail!("'-c': format '{}' has no compression", self.to.class().name);
        };
        let cluster = image.cluster_len();
        let mut clusters = Vec::new();
        let mut done = 0;
        while done < memory.len() {
            let part = memory.slice(done, cluster);
            if !(self.is_blank && part.is_zero()) {
                let packed = image.pack(&part);
                clusters.push((at + done, part, packed));
            }
            done += cluster;
        }
        Ok(clusters)
    }

    fn write(&self, piece: Piece<'_>) -> Result<()> {
        match piece {
            Piece::Backing => Ok(()),
            Piece::Zeros { at, len } => self.zeros(at, len),
            Piece::Data { at, memory } => self.data(at, memory),
            Piece::Packed(clusters) => {
                for (at, memory, packed) in clusters {
                    match packed {
                        Some(packed) => self.to.write_packed(at, memory.len(), &packed),
                        None => self.to.write(at, &memory),
                    }
                    .with_context(|| format!("writing '{}' at {at}", self.to.file()))?;
                }
                Ok(())
            }
        }
    }
}

/// Where a cluster goes, its bytes, and those bytes compressed if that is shorter.
type Cluster = (u64, IoVector, Option<Vec<u8>>);

/// What is written next.
enum Piece<'a> {
    /// Nothing: the backing file shows it.
    Backing,
    Zeros {
        at: u64,
        len: u64,
    },
    Data {
        at: u64,
        memory: &'a IoVector,
    },
    Packed(Vec<Cluster>),
}

/// What the source has.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Source {
    /// What its backing file has, which the target has too.
    Backing,
    Zeros,
    Data,
}

/// Whose turn it is to write.
struct Turn<'a> {
    number: u64,
    has_failed: bool,
    progress: &'a mut Progress,
    pace: &'a mut Pace,
}

/// A copy that several threads work at.
struct Line<'a> {
    copy: &'a Copy<'a>,
    from: &'a Node,
    range: Range<u64>,
    start: u64,
    /// Where the next piece begins, and its number.
    ahead: Mutex<(u64, u64)>,
    turn: Mutex<Turn<'a>>,
    moved: Condvar,
}

impl Line<'_> {
    /// The next piece: its number, where it is, its bytes, and what they are.
    fn next(&self) -> Result<Option<(u64, u64, u64, Source)>> {
        let mut ahead = self.ahead.lock().unwrap_or_else(PoisonError::into_inner);
        let (at, number) = *ahead;
        let most = self.range.end.saturating_sub(at);
        if most == 0 {
            return Ok(None);
        }
        let (source, run) = self.look(at, most).with_context(|| self.reading(at))?;
        let (source, run) = match source {
            // Compressed ones are whole clusters.
            Source::Backing if self.copy.packs && run < STEP.min(most) => {
                (Source::Data, STEP.min(most))
            }
            Source::Backing if self.copy.packs && run < most => (source, run / STEP * STEP),
            Source::Backing => (source, run),
            _ if self.copy.packs => (Source::Data, STEP.min(most)),
            Source::Zeros => (source, run),
            Source::Data => (source, run.min(STEP)),
        };
        *ahead = (at + run, number + 1);
        Ok(Some((number, at, run, source)))
    }

    /// What the source has at an offset, and how far.
    fn look(&self, at: u64, most: u64) -> Result<(Source, u64)> {
        if self.copy.over_backing
            && let extent = self.from.extent(at, most)?
            && !extent.is_allocated
            && let Some(backing) = self.from.child("backing")
            && let has = backing.len().saturating_sub(at)
            && has != 0
        {
            return Ok((Source::Backing, extent.len.min(has)));
        }
        let (is_zero, run) = shows_zeros(self.from, at, most)?;
        Ok((if is_zero { Source::Zeros } else { Source::Data }, run))
    }

    fn reading(&self, at: u64) -> String {
        format!("reading '{}' at {at}", self.from.file())
    }

    /// Takes pieces until there is none.
    fn work(&self) -> Result<()> {
        // One for all pieces: fresh memory costs as much as the copy.
        let longest = STEP.min(self.range.end.saturating_sub(self.range.start));
        let buffer = IoVector::zeroed(usize::try_from(longest)?);
        loop {
            let next = self.next();
            let Some((number, at, len, source)) = next.inspect_err(|_| self.give_up())? else {
                return Ok(());
            };
            let place = self.start + (at - self.range.start);
            let memory = buffer.slice(0, len);
            let piece = match source {
                Source::Backing => Ok(Piece::Backing),
                Source::Zeros => Ok(Piece::Zeros { at: place, len }),
                Source::Data => self.read(at, place, &memory),
            };
            let mut turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
            while turn.number != number && !turn.has_failed {
                turn = self
                    .moved
                    .wait(turn)
                    .unwrap_or_else(PoisonError::into_inner);
            }
            if turn.has_failed {
                return Ok(());
            }
            let written = piece.and_then(|piece| self.copy.write(piece));
            turn.number += 1;
            turn.has_failed = written.is_err();
            turn.progress.at(place + len);
            if source == Source::Data && written.is_ok() {
                turn.pace.wrote(len);
            }
            drop(turn);
            self.moved.notify_all();
            written?;
        }
    }

    /// Reads sector by sector; what cannot be read is zeros.
    fn salvage(&self, at: u64, memory: &IoVector) {
        let mut done = 0;
        while done < memory.len() {
            let sector = memory.slice(done, backend_block::SECTOR);
            if let Err(error) = self.from.read(at + done, &sector) {
                log::warn!("{}: {error}; zeros take its place", self.reading(at + done));
                sector.fill(0);
            }
            done += sector.len();
        }
    }

    /// The others need not go on.
    fn give_up(&self) {
        let mut turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        turn.has_failed = true;
        drop(turn);
        self.moved.notify_all();
    }

    fn read<'b>(&self, at: u64, place: u64, memory: &'b IoVector) -> Result<Piece<'b>> {
        let read = self.from.read(at, memory);
        match read {
            Err(_) if self.copy.salvages => self.salvage(at, memory),
            read => read.with_context(|| self.reading(at))?,
        }
        Ok(match self.copy.packs {
            true => Piece::Packed(self.copy.pack(place, memory)?),
            false => Piece::Data { at: place, memory },
        })
    }
}

/// Whether a disk shows zeros at an offset, looking through its backing files, and how far.
pub(super) fn shows_zeros(node: &Node, at: u64, len: u64) -> Result<(bool, u64)> {
    let extent = node.extent(at, len)?;
    if extent.is_allocated || extent.is_zero {
        return Ok((extent.is_zero, extent.len));
    }
    let Some(backing) = node.child("backing") else {
        return Ok((true, extent.len));
    };
    let has = backing.len().saturating_sub(at);
    match has {
        0 => Ok((true, extent.len)),
        _ => shows_zeros(&backing, at, extent.len.min(has)),
    }
}

/// Whether two paths are one file.
pub(super) fn is_same_file(a: &Path, b: &Path) -> bool {
    match (std::fs::canonicalize(a), std::fs::canonicalize(b)) {
        (Ok(a), Ok(b)) => a == b,
        _ => false,
    }
}
