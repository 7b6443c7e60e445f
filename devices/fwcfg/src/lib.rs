//! `fw_cfg`: how firmware and kernels read what the machine is made of.
//!
//! Spec: QEMU `docs/specs/fw_cfg.rst`. The port form lies at 0x510 (selector and data) and 0x514
//! (DMA), the memory-mapped form has data, selector and DMA at offsets 0, 8 and 16.
//!
//! A selected item is read byte by byte, or moved whole by DMA: the guest writes the address of a
//! control structure, and all that structure says is checked by [`Dma`].
//!
//! Not modelled: writes through the data register (removed from the specification long ago).
#![deny(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects
)]
#![cfg_attr(test, allow(clippy::indexing_slicing, clippy::arithmetic_side_effects))]

use hw_core::{
    Access, AccessSizes, BusKind, ByteOrder, Category, Device, DeviceClass, DeviceError, Dma,
    Fault, Initiator, Prop, PropType, Region, RegionId, ResetKind, Section, StateError, Value,
    Wiring,
};

mod items;
pub mod keys;

pub use items::{ItemError, Items, UserItem};

/// The classes of this crate.
pub const CLASSES: &[&DeviceClass] = &[&FW_CFG_IO, &FW_CFG_MEM];

/// The port form.
pub static FW_CFG_IO: DeviceClass = DeviceClass {
    name: "fw_cfg_io",
    aliases: &[],
    doc: "firmware configuration device at I/O ports",
    bus: BusKind::System,
    category: Category::Misc,
    props: &[],
    user_creatable: false,
    create: |_, _| Ok(Box::new(FwCfg::at_ports())),
};

/// The memory-mapped form.
pub static FW_CFG_MEM: DeviceClass = DeviceClass {
    name: "fw_cfg_mem",
    aliases: &[],
    doc: "firmware configuration device in memory",
    bus: BusKind::System,
    category: Category::Misc,
    props: &[Prop {
        name: "base",
        ty: PropType::U64,
        default: "",
        doc: "first address",
    }],
    user_creatable: false,
    create: |args, _| Ok(Box::new(FwCfg::at_memory(args.need_int("base")?))),
};

/// First of the ports: selector (16 bits) and, one above, data.
pub const PORT: u64 = 0x510;
/// DMA address register, big-endian.
pub const DMA_PORT: u64 = 0x514;

/// What the DMA register reads as: "QEMU CFG".
const DMA_SIGNATURE: u64 = 0x5145_4d55_2043_4647;

/// Bits of the control field of a DMA structure; the item's key is in the upper half.
mod control {
    pub(crate) const ERROR: u32 = 1;
    pub(crate) const READ: u32 = 1 << 1;
    pub(crate) const SKIP: u32 = 1 << 2;
    pub(crate) const SELECT: u32 = 1 << 3;
    pub(crate) const WRITE: u32 = 1 << 4;
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Form {
    Ports,
    Memory(u64),
}

/// Which region is which.
#[derive(Clone, Copy, Default)]
struct Regions {
    selector: Option<RegionId>,
    data: Option<RegionId>,
    dma: Option<RegionId>,
}

/// The firmware configuration device. Items are added through [`FwCfg::items`].
pub struct FwCfg {
    dma: Option<Dma>,
    regions: Regions,

    form: Form,
    items: Items,

    state: State,
}

/// Everything the guest can observe beside the items.
#[derive(Clone, Default, Debug, PartialEq, Eq)]
struct State {
    /// Key of the selected item.
    selected: u16,
    /// Next byte of it.
    offset: u64,
    /// Upper half of the DMA address, written first.
    dma_high: u32,
}

impl FwCfg {
    /// At the ports where PCs have it.
    pub fn at_ports() -> Self {
        FwCfg::new(Form::Ports)
    }

    /// In memory at `base`.
    pub fn at_memory(base: u64) -> Self {
        FwCfg::new(Form::Memory(base))
    }

    fn new(form: Form) -> Self {
        FwCfg {
            dma: None,
            regions: Regions::default(),
            form,
            items: Items::default(),
            state: State::default(),
        }
    }

    /// The items: a handle that stays valid when the device is in its machine.
    pub fn items(&self) -> Items {
        self.items.clone()
    }

    fn select(&mut self, key: u16) {
        // Bit 14 once chose the write channel.
        self.state.selected = key & !keys::WRITE_CHANNEL;
        self.state.offset = 0;
    }

    /// The next `size` bytes, the first one highest.
    fn next_bytes(&mut self, size: u8) -> u64 {
        let (mut value, offset) = (0, self.state.offset);
        let mut bytes = [0; 8];
        let want = bytes.get_mut(..usize::from(size)).unwrap_or_default();
        self.items.read(self.state.selected, offset, want);
        for byte in want {
            value = value << 8 | u64::from(*byte);
        }
        self.state.offset = offset.saturating_add(u64::from(size));
        value
    }

    /// Carries out the control structure at `address`: control, length and address, big-endian.
    fn transfer(&mut self, address: u64) {
        let Some(dma) = self.dma.clone() else { return };
        let mut raw = [0; 16];
        let mut result = control::ERROR;
        if dma.read(address, &mut raw).is_ok() {
            let [a, b, c, d, rest @ ..] = raw;
            let [e, f, g, h, at @ ..] = rest;
            let word = u32::from_be_bytes([a, b, c, d]);
            let len = u32::from_be_bytes([e, f, g, h]);
            if self.carry_out(&dma, word, u64::from(len), u64::from_be_bytes(at)) {
                result = 0;
            }
        }
        // A structure that is not in RAM cannot be answered.
        let _ = dma.write(address, &result.to_be_bytes());
    }

    fn carry_out(&mut self, dma: &Dma, word: u32, len: u64, at: u64) -> bool {
        if word & control::SELECT != 0 {
            self.select((word >> 16) as u16);
        }
        let (key, offset) = (self.state.selected, self.state.offset);
        let good = if word & control::READ != 0 {
            let done = self
                .items
                .with(key, offset, len, |bytes| dma.write(at, bytes));
            let copied = done.as_ref().map_or(0, |(copied, _)| *copied);
            let zeros = len.saturating_sub(copied);
            // Beyond an item's end there are zeros.
            done.is_none_or(|(_, result)| result.is_ok())
                && dma.fill(at.wrapping_add(copied), zeros, 0).is_ok()
        } else if word & control::WRITE != 0 {
            let room = self.items.room(key, offset);
            len <= room
                && usize::try_from(len).is_ok_and(|len| {
                    let mut bytes = vec![0; len];
                    dma.read(at, &mut bytes).is_ok() && self.items.write(key, offset, &bytes)
                })
        } else {
            word & (control::SKIP | control::SELECT) != 0
        };
        let moves = control::READ | control::WRITE | control::SKIP;
        if word & moves != 0 {
            self.state.offset = offset.saturating_add(len);
        }
        good
    }
}

impl Device for FwCfg {
    fn realize(&mut self, w: &mut dyn Wiring) -> Result<(), DeviceError> {
        self.dma = Some(w.dma());
        self.regions = match self.form {
            Form::Ports => {
                let sizes = AccessSizes { min: 1, max: 2 };
                let (both, _) = w.ports(Region::new("fwcfg", PORT, 2).sizes(sizes));
                let dma = Region::new("fwcfg.dma", DMA_PORT, 8);
                let (dma, _) = w.ports(dma.order(ByteOrder::Big).sizes(AccessSizes::ANY));
                Regions {
                    selector: Some(both),
                    data: Some(both),
                    dma: Some(dma),
                }
            }
            Form::Memory(base) => {
                let mut region = |name: &str, offset: u64, len: u64| {
                    let region = Region::new(name, base.wrapping_add(offset), len);
                    let region = region.order(ByteOrder::Big).sizes(AccessSizes::ANY);
                    Some(w.mmio(region).0)
                };
                Regions {
                    data: region("fwcfg.data", 0, 8),
                    selector: region("fwcfg.ctl", 8, 2),
                    dma: region("fwcfg.dma", 16, 8),
                }
            }
        };
        Ok(())
    }

    fn reset(&mut self, _: ResetKind) {
        self.state = State::default();
    }

    fn read(&mut self, access: Access) -> Result<u64, Fault> {
        let region = Some(access.region);
        if region == self.regions.dma {
            let bits = 8u64.wrapping_sub(access.offset.wrapping_add(u64::from(access.size)));
            let value = DMA_SIGNATURE
                .checked_shr(u32::try_from(bits.wrapping_mul(8)).map_err(|_| Fault::BadSize)?);
            return value.ok_or(Fault::BadSize);
        }
        if region != self.regions.data {
            return Err(Fault::WriteOnly);
        }
        if access.by == Initiator::Debug {
            let offset = self.state.offset;
            let value = self.next_bytes(access.size);
            self.state.offset = offset;
            return Ok(value);
        }
        match self.form {
            // QEMU's port 0x510 reads as the data port, too.
            Form::Ports if access.size == 1 => Ok(self.next_bytes(1)),
            Form::Ports => Err(Fault::BadSize),
            Form::Memory(_) => Ok(self.next_bytes(access.size)),
        }
    }

    fn write(&mut self, access: Access, value: u64) -> Result<(), Fault> {
        let region = Some(access.region);
        if region == self.regions.dma {
            match (access.offset, access.size) {
                (0, 4) => self.state.dma_high = value as u32,
                (4, 4) => {
                    let high = std::mem::take(&mut self.state.dma_high);
                    self.transfer(u64::from(high) << 32 | value & 0xffff_ffff);
                }
                (0, 8) => {
                    self.state.dma_high = 0;
                    self.transfer(value);
                }
                _ => return Err(Fault::BadSize),
            }
            return Ok(());
        }
        if region == self.regions.selector && access.size == 2 && access.offset == 0 {
            self.select(value as u16);
            return Ok(());
        }
        Err(Fault::ReadOnly)
    }

    fn save(&self) -> Section {
        // No `..`: every field is saved or named here.
        let State {
            selected,
            offset,
            dma_high,
        } = self.state;
        let files = self.items.writable();
        Section::new("fw_cfg", 1)
            .with(1, selected)
            .with(2, offset)
            .with(3, dma_high)
            .with(
                4,
                files
                    .into_iter()
                    .map(|(name, bytes)| Section::new("file", 1).with(1, name).with(2, bytes))
                    .collect::<Value>(),
            )
    }

    fn restore(&mut self, section: &Section) -> Result<(), StateError> {
        section.expect("fw_cfg", 1)?;
        let state = State {
            selected: section.u16(1)?,
            offset: section.u64(2)?,
            dma_high: section.u32(3)?,
        };
        let mut files = Vec::new();
        for value in section.list(4)? {
            let Value::Section(file) = value else {
                return Err(section.bad(4, "not sections"));
            };
            files.push((file.text(1)?.to_string(), file.bytes(2)?.to_vec()));
        }
        if !self.items.restore_writable(files) {
            return Err(section.bad(4, "files of another machine"));
        }
        self.state = state;
        Ok(())
    }

    fn inspect(&self) -> Vec<(&'static str, u64)> {
        vec![
            ("selected", self.state.selected.into()),
            ("offset", self.state.offset),
        ]
    }
}

#[cfg(test)]
mod tests;
