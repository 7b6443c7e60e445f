//! Properties of devices that have a drive.

use crate::class::{Prop, PropType, prop};

/// `drive`
pub const DRIVE: Prop = prop("drive", PropType::Link("drive"), "", "Disk to attach");
/// `drive` of what takes media out and in.
pub const MEDIUM: Prop = prop(
    "drive",
    PropType::Link("medium"),
    "",
    "Drive with the medium, or an empty one",
);
/// `bootindex`
pub const BOOTINDEX: Prop = prop("bootindex", PropType::I32, "", "Position in the boot order");
/// `share-rw`
pub const SHARE_RW: Prop = prop(
    "share-rw",
    PropType::Bool,
    "off",
    "Let others write to the drive too",
);
/// `write-cache`
pub const WRITE_CACHE: Prop = prop(
    "write-cache",
    PropType::OnOffAuto,
    "auto",
    "Write cache; as the drive has it if auto",
);

/// `werror`, with the policies that there are.
pub const fn werror(policies: &'static [&'static str]) -> Prop {
    prop(
        "werror",
        PropType::Enum(policies),
        "auto",
        "What a failed write does; as the drive has it if auto",
    )
}

/// `rerror`, with the policies that there are.
pub const fn rerror(policies: &'static [&'static str]) -> Prop {
    prop(
        "rerror",
        PropType::Enum(policies),
        "auto",
        "What a failed read does; as the drive has it if auto",
    )
}
