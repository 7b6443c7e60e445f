//! IDENTIFY DEVICE (ATA8-ACS, 7.16): 256 words that say what the disk is.

use backend_block::SECTOR;

use super::{Disk, LBA28_MOST, MULTIPLE_MOST, RANGE_BLOCKS};

/// Bytes of the answer.
const LEN: usize = 512;

/// The words of an answer of IDENTIFY.
pub(crate) struct Words([u16; LEN / 2]);

impl Words {
    pub(crate) fn new() -> Self {
        Words([0; LEN / 2])
    }

    pub(crate) fn set(&mut self, word: usize, value: u16) {
        if let Some(slot) = self.0.get_mut(word) {
            *slot = value;
        }
    }

    /// A number of two or four words, the low one first.
    pub(crate) fn set_wide(&mut self, word: usize, words: usize, value: u64) {
        for (n, at) in (word..).take(words).enumerate() {
            let shift = (n as u32).wrapping_mul(16);
            self.set(at, value.wrapping_shr(shift) as u16);
        }
    }

    /// Text, padded with blanks; the first letter of two is in the upper half of a word (3.3.10).
    pub(crate) fn text(&mut self, word: usize, words: usize, text: &str) {
        let printable = |byte: u8| match byte {
            0x20..0x7f => byte,
            _ => b'?',
        };
        let mut letters = text.bytes().map(printable).chain(std::iter::repeat(b' '));
        for at in (word..).take(words) {
            let pair = [
                letters.next().unwrap_or(b' '),
                letters.next().unwrap_or(b' '),
            ];
            self.set(at, u16::from_be_bytes(pair));
        }
    }

    /// The bytes, with signature and checksum in the last word (7.16.7.87).
    pub(crate) fn finish(mut self) -> Vec<u8> {
        self.set(255, 0x00a5);
        let bytes = |words: &[u16]| -> Vec<u8> {
            words.iter().flat_map(|word| word.to_le_bytes()).collect()
        };
        let sum = bytes(&self.0)
            .into_iter()
            .fold(0u8, |sum, byte| sum.wrapping_add(byte));
        self.set(255, 0x00a5 | u16::from(sum.wrapping_neg()) << 8);
        bytes(&self.0)
    }
}

impl Disk {
    /// The answer of IDENTIFY DEVICE.
    pub(super) fn identify(&self) -> Vec<u8> {
        let (options, state) = (&self.options, &self.state);
        let sectors = self.sectors();
        let (cylinders, heads, track) = self.geometry();
        let when = |on: bool, bits: u16| if on { bits } else { 0 };
        let mut w = Words::new();
        w.set(0, 0x0040);
        w.set(1, cylinders);
        w.set(3, heads.into());
        w.set(6, track.into());
        w.text(10, 10, &options.serial);
        w.text(23, 4, &options.version);
        w.text(27, 20, &options.model);
        w.set(47, 0x8000 | u16::from(MULTIPLE_MOST));
        w.set(49, 0x0f00); // IORDY, LBA, DMA
        w.set(50, 0x4000);
        w.set(53, 0x0007); // words 54 to 58, 64 to 70 and 88 are valid
        let track_sectors = u64::from(state.heads).wrapping_mul(u64::from(state.track));
        let current = (sectors.checked_div(track_sectors).unwrap_or(0)).min(0xffff);
        w.set(54, current as u16);
        w.set(55, state.heads.into());
        w.set(56, state.track.into());
        w.set_wide(57, 2, current.wrapping_mul(track_sectors));
        w.set(
            59,
            when(state.multiple != 0, 0x100 | u16::from(state.multiple)),
        );
        w.set_wide(60, 2, sectors.min(LBA28_MOST.wrapping_sub(1)));
        let chosen = |class: u8| {
            when(
                state.mode >> 3 == class,
                0x100u16.wrapping_shl(u32::from(state.mode & 7)),
            )
        };
        w.set(63, 0x0007 | chosen(4)); // multiword DMA 0 to 2
        w.set(64, 0x0003); // PIO 3 and 4
        for word in 65..=68 {
            w.set(word, 120); // shortest cycle, in ns
        }
        if options.discard {
            w.set(69, 1 << 14); // what was discarded reads the same each time
            w.set(105, RANGE_BLOCKS as u16);
            w.set(169, 1);
        }
        if self.queue_depth > 1 {
            w.set(75, u16::from(self.queue_depth.wrapping_sub(1)));
            w.set(76, 0x0106); // NCQ, 1.5 and 3 Gb/s
        }
        w.set(80, 0x01f0); // ATA/ATAPI-4 to ATA8-ACS
        w.set(82, 0x0069); // look-ahead, write cache, power management, SMART
        w.set(83, 0x7400); // flush and its long form, 48-bit addresses
        let wwn = when(options.wwn != 0, 1 << 8);
        w.set(84, 0x4060 | wwn); // FUA, logs
        let enabled = 0x0008
            | when(state.look_ahead, 1 << 6)
            | when(state.write_cache, 1 << 5)
            | when(state.smart, 1);
        w.set(85, enabled);
        w.set(86, 0x3400);
        w.set(87, 0x4060 | wwn);
        w.set(88, 0x003f | chosen(8)); // Ultra DMA 0 to 5
        // Device 0, a cable of 80 wires; zero for serial ones.
        w.set(93, when(self.queue_depth == 1, 0x6001));
        w.set_wide(100, 4, sectors);
        let ratio = options.physical_block_size.checked_div(SECTOR as u32);
        let exponent = ratio.and_then(u32::checked_ilog2).unwrap_or(0);
        w.set(106, 0x4000 | when(exponent != 0, 0x2000 | exponent as u16));
        for (n, word) in (108..112).enumerate() {
            let shift = 48u32.wrapping_sub((n as u32).wrapping_mul(16));
            w.set(word, options.wwn.wrapping_shr(shift) as u16);
        }
        w.set(217, options.rotation_rate);
        w.finish()
    }
}
