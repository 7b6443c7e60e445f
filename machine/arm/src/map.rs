//! Where everything is on `virt`: addresses and interrupts as QEMU has them, which firmware and
//! bare-metal programs know by heart.

use hw_memory::SECURE_SPACE;

/// A range of addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) base: u64,
    pub(crate) len: u64,
}

const fn at(base: u64, len: u64) -> Place {
    Place { base, len }
}

/// Two chips of this size, one after the other.
pub(crate) const FLASH: Place = at(0, 0x0400_0000);
pub(crate) const GIC_DISTRIBUTOR: Place = at(0x0800_0000, 0x1_0000);
pub(crate) const GIC_CPU: Place = at(0x0801_0000, 0x1_0000);
pub(crate) const GIC_V2M: Place = at(0x0802_0000, 0x1000);
pub(crate) const GIC_ITS: Place = at(0x0808_0000, device_intc::ITS_LEN);
pub(crate) const GIC_REDISTRIBUTORS: Place = at(0x080a_0000, 0x00f6_0000);
pub(crate) const UART: Place = at(0x0900_0000, 0x1000);
pub(crate) const RTC: Place = at(0x0901_0000, 0x1000);
pub(crate) const FW_CFG: Place = at(0x0902_0000, 0x18);
pub(crate) const GPIO: Place = at(0x0903_0000, 0x1000);
/// What only the secure world reaches, beside the first flash chip.
pub(crate) const SECURE_UART: Place = at(0x0904_0000, 0x1000);
pub(crate) const SECURE_GPIO: Place = at(0x090b_0000, 0x1000);
pub(crate) const SECURE_RAM: Place = at(0x0e00_0000, 0x0100_0000);
pub(crate) const GED: Place = at(0x0908_0000, 4);
/// The first of 32 slots.
pub(crate) const VIRTIO: Place = at(0x0a00_0000, 0x200);
pub(crate) const VIRTIO_SLOTS: u32 = 32;
pub(crate) const PCIE_MEMORY: Place = at(0x1000_0000, 0x2eff_0000);
pub(crate) const PCIE_PORTS: Place = at(0x3eff_0000, 0x1_0000);
pub(crate) const PCIE_ECAM: Place = at(0x3f00_0000, 0x0100_0000);
pub(crate) const RAM_BASE: u64 = 0x4000_0000;

/// What is above RAM begins here at the lowest.
const HIGH: u64 = 256 << 30;

/// PCI memory above RAM, if nobody wants more.
pub(crate) const HIGH_MEMORY: u64 = 512 << 30;

/// Which parts are wanted above RAM, and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct HighParts {
    pub(crate) redistributors: bool,
    pub(crate) ecam: bool,
    /// Bytes of PCI memory.
    pub(crate) memory: Option<u64>,
    /// What is not wanted leaves no gap.
    pub(crate) is_compact: bool,
    /// What ends above is not there.
    pub(crate) reach: u64,
}

/// Parts above RAM, each aligned to its size.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct HighMap {
    /// Redistributors of CPUs 123 on.
    pub(crate) redistributors: Option<Place>,
    pub(crate) ecam: Option<Place>,
    pub(crate) memory: Option<Place>,
}

impl HighMap {
    /// Above RAM of this size.
    pub(crate) fn above(ram: u64, parts: HighParts) -> Self {
        let end = RAM_BASE.checked_add(ram);
        let end = end.and_then(|end| end.checked_next_multiple_of(1 << 30));
        let mut next = end.map(|end| end.max(HIGH));
        let mut place = |len: u64, is_wanted: bool| {
            let base = next?.checked_next_multiple_of(len)?;
            let place = at(base, len);
            let found = Some(place).filter(|place| is_wanted && place.end() <= parts.reach);
            if found.is_some() || !parts.is_compact {
                next = base.checked_add(len);
            }
            found
        };
        HighMap {
            redistributors: place(64 << 20, parts.redistributors),
            ecam: place(256 << 20, parts.ecam),
            memory: place(parts.memory.unwrap_or(HIGH_MEMORY), parts.memory.is_some()),
        }
    }
}

impl Place {
    /// Where the map has it if it is for the secure world alone.
    pub(crate) const fn secret(self) -> u64 {
        self.base | SECURE_SPACE
    }

    /// The address after it.
    pub(crate) fn end(self) -> u64 {
        self.base.saturating_add(self.len)
    }
}

/// Shared interrupts of the controller.
pub(crate) const SPIS: usize = 256;

/// Shared interrupts by number from 0.
pub(crate) mod spi {
    pub(crate) const UART: u32 = 1;
    pub(crate) const RTC: u32 = 2;
    /// INTA# to INTD#.
    pub(crate) const PCIE: u32 = 3;
    pub(crate) const GPIO: u32 = 7;
    pub(crate) const SECURE_UART: u32 = 8;
    pub(crate) const GED: u32 = 9;
    /// The first of 32.
    pub(crate) const VIRTIO: u32 = 16;
    /// The first of the message frame's.
    pub(crate) const V2M: u32 = 48;
    pub(crate) const V2M_COUNT: u32 = 64;
}

/// The INTID of the first shared interrupt.
pub(crate) const FIRST_SPI: u32 = 32;

/// Private interrupts by INTID.
pub(crate) mod ppi {
    pub(crate) const GIC_MAINTENANCE: u32 = 25;
    pub(crate) const PMU: u32 = 23;
    pub(crate) const HYP_TIMER: u32 = 26;
    pub(crate) const VIRTUAL_TIMER: u32 = 27;
    pub(crate) const HYP_VIRTUAL_TIMER: u32 = 28;
    pub(crate) const SECURE_TIMER: u32 = 29;
    pub(crate) const PHYSICAL_TIMER: u32 = 30;
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: HighParts = HighParts {
        redistributors: true,
        ecam: true,
        memory: Some(HIGH_MEMORY),
        is_compact: true,
        reach: 1 << 48,
    };

    fn base(place: Option<Place>) -> u64 {
        place.map_or(0, |place| place.base)
    }

    #[test]
    fn parts_above_ram_are_where_qemu_has_them() {
        let map = HighMap::above(1 << 30, ALL);
        assert_eq!(base(map.redistributors), 0x40_0000_0000);
        assert_eq!(base(map.ecam), 0x40_1000_0000);
        assert_eq!(base(map.memory), 0x80_0000_0000);
        let much = HighMap::above(300 << 30, ALL);
        assert!(base(much.redistributors) >= RAM_BASE + (300 << 30));
        assert_eq!(HighMap::above(u64::MAX, ALL), HighMap::default());
    }

    #[test]
    fn what_is_not_wanted_leaves_a_gap_unless_the_map_is_compact() {
        let few = HighParts {
            redistributors: false,
            ecam: false,
            ..ALL
        };
        let compact = HighMap::above(300 << 30, few);
        assert_eq!((compact.redistributors, compact.ecam), (None, None));
        assert_eq!(base(compact.memory), 0x80_0000_0000);
        // 511 GiB of RAM end where the memory could begin.
        let full = HighMap::above(511 << 30, few);
        assert_eq!(base(full.memory), 0x80_0000_0000);
        let is_compact = false;
        let sparse = HighMap::above(511 << 30, HighParts { is_compact, ..few });
        assert_eq!(base(sparse.memory), 0x100_0000_0000);
    }

    #[test]
    fn what_the_cpu_cannot_reach_is_not_there() {
        let reach = 0x80_0000_0000;
        let map = HighMap::above(1 << 30, HighParts { reach, ..ALL });
        assert_eq!(base(map.ecam), 0x40_1000_0000);
        assert_eq!(map.memory, None);
    }
}
