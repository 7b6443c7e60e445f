//! Classes and properties.

use std::sync::Arc;

use backend_block::{ErrorPolicy, SharedBlock, Tray};
use hw_core::drive_props::{BOOTINDEX, DRIVE, MEDIUM, SHARE_RW, WRITE_CACHE, rerror, werror};
use hw_core::{Args, BusKind, Category, Device, DeviceClass, DeviceError, Links, PropType, prop};

use crate::device::{Place, ScsiDevice};
use crate::disk::{Disk, DiskOptions};
use crate::{Cable, Cd, Identity};

/// Characters of a serial number.
const SERIAL_LEN: usize = 36;
/// `discard_granularity` when not given.
const GRANULARITY: u32 = 4096;

/// Properties that all units have, after their own.
macro_rules! unit {
    ($product:literal, $($own:expr),* $(,)?) => {
        &[
            $($own,)*
            prop("channel", PropType::U16, "0", "Channel of the bus"),
            prop("scsi-id", PropType::U16, "", "Target; the first free one if not given"),
            prop("lun", PropType::U16, "", "Logical unit; the first free one if not given"),
            BOOTINDEX,
            prop("serial", PropType::Str, "", "Serial number, 36 bytes"),
            prop("vendor", PropType::Str, "QEMU", "Vendor, 8 bytes"),
            prop("product", PropType::Str, $product, "Product, 16 bytes; guests know units by it"),
            prop("ver", PropType::Str, "2.5+", "Revision, 4 bytes"),
            prop("device_id", PropType::Str, "", "Name in page 83h; the serial number, or the drive's id"),
            prop("wwn", PropType::U64, "0", "World wide name"),
            prop("port_wwn", PropType::U64, "0", "World wide name of the port"),
            prop("port_index", PropType::U16, "0", "Number of the port"),
            werror(ErrorPolicy::ON_WRITE),
            rerror(ErrorPolicy::ON_READ),
        ]
    };
}

static SCSI_HD: DeviceClass = DeviceClass {
    name: "scsi-hd",
    aliases: &[],
    doc: "SCSI disk",
    bus: BusKind::Scsi,
    category: Category::Storage,
    props: unit![
        "QEMU HARDDISK",
        DRIVE,
        prop(
            "removable",
            PropType::Bool,
            "off",
            "Say that media can be taken out"
        ),
        prop(
            "dpofua",
            PropType::Bool,
            "off",
            "Say that single writes can be made safe"
        ),
        prop(
            "rotation_rate",
            PropType::U16,
            "0",
            "Turns a minute; 1 for a disk without moving parts"
        ),
        prop(
            "logical_block_size",
            PropType::Size,
            "512",
            "Smallest addressable unit"
        ),
        prop(
            "physical_block_size",
            PropType::Size,
            "512",
            "Unit of the medium"
        ),
        prop("min_io_size", PropType::Size, "0", "Smallest good request"),
        prop("opt_io_size", PropType::Size, "0", "Best size of requests"),
        prop(
            "discard_granularity",
            PropType::Size,
            "",
            "Unit of discards; 0 for a disk that takes none"
        ),
        prop(
            "max_unmap_size",
            PropType::Size,
            "1073741824",
            "Most bytes of a discarded range"
        ),
        prop(
            "max_io_size",
            PropType::Size,
            "2147483647",
            "Most bytes of a request"
        ),
        prop(
            "scsi_version",
            PropType::U16,
            "5",
            "Version of the standard that it claims"
        ),
        WRITE_CACHE,
        SHARE_RW,
    ],
    user_creatable: true,
    create: disk,
};

static SCSI_CD: DeviceClass = DeviceClass {
    name: "scsi-cd",
    aliases: &[],
    doc: "SCSI CD drive",
    bus: BusKind::Scsi,
    category: Category::Storage,
    props: unit!["QEMU CD-ROM", MEDIUM,],
    user_creatable: true,
    create: cd,
};

/// The classes of this crate.
pub static CLASSES: &[&DeviceClass] = &[&SCSI_HD, &SCSI_CD];

fn narrow<T: TryFrom<u64>>(args: &Args, name: &'static str) -> Result<Option<T>, DeviceError> {
    let Some(value) = args.int(name) else {
        return Ok(None);
    };
    let narrow = T::try_from(value).map_err(|_| DeviceError::BadValue {
        class: args.class().name,
        name: name.into(),
        value: value.to_string(),
        wanted: "small enough".into(),
    })?;
    Ok(Some(narrow))
}

fn need<T: TryFrom<u64>>(args: &Args, name: &'static str) -> Result<T, DeviceError> {
    narrow(args, name)?.ok_or_else(|| args.required(name))
}

fn place(args: &Args) -> Result<Place, DeviceError> {
    Ok(Place {
        channel: need(args, "channel")?,
        target: narrow(args, "scsi-id")?,
        lun: narrow(args, "lun")?,
    })
}

fn identity(args: &Args, drive: &str) -> Result<Identity, DeviceError> {
    let text = |name| args.text(name).unwrap_or_default().to_owned();
    let serial: String = text("serial").chars().take(SERIAL_LEN).collect();
    let device_id = match args.text("device_id") {
        Some(id) => id.to_owned(),
        // A name that was made up tells nobody anything.
        None if serial.is_empty() && !drive.starts_with('#') => drive.to_owned(),
        None => serial.chars().take(20).collect(),
    };
    Ok(Identity {
        vendor: text("vendor"),
        product: text("product"),
        version: text("ver"),
        serial,
        device_id,
        wwn: need(args, "wwn")?,
        port_wwn: need(args, "port_wwn")?,
        port_index: need(args, "port_index")?,
    })
}

fn disk(args: &Args, links: &mut Links) -> Result<Box<dyn Device>, DeviceError> {
    let medium = args.link::<SharedBlock>("drive", links)?;
    let medium = medium.ok_or_else(|| args.required("drive"))?;
    let info = medium.info();
    let flag = |name| args.flag(name).unwrap_or(false);
    let logical_block_size: u32 = need(args, "logical_block_size")?;
    let granularity = narrow(args, "discard_granularity")?;
    let options = DiskOptions {
        identity: identity(args, &info.id)?,
        logical_block_size,
        physical_block_size: need(args, "physical_block_size")?,
        min_io_size: need(args, "min_io_size")?,
        opt_io_size: need(args, "opt_io_size")?,
        discard_granularity: granularity.unwrap_or(GRANULARITY.max(logical_block_size)),
        max_unmap_size: need(args, "max_unmap_size")?,
        max_io_size: need(args, "max_io_size")?,
        rotation_rate: need(args, "rotation_rate")?,
        scsi_version: need(args, "scsi_version")?,
        removable: flag("removable"),
        dpofua: flag("dpofua"),
        write_back: args.flag("write-cache").unwrap_or(info.write_back),
        read_only: info.read_only,
    };
    let unit = Disk::new(medium, options)?;
    Ok(Box::new(ScsiDevice::new(SCSI_HD.name, unit, place(args)?)))
}

fn cd(args: &Args, links: &mut Links) -> Result<Box<dyn Device>, DeviceError> {
    let tray = args.link::<Arc<Tray>>("drive", links)?;
    let tray = tray.unwrap_or_else(|| Tray::new("", None));
    let identity = identity(args, tray.id())?;
    let unit = Cd::new(tray, identity, Cable::Scsi);
    Ok(Box::new(ScsiDevice::new(SCSI_CD.name, unit, place(args)?)))
}
