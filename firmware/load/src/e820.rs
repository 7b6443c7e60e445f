//! The PC's memory map (ACPI 6.5, section 15, "System Address Map Interfaces").

/// What a range of addresses is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum E820Kind {
    /// Usable RAM.
    Ram,
    /// Not to be used.
    Reserved,
    /// ACPI tables, reclaimable once read.
    Acpi,
    /// ACPI non-volatile storage.
    Nvs,
}

impl E820Kind {
    /// The type number in the map.
    pub fn number(self) -> u32 {
        match self {
            E820Kind::Ram => 1,
            E820Kind::Reserved => 2,
            E820Kind::Acpi => 3,
            E820Kind::Nvs => 4,
        }
    }
}

/// One range of the memory map.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct E820 {
    /// First address.
    pub base: u64,
    /// Bytes.
    pub len: u64,
    /// What it is.
    pub kind: E820Kind,
}

impl E820 {
    /// A range.
    pub fn new(base: u64, len: u64, kind: E820Kind) -> Self {
        E820 { base, len, kind }
    }
}

/// The map as int 15h, the zero page and fw_cfg's `etc/e820` hold it: 20 bytes per range.
pub fn e820_bytes(map: &[E820]) -> Vec<u8> {
    let mut out = Vec::with_capacity(map.len().saturating_mul(20));
    for range in map {
        out.extend_from_slice(&range.base.to_le_bytes());
        out.extend_from_slice(&range.len.to_le_bytes());
        out.extend_from_slice(&range.kind.number().to_le_bytes());
    }
    out
}
