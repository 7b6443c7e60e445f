//! Tables of the translation service: their registers, and entries in guest memory, whose form is
//! the service's own business (IHI 0069H section 5.2).

use super::{Its, State, VALID};

/// Bytes of a frame of registers.
pub(super) const FRAME: u64 = 0x1_0000;
/// A page's address in a register or entry.
pub(super) const ADDRESS: u64 = 0x000f_ffff_ffff_f000;
/// `GITS_BASER`: two levels; what is fixed is Type and Entry_Size.
const INDIRECT: u64 = 1 << 62;
const WRITABLE: u64 =
    VALID | INDIRECT | 7 << 59 | 7 << 53 | 0x0000_ffff_ffff_f000 | 3 << 10 | 0x3ff;
const FIXED: u64 = 7 << 56 | 0x1f << 48;
const DEVICES: u64 = 1 << 56 | ENTRY_SIZE;
const COLLECTIONS: u64 = 4 << 56 | ENTRY_SIZE;
const ENTRY_SIZE: u64 = 7 << 48;
/// Bytes of an entry of any table.
const ENTRY: u64 = 8;
/// An interrupt translation table's address in an entry.
const ITT: u64 = 0x000f_ffff_ffff_ff00;
/// Bits of device, event and collection.
pub(super) const ID_BITS: u32 = 16;

/// Registers after reset: pages of 64 KiB.
pub(super) fn reset() -> State {
    State {
        baser: [DEVICES | 2 << 8, COLLECTIONS | 2 << 8],
        ..State::default()
    }
}

/// `GITS_BASER` with a value written to it.
pub(super) fn written(old: u64, value: u64) -> u64 {
    // Page sizes: 4, 16 and 64 KiB; the fourth code is reserved, and means the third.
    let size = if value >> 8 & 3 == 3 {
        value & !0x100
    } else {
        value
    };
    old & FIXED | size & WRITABLE
}

/// What the service knows of a device.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct DeviceEntry {
    /// Address of its table.
    pub(super) itt: u64,
    /// Bits of its events, less one.
    pub(super) size: u32,
}

/// What an event of a device is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Translation {
    pub(super) intid: u32,
    pub(super) collection: u32,
}

impl Its {
    /// Address of an entry of a table that the guest allotted.
    fn entry(&self, baser: u64, id: u32) -> Option<u64> {
        if baser & VALID == 0 || id >> ID_BITS != 0 {
            return None;
        }
        let page = match baser >> 8 & 3 {
            0 => 0x1000u64,
            1 => 0x4000,
            _ => 0x1_0000,
        };
        // With pages of 64 KiB, bits 15:12 are those above 47.
        let base = if page == 0x1_0000 {
            baser & 0x0000_ffff_ffff_0000 | (baser & 0xf000) << 36
        } else {
            baser & 0x0000_ffff_ffff_f000
        };
        let len = (baser & 0xff).saturating_add(1).saturating_mul(page);
        let within = |n: u64, len: u64| {
            let offset = n.saturating_mul(ENTRY);
            (offset < len).then_some(offset)
        };
        if baser & INDIRECT == 0 {
            return base.checked_add(within(id.into(), len)?);
        }
        let log2 = page.trailing_zeros().saturating_sub(ENTRY.trailing_zeros());
        let (page_of, rest) = (
            u64::from(id).wrapping_shr(log2),
            u64::from(id) & 1u64.wrapping_shl(log2).wrapping_sub(1),
        );
        let first = base.checked_add(within(page_of, len)?)?;
        let level2 = self.dma.load_le(first, 8).ok()?;
        if level2 & VALID == 0 {
            return None;
        }
        let offset = rest.saturating_mul(ENTRY);
        (level2 & ADDRESS & !page.wrapping_sub(1)).checked_add(offset)
    }

    fn load(&self, at: Option<u64>) -> Option<u64> {
        let entry = self.dma.load_le(at?, 8).ok()?;
        (entry & VALID != 0).then_some(entry)
    }

    fn store(&self, at: Option<u64>, entry: u64) -> Option<()> {
        self.dma.store_le(at?, 8, entry).ok()
    }

    fn device_at(&self, id: u32) -> Option<u64> {
        let [devices, _] = self.state.baser;
        self.entry(devices, id)
    }

    fn collection_at(&self, id: u32) -> Option<u64> {
        let [_, collections] = self.state.baser;
        self.entry(collections, id)
    }

    /// What is known of a device.
    pub(super) fn device(&self, id: u32) -> Option<DeviceEntry> {
        let entry = self.load(self.device_at(id))?;
        Some(DeviceEntry {
            itt: entry & ITT,
            size: entry as u32 & 0x1f,
        })
    }

    /// Makes a device known, or not any more.
    pub(super) fn set_device(&self, id: u32, device: Option<DeviceEntry>) -> Option<()> {
        let entry = device.map_or(0, |d| VALID | d.itt & ITT | u64::from(d.size) & 0x1f);
        self.store(self.device_at(id), entry)
    }

    /// The CPU that a collection's interrupts go to.
    pub(super) fn collection(&self, id: u32) -> Option<usize> {
        let entry = self.load(self.collection_at(id))?;
        let cpu = usize::try_from(entry & 0xffff).ok()?;
        (cpu < self.gic.cpus()).then_some(cpu)
    }

    /// Says where a collection's interrupts go, if anywhere.
    pub(super) fn set_collection(&self, id: u32, cpu: Option<usize>) -> Option<()> {
        let entry = cpu.map_or(0, |cpu| VALID | cpu as u64 & 0xffff);
        self.store(self.collection_at(id), entry)
    }

    fn event_at(device: DeviceEntry, event: u32) -> Option<u64> {
        let bits = device.size.saturating_add(1);
        if event.checked_shr(bits).unwrap_or(0) != 0 {
            return None;
        }
        device
            .itt
            .checked_add(u64::from(event).saturating_mul(ENTRY))
    }

    /// What an event of a device is.
    pub(super) fn event(&self, device: u32, event: u32) -> Option<Translation> {
        let entry = self.load(Self::event_at(self.device(device)?, event))?;
        Some(Translation {
            intid: entry as u32 & 0xffff,
            collection: (entry >> 32) as u32 & 0xffff,
        })
    }

    /// Says what an event of a device is, if anything.
    pub(super) fn set_event(
        &self,
        device: u32,
        event: u32,
        translation: Option<Translation>,
    ) -> Option<()> {
        let entry = translation.map_or(0, |t| {
            VALID | u64::from(t.collection & 0xffff) << 32 | u64::from(t.intid & 0xffff)
        });
        self.store(Self::event_at(self.device(device)?, event), entry)
    }
}
