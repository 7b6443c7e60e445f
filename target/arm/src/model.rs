//! CPU models and the `-cpu` argument: tables of ID registers (DDI 0487, D23.2).
//!
//! Not modelled, and so not claimed: AArch32 above EL0, SM3, SM4, SVE, SME, MTE, the statistical profiling and trace
//! extensions, big-endian data.

mod feature;
mod host;
mod property;
mod table;

pub(crate) use feature::Feature;
pub use host::HostOptions;
pub use property::properties;

use feature::Features;
use property::Pauth;
use table::{MAX, NEW_COUNTER_HZ, ROWS};

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
    /// A feature that all models have.
    #[error("'{name}' cannot be turned off: {why}")]
    Lasting {
        /// The property.
        name: String,
        /// What is missing.
        why: &'static str,
    },
    /// What `-cpu` does not decide.
    #[error("'{name}' is no choice here: {advice}")]
    Elsewhere {
        /// The property.
        name: String,
        /// What to do instead.
        advice: &'static str,
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

/// A CPU model: what its ID registers show.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CpuModel {
    /// Name as in `-cpu`.
    pub name: &'static str,
    /// Its registers.
    pub id: IdRegisters,
    counter_hz: u64,
    rvbar: u64,
    features: Features,
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
            rvbar: 0,
            features: Features::default(),
        };
        let mut pauth = Pauth::default();
        for part in parts.map(str::trim).filter(|p| !p.is_empty()) {
            let given = part.split_once('=').unwrap_or((part, "on"));
            model.set(row, &mut pauth, given)?;
        }
        if row.has_pauth() {
            pauth.apply(&mut model)?;
        }
        model.refresh();
        Ok(model)
    }

    fn refresh(&mut self) {
        self.features = Features::of(&self.id);
    }

    /// Whether it has a feature.
    #[inline]
    pub fn has(&self, feature: Feature) -> bool {
        self.features.has(feature)
    }

    /// Whether it has half-precision arithmetic (FEAT_FP16).
    pub fn has_fp16(&self) -> bool {
        self.id.pfr0 >> 16 & 15 == 1
    }

    /// Whether it has pointer authentication.
    pub fn has_pauth(&self) -> bool {
        self.has(Feature::Pauth)
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

    /// RVBAR_ELx: where execution begins without a kernel that is entered directly.
    pub fn rvbar(&self) -> u64 {
        self.rvbar
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
            rvbar: 0,
            features: Features::default(),
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
    for (name, doc) in properties() {
        text.push_str(&format!("  {name:<22}{doc}\n"));
    }
    text
}

/// Names and descriptions of all models.
pub fn models() -> impl Iterator<Item = (&'static str, &'static str)> {
    let rows = ROWS.iter().map(|row| (row.name, row.doc));
    rows.chain([host::NAME_AND_DOC])
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
