//! `mimic img`, also as `qemu-img`: images made, looked at and changed, in qemu-img's syntax.

mod args;
mod bench;
mod commit;
mod compare;
mod convert;
mod inspect;
mod measure;
mod modify;
mod pace;

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context as _, Result, anyhow, bail};
use backend_block::{BlockError, Cache, Child, CreateClass, Node, Opener, beside, perm};
use backend_qcow2::Qcow2;
use control_options::{Opts, Scalar};

use crate::storage::DRIVERS;
use args::Args;

/// Longest buffer of `bench` and `dd`.
const BUFFER_MAX: u64 = 1 << 30;

/// A command: name, arguments, what it does, and the function.
struct Command {
    name: &'static str,
    usage: &'static str,
    doc: &'static str,
    run: fn(&mut Args) -> Result<i32>,
}

const COMMANDS: &[Command] = &[
    Command {
        name: "bench",
        usage: "[-c COUNT] [-d DEPTH] [-f FMT] [--flush-interval=N [--no-drain]] [-i AIO] [-n] [-o OFFSET] [--pattern=BYTE] [-q] [-s SIZE] [-S STEP] [-t CACHE] [-w] [-U] FILE",
        doc: "tell how long so many requests take",
        run: bench::bench,
    },
    Command {
        name: "check",
        usage: "[-f FMT] [--output=human|json] [-r leaks|all] [-T CACHE] [-q] [-U] FILE",
        doc: "look for errors in the tables of an image, and repair them",
        run: inspect::check,
    },
    Command {
        name: "commit",
        usage: "[-q] [-f FMT] [-t CACHE] [-b BASE] [-r RATE] [-d] [-p] FILE",
        doc: "write what an overlay holds into its backing file",
        run: commit::commit,
    },
    Command {
        name: "compare",
        usage: "[-f FMT] [-F FMT] [-T CACHE] [-p] [-q] [-s] [-U] FILE1 FILE2",
        doc: "tell whether two images show the same",
        run: compare::compare,
    },
    Command {
        name: "convert",
        usage: "[--image-opts] [--target-image-opts] [--target-is-zero] [-c] [-C] [-p] [-q] [-n] [-f FMT] [-t CACHE] [-T CACHE] [-O FMT] [-B BACKING [-F FMT]] [-o OPTIONS] [-l SNAPSHOT] [-S SIZE] [-r RATE] [-m THREADS] [-W] [--salvage] [-U] FILE... OUTPUT",
        doc: "copy an image into one of another format",
        run: convert::convert,
    },
    Command {
        name: "create",
        usage: "[-q] [-f FMT] [-b BACKING [-F FMT]] [-u] [-o OPTIONS] FILE [SIZE]",
        doc: "make an empty image, or an overlay",
        run: modify::create,
    },
    Command {
        name: "dd",
        usage: "[-f FMT] [-O FMT] [-U] [bs=SIZE] [count=BLOCKS] [skip=BLOCKS] if=INPUT of=OUTPUT",
        doc: "copy a part of an image",
        run: measure::dd,
    },
    Command {
        name: "info",
        usage: "[-f FMT] [--output=human|json] [--backing-chain] [-U] FILE",
        doc: "show what an image is",
        run: inspect::info,
    },
    Command {
        name: "map",
        usage: "[-f FMT] [--output=human|json] [-s OFFSET] [-l LENGTH] [-U] FILE",
        doc: "show what lies where in an image",
        run: inspect::map,
    },
    Command {
        name: "measure",
        usage: "[--output=human|json] [-O FMT] [-o OPTIONS] [-U] [--size=SIZE | [-f FMT] [-l SNAPSHOT] FILE]",
        doc: "tell how large an image would be",
        run: measure::measure,
    },
    Command {
        name: "rebase",
        usage: "[-q] [-f FMT] [-t CACHE] [-T CACHE] [-p] [-u] -b BACKING [-F FMT] FILE",
        doc: "put an overlay on another backing file",
        run: modify::rebase,
    },
    Command {
        name: "resize",
        usage: "[-q] [-f FMT] [--preallocation=MODE] [--shrink] FILE [+|-]SIZE",
        doc: "change the size of the disk",
        run: modify::resize,
    },
    Command {
        name: "snapshot",
        usage: "[-q] [-U] [-f FMT] [-l | -a NAME | -c NAME | -d NAME] FILE",
        doc: "list, take, return to or delete internal snapshots",
        run: modify::snapshot,
    },
];

/// Commands of qemu-img's that are not there.
const ABSENT: &[&str] = &["amend", "bitmap"];

/// Does what the arguments say; returns the exit status.
///
/// # Errors
/// What was wrong, in a sentence.
pub(crate) fn run(program: &str, args: &[String]) -> Result<i32> {
    let Some((name, rest)) = args.split_first() else {
        bail!("which command? '{program} help' lists them");
    };
    if matches!(name.as_str(), "help" | "-h" | "--help") {
        crate::entry::print(&help(program))?;
        return Ok(0);
    }
    if matches!(name.as_str(), "-V" | "--version" | "version") {
        crate::entry::print(&crate::help::version())?;
        return Ok(0);
    }
    let Some(command) = COMMANDS.iter().find(|command| command.name == name) else {
        if ABSENT.contains(&name.as_str()) {
            bail!("'{name}' is not available yet; use QEMU's 'qemu-img {name}'");
        }
        let names = COMMANDS.iter().map(|command| command.name);
        let hint = control_options::suggest::nearest(name, names)
            .map(|near| format!("did you mean '{near}'?"))
            .unwrap_or_else(|| format!("'{program} help' lists them"));
        bail!("there is no command '{name}'; {hint}");
    };
    if rest.iter().any(|arg| arg == "-h" || arg == "--help") {
        let text = format!(
            "usage: {program} {name} {}\n{}\n",
            command.usage, command.doc
        );
        crate::entry::print(&text)?;
        return Ok(0);
    }
    let mut args = Args::new(command.usage, rest);
    (command.run)(&mut args).with_context(|| format!("{program} {name}"))
}

fn help(program: &str) -> String {
    let mut out = format!("usage: {program} COMMAND ...\n\nCommands:\n");
    for command in COMMANDS {
        out += &format!(
            "  {} {}\n      {}\n",
            command.name, command.usage, command.doc
        );
    }
    out += "\nFormats:";
    for class in DRIVERS
        .iter()
        .filter(|class| class.kind != backend_block::DriverKind::Filter)
    {
        out += &format!(" {}", class.name);
    }
    out + "\n"
}

/// How an image is opened.
#[derive(Clone, Copy, Default)]
struct How<'a> {
    format: Option<&'a str>,
    cache: Option<&'a str>,
    /// `-i`
    aio: Option<&'a str>,
    writes: bool,
    /// Others may use it at the same time (`-U`).
    shares: bool,
    /// Without its backing file.
    alone: bool,
    /// To be repaired: as it is.
    repairs: bool,
    /// `FILE` is a list of properties (`--image-opts`).
    is_opts: bool,
}

/// An image that is open.
struct Open {
    node: Arc<Node>,
}

impl Open {
    fn qcow2(&self) -> Option<&Qcow2> {
        self.node.driver().as_any().downcast_ref()
    }

    /// The format, or an error that says that there is no such thing in this one.
    fn need_qcow2(&self, what: &str) -> Result<&Qcow2> {
        let format = self.node.class().name;
        self.qcow2()
            .ok_or_else(|| anyhow!("'{}': format '{format}' has no {what}", self.node.file()))
    }
}

impl Open {
    /// Shows what an internal snapshot holds: `-l NAME`, `-l snapshot.name=NAME`, `-l snapshot.id=ID`.
    fn show_snapshot(&self, given: &str) -> Result<()> {
        let file = self.node.file();
        let image = self.need_qcow2("internal snapshots")?;
        let wanted = match given.starts_with("snapshot.") {
            true => {
                let opts = Opts::parse("-l", given, None)?;
                let (id, name) = (opts.text("snapshot.id"), opts.text("snapshot.name"));
                let all = image.snapshots();
                let fits = |s: &&backend_qcow2::Snapshot| {
                    id.is_none_or(|id| id == s.id) && name.is_none_or(|name| name == s.name)
                };
                all.iter().find(fits).map(|snapshot| snapshot.id.clone())
            }
            false => Some(given.to_owned()),
        };
        let shown = wanted.map(|wanted| image.show_snapshot(&wanted));
        match shown {
            None | Some(Err(BlockError::OutOfRange)) => {
                bail!("'{file}' has no snapshot '{given}'; 'snapshot -l {file}' lists them")
            }
            Some(shown) => shown.with_context(|| format!("'{file}': snapshot '{given}'")),
        }
    }
}

fn text(text: impl Into<String>) -> Scalar {
    Scalar::Text(text.into())
}

/// Options of a node with an image in a file of this host.
fn file_opts(file: &str, how: How<'_>) -> Result<Opts> {
    let path = crate::storage::plain_file("FILE", file)?;
    let mut opts = Opts::default();
    opts.push("file.driver", text(crate::storage::protocol_of(path)));
    opts.push("file.filename", text(path));
    if let Some(mode) = how.cache {
        let cache = cache(mode)?;
        opts.push("cache.direct", Scalar::Bool(cache.direct));
        opts.push("cache.no-flush", Scalar::Bool(cache.no_flush));
    }
    if let Some(aio) = how.aio {
        opts.push("file.aio", text(aio));
    }
    opts.push("read-only", Scalar::Bool(!how.writes));
    opts.push("discard", text("unmap"));
    if how.shares {
        opts.push("force-share", Scalar::Bool(true));
    }
    let class = DRIVERS.iter().find(|class| Some(class.name) == how.format);
    if how.alone && class.is_some_and(|class| class.children.iter().any(|c| c.role == "backing")) {
        opts.push("backing", Scalar::Null);
    }
    Ok(opts)
}

fn cache(mode: &str) -> Result<Cache> {
    crate::storage::cache_mode("CACHE", mode)
}

/// Opens an image; its format is looked at if it is not given.
fn open(file: &str, how: How<'_>) -> Result<Open> {
    let mut opener = Opener::new(DRIVERS);
    opener.repairs = how.repairs;
    if how.is_opts {
        let mut opts = Opts::parse("--image-opts", file, None)?;
        if opts.get("read-only").is_none() {
            opts.push("read-only", Scalar::Bool(!how.writes));
        }
        let node = opener.open("--image-opts", &opts)?;
        return Ok(Open { node });
    }
    let format = match how.format {
        Some(format) => format,
        None => {
            let probe = How {
                writes: false,
                format: Some("raw"),
                ..how
            };
            opener.format("FILE", &file_opts(file, probe)?)?
        }
    };
    let mut opts = file_opts(
        file,
        How {
            format: Some(format),
            ..how
        },
    )?;
    opts.push("driver", text(format));
    let node = opener.open("FILE", &opts)?;
    Ok(Open { node })
}

/// Opens an image to look at it, whoever else uses it.
pub(crate) fn look(file: &str) -> Result<Arc<Node>> {
    let shares = true;
    let how = How {
        shares,
        ..How::default()
    };
    Ok(open(file, how)?.node)
}

/// Makes an image of `len` bytes. The file is new or emptied.
fn make(file: &str, format: &str, len: u64, options: &Opts) -> Result<()> {
    let path = crate::storage::plain_file("FILE", file)?;
    let opener = Opener::new(DRIVERS);
    let class = opener.driver(format)?;
    let is_device = crate::storage::protocol_of(path) == "host_device";
    if format == "raw" {
        let known = |key: &str| ["preallocation"].contains(&key);
        if let Some((key, _)) = options.iter().find(|(key, _)| !known(key)) {
            bail!("format 'raw' has no option '{key}'; there is preallocation");
        }
    }
    let create: Option<&CreateClass> = class.create;
    if create.is_none() && format != "raw" {
        bail!("images of format '{format}' cannot be made; there are raw, qcow2");
    }
    if !is_device {
        backend_file::create(Path::new(path))?;
    }
    let mut opts = Opts::default();
    opts.push("driver", text(crate::storage::protocol_of(path)));
    opts.push("filename", text(path));
    let below = opener.open("FILE", &opts)?;
    let Some(create) = create else {
        let mode = options.text("preallocation").unwrap_or("off");
        let mode = preallocation(mode)?;
        return Ok(below.resize(len, mode)?);
    };
    if let Some(data) = options.text("data_file") {
        let data = beside(path, data).with_context(|| format!("'{data}' is no plain path"))?;
        if !data.exists() {
            backend_file::create(&data)?;
        }
        let file = std::fs::File::options().write(true).open(&data)?;
        file.set_len(len)?;
    }
    {
        let child = Child::attach(Arc::clone(&below), "create", "file", perm::ALL, perm::ALL)?;
        (create.create)(&child, len, options)?;
    }
    drop(below);
    let mode = preallocation(options.text("preallocation").unwrap_or("off"))?;
    if mode != backend_block::Preallocation::Off {
        let how = How {
            format: Some(format),
            writes: true,
            ..How::default()
        };
        let open = open(file, how)?;
        open.need_qcow2("preallocation")?.preallocate_all(mode)?;
    }
    Ok(())
}

fn preallocation(name: &str) -> Result<backend_block::Preallocation> {
    use backend_block::Preallocation;
    Preallocation::named(name).ok_or_else(|| {
        anyhow!(
            "there is no preallocation '{name}'; there are {}",
            Preallocation::NAMES.join(", ")
        )
    })
}

/// A size as users write it.
fn size(word: &str) -> Result<u64> {
    control_options::number::size(word, 1)
        .ok_or_else(|| anyhow!("'{word}' is no size; write it as 512, 64K, 20G, ..."))
}

/// Progress on the terminal (`-p`).
struct Progress {
    shows: bool,
    total: u64,
    shown: Option<u64>,
}

impl Progress {
    fn new(shows: bool, total: u64) -> Self {
        Progress {
            shows,
            total,
            shown: None,
        }
    }

    fn at(&mut self, done: u64) {
        let hundredths = (u128::from(done) * 10_000).checked_div(u128::from(self.total));
        let now = u64::try_from(hundredths.unwrap_or(10_000)).unwrap_or(10_000);
        if self.shows && self.shown != Some(now) {
            self.shown = Some(now);
            eprint!("    ({}.{:02}/100%)\r", now / 100, now % 100);
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if self.shown.is_some() {
            eprintln!();
        }
    }
}
