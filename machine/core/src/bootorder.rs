//! What firmware boots from first: `bootindex=` and `-boot strict=on`.
//!
//! The list goes to firmware as the fw_cfg file `bootorder` (SeaBIOS, `docs/Runtime_config.md`):
//! Open Firmware paths, one a line.

use crate::board::BoardError;
use crate::spec::DeviceSpec;

/// The fw_cfg file.
pub const FILE: &str = "bootorder";
/// The option ROM that starts the kernel of `-kernel` from a BIOS, as a boot device.
pub const KERNEL_ROM: &str = "/rom@genroms/linuxboot_dma.bin";
/// Comes before every device that a user can ask for.
const KERNEL_INDEX: i64 = -1;

/// Paths of boot devices by their index.
#[derive(Default)]
pub struct BootOrder {
    entries: Vec<(i64, String)>,
}

impl BootOrder {
    /// Adds a device if it has a `bootindex`.
    pub fn add(&mut self, device: &DeviceSpec, path: &str) -> Result<(), BoardError> {
        let index = device.args.int("bootindex").map(u64::cast_signed);
        let Some(index) = index.filter(|index| *index >= 0) else {
            return Ok(());
        };
        if self.entries.iter().any(|(taken, _)| *taken == index) {
            return Err(BoardError::Config(format!(
                "-device {}: bootindex={index} is another device's already; give each its own",
                device.class.name
            )));
        }
        self.entries.push((index, path.to_owned()));
        Ok(())
    }

    /// Puts the kernel of `-kernel` before everything else.
    pub fn add_kernel(&mut self) {
        self.entries.push((KERNEL_INDEX, KERNEL_ROM.to_owned()));
    }

    /// The file's contents; `None` if nothing has an index.
    pub fn file(&self, strict: bool) -> Option<Vec<u8>> {
        let mut entries: Vec<_> = self.entries.iter().collect();
        entries.sort();
        let mut lines: Vec<&str> = entries.iter().map(|(_, path)| path.as_str()).collect();
        if lines.is_empty() {
            return None;
        }
        if strict {
            lines.push("HALT");
        }
        let mut bytes = lines.join("\n").into_bytes();
        bytes.push(0);
        Some(bytes)
    }
}

#[cfg(test)]
mod tests {
    use hw_core::{Args, Device, DeviceClass, DeviceError, Prop, PropType};

    use super::*;

    static DISK: DeviceClass = DeviceClass {
        name: "disk",
        aliases: &[],
        doc: "a disk",
        bus: hw_core::BusKind::Pci,
        category: hw_core::Category::Storage,
        user_creatable: true,
        props: &[Prop {
            name: "bootindex",
            ty: PropType::I32,
            default: "",
            doc: "",
        }],
        create: |_, _| -> Result<Box<dyn Device>, DeviceError> {
            Err(DeviceError::Other("not for use".into()))
        },
    };

    fn disk(bootindex: Option<&str>) -> DeviceSpec {
        let given = bootindex.map(|index| ("bootindex", index));
        DeviceSpec {
            class: &DISK,
            id: None,
            bus: None,
            args: Args::new(&DISK, given).unwrap(),
        }
    }

    #[test]
    fn devices_come_by_their_index_and_strict_ends_the_list() {
        let mut order = BootOrder::default();
        assert_eq!(order.file(true), None);
        order
            .add(&disk(Some("7")), "/pci@i0cf8/scsi@4/disk@0,0")
            .unwrap();
        order.add(&disk(None), "/pci@i0cf8/scsi@5").unwrap();
        order
            .add(&disk(Some("0")), "/pci@i0cf8/scsi@3,1/disk@0,0")
            .unwrap();
        assert!(order.add(&disk(Some("7")), "/pci@i0cf8/scsi@6").is_err());
        assert_eq!(
            order.file(true).unwrap(),
            b"/pci@i0cf8/scsi@3,1/disk@0,0\n/pci@i0cf8/scsi@4/disk@0,0\nHALT\0"
        );
        order.add_kernel();
        let text = order.file(false).unwrap();
        assert!(text.starts_with(b"/rom@genroms/linuxboot_dma.bin\n") && text.ends_with(b"0,0\0"));
    }
}
