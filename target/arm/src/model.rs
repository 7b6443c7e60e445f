//! CPU models and the `-cpu` argument: tables of ID registers (DDI 0487, D23.2).
//!
//! Not modelled, and so not claimed: AArch32 above EL0, BF16, SM3, SM4, SVE, SME, MTE, the statistical profiling and trace
//! extensions, big-endian data.

mod host;

pub use host::HostOptions;

/// Counter frequency of models before Armv8.6 on QEMU's `virt` (62.5 MHz).
const OLD_COUNTER_HZ: u64 = 62_500_000;
/// Counter frequency from Armv8.6 on (D12.1.2: 1 GHz).
const NEW_COUNTER_HZ: u64 = 1_000_000_000;

/// Why a `-cpu` argument was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ModelError {
    /// No model of this name.
    #[error("unable to find CPU model '{name}'{}", nearest(.near))]
    Model {
        /// The name.
        name: String,
        /// The closest name there is.
        near: Option<String>,
    },
    /// No property of this name.
    #[error("property '{name}' not found{}", nearest(.near))]
    Property {
        /// The name.
        name: String,
        /// The closest name there is.
        near: Option<String>,
    },
    /// A property with a value that it cannot have.
    #[error("property '{name}' cannot be '{value}'")]
    Value {
        /// The property.
        name: String,
        /// The value.
        value: String,
    },
    /// The model is only for another accelerator.
    #[error("CPU model '{0}' requires KVM")]
    HostOnly(String),
    /// The host has one processor to give.
    #[error("under KVM a guest has the host's own processor: use '-cpu host' instead of '{0}'")]
    NotHost(String),
    /// A feature that no model has.
    #[error("'{name}' cannot be turned on: {why}")]
    Missing {
        /// The property.
        name: String,
        /// What is missing.
        why: &'static str,
    },
}

fn nearest(near: &Option<String>) -> String {
    near.as_ref()
        .map_or(String::new(), |near| format!(" (did you mean '{near}'?)"))
}

/// ID registers that say something here; all others of their space read as zero.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct IdRegisters {
    /// MIDR_EL1.
    pub midr: u64,
    /// ID_AA64PFR0_EL1.
    pub pfr0: u64,
    /// ID_AA64PFR1_EL1.
    pub pfr1: u64,
    /// ID_AA64DFR0_EL1.
    pub dfr0: u64,
    /// ID_AA64ISAR0_EL1.
    pub isar0: u64,
    /// ID_AA64ISAR1_EL1.
    pub isar1: u64,
    /// ID_AA64ISAR2_EL1.
    pub isar2: u64,
    /// ID_AA64MMFR0_EL1.
    pub mmfr0: u64,
    /// ID_AA64MMFR1_EL1.
    pub mmfr1: u64,
    /// ID_AA64MMFR2_EL1.
    pub mmfr2: u64,
    /// CTR_EL0.
    pub ctr: u64,
    /// CLIDR_EL1.
    pub clidr: u64,
    /// CCSIDR_EL1 by level and kind: L1 data, L1 instructions, L2.
    pub ccsidr: [u64; 3],
}

macro_rules! features {
    ($($name:ident $register:ident $shift:literal $least:literal $doc:literal;)*) => {
        /// Architectural features (DDI 0487, A2) that decoding and system code ask for.
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        #[allow(clippy::upper_case_acronyms)]
        pub enum Feature {
            $(#[doc = $doc] $name,)*
        }

        impl Feature {
            /// Whether ID registers claim it.
            fn is_claimed(self, id: &IdRegisters) -> bool {
                match self {
                    $(Feature::$name => id.$register.wrapping_shr($shift) & 15 >= $least,)*
                }
            }

            const ALL: &'static [Feature] = &[$(Feature::$name),*];
        }
    };
}

features! {
    Aes isar0 4 1 "FEAT_AES.";
    Pmull isar0 4 2 "FEAT_PMULL.";
    Sha1 isar0 8 1 "FEAT_SHA1.";
    Sha256 isar0 12 1 "FEAT_SHA256.";
    Sha512 isar0 12 2 "FEAT_SHA512.";
    Crc32 isar0 16 1 "FEAT_CRC32.";
    Lse isar0 20 2 "FEAT_LSE.";
    Rdm isar0 28 1 "FEAT_RDM.";
    Sha3 isar0 32 1 "FEAT_SHA3.";
    DotProd isar0 44 1 "FEAT_DotProd.";
    Fhm isar0 48 1 "FEAT_FHM.";
    FlagM isar0 52 1 "FEAT_FlagM.";
    FlagM2 isar0 52 2 "FEAT_FlagM2.";
    TlbiOs isar0 56 1 "FEAT_TLBIOS.";
    TlbiRange isar0 56 2 "FEAT_TLBIRANGE.";
    Rng isar0 60 1 "FEAT_RNG.";
    Dpb isar1 0 1 "FEAT_DPB.";
    Dpb2 isar1 0 2 "FEAT_DPB2.";
    PauthQarma5 isar1 4 1 "FEAT_PACQARMA5.";
    PauthImpdef isar1 8 1 "FEAT_PACIMP.";
    PauthQarma3 isar2 12 1 "FEAT_PACQARMA3.";
    Jscvt isar1 12 1 "FEAT_JSCVT.";
    Fcma isar1 16 1 "FEAT_FCMA.";
    Lrcpc isar1 20 1 "FEAT_LRCPC.";
    Lrcpc2 isar1 20 2 "FEAT_LRCPC2.";
    FrintTs isar1 32 1 "FEAT_FRINTTS.";
    Sb isar1 36 1 "FEAT_SB.";
    SpecRes isar1 40 1 "FEAT_SPECRES.";
    I8mm isar1 52 1 "FEAT_I8MM.";
    El0Is32 pfr0 0 2 "AArch32 at EL0.";
    El2 pfr0 8 1 "EL2.";
    El3 pfr0 12 1 "EL3.";
    Gic pfr0 24 1 "System registers of the GIC's CPU interface.";
    Dit pfr0 48 1 "FEAT_DIT.";
    Bti pfr1 0 1 "FEAT_BTI.";
    Ssbs pfr1 4 1 "FEAT_SSBS.";
    Ssbs2 pfr1 4 2 "FEAT_SSBS2.";
    Hafdbs mmfr1 0 1 "FEAT_HAFDBS: access flag.";
    Dbm mmfr1 0 2 "FEAT_HAFDBS: dirty state.";
    Vmid16 mmfr1 4 2 "FEAT_VMID16.";
    Vhe mmfr1 8 1 "FEAT_VHE.";
    Hpds mmfr1 12 1 "FEAT_HPDS.";
    Lor mmfr1 16 1 "FEAT_LOR.";
    Pan mmfr1 20 1 "FEAT_PAN.";
    Pan2 mmfr1 20 2 "FEAT_PAN2.";
    Pan3 mmfr1 20 3 "FEAT_PAN3.";
    Xnx mmfr1 28 1 "FEAT_XNX.";
    Cnp mmfr2 0 1 "FEAT_TTCNP.";
    Uao mmfr2 4 1 "FEAT_UAO.";
    Lse2 mmfr2 32 1 "FEAT_LSE2.";
    Pmu dfr0 8 1 "FEAT_PMUv3.";
}

/// A set of features.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
struct Features(u64);

/// A CPU model: what its ID registers show.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CpuModel {
    /// Name as in `-cpu`.
    pub name: &'static str,
    /// Its registers.
    pub id: IdRegisters,
    counter_hz: u64,
    features: Features,
}

struct Row {
    name: &'static str,
    doc: &'static str,
    /// Compatible string of the device tree.
    compatible: &'static str,
    id: IdRegisters,
    counter_hz: u64,
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

const MAX: IdRegisters = IdRegisters {
    midr: 0x000f_0510,
    // CSV3, CSV2, DIT, FP16.
    pfr0: 0x1101_0000_0011_0000 | ALL_LEVELS,
    // SSBS2, BTI.
    pfr1: 0x21,
    dfr0: DEBUG_8_5,
    // RNDR, TLBIRANGE, FlagM2, FHM, DotProd, SHA3, RDM, LSE, CRC32, SHA512, SHA1, PMULL.
    isar0: 0x1221_1001_1021_2120,
    // I8MM, SPECRES, SB, FRINTTS, PACIMP generic and address, LRCPC2, FCMA, JSCVT, DPB2.
    isar1: 0x0010_0111_1021_1102,
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

const ROWS: &[Row] = &[
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

/// A property of `-cpu`: what it may do to the ID registers.
struct Property {
    name: &'static str,
    doc: &'static str,
    kind: Kind,
}

enum Kind {
    /// Pointer authentication as a whole, and which algorithm.
    Pauth(Algorithm),
    /// A feature that no model has; the text says what is missing. `off` is accepted.
    Absent(&'static str),
    /// The counter's frequency in Hz.
    Frequency,
    /// AArch32 cannot be had above EL0, so `on` is what there is.
    Aarch64,
    /// The PMU.
    Pmu,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Algorithm {
    None,
    Impdef,
    Qarma3,
    Qarma5,
}

const PROPERTIES: &[Property] = &[
    Property {
        name: "pauth",
        doc: "pointer authentication",
        kind: Kind::Pauth(Algorithm::None),
    },
    Property {
        name: "pauth-impdef",
        doc: "its fast algorithm (the default)",
        kind: Kind::Pauth(Algorithm::Impdef),
    },
    Property {
        name: "pauth-qarma3",
        doc: "its algorithm QARMA3",
        kind: Kind::Pauth(Algorithm::Qarma3),
    },
    Property {
        name: "pauth-qarma5",
        doc: "its algorithm QARMA5",
        kind: Kind::Pauth(Algorithm::Qarma5),
    },
    Property {
        name: "cntfrq",
        doc: "frequency of the counter in Hz",
        kind: Kind::Frequency,
    },
    Property {
        name: "aarch64",
        doc: "64-bit execution state",
        kind: Kind::Aarch64,
    },
    Property {
        name: "pmu",
        doc: "performance monitors",
        kind: Kind::Pmu,
    },
    Property {
        name: "sve",
        doc: "scalable vectors",
        kind: Kind::Absent("the engine has no scalable vectors (SVE) yet"),
    },
    Property {
        name: "sme",
        doc: "scalable matrices",
        kind: Kind::Absent("the engine has no scalable matrices (SME) yet"),
    },
    Property {
        name: "lpa2",
        doc: "52-bit addresses with 4K and 16K granules",
        kind: Kind::Absent("the engine's addresses have at most 48 bits"),
    },
];

const PAUTH_ISAR1: u64 = 0xff00_0ff0;
const PAUTH_ISAR2: u64 = 0xff00;

fn property(name: &str) -> Result<&'static Property, ModelError> {
    let found = PROPERTIES.iter().find(|p| p.name == name);
    found.ok_or_else(|| ModelError::Property {
        name: name.into(),
        near: nearest_name(name, PROPERTIES.iter().map(|p| p.name)),
    })
}

impl CpuModel {
    /// Reads a `-cpu` argument: a model, then `name=value` (`on` without a value).
    pub fn parse(text: &str) -> Result<CpuModel, ModelError> {
        let mut parts = text.split(',');
        let name = parts.next().unwrap_or_default().trim();
        let plain = name.strip_suffix("-arm-cpu").unwrap_or(name);
        if plain == "host" {
            return Err(ModelError::HostOnly(name.into()));
        }
        let Some(row) = ROWS.iter().find(|row| row.name == plain) else {
            return Err(ModelError::Model {
                name: name.into(),
                near: nearest_name(plain, ROWS.iter().map(|row| row.name)),
            });
        };
        let mut model = CpuModel {
            name: row.name,
            id: row.id,
            counter_hz: row.counter_hz,
            features: Features(0),
        };
        for part in parts.map(str::trim).filter(|p| !p.is_empty()) {
            let (name, value) = part.split_once('=').unwrap_or((part, "on"));
            model.set(name, value)?;
        }
        model.refresh();
        Ok(model)
    }

    fn set(&mut self, name: &str, value: &str) -> Result<(), ModelError> {
        let property = property(name)?;
        let missing = |why| ModelError::Missing {
            name: name.into(),
            why,
        };
        match property.kind {
            Kind::Frequency => {
                let hz = value.parse().ok().filter(|hz| (1..=1 << 32).contains(hz));
                self.counter_hz = hz.ok_or_else(|| bad_value(name, value))?;
            }
            Kind::Absent(why) => {
                if on_off(name, value)? {
                    return Err(missing(why));
                }
            }
            Kind::Pmu => {
                if !on_off(name, value)? {
                    self.id.dfr0 &= !0xf00;
                }
            }
            Kind::Aarch64 => {
                if !on_off(name, value)? {
                    return Err(ModelError::Value {
                        name: name.into(),
                        value: value.into(),
                    });
                }
            }
            Kind::Pauth(algorithm) => {
                let on = on_off(name, value)?;
                if on && self.name != "max" {
                    return Err(missing("this CPU model has no pointer authentication"));
                }
                match algorithm {
                    Algorithm::None if !on => self.set_pauth(Algorithm::None),
                    Algorithm::Qarma3 | Algorithm::Qarma5 if on => {
                        return Err(missing("only the algorithm pauth-impdef is there yet"));
                    }
                    Algorithm::Impdef if !on => {
                        return Err(missing("no algorithm but pauth-impdef is there yet"));
                    }
                    _ => {}
                }
            }
        }
        Ok(())
    }

    fn set_pauth(&mut self, algorithm: Algorithm) {
        self.id.isar1 &= !PAUTH_ISAR1;
        self.id.isar2 &= !PAUTH_ISAR2;
        match algorithm {
            Algorithm::None => {}
            Algorithm::Impdef => self.id.isar1 |= 0x1000_0100,
            Algorithm::Qarma3 => self.id.isar2 |= 0x1100,
            Algorithm::Qarma5 => self.id.isar1 |= 0x0100_0010,
        }
    }

    fn refresh(&mut self) {
        let claimed = Feature::ALL.iter().filter(|f| f.is_claimed(&self.id));
        self.features = Features(claimed.fold(0, |all, f| all | 1u64.wrapping_shl(*f as u32)));
    }

    /// Whether it has a feature.
    #[inline]
    pub fn has(&self, feature: Feature) -> bool {
        self.features.0.wrapping_shr(feature as u32) & 1 != 0
    }

    /// Whether it has half-precision arithmetic (FEAT_FP16).
    pub fn has_fp16(&self) -> bool {
        self.id.pfr0 >> 16 & 15 == 1
    }

    /// Whether it has pointer authentication.
    pub fn has_pauth(&self) -> bool {
        [
            Feature::PauthImpdef,
            Feature::PauthQarma3,
            Feature::PauthQarma5,
        ]
        .into_iter()
        .any(|f| self.has(f))
    }

    /// Whether the machine wants EL2 (`virtualization=on`).
    pub fn set_el2(&mut self, on: bool) {
        self.set_level(8, on);
    }

    /// Whether the machine wants EL3 (`secure=on`).
    pub fn set_el3(&mut self, on: bool) {
        self.set_level(12, on);
    }

    fn set_level(&mut self, shift: u32, on: bool) {
        self.id.pfr0 &= !15u64.wrapping_shl(shift);
        if on {
            self.id.pfr0 |= 1u64.wrapping_shl(shift);
        }
        self.refresh();
    }

    /// Whether the GIC's CPU interface has system registers.
    pub(crate) fn set_gic(&mut self, on: bool) {
        self.set_level(24, on);
    }

    /// Whether it has performance monitors.
    pub fn has_pmu(&self) -> bool {
        self.has(Feature::Pmu)
    }

    /// CNTFRQ_EL0 at reset: ticks of the counter in a second.
    pub fn counter_hz(&self) -> u64 {
        self.counter_hz
    }

    /// Width of physical addresses in bits.
    pub fn physical_bits(&self) -> u32 {
        match self.id.mmfr0 & 15 {
            0 => 32,
            1 => 36,
            2 => 40,
            3 => 42,
            4 => 44,
            _ => 48,
        }
    }

    /// The device tree's name for it.
    pub fn compatible(&self) -> &'static str {
        ROWS.iter()
            .find(|row| row.name == self.name)
            .map_or("arm,armv8", |row| row.compatible)
    }
}

impl Default for CpuModel {
    fn default() -> Self {
        let mut model = CpuModel {
            name: "max",
            id: MAX,
            counter_hz: NEW_COUNTER_HZ,
            features: Features(0),
        };
        model.refresh();
        model
    }
}

fn bad_value(name: &str, value: &str) -> ModelError {
    ModelError::Value {
        name: name.into(),
        value: value.into(),
    }
}

fn on_off(name: &str, value: &str) -> Result<bool, ModelError> {
    match value {
        "on" | "yes" | "true" | "y" => Ok(true),
        "off" | "no" | "false" | "n" => Ok(false),
        _ => Err(bad_value(name, value)),
    }
}

fn nearest_name<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> Option<String> {
    hw_props::nearest(name, known).map(str::to_owned)
}

/// The text of `-cpu help`.
pub fn help() -> String {
    let mut text = String::from("Available CPUs:\n");
    for (name, doc) in models() {
        text.push_str(&format!("  {name:<22}{doc}\n"));
    }
    text.push_str("\nProperties:\n");
    for property in PROPERTIES {
        text.push_str(&format!("  {:<22}{}\n", property.name, property.doc));
    }
    text
}

/// Names and descriptions of all models.
pub fn models() -> impl Iterator<Item = (&'static str, &'static str)> {
    let rows = ROWS.iter().map(|row| (row.name, row.doc));
    rows.chain([host::NAME_AND_DOC])
}

/// Names and descriptions of all properties of models.
pub fn properties() -> impl Iterator<Item = (&'static str, &'static str)> {
    PROPERTIES
        .iter()
        .map(|property| (property.name, property.doc))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn misspelt_names_get_the_nearest() {
        let text = CpuModel::parse("cortex-57").unwrap_err().to_string();
        assert_eq!(
            text,
            "unable to find CPU model 'cortex-57' (did you mean 'cortex-a57'?)"
        );
        let text = CpuModel::parse("max,pauht=off").unwrap_err().to_string();
        assert_eq!(text, "property 'pauht' not found (did you mean 'pauth'?)");
        let text = CpuModel::parse("max,sve=on").unwrap_err().to_string();
        assert_eq!(
            text,
            "'sve' cannot be turned on: the engine has no scalable vectors (SVE) yet"
        );
        assert!(CpuModel::parse("max,sve=off,pauth-impdef=on").is_ok());
    }

    #[test]
    fn features_follow_the_registers() {
        let old = CpuModel::parse("cortex-a57").unwrap();
        assert!(old.has(Feature::Pmull) && !old.has(Feature::Lse) && !old.has_pauth());
        assert!(!old.has_fp16());
        let mut max = CpuModel::parse("max").unwrap();
        assert!(max.has(Feature::Lse2) && max.has_fp16() && max.has_pauth());
        max.set_el2(false);
        assert!(!max.has(Feature::El2) && max.has(Feature::El3));
        assert!(!CpuModel::parse("max,pauth=off").unwrap().has_pauth());
    }
}
