//! How chips lie side by side on the bus, and what each says of itself.
//!
//! Spec: JESD68.01, section 4 (query structure) and JEP137; Intel P30 datasheet 306666, appendix
//! "Common Flash Interface" (extended query table of command set 0x0001).

use hw_core::DeviceError;

/// Longest span of addresses that a chip of a 16-bit bus programs at once, log2 of bytes.
const WIDE_BUFFER_LOG2: u8 = 11;
/// The same for chips on an 8-bit bus.
const BYTE_BUFFER_LOG2: u8 = 8;
/// Where the extended query table begins.
const EXTENDED: u16 = 0x31;

/// One or more like chips that answer together.
#[derive(Clone, Debug)]
pub(super) struct Bank {
    /// Bytes of the data bus.
    pub(super) width: u8,
    /// Bytes of the bus that a chip is on.
    pub(super) device_width: u8,
    /// Bytes that a chip could have of the bus: its addresses count these.
    pub(super) max_device_width: u8,
    /// Erase blocks of the whole bank.
    pub(super) num_blocks: u32,
    /// Bytes of an erase block of the whole bank.
    pub(super) sector_length: u64,
    /// Chips were taken to share blocks and not bytes (`old-multiple-chip-handling`).
    pub(super) old_handling: bool,
    /// `device-width` is not given: codes are pairs of bytes.
    pub(super) is_plain: bool,
    /// The bus has its lowest lane at the highest address.
    pub(super) is_big_endian: bool,
    /// Manufacturer and device codes: one each, or two bytes each.
    pub(super) ids: [u16; 4],
}

impl Bank {
    /// Checks that such chips can be.
    pub(super) fn check(&self, class: &'static str) -> Result<(), DeviceError> {
        let bad = |name: &str, value: u64, wanted: &str| DeviceError::BadValue {
            class,
            name: name.to_owned(),
            value: value.to_string(),
            wanted: wanted.to_owned(),
        };
        if ![1, 2, 4].contains(&self.width) {
            return Err(bad("width", self.width.into(), "1, 2 or 4"));
        }
        if ![1, 2, 4].contains(&self.device_width) || self.device_width > self.width {
            let wanted = "1, 2 or 4, and at most 'width'";
            return Err(bad("device-width", self.device_width.into(), wanted));
        }
        let most = self.max_device_width;
        if ![1, 2, 4].contains(&most) || most < self.device_width {
            let wanted = "1, 2 or 4, and at least 'device-width'";
            return Err(bad("max-device-width", most.into(), wanted));
        }
        if self.sector_length < 0x1000 || !self.sector_length.is_power_of_two() {
            let wanted = "a power of two from 4096 on";
            return Err(bad("sector-length", self.sector_length, wanted));
        }
        let blocks = u64::from(self.num_blocks);
        let len = self.sector_length.checked_mul(blocks);
        if blocks == 0 || len.is_none_or(|len| len > 1 << 32) {
            let wanted = "at least 1, and of at most 4 GiB together with 'sector-length'";
            return Err(bad("num-blocks", blocks, wanted));
        }
        Ok(())
    }

    /// Bytes.
    pub(super) fn len(&self) -> u64 {
        self.sector_length.saturating_mul(self.num_blocks.into())
    }

    /// log2 of how many chips there are.
    fn chips_log2(&self) -> u32 {
        let lanes = self.device_width.trailing_zeros();
        self.width.trailing_zeros().saturating_sub(lanes)
    }

    fn buffer_log2(&self) -> u8 {
        match self.width {
            1 => BYTE_BUFFER_LOG2,
            _ => WIDE_BUFFER_LOG2,
        }
    }

    /// Bytes that one buffered program can change, over all chips.
    pub(super) fn buffer_len(&self) -> u64 {
        let one = 1u64.wrapping_shl(self.buffer_log2().into());
        match self.old_handling {
            true => one,
            false => one.wrapping_shl(self.chips_log2()),
        }
    }

    /// What an access of `size` bytes at `offset` of the bank reads when each chip puts `answer` on
    /// its lowest lanes. Wider accesses than the bus are several.
    pub(super) fn spread(&self, offset: u64, size: u8, answer: impl Fn(u64) -> u16) -> u64 {
        let lanes = u64::from(self.device_width).saturating_sub(1);
        let mut value = [0u8; 8];
        for (byte, at) in value.iter_mut().zip(offset..).take(size.into()) {
            let bytes = answer(at).to_le_bytes();
            let flip = if self.is_big_endian { lanes } else { 0 };
            let lane = usize::try_from(at & lanes ^ flip).unwrap_or(usize::MAX);
            *byte = bytes.get(lane).copied().unwrap_or(0);
        }
        u64::from_le_bytes(value)
    }

    /// What bytes on the bus are as a number.
    pub(super) fn value(&self, bytes: &[u8]) -> u64 {
        let shift_in = |value: u64, byte: &u8| value << 8 | u64::from(*byte);
        match self.is_big_endian {
            true => bytes.iter().fold(0, shift_in),
            false => bytes.iter().rev().fold(0, shift_in),
        }
    }

    /// The address that a chip sees.
    fn chip_address(&self, offset: u64) -> u64 {
        // Chips that use a part of their bus have address lines below those of the bank.
        let lanes = self.width.trailing_zeros();
        let unused = self
            .max_device_width
            .trailing_zeros()
            .saturating_sub(self.device_width.trailing_zeros());
        offset.wrapping_shr(lanes.saturating_add(unused))
    }

    /// A word of the identifier codes. Blocks are never locked.
    pub(super) fn id(&self, offset: u64) -> u16 {
        let [id0, id1, id2, id3] = self.ids;
        let pair = |high: u16, low: u16| high << 8 | low & 0xff;
        match (self.chip_address(offset) & 0xff, self.is_plain) {
            (0, false) => id0,
            (1, false) => id1,
            (0, true) => pair(id0, id1),
            (1, true) => pair(id2, id3),
            _ => 0,
        }
    }

    /// A byte of the query structure.
    pub(super) fn query(&self, offset: u64) -> u16 {
        let at = self.chip_address(offset) & 0xff;
        let chips = self.chips_log2();
        let (blocks, block_len) = match self.old_handling {
            true => (
                u64::from(self.num_blocks).wrapping_shr(chips),
                self.sector_length,
            ),
            false => (
                u64::from(self.num_blocks),
                self.sector_length.wrapping_shr(chips),
            ),
        };
        let len_log2 = blocks.saturating_mul(block_len).max(1).ilog2() as u8;
        let last_block = blocks.saturating_sub(1);
        let block_units = block_len >> 8;
        let byte = |value: u64, n: u32| value.to_le_bytes().get(n as usize).copied().unwrap_or(0);
        u16::from(match at {
            0x10 => b'Q',
            0x11 => b'R',
            0x12 => b'Y',
            // Command set 0x0001, described at `EXTENDED`.
            0x13 => 0x01,
            0x15 => EXTENDED as u8,
            // Supply voltage from 4.5 to 5.5 V; none for programming.
            0x1b => 0x45,
            0x1c => 0x55,
            // Typical times, log2: 128 us a word and a buffer, 1 s a block; 16 times as long at most.
            0x1f | 0x20 => 0x07,
            0x21 => 0x0a,
            0x23..=0x25 => 0x04,
            0x27 => len_log2,
            // 8 and 16 bits wide.
            0x28 => 0x02,
            0x2a => self.buffer_log2(),
            // One region of like blocks.
            0x2c => 1,
            0x2d => byte(last_block, 0),
            0x2e => byte(last_block, 1),
            0x2f => byte(block_units, 0),
            0x30 => byte(block_units, 1),
            0x31 => b'P',
            0x32 => b'R',
            0x33 => b'I',
            0x34 => b'1',
            0x35 => b'0',
            // One protection field.
            0x3f => 0x01,
            _ => 0,
        })
    }
}
