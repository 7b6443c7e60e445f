//! CPU models and the `-cpu` argument (QEMU's "CPU Models" documentation).

use super::feature::{self, Feature, Features};

/// Frequency of the TSC unless `tsc-frequency` says otherwise: one tick a nanosecond.
pub const DEFAULT_TSC_HZ: u64 = 1_000_000_000;

const INTEL: &str = "GenuineIntel";
const AMD: &str = "AuthenticAMD";

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
    /// No property or feature of this name.
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
    /// `enforce` was given and features are lacking.
    #[error("the accelerator lacks requested features: {0}")]
    Enforced(String),
}

fn nearest(near: &Option<String>) -> String {
    near.as_ref()
        .map_or(String::new(), |near| format!(" (did you mean '{near}'?)"))
}

/// One row of the table of models.
struct Row {
    name: &'static str,
    doc: &'static str,
    vendor: &'static str,
    family: u32,
    model: u32,
    stepping: u32,
    level: u32,
    xlevel: u32,
    id: &'static str,
    /// Sets of features by name, from the lists below, and more.
    features: &'static [&'static str],
}

/// What every processor since the Pentium Pro of these models has.
const PPRO: &str = "fpu de pse tsc msr mce cx8 pge cmov pat fxsr mmx sse sse2 pae sep apic";
const QEMU64: &str = "mtrr clflush mca pse36 pni cx16 lm syscall nx";
const NEHALEM: &str =
    "vme mtrr clflush mca pse36 pni ssse3 cx16 sse4.1 sse4.2 popcnt lm syscall nx lahf-lm";
const HASWELL: &str = "avx xsave aes tsc-deadline x2apic pclmulqdq fma movbe pcid f16c rdrand \
    rdtscp abm fsgsbase bmi1 hle avx2 smep bmi2 erms invpcid rtm xsaveopt arat";
const EPYC: &str = "vme mtrr clflush mca pse36 rdrand f16c avx xsave aes popcnt movbe sse4.2 sse4.1 \
    cx16 fma ssse3 pclmulqdq pni lm rdtscp pdpe1gb fxsr-opt mmxext nx syscall 3dnowprefetch osvw \
    misalignsse sse4a abm cr8legacy svm lahf-lm topoext fsgsbase bmi1 avx2 smep bmi2 rdseed adx \
    smap clflushopt sha-ni xsaveopt xsavec xgetbv1 arat";

const ROWS: &[Row] = &[
    Row {
        name: "qemu64",
        doc: "QEMU Virtual CPU, 64 bit",
        vendor: AMD,
        family: 15,
        model: 107,
        stepping: 1,
        level: 0xd,
        xlevel: 0x8000_000a,
        id: "QEMU Virtual CPU version 2.5+",
        features: &[PPRO, QEMU64, "lahf-lm"],
    },
    Row {
        name: "qemu32",
        doc: "QEMU Virtual CPU, 32 bit",
        vendor: INTEL,
        family: 6,
        model: 6,
        stepping: 3,
        level: 4,
        xlevel: 0x8000_0004,
        id: "QEMU Virtual CPU version 2.5+",
        features: &[PPRO, "pni"],
    },
    Row {
        name: "kvm64",
        doc: "Common KVM processor",
        vendor: INTEL,
        family: 15,
        model: 6,
        stepping: 1,
        level: 0xd,
        xlevel: 0x8000_0008,
        id: "Common KVM processor",
        features: &[PPRO, QEMU64, "vme"],
    },
    Row {
        name: "kvm32",
        doc: "Common 32-bit KVM processor",
        vendor: INTEL,
        family: 15,
        model: 6,
        stepping: 1,
        level: 5,
        xlevel: 0x8000_0008,
        id: "Common 32-bit KVM processor",
        features: &[PPRO, "vme mtrr clflush mca pse36 pni"],
    },
    Row {
        name: "Penryn",
        doc: "Intel Core 2 Duo P9xxx (Penryn Class Core 2)",
        vendor: INTEL,
        family: 6,
        model: 23,
        stepping: 3,
        level: 10,
        xlevel: 0x8000_0008,
        id: "Intel Core 2 Duo P9xxx (Penryn Class Core 2)",
        features: &[
            PPRO,
            "vme mtrr clflush mca pse36 sse4.1 cx16 ssse3 pni lm nx syscall lahf-lm",
        ],
    },
    Row {
        name: "Nehalem",
        doc: "Intel Core i7 9xx (Nehalem Class Core i7)",
        vendor: INTEL,
        family: 6,
        model: 26,
        stepping: 3,
        level: 11,
        xlevel: 0x8000_0008,
        id: "Intel Core i7 9xx (Nehalem Class Core i7)",
        features: &[PPRO, NEHALEM],
    },
    Row {
        name: "Westmere",
        doc: "Westmere E56xx/L56xx/X56xx (Nehalem-C)",
        vendor: INTEL,
        family: 6,
        model: 44,
        stepping: 1,
        level: 11,
        xlevel: 0x8000_0008,
        id: "Westmere E56xx/L56xx/X56xx (Nehalem-C)",
        features: &[PPRO, NEHALEM, "aes pclmulqdq arat"],
    },
    Row {
        name: "Haswell",
        doc: "Intel Core Processor (Haswell)",
        vendor: INTEL,
        family: 6,
        model: 60,
        stepping: 4,
        level: 0xd,
        xlevel: 0x8000_0008,
        id: "Intel Core Processor (Haswell)",
        features: &[PPRO, NEHALEM, HASWELL],
    },
    Row {
        name: "EPYC",
        doc: "AMD EPYC Processor",
        vendor: AMD,
        family: 23,
        model: 1,
        stepping: 2,
        level: 0xd,
        xlevel: 0x8000_001e,
        id: "AMD EPYC Processor",
        features: &[PPRO, EPYC],
    },
    Row {
        name: "base",
        doc: "base CPU model type with no features enabled",
        vendor: AMD,
        family: 0,
        model: 0,
        stepping: 0,
        level: 0,
        xlevel: 0,
        id: "",
        features: &[],
    },
    Row {
        name: "max",
        doc: "Enables all features supported by the accelerator in the current host",
        vendor: AMD,
        family: 15,
        model: 107,
        stepping: 1,
        level: 0x16,
        xlevel: 0x8000_0008,
        id: "QEMU TCG CPU version 2.5+",
        features: &[],
    },
    Row {
        name: "host",
        doc: "processor with all supported host features (only available with KVM)",
        vendor: AMD,
        family: 0,
        model: 0,
        stepping: 0,
        level: 0,
        xlevel: 0,
        id: "",
        features: &[],
    },
];

/// Properties of QEMU's CPUs that change nothing here.
const WITHOUT_EFFECT: &[&str] = &[
    "kvm",
    "migratable",
    "pmu",
    "l3-cache",
    "host-cache-info",
    "host-phys-bits",
    "cpuid-0xb",
    "full-cpuid-auto-level",
    "fill-mtrr-mask",
];

/// Hyper-V's interfaces as QEMU names them: none is there.
const HYPER_V: &[&str] = &[
    "hv-apicv",
    "hv-avic",
    "hv-crash",
    "hv-emsr-bitmap",
    "hv-enforce-cpuid",
    "hv-evmcs",
    "hv-frequencies",
    "hv-ipi",
    "hv-no-nonarch-coresharing",
    "hv-passthrough",
    "hv-reenlightenment",
    "hv-relaxed",
    "hv-reset",
    "hv-runtime",
    "hv-spinlocks",
    "hv-stimer",
    "hv-stimer-direct",
    "hv-synic",
    "hv-syndbg",
    "hv-time",
    "hv-tlbflush",
    "hv-tlbflush-direct",
    "hv-tlbflush-ext",
    "hv-vapic",
    "hv-vendor-id",
    "hv-version-id-build",
    "hv-version-id-major",
    "hv-version-id-minor",
    "hv-version-id-sbranch",
    "hv-version-id-snumber",
    "hv-version-id-spack",
    "hv-vpindex",
    "hv-xmm-input",
];

/// Properties with a value.
const PROPERTIES: &[&str] = &[
    "vendor",
    "family",
    "model",
    "stepping",
    "level",
    "xlevel",
    "model-id",
    "phys-bits",
    "tsc-frequency",
    "check",
    "enforce",
];

/// A processor as the guest sees it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CpuModel {
    /// Name as given.
    pub name: String,
    /// Vendor string of leaf 0.
    pub vendor: String,
    /// Family, extended family added.
    pub family: u32,
    /// Model, extended model included.
    pub model: u32,
    /// Stepping.
    pub stepping: u32,
    /// Highest basic leaf.
    pub level: u32,
    /// Highest extended leaf.
    pub xlevel: u32,
    /// Brand string, at most 48 bytes.
    pub model_id: String,
    /// Feature bits.
    pub features: Features,
    /// Width of physical addresses.
    pub phys_bits: u32,
    /// Frequency of the TSC.
    pub tsc_hz: u64,
}

impl Default for CpuModel {
    /// `max` on the engine.
    fn default() -> Self {
        CpuModel::parse("max", &feature::engine(), false)
            .map(|(model, _)| model)
            .unwrap_or_else(|_| CpuModel::none())
    }
}

impl CpuModel {
    fn none() -> Self {
        CpuModel {
            name: String::new(),
            vendor: AMD.into(),
            family: 0,
            model: 0,
            stepping: 0,
            level: 0,
            xlevel: 0,
            model_id: String::new(),
            features: Features::default(),
            phys_bits: 40,
            tsc_hz: DEFAULT_TSC_HZ,
        }
    }

    /// Whether it has a feature.
    pub fn has(&self, feature: Feature) -> bool {
        self.features.has(feature)
    }

    /// Reads a `-cpu` argument: a model, then `+feature`, `-feature` and `name=value`. Features that
    /// `supported` lacks are left out and listed; that is an error under `enforce`. `is_kvm` admits
    /// the model `host`.
    pub fn parse(
        text: &str,
        supported: &Features,
        is_kvm: bool,
    ) -> Result<(CpuModel, Vec<String>), ModelError> {
        let mut parts = text.split(',');
        let name = parts.next().unwrap_or_default().trim();
        let mut model = CpuModel::named(name, supported, is_kvm)?;
        let (mut check, mut enforce) = (true, false);
        // QEMU applies +x and -x after all name=value.
        let mut signed = Vec::new();
        let mut absent = Vec::new();
        for part in parts.map(str::trim).filter(|p| !p.is_empty()) {
            if let Some(name) = part.strip_prefix('+') {
                signed.push((name, true));
            } else if let Some(name) = part.strip_prefix('-') {
                signed.push((name, false));
            } else {
                let (name, value) = part.split_once('=').unwrap_or((part, "on"));
                match name {
                    "check" => check = on_off(name, value)?,
                    "enforce" => enforce = on_off(name, value)?,
                    _ if HYPER_V.contains(&dashed(name).as_str()) => {
                        if !matches!(value, "off" | "no" | "false" | "n") {
                            absent.push(format!("Hyper-V's {name}"));
                        }
                    }
                    _ => model.set(name, value)?,
                }
            }
        }
        for (name, on) in signed {
            if HYPER_V.contains(&dashed(name).as_str()) {
                if on {
                    absent.push(format!("Hyper-V's {name}"));
                }
                continue;
            }
            let feature = feature::find(name).ok_or_else(|| unknown_property(name))?;
            model.features.set(feature, on);
        }
        let mut missing = model.features.missing_in(supported);
        missing.extend(absent);
        if enforce && !missing.is_empty() {
            return Err(ModelError::Enforced(missing.join(", ")));
        }
        model.features = model.features.and(supported);
        Ok((model, if check { missing } else { Vec::new() }))
    }

    fn named(name: &str, supported: &Features, is_kvm: bool) -> Result<CpuModel, ModelError> {
        // Versioned names: `Haswell-v1`, `qemu64-x86_64-cpu`.
        let plain = name.strip_suffix("-x86_64-cpu").unwrap_or(name);
        let plain = match plain.rsplit_once("-v") {
            Some((head, tail)) if !tail.is_empty() && tail.bytes().all(|b| b.is_ascii_digit()) => {
                head
            }
            _ => plain,
        };
        let Some(row) = ROWS.iter().find(|row| row.name == plain) else {
            return Err(ModelError::Model {
                name: name.into(),
                near: closest(name, ROWS.iter().map(|row| row.name)),
            });
        };
        if row.name == "host" && !is_kvm {
            return Err(ModelError::HostOnly(name.into()));
        }
        let mut features = row
            .features
            .iter()
            .fold(Features::default(), |all, set| all.or(&Features::of(set)));
        if matches!(row.name, "max" | "host") {
            features = *supported;
        }
        if row.name != "base" {
            features.set(feature::HYPERVISOR, true);
        }
        // As under QEMU without KVM, absent virtual-8086 extensions are not worth a warning.
        if !is_kvm && let Some(vme) = feature::find("vme") {
            features.set(vme, false);
        }
        Ok(CpuModel {
            name: row.name.into(),
            vendor: row.vendor.into(),
            family: row.family,
            model: row.model,
            stepping: row.stepping,
            level: row.level,
            xlevel: row.xlevel,
            model_id: row.id.into(),
            features,
            ..CpuModel::none()
        })
    }

    fn set(&mut self, name: &str, value: &str) -> Result<(), ModelError> {
        let bad = || ModelError::Value {
            name: name.into(),
            value: value.into(),
        };
        let number = || parse_number(value).ok_or_else(bad);
        let number32 = || number().and_then(|n| u32::try_from(n).map_err(|_| bad()));
        match name {
            "vendor" if value.len() == 12 && value.is_ascii() => self.vendor = value.into(),
            "vendor" => return Err(bad()),
            "family" => self.family = number32()?,
            "model" => self.model = number32()?,
            "stepping" => self.stepping = number32()?,
            "level" => self.level = number32()?,
            "xlevel" => self.xlevel = number32()?,
            "model-id" => self.model_id = value.into(),
            "phys-bits" => match number32()? {
                bits @ 32..=52 => self.phys_bits = bits,
                _ => return Err(bad()),
            },
            "tsc-frequency" => match number()? {
                0 => return Err(bad()),
                hz => self.tsc_hz = hz,
            },
            _ if WITHOUT_EFFECT.contains(&name) => drop(on_off(name, value)?),
            _ => {
                let feature = feature::find(name).ok_or_else(|| unknown_property(name))?;
                self.features.set(feature, on_off(name, value)?);
            }
        }
        Ok(())
    }
}

fn parse_number(text: &str) -> Option<u64> {
    match text.strip_prefix("0x") {
        Some(hex) => u64::from_str_radix(hex, 16).ok(),
        None => text.parse().ok(),
    }
}

fn on_off(name: &str, value: &str) -> Result<bool, ModelError> {
    match value {
        "on" | "yes" | "true" | "y" => Ok(true),
        "off" | "no" | "false" | "n" => Ok(false),
        _ => Err(ModelError::Value {
            name: name.into(),
            value: value.into(),
        }),
    }
}

/// As properties are written now: QEMU takes `hv_relaxed` too.
fn dashed(name: &str) -> String {
    name.replace('_', "-")
}

fn unknown_property(name: &str) -> ModelError {
    let known = feature::names()
        .chain(feature::aliases())
        .chain(PROPERTIES.iter().copied())
        .chain(WITHOUT_EFFECT.iter().copied())
        .chain(HYPER_V.iter().copied());
    ModelError::Property {
        name: name.into(),
        near: closest(name, known),
    }
}

fn closest<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> Option<String> {
    hw_props::nearest(name, known).map(str::to_owned)
}

/// The text of `-cpu help`.
pub fn help() -> String {
    let mut text = String::from("Available CPUs:\n");
    let mut rows: Vec<_> = ROWS.iter().collect();
    rows.sort_by_key(|row| row.name.to_ascii_lowercase());
    for row in rows {
        text.push_str(&format!("  {:<22}{}\n", row.name, row.doc));
    }
    text.push_str("\nRecognized CPUID flags:\n");
    let mut line = String::from(" ");
    let mut names: Vec<_> = feature::names().collect();
    names.sort_unstable();
    for name in names {
        if line.len().saturating_add(name.len()) > 76 {
            text.push_str(&line);
            text.push('\n');
            line = String::from(" ");
        }
        line.push(' ');
        line.push_str(name);
    }
    text.push_str(&line);
    text.push('\n');
    text
}

/// Names and descriptions of all models.
pub fn models() -> impl Iterator<Item = (&'static str, &'static str)> {
    ROWS.iter().map(|row| (row.name, row.doc))
}
