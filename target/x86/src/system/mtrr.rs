//! Memory type range registers and PAT (SDM vol. 3, 12.11 and 12.12): stored and checked. Memory
//! types have no effect here.

/// Variable ranges.
const RANGES: usize = 8;

/// The MSRs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mtrrs {
    /// IA32_MTRR_DEF_TYPE.
    pub def_type: u64,
    /// The eleven fixed ranges, in order of address.
    pub fixed: [u64; 11],
    /// Base and mask of each variable range, in turn.
    pub variable: [u64; 16],
    /// IA32_PAT.
    pub pat: u64,
}

impl Default for Mtrrs {
    fn default() -> Self {
        Mtrrs {
            def_type: 0,
            fixed: [0; 11],
            variable: [0; 16],
            pat: PAT_RESET,
        }
    }
}

/// IA32_PAT after reset: WB, WT, UC-, UC, twice.
const PAT_RESET: u64 = 0x0007_0406_0007_0406;
/// IA32_MTRRCAP: fixed ranges, write combining.
const CAP: u64 = RANGES as u64 | 1 << 8 | 1 << 10;

/// Position of a fixed-range MSR.
fn fixed(msr: u32) -> Option<usize> {
    match msr {
        0x250 => Some(0),
        0x258 => Some(1),
        0x259 => Some(2),
        0x268..=0x26f => Some((msr as usize).wrapping_sub(0x268).wrapping_add(3)),
        _ => None,
    }
}

fn is_type(value: u64) -> bool {
    matches!(value & 0xff, 0 | 1 | 4 | 5 | 6)
}

/// Whether all eight bytes are memory types; 7 (UC-) only in the PAT.
fn all_types(value: u64, pat: bool) -> bool {
    value
        .to_le_bytes()
        .iter()
        .all(|b| is_type(u64::from(*b)) || pat && *b == 7)
}

impl Mtrrs {
    /// The place of one of these MSRs.
    pub(super) fn place(&mut self, msr: u32) -> Option<&mut u64> {
        match msr {
            0x200..=0x20f => self.variable.get_mut((msr as usize).wrapping_sub(0x200)),
            0x277 => Some(&mut self.pat),
            0x2ff => Some(&mut self.def_type),
            _ => self.fixed.get_mut(fixed(msr)?),
        }
    }

    /// Reads, if the MSR is one of these.
    pub(crate) fn read(&self, msr: u32) -> Option<u64> {
        match msr {
            0xfe => Some(CAP),
            0x200..=0x20f => self
                .variable
                .get((msr as usize).wrapping_sub(0x200))
                .copied(),
            0x277 => Some(self.pat),
            0x2ff => Some(self.def_type),
            _ => self.fixed.get(fixed(msr)?).copied(),
        }
    }

    /// Writes, if the MSR is one of these and takes the value.
    pub(crate) fn write(&mut self, msr: u32, value: u64, phys_bits: u32) -> Option<()> {
        let above = u64::MAX.checked_shl(phys_bits).unwrap_or(0);
        match msr {
            0x200..=0x20f => {
                let mask = msr & 1 != 0;
                let reserved = above | if mask { 0x7ff } else { 0xf00 };
                if value & reserved != 0 || !mask && !is_type(value) {
                    return None;
                }
                *self.variable.get_mut((msr as usize).wrapping_sub(0x200))? = value;
            }
            0x277 if all_types(value, true) => self.pat = value,
            0x2ff if is_type(value) && value & !0xcff == 0 => self.def_type = value,
            _ => {
                let n = fixed(msr)?;
                if !all_types(value, false) {
                    return None;
                }
                *self.fixed.get_mut(n)? = value;
            }
        }
        Some(())
    }
}
