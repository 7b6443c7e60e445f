//! ID registers of each model (DDI 0487, D23.2; the technical reference manuals of the cores).

use super::IdRegisters;
use super::feature::{Feature, Features};

/// Counter frequency of models before Armv8.6 on QEMU's `virt` (62.5 MHz).
pub(super) const OLD_COUNTER_HZ: u64 = 62_500_000;
/// Counter frequency from Armv8.6 on (D12.1.2: 1 GHz).
pub(super) const NEW_COUNTER_HZ: u64 = 1_000_000_000;

/// A model as the table has it.
pub(super) struct Row {
    pub(super) name: &'static str,
    pub(super) doc: &'static str,
    /// Compatible string of the device tree.
    pub(super) compatible: &'static str,
    pub(super) id: IdRegisters,
    pub(super) counter_hz: u64,
}

impl Row {
    pub(super) fn has_pauth(&self) -> bool {
        Features::of(&self.id).has(Feature::Pauth)
    }
}

const NONE: IdRegisters = IdRegisters {
    midr: 0,
    pfr0: 0,
    pfr1: 0,
    dfr0: 0,
    isar0: 0,
    isar1: 0,
    isar2: 0,
    mmfr0: 0,
    mmfr1: 0,
    mmfr2: 0,
    ctr: 0,
    clidr: 0,
    ccsidr: [0; 3],
};

/// EL0 is AArch64 and AArch32, EL1 to EL3 are AArch64 only.
const ALL_LEVELS: u64 = 0x1112;
/// Armv8 debug (ID_AA64DFR0_EL1): six breakpoints, two of which know contexts, four watchpoints, PMUv3.
const DEBUG: u64 = 0x1030_5106;
/// As above, with PMUv3 for Armv8.1.
const DEBUG_8_1: u64 = 0x1030_5406;
/// As above, with PMUv3 for Armv8.5.
const DEBUG_8_5: u64 = 0x1030_5606;

const A53: IdRegisters = IdRegisters {
    midr: 0x410f_d034,
    pfr0: ALL_LEVELS,
    dfr0: DEBUG,
    isar0: 0x0001_1120,
    mmfr0: 0x0000_0022,
    ctr: 0x8444_8004,
    clidr: 0x0a20_0023,
    ccsidr: [0x700f_e01a, 0x201f_e00a, 0x707f_e07a],
    ..NONE
};

const A57: IdRegisters = IdRegisters {
    midr: 0x411f_d070,
    mmfr0: 0x0000_0024,
    ctr: 0x8444_c004,
    ccsidr: [0x701f_e00a, 0x201f_e012, 0x70ff_e07a],
    ..A53
};

const A72: IdRegisters = IdRegisters {
    midr: 0x410f_d083,
    ..A57
};

const A76: IdRegisters = IdRegisters {
    midr: 0x414f_d0b1,
    pfr0: 0x1100_0000_0011_0000 | ALL_LEVELS,
    pfr1: 0x10,
    dfr0: DEBUG_8_1,
    isar0: 0x0000_1000_1021_1120,
    isar1: 0x0010_0001,
    mmfr0: 0x0010_0022,
    mmfr1: 0x1021_2122,
    mmfr2: 0x1011,
    ctr: 0x8444_c004,
    clidr: 0x8200_0023,
    ccsidr: [0x701f_e01a, 0x201f_e01a, 0x707f_e03a],
    ..NONE
};

const N1: IdRegisters = IdRegisters {
    midr: 0x414f_d0c1,
    pfr1: 0x20,
    mmfr0: 0x0010_0025,
    ..A76
};

pub(super) const MAX: IdRegisters = IdRegisters {
    midr: 0x000f_0510,
    // CSV3, CSV2, DIT, FP16.
    pfr0: 0x1101_0000_0011_0000 | ALL_LEVELS,
    // SSBS2, BTI.
    pfr1: 0x21,
    dfr0: DEBUG_8_5,
    // RNDR, TLBIRANGE, FlagM2, FHM, DotProd, SHA3, RDM, LSE, CRC32, SHA512, SHA1, PMULL.
    isar0: 0x1221_1001_1021_2120,
    // I8MM, DGH, BF16, SPECRES, SB, FRINTTS, PACIMP generic and address, LRCPC2, FCMA, JSCVT, DPB2.
    isar1: 0x0011_1111_1021_1102,
    // 48-bit physical addresses, 16-bit ASIDs, all granules.
    mmfr0: 0x0010_0025,
    // XNX, PAN2, HPDS2, VHE, VMID16, HAFDBS with dirty state.
    mmfr1: 0x1020_2122,
    // TTL, LSE2, UAO, CnP.
    mmfr2: 0x0001_0001_0000_1011,
    ctr: 0x8444_c004,
    clidr: 0x8200_0023,
    ccsidr: [0x701f_e01a, 0x201f_e01a, 0x707f_e07a],
    ..NONE
};

/// All models.
pub(super) const ROWS: &[Row] = &[
    Row {
        name: "cortex-a53",
        doc: "Arm Cortex-A53",
        compatible: "arm,cortex-a53",
        id: A53,
        counter_hz: OLD_COUNTER_HZ,
    },
    Row {
        name: "cortex-a57",
        doc: "Arm Cortex-A57",
        compatible: "arm,cortex-a57",
        id: A57,
        counter_hz: OLD_COUNTER_HZ,
    },
    Row {
        name: "cortex-a72",
        doc: "Arm Cortex-A72",
        compatible: "arm,cortex-a72",
        id: A72,
        counter_hz: OLD_COUNTER_HZ,
    },
    Row {
        name: "cortex-a76",
        doc: "Arm Cortex-A76",
        compatible: "arm,cortex-a76",
        id: A76,
        counter_hz: OLD_COUNTER_HZ,
    },
    Row {
        name: "neoverse-n1",
        doc: "Arm Neoverse N1",
        compatible: "arm,neoverse-n1",
        id: N1,
        counter_hz: OLD_COUNTER_HZ,
    },
    Row {
        name: "max",
        doc: "All that this engine has: Armv8.6 without SVE and MTE",
        compatible: "arm,armv8",
        id: MAX,
        counter_hz: NEW_COUNTER_HZ,
    },
];
