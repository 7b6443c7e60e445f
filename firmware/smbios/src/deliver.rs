//! Entry points, and the two ways to the guest.

use crate::structures::List;

/// `fw_cfg` file with the structures.
pub const TABLES_FILE: &str = "etc/smbios/smbios-tables";
/// `fw_cfg` file with the entry point; firmware fills in the address.
pub const ANCHOR_FILE: &str = "etc/smbios/smbios-anchor";

/// Which entry point guests find.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum EntryPoint {
    /// 32-bit, version 2.8 (DSP0134, section 5.2.1).
    #[default]
    V2,
    /// 64-bit, version 3.0 (DSP0134, section 5.2.2).
    V3,
}

/// The finished structures.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tables {
    structures: Vec<u8>,
    count: u16,
    largest: u16,
    entry: EntryPoint,
}

fn put(data: &mut [u8], at: usize, bytes: &[u8]) {
    let end = at.saturating_add(bytes.len());
    if let Some(slot) = data.get_mut(at..end) {
        slot.copy_from_slice(bytes);
    }
}

/// Makes the bytes from `start` on sum to zero by the one at `at`.
fn sum(data: &mut [u8], at: usize, start: usize) {
    put(data, at, &[0]);
    let range = data.get(start..).unwrap_or_default();
    let total = range.iter().fold(0u8, |sum, byte| sum.wrapping_add(*byte));
    put(data, at, &[total.wrapping_neg()]);
}

impl Tables {
    pub(crate) fn new(list: List, entry: EntryPoint) -> Self {
        // The 32-bit form counts the structures' bytes in 16 bits.
        let entry = match entry {
            EntryPoint::V2 if list.bytes.len() > usize::from(u16::MAX) => EntryPoint::V3,
            entry => entry,
        };
        Tables {
            structures: list.bytes,
            count: list.count,
            largest: list.largest,
            entry,
        }
    }

    /// The structures: the contents of [`TABLES_FILE`].
    pub fn structures(&self) -> &[u8] {
        &self.structures
    }

    /// The entry point for structures at an address; 0 for [`ANCHOR_FILE`].
    pub fn anchor(&self, structures_at: u32) -> Vec<u8> {
        let len = self.structures.len();
        match self.entry {
            EntryPoint::V2 => {
                let mut out = vec![0; 31];
                put(&mut out, 0, b"_SM_");
                put(&mut out, 5, &[31, 2, 8]);
                put(&mut out, 8, &self.largest.to_le_bytes());
                put(&mut out, 16, b"_DMI_");
                put(&mut out, 22, &(len as u16).to_le_bytes());
                put(&mut out, 24, &structures_at.to_le_bytes());
                put(&mut out, 28, &self.count.to_le_bytes());
                put(&mut out, 30, &[0x28]);
                sum(&mut out, 21, 16);
                sum(&mut out, 4, 0);
                out
            }
            EntryPoint::V3 => {
                let mut out = vec![0; 24];
                put(&mut out, 0, b"_SM3_");
                // Length, version 3.0.0, revision of the entry point.
                put(&mut out, 6, &[24, 3, 0, 0, 1]);
                put(&mut out, 12, &(len as u32).to_le_bytes());
                put(&mut out, 16, &u64::from(structures_at).to_le_bytes());
                sum(&mut out, 5, 0);
                out
            }
        }
    }

    /// Entry point and structures for a fixed address, a multiple of 16 between 0xf0000 and
    /// 0xfffff, where kernels search.
    pub fn place(&self, at: u32) -> Vec<u8> {
        const STRUCTURES: u32 = 32;
        let mut out = self.anchor(at.wrapping_add(STRUCTURES));
        out.resize(STRUCTURES as usize, 0);
        out.extend_from_slice(&self.structures);
        out
    }
}
