//! Devices, objects, disks and network cards.

use super::general::check_only;
use crate::config::{Global, NicOpt};
use crate::error::OptionError;
use crate::opts::{Opts, Scalar, is_help};
use crate::parse::{Builder, HelpRequest};
use crate::props::{PropDef, PropKind};

type Done = Result<(), OptionError>;

const ERROR_POLICY: PropKind = PropKind::Enum(&["ignore", "stop", "report", "enospc", "auto"]);

/// `-drive`'s own properties; what has a dot in it belongs to the format's driver.
pub(crate) const DRIVE: &[PropDef] = &[
    PropDef::new("file", PropKind::Str, "the image"),
    PropDef::new(
        "if",
        PropKind::Enum(&[
            "none", "ide", "scsi", "virtio", "pflash", "floppy", "sd", "mtd",
        ]),
        "what it is connected to",
    ),
    PropDef::new("id", PropKind::Str, "name to refer to it by"),
    PropDef::new(
        "format",
        PropKind::Str,
        "format of the image; detected if not given",
    ),
    PropDef::new("driver", PropKind::Str, "same as format"),
    PropDef::new(
        "media",
        PropKind::Enum(&["disk", "cdrom"]),
        "kind of medium",
    ),
    PropDef::new("bus", PropKind::U32, "number of the controller"),
    PropDef::new("unit", PropKind::U32, "number on the controller"),
    PropDef::new("index", PropKind::U32, "number among those of its kind"),
    PropDef::new("readonly", PropKind::Bool, "refuse writes"),
    PropDef::new("read-only", PropKind::Bool, "refuse writes"),
    PropDef::new(
        "auto-read-only",
        PropKind::Bool,
        "fall back to refusing writes",
    ),
    PropDef::new("snapshot", PropKind::Bool, "write to a temporary file"),
    PropDef::new(
        "cache",
        PropKind::Enum(&["none", "writeback", "writethrough", "directsync", "unsafe"]),
        "how the host caches",
    ),
    PropDef::new(
        "aio",
        PropKind::Enum(&["threads", "native", "io_uring"]),
        "how requests are made",
    ),
    PropDef::new(
        "discard",
        PropKind::Enum(&["ignore", "off", "unmap", "on"]),
        "what a discard does",
    ),
    PropDef::new(
        "detect-zeroes",
        PropKind::Enum(&["off", "on", "unmap"]),
        "look for writes of zeros",
    ),
    PropDef::new(
        "copy-on-read",
        PropKind::Bool,
        "copy what is read from the backing file",
    ),
    PropDef::new("werror", ERROR_POLICY, "what a failed write does"),
    PropDef::new("rerror", ERROR_POLICY, "what a failed read does"),
    PropDef::new("serial", PropKind::Str, "serial number"),
    PropDef::new(
        "locking",
        PropKind::Enum(&["on", "off", "auto"]),
        "lock the image",
    ),
    PropDef::new("force-share", PropKind::Bool, "take no lock"),
];

/// A limit in the short names of `-drive`; in the long ones, `throttling.NAME`, they are the driver's.
macro_rules! limits {
    ($($name:literal = $doc:literal),*) => {
        &[
            $(
                PropDef::new($name, PropKind::U64, concat!("most ", $doc)),
                PropDef::new(concat!($name, "_max"), PropKind::U64, concat!("most ", $doc, " in a burst")),
                PropDef::new(concat!($name, "_max_length"), PropKind::U64, "seconds that such a burst lasts"),
            )*
            PropDef::new("iops_size", PropKind::Size, "bytes that count as one request"),
        ]
    };
}

const DRIVE_LIMITS: &[PropDef] = limits![
    "bps" = "bytes a second",
    "bps_rd" = "bytes read a second",
    "bps_wr" = "bytes written a second",
    "iops" = "requests a second",
    "iops_rd" = "reads a second",
    "iops_wr" = "writes a second"
];

pub(crate) const SEMIHOSTING: &[PropDef] = &[
    PropDef::new("enable", PropKind::Bool, "whether it is on").or("on"),
    PropDef::new(
        "target",
        PropKind::Enum(&["native", "gdb", "auto"]),
        "whose files and console they are",
    )
    .or("auto"),
    PropDef::new(
        "chardev",
        PropKind::Str,
        "stream of the console; without, standard error",
    ),
    PropDef::new(
        "userspace",
        PropKind::Bool,
        "let unprivileged software ask, too",
    )
    .or("off"),
    PropDef::new(
        "arg",
        PropKind::Str,
        "an argument of the program; may be given again",
    ),
];

pub(crate) const FW_CFG: &[PropDef] = &[
    PropDef::new("name", PropKind::Str, "the entry's name, 'opt/...'").required(),
    PropDef::new("file", PropKind::Str, "file with its content"),
    PropDef::new("string", PropKind::Str, "its content"),
    PropDef::new("gen_id", PropKind::Str, "object that makes its content"),
];

pub(crate) const ADD_FD: &[PropDef] = &[
    PropDef::new("fd", PropKind::U32, "the descriptor's number").required(),
    PropDef::new("set", PropKind::U32, "number of the set").required(),
    PropDef::new("opaque", PropKind::Str, "what is said of it when asked"),
];

pub(crate) fn add_fd(b: &mut Builder, option: &str, value: &str) -> Done {
    let opts = Opts::parse(option, value, None)?;
    check_only(option, "a descriptor", &opts, ADD_FD)?;
    b.config.add_fds.push(opts);
    Ok(())
}

pub(crate) fn device(b: &mut Builder, option: &str, value: &str) -> Done {
    let opts = Opts::parse(option, value, Some("driver"))?;
    match opts.text("driver") {
        Some(name) if is_help(name) => b.ask(HelpRequest::Devices),
        None | Some("") => {
            return Err(OptionError::syntax(
                option,
                "the device's name is missing; '-device help' lists them",
            ));
        }
        Some(name) if opts.wants_help() => b.ask(HelpRequest::DeviceProps(name.to_owned())),
        Some(_) => b.config.devices.push(opts),
    }
    Ok(())
}

pub(crate) fn object(b: &mut Builder, option: &str, value: &str) -> Done {
    let opts = Opts::parse(option, value, Some("qom-type"))?;
    match opts.text("qom-type") {
        Some(name) if is_help(name) => b.ask(HelpRequest::Objects),
        None | Some("") => {
            return Err(OptionError::syntax(
                option,
                "the object's type is missing; '-object help' lists them",
            ));
        }
        Some(name) if opts.wants_help() => b.ask(HelpRequest::ObjectProps(name.to_owned())),
        Some(name) if opts.id().is_none_or(str::is_empty) => {
            return Err(OptionError::MissingKey {
                option: option.to_owned(),
                subject: format!("object '{name}'"),
                key: "id".to_owned(),
                doc: "name to refer to it by".to_owned(),
            });
        }
        Some(_) => b.config.objects.push(opts),
    }
    Ok(())
}

pub(crate) fn global(b: &mut Builder, option: &str, value: &str) -> Done {
    // The short form has no list: all after '=' is the value.
    let short = value.split_once('=').and_then(|(left, value)| {
        let (driver, property) = left.split_once('.')?;
        (!left.contains(',')).then_some((driver, property, value))
    });
    let (driver, property, value) = match short {
        Some((driver, property, value)) => {
            (driver.to_owned(), property.to_owned(), value.to_owned())
        }
        None => {
            let mut opts = Opts::parse_strict(option, value, None)?;
            match (
                opts.take("driver"),
                opts.take("property"),
                opts.take("value"),
            ) {
                (Some(driver), Some(property), Some(value)) => (driver, property, value),
                _ => {
                    let problem =
                        "expected 'DRIVER.PROPERTY=VALUE' or 'driver=...,property=...,value=...'";
                    return Err(OptionError::syntax(option, problem));
                }
            }
        }
    };
    b.config.globals.push(Global {
        driver,
        property,
        value,
    });
    Ok(())
}

pub(crate) fn audiodev(b: &mut Builder, option: &str, value: &str) -> Done {
    let opts = Opts::parse(option, value, Some("driver"))?;
    match opts.text("driver") {
        Some(name) if is_help(name) => b.ask(HelpRequest::Audiodevs),
        Some("none") => b.config.audiodevs.push(opts),
        Some(name) => {
            return Err(OptionError::unknown_name(
                option,
                "audio driver",
                name,
                ["none"],
            ));
        }
        None => {
            return Err(OptionError::syntax(
                option,
                "the driver is missing: write 'none,id=ID'",
            ));
        }
    }
    Ok(())
}

pub(crate) fn drive(b: &mut Builder, option: &str, value: &str) -> Done {
    let opts = Opts::parse(option, value, Some("file"))?;
    if is_help(value) || opts.wants_help() {
        b.ask(HelpRequest::Text(crate::props::help(option, DRIVE)));
        return Ok(());
    }
    if ["format", "driver"]
        .into_iter()
        .any(|key| opts.text(key).is_some_and(is_help))
    {
        b.ask(HelpRequest::BlockDrivers);
        return Ok(());
    }
    // What other keys there are depends on the driver.
    check_drive(option, &opts, |_| true)?;
    b.config.drives.push(opts);
    Ok(())
}

/// Checks the keys and values of `-drive`, or of `drive_add`, but for those of the drive's node.
///
/// # Errors
/// The first that is no key of a drive's, or no value of it.
pub fn check_drive(
    option: &str,
    opts: &Opts,
    is_nodes: impl Fn(&str) -> bool,
) -> Result<(), OptionError> {
    let table = [DRIVE, DRIVE_LIMITS].concat();
    let is_own = |key: &str| table.iter().any(|prop| prop.name == key);
    let mut own = Opts::default();
    for (key, value) in opts.iter() {
        if !key.contains('.') && (is_own(key) || !is_nodes(key)) {
            own.push(key, value.clone());
        }
    }
    check_only(option, "a drive", &own, &table)
}

/// A disk image given by itself, or by one of the short options.
fn image(b: &mut Builder, file: &str, more: &[(&str, &str)]) -> Done {
    let mut opts = Opts::default();
    opts.push("file", Scalar::Text(file.to_owned()));
    for (key, value) in more {
        opts.push(key, Scalar::Text((*value).to_owned()));
    }
    b.config.drives.push(opts);
    Ok(())
}

pub(crate) fn disk_image(b: &mut Builder, _: &str, file: &str) -> Done {
    image(b, file, &[("index", "0"), ("media", "disk")])
}

pub(crate) fn cdrom(b: &mut Builder, _: &str, file: &str) -> Done {
    image(b, file, &[("index", "2"), ("media", "cdrom")])
}

pub(crate) fn hda(b: &mut Builder, _: &str, file: &str) -> Done {
    image(b, file, &[("index", "0"), ("media", "disk")])
}

pub(crate) fn hdb(b: &mut Builder, _: &str, file: &str) -> Done {
    image(b, file, &[("index", "1"), ("media", "disk")])
}

pub(crate) fn hdc(b: &mut Builder, _: &str, file: &str) -> Done {
    image(b, file, &[("index", "2"), ("media", "disk")])
}

pub(crate) fn hdd(b: &mut Builder, _: &str, file: &str) -> Done {
    image(b, file, &[("index", "3"), ("media", "disk")])
}

pub(crate) fn pflash(b: &mut Builder, _: &str, file: &str) -> Done {
    image(b, file, &[("if", "pflash")])
}

pub(crate) fn sd(b: &mut Builder, _: &str, file: &str) -> Done {
    image(b, file, &[("if", "sd")])
}

pub(crate) fn mtdblock(b: &mut Builder, _: &str, file: &str) -> Done {
    image(b, file, &[("if", "mtd")])
}

pub(crate) fn blockdev(b: &mut Builder, option: &str, value: &str) -> Done {
    let opts = Opts::parse_strict(option, value, Some("driver"))?;
    match opts.text("driver") {
        Some(name) if is_help(name) => b.ask(HelpRequest::BlockDrivers),
        None => {
            return Err(OptionError::syntax(
                option,
                "the driver is missing: add 'driver=...'",
            ));
        }
        Some(_) => b.config.blockdevs.push(opts),
    }
    Ok(())
}

pub(crate) fn smbios(b: &mut Builder, option: &str, value: &str) -> Done {
    let opts = Opts::parse(option, value, None)?;
    let number = opts.unsigned(option, "type")?;
    match (opts.text("file"), number) {
        (Some(_), None) | (None, Some(0..=255)) => b.config.smbios.push(opts),
        _ => {
            return Err(OptionError::syntax(
                option,
                "expected 'file=FILE' or 'type=NUMBER,...'",
            ));
        }
    }
    Ok(())
}

pub(crate) fn semihosting_on(b: &mut Builder, _: &str, _: &str) -> Done {
    b.config.semihosting.get_or_insert_with(Opts::default);
    Ok(())
}

pub(crate) fn semihosting(b: &mut Builder, option: &str, value: &str) -> Done {
    let opts = Opts::parse(option, value, Some("enable"))?;
    check_only(option, "semihosting", &opts, SEMIHOSTING)?;
    if opts.text("target") == Some("gdb") {
        return Err(OptionError::syntax(
            option,
            "'target=gdb' is not available: files are the host's; use 'target=native'",
        ));
    }
    let is_on = opts.switch(option, "enable")?.unwrap_or(true);
    b.config.semihosting = is_on.then_some(opts);
    Ok(())
}

pub(crate) fn fw_cfg(b: &mut Builder, option: &str, value: &str) -> Done {
    let opts = Opts::parse(option, value, Some("name"))?;
    check_only(option, "an entry", &opts, FW_CFG)?;
    let sources = ["file", "string", "gen_id"]
        .iter()
        .filter(|key| opts.get(key).is_some())
        .count();
    if sources != 1 {
        return Err(OptionError::syntax(
            option,
            "an entry needs either 'file=...' or 'string=...'",
        ));
    }
    b.config.fw_cfg.push(opts);
    Ok(())
}

pub(crate) fn netdev(b: &mut Builder, option: &str, value: &str) -> Done {
    let opts = Opts::parse(option, value, Some("type"))?;
    match opts.text("type") {
        Some(name) if is_help(name) => b.ask(HelpRequest::Netdevs),
        Some(name) if opts.id().is_none_or(str::is_empty) => {
            return Err(OptionError::MissingKey {
                option: option.to_owned(),
                subject: format!("network backend '{name}'"),
                key: "id".to_owned(),
                doc: "name to refer to it by".to_owned(),
            });
        }
        Some(_) => b.config.netdevs.push(opts),
        None => {
            return Err(OptionError::syntax(
                option,
                "the type is missing; '-netdev help' lists them",
            ));
        }
    }
    Ok(())
}

pub(crate) fn nic(b: &mut Builder, option: &str, value: &str) -> Done {
    card(b, "-nic", Opts::parse(option, value, Some("type"))?)
}

pub(crate) fn net(b: &mut Builder, option: &str, value: &str) -> Done {
    card(b, "-net", Opts::parse(option, value, Some("type"))?)
}

fn card(b: &mut Builder, option: &'static str, opts: Opts) -> Done {
    match opts.text("type") {
        Some(name) if is_help(name) => b.ask(HelpRequest::Netdevs),
        Some("none") => b.config.nic_none = true,
        _ => b.config.nics.push(NicOpt { option, opts }),
    }
    Ok(())
}
