//! Properties of models, by QEMU's names.

use super::table::{OLD_COUNTER_HZ, Row};
use super::{CpuModel, ModelError, bad_value, nearest_name, on_off};

/// A property of `-cpu`.
pub(super) struct Property {
    name: &'static str,
    doc: &'static str,
    pub(super) kind: Kind,
}

/// What a property does.
#[derive(Clone, Copy)]
pub(super) enum Kind {
    /// Pointer authentication as a whole.
    Pauth,
    /// Its algorithm is QARMA5 if nothing else is said.
    OldPauth,
    /// One of its algorithms.
    Algorithm(Algorithm),
    /// The counter's frequency in Hz.
    Frequency,
    /// The counter's frequency is that of models before Armv8.6.
    OldFrequency,
    /// The PMU.
    Pmu,
    /// MIDR_EL1.
    Midr,
    /// RVBAR_ELx, where firmware begins.
    Rvbar,
    /// What all models have: it cannot be off.
    Present(&'static str),
    /// What no model has: it cannot be on.
    Absent(&'static str),
    /// What is not chosen here.
    Elsewhere(&'static str),
    /// A switch of KVM's, with the only value that there is.
    Kvm(bool, &'static str),
}

/// How codes of pointers are computed (DDI 0487, D8.10.2).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Algorithm {
    Impdef,
    Qarma3,
    Qarma5,
}

impl Algorithm {
    const fn name(self) -> &'static str {
        match self {
            Algorithm::Impdef => "pauth-impdef",
            Algorithm::Qarma3 => "pauth-qarma3",
            Algorithm::Qarma5 => "pauth-qarma5",
        }
    }
}

const fn row(name: &'static str, doc: &'static str, kind: Kind) -> Property {
    Property { name, doc, kind }
}

const NO_SVE: Kind = Kind::Absent("the engine has no scalable vectors (SVE) yet");
const NO_SME: Kind = Kind::Absent("the engine has no scalable matrices (SME) yet");
const NO_AARCH32: &str = "the engine has no AArch32 above EL0";
const NO_SOFT_FLOAT: &str =
    "the engine has no CPUs without floating point, as kernels for this guest need it";
const OF_MACHINE: &str = "it is the machine's to decide; leave it out";

const PROPERTIES: &[Property] = &[
    row("pauth", "pointer authentication", Kind::Pauth),
    row(
        Algorithm::Impdef.name(),
        "its fast algorithm (the default)",
        Kind::Algorithm(Algorithm::Impdef),
    ),
    row(
        Algorithm::Qarma3.name(),
        "its algorithm QARMA3",
        Kind::Algorithm(Algorithm::Qarma3),
    ),
    row(
        Algorithm::Qarma5.name(),
        "its algorithm QARMA5, as without pauth-impdef",
        Kind::Algorithm(Algorithm::Qarma5),
    ),
    row(
        "backcompat-pauth-default-use-qarma5",
        "QARMA5 if no algorithm is chosen, as up to QEMU 9.2",
        Kind::OldPauth,
    ),
    row("cntfrq", "frequency of the counter in Hz", Kind::Frequency),
    row(
        "backcompat-cntfrq",
        "the counter runs at 62.5 MHz, as it did on all models up to QEMU 9.0",
        Kind::OldFrequency,
    ),
    row(
        "aarch64",
        "64-bit execution state",
        Kind::Present(NO_AARCH32),
    ),
    row("pmu", "performance monitors", Kind::Pmu),
    row("midr", "the main identification register", Kind::Midr),
    row("rvbar", "where firmware begins", Kind::Rvbar),
    row("vfp", "floating point", Kind::Present(NO_SOFT_FLOAT)),
    row("neon", "Advanced SIMD", Kind::Present(NO_SOFT_FLOAT)),
    row(
        "cfgend",
        "data is big-endian after reset",
        Kind::Absent("the engine has no big-endian data of AArch64"),
    ),
    row(
        "reset-hivecs",
        "AArch32 begins at its high vectors",
        Kind::Absent(NO_AARCH32),
    ),
    row(
        "has_el2",
        "EL2",
        Kind::Elsewhere("use '-machine virt,virtualization=on' or '=off'"),
    ),
    row(
        "has_el3",
        "EL3",
        Kind::Elsewhere("use '-machine virt,secure=on' or '=off'"),
    ),
    row("mp-affinity", "MPIDR_EL1", Kind::Elsewhere(OF_MACHINE)),
    row("reset-cbar", "CBAR_EL1", Kind::Elsewhere(OF_MACHINE)),
    row(
        "psci-conduit",
        "how firmware is called",
        Kind::Elsewhere(OF_MACHINE),
    ),
    row(
        "start-powered-off",
        "off until PSCI turns it on",
        Kind::Elsewhere(OF_MACHINE),
    ),
    row(
        "core-count",
        "cores of a cluster",
        Kind::Elsewhere(OF_MACHINE),
    ),
    row("node-id", "NUMA node", Kind::Elsewhere(OF_MACHINE)),
    row("sve", "scalable vectors", NO_SVE),
    row(
        "sve-max-vq",
        "greatest length of a scalable vector in 128 bits",
        Kind::Elsewhere("the engine has no scalable vectors (SVE) yet"),
    ),
    row("sme", "scalable matrices", NO_SME),
    row("sme_fa64", "all of A64 in streaming mode", NO_SME),
    row(
        "lpa2",
        "52-bit addresses with 4K and 16K granules",
        Kind::Absent("the engine's addresses have at most 48 bits"),
    ),
    row(
        "x-rme",
        "Realms",
        Kind::Absent("the engine has no Realm Management Extension"),
    ),
    row(
        "kvm-no-adjvtime",
        "KVM: the counter goes on while the machine is stopped",
        Kind::Kvm(true, "the counter goes on while the machine is stopped"),
    ),
    row(
        "kvm-steal-time",
        "KVM: guests are told of time that they did not get",
        Kind::Kvm(false, "guests are not told of stolen time yet"),
    ),
];

/// The property of a name. Each length of scalable vectors and matrices is one, too.
pub(super) fn property(name: &str) -> Result<&'static Property, ModelError> {
    let family = name.trim_end_matches(|c: char| c.is_ascii_digit());
    let bits = name.get(family.len()..).unwrap_or_default();
    let plain = match (family, bits.parse::<u32>()) {
        ("sve", Ok(bits)) if bits % 128 == 0 && (128..=2048).contains(&bits) => family,
        ("sme", Ok(128 | 256 | 512 | 1024 | 2048)) => family,
        _ => name,
    };
    let found = PROPERTIES.iter().find(|p| p.name == plain);
    found.ok_or_else(|| ModelError::Property {
        name: name.into(),
        near: nearest_name(name, PROPERTIES.iter().map(|p| p.name)),
    })
}

/// What is said of pointer authentication, until all of it is known.
#[derive(Default)]
pub(super) struct Pauth {
    is_off: bool,
    is_old: bool,
    impdef: Option<bool>,
    qarma3: bool,
    qarma5: bool,
}

impl Pauth {
    fn choose(&mut self, algorithm: Algorithm, on: bool) {
        match algorithm {
            Algorithm::Impdef => self.impdef = Some(on),
            Algorithm::Qarma3 => self.qarma3 = on,
            Algorithm::Qarma5 => self.qarma5 = on,
        }
    }

    /// The algorithm, or none without pointer authentication.
    fn algorithm(&self) -> Result<Option<Algorithm>, ModelError> {
        let mut chosen = [
            (self.impdef == Some(true), Algorithm::Impdef),
            (self.qarma3, Algorithm::Qarma3),
            (self.qarma5, Algorithm::Qarma5),
        ]
        .into_iter()
        .filter_map(|(is_on, algorithm)| is_on.then_some(algorithm));
        let first = chosen.next();
        let refused = match (first, chosen.next()) {
            (Some(first), None) if self.is_off => Some((first, "'pauth' is off")),
            (_, Some(second)) => Some((second, "there is one algorithm at a time")),
            _ => None,
        };
        if let Some((algorithm, why)) = refused {
            return Err(ModelError::Missing {
                name: algorithm.name().into(),
                why,
            });
        }
        let default = match self.is_old || self.impdef == Some(false) {
            true => Algorithm::Qarma5,
            false => Algorithm::Impdef,
        };
        Ok((!self.is_off).then_some(first.unwrap_or(default)))
    }

    /// Writes the outcome into the ID registers of a model that has it.
    pub(super) fn apply(&self, model: &mut CpuModel) -> Result<(), ModelError> {
        let algorithm = self.algorithm()?;
        let id = &mut model.id;
        // GPI, GPA, API and APA; GPA3 and APA3.
        id.isar1 &= !0xff00_0ff0;
        id.isar2 &= !0xff00;
        match algorithm {
            None => {}
            Some(Algorithm::Impdef) => id.isar1 |= 0x1000_0100,
            Some(Algorithm::Qarma3) => id.isar2 |= 0x1100,
            Some(Algorithm::Qarma5) => id.isar1 |= 0x0100_0010,
        }
        Ok(())
    }
}

impl CpuModel {
    /// One property of a model made from a row of the table.
    pub(super) fn set(
        &mut self,
        row: &Row,
        pauth: &mut Pauth,
        (name, value): (&str, &str),
    ) -> Result<(), ModelError> {
        let missing = |why| ModelError::Missing {
            name: name.into(),
            why,
        };
        match property(name)?.kind {
            Kind::Frequency => {
                let hz = number(value).filter(|hz| (1..=1 << 32).contains(hz));
                self.counter_hz = hz.ok_or_else(|| bad_value(name, value))?;
            }
            Kind::OldFrequency => {
                self.counter_hz = match on_off(name, value)? {
                    true => OLD_COUNTER_HZ,
                    false => row.counter_hz,
                }
            }
            Kind::Midr => {
                let midr = number(value).filter(|midr| u32::try_from(*midr).is_ok());
                self.id.midr = midr.ok_or_else(|| bad_value(name, value))?;
            }
            Kind::Rvbar => {
                // Instructions are aligned.
                let rvbar = number(value).filter(|at| at & 3 == 0);
                self.rvbar = rvbar.ok_or_else(|| bad_value(name, value))?;
            }
            Kind::Pmu => {
                let version = match on_off(name, value)? {
                    true => row.id.dfr0 & PMU_VERSION,
                    false => 0,
                };
                self.id.dfr0 = self.id.dfr0 & !PMU_VERSION | version;
            }
            Kind::Pauth => {
                let on = on_off(name, value)?;
                if on && !row.has_pauth() {
                    return Err(missing(NO_PAUTH));
                }
                pauth.is_off = !on;
            }
            Kind::OldPauth => pauth.is_old = on_off(name, value)?,
            Kind::Algorithm(algorithm) => {
                let on = on_off(name, value)?;
                if on && !row.has_pauth() {
                    return Err(missing(NO_PAUTH));
                }
                pauth.choose(algorithm, on);
            }
            Kind::Present(why) => {
                if !on_off(name, value)? {
                    return Err(ModelError::Lasting {
                        name: name.into(),
                        why,
                    });
                }
            }
            Kind::Absent(why) => {
                if on_off(name, value)? {
                    return Err(missing(why));
                }
            }
            Kind::Elsewhere(advice) => {
                return Err(ModelError::Elsewhere {
                    name: name.into(),
                    advice,
                });
            }
            Kind::Kvm(..) => {
                return Err(ModelError::Elsewhere {
                    name: name.into(),
                    advice: "it is for '-accel kvm'; leave it out",
                });
            }
        }
        Ok(())
    }
}

/// ID_AA64DFR0_EL1.PMUVer.
const PMU_VERSION: u64 = 0xf00;
const NO_PAUTH: &str = "this CPU model has no pointer authentication";

/// A number as QEMU reads it: decimal, or hexadecimal after `0x`.
fn number(text: &str) -> Option<u64> {
    let hexadecimal = text.strip_prefix("0x").or_else(|| text.strip_prefix("0X"));
    match hexadecimal {
        Some(digits) => u64::from_str_radix(digits, 16),
        None => text.parse(),
    }
    .ok()
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
    use crate::model::Feature;

    fn error(text: &str) -> String {
        CpuModel::parse(text).unwrap_err().to_string()
    }

    #[test]
    fn pointer_authentication_has_one_algorithm_of_three() {
        let id = |text: &str| {
            let id = CpuModel::parse(text).unwrap().id;
            (id.isar1 & 0xff00_0ff0, id.isar2 & 0xff00)
        };
        assert_eq!(id("max"), (0x1000_0100, 0));
        assert_eq!(id("max,pauth-impdef=off"), (0x0100_0010, 0));
        assert_eq!(id("max,pauth-qarma5=on"), (0x0100_0010, 0));
        assert_eq!(id("max,pauth-qarma3=on,pauth-impdef=off"), (0, 0x1100));
        assert_eq!(id("max,pauth=off"), (0, 0));
        let old = "max,backcompat-pauth-default-use-qarma5=on";
        assert_eq!(id(old), (0x0100_0010, 0));
        assert_eq!(id(&format!("{old},pauth-impdef=on")), (0x1000_0100, 0));
        assert_eq!(
            error("max,pauth-impdef=on,pauth-qarma3=on"),
            "'pauth-qarma3' cannot be turned on: there is one algorithm at a time"
        );
        assert_eq!(
            error("max,pauth-qarma5=on,pauth=off"),
            "'pauth-qarma5' cannot be turned on: 'pauth' is off"
        );
        assert_eq!(
            error("cortex-a76,pauth=on"),
            "'pauth' cannot be turned on: this CPU model has no pointer authentication"
        );
        assert!(CpuModel::parse("cortex-a76,pauth=off").is_ok());
    }

    #[test]
    fn registers_are_what_the_properties_say() {
        let model = CpuModel::parse("cortex-a72,midr=0x411fd070,rvbar=4096,pmu=off").unwrap();
        assert_eq!(model.id.midr, 0x411f_d070);
        assert_eq!(model.rvbar(), 4096);
        assert!(!model.has(Feature::Pmu));
        assert!(CpuModel::parse("max,pmu=off,pmu=on").unwrap().has_pmu());
        assert_eq!(error("max,rvbar=2"), "property 'rvbar' cannot be '2'");
        let hz = |text: &str| CpuModel::parse(text).unwrap().counter_hz();
        assert_eq!(hz("max"), 1_000_000_000);
        assert_eq!(hz("max,backcompat-cntfrq=on"), 62_500_000);
        assert_eq!(hz("max,cntfrq=24000000"), 24_000_000);
    }

    #[test]
    fn what_cannot_be_chosen_is_refused_with_a_reason() {
        assert!(CpuModel::parse("max,sve=off,sve256=off,sme2048=off,lpa2=off,aarch64=on").is_ok());
        assert_eq!(
            error("max,sve384=on"),
            "'sve384' cannot be turned on: the engine has no scalable vectors (SVE) yet"
        );
        assert_eq!(
            error("max,sve100=on"),
            "property 'sve100' not found (did you mean 'sve'?)"
        );
        assert_eq!(
            error("max,aarch64=off"),
            "'aarch64' cannot be turned off: the engine has no AArch32 above EL0"
        );
        assert_eq!(
            error("max,has_el3=on"),
            "'has_el3' is no choice here: use '-machine virt,secure=on' or '=off'"
        );
        assert_eq!(
            error("max,kvm-steal-time=on"),
            "'kvm-steal-time' is no choice here: it is for '-accel kvm'; leave it out"
        );
    }
}
