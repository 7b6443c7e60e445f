//! `-drive` and `-blockdev`: from options to disks.

mod drive;
mod shelf;
mod temporary;

use std::sync::Arc;

use anyhow::{Context as _, Result, anyhow, bail};
use backend_block::{
    BackendOptions, BlockBackend, Cache, DriverClass, ErrorPolicy, Limits, Node, OpenError, Opener,
    SharedBlock, Tray,
};
use control_options::suggest::nearest;
use control_options::{Config, Opts};
use hw_clock::Clock;
use hw_core::Args;
use machine_core::MachineDef;
use runtime::FdSets;

pub use drive::{Drive, Interface};
pub(crate) use drive::{drive_of_its_own, plain_file, protocol_of};
pub use shelf::{Shelf, WeakShelf};

/// Drivers of the block graph.
pub static DRIVERS: &[&DriverClass] = &[
    &backend_block::RAW,
    &backend_block::NULL_CO,
    &backend_block::BLKDEBUG,
    &backend_block::THROTTLE,
    &backend_file::FILE,
    &backend_file::HOST_DEVICE,
    &backend_qcow2::CLASS,
];

/// Drivers of QEMU's that are not there.
const ABSENT: &[&str] = &[
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
    "null-aio",
    "host_cdrom",
    "quorum",
    "vvfat",
    "nvme",
];

/// The disks that a command line asks for, checked but not opened.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Disks {
    /// Descriptors of `-add-fd`.
    pub fds: Vec<Opts>,
    /// Nodes of `-blockdev`, in an order in which they can be opened.
    pub nodes: Vec<Opts>,
    /// `-drive` and its short forms.
    pub drives: Vec<Drive>,
}

impl Disks {
    /// Names that a device's `drive` property can have.
    pub fn ids(&self) -> Vec<&str> {
        let nodes = self.nodes.iter().filter_map(|node| node.text("node-name"));
        let drives = self.drives.iter().map(|drive| drive.id.as_str());
        drives.chain(nodes).collect()
    }
}

/// Checks all drives and nodes.
///
/// # Errors
/// The first mistake.
pub fn plan(config: &Config, machine: &MachineDef) -> Result<Disks> {
    let nodes = nodes(&config.blockdevs)?;
    let drives = drive::plan(config, machine, &nodes)?;
    let fds = config.add_fds.clone();
    Ok(Disks { fds, nodes, drives })
}

/// The drive that `drive_add` asks for: one without a place, for a device to come.
///
/// # Errors
/// The first mistake.
pub fn plan_drive(option: &str, text: &str, machine: &MachineDef) -> Result<Drive> {
    let opts = Opts::parse(option, text, Some("file"))?;
    drive::check(option, &opts)?;
    if opts.text("if") != Some("none") || opts.id().is_none() {
        bail!("{option}: give 'if=none' and an id, and connect the drive with 'device_add'");
    }
    drive::drive(&opts, machine, &[])
}

/// Says that a driver is not there, and what is.
fn check_driver(option: &str, what: &str, name: &str) -> Result<()> {
    if DRIVERS.iter().any(|class| class.name == name) {
        return Ok(());
    }
    let names = || DRIVERS.iter().map(|class| class.name);
    if ABSENT.contains(&name) {
        bail!(
            "{option}: driver '{name}' is not available; there are {} (convert other formats with \
             'qemu-img convert -O qcow2')",
            names().collect::<Vec<_>>().join(", ")
        );
    }
    let hint = match nearest(name, names()) {
        Some(near) => format!("did you mean '{near}'?"),
        None => format!("there are {}", names().collect::<Vec<_>>().join(", ")),
    };
    bail!("{option}: there is no {what} named '{name}'; {hint}")
}

/// Checks the nodes of `-blockdev` and puts each behind those that it stores its data in.
fn nodes(blockdevs: &[Opts]) -> Result<Vec<Opts>> {
    let mut names = Vec::new();
    for opts in blockdevs {
        check_driver(
            "-blockdev",
            "driver",
            opts.text("driver").unwrap_or_default(),
        )?;
        let Some(name) = opts.text("node-name").filter(|n| !n.is_empty()) else {
            bail!("-blockdev: 'node-name=...' is missing: it names the node");
        };
        if names.contains(&name) {
            bail!("-blockdev: the node name '{name}' is used twice; every name must be unique");
        }
        names.push(name);
    }
    for (name, opts) in names.iter().zip(blockdevs) {
        for child in references(opts) {
            if !names.contains(&child) {
                let hint = nearest(child, names.iter().copied())
                    .map(|near| format!("; did you mean '{near}'?"))
                    .unwrap_or_default();
                bail!("-blockdev {name}: there is no node named '{child}'{hint}");
            }
        }
    }
    let mut sorted: Vec<Opts> = Vec::new();
    let mut left: Vec<&Opts> = blockdevs.iter().collect();
    while !left.is_empty() {
        let is_there = |name: &str| sorted.iter().any(|n| n.text("node-name") == Some(name));
        let ready = left
            .iter()
            .position(|opts| references(opts).into_iter().all(is_there));
        let Some(ready) = ready else {
            let stuck: Vec<_> = left.iter().filter_map(|o| o.text("node-name")).collect();
            bail!(
                "-blockdev: nodes {} store their data in one another; one must be a file",
                stuck.join(", ")
            );
        };
        sorted.push(left.remove(ready).clone());
    }
    Ok(sorted)
}

/// The nodes that one refers to by name, at any depth.
fn references(opts: &Opts) -> Vec<&str> {
    let roles = || DRIVERS.iter().flat_map(|class| class.children);
    opts.iter()
        .filter(|(key, _)| {
            let last = key.rsplit('.').next().unwrap_or_default();
            roles().any(|child| child.role == last)
        })
        .map(|(_, value)| value.text())
        .filter(|name| !name.is_empty())
        .collect()
}

/// All disks of a machine, and what more are opened with.
#[derive(Clone)]
pub struct Storage {
    /// Opens nodes, and knows them all.
    pub opener: Opener,
    /// What devices are connected to, used or not.
    pub disks: Shelf<SharedBlock>,
    /// The drives that they are in at first, and empty ones.
    pub drives: Shelf<Arc<Tray>>,
    /// The time that limits and measurements of requests go by.
    pub clock: Clock,
}

/// How a device uses a drive.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Use {
    /// It lets others write too.
    pub share_rw: bool,
    /// It takes media that are only read.
    pub is_cd: bool,
    /// What is done when a read fails, if it says so.
    pub on_read_error: Option<ErrorPolicy>,
    /// What is done when a write fails, if it says so.
    pub on_write_error: Option<ErrorPolicy>,
}

impl Use {
    /// How a device with these properties uses its drive.
    pub fn of(args: &Args) -> Self {
        // `auto` is no policy.
        let policy = |name: &str| args.text(name).and_then(ErrorPolicy::named);
        Use {
            share_rw: args.flag("share-rw") == Some(true),
            is_cd: false,
            on_read_error: policy("rerror"),
            on_write_error: policy("werror"),
        }
    }
}

/// Opens all drives and nodes. `used` tells how a device uses one, if one does.
///
/// # Errors
/// The host's reason.
pub fn open(
    disks: &Disks,
    groups: &[(String, Limits)],
    clock: &Clock,
    used: impl Fn(&str) -> Option<Use>,
) -> Result<Storage> {
    let opener = Opener::new(DRIVERS);
    for handed in &disks.fds {
        take_fd(&opener.fds, handed)?;
    }
    for (id, limits) in groups {
        let group = opener.throttles.group(id, clock);
        group.set_limits(*limits);
        opener.throttles.own(group);
    }
    let storage = Storage {
        opener,
        disks: Shelf::default(),
        drives: Shelf::default(),
        clock: clock.clone(),
    };
    for opts in &disks.nodes {
        let name = opts.text("node-name").unwrap_or_default();
        let option = format!("-blockdev {name}");
        let node = storage.opener.open(&option, opts);
        let node = node.map_err(|error| match error {
            // It begins with the option already.
            OpenError::Option(error) => anyhow::Error::new(error),
            error => anyhow::Error::new(error).context(option),
        })?;
        storage.opener.graph.keep(Arc::clone(&node));
        if let Some(used) = used(name) {
            storage.connect(name, node, used)?;
        }
    }
    let (empty, full): (Vec<_>, Vec<_>) = disks.drives.iter().partition(|drive| drive.is_empty);
    for drive in full.into_iter().chain(empty) {
        storage.add_drive("-drive", drive, used(&drive.id).unwrap_or_default())?;
    }
    Ok(storage)
}

impl Storage {
    /// A drive of `-drive`, opened.
    ///
    /// # Errors
    /// The host's reason.
    pub fn add_drive(&self, option: &str, drive: &Drive, used: Use) -> Result<()> {
        if drive.is_empty {
            self.drives.push(Tray::new(drive.id.clone(), None));
            return Ok(());
        }
        let opener = &self.opener;
        let node = match drive.is_probed {
            true => opener.open_probed(option, &drive.opts),
            false => opener.open(option, &drive.opts),
        };
        let mut node = node.with_context(|| named(&drive.id) + &drive.missing())?;
        if drive.is_probed && node.class().name == "raw" && !node.options().read_only {
            log::warn!(
                "{option} {}: the image's format was not given and is guessed to be raw; a guest could make it look \
                 like another format, so writes that would are refused: add 'format=raw'",
                node.file()
            );
        }
        if drive.is_temporary {
            node = temporary::overlay(opener, node, drive).with_context(|| named(&drive.id))?;
        }
        let options = BackendOptions {
            write_back: drive.cache.write_back,
            on_read_error: drive.on_read_error,
            on_write_error: drive.on_write_error,
            ..BackendOptions::default()
        };
        let backend = self.add(&drive.id, node, used, options)?;
        if let Some(throttle) = &drive.throttle {
            let name = throttle.group.as_deref().unwrap_or(&drive.id);
            let group = opener.throttles.group(name, &self.clock);
            if throttle.limits.is_on() {
                group.set_limits(throttle.limits);
            }
            backend.set_throttle(Some(&group));
        }
        Ok(())
    }

    /// A disk on a node, in a drive of its own.
    fn add(
        &self,
        id: &str,
        node: Arc<Node>,
        used: Use,
        options: BackendOptions,
    ) -> Result<SharedBlock> {
        let options = BackendOptions {
            share_rw: used.share_rw,
            read_only: used.is_cd,
            clock: Some(self.clock.clone()),
            on_read_error: used.on_read_error.unwrap_or(options.on_read_error),
            on_write_error: used.on_write_error.unwrap_or(options.on_write_error),
            ..options
        };
        let backend = BlockBackend::new(id, node, options).with_context(|| named(id))?;
        backend.join(&self.opener.graph);
        let backend: SharedBlock = Arc::new(backend);
        self.disks.push(Arc::clone(&backend));
        self.drives.push(Tray::new(id, Some(Arc::clone(&backend))));
        Ok(backend)
    }

    /// Connects a node to a device.
    ///
    /// # Errors
    /// What stands against it.
    pub fn connect(&self, name: &str, node: Arc<Node>, used: Use) -> Result<SharedBlock> {
        let options = BackendOptions {
            on_write_error: ErrorPolicy::Enospc,
            ..BackendOptions::default()
        };
        self.add(name, node, used, options)
    }

    /// Lets go of the disk of a device that is gone, and of its drive.
    pub fn release(&self, id: &str) {
        self.disks.remove(|disk| disk.info().id == id);
        self.drives.remove(|tray| tray.id() == id);
    }
}

/// Puts a descriptor of `-add-fd` into its set.
fn take_fd(sets: &FdSets, opts: &Opts) -> Result<()> {
    let option = "-add-fd";
    let number = |key: &str| -> Result<u32> {
        let number = opts.unsigned(option, key)?.unwrap_or_default();
        u32::try_from(number).with_context(|| format!("{option}: '{key}={number}' is too large"))
    };
    let (fd, set) = (number("fd")?, number("set")?);
    let taken = i32::try_from(fd).map_err(std::io::Error::other);
    let taken = taken.and_then(runtime::process::take_inherited_fd);
    let taken = taken.with_context(|| format!("{option}: descriptor {fd} cannot be used"))?;
    let opaque = opts.text("opaque").map(str::to_owned);
    sets.add(Some(set), taken, opaque).context(option)?;
    Ok(())
}

fn named(id: &str) -> String {
    format!("drive '{id}'")
}

/// The mode of this name, for `cache=`.
pub(crate) fn cache_mode(option: &str, name: &str) -> Result<Cache> {
    Cache::mode(name).ok_or_else(|| {
        anyhow!(
            "{option}: there is no cache mode '{name}'; there are {}",
            Cache::MODES.join(", ")
        )
    })
}
