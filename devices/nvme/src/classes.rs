//! Classes and properties.

use std::sync::Arc;

use backend_block::SharedBlock;
use hw_core::drive_props::{BOOTINDEX, DRIVE, SHARE_RW};
use hw_core::{Args, BusKind, Category, Device, DeviceClass, DeviceError, Links, PropType, prop};
use hw_pci::{ACPI_INDEX, ADDR, MULTIFUNCTION, PciOptions, ROMBAR, ROMFILE};

use crate::bus::NvmeBus;
use crate::controller::{Nvme, NvmeOptions};
use crate::namespace::{Namespace, NamespaceOptions, NvmeNs};

/// `discard_granularity` when not given.
const GRANULARITY: u32 = 4096;

/// Properties of what has a drive.
macro_rules! with_drive {
    ($($own:expr),* $(,)?) => {
        &[
            $($own,)*
            DRIVE,
            BOOTINDEX,
            prop("logical_block_size", PropType::Size, "512", "Smallest addressable unit"),
            prop("discard_granularity", PropType::Size, "", "Unit of discards"),
            SHARE_RW,
        ]
    };
}

static NVME: DeviceClass = DeviceClass {
    name: "nvme",
    aliases: &[],
    doc: "NVMe controller",
    bus: BusKind::Pci,
    category: Category::Storage,
    props: with_drive![
        prop("serial", PropType::Str, "", "Serial number, 20 bytes"),
        prop(
            "max_ioqpairs",
            PropType::U16,
            "64",
            "Pairs of queues for commands of blocks"
        ),
        prop("msix_qsize", PropType::U16, "65", "Interrupt vectors"),
        prop(
            "mdts",
            PropType::U16,
            "7",
            "Most pages of a command, as a power of two; 0 for no limit"
        ),
        prop(
            "aerl",
            PropType::U16,
            "3",
            "Events that the guest can wait for at once, less one"
        ),
        ADDR,
        MULTIFUNCTION,
        ROMFILE,
        ROMBAR,
        ACPI_INDEX,
    ],
    user_creatable: true,
    create: controller,
};

static NVME_NS: DeviceClass = DeviceClass {
    name: "nvme-ns",
    aliases: &[],
    doc: "NVMe namespace",
    bus: BusKind::Nvme,
    category: Category::Storage,
    props: with_drive![
        prop(
            "nsid",
            PropType::U32,
            "",
            "Its number, from 1; the first free one if not given"
        ),
        prop("eui64", PropType::U64, "0", "Unique identifier of 8 bytes"),
        prop(
            "uuid",
            PropType::Str,
            "",
            "Unique identifier of 16 bytes, as 8-4-4-4-12 hexadecimal digits"
        ),
    ],
    user_creatable: true,
    create: namespace_device,
};

/// The classes of this crate.
pub static CLASSES: &[&DeviceClass] = &[&NVME, &NVME_NS];

fn bad(args: &Args, name: &str, wanted: &str) -> DeviceError {
    DeviceError::BadValue {
        class: args.class().name,
        name: name.into(),
        value: args.text(name).unwrap_or_default().into(),
        wanted: wanted.into(),
    }
}

fn narrow<T: TryFrom<u64>>(args: &Args, name: &'static str) -> Result<T, DeviceError> {
    let value = args.need_int(name)?;
    T::try_from(value).map_err(|_| bad(args, name, "small enough"))
}

/// 32 hexadecimal digits, with dashes where they may be.
fn uuid(args: &Args) -> Result<Option<[u8; 16]>, DeviceError> {
    let Some(text) = args.text("uuid").filter(|text| !text.is_empty()) else {
        return Ok(None);
    };
    let wanted = || {
        bad(
            args,
            "uuid",
            "a UUID, such as 550e8400-e29b-41d4-a716-446655440000",
        )
    };
    let digits: String = text.chars().filter(|c| *c != '-').collect();
    let is_hex = digits.bytes().all(|digit| digit.is_ascii_hexdigit());
    let value = u128::from_str_radix(&digits, 16).map_err(|_| wanted())?;
    match is_hex && digits.len() == 32 {
        true => Ok(Some(value.to_be_bytes())),
        false => Err(wanted()),
    }
}

fn namespace(args: &Args, disk: SharedBlock) -> Result<Arc<Namespace>, DeviceError> {
    let block = narrow(args, "logical_block_size")?;
    let discard_granularity = match args.text("discard_granularity") {
        Some(_) => narrow(args, "discard_granularity")?,
        None => GRANULARITY.max(block),
    };
    let options = NamespaceOptions {
        block,
        discard_granularity,
        eui64: args.int("eui64").unwrap_or(0),
        uuid: uuid(args)?,
    };
    Ok(Arc::new(Namespace::new(disk, options)?))
}

fn controller(args: &Args, links: &mut Links) -> Result<Box<dyn Device>, DeviceError> {
    let serial = args.text("serial").filter(|serial| !serial.is_empty());
    let options = NvmeOptions {
        serial: serial.ok_or_else(|| args.required("serial"))?.to_owned(),
        max_ioqpairs: narrow(args, "max_ioqpairs")?,
        msix_qsize: narrow(args, "msix_qsize")?,
        mdts: narrow(args, "mdts")?,
        aerl: narrow(args, "aerl")?,
    };
    if !(1..=1023).contains(&options.max_ioqpairs) {
        return Err(bad(args, "max_ioqpairs", "from 1 to 1023"));
    }
    if !(1..=2048).contains(&options.msix_qsize) {
        return Err(bad(args, "msix_qsize", "from 1 to 2048"));
    }
    if options.mdts > 15 {
        return Err(bad(args, "mdts", "from 0 to 15"));
    }
    let bus = NvmeBus::default();
    let own = match args.link::<SharedBlock>("drive", links)? {
        Some(disk) => Some(bus.plug(None, namespace(args, disk)?)?),
        None => None,
    };
    let pci = PciOptions::from_args(args)?;
    Ok(Box::new(Nvme::new(bus, own, options, pci)))
}

fn namespace_device(args: &Args, links: &mut Links) -> Result<Box<dyn Device>, DeviceError> {
    let disk = args.link::<SharedBlock>("drive", links)?;
    let disk = disk.ok_or_else(|| args.required("drive"))?;
    let id = match args.text("nsid") {
        Some(_) => Some(narrow(args, "nsid")?),
        None => None,
    };
    Ok(Box::new(NvmeNs {
        namespace: namespace(args, disk)?,
        id,
    }))
}
