//! The PCs that there are: the source of `-machine help`, `query-machines` and the options of
//! `-machine`.

use control_options::topology::Level;
use hw_core::{BusKind, Prop, PropType};
use machine_core::{MachineDef, absent, switch};

/// A kind of PC.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Kind {
    /// i440FX and PIIX3.
    Pc,
    /// Q35 and ICH9.
    Q35,
    /// No PCI, virtio-mmio, nothing legacy unless asked for.
    Microvm,
    /// Nothing but memory.
    None,
}

impl Kind {
    /// The kind of a machine.
    pub(crate) fn of(machine: &MachineDef) -> Self {
        match machine.family {
            "pc" => Kind::Pc,
            "q35" => Kind::Q35,
            "microvm" => Kind::Microvm,
            _ => Kind::None,
        }
    }
}

/// Properties of `pc` and `q35`.
const PC_PROPS: &[Prop] = &[
    switch("acpi", "auto", "ACPI tables and power management"),
    absent(
        "default-bus-bypass-iommu",
        "Devices of the first bus past an IOMMU",
    ),
    switch(
        "fd-bootchk",
        "on",
        "Firmware looks for the signature of boot sectors of floppies",
    ),
    absent("hmat", "Heterogeneous memory attributes table"),
    switch("hpet", "auto", "High precision event timer"),
    switch("i8042", "on", "Keyboard controller"),
    Prop {
        name: "max-ram-below-4g",
        ty: PropType::Size,
        default: "0",
        doc: "Limit of low memory; 0 for the default",
    },
    absent("nvdimm", "Persistent memory modules"),
    Prop {
        name: "pcspk-audiodev",
        ty: PropType::Str,
        default: "",
        doc: "Sound backend of the speaker",
    },
    switch("pic", "on", "i8259 interrupt controllers"),
    switch("pit", "on", "i8254 timer"),
    switch("sata", "on", "The AHCI controller of q35"),
    absent("smbus", "SMBus host controller"),
    Prop {
        name: "smbios-entry-point-type",
        ty: PropType::Enum(&["auto", "32", "64"]),
        default: "auto",
        doc: "Which entry point SMBIOS has; auto: 64 if the tables need it",
    },
    absent("smm", "System management mode"),
    absent("vmport", "VMware port"),
];

/// Properties of `microvm`.
const MICROVM_PROPS: &[Prop] = &[
    switch("acpi", "auto", "ACPI tables"),
    switch(
        "auto-kernel-cmdline",
        "on",
        "Virtio-mmio devices are added to the kernel command line",
    ),
    absent("ioapic2", "Second I/O APIC"),
    switch("isa-serial", "on", "Serial port at 0x3f8"),
    absent("pcie", "PCI Express host bridge"),
    switch("pic", "auto", "i8259 interrupt controllers"),
    switch("pit", "auto", "i8254 timer"),
    switch("rtc", "auto", "MC146818 clock"),
    absent("x-option-roms", "Firmware option ROMs"),
];

/// What all PCs have in common.
const PC: MachineDef = MachineDef {
    name: "pc",
    alias: None,
    doc: "Standard PC (i440FX + PIIX, 1996)",
    family: "pc",
    is_default: false,
    max_cpus: 255,
    own_props: PC_PROPS,
    default_cpu: Some("qemu64"),
    ram_id: "pc.ram",
    buses: &[
        BusKind::Isa,
        BusKind::Pci,
        BusKind::VirtioSerial,
        BusKind::Ide,
        BusKind::Scsi,
        BusKind::Nvme,
    ],
    levels: &[Level::Dies],
    virtio_form: "-pci",
    drive_interface: "ide",
    flash_chips: 2,
    ide: (2, 2),
};

const fn pc(name: &'static str, alias: Option<&'static str>, is_default: bool) -> MachineDef {
    MachineDef {
        name,
        alias,
        is_default,
        ..PC
    }
}

const fn q35(name: &'static str, alias: Option<&'static str>) -> MachineDef {
    MachineDef {
        doc: "Standard PC (Q35 + ICH9, 2009)",
        family: "q35",
        max_cpus: 288,
        ide: (6, 1),
        ..pc(name, alias, false)
    }
}

/// All PCs.
pub static MACHINES: &[MachineDef] = &[
    MachineDef {
        name: "microvm",
        doc: "microvm (i386)",
        family: "microvm",
        max_cpus: 288,
        own_props: MICROVM_PROPS,
        buses: &[
            BusKind::Isa,
            BusKind::Virtio,
            BusKind::VirtioSerial,
            BusKind::Scsi,
        ],
        virtio_form: "-device",
        drive_interface: "virtio",
        ide: (0, 0),
        flash_chips: 0,
        ..PC
    },
    MachineDef {
        name: "none",
        doc: "empty machine",
        family: "none",
        max_cpus: 1,
        own_props: &[],
        default_cpu: None,
        buses: &[],
        ide: (0, 0),
        flash_chips: 0,
        ..PC
    },
    pc("pc-i440fx-10.0", Some("pc"), true),
    pc("pc-i440fx-7.2", None, false),
    q35("pc-q35-10.0", Some("q35")),
    q35("pc-q35-7.2", None),
];
