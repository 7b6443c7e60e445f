//! Commands as they lie in memory (AHCI 1.3.1, 4.2.2 and 4.2.3).

use backend_block::IoVector;
use hw_core::{Dma, DmaError};

use crate::taskfile::TaskFile;

use super::registers::fis;

/// Bytes of a command header, of what a table has before its regions, and of a region.
const HEADER_LEN: u64 = 32;
const PACKET_AT: u64 = 0x40;
const REGIONS_AT: u64 = 0x80;
const REGION_LEN: u64 = 16;
/// Bytes of a region: 22 bits, and one more.
const REGION_BYTES: u32 = 0x3f_ffff;

/// A command of the list.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Header {
    at: u64,
    table: u64,
    regions: u16,
}

/// What a command FIS says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct CommandFis {
    /// A command; otherwise a change of device control.
    pub(super) command: Option<u8>,
    pub(super) control: u8,
    pub(super) registers: TaskFile,
}

impl Header {
    /// Reads one of 32.
    pub(super) fn read(dma: &Dma, list: u64, slot: u8) -> Result<Self, DmaError> {
        let at = list.wrapping_add(u64::from(slot).wrapping_mul(HEADER_LEN));
        let mut bytes = [0u8; 16];
        dma.read(at, &mut bytes)?;
        let header = u128::from_le_bytes(bytes);
        Ok(Header {
            at,
            table: (header >> 64) as u64 & !0x7f,
            regions: (header >> 16) as u16,
        })
    }

    /// The FIS to be sent; `None` for one that no host sends.
    pub(super) fn fis(&self, dma: &Dma) -> Result<Option<CommandFis>, DmaError> {
        let mut bytes = [0u8; 20];
        dma.read(self.table, &mut bytes)?;
        let [kind, flags, command, feature, rest @ ..] = bytes;
        let [
            low,
            mid,
            high,
            device,
            low2,
            mid2,
            high2,
            feature2,
            rest @ ..,
        ] = rest;
        let [count, count2, _, control, ..] = rest;
        if kind != fis::TO_DEVICE {
            return Ok(None);
        }
        let pair = |now: u8, before: u8| u16::from_le_bytes([now, before]);
        let registers = TaskFile {
            feature: pair(feature, feature2),
            count: pair(count, count2),
            lba: [pair(low, low2), pair(mid, mid2), pair(high, high2)],
            device,
            ..TaskFile::default()
        };
        Ok(Some(CommandFis {
            command: (flags & fis::COMMAND != 0).then_some(command),
            control,
            registers,
        }))
    }

    /// The packet of a PACKET command.
    pub(super) fn packet(&self, dma: &Dma) -> Result<[u8; 12], DmaError> {
        let mut packet = [0; 12];
        dma.read(self.table.wrapping_add(PACKET_AT), &mut packet)?;
        Ok(packet)
    }

    /// The memory of the data, up to `len` bytes.
    pub(super) fn memory(&self, dma: &Dma, len: u64, write: bool) -> Result<IoVector, DmaError> {
        let mut ranges = Vec::new();
        let mut left = len;
        for region in 0..u64::from(self.regions) {
            if left == 0 {
                break;
            }
            let at = self
                .table
                .wrapping_add(REGIONS_AT)
                .wrapping_add(region.wrapping_mul(REGION_LEN));
            let mut bytes = [0u8; REGION_LEN as usize];
            dma.read(at, &mut bytes)?;
            let region = u128::from_le_bytes(bytes);
            let bytes = u64::from((region >> 96) as u32 & REGION_BYTES | 1).wrapping_add(1);
            let bytes = bytes.min(left);
            ranges.push((region as u64 & !1, bytes));
            left = left.saturating_sub(bytes);
        }
        IoVector::guest(dma, ranges, write)
    }

    /// Says how many bytes were moved.
    pub(super) fn moved(&self, dma: &Dma, bytes: u64) -> Result<(), DmaError> {
        dma.store_le(self.at.wrapping_add(4), 4, bytes)
    }
}

/// The common part of FISes with registers.
fn with_registers(head: [u8; 2], registers: &TaskFile) -> [u8; 20] {
    let [low, mid, high] = registers.lba.map(u16::to_le_bytes);
    let [count, count2] = registers.count.to_le_bytes();
    let mut bytes = [0; 20];
    let fields = head
        .into_iter()
        .chain([registers.status, registers.error])
        .chain([low, mid, high].into_iter().map(|[now, _]| now))
        .chain([registers.device])
        .chain([low, mid, high].into_iter().map(|[_, before]| before))
        .chain([0, count, count2]);
    for (slot, byte) in bytes.iter_mut().zip(fields) {
        *slot = byte;
    }
    bytes
}

/// A register FIS towards the host.
pub(super) fn register_fis(registers: &TaskFile, interrupts: bool) -> [u8; 20] {
    let flags = if interrupts { fis::INTERRUPTS } else { 0 };
    with_registers([fis::TO_HOST, flags], registers)
}

/// A PIO setup FIS for `len` bytes, after which the status is `after`.
pub(super) fn pio_setup_fis(registers: &TaskFile, to_host: bool, len: u64, after: u8) -> [u8; 20] {
    let direction = if to_host { fis::TOWARDS_HOST } else { 0 };
    let mut bytes = with_registers([fis::PIO_SETUP, direction | fis::INTERRUPTS], registers);
    let [low, high, ..] = len.to_le_bytes();
    for (at, byte) in [(15, after), (16, low), (17, high)] {
        if let Some(slot) = bytes.get_mut(at) {
            *slot = byte;
        }
    }
    bytes
}

/// A set device bits FIS: queued commands that are done.
pub(super) fn device_bits_fis(registers: &TaskFile, done: u32) -> [u8; 8] {
    // Of the status, bits 0 to 2 and 4 to 6 are told (Serial ATA 2.6, 10.3.6).
    let status = registers.status & 0x77;
    let [a, b, c, d] = done.to_le_bytes();
    [
        fis::DEVICE_BITS,
        fis::INTERRUPTS,
        status,
        registers.error,
        a,
        b,
        c,
        d,
    ]
}
