//! Starting a bzImage from a PC BIOS: what goes into `fw_cfg` for the option ROM.
//!
//! Spec: Linux `Documentation/arch/x86/boot.rst`, real-mode protocol; the items' keys are QEMU's.

use std::borrow::Cow;

use crate::bytes::{put, u8_at};
use crate::place::{highest, with_zero};
use crate::{Boot, BzImage, E820, E820Kind, LoadError, single};

/// Where the option ROM has the parts put: fixed, because its code says so, too.
const KERNEL_ADDRESS: u32 = 0x10_0000;
const SETUP_ADDRESS: u32 = 0x1_0000;
const CMDLINE_ADDRESS: u32 = 0x2_0000;
/// The set-up code's heap ends below its stack, relative to the set-up code.
const HEAP_END: u16 = 0xfe00;
/// What the set-up code leaves for its heap and stack: less than 64 KiB in all.
const SETUP_ROOM: usize = 0xf000;
/// What a BIOS keeps for its own tables at the top of RAM below 4 GiB.
const BIOS_TOP: u64 = 0x4_0000;

/// `type_of_loader` assigned to QEMU, whose interface this is.
const LOADER_TYPE: u8 = 0xb0;
/// `loadflags` bit 7: `heap_end_ptr` is valid.
const CAN_USE_HEAP: u8 = 0x80;

/// Keys of the items, QEMU's `FW_CFG_*`.
mod key {
    pub(super) const KERNEL_ADDR: u16 = 0x07;
    pub(super) const KERNEL_SIZE: u16 = 0x08;
    pub(super) const INITRD_ADDR: u16 = 0x0a;
    pub(super) const INITRD_SIZE: u16 = 0x0b;
    pub(super) const KERNEL_DATA: u16 = 0x11;
    pub(super) const INITRD_DATA: u16 = 0x12;
    pub(super) const CMDLINE_ADDR: u16 = 0x13;
    pub(super) const CMDLINE_SIZE: u16 = 0x14;
    pub(super) const CMDLINE_DATA: u16 = 0x15;
    pub(super) const SETUP_ADDR: u16 = 0x16;
    pub(super) const SETUP_SIZE: u16 = 0x17;
    pub(super) const SETUP_DATA: u16 = 0x18;
}

/// A `fw_cfg` item: key and contents.
pub type FirmwareItem<'a> = (u16, Cow<'a, [u8]>);

impl<'a> BzImage<'a> {
    /// The `fw_cfg` items from which [`linux_option_rom`](crate::linux_option_rom) starts this
    /// kernel after a BIOS has run. Only `cmdline`, `modules` and `e820` of `boot` are used.
    pub fn firmware_items(&self, boot: &Boot<'a>) -> Result<Vec<FirmwareItem<'a>>, LoadError> {
        let text = boot.cmdline;
        if text.len() > self.cmdline_size {
            return Err(LoadError::LongCommandLine {
                len: text.len(),
                max: self.cmdline_size,
            });
        }
        let cmdline = with_zero(text);
        let initrd = single(boot)?.map_or(&[][..], |m| m.bytes);
        let initrd_at = if initrd.is_empty() {
            0
        } else {
            self.initrd_below_bios(boot.e820, initrd)?
        };

        let mut setup = self.setup.to_vec();
        if setup.len() > SETUP_ROOM {
            return Err(LoadError::Damaged {
                what: "Linux bzImage",
                why: format!("its set-up code takes {} bytes", setup.len()),
            });
        }
        put(&mut setup, 0x1fa, &video_mode(text).to_le_bytes());
        put(&mut setup, 0x210, &[LOADER_TYPE]);
        let flags = u8_at(&setup, 0x211).unwrap_or(0) | CAN_USE_HEAP;
        put(&mut setup, 0x211, &[flags]);
        put(&mut setup, 0x218, &initrd_at.to_le_bytes());
        put(&mut setup, 0x21c, &(initrd.len() as u32).to_le_bytes());
        put(&mut setup, 0x224, &HEAP_END.to_le_bytes());
        put(&mut setup, 0x228, &CMDLINE_ADDRESS.to_le_bytes());

        let word = |value: u32| Cow::Owned(value.to_le_bytes().to_vec());
        let len = |bytes: &[u8]| word(bytes.len() as u32);
        Ok(vec![
            (key::KERNEL_ADDR, word(KERNEL_ADDRESS)),
            (key::KERNEL_SIZE, len(self.kernel)),
            (key::KERNEL_DATA, Cow::Borrowed(self.kernel)),
            (key::INITRD_ADDR, word(initrd_at)),
            (key::INITRD_SIZE, len(initrd)),
            (key::INITRD_DATA, Cow::Borrowed(initrd)),
            (key::CMDLINE_ADDR, word(CMDLINE_ADDRESS)),
            (key::CMDLINE_SIZE, len(&cmdline)),
            (key::CMDLINE_DATA, Cow::Owned(cmdline)),
            (key::SETUP_ADDR, word(SETUP_ADDRESS)),
            (key::SETUP_SIZE, len(&setup)),
            (key::SETUP_DATA, Cow::Owned(setup)),
        ])
    }

    /// Room for the initrd that the BIOS leaves alone, above the kernel.
    fn initrd_below_bios(&self, map: &[E820], initrd: &[u8]) -> Result<u32, LoadError> {
        let low = map
            .iter()
            .filter(|r| r.kind == E820Kind::Ram && r.base < 1 << 32);
        let top = low.map(|r| r.base.saturating_add(r.len)).max().unwrap_or(0);
        let limit = top
            .saturating_sub(BIOS_TOP)
            .min(self.initrd_limit().saturating_add(1));
        let floor = u64::from(KERNEL_ADDRESS).saturating_add(self.kernel.len() as u64);
        let len = initrd.len() as u64;
        highest(map, len, floor, limit)
            .and_then(|at| u32::try_from(at).ok())
            .ok_or(LoadError::NoRoom {
                what: "the initrd",
                len,
                hint: String::new(),
            })
    }
}

/// `vid_mode` of a `vga=` word on the command line.
fn video_mode(cmdline: &str) -> u16 {
    const NORMAL: u16 = 0xffff;
    let word = cmdline
        .split_ascii_whitespace()
        .find_map(|word| word.strip_prefix("vga="));
    match word {
        None | Some("normal") => NORMAL,
        Some("ext") => 0xfffe,
        Some("ask") => 0xfffd,
        Some(number) => match number.strip_prefix("0x") {
            Some(hex) => u16::from_str_radix(hex, 16).unwrap_or(NORMAL),
            None => number.parse().unwrap_or(NORMAL),
        },
    }
}
