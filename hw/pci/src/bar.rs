//! Base address registers (PCI 3.0 section 6.2.5).

use std::sync::Arc;

use hw_core::{AccessSizes, Mapping, RegionId};
use hw_memory::RamBlock;

use crate::config::{ConfigSpace, reg};

/// BARs lie under RAM, so that one placed over it does not hide it.
pub(crate) const PRIORITY: i32 = -1;
/// I/O BARs lie under the fixed ports of the board.
pub(crate) const IO_PRIORITY: i32 = 0;

/// Space and width of a BAR.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum BarKind {
    /// I/O ports.
    Io,
    /// Memory below 4 GiB.
    Memory32 {
        /// Reads have no side effects.
        prefetch: bool,
    },
    /// Memory anywhere; takes two registers.
    Memory64 {
        /// Reads have no side effects.
        prefetch: bool,
    },
    /// The expansion ROM.
    Rom,
}

impl BarKind {
    /// The bits below the address.
    fn flags(self) -> u64 {
        match self {
            BarKind::Io => 1,
            BarKind::Memory32 { prefetch } => u64::from(prefetch) << 3,
            BarKind::Memory64 { prefetch } => 4 | u64::from(prefetch) << 3,
            BarKind::Rom => 0,
        }
    }

    fn width(self) -> u8 {
        if matches!(self, BarKind::Memory64 { .. }) {
            8
        } else {
            4
        }
    }
}

/// A BAR to be set up.
#[derive(Clone, Debug)]
pub struct BarSpec {
    /// 0 to 5; 6 for the ROM.
    pub index: u8,
    /// Name shown by `info mtree`.
    pub name: String,
    /// Space and width.
    pub kind: BarKind,
    /// Bytes, a power of two: at least 4 for I/O, 16 for memory.
    pub len: u64,
    /// Widths the function takes.
    pub sizes: AccessSizes,
    /// Memory behind the BAR, instead of registers.
    pub ram: Option<Arc<RamBlock>>,
}

impl BarSpec {
    /// Registers of one to eight bytes.
    pub fn new(index: u8, name: impl Into<String>, kind: BarKind, len: u64) -> Self {
        BarSpec {
            index,
            name: name.into(),
            kind,
            len,
            sizes: if kind == BarKind::Io {
                AccessSizes::UP_TO_4
            } else {
                AccessSizes::ANY
            },
            ram: None,
        }
    }
}

/// A BAR in its place.
#[derive(Clone)]
pub(crate) struct Bar {
    pub(crate) index: u8,
    pub(crate) kind: BarKind,
    pub(crate) len: u64,
    pub(crate) mapping: Mapping,
    pub(crate) region: Option<RegionId>,
}

/// Where a BAR is, for `info pci`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BarInfo {
    /// 0 to 5; 6 for the ROM.
    pub index: u8,
    /// Space and width.
    pub kind: BarKind,
    /// First address, if the guest gave it one that it can answer at.
    pub base: Option<u64>,
    /// Bytes.
    pub len: u64,
}

/// The register of a BAR.
pub(crate) fn register(index: u8) -> u16 {
    if index == 6 {
        reg::ROM
    } else {
        reg::BAR0.saturating_add(u16::from(index).saturating_mul(4))
    }
}

/// Sets the register up so that writing ones tells the size.
pub(crate) fn define(config: &mut ConfigSpace, index: u8, kind: BarKind, len: u64) {
    let mut mask = !len.wrapping_sub(1);
    if kind == BarKind::Rom {
        mask |= 1;
    }
    let width = kind.width();
    config.define(register(index), width, kind.flags(), mask);
}

/// The address in a BAR's register, whether it is decoded or not.
pub(crate) fn address(config: &ConfigSpace, index: u8, kind: BarKind, len: u64) -> u64 {
    config.get(register(index), kind.width()) & !len.wrapping_sub(1)
}

/// Where a BAR answers, as the registers stand. `at_zero`: port 0 is one
/// as any other.
pub(crate) fn decode(
    config: &ConfigSpace,
    (index, kind, len): (u8, BarKind, u64),
    at_zero: bool,
) -> Option<u64> {
    let command = config.word(reg::COMMAND);
    let base = address(config, index, kind, len);
    let last = base.checked_add(len.wrapping_sub(1))?;
    let (bit, limit) = match kind {
        BarKind::Io => (reg::COMMAND_IO, 0xffff),
        // An address being sized is all ones: it must not be decoded.
        BarKind::Memory32 { .. } | BarKind::Rom => (reg::COMMAND_MEMORY, 0xffff_fffe),
        BarKind::Memory64 { .. } => (reg::COMMAND_MEMORY, (1 << 52) - 1),
    };
    let rom_on = kind != BarKind::Rom || config.long(reg::ROM) & 1 != 0;
    let is_placed = base != 0 || at_zero && kind == BarKind::Io;
    (command & bit != 0 && is_placed && last <= limit && rom_on).then_some(base)
}
