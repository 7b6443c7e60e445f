//! The Arm machines that there are: the source of `-machine help`, `query-machines` and the options
//! of `-machine`.

use control_options::topology::Level;
use hw_core::{BusKind, Prop, PropType};
use machine_core::{MachineDef, absent, switch};

const VIRT_PROPS: &[Prop] = &[
    switch("acpi", "auto", "ACPI tables for UEFI firmware"),
    switch(
        "compact-highmem",
        "on",
        "Parts above 4 GiB that are not there leave no gap",
    ),
    switch(
        "default-bus-bypass-iommu",
        "off",
        "Devices of the first PCI bus go past the IOMMU; without one, they do",
    ),
    Prop {
        name: "dt-compatible",
        ty: PropType::Str,
        default: "",
        doc: "What the device tree says the machine is, instead of linux,dummy-virt",
    },
    switch(
        "dtb-kaslr-seed",
        "on",
        "Old name of dtb-randomness, which counts if both are given",
    ),
    switch(
        "dtb-randomness",
        "on",
        "Random seeds in the device tree, for the kernel's addresses and its generator",
    ),
    Prop {
        name: "dumpdtb",
        ty: PropType::Str,
        default: "",
        doc: "Write the device tree into this file and exit",
    },
    Prop {
        name: "gic-version",
        ty: PropType::Enum(&["2", "3", "4", "host", "max"]),
        default: "2",
        doc: "Version of the interrupt controller; max: the newest there is",
    },
    switch(
        "highmem",
        "on",
        "Parts above 4 GiB: PCI memory and configuration space",
    ),
    switch(
        "highmem-ecam",
        "on",
        "PCI configuration space of 256 buses, above 4 GiB",
    ),
    switch("highmem-mmio", "on", "PCI memory above 4 GiB"),
    Prop {
        name: "highmem-mmio-size",
        ty: PropType::Size,
        default: "512G",
        doc: "Size of the PCI memory above 4 GiB",
    },
    switch(
        "highmem-redists",
        "on",
        "Redistributors of the GICv3 above 4 GiB, for more than 123 CPUs",
    ),
    Prop {
        name: "iommu",
        ty: PropType::Enum(&["none", "smmuv3"]),
        default: "none",
        doc: "IOMMU in front of PCI",
    },
    switch(
        "its",
        "on",
        "Interrupt translation service of the GICv3: messages of PCI devices",
    ),
    absent("mte", "Memory tagging"),
    absent("ras", "Memory errors of the host are told to guests"),
    switch(
        "secure",
        "off",
        "CPUs have EL3; firmware begins there, and has memory and devices of its own",
    ),
    switch(
        "virtualization",
        "off",
        "CPUs have EL2; firmware is called by SMC",
    ),
];

const VIRT: MachineDef = MachineDef {
    name: "virt",
    alias: None,
    doc: "QEMU 10.0 ARM Virtual Machine",
    family: "virt",
    is_default: false,
    max_cpus: 512,
    own_props: VIRT_PROPS,
    // QEMU's is the 32-bit cortex-a15, which no kernel for this guest runs on.
    default_cpu: Some("cortex-a57"),
    ram_id: "mach-virt.ram",
    buses: &[
        BusKind::Pci,
        BusKind::Virtio,
        BusKind::VirtioSerial,
        BusKind::Ide,
        BusKind::Scsi,
        BusKind::Nvme,
    ],
    levels: &[Level::Clusters],
    virtio_form: "-pci",
    drive_interface: "virtio",
    flash_chips: 2,
    ide: (0, 0),
};

/// The machine of no parts.
pub(crate) const NONE: &str = "none";

/// All Arm machines.
pub static MACHINES: &[MachineDef] = &[
    MachineDef {
        name: "virt-10.0",
        alias: Some("virt"),
        ..VIRT
    },
    MachineDef {
        name: "virt-7.2",
        doc: "QEMU 7.2 ARM Virtual Machine",
        ..VIRT
    },
    MachineDef {
        name: NONE,
        doc: "empty machine",
        family: "none",
        max_cpus: 1,
        own_props: &[],
        default_cpu: None,
        buses: &[],
        levels: &[],
        flash_chips: 0,
        ..VIRT
    },
];
