//! Locality-specific peripheral interrupts of a GICv3: what a redistributor has of them
//! (IHI 0069H section 5.1, registers in section 12.11).

use hw_state::{Section, StateError, Value};

/// The first of them.
pub const GIC_FIRST_LPI: u32 = 8192;
/// Bits of an INTID.
pub const GIC_INTID_BITS: u32 = 16;
/// How many there can be.
pub const GIC_MAX_LPIS: usize = (1 << GIC_INTID_BITS) - GIC_FIRST_LPI as usize;

/// Words of the bitmap of pending ones, and of its summary.
const WORDS: usize = GIC_MAX_LPIS / 64;
const SUMMARY: usize = WORDS.div_ceil(64);

/// A redistributor's registers of LPIs, and which of them are pending.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct GicLpis {
    /// `GICR_CTLR.EnableLPIs`.
    pub enabled: bool,
    /// `GICR_PROPBASER`.
    pub propbaser: u64,
    /// `GICR_PENDBASER`.
    pub pendbaser: u64,
    /// Pending ones, a bit each; empty before the first.
    pending: Vec<u64>,
    /// Words of `pending` that are not zero, a bit each.
    summary: [u64; SUMMARY],
}

/// Word and bit of an LPI.
fn place(intid: u32) -> Option<(usize, u64)> {
    let n = usize::try_from(intid.checked_sub(GIC_FIRST_LPI)?).ok()?;
    (n < GIC_MAX_LPIS).then_some((n >> 6, 1u64.wrapping_shl(n as u32 & 63)))
}

/// The bits that are set, from the lowest on.
fn ones(mut word: u64) -> impl Iterator<Item = u32> {
    std::iter::from_fn(move || {
        let bit = word.trailing_zeros();
        word &= word.checked_sub(1)?;
        Some(bit)
    })
}

impl GicLpis {
    /// Whether one is pending.
    pub fn is_pending(&self, intid: u32) -> bool {
        place(intid).is_some_and(|(n, bit)| self.pending.get(n).is_some_and(|w| w & bit != 0))
    }

    /// Makes one pending, or not any more.
    pub fn set_pending(&mut self, intid: u32, pending: bool) {
        let Some((n, bit)) = place(intid) else {
            return;
        };
        if pending && self.pending.is_empty() {
            self.pending = vec![0; WORDS];
        }
        if let Some(word) = self.pending.get_mut(n) {
            *word = *word & !bit | if pending { bit } else { 0 };
            let is_zero = *word == 0;
            self.summarize(n, is_zero);
        }
    }

    fn summarize(&mut self, word: usize, is_zero: bool) {
        if let Some(summary) = self.summary.get_mut(word >> 6) {
            let bit = 1u64.wrapping_shl(word as u32 & 63);
            *summary = *summary & !bit | if is_zero { 0 } else { bit };
        }
    }

    /// The pending ones, by number.
    pub fn pending(&self) -> impl Iterator<Item = u32> + '_ {
        let words = (0u32..).zip(self.summary).flat_map(|(n, summary)| {
            ones(summary).map(move |bit| n.wrapping_mul(64).wrapping_add(bit))
        });
        words.flat_map(|n| {
            let word = usize::try_from(n).ok().and_then(|n| self.pending.get(n));
            let first = GIC_FIRST_LPI.wrapping_add(n.wrapping_mul(64));
            ones(word.copied().unwrap_or(0)).map(move |bit| first.wrapping_add(bit))
        })
    }

    /// Takes over a pending table, from the byte of the first LPI on (section 5.1.2): a bit each.
    pub fn load(&mut self, table: &[u8]) {
        self.clear();
        for (n, bytes) in table.chunks(8).take(WORDS).enumerate() {
            let mut word = [0; 8];
            for (to, from) in word.iter_mut().zip(bytes) {
                *to = *from;
            }
            let word = u64::from_le_bytes(word);
            if word != 0 {
                self.pending.resize(WORDS, 0);
                if let Some(to) = self.pending.get_mut(n) {
                    *to = word;
                }
                self.summarize(n, false);
            }
        }
    }

    /// The pending table of these, from the byte of the first LPI on.
    pub fn table(&self) -> Vec<u8> {
        let words = self.pending.iter().copied();
        let words = words.chain(std::iter::repeat(0)).take(WORDS);
        words.flat_map(u64::to_le_bytes).collect()
    }

    /// None is pending.
    pub fn clear(&mut self) {
        self.pending.clear();
        self.summary = [0; SUMMARY];
    }

    /// The saved form.
    pub(crate) fn save(&self) -> Section {
        let GicLpis {
            enabled,
            propbaser,
            pendbaser,
            pending: _,
            summary: _,
        } = self;
        let pending = self.pending().map(u64::from);
        Section::new("gic-lpis", 1)
            .with(1, *enabled)
            .with(2, *propbaser)
            .with(3, *pendbaser)
            .with(4, pending.collect::<Value>())
    }

    pub(crate) fn restore(s: &Section) -> Result<Self, StateError> {
        s.expect("gic-lpis", 1)?;
        let mut lpis = GicLpis {
            enabled: s.bool(1)?,
            propbaser: s.u64(2)?,
            pendbaser: s.u64(3)?,
            ..GicLpis::default()
        };
        for value in s.list(4)? {
            match value {
                Value::U64(n) if u32::try_from(*n).is_ok_and(|n| place(n).is_some()) => {
                    lpis.set_pending(*n as u32, true);
                }
                _ => return Err(s.bad(4, "not a number of an LPI")),
            }
        }
        Ok(lpis)
    }
}
