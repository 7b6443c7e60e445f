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

/// Parts above RAM, each aligned to its size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct HighMap {
    /// Redistributors of CPUs 123 on.
    pub(crate) redistributors: Place,
    pub(crate) ecam: Place,
    pub(crate) memory: Place,
}

impl HighMap {
    /// Above RAM of this size.
    pub(crate) fn above(ram: u64) -> Option<Self> {
        let end = RAM_BASE
            .checked_add(ram)?
            .checked_next_multiple_of(1 << 30)?;
        let mut next = end.max(HIGH);
        let mut place = |len: u64| {
            let base = next.checked_next_multiple_of(len)?;
            next = base.checked_add(len)?;
            Some(at(base, len))
        };
        Some(HighMap {
            redistributors: place(64 << 20)?,
            ecam: place(256 << 20)?,
            memory: place(512 << 30)?,
        })
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

    #[test]
    fn parts_above_ram_are_where_qemu_has_them() {
        let map = HighMap::above(1 << 30).unwrap();
        assert_eq!(map.redistributors.base, 0x40_0000_0000);
        assert_eq!(map.ecam.base, 0x40_1000_0000);
        assert_eq!(map.memory.base, 0x80_0000_0000);
        let much = HighMap::above(300 << 30).unwrap();
        assert!(much.redistributors.base >= RAM_BASE + (300 << 30));
        assert_eq!(HighMap::above(u64::MAX), None);
    }
}
