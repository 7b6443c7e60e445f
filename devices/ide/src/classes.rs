//! Classes and properties.

use std::sync::Arc;

use backend_block::{ErrorPolicy, SharedBlock, Tray};
use hw_core::drive_props::{BOOTINDEX, DRIVE, MEDIUM, SHARE_RW, WRITE_CACHE, rerror, werror};
use hw_core::{
    Args, BusKind, Category, Device, DeviceClass, DeviceError, Links, Prop, PropType, prop,
};
use hw_pci::{ACPI_INDEX, ADDR, MULTIFUNCTION, PciOptions, ROMBAR, ROMFILE};

use crate::ahci::{Ahci, AhciOptions};
use crate::ata::{Disk, DiskOptions};
use crate::atapi::{Cd, CdOptions};
use crate::device::IdeDevice;
use crate::drive::{Drive, Kind};

const UNIT: Prop = prop("unit", PropType::U32, "", "Place on the cable, from 0");
const SERIAL: Prop = prop("serial", PropType::Str, "", "Serial number, 20 bytes");
const VER: Prop = prop("ver", PropType::Str, "2.5+", "Firmware revision, 8 bytes");
const WWN: Prop = prop("wwn", PropType::U64, "0", "World wide name");
const WERROR: Prop = werror(ErrorPolicy::ON_WRITE);
const RERROR: Prop = rerror(ErrorPolicy::ON_READ);
/// ATA sectors have 512 bytes, those of CDs 2048, and nothing else is available.
const LOGICAL_BLOCK_SIZE: Prop = prop(
    "logical_block_size",
    PropType::Size,
    "512",
    "Smallest addressable unit: 512",
);
const PHYSICAL_BLOCK_SIZE: Prop = prop(
    "physical_block_size",
    PropType::Size,
    "512",
    "Unit of the medium",
);

static IDE_HD: DeviceClass = DeviceClass {
    name: "ide-hd",
    aliases: &[],
    doc: "ATA disk",
    bus: BusKind::Ide,
    category: Category::Storage,
    props: &[
        DRIVE,
        UNIT,
        BOOTINDEX,
        SERIAL,
        prop(
            "model",
            PropType::Str,
            "QEMU HARDDISK",
            "Model, 40 bytes; guests know disks by it",
        ),
        VER,
        WWN,
        LOGICAL_BLOCK_SIZE,
        PHYSICAL_BLOCK_SIZE,
        prop(
            "discard",
            PropType::Bool,
            "on",
            "Offer TRIM; the drive's own discard= says what comes of it",
        ),
        prop(
            "rotation_rate",
            PropType::U16,
            "0",
            "Turns a minute; 1 for a disk without moving parts",
        ),
        prop("cyls", PropType::U32, "", "Cylinders, for firmware of old"),
        prop("heads", PropType::U32, "", "Heads"),
        prop("secs", PropType::U32, "", "Sectors of a track"),
        WRITE_CACHE,
        SHARE_RW,
        WERROR,
        RERROR,
    ],
    user_creatable: true,
    create: disk,
};

static IDE_CD: DeviceClass = DeviceClass {
    name: "ide-cd",
    aliases: &[],
    doc: "ATAPI CD drive",
    bus: BusKind::Ide,
    category: Category::Storage,
    props: &[
        MEDIUM,
        UNIT,
        BOOTINDEX,
        SERIAL,
        prop("model", PropType::Str, "QEMU DVD-ROM", "Model, 40 bytes"),
        VER,
        WWN,
        WERROR,
        RERROR,
    ],
    user_creatable: true,
    create: cd,
};

static ICH9_AHCI: DeviceClass = DeviceClass {
    name: "ich9-ahci",
    aliases: &["ahci"],
    doc: "Intel ICH9 SATA controller, AHCI",
    bus: BusKind::Pci,
    category: Category::Storage,
    props: &[ADDR, MULTIFUNCTION, ROMFILE, ROMBAR, ACPI_INDEX],
    user_creatable: true,
    create: |args, _| {
        let options = AhciOptions::default();
        Ok(Box::new(Ahci::new(options, PciOptions::from_args(args)?)))
    },
};

static PIIX3_IDE: DeviceClass = DeviceClass {
    name: "piix3-ide",
    aliases: &[],
    doc: "Intel PIIX3 IDE controller",
    bus: BusKind::Pci,
    category: Category::Storage,
    props: &[],
    user_creatable: false,
    create: |args, _| {
        Err(DeviceError::Other(format!(
            "'{}' is part of a machine and cannot be added to one",
            args.class().name
        )))
    },
};

/// The classes of this crate.
pub static CLASSES: &[&DeviceClass] = &[&IDE_HD, &IDE_CD, &ICH9_AHCI, &PIIX3_IDE];

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

fn text(args: &Args, name: &str) -> String {
    args.text(name).unwrap_or_default().to_owned()
}

fn disk(args: &Args, links: &mut Links) -> Result<Box<dyn Device>, DeviceError> {
    let medium = args.link::<SharedBlock>("drive", links)?;
    let medium = medium.ok_or_else(|| args.required("drive"))?;
    if args.int("logical_block_size") != Some(512) {
        return Err(DeviceError::Other(
            "ide-hd: logical_block_size must be 512: sectors of an ATA disk have no other size"
                .into(),
        ));
    }
    let info = medium.info();
    let geometry = match (
        narrow(args, "cyls")?,
        narrow(args, "heads")?,
        narrow(args, "secs")?,
    ) {
        (Some(cylinders), Some(heads), Some(sectors)) => Some((cylinders, heads, sectors)),
        (None, None, None) => None,
        _ => {
            return Err(DeviceError::Other(
                "ide-hd: cyls, heads and secs go together; give all three or none".into(),
            ));
        }
    };
    let options = DiskOptions {
        serial: text(args, "serial"),
        model: text(args, "model"),
        version: text(args, "ver"),
        wwn: args.int("wwn").unwrap_or(0),
        physical_block_size: narrow(args, "physical_block_size")?.unwrap_or(512),
        rotation_rate: narrow(args, "rotation_rate")?.unwrap_or(0),
        write_back: args.flag("write-cache").unwrap_or(info.write_back),
        discard: args.flag("discard").unwrap_or(true),
        geometry,
    };
    let drive = Drive::new(Kind::Disk(Disk::new(medium, options)?));
    let unit = narrow(args, "unit")?;
    Ok(Box::new(IdeDevice::new(IDE_HD.name, drive, unit)))
}

fn cd(args: &Args, links: &mut Links) -> Result<Box<dyn Device>, DeviceError> {
    let tray = args.link::<Arc<Tray>>("drive", links)?;
    let tray = tray.unwrap_or_else(|| Tray::new("", None));
    let options = CdOptions {
        serial: text(args, "serial"),
        model: text(args, "model"),
        version: text(args, "ver"),
        wwn: args.int("wwn").unwrap_or(0),
    };
    let drive = Drive::new(Kind::Cd(Cd::new(tray, options)));
    let unit = narrow(args, "unit")?;
    Ok(Box::new(IdeDevice::new(IDE_CD.name, drive, unit)))
}
