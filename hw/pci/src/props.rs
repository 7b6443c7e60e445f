//! Properties that every PCI function has.

use hw_core::{Prop, PropType};

/// `addr=SLOT.FUNCTION`
pub const ADDR: Prop = Prop {
    name: "addr",
    ty: PropType::PciAddress,
    default: "",
    doc: "Slot and optional function number, example: 06.0 or 06",
};
/// `multifunction=on`
pub const MULTIFUNCTION: Prop = Prop {
    name: "multifunction",
    ty: PropType::Bool,
    default: "off",
    doc: "Other functions may share the slot",
};
/// `romfile=FILE`
pub const ROMFILE: Prop = Prop {
    name: "romfile",
    ty: PropType::Str,
    default: "",
    doc: "File with the expansion ROM",
};
/// `rombar=0`
pub const ROMBAR: Prop = Prop {
    name: "rombar",
    ty: PropType::U32,
    default: "1",
    doc: "Whether the expansion ROM has a BAR",
};
/// `acpi-index=N`
pub const ACPI_INDEX: Prop = Prop {
    name: "acpi-index",
    ty: PropType::U32,
    default: "0",
    doc: "Number by which the guest names the device",
};
