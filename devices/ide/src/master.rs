//! The bus master of a channel.
//!
//! Spec: Programming Interface for Bus Master IDE Controller, revision 1.0; Intel 82371FB (PIIX) and
//! 82371SB (PIIX3) PCI ISA IDE Xcelerator, 2.7.

use backend_block::IoVector;
use hw_core::{Dma, DmaError, Section, StateError};

/// Bits of the command register.
const START: u8 = 1;
/// Towards memory.
const READ: u8 = 1 << 3;
/// Bits of the status register.
const ACTIVE: u8 = 1;
const FAULT: u8 = 1 << 1;
const INTERRUPT: u8 = 1 << 2;
/// What drivers note about drives.
const NOTES: u8 = 0x60;

/// Entries of a table at most: it does not cross 64 KiB.
const ENTRIES: usize = 8192;
const ENTRY: usize = 8;

/// Registers of one channel.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Master {
    command: u8,
    status: u8,
    table: u32,
}

impl Master {
    /// Ports of a channel.
    pub(crate) const PORTS: u64 = 8;

    /// A read of one of the channel's ports.
    pub(crate) fn read(&self, port: u64) -> u8 {
        match port {
            0 => self.command,
            2 => self.status,
            4..8 => {
                let shift = (port & 3).wrapping_mul(8) as u32;
                self.table.wrapping_shr(shift) as u8
            }
            _ => 0,
        }
    }

    /// A write to one of the channel's ports. Answers whether the transfer is begun.
    pub(crate) fn write(&mut self, port: u64, value: u8) -> bool {
        match port {
            0 => {
                let was = self.command & START;
                self.command = value & (START | READ);
                if self.command & START == 0 {
                    self.status &= !ACTIVE;
                } else if was == 0 {
                    self.status |= ACTIVE;
                    return true;
                }
            }
            2 => {
                self.status = (value & NOTES)
                    | (self.status & ACTIVE)
                    | (self.status & !value & (FAULT | INTERRUPT));
            }
            4..8 => {
                let shift = (port & 3).wrapping_mul(8) as u32;
                let mask = 0xffu32.wrapping_shl(shift);
                let byte = u32::from(value).wrapping_shl(shift);
                self.table = ((self.table & !mask) | byte) & !3;
            }
            _ => {}
        }
        false
    }

    /// Whether it moves data.
    pub(crate) fn is_active(&self) -> bool {
        self.status & ACTIVE != 0
    }

    /// The drive interrupts.
    pub(crate) fn interrupt(&mut self) {
        self.status |= INTERRUPT;
    }

    /// All data are moved.
    pub(crate) fn done(&mut self) {
        self.status &= !ACTIVE;
    }

    /// The memory that the table describes, up to `len` bytes; in the table's order, of which each
    /// entry has up to 64 KiB.
    pub(crate) fn memory(&mut self, dma: &Dma, len: u64, to_memory: bool) -> Option<IoVector> {
        let memory = self.walk(dma, len, to_memory);
        if memory.is_none() {
            self.status = (self.status | FAULT) & !ACTIVE;
        }
        memory
    }

    fn walk(&self, dma: &Dma, len: u64, to_memory: bool) -> Option<IoVector> {
        let mut ranges = Vec::new();
        let mut left = len;
        let mut at = u64::from(self.table);
        for _ in 0..ENTRIES {
            if left == 0 {
                break;
            }
            let mut entry = [0u8; ENTRY];
            dma.read(at, &mut entry).ok()?;
            let entry = u64::from_le_bytes(entry);
            let address = entry & 0xffff_fffe;
            let bytes = match (entry >> 32) & 0xfffe {
                0 => 0x1_0000,
                bytes => bytes,
            };
            let bytes = bytes.min(left);
            ranges.push((address, bytes));
            left = left.saturating_sub(bytes);
            if entry >> 63 != 0 {
                break;
            }
            at = at.wrapping_add(ENTRY as u64);
        }
        let memory: Result<IoVector, DmaError> = IoVector::guest(dma, ranges, to_memory);
        memory.ok()
    }

    pub(crate) fn save(&self) -> Section {
        let Master {
            command,
            status,
            table,
        } = *self;
        Section::new("bus-master", 1)
            .with(1, command)
            .with(2, status)
            .with(3, table)
    }

    pub(crate) fn restored(section: &Section) -> Result<Self, StateError> {
        section.expect("bus-master", 1)?;
        Ok(Master {
            command: section.u8(1)? & (START | READ),
            status: section.u8(2)? & (NOTES | ACTIVE | FAULT | INTERRUPT),
            table: section.u32(3)? & !3,
        })
    }
}
