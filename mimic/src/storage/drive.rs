//! `-drive`, `-hda`, `-cdrom`, ...: a node with an image, and how the machine uses it.

use std::os::unix::fs::FileTypeExt as _;

use anyhow::{Result, bail};
use backend_block::{Cache, ErrorPolicy, Limited, Limits, NODE_PROPS, THROTTLE_PROPS};
use control_options::{Config, Opts, Props, Scalar};
use hw_core::PropType;
use machine_core::MachineDef;

use super::{ABSENT, DRIVERS, cache_mode, check_driver};
use crate::devices;

/// What a drive is connected to (`if=`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Interface {
    /// Whatever `-device` says.
    None,
    /// A virtio-blk device of its own.
    Virtio,
    /// A flash chip of the machine's.
    Flash,
    /// A disk or CD drive on the machine's own controller.
    Ide,
    /// A disk or CD drive on a SCSI controller that the user adds.
    Scsi,
}

impl Interface {
    /// QEMU's word.
    fn name(self) -> &'static str {
        match self {
            Interface::None => "none",
            Interface::Virtio => "virtio",
            Interface::Flash => "pflash",
            Interface::Ide => "ide",
            Interface::Scsi => "scsi",
        }
    }
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
    /// There is no medium in it.
    pub is_empty: bool,
    /// It takes CDs.
    pub is_cd: bool,
    /// What it is connected to.
    pub interface: Interface,
    /// Which bus of that.
    pub bus: u32,
    /// Which place on the bus.
    pub unit: u32,
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

impl Drive {
    /// What more is to be said if it cannot be opened: the package with the firmware that a flash chip lacks.
    pub(super) fn missing(&self) -> String {
        let path = std::path::Path::new(self.opts.text("file.filename").unwrap_or_default());
        match self.interface == Interface::Flash && !path.exists() {
            true => {
                let error = firmware_load::FirmwareError::NoFile(path.to_owned());
                format!(": {error}")
            }
            false => String::new(),
        }
    }

    /// An empty CD drive that nothing is connected to yet.
    pub(crate) fn empty_cd(id: String) -> Self {
        Drive {
            id,
            opts: Opts::default(),
            is_probed: false,
            is_temporary: false,
            is_empty: true,
            is_cd: true,
            interface: Interface::None,
            bus: 0,
            unit: 0,
            cache: Cache::default(),
            serial: None,
            on_read_error: ErrorPolicy::Report,
            on_write_error: ErrorPolicy::Enospc,
            throttle: None,
        }
    }
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

/// Devices that stand for the CD drive a machine has by default.
const INSTEAD_OF_CD: &[&str] = &["ide-cd", "ide-hd", "scsi-cd", "scsi-hd"];
/// Targets of a SCSI bus.
const SCSI_UNITS: u32 = 256;
/// Its place, as `index=`.
const CD_INDEX: u32 = 2;

/// Checks the keys of a drive; those of its node are checked when that is opened.
pub(super) fn check(option: &str, opts: &Opts) -> Result<()> {
    let drivers = DRIVERS.iter().flat_map(|class| class.props);
    let all = || drivers.clone().chain(NODE_PROPS);
    control_options::check_drive(option, opts, |key| all().any(|prop| prop.name == key))?;
    Ok(())
}

pub(super) fn plan(config: &Config, machine: &MachineDef, nodes: &[Opts]) -> Result<Vec<Drive>> {
    let mut all: Vec<Drive> = Vec::new();
    for opts in &config.drives {
        check("-drive", opts)?;
        let mut drive = drive(opts, machine, &all)?;
        if !drive.is_empty && (drive.is_temporary || (config.snapshot && !is_kept(opts)?)) {
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
    for (n, opts) in config.devices.iter().enumerate() {
        all.extend(drive_of_its_own(opts, n).map(Drive::empty_cd));
    }
    let (buses, units) = machine.ide;
    let has_other = config.devices.iter().any(|opts| {
        let driver = opts.text("driver").unwrap_or_default();
        INSTEAD_OF_CD.contains(&driver)
    });
    if buses != 0 && machine.drive_interface == "ide" && !config.nodefaults && !has_other {
        let (bus, unit) = (CD_INDEX / units, CD_INDEX % units);
        if free_place(&all, Interface::Ide, bus, unit) {
            all.push(Drive {
                interface: Interface::Ide,
                bus,
                unit,
                ..Drive::empty_cd(name_of(Interface::Ide, true, bus, unit))
            });
        }
    }
    Ok(all)
}

/// The id of the drive that a device makes for itself: the `n`th `-device`, which takes media and names
/// none.
pub(crate) fn drive_of_its_own(device: &Opts, n: usize) -> Option<String> {
    let class = devices::find(device.text("driver").unwrap_or_default())?;
    let mut links = class.props.iter();
    let link = links.find(|prop| prop.ty == PropType::Link("medium"))?;
    device.text(link.name).is_none().then(|| format!("#cd{n}"))
}

fn free_place(all: &[Drive], interface: Interface, bus: u32, unit: u32) -> bool {
    !all.iter()
        .any(|d| (d.interface, d.bus, d.unit) == (interface, bus, unit))
}

/// The id of a drive that was given none.
fn name_of(interface: Interface, is_cd: bool, bus: u32, unit: u32) -> String {
    let name = interface.name();
    match interface {
        Interface::Ide | Interface::Scsi if is_cd => format!("{name}{bus}-cd{unit}"),
        Interface::Ide | Interface::Scsi => format!("{name}{bus}-hd{unit}"),
        _ => format!("{name}{unit}"),
    }
}

/// Where a drive is: as `bus=`, `unit=` and `index=` say, or the first free place.
fn place(
    opts: &Opts,
    name: &str,
    interface: Interface,
    machine: &MachineDef,
    all: &[Drive],
) -> Result<(u32, u32)> {
    let (buses, units) = match interface {
        Interface::Ide => machine.ide,
        Interface::Scsi => (1, SCSI_UNITS),
        _ => (1, u32::MAX),
    };
    let number = |key: &str| -> Result<Option<u32>> {
        let Some(text) = opts.text(key) else {
            return Ok(None);
        };
        match text.parse() {
            Ok(number) => Ok(Some(number)),
            Err(_) => bail!("-drive {name}: '{key}={text}' is no number"),
        }
    };
    let (bus, unit, index) = (number("bus")?, number("unit")?, number("index")?);
    let (bus, unit) = match index {
        Some(_) if bus.is_some() || unit.is_some() => {
            bail!(
                "-drive {name}: 'index' says what 'bus' and 'unit' say; leave one or the others out"
            )
        }
        Some(index) => (index / units, index % units),
        None => {
            let mut place = (bus.unwrap_or(0), unit.unwrap_or(0));
            while unit.is_none() && !free_place(all, interface, place.0, place.1) {
                place = match place.1 + 1 {
                    next if next < units => (place.0, next),
                    _ if bus.is_some() => {
                        bail!(
                            "-drive {name}: bus {} of '{}' is full",
                            place.0,
                            interface.name()
                        )
                    }
                    _ => (place.0 + 1, 0),
                };
            }
            place
        }
    };
    if bus >= buses || unit >= units {
        bail!(
            "-drive {name}: machine '{}' has no place {bus}.{unit} for drives with 'if={}': it has {buses} buses with \
             {units} each; use another place, or 'if=virtio'",
            machine.name,
            interface.name()
        );
    }
    if !free_place(all, interface, bus, unit) && interface == Interface::Flash {
        bail!(
            "-drive if=pflash,unit={unit}: another drive is this unit already; give each its own"
        );
    }
    if !free_place(all, interface, bus, unit) {
        bail!(
            "-drive {name}: place {bus}.{unit} of 'if={}' is taken by another drive; choose another 'index'",
            interface.name()
        );
    }
    Ok((bus, unit))
}

/// Whether `-snapshot` leaves a drive alone.
fn is_kept(opts: &Opts) -> Result<bool> {
    let is_read_only = opts.switch("-drive", "readonly")? == Some(true);
    let is_told = opts.switch("-drive", "snapshot")? == Some(false);
    Ok(is_read_only || is_told || opts.text("media") == Some("cdrom"))
}

/// A drive, beside all others.
pub(super) fn drive(opts: &Opts, machine: &MachineDef, all: &[Drive]) -> Result<Drive> {
    let file = opts.text("file").filter(|f| !f.is_empty());
    let driver = opts.text("format").or_else(|| opts.text("driver"));
    let is_whole = opts.text("file.driver").is_some() || driver == Some("null-co");
    let is_cd = opts.text("media") == Some("cdrom");
    let is_empty = file.is_none() && !is_whole;
    if is_empty && !is_cd {
        bail!("-drive: 'file=...' is missing: it names the disk image");
    }
    let name = file.unwrap_or_default();
    let connection = opts.text("if").unwrap_or(machine.drive_interface);
    let interface = match connection {
        "virtio" => Interface::Virtio,
        "pflash" => Interface::Flash,
        "none" => Interface::None,
        "scsi" => Interface::Scsi,
        "ide" if machine.ide.0 != 0 => Interface::Ide,
        "ide" => bail!(
            "-drive {name}: machine '{}' has no IDE controller; attach the image with \
             '-drive if=virtio,format=raw,file={name}'",
            machine.name
        ),
        _ => bail!(
            "-drive {name}: there is no '{connection}' controller yet; attach the image with \
             '-drive if=virtio,format=raw,file={name}'"
        ),
    };
    if is_empty && matches!(interface, Interface::Virtio | Interface::Flash) {
        bail!("-drive: 'file=...' is missing: '{connection}' drives are never empty");
    }
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
    let (bus, unit) = place(opts, name, interface, machine, all)?;
    let id = match opts.id() {
        Some(id) => id.to_owned(),
        None => name_of(interface, is_cd, bus, unit),
    };
    let cache = match opts.text("cache") {
        Some(mode) => cache_mode("-drive", mode)?,
        None => Cache::default(),
    };
    let node = match is_empty {
        true => Opts::default(),
        false => node(opts, file, driver, cache, is_cd)?,
    };
    Ok(Drive {
        opts: node,
        is_probed: driver.is_none(),
        is_temporary: opts.switch("-drive", "snapshot")? == Some(true),
        is_empty,
        is_cd,
        id,
        interface,
        bus,
        unit,
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
fn node(
    opts: &Opts,
    file: Option<&str>,
    driver: Option<&str>,
    cache: Cache,
    is_cd: bool,
) -> Result<Opts> {
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
    let is_read_only = is_cd || opts.switch("-drive", "readonly")? == Some(true);
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
