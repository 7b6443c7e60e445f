//! `-drive`, `-hda`, `-cdrom`, ...: a node with an image, and how the machine uses it.

use std::os::unix::fs::FileTypeExt as _;

use anyhow::{Result, bail};
use backend_block::{Cache, ErrorPolicy, Limited, Limits, THROTTLE_PROPS};
use control_options::{Config, Opts, Props, Scalar};

use super::{ABSENT, cache_mode, check_driver};

/// What a drive is connected to (`if=`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Interface {
    /// Whatever `-device` says.
    None,
    /// A virtio-blk device of its own.
    Virtio,
    /// The machine's flash chip of this number.
    Flash(usize),
}

/// One drive.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Drive {
    /// Its name.
    pub id: String,
    /// The node's properties.
    pub opts: Opts,
    /// The format was not given.
    pub is_probed: bool,
    /// Writes go to a file that is gone when the machine is.
    pub is_temporary: bool,
    /// What it is connected to.
    pub interface: Interface,
    /// How the host caches.
    pub cache: Cache,
    /// What is done when a read fails.
    pub on_read_error: ErrorPolicy,
    /// What is done when a write fails.
    pub on_write_error: ErrorPolicy,
    /// The limits that hold for it.
    pub throttle: Option<Throttle>,
    /// The serial number its device shows.
    pub serial: Option<String>,
}

/// Limits of a drive.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Throttle {
    /// Those that it shares them with; none if not given.
    pub group: Option<String>,
    /// The limits. None at all: those that the group has.
    pub limits: Limits,
}

/// Keys that say what becomes of the drive, not what is in it.
const OWN_KEYS: &[&str] = &[
    "file",
    "if",
    "id",
    "format",
    "driver",
    "media",
    "bus",
    "unit",
    "index",
    "readonly",
    "snapshot",
    "cache",
    "copy-on-read",
    "werror",
    "rerror",
    "serial",
];
/// Keys that belong to the file below the format.
const FILE_KEYS: &[&str] = &["aio", "locking"];

pub(super) fn plan(config: &Config, interface: &str, nodes: &[Opts]) -> Result<Vec<Drive>> {
    let mut all: Vec<Drive> = Vec::new();
    let mut count = 0;
    for opts in &config.drives {
        let mut drive = drive(opts, interface, &mut count, &all)?;
        if drive.is_temporary || (config.snapshot && !is_kept(opts)?) {
            drive.is_temporary = true;
            drive.opts.push("read-only", Scalar::Bool(true));
        }
        let is_node = nodes.iter().any(|n| n.text("node-name") == Some(&drive.id));
        if is_node || all.iter().any(|other| other.id == drive.id) {
            bail!(
                "-drive: the id '{}' is used twice; every id must be unique",
                drive.id
            );
        }
        all.push(drive);
    }
    Ok(all)
}

/// Whether `-snapshot` leaves a drive alone.
fn is_kept(opts: &Opts) -> Result<bool> {
    let is_read_only = opts.switch("-drive", "readonly")? == Some(true);
    let is_told = opts.switch("-drive", "snapshot")? == Some(false);
    Ok(is_read_only || is_told || opts.text("media") == Some("cdrom"))
}

/// The number of a flash chip: `unit=` or `index=`, or the next that has no drive yet.
fn flash_chip(opts: &Opts, before: &[Drive]) -> Result<usize> {
    let is_taken = |chip: &usize| {
        before
            .iter()
            .any(|d| d.interface == Interface::Flash(*chip))
    };
    let given = match opts.unsigned("-drive", "unit")? {
        None => opts.unsigned("-drive", "index")?,
        unit => unit,
    };
    let Some(chip) = given.map(|n| usize::try_from(n).unwrap_or(usize::MAX)) else {
        return Ok((0..).find(|chip| !is_taken(chip)).unwrap_or(usize::MAX));
    };
    if is_taken(&chip) {
        bail!(
            "-drive if=pflash,unit={chip}: another drive is this unit already; give each its own"
        );
    }
    Ok(chip)
}

fn drive(opts: &Opts, interface: &str, count: &mut u32, before: &[Drive]) -> Result<Drive> {
    let file = opts.text("file").filter(|f| !f.is_empty());
    let driver = opts.text("format").or_else(|| opts.text("driver"));
    let is_whole = opts.text("file.driver").is_some() || driver == Some("null-co");
    let Some(name) = file.or(is_whole.then_some("")) else {
        bail!("-drive: 'file=...' is missing: it names the disk image");
    };
    let connection = opts.text("if").unwrap_or(interface);
    if opts.text("media") == Some("cdrom") {
        bail!(
            "-drive {name}: there is no CD drive yet; attach the image read-only: '-drive if=virtio,format=raw,readonly=on,file={name}'"
        );
    }
    let interface = match connection {
        "virtio" => Interface::Virtio,
        "pflash" => Interface::Flash(flash_chip(opts, before)?),
        "none" => Interface::None,
        _ => bail!(
            "-drive {name}: there is no '{connection}' controller yet; attach the image with \
             '-drive if=virtio,format=raw,file={name}'"
        ),
    };
    if opts.switch("-drive", "copy-on-read")? == Some(true) {
        bail!("-drive {name}: 'copy-on-read=on' is not available yet; leave it out");
    }
    let policy = |key, usual| match opts.text(key).unwrap_or("auto") {
        "auto" => Ok(usual),
        "enospc" if key == "rerror" => bail!(
            "-drive {name}: 'rerror=enospc' makes no sense: reads need no space; use 'report', 'stop' or 'ignore'"
        ),
        // The words were checked with the other options.
        word => Ok(ErrorPolicy::named(word).unwrap_or(usual)),
    };
    let on_read_error = policy("rerror", ErrorPolicy::Report)?;
    let on_write_error = policy("werror", ErrorPolicy::Enospc)?;
    let throttle = throttle(&format!("-drive {name}"), opts)?;
    if let Some(driver) = driver {
        check_driver(&format!("-drive {name}"), "format", driver)?;
    }
    let id = match (opts.id(), interface) {
        (Some(id), _) => id.to_owned(),
        (None, Interface::Flash(chip)) => format!("pflash{chip}"),
        (None, _) => {
            let id = format!("{connection}{count}");
            *count += 1;
            id
        }
    };
    let cache = match opts.text("cache") {
        Some(mode) => cache_mode("-drive", mode)?,
        None => Cache::default(),
    };
    Ok(Drive {
        opts: node(opts, file, driver, cache)?,
        is_probed: driver.is_none(),
        is_temporary: opts.switch("-drive", "snapshot")? == Some(true),
        id,
        interface,
        cache,
        on_read_error,
        on_write_error,
        throttle,
        serial: opts.text("serial").map(str::to_owned),
    })
}

/// A key of the limits under its name in [`THROTTLE_PROPS`].
fn throttle_key(key: &str) -> Option<String> {
    if let Some(key) = key.strip_prefix("throttling.") {
        return Some(key.to_owned());
    }
    if key == "iops_size" {
        return Some("iops-size".to_owned());
    }
    // The names that `block_set_io_throttle` has still.
    let (stem, ending) = match key.strip_suffix("_max_length") {
        Some(stem) => (stem, "-max-length"),
        None => match key.strip_suffix("_max") {
            Some(stem) => (stem, "-max"),
            None => (key, ""),
        },
    };
    let (_, name, _) = Limited::ALL.iter().find(|(.., old)| *old == stem)?;
    Some(format!("{name}{ending}"))
}

fn throttle(option: &str, opts: &Opts) -> Result<Option<Throttle>> {
    let mut given = Opts::default();
    for (key, value) in opts.iter() {
        if let Some(key) = throttle_key(key) {
            given.push(&key, value.clone());
        }
    }
    if given.is_empty() {
        return Ok(None);
    }
    let group = given.take("group");
    let props = Props::check(option, "'throttling'", &given, THROTTLE_PROPS)?;
    let limits = Limits::from_props(&props, "");
    if let Err(problem) = limits.check() {
        bail!("{option}: {problem}");
    }
    Ok(Some(Throttle { group, limits }))
}

/// The properties of the drive's node.
fn node(opts: &Opts, file: Option<&str>, driver: Option<&str>, cache: Cache) -> Result<Opts> {
    let mut node = Opts::default();
    if let Some(file) = file {
        let path = plain_file("-drive", file)?;
        node.push("file.driver", Scalar::Text(protocol_of(path).to_owned()));
        node.push("file.filename", Scalar::Text(path.to_owned()));
    }
    if let Some(driver) = driver {
        node.push("driver", Scalar::Text(driver.to_owned()));
    }
    node.push("cache.direct", Scalar::Bool(cache.direct));
    node.push("cache.no-flush", Scalar::Bool(cache.no_flush));
    let is_read_only = opts.switch("-drive", "readonly")? == Some(true);
    node.push("read-only", Scalar::Bool(is_read_only));
    let is_own = |key: &str| OWN_KEYS.contains(&key) || throttle_key(key).is_some();
    for (key, value) in opts.iter().filter(|(key, _)| !is_own(key)) {
        match FILE_KEYS.contains(&key) {
            true => node.push(&format!("file.{key}"), value.clone()),
            false => node.push(key, value.clone()),
        }
    }
    Ok(node)
}

/// The driver for a file of this host.
pub(crate) fn protocol_of(path: &str) -> &'static str {
    let is_device = std::fs::metadata(path).is_ok_and(|m| m.file_type().is_block_device());
    match is_device {
        true => "host_device",
        false => "file",
    }
}

/// A file name without a protocol in front.
pub(crate) fn plain_file<'a>(option: &str, file: &'a str) -> Result<&'a str> {
    if let Some(path) = file.strip_prefix("file:") {
        return Ok(path);
    }
    if let Some((protocol, _)) = file.split_once(':')
        && ABSENT
            .iter()
            .chain(&["json", "fat", "nbd+unix", "gluster", "sheepdog"])
            .any(|name| *name == protocol)
    {
        bail!(
            "{option}: '{protocol}:' images are not available; only files and block devices of this host are"
        );
    }
    Ok(file)
}
