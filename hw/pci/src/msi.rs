//! Message-signalled interrupts (PCI 3.0 section 6.8.1): one to 32 vectors, 64-bit, maskable.

use crate::config::ConfigSpace;

const CONTROL: u16 = 2;
const ADDRESS: u16 = 4;
const DATA: u16 = 12;
const MASK: u16 = 16;
const PENDING: u16 = 20;

const ENABLE: u16 = 1;
/// 64-bit address, per-vector masking.
const CONTROL_FIXED: u16 = 0x180;

/// Bytes after id and link, and which bits of them the guest may change.
pub(crate) fn body(vectors: u8) -> ([u8; 22], [u8; 22]) {
    let log2 = u16::from(vectors).max(1).ilog2() as u16;
    let mut body = [0u8; 22];
    let mut writable = [0u8; 22];
    let control = CONTROL_FIXED | (log2 << 1);
    let put = |bytes: &mut [u8], at: usize, value: &[u8]| {
        for (slot, byte) in bytes.iter_mut().skip(at).zip(value) {
            *slot = *byte;
        }
    };
    put(&mut body, 0, &control.to_le_bytes());
    put(&mut writable, 0, &0x71u16.to_le_bytes());
    put(&mut writable, 2, &0xffff_ffff_ffff_fffcu64.to_le_bytes());
    put(&mut writable, 10, &0xffffu16.to_le_bytes());
    let mask = u32::MAX.wrapping_shr(32u32.wrapping_sub(u32::from(vectors.clamp(1, 32))));
    put(&mut writable, 14, &mask.to_le_bytes());
    (body, writable)
}

/// The MSI capability of a function.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Msi {
    pub(crate) at: u16,
    pub(crate) vectors: u8,
}

impl Msi {
    fn reg(&self, offset: u16) -> u16 {
        self.at.saturating_add(offset)
    }

    pub(crate) fn is_enabled(&self, config: &ConfigSpace) -> bool {
        config.word(self.reg(CONTROL)) & ENABLE != 0
    }

    /// The message of a vector that was raised, unless it is masked.
    pub(crate) fn raise(&self, config: &mut ConfigSpace, vector: u8) -> Option<(u64, u32)> {
        if vector >= self.vectors {
            return None;
        }
        let bit = 1u32.wrapping_shl(u32::from(vector));
        if config.long(self.reg(MASK)) & bit != 0 {
            let pending = config.long(self.reg(PENDING)) | bit;
            config.set(self.reg(PENDING), 4, u64::from(pending));
            return None;
        }
        // The guest may grant fewer vectors than there are: the low bits of the data are the vector.
        let granted = (config.word(self.reg(CONTROL)) >> 4) & 7;
        let count = 1u16.wrapping_shl(u32::from(granted.min(5)));
        let low = u16::from(vector) & count.wrapping_sub(1);
        let data = (config.word(self.reg(DATA)) & !count.wrapping_sub(1)) | low;
        Some((config.get(self.reg(ADDRESS), 8), u32::from(data)))
    }

    /// Vectors that were raised while masked and are not masked any more.
    pub(crate) fn released(&self, config: &mut ConfigSpace) -> u32 {
        let pending = config.long(self.reg(PENDING));
        let free = pending & !config.long(self.reg(MASK));
        config.set(self.reg(PENDING), 4, u64::from(pending & !free));
        free
    }

    pub(crate) fn pending(&self, config: &ConfigSpace) -> u32 {
        config.long(self.reg(PENDING))
    }

    pub(crate) fn set_pending(&self, config: &mut ConfigSpace, pending: u32) {
        config.set(self.reg(PENDING), 4, u64::from(pending));
    }
}
