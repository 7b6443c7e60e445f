//! `-drive` and `-blockdev`: from options to disk images.

use std::collections::BTreeMap;
use std::io::Read as _;
use std::sync::Arc;

use anyhow::{Context as _, Result, bail};
use backend_block::SharedBlock;
use backend_file::{Cache, Options, RawFile};
use control_options::suggest::nearest;
use control_options::{Config, Opts};
use machine_x86::Kind;

/// Drivers of `-drive format=` and `-blockdev`.
pub const DRIVERS: &[&str] = &["file", "raw"];

/// Drivers of QEMU's that are not there.
const ABSENT: &[&str] = &[
    "qcow2",
    "qcow",
    "qed",
    "vdi",
    "vmdk",
    "vpc",
    "vhdx",
    "parallels",
    "bochs",
    "cloop",
    "dmg",
    "luks",
    "nbd",
    "ssh",
    "http",
    "https",
    "ftp",
    "iscsi",
    "nfs",
    "rbd",
    "null-co",
    "null-aio",
    "host_device",
    "host_cdrom",
    "quorum",
    "throttle",
    "blkdebug",
    "vvfat",
    "nvme",
];

/// First bytes of formats that must not be taken for raw.
const MAGICS: &[(&[u8], &str)] = &[
    (b"QFI\xfb", "qcow2"),
    (b"QED\0", "qed"),
    (b"KDMV", "vmdk"),
    (b"conectix", "vpc"),
    (b"vhdxfile", "vhdx"),
    (b"LUKS\xba\xbe", "luks"),
    (b"WithoutFreeSpace", "parallels"),
    (b"WithouFreSpacExt", "parallels"),
];

/// The disks that a command line asks for, checked but not opened.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Disks {
    /// How to open each image.
    pub images: Vec<Options>,
    /// The ids of the images of `-drive`: opened even if no device uses them.
    pub drives: Vec<String>,
    /// The ids of the images that get a virtio-blk device of their own (`if=virtio`).
    pub own_device: Vec<String>,
    /// Serial numbers, by the image's id.
    pub serials: BTreeMap<String, String>,
}

impl Disks {
    /// Whether there is an image of this id.
    pub fn has(&self, id: &str) -> bool {
        self.images.iter().any(|image| image.id == id)
    }
}

/// Checks all drives and nodes.
///
/// # Errors
/// The first mistake.
pub fn plan(config: &Config, kind: Kind) -> Result<Disks> {
    if config.snapshot {
        bail!("-snapshot: temporary images are not available yet; work on a copy of the image");
    }
    let mut disks = Disks::default();
    nodes(&config.blockdevs, &mut disks)?;
    let mut count = 0;
    for opts in &config.drives {
        drive(opts, kind, &mut count, &mut disks)?;
    }
    Ok(disks)
}

fn drive(opts: &Opts, kind: Kind, count: &mut u32, disks: &mut Disks) -> Result<()> {
    let Some(file) = opts.text("file").filter(|f| !f.is_empty()) else {
        bail!("-drive: 'file=...' is missing: it names the disk image");
    };
    let connection = opts.text("if").unwrap_or(match kind {
        Kind::Microvm => "virtio",
        Kind::Pc | Kind::Q35 | Kind::None => "ide",
    });
    if opts.text("media") == Some("cdrom") {
        bail!(
            "-drive {file}: there is no CD drive yet; attach the image read-only: '-drive if=virtio,format=raw,readonly=on,file={file}'"
        );
    }
    if !matches!(connection, "virtio" | "none") {
        bail!(
            "-drive {file}: there is no '{connection}' controller yet; attach the image with \
             '-drive if=virtio,format=raw,file={file}'"
        );
    }
    if opts.switch("-drive", "snapshot")? == Some(true) {
        bail!("-drive {file}: 'snapshot=on' is not available yet; work on a copy of the image");
    }
    if opts.switch("-drive", "copy-on-read")? == Some(true) {
        bail!("-drive {file}: 'copy-on-read=on' is for images with a backing file; leave it out");
    }
    for key in ["offset", "size", "werror", "rerror", "detect-zeroes"] {
        if let Some(value) = opts.text(key)
            && !matches!(
                (key, value),
                ("werror", "report" | "enospc" | "auto")
                    | ("rerror", "report" | "auto")
                    | ("detect-zeroes", "off")
            )
        {
            bail!("-drive {file}: '{key}={value}' is not available yet; leave it out");
        }
    }
    if let Some((key, _)) = opts.iter().find(|(key, _)| key.contains('.')) {
        bail!(
            "-drive {file}: '{key}' belongs to a driver's own properties, which '-drive' does not take yet; use -blockdev"
        );
    }
    let id = match opts.id() {
        Some(id) => id.to_owned(),
        None => {
            let id = format!("{connection}{count}");
            *count += 1;
            id
        }
    };
    if disks.has(&id) {
        bail!("-drive: the id '{id}' is used twice; every id must be unique");
    }
    let format = format_of(opts.text("format").or_else(|| opts.text("driver")), file)?;
    let mut image = Options::new(&id, plain_file("-drive", file)?);
    image.format = format;
    image.read_only = opts.switch("-drive", "readonly")? == Some(true)
        || opts.switch("-drive", "read-only")? == Some(true);
    if let Some(mode) = opts.text("cache") {
        image.cache = Cache::mode(mode).unwrap_or_default();
    }
    if let Some(aio) = opts.text("aio") {
        aio.clone_into(&mut image.aio);
    }
    image.discard = matches!(opts.text("discard"), Some("unmap" | "on"));
    image.share_rw = opts.switch("-drive", "force-share")? == Some(true);
    image.locking = opts.text("locking") != Some("off");
    if connection == "virtio" {
        disks.own_device.push(id.clone());
    }
    disks.drives.push(id.clone());
    if let Some(serial) = opts.text("serial") {
        disks.serials.insert(id, serial.to_owned());
    }
    disks.images.push(image);
    Ok(())
}

/// The format given, or guessed from the file's first bytes.
fn format_of(given: Option<&str>, file: &str) -> Result<String> {
    if let Some(name) = given {
        if !DRIVERS.contains(&name) && !ABSENT.contains(&name) {
            bail!("-drive {file}: {}", unknown_driver("format", name));
        }
        return Ok(name.to_owned());
    }
    let mut head = Vec::new();
    // A file that cannot be read is reported when it is opened.
    if let Ok(file) = std::fs::File::open(plain_file("-drive", file)?) {
        let _ = file.take(16).read_to_end(&mut head);
    }
    if let Some((_, name)) = MAGICS.iter().find(|(magic, _)| head.starts_with(magic)) {
        return Ok((*name).to_owned());
    }
    log::warn!(
        "-drive {file}: the image's format was not given and is guessed to be raw; a guest could make it look like \
         another format, so add 'format=raw'"
    );
    Ok("raw".to_owned())
}

fn unknown_driver(what: &str, name: &str) -> String {
    let hint = match nearest(name, DRIVERS.iter().copied()) {
        Some(near) => format!("did you mean '{near}'?"),
        None => format!("there are {}", DRIVERS.join(", ")),
    };
    format!("there is no {what} named '{name}'; {hint}")
}

/// A file name without a protocol in front.
fn plain_file<'a>(option: &str, file: &'a str) -> Result<&'a str> {
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

/// One `-blockdev`.
struct Node<'a> {
    opts: &'a Opts,
    driver: &'a str,
}

fn nodes(blockdevs: &[Opts], disks: &mut Disks) -> Result<()> {
    let mut map: BTreeMap<&str, Node<'_>> = BTreeMap::new();
    for opts in blockdevs {
        let driver = opts.text("driver").unwrap_or_default();
        if !DRIVERS.contains(&driver) {
            if ABSENT.contains(&driver) {
                bail!(
                    "-blockdev: driver '{driver}' is not available; there are {} (convert other formats with \
                     'qemu-img convert -O raw')",
                    DRIVERS.join(", ")
                );
            }
            bail!("-blockdev: {}", unknown_driver("driver", driver));
        }
        let Some(name) = opts.text("node-name").filter(|n| !n.is_empty()) else {
            bail!("-blockdev: 'node-name=...' is missing: it names the node");
        };
        if map.insert(name, Node { opts, driver }).is_some() {
            bail!("-blockdev: the node name '{name}' is used twice; every name must be unique");
        }
    }
    for (name, node) in &map {
        let mut image = Options::new(*name, "");
        let file = match node.driver {
            "file" => node.opts.text("filename"),
            // Either the name of a node, or a node of its own.
            _ => match node.opts.text("file") {
                Some(child) => {
                    let Some(below) = map.get(child) else {
                        let hint = nearest(child, map.keys().copied())
                            .map(|near| format!("; did you mean '{near}'?"))
                            .unwrap_or_default();
                        bail!("-blockdev {name}: there is no node named '{child}'{hint}");
                    };
                    if below.driver != "file" {
                        bail!("-blockdev {name}: node '{child}' is no file");
                    }
                    node_options(name, below.opts, "", &mut image)?;
                    below.opts.text("filename")
                }
                None if node.opts.text("file.driver").is_some_and(|d| d != "file") => {
                    bail!("-blockdev {name}: 'file.driver' must be 'file'");
                }
                None => node.opts.text("file.filename"),
            },
        };
        node_options(name, node.opts, "", &mut image)?;
        node_options(name, node.opts, "file.", &mut image)?;
        let Some(file) = file else {
            bail!("-blockdev {name}: 'filename=...' is missing: it names the disk image");
        };
        image.file = file.into();
        disks.images.push(image);
    }
    Ok(())
}

/// Properties of nodes that we know, beside those that say what a node is.
const NODE_PROPS: &[&str] = &[
    "driver",
    "node-name",
    "filename",
    "file",
    "read-only",
    "auto-read-only",
    "discard",
    "cache.direct",
    "cache.no-flush",
    "aio",
    "locking",
    "force-share",
    "detect-zeroes",
];

fn node_options(name: &str, opts: &Opts, prefix: &str, image: &mut Options) -> Result<()> {
    const OPTION: &str = "-blockdev";
    for (key, value) in opts.iter() {
        let Some(key) = key.strip_prefix(prefix) else {
            continue;
        };
        let has_child = prefix.is_empty() && key.starts_with("file.");
        if !has_child && !NODE_PROPS.contains(&key) {
            let hint = nearest(key, NODE_PROPS.iter().copied())
                .map(|near| format!("; did you mean '{near}'?"))
                .unwrap_or_default();
            bail!("-blockdev {name}: a node has no property '{key}'{hint}");
        }
        let switch = || opts.switch(OPTION, &format!("{prefix}{key}"));
        match key {
            // The node on top decides; the one below may only refuse more.
            "read-only" => image.read_only |= switch()? == Some(true),
            "discard" => image.discard = matches!(value.text(), "unmap" | "on"),
            "cache.direct" => image.cache.direct |= switch()? == Some(true),
            "cache.no-flush" => image.cache.no_flush |= switch()? == Some(true),
            "aio" => value.text().clone_into(&mut image.aio),
            "locking" => image.locking = value.text() != "off",
            "force-share" => image.share_rw |= switch()? == Some(true),
            "detect-zeroes" if value.text() != "off" => {
                bail!("-blockdev {name}: 'detect-zeroes' is not available yet; leave it out");
            }
            _ => {}
        }
    }
    Ok(())
}

/// Opens all drives, and the nodes that are used.
///
/// # Errors
/// The host's reason.
pub fn open(disks: &Disks, used: impl Fn(&str) -> bool) -> Result<Vec<SharedBlock>> {
    let mut open = Vec::new();
    let wanted = |id: &String| disks.drives.contains(id) || used(id);
    for image in disks.images.iter().filter(|image| wanted(&image.id)) {
        let file = RawFile::open(image).with_context(|| format!("drive '{}'", image.id))?;
        let shared: SharedBlock = Arc::new(file);
        open.push(shared);
    }
    Ok(open)
}
