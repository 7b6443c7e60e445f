//! `-object`: sources of randomness and memory.

use std::fs::File;
use std::io::ErrorKind;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context as _, Result, bail};
use backend_block::{Limits, limit_props};
use backend_char::Chardev;
use backend_rng::{Builtin, Egd, FromFile, Randomness, Seeded};
use control_options::{Config, OptionError, Opts, PropDef, PropKind, Props};
use hw_core::Links;
use hw_memory::{Advice, RamBlock};

/// A type of object.
pub(crate) struct ObjectDef {
    /// Name as in `-object`.
    pub(crate) name: &'static str,
    /// One line for help.
    pub(crate) doc: &'static str,
    /// Properties beside `id`.
    pub(crate) props: &'static [PropDef],
}

const SIZE: PropDef = PropDef::new("size", PropKind::Size, "bytes").required();
const SHARE: PropDef = PropDef::new(
    "share",
    PropKind::Bool,
    "visible to processes that it is shared with",
)
.or("off");
const PREALLOC: PropDef = PropDef::new(
    "prealloc",
    PropKind::Bool,
    "take all of it from the host at once",
)
.or("off");
const MERGE: PropDef =
    PropDef::new("merge", PropKind::Bool, "may be merged with equal pages").or("on");
const DUMP: PropDef = PropDef::new("dump", PropKind::Bool, "is part of core dumps").or("on");

/// All types.
pub(crate) static OBJECTS: &[ObjectDef] = &[
    ObjectDef {
        name: "iothread",
        doc: "a thread that takes the requests of disks",
        props: &[],
    },
    ObjectDef {
        name: "memory-backend-file",
        doc: "guest memory in a file",
        props: &[
            SIZE,
            PropDef::new(
                "mem-path",
                PropKind::Str,
                "the file, made if it is not there; in a folder, one that goes with the process",
            )
            .required(),
            PropDef::new(
                "share",
                PropKind::Bool,
                "what the guest writes is in the file",
            )
            .or("off"),
            PREALLOC,
            MERGE,
            DUMP,
            PropDef::new("readonly", PropKind::Bool, "the file is only read").or("off"),
            PropDef::new(
                "discard-data",
                PropKind::Bool,
                "the file is emptied at the end",
            )
            .or("off"),
            PropDef::new("pmem", PropKind::Bool, "the file is in persistent memory").or("off"),
        ],
    },
    ObjectDef {
        name: "memory-backend-memfd",
        doc: "guest memory in an anonymous file",
        props: &[
            SIZE,
            SHARE.or("on"),
            PREALLOC,
            MERGE,
            DUMP,
            PropDef::new("seal", PropKind::Bool, "its size cannot change").or("on"),
            PropDef::new("hugetlb", PropKind::Bool, "made of huge pages").or("off"),
        ],
    },
    ObjectDef {
        name: "memory-backend-ram",
        doc: "guest memory",
        props: &[SIZE, SHARE, PREALLOC, MERGE, DUMP],
    },
    ObjectDef {
        name: "rng-builtin",
        doc: "randomness of the host's kernel",
        props: &[],
    },
    ObjectDef {
        name: "rng-egd",
        doc: "randomness from an entropy gathering daemon",
        props: &[
            PropDef::new("chardev", PropKind::Link("chardev"), "stream to the daemon").required(),
        ],
    },
    ObjectDef {
        name: "rng-random",
        doc: "randomness from a device or file of the host",
        props: &[
            PropDef::new("filename", PropKind::Str, "where it is read from").or("/dev/urandom"),
        ],
    },
    ObjectDef {
        name: "secret",
        doc: "a password or key, for what may need one; nothing does yet",
        props: &[
            PropDef::new("data", PropKind::Str, "the secret itself"),
            PropDef::new("file", PropKind::Str, "a file with it in"),
            PropDef::new(
                "format",
                PropKind::Enum(&["raw", "base64"]),
                "how it is written",
            )
            .or("raw"),
        ],
    },
    ObjectDef {
        name: "throttle-group",
        doc: "limits that disks share; also as 'limits.NAME'",
        props: limit_props!("x-"),
    },
];

/// One checked object.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Object {
    /// Memory.
    Memory {
        /// Its id.
        id: String,
        /// Bytes.
        size: u64,
        /// How it is kept.
        keeping: Keeping,
    },
    /// `rng-builtin`; repeatable if seeded.
    Builtin(String, Option<u64>),
    /// `rng-egd`: its id, the stream's.
    Egd(String, String),
    /// `rng-random`.
    File(String, String),
    /// `throttle-group`.
    Throttle(String, Limits),
    /// `iothread`.
    IoThread(String),
    /// `secret`: looked at, and not kept, for nobody asks for it.
    Secret,
}

/// How the host keeps guest memory.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Keeping {
    /// The user's file that it is in.
    pub(crate) file: Option<MemoryFile>,
    /// Other processes may see it.
    pub(crate) is_shared: bool,
    /// May be merged with equal pages; `None` for where that is possible.
    pub(crate) merge: Option<bool>,
    /// Is part of core dumps; `None` for yes.
    pub(crate) dump: Option<bool>,
    /// Who asks for all of it to be taken from the host at once.
    pub(crate) prealloc: Option<String>,
}

/// A file with guest memory in it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct MemoryFile {
    /// Who asks for it, for messages.
    pub(crate) option: String,
    /// A file, or a folder to make one in.
    pub(crate) path: String,
}

impl Keeping {
    /// The guest's memory.
    pub(crate) fn block(&self, size: u64) -> Result<RamBlock> {
        let block = match &self.file {
            Some(file) => file.block(size, self.is_shared)?,
            None if self.is_shared => {
                RamBlock::new("pc.ram", size).with_context(|| no_memory(size))?
            }
            None => RamBlock::private("pc.ram", size).with_context(|| no_memory(size))?,
        };
        if self.dump == Some(false)
            && let Err(e) = block.advise(Advice::NoDump)
        {
            log::warn!("the host keeps guest memory in core dumps: {e}");
        }
        // Without huge pages it is only slower.
        let _ = block.advise(Advice::Huge);
        if self.merge != Some(false)
            && let Err(e) = block.advise(Advice::Merge)
            && self.merge == Some(true)
        {
            log::warn!("the host does not merge guest memory: {e}");
        }
        if let Some(option) = &self.prealloc {
            block.advise(Advice::Populate).with_context(|| {
                format!("{option}: the host cannot give {size} bytes at once; ask for less with -m")
            })?;
        }
        Ok(block)
    }
}

fn no_memory(size: u64) -> String {
    format!("guest memory of {size} bytes cannot be had; ask for less with -m")
}

impl MemoryFile {
    /// Memory in the file, which is never made shorter, and longer only if it is empty.
    fn block(&self, size: u64, is_shared: bool) -> Result<RamBlock> {
        let Self { option, path } = self;
        let what = || format!("{option}: cannot use '{path}'");
        let file = self.open().with_context(what)?;
        let has = file.metadata().with_context(what)?;
        if !has.is_file() {
            bail!("{option}: cannot use '{path}': it is neither a file nor a folder");
        }
        if has.len() == 0 {
            file.set_len(size).with_context(what)?;
        } else if has.len() < size {
            bail!(
                "{option}: cannot use '{path}': it has {} bytes, less than the {size} of the memory; ask for less, or \
                 name another file",
                has.len()
            );
        }
        RamBlock::from_file("pc.ram", size, file, is_shared).with_context(what)
    }

    fn open(&self) -> std::io::Result<File> {
        let path = Path::new(&self.path);
        let mut options = File::options();
        options.read(true).write(true);
        match options.open(path) {
            Err(e) if e.kind() == ErrorKind::NotFound => options.create_new(true).open(path),
            Err(e) if e.kind() == ErrorKind::IsADirectory => nameless(path),
            done => done,
        }
    }
}

/// A file in `folder` that is gone with its last user.
fn nameless(folder: &Path) -> std::io::Result<File> {
    let mut options = File::options();
    options.read(true).write(true).create_new(true);
    let mut number = 0u32;
    loop {
        let path = folder.join(format!("mimic-memory-{}-{number}", std::process::id()));
        match options.open(&path) {
            Err(e) if e.kind() == ErrorKind::AlreadyExists && number < 1000 => number += 1,
            Err(e) => return Err(e),
            Ok(file) => {
                std::fs::remove_file(&path)?;
                return Ok(file);
            }
        }
    }
}

/// Checks all objects.
pub(crate) fn plan(config: &Config) -> Result<Vec<Object>> {
    let objects = config.objects.iter();
    objects
        .map(|opts| object("-object", opts, config.seed))
        .collect()
}

/// Checks an object that `option` asks for.
pub(crate) fn object(option: &str, opts: &Opts, seed: Option<u64>) -> Result<Object> {
    let mut opts = opts.clone();
    let name = opts.take("qom-type").unwrap_or_default();
    let Some(def) = OBJECTS.iter().find(|def| def.name == name) else {
        return Err(OptionError::unknown_name(
            option,
            "type of object",
            &name,
            OBJECTS.iter().map(|d| d.name),
        )
        .into());
    };
    let Some(id) = opts.take("id").filter(|id| !id.is_empty()) else {
        bail!("{option}: object '{name}' needs 'id=...': name to refer to it by");
    };
    if def.name == "throttle-group" {
        opts = limits_of(&opts);
    }
    let props = Props::check(option, &format!("object '{name}'"), &opts, def.props)?;
    for key in ["hugetlb", "readonly", "discard-data", "pmem"] {
        if props.is_on(key) {
            bail!("{option} {name}: '{key}=on' is not available yet; leave it out");
        }
    }
    Ok(match def.name {
        "rng-builtin" => Object::Builtin(id, seed),
        "rng-egd" => Object::Egd(id, props.text("chardev").unwrap_or_default().to_owned()),
        "rng-random" => Object::File(id, props.text("filename").unwrap_or_default().to_owned()),
        "iothread" => Object::IoThread(id),
        "secret" => {
            check_secret(&props).with_context(|| format!("{option} {name} '{id}'"))?;
            Object::Secret
        }
        "throttle-group" => {
            let limits = Limits::from_props(&props, "x-");
            if let Err(problem) = limits.check() {
                bail!("{option} {name} '{id}': {problem}");
            }
            Object::Throttle(id, limits)
        }
        _ => Object::Memory {
            size: props.unsigned("size").unwrap_or(0),
            keeping: keeping(&format!("{option} {name} '{id}'"), &props),
            id,
        },
    })
}

/// Whether there is a secret.
fn check_secret(props: &Props) -> Result<()> {
    match (props.text("data"), props.text("file")) {
        (Some(_), None) => Ok(()),
        (None, Some(file)) => std::fs::File::open(file)
            .map(drop)
            .with_context(|| format!("cannot open '{file}'")),
        _ => bail!("give either 'data=...' or 'file=...'"),
    }
}

/// `limits.bps-total` is `x-bps-total`.
fn limits_of(opts: &Opts) -> Opts {
    let mut out = Opts::default();
    for (key, value) in opts.iter() {
        match key.strip_prefix("limits.") {
            Some(name) => out.push(&format!("x-{name}"), value.clone()),
            None => out.push(key, value.clone()),
        }
    }
    out
}

fn keeping(option: &str, props: &Props) -> Keeping {
    let given = |key: &str| props.is_given(key).then(|| props.is_on(key));
    Keeping {
        file: props.text("mem-path").map(|path| MemoryFile {
            option: option.to_owned(),
            path: path.to_owned(),
        }),
        is_shared: props.is_on("share"),
        merge: given("merge"),
        dump: given("dump"),
        prealloc: props.is_on("prealloc").then(|| option.to_owned()),
    }
}

/// Makes what devices can be linked to.
pub(crate) fn offer(
    objects: &[Object],
    chardevs: &[Arc<Chardev>],
    links: &mut Links,
) -> Result<()> {
    for object in objects {
        let (id, source): (_, Box<dyn Randomness>) = match object {
            Object::Memory { .. }
            | Object::Throttle(..)
            | Object::IoThread(..)
            | Object::Secret => continue,
            Object::Builtin(id, None) => (id, Box::new(Builtin)),
            Object::Builtin(id, Some(seed)) => (id, Box::new(Seeded::new(*seed))),
            Object::Egd(id, stream) => {
                let Some(chardev) = chardevs.iter().find(|c| c.id() == stream) else {
                    bail!(
                        "-object rng-egd '{id}': there is no chardev with the id '{stream}'; add '-chardev ...,id={stream}'"
                    );
                };
                let frontend = chardev
                    .frontend()
                    .with_context(|| format!("-object rng-egd '{id}'"))?;
                (id, Box::new(Egd::new(frontend)))
            }
            Object::File(id, path) => {
                let file = FromFile::open(path.as_ref())
                    .with_context(|| format!("-object rng-random '{id}'"))?;
                (id, Box::new(file))
            }
        };
        links.offer("rng", id, source);
    }
    Ok(())
}

impl Object {
    /// Its id, if it is a source of randomness.
    pub(crate) fn rng_id(&self) -> Option<&str> {
        match self {
            Self::Memory { .. } | Self::Throttle(..) | Self::IoThread(..) | Self::Secret => None,
            Self::Builtin(id, _) | Self::Egd(id, _) | Self::File(id, _) => Some(id),
        }
    }
}

impl Object {
    /// Its id, if it is an I/O thread.
    pub(crate) fn io_thread_id(&self) -> Option<&str> {
        match self {
            Self::IoThread(id) => Some(id),
            _ => None,
        }
    }
}

/// The groups of limits.
pub(crate) fn throttle_groups(objects: &[Object]) -> Vec<(String, Limits)> {
    let groups = objects.iter().filter_map(|object| match object {
        Object::Throttle(id, limits) => Some((id.clone(), *limits)),
        _ => None,
    });
    groups.collect()
}
