//! What identification registers say of AArch32 (DDI 0487, D23.2, `ID_PFR0_EL1` to `ID_ISAR6_EL1`): the same
//! of all models, but for features. Only EL0 has it, so that there is nothing to say of its system registers.

use crate::model::{CpuModel, Feature};

/// ID_PFR0_EL1: A32, T32 with all of it, a trivial Jazelle.
const PFR0: u64 = 0x131;
/// ID_PFR1_EL1: the generic timer.
const PFR1: u64 = 0x0001_0000;
/// ID_MMFR0_EL1 to ID_MMFR3_EL1: as those of Cortex cores.
const MMFR: [u64; 4] = [0x1020_1105, 0x4000_0000, 0x0126_0000, 0x0210_2211];
/// ID_ISAR0_EL1 to ID_ISAR4_EL1: all integer instructions of Armv8.
const ISAR: [u64; 5] = [
    0x0210_1110,
    0x1311_2111,
    0x2123_2042,
    0x0111_2131,
    0x0001_0142,
];
/// MVFR0_EL1: 32 registers, single and double precision, division, square roots, all roundings.
const MVFR0: u64 = 0x1011_0222;
/// MVFR1_EL1: fused multiplication, Advanced SIMD of integers and single precision; half precision is only
/// converted.
const MVFR1: u64 = 0x1211_1111;
/// MVFR2_EL1: what Armv8 added: selection, conversions and roundings with directions, VMAXNM.
const MVFR2: u64 = 0x43;

/// A register of op0 = 3, op1 = 0, CRn = 0.
pub(super) fn value(model: &CpuModel, crm: u16, op2: u16) -> u64 {
    if !model.has(Feature::El0Is32) {
        return 0;
    }
    let when = |feature, value: u64| if model.has(feature) { value } else { 0 };
    match (crm, op2) {
        (1, 0) => PFR0 | when(Feature::Dit, 1 << 24),
        (1, 1) => PFR1,
        (1, 4..=7) => at(&MMFR, op2.wrapping_sub(4)),
        (2, 0..=4) => at(&ISAR, op2),
        (2, 5) => {
            let aes = when(Feature::Aes, 1 << 4).wrapping_add(when(Feature::Pmull, 1 << 4));
            let sums = when(Feature::Sha1, 1 << 8) | when(Feature::Sha256, 1 << 12);
            // SEVL is always there.
            1 | aes | sums | when(Feature::Crc32, 1 << 16) | when(Feature::Rdm, 1 << 24)
        }
        (2, 7) => {
            let js = when(Feature::Jscvt, 1);
            js | when(Feature::Sb, 1 << 12)
        }
        (3, 0) => MVFR0,
        (3, 1) => MVFR1,
        (3, 2) => MVFR2,
        (3, 4) => when(Feature::Ssbs, 1 << 4),
        _ => 0,
    }
}

fn at(values: &[u64], n: u16) -> u64 {
    values.get(usize::from(n)).copied().unwrap_or(0)
}
