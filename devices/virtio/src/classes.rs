//! Classes and properties: each device on MMIO, and on PCI in three forms.

use backend_block::{ErrorPolicy, SharedBlock};
use backend_char::CharFrontend;
use backend_rng::{Builtin, Randomness};
use hw_core::drive_props::{BOOTINDEX, DRIVE, SHARE_RW, WRITE_CACHE, rerror, werror};
use hw_core::{
    Args, BusKind, Category, Device, DeviceClass, DeviceError, Links, Prop, PropType, prop,
};
use hw_pci::{ACPI_INDEX, ADDR, MULTIFUNCTION, PciOptions, ROMBAR, ROMFILE};
use hw_virtio::{
    DisableLegacy, Options, VIRTIO_MMIO, VirtioDevice, VirtioMmio, VirtioPci, VirtioPciOptions,
};

use crate::block::{Blk, BlkOptions};
use crate::rng::{Quota, Rng};
use crate::scsi::{Scsi, ScsiOptions};
use crate::serial::{PortSpec, Serial, SerialPort};

/// `num-queues` when the board is to choose.
const AUTO_QUEUES: u64 = 65535;
const AUTO_SCSI_QUEUES: u64 = u32::MAX as u64;

const INDIRECT_DESC: Prop = prop(
    "indirect_desc",
    PropType::Bool,
    "on",
    "Indirect descriptors",
);
const EVENT_IDX: Prop = prop("event_idx", PropType::Bool, "on", "Event indices in rings");
const PACKED: Prop = prop("packed", PropType::Bool, "off", "Packed rings");
const IOMMU_PLATFORM: Prop = prop(
    "iommu_platform",
    PropType::Bool,
    "off",
    "Tell the guest that addresses may be translated",
);
const DISABLE_LEGACY: Prop = prop(
    "disable-legacy",
    PropType::OnOffAuto,
    "auto",
    "No interface for drivers before virtio 1.0",
);
const DISABLE_MODERN: Prop = prop(
    "disable-modern",
    PropType::Bool,
    "off",
    "No interface for drivers of virtio 1.0",
);
const VECTORS: Prop = prop(
    "vectors",
    PropType::U32,
    "",
    "MSI-X vectors; what suits the device if not given",
);
const PAGE_PER_VQ: Prop = prop(
    "page-per-vq",
    PropType::Bool,
    "off",
    "A page for each queue's doorbell",
);

const RNG: Prop = prop("rng", PropType::Link("rng"), "", "Source of randomness");
const MAX_BYTES: Prop = prop(
    "max-bytes",
    PropType::U64,
    "9223372036854775807",
    "Bytes in a period",
);
const PERIOD: Prop = prop("period", PropType::U32, "65536", "Period in milliseconds");

const IOTHREAD: Prop = prop(
    "iothread",
    PropType::Link("iothread"),
    "",
    "Thread that takes the driver's requests; the main one if not given",
);
const SERIAL: Prop = prop("serial", PropType::Str, "", "Serial number, 20 bytes");
const NUM_QUEUES: Prop = prop(
    "num-queues",
    PropType::U16,
    "65535",
    "Request queues; 65535 for as many as suit the machine",
);
const QUEUE_SIZE: Prop = prop("queue-size", PropType::U16, "256", "Entries of a queue");
const SEG_MAX_ADJUST: Prop = prop(
    "seg-max-adjust",
    PropType::Bool,
    "on",
    "As many segments as a queue has room for",
);
const LOGICAL_BLOCK_SIZE: Prop = prop(
    "logical_block_size",
    PropType::Size,
    "512",
    "Smallest addressable unit",
);
const PHYSICAL_BLOCK_SIZE: Prop = prop(
    "physical_block_size",
    PropType::Size,
    "512",
    "Unit of the medium",
);
const MIN_IO_SIZE: Prop = prop("min_io_size", PropType::Size, "0", "Smallest good request");
const OPT_IO_SIZE: Prop = prop("opt_io_size", PropType::Size, "0", "Best size of requests");
const DISCARD: Prop = prop("discard", PropType::Bool, "on", "Discard requests");
const WRITE_ZEROES: Prop = prop(
    "write-zeroes",
    PropType::Bool,
    "on",
    "Write-zeroes requests",
);
const MAX_DISCARD: Prop = prop(
    "max-discard-sectors",
    PropType::U32,
    "4194303",
    "Most sectors of a discard",
);
const MAX_WRITE_ZEROES: Prop = prop(
    "max-write-zeroes-sectors",
    PropType::U32,
    "4194303",
    "Most sectors of a write-zeroes request",
);
const CONFIG_WCE: Prop = prop(
    "config-wce",
    PropType::Bool,
    "on",
    "The guest may switch the write cache",
);
const WERROR: Prop = werror(ErrorPolicy::ON_WRITE);
const RERROR: Prop = rerror(ErrorPolicy::ON_READ);

const SCSI_QUEUES: Prop = prop(
    "num_queues",
    PropType::U32,
    "4294967295",
    "Request queues; 4294967295 for as many as suit the machine",
);
const VIRTQUEUE_SIZE: Prop = prop("virtqueue_size", PropType::U16, "256", "Entries of a queue");
const SCSI_SEG_MAX_ADJUST: Prop = prop(
    "seg_max_adjust",
    PropType::Bool,
    "on",
    "As many segments as a queue has room for",
);
const MAX_SECTORS: Prop = prop(
    "max_sectors",
    PropType::U32,
    "65535",
    "Most sectors of a command",
);
const CMD_PER_LUN: Prop = prop(
    "cmd_per_lun",
    PropType::U32,
    "128",
    "Most commands at once for a unit",
);
const HOTPLUG: Prop = prop(
    "hotplug",
    PropType::Bool,
    "on",
    "Tell the guest of units that come and go",
);
const PARAM_CHANGE: Prop = prop(
    "param_change",
    PropType::Bool,
    "on",
    "Tell the guest of units that change",
);

const MAX_PORTS: Prop = prop("max_ports", PropType::U32, "31", "Ports of the controller");
const EMERGENCY_WRITE: Prop = prop(
    "emergency-write",
    PropType::Bool,
    "on",
    "Output through the configuration space",
);
const CHARDEV: Prop = prop("chardev", PropType::Link("chardev"), "", "Character device");
const NR: Prop = prop("nr", PropType::U32, "", "Number of the port");
const NAME: Prop = prop(
    "name",
    PropType::Str,
    "",
    "Name by which the guest finds the port",
);

/// Properties of a device on MMIO.
macro_rules! mmio {
    ($($own:expr),* $(,)?) => {
        &[$($own,)* INDIRECT_DESC, EVENT_IDX, PACKED, IOMMU_PLATFORM]
    };
}

/// Properties of a device on PCI whose name says which interfaces it has.
macro_rules! pci_fixed {
    ($($own:expr),* $(,)?) => {
        &[
            $($own,)* VECTORS, PAGE_PER_VQ, INDIRECT_DESC, EVENT_IDX, PACKED, IOMMU_PLATFORM,
            ADDR, MULTIFUNCTION, ROMFILE, ROMBAR, ACPI_INDEX
        ]
    };
}

/// Properties of a device on PCI.
macro_rules! pci {
    ($($own:expr),* $(,)?) => {
        pci_fixed![$($own,)* DISABLE_LEGACY, DISABLE_MODERN]
    };
}

macro_rules! rng_props {
    ($bus:ident) => {
        $bus![RNG, MAX_BYTES, PERIOD]
    };
}

macro_rules! blk_props {
    ($bus:ident) => {
        $bus![
            DRIVE,
            IOTHREAD,
            SERIAL,
            NUM_QUEUES,
            QUEUE_SIZE,
            SEG_MAX_ADJUST,
            LOGICAL_BLOCK_SIZE,
            PHYSICAL_BLOCK_SIZE,
            MIN_IO_SIZE,
            OPT_IO_SIZE,
            DISCARD,
            WRITE_ZEROES,
            MAX_DISCARD,
            MAX_WRITE_ZEROES,
            CONFIG_WCE,
            WRITE_CACHE,
            SHARE_RW,
            WERROR,
            RERROR,
            BOOTINDEX
        ]
    };
}

macro_rules! scsi_props {
    ($bus:ident) => {
        $bus![
            IOTHREAD,
            SCSI_QUEUES,
            VIRTQUEUE_SIZE,
            SCSI_SEG_MAX_ADJUST,
            MAX_SECTORS,
            CMD_PER_LUN,
            HOTPLUG,
            PARAM_CHANGE
        ]
    };
}

macro_rules! serial_props {
    ($bus:ident) => {
        $bus![MAX_PORTS, EMERGENCY_WRITE]
    };
}

type Made = Result<Box<dyn VirtioDevice>, DeviceError>;
type Make = fn(&Args, &mut Links) -> Made;

fn rng(args: &Args, links: &mut Links) -> Made {
    let source = args.link::<Box<dyn Randomness>>("rng", links)?;
    let limit = args.need_int("max-bytes")?;
    let quota = Quota {
        // The default is no limit at all.
        max_bytes: if limit >= i64::MAX.unsigned_abs() {
            u64::MAX
        } else {
            limit
        },
        period_ms: args.need_int("period")?,
    };
    Ok(Box::new(Rng::new(
        source.unwrap_or_else(|| Box::new(Builtin)),
        quota,
    )))
}

fn narrow<T: TryFrom<u64>>(args: &Args, name: &'static str) -> Result<T, DeviceError> {
    let value = args.need_int(name)?;
    T::try_from(value).map_err(|_| DeviceError::BadValue {
        class: args.class().name,
        name: name.into(),
        value: value.to_string(),
        wanted: "small enough".into(),
    })
}

fn blk(args: &Args, links: &mut Links) -> Made {
    let disk = args.link::<SharedBlock>("drive", links)?;
    let disk = disk.ok_or_else(|| args.required("drive"))?;
    let info = disk.info();
    let flag = |name: &str| args.flag(name).unwrap_or(true);
    let num_queues = match args.need_int("num-queues")? {
        AUTO_QUEUES => 1,
        _ => narrow(args, "num-queues")?,
    };
    let options = BlkOptions {
        serial: args.text("serial").unwrap_or_default().into(),
        num_queues,
        queue_size: narrow(args, "queue-size")?,
        seg_max_adjust: flag("seg-max-adjust"),
        logical_block_size: narrow(args, "logical_block_size")?,
        physical_block_size: narrow(args, "physical_block_size")?,
        min_io_size: narrow(args, "min_io_size")?,
        opt_io_size: narrow(args, "opt_io_size")?,
        discard: flag("discard"),
        write_zeroes: flag("write-zeroes"),
        max_discard_sectors: narrow(args, "max-discard-sectors")?,
        max_write_zeroes_sectors: narrow(args, "max-write-zeroes-sectors")?,
        config_wce: flag("config-wce"),
        write_back: args.flag("write-cache").unwrap_or(info.write_back),
        read_only: info.read_only,
    };
    Ok(Box::new(Blk::new(disk, options)?))
}

fn scsi(args: &Args, _: &mut Links) -> Made {
    let flag = |name| args.flag(name).unwrap_or(true);
    let num_queues = match args.need_int("num_queues")? {
        AUTO_SCSI_QUEUES => 1,
        _ => narrow(args, "num_queues")?,
    };
    Ok(Box::new(Scsi::new(ScsiOptions {
        num_queues,
        queue_size: narrow(args, "virtqueue_size")?,
        seg_max_adjust: flag("seg_max_adjust"),
        max_sectors: narrow(args, "max_sectors")?,
        cmd_per_lun: narrow(args, "cmd_per_lun")?,
        hotplug: flag("hotplug"),
        param_change: flag("param_change"),
    })?))
}

fn serial(args: &Args, _: &mut Links) -> Made {
    let max_ports = narrow(args, "max_ports")?;
    let emergency = args.flag("emergency-write").unwrap_or(true);
    Ok(Box::new(Serial::new(max_ports, emergency)?))
}

fn port(args: &Args, links: &mut Links) -> Result<Box<dyn Device>, DeviceError> {
    let host = args.link::<CharFrontend>("chardev", links)?;
    Ok(Box::new(SerialPort::new(PortSpec {
        nr: args.int("nr").and_then(|nr| u32::try_from(nr).ok()),
        name: args.text("name").unwrap_or_default().into(),
        is_console: args.class().name == "virtconsole",
        host: host.map(|host| Box::new(host) as Box<dyn crate::PortHost>),
    })))
}

fn ring(args: &Args) -> Options {
    let flag = |name: &str| args.flag(name).unwrap_or(false);
    Options {
        indirect_desc: flag("indirect_desc"),
        event_idx: flag("event_idx"),
        packed: flag("packed"),
        iommu_platform: flag("iommu_platform"),
        ..Options::default()
    }
}

fn on_mmio(args: &Args, links: &mut Links, make: Make) -> Result<Box<dyn Device>, DeviceError> {
    Ok(Box::new(VirtioMmio::new(make(args, links)?, ring(args))))
}

fn on_pci(args: &Args, links: &mut Links, make: Make) -> Result<Box<dyn Device>, DeviceError> {
    let name = args.class().name;
    let disable_legacy = match args.flag("disable-legacy") {
        _ if name.ends_with("-non-transitional") => DisableLegacy::On,
        _ if name.ends_with("-transitional") => DisableLegacy::Off,
        Some(true) => DisableLegacy::On,
        Some(false) => DisableLegacy::Off,
        None => DisableLegacy::Auto,
    };
    let vectors = match args.text("vectors") {
        Some(_) => Some(narrow(args, "vectors")?),
        None => None,
    };
    let options = VirtioPciOptions {
        disable_legacy,
        disable_modern: args.flag("disable-modern").unwrap_or(false),
        vectors,
        page_per_vq: args.flag("page-per-vq").unwrap_or(false),
        ring: ring(args),
        ..VirtioPciOptions::new(name)
    };
    let pci = PciOptions::from_args(args)?;
    let device = make(args, links)?;
    Ok(Box::new(VirtioPci::new(device, options, pci)))
}

/// The four classes of a device: MMIO, PCI, and PCI with and without the legacy interface.
macro_rules! classes {
    ($make:ident, $props:ident, $category:expr, $doc:literal,
     $mmio:literal, $pci:literal, $alias:literal, $old:literal, $new:literal) => {
        [
            &DeviceClass {
                name: $mmio,
                aliases: &[],
                doc: $doc,
                bus: BusKind::Virtio,
                category: $category,
                props: $props!(mmio),
                user_creatable: true,
                create: |args, links| on_mmio(args, links, $make),
            },
            &DeviceClass {
                name: $pci,
                aliases: &[$alias],
                doc: $doc,
                bus: BusKind::Pci,
                category: $category,
                props: $props!(pci),
                user_creatable: true,
                create: |args, links| on_pci(args, links, $make),
            },
            &DeviceClass {
                name: $old,
                aliases: &[],
                doc: $doc,
                bus: BusKind::Pci,
                category: $category,
                props: $props!(pci_fixed),
                user_creatable: true,
                create: |args, links| on_pci(args, links, $make),
            },
            &DeviceClass {
                name: $new,
                aliases: &[],
                doc: $doc,
                bus: BusKind::Pci,
                category: $category,
                props: $props!(pci_fixed),
                user_creatable: true,
                create: |args, links| on_pci(args, links, $make),
            },
        ]
    };
}

static RNG_CLASSES: [&DeviceClass; 4] = classes!(
    rng,
    rng_props,
    Category::Misc,
    "virtio entropy source",
    "virtio-rng-device",
    "virtio-rng-pci",
    "virtio-rng",
    "virtio-rng-pci-transitional",
    "virtio-rng-pci-non-transitional"
);

static BLK_CLASSES: [&DeviceClass; 4] = classes!(
    blk,
    blk_props,
    Category::Storage,
    "virtio disk",
    "virtio-blk-device",
    "virtio-blk-pci",
    "virtio-blk",
    "virtio-blk-pci-transitional",
    "virtio-blk-pci-non-transitional"
);

static SCSI_CLASSES: [&DeviceClass; 4] = classes!(
    scsi,
    scsi_props,
    Category::Storage,
    "virtio SCSI host adapter",
    "virtio-scsi-device",
    "virtio-scsi-pci",
    "virtio-scsi",
    "virtio-scsi-pci-transitional",
    "virtio-scsi-pci-non-transitional"
);

static SERIAL_CLASSES: [&DeviceClass; 4] = classes!(
    serial,
    serial_props,
    Category::Input,
    "virtio console controller",
    "virtio-serial-device",
    "virtio-serial-pci",
    "virtio-serial",
    "virtio-serial-pci-transitional",
    "virtio-serial-pci-non-transitional"
);

const fn port_class(name: &'static str, doc: &'static str) -> DeviceClass {
    DeviceClass {
        name,
        aliases: &[],
        doc,
        bus: BusKind::VirtioSerial,
        category: Category::Input,
        props: &[CHARDEV, NR, NAME],
        user_creatable: true,
        create: port,
    }
}

static VIRTCONSOLE: DeviceClass = port_class("virtconsole", "virtio console");
static VIRTSERIALPORT: DeviceClass = port_class("virtserialport", "virtio serial port");

const fn all() -> [&'static DeviceClass; 19] {
    let [r0, r1, r2, r3] = RNG_CLASSES;
    let [b0, b1, b2, b3] = BLK_CLASSES;
    let [c0, c1, c2, c3] = SCSI_CLASSES;
    let [s0, s1, s2, s3] = SERIAL_CLASSES;
    [
        r0,
        r1,
        r2,
        r3,
        b0,
        b1,
        b2,
        b3,
        c0,
        c1,
        c2,
        c3,
        s0,
        s1,
        s2,
        s3,
        &VIRTCONSOLE,
        &VIRTSERIALPORT,
        &VIRTIO_MMIO,
    ]
}

/// The classes of this crate.
pub static CLASSES: &[&DeviceClass] = &all();

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    use hw_core::{Fabric, Placement, ResetKind};
    use hw_pci::PciBus;

    fn class(name: &str) -> &'static DeviceClass {
        let named = |c: &&&DeviceClass| c.name == name || c.aliases.contains(&name);
        CLASSES.iter().find(named).unwrap()
    }

    fn create(
        name: &str,
        given: &[(&str, &str)],
        links: &mut Links,
    ) -> Result<Box<dyn Device>, DeviceError> {
        let args = Args::new(class(name), given.iter().copied())?;
        (args.class().create)(&args, links)
    }

    fn drive(links: &mut Links) {
        let disk: SharedBlock = backend_block::zero_disk("d0", 1 << 20).unwrap();
        links.offer("drive", "d0", disk);
    }

    #[test]
    fn pci_devices_are_made_from_properties() {
        let fabric = Fabric::new(hw_core::Clock::manual().0);
        let bus = PciBus::new("pci.0", false, Arc::new(|_: u32, _: bool| {}));
        let mut links = Links::default();
        drive(&mut links);
        let devices = [
            create("virtio-rng", &[("addr", "5")], &mut links).unwrap(),
            create(
                "virtio-blk-pci",
                &[("drive", "d0"), ("serial", "x")],
                &mut links,
            )
            .unwrap(),
            create("virtio-serial-pci-non-transitional", &[], &mut links).unwrap(),
        ];
        for (n, device) in devices.into_iter().enumerate() {
            let placement = Placement {
                path: format!("dev{n}"),
                bus: Some(&bus),
                ..Placement::default()
            };
            fabric.add(device, placement).unwrap();
        }
        fabric.reset(ResetKind::Cold);
        let seen: Vec<_> = bus.functions().iter().map(|f| (f.slot, f.device)).collect();
        assert_eq!(seen, [(0, 0x1001), (1, 0x1043), (5, 0x1005)]);
        let port = create("virtconsole", &[("name", "org.example")], &mut links).unwrap();
        let serial = fabric.find("dev2").unwrap();
        let child = serial.with(|d| d.child_buses()).remove(0);
        assert_eq!(child.kind, BusKind::VirtioSerial);
        let placement = Placement {
            path: "port".into(),
            bus: Some(child.bus.as_ref()),
            ..Placement::default()
        };
        fabric.add(port, placement).unwrap();
    }

    #[test]
    fn a_disk_needs_a_drive_that_is_there() {
        let mut links = Links::default();
        let error = create("virtio-blk-device", &[], &mut links).err().unwrap();
        assert!(error.to_string().contains("needs drive="));
        let given = [("drive", "d0")];
        let error = create("virtio-blk-device", &given, &mut links)
            .err()
            .unwrap();
        assert!(error.to_string().contains("no drive has the id 'd0'"));
        drive(&mut links);
        assert!(create("virtio-blk-device", &given, &mut links).is_ok());
    }

    #[test]
    fn names_are_unique_and_defaults_valid() {
        let mut names: Vec<_> = CLASSES.iter().map(|c| c.name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), CLASSES.len());
        for class in CLASSES {
            let given = class.props.iter().filter(|p| !p.default.is_empty());
            Args::new(class, given.map(|p| (p.name, p.default))).unwrap();
        }
    }
}
