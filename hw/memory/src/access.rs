//! One access to a device: who, where, how wide, in which byte order.

/// Which of a device's regions is accessed: the number it got in `realize`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, PartialOrd, Ord, Hash)]
pub struct RegionId(pub u32);

/// Who makes an access.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Initiator {
    /// The vCPU of this index.
    Cpu(u32),
    /// A device; for PCI the requester id (bus << 8 | devfn).
    Device(u32),
    /// A debugger or monitor: must have no side effects where the device can avoid them.
    Debug,
}

/// Qualities of an access beside its address.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Attrs {
    /// Arm: the secure world.
    pub secure: bool,
    /// Made by unprivileged code.
    pub user: bool,
    /// x86: made in system management mode.
    pub smm: bool,
}

/// Where what only the secure world of a machine reaches is in its map: as far above its address. No bus
/// master reaches there.
pub const SECURE_SPACE: u64 = 1 << 56;

/// An access as a device sees it. The value travels beside it as a `u64` in the region's byte order.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Access {
    /// The device's region.
    pub region: RegionId,
    /// Bytes from the region's start.
    pub offset: u64,
    /// 1, 2, 4 or 8 bytes, within what the region declared.
    pub size: u8,
    /// Who asks.
    pub by: Initiator,
    /// How.
    pub attrs: Attrs,
}

/// A register whose only meaning is "look": all that counts is that it is written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Doorbell {
    /// The device's region.
    pub region: RegionId,
    /// Bytes from the region's start.
    pub offset: u64,
    /// Bytes of the write; `None` for any width.
    pub size: Option<u8>,
    /// The value written; `None` for any. With a value goes a size.
    pub value: Option<u64>,
}

impl Doorbell {
    /// Whether a write is for this register.
    pub fn fits(&self, access: &Access, value: u64) -> bool {
        access.region == self.region
            && access.offset == self.offset
            && self.size.is_none_or(|size| size == access.size)
            && self.value.is_none_or(|wanted| wanted == value)
    }
}

/// A doorbell that somebody serves.
#[derive(Clone, Debug)]
pub struct RungBell {
    /// The register.
    pub place: Doorbell,
    /// The event (`eventfd(2)`) that a write to it sets.
    pub event: std::sync::Arc<std::os::fd::OwnedFd>,
}

/// Why a device did not take an access. The bus answers its idle value and the CPU decides.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Fault {
    /// Nothing is mapped there.
    #[error("no device answers")]
    Unassigned,
    /// The device has no register at this offset.
    #[error("no register")]
    NoRegister,
    /// A write to a read-only register.
    #[error("read-only register")]
    ReadOnly,
    /// A read of a write-only register.
    #[error("write-only register")]
    WriteOnly,
    /// The register does not take this width.
    #[error("access of this size is not supported")]
    BadSize,
    /// The register does not take this value.
    #[error("value is reserved")]
    BadValue,
}

/// Order of a multi-byte value's bytes in memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum ByteOrder {
    /// Lowest byte first.
    #[default]
    Little,
    /// Highest byte first.
    Big,
}

impl ByteOrder {
    /// Converts the low `size` bytes of `value` from this order to `to`.
    pub fn convert(self, value: u64, size: u8, to: ByteOrder) -> u64 {
        if self == to {
            return value;
        }
        match size {
            2 => u64::from((value as u16).swap_bytes()),
            4 => u64::from((value as u32).swap_bytes()),
            8 => value.swap_bytes(),
            _ => value,
        }
    }
}

/// Widths a region takes, in bytes; the bus splits wider accesses and widens narrower ones are not
/// invented: a narrower access than `min` reads the containing `min` unit.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct AccessSizes {
    /// Narrowest access handed to the device.
    pub min: u8,
    /// Widest access handed to the device.
    pub max: u8,
}

impl AccessSizes {
    /// Only bytes.
    pub const BYTE: Self = AccessSizes { min: 1, max: 1 };
    /// One to four bytes.
    pub const UP_TO_4: Self = AccessSizes { min: 1, max: 4 };
    /// One to eight bytes.
    pub const ANY: Self = AccessSizes { min: 1, max: 8 };
    /// Only 32-bit registers.
    pub const WORD: Self = AccessSizes { min: 4, max: 4 };
}

/// Mask of the low `size` bytes.
pub(crate) fn mask(size: u8) -> u64 {
    match size {
        1 => 0xff,
        2 => 0xffff,
        4 => 0xffff_ffff,
        _ => u64::MAX,
    }
}
