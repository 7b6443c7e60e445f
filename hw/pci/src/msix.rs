//! MSI-X (PCI 3.0 section 6.8.2): a table of messages and a bitmap of pending ones in a BAR.

use hw_core::{Section, StateError};

use crate::config::ConfigSpace;

const CONTROL: u16 = 2;
const ENABLE: u16 = 1 << 15;
const FUNCTION_MASK: u16 = 1 << 14;
/// Bytes of a table entry.
const ENTRY: usize = 16;
/// Vector control: masked.
const MASKED: u8 = 1;

/// Where the structures are in a BAR.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Layout {
    pub(crate) bar: u8,
    pub(crate) table: u32,
    pub(crate) pba: u32,
    pub(crate) vectors: u16,
}

impl Layout {
    /// Bytes after id and link, and which bits of them the guest may change.
    pub(crate) fn body(&self) -> ([u8; 10], [u8; 10]) {
        let control = self.vectors.wrapping_sub(1) & 0x7ff;
        let [c0, c1] = control.to_le_bytes();
        let [t0, t1, t2, t3] = (self.table | u32::from(self.bar)).to_le_bytes();
        let [p0, p1, p2, p3] = (self.pba | u32::from(self.bar)).to_le_bytes();
        let mut writable = [0; 10];
        if let Some(high) = writable.get_mut(1) {
            *high = 0xc0;
        }
        ([c0, c1, t0, t1, t2, t3, p0, p1, p2, p3], writable)
    }
}

/// The MSI-X structures of a function.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Msix {
    pub(crate) at: u16,
    pub(crate) layout: Layout,
    table: Vec<u8>,
    pending: Vec<u8>,
}

impl Msix {
    pub(crate) fn new(at: u16, layout: Layout) -> Self {
        let vectors = usize::from(layout.vectors);
        let mut msix = Msix {
            at,
            layout,
            table: vec![0; vectors.saturating_mul(ENTRY)],
            // Whole quad words, as drivers may read them so.
            pending: vec![0; vectors.div_ceil(64).saturating_mul(8)],
        };
        msix.reset();
        msix
    }

    pub(crate) fn reset(&mut self) {
        self.pending.fill(0);
        for entry in self.table.chunks_mut(ENTRY) {
            entry.fill(0);
            if let Some(control) = entry.get_mut(12) {
                *control = MASKED;
            }
        }
    }

    pub(crate) fn is_enabled(&self, config: &ConfigSpace) -> bool {
        config.word(self.at.saturating_add(CONTROL)) & ENABLE != 0
    }

    fn function_masked(&self, config: &ConfigSpace) -> bool {
        let control = config.word(self.at.saturating_add(CONTROL));
        control & ENABLE == 0 || control & FUNCTION_MASK != 0
    }

    fn entry(&self, vector: u16) -> Option<&[u8]> {
        let at = usize::from(vector).saturating_mul(ENTRY);
        self.table.get(at..at.saturating_add(ENTRY))
    }

    fn message(&self, vector: u16) -> Option<(u64, u32)> {
        let entry: [u8; ENTRY] = self.entry(vector)?.try_into().ok()?;
        let raw = u128::from_le_bytes(entry);
        Some((raw as u64 & !3, (raw >> 64) as u32))
    }

    /// Whether the guest wants nothing of this vector now.
    pub(crate) fn is_masked(&self, config: &ConfigSpace, vector: u16) -> bool {
        let control = self.entry(vector).and_then(|e| e.get(12));
        self.function_masked(config) || control.is_none_or(|c| c & MASKED != 0)
    }

    /// The message of a vector that was raised, unless it is masked.
    pub(crate) fn raise(&mut self, config: &ConfigSpace, vector: u16) -> Option<(u64, u32)> {
        if vector >= self.layout.vectors || !self.is_enabled(config) {
            return None;
        }
        if self.is_masked(config, vector) {
            if let Some(byte) = self.pending.get_mut(usize::from(vector >> 3)) {
                *byte |= 1u8.wrapping_shl(u32::from(vector & 7));
            }
            return None;
        }
        self.message(vector)
    }

    /// Messages that were raised while masked and are not masked any more.
    pub(crate) fn released(&mut self, config: &ConfigSpace) -> Vec<(u64, u32)> {
        if self.function_masked(config) || self.pending.iter().all(|b| *b == 0) {
            return Vec::new();
        }
        let mut out = Vec::new();
        for vector in 0..self.layout.vectors {
            let bit = 1u8.wrapping_shl(u32::from(vector & 7));
            let at = usize::from(vector >> 3);
            let is_pending = self.pending.get(at).is_some_and(|b| b & bit != 0);
            if is_pending && !self.is_masked(config, vector) {
                if let Some(byte) = self.pending.get_mut(at) {
                    *byte &= !bit;
                }
                out.extend(self.message(vector));
            }
        }
        out
    }

    /// A read within the BAR, if it meets the table or the bitmap.
    pub(crate) fn read(&self, bar: u8, offset: u64, size: u8) -> Option<u64> {
        let (bytes, at) = self.find(bar, offset)?;
        let mut out = [0u8; 8];
        for (slot, byte) in out
            .iter_mut()
            .zip(bytes.iter().skip(at))
            .take(usize::from(size))
        {
            *slot = *byte;
        }
        Some(u64::from_le_bytes(out))
    }

    /// A write within the BAR; whether it met the table or the bitmap.
    pub(crate) fn write(&mut self, bar: u8, offset: u64, size: u8, value: u64) -> bool {
        let in_table = self
            .find(bar, offset)
            .map(|(bytes, at)| (std::ptr::eq(bytes, self.table.as_slice()), at));
        let Some((in_table, at)) = in_table else {
            return false;
        };
        if in_table {
            for ((i, slot), byte) in self
                .table
                .iter_mut()
                .enumerate()
                .skip(at)
                .zip(value.to_le_bytes())
                .take(usize::from(size))
            {
                // Vector control has one bit (the rest is reserved).
                *slot = match i & 15 {
                    12 => byte & MASKED,
                    13..=15 => 0,
                    _ => byte,
                };
            }
        }
        true
    }

    fn find(&self, bar: u8, offset: u64) -> Option<(&[u8], usize)> {
        if bar != self.layout.bar {
            return None;
        }
        let within = |start: u32, bytes: &Vec<u8>| -> Option<usize> {
            let at = usize::try_from(offset.checked_sub(u64::from(start))?).ok()?;
            (at < bytes.len()).then_some(at)
        };
        if let Some(at) = within(self.layout.table, &self.table) {
            return Some((&self.table, at));
        }
        within(self.layout.pba, &self.pending).map(|at| (self.pending.as_slice(), at))
    }

    pub(crate) fn save(&self) -> Section {
        Section::new("msix", 1)
            .with(1, self.table.as_slice())
            .with(2, self.pending.as_slice())
    }

    pub(crate) fn restored(&self, section: &Section) -> Result<Self, StateError> {
        section.expect("msix", 1)?;
        let (table, pending) = (section.bytes(1)?, section.bytes(2)?);
        if table.len() != self.table.len() || pending.len() != self.pending.len() {
            return Err(section.bad(1, "another number of vectors"));
        }
        Ok(Msix {
            table: table.to_vec(),
            pending: pending.to_vec(),
            ..self.clone()
        })
    }
}
